using System.Buffers.Binary;
using System.Text;

namespace ImgKit.Machine.Devices.Misc;

/// <summary>
/// The firmware configuration device: items by number and files by name, read through ports 0x510 and 0x511 or by DMA at 0x514.
/// Source: QEMU's docs/specs/fw_cfg.
/// </summary>
public sealed class FwCfg : Device, IPortHandler
{
    private const ushort FirstFile = 0x20, Directory = 0x19;
    private const uint DmaError = 1, DmaRead = 2, DmaSkip = 4, DmaSelect = 8, DmaWrite = 16;

    private readonly MachineServices _services;
    private readonly Dictionary<ushort, byte[]> _items = [];
    private readonly SortedDictionary<string, (byte[] Content, Func<byte[]>? Current)> _files = new(StringComparer.Ordinal);
    private readonly Dictionary<ushort, Func<byte[]>> _current = [];
    private ushort _selected;
    private uint _offset, _dmaHigh;

    /// <summary>Makes the device.</summary>
    public FwCfg(MachineServices services)
    {
        _services = services;
        _items[0] = "QEMU"u8.ToArray();
        _items[1] = [3, 0, 0, 0];       // the traditional interface and DMA
        services.Ports.Register(0x510, 2, this, 2);
        services.Ports.Register(0x514, 8, this, 4);
    }

    /// <inheritdoc/>
    public override string TypeName => "fw_cfg";

    /// <summary>Sets an item.</summary>
    public void SetItem(ushort key, byte[] value) => _items[key] = value;

    /// <summary>Sets a 16-bit item.</summary>
    public void SetItem(ushort key, ushort value) => _items[key] = [(byte)value, (byte)(value >> 8)];

    /// <summary>Sets a file.</summary>
    /// <param name="name">its name, at most 55 characters.</param>
    /// <param name="content">its content.</param>
    /// <param name="current">makes its content, of the same length, each time that it is selected; null: it stays as it is.</param>
    public void SetFile(string name, byte[] content, Func<byte[]>? current = null)
    {
        if (Encoding.ASCII.GetByteCount(name) > 55)
            throw new MachineException($"fw_cfg file name '{name}' is too long");
        _files[name] = (content, current);
        _current.Clear();
        int i = 0;
        var directory = new byte[4 + 64 * _files.Count];
        BinaryPrimitives.WriteInt32BigEndian(directory, _files.Count);
        foreach (var (file, (data, make)) in _files)
        {
            if (make != null)
                _current[(ushort)(FirstFile + i)] = make;
            var e = directory.AsSpan(4 + 64 * i);
            BinaryPrimitives.WriteInt32BigEndian(e, data.Length);
            BinaryPrimitives.WriteUInt16BigEndian(e[4..], (ushort)(FirstFile + i));
            Encoding.ASCII.GetBytes(file, e[8..]);
            _items[(ushort)(FirstFile + i)] = data;
            i++;
        }
        _items[Directory] = directory;
    }

    private ReadOnlySpan<byte> Selected => _items.TryGetValue((ushort)(_selected & 0xBFFF), out var item) ? item : [];

    private void SelectItem(ushort key)
    {
        _selected = key;
        _offset = 0;
        if (_current.TryGetValue((ushort)(key & 0xBFFF), out var make))
            _items[(ushort)(key & 0xBFFF)] = make();
    }

    private byte Next()
    {
        var item = Selected;
        return _offset < item.Length ? item[(int)_offset++] : (byte)0;
    }

    /// <inheritdoc/>
    public uint PortRead(ushort port, int size)
    {
        if (port >= 0x514)
            return port == 0x514 ? 0x554D4551u : 0x47464320u;       // "QEMU CFG", most significant byte first
        if (port == 0x510)
            return 0;
        return Next();
    }

    /// <inheritdoc/>
    public void PortWrite(ushort port, uint value, int size)
    {
        switch (port)
        {
            case 0x510 when size == 2:
                SelectItem((ushort)value);
                break;
            case 0x514 when size == 4:
                _dmaHigh = BinaryPrimitives.ReverseEndianness(value);
                break;
            case 0x518 when size == 4:
                Dma((ulong)_dmaHigh << 32 | BinaryPrimitives.ReverseEndianness(value));
                _dmaHigh = 0;
                break;
        }
    }

    private void Dma(ulong at)
    {
        Span<byte> request = stackalloc byte[16];
        if (!_services.Memory.Read(at, request))
            return;
        uint control = BinaryPrimitives.ReadUInt32BigEndian(request);
        uint length = BinaryPrimitives.ReadUInt32BigEndian(request[4..]);
        ulong address = BinaryPrimitives.ReadUInt64BigEndian(request[8..]);
        if ((control & DmaSelect) != 0)
            SelectItem((ushort)(control >> 16));
        bool ok = true;
        if ((control & DmaRead) != 0)
            ok = Copy(address, length);
        else if ((control & DmaSkip) != 0)
            _offset = (uint)Math.Min(int.MaxValue, (ulong)_offset + length);
        else if ((control & DmaWrite) != 0)
            ok = false;     // no item can be written
        Span<byte> result = stackalloc byte[4];
        BinaryPrimitives.WriteUInt32BigEndian(result, ok ? 0 : DmaError);
        _services.Memory.Write(at, result);
    }

    private bool Copy(ulong address, uint length)
    {
        var item = Selected;
        int have = (int)Math.Min(length, Math.Max(0, item.Length - (long)_offset));
        if (!_services.Memory.Write(address, item.Slice(Math.Min((int)_offset, item.Length), have)))
            return false;
        _offset += (uint)have;
        // Zeroes follow an item's end; the guest cannot make this longer than its own memory.
        ulong at = address + (uint)have;
        Span<byte> zero = stackalloc byte[256];
        zero.Clear();
        for (uint left = length - (uint)have; left > 0;)
        {
            int n = (int)Math.Min(left, 256);
            if (!_services.Memory.Write(at, zero[..n]))
                return false;
            at += (uint)n;
            left -= (uint)n;
        }
        return true;
    }

    /// <inheritdoc/>
    public override void Reset()
    {
        _selected = 0;
        _offset = _dmaHigh = 0;
    }

    /// <inheritdoc/>
    public override void Describe(StateVisitor state)
    {
        state.Field("selected", ref _selected);
        state.Field("offset", ref _offset);
        state.Field("dma-high", ref _dmaHigh);
        _offset = Math.Min(_offset, int.MaxValue);
    }
}
