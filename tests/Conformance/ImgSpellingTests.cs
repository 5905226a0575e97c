using System.Diagnostics;
using System.Text.RegularExpressions;

namespace ImgKit.Conformance;

/// <summary>Every option of every command, in each of its spellings (qemu-img 7.2's and 10.1's), is run and has its effect.</summary>
public sealed partial class ImgSpellingTests : IClassFixture<ImgSpellingTests.Images>
{
    /// <summary>What qemu-img 10.1 and 7.2 take, <c>short=long</c>; those that take a value end in a colon.</summary>
    private static readonly Dictionary<string, string> Peer = new()
    {
        ["amend"] = "o=options: f=format: =image-opts t=cache: =force p=progress q=quiet =object:",
        ["bench"] = "f=format: =image-opts t=cache: c=count: d=depth: o=offset: s=buffer-size: S=step-size: w=write =pattern: =flush-interval: =no-drain i=aio: n=native U=force-share q=quiet =object:",
        ["bitmap"] = "f=format: =image-opts =add g=granularity: =remove =clear =enable =disable =merge: b=source-file: F=source-format: =object:",
        ["check"] = "f=format: =image-opts T=cache: r=repair: U=force-share =output: q=quiet =object:",
        ["commit"] = "f=format: =image-opts t=cache: d=drop b=base: r=rate-limit: p=progress q=quiet =object:",
        ["compare"] = "f=a-format: F=b-format: =image-opts s=strict T=cache: U=force-share p=progress q=quiet =object:",
        ["convert"] = "f=source-format: =image-opts T=source-cache: l=snapshot: =bitmaps =skip-broken-bitmaps =salvage O=target-format: =target-image-opts o=target-format-options: "
            + "t=target-cache: b=backing: B=: F=backing-format: S=sparse-size: n=no-create =target-is-zero c= U=force-share r=rate-limit: m=parallel: W=oob-writes C=copy-range-offloading "
            + "p=progress q=quiet =object:",
        ["create"] = "f=format: o=options: b=backing: B=backing-format: F=: u=backing-unsafe q=quiet =object:",
        ["dd"] = "f=format: =image-opts O=output-format: U=force-share =object:",
        ["info"] = "f=format: =image-opts =backing-chain U=force-share =output: =object:",
        ["map"] = "f=format: =image-opts s=start-offset: l=max-length: U=force-share =output: =object:",
        ["measure"] = "f=source-format: f=format: =image-opts =source-image-opts l=snapshot: O=target-format: o=target-format-options: o=options: U=force-share =output: =object: s=size:",
        ["rebase"] = "f=format: =image-opts t=cache: c=compress b=backing: B=backing-format: F=: T=backing-cache: u=backing-unsafe U=force-share p=progress q=quiet =object:",
        ["resize"] = "f=format: =image-opts =preallocation: =shrink q=quiet =object:",
        ["snapshot"] = "f=format: =image-opts l=list a=apply: c=create: d=delete: U=force-share q=quiet =object:",
    };

    /// <summary>Rows: the spellings separated by <c>/</c>; the command line, where @ stands for the option; a shell command that shows what came of it.
    /// A row that starts with = is of an option that changes nothing to be seen here: the command must work as without.</summary>
    private const string Rows = """
        -o compat=0.10/--options compat=0.10/--options=compat=0.10 | amend @ disk.qcow2 | $IMG info disk.qcow2 | grep compat
        -f raw/--format raw | amend -o compat=0.10 @ disk.qcow2 | true
        --image-opts | amend -o compat=0.10 @ driver=qcow2,file.filename=disk.qcow2 | true
        -t nope/--cache nope/--cache=nope | amend -o compat=0.10 @ disk.qcow2 | true
        =-t none/--cache none | amend -o compat=0.10 @ disk.qcow2 | true
        =--force | amend -o compat=0.10 @ disk.qcow2 | true
        -p/--progress | amend -o compat=0.10 @ disk.qcow2 | true
        =-q/--quiet | amend -o compat=0.10 @ disk.qcow2 | true
        -p -q/-pq/--progress --quiet | amend -o compat=0.10 -p @ disk.qcow2 | true
        --object nope,id=x | amend -o compat=0.10 @ disk.qcow2 | true

        -f raw/--format raw | bench -c 1 -s 128k @ small.qcow2 | true
        --image-opts | bench -c 1 @ driver=raw,file.filename=disk.raw | true
        -t nope/--cache nope | bench -c 1 @ disk.raw | true
        -c 3/--count 3/--count=3 | bench @ disk.raw | true
        -d 7/--depth 7 | bench -c 1 @ disk.raw | true
        -o 1M/--offset 1M | bench -c 1 @ disk.raw | true
        -s 8k/--buffer-size 8k | bench -c 1 @ disk.raw | true
        -S 8k/--step-size 8k | bench -c 1 @ disk.raw | true
        -w/--write | bench -f raw -c 1 @ disk.raw | head -c 4096 disk.raw | md5sum
        --pattern 7/--pattern=7 | bench -f raw -c 1 -w @ disk.raw | head -c 4096 disk.raw | md5sum
        --flush-interval 70/--flush-interval=70 | bench -f raw -c 100 -w @ disk.raw | true
        =--no-drain | bench -f raw -c 100 -w --flush-interval=70 @ disk.raw | true
        -i nope/--aio nope | bench -f raw -c 1 @ disk.raw | true
        -n/--native/-i native/--aio native | bench -f raw -c 1 @ disk.raw | true
        =-n -t none/--native --cache none | bench -f raw -c 1 @ disk.raw | true
        -U/--force-share | bench -c 1 @ locked.qcow2 | true
        =-q/--quiet | bench -c 1 @ disk.raw | true
        --object nope,id=x | bench -c 1 @ disk.raw | true

        -f raw/--format raw | bitmap --add @ disk.qcow2 b9 | $IMG info disk.qcow2 | grep name
        --image-opts | bitmap --add @ driver=qcow2,file.filename=disk.qcow2 b9 | $IMG info disk.qcow2 | grep name
        --add | bitmap @ disk.qcow2 b9 | $IMG info disk.qcow2 | grep name
        -g 128k/--granularity 128k | bitmap --add @ disk.qcow2 b9 | $IMG info disk.qcow2 | grep gran
        --remove | bitmap @ disk.qcow2 b0 | $IMG info disk.qcow2 | grep name
        --clear | bitmap @ disk.qcow2 b1 | $IMG convert -O qcow2 --bitmaps disk.qcow2 t; nbdbits t b1
        --enable | bitmap @ disk.qcow2 b1 | $IMG info disk.qcow2 | grep -A9 bitmaps
        --disable | bitmap @ disk.qcow2 b0 | $IMG info disk.qcow2 | grep -A9 bitmaps
        --merge b1/--merge=b1 | bitmap --clear @ disk.qcow2 b0 | nbdbits disk.qcow2 b0
        -b other.qcow2/--source-file other.qcow2 | bitmap --merge o0 @ disk.qcow2 b0 | true
        -F raw/--source-format raw | bitmap --merge o0 -b other.qcow2 @ disk.qcow2 b0 | true
        --object nope,id=x | bitmap --add @ disk.qcow2 b9 | true

        -f raw/--format raw | check @ disk.qcow2 | true
        --image-opts | check @ driver=qcow2,file.filename=disk.qcow2 | true
        -T nope/--cache nope | check @ disk.qcow2 | true
        -r leaks/--repair leaks/--repair=all/-r all | check @ leak.qcow2 | $IMG check leak.qcow2
        -U/--force-share | check @ locked.qcow2 | true
        --output json/--output=json | check @ disk.qcow2 | true
        -q/--quiet | check @ disk.qcow2 | true
        --object nope,id=x | check @ disk.qcow2 | true

        -f raw/--format raw | commit @ over.qcow2 | true
        --image-opts | commit @ driver=qcow2,file.filename=over.qcow2 | true
        -t nope/--cache nope | commit @ over.qcow2 | true
        -d/--drop | commit @ over.qcow2 | $IMG map --output=json over.qcow2
        -b disk.qcow2/--base disk.qcow2 | commit @ top.qcow2 | $IMG map --output=json top.qcow2
        -r x/--rate-limit x | commit @ over.qcow2 | true
        =-r 100M/--rate-limit=100M | commit @ over.qcow2 | true
        -p/--progress | commit @ over.qcow2 | true
        -q/--quiet | commit @ over.qcow2 | true
        --object nope,id=x | commit @ over.qcow2 | true

        -f raw/--a-format raw | compare @ disk.qcow2 disk.raw | true
        -F raw/--b-format raw | compare @ disk.raw disk.qcow2 | true
        --image-opts | compare @ driver=raw,file.filename=disk.raw driver=qcow2,file.filename=disk.qcow2 | true
        -s/--strict | compare @ disk.raw longer.raw | true
        -T nope/--cache nope | compare @ disk.raw disk.qcow2 | true
        -U/--force-share | compare @ locked.qcow2 disk.raw | true
        -p/--progress | compare @ disk.raw disk.qcow2 | true
        -q/--quiet | compare @ disk.raw disk.qcow2 | true
        --object nope,id=x | compare @ disk.raw disk.qcow2 | true

        -f raw/--source-format raw | convert @ disk.qcow2 t | wc -c <t
        --image-opts | convert @ driver=raw,file.filename=disk.qcow2 t | wc -c <t
        -T nope/--source-cache nope | convert @ disk.qcow2 t | true
        -l s1/--snapshot s1/-l snapshot.name=s1/--snapshot=snapshot.id=1 | convert @ snap.qcow2 t | md5sum <t
        --bitmaps | convert -O qcow2 @ disk.qcow2 t | $IMG info t | grep -c name
        --skip-broken-bitmaps | convert -O qcow2 --bitmaps @ broken.qcow2 t | $IMG info t | grep -c name
        --salvage | convert @ damaged.qcow2 t | md5sum <t
        -O qcow2/--target-format qcow2/-Oqcow2/--target-format=qcow2 | convert @ disk.raw t | $IMG info t | grep format
        --target-image-opts | convert -n @ disk.raw driver=raw,file.filename=longer.raw,offset=512 | md5sum <longer.raw
        -o cluster_size=4k/--target-format-options cluster_size=4k | convert -O qcow2 @ disk.raw t | $IMG info t | grep cluster
        -t nope/--target-cache nope | convert @ disk.raw t | true
        -b other.qcow2 -F qcow2/-B other.qcow2 -F qcow2/--backing other.qcow2 --backing-format qcow2 | convert -O qcow2 @ disk.raw t | $IMG info t | grep backing
        -F qcow2/--backing-format qcow2 | convert -O qcow2 -b other.qcow2 @ disk.raw t | true
        -S 0/--sparse-size 0 | convert -O qcow2 @ disk.raw t | $IMG map --output=json t
        -n/--no-create | convert -O raw @ disk.raw longer.raw | wc -c <longer.raw
        --target-is-zero | convert -n @ disk.raw ones.raw | md5sum <ones.raw
        -c/--compress | convert -O qcow2 @ disk.raw t | $IMG check t | grep -o '[0-9.]*% compressed'
        -U/--force-share | convert @ locked.qcow2 t | md5sum <t
        -r x/--rate-limit x | convert @ disk.raw t | true
        -m 17/--parallel 17 | convert @ disk.raw t | true
        =-m 3/--parallel 3 | convert -O qcow2 @ disk.raw t | md5sum <t
        =-W/--oob-writes | convert -O qcow2 @ disk.raw t | md5sum <t
        -C/--copy-range-offloading | convert -c @ -O qcow2 disk.raw t | true
        =-C/--copy-range-offloading | convert @ disk.raw t | md5sum <t
        -p/--progress | convert @ disk.raw t | true
        -q/--quiet | convert -p @ disk.raw t | true
        --object nope,id=x | convert @ disk.raw t | true

        -f qcow2/--format qcow2/-fqcow2/--format=qcow2 | create @ t 1M | $IMG info t | grep format
        -o cluster_size=4k/--options cluster_size=4k | create -f qcow2 @ t 1M | $IMG info t | grep cluster
        -b disk.qcow2 -F qcow2/--backing disk.qcow2 --backing-format qcow2/-b disk.qcow2 -B qcow2 | create -f qcow2 @ t 1M | $IMG info t | grep backing
        -F qcow2/-B qcow2/--backing-format qcow2 | create -f qcow2 -b disk.qcow2 @ t 1M | $IMG info t | grep backing
        -u/--backing-unsafe | create -f qcow2 -b nope -F qcow2 @ t 1M | $IMG info t | grep backing
        -q/--quiet | create @ t 1M | true
        --object nope,id=x | create @ t 1M | true

        -f raw/--format raw | dd @ if=disk.qcow2 of=t | wc -c <t
        --image-opts | dd @ if=driver=raw,file.filename=disk.qcow2 of=t | wc -c <t
        -O qcow2/--output-format qcow2 | dd @ if=disk.raw of=t | $IMG info t | grep format
        -U/--force-share | dd @ if=locked.qcow2 of=t | wc -c <t
        --object nope,id=x | dd @ if=disk.raw of=t | true

        -f raw/--format raw | info @ disk.qcow2 | true
        --image-opts | info @ driver=raw,file.filename=disk.qcow2 | true
        --backing-chain | info @ over.qcow2 | true
        -U/--force-share | info @ locked.qcow2 | true
        --output json/--output=json | info @ disk.qcow2 | true
        --object nope,id=x | info @ disk.qcow2 | true

        -f raw/--format raw | map @ disk.qcow2 | true
        --image-opts | map @ driver=raw,file.filename=disk.qcow2 | true
        -s 64k/--start-offset 64k/--start-offset=64k | map --output=json @ disk.qcow2 | true
        -l 64k/--max-length 64k/--max-length=64k | map --output=json @ disk.qcow2 | true
        -U/--force-share | map @ locked.qcow2 | true
        --output json/--output=json | map @ disk.qcow2 | true
        --object nope,id=x | map @ disk.qcow2 | true

        -f raw/--format raw/--source-format raw | measure -O qcow2 @ over.qcow2 | true
        --image-opts/--source-image-opts | measure -O qcow2 @ driver=raw,file.filename=over.qcow2 | true
        -l s1/--snapshot s1 | measure -O qcow2 @ snap.qcow2 | true
        -O qcow2/--target-format qcow2 | measure @ disk.raw | true
        -o cluster_size=4k/--options cluster_size=4k/--target-format-options cluster_size=4k | measure -O qcow2 @ disk.raw | true
        -U/--force-share | measure -O qcow2 @ locked.qcow2 | true
        --output json/--output=json | measure @ disk.raw | true
        -s 7M/--size 7M/--size=7M | measure -O qcow2 @ | true
        --object nope,id=x | measure @ disk.raw | true

        -f raw/--format raw | rebase -u -b disk.raw -F raw @ over.qcow2 | true
        --image-opts | rebase -u -b disk.raw -F raw @ driver=qcow2,file.filename=over.qcow2 | $IMG info over.qcow2 | grep backing
        -t nope/--cache nope | rebase -u -b disk.raw -F raw @ over.qcow2 | true
        -c/--compress | rebase -b _ @ over.qcow2 | $IMG check over.qcow2 | grep -o '[0-9.]*% compressed'
        -b other.qcow2/--backing other.qcow2 | rebase -u -F qcow2 @ over.qcow2 | $IMG info over.qcow2 | grep backing
        -F raw/-B raw/--backing-format raw | rebase -u -b disk.raw @ over.qcow2 | $IMG info over.qcow2 | grep backing
        -T nope/--backing-cache nope | rebase -b _ @ over.qcow2 | true
        -u/--backing-unsafe | rebase -b other.qcow2 -F qcow2 @ over.qcow2 | $IMG convert over.qcow2 t; md5sum <t
        -U/--force-share | rebase -b locked.qcow2 -F qcow2 @ over.qcow2 | $IMG info -U over.qcow2 | grep backing
        -p/--progress | rebase -b _ @ over.qcow2 | true
        -q/--quiet | rebase -p -b _ @ over.qcow2 | true
        --object nope,id=x | rebase -b _ @ over.qcow2 | true

        -f raw/--format raw | resize @ disk.qcow2 8M | wc -c <disk.qcow2
        --image-opts | resize @ driver=qcow2,file.filename=disk.qcow2 8M | $IMG info disk.qcow2 | grep virtual
        --preallocation falloc/--preallocation=falloc | resize -f raw @ disk.raw 8M | du -k --apparent-size disk.raw; test $(du -k disk.raw | cut -f1) -gt 4900; echo $?
        --shrink | resize -f raw @ disk.raw 1M | wc -c <disk.raw
        -q/--quiet | resize -f raw @ disk.raw 8M | true
        --object nope,id=x | resize @ disk.qcow2 8M | true

        -f raw/--format raw | snapshot -l @ disk.qcow2 | true
        --image-opts | snapshot -l @ driver=qcow2,file.filename=disk.qcow2 | true
        =-l/--list | snapshot @ disk.qcow2 | true
        -c new/--create new/--create=new | snapshot @ other.qcow2 | $IMG snapshot -l other.qcow2 | grep -c .
        -a s1/--apply s1/--apply=s1 | snapshot @ snap.qcow2 | $IMG convert snap.qcow2 t; md5sum <t
        -d s1/--delete s1/--delete=s1 | snapshot @ disk.qcow2 | $IMG snapshot -l disk.qcow2
        -U/--force-share | snapshot -l @ locked.qcow2 | true
        =-q/--quiet | snapshot -l @ disk.qcow2 | true
        --object nope,id=x | snapshot -l @ disk.qcow2 | true
        """;

    private readonly Images _images;

    public ImgSpellingTests(Images images) => _images = images;

    public static TheoryData<string> Commands => [.. Peer.Keys];

    [Theory]
    [MemberData(nameof(Commands))]
    public void Each_spelling_has_the_options_effect(string command)
    {
        var ran = new HashSet<string>(StringComparer.Ordinal);
        foreach (string line in Rows.Split('\n', StringSplitOptions.RemoveEmptyEntries))
        {
            string[] parts = line.Split(" | ", 3);
            if (!parts[1].StartsWith(command + " ", StringComparison.Ordinal))
                continue;
            bool changes = !parts[0].StartsWith('=');
            string without = _images.Run(parts[1].Replace("@ ", "", StringComparison.Ordinal).Replace(" @", "", StringComparison.Ordinal), parts[2]);
            string? first = null;
            foreach (string spelling in parts[0].TrimStart('=').Split('/'))
            {
                string with = _images.Run(parts[1].Replace("@", spelling, StringComparison.Ordinal), parts[2]);
                Assert.DoesNotContain("nrecognized option", with, StringComparison.Ordinal);
                first ??= with;
                Assert.Equal($"{line}\n{first}", $"{line}\n{with}");
                if (changes)
                    Assert.True(without != with, $"{line}\n{spelling} changes nothing:\n{with}");
                else
                    Assert.Equal($"{line}\n{without}", $"{line}\n{with}");
                foreach (Match m in Spelling().Matches(" " + parts[1].Replace("@", spelling, StringComparison.Ordinal)))
                    foreach (string name in m.Groups[1].Success ? [m.Groups[1].Value] : m.Groups[2].Value.Select(static c => c.ToString()))
                        ran.Add(name);
            }
        }
        string[] known = [.. Peer[command].Split(' ').SelectMany(static o => o.TrimEnd(':').Split('=')).Where(static n => n.Length > 0)];
        Assert.DoesNotContain(known, n => !ran.Contains(n));
    }

    [Theory]
    [MemberData(nameof(Commands))]
    public void Help_names_each_option(string command)
    {
        string help = _images.Run($"{command} --help", "true");
        Assert.StartsWith("Usage:\n  kvm-img " + command, help, StringComparison.Ordinal);
        Assert.Contains("\nArguments:\n", help, StringComparison.Ordinal);
        Assert.EndsWith("exit 0\n", help, StringComparison.Ordinal);
        foreach (string option in Peer[command].Split(' '))
        {
            string[] names = option.TrimEnd(':').Split('=');
            // What other commands call an option is taken, but not shown.
            if (command == "measure" && names[1] is "source-format" or "source-image-opts" or "target-format-options")
                continue;
            if (names[0].Length > 0)
                Assert.Contains($"  -{names[0]}", help, StringComparison.Ordinal);
            if (names[1].Length > 0)
                Assert.Contains($"--{names[1]}", help, StringComparison.Ordinal);
        }
    }

    [GeneratedRegex(@"\s(?:--([a-z-]+)|-([A-Za-z]+))")]
    private static partial Regex Spelling();

    /// <summary>A folder of images, made by the peer; each run works on a copy. One image is in use by another process all the time.</summary>
    public sealed partial class Images : IDisposable
    {
        private const string Make = """
            set -e
            head -c 1M /dev/zero | tr '\0' '\21' >disk.raw; truncate -s 4M disk.raw
            cp disk.raw longer.raw; truncate -s 5M longer.raw
            head -c 5M /dev/zero | tr '\0' '\377' >ones.raw
            qemu-img create -q -f qcow2 small.qcow2 64k
            qemu-img convert -O qcow2 disk.raw snap.qcow2
            qemu-img snapshot -c s1 snap.qcow2; qemu-io -f qcow2 -c 'write -P 5 2M 64k' snap.qcow2
            cp snap.qcow2 disk.qcow2
            qemu-img bitmap --add disk.qcow2 b0; qemu-img bitmap --add disk.qcow2 b1
            qemu-io -f qcow2 -c 'write -P 5 1M 64k' -c 'write -z 1M 64k' -c 'write -z 2M 64k' disk.qcow2
            qemu-img bitmap --clear disk.qcow2 b0; qemu-img bitmap --disable disk.qcow2 b1
            qemu-img create -q -f qcow2 other.qcow2 4M
            qemu-img bitmap --add other.qcow2 o0
            qemu-img create -q -f qcow2 -b disk.qcow2 -F qcow2 over.qcow2; qemu-io -f qcow2 -c 'write -P 9 3M 64k' over.qcow2
            qemu-img create -q -f qcow2 -b over.qcow2 -F qcow2 top.qcow2; qemu-io -f qcow2 -c 'write -P 8 3M 64k' top.qcow2
            cp disk.qcow2 broken.qcow2
            cp other.qcow2 damaged.qcow2; qemu-io -f qcow2 -c 'write -P 7 0 64k' -c 'write -P 7 2M 64k' damaged.qcow2
            qemu-img create -q -f qcow2 -o refcount_bits=16 leak.qcow2 4M; qemu-io -f qcow2 -c 'write 0 64k' leak.qcow2; truncate -s 2M leak.qcow2
            qemu-img create -q -f qcow2 locked.qcow2 4M
            """;

        private readonly string _root = Directory.CreateTempSubdirectory("imgkit-").FullName;
        private readonly Process _holder;

        public Images()
        {
            Directory.CreateDirectory(Model);
            var (code, output) = Programs.TryRun("/bin/bash", "-c", $"cd {Model} && {Make}");
            Assert.True(code == 0, output);
            // A reference to a cluster that has none, a bitmap that was in use, an entry that leads nowhere.
            Patch("leak.qcow2", 2 * 65536 + 2 * 20, [0, 1]);
            MarkBitmapsInUse();
            DamageSecondCluster();
            File.Copy(Path.Combine(Model, "locked.qcow2"), Locked);
            File.Delete(Path.Combine(Model, "locked.qcow2"));
            var info = new ProcessStartInfo("/usr/bin/qemu-io") { RedirectStandardInput = true, RedirectStandardOutput = true };
            foreach (string a in new[] { "-f", "qcow2", Locked })
                info.ArgumentList.Add(a);
            _holder = Process.Start(info)!;
            // It has the image once it answers.
            _holder.StandardInput.WriteLine("read 0 512");
            _holder.StandardInput.Flush();
            _holder.StandardOutput.ReadLine();
        }

        private string Model => Path.Combine(_root, "model");

        private string Locked => Path.Combine(_root, "locked.qcow2");

        /// <summary>Runs a command in a copy of the folder, and what shows its effect.</summary>
        /// <returns>what both printed, and the command's exit code.</returns>
        internal string Run(string command, string show)
        {
            string script = $"""
                nbdbits() (qemu-img map --output=json --image-opts "driver=nbd,server.type=unix,server.path=$PWD/s,x-dirty-bitmap=qemu:dirty-bitmap:$2" | sed 's/, "offset": [0-9]*//')
                eval "$(declare -f nbdbits | sed '1s/nbdbits/nbdmap/')"
                nbdbits() (qemu-nbd -r -f qcow2 -B "$2" -k "$PWD/s" "$1" & p=$!; for i in $(seq 100); do [ -S s ] && break; sleep 0.02; done; nbdmap "$1" "$2"; kill $p 2>/dev/null; wait $p 2>/dev/null)
                d=$(mktemp -d {_root}/XXXXXX); cd $d; cp -a --sparse=always {Model}/. .; ln -s {Locked} locked.qcow2
                IMG={Programs.Ours("kvm-img")}
                $IMG {string.Join(' ', command.Split(' ').Select(static w => w == "_" ? "''" : w))} 2>&1
                echo "exit $?"
                {show} 2>&1 | sed "s#$d/##g"
                cd /; rm -rf $d
                """;
            var (_, output) = Programs.TryRun("/bin/bash", "-c", script);
            return Steps().Replace(Seconds().Replace(output, "T seconds"), "(steps)");
        }

        public void Dispose()
        {
            _holder.StandardInput.Close();
            _holder.WaitForExit();
            _holder.Dispose();
            Directory.Delete(_root, true);
        }

        private void Patch(string name, long offset, ReadOnlySpan<byte> bytes)
        {
            using var f = File.OpenWrite(Path.Combine(Model, name));
            f.Position = offset;
            f.Write(bytes);
        }

        /// <summary>Sets the flag "in use" of each bitmap in the directory that the header extension 0x23852875 leads to.</summary>
        private void MarkBitmapsInUse()
        {
            byte[] b = File.ReadAllBytes(Path.Combine(Model, "broken.qcow2"));
            int at = b.AsSpan(0, 65536).IndexOf((ReadOnlySpan<byte>)[0x23, 0x85, 0x28, 0x75]);
            long directory = System.Buffers.Binary.BinaryPrimitives.ReadInt64BigEndian(b.AsSpan(at + 8 + 16));
            // The first entry's flags lie behind its table's offset and size.
            Patch("broken.qcow2", directory + 12, [0, 0, 0, 1]);
        }

        /// <summary>Makes the second allocated entry of the first L2 table lead behind all that can be.</summary>
        private void DamageSecondCluster()
        {
            byte[] b = File.ReadAllBytes(Path.Combine(Model, "damaged.qcow2"));
            long l1 = System.Buffers.Binary.BinaryPrimitives.ReadInt64BigEndian(b.AsSpan(40));
            long l2 = System.Buffers.Binary.BinaryPrimitives.ReadInt64BigEndian(b.AsSpan((int)l1)) & 0x00ff_ffff_ffff_fe00;
            Patch("damaged.qcow2", l2 + 32 * 8, [0x80, 0, 0, 0, 0, 0, 0x12, 0]);
        }

        [GeneratedRegex(@"[0-9]+\.[0-9]{3} seconds")]
        private static partial Regex Seconds();

        /// <summary>Which percentages are seen depends on the threads' progress.</summary>
        [GeneratedRegex(@"(    \([0-9.]+/100%\)\r)+")]
        private static partial Regex Steps();
    }
}
