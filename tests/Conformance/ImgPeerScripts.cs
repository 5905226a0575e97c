namespace ImgKit.Conformance;

/// <summary>Command lines that <see cref="ImgPeerTests"/> runs with both programs. A line that starts with ! is for the shell, in both folders.</summary>
internal static class ImgPeerScripts
{
    /// <summary>Looking at images of all kinds.</summary>
    public const string Look = """"
        !dd if=/dev/urandom of=disk.raw bs=1M count=3 status=none; truncate -s 8M disk.raw
        !qemu-img convert -f raw -O qcow2 disk.raw disk.qcow2
        !qemu-img convert -f raw -O qcow2 -c disk.raw comp.qcow2
        !qemu-img convert -f raw -O vmdk disk.raw disk.vmdk
        !qemu-img convert -f raw -O vmdk -o subformat=streamOptimized disk.raw so.vmdk
        !qemu-img convert -f raw -O vmdk -o subformat=monolithicFlat disk.raw flat.vmdk
        !qemu-img convert -f raw -O vmdk -o subformat=twoGbMaxExtentSparse disk.raw two.vmdk
        !qemu-img create -q -f qcow2 -b disk.qcow2 -F qcow2 o1.qcow2
        !qemu-io -f qcow2 -c 'write -P 7 1M 200k' -c 'write -z 2M 64k' o1.qcow2
        !qemu-img create -q -f qcow2 -b o1.qcow2 -F qcow2 o2.qcow2
        !qemu-io -f qcow2 -c 'write -P 8 4M 100k' -c 'discard 0 64k' o2.qcow2
        !qemu-img snapshot -c s1 o2.qcow2; qemu-img snapshot -c s2 o2.qcow2
        !qemu-img bitmap --add o2.qcow2 b0; qemu-img bitmap --add -g 128k o2.qcow2 b1; qemu-img bitmap --disable o2.qcow2 b1
        !qemu-img create -q -f qcow2 -o extended_l2=on ext.qcow2 4M
        !qemu-io -f qcow2 -c 'write -P 1 4k 4k' -c 'write -P 1 100k 10k' ext.qcow2
        !qemu-img create -q -f qcow2 -o data_file=ext.raw,data_file_raw=on df.qcow2 4M
        !qemu-io -f qcow2 -c 'write -P 1 4k 4k' df.qcow2
        !qemu-img create -q -f qcow2 -o cluster_size=512 small.qcow2 100k
        !head -c 1000 /dev/urandom > odd.raw
        !mkdir ro; chmod 555 ro; mkdir sub; cp disk.raw sub/
        info disk.raw
        info disk.qcow2
        info comp.qcow2
        info --output=json comp.qcow2
        info disk.vmdk
        info so.vmdk
        info flat.vmdk
        info two.vmdk
        info --output=json two.vmdk
        info --output=json flat.vmdk
        info --output json o2.qcow2
        info o2.qcow2
        info --backing-chain o2.qcow2
        info --backing-chain --output=json o2.qcow2
        info ext.qcow2
        info df.qcow2
        info --output=json df.qcow2
        info odd.raw
        info small.qcow2
        info -f raw disk.qcow2
        info -f qcow2 disk.raw
        info -f vmdk disk.raw
        info -U disk.qcow2
        info --image-opts driver=qcow2,file.filename=disk.qcow2
        info --image-opts driver=qcow2,file.driver=file,file.filename=disk.qcow2,lazy-refcounts=on
        info --image-opts disk.qcow2
        info --image-opts file.filename=disk.qcow2
        info --image-opts driver=raw,offset=1M,size=1M,file.filename=disk.raw
        info json:{bad
        info json:{}
        info json:{"driver":"nope"}
        info json:{"driver":"qcow2"}
        info file:disk.qcow2
        info sub
        info sub/nope
        info ro
        info ''
        map disk.raw
        map --output=json disk.raw
        map disk.qcow2
        map --output=json disk.qcow2
        map comp.qcow2
        map --output=json comp.qcow2
        map --output=json o2.qcow2
        map o2.qcow2
        map --output=json df.qcow2
        map df.qcow2
        map --output=json disk.vmdk
        map disk.vmdk
        map --output=json so.vmdk
        map flat.vmdk
        map --output=json flat.vmdk
        map --output=json odd.raw
        map odd.raw
        map --output=json -f raw odd.raw
        info --image-opts driver=raw,size=100,file.filename=disk.raw
        info --image-opts driver=raw,size=100M,file.filename=disk.raw
        map --output=json two.vmdk
        map --output=json -s 1M -l 64k o2.qcow2
        map --output=json --start-offset=1000 --max-length=3000 o2.qcow2
        map --output=json --start-offset=100M o2.qcow2
        map -l 0 --output=json o2.qcow2
        map -s 100M o2.qcow2
        map --output=json small.qcow2
        check disk.qcow2
        check --output=json disk.qcow2
        check comp.qcow2
        check o2.qcow2
        check disk.vmdk
        check --output=json disk.vmdk
        check so.vmdk
        check flat.vmdk
        check -q disk.qcow2
        check -f raw disk.qcow2
        check -r leaks disk.qcow2
        check -r all disk.qcow2
        check --image-opts driver=qcow2,file.filename=disk.qcow2
        check -U disk.qcow2
        check -U -r all disk.qcow2
        check df.qcow2
        check ext.qcow2
        compare disk.raw disk.qcow2
        compare disk.qcow2 disk.vmdk
        compare -s disk.raw disk.qcow2
        compare -s disk.qcow2 comp.qcow2
        compare -q disk.raw o2.qcow2
        compare disk.raw o2.qcow2
        compare o1.qcow2 o2.qcow2
        compare disk.raw odd.raw
        compare odd.raw small.qcow2
        compare -f raw -F qcow2 disk.raw disk.qcow2
        compare -f qcow2 disk.raw disk.qcow2
        compare -F vmdk disk.raw disk.qcow2
        compare -U disk.raw disk.qcow2
        compare --image-opts driver=raw,file.filename=disk.raw driver=qcow2,file.filename=disk.qcow2
        compare --image-opts -f raw driver=raw,file.filename=disk.raw driver=qcow2,file.filename=disk.qcow2
        measure -O qcow2 disk.raw
        measure -O qcow2 --output=json disk.raw
        measure -O raw disk.qcow2
        measure -O qcow2 -o cluster_size=4k disk.raw
        measure -O qcow2 -o extended_l2=on disk.raw
        measure -O qcow2 o2.qcow2
        measure -O qcow2 --output=json o2.qcow2
        measure -O qcow2 -l s1 o2.qcow2
        measure -O qcow2 -l snapshot.name=s1 o2.qcow2
        measure -O qcow2 -l snapshot.id=2 o2.qcow2
        measure -O qcow2 --size 1T
        measure -O qcow2 -o preallocation=metadata --size 1G
        measure -O qcow2 -o preallocation=full,refcount_bits=1 --size 1G
        measure -O qcow2 -o size=2G
        measure -O raw --size 12345
        measure -O qcow2 -o compat=0.10,cluster_size=512 --size 10M
        measure -O qcow2 -o backing_file=x disk.raw
        measure --image-opts -O qcow2 driver=qcow2,file.filename=disk.qcow2
        measure --image-opts --size 1M
        measure -O qcow2 -o help
        measure -O qcow2 --size 100E
        measure -O qcow2 --size 8E
        snapshot -l o2.qcow2
        snapshot -l disk.raw
        snapshot -l disk.vmdk
        snapshot -c x disk.raw
        snapshot -d x disk.raw
        snapshot -c s3 o2.qcow2
        snapshot -c s3 o2.qcow2
        snapshot -l o2.qcow2
        snapshot -a s1 o2.qcow2
        snapshot -a 2 o2.qcow2
        snapshot -d 1 o2.qcow2
        snapshot -d s3 o2.qcow2
        snapshot -d s3 o2.qcow2
        snapshot -q -l o2.qcow2
        snapshot -U -l o2.qcow2
        snapshot --image-opts -c y driver=qcow2,file.filename=o2.qcow2
        snapshot -c '' o2.qcow2
        info o2.qcow2
        """";

    /// <summary>Making and changing them.</summary>
    public const string Change = """"
        !dd if=/dev/urandom of=disk.raw bs=1M count=3 status=none; truncate -s 8M disk.raw; mkdir sub; mkdir ro
        !head -c 1000 /dev/urandom > odd.raw
        create -f qcow2 a.qcow2 8M
        create -f qcow2 -o compat=0.10 a1.qcow2 8M
        create -f qcow2 -o cluster_size=2M,lazy_refcounts=on,refcount_bits=1,extended_l2=on,compression_type=zstd a2.qcow2 8M
        create -f qcow2 -o cluster_size=16k,extended_l2=on a3.qcow2 8M
        create -f qcow2 -o preallocation=metadata a4.qcow2 8M
        create -f qcow2 -o preallocation=falloc a5.qcow2 8M
        create -f qcow2 -o preallocation=full a6.qcow2 8M
        create -f qcow2 -o data_file=a7.raw a7.qcow2 8M
        create -f qcow2 -o data_file=a8.raw,data_file_raw=on a8.qcow2 8M
        create -f qcow2 -o data_file_raw=on a9.qcow2 8M
        create -f qcow2 -o compat=v3,refcount_bits=64 a10.qcow2 8M
        create -f qcow2 -o compat=v2,lazy_refcounts=on a11.qcow2 8M
        create -f qcow2 -o compat=0.10,refcount_bits=8 a12.qcow2 8M
        create -f qcow2 -o refcount_bits=3 a13.qcow2 8M
        create -f qcow2 -o cluster_size=256 a14.qcow2 8M
        create -f qcow2 -o cluster_size=4M a15.qcow2 8M
        create -f qcow2 -o cluster_size=3000 a16.qcow2 8M
        create -f qcow2 -o compression_type=lzma a17.qcow2 8M
        create -f qcow2 -o compat=0.10,compression_type=zstd a18.qcow2 8M
        create -f qcow2 -o preallocation=maybe a19.qcow2 8M
        create -f qcow2 -o cluster_size=512,extended_l2=on a20.qcow2 8M
        create -f qcow2 -o cluster_size=512 a21.qcow2 4E
        create -f qcow2 a22.qcow2
        create -f qcow2 a23.qcow2 -1
        create -f qcow2 a24.qcow2 0
        create -f qcow2 a25.qcow2 1000
        create -f qcow2 a26.qcow2 1.5M
        create -f qcow2 a27.qcow2 8M extra
        create -f qcow2 -b a.qcow2 -F qcow2 b1.qcow2
        create -f qcow2 -b a.qcow2 -F raw b2.qcow2
        create -f qcow2 -b a.qcow2 -F nope b3.qcow2
        create -f qcow2 -F qcow2 b4.qcow2 8M
        create -f qcow2 -b a.qcow2 -F qcow2 b5.qcow2 16M
        create -f qcow2 -b a.qcow2 -F qcow2 b6.qcow2 1M
        create -f qcow2 -o backing_file=a.qcow2,backing_fmt=qcow2 b7.qcow2
        create -f qcow2 -b a.qcow2 -F qcow2 -o preallocation=full b9.qcow2
        create -f qcow2 -b '' b10.qcow2 1M
        create -f qcow2 -b sub/../a.qcow2 -F qcow2 sub/b11.qcow2
        create -f qcow2 -b ../a.qcow2 -F qcow2 sub/b12.qcow2
        create -f qcow2 -u -b nope -F qcow2 b13.qcow2
        create -f qcow2 -u -b nope -F qcow2 b13.qcow2 1M
        create -f vmdk c.vmdk 8M
        create -f vmdk -o subformat=streamOptimized c1.vmdk 8M
        create -f vmdk -o subformat=monolithicFlat c2.vmdk 8M
        create -f vmdk -o subformat=twoGbMaxExtentSparse c3.vmdk 5G
        create -f vmdk -o subformat=twoGbMaxExtentFlat c4.vmdk 3G
        create -f vmdk -o subformat=nope c5.vmdk 8M
        create -f vmdk -o adapter_type=lsilogic,hwversion=7,zeroed_grain=on c6.vmdk 8M
        create -f vmdk -o adapter_type=nope c7.vmdk 8M
        create -f vmdk -o compat6=on c8.vmdk 8M
        create -f vmdk -o compat6=on,hwversion=5 c9.vmdk 8M
        create -f vmdk -b c.vmdk -F vmdk c10.vmdk
        create -f vmdk -b disk.raw -F raw c11.vmdk
        create -f vmdk -b c.vmdk -F vmdk -o subformat=monolithicFlat c12.vmdk 8M
        create -f vmdk -o toolsversion=99 c13.vmdk 8M
        create -f vmdk c14.vmdk 100T
        create c.raw 10M
        create -o preallocation=full c1.raw 1M
        create -o preallocation=falloc c2.raw 1M
        create -o nocow=on c3.raw 1M
        create -o extent_size_hint=1M c3.raw 1M
        create -o nope=1 c3.raw 1M
        create sub 1M
        create '' 1M
        create nosuch/x 1M
        create -f qcow2 nosuch/x 1M
        create -f vmdk nosuch/x 1M
        create -q -f qcow2 q.qcow2 1M
        create --object secret,id=s0,data=abc -f qcow2 q1.qcow2 1M
        create --object nope,id=s0 -f qcow2 q1.qcow2 1M
        create --object secret -f qcow2 q1.qcow2 1M
        create --object secret,id=s0 -f qcow2 q1.qcow2 1M
        create -f file x 1M
        create -f qcow2 file:f.qcow2 1M
        create -f qcow2 json:{} 1M
        !qemu-img convert -O qcow2 disk.raw disk.qcow2
        !for i in 1 2; do qemu-img snapshot -c s$i disk.qcow2; qemu-io -f qcow2 -c "write -P $i 1M 1M" disk.qcow2; done
        !qemu-img bitmap --add disk.qcow2 b0
        !qemu-img bitmap --add --disable disk.qcow2 b1
        !qemu-io -f qcow2 -c 'write -P 3 0 64k' disk.qcow2
        convert -p -q -O qcow2 disk.qcow2 d1.qcow2
        convert -l s1 -O qcow2 disk.qcow2 d2.qcow2
        convert -l snapshot.name=s2 -O raw disk.qcow2 d3.raw
        convert -l snapshot.id=1 -O raw disk.qcow2 d4.raw
        convert -l snapshot.id=1,snapshot.name=s2 -O raw disk.qcow2 d4.raw
        convert -l snapshot.id=1,snapshot.foo=s2 -O raw disk.qcow2 d4.raw
        convert -l s1 disk.qcow2 disk.raw d5.raw
        convert -l s1 disk.raw d5.raw
        convert disk.raw odd.raw disk.qcow2 d6.raw
        convert -O qcow2 --bitmaps disk.qcow2 d7.qcow2
        convert -O raw --bitmaps disk.qcow2 d7.raw
        convert -O vmdk --bitmaps disk.qcow2 d7.vmdk
        convert -O qcow2 --bitmaps disk.qcow2 disk.qcow2 d7.qcow2
        convert -O qcow2 --bitmaps -o compat=0.10 disk.qcow2 d8.qcow2
        convert -O qcow2 --bitmaps --skip-broken-bitmaps disk.qcow2 d9.qcow2
        info d7.qcow2
        convert -n -O qcow2 disk.qcow2 a.qcow2
        convert -n -O raw disk.qcow2 a.qcow2
        convert -n disk.qcow2 c1.raw
        convert -n --target-is-zero -O qcow2 disk.qcow2 a1.qcow2
        convert -n --target-image-opts disk.qcow2 driver=qcow2,file.filename=a.qcow2
        convert --target-image-opts -O qcow2 -n disk.qcow2 driver=qcow2,file.filename=a.qcow2
        convert --image-opts -O qcow2 driver=qcow2,file.filename=disk.qcow2 e1.qcow2
        convert --image-opts -f qcow2 -O qcow2 driver=qcow2,file.filename=disk.qcow2 e1.qcow2
        convert -O qcow2 -B a.qcow2 disk.qcow2 e2.qcow2
        convert -O qcow2 -B a.qcow2 -F qcow2 disk.qcow2 e2.qcow2
        convert -O qcow2 -B a.qcow2 -F qcow2 disk.qcow2 disk.qcow2 e2.qcow2
        convert -O raw -B a.qcow2 -F qcow2 disk.qcow2 e2.raw
        convert -O qcow2 -F qcow2 disk.qcow2 e3.qcow2
        convert -O qcow2 -c -S 0 disk.qcow2 e4.qcow2
        convert -O qcow2 -S 0 disk.qcow2 e5.qcow2
        map --output=json e5.qcow2
        convert -S 64k disk.qcow2 e6.raw
        convert -S 100M disk.qcow2 e6.raw
        convert -m 3 -W -O qcow2 disk.qcow2 e7.qcow2
        convert -m x -O qcow2 disk.qcow2 e7.qcow2
        convert -C -O raw disk.raw e8.raw
        convert -C -O qcow2 disk.qcow2 e8.qcow2
        convert -r 100M -O qcow2 disk.qcow2 e9.qcow2
        convert -r 0 -O qcow2 disk.qcow2 e9.qcow2
        convert -c -O raw disk.qcow2 e10.raw
        convert -c -O vmdk disk.qcow2 e10.vmdk
        convert -O qcow2 -t nope disk.qcow2 e11.qcow2
        convert -O qcow2 -t none -T none disk.qcow2 e11.qcow2
        convert -O qcow2 -t directsync -T directsync disk.qcow2 e11.qcow2
        convert -O qcow2 -t writethrough -T writethrough disk.qcow2 e11.qcow2
        convert -O qcow2 nope disk.qcow2 e12.qcow2
        convert -O qcow2 disk.qcow2 sub
        convert -O qcow2 disk.qcow2 nosuch/x
        convert -O qcow2 disk.qcow2 disk.qcow2
        convert disk.raw disk.raw
        convert -O qcow2 -o cluster_size=3 disk.qcow2 e13.qcow2
        convert -O vmdk -o subformat=nope disk.qcow2 e13.vmdk
        convert -O qcow2 -o size=1M disk.raw e14.qcow2
        convert --salvage disk.qcow2 e15.raw
        convert -f qcow2 disk.raw e16.raw
        convert -f nope disk.raw e16.raw
        convert -O qcow2 sub e17
        convert -U disk.qcow2 e18
        convert -Oqcow2 disk.qcow2 e19 -q
        convert disk.qcow2
        convert -o help disk.qcow2
        convert -O qcow2 -o help
        convert -n --target-image-opts -o help a b
        convert -n --target-image-opts disk.raw driver=raw,size=1M,file.filename=c.raw
        !qemu-img create -q -f qcow2 -b disk.raw -F raw o1.qcow2; qemu-img create -q -f qcow2 -b o1.qcow2 -F qcow2 o2.qcow2
        !qemu-img create -q -f qcow2 -b o2.qcow2 -F qcow2 o3.qcow2
        !for i in 1 2 3; do qemu-io -f qcow2 -c "write -P $i ${i}M 300k" o$i.qcow2; done
        commit -q o3.qcow2
        commit -d o3.qcow2
        commit -b o1.qcow2 o3.qcow2
        commit -b nope o3.qcow2
        commit -b disk.raw o3.qcow2
        commit -r 100M o3.qcow2
        commit -t none o3.qcow2
        commit disk.raw
        commit disk.qcow2
        commit --image-opts driver=qcow2,file.filename=o3.qcow2
        commit o3.qcow2 o2.qcow2
        map --output=json o3.qcow2
        !for i in 1 2 3; do qemu-io -f qcow2 -c "write -P 1$i ${i}M 400k" o$i.qcow2; done
        rebase -b disk.raw -F raw o3.qcow2
        rebase -b disk.raw o3.qcow2
        rebase -b nope -F qcow2 o3.qcow2
        rebase -u -b nope -F qcow2 o3.qcow2
        info o3.qcow2
        rebase -u -b o2.qcow2 -F qcow2 o3.qcow2
        rebase -u -b '' o3.qcow2
        rebase -u o3.qcow2
        info o3.qcow2
        rebase -u -b o2.qcow2 -F qcow2 o3.qcow2
        rebase -b '' o3.qcow2
        map --output=json o3.qcow2
        rebase -b o2.qcow2 -F nope o3.qcow2
        rebase -b disk.qcow2 -F raw disk.raw
        rebase -u -b disk.qcow2 -F raw disk.raw
        rebase -T nope -b '' o3.qcow2
        rebase -T none -t none -b o2.qcow2 -F qcow2 o3.qcow2
        rebase -U -b o1.qcow2 -F qcow2 o3.qcow2
        rebase -b o1.qcow2 -F qcow2 --image-opts driver=qcow2,file.filename=o3.qcow2
        rebase o3.qcow2
        rebase -b x
        resize c.raw 20M
        resize c.raw +1M
        resize c.raw -1M
        resize --shrink c.raw -1M
        resize -q c.raw +1M
        resize -f raw c.raw 1G
        resize --preallocation=falloc c2.raw +1M
        resize --preallocation=full c2.raw +1M
        resize --preallocation=metadata c2.raw +1M
        resize a.qcow2 20M
        resize --preallocation=metadata a.qcow2 30M
        resize --preallocation=falloc a.qcow2 31M
        resize --preallocation=full a.qcow2 32M
        resize --shrink a.qcow2 1M
        resize a.qcow2 0
        resize a.qcow2 8E
        resize a.qcow2 100P
        resize --shrink disk.qcow2 1M
        resize disk.qcow2 20M
        resize a1.qcow2 20M
        resize --image-opts driver=qcow2,file.filename=a.qcow2 10M
        resize --shrink --image-opts driver=qcow2,file.filename=a.qcow2 10M
        resize nope 10M
        resize a.qcow2 10M 10M
        resize a.qcow2 1x
        resize a.qcow2 ''
        resize a.qcow2 --shrink 1M
        amend -o compat=0.10 a.qcow2
        amend -o compat=1.1 a.qcow2
        amend -p -o lazy_refcounts=on a.qcow2
        amend -o refcount_bits=3 a.qcow2
        amend -o size=20M a.qcow2
        amend -o backing_file=x a.qcow2
        amend -o backing_file=x,backing_fmt=qcow2 b1.qcow2
        amend -o cluster_size=64k a.qcow2
        amend -o data_file_raw=on a.qcow2
        amend -o data_file=x a.qcow2
        amend -o compat=0.10 disk.qcow2
        amend -o help
        amend -o help a.qcow2
        amend -o help disk.raw
        amend -f raw -o help
        amend -f nope -o help
        amend --force -o compat=1.1 a.qcow2
        amend -o extended_l2=on a.qcow2
        amend -o foo c.vmdk
        amend -o ,x a.qcow2
        bitmap --add a.qcow2 b0
        bitmap --add a.qcow2 b0
        bitmap --add -g 64k a.qcow2 b1
        bitmap --add -g 1k a.qcow2 b1k
        bitmap --add -g 256 a.qcow2 b2
        bitmap --disable --clear --merge b0 a.qcow2 b1
        bitmap --merge b0 -b disk.qcow2 -F qcow2 a.qcow2 b1
        bitmap --merge b1 -b disk.qcow2 a.qcow2 b1
        bitmap --enable a.qcow2 b1
        bitmap --remove a.qcow2 b1
        bitmap --remove a.qcow2 nope
        bitmap --clear a.qcow2 nope
        bitmap --enable a.qcow2 nope
        bitmap --disable a.qcow2 nope
        bitmap --add --image-opts driver=qcow2,file.filename=a.qcow2 b5
        bitmap --add a.qcow2 ''
        bitmap --add a.qcow2
        bitmap --add a.qcow2 b c
        info a.qcow2
        info --output=json a.qcow2
        dd if=disk.raw of=dd1.raw
        dd if=disk.qcow2 of=dd2.qcow2 -O qcow2
        dd -f qcow2 -O vmdk if=disk.qcow2 of=dd3.vmdk bs=64k
        dd if=disk.raw of=dd4.raw bs=1M count=2 skip=1
        dd if=disk.raw of=dd5.raw bs=1M skip=100
        dd if=disk.raw of=dd6.raw bs=1000 count=7
        dd if=disk.raw of=dd7.raw count=0
        dd if=odd.raw of=dd8.raw bs=100
        dd if=disk.raw of=dd9.raw bs=1E
        dd if=disk.raw of=dd9.raw skip=-1
        dd -U if=disk.raw of=dd10.raw
        dd --image-opts if=driver=raw,file.filename=disk.raw of=dd11.raw
        dd if=disk.raw of=nosuch/x
        dd if=disk.raw of=sub
        dd if=disk.raw of=dd12 conv=x
        dd if=disk.raw of=dd13 oflag=x
        dd if=disk.raw of=dd14 -O bochs
        info dd4.raw
        info dd6.raw
        bench -c 10 disk.raw
        bench -c 10 -f raw -d 2 -s 8k -S 16k -o 1M disk.raw
        bench -c 10 -w -f raw --pattern=7 --flush-interval=4 -d 4 c.raw
        bench -c 10 -w -f raw --pattern=7 --flush-interval=4 -d 4 --no-drain c.raw
        bench -c 10 -q disk.raw
        bench -c 10 -n -t none disk.raw
        bench -c 10 -i native -t none disk.raw
        bench -c 10 -i native disk.raw
        bench -c 10 -i threads disk.raw
        bench -c 10 -U disk.raw
        bench -c 0 disk.raw
        bench -s 0 disk.raw
        bench -c 1 -o 100M disk.raw
        bench --image-opts -c 1 driver=raw,file.filename=disk.raw
        """";

    /// <summary>Ways to name an image, and images that must not be touched.</summary>
    public const string Name = """"
        !dd if=/dev/urandom of=disk.raw bs=1M count=3 status=none; truncate -s 8M disk.raw; mkdir sub
        !qemu-img convert -f raw -O qcow2 disk.raw disk.qcow2; cp disk.qcow2 "it's.qcow2"; cp disk.qcow2 a:b.qcow2
        info 'json:{"driver":"qcow2","file":{"driver":"file","filename":"disk.qcow2"}}'
        info "json:{'driver':'qcow2','file':{'driver':'file','filename':'disk.qcow2'}}"
        info "json:{\"driver\":\"qcow2\",\"file\":{\"driver\":\"file\",\"filename\":\"it's.qcow2\"}}"
        info 'json:{"driver":"qcow2","file.filename":"disk.qcow2"}'
        info 'json:{"file.filename":"disk.qcow2"}'
        info 'json:{"driver":"qcow2","file.filename":"disk.qcow2","lazy-refcounts":"on"}'
        info 'json:{"driver":"raw","offset":512,"size":1024,"file":{"driver":"file","filename":"disk.raw"}}'
        info 'json:{bad'
        info 'json:{'
        info 'json:{"driver"'
        info 'json:{"driver":'
        info 'json:{"driver":}'
        info 'json:{"driver":"x" "y"}'
        info 'json:{1:2}'
        info 'json:{"driver":"raw",}'
        info 'json:{"a":tru}'
        info 'json:{"a":"b'
        info 'json:{"a":.}'
        info 'json:'
        info 'json:{} x'
        info 'json:"x"'
        info 'json:{"driver":"nope"}'
        info 'json:{"driver":"qcow2"}'
        info 'json:{"driver":"qcow2","file":"disk.qcow2"}'
        info 'json:{"driver":"qcow2","file":{"driver":"file"}}'
        info 'json:{"driver":"qcow2","file":{"driver":"file","filename":"nope"}}'
        info 'json:{"driver":"qcow2","file":{"driver":"file","filename":"disk.qcow2","foo":1}}'
        info 'json:{"driver":"file","filename":"disk.raw"}'
        info a:b.qcow2
        info file:a:b.qcow2
        info ./a:b.qcow2
        info file:disk.qcow2
        info file:nope
        info sub
        info ''
        info --image-opts disk.qcow2
        info --image-opts ''
        info --image-opts driver=qcow2
        info --image-opts driver=file,filename=disk.raw
        info --image-opts driver=raw,file.driver=file,file.filename=disk.raw,file.locking=off
        info --image-opts driver=qcow2,file.filename=disk.qcow2,cache.direct=on
        info --image-opts driver=qcow2,file.filename=disk.qcow2,l2-cache-size=1M
        info --image-opts driver=qcow2,file.filename=disk.qcow2,read-only=on
        info --image-opts driver=qcow2,file.filename=disk.qcow2,read-only=maybe
        info --image-opts driver=qcow2,file.filename=disk.qcow2,force-share=on
        info -U --image-opts driver=qcow2,file.filename=disk.qcow2,force-share=off
        check -U -r all disk.qcow2
        measure -O raw --size 12345
        measure -O qcow2 --size 12345
        convert disk.raw disk.raw
        convert -f raw -O raw disk.raw disk.raw
        convert -O qcow2 disk.qcow2 disk.qcow2
        convert -O qcow2 disk.raw disk.raw
        convert disk.raw disk.qcow2 disk.qcow2
        info disk.raw
        info disk.qcow2
        convert -O qcow2 sub e17
        convert -O qcow2 -o cluster_size=3 disk.qcow2 e13.qcow2
        convert -O vmdk -o subformat=nope disk.qcow2 e13.vmdk
        convert --salvage disk.qcow2 e15.raw
        convert -U disk.qcow2 e18
        convert -Oqcow2 disk.qcow2 e19 -q
        convert -U disk.raw disk.raw
        commit disk.qcow2
        rebase -b disk.qcow2 -F raw disk.raw
        resize --shrink disk.qcow2 1M
        resize disk.qcow2 20M
        resize disk.qcow2 8E
        resize disk.qcow2 7E
        resize --preallocation=metadata -f raw disk.raw +1M
        amend -o compat=0.10 disk.qcow2
        dd if=disk.qcow2 of=dd2.qcow2 -O qcow2
        dd -f qcow2 -O vmdk if=disk.qcow2 of=dd3.vmdk bs=64k
        info disk.qcow2
        bench -c 10 -n -f raw disk.raw
        bench -c 10 -i native -f raw disk.raw
        bench -c 1 -f raw -o 100M disk.raw
        bench -c 2 -f raw -o 19M -s 1M disk.raw
        create --object secret,id=s0 -f qcow2 q1.qcow2 1M
        create --object secret,id=s0,file=x,data=y -f qcow2 q1.qcow2 1M
        create --object secret,id=s0,data=y,format=base64 -f qcow2 q2.qcow2 1M
        create --object throttle-group,id=t0,x-bps-total=1000 -f qcow2 q2.qcow2 1M
        create --object qom-type=secret,id=s0,data=abc -f qcow2 q3.qcow2 1M
        create --object secret,id=s0,data=abc --object secret,id=s0,data=abc -f qcow2 q3.qcow2 1M
        """";
}
