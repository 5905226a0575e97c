namespace ImgKit.Cpu.Architecture;

/// <summary>Debug registers and what matches them. Source: Intel SDM 3B chapter 17.2.</summary>
public static unsafe class DebugRegisters
{
    /// <summary>DR6: a debug register was accessed while DR7.GD was set.</summary>
    public const ulong Dr6Detect = 1UL << 13;

    /// <summary>DR6: single step.</summary>
    public const ulong Dr6Step = 1UL << 14;

    /// <summary>DR6: task switch.</summary>
    public const ulong Dr6Task = 1UL << 15;

    private const ulong Dr7GeneralDetect = 1UL << 13;

    /// <summary>What a breakpoint waits for (the R/W field of DR7).</summary>
    private const int Execute = 0, Write = 1, Port = 2;

    /// <summary>MOV from DR<paramref name="n"/>.</summary>
    public static ulong ReadDr(CpuContext* c, CpuServices s, int n)
    {
        _ = s;
        return c->Dr[Select(c, n)];
    }

    /// <summary>MOV to DR<paramref name="n"/>.</summary>
    public static void WriteDr(CpuContext* c, CpuServices s, int n, ulong value)
    {
        int register = Select(c, n);
        if (!Mode.Is64Bit(c))
            value = (uint)value;
        if (register >= 6 && value >> 32 != 0)
            throw Faults.GeneralProtection();
        c->Dr[register] = register switch
        {
            6 => (value & 0xE00F) | 0xFFFF0FF0,
            7 => (value & 0xFFFF2BFF & ~0x1800UL) | 0x400,
            _ => value,
        };
        s.ModeChanged();
    }

    private static int Select(CpuContext* c, int n)
    {
        if (n is 4 or 5)
        {
            if ((c->Cr4 & Cr4.De) != 0)
                throw Faults.UndefinedOpcode();
            n += 2;
        }
        if (n > 7)
            throw Faults.UndefinedOpcode();
        ControlRegisters.RequireSupervisor(c);
        if ((c->Dr[7] & Dr7GeneralDetect) != 0)
        {
            Report(c, Dr6Detect);
            throw new GuestFault(Vector.Debug);
        }
        return n;
    }

    /// <summary>The handler of #DB may use the debug registers.</summary>
    internal static void OnDebugException(CpuContext* c) => c->Dr[7] &= ~Dr7GeneralDetect;

    /// <summary>Any of the four breakpoints is enabled.</summary>
    public static bool AnyEnabled(CpuContext* c) => (c->Dr[7] & 0xFF) != 0;

    /// <summary>An enabled breakpoint waits for instructions.</summary>
    public static bool AnyCodeBreakpoint(CpuContext* c) => AnyEnabledOf(c, 1 << Execute);

    /// <summary>An enabled breakpoint waits for data writes or accesses.</summary>
    public static bool AnyDataBreakpoint(CpuContext* c) => AnyEnabledOf(c, (1 << Write) | (1 << 3));

    /// <summary>An enabled breakpoint waits for port I/O.</summary>
    public static bool AnyPortBreakpoint(CpuContext* c) => (c->Cr4 & Cr4.De) != 0 && AnyEnabledOf(c, 1 << Port);

    private static bool AnyEnabledOf(CpuContext* c, int kinds)
    {
        ulong dr7 = c->Dr[7];
        if ((dr7 & 0xFF) == 0)
            return false;
        for (int i = 0; i < 4; i++)
        {
            if ((dr7 >> (i * 2) & 3) != 0 && (kinds >> (int)(dr7 >> (16 + (i * 4)) & 3) & 1) != 0)
                return true;
        }
        return false;
    }

    /// <summary>Bits of DR6 for an instruction at a linear address; 0: no enabled breakpoint is there. A fault, unless RFLAGS.RF.</summary>
    public static ulong MatchCode(CpuContext* c, ulong linear) => Match(c, linear, 1, 1 << Execute);

    /// <summary>Bits of DR6 for a data access; 0: none. A trap, after the instruction.</summary>
    public static ulong MatchData(CpuContext* c, ulong linear, int size, bool write) =>
        Match(c, linear, size, write ? (1 << Write) | (1 << 3) : 1 << 3);

    /// <summary>Bits of DR6 for port I/O (CR4.DE); 0: none. A trap.</summary>
    public static ulong MatchPort(CpuContext* c, ushort port, int size) =>
        (c->Cr4 & Cr4.De) != 0 ? Match(c, port, size, 1 << Port) : 0;

    private static ulong Match(CpuContext* c, ulong address, int size, int kinds)
    {
        ulong dr7 = c->Dr[7], bits = 0;
        bool enabled = false;
        for (int i = 0; i < 4; i++)
        {
            int kind = (int)(dr7 >> (16 + (i * 4)) & 3);
            if ((kinds >> kind & 1) == 0)
                continue;
            ulong length = (dr7 >> (18 + (i * 4)) & 3) switch { 0 => 1, 1 => 2, 2 => 8, _ => 4 };
            ulong start = c->Dr[i] & ~(length - 1);
            if (address + (uint)size <= start || address >= start + length)
                continue;
            // A condition is reported although its breakpoint is not enabled, but does not cause the exception.
            bits |= 1UL << i;
            enabled |= (dr7 >> (i * 2) & 3) != 0;
        }
        return enabled ? bits : 0;
    }

    /// <summary>Tells in DR6 why there is a #DB. The processor clears which breakpoints matched before, and no other bit (AMD APM 2, 13.1.1.3).</summary>
    internal static void Report(CpuContext* c, ulong dr6) => c->Dr[6] = (c->Dr[6] & ~0xFUL) | dr6;

    /// <summary>Delivers #DB as a trap or fault with these bits of DR6. Never throws.</summary>
    public static void Raise(CpuContext* c, CpuServices s, ulong dr6)
    {
        Report(c, dr6);
        Exceptions.Deliver(c, s, Vector.Debug, null);
    }
}
