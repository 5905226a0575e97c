namespace ImgKit.Machine.Devices.Storage.Scsi;

// Block move instructions (manual, chapter 5): data, commands, status and messages.
public sealed partial class Lsi53C895A
{
    private const int MostSegments = 512;

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
        long left = _task!.Remaining;
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
        _task.Move(_segments, Leaves);
        if (!_task.IsMoving)
        {
            EndMove();
            NextPhase();
        }
    }

    private void EndMove()
    {
        _wait = Wait.None;
        if (_task!.Moved > 0)
        {
            _last.Taken += _taking;
            if (_phase == Phase.DataIn)
                _r[Sfbr] = _r[Sidl] = _segments[0].Span[0];
            Set32(Csbc, Get32(Csbc) + (uint)_task.Moved);
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
            bytes[0] = _task!.Status;
            n = 1;
            _statusSent = true;
            _unit!.StatusTaken(_task);
        }
        else
        {
            n = (int)Math.Min(move.Count - move.Taken, _messageCount);
            _messages.AsSpan(0, n).CopyTo(bytes);
            _messages.AsSpan(n, _messageCount - n).CopyTo(_messages);
            _messageCount -= (byte)n;
            // After COMMAND COMPLETE and DISCONNECT the target leaves once the byte is acknowledged.
            _isLeaving = !_statusSent && n > 0 && bytes[n - 1] == DisconnectMessage && _messageCount == 0 && _task != null;
            if (_isLeaving || (_statusSent && n > 0 && bytes[n - 1] == 0))
                _isEnding = true;
        }
        if (n > 0)
            (_r[Sfbr], _r[Sidl]) = (bytes[0], bytes[n - 1]);      // the first byte, and what was latched last
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
}
