namespace ImgKit.Conformance;

/// <summary>Images that depend on nothing but their content and options, and digests that are made on the way.</summary>
public sealed class ImgReproducibleTests : IDisposable
{
    private static readonly string[] Conversions =
    [
        "raw", "qcow2", "qcow2 -c", "qcow2 -c -W -m 16 -o compression_type=zstd", "qcow2 -o extended_l2=on,cluster_size=128k", "qcow2 -o compat=0.10",
        "qcow2 -o data_file=data", "qcow2 -o preallocation=metadata", "vmdk", "vmdk -o subformat=monolithicFlat", "vmdk -o subformat=twoGbMaxExtentSparse",
        "vmdk -o subformat=twoGbMaxExtentFlat", "vmdk -o subformat=streamOptimized", "vmdk -o subformat=streamOptimized -m 1", "cloop", "cloop -o version=4.0",
        "cloop -o version=4.0,compressors=zlib+none+lz4+xz+lzo",
    ];

    private readonly Workspace _work = new();

    public void Dispose() => _work.Dispose();

    [Fact]
    public void Neither_the_clock_nor_chance_shows_in_a_reproducible_image()
    {
        string source = _work.MakeDisk("source", 3 << 20);
        Make("a");
        // Longer than a clock's second.
        Thread.Sleep(1100);
        Make("b");
        string[] files = [.. Directory.GetFiles(_work["a"]).Select(static f => Path.GetFileName(f))];
        Assert.True(files.Length > Conversions.Length + 8);
        foreach (string file in files)
            Assert.True(File.ReadAllBytes($"{_work["a"]}/{file}").AsSpan().SequenceEqual(File.ReadAllBytes($"{_work["b"]}/{file}")), file);

        void Make(string folder)
        {
            Directory.CreateDirectory(_work[folder]);
            for (int i = 0; i < Conversions.Length; i++)
                Shell(folder, $"convert --reproducible -O {Conversions[i]} {source} c{i}");
            foreach (string format in (string[])["raw", "qcow2", "vmdk -o subformat=streamOptimized", "cloop"])
                Shell(folder, $"convert --reproducible -O {format} {source} - > pipe-{format.Split(' ')[0]}");
            foreach (string format in (string[])["raw", "qcow2", "vmdk", "cloop"])
                Shell(folder, $"create -q --reproducible -f {format} new-{format} 5M");
            Shell(folder, "create -q --reproducible -f vmdk -b new-vmdk -F vmdk child-vmdk");
        }
    }

    [Fact]
    public void The_digest_has_a_line_of_its_own_beside_the_progress()
    {
        string source = _work.MakeDisk("source", 3 << 20);
        string digest = Shell(".", $"checksum {source}").Split(' ')[0];
        Assert.EndsWith($"\r\n{digest}  t\n", Shell(".", $"convert -p --digest -O qcow2 {source} t"), StringComparison.Ordinal);
        // An image that goes to standard output has that to itself.
        Shell(".", $"convert -p --digest -O raw {source} - 2>progress | cmp - {source}");
        Assert.EndsWith($"\r\n{digest}  -\n", File.ReadAllText(_work["progress"]), StringComparison.Ordinal);
    }

    private string Shell(string folder, string arguments) =>
        Programs.Run("/bin/bash", "-c", $"set -o pipefail; cd {_work[folder]} && {Programs.Ours("kvm-img")} {arguments}");
}
