namespace ImgKit.Machine;

/// <summary>
/// Goes through the state of a device. One declaration of the fields serves saving, loading and comparing: a visitor that saves
/// reads the fields, one that loads assigns them.
/// </summary>
public abstract class StateVisitor
{
    /// <summary>True when the visitor assigns the fields: what is derived from them must be made again afterwards.</summary>
    public abstract bool IsLoading { get; }

    /// <summary>A field of up to 64 bits; <paramref name="size"/> is its width in bytes (1, 2, 4 or 8).</summary>
    /// <param name="name">unique in the device, kept stable between versions.</param>
    protected abstract void Integer(string name, ref ulong value, int size);

    /// <summary>A run of bytes of fixed length.</summary>
    public abstract void Bytes(string name, Span<byte> value);

    /// <summary>A flag.</summary>
    public void Field(string name, ref bool value)
    {
        ulong v = value ? 1u : 0u;
        Integer(name, ref v, 1);
        value = v != 0;
    }

    /// <summary>An unsigned byte.</summary>
    public void Field(string name, ref byte value)
    {
        ulong v = value;
        Integer(name, ref v, 1);
        value = (byte)v;
    }

    /// <summary>An unsigned 16-bit field.</summary>
    public void Field(string name, ref ushort value)
    {
        ulong v = value;
        Integer(name, ref v, 2);
        value = (ushort)v;
    }

    /// <summary>A signed 32-bit field.</summary>
    public void Field(string name, ref int value)
    {
        ulong v = (uint)value;
        Integer(name, ref v, 4);
        value = (int)v;
    }

    /// <summary>An unsigned 32-bit field.</summary>
    public void Field(string name, ref uint value)
    {
        ulong v = value;
        Integer(name, ref v, 4);
        value = (uint)v;
    }

    /// <summary>A signed 64-bit field, such as a time.</summary>
    public void Field(string name, ref long value)
    {
        ulong v = (ulong)value;
        Integer(name, ref v, 8);
        value = (long)v;
    }

    /// <summary>An unsigned 64-bit field.</summary>
    public void Field(string name, ref ulong value) => Integer(name, ref value, 8);

    /// <summary>An array of 16-bit fields.</summary>
    public void Fields(string name, Span<ushort> values) => Bytes(name, System.Runtime.InteropServices.MemoryMarshal.AsBytes(values));

    /// <summary>An array of 32-bit fields.</summary>
    public void Fields(string name, Span<uint> values) => Bytes(name, System.Runtime.InteropServices.MemoryMarshal.AsBytes(values));

    /// <summary>An array of 64-bit fields.</summary>
    public void Fields(string name, Span<ulong> values) => Bytes(name, System.Runtime.InteropServices.MemoryMarshal.AsBytes(values));

    /// <summary>An array of flags.</summary>
    public void Fields(string name, Span<bool> values) => Bytes(name, System.Runtime.InteropServices.MemoryMarshal.AsBytes(values));

    /// <summary>State of a part, under a name of its own.</summary>
    public void Part(string name, IStateful part)
    {
        Enter(name);
        part.Describe(this);
        Leave();
    }

    /// <summary>Names until <see cref="Leave"/> belong to this part.</summary>
    protected abstract void Enter(string name);

    /// <summary>Ends what <see cref="Enter"/> began.</summary>
    protected abstract void Leave();
}

/// <summary>What has a state to declare.</summary>
public interface IStateful
{
    /// <summary>Lists every field of the state, in any order, always the same ones.</summary>
    void Describe(StateVisitor state);
}
