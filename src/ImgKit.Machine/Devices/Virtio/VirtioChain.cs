using System.Runtime.InteropServices;

namespace ImgKit.Machine.Devices.Virtio;

/// <summary>A chain of buffers that the driver made available: what the device may read, then what it may write. Reused.</summary>
internal sealed class VirtioChain
{
    /// <summary>Pieces that the device reads.</summary>
    internal List<DmaSegment> Readable { get; } = [];

    /// <summary>Pieces that the device writes.</summary>
    internal List<DmaSegment> Writable { get; } = [];

    /// <summary>Index of the first descriptor, to hand back.</summary>
    internal ushort Head { get; set; }

    /// <summary>Total of <see cref="Readable"/>, bytes.</summary>
    internal long ReadableLength { get; set; }

    /// <summary>Total of <see cref="Writable"/>, bytes.</summary>
    internal long WritableLength { get; set; }

    internal void Clear()
    {
        Readable.Clear();
        Writable.Clear();
        ReadableLength = WritableLength = 0;
    }

    /// <summary>Copies the first bytes of the readable part, and takes them off it. False when there are fewer.</summary>
    internal bool TakeFront(Span<byte> to)
    {
        if (ReadableLength < to.Length)
            return false;
        ReadableLength -= to.Length;
        int used = 0;
        while (to.Length > 0)
        {
            var s = Readable[used];
            int n = Math.Min(s.Length, to.Length);
            s.Span[..n].CopyTo(to);
            to = to[n..];
            if (n < s.Length)
                Readable[used] = new DmaSegment(s.Host + n, s.Length - n, s.Guest + (ulong)n);
            else
                used++;
        }
        Readable.RemoveRange(0, used);
        return true;
    }

    /// <summary>Takes the last byte off the writable part, wherever the driver put it. False when there is none.</summary>
    internal bool TakeLastWritable(out DmaSegment last)
    {
        last = default;
        if (Writable.Count == 0)
            return false;
        var s = Writable[^1];
        last = new DmaSegment(s.Host + s.Length - 1, 1, s.Guest + (ulong)s.Length - 1);
        if (s.Length > 1)
            CollectionsMarshal.AsSpan(Writable)[^1] = new DmaSegment(s.Host, s.Length - 1, s.Guest);
        else
            Writable.RemoveAt(Writable.Count - 1);
        WritableLength--;
        return true;
    }

    /// <summary>Copies to the start of the writable part; returns how much went in.</summary>
    internal int Fill(GuestMemory memory, ReadOnlySpan<byte> from)
    {
        int done = 0;
        foreach (var s in Writable)
        {
            if (from.Length == 0)
                break;
            int n = Math.Min(s.Length, from.Length);
            from[..n].CopyTo(s.Span);
            memory.Written(s.Guest, n);
            from = from[n..];
            done += n;
        }
        return done;
    }
}
