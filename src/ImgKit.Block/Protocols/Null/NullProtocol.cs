namespace ImgKit.Block.Protocols.Null;

/// <summary>Disks without storage, for measuring: reads give nothing in particular, or zeroes; writes vanish.</summary>
public static class NullProtocol
{
    /// <summary><c>null-co</c>.</summary>
    public static BlockDriver Coroutine { get; } = Make("null-co");

    /// <summary><c>null-aio</c>.</summary>
    public static BlockDriver Aio { get; } = Make("null-aio");

    private static BlockDriver Make(string name) => new()
    {
        Name = name,
        Kind = DriverKind.Protocol,
        Description = "A disk without storage",
        FileNamePrefixes = [name + ":"],
        ParseFileName = (_, options) => options.TakeString("filename"),
        Open = context =>
        {
            _ = context.Options.TakeString("filename");
            return new NullDevice(name, context.Options.TakeSize("size") ?? 1L << 30, context.Options.TakeBool("read-zeroes") ?? false,
                context.Options.TakeNumber("latency-ns") ?? 0) { FileName = name + "://" };
        },
        OpenOptions =
        [
            new("size", OptionType.Size, "size of the null block", "1G"),
            new("latency-ns", OptionType.Number, "nanoseconds (approximated) to wait before completing request", "0"),
            new("read-zeroes", OptionType.Bool, "return zeroes when read", "off"),
        ],
    };

    private sealed class NullDevice(string name, long size, bool readZeroes, long latency) : BlockDevice
    {
        public override string FileName { get; set; } = name + "://";

        public override string DriverName => name;

        public override long Length => size;

        public override long AllocatedHostBytes => 0;

        public override void Read(long offset, Span<byte> destination)
        {
            CheckRange(offset, destination.Length);
            Wait();
            if (readZeroes)
                destination.Clear();
        }

        public override void Write(long offset, ReadOnlySpan<byte> source)
        {
            CheckRange(offset, source.Length);
            Wait();
        }

        public override void WriteZeroes(long offset, long count, ZeroOptions options = ZeroOptions.None)
        {
            CheckRange(offset, count);
            Wait();
        }

        public override void Flush() => Wait();

        public override BlockExtent GetExtent(long offset, long count) =>
            new(count, ExtentKind.OffsetValid | ExtentKind.Allocated | (readZeroes ? ExtentKind.Zero : ExtentKind.Data), offset);

        private void Wait()
        {
            if (latency > 0)
                Thread.Sleep(TimeSpan.FromMicroseconds(latency / 1000.0));
        }
    }
}
