namespace ImgKit.Cpu.Translator;

// The FPU's registers between the host's and the context's XSAVE area.
internal sealed unsafe partial class Stubs
{
    private byte* EmitSaveFpu(byte* mxcsr, ulong arena)
    {
        Align();
        byte* start = _e.P;
        _e.MovImmediate(Host.Rax, (ulong)CodeArena.XsaveMask);
        _e.MovImmediate(Host.Rdx, 0);
        _e.LoadGs(Host.Rcx, Layout.Self);
        _e.Rm(0x8B, Host.Rsi, Host.Rcx, -1, 0, Layout.XsaveArea + 8, true);
        _e.Rm(0x8B, Host.Rdi, Host.Rcx, -1, 0, Layout.XsaveArea + 16, true);
        _e.Rm(0x0FAE, 4, Host.Rcx, -1, 0, Layout.XsaveArea, true); // xsave64
        EmitKeepPointers(arena);
        _e.StoreGsByte(Layout.FpuLoaded, 0);
        _e.Bytes([0xDB, 0xE3]); // fninit
        if (CodeArena.XsaveMask == 7)
            _e.Bytes([0xC5, 0xF8, 0x77]); // vzeroupper
        _e.MovImmediate(Host.Rcx, (ulong)mxcsr);
        _e.Rm(0x0FAE, 2, Host.Rcx, -1, 0, 0, false); // ldmxcsr
        _e.Byte(0xC3);
        return start;
    }

    /// <summary>AMD's processors save the pointers to the last x87 instruction and its operand (in RSI and RDI as they were loaded) only
    /// beside a pending exception. They are in the environment, with 32 bits: enough to find the rest of an address of generated code;
    /// that of memory is found later (MemoryUnit.TryFindLinear).</summary>
    private void EmitKeepPointers(ulong arena)
    {
        const int area = Layout.XsaveArea, environment = Layout.Environment;
        _e.Rm(0xF6, 0, Host.Rcx, -1, 0, area + 512, false); // test byte [xstate_bv],1
        _e.Byte(1);
        byte* unused = _e.JccForward(4);
        _e.Rm(0x83, 7, Host.Rcx, -1, 0, area + 8, true); // cmp qword [fip],0
        _e.Byte(0);
        byte* saved = _e.JccForward(5);
        _e.Rm(0xD9, 6, Host.Rcx, -1, 0, environment, false); // fnstenv
        _e.Rm(0x8B, Host.Rax, Host.Rcx, -1, 0, environment + 12, false);
        _e.Bytes([0x85, 0xC0]); // test eax,eax
        byte* none = _e.JccForward(4);
        _e.Rm(0x8B, Host.Rdx, Host.Rcx, -1, 0, environment + 20, false);
        _e.Rr(0x3B, Host.Rdx, Host.Rdi, false); // cmp edx,edi
        byte* sameOperand = _e.JccForward(4);
        _e.Rr(0x8B, Host.Rdi, Host.Rdx, false);
        _e.FixHere(sameOperand);
        _e.Rm(0x0FB7, Host.Rdx, Host.Rcx, -1, 0, environment + 18, false);
        _e.Rr(0x3B, Host.Rax, Host.Rsi, false); // cmp eax,esi
        byte* same = _e.JccForward(4);
        _e.Byte(0x2D); // sub eax,arena
        _e.Int32((int)arena);
        _e.MovImmediate(Host.Rsi, arena);
        _e.Rr(0x03, Host.Rsi, Host.Rax, true);
        _e.FixHere(same);
        _e.Rm(0x89, Host.Rsi, Host.Rcx, -1, 0, area + 8, true);
        _e.Rm(0x89, Host.Rdi, Host.Rcx, -1, 0, area + 16, true);
        _e.Byte(0x66);
        _e.Rm(0x89, Host.Rdx, Host.Rcx, -1, 0, area + 6, false);
        _e.FixHere(unused);
        _e.FixHere(saved);
        _e.FixHere(none);
    }

    private byte* EmitLoadFpu(bool keep)
    {
        Align();
        byte* start = _e.P;
        if (keep)
        {
            _e.StoreGs(Layout.Scratch0, Host.Rax);
            _e.StoreGs(Layout.Scratch1, Host.Rdx);
        }
        _e.MovImmediate(Host.Rax, (ulong)CodeArena.XsaveMask);
        _e.MovImmediate(Host.Rdx, 0);
        _e.LoadGs(Host.Rcx, Layout.Self);
        _e.Rm(0x0FAE, 5, Host.Rcx, -1, 0, Layout.XsaveArea, true); // xrstor64
        _e.StoreGsByte(Layout.FpuLoaded, 1);
        if (keep)
        {
            _e.LoadGs(Host.Rax, Layout.Scratch0);
            _e.LoadGs(Host.Rdx, Layout.Scratch1);
        }
        _e.Byte(0xC3);
        return start;
    }
}
