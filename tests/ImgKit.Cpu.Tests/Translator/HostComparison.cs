using System.Runtime.InteropServices;
using Iced.Intel;

namespace ImgKit.Cpu.Tests.Translator;

/// <summary>
/// Runs the same instructions natively and through the translator, at the same addresses (one mapping serves as the guest's
/// memory and as the process's own), and compares all registers, flags, vectors and memory.
/// </summary>
internal sealed unsafe partial class HostComparison : IDisposable
{
    public const ulong Region = 0x10000000;
    public const int RegionSize = 1 << 20;

    /// <summary>Where code goes, where data is, what code may touch.</summary>
    public const ulong Code = Region + 0x80000, Data = Region + 0x20000;
    public const int DataSize = 0x10000;
    private const ulong State = Region + 0x1000, Stub = Region + 0x4000, Epilogue = Region + 0x6000, PageTables = 0x10000;
    private const ulong FarPointer = Region + 0x3000, Epilogue32 = Region + 0x7000, Handlers = Region + 0x8000, Faults = Region + 0x2000;

    /// <summary>Pages that a program may not write, or not touch, in user mode.</summary>
    public const ulong ReadOnlyPage = Region + 0xE0000, Hole = Region + 0xF0000;

    // Offsets in the native state block: 16 registers, flags, host stack pointer; FXSAVE/XSAVE area behind.
    private const int FlagsOffset = 128, HostStackOffset = 136, EnvironmentOffset = 0x200, XsaveOffset = 0x400;

    private readonly int _bits;
    private readonly NativeFaults? _faults;
    private readonly UserGuest? _guest;
    private readonly Board _board;
    private readonly CpuState _state = new();
    private readonly byte[] _before = new byte[DataSize], _after = new byte[DataSize];

    /// <param name="bits">64, or less: then the host runs the code in compatibility mode, by a far jump to Linux's segment for it (or, for
    /// 16, one of the local descriptor table), and the guest in protected mode.</param>
    /// <param name="user">The guest runs at privilege level 3 with alignment checks possible, and faults are results like others.</param>
    public HostComparison(int bits = 64, bool user = false)
    {
        _bits = bits;
        nint map = Mmap((nint)Region, RegionSize, 7, 0x100022, -1, 0);
        if (map != (nint)Region)
            throw new InvalidOperationException("the region is taken");
        _board = new Board(1 << 20, "max", new MemoryRegion(Region, RegionSize, (nint)Region, MemoryKind.Ram));
        if (bits == 16)
        {
            SetDescriptor(0, Code, 2);
            SetDescriptor(1, Data, 0);
        }
        EmitStub();
        // Identity map of the first GiB with 2 MiB pages.
        ulong* tables = (ulong*)(_board.Ram + PageTables);
        tables[0] = PageTables + 0x1003;
        tables[512] = PageTables + 0x2003;
        for (int i = 0; i < 512; i++)
            tables[1024 + i] = (ulong)i << 21 | 0x83;
        if (!user)
            return;
        _faults = new NativeFaults(Handlers, Faults, Region, RegionSize, Epilogue);
        _guest = new UserGuest(_board, bits, PageTables);
        *(ulong*)ReadOnlyPage = 0x1122334455667788;
        _ = Protect((nint)ReadOnlyPage, 4096, 1);
        _ = Protect((nint)Hole, 4096, 0);
    }

    public ulong[] Gpr { get; } = new ulong[16];

    public ulong Flags { get; set; }

    public byte[] Xsave { get; } = new byte[832];

    [LibraryImport("libc", EntryPoint = "mmap")]
    private static partial nint Mmap(nint address, nuint length, int protection, int flags, int fd, nint offset);

    [LibraryImport("libc", EntryPoint = "mprotect")]
    private static partial int Protect(nint address, nuint length, int protection);

    [LibraryImport("libc", EntryPoint = "munmap")]
    private static partial int Munmap(nint address, nuint length);

    // struct user_desc of Linux: entry, base, limit, then bits: 32-bit, contents (2), read-only, limit in pages, absent, useable.
    private static void SetDescriptor(uint entry, ulong start, uint contents)
    {
        uint* descriptor = stackalloc uint[4];
        descriptor[0] = entry;
        descriptor[1] = (uint)start;
        descriptor[2] = 0xFFFF;
        // Data with 32-bit stack pointers: what the kernel returns to needs no care then.
        descriptor[3] = contents << 1 | 1 << 6 | (contents == 0 ? 1u : 0);
        const int modifyLdt = 154;
        if (Syscall(modifyLdt, 1, descriptor, 16) != 0)
            throw new InvalidOperationException("no segments of 16-bit code on this host");
    }

    [LibraryImport("libc", EntryPoint = "syscall")]
    private static partial nint Syscall(nint number, nint function, void* pointer, nint size);

    private void EmitStub()
    {
        var a = new Assembler(64);
        foreach (var r in new[] { AssemblerRegisters.rbx, AssemblerRegisters.rbp, AssemblerRegisters.r12, AssemblerRegisters.r13,
            AssemblerRegisters.r14, AssemblerRegisters.r15 })
        {
            a.push(r);
        }
        a.mov(AssemblerRegisters.__qword_ptr[State + HostStackOffset], AssemblerRegisters.rsp);
        a.mov(AssemblerRegisters.eax, 7);
        a.xor(AssemblerRegisters.edx, AssemblerRegisters.edx);
        a.xrstor64(AssemblerRegisters.__[State + XsaveOffset]);
        if (_bits != 64)
        {
            a.mov(AssemblerRegisters.ecx, _bits == 32 ? 0x2B : 0xF);
            a.mov(AssemblerRegisters.ds, AssemblerRegisters.ecx);
            a.mov(AssemblerRegisters.es, AssemblerRegisters.ecx);
            a.mov(AssemblerRegisters.ss, AssemblerRegisters.ecx);
        }
        a.push(AssemblerRegisters.__qword_ptr[State + FlagsOffset]);
        a.popfq();
        for (int i = 0; i < 16; i++)
            a.mov(new AssemblerRegister64(Register.RAX + i), AssemblerRegisters.__qword_ptr[State + (ulong)(i * 8)]);
        if (_bits == 64)
            a.jmp(Code);
        else
            a.db([0xFF, 0x2C, 0x25, .. BitConverter.GetBytes((uint)FarPointer)]); // jmp far
        *(uint*)FarPointer = _bits == 32 ? (uint)Code : 0;
        *(ushort*)(FarPointer + 4) = (ushort)(_bits == 32 ? 0x23 : 7);
        byte* back = (byte*)Epilogue32;
        *back = 0xEA;
        *(uint*)(back + 1) = (uint)Epilogue;
        *(ushort*)(back + 5) = 0x33;
        Write(Stub, a);
        a = new Assembler(64);
        for (int i = 0; i < 16; i++)
            a.mov(AssemblerRegisters.__qword_ptr[State + (ulong)(i * 8)], new AssemblerRegister64(Register.RAX + i));
        if (_bits != 64)
        {
            a.mov(AssemblerRegisters.ecx, 0x2B);
            a.mov(AssemblerRegisters.ss, AssemblerRegisters.ecx);
        }
        a.mov(AssemblerRegisters.rsp, AssemblerRegisters.__qword_ptr[State + HostStackOffset]);
        a.pushfq();
        a.pop(AssemblerRegisters.__qword_ptr[State + FlagsOffset]);
        a.push(0x202);
        a.popfq();
        a.mov(AssemblerRegisters.eax, 7);
        a.xor(AssemblerRegisters.edx, AssemblerRegisters.edx);
        a.xsave64(AssemblerRegisters.__[State + XsaveOffset]);
        a.fnstenv(AssemblerRegisters.__[State + EnvironmentOffset]);
        a.cld();
        a.fninit();
        a.vzeroupper();
        a.mov(AssemblerRegisters.eax, 0x1F80);
        a.mov(AssemblerRegisters.__dword_ptr[State + HostStackOffset + 8], AssemblerRegisters.eax);
        a.ldmxcsr(AssemblerRegisters.__dword_ptr[State + HostStackOffset + 8]);
        foreach (var r in new[] { AssemblerRegisters.r15, AssemblerRegisters.r14, AssemblerRegisters.r13, AssemblerRegisters.r12,
            AssemblerRegisters.rbp, AssemblerRegisters.rbx })
        {
            a.pop(r);
        }
        a.ret();
        Write(Epilogue, a);
    }

    private static void Write(ulong address, Assembler a)
    {
        var bytes = new MemoryStream();
        a.Assemble(new StreamCodeWriter(bytes), address);
        bytes.ToArray().CopyTo(new Span<byte>((void*)address, 4096));
    }

    private static Span<byte> DataSpan => new((void*)Data, DataSize);

    /// <summary>Runs code from the present state and data on both sides; null when they agree, else how they differ.</summary>
    public string? Compare(ReadOnlySpan<byte> code, ulong undefinedFlags = 0)
    {
        for (int i = 1; ; i++)
        {
            string? difference = CompareOnce(code, undefinedFlags);
            if (difference != null || !_lostPointers)
                return difference;
            if (i == MaxLost)
                return $"x87 pointers are never there in {MaxLost} runs; ";
        }
    }

    /// <summary>Runs that may lose the pointers before they count as missing.</summary>
    private const int MaxLost = 20;

    private bool _lostPointers;

    private string? CompareOnce(ReadOnlySpan<byte> code, ulong undefinedFlags)
    {
        _lostPointers = false;
        DataSpan.CopyTo(_before);
        byte* at = (byte*)Code;
        code.CopyTo(new Span<byte>(at, code.Length));
        ulong* state = (ulong*)State;
        for (int i = 0; i < 16; i++)
            state[i] = Gpr[i];
        state[16] = Flags;
        Xsave.CopyTo(new Span<byte>((void*)(State + XsaveOffset), 832));
        // Native: a jump to the epilogue follows.
        at[code.Length] = 0xE9;
        if (_bits == 16)
        {
            at[code.Length] = 0x66;
            new ReadOnlySpan<byte>((void*)Epilogue32, 7).CopyTo(new Span<byte>(at + code.Length + 1, 7));
        }
        else
        {
        *(int*)(at + code.Length + 1) = (int)((_bits == 64 ? Epilogue : Epilogue32) - (Code + (ulong)code.Length + 5));
        }
        _faults?.Clear();
        ((delegate* unmanaged<void>)Stub)();
        DataSpan.CopyTo(_after);

        // Translated: HLT follows.
        _before.CopyTo(DataSpan);
        at[code.Length] = 0xF4;
        _board.Map.NotifyDeviceWrite(Code, (ulong)code.Length + 8);
        SetGuest();
        var exit = _board.Cpu.Run();
        _board.Cpu.GetState(_state);
        var text = new System.Text.StringBuilder();
        if (_faults != null)
            CompareFaults(exit, (ulong)code.Length, state, text);
        else if (exit != VcpuExit.Halted || _state.Rip != (_bits == 16 ? 0 : Code) + (ulong)code.Length + 1)
            text.Append($"exit {exit} {_board.Cpu.Failure} at {_state.Rip:x} (cr2 {_state.Cr2:x}) {_board.Cpu.FailureDetail}; ");
        for (int i = 0; i < (_bits == 64 ? 16 : 8); i++)
        {
            if (_bits == 64 ? _state.Gpr[i] != state[i] : (uint)_state.Gpr[i] != (uint)state[i])
                text.Append($"{Register.RAX + i} {_state.Gpr[i]:x} not {state[i]:x} (was {Gpr[i]:x}); ");
        }
        ulong arithmetic = 0xCD5 & ~undefinedFlags;
        if ((_state.Rflags & arithmetic) != (state[16] & arithmetic))
            text.Append($"flags {_state.Rflags & arithmetic:x} not {state[16] & arithmetic:x}; ");
        var native = new ReadOnlySpan<byte>((void*)(State + XsaveOffset), 832);
        CompareVectors(native, text);
        for (int i = 0; i < DataSize; i++)
        {
            if (DataSpan[i] != _after[i])
            {
                text.Append($"memory at {Data + (ulong)i:x}: {DataSpan[i]:x} not {_after[i]:x}; ");
                break;
            }
        }
        _before.CopyTo(DataSpan);
        return text.Length == 0 ? null : text.ToString();
    }

    private void CompareVectors(ReadOnlySpan<byte> native, System.Text.StringBuilder text)
    {
        byte[] guest = _state.Xsave;
        bool nativeX87 = (native[512] & 1) != 0, nativeSse = (native[512] & 2) != 0, nativeAvx = (native[512] & 4) != 0;
        bool x87 = (guest[512] & 1) != 0, sse = (guest[512] & 2) != 0, avx = (guest[512] & 4) != 0;
        if (nativeX87 && x87 && (!native[..5].SequenceEqual(guest.AsSpan(0, 5)) || !native.Slice(32, 128).SequenceEqual(guest.AsSpan(32, 128))))
            text.Append($"x87 {Convert.ToHexString(guest, 0, 6)} not {Convert.ToHexString(native[..6])}; ");
        // Some processors have the pointers in the environment only; all addresses here have 32 bits.
        var environment = new ReadOnlySpan<byte>((void*)(State + EnvironmentOffset), 28);
        var want = (BitConverter.ToUInt16(environment[18..]) & 0x7FF, BitConverter.ToUInt32(environment[12..]), BitConverter.ToUInt32(environment[20..]));
        var have = ((int)BitConverter.ToUInt16(guest, 6), BitConverter.ToUInt64(guest, 8), BitConverter.ToUInt64(guest, 16));
        // With AMD's, a switch of threads loses them, on either side.
        _lostPointers = nativeX87 && x87 && want != default && have == default;
        if (nativeX87 && x87 && want != default && have != default && want != have)
            text.Append($"x87 pointers {have} not {want}; ");
        if (!native.Slice(24, 4).SequenceEqual(guest.AsSpan(24, 4)))
            text.Append($"mxcsr {BitConverter.ToUInt32(guest, 24):x} not {BitConverter.ToUInt32(native[24..]):x}; ");
        for (int i = 0; i < 16; i++)
        {
            var zero = new byte[16];
            if (!(nativeSse ? native.Slice(160 + 16 * i, 16) : zero).SequenceEqual(sse ? guest.AsSpan(160 + 16 * i, 16) : zero))
                text.Append($"xmm{i} {Convert.ToHexString(guest, 160 + 16 * i, 16)} not {Convert.ToHexString(native.Slice(160 + 16 * i, 16))}; ");
            if (!(nativeAvx ? native.Slice(576 + 16 * i, 16) : zero).SequenceEqual(avx ? guest.AsSpan(576 + 16 * i, 16) : zero))
                text.Append($"ymm{i} high differs; ");
        }
    }

    /// <summary>What the guest's handler found on its stack, beside what the host's kernel told.</summary>
    private void CompareFaults(VcpuExit exit, ulong length, ulong* native, System.Text.StringBuilder text)
    {
        if (exit != VcpuExit.Halted || !_guest!.TryTakeFault(_state, out var fault))
        {
            text.Append($"exit {exit} {_board.Cpu.Failure} at {_state.Rip:x} {_board.Cpu.FailureDetail}; ");
            return;
        }
        LastTrap = _faults!.Trap;
        ulong start = _bits == 16 ? 0 : Code;
        bool ended = fault.Vector == 13 && fault.Rip == start + length;
        if (ended && _faults!.Trap == NativeFaults.None)
            return;
        string want = $"fault {(long)_faults.Trap} error {_faults.FaultError:x} at {_faults.FaultRip:x}";
        string got = ended ? "no fault" : $"fault {(long)fault.Vector} error {fault.Error:x} at {fault.Rip:x}";
        if (want != got)
            text.Append($"{got}, not {want}; ");
        if (fault.Vector == 14 && _state.Cr2 != _faults.FaultCr2)
            text.Append($"cr2 {_state.Cr2:x} not {_faults.FaultCr2:x}; ");
        native[16] = _faults.FaultFlags;
    }

    /// <summary>Vector of the host's fault in the last comparison, or <see cref="NoTrap"/>.</summary>
    public ulong LastTrap { get; private set; }

    public const ulong NoTrap = NativeFaults.None;

    private void SetGuest()
    {
        var s = _state;
        _board.Cpu.Reset();
        _board.Cpu.GetState(s);
        Gpr.CopyTo(s.Gpr, 0);
        s.Rip = Code;
        s.Rflags = Flags | 2 | (_guest != null ? 0x200u : 0);
        for (int i = 0; i < 6; i++)
            s.Segments[i] = new SegmentRegister(0x10, 0, uint.MaxValue, 0xC093);
        s.Segments[1] = new SegmentRegister(8, 0, uint.MaxValue, 0xA09B);
        s.Cr0 = 0x80000033;
        s.Cr3 = PageTables;
        s.Cr4 = 0x406A0;
        s.Xcr0 = 7;
        s.Msrs[0xC0000080] = 0x500;
        if (_bits == 16)
        {
            s.Rip = 0;
            s.Segments[1] = new SegmentRegister(8, Code, 0xFFFF, 0x009B);
            s.Segments[0] = s.Segments[2] = s.Segments[3] = new SegmentRegister(0x10, Data, 0xFFFF, 0x4093);
            s.Cr0 = 0x33;
            s.Msrs[0xC0000080] = 0;
        }
        if (_bits == 32)
        {
            s.Segments[1] = new SegmentRegister(8, 0, uint.MaxValue, 0xC09B);
            s.Cr0 = 0x33;
            s.Msrs[0xC0000080] = 0;
        }
        _guest?.Prepare(s);
        Array.Clear(s.Xsave);
        Xsave.CopyTo(s.Xsave, 0);
        s.Halted = false;
        _board.Cpu.SetState(s);
    }

    public void Dispose()
    {
        _faults?.Dispose();
        _board.Dispose();
        _ = Munmap((nint)Region, RegionSize);
    }
}
