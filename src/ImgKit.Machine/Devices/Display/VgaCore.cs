namespace ImgKit.Machine.Devices.Display;

/// <summary>
/// The registers and memory of a VGA with the Bochs display interface (VBE DISPI). Sources: IBM PS/2 Hardware Interface Technical Reference,
/// Video Subsystem (VGA function); the Bochs project's vbe_display_api.txt; QEMU's docs/specs/standard-vga.
/// Under the machine lock.
/// </summary>
/// <remarks>Memory is kept as the display reads it: the four planes' bytes of one plane address lie side by side (plane p of address a at
/// 4 * a + p). Chained addressing (chain-4, odd/even) is undone on the way in, so that displayed addresses always count in plane addresses.</remarks>
internal sealed unsafe partial class VgaCore : IPortHandler, IMmioHandler, IStateful
{
    private readonly MachineServices _services;
    private readonly byte* _vram;
    private readonly uint _vramSize;
    private readonly byte* _dirty;
    private readonly bool[] _lookAgain;     // pages that had changed at the last look
    private readonly MappedRange _window;

    private readonly byte[] _sequencer = new byte[8];
    private readonly byte[] _crtc = new byte[32];
    private readonly byte[] _graphics = new byte[16];
    private readonly byte[] _attribute = new byte[32];
    private readonly byte[] _dac = new byte[768];
    private byte _sequencerIndex, _crtcIndex, _graphicsIndex, _attributeIndex, _misc, _feature;
    private bool _attributeFlip;
    private byte _dacMask = 0xFF, _dacWrite, _dacRead, _dacState, _dacSub;
    private readonly byte[] _dacPending = new byte[3];
    private uint _latch;

    /// <summary>Makes one.</summary>
    /// <param name="services">what the machine gives.</param>
    /// <param name="vram">display memory.</param>
    /// <param name="vramSize">its bytes, a power of two from 256 KiB.</param>
    /// <param name="dirty">a byte a page of display memory, as <see cref="Cpu.MemoryRegion.DirtyLog"/> has it.</param>
    internal VgaCore(MachineServices services, byte* vram, uint vramSize, byte* dirty)
    {
        _services = services;
        _vram = vram;
        _vramSize = vramSize;
        _dirty = dirty;
        _lookAgain = new bool[vramSize >> 12];
        services.Ports.Register(0x3B4, 2, this);
        services.Ports.Register(0x3BA, 1, this);
        services.Ports.Register(0x3C0, 16, this);
        services.Ports.Register(0x3D4, 2, this);
        services.Ports.Register(0x3DA, 1, this);
        services.Ports.Register(0x1CE, 3, this, 2);
        services.Mmio.Register(0xA0000, 0x20000, this);
        services.Engine?.AddCoalescedRange(0xA0000, 0x20000, false); // writes have no effect but in memory
        _window = services.Space.Add(AddressSpace.ChipsetPriority);
        Reset();
    }

    private bool IsColor => (_misc & 1) != 0;

    internal void Reset()
    {
        Array.Clear(_sequencer);
        Array.Clear(_crtc);
        Array.Clear(_graphics);
        Array.Clear(_attribute);
        Array.Clear(_dac);
        _sequencerIndex = _crtcIndex = _graphicsIndex = _attributeIndex = _misc = _feature = 0;
        _attributeFlip = false;
        _dacMask = 0xFF;
        _dacWrite = _dacRead = _dacState = _dacSub = 0;
        _latch = 0;
        ClearMemory();
        ResetDispi();
        UpdateWindow();
        _everything = true;
    }

    /// <summary>Zeroes display memory by giving its pages back to the host: what was never shown takes no memory.</summary>
    private void ClearMemory()
    {
        const int DontNeed = 4;
        if (Tmds.Linux.LibC.madvise(_vram, _vramSize, DontNeed) != 0)
            new Span<byte>(_vram, (int)_vramSize).Clear();
    }

    public uint PortRead(ushort port, int size)
    {
        if (port is >= 0x1CE and <= 0x1D0)
            return ReadDispiPort(port);
        if (port is 0x3B4 or 0x3B5 or 0x3BA ? IsColor : port is 0x3D4 or 0x3D5 or 0x3DA && !IsColor)
            return 0xFF;
        switch (port)
        {
            case 0x3C0:
                return _attributeFlip ? (uint)0 : _attributeIndex;
            case 0x3C1:
                return _attribute[_attributeIndex & 31];
            case 0x3C2:
                return 0x10; // switch sense: a monitor is there
            case 0x3C4:
                return _sequencerIndex;
            case 0x3C5:
                return _sequencer[_sequencerIndex & 7];
            case 0x3C6:
                return _dacMask;
            case 0x3C7:
                return _dacState;
            case 0x3C8:
                return _dacWrite;
            case 0x3C9:
                byte value = _dac[_dacRead * 3 + _dacSub];
                if (++_dacSub == 3)
                {
                    _dacSub = 0;
                    _dacRead++;
                }
                return value;
            case 0x3CA:
                return _feature;
            case 0x3CC:
                return _misc;
            case 0x3CE:
                return _graphicsIndex;
            case 0x3CF:
                return _graphics[_graphicsIndex & 15];
            case 0x3B4 or 0x3D4:
                return _crtcIndex;
            case 0x3B5 or 0x3D5:
                return _crtc[_crtcIndex & 31];
            case 0x3BA or 0x3DA:
                _attributeFlip = false;
                return InputStatus();
            default:
                return 0xFF;
        }
    }

    /// <summary>Input status 1: blanking and vertical retrace of a 640x400, 70 Hz display.</summary>
    private byte InputStatus()
    {
        const long LineTime = 31778, Lines = 449;
        long at = _services.Clock.Now % (LineTime * Lines);
        long line = at / LineTime, dot = at % LineTime;
        bool retrace = line is >= 412 and < 414;
        bool blank = line >= 400 || dot >= LineTime * 4 / 5;
        return (byte)((retrace ? 8 : 0) | (blank ? 1 : 0));
    }

    public void PortWrite(ushort port, uint wide, int size)
    {
        if (port is >= 0x1CE and <= 0x1D0)
        {
            WriteDispiPort(port, (ushort)wide);
            return;
        }
        if (port is 0x3B4 or 0x3B5 or 0x3BA ? IsColor : port is 0x3D4 or 0x3D5 or 0x3DA && !IsColor)
            return;
        byte value = (byte)wide;
        switch (port)
        {
            case 0x3C0:
                WriteAttribute(value);
                break;
            case 0x3C2:
                _misc = value;
                break;
            case 0x3C4:
                _sequencerIndex = (byte)(value & 7);
                break;
            case 0x3C5:
                _sequencer[_sequencerIndex] = (byte)(value & SequencerMask(_sequencerIndex));
                UpdateWindow();
                _everything |= _sequencerIndex is 1 or 3 or 4; // the map mask matters to writes alone
                break;
            case 0x3C6:
                _dacMask = value;
                _everything = true;
                break;
            case 0x3C7:
                _dacRead = value;
                _dacSub = 0;
                _dacState = 3;
                break;
            case 0x3C8:
                _dacWrite = value;
                _dacSub = 0;
                _dacState = 0;
                break;
            case 0x3C9:
                _dacPending[_dacSub] = Dac8Bit ? value : (byte)(value & 0x3F);
                if (++_dacSub == 3)
                {
                    _dacPending.CopyTo(_dac, _dacWrite * 3);
                    _dacSub = 0;
                    _dacWrite++;
                    _everything = true;
                }
                break;
            case 0x3BA or 0x3DA:
                _feature = (byte)(value & 0x10);
                break;
            case 0x3CE:
                _graphicsIndex = (byte)(value & 15);
                break;
            case 0x3CF:
                byte before = _graphics[_graphicsIndex];
                _graphics[_graphicsIndex] = (byte)(value & GraphicsMask(_graphicsIndex));
                UpdateWindow();
                _everything |= ((before ^ _graphics[_graphicsIndex]) & _graphicsIndex switch { Mode => 0x60, Miscellaneous => 1, _ => 0 }) != 0;
                break;
            case 0x3B4 or 0x3D4:
                _crtcIndex = (byte)(value & 31);
                break;
            case 0x3B5 or 0x3D5:
                WriteCrtc(value);
                break;
        }
    }

    private static byte SequencerMask(int index) => index switch { 0 => 3, 1 => 0x3D, 2 => 15, 3 => 0x3F, 4 => 14, _ => 0 };

    private static byte GraphicsMask(int index) => index switch { 0 or 1 or 2 or 7 => 15, 3 => 0x1F, 4 => 3, 5 => 0x7B, 6 => 15, 8 => 0xFF, _ => 0 };

    private void WriteAttribute(byte value)
    {
        if (!_attributeFlip)
        {
            if (((_attributeIndex ^ value) & 0x20) != 0)
                _everything = true;
            _attributeIndex = (byte)(value & 0x3F);
        }
        else if ((_attributeIndex & 31) <= 0x14)
        {
            _attribute[_attributeIndex & 31] = (byte)(value & (_attributeIndex & 31) switch { < 16 => 0x3F, 0x10 => 0xEF, 0x12 => 0x3F, 0x13 or 0x14 => 15, _ => 0xFF });
            _everything = true;
        }
        _attributeFlip = !_attributeFlip;
    }

    private void WriteCrtc(byte value)
    {
        const byte ProtectBit = 0x80;
        if (_crtcIndex <= 7 && (_crtc[0x11] & ProtectBit) != 0)
        {
            // registers 0 to 7 are write-protected, but for the line compare bit
            if (_crtcIndex == 7)
                _crtc[7] = (byte)(_crtc[7] & ~0x10 | value & 0x10);
            return;
        }
        if (_crtcIndex <= 0x18)
            _crtc[_crtcIndex] = value;
        if (_crtcIndex is not (0x0A or 0x0B or 0x0E or 0x0F)) // the cursor is looked at anyway
            _everything = true;
    }

    private void Changed()
    {
        UpdateWindow();
        _everything = true;
    }

    public void Describe(StateVisitor state)
    {
        state.Bytes("sequencer", _sequencer);
        state.Bytes("crtc", _crtc);
        state.Bytes("graphics", _graphics);
        state.Bytes("attribute", _attribute);
        state.Bytes("dac", _dac);
        state.Bytes("dac-pending", _dacPending);
        state.Field("sequencer-index", ref _sequencerIndex);
        state.Field("crtc-index", ref _crtcIndex);
        state.Field("graphics-index", ref _graphicsIndex);
        state.Field("attribute-index", ref _attributeIndex);
        state.Field("attribute-flip", ref _attributeFlip);
        state.Field("misc", ref _misc);
        state.Field("feature", ref _feature);
        state.Field("dac-mask", ref _dacMask);
        state.Field("dac-write", ref _dacWrite);
        state.Field("dac-read", ref _dacRead);
        state.Field("dac-state", ref _dacState);
        state.Field("dac-sub", ref _dacSub);
        state.Field("latch", ref _latch);
        state.Fields("dispi", _dispi);
        state.Field("dispi-index", ref _dispiIndex);
        state.Bytes("vram", new Span<byte>(_vram, (int)_vramSize));
        if (!state.IsLoading)
            return;
        ClampDispi();
        UpdateWindow();
        _everything = true;
    }
}
