using System.Buffers.Binary;
using System.Numerics;
using System.Runtime.InteropServices;
using System.Text;
using static ImgKit.Block.Formats.Qcow2.Qcow2Layout;

namespace ImgKit.Block.Formats.Qcow2;

/// <summary>A persistent dirty bitmap: its directory entry, and, once needed, its bits.</summary>
internal sealed class Qcow2Bitmap(string name, int granularityBits)
{
    public const uint FlagInUse = 1;
    public const uint FlagAuto = 2;
    public const uint FlagExtraDataCompatible = 4;

    private ulong[]? _bits;

    public string Name { get; } = name;

    public int GranularityBits { get; } = granularityBits;

    public long TableOffset { get; set; }

    public uint TableEntries { get; set; }

    public uint Flags { get; set; }

    /// <summary>The image says that it was not stored cleanly: it can only be removed.</summary>
    public bool IsInconsistent { get; set; }

    /// <summary>Marked as in use in the image, because bits change in memory.</summary>
    public bool IsMarked { get; set; }

    /// <summary>Differs from what the image holds.</summary>
    public bool IsModified { get; set; }

    public bool IsAuto => (Flags & FlagAuto) != 0;

    public bool IsLoaded => _bits is not null;

    public long Granularity => 1L << GranularityBits;

    public ulong[] Bits => _bits ?? throw new InvalidOperationException("the bitmap is not loaded");

    public BitmapInfo ToInfo() => new(Name, Granularity, IsInconsistent, IsAuto);

    public InfoObject ToInfoObject()
    {
        var flags = new List<object>();
        if (IsInconsistent)
            flags.Add("in-use");
        if (IsAuto)
            flags.Add("auto");
        var o = new InfoObject();
        o.Add("flags", flags);
        o.Add("name", Name);
        o.Add("granularity", Granularity);
        return o;
    }

    /// <summary>Bits for a disk of that length.</summary>
    public static long BitCount(long length, int granularityBits) => (length >> granularityBits) + ((length & ((1L << granularityBits) - 1)) != 0 ? 1 : 0);

    /// <summary>Bytes that the bits take, stored.</summary>
    public static long StoredBytes(long length, int granularityBits) => DivUp(BitCount(length, granularityBits), 8);

    public void SetBits(ulong[] bits) => Volatile.Write(ref _bits, bits);

    public void NewBits(long length) => _bits = new ulong[DivUp(BitCount(length, GranularityBits), 64)];

    /// <summary>Marks a range of the disk. Any number of threads.</summary>
    public void Mark(long offset, long count)
    {
        var bits = Bits;
        long first = offset >> GranularityBits, last = (offset + count - 1) >> GranularityBits;
        for (long i = first; i <= last;)
        {
            long word = i >> 6;
            int from = (int)(i & 63);
            int to = (int)Math.Min(63, last - (word << 6));
            ulong mask = ulong.MaxValue << from & ulong.MaxValue >> (63 - to);
            if ((Volatile.Read(ref bits[word]) & mask) != mask)
                Interlocked.Or(ref bits[word], mask);
            i = (word + 1) << 6;
        }
    }

    /// <summary>Whether the byte at <paramref name="offset"/> is dirty, and for how long it stays so.</summary>
    public (bool Dirty, long Length) Extent(long offset, long count)
    {
        var bits = Bits;
        long i = offset >> GranularityBits, last = (offset + count - 1) >> GranularityBits;
        bool dirty = (bits[i >> 6] >> (int)(i & 63) & 1) != 0;
        long n = i;
        while (n <= last)
        {
            ulong word = bits[n >> 6] >> (int)(n & 63);
            int left = 64 - (int)(n & 63);
            int run = BitOperations.TrailingZeroCount(dirty ? ~word : word);
            n += Math.Min(run, left);
            if (run < left)
                break;
        }
        long end = Math.Min(offset + count, n << GranularityBits);
        return (dirty, end - offset);
    }

    public void Resize(long length)
    {
        var bits = Bits;
        long count = BitCount(length, GranularityBits);
        Array.Resize(ref bits, (int)DivUp(count, 64));
        if (count % 64 != 0)
            bits[^1] &= ulong.MaxValue >> (int)(64 - count % 64);
        _bits = bits;
    }

    /// <summary>The bits as they are stored, byte by byte.</summary>
    public Span<byte> StoredView(long length) => MemoryMarshal.AsBytes(Bits.AsSpan())[..(int)StoredBytes(length, GranularityBits)];

    public byte[] ToEntry()
    {
        byte[] text = Encoding.UTF8.GetBytes(Name);
        byte[] b = new byte[AlignUp(24 + text.Length, 8)];
        BinaryPrimitives.WriteUInt64BigEndian(b, (ulong)TableOffset);
        BinaryPrimitives.WriteUInt32BigEndian(b.AsSpan(8), TableEntries);
        BinaryPrimitives.WriteUInt32BigEndian(b.AsSpan(12), Flags | (IsInconsistent || IsMarked ? FlagInUse : 0));
        b[16] = 1;
        b[17] = (byte)GranularityBits;
        BinaryPrimitives.WriteUInt16BigEndian(b.AsSpan(18), (ushort)text.Length);
        text.CopyTo(b.AsSpan(24));
        return b;
    }
}
