namespace ImgKit.Cpu.Translator;

/// <summary>Why generated code came back to C#.</summary>
internal enum ExitReason
{
    /// <summary>Only inside helpers: the block is left, and what comes next is known; <see cref="CpuContext.ResumeAt"/> is its address.</summary>
    Resume = -1,

    /// <summary>Only inside helpers: go on in generated code.</summary>
    Continue = 0,

    /// <summary>A direct jump whose target is not linked; <see cref="CpuContext.ExitArgument"/> is the address of its data.</summary>
    Chain = 1,

    /// <summary>RIP is set: find the code for it.</summary>
    Lookup = 2,

    /// <summary>RIP is set and someone asked generated code to return.</summary>
    Poll = 3,

    /// <summary>A signal in generated code.</summary>
    Signal = 4,

    /// <summary>A helper changed the flow; the state is complete.</summary>
    Redispatch = 5,

    /// <summary>One instruction was executed alone.</summary>
    Step = 6,

    /// <summary>A helper met an error of the host.</summary>
    Failed = 7,

    /// <summary>As <see cref="Chain"/>, to a careful block.</summary>
    ChainCareful = 8,

    /// <summary>RIP is set: go on in a careful block.</summary>
    Careful = 9,

    /// <summary>As <see cref="Chain"/>, from the end of a loop to its head.</summary>
    ChainLoop = 10,

    /// <summary>As <see cref="Lookup"/>, <see cref="Poll"/> and <see cref="Step"/>, after an indirect branch.</summary>
    BranchLookup = 11,
    BranchPoll = 12,
    BranchStep = 13,
}

/// <summary>The fixed pieces of generated code: entry, exits, calls of C# helpers, the signal handler.</summary>
internal sealed unsafe partial class Stubs
{
    /// <summary>RFLAGS bits of arithmetic: CF PF AF ZF SF OF.</summary>
    public const int ArithmeticFlags = 0x8D5;

    private readonly byte* _exit;
    private readonly byte* _resume;
    private readonly byte* _saveFpu;
    private readonly byte* _loadFpuRaw;
    private Emitter _e;

    public Stubs(byte* arena, long arenaSize)
    {
        _e.P = arena;
        // Constants that stubs load.
        byte* mxcsr = _e.P;
        _e.Int32(0x1F80);
        Align();
        _saveFpu = EmitSaveFpu(mxcsr, (ulong)arena);
        _loadFpuRaw = EmitLoadFpu(false);
        LoadFpu = EmitLoadFpu(true);
        _exit = EmitExit();
        _resume = EmitResume();
        Enter = EmitEnter(CodeArena.HasFsGsBase);
        EnterAgain = EmitEnter(false);
        Chain = EmitDataExit(ExitReason.Chain, false);
        ChainCareful = EmitDataExit(ExitReason.ChainCareful, false);
        ChainLoop = EmitDataExit(ExitReason.ChainLoop, false);
        Goto = EmitDataExit(ExitReason.Lookup, true);
        Poll = EmitDataExit(ExitReason.Poll, true);
        StepDone = EmitDataExit(ExitReason.Step, true);
        LookupRbp = EmitRbpExit(ExitReason.BranchLookup);
        PollRbp = EmitRbpExit(ExitReason.BranchPoll);
        StepDoneRbp = EmitRbpExit(ExitReason.BranchStep);
        byte* fault = EmitFault();
        Interpret = EmitHelper((nint)(delegate* unmanaged<CpuContext*, uint, ulong, int>)&TranslatorVcpu.InterpretHelper);
        Raise = EmitHelper((nint)(delegate* unmanaged<CpuContext*, uint, ulong, int>)&TranslatorVcpu.RaiseHelper);
        byte* access = EmitHelper((nint)(delegate* unmanaged<CpuContext*, uint, ulong, int>)&TranslatorVcpu.SlowAccessHelper);
        SlowAccess = EmitRefills(access, false);
        CheckedAccess = access;
        byte* window = EmitHelper((nint)(delegate* unmanaged<CpuContext*, uint, ulong, int>)&TranslatorVcpu.SlowWindowHelper);
        SlowWindow = EmitRefills(window, true);
        SlowSegment = EmitHelper((nint)(delegate* unmanaged<CpuContext*, uint, ulong, int>)&TranslatorVcpu.SlowSegmentHelper);
        CompleteStore = EmitCompleteStore((nint)(delegate* unmanaged<CpuContext*, uint, ulong, int>)&TranslatorVcpu.CompleteStoreHelper);
        foreach (int signal in (ReadOnlySpan<int>)[NativeMethods.SigFpe, NativeMethods.SigSegv, NativeMethods.SigIll,
            NativeMethods.SigBus, NativeMethods.SigTrap])
        {
            InstallHandler(signal, arena, arenaSize, fault);
        }
    }

    /// <summary>int Enter(CpuContext*, byte* target): loads the guest's registers and jumps.</summary>
    public byte* Enter { get; }

    /// <summary>The same on a thread whose GS base is the context's already.</summary>
    public byte* EnterAgain { get; }

    /// <summary>Called; the data behind the call: int (distance from the data to the displacement to patch), RIP.</summary>
    public byte* Chain { get; }

    /// <summary>The same for a jump to a block that looks at each access by itself.</summary>
    public byte* ChainCareful { get; }

    /// <summary>The same for a loop's jump to its head; behind the data of a chain, how often it comes here.</summary>
    public byte* ChainLoop { get; }

    /// <summary>Called; the data behind the call is the RIP to look up.</summary>
    public byte* Goto { get; }

    /// <summary>Called; the data behind the call is the RIP to stop at.</summary>
    public byte* Poll { get; }

    public byte* StepDone { get; }

    /// <summary>Jumped to with the RIP in RBP.</summary>
    public byte* LookupRbp { get; }

    public byte* PollRbp { get; }

    public byte* StepDoneRbp { get; }

    /// <summary>Called with a site in ECX: executes the instruction in C#.</summary>
    public byte* Interpret { get; }

    /// <summary>Called with a site in ECX: raises an exception.</summary>
    public byte* Raise { get; }

    /// <summary>By TLB set, for reads and then for writes. Called with a site and the size less 1 (from bit <see cref="SiteBits"/>) in ECX,
    /// linear address in RBP: gives a host address in RBP, 0 in RCX.</summary>
    public nint[] SlowAccess { get; }

    /// <summary>The same without a look into the second-level TLB: C# checks the alignment, too.</summary>
    public byte* CheckedAccess { get; }

    public const int SiteBits = 24;

    /// <summary>Called with a site in ECX, linear address of a window in RBP: gives its host address in RBP, 0 in RCX.</summary>
    public nint[] SlowWindow { get; }

    /// <summary>Likewise, with the offset in the segment that failed its check in RBP.</summary>
    public byte* SlowSegment { get; }

    /// <summary>Called with a site in ECX after a store to what <see cref="SlowAccess"/> gave.</summary>
    public byte* CompleteStore { get; }

    /// <summary>Called: loads the guest's FPU registers.</summary>
    public byte* LoadFpu { get; }

    private void Align()
    {
        while (((long)_e.P & 15) != 0)
            _e.Byte(0xCC);
    }

    /// <summary>Stores what of the guest is in host registers; RCX and RBP stay, RAX is lost. Flags go to HostFlags.</summary>
    private void SaveGuest()
    {
        for (int i = 0; i < 13; i++)
            _e.StoreGs(Layout.Gpr(i), Host.OfGuest[i]);
        _e.Byte(0x9F); // lahf
        _e.Bytes([0x0F, 0x90, 0xC0]); // seto al
        _e.StoreGs(Layout.HostFlags, Host.Rax);
    }

    private void LoadGuest()
    {
        // OF by an addition that overflows when it should, the others by SAHF.
        _e.LoadGs(Host.Rax, Layout.Rflags);
        _e.Rr(0x8B, Host.Rdx, Host.Rax, false);
        _e.Bytes([0xC1, 0xEA, 11, 0x83, 0xE2, 1, 0x80, 0xC2, 0x7F]); // shr edx,11; and edx,1; add dl,0x7f
        _e.Bytes([0x88, 0xC4, 0x9E]); // mov ah,al; sahf
        for (int i = 0; i < 13; i++)
            _e.LoadGs(Host.OfGuest[i], Layout.Gpr(i));
    }

    private byte* EmitExit()
    {
        // EAX: reason. The guest is saved, its FPU perhaps not.
        Align();
        byte* start = _e.P;
        _e.MovRr(Host.Rbx, Host.Rax);
        _e.LoadGsByte(Host.Rcx, Layout.FpuLoaded);
        byte* none = _e.JrcxzForward();
        _e.Call(_saveFpu);
        _e.FixShortHere(none);
        _e.MovRr(Host.Rax, Host.Rbx);
        _e.LoadGs(Host.Rsp, Layout.HostStack);
        _e.Pop(Host.R15);
        _e.Pop(Host.R14);
        _e.Pop(Host.R13);
        _e.Pop(Host.R12);
        _e.Pop(Host.Rbp);
        _e.Pop(Host.Rbx);
        _e.Byte(0xC3);
        return start;
    }

    private byte* EmitEnter(bool setBase)
    {
        Align();
        byte* start = _e.P;
        _e.Push(Host.Rbx);
        _e.Push(Host.Rbp);
        _e.Push(Host.R12);
        _e.Push(Host.R13);
        _e.Push(Host.R14);
        _e.Push(Host.R15);
        if (setBase)
            _e.Bytes([0xF3, 0x48, 0x0F, 0xAE, 0xDF]); // wrgsbase rdi
        _e.StoreGs(Layout.HostStack, Host.Rsp);
        _e.StoreGs(Layout.ResumeAt, Host.Rsi);
        _e.Lea(Host.Rsp, Host.Rsp, -1, 0, -Layout.StackTag, true);
        _e.Bytes([0x48, 0x81, 0xE4, 0x00, 0x00, 0xFF, 0xFF]); // and rsp,-65536
        _e.Lea(Host.Rsp, Host.Rsp, -1, 0, Layout.StackTag, true);
        GoOn();
        return start;
    }

    private void GoOn()
    {
        LoadGuest();
        // What the jump cache gave checks this.
        _e.LoadGs(Host.Rbp, Layout.Rip);
        _e.Gs(0xFF, 4, Layout.ResumeAt, false); // jmp
    }

    private byte* EmitResume()
    {
        Align();
        byte* start = _e.P;
        // Of the helper's call.
        _e.Lea(Host.Rsp, Host.Rsp, -1, 0, 8, true);
        GoOn();
        return start;
    }

    private byte* EmitDataExit(ExitReason reason, bool rip)
    {
        Align();
        byte* start = _e.P;
        _e.Pop(Host.Rcx);
        if (rip)
        {
            _e.Rm(0x8B, Host.Rcx, Host.Rcx, -1, 0, 0, true);
            _e.StoreGs(Layout.Rip, Host.Rcx);
        }
        else
        {
            _e.StoreGs(Layout.ExitArgument, Host.Rcx);
        }
        SaveGuest();
        _e.MovImmediate(Host.Rax, (ulong)reason);
        _e.Jmp(_exit);
        return start;
    }

    private byte* EmitRbpExit(ExitReason reason)
    {
        Align();
        byte* start = _e.P;
        _e.StoreGs(Layout.Rip, Host.Rbp);
        SaveGuest();
        _e.MovImmediate(Host.Rax, (ulong)reason);
        _e.Jmp(_exit);
        return start;
    }

    private byte* EmitFault()
    {
        Align();
        byte* start = _e.P;
        SaveGuest();
        _e.MovImmediate(Host.Rax, (ulong)ExitReason.Signal);
        _e.Jmp(_exit);
        return start;
    }

    private byte* EmitHelper(nint helper)
    {
        Align();
        byte* start = _e.P;
        EmitHelperBody(helper);
        return start;
    }

    private void EmitHelperBody(nint helper)
    {
        SaveGuest();
        _e.MovRr(Host.R13, Host.Rcx);
        _e.LoadGsByte(Host.Rbx, Layout.FpuLoaded);
        _e.Bytes([0x85, 0xDB]); // test ebx,ebx
        _e.Byte(0x74);
        byte* none = _e.P++;
        _e.Call(_saveFpu);
        _e.FixShortHere(none);
        _e.LoadGs(Host.Rdi, Layout.Self);
        _e.Rr(0x8B, Host.Rsi, Host.R13, false);
        _e.MovRr(Host.Rdx, Host.Rbp);
        _e.MovRr(Host.R12, Host.Rsp);
        _e.Bytes([0x48, 0x83, 0xE4, 0xF0]); // and rsp,-16
        _e.MovImmediate(Host.Rax, (ulong)helper);
        _e.Bytes([0xFF, 0xD0]); // call rax
        _e.MovRr(Host.Rsp, Host.R12);
        _e.Bytes([0x85, 0xC0]); // test eax,eax
        _e.Jcc(8, _resume);
        _e.Jcc(5, _exit);
        _e.Bytes([0x85, 0xDB]);
        _e.Byte(0x74);
        none = _e.P++;
        _e.Call(_loadFpuRaw);
        _e.FixShortHere(none);
        LoadGuest();
        _e.LoadGs(Host.Rbp, Layout.ResumeAt);
        _e.Byte(0xB9);
        _e.Int32(0);
        _e.Byte(0xC3);
    }

    private nint[] EmitRefills(byte* helper, bool window)
    {
        var stubs = new nint[2 * Layout.TlbSets];
        for (int i = 0; i < stubs.Length; i++)
            stubs[i] = (nint)EmitRefill(helper, i >> 1, (i & 1) != 0, window);
        return stubs;
    }

    /// <summary>Looks into the second-level TLB (as MemoryUnit.TryRefill) before C# is asked.</summary>
    private byte* EmitRefill(byte* helper, int set, bool write, bool window)
    {
        Align();
        byte* start = _e.P;
        _e.StoreGs(Layout.Spill, Host.Rax);
        _e.StoreGs(Layout.Spill + 8, Host.Rdx);
        _e.StoreGs(Layout.Spill + 16, Host.Rbx);
        _e.Bytes([0x9F, 0x0F, 0x90, 0xC0]); // lahf; seto al
        _e.StoreGs(Layout.Spill + 24, Host.Rax);
        byte* crosses = null;
        if (!window)
        {
            _e.Rr(0x8B, Host.Rdx, Host.Rbp, false);
            _e.Bytes([0x81, 0xE2, 0xFF, 0x0F, 0x00, 0x00]); // and edx,4095
            _e.Rr(0x8B, Host.Rax, Host.Rcx, false);
            _e.Bytes([0xC1, 0xE8, SiteBits, 0x01, 0xC2, 0x81, 0xFA, 0xFF, 0x0F, 0x00, 0x00]); // shr eax,n; add edx,eax; cmp edx,4095
            crosses = _e.JccForward(7);
        }
        _e.MovRr(Host.Rdx, Host.Rbp);
        _e.Bytes([0x48, 0xC1, 0xEA, 12]); // shr rdx,12
        _e.Rr(0x8B, Host.Rbx, Host.Rdx, false);
        _e.MovRr(Host.Rax, Host.Rdx);
        _e.Bytes([0x48, 0xC1, 0xEA, 12, 0x31, 0xC2]); // shr rdx,12; xor edx,eax
        _e.Bytes([0x81, 0xE2, 0xFF, 0x0F, 0x00, 0x00, 0xC1, 0xE2, 4]); // and edx,4095; shl edx,4
        _e.Bytes([0x48, 0xC1, 0xE0, 12]); // shl rax,12: RAX the page's address, RBX its number, RDX the entry
        _e.Gs(0x0B, Host.Rax, Layout.SecondGeneration, true);
        _e.GsIndexed(0x3B, Host.Rax, Host.Rdx, false, Layout.SecondOf(set, write), true);
        byte* miss = _e.JccForward(5);
        _e.GsIndexed(0x8B, Host.Rdx, Host.Rdx, false, Layout.SecondOf(set, write) + 8, true);
        _e.Bytes([0x48, 0x25, 0x00, 0xF0, 0xFF, 0xFF]); // and rax,-4096
        _e.Bytes([0x81, 0xE3]); // and ebx,entries-1
        _e.Int32(Layout.TlbEntries - 1);
        _e.GsIndexed(0x89, Host.Rdx, Host.Rbx, true, Layout.TlbHost(set, write), true);
        _e.Bytes([0x48, 0x29, 0xC2]); // sub rdx,rax: host minus guest address
        _e.GsIndexed(0x89, Host.Rdx, Host.Rbx, true, Layout.TlbAddend(set, write), true);
        _e.Bytes([0x48, 0xF7, 0xD8]); // neg rax
        byte* code = null;
        if (write)
        {
            // As MemoryUnit.Fill: the entry is there first, and taken back if the page has code.
            _e.GsIndexed(0x87, Host.Rax, Host.Rbx, true, Layout.TlbTag(set, write), true); // xchg
            _e.GsIndexed(0x8B, Host.Rax, Host.Rbx, true, Layout.TlbHost(set, write), true);
            _e.Bytes([0x48, 0xC1, 0xE8, 12, 0x25]); // shr rax,12; and eax,entries-1
            _e.Int32((int)(CodeMap.Entries - 1));
            _e.Bytes([0x48, 0xC1, 0xE0, 2]); // shl rax,2
            _e.Gs(0x03, Host.Rax, Layout.CodeMasks, true);
            _e.Bytes([0x83, 0x38, 0x00]); // cmp dword [rax],0
            code = _e.JccForward(5);
        }
        else
        {
            _e.GsIndexed(0x89, Host.Rax, Host.Rbx, true, Layout.TlbTag(set, write), true);
        }
        _e.Lea(Host.Rbp, Host.Rbp, Host.Rdx, 0, 0, true);
        RestoreSpilled();
        _e.Byte(0xB9);
        _e.Int32(0);
        _e.Byte(0xC3);
        if (code != null)
        {
            _e.FixHere(code);
            _e.Rr(0x8B, Host.Rax, Host.Rbx, false);
            _e.Bytes([0x35, 0x80, 0x00, 0x00, 0x00, 0xC1, 0xE0, 12, 0x48, 0xF7, 0xD8]); // xor eax,128; shl eax,12; neg rax
            _e.GsIndexed(0x89, Host.Rax, Host.Rbx, true, Layout.TlbTag(set, write), true);
        }
        _e.FixHere(miss);
        if (crosses != null)
            _e.FixHere(crosses);
        RestoreSpilled();
        _e.Jmp(helper);
        return start;
    }

    private void RestoreSpilled()
    {
        _e.LoadGs(Host.Rax, Layout.Spill + 24);
        _e.Bytes([0x04, 0x7F, 0x9E]); // add al,0x7f; sahf
        _e.LoadGs(Host.Rax, Layout.Spill);
        _e.LoadGs(Host.Rdx, Layout.Spill + 8);
        _e.LoadGs(Host.Rbx, Layout.Spill + 16);
    }

    private byte* EmitCompleteStore(nint helper)
    {
        Align();
        byte* start = _e.P;
        _e.MovRr(Host.Rbp, Host.Rcx);
        _e.LoadGsByte(Host.Rcx, Layout.PendingStore);
        byte* none = _e.JrcxzForward();
        byte* some = _e.JmpShortForward();
        _e.FixShortHere(none);
        _e.Byte(0xC3);
        _e.FixShortHere(some);
        _e.MovRr(Host.Rcx, Host.Rbp);
        EmitHelperBody(helper);
        return start;
    }

    /// <summary>A handler in generated code: a signal inside the arena goes on at the fault stub with its particulars in the
    /// context, any other goes to the handler that was there. Offsets: ucontext_t of x86-64 (gregs at 40, RIP 16, ERR 19, TRAPNO 20).</summary>
    private void InstallHandler(int signal, byte* arena, long arenaSize, byte* fault)
    {
        NativeMethods.SignalAction old;
        if (NativeMethods.SetSignalAction(signal, null, &old) != 0)
            throw new PlatformNotSupportedException("cannot read the signal handlers");
        const int rip = 40 + 16 * 8, error = 40 + 19 * 8, trap = 40 + 20 * 8;
        Align();
        byte* start = _e.P;
        _e.Rm(0x8B, Host.Rax, Host.Rdx, -1, 0, rip, true);
        _e.MovImmediate(Host.Rcx, (ulong)arena);
        _e.MovRr(Host.R8, Host.Rax);
        _e.Rr(0x2B, Host.R8, Host.Rcx, true);
        _e.CmpImmediate(Host.R8, checked((int)arenaSize), true);
        byte* other = _e.JccForward(3);
        _e.StoreGs(Layout.FaultPc, Host.Rax);
        _e.Rm(0x8B, Host.Rax, Host.Rdx, -1, 0, trap, true);
        _e.StoreGs(Layout.FaultTrap, Host.Rax);
        _e.Rm(0x8B, Host.Rax, Host.Rdx, -1, 0, error, true);
        _e.StoreGs(Layout.FaultError, Host.Rax);
        _e.MovImmediate(Host.Rax, (ulong)fault);
        _e.Rm(0x89, Host.Rax, Host.Rdx, -1, 0, rip, true);
        _e.Byte(0xC3);
        _e.FixHere(other);
        if (old.Handler is not (0 or 1))
        {
            _e.MovImmediate(Host.Rax, (ulong)old.Handler);
            _e.Bytes([0xFF, 0xE0]); // jmp rax
        }
        else
        {
            // Default action: reset it and return, the instruction faults again.
            byte* data = _e.P + 64;
            _e.MovImmediate(Host.Rsi, (ulong)data);
            _e.MovImmediate(Host.Rdi, (ulong)signal);
            _e.MovImmediate(Host.Rdx, 0);
            _e.MovImmediate(Host.R10, 8);
            _e.MovImmediate(Host.Rax, 13); // rt_sigaction
            _e.Bytes([0x0F, 0x05, 0xC3]);
            _e.P = data;
            for (int i = 0; i < 4; i++)
                _e.Int64(0);
        }
        var action = old;
        action.Handler = (nint)start;
        action.Flags = NativeMethods.SaSigInfo | NativeMethods.SaOnStack | NativeMethods.SaNoDefer;
        if (NativeMethods.SetSignalAction(signal, &action, null) != 0)
            throw new PlatformNotSupportedException("cannot set a signal handler");
    }
}
