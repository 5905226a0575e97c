using System.Buffers.Binary;
using System.Numerics;
using ImgKit.Cpu.Models;
using ImgKit.Cpu.Translator;
using ImgKit.Machine;
using ImgKit.Machine.CharDevices;
using ImgKit.Machine.Chipset;
using ImgKit.Machine.Devices.Display;

namespace ImgKit.Fuzz.Targets;

/// <summary>A guest says anything to the whole board: every port, every register in memory, every byte of configuration space, while regions are moved
/// over RAM, ROM and each other. The machine goes on, can show its screen, be saved, and be reset.</summary>
internal sealed class PcTarget : IFuzzTarget
{
    private const int StepLength = 12, MostSteps = 2048;
    private const ulong MemorySize = 4 << 20;

    // Where registers are, or may be put.
    private static readonly ulong[] Regions =
    [
        0, 0xA0000, 0xB8000, 0xC0000, 0xF0000, 0x100000, 0xE0000000, 0xE0010000, 0xE1000000, 0xE2000000, 0xFEC00000, 0xFED00000, 0xFEE00000, 0xFFFF0000, 1UL << 32, ulong.MaxValue & ~0xFFFFul,
    ];

    public string Name => "pc";

    public IEnumerable<byte[]> Seeds()
    {
        GuestProgram Config(int function, int register, uint value) => new GuestProgram().Out(0xCF8, 0x80000000u | (uint)function << 8 | (uint)register & ~3u, 4).Out(0xCFC, value, 4);
        GuestProgram Join(params GuestProgram[] parts)
        {
            var all = new GuestProgram();
            foreach (var p in parts)
                all.Append(p);
            return all;
        }

        // VGA: its frame buffer and registers over everything
        foreach (uint at in (uint[])[0xE0000000, 0, 0x100000, 0xA0000, 0xF0000, 0xFEE00000, 0xFF000000])
            yield return Join(Config(0x10, 4, 7), Config(0x10, 0x10, at), Config(0x10, 0x18, at), Config(0x10, 0x30, at | 1)).Store(0, 1, 4).Load(0, 8).ToArray();
        yield return new GuestProgram().Out(0x1CE, 4, 2).Out(0x1CF, 0, 2).Out(0x1CE, 1, 2).Out(0x1CF, 0xFFFF, 2).Out(0x1CE, 2, 2).Out(0x1CF, 0xFFFF, 2).Out(0x1CE, 3, 2).Out(0x1CF, 32, 2)
            .Out(0x1CE, 4, 2).Out(0x1CF, 0x41, 2).Out(0x1CE, 6, 2).Out(0x1CF, 0xFFFF, 2).Out(0x1CE, 9, 2).Out(0x1CF, 0xFFFF, 2).ToArray();
        yield return new GuestProgram().Out(0x3C4, 0x0F02, 2).Out(0x3C4, 0x0604, 2).Out(0x3CE, 0x0005, 2).Out(0x3CE, 0x0506, 2).Out(0x3D4, 0x0011, 2).Out(0x3D4, 0xFF01, 2).Out(0x3D4, 0xFF12, 2)
            .Out(0x3D4, 0xFF07, 2).Out(0x3D4, 0xFF13, 2).Out(0x3D4, 0xFF0C, 2).Store(0x1000, 0xFFFFFFFF, 4).ToArray();
        // Timers at their fastest
        yield return new GuestProgram().Out(0x43, 0x34).Out(0x40, 1).Out(0x40, 0).Out(0x21, 0).Out(0x70, 10).Out(0x71, 0x21).Out(0x70, 11).Out(0x71, 0x72).Pass(1000000).ToArray();
        yield return new GuestProgram().Store(0xB100, 0x4C, 4).Store(0xB108, 1, 8).Store(0xB108, 1, 8).Store(0xB010, 3, 8).Pass(1000000).Load(0xB0F0, 8).ToArray();
        yield return new GuestProgram().Store(0xC0F0, 0x1FF, 4).Store(0xC3E0, 0xB, 4).Store(0xC320, 0x20030, 4).Store(0xC380, 1, 4).Pass(1000000).Store(0xC0B0, 0, 4).Load(0xC390, 4).ToArray();
        yield return new GuestProgram().Store(0xC310, 0, 4).Store(0xC300, 0x000C4500, 4).Store(0xC300, 0x00084600, 4).Store(0xA000, 0x12, 4).Store(0xA010, 0xA700, 4).ToArray();
        // Interrupt controllers, keyboard, DMA
        yield return new GuestProgram().Out(0x20, 0x19).Out(0x21, 8).Out(0x21, 4).Out(0x21, 3).Out(0xA0, 0x11).Out(0xA1, 0x70).Out(0xA1, 2).Out(0xA1, 1).Out(0x20, 0x68).In(0x20).Out(0x4D0, 0xFF).ToArray();
        yield return new GuestProgram().Out(0x64, 0x60).Out(0x60, 0x47).Out(0x64, 0xD4).Out(0x60, 0xF4).In(0x60).Out(0x64, 0xD1).Out(0x60, 0).Out(0x92, 3).Out(0x60, 0xFF).In(0x60).In(0x60).ToArray();
        yield return new GuestProgram().Out(0x0B, 0x98).Out(0x00, 0xFF).Out(0x00, 0xFF).Out(0x87, 0xFF).Out(0x01, 0).Out(0x01, 0).Out(0x0A, 0).Out(0x09, 4).Out(0xD0, 0x10).ToArray();
        // Bus-master IDE: descriptors and data in ROM, in registers, nowhere
        foreach (uint at in (uint[])[0x11000, 0xFFFF0000, 0xFED00000, 0xA0000, 0xFFFFFFFC, 0x80000000])
            yield return Join(Config(0x09, 4, 5), Config(0x09, 0x20, 0xC001)).Words(0x1000, at & ~3u, 0x8000FFFE).Out(0x1F6, 0xE0).Out(0x1F2, 8).Out(0x1F7, 0xC8).Out(0xC004, at, 4).Out(0xC000, 9)
                .Drain().Out(0xC004, 0x11000, 4).Out(0x1F7, 0xCA).Out(0xC000, 1).Drain().ToArray();
        // virtio: rings in the same places
        foreach (uint at in (uint[])[0x11, 0xFFFF0, 0xFED00, 0xA0, 0xFFFFF])
            yield return Join(Config(0x18, 4, 7), Config(0x18, 0x10, 0xC101)).Out(0xC112, 3).Out(0xC10E, 0, 2).Out(0xC108, at, 4).Out(0xC112, 7).Words(0x1000, 0xFFFF0000, 0, 4096, 0x10001)
                .Words(0x1100, 0x00010000).Out(0xC110, 0, 2).Drain().In(0xC113).ToArray();
        // UHCI: a frame list whose first entry leads to itself
        yield return Join(Config(0x0A, 4, 5), Config(0x0A, 0x20, 0xC201)).Words(0x1000, 0x11002, 0x11000, 0x11000, 0).Out(0xC208, 0x11000, 4).Out(0xC200, 1, 2).Pass(50000).In(0xC202, 2).ToArray();
        // Shadow RAM, system-management memory, ACPI, reset control
        yield return Join(Config(0x00, 0x58, 0x33333330), Config(0x00, 0x5C, 0x33333333), Config(0x00, 0x70, 0x4A0000)).Store(0x4000, 1, 8).Store(0x1000, 1, 8).ToArray();
        yield return Join(Config(0x0B, 0x40, 0x601), Config(0x0B, 0x80, 1)).Out(0x602, 0xFFFF, 2).Out(0x604, 0x2001, 2).Out(0xB2, 1).Out(0xCF9, 6).In(0x608, 4).Pass(1000000).ToArray();
        yield return Join(Config(0x0B, 0x40, 0x0001), Config(0x0B, 0x90, 0x0061), Config(0x09, 0x20, 0x61)).In(0x20).Out(0x70, 1).ToArray();
        // The serial and parallel ports
        yield return new GuestProgram().Out(0x3FC, 0x10).Out(0x3FA, 0xC7).Out(0x3F9, 0x0F).Out(0x3F8, 0x55).Out(0x3FC, 0).In(0x3FA).In(0x3FD).In(0x3F8).Out(0x378, 1).Out(0x37A, 1).Out(0x37A, 0x10).ToArray();
    }

    private static Pc Make(EventLoop loop, Lock machineLock)
    {
        var options = new PcOptions
        {
            MachineLock = machineLock,
            Loop = loop,
            MemorySize = MemorySize,
            Engine = (map, inSmm) => new TranslatorEngine(map, CpuModel.Parse("qemu64", new CpuTopology(1, 1, 1)), inSmm),
            HasUsb = true,
            Firmware = new byte[0x10000],
        };
        options.IdeDrives[0] = Disk("ide", 1 << 20);
        options.IdeDrives[2] = Disk("cd", 1 << 18, true);
        options.Floppies[0] = Disk("floppy", 1_474_560);
        options.SerialPorts.Add(new NullCharDevice());
        options.ParallelPorts.Add(new NullCharDevice());
        var pc = new Pc(options);
        pc.AddDevice(DeviceCatalogue.Find("VGA")!, new Dictionary<string, string>());
        pc.AddDevice(DeviceCatalogue.Find("virtio-blk-pci")!, new Dictionary<string, string> { ["drive"] = "v" }, id => Disk(id, 1 << 20));
        pc.AddDevice(DeviceCatalogue.Find("lsi53c895a")!, new Dictionary<string, string>());
        pc.AddDevice(DeviceCatalogue.Find("scsi-hd")!, new Dictionary<string, string> { ["drive"] = "s" }, id => Disk(id, 1 << 20));
        return pc;
    }

    private static Drive Disk(string name, int length, bool cd = false) => new()
    {
        Name = name,
        Media = new FaultyDisk(length),
        Discard = true,
        IsCdRom = cd,
        IsRemovable = cd,
        IsReadOnly = cd,
        OnWriteError = ErrorPolicy.Stop,
    };

    public void Run(byte[] input)
    {
        var machineLock = new Lock();
        using var loop = new EventLoop(machineLock);
        using var pc = Make(loop, machineLock);
        var apic = pc.Devices.OfType<LocalApic>().First();
        var services = pc.Services;
        pc.ResetNow(null);
        for (int at = 0; at + StepLength <= input.Length && at < StepLength * MostSteps; at += StepLength)
            Step(input.AsSpan(at, StepLength), pc, apic);
        services.Workers.Drain();
        lock (machineLock)
        {
            if (pc.Devices.OfType<IScreenSource>().First() is var screen)
                screen.Capture();
            foreach (var device in pc.Devices)
            {
                var first = new StateWriter();
                device.Describe(first);
                device.Describe(new StateReader(first.ToArray()));
            }
        }
        pc.ResetNow("guest-reset");
        services.Workers.Drain();
    }

    private static void Step(ReadOnlySpan<byte> step, Pc pc, LocalApic apic)
    {
        var services = pc.Services;
        ushort where = BinaryPrimitives.ReadUInt16LittleEndian(step[1..]);
        int size = 1 << (BitOperations.Log2((uint)step[3] | 1) & 3);
        ulong value = BinaryPrimitives.ReadUInt64LittleEndian(step[4..]) & ulong.MaxValue >> (64 - 8 * size);
        ulong address = (where >> 12) is 12 ? Regions[12] + (where & 0xFFFu) : Regions[where >> 12] + (where & 0xFFFu & ~(uint)(size - 1));
        bool isApic = address >> 12 == apic.Base >> 12;
        switch ((GuestProgram.Step)(step[0] % (int)GuestProgram.Step.Count))
        {
            case GuestProgram.Step.Out:
                lock (services.Lock)
                    services.Ports.Write(where, (uint)value, Math.Min(size, 4));
                break;
            case GuestProgram.Step.In:
                lock (services.Lock)
                    services.Ports.Read(where, Math.Min(size, 4));
                break;
            case GuestProgram.Step.Store:
                lock (services.Lock)
                    if (isApic)
                        apic.MmioWrite((int)(address & 0xFFF), value, size);
                    else if (!services.Memory.Write(address, step.Slice(4, size)))
                        services.Mmio.Write(address, value, size);
                break;
            case GuestProgram.Step.Load:
                lock (services.Lock)
                    if (isApic)
                        apic.MmioRead((int)(address & 0xFFF), size);
                    else
                        services.Mmio.Read(address, size);
                break;
            case GuestProgram.Step.Memory:
                lock (services.Lock)
                    services.Memory.Write(0x10000ul + where, step.Slice(4, size));
                break;
            case GuestProgram.Step.Drain:
                services.Workers.Drain();
                break;
            case GuestProgram.Step.Pass:
                lock (services.Lock)
                    services.Clock.AdvanceTo(services.Clock.Now + (long)(value % 2_000_000) * 1000);
                break;
            case GuestProgram.Step.Config:
                lock (services.Lock)
                {
                    var functions = pc.Pci!.Functions.ToList();
                    functions[(where >> 8) % functions.Count].ConfigWrite(where & 0xFC, (uint)value, 4);
                }
                break;
        }
    }
}
