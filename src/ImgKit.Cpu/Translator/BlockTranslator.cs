using Iced.Intel;

namespace ImgKit.Cpu.Translator;

/// <summary>What generated code refers to when it calls C#: an instruction, and how it accesses memory.</summary>
internal struct Site
{
    public ulong Rip;
    public ulong NextRip;

    /// <summary>Bytes accessed in bits 0..7, <see cref="Write"/>, <see cref="Locked"/>, segment in bits 12..14; vector for exceptions.</summary>
    public uint Info;

    /// <summary>Index of the instruction in the translator's list, for the interpreter.</summary>
    public int Instruction;

    public const uint Write = 1 << 8;
    public const uint Locked = 1 << 9;

    /// <summary>From this bit on: log2 of the alignment that is checked.</summary>
    public const int AlignmentShift = 16;

    /// <summary>The alignment (of up to 15) is the instruction's own demand: a protection fault, which comes before a page fault.</summary>
    public const uint Aligned = 1 << 20;

    /// <summary>From this bit on, 8 bits: where in its window the access lies that opens it.</summary>
    public const int OpenerShift = 21;

    /// <summary>The instruction leaves the block by itself.</summary>
    public const uint Leaves = 1 << 11;

    /// <summary>The exception has an error code of 0.</summary>
    public const uint ErrorCode = 1 << 10;

    /// <summary>In the lowest byte of an interpreted instruction's: it is one of the frequent, which need not be looked up.</summary>
    public const uint Syscall = 1, Sysret = 2, ReadTimeStamp = 3;

    /// <summary>The guest's flags are in <see cref="CpuContext.SparedFlags"/>, not in the host's.</summary>
    public const uint Spared = 1 << 29;
}

/// <summary>How a block is translated.</summary>
internal enum BlockKind
{
    Normal,

    /// <summary>One instruction, whose bytes may come from two pages or from a device.</summary>
    Alone,

    /// <summary>Several rounds of a loop.</summary>
    Loop,
}

/// <summary>A translated piece of guest code.</summary>
internal sealed unsafe class Block
{
    public ulong Rip;
    public ulong ModeKey;
    public ulong PhysicalPage;

    /// <summary>Offset in the page of the first byte, and behind the last.</summary>
    public int Start;

    public int End;

    /// <summary>Second page of a block whose one instruction crosses pages, or -1.</summary>
    public long SecondPage = -1;

    public byte* Code;

    /// <summary>Entry from the jump cache: checks RBP against <see cref="Rip"/> first.</summary>
    public byte* CheckedEntry;

    /// <summary>Where execution goes once the block is invalid.</summary>
    public byte* Retired;

    /// <summary>Several rounds of a loop.</summary>
    public bool IsLoop;

    /// <summary>From memory of a device: used once.</summary>
    public bool Uncached;
}

/// <summary>
/// Translates one run of guest instructions into host code. Guest registers stay in host registers, guest flags in the host's;
/// a memory operand is looked up in the soft TLB first; whatever cannot run natively calls the interpreter.
/// </summary>
internal sealed unsafe partial class BlockTranslator
{
    private const int MaxInstructions = 48;

    /// <summary>In a block's mode key: each access is looked up by itself, see <see cref="PlanWindows"/>.</summary>
    public const ulong CarefulKey = 1 << 15;
    private const int MaxSideExits = 4;

    /// <summary>Rounds of a loop in one block.</summary>
    private const int MaxCopies = 8;

    /// <summary>What is longer (the decoder stops here) is a general-protection fault.</summary>
    private const int MaxLength = 15;

    private readonly Stubs _stubs = CodeArena.Stubs;
    private readonly TranslatorVcpu _owner;
    private readonly InstructionInfoFactory _infos = new();
    private readonly CodeWriterAtPointer _writer;
    private readonly Encoder _encoder;
    private readonly PageReader _reader = new();
    private readonly Instruction[] _instructions = new Instruction[MaxInstructions];
    private readonly byte* _slot;
    private readonly byte* _coldStart;
    private readonly byte* _slotEnd;

    /// <summary>Where the next block's cold part goes: the slot's upper half, so that what runs lies close together.</summary>
    private byte* _coldEnd;

    private Emitter _e;
    private TranslationMode _mode;
    private Block _block = null!;
    private int _current;
    private bool _fpuChecked;
    private byte* _bytes;

    public BlockTranslator(TranslatorVcpu owner, byte* slot)
    {
        _owner = owner;
        _slot = slot;
        _coldStart = _coldEnd = slot + CodeArena.SlotSize / 2;
        _slotEnd = slot + CodeArena.SlotSize;
        _e.P = slot;
        _writer = new CodeWriterAtPointer(this);
        _encoder = Encoder.Create(64, _writer);
    }

    /// <summary>True when the cache must be flushed before the next translation.</summary>
    public bool IsFull => Math.Min(_coldStart - _e.P, _slotEnd - _coldEnd) < 1 << 20;

    public long BytesUsed => _e.P - _slot + (_coldEnd - _coldStart);

    /// <summary>Forgets all code. Only while no generated code runs.</summary>
    public void Reset()
    {
        _e.P = _slot;
        _coldEnd = _coldStart;
        _siteCount = 0;
        _interpretedCount = 0;
        _hotPlaces.Clear();
        _coldPlaces.Clear();
    }

    /// <summary>Translates from <paramref name="bytes"/>, the <paramref name="available"/> bytes of guest code at RIP. Branches beyond
    /// <paramref name="codeLimit"/> (outside 64-bit mode) fault.</summary>
    /// <returns>The block, not yet registered; null when the first instruction needs more bytes than there are.</returns>
    public Block? Translate(ulong rip, TranslationMode mode, uint codeLimit, int jumpCache, byte* bytes, int available, ulong physicalPage,
        int pageOffset, BlockKind kind, bool careful)
    {
        _mode = mode;
        _codeLimit = codeLimit;
        _bytes = bytes;
        _operandSegment = 3;
        _jumpCache = Layout.Jump + jumpCache * Layout.JumpCache;
        int count = Decode(rip, bytes, available, kind == BlockKind.Alone || mode.SingleStep, out int used);
        if (count == 0)
            return null;
        _isLoop = kind == BlockKind.Normal && !careful && LoopsFrom(rip, count);
        if (kind == BlockKind.Loop)
            count = Unroll(count);
        _kind = kind;
        _polled = false;
        ComputeLiveFlags(count);
        PlanWindows(count, kind != BlockKind.Alone && !careful && mode.Is64 && !mode.SingleStep && !mode.ChecksAlignment);
        while (((long)_e.P & 15) != 0)
            _e.Byte(0xCC);
        byte* entry = _e.P;
        EmitCheckedEntry(rip);
        _block = new Block
        {
            Rip = rip,
            ModeKey = careful ? mode.Key | CarefulKey : mode.Key,
            PhysicalPage = physicalPage,
            Start = pageOffset,
            End = pageOffset + used,
            Code = _e.P,
            CheckedEntry = entry,
            IsLoop = kind == BlockKind.Loop,
        };
        _lastIndex = count - 1;
        _fpuChecked = false;
        StartFlags();
        _cold.Clear();
        bool ended = false;
        for (_current = 0; _current < count && !ended; _current++)
        {
            ref var instruction = ref _instructions[_current];
            _keepsWindows = false;
            if (_current + 1 < count)
                PollBeforeCompare();
            ended = EmitInstruction(ref instruction);
            NoteFlags(_current);
            if (!_keepsWindows)
                ForgetWindowRegisters();
        }
        // An invalidated block is entered at most until its first bytes are overwritten with a jump.
        if (!ended)
        {
            ref var last = ref _instructions[count - 1];
            ulong next = last.NextIP & mode.RipMask;
            if (mode.SingleStep)
                EmitDataCall(_stubs.StepDone, next);
            else
                EmitJumpTo(next);
        }
        while (_e.P - _block.Code < 8)
            _e.Byte(0xCC);
        FlushThunks();
        byte* hotEnd = _e.P;
        _e.P = _coldEnd;
        EmitCold();
        _block.Retired = _e.P;
        EmitDataCall(_stubs.Goto, rip);
        _coldEnd = _e.P;
        _e.P = hotEnd;
        return _block;
    }

    private BlockKind _kind;

    /// <summary>The block ends with a jump to itself, and is worth a translation as a loop.</summary>
    private bool _isLoop;

    /// <summary>Instructions behind which a copy of the loop follows: a jump to the loop's head that goes on there.</summary>
    private readonly bool[] _continues = new bool[MaxInstructions];

    /// <summary>A loop within one block that has accesses to memory, and space for at least two copies.</summary>
    private bool LoopsFrom(ulong rip, int count)
    {
        ref var last = ref _instructions[count - 1];
        if (!_mode.Is64 || _mode.SingleStep || count > MaxInstructions / 2 || last.IsInvalid || last.FlowControl == FlowControl.Next ||
            !last.IsJccShortOrNear && !last.IsJmpShortOrNear || last.NearBranchTarget != rip)
        {
            return false;
        }
        for (int i = 0; i < count; i++)
        {
            if (IsInterpreted(_instructions[i]))
                return false;
        }
        for (int i = 0; i < count; i++)
        {
            if (TryGetAccess(_instructions[i], _infos.GetInfo(_instructions[i]), out _))
                return true;
        }
        return false;
    }

    /// <summary>Repeats a loop's instructions as often as there is space, so that windows, and the poll, serve several rounds.</summary>
    private int Unroll(int count)
    {
        int copies = Math.Min(MaxCopies, MaxInstructions / count);
        Array.Clear(_continues);
        for (int copy = 1; copy < copies; copy++)
        {
            _continues[copy * count - 1] = true;
            Array.Copy(_instructions, 0, _instructions, copy * count, count);
        }
        return copies * count;
    }

    private int Decode(ulong rip, byte* bytes, int available, bool one, out int used)
    {
        _reader.Set(bytes, available);
        var decoder = Decoder.Create(_mode.CodeBits, _reader, rip, DecoderOptions.None);
        int count = 0, sideExits = 0;
        used = 0;
        ulong limit = one ? 1u : (ulong)MaxInstructions;
        while ((ulong)count < limit)
        {
            ref var instruction = ref _instructions[count];
            decoder.Decode(out instruction);
            if (instruction.IsInvalid && decoder.LastError == DecoderError.NoMoreBytes)
                break;
            if (instruction.IsInvalid)
                instruction.Length = Math.Max(1, _reader.Position - used);
            used = _reader.Position;
            count++;
            if (instruction.IsInvalid)
                break;
            var flow = instruction.FlowControl;
            if (flow == FlowControl.Next)
                continue;
            if (flow == FlowControl.ConditionalBranch && instruction.NearBranchTarget > instruction.IP &&
                sideExits < MaxSideExits && instruction.IsJccShortOrNear)
            {
                sideExits++;
                continue;
            }
            break;
        }
        return count;
    }

    private sealed class PageReader : CodeReader
    {
        private byte* _at;
        private int _left;

        public int Position { get; private set; }

        public void Set(byte* at, int length)
        {
            _at = at;
            _left = length;
            Position = 0;
        }

        public override int ReadByte()
        {
            if (_left == 0)
                return -1;
            _left--;
            Position++;
            return *_at++;
        }
    }

    private sealed class CodeWriterAtPointer(BlockTranslator owner) : CodeWriter
    {
        public override void WriteByte(byte value) => owner._e.Byte(value);
    }
}
