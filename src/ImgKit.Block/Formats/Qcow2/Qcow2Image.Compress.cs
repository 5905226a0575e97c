using System.Buffers;
using ImgKit.Host.Compression;
using static ImgKit.Block.Formats.Qcow2.Qcow2Layout;

namespace ImgKit.Block.Formats.Qcow2;

internal sealed partial class Qcow2Image : ICompressingDevice
{
    /// <summary>Denser than zlib's default with the small window that QEMU uses, and several times faster.</summary>
    private const int DefaultDeflateLevel = 2;

    private const int DefaultZstdLevel = 2;

    /// <inheritdoc/>
    public int CompressionUnit => _clusterSize;

    /// <inheritdoc/>
    public int MaxCompressedLength => _clusterSize;

    /// <inheritdoc/>
    public int Compress(ReadOnlySpan<byte> unit, Span<byte> destination)
    {
        byte[]? padded = null;
        if (unit.Length < _clusterSize)
        {
            // The disk's last cluster: readers expect a whole one.
            padded = ArrayPool<byte>.Shared.Rent(_clusterSize);
            unit.CopyTo(padded);
            padded.AsSpan(unit.Length, _clusterSize - unit.Length).Clear();
            unit = padded.AsSpan(0, _clusterSize);
        }
        destination = destination[..Math.Min(destination.Length, _clusterSize - 1)];
        int n = Header.CompressionType == 1
            ? Zstd.Compress(Math.Clamp(_settings.CompressionLevel ?? DefaultZstdLevel, 1, 22), unit, destination)
            : Deflate.ForLevel(Math.Clamp(_settings.CompressionLevel ?? DefaultDeflateLevel, 1, 12))
                .Compress(DeflateContainer.Raw, unit, destination);
        if (padded is not null)
            ArrayPool<byte>.Shared.Return(padded);
        return n > 0 ? n : -1;
    }

    /// <inheritdoc/>
    public void WriteCompressed(long offset, ReadOnlySpan<byte> compressed, int unitLength)
    {
        CheckWritable();
        if (_hasDataFile)
            throw new ImageException(ImageErrorKind.Unsupported, "Operation not supported", FileName) { Errno = 95 };
        int ticket = _gate.Enter();
        try
        {
            CheckRange(offset, unitLength);
            if ((offset & _clusterMask) != 0 || (unitLength != _clusterSize && offset + unitLength != _length) || compressed.IsEmpty)
                throw new ImageException(ImageErrorKind.InvalidArgument, "Invalid argument", FileName, offset) { Errno = 22 };
            BeforeGuestWrite(offset, unitLength);
            _file.DebugEvent(BlockDebugEvent.WriteCompressed);
            StoreCompressed(offset, compressed);
        }
        finally
        {
            _gate.Exit(ticket);
        }
        if (_settings.WriteThrough)
            Flush();
    }

    private void StoreCompressed(long offset, ReadOnlySpan<byte> compressed)
    {
        long cluster = offset >> _clusterBits;
        long at;
        lock (_meta)
        {
            while (NotInFlight(cluster, 1) == 0)
            {
            }
            BeforeMetadataChange();
            SliceForWrite(offset);
            at = _refcounts.AllocateBytes(compressed.Length);
            EnsureFileLength(at + compressed.Length);
            _inFlight.Add((cluster, cluster));
        }
        bool written = false;
        try
        {
            ForgetDecompressed();
            CheckOverlap(at, compressed.Length);
            _file.Write(at, compressed);
            written = true;
        }
        finally
        {
            lock (_meta)
            {
                try
                {
                    int x = 62 - (_clusterBits - 8);
                    long sectors = ((at + compressed.Length - 1) >> 9) - (at >> 9);
                    ulong entry = (ulong)at | (ulong)sectors << x | Compressed;
                    if (!written)
                    {
                        FreeUnreferenced(entry);
                    }
                    else
                    {
                        var slice = SliceForWrite(offset);
                        int index = (int)cluster & ((1 << _sliceBits) - 1);
                        ulong old = EntryAt(slice, index).Entry;
                        _file.DebugEvent(BlockDebugEvent.L2UpdateCompressed);
                        if (_extended)
                            slice.SetExtendedEntry(index, entry, 0);
                        else
                            slice.SetEntry(index, entry);
                        FreeEntry(old, FreeReason.Request);
                    }
                }
                finally
                {
                    EndFlight(cluster);
                }
            }
        }
    }

    /// <summary>Gives back the space of compressed data that no table names.</summary>
    private void FreeUnreferenced(ulong entry)
    {
        var (at, length) = ParseCompressed(entry);
        long from = at >> _clusterBits, to = (at + length - 1) >> _clusterBits;
        _refcounts.Decrement(from, to - from + 1, FreeReason.Other);
    }
}
