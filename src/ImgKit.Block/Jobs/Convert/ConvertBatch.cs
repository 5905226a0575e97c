using ImgKit.Host;

namespace ImgKit.Block.Jobs.Convert;

/// <summary>
/// Pieces of the disk that lie side by side, and the buffers that one thread fills for them and one (often another) writes from. Batches
/// are used again and again.
/// </summary>
internal sealed class ConvertBatch(int capacity, int block) : IDisposable
{
    /// <summary>Pieces at most: a disk may change between data and holes at every sector.</summary>
    public const int MaxPieces = 64;

    private readonly Piece[] _pieces = new Piece[MaxPieces];
    private AlignedBuffer? _data;
    private AlignedBuffer? _packed;

    /// <summary>Counts from 0; batches are written in this order.</summary>
    public long Index { get; set; }

    /// <summary>Pieces in use.</summary>
    public int Count { get; private set; }

    /// <summary>Bytes of data in them.</summary>
    public int DataLength { get; private set; }

    /// <summary>Nothing is left to write (the kernel has copied it).</summary>
    public bool IsStored { get; set; }

    /// <summary>For each block of data, what <see cref="ICompressingDevice.Compress"/> gave; 0: zeroes.</summary>
    public int[] PackedLengths { get; } = new int[capacity / block];

    /// <summary>For each piece of data, what <see cref="Digest.ContentDigest.HashLeaves"/> gave.</summary>
    public byte[]?[] Leaves { get; } = new byte[]?[MaxPieces];

    /// <summary>The pieces.</summary>
    public ReadOnlySpan<Piece> Pieces => _pieces.AsSpan(0, Count);

    /// <summary>Room for data that is left, in bytes.</summary>
    public int Room => capacity - DataLength;

    /// <summary>Another piece can be added.</summary>
    public bool HasRoom => Count < MaxPieces && Room > 0;

    /// <summary>The data of all pieces, one behind the other. Memory is taken at the first use.</summary>
    public Span<byte> Data => (_data ??= new AlignedBuffer(capacity)).Span[..DataLength];

    /// <summary>Room for all blocks as they come out of the compressor.</summary>
    /// <param name="roomForBlock">bytes for each.</param>
    public Span<byte> Packed(int roomForBlock) => (_packed ??= new AlignedBuffer(checked(roomForBlock * PackedLengths.Length))).Span;

    /// <summary>Adds a piece.</summary>
    public void Add(in Piece piece)
    {
        _pieces[Count++] = piece;
        if (piece.Kind == PieceKind.Data)
            DataLength += (int)piece.Length;
    }

    /// <summary>Makes it empty.</summary>
    public void Clear()
    {
        Count = 0;
        DataLength = 0;
        IsStored = false;
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _data?.Dispose();
        _packed?.Dispose();
    }
}
