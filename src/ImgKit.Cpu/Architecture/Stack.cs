namespace ImgKit.Cpu.Architecture;

/// <summary>
/// A stack being pushed to or popped from by a transfer of control. Nothing of the processor's state changes until the caller takes over
/// <see cref="Pointer"/>, so that a fault half-way leaves no trace but bytes below the stack pointer.
/// </summary>
internal unsafe ref struct Stack
{
    private readonly CpuContext* _context;
    private readonly CpuServices _services;
    private readonly SegmentRegister _segment;
    private readonly LinearAccess _access;
    private readonly uint _error;
    private readonly bool _flat;

    /// <summary>The present stack; limit violations are #SS(0).</summary>
    public Stack(CpuContext* c, CpuServices s)
        : this(c, s, c->Ss.ToRegister(), c->Gpr[Register.Rsp], Mode.Is64Bit(c), LinearAccess.Program, 0)
    {
    }

    /// <summary>Another stack.</summary>
    /// <param name="c">state.</param>
    /// <param name="s">the processor.</param>
    /// <param name="segment">its SS.</param>
    /// <param name="pointer">its stack pointer.</param>
    /// <param name="flat">in 64-bit mode: no segment, 64-bit pointer.</param>
    /// <param name="access">privilege.</param>
    /// <param name="error">code of #SS.</param>
    public Stack(CpuContext* c, CpuServices s, SegmentRegister segment, ulong pointer, bool flat, LinearAccess access, uint error)
    {
        _context = c;
        _services = s;
        _segment = segment;
        _access = access;
        _error = error;
        _flat = flat;
        Mask = flat ? ulong.MaxValue : (segment.Attributes & SegmentAttributes.Big) != 0 ? uint.MaxValue : 0xFFFFUL;
        Pointer = pointer;
    }

    /// <summary>Bits of the pointer that take part.</summary>
    public ulong Mask { get; }

    /// <summary>The pointer as it will be loaded: bits outside <see cref="Mask"/> as they were.</summary>
    public ulong Pointer { get; private set; }

    public void Push(ulong value, int size)
    {
        ulong next = (Pointer - (uint)size) & Mask;
        _services.WriteLinear(Locate(next, size), value, size, _access);
        Pointer = (Pointer & ~Mask) | next;
    }

    public ulong Pop(int size)
    {
        ulong value = _services.ReadLinear(Locate(Pointer & Mask, size), size, _access);
        Skip((uint)size);
        return value;
    }

    /// <summary>A value above the top, without popping.</summary>
    public readonly ulong Peek(uint offset, int size) =>
        _services.ReadLinear(Locate((Pointer + offset) & Mask, size), size, _access);

    public void Skip(uint bytes) => Pointer = (Pointer & ~Mask) | ((Pointer + bytes) & Mask);

    private readonly ulong Locate(ulong offset, int size)
    {
        if (_flat)
        {
            if (!PageWalker.IsCanonical(_context, offset) || !PageWalker.IsCanonical(_context, offset + (uint)size - 1))
                throw Faults.Stack(_error);
            return offset;
        }
        // Real mode has no segment types, only limits.
        bool unusable = (_segment.Attributes & SegmentAttributes.Unusable) != 0;
        if (unusable || !Segments.IsWithin(_segment, offset, size))
            throw Faults.Stack(_error);
        return (uint)(_segment.Base + offset);
    }
}

/// <summary>Numbers of general registers.</summary>
internal static class Register
{
    public const int Rax = 0, Rcx = 1, Rdx = 2, Rbx = 3, Rsp = 4, Rbp = 5, Rsi = 6, Rdi = 7;
}
