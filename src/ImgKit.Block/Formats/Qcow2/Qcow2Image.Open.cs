using System.Buffers.Binary;
using static ImgKit.Block.Formats.Qcow2.Qcow2Layout;

namespace ImgKit.Block.Formats.Qcow2;

internal sealed partial class Qcow2Image
{
    /// <summary>Opens the image in <see cref="OpenContext.File"/>.</summary>
    public static Qcow2Image Open(OpenContext context)
    {
        var settings = context.Settings;
        Action<string> warn = context.Opener.Warn ?? (_ => { });
        Action<string> print = context.Opener.Print ?? (_ => { });
        var file = context.File;
        var header = Qcow2Header.Read(file, context.FileName, warn);
        CheckFeatures(header, context.FileName, !settings.ReadOnly && !file.IsReadOnly, settings);
        var options = Qcow2Options.Take(context.Options, header, settings);
        CheckTables(header, context.FileName, settings.ForCheck);
        var image = new Qcow2Image(file, header, settings, options, context.FileName, warn, print);
        try
        {
            image.OpenDataFile(context);
            image.Load(settings);
            image.OpenBacking(context);
            if (image._writable)
                image.PrepareForWriting(settings);
            return image;
        }
        catch
        {
            image._disposed = true;
            image._backing?.Dispose();
            if (image._hasDataFile && !ReferenceEquals(image._data, file))
                image._data.Dispose();
            throw;
        }
    }

    private static void CheckFeatures(Qcow2Header h, string name, bool writable, OpenSettings settings)
    {
        if ((h.Incompatible & ~IncompatKnown) is var unknown and not 0)
            throw new ImageException(ImageErrorKind.Unsupported, $"Unsupported qcow2 feature(s): {h.NameFeatures(unknown)}", name, 72) { Errno = 95 };
        if (h.HasFlag(IncompatCorrupt) && writable && !settings.ForCheck)
            throw new ImageException(ImageErrorKind.Corrupt, "qcow2: Image is corrupt; cannot be opened read/write", name, 72) { Errno = 13 };
        if (h.CompressionType > 1)
            throw new ImageException(ImageErrorKind.Unsupported, $"qcow2: unknown compression type: {h.CompressionType}", name, 104) { Errno = 95 };
        if (h.CompressionType == 0 && h.HasFlag(IncompatCompression))
            throw Bad("qcow2: Compression type incompatible feature bit must not be set", name, 104);
        if (h.CompressionType != 0 && !h.HasFlag(IncompatCompression))
            throw Bad("qcow2: Compression type incompatible feature bit must be set", name, 104);
        if (h.HasFlag(IncompatExtendedL2) && h.ClusterBits - 5 < MinSubclusterBits)
            throw Bad($"Unsupported subcluster size: {1 << Math.Max(h.ClusterBits - 5, 0)}", name, 20);
        if (h.CryptMethod > 2)
            throw Bad($"Unsupported encryption method {h.CryptMethod}", name, 32);
        if (h.CryptMethod != 0 && !settings.NoIo)
            throw new ImageException(ImageErrorKind.Unsupported, "Encrypted qcow2 images are not supported (the image is encrypted with "
                + (h.CryptMethod == 1 ? "aes" : "luks") + ")", name, 32)
            {
                Errno = 95,
            };
    }

    private static ImageException Bad(string message, string name, long offset = -1) =>
        new(ImageErrorKind.InvalidFormat, message, name, offset) { Errno = 22 };

    /// <summary>Sizes and places of the tables, before any memory is taken for them.</summary>
    private static void CheckTables(Qcow2Header h, string name, bool forCheck)
    {
        if (h.RefcountTableClusters == 0)
            throw Bad("Image does not contain a reference count table", name, 56);
        CheckTable(h, (long)h.RefcountTableOffset, (ulong)h.RefcountTableClusters << h.ClusterBits, MaxRefcountTableBytes, "Reference count table", name);
        if (!forCheck)
            CheckTable(h, (long)h.SnapshotsOffset, h.SnapshotCount * (ulong)MinSnapshotBytes, MaxSnapshots * MinSnapshotBytes, "Snapshot table", name);
        CheckTable(h, (long)h.L1TableOffset, h.L1Size * 8UL, MaxL1Bytes, "Active L1 table", name);
        if (h.Size > long.MaxValue)
            throw new ImageException(ImageErrorKind.Unsupported, "Image is too big", name, 24) { Errno = 27 };
        int shift = h.ClusterBits * 2 - (h.HasFlag(IncompatExtendedL2) ? 4 : 3);
        long needed = shift >= 63 ? 1 : DivUp((long)h.Size, 1L << shift);
        if (needed > int.MaxValue)
            throw new ImageException(ImageErrorKind.Unsupported, "Image is too big", name, 24) { Errno = 27 };
        if (h.L1Size < needed)
            throw Bad("L1 table is too small", name, 36);
    }

    private static void CheckTable(Qcow2Header h, long offset, ulong bytes, long maximum, string what, string name)
    {
        if (bytes > (ulong)maximum)
            throw new ImageException(ImageErrorKind.Unsupported, $"{what} too large", name) { Errno = 27 };
        if (offset < 0 || offset > long.MaxValue - (long)bytes || (offset & (h.ClusterSize - 1)) != 0)
            throw Bad($"{what} offset invalid", name);
    }

    /// <summary>Reads a table of 64-bit numbers.</summary>
    private ulong[] ReadTable(long offset, long entries)
    {
        var table = new ulong[entries];
        var bytes = System.Runtime.InteropServices.MemoryMarshal.AsBytes(table.AsSpan());
        ReadHost(_file, offset, bytes);
        BinaryPrimitives.ReverseEndianness(table, table);
        return table;
    }

    private void Load(OpenSettings settings)
    {
        _refcounts.Load(ReadTable((long)Header.RefcountTableOffset, ((long)Header.RefcountTableClusters << _clusterBits) / 8), Header.RefcountOrder);
        _l1 = ReadTable((long)Header.L1TableOffset, Header.L1Size);
        _l2.Reset(SlicesFor(_l1.Length));
        LoadSnapshots(settings);
        LoadBitmaps();
    }

    private void OpenDataFile(OpenContext context)
    {
        bool has = Header.HasFlag(IncompatDataFile);
        string? reference = context.Options.TakeString("data-file");
        var child = context.Options.TakeChild("data-file");
        // The bytes as they are, unless the user says otherwise: what a guest wrote must not choose the format.
        var settings = context.Settings with { NoBacking = false, ForCheck = false, WriteThrough = false };
        if (!has)
        {
            if (!child.IsEmpty || reference is not null)
            {
                OpenGivenDataFile(context, reference, child, settings).Dispose();
                throw Bad("'data-file' can only be set for images with an external data file", FileName);
            }
            if ((Header.Autoclear & AutoclearDataFileRaw) != 0)
                throw Bad("data-file-raw requires a data file", FileName);
            return;
        }
        _hasDataFile = true;
        if (context.Settings.NoIo)
            return;
        if (child.IsEmpty && reference is null && string.IsNullOrEmpty(Header.DataFile))
            throw Bad("'data-file' is required for this image", FileName);
        if (!child.IsEmpty || reference is not null)
        {
            _data = OpenGivenDataFile(context, reference, child, settings);
            return;
        }
        string name = Header.DataFile!;
        bool isJson = name.StartsWith("json:", StringComparison.Ordinal);
        // A relative name is relative to where the program runs, as the peer has it.
        if (!isJson && name[0] != '/' && !FileNames.HasProtocol(name))
            name = "file:" + name;
        _data = context.Opener.OpenReference(ReferenceKind.DataFile, context, name, isJson ? "raw" : context.Opener.DriverForFile(name).Name, settings);
    }

    private static BlockDevice OpenGivenDataFile(OpenContext context, string? reference, BlockOptions child, OpenSettings settings)
    {
        if (reference is not null)
            return context.Opener.Nodes.Take(reference, "");
        if (child.Contains("driver") || child.TakeString("filename") is not { } given)
            return context.Opener.Open(child, settings);
        return context.Opener.Open(given, context.Opener.DriverForFile(given).Name, settings, child);
    }

    private void OpenBacking(OpenContext context)
    {
        string? reference = context.Options.TakeString("backing");
        var child = context.Options.TakeChild("backing");
        if (context.Settings.NoBacking)
            return;
        if (reference is not null)
        {
            if (reference.Length > 0)
                _backing = context.Opener.Nodes.Take(reference, "");
            return;
        }
        if (Header.BackingFile is null && child.IsEmpty)
            return;
        string? format = child.Contains("driver") ? null : Header.BackingFormat;
        var settings = context.Settings with { ReadOnly = true, Unmap = false, DetectZeroes = 0, WriteThrough = false, ForCheck = false };
        try
        {
            _backing = context.Opener.OpenReference(ReferenceKind.Backing, context, Header.BackingFile ?? "", format, settings, child);
        }
        catch (ImageException e)
        {
            throw new ImageException(e.Kind, $"Could not open backing file: {e.Message}", e.File, e.Offset, e) { Errno = e.Errno };
        }
    }

    /// <summary>What a writer does first: repair what is known to be unfinished, clear what it would make untrue.</summary>
    private void PrepareForWriting(OpenSettings settings)
    {
        if (Header.CryptMethod != 0)
            return;
        MapMetadata();
        bool update = Header.HasStaleBitmaps || (Header.Autoclear & ~AutoclearKnown) != 0;
        Header.Autoclear &= AutoclearKnown;
        if (Header.Bitmaps is null)
            Header.Autoclear &= ~AutoclearBitmaps;
        if (!settings.NoIo && update)
            WriteHeader();
        _lazyRefcounts = Header.Version >= 3 && (_options.LazyRefcounts ?? (Header.Compatible & CompatLazyRefcounts) != 0);
        if (!settings.ForCheck && Header.HasFlag(IncompatDirty))
            RepairDirty();
        if (!settings.NoIo)
            MarkBitmaps(true);
    }
}
