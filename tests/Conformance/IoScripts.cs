namespace ImgKit.Conformance;

/// <summary>Scripts of commands for kvm-io and qemu-io: image formats, options of the program, and commands, separated by bars.</summary>
internal static class IoScripts
{
    /// <summary>What is printed, the exit code and the disk's content are the same.</summary>
    public const string Same = """
        raw,qcow2,vmdk||read 0 1k
        raw,qcow2,vmdk||read -v 1000 40
        raw||read -C 0 1k|read -Cq 0 1k|r 0 1k|read -p 0 1k|read -b 0 512
        qcow2||write -b 0 512|read -b -P 0xcd 0 512|read -bv 0 32|read -b 0 100|write -b 100 512|write -b 1k 100
        raw,qcow2||read -P 0 -l 512 0 1k|read -P 0 -s 512 0 1k|read -P 1 -s 512 -l 256 0 1k|read -P 0 -s 512 -l 1k 0 1k|read -l 512 0 1k|read -P 0 -s x 0 1k|read -P 0 -l x 0 1k
        raw||read -P -1 0 512|read -P 256 0 512|read -P 0xff 0 512|read -P 010 0 512|read -P 08 0 512|read -P 1k 0 512|read -P "" 0 512|read -P + 0 512|read -P +5 0 512
        raw||read 0x200 0x200|read 0.5k 0.5k|read 1.5 2|read 1b 1B|read 1K 1M|read 1T 1|read 1P 1|read 1E 1|read 8E 1|read 16E 1|read 0x 1|read 0xg 1|read 1e3 1|read 1.k 1|read .5k 1
        raw||read -1 1|read 0 -1|read 99999999999999999999 1|read 9223372036854775807 1|read 9223372036854775808 1|read 18446744073709551616 1|read 0 9223372036854775807
        raw||read 1M 0|read 1M 1|read 1048575 1|read 1048575 2|read 2M 0|write 1M 0|write 1M 1|write 1048575 2|write 2M 0
        raw||read 0 2G|read 0 2147483136|read 0 2147483137|write 0 2G|write -z 0 2G|write -zn 0 2G|write -zn 0 4G|discard 0 2G|discard 0 2147483136
        raw||read|read 0|read 0 1 2|read -Q 0 1|read -P 0|read -P|write|write 0|write 0 1 2|write -Q 0 1|readv|readv 0|aio_read|aio_read 0|discard|discard 0|discard 0 1 2|discard -Q 0 1
        raw,qcow2,overlay,vmdk||write 0 512|read -P 0xcd 0 512|write -P 7 100 1000|read -P 7 100 1000|read -v 96 16
        raw,qcow2,overlay||write -z 0 64k|read -P 0 0 64k|map|alloc 0 1M|write -zu 64k 64k|read -P 0 64k 64k|map
        raw,qcow2,overlay||write -zn 0 64k|write -zn 100 100|map|write -f 0 64k|write -fz 64k 64k|map
        qcow2,overlay||write -c 0 64k|write -c -P 5 64k 64k|read -P 5 64k 64k|write -c 100 512|write -c 512 512|write -c 0 1k|map
        raw||write -c 0 64k|write -cz 0 64k
        qcow2||write -cz 0 64k|write -cf 0 512|write -bf 0 512|write -bz 0 512|write -zP 0 0 512|write -s x -P 1 0 512|write -s x -z 0 512|write -n 0 512|write -u 0 512|write -bc 0 512
        raw||write -s /nothing 0 512|write -s /dev/null 0 512|write -s image 0 512|write -s /etc/passwd 0 100k|read -v 0 100|write -s /tmp 0 512
        raw,qcow2||writev -P 3 0 512 1k 100|readv -P 3 0 100 512 1k|readv -v 0 16 16|readv -C 0 16 16|writev -f 0 512|writev -Q 0 1|readv -Q 0 1|writev -q 0 512
        raw||writev 0 x|writev x 0|writev 0 2G|writev 0 1G 1G|writev 0 1G 1G 1G|readv 0 1G 1G 1G|writev 1M 512|readv 1M 512|readv 0 0 0|readv 0 0 512 0
        raw,qcow2||aio_write -P 4 0 512|aio_flush|aio_read -P 4 0 512|aio_flush|aio_read -P 5 0 512|aio_flush|aio_read -v 0 16|aio_flush|aio_read -C 0 16|aio_flush|aio_read -q 0 16|aio_flush
        raw,qcow2||aio_write -z 0 64k|aio_flush|aio_write -zu 64k 64k|aio_flush|aio_write -f 0 512|aio_flush|aio_write -zf 0 512|aio_flush
        raw||aio_write -u 0 512|aio_write -z 0 1 2|aio_write -zP 1 0 512|aio_flush|aio_write 0|aio_write -i 0 512|aio_read -i 0 512|aio_read -iQ 0 512|aio_write -ix 1 2
        raw||aio_read 1M 512|aio_flush|aio_write 1M 512|aio_flush|aio_read 0 3G|aio_write 0 3G
        raw,qcow2,overlay||write 0 128k|discard 0 64k|read -P 0 0 64k|map|discard -C 64k 64k|discard -q 0 64k|discard 1M 1|discard 1048575 1|discard 100 100
        raw,qcow2|-d ignore|write 0 128k|discard 0 64k|read -P 0xcd 0 64k|map
        raw,qcow2,overlay,vmdk||flush|f|flush 1|length|l|length 1
        raw,qcow2||truncate 2M|length|truncate 1M|length|truncate 512|length|truncate 513|length|truncate 0|length|truncate x|truncate -m off 1M|truncate -m falloc 1M|truncate -m full 1M
        raw||truncate -m metadata 2M|truncate -m foo 1M|truncate|truncate 1 2 3 4|truncate -x 1
        raw,qcow2||info|i|info 1
        raw,qcow2,overlay,vmdk||map|map 1|map 1 2|alloc 0|alloc 0 1M|alloc 512k 1M|alloc 2M|alloc 1M|alloc 0 0|alloc 0 512 3|alloc x|alloc 0 x|alloc 100 100|alloc 1
        raw||foo|read|
        raw||sleep 1|sleep x|sleep|sleep 1 2|sleep -1|sleep 0
        raw||close|read 0 512|close|open -x a|open a b|open -t foo a|open -d foo a|open -i foo a|open /nothing|open|open image|length|open image
        raw||close|open -o driver=raw image|length|close|open -o file.filename=image,driver=raw|length|close|open -r -o driver=raw image|write 0 1|close|open -U image
        raw||close|open -s -o driver=raw image|write 0 512|read -P 0xcd 0 512|close|open -rU -o driver=raw image|length|close|open -k image|open -rC image
        raw||reopen -r|write 0 512|reopen -w|write 0 512|reopen -rw|reopen -c none|reopen -c foo|reopen a|reopen -o foo=bar|reopen -o discard=unmap
        raw||reopen -r -o read-only=off|reopen -w -o read-only=off|reopen -c none -o cache.direct=on|reopen|reopen -x
        qcow2||reopen -r|write 0 512|reopen -w|write 0 512|reopen -o lazy-refcounts=on|info|reopen -o lazy-refcounts=x|reopen -o overlap-check=none|reopen -o l2-cache-size=64k
        raw||break x y|break|break read_aio A|resume y|resume|remove_break y|remove_break|wait_break|wait_break A x
        raw||help|help read|help r|help write|help readv|help writev|help aio_read|help aio_write|help discard|help open|help reopen|help sigraise|help truncate|help foo|help map|help a b
        raw||help info|help length|help flush|help close|help quit|help sleep|help alloc|help abort|help break|help resume|help remove_break|help wait_break|help aio_flush|help help
        raw||q|length
        raw||quit 5|length
        raw||sigraise x|sigraise 66|sigraise|sigraise 0|sigraise 1 2|sigraise 15|length
        raw|-r|write 0 512|discard 0 512|truncate 2M|aio_write 0 512|writev 0 512|flush|read 0 512|map
        qcow2|-r|write 0 512|discard 0 512|truncate 2M|flush|write -z 0 512
        raw,qcow2|-s|write 0 64k|read -P 0xcd 0 64k|map|truncate 2M|length
        raw|-n|write 0 512|read -P 0xcd 0 512|write 100 100|read -P 0xcd 100 100|write -z 0 4k
        raw|-m|write 0 512|read -P 0xcd 0 512
        raw|-n -m|write 0 4k|read -P 0xcd 0 4k
        raw|-k|read 0 512
        raw|-n -k|read 0 512
        raw|-i native|read 0 512
        raw|-i foo|read 0 512
        raw|-t foo|read 0 512
        raw|-t none|read 0 512
        raw|-t unsafe|write 0 512|flush
        raw|-t directsync|write 0 512
        raw|-t writethrough|write 0 512
        raw|-d foo|read 0 512
        raw|-U|read 0 512
        raw|-rU|read 0 512
        raw|-T foo|read 0 512
        overlay|-C|read 0 512|map|alloc 0 1M|read 512k 512|map
        overlay|-r -C|read 0 512|map
        """;
}
