using System.Buffers;
using System.Runtime.InteropServices;
using System.Text;
using ImgKit.Host.Compression;

namespace ImgKit.Block.Formats.Vmdk;

/// <summary>
/// Writes a stream-optimized image front to back, so that it can go into a pipe: header and descriptor, then for every grain table its
/// grains and the table, then the directory, the footer and the end marker. Until the footer is there no reader takes the image for
/// complete. Source: Virtual Disk Format 5.0, "Stream-Optimized Compressed Sparse Extents".
/// </summary>
internal sealed class StreamOptimizedWriter
{
    private const int Grain = VmdkCreate.GrainSectors * 512;

    /// <summary>Sectors before the first grain: header and descriptor, up to a grain's boundary.</summary>
    private const int Overhead = VmdkCreate.GrainSectors;

    private readonly Stream _output;
    private readonly uint[] _table = new uint[VmdkCreate.EntriesPerTable];
    private readonly uint[] _directory;
    private readonly byte[] _sector = new byte[512];
    private long _position;
    private int _tableIndex;
    private bool _tableUsed;

    private StreamOptimizedWriter(Stream output, long size)
    {
        _output = output;
        long perTable = (long)Grain * VmdkCreate.EntriesPerTable;
        _directory = new uint[(size + perTable - 1) / perTable];
    }

    /// <summary>See <see cref="BlockDriver.WriteStream"/>.</summary>
    public static void Write(StreamWriteContext context)
    {
        var options = VmdkCreateOptions.Take(context.Options, defaultSubformat: "streamOptimized");
        if (options is { IsStream: false, IsFlat: false, IsSplit: false })
            throw new Jobs.Streams.StreamNeedsSeekException();
        if (!options.IsStream)
            throw new ImageException(ImageErrorKind.Unsupported, $"vmdk subformat {options.Subformat} cannot be written to a stream, only streamOptimized can")
            {
                Errno = 95,
            };
        if (options.BackingFile is not null)
            throw new ImageException(ImageErrorKind.Unsupported, "An image written to a stream cannot have a backing file") { Errno = 95 };
        long size = (context.Source.Length + 511) & ~511L;
        var header = VmdkCreate.NewHeader(size, options);
        header.GrainDirectory = SparseHeader.DirectoryAtEnd;
        header.Overhead = Overhead;
        new StreamOptimizedWriter(context.Output, size).Run(context, options, header, size);
    }

    private void Run(StreamWriteContext context, VmdkCreateOptions options, SparseHeader header, long size)
    {
        uint cid = context.Reproducible ? VmdkCid.Derive($"stream {size} {options.Adapter}") : VmdkCid.Random(VmdkDescriptor.NoParent);
        byte[] start = new byte[Overhead * 512];
        header.WriteTo(start);
        string extent = FormattableString.Invariant($"RW {size / 512} SPARSE \"generated-stream.vmdk\"\n");
        Encoding.UTF8.GetBytes(options.Describe(cid, VmdkDescriptor.NoParent, extent, size, VmdkCreate.LongContentId(cid))).CopyTo(start, 512);
        Put(start);
        var deflate = Deflate.ForLevel(options.CompressionLevel ?? VmdkImage.DefaultCompressionLevel);
        int room = (StreamMarker.GrainHeaderSize + Deflate.MaxCompressedLength(Grain) + 511) & ~511;
        StreamPipeline.Run(context, Grain, 512, room, (content, destination) => Pack(deflate, content, destination), Emit);
        EndTable();
        Finish(header);
        _output.Flush();
    }

    /// <summary>Makes the zlib stream, with room for its marker in front and zeroes up to the sector's end.</summary>
    private static (int Length, int Tag) Pack(Deflate deflate, ReadOnlySpan<byte> content, Span<byte> destination)
    {
        int n = deflate.Compress(DeflateContainer.Zlib, content, destination[StreamMarker.GrainHeaderSize..]);
        StreamMarker.WriteGrainHeader(destination, 0, n);
        int end = StreamMarker.GrainHeaderSize + n;
        int padded = (end + 511) & ~511;
        destination[end..padded].Clear();
        return (padded, n);
    }

    private void Emit(long index, ReadOnlySpan<byte> packed, int length)
    {
        var (table, at) = Math.DivRem(index, VmdkCreate.EntriesPerTable);
        if (table != _tableIndex)
        {
            EndTable();
            _tableIndex = (int)table;
        }
        if (packed.IsEmpty)
            return;
        _table[at] = SectorHere();
        _tableUsed = true;
        byte[] copy = ArrayPool<byte>.Shared.Rent(packed.Length);
        packed.CopyTo(copy);
        StreamMarker.WriteGrainHeader(copy, (ulong)index * VmdkCreate.GrainSectors, length);
        Put(copy.AsSpan(0, packed.Length));
        ArrayPool<byte>.Shared.Return(copy);
    }

    /// <summary>Writes the table of the grains before; none where there were none.</summary>
    private void EndTable()
    {
        if (!_tableUsed)
            return;
        PutMarker(StreamMarker.GrainTable, _table.Length * 4 / 512);
        _directory[_tableIndex] = SectorHere();
        Put(MemoryMarshal.AsBytes(_table.AsSpan()));
        Array.Clear(_table);
        _tableUsed = false;
    }

    private void Finish(SparseHeader header)
    {
        int sectors = (_directory.Length * 4 + 511) / 512;
        byte[] directory = new byte[sectors * 512];
        MemoryMarshal.AsBytes(_directory.AsSpan()).CopyTo(directory);
        PutMarker(StreamMarker.GrainDirectory, sectors);
        header.GrainDirectory = SectorHere();
        Put(directory);
        PutMarker(StreamMarker.Footer, 1);
        header.WriteTo(_sector);
        Put(_sector);
        PutMarker(StreamMarker.EndOfStream, 0);
    }

    private uint SectorHere() => _position / 512 <= uint.MaxValue ? (uint)(_position / 512)
        : throw new ImageException(ImageErrorKind.Unsupported, "a stream-optimized image cannot be larger than 2 TiB") { Errno = 27 };

    private void PutMarker(uint type, int sectors)
    {
        StreamMarker.WriteTo(_sector, type, (ulong)sectors);
        Put(_sector);
    }

    private void Put(ReadOnlySpan<byte> data)
    {
        _output.Write(data);
        _position += data.Length;
    }
}
