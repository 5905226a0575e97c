using System.Buffers.Binary;

namespace ImgKit.Machine.Devices.Storage.Scsi;

// The SCRIPTS processor (manual, chapter 5): fetching, waiting, time. Its instructions are in the parts named for them.
public sealed partial class Lsi53C895A
{
    /// <summary>Instructions that run before others get their turn: a script that loops for ever costs little.</summary>
    private const int SliceLength = 2000;

    private const long SlicePause = 200_000;

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
