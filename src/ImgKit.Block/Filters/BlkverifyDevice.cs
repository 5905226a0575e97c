using ImgKit.Host;

namespace ImgKit.Block.Filters;

/// <summary>
/// Two disks that are to have the same content: writes go to both, reads are compared. <c>blkverify:RAW:TEST</c>; the first is
/// taken as it is, the second is the image under test.
/// </summary>
internal sealed class BlkverifyDevice : FilterDevice
{
    private readonly BlockDevice _raw;
    private readonly Action<string>? _print;
    private readonly ReaderWriterLockSlim _order = new(LockRecursionPolicy.NoRecursion);

    private BlkverifyDevice(BlockDevice raw, BlockDevice test, Action<string>? print)
        : base(test)
    {
        _raw = raw;
        _print = print;
        FileName = $"blkverify:{raw.FileName}:{test.FileName}";
    }

    /// <summary>The declaration.</summary>
    public static BlockDriver Driver { get; } = new()
    {
        Name = "blkverify",
        Kind = DriverKind.Filter,
        Description = "Compares an image under test with a raw one",
        FileNamePrefixes = ["blkverify:"],
        ParseFileName = ParseFileName,
        Open = Open,
        OpenOptions =
        [
            new("x-raw", OptionType.String, "[internal use only, will be removed]"),
            new("x-image", OptionType.String, "[internal use only, will be removed]"),
        ],
    };

    public override string DriverName => "blkverify";

    private static void ParseFileName(string name, BlockOptions options)
    {
        const string prefix = "blkverify:";
        if (!name.StartsWith(prefix, StringComparison.Ordinal))
        {
            options.Set("x-image", name);
            return;
        }
        string rest = name[prefix.Length..];
        int colon = rest.IndexOf(':', StringComparison.Ordinal);
        if (colon < 0)
            throw new ImageException(ImageErrorKind.InvalidArgument, "blkverify requires raw copy and original image path", name);
        options.Set("x-raw", rest[..colon]);
        options.Set("x-image", rest[(colon + 1)..]);
    }

    private static BlkverifyDevice Open(OpenContext context)
    {
        string? rawName = context.Options.TakeString("x-raw"), testName = context.Options.TakeString("x-image");
        var raw = context.Opener.OpenChild(context, "raw", rawName, asStorage: true);
        try
        {
            return new BlkverifyDevice(raw, context.Opener.OpenChild(context, "test", testName, asStorage: false), context.Opener.Print);
        }
        catch
        {
            raw.Dispose();
            throw;
        }
    }

    public override void Read(long offset, Span<byte> destination)
    {
        using var other = new AlignedBuffer(Math.Max(destination.Length, 1));
        var expected = other.Span[..destination.Length];
        // A write in between would make the two differ for no fault of either.
        _order.EnterWriteLock();
        try
        {
            Inner.Read(offset, destination);
            _raw.Read(offset, expected);
        }
        finally
        {
            _order.ExitWriteLock();
        }
        int same = destination.CommonPrefixLength(expected);
        if (same == destination.Length)
            return;
        _print?.Invoke($"blkverify: read offset={offset} bytes={destination.Length} contents mismatch at offset {offset + same}");
        throw new ImageException(ImageErrorKind.Corrupt, $"blkverify: contents mismatch at offset {offset + same}", FileName, offset + same) { Errno = 5 };
    }

    public override void Write(long offset, ReadOnlySpan<byte> source)
    {
        _order.EnterWriteLock();
        try
        {
            Inner.Write(offset, source);
            _raw.Write(offset, source);
        }
        finally
        {
            _order.ExitWriteLock();
        }
    }

    public override void WriteZeroes(long offset, long count, ZeroOptions options = ZeroOptions.None)
    {
        _order.EnterWriteLock();
        try
        {
            Inner.WriteZeroes(offset, count, options);
            _raw.WriteZeroes(offset, count, options & ~ZeroOptions.NoFallback);
        }
        finally
        {
            _order.ExitWriteLock();
        }
    }

    public override void Discard(long offset, long count)
    {
        // What is discarded reads as each likes: nothing could be compared afterwards.
    }

    public override void Flush()
    {
        Inner.Flush();
        _raw.Flush();
    }

    protected override void Dispose(bool disposing)
    {
        base.Dispose(disposing);
        _raw.Dispose();
        _order.Dispose();
    }
}
