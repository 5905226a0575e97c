using System.Runtime.InteropServices;

namespace ImgKit.Cpu.Architecture;

/// <summary>State after power-on, INIT and SIPI. Sources: Intel SDM 3A table 9-1 and 8.4; AMD APM 2 table 14-1.</summary>
public static unsafe class ResetState
{
    /// <summary>Bytes of the XSAVE area's legacy region and header.</summary>
    private const int XsaveSize = 4096;

    /// <summary>Power-on reset. All but the <paramref name="bootstrap"/> processor wait for start-up.</summary>
    public static void PowerOn(CpuContext* c, CpuServices s, bool bootstrap)
    {
        c->Cr0 = Cr0.Et | Cr0.Nw | Cr0.Cd;
        c->Xcr0 = 1;
        c->Star = c->Lstar = c->Cstar = c->Sfmask = c->KernelGsBase = 0;
        c->SysenterCs = c->SysenterEsp = c->SysenterEip = 0;
        c->TscAux = 0;
        c->Pat = 0x0007040600070406;
        c->Smbase = 0x30000;
        c->NmiBlocked = 0;
        // The counter starts at 0.
        c->TscAdjust = 0 - s.Bus.ReadTimeStampCounter(s.Vcpu);
        s.Msrs.Reset();
        ResetFpu(c->XsaveArea);
        ResetCore(c, s, bootstrap);
    }

    /// <summary>INIT: as reset, but FPU, caches' mode, MTRRs and most other MSRs stay.</summary>
    public static void Init(CpuContext* c, CpuServices s, bool bootstrap)
    {
        c->Cr0 = Cr0.Et | (c->Cr0 & (Cr0.Nw | Cr0.Cd));
        ResetCore(c, s, bootstrap);
    }

    /// <summary>SIPI: starts in real mode at <paramref name="vector"/> * 4096.</summary>
    public static void Startup(CpuContext* c, CpuServices s, byte vector)
    {
        c->Cs.Selector = (ushort)(vector << 8);
        c->Cs.Base = (ulong)vector << 12;
        c->Rip = 0;
        c->WaitingForStartup = 0;
        c->Halted = 0;
        s.ModeChanged();
    }

    private static void ResetCore(CpuContext* c, CpuServices s, bool bootstrap)
    {
        c->InSmm = 0;
        new Span<ulong>(c->Gpr, 16).Clear();
        c->Gpr[Register.Rdx] = s.Model.Signature;
        c->Rip = 0xFFF0;
        c->Rflags = Flags.Fixed;
        for (int i = 0; i < 6; i++)
            CpuContext.Segment(c, i)->Set(new SegmentRegister(0, 0, 0xFFFF, 0x93));
        c->Cs.Set(new SegmentRegister(0xF000, 0xFFFF0000, 0xFFFF, 0x9B));
        c->Ldtr.Set(new SegmentRegister(0, 0, 0xFFFF, 0x82));
        c->Tr.Set(new SegmentRegister(0, 0, 0xFFFF, 0x8B));
        c->GdtrBase = c->IdtrBase = 0;
        c->GdtrLimit = c->IdtrLimit = 0xFFFF;
        c->Cpl = 0;
        c->Cr2 = c->Cr3 = c->Cr4 = 0;
        c->Efer = 0;
        new Span<ulong>(c->Dr, 8).Clear();
        c->Dr[6] = 0xFFFF0FF0;
        c->Dr[7] = 0x400;
        new Span<ulong>(c->Pdpte, 4).Clear();
        c->InterruptShadow = 0;
        c->NmiPending = 0;
        c->Halted = 0;
        c->Shutdown = 0;
        c->WaitingForStartup = (byte)(bootstrap ? 0 : 1);
        s.FlushTlb(true);
        s.ModeChanged();
    }

    /// <summary>As after FNINIT: what programs find that never initialise the FPU.</summary>
    private static void ResetFpu(byte* area)
    {
        if (area == null)
            return;
        new Span<byte>(area, XsaveSize).Clear();
        MemoryMarshal.Write(new Span<byte>(area, 2), (ushort)0x37F);
        MemoryMarshal.Write(new Span<byte>(area + 24, 4), 0x1F80u);
    }
}
