using System.Numerics;

namespace ImgKit.Machine.Chipset;

/// <summary>What a local APIC drives. Under the machine lock.</summary>
public interface IApicProcessor
{
    /// <summary>Level of INTR.</summary>
    void SetInterruptLine(bool asserted);

    /// <summary>NMI.</summary>
    void RaiseNmi();

    /// <summary>SMI.</summary>
    void RaiseSmi();

    /// <summary>INIT.</summary>
    void RaiseInit();

    /// <summary>Start-up with its vector.</summary>
    void RaiseStartup(byte vector);
}

/// <summary>
/// The local APIC of one processor, in xAPIC and x2APIC mode. Source: Intel SDM volume 3A, chapter 11 (registers: tables 11-1 and 11-6).
/// </summary>
public sealed partial class LocalApic : Device
{
    /// <summary>The timer's input clock in Hz, before its divider.</summary>
    public const long TimerFrequency = 1_000_000_000;

    private const int Timer = 0, Lint0 = 3, Lint1 = 4, ErrorEntry = 5;
    private const uint Masked = 1 << 16;

    private readonly ApicBus _bus;
    private readonly IApicProcessor _cpu;
    private readonly VirtualClock _clock;
    private readonly ClockTimer _timer;
    private readonly uint[] _isr = new uint[8], _tmr = new uint[8], _irr = new uint[8];
    private readonly uint[] _lvt = new uint[6];     // timer, thermal, performance, LINT0, LINT1, error
    private ulong _base;
    private uint _id, _ldr, _dfr, _svr, _esr, _esrPending, _icrHigh, _icrLow, _divide, _initialCount;
    private byte _tpr;
    private long _countStart;
    private ulong _tscDeadline;
    private bool _externalLevel, _lineLevel;

    internal LocalApic(int index, MachineServices services, ApicBus bus, IApicProcessor cpu)
    {
        Index = index;
        _bus = bus;
        _cpu = cpu;
        _clock = services.Clock;
        _timer = _clock.CreateTimer(TimerDue);
        Reset();
    }

    /// <inheritdoc/>
    public override string TypeName => "apic";

    /// <summary>The processor's index, and its APIC ID after reset.</summary>
    public int Index { get; }

    /// <summary>The APIC ID.</summary>
    public uint ApicId => IsX2 ? (uint)Index : _id;

    /// <summary>IA32_APIC_BASE.</summary>
    public ulong Base => _base;

    private bool IsEnabled => (_base & 0x800) != 0;

    private bool IsX2 => (_base & 0xC00) == 0xC00;

    private bool IsSoftwareEnabled => (_svr & 0x100) != 0;

    /// <summary>The time-stamp counter as a function of virtual time, for the deadline timer.</summary>
    public Func<ulong, long>? TimeOfTsc { get; set; }

    /// <summary>Bits 7..4 of the task priority register.</summary>
    public byte TaskPriority
    {
        get => (byte)(_tpr >> 4);
        set
        {
            _tpr = (byte)(value << 4);
            Update();
        }
    }

    /// <summary>WRMSR IA32_APIC_BASE; false for #GP.</summary>
    public bool SetBase(ulong value)
    {
        if ((value & 0xC00) == 0x400 || ((value ^ _base) & 0x100) != 0 || (value & 0xFFFF_FF00_0000_02FF) != 0)
            return false;
        // Figure 11-27: x2APIC mode is entered from xAPIC mode alone, and left for none but the disabled state.
        if (IsX2 && (value & 0xC00) == 0x800 || !IsEnabled && (value & 0xC00) == 0xC00)
            return false;
        bool was = IsEnabled;
        _base = value;
        if (was && !IsEnabled)
            ResetRegisters();
        Update();
        return true;
    }

    private static int Highest(uint[] set)
    {
        for (int i = 7; i >= 0; i--)
            if (set[i] != 0)
                return i * 32 + 31 - BitOperations.LeadingZeroCount(set[i]);
        return -1;
    }

    private static void Put(uint[] set, int bit, bool value)
    {
        if (value)
            set[bit >> 5] |= 1u << bit;
        else
            set[bit >> 5] &= ~(1u << bit);
    }

    private byte ProcessorPriority
    {
        get
        {
            int served = Math.Max(0, Highest(_isr)) & 0xF0;
            return (byte)((_tpr & 0xF0) >= served ? _tpr : served);
        }
    }

    private bool TakesExternal => _externalLevel && (!IsEnabled || ((_lvt[Lint0] & Masked) == 0 && (_lvt[Lint0] >> 8 & 7) == 7));

    private int Deliverable()
    {
        if (!IsEnabled || !IsSoftwareEnabled)
            return -1;
        int v = Highest(_irr);
        return v >= 0 && (v & 0xF0) > (ProcessorPriority & 0xF0) ? v : -1;
    }

    private void Update()
    {
        bool level = TakesExternal || Deliverable() >= 0;
        if (level == _lineLevel)
            return;
        _lineLevel = level;
        _cpu.SetInterruptLine(level);
    }

    /// <summary>The vector that the processor takes now; -1 when there is none.</summary>
    public int Acknowledge()
    {
        int vector = Deliverable();
        if (vector >= 0)
        {
            Put(_irr, vector, false);
            Put(_isr, vector, true);
        }
        else if (TakesExternal)
            vector = _bus.AcknowledgeExternal();
        Update();
        _bus.Taken?.Invoke();
        return vector;
    }

    internal bool IsRequested(byte vector) => (_irr[vector >> 5] >> vector & 1) != 0;

    /// <summary>The level of LINT0: the PIC's output.</summary>
    internal void SetExternal(bool asserted)
    {
        _externalLevel = asserted;
        uint lint = _lvt[Lint0];
        if (IsEnabled && asserted && (lint & Masked) == 0 && (lint >> 8 & 7) != 7)
            Local(Lint0);
        Update();
    }

    /// <summary>A pulse on LINT1, the board's NMI.</summary>
    internal void PulseLint1()
    {
        if (!IsEnabled)
            _cpu.RaiseNmi();
        else
            Local(Lint1);
    }

    private void Local(int entry)
    {
        uint lvt = _lvt[entry];
        if ((lvt & Masked) == 0)
            Deliver(lvt >> 8 & 7, (byte)lvt, (lvt >> 15 & 1) != 0 && entry is Lint0 or Lint1);
    }

    /// <summary>An interrupt message has reached this APIC.</summary>
    internal void Deliver(uint mode, byte vector, bool level)
    {
        switch (mode)
        {
            case 0 or 1:
                if (!IsEnabled || !IsSoftwareEnabled)
                    return;
                if (vector < 16)
                {
                    SetError(0x40);
                    return;
                }
                Put(_irr, vector, true);
                Put(_tmr, vector, level);
                Update();
                break;
            case 2:
                _cpu.RaiseSmi();
                break;
            case 4:
                _cpu.RaiseNmi();
                break;
            case 5:
                _cpu.RaiseInit();
                break;
            case 6:
                _cpu.RaiseStartup(vector);
                break;
        }
    }

    /// <summary>True when a message with that destination is for this APIC.</summary>
    internal bool Matches(uint destination, bool logical)
    {
        if (!IsEnabled)
            return false;
        if (IsX2)
        {
            if (destination == uint.MaxValue || destination == 0xFF)
                return true;
            uint ldr = (uint)(Index >> 4) << 16 | 1u << (Index & 15);
            return !logical ? destination == (uint)Index : destination >> 16 == ldr >> 16 && (destination & ldr & 0xFFFF) != 0;
        }
        if (!logical)
            return (byte)destination == 0xFF || (byte)destination == _id;
        byte mask = (byte)destination, own = (byte)(_ldr >> 24);
        if (_dfr >> 28 == 15)
            return (mask & own) != 0;
        return mask == 0xFF || (mask >> 4 == own >> 4 && (mask & own & 15) != 0);
    }

    private void SetError(uint bit)
    {
        _esrPending |= bit;
        if ((_lvt[ErrorEntry] & Masked) == 0 && (byte)_lvt[ErrorEntry] >= 16)
            Deliver(0, (byte)_lvt[ErrorEntry], false);
    }

    private int DivideShift => (int)((_divide & 3 | _divide >> 1 & 4) + 1) & 7;

    private uint CurrentCount()
    {
        if (_initialCount == 0 || (_lvt[Timer] >> 17 & 3) == 2)
            return 0;
        long ticks = (_clock.Now - _countStart) >> DivideShift;
        if ((_lvt[Timer] >> 17 & 3) == 1)
            return (uint)(_initialCount - ticks % _initialCount);
        return ticks >= _initialCount ? 0 : (uint)(_initialCount - ticks);
    }

    /// <param name="started">the count was just written: a short one may have run out already, and still interrupts.</param>
    private void ArmTimer(bool started = false)
    {
        switch (_lvt[Timer] >> 17 & 3)
        {
            case 2:
                if (_tscDeadline != 0 && TimeOfTsc != null)
                    _timer.Arm(TimeOfTsc(_tscDeadline));
                else
                    _timer.Cancel();
                return;
            case 1 when _initialCount != 0:
            {
                // A period below 20 us would be a storm that no operating system wants.
                long period = Math.Max((long)_initialCount << DivideShift, 20_000);
                long now = _clock.Now;
                _timer.Arm(_countStart + Math.Max(0, (now - _countStart) / period + 1) * period);
                return;
            }
            case 0 when _initialCount != 0 && (started || _timer.IsArmed):
                _timer.Arm(_countStart + ((long)_initialCount << DivideShift));
                return;
            default:
                _timer.Cancel();
                return;
        }
    }

    private void TimerDue()
    {
        Local(Timer);
        if ((_lvt[Timer] >> 17 & 3) == 1)
            ArmTimer();
        else
            _tscDeadline = 0;
    }

    /// <summary>After INIT: all but the ID and the base.</summary>
    internal void Init() => ResetRegisters();

    private void ResetRegisters()
    {
        _timer.Cancel();
        Array.Clear(_isr);
        Array.Clear(_tmr);
        Array.Clear(_irr);
        Array.Fill(_lvt, Masked);
        _tpr = 0;
        _ldr = _esr = _esrPending = _icrHigh = _icrLow = _divide = _initialCount = 0;
        _tscDeadline = 0;
        _dfr = uint.MaxValue;
        _svr = 0xFF;
        // Virtual wire: without an operating system that knows APICs, the PIC reaches the bootstrap processor.
        if (Index == 0)
            _lvt[Lint0] = 0x700;
        Update();
    }

    /// <inheritdoc/>
    public override void Reset()
    {
        _base = 0xFEE0_0800 | (Index == 0 ? 0x100u : 0);
        _id = (uint)Index;
        ResetRegisters();
    }

    /// <inheritdoc/>
    public override void Describe(StateVisitor state)
    {
        state.Field("base", ref _base);
        state.Field("id", ref _id);
        state.Field("tpr", ref _tpr);
        state.Field("ldr", ref _ldr);
        state.Field("dfr", ref _dfr);
        state.Field("svr", ref _svr);
        state.Fields("isr", _isr);
        state.Fields("tmr", _tmr);
        state.Fields("irr", _irr);
        state.Fields("lvt", _lvt);
        state.Field("esr", ref _esr);
        state.Field("esr-pending", ref _esrPending);
        state.Field("icr-high", ref _icrHigh);
        state.Field("icr-low", ref _icrLow);
        state.Field("divide", ref _divide);
        state.Field("initial-count", ref _initialCount);
        state.Field("count-start", ref _countStart);
        state.Field("tsc-deadline", ref _tscDeadline);
        state.Field("external", ref _externalLevel);
        _timer.Describe(state, "timer");
        if (!state.IsLoading)
            return;
        _lineLevel = TakesExternal || Deliverable() >= 0;
        _cpu.SetInterruptLine(_lineLevel);
    }
}
