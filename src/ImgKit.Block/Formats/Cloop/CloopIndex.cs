using System.Buffers.Binary;

namespace ImgKit.Block.Formats.Cloop;

/// <summary>A block of an image.</summary>
/// <param name="Offset">in the file; -1 for a block of zeroes that is not stored.</param>
/// <param name="Length">bytes stored.</param>
/// <param name="Compressor">how.</param>
internal readonly record struct CloopBlock(long Offset, int Length, CloopCompressor Compressor);

/// <summary>
/// Where the blocks are. Every layout that there has been is read into one form. What tells old layouts apart are the first words of the
/// index, as in the reference tools (formats: README.md).
/// </summary>
internal sealed class CloopIndex
{
    private const int MaxIndexBytes = 512 << 20;
    private const ulong OffsetMask = 0x0FFF_FFFF_FFFF_FFFF;
    private const int ChunkEntries = 8192;

    /// <summary>Offset, with the compressor in the top four bits; one more than blocks when the lengths follow from it.</summary>
    private readonly ulong[] _words;
    private readonly int[]? _lengths;
    private readonly CloopCompressor? _compressor;

    private CloopIndex(string layout, int blocks, ulong[] words, int[]? lengths, CloopCompressor? compressor)
    {
        Layout = layout;
        Count = blocks;
        _words = words;
        _lengths = lengths;
        _compressor = compressor;
    }

    /// <summary>The layout's name: <c>2.0</c>, <c>4.0</c> ...</summary>
    public string Layout { get; }

    /// <summary>Blocks.</summary>
    public int Count { get; }

    /// <summary>The block of a number.</summary>
    public CloopBlock this[long block]
    {
        get
        {
            ulong w = _words[block];
            int length = _lengths is null ? (int)((_words[block + 1] & OffsetMask) - (w & OffsetMask)) : _lengths[block];
            if (length == 0)
                return new(-1, 0, CloopCompressor.None);
            return new((long)(w & OffsetMask), length, _compressor ?? (CloopCompressor)(w >> 60));
        }
    }

    /// <summary>Reads and judges the index of an image.</summary>
    public static CloopIndex Read(BlockDevice file, CloopHeader header, bool isFooter)
    {
        if (header.Blocks == CloopHeader.BlocksInTail || IsSizesInTail(file, header, isFooter))
            return ReadSizes(file, header);
        CheckCount(file, header.Blocks);
        int n = (int)header.Blocks;
        long start = isFooter ? file.Length - CloopHeader.Size - 8L * (n + 1) : CloopHeader.Size;
        if (start < 0 || CloopHeader.Size + 4L * n > file.Length)
            throw CloopHeader.Bad(file.FileName, $"the index of {n} blocks does not fit into a file of {file.Length} bytes", 132);
        Span<byte> first = stackalloc byte[16];
        first.Clear();
        file.Read(start, first[..(int)Math.Min(16, file.Length - start)]);
        uint w0 = BinaryPrimitives.ReadUInt32BigEndian(first);
        uint w1 = BinaryPrimitives.ReadUInt32BigEndian(first[4..]);
        uint w2 = BinaryPrimitives.ReadUInt32BigEndian(first[8..]);
        if (header.IsUzip)
            return ReadUzip(file, header, n, start);
        if (header.Version[0] == 'V' && header.Version[1] >= '4')
            return ReadOffsets(file, header, n, start, 8, littleEndian: false, tagged: true, isFooter, "4.0");
        if (w0 == 0 && w2 != 0 && n > 0 && TryReadWithLengths(file, header, n, start) is { } accelerated)
            return accelerated;
        if (w0 == 4L * n + CloopHeader.Size + 4 && header.Version != "V2.0")
            return ReadOffsets(file, header, n, start, 4, littleEndian: false, tagged: false, isFooter, "0.68");
        if (w0 != 0 && w1 == 0 && header.Version != "V2.0")
            return ReadOffsets(file, header, n, start, 8, littleEndian: true, tagged: false, isFooter, "1.0");
        return ReadOffsets(file, header, n, start, 8, littleEndian: false, tagged: false, isFooter, "2.0");
    }

    private static void CheckCount(BlockDevice file, uint blocks)
    {
        if (blocks > (uint.MaxValue - 1) / 8)
            throw CloopHeader.Bad(file.FileName, $"n_blocks {blocks} must be {(uint.MaxValue - 1) / 8} or less", 132);
        if ((blocks + 1) * 8L > MaxIndexBytes)
            throw CloopHeader.Bad(file.FileName, "image requires too many offsets, try increasing block size", 132);
    }

    /// <summary>A block's data, compressed as badly as can be, is not longer.</summary>
    private static long MaxLength(CloopHeader header) => header.BlockSize * 2L + 4096;

    private static ImageException BadLength(BlockDevice file, long index, long offset) =>
        CloopHeader.Bad(file.FileName, $"invalid compressed block size at index {index}, image file is corrupt", offset);

    /// <summary>Layouts 0.68, 1.0, 2.0 and 4.0: one offset more than there are blocks, in ascending order.</summary>
    private static CloopIndex ReadOffsets(BlockDevice file, CloopHeader header, int n, long start, int size, bool littleEndian, bool tagged, bool isFooter,
        string layout)
    {
        long indexEnd = start + (long)size * (n + 1);
        if (indexEnd > file.Length)
            throw CloopHeader.Bad(file.FileName, $"the index of {n} blocks does not fit into a file of {file.Length} bytes", 132);
        var words = new ulong[n + 1];
        ulong last = 0;
        byte[] chunk = new byte[ChunkEntries * size];
        for (int i = 0; i <= n;)
        {
            int count = Math.Min(ChunkEntries, n + 1 - i);
            long at = start + (long)i * size;
            file.Read(at, chunk.AsSpan(0, count * size));
            for (int k = 0; k < count; k++, i++)
            {
                var b = chunk.AsSpan(k * size);
                ulong w = size == 4 ? BinaryPrimitives.ReadUInt32BigEndian(b)
                    : littleEndian ? BinaryPrimitives.ReadUInt64LittleEndian(b) : BinaryPrimitives.ReadUInt64BigEndian(b);
                ulong offset = tagged ? w & OffsetMask : w;
                if (i > 0)
                {
                    if (offset < last)
                        throw CloopHeader.Bad(file.FileName, $"offsets not monotonically increasing at index {i}, image file is corrupt", at + k * size);
                    if (offset - last > (ulong)MaxLength(header) || (offset == last))
                        throw BadLength(file, i, at + k * size);
                }
                if (tagged && i < n && w >> 60 > (ulong)CloopCompressor.Lzo)
                    throw CloopHeader.Bad(file.FileName, $"block {i} has the unknown compressor {w >> 60}", at + k * size);
                if (offset > OffsetMask)
                    throw CloopHeader.Bad(file.FileName, $"the offset of block {i} is impossible", at + k * size);
                last = offset;
                words[i] = w;
            }
        }
        // Blocks lie behind an index in front, and before one at the end.
        ulong lowest = isFooter ? 0 : (ulong)indexEnd;
        ulong highest = (ulong)(isFooter ? start : file.Length);
        if ((words[0] & OffsetMask) < lowest)
            throw CloopHeader.Bad(file.FileName, $"block 0 is said to lie at offset {words[0] & OffsetMask}, inside the index", start);
        if (last > highest)
            throw CloopHeader.Bad(file.FileName, $"the last block ends at offset {last}, behind the {highest} bytes that there are", start + (long)size * n);
        return new CloopIndex(layout, n, words, null, tagged ? null : CloopCompressor.Zlib);
    }

    /// <summary>The layout of "accelerated Knoppix": offset, length and the block's place in a list of what is read first.</summary>
    /// <returns>null when it does not hold.</returns>
    private static CloopIndex? TryReadWithLengths(BlockDevice file, CloopHeader header, int n, long start)
    {
        long indexEnd = start + 16L * n;
        if (indexEnd > file.Length)
            return null;
        var words = new ulong[n];
        var lengths = new int[n];
        byte[] chunk = new byte[ChunkEntries * 16];
        for (int i = 0; i < n;)
        {
            int count = Math.Min(ChunkEntries, n - i);
            file.Read(start + i * 16L, chunk.AsSpan(0, count * 16));
            for (int k = 0; k < count; k++, i++)
            {
                words[i] = BinaryPrimitives.ReadUInt64BigEndian(chunk.AsSpan(k * 16));
                uint length = BinaryPrimitives.ReadUInt32BigEndian(chunk.AsSpan(k * 16 + 8));
                if (length == 0 || length > MaxLength(header) || words[i] < (ulong)indexEnd || words[i] > (ulong)(file.Length - length))
                    return null;
                lengths[i] = (int)length;
            }
        }
        return new CloopIndex("accelerated Knoppix 1.0", n, words, lengths, CloopCompressor.Zlib);
    }

    /// <summary>Whether a 3.0 tail says the same as a header that has a number of blocks.</summary>
    private static bool IsSizesInTail(BlockDevice file, CloopHeader header, bool isFooter)
    {
        if (isFooter || header.Version != "V3.0" || file.Length < CloopHeader.Size + 8)
            return false;
        Span<byte> tail = stackalloc byte[8];
        file.Read(file.Length - 8, tail);
        return BinaryPrimitives.ReadUInt32BigEndian(tail) == 4 && BinaryPrimitives.ReadUInt32BigEndian(tail[4..]) == header.Blocks;
    }

    /// <summary>Layout 3.0: blocks one behind the other, then their lengths, then a tail of two words: bytes of an entry, blocks.</summary>
    private static CloopIndex ReadSizes(BlockDevice file, CloopHeader header)
    {
        Span<byte> tail = stackalloc byte[8];
        long end = file.Length - 8;
        if (end >= CloopHeader.Size)
            file.Read(end, tail);
        uint blocks = BinaryPrimitives.ReadUInt32BigEndian(tail[4..]);
        long indexStart = end - 4L * blocks;
        if (end < CloopHeader.Size || BinaryPrimitives.ReadUInt32BigEndian(tail) != 4 || indexStart < CloopHeader.Size)
        {
            CheckCount(file, header.Blocks);
            throw CloopHeader.Bad(file.FileName, "the file has no valid tail", Math.Max(end, 0));
        }
        CheckCount(file, blocks);
        int n = (int)blocks;
        var words = new ulong[n + 1];
        ulong at = CloopHeader.Size;
        byte[] chunk = new byte[ChunkEntries * 4];
        for (int i = 0; i < n;)
        {
            int count = Math.Min(ChunkEntries, n - i);
            file.Read(indexStart + i * 4L, chunk.AsSpan(0, count * 4));
            for (int k = 0; k < count; k++, i++)
            {
                uint length = BinaryPrimitives.ReadUInt32BigEndian(chunk.AsSpan(k * 4));
                if (length == 0 || length > MaxLength(header) || at + length > (ulong)indexStart)
                    throw BadLength(file, i, indexStart + i * 4L);
                words[i] = at;
                at += length;
            }
        }
        words[n] = at;
        return new CloopIndex("3.0", n, words, null, CloopCompressor.Zlib);
    }

    /// <summary>
    /// geom_uzip: a block may point back at an earlier one with the same content, and one that starts where the next starts holds zeroes.
    /// The last word is not to be relied upon.
    /// </summary>
    private static CloopIndex ReadUzip(BlockDevice file, CloopHeader header, int n, long start)
    {
        long indexEnd = start + 8L * (n + 1);
        if (indexEnd > file.Length)
            throw CloopHeader.Bad(file.FileName, $"the index of {n} blocks does not fit into a file of {file.Length} bytes", 132);
        var words = new ulong[n + 1];
        byte[] chunk = new byte[ChunkEntries * 8];
        for (int i = 0; i <= n;)
        {
            int count = Math.Min(ChunkEntries, n + 1 - i);
            file.Read(start + i * 8L, chunk.AsSpan(0, count * 8));
            for (int k = 0; k < count; k++, i++)
            {
                words[i] = BinaryPrimitives.ReadUInt64BigEndian(chunk.AsSpan(k * 8));
                if (i < n && (words[i] < (ulong)indexEnd || words[i] > (ulong)file.Length))
                    throw CloopHeader.Bad(file.FileName, $"block {i} is said to lie at offset {words[i]}, outside the data", start + i * 8L);
            }
        }
        if (words[n] > (ulong)file.Length || words[n] < (ulong)indexEnd)
            words[n] = (ulong)file.Length;
        var lengths = new int[n];
        var stored = new List<int>();      // blocks that do not point back, in the order of their offsets
        ulong end = 0;      // of the data of all blocks before
        for (int i = 0; i < n; i++)
        {
            ulong offset = words[i];
            if (offset < end)
            {
                int low = 0, high = stored.Count - 1;
                while (low < high)
                {
                    int middle = (low + high) / 2;
                    if (words[stored[middle]] < offset)
                        low = middle + 1;
                    else
                        high = middle;
                }
                if (high < 0 || words[stored[low]] != offset)
                    throw CloopHeader.Bad(file.FileName, $"block {i} points back to offset {offset}, where no block starts", start + i * 8L);
                lengths[i] = lengths[stored[low]];
                continue;
            }
            // The next block that does not point back tells where this one ends.
            int j = i + 1;
            while (j < n && words[j] < offset)
                j++;
            ulong next = Math.Max(words[j], j == n ? offset : 0);
            ulong length = next - offset;
            // Behind the last block there may be padding.
            if (length > (ulong)MaxLength(header))
                length = j == n ? (ulong)MaxLength(header) : throw BadLength(file, i, start + i * 8L);
            lengths[i] = (int)length;
            if (length > 0)
                stored.Add(i);
            end = offset + length;
        }
        return new CloopIndex("uzip " + header.Version, n, words, lengths, header.UzipCompressor);
    }
}
