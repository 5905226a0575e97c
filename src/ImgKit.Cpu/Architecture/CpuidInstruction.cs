using ImgKit.Cpu.Models;

namespace ImgKit.Cpu.Architecture;

/// <summary>CPUID as executed: the model's answer with the present state in it.</summary>
public static unsafe class CpuidInstruction
{
    private const uint ApicBase = 0x1B;

    /// <summary>One leaf.</summary>
    public static void Execute(CpuContext* c, CpuServices s, uint leaf, uint subleaf, out uint eax, out uint ebx, out uint ecx, out uint edx)
    {
        var model = s.Model;
        // Only leaf 1 shows whether the APIC is enabled, and only then is the machine asked.
        bool apic = leaf != 1 || (model.Has(CpuFeature.Apic) && s.Bus.ReadMsr(s.Vcpu, ApicBase, out ulong value) && (value & 0x800) != 0);
        var state = new CpuidState((uint)s.Vcpu.Index, c->Cr4, c->Xcr0, apic);
        (eax, ebx, ecx, edx) = model.Cpuid.Query(leaf, subleaf, state);
    }
}
