# shellcheck shell=bash
# Functions that make and run a machine with a working /dev/kvm: qemu-system-x86_64 under TCG (which emulates AMD-V) with the kernel of
# Debian's cloud images and kvm-amd. Sourced, with $rig set to a folder to keep things in.

# Sets $kernel and $modules; downloads and unpacks the package once. Its name changes with security updates: ask apt.
rig_kernel() {
  mkdir -p "$rig"
  local name
  name=$(ls -d "$rig"/linux-image-*/ 2>/dev/null | head -n 1 | xargs -r basename) || true
  if [ -z "$name" ]; then
    name=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image/ { print $2; exit }')
    [ -n "$name" ] || { echo "kvm-rig: apt knows no linux-image-cloud-amd64" >&2; return 1; }
    (cd "$rig" && apt-get download -q "$name" >/dev/null 2>&1 && dpkg -x "$name"_*.deb unpacking && rm "$name"_*.deb && mv unpacking "$name")
  fi
  kernel=$(echo "$rig/$name"/boot/vmlinuz-*)
  modules=$(echo "$rig/$name"/lib/modules/*/kernel)
}

# rig_initramfs OUT PROGRAM [FILE...]: busybox, the KVM modules, a program published ahead of time (with the three libraries it needs) and more
# files below /data; standard input is the script to run once /dev/kvm is there.
rig_initramfs() {
  local out=$1 program=$2 root f
  shift 2
  root=$(mktemp -d)
  mkdir -p "$root"/{bin,proc,sys,dev,tmp,mod,data,lib64,lib/x86_64-linux-gnu}
  cp /bin/busybox "$root/bin/"
  for f in sh mount insmod echo cat poweroff sleep ls mkdir grep time head tail kill dmesg; do ln -s busybox "$root/bin/$f"; done
  cp "$modules/virt/lib/irqbypass.ko" "$modules/arch/x86/kvm/kvm.ko" "$modules/arch/x86/kvm/kvm-amd.ko" "$root/mod/"
  cp "$program" "$root/bin/"
  cp -L /lib64/ld-linux-x86-64.so.2 "$root/lib64/"
  cp -L /lib/x86_64-linux-gnu/lib{c,m}.so.6 "$root/lib/x86_64-linux-gnu/"
  for f in "$@"; do cp -L "$f" "$root/data/"; done
  {
    printf '%s\n' '#!/bin/sh' 'mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev' \
      'for m in irqbypass kvm kvm-amd; do insmod /mod/$m.ko; done'
    cat
    echo 'poweroff -f'
  } >"$root/init"
  chmod +x "$root/init"
  (cd "$root" && find . | cpio -o -H newc --quiet | gzip -1) >"$out"
  rm -r "$root"
}

# rig_run INITRAMFS LOG SECONDS OPTION...: boots the machine; its serial console goes to LOG.
rig_run() {
  local initramfs=$1 log=$2 limit=$3
  shift 3
  timeout -k 5 "$limit" qemu-system-x86_64 -accel tcg -cpu max -machine pc -nographic -no-reboot -nic none -vga none \
    -kernel "$kernel" -initrd "$initramfs" -append "console=ttyS0 panic=-1 quiet" "$@" </dev/null >"$log" 2>&1 \
    || echo "kvm-rig: qemu ended with $? (124: out of time)" >>"$log"
}
