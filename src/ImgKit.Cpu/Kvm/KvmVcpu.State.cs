using ImgKit.Cpu.Kvm.Interop;
using static ImgKit.Cpu.Kvm.Interop.KvmApi;

namespace ImgKit.Cpu.Kvm;

public sealed unsafe partial class KvmVcpu
{
    private const uint IA32_TSC = 0x10, IA32_APIC_BASE = 0x1B, IA32_EFER = 0xC0000080;

    private CpuState? _initial;
    private byte[]? _initialLapic;
    private uint[]? _msrIndices;
    private bool _touched;

    /// <summary>The state that the kernel made the vCPU with is that of power-on: kept, to go back to on reset.</summary>
    private CpuState InitialState
    {
        get
        {
            if (_initial is null)
            {
                var state = new CpuState();
                ReadState(state);
                _initial = state;
                if (_kernelApic)
                    _initialLapic = GetLocalApic();
            }
            return _initial;
        }
    }

    /// <summary>Before the vCPU's state changes for the first time.</summary>
    private void Touch()
    {
        if (_touched)
            return;
        _ = InitialState;
        _touched = true;
    }

    /// <inheritdoc/>
    public override void Reset()
    {
        Interlocked.Exchange(ref _requests, 0);
        if (!_touched)
            return;
        var state = InitialState;
        state.Msrs.Remove(IA32_TSC); // goes on counting
        SetState(state);
        if (_initialLapic is not null)
            SetLocalApic(_initialLapic);
        SetMpState(Index != 0 && _kernelApic ? KVM_MP_STATE_UNINITIALIZED : KVM_MP_STATE_RUNNABLE);
        _waitingForStartup = Index != 0 && !_kernelApic;
        _halted = false;
        _line = false;
    }

    /// <summary>INIT: as reset, but FPU, MSRs and caches stay (SDM volume 3A table 9-1).</summary>
    private void Initialize()
    {
        var now = new CpuState();
        GetState(now);
        var reset = InitialState;
        reset.Gpr.CopyTo(now.Gpr, 0);
        now.Rip = reset.Rip;
        now.Rflags = reset.Rflags;
        reset.Segments.CopyTo(now.Segments, 0);
        now.Ldtr = reset.Ldtr;
        now.Tr = reset.Tr;
        now.Gdtr = reset.Gdtr;
        now.Idtr = reset.Idtr;
        const ulong CacheBits = 0x60000000; // CD, NW
        now.Cr0 = reset.Cr0 & ~CacheBits | now.Cr0 & CacheBits;
        now.Cr2 = now.Cr3 = now.Cr4 = 0;
        now.Msrs[IA32_EFER] = 0;
        now.Msrs.Remove(IA32_TSC);
        reset.Dr.CopyTo(now.Dr, 0);
        now.Halted = false;
        now.InterruptShadow = now.NmiBlocked = now.NmiPending = false;
        now.InjectedInterrupt = now.PendingException = -1;
        now.WaitingForStartup = (_apicBase & 1 << 8) == 0 && Index != 0;
        SetState(now);
    }

    private void StartUp(byte vector)
    {
        kvm_sregs sregs;
        _fd.Call(KVM_GET_SREGS, &sregs, "segment registers");
        sregs.cs.selector = (ushort)(vector << 8);
        sregs.cs.@base = (ulong)vector << 12;
        _fd.Call(KVM_SET_SREGS, &sregs, "segment registers");
        kvm_regs regs;
        _fd.Call(KVM_GET_REGS, &regs, "registers");
        regs.rip = 0;
        _fd.Call(KVM_SET_REGS, &regs, "registers");
        _waitingForStartup = false;
        _halted = false;
        if (_kernelApic)
            SetMpState(KVM_MP_STATE_RUNNABLE);
    }

    private uint GetMpState()
    {
        kvm_mp_state mp;
        _fd.Call(KVM_GET_MP_STATE, &mp, "MP state");
        return mp.mp_state;
    }

    private void SetMpState(uint value)
    {
        var mp = new kvm_mp_state { mp_state = value };
        _fd.Call(KVM_SET_MP_STATE, &mp, "MP state");
    }

    /// <summary>The 1024 bytes of a kernel local APIC's registers. Only with <see cref="InterruptControllers"/> other than Machine.</summary>
    public byte[] GetLocalApic()
    {
        kvm_lapic_state apic;
        _fd.Call(KVM_GET_LAPIC, &apic, "local APIC");
        return new ReadOnlySpan<byte>(apic.regs, 0x400).ToArray();
    }

    /// <inheritdoc cref="GetLocalApic"/>
    public void SetLocalApic(ReadOnlySpan<byte> registers)
    {
        ArgumentOutOfRangeException.ThrowIfNotEqual(registers.Length, 0x400);
        kvm_lapic_state apic;
        registers.CopyTo(new Span<byte>(apic.regs, 0x400));
        _fd.Call(KVM_SET_LAPIC, &apic, "local APIC");
    }

    /// <inheritdoc/>
    public override void GetState(CpuState state)
    {
        if (_touched)
            ReadState(state);
        else
            InitialState.CopyTo(state);
    }

    private void ReadState(CpuState state)
    {
        kvm_regs r;
        _fd.Call(KVM_GET_REGS, &r, "registers");
        ReadOnlySpan<ulong> gpr = [r.rax, r.rcx, r.rdx, r.rbx, r.rsp, r.rbp, r.rsi, r.rdi, r.r8, r.r9, r.r10, r.r11, r.r12, r.r13, r.r14, r.r15];
        gpr.CopyTo(state.Gpr);
        state.Rip = r.rip;
        state.Rflags = r.rflags;

        kvm_sregs s;
        _fd.Call(KVM_GET_SREGS, &s, "segment registers");
        state.Segments[0] = FromKvm(s.es);
        state.Segments[1] = FromKvm(s.cs);
        state.Segments[2] = FromKvm(s.ss);
        state.Segments[3] = FromKvm(s.ds);
        state.Segments[4] = FromKvm(s.fs);
        state.Segments[5] = FromKvm(s.gs);
        state.Ldtr = FromKvm(s.ldt);
        state.Tr = FromKvm(s.tr);
        state.Gdtr = (s.gdt.@base, s.gdt.limit);
        state.Idtr = (s.idt.@base, s.idt.limit);
        (state.Cr0, state.Cr2, state.Cr3, state.Cr4) = (s.cr0, s.cr2, s.cr3, s.cr4);
        GetMsrs(state.Msrs);
        state.Msrs[IA32_EFER] = s.efer;
        state.Msrs[IA32_APIC_BASE] = s.apic_base;

        fixed (byte* xsave = state.Xsave)
            _fd.Call(KVM_GET_XSAVE, xsave, "FPU state");
        if (_hasXcrs)
        {
            kvm_xcrs xcrs;
            _fd.Call(KVM_GET_XCRS, &xcrs, "extended control registers");
            for (int i = 0; i < Math.Min(xcrs.nr_xcrs, 16); i++)
                if (xcrs.xcrs[i].xcr == 0)
                    state.Xcr0 = xcrs.xcrs[i].value;
        }
        kvm_debugregs d;
        _fd.Call(KVM_GET_DEBUGREGS, &d, "debug registers");
        for (int i = 0; i < 4; i++)
            state.Dr[i] = d.db[i];
        state.Dr[6] = d.dr6;
        state.Dr[7] = d.dr7;

        kvm_vcpu_events e;
        _fd.Call(KVM_GET_VCPU_EVENTS, &e, "events");
        state.InterruptShadow = e.interrupt.shadow != 0;
        state.NmiBlocked = e.nmi.masked != 0;
        state.NmiPending = e.nmi.pending != 0 || e.nmi.injected != 0;
        state.InSmm = e.smi.smm != 0;
        state.InjectedInterrupt = e.interrupt.injected != 0 ? e.interrupt.nr : -1;
        state.InjectedInterruptIsSoft = e.interrupt.injected != 0 && e.interrupt.soft != 0;
        state.PendingException = e.exception.injected != 0 || e.exception.pending != 0 ? e.exception.nr : -1;
        state.PendingExceptionError = e.exception.has_error_code != 0 ? e.exception.error_code : null;
        if (state.Msrs.TryGetValue(IA32_SMBASE, out ulong smbase))
            state.Smbase = (uint)smbase;

        if (_kernelApic)
        {
            uint mp = GetMpState();
            state.Halted = mp == KVM_MP_STATE_HALTED;
            state.WaitingForStartup = mp is KVM_MP_STATE_UNINITIALIZED or KVM_MP_STATE_INIT_RECEIVED;
        }
        else
        {
            state.Halted = _halted;
            state.WaitingForStartup = _waitingForStartup;
        }
    }

    private const uint IA32_SMBASE = 0x9E;

    /// <inheritdoc/>
    public override void SetState(CpuState state)
    {
        Touch();
        _machine.Prepare(); // the kernel reads the page directory pointers of PAE from guest memory
        var g = state.Gpr;
        var r = new kvm_regs
        {
            rax = g[0], rcx = g[1], rdx = g[2], rbx = g[3], rsp = g[4], rbp = g[5], rsi = g[6], rdi = g[7],
            r8 = g[8], r9 = g[9], r10 = g[10], r11 = g[11], r12 = g[12], r13 = g[13], r14 = g[14], r15 = g[15],
            rip = state.Rip, rflags = state.Rflags | 2,
        };
        _fd.Call(KVM_SET_REGS, &r, "registers");
        fixed (byte* xsave = state.Xsave)
            _fd.Call(KVM_SET_XSAVE, xsave, "FPU state");
        if (_hasXcrs)
        {
            var xcrs = new kvm_xcrs { nr_xcrs = 1 };
            xcrs.xcrs[0] = new kvm_xcr { xcr = 0, value = state.Xcr0 };
            _fd.Call(KVM_SET_XCRS, &xcrs, "extended control registers");
        }

        kvm_sregs s;
        _fd.Call(KVM_GET_SREGS, &s, "segment registers"); // for CR8, where the kernel holds the APIC
        s.es = ToKvm(state.Segments[0]);
        s.cs = ToKvm(state.Segments[1]);
        s.ss = ToKvm(state.Segments[2]);
        s.ds = ToKvm(state.Segments[3]);
        s.fs = ToKvm(state.Segments[4]);
        s.gs = ToKvm(state.Segments[5]);
        s.ldt = ToKvm(state.Ldtr);
        s.tr = ToKvm(state.Tr);
        s.gdt = new kvm_dtable { @base = state.Gdtr.Base, limit = state.Gdtr.Limit };
        s.idt = new kvm_dtable { @base = state.Idtr.Base, limit = state.Idtr.Limit };
        (s.cr0, s.cr2, s.cr3, s.cr4) = (state.Cr0, state.Cr2, state.Cr3, state.Cr4);
        s.efer = state.Msrs.GetValueOrDefault(IA32_EFER, s.efer);
        s.apic_base = state.Msrs.GetValueOrDefault(IA32_APIC_BASE, s.apic_base);
        for (int i = 0; i < 4; i++)
            s.interrupt_bitmap[i] = 0;
        _fd.Call(KVM_SET_SREGS, &s, "segment registers");
        _apicBase = s.apic_base;
        SetMsrs(state.Msrs);

        if (_kernelApic)
        {
            SetMpState(state.WaitingForStartup ? KVM_MP_STATE_UNINITIALIZED : state.Halted ? KVM_MP_STATE_HALTED : KVM_MP_STATE_RUNNABLE);
        }
        else
        {
            _halted = state.Halted;
            _waitingForStartup = state.WaitingForStartup;
        }

        var e = new kvm_vcpu_events { flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW };
        e.interrupt.shadow = state.InterruptShadow ? (byte)KVM_X86_SHADOW_INT_STI : (byte)0;
        if (state.InjectedInterrupt >= 0)
        {
            e.interrupt.injected = 1;
            e.interrupt.nr = (byte)state.InjectedInterrupt;
            e.interrupt.soft = state.InjectedInterruptIsSoft ? (byte)1 : (byte)0;
        }
        if (state.PendingException >= 0)
        {
            e.exception.injected = 1;
            e.exception.nr = (byte)state.PendingException;
            e.exception.has_error_code = state.PendingExceptionError is null ? (byte)0 : (byte)1;
            e.exception.error_code = state.PendingExceptionError ?? 0;
        }
        e.nmi.masked = state.NmiBlocked ? (byte)1 : (byte)0;
        e.nmi.pending = state.NmiPending ? (byte)1 : (byte)0;
        if (_machine.HasSystemManagementMode)
        {
            e.flags |= KVM_VCPUEVENT_VALID_SMM;
            e.smi.smm = state.InSmm ? (byte)1 : (byte)0;
        }
        _fd.Call(KVM_SET_VCPU_EVENTS, &e, "events");

        var d = new kvm_debugregs { dr6 = state.Dr[6], dr7 = state.Dr[7] };
        for (int i = 0; i < 4; i++)
            d.db[i] = state.Dr[i];
        _fd.Call(KVM_SET_DEBUGREGS, &d, "debug registers");
        _run->if_flag = (state.Rflags & 1 << 9) != 0 ? (byte)1 : (byte)0;
        _run->ready_for_interrupt_injection = 0;
    }

    private static SegmentRegister FromKvm(in kvm_segment s) => new(s.selector, s.@base, s.limit,
        (uint)(s.type & 15 | (s.s & 1) << 4 | (s.dpl & 3) << 5 | (s.present & 1) << 7
            | (s.avl & 1) << 12 | (s.l & 1) << 13 | (s.db & 1) << 14 | (s.g & 1) << 15 | (s.unusable & 1) << 16));

    private static kvm_segment ToKvm(SegmentRegister s)
    {
        byte Bit(int n) => (byte)(s.Attributes >> n & 1);
        return new kvm_segment
        {
            selector = s.Selector,
            @base = s.Base,
            limit = s.Limit,
            type = (byte)(s.Attributes & 15),
            s = Bit(4),
            dpl = (byte)(s.Attributes >> 5 & 3),
            present = Bit(7),
            avl = Bit(12),
            l = Bit(13),
            db = Bit(14),
            g = Bit(15),
            unusable = Bit(16),
        };
    }

    /// <summary>All MSRs of the kernel's list that this vCPU has.</summary>
    private void GetMsrs(Dictionary<uint, ulong> into)
    {
        uint[] indices = _msrIndices ??= _machine.System.MsrIndices;
        var kept = new List<uint>(indices.Length);
        for (int at = 0; at < indices.Length;)
        {
            var list = new KvmList<kvm_msr_entry>(indices.Length - at) { Count = indices.Length - at };
            for (int i = 0; i < list.Count; i++)
                list.Entries[i].index = indices[at + i];
            int got = list.Call(_fd, KVM_GET_MSRS, "MSRs");
            foreach (ref readonly var e in list.Entries[..got])
            {
                into[e.index] = e.data;
                kept.Add(e.index);
            }
            at += got + 1; // the one it stopped at does not exist on this vCPU
        }
        _msrIndices = [.. kept];
    }

    private void SetMsrs(Dictionary<uint, ulong> msrs)
    {
        uint[] indices = (_msrIndices ??= _machine.System.MsrIndices).Where(msrs.ContainsKey).ToArray();
        for (int at = 0; at < indices.Length;)
        {
            var list = new KvmList<kvm_msr_entry>(indices.Length - at) { Count = indices.Length - at };
            for (int i = 0; i < list.Count; i++)
                list.Entries[i] = new kvm_msr_entry { index = indices[at + i], data = msrs[indices[at + i]] };
            at += list.Call(_fd, KVM_SET_MSRS, "MSRs") + 1; // read-only ones and those the CPU model lacks are refused one by one
        }
    }

    /// <inheritdoc/>
    public override long TranslateAddress(ulong linear)
    {
        Touch();
        _machine.Prepare();
        var t = new kvm_translation { linear_address = linear };
        _fd.Call(KVM_TRANSLATE, &t, "address translation");
        return t.valid != 0 ? (long)t.physical_address : -1;
    }
}
