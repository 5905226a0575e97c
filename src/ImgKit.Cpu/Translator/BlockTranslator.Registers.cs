using System.Numerics;
using Iced.Intel;

namespace ImgKit.Cpu.Translator;

internal sealed unsafe partial class BlockTranslator
{
    private static bool IsHighByte(Register r) => r is Register.AH or Register.CH or Register.DH or Register.BH;

    /// <summary>Number of a guest general register of any size (AH counts as RAX).</summary>
    internal static int GuestNumber(Register r)
    {
        if (r >= Register.RAX && r <= Register.R15)
            return r - Register.RAX;
        if (r >= Register.EAX && r <= Register.R15D)
            return r - Register.EAX;
        if (r >= Register.AX && r <= Register.R15W)
            return r - Register.AX;
        if (r >= Register.AL && r <= Register.BL)
            return r - Register.AL;
        if (r >= Register.AH && r <= Register.BH)
            return r - Register.AH;
        return r - Register.SPL + 4;
    }

    /// <summary>A register of a host number with the size of a given register.</summary>
    private static Register WithSizeOf(Register model, int host)
    {
        if (model >= Register.RAX && model <= Register.R15)
            return Register.RAX + host;
        if (model >= Register.EAX && model <= Register.R15D)
            return Register.EAX + host;
        if (model >= Register.AX && model <= Register.R15W)
            return Register.AX + host;
        return host < 4 ? Register.AL + host : Register.SPL + (host - 4);
    }

    /// <summary>Emits <paramref name="instruction"/> with its general registers renamed and its memory operand, if any, looked up.
    /// Flags, FPU and implicit RAX/RDX/RBX are the host's own.</summary>
    private void EmitGeneric(ref Instruction instruction, bool faultable)
    {
        var result = instruction;
        int memory = -1, count = instruction.OpCount;
        bool usesCl = false;
        if (count == 2 && IsRcxByte(instruction, 0) && IsRcxByte(instruction, 1) &&
            (instruction.Op0Register == Register.CH || instruction.Op1Register == Register.CH))
        {
            // Both halves of one register: as they are, in RCX.
            _e.MovRr(Host.Rcx, Host.R13);
            Encode(instruction);
            _e.MovRr(Host.R13, Host.Rcx);
            return;
        }
        for (int i = 0; i < count; i++)
        {
            if (instruction.GetOpKind(i) == OpKind.Memory)
                memory = i;
        }
        if (instruction.Mnemonic is Mnemonic.Shl or Mnemonic.Shr or Mnemonic.Sar or Mnemonic.Sal or Mnemonic.Rol or Mnemonic.Ror or
            Mnemonic.Rcl or Mnemonic.Rcr or Mnemonic.Shld or Mnemonic.Shrd)
        {
            usesCl = instruction.GetOpKind(count - 1) == OpKind.Register && instruction.GetOpRegister(count - 1) == Register.CL;
        }
        bool readsRcx = usesCl || instruction.Mnemonic is Mnemonic.Cmpxchg8b or Mnemonic.Cmpxchg16b;
        bool writesRcx = instruction.Mnemonic is Mnemonic.Pcmpestri or Mnemonic.Pcmpistri or Mnemonic.Vpcmpestri or Mnemonic.Vpcmpistri or
            Mnemonic.Pcmpestri64 or Mnemonic.Vpcmpestri64;
        int registers = usesCl ? count - 1 : count;

        InstructionInfo info = default;
        bool haveInfo = false;
        if (memory >= 0)
        {
            info = _infos.GetInfo(instruction);
            haveInfo = true;
            var access = info.GetOpAccess(memory);
            bool write = access is OpAccess.Write or OpAccess.ReadWrite or OpAccess.CondWrite or OpAccess.ReadCondWrite;
            _interpretMiss = IsMaskedMove(instruction);
            _alignment = AlignmentOf(instruction, out bool demanded);
            _demands = demanded ? Site.Aligned : 0;
            BeginMemory(OperandOf(instruction), instruction.MemorySize.GetSize(), write, instruction.HasLockPrefix);
            _interpretMiss = false;
            _alignment = -1;
            _demands = 0;
            result.MemoryIndexScale = 1;
            result.MemoryDisplSize = 1;
            result.SegmentPrefix = Register.None;
        }

        // Which registers need a temporary: spilled ones, and high bytes beside a REX prefix.
        bool needsRex = false, hasHigh = false, hasCh = false;
        int temporaries = 0;
        for (int i = 0; i < registers; i++)
        {
            if (instruction.GetOpKind(i) != OpKind.Register)
                continue;
            var r = instruction.GetOpRegister(i);
            if (!r.IsGPR())
                continue;
            if (IsHighByte(r))
            {
                hasHigh = true;
                hasCh |= r == Register.CH;
                continue;
            }
            int host = Host.OfGuest[GuestNumber(r)];
            if (host >= 8 || r >= Register.SPL && r <= Register.R15L || r.IsGPR64())
                needsRex = true;
            if (host == Host.Spilled)
                temporaries++;
        }
        bool convertHigh = hasHigh && (needsRex || hasCh);
        bool rcxTaken = readsRcx || writesRcx;
        if (memory >= 0)
        {
            if (rcxTaken || temporaries > 0 || convertHigh)
                FoldMemory();
            result.MemoryBase = Register.RAX + _at.Base;
            result.MemoryIndex = _at.Index < 0 ? Register.None : Register.RAX + _at.Index;
            result.MemoryDisplacement64 = (ulong)_at.Displacement;
        }
        if (readsRcx)
            _e.MovRr(Host.Rcx, Host.R13);

        Span<int> freeRegisters = [Host.Rcx, Host.Rbp, -1];
        int free = 0;
        if (rcxTaken)
            free = 1;
        if (memory >= 0)
            freeRegisters[1] = -1;
        int borrowed = -1;
        Span<int> loadedGuest = [-1, -1, -1, -1];
        Span<int> loadedHost = [-1, -1, -1, -1];
        Span<bool> loadedHigh = [false, false, false, false];
        int loaded = 0;
        for (int i = 0; i < registers; i++)
        {
            if (instruction.GetOpKind(i) != OpKind.Register)
                continue;
            var r = instruction.GetOpRegister(i);
            if (!r.IsGPR())
                continue;
            int guest = GuestNumber(r);
            int host = Host.OfGuest[guest];
            bool high = IsHighByte(r) && convertHigh;
            if (host != Host.Spilled && !high)
            {
                if (!IsHighByte(r))
                    result.SetOpRegister(i, WithSizeOf(r, host));
                continue;
            }
            int slot = -1;
            for (int k = 0; k < loaded; k++)
            {
                if (loadedGuest[k] == guest && loadedHigh[k] == high)
                    slot = k;
            }
            if (slot < 0)
            {
                int temporary = free < 2 ? freeRegisters[free++] : -1;
                if (temporary < 0)
                {
                    temporary = PickBorrowed(instruction);
                    borrowed = temporary;
                    _e.StoreGs(Layout.Scratch2, temporary);
                }
                slot = loaded++;
                loadedGuest[slot] = guest;
                loadedHost[slot] = temporary;
                loadedHigh[slot] = high;
                if (high)
                    _e.Rorx(temporary, host, 8, true);
                else
                    _e.LoadGs(temporary, Layout.Gpr(guest));
            }
            result.SetOpRegister(i, WithSizeOf(high ? Register.AL : r, loadedHost[slot]));
        }

        if (faultable)
            MarkFaultable(_e.P, instruction.IP & _mode.RipMask, NoteHere);
        Encode(result);

        if (loaded > 0)
        {
            if (!haveInfo)
                info = _infos.GetInfo(instruction);
            for (int k = 0; k < loaded; k++)
            {
                bool written = false;
                for (int i = 0; i < registers; i++)
                {
                    if (instruction.GetOpKind(i) != OpKind.Register || !instruction.GetOpRegister(i).IsGPR() ||
                        GuestNumber(instruction.GetOpRegister(i)) != loadedGuest[k] ||
                        loadedHigh[k] != (convertHigh && IsHighByte(instruction.GetOpRegister(i))))
                    {
                        continue;
                    }
                    written |= info.GetOpAccess(i) is not (OpAccess.Read or OpAccess.CondRead or OpAccess.None or OpAccess.NoMemAccess);
                }
                if (!written)
                    continue;
                if (loadedHigh[k])
                    _e.Rorx(Host.OfGuest[loadedGuest[k]], loadedHost[k], 56, true);
                else
                    _e.StoreGs(Layout.Gpr(loadedGuest[k]), loadedHost[k]);
            }
        }
        if (borrowed >= 0)
            _e.LoadGs(borrowed, Layout.Scratch2);
        if (writesRcx)
            _e.Rr(0x8B, Host.R13, Host.Rcx, false);
        if (memory >= 0)
            EndMemory(faultable);
        _keepsWindows = loaded == 0 && !rcxTaken;
    }

    /// <summary>Log2 of the alignment that is checked where checks are on (Intel SDM 3A table 6-7; vectors as AMD's processors have them).</summary>
    /// <param name="instruction">what has an operand in memory.</param>
    /// <param name="demanded">it is checked in any case; where there is memory, the host does so.</param>
    private static int AlignmentOf(in Instruction instruction, out bool demanded)
    {
        int size = instruction.MemorySize.GetSize();
        demanded = false;
        if (size < 16)
            return BitOperations.Log2((uint)Math.Min(size, 8));
        demanded = instruction.Mnemonic switch
        {
            Mnemonic.Vmovaps or Mnemonic.Vmovapd or Mnemonic.Vmovdqa or Mnemonic.Vmovntps or Mnemonic.Vmovntpd or Mnemonic.Vmovntdq or
                Mnemonic.Vmovntdqa => true,
            Mnemonic.Movups or Mnemonic.Movupd or Mnemonic.Movdqu or Mnemonic.Lddqu or Mnemonic.Pcmpestri or Mnemonic.Pcmpestrm or
                Mnemonic.Pcmpistri or Mnemonic.Pcmpistrm or Mnemonic.Pcmpestri64 or Mnemonic.Pcmpestrm64 or Mnemonic.Sha1nexte or
                Mnemonic.Sha1msg1 or Mnemonic.Sha1msg2 or Mnemonic.Sha1rnds4 or Mnemonic.Sha256msg1 or Mnemonic.Sha256msg2 or
                Mnemonic.Sha256rnds2 => false,
            _ => instruction.Encoding == EncodingKind.Legacy,
        };
        return demanded ? BitOperations.Log2((uint)size) : 4;
    }

    private static bool IsRcxByte(in Instruction instruction, int operand) => instruction.GetOpKind(operand) == OpKind.Register &&
        instruction.GetOpRegister(operand) is (Register.CL or Register.CH);

    /// <summary>A host register that an instruction does not use, to be saved around it.</summary>
    private static int PickBorrowed(in Instruction instruction)
    {
        ReadOnlySpan<int> candidates = [Host.Rsi, Host.Rdi, Host.R8, Host.R9, Host.R10, Host.R11];
        foreach (int candidate in candidates)
        {
            bool used = false;
            for (int i = 0; i < instruction.OpCount; i++)
            {
                if (instruction.GetOpKind(i) == OpKind.Register && instruction.GetOpRegister(i).IsGPR() &&
                    Host.OfGuest[GuestNumber(instruction.GetOpRegister(i))] == candidate)
                {
                    used = true;
                }
            }
            if (!used)
                return candidate;
        }
        return Host.R12;
    }

    private void Encode(in Instruction instruction)
    {
        if (!_encoder.TryEncode(instruction, (ulong)_e.P, out _, out string? error))
            throw new InvalidOperationException($"cannot encode {instruction} ({instruction.Code}): {error}");
    }
}
