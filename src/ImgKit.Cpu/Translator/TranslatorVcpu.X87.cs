using ImgKit.Cpu.Architecture;

namespace ImgKit.Cpu.Translator;

/// <summary>The FPU's pointers to the last x87 instruction and its operand. The host's FPU has them for generated code: what the guest is to
/// see is found from there, while code, TLB and segments are still those of the instruction (README.md, Faults).</summary>
public sealed unsafe partial class TranslatorVcpu
{
    private const int OpcodeField = 6, InstructionField = 8, OperandField = 16;

    /// <summary>CS of the code that runs now.</summary>
    private ushort _codeSelector;

    /// <summary>Selectors of the last x87 instruction and its operand. Those of an FPU without pointers are 0.</summary>
    internal (ushort Code, ushort Data) X87Selectors { get; set; }

    /// <summary>Makes the pointers in the XSAVE area the guest's: offsets in CS and in the operand's segment.</summary>
    internal void ResolvePointers()
    {
        byte* area = _c->XsaveArea;
        ulong host = *(ulong*)(area + InstructionField);
        if (!CodeArena.Contains(host))
            return;
        if (!_translator.TryFindGuestAddress(host, out ulong rip, out var note))
        {
            *(ulong*)(area + InstructionField) = *(ulong*)(area + OperandField) = 0;
            X87Selectors = default;
            return;
        }
        *(ushort*)(area + OpcodeField) = note.Opcode;
        *(ulong*)(area + InstructionField) = rip;
        ushort dataSelector = X87Selectors.Data;
        if (Memory.TryFindLinear(*(ulong*)(area + OperandField), note.TlbSet, out ulong linear))
        {
            var segment = CpuContext.Segment(_c, note.Segment);
            *(ulong*)(area + OperandField) = _mode.Is64 ? linear : (uint)(linear - segment->Base);
            dataSelector = segment->Selector;
        }
        X87Selectors = (_codeSelector, dataSelector);
    }

    /// <summary>Components in their initial state are in the XSAVE area only by their bit: writes them out.</summary>
    internal void MaterialiseFpu()
    {
        const int x87 = 1, sse = 2, avx = 4, components = 512, avxOffset = 576;
        byte* area = _c->XsaveArea;
        ulong have = *(ulong*)(area + components);
        if ((have & x87) == 0)
        {
            new Span<byte>(area, 24).Clear();
            new Span<byte>(area + 32, 128).Clear();
            *(ushort*)area = 0x37F;
            X87Selectors = default;
        }
        if ((have & sse) == 0)
            new Span<byte>(area + 160, 256).Clear();
        if ((have & avx) == 0)
            new Span<byte>(area + avxOffset, 256).Clear();
        *(ulong*)(area + components) = have | (uint)CodeArena.XsaveMask;
        ResolvePointers();
    }

    // Numeric errors where CR0.NE is clear (Intel SDM 3A 8.6): the next waiting instruction asserts FERR# and stands until an interrupt comes,
    // or is executed as if nothing were pending while IGNNE# is asserted.

    private const ushort Errors = 0x3F, Summary = 0x8080;
    private const int StatusField = 2;

    private int _ignoreRequested;

    /// <summary>IGNNE#. While it is asserted, instructions run one by one, so that it ends with the error.</summary>
    private bool _ignoresErrors;

    /// <summary>Pending errors that the instruction under way does not see.</summary>
    private ushort _heldErrors;

    /// <summary>The instruction that met them is executed next.</summary>
    private bool _retries;

    private ref ushort StatusWord => ref *(ushort*)(_c->XsaveArea + StatusField);

    private bool HasPendingError => (StatusWord & 0x80) != 0;

    /// <inheritdoc/>
    public override void IgnoreFpuErrors()
    {
        Volatile.Write(ref _ignoreRequested, 1);
        Ask();
    }

    private void TakeIgnoreRequest()
    {
        _ignoreRequested = 0;
        _ignoresErrors = HasPendingError && (_c->Cr0 & Cr0.Ne) == 0;
    }

    /// <summary>A waiting instruction has found a pending error in generated code.</summary>
    private void OnNumericError()
    {
        if ((_c->Cr0 & Cr0.Ne) != 0)
        {
            Exceptions.Deliver(_c, Memory, Vector.FpuError, null);
        }
        else if (_ignoresErrors)
        {
            _retries = true;
            _heldErrors = (ushort)(StatusWord & Errors);
            StatusWord &= unchecked((ushort)~(Errors | Summary));
        }
        else
        {
            StandForError();
        }
    }

    private void StandForError()
    {
        _faulted = true;
        _c->Halted = 1;
        _bus.RaiseFpuError(this);
    }

    /// <summary>The same in C#. True: the instruction goes on.</summary>
    internal bool PassNumericError()
    {
        if (!HasPendingError)
            return true;
        if ((_c->Cr0 & Cr0.Ne) != 0)
            throw new GuestFault(Vector.FpuError);
        if (_ignoresErrors)
            return true;
        StandForError();
        return false;
    }

    /// <summary>After an instruction that ran with IGNNE#: what was pending still is.</summary>
    private void AfterIgnoredError()
    {
        if (_heldErrors != 0)
        {
            StatusWord |= _heldErrors;
            _heldErrors = 0;
            if ((StatusWord & ~*(ushort*)_c->XsaveArea & Errors) != 0)
                StatusWord |= Summary;
        }
        _ignoresErrors &= HasPendingError;
    }
}
