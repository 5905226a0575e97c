using ImgKit.Machine;
using ImgKit.Machine.Chipset;
using ImgKit.Machine.Devices.Misc;
using ImgKit.Machine.Devices.Storage;
using ImgKit.Machine.Devices.Storage.Flash;
using ImgKit.Machine.Devices.Storage.Floppy;
using ImgKit.Machine.Devices.Storage.Scsi;
using ImgKit.Machine.Devices.Virtio;

namespace ImgKit.Fuzz.Targets;

/// <summary>A guest says anything to a device: the device does something, and nobody else is hurt. A request beyond a disk's end, an exception, a
/// state that cannot be loaded again are failures.</summary>
internal sealed class DeviceTarget(string name, Action<DeviceBoard> plug, Func<IEnumerable<GuestProgram>> seeds) : IFuzzTarget
{
    public string Name => name;

    public IEnumerable<byte[]> Seeds() => seeds().Select(p => p.ToArray());

    public void Run(byte[] input)
    {
        using var board = new DeviceBoard();
        plug(board);
        board.Run(input);
    }

    private static Drive Disk(int length, ErrorPolicy policy = ErrorPolicy.Report, bool cd = false) => new()
    {
        Name = "d",
        Media = new FaultyDisk(length),
        Discard = true,
        OnReadError = policy,
        OnWriteError = policy,
        IsCdRom = cd,
        IsRemovable = cd,
        IsReadOnly = cd,
    };

    internal static DeviceTarget Ide { get; } = new("ide", static board =>
    {
        var ide = new PiixIde(board.Services);
        ide.Channels[0].Attach(0, Disk(1 << 20, ErrorPolicy.Stop));
        ide.Channels[0].Attach(1, Disk(1 << 18, ErrorPolicy.Report, true));
        board.Plug(ide);
        board.Ports = [(0x1F0, 8), (0x3F6, 1), (0xC400, 8)];
    }, static () =>
    {
        GuestProgram Task(byte command, byte select = 0xE0, byte count = 2, byte feature = 0) => new GuestProgram().Out(0x1F6, select).Out(0x1F1, feature)
            .Out(0x1F2, count).Out(0x1F3, 1).Out(0x1F4, 0).Out(0x1F5, 8).Out(0x1F6, select).Out(0x1F7, command).Drain();
        GuestProgram Dma(GuestProgram p) => p.Words(0x1000, 0x18000, 0x80000200u).Words(0x1000, 0x18000, 0x80000800).Out(0xC404, 0x11000, 4).Out(0xC402, 6)
            .Out(0xC400, 9).Drain().In(0xC402).In(0x1F7);
        GuestProgram Packet(byte[] cdb, bool dma = false)
        {
            var p = Task(0xA0, 0xB0, 0, (byte)(dma ? 1 : 0));
            for (int i = 0; i < 12; i += 2)
                p.Out(0x1F0, (uint)(i < cdb.Length ? cdb[i] : 0) | (uint)(i + 1 < cdb.Length ? cdb[i + 1] : 0) << 8, 2);
            p.Drain();
            return dma ? Dma(p) : p.In(0x1F0, 4).In(0x1F0, 4).In(0x1F7);
        }

        return
        [
            Task(0xEC).In(0x1F0, 2), Task(0x20).In(0x1F0, 4), Task(0xC4, count: 20).In(0x1F0, 4), Task(0x30).Out(0x1F0, 1, 4), Dma(Task(0xC8)), Dma(Task(0xCA)),
            Dma(Task(0x25)), Dma(Task(0x06, feature: 1)), Task(0xE7), Task(0xC6, count: 4), Task(0xEF, feature: 3), Task(0x91), Task(0x27).In(0x1F3),
            Packet([0x12, 0, 0, 0, 36]), Packet([0x28, 0, 0, 0, 0, 2, 0, 0, 4]), Packet([0x28, 0, 0, 0, 0, 2, 0, 0, 1], true), Packet([0x43, 0, 0, 0, 0, 0, 0, 0, 64]),
            Packet([0xBE, 0, 0, 0, 0, 1, 0, 0, 3, 0xF8]), Packet([0x5A, 0, 0x3F, 0, 0, 0, 0, 1, 0]), Packet([0x15, 0x10, 0, 0, 12]), Packet([0x1B, 0, 0, 0, 2]),
            Packet([0x46, 0, 0, 0, 0, 0, 0, 1, 0]), Packet([0x4A, 1, 0, 0, 0x10, 0, 0, 0, 8]), new GuestProgram().Out(0x3F6, 4).Out(0x3F6, 0).In(0x1F7),
        ];
    });

    internal static DeviceTarget Floppy { get; } = new("floppy", static board =>
    {
        var controller = new FloppyController(board.Services, board.Add(new Dma8237(board.Services)));
        controller.Attach(0, Disk(1_474_560, ErrorPolicy.Stop));
        controller.Attach(1, Disk(737_280 + 1234));
        board.Add(controller);
        board.Ports = [(0x3F0, 6), (0x3F7, 1), (0x00, 16), (0x80, 4)];
    }, static () =>
    {
        GuestProgram Fifo(GuestProgram p, params byte[] bytes)
        {
            foreach (byte b in bytes)
                p.Out(0x3F5, b);
            p.Drain();
            for (int i = 0; i < 8; i++)
                p.In(0x3F5);
            return p;
        }

        GuestProgram Start(byte mode = 0x46) => new GuestProgram().Out(0x3F2, 0).Out(0x3F2, 0x1C).Out(0x3F7, 0).Out(0x0A, 6).Out(0x0C, 0).Out(0x0B, mode)
            .Out(0x04, 0).Out(0x04, 0x40).Out(0x81, 1).Out(0x05, 0xFF).Out(0x05, 3).Out(0x0A, 2);
        return
        [
            Fifo(Start(), 0x46, 0, 0, 0, 1, 2, 18, 0x1B, 0xFF), Fifo(Start(0x4A), 0xC5, 0, 0, 0, 17, 2, 18, 0x1B, 0xFF), Fifo(Start(0x4A), 0x4D, 0, 2, 18, 0x6C, 0xF6),
            Fifo(Fifo(Start(), 3, 0xDF, 3), 0x46, 0, 0, 0, 1, 2, 18, 0x1B, 0xFF), Fifo(Fifo(Start(), 3, 0xDF, 3), 0x45, 0, 0, 0, 1, 2, 18, 0x1B, 0xFF),
            Fifo(Fifo(Start(), 0x0F, 0, 20), 8), Fifo(Start(), 7, 1), Fifo(Start(), 0x4A, 0), Fifo(Start(), 0x0E), Fifo(Start(), 0x56, 0, 0, 0, 1, 2, 9, 0x1B, 4),
            Fifo(Start(), 0x13, 0, 0x57, 0), Fifo(Start(), 0x42, 0, 0, 0, 1, 2, 18, 0x1B, 0xFF), Fifo(Start(), 0xCF, 0, 30), Fifo(Start(), 4, 1),
        ];
    });

    internal static DeviceTarget Scsi { get; } = new("scsi", static board =>
    {
        var adapter = new Lsi53C895A(board.Services, 0, null) { Patience = 0 };
        adapter.Scsi.Add(new ScsiDisk(board.Services, Disk(1 << 20, ErrorPolicy.Stop), new ScsiIdentity("QEMU", "DISK", "1", "s", "d", 1, 1)), 0, 0);
        adapter.Scsi.Add(new ScsiCdRom(board.Services, Disk(1 << 18, cd: true), new ScsiIdentity("QEMU", "CD", "1", null, "c", 0, 0)), 1, 0);
        board.Plug(adapter);
        board.Ports = [(0xC000, 256)];
        board.Registers = [0xE0010000];
    }, static () =>
    {
        // As drivers do: select, identify, command, data, status, message.
        GuestProgram Command(byte[] cdb, uint data = 0, uint count = 0, uint target = 0) => new GuestProgram()
            .Put(0x2000, cdb).Put(0x2020, [0xC0, 0x20, 1])
            .Words(0x1000, 0x41000000 | target << 16, 0, 0x0E000003, 0x12020, 0x0A000000u | (uint)cdb.Length, 0x12000, data | count, 0x14000,
                0x7C027F00, 0, 0x0B000001, 0x12040, 0x0F000001, 0x12041, 0x60000040, 0, 0x48000000, 0, 0x98080000, 1)
            .Out(0xC02C, 0x11000, 4).Drain().In(0xC042).In(0xC00C).Out(0xC02C, 0x11028, 4).Drain();
        const uint In = 0x09000000, Out = 0x08000000;
        var list = new List<GuestProgram>
        {
            Command([0, 0, 0, 0, 0, 0]), Command([0x12, 0, 0, 0, 36, 0], In, 36), Command([0x12, 1, 0x83, 0, 255, 0], In, 255), Command([3, 0, 0, 0, 18, 0], In, 18),
            new GuestProgram().Words(0x1000, 0xC0000010, 0x12000, 0x13000, 0xE1340004, 0x12000, 0xE05C0004, 0x12010, 0x78340500, 0, 0x7E340500, 0, 0x88080000, 0x11040,
                0x98080000, 1, 0, 0x90080000, 0).Out(0xC02C, 0x11000, 4),
            new GuestProgram().Words(0x1000, 0x50000000, 0x11000).Out(0xC02C, 0x11000, 4).Out(0xC014, 0x20).In(0xC014).Out(0xC014, 0x80),
            new GuestProgram().Out(0xC001, 8).Out(0xC001, 0).In(0xC042, 2).Out(0xC014, 0x40),
            new GuestProgram().Words(0x1000, 0x80080000, 0x11000).Out(0xC02C, 0x11000, 4).Pass(500),
        };
        // With tags: targets leave the bus, and come back.
        GuestProgram Tagged(byte[] cdb, uint data, uint count, byte tag, byte kind = 0x20) => new GuestProgram().Out(0xC004, 0x47)
            .Put(0x2000, cdb).Put(0x2020, [0xC0, kind, tag])
            .Words(0x1000, 0x41000000, 0, 0x0E000003, 0x12020, 0x0A000000u | (uint)cdb.Length, 0x12000, data | count, 0x14000,
                0x0F000002, 0x12040, 0x7C027F00, 0, 0x60000040, 0, 0x48000000, 0, 0x98080000, 1)
            .Out(0xC02C, 0x11000, 4).In(0xC00C);
        GuestProgram Back() => new GuestProgram().Words(0x1800, 0x50000000, 0x11900, 0x0F000003, 0x12050, 0x60000040, 0, 0x7C027F00, 0,
            0x0B000001, 0x12040, 0x0F000001, 0x12041, 0x60000040, 0, 0x48000000, 0, 0x98080000, 2).Out(0xC02C, 0x11800, 4).Drain().In(0xC00C);
        foreach (var (cdb, data, count) in ((byte[], uint, uint)[])[([0x28, 0, 0, 0, 0, 3, 0, 0, 4, 0], In, 2048), ([0x2A, 0, 0, 0, 0, 3, 0, 0, 4, 0], Out, 2048)])
        {
            var p = Command([0, 0, 0, 0, 0, 0]);
            p.Append(Tagged(cdb, data, count, 1));
            p.Append(Tagged(cdb, data, count, 2, 0x22));
            p.Append(Back());
            p.Append(Back());
            list.Add(p);
        }
        // The unit attention first
        foreach (var (cdb, data, count) in ((byte[], uint, uint)[])[([0x28, 0, 0, 0, 0, 3, 0, 0, 4, 0], In, 2048), ([0x2A, 8, 0, 0, 0, 3, 0, 0, 4, 0], Out, 2048),
            ([0x08, 0, 0, 9, 1, 0], In, 512), ([0x88, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 2, 0, 0], In, 1024), ([0x41, 0, 0, 0, 0, 8, 0, 0, 9, 0], Out, 512),
            ([0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0], Out, 24), ([0x1A, 0, 0x3F, 0, 255, 0], In, 60), ([0x15, 0x10, 0, 0, 24, 0], Out, 24), ([0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0], 0, 0),
            ([0xA0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0], In, 16), ([0x9E, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0], In, 32)])
        {
            var p = Command([0, 0, 0, 0, 0, 0]);
            p.Append(Command(cdb, data, count));
            list.Add(p);
        }
        foreach (var (cdb, count) in ((byte[], uint)[])[([0x28, 0, 0, 0, 0, 3, 0, 0, 1, 0], 2048), ([0xBE, 0, 0, 0, 0, 1, 0, 0, 2, 0xF8, 0, 0], 4704),
            ([0x43, 0, 0, 0, 0, 0, 0, 0, 64, 0], 20), ([0x46, 0, 0, 0, 0, 0, 0, 0, 64, 0], 40)])
        {
            var p = Command([0, 0, 0, 0, 0, 0], target: 1);
            p.Append(Command(cdb, In, count, 1));
            list.Add(p);
        }
        return list;
    });

    internal static DeviceTarget Flash { get; } = new("flash", static board =>
    {
        board.Add(new ParallelFlash(board.Services, Disk(0x4000), 1UL << 32));
        board.Registers = [0xFFFFC000, 0xFFFFD000, 0xFFFFE000, 0xFFFFF000];
    }, static () =>
    [
        new GuestProgram().Store(0, 0x70, 1).Load(0, 1).Store(0, 0xFF, 1).Load(16, 8),
        new GuestProgram().Store(0x1FFF, 0x10, 1).Store(0x1FFF, 0x55, 1).Store(0x2000, 0x40, 1).Store(0x2000, 1, 1).Store(0, 0xFF, 1).Load(0x1FFF, 1),
        new GuestProgram().Store(0x3FFF, 0x20, 1).Store(0x3FFF, 0xD0, 1).Load(0, 1).Store(0, 0x50, 1),
        new GuestProgram().Store(0x3FF0, 0xE8, 1).Store(0x3FF0, 31, 1).Store(0x3FF0, 0x0102030405060708, 8).Store(0x3FF8, 9, 8).Store(0x3FE0, 9, 8).Store(0x3FE8, 9, 8)
            .Store(0x3FF0, 0xD0, 1).Load(0, 1),
        new GuestProgram().Store(0, 0x98, 1).Load(16, 8).Load(0xF8, 8).Store(0, 0x90, 1).Load(0, 8).Store(0, 0x60, 1).Store(0, 0xD0, 1),
    ]);

    internal static DeviceTarget FirmwareConfig { get; } = new("fw-cfg", static board =>
    {
        var config = board.Add(new FwCfg(board.Services));
        config.SetItem(5, 2);
        config.SetFile("etc/e820", new byte[60]);
        config.SetFile("bootorder", new byte[5]);
        board.Ports = [(0x510, 2), (0x514, 8)];
    }, static () =>
    [
        new GuestProgram().Out(0x510, 0x19, 2).In(0x511).In(0x511).In(0x511),
        new GuestProgram().Words(0x1000, 0x0A001900, 0x40000000, 0, 0x00400100).Out(0x518, 0x00100100, 4),
        new GuestProgram().Words(0x1000, 0x04000000, 0x10000000, 0, 0).Out(0x514, 0, 4).Out(0x518, 0x00100100, 4).In(0x511),
        new GuestProgram().Words(0x1000, 0x02000000, 0xFFFFFF7F, 0, 0x00000100).Out(0x518, 0x00100100, 4),
        new GuestProgram().In(0x514, 4).In(0x518, 4).In(0x510, 2),
    ]);

    internal static DeviceTarget Virtio { get; } = new("virtio", static board =>
    {
        board.Plug(new VirtioBlk(board.Services, Disk(1 << 20, ErrorPolicy.Stop), queueSize: 16));
        board.Ports = [(0xC000, 64)];
        board.Registers = [0xE0040000, 0xE0041000, 0xE0042000, 0xE0043000, 0xE0010000];        // modern registers, MSI-X
    }, static () =>
    {
        // Legacy: a page of rings at 0x11000, one chain of header, data and status.
        GuestProgram Legacy(uint type, ushort dataFlags, uint features = 0) => new GuestProgram().Out(0xC012, 0).Out(0xC012, 3).Out(0xC004, features, 4).Out(0xC00E, 0, 2)
            .Out(0xC008, 0x11, 4).Out(0xC012, 7)
            .Words(0x1000, 0x14000, 0, 16, 0x10001, 0x15000, 0, 1024, (uint)dataFlags | 0x20000, 0x16000, 0, 1, 2)
            .Words(0x4000, type, 0, 3, 0).Words(0x1100, 0x00010000, 0).Out(0xC010, 0, 2).Drain().In(0xC013);
        GuestProgram Modern(uint type, ushort flags) => new GuestProgram().Store(20, 0, 1).Store(20, 3, 1).Store(8, 0, 4).Store(12, 0x30000244, 4).Store(8, 1, 4)
            .Store(12, 1, 4).Store(20, 11, 1).Store(22, 0, 2).Store(24, 16, 2).Store(32, 0x11000, 8).Store(40, 0x11100, 8).Store(48, 0x12000, 8).Store(28, 1, 2).Store(20, 15, 1)
            .Words(0x1000, 0x14000, 0, 16, 0x10001, 0x15000, 0, 1024, (uint)flags | 0x20000, 0x16000, 0, 1, 2)
            .Words(0x4000, type, 0, 3, 0).Words(0x1100, 0x00010000, 0).Store(0x3000, 0, 2).Drain().Load(0x1000, 1);
        return
        [
            Legacy(0, 3), Legacy(1, 1), Legacy(4, 3), Legacy(8, 3), Legacy(11, 1), Legacy(13, 1), Modern(0, 3), Modern(1, 1), Modern(8, 3), Modern(11, 1), Modern(13, 1),
            Legacy(0, 3, 1u << 28).Words(0x1000, 0x17000, 0, 48, 4).Words(0x7000, 0x14000, 0, 16, 0x10001, 0x15000, 0, 1024, 0x20003, 0x16000, 0, 1, 2)
                .Words(0x1100, 0x00020000).Out(0xC010, 0, 2),
            Legacy(0, 3).Words(0x1000, 0x14000, 0, 16, 0x00001).Words(0x1100, 0x00020000).Out(0xC010, 0, 2),
        ];
    });
}
