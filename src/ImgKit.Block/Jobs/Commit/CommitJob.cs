using ImgKit.Block.Jobs.Convert;

namespace ImgKit.Block.Jobs.Commit;

/// <summary>What <see cref="CommitJob"/> does.</summary>
public sealed record CommitRequest
{
    /// <summary>The overlay, open for writing.</summary>
    public required BlockDevice Top { get; init; }

    /// <summary>Name of the image below that receives the changes; null: the one right below.</summary>
    public string? BaseName { get; init; }

    /// <summary>Leave the overlay as it is; otherwise it is emptied where its format can do that.</summary>
    public bool KeepTop { get; init; }

    /// <summary>How the base is opened for writing.</summary>
    public OpenSettings BaseSettings { get; init; } = new();

    /// <summary>Bytes a second, or 0.</summary>
    public long RateLimit { get; init; }

    /// <summary>Told the bytes of the disk that are done.</summary>
    public IProgress<long>? Progress { get; init; }

    /// <summary>Receives what went wrong but stopped nothing.</summary>
    public Action<string>? Warn { get; init; }
}

/// <summary>Writes what an overlay has into an image below it.</summary>
/// <remarks>At every moment the overlay reads as before: what is written below it is what it holds itself. Only once all of that is on
/// stable storage is the overlay emptied.</remarks>
public static class CommitJob
{
    /// <summary>Runs.</summary>
    /// <exception cref="ImageException">no such base, or reading or writing failed; the overlay is unharmed.</exception>
    public static void Run(ImageOpener opener, CommitRequest request, CancellationToken cancellation = default)
    {
        var top = request.Top;
        var (above, below) = Locate(request);
        var target = below;
        if (below.IsReadOnly)
        {
            // The chain has it for reading; two openings of one file would exclude each other.
            above.ReplaceBacking(null)?.Dispose();
            target = opener.Open(below.FileName, below.DriverName, request.BaseSettings);
            above.ReplaceBacking(target);
        }
        try
        {
            Copy(top, target, request, cancellation);
            target.Flush();
        }
        catch (ImageException e)
        {
            throw new ImageException(e.Kind, $"Block job failed: {e.Message}", e.File, e.Offset, e) { Errno = e.Errno };
        }
        if (!request.KeepTop && top is IEmptyableImage emptyable)
        {
            try
            {
                emptyable.MakeEmpty();
                top.Flush();
            }
            catch (ImageException e)
            {
                throw new ImageException(e.Kind, $"Failed to empty {top.FileName}: {e.Message}", top.FileName, e.Offset, e) { Errno = e.Errno };
            }
        }
    }

    /// <summary>Writes what <paramref name="top"/> and the layers between have into <paramref name="target"/>, which grows if need be.</summary>
    public static void Copy(BlockDevice top, BlockDevice target, CommitRequest request, CancellationToken cancellation)
    {
        long backingLength = target.Length;
        if (top.Length > backingLength)
            target.Resize(top.Length, new ResizeOptions(Preallocation.Off, AllowShrink: false));
        using var changes = new Changes(top, target);
        ConvertJob.Run(new ConvertRequest
        {
            Sources = [changes],
            Target = target,
            // A longer base keeps its rest.
            TargetHasBacking = true,
            TargetBackingLength = Math.Max(backingLength, target.Length),
            RateLimit = request.RateLimit,
            Progress = request.Progress,
            Warn = request.Warn,
        }, cancellation);
    }

    private static (IBackedImage Above, BlockDevice Base) Locate(CommitRequest request)
    {
        var top = request.Top;
        if (request.BaseName is { } name)
            return BackingChain.Find(top, name)
                ?? throw new ImageException(ImageErrorKind.NotFound, $"Did not find '{name}' in the backing chain of '{top.FileName}'");
        return top.Backing is { } below && top is IBackedImage image
            ? (image, below)
            : throw new ImageException(ImageErrorKind.InvalidArgument, "Image does not have a backing file");
    }

    /// <summary>What lies above a base, as one layer whose backing device is the base.</summary>
    private sealed class Changes(BlockDevice top, BlockDevice below) : BlockDevice
    {
        public override long Length => top.Length;

        public override bool IsReadOnly => true;

        public override BlockLimits Limits => top.Limits;

        public override string DriverName => top.DriverName;

        public override BlockDevice Backing => below;

        public override void Read(long offset, Span<byte> destination) => top.Read(offset, destination);

        public override void Write(long offset, ReadOnlySpan<byte> source) =>
            throw new ImageException(ImageErrorKind.ReadOnly, "changes cannot be written", top.FileName);

        public override void Flush() { }

        public override BlockExtent GetExtent(long offset, long count)
        {
            var (e, _, _) = BlockExtents.GetExtentAbove(top, offset, count, below);
            // Behind the end of a layer between, zeroes hide what the base has there.
            return e.IsZero ? e with { Kind = e.Kind | ExtentKind.Allocated } : e;
        }
    }
}
