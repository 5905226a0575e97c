using ImgKit.Block;
using ImgKit.Cpu;
using ImgKit.Host;

namespace ImgKit.Machine.Devices.Storage.Flash;

/// <summary>
/// Firmware in NOR flash with the Intel command set, behind a drive (<c>if=pflash</c>): read like memory, and programmed byte by byte, so that
/// firmware keeps its variables. One 8-bit chip with blocks of 4 KiB. Sources: JEDEC JESD68.01 and JEP137 (common flash interface, primary command
/// set 1), Intel 28FxxxJ3 data sheet.
/// </summary>
public sealed class ParallelFlash : Device, IMmioHandler
{
    /// <summary>Bytes that are erased together; the length of a chip is a multiple.</summary>
    public const int BlockSize = 4096;

    /// <summary>The most that chips can have together: what lies below 4 GiB and is nobody else's.</summary>
    public const int MaxLength = 16 << 20;

    private const byte Ready = 0x80, EraseFailed = 0x20, ProgramFailed = 0x10;
    private const byte ManufacturerId = 0x89, DeviceId = 0x18;

    // As many reads in a row as it takes until the chip is mapped as memory again.
    private const int QuietReads = 512;

    private enum Mode : byte
    {
        Array,
        Status,
        Identity,
        Query,
        Program,
        EraseSetup,
        LockSetup,
        BufferCount,
        BufferData,
        BufferConfirm,
    }

    private readonly MachineServices _services;
    private readonly Drive _drive;
    private readonly MemoryMapping _content;
    private readonly MappedRange _range;
    private readonly byte[] _query;
    private readonly byte[] _buffer = new byte[256];
    private Mode _mode;
    private byte _status;
    private int _bufferCount, _bufferFilled;
    private uint _bufferAt;
    private int _reads;

    // Programmed bytes that the drive does not have yet.
    private long _dirtyStart, _dirtyEnd;

    /// <summary>Reads the drive and puts the chip in place. Throws <see cref="MachineException"/> or <see cref="ImageException"/>.</summary>
    /// <param name="services">what the machine gives.</param>
    /// <param name="drive">holds the content; has a medium.</param>
    /// <param name="end">physical address behind the chip's last byte.</param>
    public ParallelFlash(MachineServices services, Drive drive, ulong end)
    {
        _services = services;
        _drive = drive;
        long length = drive.Length;
        if (length == 0 || length % BlockSize != 0)
            throw new MachineException($"system firmware block device {drive.Name} has invalid size {length}: it must be a multiple of {BlockSize} bytes");
        if (length > MaxLength - (long)((1UL << 32) - end))
            throw new MachineException($"combined size of system firmware exceeds {MaxLength} bytes");
        Start = end - (ulong)length;
        Length = (uint)length;
        _content = MemoryMapping.Anonymous((nuint)length);
        drive.Media!.Read(0, Content);
        _query = CommonInterface.Query(Length, BlockSize, _buffer.Length);
        _range = services.Space.Add(AddressSpace.ChipsetPriority, Start, Length, _content.Address, MemoryKind.Rom);
        services.Space.Update();
        services.Mmio.Register(Start, Length, this);
    }

    /// <inheritdoc/>
    public override string TypeName => "cfi.pflash01";

    /// <summary>Physical address of the first byte.</summary>
    public ulong Start { get; }

    /// <summary>Bytes.</summary>
    public uint Length { get; }

    /// <summary>Host address of the content.</summary>
    public nint Host => _content.Address;

    private unsafe Span<byte> Content => new((void*)_content.Address, (int)Length);

    /// <inheritdoc/>
    public ulong MmioRead(ulong offset, int size)
    {
        if (_mode == Mode.Array && ++_reads >= QuietReads)
            MapAs(memory: true);
        ulong value = 0;
        for (int i = 0; i < size; i++)
            value |= (ulong)Read((uint)offset + (uint)i) << (8 * i);
        return value;
    }

    private byte Read(uint at) => _mode switch
    {
        Mode.Array => Content[(int)at],
        Mode.Identity => (at & 0xFF) switch { 0 => ManufacturerId, 1 => DeviceId, _ => 0 },
        Mode.Query => (at & 0xFF) < _query.Length ? _query[at & 0xFF] : (byte)0,
        _ => _status,
    };

    /// <inheritdoc/>
    public void MmioWrite(ulong offset, ulong value, int size)
    {
        for (int i = 0; i < size; i++)
            Write((uint)offset + (uint)i, (byte)(value >> (8 * i)));
        if (_mode != Mode.Array)
            MapAs(memory: false);
    }

    // As memory it is fast; commands are seen only while it is not.
    private void MapAs(bool memory)
    {
        _reads = 0;
        nint host = memory ? _content.Address : 0;
        if (_range.Host == host)
            return;
        _range.Host = host;
        _services.Space.Update();
    }

    private void Write(uint at, byte value)
    {
        switch (_mode)
        {
            case Mode.Program:
                _buffer[0] = value;
                Program(at, 1);
                break;
            case Mode.EraseSetup:
                _status |= Ready;
                if (value == 0xD0)
                    Erase(at & ~(BlockSize - 1u));
                else
                    _status |= EraseFailed | ProgramFailed;
                _mode = Mode.Status;
                break;
            case Mode.LockSetup:
                _mode = Mode.Status;        // blocks have no locks
                break;
            case Mode.BufferCount:
                (_bufferCount, _bufferFilled, _mode) = (value + 1, 0, Mode.BufferData);
                break;
            case Mode.BufferData:
                if (_bufferFilled == 0)
                    _bufferAt = at;
                if (at - _bufferAt < (uint)_buffer.Length)
                    _buffer[at - _bufferAt] = value;
                if (++_bufferFilled == _bufferCount)
                    _mode = Mode.BufferConfirm;
                break;
            case Mode.BufferConfirm:
                if (value == 0xD0)
                    Program(_bufferAt, _bufferCount);
                else
                    _status |= EraseFailed | ProgramFailed;
                _mode = Mode.Status;
                break;
            default:
                Command(value);
                break;
        }
    }

    private void Command(byte command)
    {
        switch (command)
        {
            case 0x10 or 0x40:
                _mode = Mode.Program;
                break;
            case 0x20:
                _mode = Mode.EraseSetup;
                break;
            case 0x50:
                // Real chips stay ready. Firmware for virtual machines knows flash by a status of zero behind this command.
                _status = 0;
                _mode = Mode.Array;
                break;
            case 0x60:
                _mode = Mode.LockSetup;
                break;
            case 0x70:
                _mode = Mode.Status;
                break;
            case 0x90:
                _mode = Mode.Identity;
                break;
            case 0x98:
                _mode = Mode.Query;
                break;
            case 0xE8:
                _mode = Mode.BufferCount;
                break;
            default:
                WriteBack();
                _mode = Mode.Array;
                break;
        }
    }

    // Programming clears bits; only erasing sets them.
    private void Program(uint at, int count)
    {
        _mode = Mode.Status;
        _status |= Ready;
        count = (int)Math.Min((uint)count, Length - at);
        if (_drive.IsReadOnly)
        {
            _status |= ProgramFailed;
            return;
        }
        var target = Content.Slice((int)at, count);
        for (int i = 0; i < count; i++)
            target[i] &= _buffer[i];
        Changed(at, count);
        // What is written in order goes to the drive together.
        if (_dirtyEnd != at && _dirtyEnd != 0)
            WriteBack();
        if (_dirtyEnd == 0)
            _dirtyStart = at;
        _dirtyEnd = at + count;
    }

    private void Erase(uint at)
    {
        if (_drive.IsReadOnly)
        {
            _status |= EraseFailed;
            return;
        }
        WriteBack();
        Content.Slice((int)at, BlockSize).Fill(0xFF);
        Changed(at, BlockSize);
        (_dirtyStart, _dirtyEnd) = (at, at + BlockSize);
        WriteBack();
    }

    private void Changed(uint at, int count) => _services.Memory.Map.NotifyDeviceWrite(Start + at, (ulong)count);

    private void WriteBack()
    {
        if (_dirtyEnd == 0)
            return;
        // Images take whole sectors.
        long start = _dirtyStart & ~511L, end = (_dirtyEnd + 511) & ~511L;
        (_dirtyStart, _dirtyEnd) = (0, 0);
        try
        {
            _drive.Media!.Write(start, Content[(int)start..(int)end]);
            if (!_drive.WriteCache)
                _drive.Media.Flush();
        }
        catch (Exception e) when (e is ImageException or IOException)
        {
            // There is no command under way whose status could tell: the next status does, and the monitors.
            _status |= ProgramFailed;
            _services.Control.ReportBlockError(_drive.Name, false, "report", Drive.IsNoSpace(e));
        }
    }

    /// <inheritdoc/>
    public override void Reset()
    {
        WriteBack();
        _mode = Mode.Array;
        _status = 0;
        MapAs(memory: true);
    }

    /// <inheritdoc/>
    public override void Close()
    {
        WriteBack();
        _content.Dispose();
    }

    /// <inheritdoc/>
    public override void Describe(StateVisitor state)
    {
        if (!state.IsLoading)
            WriteBack();
        byte mode = (byte)_mode;
        state.Field("mode", ref mode);
        state.Field("status", ref _status);
        state.Field("buffer-count", ref _bufferCount);
        state.Field("buffer-filled", ref _bufferFilled);
        state.Field("buffer-at", ref _bufferAt);
        state.Bytes("buffer", _buffer);
        if (!state.IsLoading)
            return;
        _mode = mode <= (byte)Mode.BufferConfirm ? (Mode)mode : Mode.Array;
        _bufferCount = Math.Clamp(_bufferCount, 1, _buffer.Length);
        _bufferFilled = Math.Clamp(_bufferFilled, 0, _bufferCount - 1);
        _bufferAt = Math.Min(_bufferAt, Length - 1);
        _drive.Media!.Read(0, Content);
        Changed(0, (int)Length);
        MapAs(_mode == Mode.Array);
    }
}
