namespace ImgKit.Cpu.Architecture;

/// <summary>Bits of <see cref="SegmentState.Attributes"/>.</summary>
internal static class SegmentAttributes
{
    public const uint TypeMask = 0xF;

    /// <summary>Code or data (S); clear: system.</summary>
    public const uint CodeOrData = 1 << 4;
    public const uint Present = 1 << 7;

    /// <summary>64-bit code (L).</summary>
    public const uint Long = 1 << 13;

    /// <summary>32-bit default, or big stack (D/B).</summary>
    public const uint Big = 1 << 14;
    public const uint Granular = 1 << 15;
    public const uint Unusable = 1 << 16;

    public const uint Accessed = 1;

    /// <summary>Data: writable. Code: readable.</summary>
    public const uint WritableOrReadable = 2;

    /// <summary>Data: expand-down. Code: conforming.</summary>
    public const uint ExpandDownOrConforming = 4;
    public const uint Code = 8;

    public static int Dpl(uint attributes) => (int)(attributes >> 5) & 3;
}

/// <summary>Types of system descriptors (Intel SDM 3A table 3-2).</summary>
internal enum SystemType
{
    AvailableTss16 = 1,
    Ldt = 2,
    BusyTss16 = 3,
    CallGate16 = 4,
    TaskGate = 5,
    InterruptGate16 = 6,
    TrapGate16 = 7,
    AvailableTss32 = 9,
    BusyTss32 = 11,
    CallGate32 = 12,
    InterruptGate32 = 14,
    TrapGate32 = 15,
}

/// <summary>A descriptor of GDT or LDT (Intel SDM 3A 3.4.5); <see cref="High"/> is the upper half of a 16-byte one.</summary>
internal readonly record struct Descriptor(ulong Low, ulong High)
{
    /// <summary>As <see cref="SegmentRegister.Attributes"/> has them.</summary>
    public uint Attributes => (uint)(Low >> 40) & 0xF0FF;

    public uint Type => (uint)(Low >> 40) & 15;

    public SystemType SystemType => (SystemType)Type;

    public bool IsSystem => (Attributes & SegmentAttributes.CodeOrData) == 0;

    public bool IsCode => (Attributes & (SegmentAttributes.CodeOrData | SegmentAttributes.Code)) == (SegmentAttributes.CodeOrData | SegmentAttributes.Code);

    public bool IsData => (Attributes & (SegmentAttributes.CodeOrData | SegmentAttributes.Code)) == SegmentAttributes.CodeOrData;

    public bool IsWritableData => IsData && (Type & SegmentAttributes.WritableOrReadable) != 0;

    public bool IsConforming => IsCode && (Type & SegmentAttributes.ExpandDownOrConforming) != 0;

    public int Dpl => (int)(Low >> 45) & 3;

    public bool IsPresent => (Attributes & SegmentAttributes.Present) != 0;

    public bool IsLong => (Attributes & SegmentAttributes.Long) != 0;

    public bool IsBig => (Attributes & SegmentAttributes.Big) != 0;

    /// <summary>Base, of a 16-byte descriptor all of it.</summary>
    public ulong Base => ((Low >> 16) & 0xFFFFFF) | ((Low >> 32) & 0xFF000000) | (High << 32);

    /// <summary>Limit in bytes.</summary>
    public uint Limit
    {
        get
        {
            uint limit = (uint)(Low & 0xFFFF) | (uint)(Low >> 32 & 0xF0000);
            return (Attributes & SegmentAttributes.Granular) != 0 ? (limit << 12) | 0xFFF : limit;
        }
    }

    /// <summary>Gate: target selector.</summary>
    public ushort GateSelector => (ushort)(Low >> 16);

    /// <summary>Gate: target offset as wide as the gate has it (16 or 32 bits; 64 with <see cref="High"/>).</summary>
    public ulong GateOffset => (Low & 0xFFFF) | ((Type & 8) != 0 ? (Low >> 32) & 0xFFFF0000 : 0) | (High << 32);

    /// <summary>Call gate: words or doublewords to copy.</summary>
    public int GateParameters => (int)(Low >> 32) & 31;

    /// <summary>Gate in a long-mode IDT: interrupt stack, 0: none.</summary>
    public int GateStackTable => (int)(Low >> 32) & 7;

    public SegmentRegister ToRegister(ushort selector) => new(selector, Base, Limit, Attributes);
}
