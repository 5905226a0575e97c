using System.Buffers.Binary;

namespace ImgKit.Machine.Pci;

/// <summary>The MSI-X table of a function. Layout: PCI Local Bus Specification 3.0, section 6.8.2.</summary>
public sealed class PciMsix : IMmioHandler, IStateful
{
    private readonly PciDevice _device;
    private readonly MachineServices _services;
    private readonly int _capability;
    private readonly byte[] _table;
    private readonly ulong[] _pending = new ulong[2];

    internal PciMsix(PciDevice device, MachineServices services, int capability, int vectors)
    {
        if (vectors is < 1 or > 128)
            throw new ArgumentOutOfRangeException(nameof(vectors));
        _device = device;
        _services = services;
        _capability = capability;
        Vectors = vectors;
        _table = new byte[vectors * 16];
        Reset();
    }

    /// <summary>Number of vectors.</summary>
    public int Vectors { get; }

    /// <summary>The function uses message interrupts instead of its pin.</summary>
    public bool IsEnabled => (_device.Config[_capability + 3] & 0x80) != 0;

    private bool IsMasked => (_device.Config[_capability + 3] & 0x40) != 0;

    /// <summary>The address and data of a vector, for an accelerator that routes it itself.</summary>
    public (ulong Address, uint Data, bool Masked) Message(int vector)
    {
        var e = _table.AsSpan(vector * 16);
        return (BinaryPrimitives.ReadUInt64LittleEndian(e), BinaryPrimitives.ReadUInt32LittleEndian(e[8..]),
            IsMasked || (e[12] & 1) != 0);
    }

    /// <summary>Raised after a vector's entry or mask, or (-1) the whole function's, has changed.</summary>
    public event Action<int>? Changed;

    /// <summary>Sends a vector's message, or remembers it while it is masked.</summary>
    public void Notify(int vector)
    {
        if (vector >= Vectors || !IsEnabled)
            return;
        var (address, data, masked) = Message(vector);
        if (masked)
            _pending[vector >> 6] |= 1UL << vector;
        else
            _services.Messages?.SendMessage(address, data);
    }

    internal void ConfigWritten(int offset, int size)
    {
        if (offset > _capability + 3 || offset + size <= _capability + 2)
            return;
        for (int i = 0; i < Vectors; i++)
            SendPending(i);
        Changed?.Invoke(-1);
    }

    private void SendPending(int vector)
    {
        if ((_pending[vector >> 6] >> vector & 1) == 0 || !IsEnabled || Message(vector).Masked)
            return;
        _pending[vector >> 6] &= ~(1UL << vector);
        Notify(vector);
    }

    /// <inheritdoc/>
    public ulong MmioRead(ulong offset, int size)
    {
        ReadOnlySpan<byte> from = offset < 2048 ? _table
            : System.Runtime.InteropServices.MemoryMarshal.AsBytes(_pending.AsSpan());
        int at = (int)(offset & 2047);
        ulong value = 0;
        for (int i = 0; i < size && at + i < from.Length; i++)
            value |= (ulong)from[at + i] << (8 * i);
        return value;
    }

    /// <inheritdoc/>
    public void MmioWrite(ulong offset, ulong value, int size)
    {
        if (offset >= (ulong)_table.Length)
            return;
        int vector = (int)offset / 16;
        for (int i = 0; i < size && (int)offset + i < _table.Length; i++)
            _table[(int)offset + i] = (byte)(value >> (8 * i));
        Changed?.Invoke(vector);
        SendPending(vector);
    }

    internal void Reset()
    {
        Array.Clear(_table);
        Array.Clear(_pending);
        for (int i = 0; i < Vectors; i++)
            _table[i * 16 + 12] = 1;
        Changed?.Invoke(-1);
    }

    /// <inheritdoc/>
    public void Describe(StateVisitor state)
    {
        state.Bytes("table", _table);
        state.Fields("pending", _pending);
        if (state.IsLoading)
            Changed?.Invoke(-1);
    }
}
