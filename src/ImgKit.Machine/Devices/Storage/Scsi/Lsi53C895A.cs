using System.Buffers.Binary;
using ImgKit.Cpu;
using ImgKit.Host;
using ImgKit.Machine.Pci;

namespace ImgKit.Machine.Devices.Storage.Scsi;

/// <summary>
/// The LSI53C895A PCI SCSI host adapter in initiator mode: registers here, the SCRIPTS processor and the bus in the other parts. Source: LSI Logic,
/// LSI53C895A PCI to Ultra2 SCSI Controller Technical Manual 2.2, chapters 4 (registers) and 5 (SCRIPTS).
/// </summary>
public sealed partial class Lsi53C895A : PciDevice, IPortHandler, IMmioHandler, IDisposable
{
    // Registers by offset.
    private const int Scntl0 = 0x00, Scntl1 = 0x01, Scntl2 = 0x02, Scntl3 = 0x03, Scid = 0x04, Sxfer = 0x05, Sdid = 0x06, Gpreg = 0x07, Sfbr = 0x08,
        Socl = 0x09, Ssid = 0x0A, Sbcl = 0x0B, Dstat = 0x0C, Sstat0 = 0x0D, Sstat1 = 0x0E, Dsa = 0x10, Istat0 = 0x14, Istat1 = 0x15, Ctest1 = 0x19,
        Ctest2 = 0x1A, Temp = 0x1C, Dfifo = 0x20, Ctest5 = 0x22, Dbc = 0x24, Dcmd = 0x27, Dnad = 0x28, Dsp = 0x2C, Dsps = 0x30, ScratchA = 0x34,
        Dmode = 0x38, Dien = 0x39, Dcntl = 0x3B, Sien0 = 0x40, Sien1 = 0x41, Sist0 = 0x42, Sist1 = 0x43, Gpcntl = 0x47, Stime1 = 0x49, Stest2 = 0x4E,
        Sidl = 0x50, Stest4 = 0x52, Ccntl0 = 0x56, Ccntl1 = 0x57, Sbdl = 0x58, ScratchB = 0x5C, ScratchC = 0x60, Mmrs = 0xA0, Pmjad1 = 0xC0, Rbc = 0xC8,
        Ua = 0xCC, Esa = 0xD0, Ia = 0xD4, Sbc = 0xD8, Csbc = 0xDC;

    // DSTAT
    private const byte FifoEmpty = 0x80, BusFault = 0x20, Aborted = 0x10, SingleStep = 0x08, ScriptInterrupt = 0x04, IllegalInstruction = 0x01;

    // ISTAT0
    private const byte Abort = 0x80, SoftReset = 0x40, SignalProcess = 0x20, Connected = 0x08, OnTheFly = 0x04, ScsiPending = 0x02, DmaPending = 0x01;

    // SIST0, SIST1
    private const byte PhaseMismatch = 0x80, Completed = 0x40, Selected = 0x20, Reselected = 0x10, UnexpectedDisconnect = 0x04, BusWasReset = 0x02;
    private const byte SelectionTimeout = 0x04, GeneralTimer = 0x02, HandshakeTimer = 0x01;

    private const byte AssertReset = 0x08;              // SCNTL1
    private const byte DisconnectIsUnexpected = 0x80;   // SCNTL2

    private const int RamSize = 8192;

    private readonly byte[] _r = new byte[256];
    private readonly MemoryMapping _ram = MemoryMapping.Anonymous(RamSize);
    private readonly MappedRange _ramRange;
    private readonly ClockTimer _general, _slice;

    /// <summary>Makes an adapter whose bus is empty.</summary>
    /// <param name="services">what the machine gives.</param>
    /// <param name="number">of this adapter among its kind, for the bus's name.</param>
    /// <param name="id">the user's name for it, or null.</param>
    public Lsi53C895A(MachineServices services, int number, string? id) : base(services, 0x1000, 0x0012, 0x010000)
    {
        SetSubsystem(0x1000, 0x1000);
        Config[0x06] = 0;
        Config[0x07] = 0x02;
        Config[0x0D] = 0xFF;
        SetInterruptPin(1);
        AddPortBar(0, 256, this);
        AddMmioBar(1, 1024, this);
        _ramRange = services.Space.Add(AddressSpace.PciPriority);
        _ramRange.Host = _ram.Address;
        _ramRange.Kind = MemoryKind.Ram;
        AddMemoryBar(2, RamSize, _ramRange, false);
        _general = services.Clock.CreateTimer(() => Interrupt(0, GeneralTimer));
        _slice = services.Clock.CreateTimer(Run);
        Scsi = new ScsiBus(services)
        {
            Name = id != null ? id + ".0" : $"scsi.{number}",
            FirmwarePath = () => $"/pci@i0cf8/scsi@{DeviceFunction >> 3:x}{((DeviceFunction & 7) != 0 ? $",{DeviceFunction & 7:x}" : "")}",
            Advanced = TaskAdvanced,
        };
        ResetChip();
    }

    /// <summary>The catalogue's entry.</summary>
    public static DeviceType Type { get; } = new("lsi53c895a", DeviceBus.Pci, "Storage", "LSI53C895A SCSI host adapter", [],
        static plug =>
        {
            var adapter = new Lsi53C895A(plug.Services, plug.Machine.Devices.OfType<Lsi53C895A>().Count(), plug.Options.Text("id"));
            plug.PlugPci(adapter);
            return adapter;
        });

    /// <inheritdoc/>
    public override string TypeName => "lsi53c895a";

    /// <summary>The SCSI bus.</summary>
    public ScsiBus Scsi { get; }

    private uint Get32(int at) => BinaryPrimitives.ReadUInt32LittleEndian(_r.AsSpan(at));

    private void Set32(int at, uint value) => BinaryPrimitives.WriteUInt32LittleEndian(_r.AsSpan(at), value);

    private uint Get24(int at) => Get32(at) & 0xFFFFFF;

    private void Set24(int at, uint value)
    {
        _r[at] = (byte)value;
        _r[at + 1] = (byte)(value >> 8);
        _r[at + 2] = (byte)(value >> 16);
    }

    private void ResetChip()
    {
        Stop();
        _general.Cancel();
        Array.Clear(_r);
        _r[Scntl0] = 0xC0;
        _r[Scid] = ScsiBus.InitiatorId;
        _r[Dstat] = FifoEmpty;
        _r[Ctest1] = 0xF0;
        _r[Gpcntl] = 0x0F;
        Disconnect();
        UpdateInterrupt();
    }

    // --- Interrupts (manual, 2.2.16: polling and hardware interrupts)

    private void UpdateInterrupt()
    {
        bool dma = (_r[Dstat] & ~FifoEmpty & 0xFF) != 0, scsi = (_r[Sist0] | _r[Sist1]) != 0;
        byte istat = (byte)(_r[Istat0] & (SignalProcess | 0x10 | OnTheFly));
        if (dma)
            istat |= DmaPending;
        if (scsi && ((_r[Sist0] & (Fatal0 | _r[Sien0])) != 0 || (_r[Sist1] & (Fatal1 | _r[Sien1])) != 0))
            istat |= ScsiPending;
        if (_isConnected)
            istat |= Connected;
        _r[Istat0] = istat;
        bool level = (_r[Dstat] & _r[Dien] & ~FifoEmpty) != 0 || (_r[Sist0] & _r[Sien0]) != 0 || (_r[Sist1] & _r[Sien1]) != 0 || (istat & OnTheFly) != 0;
        SetInterrupt(level && (_r[Dcntl] & 2) == 0 && (_r[Istat1] & 1) == 0);
    }

    // In initiator mode all conditions but these stop the processor, masked or not.
    private const byte Fatal0 = unchecked((byte)~(Completed | Selected | Reselected)), Fatal1 = unchecked((byte)~(GeneralTimer | HandshakeTimer));

    private void Interrupt(byte sist0, byte sist1)
    {
        _r[Sist0] |= sist0;
        _r[Sist1] |= sist1;
        if ((sist0 & (Fatal0 | _r[Sien0])) != 0 || (sist1 & (Fatal1 | _r[Sien1])) != 0)
            Stop();
        UpdateInterrupt();
    }

    private void DmaInterrupt(byte cause)
    {
        _r[Dstat] |= cause;
        Stop();
        UpdateInterrupt();
    }

    // --- Registers

    private byte ReadByte(int at)
    {
        switch (at)
        {
            case Gpreg:
                // Inputs are pulled up: no serial EEPROM answers.
                return (byte)(_r[Gpreg] & ~_r[Gpcntl] | _r[Gpcntl] & 0x1F);
            case Sbcl:
                return ControlLines;
            case Dstat:
            {
                byte value = _r[Dstat];
                _r[Dstat] = FifoEmpty;
                UpdateInterrupt();
                return value;
            }
            case Sstat1:
                return (byte)_phase;
            case Istat1:
                return (byte)(_r[Istat1] | (_isRunning ? 2 : 0));
            case Ctest2:
            {
                // Reading it takes the signal away.
                byte value = (byte)(_r[Ctest2] & 0x08 | 0x11 | ((_r[Istat0] & SignalProcess) != 0 ? 0x40 : 0));
                _r[Istat0] &= unchecked((byte)~SignalProcess);
                return value;
            }
            case Dfifo:
                return _r[Dbc];
            case Ctest5:
                return (byte)(_r[Ctest5] & 0xFC | _r[Dbc + 1] & 3);
            case Sist0 or Sist1:
            {
                byte value = _r[at];
                _r[at] = 0;
                UpdateInterrupt();
                return value;
            }
            case Stest4:
                return 0xE0;        // low voltage differential, clock quadrupler locked
            case Sbdl or Sbdl + 1:
                return 0;
            default:
                return _r[at];
        }
    }

    private void WriteByte(int at, byte value)
    {
        switch (at)
        {
            case Scntl1:
                WriteControl1(value);
                break;
            case Scntl2:
                // The wide residue bits go away when written; there are none: the bus is narrow.
                _r[at] = (byte)(value & ~0x09);
                break;
            case Ssid or Sbcl or Dstat or Sstat0 or Sstat1 or 0x0F or Dfifo or Sist0 or Sist1 or Stest4 or Sbdl or Sbdl + 1 or Sidl or Sidl + 1:
                break;
            case Istat0:
                WriteInterruptStatus(value);
                break;
            case Istat1:
                _r[at] = (byte)(value & 1);
                UpdateInterrupt();
                break;
            case Dsp + 3:
                _r[at] = value;
                if ((_r[Dmode] & 1) == 0)
                    Start();
                break;
            case Dcntl:
                _r[at] = (byte)(value & ~4);
                UpdateInterrupt();
                if ((value & 4) != 0)
                    Start();
                break;
            case Dien or Sien0 or Sien1:
                _r[at] = value;
                UpdateInterrupt();
                break;
            case Stime1:
                _r[at] = value;
                WriteGeneralTimer((byte)(value & 15));
                break;
            default:
                _r[at] = value;
                break;
        }
    }

    private void WriteControl1(byte value)
    {
        bool reset = (value & AssertReset) != 0, was = (_r[Scntl1] & AssertReset) != 0;
        _r[Scntl1] = (byte)(value & ~0x10 | (_isConnected ? 0x10 : 0));
        if (reset == was)
            return;
        if (!reset)
        {
            _r[Sstat0] &= unchecked((byte)~2);
            return;
        }
        _r[Sstat0] |= 2;
        ForgetTasks();
        Scsi.Reset(2);
        Disconnect();
        Interrupt(BusWasReset, 0);
    }

    private void WriteInterruptStatus(byte value)
    {
        if ((value & SoftReset) != 0)
        {
            ResetChip();
            _r[Istat0] |= SoftReset;
            return;
        }
        _r[Istat0] = (byte)(_r[Istat0] & ~(0x30 | SoftReset) | value & 0x30);
        if ((value & OnTheFly) != 0)
            _r[Istat0] &= unchecked((byte)~OnTheFly);
        UpdateInterrupt();
        if ((value & Abort) != 0)
            DmaInterrupt(Aborted);
        else if ((value & SignalProcess) != 0 && _wait == Wait.Reselect)
            Continue();
    }

    // 4340 cycles of the 40 MHz clock behind the divider in SCNTL3, doubled with each step.
    private void WriteGeneralTimer(byte setting)
    {
        if (setting == 0)
        {
            _general.Cancel();
            return;
        }
        ReadOnlySpan<byte> halves = [6, 2, 3, 4, 6, 8, 12, 16];
        long period = 36_167L * halves[_r[Scntl3] & 7] / 2;
        _general.Arm(Services.Clock.Now + (period << setting));
    }

    uint IPortHandler.PortRead(ushort port, int size) => Read(port, size);

    void IPortHandler.PortWrite(ushort port, uint value, int size) => Write(port, value, size);

    ulong IMmioHandler.MmioRead(ulong offset, int size) => size == 8
        ? Read((int)offset, 4) | (ulong)Read((int)offset + 4, 4) << 32 : Read((int)offset, size);

    void IMmioHandler.MmioWrite(ulong offset, ulong value, int size)
    {
        Write((int)offset, (uint)value, Math.Min(size, 4));
        if (size == 8)
            Write((int)offset + 4, (uint)(value >> 32), 4);
    }

    private uint Read(int at, int size)
    {
        uint value = 0;
        for (int i = 0; i < size; i++)
            value |= (uint)ReadByte((at + i) & 0xFF) << (8 * i);
        return value;
    }

    private void Write(int at, uint value, int size)
    {
        for (int i = 0; i < size; i++)
            WriteByte((at + i) & 0xFF, (byte)(value >> (8 * i)));
    }

    /// <inheritdoc/>
    public override void Reset()
    {
        base.Reset();
        ForgetTasks();
        ResetChip();
        Scsi.Reset(0);
    }

    /// <inheritdoc/>
    public override void Close() => Dispose();

    /// <summary>Gives the script RAM back.</summary>
    public void Dispose() => _ram.Dispose();

    /// <inheritdoc/>
    public override unsafe void Describe(StateVisitor state)
    {
        base.Describe(state);
        state.Bytes("registers", _r);
        state.Bytes("script-ram", new Span<byte>((void*)_ram.Address, RamSize));
        _general.Describe(state, "general-timer");
        _slice.Describe(state, "slice");
        DescribeProcessor(state);
        DescribeBus(state);
        state.Part("bus", Scsi);
        if (!state.IsLoading)
            return;
        FindTasks();
        if (_wait == Wait.Move)
        {
            // A transfer that had not ended when the state was saved begins again.
            _wait = Wait.None;
            _last = _first;
            _isPartial = _hasPhase = true;
        }
        if (_isRunning && _wait == Wait.None)
            _slice.Arm(Services.Clock.Now);
        UpdateInterrupt();
    }
}
