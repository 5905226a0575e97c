using System.Buffers.Binary;
using System.Text;
using static ImgKit.Block.Formats.Qcow2.Qcow2Layout;

namespace ImgKit.Block.Formats.Qcow2;

/// <summary>An entry of the snapshot table.</summary>
internal sealed class Qcow2Snapshot
{
    public ulong L1TableOffset { get; set; }

    public uint L1Size { get; set; }

    public string Id { get; set; } = "";

    public string Name { get; set; } = "";

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

    /// <summary>The entry lacked what version 3 demands, or had too much; writing it anew repairs it.</summary>
    public bool IsIncomplete { get; set; }

    /// <summary>Reads the entry at <paramref name="at"/> in <paramref name="table"/>; moves behind it.</summary>
    /// <returns>false when the table ends in it.</returns>
    public static bool TryRead(ReadOnlySpan<byte> table, ref int at, ulong presentSize, out Qcow2Snapshot s)
    {
        s = new Qcow2Snapshot();
        if (table.Length - at < 40)
            return false;
        var b = table[at..];
        s.L1TableOffset = BinaryPrimitives.ReadUInt64BigEndian(b);
        s.L1Size = BinaryPrimitives.ReadUInt32BigEndian(b[8..]);
        int idLength = BinaryPrimitives.ReadUInt16BigEndian(b[12..]);
        int nameLength = BinaryPrimitives.ReadUInt16BigEndian(b[14..]);
        s.Seconds = BinaryPrimitives.ReadUInt32BigEndian(b[16..]);
        s.Nanoseconds = BinaryPrimitives.ReadUInt32BigEndian(b[20..]);
        s.VmClock = BinaryPrimitives.ReadUInt64BigEndian(b[24..]);
        s.VmStateSize = BinaryPrimitives.ReadUInt32BigEndian(b[32..]);
        uint extraLength = BinaryPrimitives.ReadUInt32BigEndian(b[36..]);
        if (extraLength > b.Length - 40 || idLength + nameLength > b.Length - 40 - (int)extraLength)
            return false;
        var extra = b.Slice(40, (int)extraLength);
        if (extra.Length >= 8)
            s.VmStateSize = BinaryPrimitives.ReadUInt64BigEndian(extra);
        s.DiskSize = extra.Length >= 16 ? BinaryPrimitives.ReadUInt64BigEndian(extra[8..]) : presentSize;
        s.IsIncomplete = extra.Length < 16;
        if (extra.Length >= 24)
            s.InstructionCount = BinaryPrimitives.ReadUInt64BigEndian(extra[16..]);
        if (extra.Length > 24)
            s.UnknownExtra = extra[24..].ToArray();
        s.Id = Encoding.UTF8.GetString(b.Slice(40 + extra.Length, idLength));
        s.Name = Encoding.UTF8.GetString(b.Slice(40 + extra.Length + idLength, nameLength));
        at += (int)Math.Min(AlignUp(40 + extra.Length + idLength + nameLength, 8), table.Length - at);
        return true;
    }

    /// <summary>The entry as bytes, padded to 8.</summary>
    public byte[] ToBytes()
    {
        byte[] id = Encoding.UTF8.GetBytes(Id), name = Encoding.UTF8.GetBytes(Name);
        int extra = 24 + UnknownExtra.Length;
        byte[] bytes = new byte[AlignUp(40 + extra + id.Length + name.Length, 8)];
        Span<byte> b = bytes;
        BinaryPrimitives.WriteUInt64BigEndian(b, L1TableOffset);
        BinaryPrimitives.WriteUInt32BigEndian(b[8..], L1Size);
        BinaryPrimitives.WriteUInt16BigEndian(b[12..], (ushort)id.Length);
        BinaryPrimitives.WriteUInt16BigEndian(b[14..], (ushort)name.Length);
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
        id.CopyTo(b[(40 + extra)..]);
        name.CopyTo(b[(40 + extra + id.Length)..]);
        return bytes;
    }

    /// <summary>For lists.</summary>
    public SnapshotInfo ToInfo() => new(Id, Name, (long)VmStateSize,
        DateTimeOffset.FromUnixTimeSeconds(Seconds).AddTicks(Nanoseconds / 100), (long)VmClock, (long)DiskSize, (long)InstructionCount);
}
