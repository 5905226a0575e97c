# shellcheck shell=bash
# Functions that make and run a machine with a working /dev/kvm: the kernel of Debian's cloud images with kvm-amd in qemu-system-x86_64 under TCG, which emulates
# AMD-V, or (RIG_VMX=1) with kvm-intel in Bochs, which emulates VT-x. Sourced, with $rig set to a folder to keep things in.

# rig_package NAME: downloads and unpacks a Debian package into $rig/NAME, once.
rig_package() {
  [ -d "$rig/$1" ] && return
  local unpacking
  mkdir -p "$rig"
  unpacking=$(mktemp -d "$rig/unpacking.XXXXXX")
  (cd "$unpacking" && apt-get download -q "$1" >/dev/null 2>&1 && dpkg -x "$1"_*.deb . && rm "$1"_*.deb) \
    || { rm -r "$unpacking"; echo "kvm-rig: cannot get the package $1" >&2; return 1; }
  mv -T "$unpacking" "$rig/$1" 2>/dev/null || rm -r "$unpacking" # another run was quicker
}

# Sets $kernel and $modules. The package's name changes with security updates: ask apt.
rig_kernel() {
  mkdir -p "$rig"
  local name
  name=$(ls -d "$rig"/linux-image-*/ 2>/dev/null | head -n 1 | xargs -r basename) || true
  if [ -z "$name" ]; then
    name=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image/ { print $2; exit }')
    [ -n "$name" ] || { echo "kvm-rig: apt knows no linux-image-cloud-amd64" >&2; return 1; }
    rig_package "$name"
  fi
  kernel=$(echo "$rig/$name"/boot/vmlinuz-*)
  modules=$(echo "$rig/$name"/lib/modules/*/kernel)
}

# rig_initramfs OUT PROGRAM... -- [FILE...]: busybox, programs (with the three libraries that one published ahead of time needs), files below /data;
# standard input is the script to run. It loads the KVM modules, which lie in /mod, by itself or with load_kvm (RIG_PARAMETERS: kvm-intel's).
rig_initramfs() {
  local out=$1 root f
  shift
  root=$(mktemp -d)
  chmod 755 "$root"
  mkdir -p "$root"/{bin,etc,proc,sys,dev,tmp,var/tmp,mod,data,lib64,lib/x86_64-linux-gnu}
  cp /bin/busybox "$root/bin/"
  for f in sh mount chroot ifconfig tee insmod echo cat poweroff sleep ls mkdir mknod grep time head tail kill dmesg timeout md5sum tr cp sed cut rm unshare env wc chmod awk sort seq yes; do
    ln -s busybox "$root/bin/$f"
  done
  cp "$modules/virt/lib/irqbypass.ko" "$modules/arch/x86/kvm/kvm.ko" "$modules"/arch/x86/kvm/kvm-{amd,intel}.ko "$root/mod/"
  for f in ${RIG_SHARE:+$rig_share_modules}; do cp "$modules/$f.ko" "$root/mod/"; done
  cp -L /lib64/ld-linux-x86-64.so.2 "$root/lib64/"
  cp -L /lib/x86_64-linux-gnu/lib{c,m}.so.6 "$root/lib/x86_64-linux-gnu/"
  while [ "$1" != -- ]; do
    cp "$1" "$root/bin/"
    # what a program of others needs beyond those
    ldd "$1" 2>/dev/null | awk '$3 ~ /^\// { print $3 }' | while read -r f; do cp -L "$f" "$root/lib/x86_64-linux-gnu/"; done
    shift
  done
  shift
  for f in "$@"; do cp -L "$f" "$root/data/"; done
  mkdir -p "$root/usr/share"
  ln -s /data "$root/usr/share/seabios"
  {
    printf '%s\n' '#!/bin/sh' 'mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev' \
      'grep -qw vmx /proc/cpuinfo && vendor=intel || vendor=amd' "parameters='${RIG_PARAMETERS:-}'" \
      'load_kvm() { for m in irqbypass kvm; do insmod /mod/$m.ko; done; insmod /mod/kvm-$vendor.ko $parameters; }' \
      "enter_host() { for f in $(basename -a $rig_share_modules | xargs); do insmod /mod/\$f.ko; done" \
      '  mkdir /host; mount -t virtiofs -o ro host /host; ifconfig lo up' \
      '  mkdir /project; mount -o bind /host$1 /project # which may lie below what is hidden now' \
      '  mount -t ext4 /dev/vda /host/tmp; chmod 1777 /host/tmp; mount -o bind /host/tmp /host/var/tmp; for f in dev proc sys; do mount -o bind /$f /host/$f; done' \
      '  mkdir -p /host$1; mount -o bind /project /host$1' \
      '  mkdir -p /host/dev/pts; mount -t devpts none /host/dev/pts' \
      '  echo 1 >/proc/sys/vm/overcommit_memory; }' 'echo # the firmware left the line begun' 'while :; do echo kvm-rig-alive; sleep 5; done &'
    cat
    printf '%s\n' 'echo; echo kvm-rig-off; sleep 10' 'poweroff -f'
  } >"$root/init"
  chmod +x "$root/init"
  (cd "$root" && find . | cpio -o -H newc --quiet | gzip -1) >"$out"
  rm -r "$root"
}

# rig_guest OUT: the initramfs of the guest inside: loads the drivers of its disks, tells what it sees, powers off.
rig_guest() {
  local out=$1 root f
  root=$(mktemp -d)
  mkdir -p "$root"/{bin,proc,sys,dev,mod}
  cp /bin/busybox "$root/bin/"
  for f in sh mount insmod echo cat poweroff reboot dd md5sum ls grep sed cut wc sleep usleep dmesg head sync; do ln -s busybox "$root/bin/$f"; done
  for f in drivers/virtio/{virtio_ring,virtio,virtio_pci_modern_dev,virtio_pci_legacy_dev,virtio_pci} drivers/block/virtio_blk \
    drivers/char/hw_random/virtio-rng drivers/scsi/scsi_common drivers/scsi/scsi_mod drivers/scsi/sd_mod drivers/ata/libata drivers/ata/ata_piix; do
    cp "$modules/$f.ko" "$root/mod/" 2>/dev/null || true
  done
  cat >"$root/init" <<'INIT'
#!/bin/sh
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
for m in virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_blk virtio-rng \
  scsi_common scsi_mod sd_mod libata ata_piix; do
  [ -f /mod/$m.ko ] && insmod /mod/$m.ko
done
for i in 1 2 3 4 5 6 7 8 9 10; do grep -q 'vda\|sda' /proc/partitions && break; usleep 100000 2>/dev/null || sleep 1; done
# a disk that asks for it: once
if [ "$(dd if=/dev/vda bs=16 count=1 skip=262144 2>/dev/null)" = "reboot once here" ]; then
  echo "GUEST-REBOOTS"
  echo "rebooted already" | dd of=/dev/vda bs=16 count=1 seek=262144 conv=fsync 2>/dev/null
  reboot -f
fi
echo "GUEST-MODEL $(grep -m 1 '^model name' /proc/cpuinfo | cut -d: -f2 | sed 's/^ //')"
echo "GUEST-HYPERVISOR $(dmesg | grep -m 1 'Hypervisor detected' | sed 's/.*: //')"
echo "GUEST-CPUS $(grep -c ^processor /proc/cpuinfo) clock $(cat /sys/devices/system/clocksource/clocksource0/current_clocksource) timer $(cat /sys/devices/system/clockevents/clockevent0/current_device)"
for b in vda sda; do
  [ -b /dev/$b ] || continue
  echo "GUEST-MD5 $b $(dd if=/dev/$b bs=64k count=16 2>/dev/null | md5sum | cut -d' ' -f1)"
  dd if=/dev/$b of=/dev/$b bs=4096 count=4 seek=512 2>/dev/null
done
[ -c /dev/hwrng ] && echo "GUEST-RNG $(dd if=/dev/hwrng bs=16 count=1 2>/dev/null | wc -c)"
echo GUEST-DONE
poweroff -f
INIT
  chmod +x "$root/init"
  (cd "$root" && find . | cpio -o -H newc --quiet | gzip -1) >"$out"
  rm -r "$root"
}

# rig_run INITRAMFS SECONDS OPTION...: boots the machine and prints its console. It has one processor: with two, QEMU 7.2's TCG can go on executing
# an instruction that the other processor has patched meanwhile (Linux does so in __schedule whenever the first virtual machine is made and the
# last one goes), and that processor stands in an int3 that is no longer there for ever. Its timer is a periodic one: TCG changes a processor's
# pending interrupts without lock when a guest is entered with a virtual interrupt pending, and can forget one that comes right then; a tick that is
# lost is followed by the next.
# It is told how fast its time-stamp counter goes (TCG shows the host's): when the host is busy, it measures several times less, its time and all its
# guests' runs that much too fast, and they hardly get on for timer interrupts.
# With RIG_CLOCK=instructions its clock goes by the instructions that it executes, a nanosecond each: what it measures does not depend on how busy the host is,
# nor on what TCG takes to translate. The fast string instructions are hidden then: each byte of theirs would count as an instruction.
rig_run() {
  [ -z "${RIG_VMX:-}" ] || { rig_bochs "$@"; return; }
  local initramfs=$1 limit=$2 tsc clock=() share=() RIG_SILENCE=${RIG_SILENCE:-60}
  shift 2
  if [ "${RIG_CLOCK:-host}" = instructions ]; then
    clock=(-icount shift=0,sleep=off -cpu max,-erms,-fsrm)
    tsc=1000000
    RIG_SILENCE=$((RIG_SILENCE * 5)) # the heart beats by that clock, too
  else
    gcc -O1 -o "$initramfs.tsc" tests/KvmRig/tsc.c
    tsc=$("$initramfs.tsc")
  fi
  [ -z "${RIG_SHARE:-}" ] || rig_share "$initramfs.share"
  rig_watch "$limit" qemu-system-x86_64 -accel tcg -cpu max -machine pc -nographic -no-reboot -nic none -vga none -m 1G -smp "${RIG_SMP:-1}" "${clock[@]}" "${share[@]}" \
    -kernel "$kernel" -initrd "$initramfs" \
    -append "console=ttyS0 panic=-1 quiet nohz=off highres=off tsc_early_khz=$tsc tsc=reliable nowatchdog rcupdate.rcu_cpu_stall_suppress=1" "$@"
}

# Modules by which a machine sees this host's files. With RIG_SHARE=1 enter_host PROJECT mounts them at /host, read-only, but for /tmp and
# /var/tmp: a disk of the machine's, from which the folder PROJECT sticks out where it lies there.
rig_share_modules="drivers/virtio/virtio_ring drivers/virtio/virtio drivers/virtio/virtio_pci_modern_dev drivers/virtio/virtio_pci_legacy_dev drivers/virtio/virtio_pci drivers/block/virtio_blk fs/fuse/fuse fs/fuse/virtiofs"

# rig_share SOCKET: serves them once, with SOCKET.disk for what is written, and sets $share to the machine's options.
rig_share() {
  local tries root=()
  rm -f "$1" "$1.disk"
  truncate -s 2G "$1.disk"
  mke2fs -q -t ext4 "$1.disk"
  # it takes this host's root for its own, which only root may
  [ "$(id -u)" = 0 ] || root=(sudo -n)
  "${root[@]}" /usr/lib/qemu/virtiofsd --socket-path="$1" ${root:+--socket-group="$(id -gn)"} -o source=/ -o sandbox=chroot -o cache=always -o log_level=err >/dev/null 2>&1 &
  for tries in $(seq 100); do [ ! -S "$1" ] || break; sleep 0.1; done
  share=(-m 2G -object memory-backend-memfd,id=ram,size=2G,share=on -numa node,memdev=ram -chardev "socket,id=files,path=$1" -device vhost-user-fs-pci,chardev=files,tag=host
    -drive "file=$1.disk,format=raw,if=virtio,cache=unsafe")
}

# Spares a kernel on a slow processor the tests of its own ciphers, its certificates, and what else takes long.
rig_quick=cryptomgr.notests\ initcall_blacklist=load_system_certificate_list,init_kprobe_trace,crypto_kdf108_init,cubictcp_register,slab_sysfs_init

# rig_bochs INITRAMFS SECONDS: as rig_run, with a processor that has VT-x (and no AMD-V). RIG_MODEL: its model.
# It executes 20 to 40 million instructions a second, so the kernel is spared what takes the longest.
# Its clock goes by the instructions, 100 million to a second: at 20 the timer interrupts of a Linux take all its time with kernel_irqchip=off.
rig_bochs() {
  local initramfs=$1 limit=$2 d=$1.bochs alone=
  rm -rf "$d"
  mkdir -p "$d/cd"
  cp "$kernel" "$d/cd/vmlinuz"
  cp "$initramfs" "$d/cd/initrd"
  printf '%s\n' "linux (cd)/vmlinuz console=ttyS0,115200 panic=-1 quiet mitigations=off nowatchdog rcupdate.rcu_cpu_stall_suppress=1 $rig_quick" \
    'initrd (cd)/initrd' boot >"$d/grub.cfg"
  grub-mkimage -O i386-pc-eltorito -p / -c "$d/grub.cfg" -o "$d/cd/loader" biosdisk iso9660 linux
  xorriso -as mkisofs -quiet -o "$d/cd.iso" -b loader -no-emul-boot -boot-load-size 4 -boot-info-table "$d/cd" 2>/dev/null
  rm -r "$d/cd"
  # its screen is a server: on a network of its own
  ! unshare -rn true 2>/dev/null || alone="unshare -rn"
  # the debugger that Debian's has is told to go on
  echo c >"$d/commands"
  cat >"$d/configuration" <<CONFIGURATION
display_library: rfb, options="timeout=0"
megs: ${RIG_MEGABYTES:-512}
cpu: model=${RIG_MODEL:-corei7_haswell_4770}, ips=100000000, count=1
clock: sync=none
romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=/usr/share/seabios/vgabios-stdvga.bin
ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
ata0-master: type=cdrom, path=$d/cd.iso, status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev=/dev/fd/9
speaker: enabled=0
sound: waveoutdrv=dummy, waveindrv=dummy, midioutdrv=dummy
log: $d/log
panic: action=fatal
error: action=ignore
info: action=ignore
debug: action=ignore
CONFIGURATION
  RIG_SILENCE=${RIG_SILENCE:-300} rig_watch "$limit" bash -c "exec 9>&1 >'$d/messages' 2>&1; exec $alone bochs-bin -q -f '$d/configuration' -rc '$d/commands'"
}

# rig_watch SECONDS COMMAND...: runs a command whose output is the console of a machine of rig_initramfs, and prints that.
# A heartbeat on the console tells a machine that stands still (or has died) from a program in it that does not come to its end.
# Status 0: its script came to the end; 1: out of time; 2: the machine itself failed, whatever ran in it.
rig_watch() {
  local limit=$1 line console pid end=$((SECONDS + $1)) off= why= silence=${RIG_SILENCE:-60}
  shift
  exec {console}< <(exec timeout -k 5 "$((limit + 60))" "$@" </dev/null 2>&1)
  pid=$!
  while :; do
    if IFS= read -r -t "$silence" -u "$console" line; then
      line=${line%$'\r'}
      case $line in
        *kvm-rig-alive*) ;;
        kvm-rig-off*) off=1; break ;;
        *) printf '%s\n' "$line" ;;
      esac
    elif [ $? -gt 128 ]; then
      why="no sign of life for $silence s"
      break
    else
      break
    fi
    [ $SECONDS -lt $end ] || { why="out of time after $limit s"; break; }
  done
  kill "$pid" 2>/dev/null || true
  exec {console}<&-
  wait "$pid" 2>/dev/null || true
  [ -n "$why$off" ] || why="it ended before its time"
  [ -z "$why" ] || echo "kvm-rig: the machine: $why"
  case $why in "") return 0 ;; out*) return 1 ;; *) return 2 ;; esac
}

# rig_attempts KIND NAME INITRAMFS SECONDS: runs the machine, and a fresh one once more where the machine itself stood still or died with nothing failed
# (no "KIND ...: FAIL"): that is not of the programs' doing. Everything else counts.
rig_attempts() {
  local kind=$1 name=$2 initramfs=$3 limit=$4 status attempt
  for attempt in 1 2; do
    rig_run "$initramfs" "$limit" | tee "$initramfs.console" | sed -u "s|^kvm-rig: the machine|& of $name|"
    status=${PIPESTATUS[0]}
    grep -qE "^$kind .*: FAIL" "$initramfs.console" && break
    case $status in
      0) return 0 ;;
      2) [ $attempt = 2 ] || echo "kvm-rig: the emulated host is at fault, not what ran in it: $name once more in a fresh one" ;;
      *) break ;;
    esac
  done
  [ $status = 0 ] || echo "kvm-rig: $name did not come to its end"
}

# rig_verdict LOG KIND...: prints how many passed and failed; status 0 when all of each kind did, and every machine came to its end.
rig_verdict() {
  local log=$1 kind failed
  shift
  # a machine that was run twice names what passed twice
  sum() { grep -oE "^($(IFS='|'; echo "$*")) .*: $verdict" "$log" | sort -u | wc -l; }
  failed=$(verdict=FAIL sum "$@")
  echo "KVM passed $(verdict=pass sum "$@") failed $failed"
  for kind in "$@"; do grep -qE "^$kind .*: pass" "$log" || { echo "test-kvm: nothing passed of $kind" >&2; return 1; }; done
  [ "$failed" = 0 ] && ! grep -q '^kvm-rig: .* did not come to its end' "$log"
}
