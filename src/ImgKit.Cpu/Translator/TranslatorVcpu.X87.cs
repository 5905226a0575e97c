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
}
