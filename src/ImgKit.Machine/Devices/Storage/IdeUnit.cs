namespace ImgKit.Machine.Devices.Storage;

/// <summary>
/// A drive on an IDE channel: its task file and the transfer protocols (PIO in and out, bus-master DMA, packet). What the commands
/// mean is left to <see cref="AtaDisk"/> and <see cref="AtapiDrive"/>. Source: ATA/ATAPI-7 volume 2 (INCITS 397), chapters 5, 6 and 9.
/// </summary>
public abstract class IdeUnit : IStateful
{
    /// <summary>Bits of the status register.</summary>
    protected const byte Busy = 0x80, Ready = 0x40, Fault = 0x20, SeekDone = 0x10, DataRequest = 0x08, ErrorBit = 0x01;

    /// <summary>Bits of the error register.</summary>
    protected const byte Uncorrectable = 0x40, NotFound = 0x10, Aborted = 0x04;

    /// <summary>Bytes of the transfer buffer: 256 sectors.</summary>
    protected const int BufferSize = 131072;

    private readonly byte[] _buffer = GC.AllocateArray<byte>(BufferSize, pinned: true);
    private readonly DmaTransfer _dma;
    private int _position, _end;
    private byte _feature, _count, _lba0, _lba1, _lba2, _previousFeature, _previousCount, _previousLba0, _previousLba1, _previousLba2;
    private byte _select, _status, _error;
    private bool _transferIsWrite, _dmaWaits, _dmaToMemory;

    /// <summary>Makes a drive.</summary>
    protected IdeUnit(IdeChannel channel, int index, Drive drive)
    {
        Channel = channel;
        Index = index;
        Drive = drive;
        _dma = new DmaTransfer(this);
    }

    /// <summary>The channel.</summary>
    public IdeChannel Channel { get; }

    /// <summary>0 master, 1 slave.</summary>
    public int Index { get; }

    /// <summary>What it stores on.</summary>
    public Drive Drive { get; }

    /// <summary>The features register.</summary>
    protected byte Feature => _feature;

    /// <summary>The features register of a 48-bit command.</summary>
    protected ushort Feature16 => (ushort)(_previousFeature << 8 | _feature);

    /// <summary>The sector count register; for packet devices the interrupt reason.</summary>
    protected byte Count
    {
        get => _count;
        set => _count = value;
    }

    /// <summary>Sector count of a 48-bit command as the registers have it.</summary>
    protected int Count16 => _previousCount << 8 | _count;

    /// <summary>LBA bits 0..7, or the sector number.</summary>
    protected byte Lba0
    {
        get => _lba0;
        set => _lba0 = value;
    }

    /// <summary>LBA bits 8..15, or the cylinder's low byte.</summary>
    protected byte Lba1
    {
        get => _lba1;
        set => _lba1 = value;
    }

    /// <summary>LBA bits 16..23, or the cylinder's high byte.</summary>
    protected byte Lba2
    {
        get => _lba2;
        set => _lba2 = value;
    }

    /// <summary>The device register.</summary>
    protected byte Select
    {
        get => _select;
        set => _select = value;
    }

    /// <summary>The 48-bit address in the registers.</summary>
    protected ulong Lba48
    {
        get => (ulong)_previousLba2 << 40 | (ulong)_previousLba1 << 32 | (ulong)_previousLba0 << 24 | (ulong)_lba2 << 16 | (ulong)_lba1 << 8 | _lba0;
        set
        {
            _lba0 = (byte)value;
            _lba1 = (byte)(value >> 8);
            _lba2 = (byte)(value >> 16);
            _previousLba0 = (byte)(value >> 24);
            _previousLba1 = (byte)(value >> 32);
            _previousLba2 = (byte)(value >> 40);
        }
    }

    /// <summary>Puts sector count and address into the HOB registers' current set, for a command that returns them.</summary>
    protected void SetCount16(int value)
    {
        _count = (byte)value;
        _previousCount = (byte)(value >> 8);
    }

    /// <summary>The status register.</summary>
    public byte Status => _status;

    /// <summary>The error register.</summary>
    protected byte Error
    {
        get => _error;
        set => _error = value;
    }

    /// <summary>The PIO buffer.</summary>
    protected Span<byte> Buffer => _buffer;

    /// <summary>The PIO buffer for a request on a worker: it stays where it is in memory.</summary>
    protected byte[] PinnedBuffer => _buffer;

    internal byte ReadRegister(int register, bool previous) => register switch
    {
        1 => previous ? _previousFeature : _error,
        2 => previous ? _previousCount : _count,
        3 => previous ? _previousLba0 : _lba0,
        4 => previous ? _previousLba1 : _lba1,
        5 => previous ? _previousLba2 : _lba2,
        6 => _select,
        _ => _status,
    };

    internal void WriteRegister(int register, byte value)
    {
        if ((_status & (Busy | DataRequest)) != 0 && register != 6)
            return;
        switch (register)
        {
            case 1:
                _previousFeature = _feature;
                _feature = value;
                break;
            case 2:
                _previousCount = _count;
                _count = value;
                break;
            case 3:
                _previousLba0 = _lba0;
                _lba0 = value;
                break;
            case 4:
                _previousLba1 = _lba1;
                _lba1 = value;
                break;
            case 5:
                _previousLba2 = _lba2;
                _lba2 = value;
                break;
            case 6:
                _select = (byte)(value | 0xA0);
                break;
        }
    }

    internal void Execute(byte command)
    {
        if ((_status & (Busy | DataRequest)) != 0 && command != 0x08)
            return;
        _error = 0;
        _status = (byte)(_status & ~(ErrorBit | Fault) | Ready);
        Command(command);
    }

    /// <summary>Runs a command: ends with one of the protocol methods below.</summary>
    protected abstract void Command(byte command);

    /// <summary>The last byte of a PIO transfer to the device is in the buffer, or the last one to the host was taken.</summary>
    /// <param name="written">the host has written.</param>
    protected abstract void TransferDone(bool written);

    /// <summary>DMA was started by the host for a command that waits for it (<see cref="WaitForDma"/>).</summary>
    protected abstract void DmaStarted(DmaTransfer transfer);

    /// <summary>Ends a command well.</summary>
    protected void Finish(bool interrupt = true)
    {
        _status = Ready | SeekDone;
        if (interrupt)
            Channel.RaiseInterrupt(this);
    }

    /// <summary>Ends a command with an error.</summary>
    protected void Fail(byte error)
    {
        _error = error;
        _status = (byte)(Ready | ErrorBit | (_status & SeekDone));
        Channel.RaiseInterrupt(this);
    }

    /// <summary>The device works.</summary>
    protected void SetBusy() => _status = (byte)(_status & ~DataRequest | Busy);

    /// <summary>Offers bytes of the buffer to the host.</summary>
    protected void OfferData(int start, int length, bool interrupt = true)
    {
        _position = start;
        _end = start + length;
        _transferIsWrite = false;
        _status = Ready | SeekDone | DataRequest;
        if (interrupt)
            Channel.RaiseInterrupt(this);
    }

    /// <summary>Asks the host for bytes.</summary>
    protected void RequestData(int start, int length, bool interrupt)
    {
        _position = start;
        _end = start + length;
        _transferIsWrite = true;
        _status = Ready | SeekDone | DataRequest;
        if (interrupt)
            Channel.RaiseInterrupt(this);
    }

    internal uint ReadData(int size)
    {
        // What waits for the bus master is not for the data register.
        if ((_status & DataRequest) == 0 || _transferIsWrite || _dmaWaits)
            return uint.MaxValue;
        uint value = 0;
        for (int i = 0; i < size; i++)
            if (_position < _end)
                value |= (uint)_buffer[_position++] << (8 * i);
        if (_position >= _end)
        {
            _status &= unchecked((byte)~DataRequest);
            TransferDone(false);
        }
        return value;
    }

    internal void WriteData(uint value, int size)
    {
        if ((_status & DataRequest) == 0 || !_transferIsWrite || _dmaWaits)
            return;
        for (int i = 0; i < size; i++)
            if (_position < _end)
                _buffer[_position++] = (byte)(value >> (8 * i));
        if (_position >= _end)
        {
            _status &= unchecked((byte)~DataRequest);
            TransferDone(true);
        }
    }

    /// <summary>Waits until the host starts the bus master.</summary>
    /// <param name="toMemory">the direction.</param>
    protected void WaitForDma(bool toMemory)
    {
        _status = Ready | SeekDone | DataRequest;
        _dmaWaits = true;
        _dmaToMemory = toMemory;
        Channel.DmaRequested(this);
    }

    internal bool IsWaitingForDma => _dmaWaits;

    internal void StartDma()
    {
        _dmaWaits = false;
        SetBusy();
        _dma.Segments.Clear();
        DmaStarted(_dma);
    }

    internal void CancelDma() => _dmaWaits = false;

    internal bool DmaToMemory => _dmaToMemory;

    /// <summary>Back to the state after power-on or SRST, with the device's signature in the registers.</summary>
    internal virtual void Reset()
    {
        _dmaWaits = false;
        _feature = _previousFeature = _previousCount = _previousLba0 = _previousLba1 = _previousLba2 = 0;
        _select = 0xA0;
        _position = _end = 0;
        PutSignature();
    }

    /// <summary>Sets the registers to the device's signature and the status after reset.</summary>
    protected abstract void PutSignature();

    /// <summary>Sets the whole task file for a signature.</summary>
    protected void PutSignature(byte lba1, byte lba2, byte status)
    {
        _count = _lba0 = 1;
        _lba1 = lba1;
        _lba2 = lba2;
        _error = 1;
        _status = status;
    }

    /// <inheritdoc/>
    public virtual void Describe(StateVisitor state)
    {
        state.Bytes("buffer", _buffer);
        state.Field("position", ref _position);
        state.Field("end", ref _end);
        _position = Math.Clamp(_position, 0, BufferSize);
        _end = Math.Clamp(_end, 0, BufferSize);
        state.Field("feature", ref _feature);
        state.Field("count", ref _count);
        state.Field("lba0", ref _lba0);
        state.Field("lba1", ref _lba1);
        state.Field("lba2", ref _lba2);
        state.Field("previous-feature", ref _previousFeature);
        state.Field("previous-count", ref _previousCount);
        state.Field("previous-lba0", ref _previousLba0);
        state.Field("previous-lba1", ref _previousLba1);
        state.Field("previous-lba2", ref _previousLba2);
        state.Field("select", ref _select);
        state.Field("status", ref _status);
        state.Field("error", ref _error);
        state.Field("transfer-is-write", ref _transferIsWrite);
        state.Field("dma-waits", ref _dmaWaits);
        state.Field("dma-to-memory", ref _dmaToMemory);
    }
}

/// <summary>A bus-master transfer: the guest's memory as the descriptor table lists it.</summary>
public sealed class DmaTransfer
{
    internal DmaTransfer(IdeUnit unit) => Unit = unit;

    internal IdeUnit Unit { get; }

    /// <summary>The pieces, cut to the transfer's length.</summary>
    public List<DmaSegment> Segments { get; } = [];

    /// <summary>Collects <paramref name="length"/> bytes of the descriptor table. False when the table is shorter or points at what is not memory.</summary>
    public bool Collect(long length) => Unit.Channel.CollectDescriptors(Segments, length, Unit.DmaToMemory);

    /// <summary>Ends the bus master's work.</summary>
    /// <param name="failed">the table or memory was wrong.</param>
    public void End(bool failed = false) => Unit.Channel.DmaEnded(failed);

    /// <summary>Copies to the pieces and tells who watches memory.</summary>
    public void Fill(ReadOnlySpan<byte> data)
    {
        foreach (var s in Segments)
        {
            int n = Math.Min(s.Length, data.Length);
            data[..n].CopyTo(s.Span);
            data = data[n..];
            Unit.Channel.Services.Memory.Written(s.Guest, n);
        }
    }

    /// <summary>Copies from the pieces.</summary>
    public void Gather(Span<byte> data)
    {
        foreach (var s in Segments)
        {
            int n = Math.Min(s.Length, data.Length);
            s.Span[..n].CopyTo(data);
            data = data[n..];
        }
    }
}
