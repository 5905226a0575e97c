using System.Globalization;

namespace ImgKit.Block.Formats.Vmdk;

/// <summary>Making a virtual disk longer: its last extent grows; a split disk gets more extents.</summary>
internal sealed partial class VmdkImage
{
    /// <summary>Extents of a split disk are at most this long.</summary>
    internal const long SplitSize = 1L << 31;

    private bool IsSplit => CreateType.Contains("GbMaxExtent", StringComparison.OrdinalIgnoreCase);

    public override void Resize(long length, ResizeOptions options = default)
    {
        using var alone = _gate.EnterExclusive();
        length = checked(length + 511) & ~511L;
        if (length == Length)
            return;
        if (length < Length)
            throw new ImageException(ImageErrorKind.Unsupported, "vmdk images cannot be made smaller", FileName) { Errno = 95 };
        var last = _extents[^1];
        if (last.IsCompressed)
            throw new ImageException(ImageErrorKind.Unsupported, "a streamOptimized vmdk image cannot be resized", FileName) { Errno = 95 };
        long size = last.Length + (length - Length);
        if ((_extents.Count > 1 || IsSplit) && size > SplitSize)
            size = Math.Max(last.Length, SplitSize);
        long more = length - Length - (size - last.Length);
        if (more > 0 && !IsSplit)
            throw new ImageException(ImageErrorKind.Unsupported,
                $"the last extent of a split vmdk image has room for {size - last.Length} bytes more, not for {length - Length}", FileName) { Errno = 95 };
        CheckWritable();
        long old = Length;
        var lines = _descriptor.Extents();
        // Until this has come to a good end children keep their parent.
        var (added, files) = more > 0 ? AddExtents(last, lines[^1].Extent, more, options.Preallocation) : ([], []);
        try
        {
            BeginChange(0, 1);
            _dirty = true;
            if (size > last.Length)
                last.Grow(size, options.Preallocation);
        }
        catch when (last.Length != size)
        {
            RemoveExtents(added.ConvertAll(a => a.Extent), files);
            throw;
        }
        finally
        {
            // Also when only the last word of it is not in the file yet: a flush brings that, and the descriptor, there.
            if (last.Length == size)
                TakeSize(size, length, lines, added);
        }
        StoreGrownDescriptor();
        _file.Flush();
        // A longer parent must not show in the bytes gained.
        if (_backing is not null && _backing.Length > old)
            ZeroInside(old, Math.Min(length, _backing.Length) - old, ZeroOptions.None);
    }

    private void TakeSize(long lastSize, long length, IReadOnlyList<(int Line, ExtentLine Extent)> lines, List<(ExtentLine Line, VmdkExtent Extent)> added)
    {
        // The line that stands for the last extent; images without a descriptor have none.
        if (lines.Count == _extents.Count)
        {
            _descriptor.SetExtent(lines[^1].Line, lines[^1].Extent with { Sectors = lastSize / 512 });
            _descriptor.InsertExtents(lines[^1].Line + 1, added.ConvertAll(a => a.Line));
        }
        UpdateGeometry(length);
        _descriptorGrew = true;
        _extents = [.. _extents, .. added.Select(a => a.Extent)];
        Volatile.Write(ref _length, length);
    }

    /// <summary>Writes the descriptor that <see cref="TakeSize"/> has changed, behind all that it names.</summary>
    private void StoreGrownDescriptor()
    {
        if (!_descriptorGrew)
            return;
        lock (_cidLock)
            StoreDescriptor(flush: false);
        _descriptorGrew = false;
    }

    /// <summary>Makes the extents behind the last one. Until the descriptor names them they belong to nothing.</summary>
    private (List<(ExtentLine Line, VmdkExtent Extent)> Added, List<string> Files) AddExtents(VmdkExtent last, ExtentLine line, long bytes,
        Preallocation preallocation)
    {
        var added = new List<(ExtentLine, VmdkExtent)>();
        var files = new List<string>();
        long start = last.Start + last.Length + Math.Max(SplitSize - last.Length, 0);
        try
        {
            for (; bytes > 0;)
            {
                long n = Math.Min(bytes, SplitSize);
                line = line with { FileName = NextName(line.FileName), Sectors = n / 512, Offset = line.Offset < 0 ? -1 : 0 };
                string path = FileNames.Resolve(FileNames.BaseOf(_context.FileName, _context.Storage), line.FileName);
                if (File.Exists(path))
                    throw new ImageException(ImageErrorKind.Unsupported, $"'{path}' is in the way of a new extent", FileName) { Errno = 17 };
                using (var file = _context.Opener.CreateFile(path))
                {
                    files.Add(path);
                    VmdkCreate.WriteExtent(file, n, VmdkCreateOptions.ForExtent(last is FlatExtent, last is SparseExtent { HasZeroedGrains: true }, preallocation));
                }
                var extent = VmdkOpen.OpenExtent(_context, line, _extents.Count + added.Count);
                extent.Type = line.Type;
                extent.Access = line.Access;
                extent.Image = this;
                extent.Start = start;
                added.Add((line, extent));
                start += n;
                bytes -= n;
            }
            return (added, files);
        }
        catch
        {
            RemoveExtents(added.ConvertAll(a => a.Item2), files);
            throw;
        }
    }

    private static void RemoveExtents(List<VmdkExtent> extents, List<string> files)
    {
        extents.ForEach(e => e.Dispose());
        files.ForEach(File.Delete);
    }

    /// <summary>The name behind <c>disk-s001.vmdk</c> is <c>disk-s002.vmdk</c>; only beside the descriptor is one made.</summary>
    private string NextName(string name)
    {
        int end = name.LastIndexOf('.') is >= 0 and var dot ? dot : name.Length, from = end;
        while (from > 0 && char.IsAsciiDigit(name[from - 1]) && end - from < 9)
            from--;
        if (from == end || name.Contains('/', StringComparison.Ordinal))
            throw new ImageException(ImageErrorKind.Unsupported, $"no name for an extent behind '{name}' can be made up", FileName) { Errno = 95 };
        string number = (int.Parse(name.AsSpan(from, end - from), CultureInfo.InvariantCulture) + 1).ToString(CultureInfo.InvariantCulture);
        return name[..from] + number.PadLeft(end - from, '0') + name[end..];
    }

    private void UpdateGeometry(long length)
    {
        if (long.TryParse(_descriptor.Get("ddb.geometry.heads"), CultureInfo.InvariantCulture, out long heads)
            && long.TryParse(_descriptor.Get("ddb.geometry.sectors"), CultureInfo.InvariantCulture, out long sectors)
            && heads is > 0 and <= 65536 && sectors is > 0 and <= 65536)
            _descriptor.Update("ddb.geometry.cylinders", (length / 512 / (heads * sectors)).ToString(CultureInfo.InvariantCulture));
    }
}
