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
