using ImgKit.Block;

namespace ImgKit.Fuzz.Targets;

/// <summary>An image of a format: opened, described, checked, mapped, read, and, where it can be, repaired and written.</summary>
internal sealed class ImageTarget(string format, Func<IEnumerable<byte[]>> seeds, bool writable) : IFuzzTarget
{
    private const long MaxRead = 4 << 20;
    private const int MaxExtents = 2000;
    private readonly byte[] _buffer = new byte[1 << 20];

    public string Name => format;

    public IEnumerable<byte[]> Seeds() => seeds();

    public void Run(byte[] input)
    {
        Try(() => Look(input, new OpenSettings { ReadOnly = true }));
        if (writable)
            Try(() => Change(input));
    }

    private static void Try(Action action)
    {
        try
        {
            action();
        }
        catch (ImageException e) when (!e.Message.Replace("\nYou can ", "", StringComparison.Ordinal).Contains('\n'))
        {
            // Said what is wrong: right.
            return;
        }
        catch (Exception e) when (e is IOException or NotSupportedException && e is not ObjectDisposedException)
        {
            return;
        }
    }

    private void Look(byte[] input, OpenSettings settings)
    {
        var images = new MemoryImages { ["mem:image"] = (byte[])input.Clone() };
        _ = DriverCatalogue.Default.Get(format).Probe?.Invoke(input.AsSpan(0, Math.Min(2048, input.Length)), "image", new NullStorage());
        using var image = images.Opener().Open("mem:image", format, settings);
        if (image is IImageDetails details)
            _ = details.FormatSpecific;
        if (image is ICheckableImage checkable)
            Try(() => checkable.Check(CheckRepair.None, _ => { }));
        long read = 0;
        int extents = 0;
        for (long at = 0; at < image.Length && read < MaxRead && extents < MaxExtents; extents++)
        {
            long n = Math.Min(image.Length - at, _buffer.Length);
            try
            {
                var e = image.GetExtent(at, image.Length - at);
                if (e.Length <= 0 || e.Length > image.Length - at)
                    throw new InvalidOperationException($"an extent of {e.Length} bytes at {at}");
                n = e.Length;
                if (e.IsData)
                {
                    n = Math.Min(n, _buffer.Length);
                    image.Read(at, _buffer.AsSpan(0, (int)n));
                    read += n;
                }
            }
            catch (ImageException)
            {
                n = Math.Min(n, 65536);
                read += n;
            }
            at += n;
        }
        if (image.Length > 1000)
            Try(() => image.Read(image.Length - 777, _buffer.AsSpan(0, 700)));
    }

    private void Change(byte[] input)
    {
        var images = new MemoryImages { ["mem:image"] = (byte[])input.Clone() };
        using (var image = images.Opener().Open("mem:image", format, new OpenSettings()))
        {
            if (image is ICheckableImage checkable)
                Try(() => checkable.Check(CheckRepair.All, _ => { }));
            foreach (long at in (long[])[0, image.Length / 2, image.Length - 5000])
                if (at >= 0 && at + 5000 <= image.Length)
                {
                    Try(() => image.Write(at, _buffer.AsSpan(0, 5000)));
                    Try(() => image.WriteZeroes(at, 3000, ZeroOptions.MayUnmap));
                    Try(() => image.Discard(at, 1000));
                }
            Try(image.Flush);
        }
        Look(images["mem:image"], new OpenSettings { ReadOnly = true });
    }

    private sealed class NullStorage : BlockDevice
    {
        public override string DriverName => "null";

        public override long Length => 0;

        public override void Read(long offset, Span<byte> destination) => destination.Clear();

        public override void Write(long offset, ReadOnlySpan<byte> source) => throw new IOException();

        public override void Flush() { }
    }
}
