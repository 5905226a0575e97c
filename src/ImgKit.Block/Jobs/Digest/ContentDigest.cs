using System.Buffers;
using System.Security.Cryptography;

namespace ImgKit.Block.Jobs.Digest;

/// <summary>
/// A digest of what a guest sees of a disk, equal for equal content in any format. It is a tree: leaves are SHA-256 of 64 KiB
/// blocks (the last may be shorter), a node is SHA-256 of up to 256 digests below it, and the result is SHA-256 of the text
/// <c>imgkit-content-1</c>, the disk's length in bytes (64 bits, little-endian) and the root. The digests of zero blocks and of zero
/// subtrees are constants, so holes cost nothing; leaves can be hashed on any thread.
/// </summary>
public sealed class ContentDigest : IDisposable
{
    /// <summary>Bytes of a leaf.</summary>
    public const int LeafSize = 64 * 1024;

    private const int Fanout = 256;
    private const int HashSize = 32;

    private readonly List<Level> _levels = [];
    private readonly List<byte[]> _zero = [];
    private byte[]? _partial;
    private int _partialLength;
    private long _length;

    /// <summary>SHA-256 of each leaf in a piece that starts on a leaf boundary. Any thread, in any order. The array is to be given to
    /// <see cref="AppendLeaves"/>; it is null when the piece does not start on a boundary.</summary>
    public byte[]? HashLeaves(long offset, ReadOnlySpan<byte> data)
    {
        if (offset % LeafSize != 0)
            return null;
        int leaves = (data.Length + LeafSize - 1) / LeafSize;
        byte[] r = ArrayPool<byte>.Shared.Rent(leaves * HashSize);
        for (int i = 0; i < leaves; i++)
        {
            var leaf = data.Slice(i * LeafSize, Math.Min(LeafSize, data.Length - i * LeafSize));
            HashLeaf(leaf, r.AsSpan(i * HashSize, HashSize));
        }
        return r;
    }

    /// <summary>Takes in the next piece of the disk, hashed by <see cref="HashLeaves"/>.</summary>
    public void AppendLeaves(byte[] hashes, ReadOnlySpan<byte> data)
    {
        bool aligned = _partialLength == 0;
        int whole = aligned ? data.Length / LeafSize : 0;
        for (int i = 0; i < whole; i++)
            Push(0, hashes.AsSpan(i * HashSize, HashSize));
        _length += (long)whole * LeafSize;
        ArrayPool<byte>.Shared.Return(hashes);
        if (whole * LeafSize < data.Length)
            Append(data[(whole * LeafSize)..]);
    }

    /// <summary>Takes in the next bytes of the disk.</summary>
    public void Append(ReadOnlySpan<byte> data)
    {
        Span<byte> hash = stackalloc byte[HashSize];
        while (data.Length > 0)
        {
            int n = Math.Min(data.Length, LeafSize - _partialLength);
            if (n == LeafSize)
            {
                HashLeaf(data[..n], hash);
                Push(0, hash);
            }
            else
            {
                _partial ??= new byte[LeafSize];
                data[..n].CopyTo(_partial.AsSpan(_partialLength));
                _partialLength += n;
                if (_partialLength == LeafSize)
                    FinishPartial();
            }
            data = data[n..];
            _length += n;
        }
    }

    /// <summary>Takes in zeroes, at a cost that grows with the logarithm of their number.</summary>
    public void AppendZeroes(long count)
    {
        if (_partialLength > 0)
        {
            int n = (int)Math.Min(count, LeafSize - _partialLength);
            Append(ZeroBuffer.Span(n));
            count -= n;
        }
        PushZeroes(0, count / LeafSize);
        _length += count / LeafSize * LeafSize;
        if (count % LeafSize > 0)
            Append(ZeroBuffer.Span((int)(count % LeafSize)));
    }

    /// <summary>Reads a stretch and takes it in.</summary>
    public void AppendFrom(ReadContent read, long offset, long count)
    {
        byte[] buffer = ArrayPool<byte>.Shared.Rent(LeafSize);
        while (count > 0)
        {
            int n = (int)Math.Min(LeafSize, count);
            read(offset, buffer.AsSpan(0, n));
            Append(buffer.AsSpan(0, n));
            offset += n;
            count -= n;
        }
        ArrayPool<byte>.Shared.Return(buffer);
    }

    /// <summary>The digest of everything taken in, as 64 hexadecimal digits. Nothing can be taken in afterwards.</summary>
    public string Finish()
    {
        if (_partialLength > 0)
            FinishPartial();
        byte[] root = [];
        for (int i = 0; i < _levels.Count; i++)
        {
            var level = _levels[i];
            bool last = i == _levels.Count - 1;
            if (last && level.Count == 1)
                root = level.Bytes[..HashSize];
            else if (level.Count > 0)
                Push(i + 1, SHA256.HashData(level.Bytes.AsSpan(0, level.Count * HashSize)));
        }
        using var h = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        h.AppendData("imgkit-content-1"u8);
        h.AppendData(BitConverter.GetBytes(_length));
        h.AppendData(root);
        return System.Convert.ToHexStringLower(h.GetHashAndReset());
    }

    /// <inheritdoc/>
    public void Dispose() => _levels.Clear();

    private sealed class Level
    {
        public readonly byte[] Bytes = new byte[Fanout * HashSize];
        public int Count;
    }

    private void FinishPartial()
    {
        Span<byte> hash = stackalloc byte[HashSize];
        HashLeaf(_partial.AsSpan(0, _partialLength), hash);
        Push(0, hash);
        _partialLength = 0;
    }

    private void HashLeaf(ReadOnlySpan<byte> leaf, Span<byte> hash)
    {
        if (leaf.Length == LeafSize && ZeroBuffer.IsZero(leaf))
            Zero(0).CopyTo(hash);
        else
            SHA256.HashData(leaf, hash);
    }

    private void Push(int level, ReadOnlySpan<byte> hash)
    {
        while (_levels.Count <= level)
            _levels.Add(new Level());
        var l = _levels[level];
        hash.CopyTo(l.Bytes.AsSpan(l.Count * HashSize));
        if (++l.Count < Fanout)
            return;
        l.Count = 0;
        Push(level + 1, SHA256.HashData(l.Bytes));
    }

    /// <summary>Fills the open node of a level one by one, goes on with whole subtrees a level above, and ends with the rest.</summary>
    private void PushZeroes(int level, long count)
    {
        if (count == 0)
            return;
        while (_levels.Count <= level)
            _levels.Add(new Level());
        while (count > 0 && (_levels[level].Count != 0 || count < Fanout))
        {
            Push(level, Zero(level));
            count--;
        }
        if (count >= Fanout)
            PushZeroes(level + 1, count / Fanout);
        for (long rest = count % Fanout; rest > 0 && count >= Fanout; rest--)
            Push(level, Zero(level));
    }

    /// <summary>The digest of a subtree of zeroes.</summary>
    private byte[] Zero(int level)
    {
        lock (_zero)
        {
            while (_zero.Count <= level)
            {
                if (_zero.Count == 0)
                {
                    _zero.Add(SHA256.HashData(ZeroBuffer.Span(LeafSize)));
                    continue;
                }
                byte[] node = new byte[Fanout * HashSize];
                for (int i = 0; i < Fanout; i++)
                    _zero[^1].CopyTo(node, i * HashSize);
                _zero.Add(SHA256.HashData(node));
            }
            return _zero[level];
        }
    }
}

/// <summary>Reads a piece of a disk.</summary>
public delegate void ReadContent(long offset, Span<byte> destination);
