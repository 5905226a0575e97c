using System.Buffers.Binary;
using System.Text;

namespace ImgKit.Machine;

/// <summary>Takes the state of devices down as bytes: for each field its length-prefixed full name, its length and its value.</summary>
public sealed class StateWriter : StateVisitor
{
    private readonly MemoryStream _out = new();
    private readonly Stack<string> _path = new();

    /// <inheritdoc/>
    public override bool IsLoading => false;

    /// <summary>What was written so far.</summary>
    public byte[] ToArray() => _out.ToArray();

    /// <inheritdoc/>
    protected override void Integer(string name, ref ulong value, int size)
    {
        Span<byte> b = stackalloc byte[8];
        BinaryPrimitives.WriteUInt64LittleEndian(b, value);
        Bytes(name, b[..size]);
    }

    /// <inheritdoc/>
    public override void Bytes(string name, Span<byte> value)
    {
        byte[] full = Encoding.UTF8.GetBytes(string.Join('/', _path.Reverse().Append(name)));
        Span<byte> head = stackalloc byte[2];
        BinaryPrimitives.WriteUInt16LittleEndian(head, checked((ushort)full.Length));
        _out.Write(head);
        _out.Write(full);
        Span<byte> length = stackalloc byte[4];
        BinaryPrimitives.WriteInt32LittleEndian(length, value.Length);
        _out.Write(length);
        _out.Write(value);
    }

    /// <inheritdoc/>
    protected override void Enter(string name) => _path.Push(name);

    /// <inheritdoc/>
    protected override void Leave() => _path.Pop();
}

/// <summary>Gives devices the state that a <see cref="StateWriter"/> took down. Fields are found by name.</summary>
public sealed class StateReader : StateVisitor
{
    private readonly Dictionary<string, ReadOnlyMemory<byte>> _fields = [];
    private readonly Stack<string> _path = new();

    /// <summary>Reads the fields. Throws <see cref="InvalidDataException"/> when the bytes are not such a list.</summary>
    public StateReader(ReadOnlyMemory<byte> data)
    {
        int at = 0;
        var s = data.Span;
        while (at < s.Length)
        {
            if (s.Length - at < 2)
                throw new InvalidDataException($"machine state ends inside a field at byte {at}");
            int nameLength = BinaryPrimitives.ReadUInt16LittleEndian(s[at..]);
            if (s.Length - at - 2 < nameLength + 4)
                throw new InvalidDataException($"machine state ends inside a field at byte {at}");
            string name = Encoding.UTF8.GetString(s.Slice(at + 2, nameLength));
            at += 2 + nameLength;
            int length = BinaryPrimitives.ReadInt32LittleEndian(s[at..]);
            at += 4;
            if (length < 0 || length > s.Length - at)
                throw new InvalidDataException($"machine state field '{name}' has an impossible length {length}");
            _fields[name] = data.Slice(at, length);
            at += length;
        }
    }

    /// <inheritdoc/>
    public override bool IsLoading => true;

    /// <inheritdoc/>
    protected override void Integer(string name, ref ulong value, int size)
    {
        Span<byte> b = stackalloc byte[8];
        b.Clear();
        Bytes(name, b[..size]);
        value = BinaryPrimitives.ReadUInt64LittleEndian(b);
    }

    /// <inheritdoc/>
    public override void Bytes(string name, Span<byte> value)
    {
        string full = string.Join('/', _path.Reverse().Append(name));
        if (!_fields.TryGetValue(full, out var field))
            throw new InvalidDataException($"machine state has no field '{full}'");
        if (field.Length != value.Length)
            throw new InvalidDataException($"machine state field '{full}' has {field.Length} bytes instead of {value.Length}");
        field.Span.CopyTo(value);
    }

    /// <inheritdoc/>
    protected override void Enter(string name) => _path.Push(name);

    /// <inheritdoc/>
    protected override void Leave() => _path.Pop();
}
