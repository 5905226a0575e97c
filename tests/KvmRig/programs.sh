# Sourced inside the machine that offers KVM: what the program prints, and how it ends, for what it finds.
# say NAME STATUS TEXT COMMAND...: the command must end with that status and print one line with that text (all of the output for status 0) within
# a minute; more than one line on standard error is a failure.
say() {
  name=$1 status=$2 text=$3
  shift 3
  "$@" </dev/null >out.log 2>err.log
  rc=$?
  if [ $rc != "$status" ]; then r="FAIL status $rc: $(head -n 3 err.log)"
  elif ! cat out.log err.log | grep -q -e "$text"; then r="FAIL said: $(head -n 3 err.log out.log)"
  elif [ "$(wc -l <err.log)" -gt 1 ]; then r="FAIL more than one line: $(head -n 5 err.log)"
  else r=pass; fi
  echo "PROGRAM $name: $r"
}
# Starts a machine that stands still, and quits.
still() { { echo info kvm; echo quit; } | timeout 60 $KVM -S -display none -vga none -serial none -monitor stdio -m 16 -bios bios "$@"; }
still_as() { { echo info kvm; echo quit; } | $NOBODY $KVM -S -display none -vga none -serial none -monitor stdio -m 16 -bios bios "$@"; }
# A command without /dev/kvm.
hidden() {
  unshare -m sh -c 'mount -t tmpfs none /dev && mknod /dev/null c 1 3 && mknod /dev/random c 1 8 && mknod /dev/urandom c 1 9 && exec "$@"' sh "$@"
}

programs_without_module() {
  say "check, no module" 1 "can NOT be used: $1" $KVM -accel kvm,check
  say "auto, no module" 0 "KVM cannot be used, the software CPU runs the guest: $1" still
  say "demanded, no module" 1 "cannot use KVM: $1" still -accel kvm
}

# $paging: what the module uses
programs() {
  say "check" 0 "^KVM acceleration can be used" $KVM -accel kvm,check
  say "check names extension and paging" 0 "^nested paging: $paging" $KVM -accel kvm,check
  say "accelerators" 0 "^This host: kvm can be used" $KVM -accel help
  say "auto takes KVM" 0 "^kvm support: enabled" still
  say "auto says nothing when it takes KVM" 0 "^0 err.log" sh -c "{ echo quit; } | $KVM -S -display none -vga none -serial none -monitor stdio -m 16 -bios bios >/dev/null 2>err.log; wc -l err.log"
  say "-no-kvm" 0 "^kvm support: disabled" still -no-kvm
  chmod 600 /dev/kvm
  say "no permission, auto" 0 "the software CPU runs the guest: no permission to open /dev/kvm" still_as
  say "no permission, demanded" 1 "cannot use KVM: no permission to open /dev/kvm" still_as -enable-kvm
  say "no permission, check" 1 "can NOT be used: no permission" $NOBODY $KVM -accel kvm,check
  say "no device, demanded" 1 "cannot use KVM: there is no /dev/kvm here" hidden $KVM -accel kvm -display none -bios bios
  say "a flag that the host does not offer" 1 "-cpu qemu64: this host's KVM does not offer avx512-4vnniw" still -accel kvm -cpu qemu64,+avx512-4vnniw
  say "a flag that the host does not offer, auto" 0 "the software CPU runs the guest: -cpu qemu64: this host's KVM does not offer avx512-4vnniw" still -accel auto -cpu qemu64,+avx512-4vnniw
  say "a model of more than the host offers" 0 "warning: -cpu qemu64: this host's KVM does not offer sse3: left out" \
    sh -c "echo quit | LD_PRELOAD=$LACK LACK_SSE3=1 $KVM -accel kvm -cpu qemu64 -S -display none -vga none -serial none -monitor stdio -m 16 -bios bios"
  say "a model of more than the host offers, enforced" 1 "-cpu qemu64: this host's KVM does not offer sse3" \
    env LD_PRELOAD="$LACK" LACK_SSE3=1 $KVM -accel kvm -cpu qemu64,enforce -S -display none -bios bios
  say "an enlightenment that needs another" 1 "Hyper-V synthetic timers (hv-stimer) requires Hyper-V synthetic interrupt controller (hv-synic)" still -accel kvm -cpu host,hv-time,hv-stimer
  say "an enlightenment without its controllers" 1 "hv-synic) needs the kernel's local APICs" still -accel kvm,kernel_irqchip=off -cpu host,hv-vpindex,hv-synic
  say "all enlightenments that there are" 0 "^kvm support: enabled" still -accel kvm -cpu host,hv-passthrough
  say "a crash that Hyper-V is told of" 0 '"GUEST_PANICKED","data":{"action":"poweroff","info":{"type":"hyper-v","arg1":16,"arg2":17,"arg3":18,"arg4":19,"arg5":20}}' \
    sh -c "{ echo '{\"execute\": \"qmp_capabilities\"}'; echo '{\"execute\": \"cont\"}'; sleep 5; } | timeout 60 $KVM -accel kvm -cpu host,hv-crash -S -display none -vga none -serial none -monitor none -qmp stdio -m 16 -bios crash-bios"
  say "memory that cannot be had" 1 "cannot set up guest memory 'pc.ram'" still -accel kvm -m 60T
  for capability in "immediate exit|136" "read-only memory|81" "vCPU events|41"; do
    say "a kernel without ${capability%|*}" 1 "this kernel's KVM lacks: ${capability%|*}" env LD_PRELOAD="$LACK" LACK=${capability#*|} $KVM -accel kvm -S -display none -bios bios
  done
  say "a kernel without split irqchip" 1 "no split interrupt controllers" env LD_PRELOAD="$LACK" LACK=121 $KVM -accel kvm,kernel_irqchip=split -S -display none -bios bios
  say "a kernel without capability, auto" 0 "the software CPU runs the guest: this kernel's KVM lacks: immediate exit" env LD_PRELOAD="$LACK" LACK=136 sh -c "echo quit | $KVM -S -display none -vga none -serial none -monitor stdio -m 16 -bios bios"

  # A guest that jumps to where nothing is: KVM cannot emulate it. Reason and registers once, status 1, and the image is closed.
  timeout 60 $KVM -accel kvm -display none -serial none -monitor none -m 16 -bios bad-bios -drive file=reboot.qcow2,format=qcow2 </dev/null >out.log 2>err.log
  rc=$?
  if [ $rc = 1 ] && [ "$(grep -c 'KVM: internal error' err.log)" = 1 ] && [ "$(grep -c 'EIP=' err.log)" = 1 ] && [ "$(grep -c '^CS ' err.log)" = 1 ] \
    && ! grep -q ' at ' err.log && $IMG check -q reboot.qcow2; then r=pass
  else r="FAIL status $rc: $(head -n 20 err.log)"; fi
  echo "PROGRAM internal error: $r"
}
