namespace ImgKit.Machine.Devices.Display;

internal sealed unsafe partial class VgaCore
{
    private const int DispiId = 0, DispiXres = 1, DispiYres = 2, DispiBpp = 3, DispiEnable = 4, DispiBank = 5, DispiVirtWidth = 6,
        DispiVirtHeight = 7, DispiXOffset = 8, DispiYOffset = 9, DispiMemory = 10, DispiCount = 11;

    private const ushort Enabled = 1, GetCaps = 2, Dac8 = 0x20, NoClear = 0x80;
    private const int MaximumXres = 16000, MaximumYres = 12000;
    private const ushort NewestId = 0xB0C5;

    private readonly ushort[] _dispi = new ushort[DispiCount];
    private ushort _dispiIndex;

    private bool IsVbe => (_dispi[DispiEnable] & Enabled) != 0;

    private bool Dac8Bit => (_dispi[DispiEnable] & Dac8) != 0;

    private void ResetDispi()
    {
        Array.Clear(_dispi);
        _dispi[DispiId] = NewestId;
        _dispi[DispiMemory] = (ushort)(_vramSize >> 16);
        _dispiIndex = 0;
    }

    private uint ReadDispiPort(ushort port) => port == 0x1CE ? _dispiIndex : ReadDispi(_dispiIndex);

    private void WriteDispiPort(ushort port, ushort value)
    {
        if (port == 0x1CE)
            _dispiIndex = value;
        else
            WriteDispi(_dispiIndex, value);
    }

    internal ushort ReadDispi(int index)
    {
        if (index >= DispiCount)
            return 0;
        if ((_dispi[DispiEnable] & GetCaps) == 0)
            return _dispi[index];
        return index switch { DispiXres => MaximumXres, DispiYres => MaximumYres, DispiBpp => 32, _ => _dispi[index] };
    }

    /// <summary>Bytes a row of the virtual screen.</summary>
    private uint DispiStride => _dispi[DispiBpp] == 4 ? (uint)_dispi[DispiVirtWidth] / 2 : (uint)_dispi[DispiVirtWidth] * (uint)((_dispi[DispiBpp] + 7) / 8);

    internal void WriteDispi(int index, ushort value)
    {
        switch (index)
        {
            case DispiId when value is >= 0xB0C0 and <= NewestId:
                _dispi[DispiId] = value;
                break;
            case DispiXres or DispiYres or DispiVirtWidth or DispiXOffset or DispiYOffset:
                _dispi[index] = value;
                break;
            case DispiBpp:
                _dispi[DispiBpp] = value == 0 ? (ushort)8 : value;
                break;
            case DispiBank:
                _dispi[DispiBank] = (ushort)(value & (_vramSize >> 16) - 1);
                break;
            case DispiEnable:
                bool starts = (value & Enabled) != 0 && !IsVbe;
                if (((value ^ _dispi[DispiEnable]) & Dac8) != 0)
                {
                    bool wide = (value & Dac8) != 0;
                    for (int i = 0; i < _dac.Length; i++)
                        _dac[i] = wide ? (byte)(_dac[i] << 2) : (byte)(_dac[i] >> 2);
                }
                _dispi[DispiEnable] = value;
                if (starts)
                {
                    _dispi[DispiVirtWidth] = _dispi[DispiXres];
                    _dispi[DispiXOffset] = _dispi[DispiYOffset] = _dispi[DispiBank] = 0;
                }
                ClampDispi();
                if (starts && (value & NoClear) == 0)
                {
                    uint length = Math.Min(_vramSize, DispiStride * _dispi[DispiYres]);
                    new Span<byte>(_vram, (int)length).Clear();
                }
                break;
            default:
                return;
        }
        if (IsVbe)
            ClampDispi();
        Changed();
    }

    /// <summary>Keeps what the guest set within display memory.</summary>
    private void ClampDispi()
    {
        _dispi[DispiBank] = (ushort)(_dispi[DispiBank] & (_vramSize >> 16) - 1);
        if (!IsVbe)
            return;
        if (_dispi[DispiBpp] is not (4 or 8 or 15 or 16 or 24 or 32))
            _dispi[DispiBpp] = 8;
        _dispi[DispiXres] = (ushort)Math.Clamp(_dispi[DispiXres] & ~7, 8, MaximumXres);
        _dispi[DispiVirtWidth] = Math.Max(_dispi[DispiVirtWidth], _dispi[DispiXres]);
        if (DispiStride > _vramSize)
            _dispi[DispiVirtWidth] = _dispi[DispiXres];
        uint rows = _vramSize / Math.Max(1, DispiStride);
        _dispi[DispiYres] = (ushort)Math.Clamp(_dispi[DispiYres], 1u, Math.Min(MaximumYres, Math.Max(1, rows)));
        _dispi[DispiVirtHeight] = (ushort)Math.Min(rows, 65535);
        _dispi[DispiXOffset] = (ushort)Math.Min(_dispi[DispiXOffset], _dispi[DispiVirtWidth] - _dispi[DispiXres]);
        _dispi[DispiYOffset] = (ushort)Math.Min(_dispi[DispiYOffset], (uint)Math.Max(0, (int)rows - _dispi[DispiYres]));
    }
}
