namespace ImgKit.Block.Tests.Qcow2;

public sealed class Qcow2StreamTests : IDisposable
{
    private readonly TestData.Folder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Theory]
    [InlineData("", 5_000_192)]
    [InlineData("cluster_size=512,refcount_bits=1", 3_000_320)]
    [InlineData("cluster_size=4096,refcount_bits=64", 9_000_448)]
    [InlineData("cluster_size=2M,compat=0.10", 9_000_448)]
    [InlineData("", 0)]
    public void What_is_written_front_to_back_is_a_clean_image(string options, int length)
    {
        byte[] data = TestData.Mixed(length, length);
        string raw = _folder.File("raw"), image = _folder.File("image");
        File.WriteAllBytes(raw, data);
        var o = new BlockOptions();
        foreach (string pair in options.Split(',', StringSplitOptions.RemoveEmptyEntries))
            o.Set(pair.Split('=')[0], pair.Split('=')[1]);
        using (var source = new ImageOpener().Open(raw, "raw", OpenSettings.ReadOnlyDefault))
        using (var file = File.Create(image))
        using (var pipe = new ForwardOnly(file))
            DriverCatalogue.Default.Get("qcow2").WriteStream!(new StreamWriteContext { Source = source, Output = pipe, Options = o, Threads = 3 });
        Run("qemu-img", "check", "-f", "qcow2", image);
        Run("qemu-img", "compare", "-f", "raw", "-F", "qcow2", raw, image);
    }

    private static void Run(string program, params string[] arguments) => Peer.Run(program, arguments);

    /// <summary>A stream that can do no more than a pipe can.</summary>
    private sealed class ForwardOnly(Stream inner) : Stream
    {
        public override bool CanRead => false;

        public override bool CanSeek => false;

        public override bool CanWrite => true;

        public override long Length => throw new NotSupportedException();

        public override long Position { get => throw new NotSupportedException(); set => throw new NotSupportedException(); }

        public override void Flush() => inner.Flush();

        public override int Read(byte[] buffer, int offset, int count) => throw new NotSupportedException();

        public override long Seek(long offset, SeekOrigin origin) => throw new NotSupportedException();

        public override void SetLength(long value) => throw new NotSupportedException();

        public override void Write(byte[] buffer, int offset, int count) => inner.Write(buffer, offset, count);
    }
}
