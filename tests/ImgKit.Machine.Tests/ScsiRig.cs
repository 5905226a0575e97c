using ImgKit.Machine.Devices.Storage.Scsi;
using ImgKit.Machine.Pci;

namespace ImgKit.Machine.Tests;

/// <summary>A board with a SCSI adapter, a disk at target 0 and a CD-ROM at target 2 unit 1, and the means to run scripts on it.</summary>
public abstract class ScsiRig : IDisposable
{
    private protected const ushort Ports = 0xC000;
    private protected const ulong Script = 0x1000, Cdb = 0x2000, Message = 0x2020, Status = 0x2040, Data = 0x10000, Table = 0x3000;
    private protected const byte Dstat = 0x0C, Istat = 0x14, Dsp = 0x2C, Dsps = 0x30, Sist0 = 0x42, Sist1 = 0x43, Dcntl = 0x3B;
    private protected const uint ToJump = 0x80080000, Interrupt = 0x98080000;

    private protected readonly TestBoard _board = new();
    private protected readonly MemoryDisk _disk = new(4 << 20);
    private protected readonly MemoryDisk _cd = new(64 * 2048);
    private protected readonly Lsi53C895A _adapter;

    private protected ScsiRig()
    {
        new Random(5).NextBytes(_disk.Bytes);
        new Random(6).NextBytes(_cd.Bytes);
        (_adapter, _) = Plug(_board, _disk, _cd);
    }

    private protected static (Lsi53C895A Adapter, Drive Disk) Plug(TestBoard board, MemoryDisk disk, MemoryDisk cd)
    {
        var bus = new PciBus(new LineRecorder());
        var adapter = new Lsi53C895A(board.Services, 0, null);
        bus.Add(adapter, 3);
        adapter.ConfigWrite(0x10, Ports, 4);
        adapter.ConfigWrite(4, 5, 2);
        var drive = new Drive { Name = "d", Media = disk, Discard = true, OnWriteError = ErrorPolicy.Report };
        adapter.Scsi.Add(new ScsiDisk(board.Services, drive, new ScsiIdentity("QEMU", "QEMU HARDDISK", "2.5+", "S7", "d", 0x5000c50012345678, 1)), 0, 0);
        var reader = new Drive { Name = "cd", Media = cd, IsCdRom = true, IsRemovable = true, IsReadOnly = true };
        adapter.Scsi.Add(new ScsiCdRom(board.Services, reader, new ScsiIdentity("QEMU", "QEMU CD-ROM", "2.5+", null, "cd", 0, 0)), 2, 1);
        board.Out(Ports + 0x39, 0x7D);
        return (adapter, drive);
    }

    public void Dispose()
    {
        _adapter.Dispose();
        _board.Dispose();
        GC.SuppressFinalize(this);
    }

    private protected GuestMemory Memory => _board.Services.Memory;

    private protected byte Register(int at) => (byte)_board.In((ushort)(Ports + at));

    private protected uint Register32(int at) => _board.In((ushort)(Ports + at), 4);

    private protected void Write(ulong at, params uint[] words)
    {
        foreach (uint w in words)
        {
            Memory.WriteUInt32(at, w);
            at += 4;
        }
    }

    private protected byte[] Read(ulong at, int length)
    {
        var b = new byte[length];
        Memory.Read(at, b);
        return b;
    }

    private protected void Run(ulong at = Script)
    {
        _board.Out(Ports + Dsp, (uint)at, 4);
        _board.Drain();
    }
}
