using System.Buffers.Binary;
using System.Runtime.InteropServices;

namespace ImgKit.Block.Formats.Qcow2;

/// <summary>A block of reference counts in memory, as it is on disk.</summary>
internal sealed class RefcountBlock(int index, long offset, byte[] data)
{
    public int Index { get; } = index;

    /// <summary>Where it lies in the file.</summary>
    public long Offset { get; } = offset;

    public byte[] Data { get; } = data;

    public bool Used { get; set; }

    public int DirtyFrom { get; set; } = int.MaxValue;

    public int DirtyTo { get; set; }

    public bool IsDirty => DirtyTo > DirtyFrom;

    public void Touch(int from, int to)
    {
        DirtyFrom = Math.Min(DirtyFrom, from);
        DirtyTo = Math.Max(DirtyTo, to);
    }

    public void Clean()
    {
        DirtyFrom = int.MaxValue;
        DirtyTo = 0;
    }
}

/// <summary>Reads and writes counts of any width in a block's bytes.</summary>
internal static class RefcountCodec
{
    public static ulong Get(ReadOnlySpan<byte> block, int order, int i) => order switch
    {
        0 => (ulong)(block[i >> 3] >> (i & 7)) & 1,
        1 => (ulong)(block[i >> 2] >> ((i & 3) * 2)) & 3,
        2 => (ulong)(block[i >> 1] >> ((i & 1) * 4)) & 15,
        3 => block[i],
        4 => BinaryPrimitives.ReadUInt16BigEndian(block[(i * 2)..]),
        5 => BinaryPrimitives.ReadUInt32BigEndian(block[(i * 4)..]),
        _ => BinaryPrimitives.ReadUInt64BigEndian(block[(i * 8)..]),
    };

    public static void Set(Span<byte> block, int order, int i, ulong value)
    {
        switch (order)
        {
            case 0:
                block[i >> 3] = (byte)(block[i >> 3] & ~(1 << (i & 7)) | (int)value << (i & 7));
                break;
            case 1:
                block[i >> 2] = (byte)(block[i >> 2] & ~(3 << ((i & 3) * 2)) | (int)value << ((i & 3) * 2));
                break;
            case 2:
                block[i >> 1] = (byte)(block[i >> 1] & ~(15 << ((i & 1) * 4)) | (int)value << ((i & 1) * 4));
                break;
            case 3:
                block[i] = (byte)value;
                break;
            case 4:
                BinaryPrimitives.WriteUInt16BigEndian(block[(i * 2)..], (ushort)value);
                break;
            case 5:
                BinaryPrimitives.WriteUInt32BigEndian(block[(i * 4)..], (uint)value);
                break;
            default:
                BinaryPrimitives.WriteUInt64BigEndian(block[(i * 8)..], value);
                break;
        }
    }

    public static ulong Max(int order) => order == 6 ? long.MaxValue : (1UL << (1 << order)) - 1;

    /// <summary>The first count that is 0 from <paramref name="from"/> on, or <paramref name="entries"/>.</summary>
    public static int IndexOfZero(ReadOnlySpan<byte> block, int order, int from, int entries)
    {
        switch (order)
        {
            case 4:
                int at = MemoryMarshal.Cast<byte, ushort>(block)[from..entries].IndexOf((ushort)0);
                return at < 0 ? entries : from + at;
            case 3:
                at = block[from..entries].IndexOf((byte)0);
                return at < 0 ? entries : from + at;
            case 5:
                at = MemoryMarshal.Cast<byte, uint>(block)[from..entries].IndexOf(0u);
                return at < 0 ? entries : from + at;
            case 6:
                at = MemoryMarshal.Cast<byte, ulong>(block)[from..entries].IndexOf(0UL);
                return at < 0 ? entries : from + at;
        }
        int perByte = 8 >> order;
        for (int i = from; i < entries; i++)
        {
            // Bytes that are all ones hold no zero count.
            if (i % perByte == 0 && block[i / perByte] == 0xFF)
            {
                i += perByte - 1;
                continue;
            }
            if (Get(block, order, i) == 0)
                return i;
        }
        return entries;
    }
}
