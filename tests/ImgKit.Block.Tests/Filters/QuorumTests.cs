namespace ImgKit.Block.Tests.Filters;

public sealed class QuorumTests
{
    private static BlockDevice Open(TestData.Folder folder, int children, int threshold, string more = "", bool readOnly = true)
    {
        string list = string.Join(", ", Enumerable.Range(0, children).Select(i => $"{{'driver': 'raw', 'file': {{'driver': 'file', 'filename': '{folder.File($"{i}")}'}}}}"));
        return new ImageOpener().Open($"json:{{'driver': 'quorum', 'vote-threshold': {threshold}, 'children': [{list}]{more}}}", null,
            new OpenSettings { ReadOnly = readOnly });
    }

    private static void Fill(TestData.Folder folder, params byte[] values)
    {
        for (int i = 0; i < values.Length; i++)
            File.WriteAllBytes(folder.File($"{i}"), Enumerable.Repeat(values[i], 4096).ToArray());
    }

    [Fact]
    public void What_enough_say_is_read()
    {
        using var folder = new TestData.Folder();
        Fill(folder, 1, 2, 1);
        using var device = Open(folder, 3, 2);
        byte[] b = new byte[4096];
        device.Read(0, b);
        Assert.False(b.AsSpan().ContainsAnyExcept((byte)1));
        using var strict = Open(folder, 3, 3);
        Assert.Throws<ImageException>(() => strict.Read(0, b));
    }

    [Fact]
    public void Writes_go_to_all_and_wrong_copies_can_be_rewritten()
    {
        using var folder = new TestData.Folder();
        Fill(folder, 1, 1, 9);
        using (var device = Open(folder, 3, 2, ", 'rewrite-corrupted': true", readOnly: false))
        {
            device.Write(512, [7, 7]);
            device.Read(0, new byte[4096]);
            device.Flush();
        }
        byte[] first = File.ReadAllBytes(folder.File("0"));
        Assert.Equal(7, first[513]);
        Assert.Equal(first, File.ReadAllBytes(folder.File("1")));
        Assert.Equal(first, File.ReadAllBytes(folder.File("2")));
    }

    /// <summary>A copy that has been written before the others is not put back to what they still hold.</summary>
    [Fact]
    public void A_read_beside_a_write_repairs_nothing()
    {
        using var release = new ManualResetEventSlim();
        using var writing = new ManualResetEventSlim();
        var memory = new MemoryProtocol();
        for (int i = 0; i < 3; i++)
            memory.Devices[$"{i}"] = new RecordingDevice(new byte[4096]);
        memory.Devices["1"] = new WaitingDevice(memory.Devices["1"], writing, release);
        string list = string.Join(", ", Enumerable.Range(0, 3).Select(i => $"{{'driver': 'mem', 'filename': 'mem:{i}'}}"));
        using var device = memory.Opener().Open($"json:{{'driver': 'quorum', 'vote-threshold': 2, 'rewrite-corrupted': true, 'children': [{list}]}}", null,
            new OpenSettings());
        var write = Task.Run(() => device.Write(0, [1]));
        Assert.True(writing.Wait(5000));
        var read = Task.Run(() => device.Read(0, new byte[1]));
        read.Wait(100);
        release.Set();
        Assert.True(Task.WaitAll([write, read], 5000));
        foreach (var copy in memory.Devices.Values)
        {
            byte[] b = new byte[1];
            copy.Read(0, b);
            Assert.Equal(1, b[0]);
        }
    }

    private sealed class WaitingDevice(BlockDevice device, ManualResetEventSlim writing, ManualResetEventSlim release) : BlockDevice
    {
        public override string DriverName => "waiting";

        public override long Length => device.Length;

        public override void Read(long offset, Span<byte> destination) => device.Read(offset, destination);

        public override void Write(long offset, ReadOnlySpan<byte> source)
        {
            writing.Set();
            release.Wait();
            device.Write(offset, source);
        }

        public override void Flush() { }
    }

    [Fact]
    public void Relative_names_have_no_folder_to_start_from()
    {
        using var folder = new TestData.Folder();
        Vmdk.VmdkPeerTests.Create(folder.File("t.vmdk"), 1 << 20, "subformat=monolithicFlat");
        File.Copy(folder.File("t.vmdk"), folder.File("0"));
        var e = Assert.Throws<ImageException>(() => new ImageOpener().Open(
            $"json:{{'driver': 'vmdk', 'file': {{'driver': 'quorum', 'vote-threshold': 1, 'children': [{{'driver': 'file', 'filename': '{folder.File("0")}'}}]}}}}",
            null, OpenSettings.ReadOnlyDefault));
        Assert.EndsWith("Cannot generate a base directory for quorum nodes", e.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(3, 4, "threshold may not exceed children count")]
    [InlineData(3, 0, "Parameter 'vote-threshold' expects a value >= 1")]
    [InlineData(0, 1, "Number of provided children must be 1 or more")]
    public void Impossible_votes_are_refused(int children, int threshold, string message)
    {
        using var folder = new TestData.Folder();
        Fill(folder, 1, 1, 1);
        Assert.Equal(message, Assert.Throws<ImageException>(() => Open(folder, children, threshold)).Message);
    }
}
