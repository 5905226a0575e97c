using System.Buffers;
using ImgKit.Host.Compression;

namespace ImgKit.Block.Formats.Qcow2;

internal sealed partial class Qcow2Image
{
    /// <summary>A decompressed cluster, for reads of parts of it.</summary>
    private sealed class ClusterSlot
    {
        public readonly Lock Lock = new();
        public ulong Entry;
        public byte[]? Data;
    }

    private readonly ClusterSlot[] _slots = [new(), new(), new(), new()];

    /// <inheritdoc/>
    public override void Read(long offset, Span<byte> destination)
    {
        CheckUsable();
        int ticket = _gate.Enter();
        try
        {
            CheckRange(offset, destination.Length);
            ReadGuest(offset, destination);
        }
        finally
        {
            _gate.Exit(ticket);
        }
    }

    /// <inheritdoc/>
    public override void ReadVector(long offset, ReadOnlySpan<IoBuffer> buffers)
    {
        long total = 0;
        foreach (var b in buffers)
            total += b.Length;
        CheckUsable();
        int ticket = _gate.Enter();
        try
        {
            CheckRange(offset, total);
            if (total > 0 && Lookup(offset, total) is { Kind: ClusterKind.Normal } run && run.Length == total && run.Host + total <= _data.Length)
            {
                _data.ReadVector(run.Host, buffers);
                return;
            }
            foreach (var b in buffers)
            {
                ReadGuest(offset, b.Span);
                offset += b.Length;
            }
        }
        finally
        {
            _gate.Exit(ticket);
        }
    }

    /// <summary>Reads content by the present tables, also behind the disk's end (machine state). The caller is counted.</summary>
    private void ReadGuest(long offset, Span<byte> destination)
    {
        while (!destination.IsEmpty)
        {
            var run = Lookup(offset, destination.Length);
            var part = destination[..(int)run.Length];
            switch (run.Kind)
            {
                case ClusterKind.Normal:
                    _file.DebugEvent(BlockDebugEvent.ReadAio);
                    ReadHost(_data, run.Host, part);
                    break;
                case ClusterKind.Compressed:
                    ReadCompressed(run.Entry, offset, part);
                    break;
                case ClusterKind.Zero or ClusterKind.ZeroKept:
                    part.Clear();
                    break;
                default:
                    ReadBacking(offset, part);
                    break;
            }
            destination = destination[part.Length..];
            offset += part.Length;
        }
    }

    /// <summary>What shows where nothing is allocated: the backing file as far as it and the disk go, then zeroes.</summary>
    private void ReadBacking(long offset, Span<byte> destination)
    {
        int shown = 0;
        if (_backing is { } backing)
        {
            shown = (int)Math.Clamp(Math.Min(backing.Length, _length) - offset, 0, destination.Length);
            if (shown > 0)
            {
                _file.DebugEvent(BlockDebugEvent.ReadBackingAio);
                backing.Read(offset, destination[..shown]);
            }
        }
        destination[shown..].Clear();
    }

    /// <summary>Reads from a device that may end before: what is missing is zero.</summary>
    private static void ReadHost(BlockDevice device, long offset, Span<byte> destination)
    {
        long left = device.Length - offset;
        if (left < destination.Length)
        {
            int n = (int)Math.Max(left, 0);
            destination[n..].Clear();
            destination = destination[..n];
        }
        if (!destination.IsEmpty)
            device.Read(offset, destination);
    }

    private void ReadCompressed(ulong entry, long guest, Span<byte> destination)
    {
        int inside = (int)(guest & _clusterMask);
        if (destination.Length == _clusterSize)
        {
            Decompress(entry, destination);
            return;
        }
        var slot = _slots[(guest >> _clusterBits) & (_slots.Length - 1)];
        lock (slot.Lock)
        {
            slot.Data ??= GC.AllocateUninitializedArray<byte>(_clusterSize);
            if (slot.Entry != entry)
            {
                slot.Entry = 0;
                Decompress(entry, slot.Data);
                slot.Entry = entry;
            }
            slot.Data.AsSpan(inside, destination.Length).CopyTo(destination);
        }
    }

    /// <summary>Before compressed data is written to a place that had some before.</summary>
    private void ForgetDecompressed()
    {
        foreach (var slot in _slots)
        {
            if (slot.Data is null)
                continue;
            lock (slot.Lock)
                slot.Entry = 0;
        }
    }

    private void Decompress(ulong entry, Span<byte> cluster)
    {
        var (offset, length) = ParseCompressed(entry);
        byte[] buffer = ArrayPool<byte>.Shared.Rent(length);
        try
        {
            var source = buffer.AsSpan(0, length);
            _file.DebugEvent(BlockDebugEvent.ReadCompressed);
            ReadHost(_file, offset, source);
            bool good = Header.CompressionType == 1
                ? Zstd.TryDecompress(source, cluster, out int n)
                : Deflate.TryDecompress(DeflateContainer.Raw, source, cluster, out n);
            if (!good || n != cluster.Length)
                throw new ImageException(ImageErrorKind.Corrupt, "Input/output error", FileName, offset)
                {
                    Errno = 5,
                    Operation = $"the compressed cluster at offset {offset} of {length} bytes is damaged",
                };
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(buffer);
        }
    }
}
