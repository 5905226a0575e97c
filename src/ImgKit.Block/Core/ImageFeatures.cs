namespace ImgKit.Block;

/// <summary>An image that can name a backing file.</summary>
public interface IBackedImage
{
    /// <summary>The name as it stands in the image, or null.</summary>
    string? BackingFileName { get; }

    /// <summary>The format that the image says its backing file has, or null.</summary>
    string? BackingFormat { get; }

    /// <summary>Makes the image name another backing file (null: none). Content is not touched.</summary>
    void ChangeBackingFile(string? name, string? format);

    /// <summary>Puts another device below, for this run only; the image owns it from here on.</summary>
    /// <returns>the device that was there, now the caller's.</returns>
    BlockDevice? ReplaceBacking(BlockDevice? backing);
}

/// <summary>An image with details that only its format has.</summary>
public interface IImageDetails
{
    /// <summary>The cluster size that <c>info</c> shows, in bytes, or 0.</summary>
    int ClusterSize { get; }

    /// <summary>True when the image was not closed properly.</summary>
    bool IsDirty { get; }

    /// <summary>True when <c>info</c> may say that the image holds compressed clusters.</summary>
    bool IsCompressed { get; }

    /// <summary>Whether it is encrypted.</summary>
    bool IsEncrypted => false;

    /// <summary>The <c>format-specific</c> part of <c>info</c>: names and values in order; null where there is none.</summary>
    InfoObject? FormatSpecific { get; }
}

/// <summary>Names and values, in order, as <c>info</c> prints them. Values: string, bool, long, <see cref="InfoObject"/>,
/// or a list (<c>IReadOnlyList&lt;object&gt;</c>) of these.</summary>
public sealed class InfoObject : List<KeyValuePair<string, object>>
{
    /// <summary>Appends a member; a null value is left out.</summary>
    public void Add(string name, object? value)
    {
        if (value is not null)
            Add(new KeyValuePair<string, object>(name, value));
    }
}

/// <summary>An internal snapshot.</summary>
/// <param name="Id">as the format numbers it, text.</param>
/// <param name="Name">as the user named it.</param>
/// <param name="VmStateSize">bytes of saved machine state.</param>
/// <param name="Date">when it was made; UTC.</param>
/// <param name="VmClock">guest run time in nanoseconds.</param>
/// <param name="DiskSize">virtual size in bytes then.</param>
/// <param name="InstructionCount">guest instruction count, or -1.</param>
public sealed record SnapshotInfo(string Id, string Name, long VmStateSize, DateTimeOffset Date, long VmClock, long DiskSize, long InstructionCount);

/// <summary>An image with internal snapshots.</summary>
public interface ISnapshotImage
{
    /// <summary>All, in the image's order.</summary>
    IReadOnlyList<SnapshotInfo> Snapshots { get; }

    /// <summary>Makes one of the present content, and of the machine state that was written before (<see cref="IVmStateImage"/>).</summary>
    /// <param name="name">as the user names it.</param>
    /// <param name="date">shown in lists.</param>
    /// <param name="vmStateSize">bytes of machine state, 0: none.</param>
    /// <param name="vmClock">guest run time in nanoseconds.</param>
    /// <param name="instructionCount">guest instruction count, or -1.</param>
    SnapshotInfo CreateSnapshot(string name, DateTimeOffset date, long vmStateSize = 0, long vmClock = 0, long instructionCount = 0);

    /// <summary>Makes the content that of a snapshot (found by id, then by name).</summary>
    void ApplySnapshot(string idOrName);

    /// <summary>Deletes one (found by id, then by name).</summary>
    void DeleteSnapshot(string idOrName);

    /// <summary>The content of a snapshot as a read-only device, which lives as long as this one.</summary>
    BlockDevice OpenSnapshot(string idOrName);
}

/// <summary>A persistent dirty bitmap as <c>info</c> shows it.</summary>
/// <param name="Name">unique in the image.</param>
/// <param name="Granularity">bytes a bit.</param>
/// <param name="InUse">not stored cleanly: its content cannot be trusted.</param>
/// <param name="Auto">recording.</param>
public sealed record BitmapInfo(string Name, long Granularity, bool InUse, bool Auto);

/// <summary>An image with persistent dirty bitmaps.</summary>
public interface IBitmapImage
{
    /// <summary>All, in the image's order.</summary>
    IReadOnlyList<BitmapInfo> Bitmaps { get; }

    /// <summary>This image's version of the format can hold some.</summary>
    bool SupportsBitmaps => true;

    /// <summary>Adds an empty one.</summary>
    void AddBitmap(string name, long granularity, bool enabled);

    /// <summary>Removes one.</summary>
    void RemoveBitmap(string name);

    /// <summary>Clears every bit of one.</summary>
    void ClearBitmap(string name);

    /// <summary>Starts (true) or stops recording.</summary>
    void EnableBitmap(string name, bool enable);

    /// <summary>Sets the bits in one that are set in another (of this or another image).</summary>
    void MergeBitmap(string target, IBitmapImage source, string sourceName);

    /// <summary>Status of the bitmap at <paramref name="offset"/>: whether dirty, and for how many bytes it stays so.</summary>
    (bool Dirty, long Length) GetBitmapExtent(string name, long offset, long count);
}

/// <summary>An image that can check and repair its metadata.</summary>
public interface ICheckableImage
{
    /// <summary>Checks, and repairs what <paramref name="repair"/> names.</summary>
    /// <param name="repair">what to repair.</param>
    /// <param name="report">receives a line for each finding, as the peer words it.</param>
    CheckResult Check(CheckRepair repair, Action<string> report);
}

/// <summary>What a check may repair.</summary>
public enum CheckRepair
{
    /// <summary>Only look.</summary>
    None,

    /// <summary>Clusters that nothing refers to.</summary>
    Leaks,

    /// <summary>Everything.</summary>
    All,
}

/// <summary>What a check found. Counts of clusters where not said otherwise.</summary>
public sealed class CheckResult
{
    /// <summary>Errors that lose data.</summary>
    public long Corruptions { get; set; }

    /// <summary>Space that nothing refers to.</summary>
    public long Leaks { get; set; }

    /// <summary>Errors while checking itself.</summary>
    public long CheckErrors { get; set; }

    /// <summary>Repaired.</summary>
    public long CorruptionsFixed { get; set; }

    /// <summary>Repaired.</summary>
    public long LeaksFixed { get; set; }

    /// <summary>Where the image ends in its file, in bytes; 0: not known.</summary>
    public long ImageEndOffset { get; set; }

    /// <summary>Of the virtual size; 0: not known.</summary>
    public long TotalClusters { get; set; }

    /// <summary>In use.</summary>
    public long AllocatedClusters { get; set; }

    /// <summary>Not behind their predecessor.</summary>
    public long FragmentedClusters { get; set; }

    /// <summary>Compressed.</summary>
    public long CompressedClusters { get; set; }
}

/// <summary>An image whose options can be changed afterwards.</summary>
public interface IAmendableImage
{
    /// <summary>Changes the options given (names as in <see cref="BlockDriver.AmendOptions"/>).</summary>
    /// <param name="options">new values.</param>
    /// <param name="force">also what cannot be undone.</param>
    /// <param name="progress">told (done, total), in any unit.</param>
    void Amend(BlockOptions options, bool force, Action<long, long>? progress);
}

/// <summary>An image with room for the state of a machine behind the disk's content.</summary>
public interface IVmStateImage
{
    /// <summary>Where the area starts, in bytes of the address space that the format's tables span.</summary>
    long VmStateOffset { get; }

    /// <summary>Reads; offsets are relative to the area.</summary>
    void ReadVmState(long offset, Span<byte> destination);

    /// <summary>Writes; offsets are relative to the area.</summary>
    void WriteVmState(long offset, ReadOnlySpan<byte> source);
}

/// <summary>An image that can drop all its own content, so that its backing file shows (after a commit).</summary>
public interface IEmptyableImage
{
    /// <summary>Makes everything unallocated.</summary>
    void MakeEmpty();
}

/// <summary>An image that can be asked and read only once, front to back (a little out of order, as several threads do).</summary>
public interface ISequentialImage
{
    /// <summary>Takes what is left, when all has been read.</summary>
    /// <exception cref="ImageException">the image is not whole.</exception>
    void Finish();
}
