using System.Buffers.Binary;
using System.Text;
using static ImgKit.Block.Formats.Qcow2.Qcow2Layout;

namespace ImgKit.Block.Formats.Qcow2;

/// <summary>An entry of the snapshot table.</summary>
internal sealed class Qcow2Snapshot
{
    private const int FixedBytes = 40, KnownExtraBytes = 24, MinExtraBytesV3 = 16;

    private byte[] _id = [], _name = [];

    public ulong L1TableOffset { get; set; }

    public uint L1Size { get; set; }

    /// <summary>As it is shown: what follows a zero byte is kept in the file, but is no part of it.</summary>
    public string Id
    {
        get => Text(_id);
        set => _id = Encoding.UTF8.GetBytes(value);
    }

    /// <summary>As <see cref="Id"/>.</summary>
    public string Name
    {
        get => Text(_name);
        set => _name = Encoding.UTF8.GetBytes(value);
    }

    public uint Seconds { get; set; }

    public uint Nanoseconds { get; set; }

    public ulong VmClock { get; set; }

    public ulong VmStateSize { get; set; }

    /// <summary>Virtual size then, in bytes.</summary>
    public ulong DiskSize { get; set; }

    /// <summary>Guest instructions; all ones: not known.</summary>
    public ulong InstructionCount { get; set; } = ulong.MaxValue;

    /// <summary>Extra data behind what is known.</summary>
    public byte[] UnknownExtra { get; set; } = [];

    /// <summary>The entry lacks what version 3 demands; writing it anew repairs it.</summary>
    public bool IsIncomplete { get; set; }

    /// <summary>Bytes that the entry takes when it is written, without padding.</summary>
    public int StoredBytes => FixedBytes + KnownExtraBytes + UnknownExtra.Length + _id.Length + _name.Length;

    /// <summary>Reads an entry.</summary>
    /// <param name="reader">stands at its first byte, and is moved behind its last.</param>
    /// <param name="presentSize">of the disk, in bytes, for old entries that tell none.</param>
    /// <param name="extraBytes">how much extra data there was; behind <see cref="MaxSnapshotExtraData"/> it is not read.</param>
    public static Qcow2Snapshot Read(SnapshotTableReader reader, ulong presentSize, out uint extraBytes)
    {
        Span<byte> b = stackalloc byte[FixedBytes];
        reader.Read(b);
        var s = new Qcow2Snapshot
        {
            L1TableOffset = BinaryPrimitives.ReadUInt64BigEndian(b),
            L1Size = BinaryPrimitives.ReadUInt32BigEndian(b[8..]),
            _id = new byte[BinaryPrimitives.ReadUInt16BigEndian(b[12..])],
            _name = new byte[BinaryPrimitives.ReadUInt16BigEndian(b[14..])],
            Seconds = BinaryPrimitives.ReadUInt32BigEndian(b[16..]),
            Nanoseconds = BinaryPrimitives.ReadUInt32BigEndian(b[20..]),
            VmClock = BinaryPrimitives.ReadUInt64BigEndian(b[24..]),
            VmStateSize = BinaryPrimitives.ReadUInt32BigEndian(b[32..]),
            DiskSize = presentSize,
        };
        extraBytes = BinaryPrimitives.ReadUInt32BigEndian(b[36..]);
        Span<byte> extra = stackalloc byte[MaxSnapshotExtraData];
        extra = extra[..(int)Math.Min(extraBytes, MaxSnapshotExtraData)];
        reader.Read(extra);
        reader.Skip(extraBytes - extra.Length);
        if (extra.Length >= 8)
            s.VmStateSize = BinaryPrimitives.ReadUInt64BigEndian(extra);
        if (extra.Length >= 16)
            s.DiskSize = BinaryPrimitives.ReadUInt64BigEndian(extra[8..]);
        if (extra.Length >= KnownExtraBytes)
            s.InstructionCount = BinaryPrimitives.ReadUInt64BigEndian(extra[16..]);
        if (extra.Length > KnownExtraBytes)
            s.UnknownExtra = extra[KnownExtraBytes..].ToArray();
        s.IsIncomplete = extraBytes < MinExtraBytesV3;
        reader.Read(s._id);
        reader.Read(s._name);
        return s;
    }

    /// <summary>The entry as bytes, padded to 8.</summary>
    public byte[] ToBytes()
    {
        int extra = KnownExtraBytes + UnknownExtra.Length;
        byte[] bytes = new byte[AlignUp(StoredBytes, 8)];
        Span<byte> b = bytes;
        BinaryPrimitives.WriteUInt64BigEndian(b, L1TableOffset);
        BinaryPrimitives.WriteUInt32BigEndian(b[8..], L1Size);
        BinaryPrimitives.WriteUInt16BigEndian(b[12..], (ushort)_id.Length);
        BinaryPrimitives.WriteUInt16BigEndian(b[14..], (ushort)_name.Length);
        BinaryPrimitives.WriteUInt32BigEndian(b[16..], Seconds);
        BinaryPrimitives.WriteUInt32BigEndian(b[20..], Nanoseconds);
        BinaryPrimitives.WriteUInt64BigEndian(b[24..], VmClock);
        // The short field holds what fits; readers of the long one take that.
        BinaryPrimitives.WriteUInt32BigEndian(b[32..], VmStateSize <= uint.MaxValue ? (uint)VmStateSize : 0);
        BinaryPrimitives.WriteUInt32BigEndian(b[36..], (uint)extra);
        BinaryPrimitives.WriteUInt64BigEndian(b[40..], VmStateSize);
        BinaryPrimitives.WriteUInt64BigEndian(b[48..], DiskSize);
        BinaryPrimitives.WriteUInt64BigEndian(b[56..], InstructionCount);
        UnknownExtra.CopyTo(b[64..]);
        _id.CopyTo(b[(FixedBytes + extra)..]);
        _name.CopyTo(b[(FixedBytes + extra + _id.Length)..]);
        return bytes;
    }

    /// <summary>For lists.</summary>
    public SnapshotInfo ToInfo() => new(Id, Name, (long)VmStateSize,
        DateTimeOffset.FromUnixTimeSeconds(Seconds).AddTicks(Nanoseconds / 100), (long)VmClock, (long)DiskSize, (long)InstructionCount);

    private static string Text(byte[] bytes)
    {
        int end = bytes.AsSpan().IndexOf((byte)0);
        return Encoding.UTF8.GetString(bytes, 0, end < 0 ? bytes.Length : end);
    }
}

/// <summary>Reads a table's entries one after the other; behind the file's end there are zeroes.</summary>
internal sealed class SnapshotTableReader(BlockDevice file, long offset)
{
    private readonly byte[] _window = new byte[65536];
    private long _windowAt = -1;

    /// <summary>Bytes from the table's begin on.</summary>
    public long Position { get; private set; }

    public void Read(Span<byte> destination)
    {
        while (!destination.IsEmpty)
        {
            long at = Position / _window.Length * _window.Length;
            if (at != _windowAt)
            {
                int n = (int)Math.Clamp(Math.Max(file.Length - offset, 0) - at, 0, _window.Length);
                _windowAt = -1;
                if (n > 0)
                    file.Read(offset + at, _window.AsSpan(0, n));
                _window.AsSpan(n).Clear();
                _windowAt = at;
            }
            var part = _window.AsSpan((int)(Position - at));
            part = part[..Math.Min(part.Length, destination.Length)];
            part.CopyTo(destination);
            destination = destination[part.Length..];
            Position += part.Length;
        }
    }

    public void Skip(long bytes) => Position += bytes;

    /// <summary>Entries begin at multiples of 8.</summary>
    public void Align() => Position = AlignUp(Position, 8);
}
