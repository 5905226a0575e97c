namespace ImgKit.Machine.Devices.Storage.Scsi;

// I/O, register and transfer control instructions (manual, chapter 5).
public sealed partial class Lsi53C895A
{
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
                // Wait reselect: for a target with something to say, or the host's signal.
                if (_isConnected || TryReselect())
                    break;
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
}
