using System.Buffers.Binary;

namespace ImgKit.Machine.Devices.Storage.Scsi;

// The SCRIPTS processor (manual, chapter 5).
public sealed partial class Lsi53C895A
{
    /// <summary>Instructions that run before others get their turn: a script that loops for ever costs little.</summary>
    private const int SliceLength = 2000;

    private const long SlicePause = 200_000;

    private const int MostSegments = 512;

    private enum Wait : byte
    {
        None,

        /// <summary>For the target to ask for a phase.</summary>
        Phase,

        /// <summary>For data to be moved.</summary>
        Move,

        /// <summary>For the target to leave the bus.</summary>
        Disconnect,

        /// <summary>For a target to come back, or the host's signal.</summary>
        Reselect,
    }

    /// <summary>A block move: where it stands, what it moves.</summary>
    private struct BlockMove
    {
        internal uint At, Next, Count, Table, Taken;
        internal ulong Address;
        internal byte Opcode;

        internal void Describe(StateVisitor state, string name)
        {
            state.Field(name + "-at", ref At);
            state.Field(name + "-next", ref Next);
            state.Field(name + "-count", ref Count);
            state.Field(name + "-table", ref Table);
            state.Field(name + "-taken", ref Taken);
            state.Field(name + "-address", ref Address);
            state.Field(name + "-opcode", ref Opcode);
        }
    }

    private readonly List<DmaSegment> _segments = [];
    private bool _isRunning, _carry, _isInside, _isPartial, _nobodyAnswers;
    private Wait _wait;
    private BlockMove _first, _last;
    private uint _taking;               // bytes of the last move that are under way

    private void Start()
    {
        _wait = Wait.None;
        _isPartial = false;
        _isRunning = true;
        _slice.Cancel();
        Run();
    }

    private void Stop()
    {
        _isRunning = _isPartial = _nobodyAnswers = false;
        _wait = Wait.None;
        _slice.Cancel();
    }

    private void Continue()
    {
        _wait = Wait.None;
        Run();
    }

    private void Run()
    {
        // Instructions write registers that start the processor.
        if (_isInside)
            return;
        _isInside = true;
        int left = SliceLength;
        while (_isRunning && _wait == Wait.None && left-- > 0)
        {
            Step();
            if (_isRunning && _wait == Wait.None && (_r[Dcntl] & 0x10) != 0)
                DmaInterrupt(SingleStep);
        }
        _isInside = false;
        if (_isRunning && _wait == Wait.None)
            _slice.Arm(Services.Clock.Now + SlicePause);
    }

    /// <summary>An instruction needs a target: where none has answered to the selection, its time is over.</summary>
    private bool TimedOut()
    {
        if (!_nobodyAnswers)
            return false;
        _nobodyAnswers = false;
        Interrupt(0, SelectionTimeout);
        return true;
    }

    private void WaitFor(Wait what, uint at)
    {
        // The instruction runs again once there is what it waits for.
        _wait = what;
        Set32(Dsp, at);
    }

    private bool TryFetch(ref uint at, out uint value)
    {
        Span<byte> b = stackalloc byte[4];
        bool ok = Services.Memory.Read(at, b);
        value = BinaryPrimitives.ReadUInt32LittleEndian(b);
        at += 4;
        return ok;
    }

    private bool Fetch(ref uint at, out uint value)
    {
        if (TryFetch(ref at, out value))
            return true;
        DmaInterrupt(BusFault);
        return false;
    }

    private void Step()
    {
        if (_isPartial)
        {
            if (_hasPhase)
                MoveBlock(_last);
            else
                _wait = Wait.Phase;
            return;
        }
        uint at = Get32(Dsp), start = at;
        if (!Fetch(ref at, out uint first) || !Fetch(ref at, out uint second))
            return;
        Set24(Dbc, first);
        _r[Dcmd] = (byte)(first >> 24);
        Set32(Dsps, second);
        Set32(Dsp, at);
        switch (first >> 30)
        {
            case 0:
                MoveBlock(start);
                break;
            case 1:
                if ((first >> 27 & 7) < 5)
                    InputOutput(first, second, start);
                else
                    ReadModifyWrite(first);
                break;
            case 2:
                TransferControl(first, second, start);
                break;
            default:
                if ((first & 0x2000_0000) != 0)
                    LoadStore(first, second);
                else
                    MoveMemory(first, second);
                break;
        }
    }

    // --- Block moves

    private static uint SignExtend(uint value) => (uint)((int)(value << 8) >> 8);

    /// <summary>Reads a block move with its table entry, without effects. False when there is no memory there.</summary>
    private bool Decode(uint start, out BlockMove move)
    {
        move = new BlockMove { At = start };
        uint at = start;
        if (!TryFetch(ref at, out uint first) || !TryFetch(ref at, out uint second))
            return false;
        move.Opcode = (byte)(first >> 24);
        move.Count = first & 0xFFFFFF;
        byte mode = _r[Ccntl1];
        if ((first & 0x1000_0000) != 0)
        {
            // Table indirect: count and address lie at DSA plus an offset.
            uint table = Get32(Dsa) + SignExtend(second), entry = table;
            if (!TryFetch(ref entry, out uint count) || !TryFetch(ref entry, out uint address))
                return false;
            move.Table = table;
            move.Count = count & 0xFFFFFF;
            move.Address = address;
            if ((mode & 2) != 0)
            {
                uint high = count >> 24;
                // With 64TIMOD, the byte is the address's bits 32 to 39; else it selects a register that holds the upper half.
                move.Address |= (ulong)((mode & 4) != 0 ? high : Selector(high & 0x1F)) << 32;
            }
        }
        else if ((first & 0x2000_0000) != 0)
        {
            uint pointer = second;
            if (!TryFetch(ref pointer, out uint address))
                return false;
            move.Address = address;
        }
        else
        {
            move.Address = second;
            if ((mode & 1) != 0)
            {
                if (!TryFetch(ref at, out uint high))
                    return false;
                move.Address |= (ulong)high << 32;
            }
        }
        move.Next = at;
        return true;
    }

    private uint Selector(uint index) => index < 16 ? Get32(ScratchC + 4 * (int)index) : index < 0x16 ? Get32(Mmrs + 4 * ((int)index - 16)) : 0;

    private void MoveBlock(uint start)
    {
        if (TimedOut())
            return;
        if (!Decode(start, out var move))
            DmaInterrupt(BusFault);
        else if (move.Count == 0)
            Set32(Dsp, move.Next);      // the manual calls it illegal; SeaBIOS has one in the script of each command without data
        else if (!_hasPhase)
            WaitFor(Wait.Phase, start);
        else
            MoveBlock(move);
    }

    // Begins a move, or goes on with one after the target has paused in the middle of it.
    private void MoveBlock(BlockMove move)
    {
        _isPartial = false;
        Set32(Dsp, move.Next);
        if ((Phase)(move.Opcode & 7) != _phase)
            Mismatch(move);
        else
            switch (_phase)
            {
                case Phase.DataIn or Phase.DataOut:
                    MoveData(move);
                    break;
                case Phase.Command:
                    Send(move, 16);
                    break;
                case Phase.MessageOut:
                    Send(move, 255);
                    break;
                default:
                    Receive(move);
                    break;
            }
    }

    /// <summary>Data of the command goes straight between the drive and guest memory. Moves that follow at once in the script are done together
    /// with the first: one request for a whole scatter list.</summary>
    private void MoveData(in BlockMove first)
    {
        bool toGuest = _phase == Phase.DataIn;
        _segments.Clear();
        _first = _last = first;
        long left = _unit!.Remaining;
        while (true)
        {
            _taking = (uint)Math.Min(_last.Count - _last.Taken, left);
            if (!Services.Memory.TryAdd(_segments, _last.Address + _last.Taken, _taking, toGuest))
            {
                DmaInterrupt(BusFault);
                return;
            }
            left -= _taking;
            if (left == 0 || _segments.Count >= MostSegments || !Decode(_last.Next, out var next) || next.Count == 0
                || next.Opcode >> 6 != 0 || (next.Opcode & 7) != (byte)_phase)
                break;
            _last = next;
        }
        _wait = Wait.Move;
        _unit.Move(_segments);
        if (!_unit.IsMoving)
        {
            EndMove();
            NextPhase();
        }
    }

    private void EndMove()
    {
        _wait = Wait.None;
        if (_unit!.Moved > 0)
        {
            _last.Taken += _taking;
            if (_phase == Phase.DataIn)
                _r[Sfbr] = _r[Sidl] = _segments[0].Span[0];
            Set32(Csbc, Get32(Csbc) + (uint)_unit.Moved);
        }
        else
            _last = _first;
        PutMove(_last);
        _isPartial = _last.Taken < _last.Count;
    }

    private void PutMove(in BlockMove move)
    {
        _r[Dcmd] = move.Opcode;
        Set24(Dbc, move.Count - move.Taken);
        Set32(Dnad, (uint)move.Address + move.Taken);
        Set32(Dsp, move.Next);
    }

    /// <summary>The target asks for another phase than the move is for.</summary>
    private void Mismatch(in BlockMove move)
    {
        PutMove(move);
        bool isData = (move.Opcode & 6) == 0;
        byte control = _r[Ccntl0];
        if ((control & 0x80) == 0 || !(isData || (control & 0x20) != 0))
        {
            Interrupt(PhaseMismatch, 0);
            return;
        }
        // Phase mismatch jump: the script takes care of it.
        Set32(Rbc, move.Count - move.Taken | (uint)move.Opcode << 24);
        Set32(Ua, (uint)move.Address + move.Taken);
        Set32(Esa, move.Table);
        Set32(Ia, move.At);
        Set24(Sbc, move.Taken);
        // With PMJCTL by the direction of the move; else by whether a byte is left over from a wide transfer, which is never so.
        bool second = (control & 0x40) != 0 && (move.Opcode & 1) != 0;
        Set32(Dsp, Get32(second ? Pmjad1 + 4 : Pmjad1));
    }

    /// <summary>Bytes to the target: messages and commands.</summary>
    private void Send(in BlockMove move, int most)
    {
        Span<byte> bytes = stackalloc byte[256];
        int n = (int)Math.Min(move.Count, (uint)most);
        bytes = bytes[..n];
        if (!Services.Memory.Read(move.Address, bytes))
        {
            DmaInterrupt(BusFault);
            return;
        }
        if (_phase == Phase.MessageOut)
        {
            _attention = false;
            TakeMessages(bytes);
        }
        else
            TakeCommand(bytes);
        Set24(Dbc, 0);
        Set32(Dnad, (uint)move.Address + move.Count);
        NextPhase();
    }

    /// <summary>Bytes from the target: messages and the status.</summary>
    private void Receive(in BlockMove move)
    {
        Span<byte> bytes = stackalloc byte[8];
        int n;
        if (_phase == Phase.Status)
        {
            bytes[0] = _unit!.Status;
            n = 1;
            _statusSent = true;
        }
        else
        {
            n = (int)Math.Min(move.Count - move.Taken, _messageCount);
            _messages.AsSpan(0, n).CopyTo(bytes);
            _messages.AsSpan(n, _messageCount - n).CopyTo(_messages);
            _messageCount -= (byte)n;
            // After COMMAND COMPLETE the target leaves once the byte is acknowledged.
            if (_statusSent && n > 0 && bytes[n - 1] == 0)
                _isEnding = true;
        }
        if (n > 0)
            _r[Sfbr] = _r[Sidl] = bytes[0];
        if (!Services.Memory.Write(move.Address + move.Taken, bytes[..n]))
        {
            DmaInterrupt(BusFault);
            return;
        }
        Set24(Dbc, move.Count - move.Taken - (uint)n);
        Set32(Dnad, (uint)move.Address + move.Taken + (uint)n);
        NextPhase();
        _last = move;
        _last.Taken += (uint)n;
        _isPartial = _last.Taken < _last.Count && !_isEnding;
    }

    // --- I/O instructions

    private void InputOutput(uint first, uint second, uint start)
    {
        bool relative = (first & 0x0400_0000) != 0;
        uint target = relative ? Get32(Dsp) + SignExtend(second) : second;
        switch (first >> 27 & 7)
        {
            case 0:
                SelectTarget(first, target);
                break;
            case 1:
                // Wait disconnect
                if (TimedOut())
                    break;
                if (_isConnected && !_isEnding)
                    WaitFor(Wait.Disconnect, start);
                else if (_isConnected)
                    Disconnect();
                break;
            case 2:
                // Wait reselect: targets never leave in the middle of a command, so that only the host's signal ends it.
                if ((_r[Istat0] & SignalProcess) != 0)
                    Set32(Dsp, target);
                else
                    WaitFor(Wait.Reselect, start);
                break;
            case 3:
                if ((first & 0x400) != 0)
                    _carry = true;
                if ((first & 8) != 0 && _isConnected)
                {
                    _attention = true;
                    if (_hasPhase && _messageCount == 0)
                        NextPhase();
                }
                break;
            default:
                if ((first & 0x400) != 0)
                    _carry = false;
                if ((first & 8) != 0)
                    _attention = false;
                if ((first & 0x40) != 0 && _isConnected)
                {
                    if (_isEnding)
                        Leave();
                    else
                        NextPhase();
                }
                break;
        }
    }

    private void SelectTarget(uint first, uint otherwise)
    {
        // A script that does not wait for the end of the last command finds the bus free by now.
        if (_isConnected && _isEnding)
            Disconnect();
        if (_isConnected)
        {
            Set32(Dsp, otherwise);
            return;
        }
        byte id = (byte)(first >> 16 & 15);
        if ((first & 0x0200_0000) != 0)
        {
            // Table indirect: the synchronous parameters and the identifier come from memory.
            uint entry = Get32(Dsa) + SignExtend(first);
            if (!Fetch(ref entry, out uint parameters))
                return;
            _r[Scntl3] = (byte)(parameters >> 24);
            _r[Sxfer] = (byte)(parameters >> 8);
            id = (byte)(parameters >> 16 & 15);
        }
        _r[Sdid] = id;
        // The processor goes on while the target is being selected, up to the next instruction that needs one (chapter 5, select).
        _nobodyAnswers = !Select(id, (first & 0x0100_0000) != 0);
    }

    // --- Registers

    private void ReadModifyWrite(uint first)
    {
        int register = (int)(first >> 16 & 0x7F | (first & 0x80)), operation = (int)(first >> 24 & 7);
        uint opcode = first >> 27 & 7;
        byte operand = (first & 0x80_0000) != 0 ? _r[Sfbr] : (byte)(first >> 8);
        byte from = opcode == 5 ? _r[Sfbr] : operation == 0 ? (byte)0 : ReadByte(register);
        int value;
        switch (operation)
        {
            case 0:
                value = operand;
                break;
            case 1:
                value = from << 1 | (_carry ? 1 : 0);
                _carry = (from & 0x80) != 0;
                break;
            case 2:
                value = from | operand;
                break;
            case 3:
                value = from ^ operand;
                break;
            case 4:
                value = from & operand;
                break;
            case 5:
                value = from >> 1 | (_carry ? 0x80 : 0);
                _carry = (from & 1) != 0;
                break;
            default:
                value = from + operand + (operation == 7 && _carry ? 1 : 0);
                _carry = value > 0xFF;
                break;
        }
        if (opcode == 6)
            _r[Sfbr] = (byte)value;
        else
            WriteByte(register, (byte)value);
    }

    // --- Transfer control

    private void TransferControl(uint first, uint second, uint start)
    {
        bool wait = (first & 0x1_0000) != 0, comparePhase = (first & 0x2_0000) != 0, compareData = (first & 0x4_0000) != 0;
        if (wait && TimedOut())
            return;
        if (wait && _isConnected && !_hasPhase && !_isEnding)
        {
            WaitFor(Wait.Phase, start);
            return;
        }
        uint opcode = first >> 27 & 7;
        if ((first & 0x40_0000) != 0 && opcode < 2)
        {
            // A 64-bit jump: the third word is the upper half, which has to be zero here.
            uint at = Get32(Dsp);
            if (!Fetch(ref at, out _))
                return;
            Set32(Dsp, at);
        }
        bool wanted = (first & 0x8_0000) != 0, holds = wanted;
        if ((first & 0x20_0000) != 0)
            holds = _carry == wanted;
        else
        {
            // Compared conditions must hold together; the comparison as a whole is then true or false.
            bool equal = true;
            if (comparePhase)
                equal &= _isConnected && (byte)_phase == (first >> 24 & 7);
            if (compareData)
            {
                byte mask = (byte)~(first >> 8);
                equal &= (_r[Sfbr] & mask) == ((byte)first & mask);
            }
            if (comparePhase || compareData)
                holds = equal == wanted;
        }
        if (!holds)
            return;
        uint target = (first & 0x80_0000) != 0 ? Get32(Dsp) + SignExtend(second) : second;
        switch (opcode)
        {
            case 0:
                Set32(Dsp, target);
                break;
            case 1:
                Set32(Temp, Get32(Dsp));
                Set32(Dsp, target);
                break;
            case 2:
                Set32(Dsp, Get32(Temp));
                break;
            case 3 when (first & 0x10_0000) != 0:
                _r[Istat0] |= OnTheFly;
                UpdateInterrupt();
                break;
            case 3:
                DmaInterrupt(ScriptInterrupt);
                break;
            default:
                DmaInterrupt(IllegalInstruction);
                break;
        }
    }

    // --- Memory

    private void MoveMemory(uint first, uint source)
    {
        uint at = Get32(Dsp);
        if (!Fetch(ref at, out uint target))
            return;
        Set32(Dsp, at);
        Set32(Temp, target);
        uint left = first & 0xFFFFFF;
        Span<byte> piece = stackalloc byte[1024];
        while (left > 0)
        {
            int n = (int)Math.Min(left, (uint)piece.Length);
            if (!ReadOwnOrMemory(source, piece[..n]) || !WriteOwnOrMemory(target, piece[..n]))
            {
                DmaInterrupt(BusFault);
                return;
            }
            source += (uint)n;
            target += (uint)n;
            left -= (uint)n;
        }
    }

    // A memory move may name the adapter's own registers.
    private bool IsOwn(uint address, out int register)
    {
        ulong bar = BarAddress(1);
        register = (int)(address & 0xFF);
        return bar != 0 && address >= bar && address - bar < 1024;
    }

    private bool ReadOwnOrMemory(uint address, Span<byte> to)
    {
        if (!IsOwn(address, out int register))
            return Services.Memory.Read(address, to);
        for (int i = 0; i < to.Length; i++)
            to[i] = ReadByte((register + i) & 0xFF);
        return true;
    }

    private bool WriteOwnOrMemory(uint address, ReadOnlySpan<byte> from)
    {
        if (!IsOwn(address, out int register))
            return Services.Memory.Write(address, from);
        for (int i = 0; i < from.Length; i++)
            WriteByte((register + i) & 0xFF, from[i]);
        return true;
    }

    private void LoadStore(uint first, uint second)
    {
        int register = (int)(first >> 16 & 0xFF), count = (int)(first & 7);
        if (count is 0 or > 4)
        {
            DmaInterrupt(IllegalInstruction);
            return;
        }
        uint address = (first & 0x1000_0000) != 0 ? Get32(Dsa) + SignExtend(second) : second;
        Set32(Dnad, address);
        Span<byte> data = stackalloc byte[4];
        data = data[..count];
        bool load = (first & 0x0100_0000) != 0, ok;
        if (load)
        {
            ok = Services.Memory.Read(address, data);
            for (int i = 0; ok && i < count; i++)
                WriteByte((register + i) & 0xFF, data[i]);
        }
        else
        {
            for (int i = 0; i < count; i++)
                data[i] = ReadByte((register + i) & 0xFF);
            ok = Services.Memory.Write(address, data);
        }
        if (!ok)
            DmaInterrupt(BusFault);
    }

    private void DescribeProcessor(StateVisitor state)
    {
        state.Field("running", ref _isRunning);
        state.Field("carry", ref _carry);
        state.Field("partial", ref _isPartial);
        state.Field("nobody-answers", ref _nobodyAnswers);
        byte wait = (byte)_wait;
        state.Field("wait", ref wait);
        _wait = (Wait)Math.Min(wait, (byte)Wait.Reselect);
        _first.Describe(state, "first");
        _last.Describe(state, "last");
    }
}
