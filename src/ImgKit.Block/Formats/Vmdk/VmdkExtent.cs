namespace ImgKit.Block.Formats.Vmdk;

/// <summary>
/// One extent of a virtual disk. Offsets are bytes from the extent's start; callers stay inside <c>[0, Length)</c>.
/// </summary>
internal abstract class VmdkExtent : IDisposable
{
    /// <summary>The disk that this is a part of.</summary>
    public VmdkImage Image { get; set; } = null!;

    /// <summary>Where the extent starts in the disk, bytes.</summary>
    public long Start { get; set; }

    /// <summary>Bytes.</summary>
    public abstract long Length { get; }

    /// <summary>As the descriptor says it (FLAT, SPARSE ...); empty for an image that is its own extent.</summary>
    public string Type { get; set; } = "";

    /// <summary>The line of the descriptor that names it, or -1.</summary>
    public int Line { get; set; } = -1;

    /// <summary>What a guest may do with it.</summary>
    public ExtentAccess Access { get; set; }

    /// <summary>The file that holds it, or null (ZERO).</summary>
    public virtual BlockDevice? File => null;

    /// <summary>The file is not the image's own and is closed with the extent.</summary>
    public bool OwnsFile { get; set; }

    /// <summary>Bytes of a grain, or 0.</summary>
    public virtual int GrainSize => 0;

    /// <summary>Grains are stored compressed.</summary>
    public virtual bool IsCompressed => false;

    /// <summary>Nothing is stored in it (so that no child can depend on what it was).</summary>
    public virtual bool IsPristine => false;

    public abstract void Read(long offset, Span<byte> destination);

    public abstract void Write(long offset, ReadOnlySpan<byte> source);

    public abstract void WriteZeroes(long offset, long count, ZeroOptions options);

    public virtual void Discard(long offset, long count) { }

    public virtual void Flush() { }

    public abstract BlockExtent GetExtent(long offset, long count);

    /// <summary>Makes the extent longer; what is gained reads as zeroes or, below, as the backing device's.</summary>
    public virtual void Grow(long length, Preallocation preallocation) =>
        throw new ImageException(ImageErrorKind.Unsupported, $"an extent of type {Type} cannot be made longer", File?.FileName);

    /// <summary>Makes everything unallocated.</summary>
    public virtual void MakeEmpty() =>
        throw new ImageException(ImageErrorKind.Unsupported, $"an extent of type {Type} cannot be emptied", File?.FileName);

    /// <summary>Checks the extent's metadata.</summary>
    public virtual void Check(CheckRepair repair, Action<string> report, CheckResult result) { }

    public virtual void Dispose()
    {
        if (OwnsFile)
            File?.Dispose();
    }
}

/// <summary>A part of a file, as it is.</summary>
internal sealed class FlatExtent(BlockDevice file, long start, long length) : VmdkExtent
{
    private long _length = length;

    public override long Length => _length;

    public override BlockDevice File => file;

    public override void Read(long offset, Span<byte> destination)
    {
        // A file that is shorter than its descriptor says ends in zeroes.
        long there = Math.Clamp(file.Length - (start + offset), 0, destination.Length);
        if (there > 0)
            file.Read(start + offset, destination[..(int)there]);
        destination[(int)there..].Clear();
    }

    public override void Write(long offset, ReadOnlySpan<byte> source) => file.Write(start + offset, source);

    public override void WriteZeroes(long offset, long count, ZeroOptions options) => file.WriteZeroes(start + offset, count, options);

    public override void Discard(long offset, long count) => file.Discard(start + offset, count);

    public override void Flush() => file.Flush();

    public override BlockExtent GetExtent(long offset, long count)
    {
        long at = start + offset;
        if (at >= file.Length)
            return new(count, ExtentKind.Zero | ExtentKind.Allocated, 0);
        var e = file.GetExtent(at, Math.Min(count, file.Length - at));
        // All of a flat extent has its place in the file, also where that has a hole.
        return e with { Kind = e.Kind | ExtentKind.Allocated | ExtentKind.Data, HostDevice = e.HostDevice ?? file };
    }

    public override void Grow(long length, Preallocation preallocation)
    {
        if (file.Length < start + length)
            file.Resize(start + length, new ResizeOptions(preallocation));
        _length = length;
    }
}

/// <summary>An extent without storage: ZERO reads as zeroes; NOACCESS must not be read at all.</summary>
internal sealed class EmptyExtent(long length, bool noAccess) : VmdkExtent
{
    private long _length = length;

    public override long Length => _length;

    public override void Read(long offset, Span<byte> destination)
    {
        if (noAccess)
            throw Refused(offset);
        destination.Clear();
    }

    public override void Write(long offset, ReadOnlySpan<byte> source) => throw Refused(offset);

    public override void WriteZeroes(long offset, long count, ZeroOptions options)
    {
        if (noAccess)
            throw Refused(offset);
    }

    public override BlockExtent GetExtent(long offset, long count) =>
        new(count, (noAccess ? ExtentKind.Data : ExtentKind.Zero) | ExtentKind.Allocated, 0);

    public override void Grow(long length, Preallocation preallocation) => _length = length;

    private ImageException Refused(long offset) =>
        new(ImageErrorKind.Denied,
            $"offset {Start + offset} lies in an extent of {Length} bytes that the descriptor marks {(noAccess ? "NOACCESS" : "ZERO")}",
            Image.FileName, Start + offset)
        { Errno = noAccess ? 13 : 30 };
}
