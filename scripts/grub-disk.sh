# shellcheck shell=bash
# A function that makes disks which a BIOS starts, without mounting or loop devices. Sourced.

# grub_disk FOLDER IMAGE MEGABYTES UUID: a raw disk with one partition, an ext4 of that UUID that holds the folder's files, and GRUB, which runs
# boot/grub/grub.cfg of it. GRUB's modules are added to the folder. Works in the image's folder.
grub_disk() (
  folder=$1 image=$2 megabytes=$3 uuid=$4 from=/usr/lib/grub/i386-pc
  export PATH=$PATH:/usr/sbin:/sbin
  put() { dd of="$1" bs=1 seek=$(($2)) conv=notrunc status=none; }       # FILE OFFSET <BYTES
  little() { local i; for ((i = 0; i < $2; i++)); do printf "\\x$(printf %02x $(($1 >> 8 * i & 255)))"; done; }     # VALUE BYTES

  mkdir -p "$folder/boot/grub/i386-pc"
  cp $from/*.mod $from/*.lst "$folder/boot/grub/i386-pc/"
  mke2fs -q -t ext4 -U "$uuid" -L root -E hash_seed="$uuid" -O '^metadata_csum_seed,^orphan_file' -d "$folder" "$image.root" $((megabytes - 1))M >&2

  # The core image, for the gap before the partition: it finds the file system on whatever disk the BIOS knows it as.
  echo "search.fs_uuid $uuid root
set prefix=(\$root)/boot/grub" >"$image.early"
  grub-mkimage -O i386-pc -o "$image.core" -c "$image.early" -p /boot/grub \
    biosdisk part_msdos ext2 search search_fs_uuid configfile normal linux serial terminal minicmd echo ls
  sectors=$((($(stat -c %s "$image.core") + 511) / 512))
  [ $sectors -lt 2047 ] || { echo "grub_disk: the loader does not fit before the partition" >&2; exit 1; }
  # As grub-install does: the drive number that the BIOS passes is looked at, not believed (the jump over that goes); the core begins in
  # sector 1; the disk is the one that was started from. The core's first sector then loads the rest: from sector 2, to segment 0x820.
  cp $from/boot.img "$image.first"
  printf '\x90\x90' | put "$image.first" 0x66
  little 1 8 | put "$image.first" 0x5c
  little 255 1 | put "$image.first" 0x64
  { little 2 8; little $((sectors - 1)) 2; little $((0x820)) 2; } | put "$image.core" 0x1f4

  truncate -s "${megabytes}M" "$image"
  printf 'label: dos\nlabel-id: 0x696d676b\nstart=2048, type=83, bootable\n' | sfdisk -q "$image"
  dd if="$image.first" of="$image" bs=1 count=440 conv=notrunc status=none        # the partition table is behind them
  dd if="$image.core" of="$image" bs=512 seek=1 conv=notrunc status=none
  dd if="$image.root" of="$image" bs=1M seek=1 conv=notrunc,sparse status=none
  rm -f "$image".{root,early,core,first}
)
