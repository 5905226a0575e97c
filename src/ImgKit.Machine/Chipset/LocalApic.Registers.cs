namespace ImgKit.Machine.Chipset;

// The registers as the processor reaches them: in memory, and as MSRs of the x2APIC (Intel SDM 3A, 11.4.1 and 11.12).
public sealed partial class LocalApic
{
    /// <summary>Reads a register by its xAPIC offset divided by 16.</summary>
    private uint Read(int register)
    {
        switch (register)
        {
            case 0x02:
                return IsX2 ? (uint)Index : _id << 24;
            case 0x03:
                return 0x0005_0014;
            case 0x08:
                return _tpr;
            case 0x09:
                return 0;
            case 0x0A:
                return ProcessorPriority;
            case 0x0D:
                return IsX2 ? (uint)(Index >> 4) << 16 | 1u << (Index & 15) : _ldr;
            case 0x0E:
                return _dfr;
            case 0x0F:
                return _svr;
            case >= 0x10 and <= 0x17:
                return _isr[register & 7];
            case >= 0x18 and <= 0x1F:
                return _tmr[register & 7];
            case >= 0x20 and <= 0x27:
                return _irr[register & 7];
            case 0x28:
                return _esr;
            case 0x30:
                return _icrLow;
            case 0x31:
                return _icrHigh;
            case >= 0x32 and <= 0x37:
                return _lvt[register - 0x32];
            case 0x38:
                return _initialCount;
            case 0x39:
                return CurrentCount();
            case 0x3E:
                return _divide;
            default:
                return 0;
        }
    }

    private void Write(int register, uint value)
    {
        switch (register)
        {
            case 0x02:
                if (!IsX2)
                    _id = value >> 24;
                break;
            case 0x08:
                _tpr = (byte)value;
                break;
            case 0x0B:
                EndOfInterrupt();
                break;
            case 0x0D:
                if (!IsX2)
                    _ldr = value & 0xFF00_0000;
                break;
            case 0x0E:
                if (!IsX2)
                    _dfr = value | 0x0FFF_FFFF;
                break;
            case 0x0F:
                _svr = value & 0x11FF;
                if (!IsSoftwareEnabled)
                    for (int i = 0; i < _lvt.Length; i++)
                        _lvt[i] |= Masked;
                break;
            case 0x28:
                _esr = _esrPending;
                _esrPending = 0;
                break;
            case 0x30:
                _icrLow = value & ~0x1000u;
                _bus.SendIpi(this, _icrLow, IsX2 ? _icrHigh : _icrHigh >> 24);
                break;
            case 0x31:
                _icrHigh = value;
                break;
            case >= 0x32 and <= 0x37:
                int entry = register - 0x32;
                if (!IsSoftwareEnabled)
                    value |= Masked;
                bool modeChanged = entry == Timer && ((value ^ _lvt[Timer]) >> 17 & 3) != 0;
                _lvt[entry] = value & (entry == Timer ? 0x700FFu : entry is Lint0 or Lint1 ? 0x1A7FFu : 0x107FFu);
                if (modeChanged)
                {
                    _initialCount = 0;
                    _tscDeadline = 0;
                    _timer.Cancel();
                }
                break;
            case 0x38:
                if ((_lvt[Timer] >> 17 & 3) == 2)
                    break;
                _initialCount = value;
                _countStart = _clock.Now;
                ArmTimer(true);
                break;
            case 0x3E:
                _divide = value & 0x0B;
                ArmTimer();
                break;
            case 0x3F:
                if (IsX2)
                    Deliver(0, (byte)value, false);
                break;
        }
        Update();
    }

    private void EndOfInterrupt()
    {
        int vector = Highest(_isr);
        if (vector < 0)
            return;
        Put(_isr, vector, false);
        if ((_tmr[vector >> 5] >> vector & 1) != 0 && (_svr & 0x1000) == 0)
            _bus.EndOfInterrupt((byte)vector);
    }

    /// <summary>Read at the APIC's page.</summary>
    public ulong MmioRead(int offset, int size)
    {
        if (IsX2 || !IsEnabled)
            return size == 8 ? ulong.MaxValue : (1UL << (8 * size)) - 1;
        return Read(offset >> 4) >> (8 * (offset & 3));
    }

    /// <summary>Write at the APIC's page.</summary>
    public void MmioWrite(int offset, ulong value, int size)
    {
        if (!IsX2 && IsEnabled && (offset & 15) == 0)
            Write(offset >> 4, (uint)value);
    }

    /// <summary>RDMSR 0x800..0x8FF or IA32_TSC_DEADLINE (0x6E0); false for #GP.</summary>
    public bool ReadMsr(uint index, out ulong value)
    {
        value = 0;
        if (index == 0x6E0)
        {
            value = _tscDeadline;
            return true;
        }
        if (!IsX2 || index is 0x80E or 0x831)
            return false;
        value = Read((int)(index & 0xFF));
        if (index == 0x830)
            value |= (ulong)_icrHigh << 32;
        return true;
    }

    /// <summary>WRMSR, likewise.</summary>
    public bool WriteMsr(uint index, ulong value)
    {
        if (index == 0x6E0)
        {
            if ((_lvt[Timer] >> 17 & 3) == 2)
            {
                _tscDeadline = value;
                ArmTimer();
            }
            return true;
        }
        if (!IsX2 || index is 0x802 or 0x803 or 0x80D or 0x80E or 0x831)
            return false;
        if (index == 0x830)
            _icrHigh = (uint)(value >> 32);
        else if (value >> 32 != 0)
            return false;
        Write((int)(index & 0xFF), (uint)value);
        return true;
    }
}
