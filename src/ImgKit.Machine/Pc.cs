using System.Text;
using ImgKit.Cpu;
using ImgKit.Host;
using ImgKit.Machine.Chipset;
using ImgKit.Machine.Devices.Input;
using ImgKit.Machine.Devices.Misc;
using ImgKit.Machine.Devices.Serial;
using ImgKit.Machine.Devices.Storage;
using ImgKit.Machine.Devices.Storage.Flash;
using ImgKit.Machine.Devices.Storage.Floppy;
using ImgKit.Machine.Firmware;
using ImgKit.Machine.Pci;

namespace ImgKit.Machine;

/// <summary>The PC: i440FX and PIIX3 (<c>-M pc</c>), or ISA alone (<c>-M isapc</c>), with its processors.</summary>
public sealed partial class Pc : IMachineControl, IDisposable
{
    private readonly PcOptions _options;
    private readonly PhysicalMemoryMap _map = new(), _systemManagementMap = new();
    private readonly VcpuGroup _vcpus;
    private readonly List<Device> _devices = [];
    private readonly MemoryMapping? _rom;
    private readonly ApicBus? _apicBus;
    private readonly Pic? _pic;
    private readonly Pit? _pit;
    private readonly IoApic? _ioApic;
    private readonly I440Fx? _host;
    private readonly FpuErrorLatch? _fpuErrors;
    private readonly Piix3? _isaBridge;
    private readonly Piix4Pm? _pm;
    private readonly Rtc _rtc;
    // The end of the firmware shows below 1 MiB, too, where the processor's first mode reaches it.
    private const int LowRomLength = 0x2_0000;

    private readonly KernelLoader? _kernel;
    private readonly List<ParallelFlash> _flash = [];

    /// <summary>Makes a machine that stands still. Throws <see cref="MachineException"/>, or what the engine throws.</summary>
    public Pc(PcOptions options)
    {
        if (options.MemorySize < 1 << 20 || options.MemorySize % 4096 != 0)
            throw new MachineException("memory size must be at least 1 MiB and a multiple of 4096");
        if (options is { Firmware: null, Kernel: null } && options.Flash[0] == null)
            throw new MachineException("no firmware and no kernel: nothing to run");
        _options = options;
        _vcpus = new VcpuGroup { TripleFault = OnTripleFault, Failed = OnEngineFailure, Debugged = OnDebug };
        var machineLock = options.MachineLock;
        var loop = options.Loop;
        var clock = new VirtualClock(loop.WakeAt);
        loop.TimersDue = clock.RunDue;
        GuestMemory memory;
        try
        {
            memory = new GuestMemory(options.MemorySize, _map);
        }
        catch (IOException e)
        {
            throw new MachineException($"cannot set up guest memory 'pc.ram': {e.Message}", e);
        }
        var space = new AddressSpace(_map, _systemManagementMap);
        space.Add(AddressSpace.RamPriority, 0, memory.LowSize, memory.Base, MemoryKind.Ram);
        if (memory.HighSize > 0)
            space.Add(AddressSpace.RamPriority, 1UL << 32, memory.HighSize, memory.Base + (nint)memory.LowSize, MemoryKind.Ram);
        Services = new MachineServices
        {
            Lock = machineLock,
            Ports = new PortBus(),
            Mmio = new MmioBus(),
            Space = space,
            Memory = memory,
            Clock = clock,
            Loop = loop,
            Workers = new DiskWorkers(machineLock, 8),
            Control = this,
        };
        loop.Failed = e => OnEngineFailure(null, e.ToString());

        if (options.Firmware != null)
        {
            if (options.Firmware.Length is 0 or > 16 << 20 || options.Firmware.Length % 4096 != 0)
                throw new MachineException("could not load PC BIOS: its size is not a multiple of 4096, up to 16 MiB");
            // What is smaller than its window below 1 MiB has nothing before it there.
            _rom = MemoryMapping.Anonymous((nuint)Math.Max(options.Firmware.Length, LowRomLength));
            space.Add(AddressSpace.ChipsetPriority, (1UL << 32) - (ulong)options.Firmware.Length, (ulong)options.Firmware.Length,
                _rom.Address + (nint)_rom.Length - options.Firmware.Length, MemoryKind.Rom);
        }
        ulong flashEnd = 1UL << 32;
        foreach (var drive in options.Flash.OfType<Drive>())
        {
            _flash.Add(Add(new ParallelFlash(Services, drive, flashEnd)));
            flashEnd = _flash[^1].Start;
        }
        // The VGA window is not memory, whatever RAM lies behind it.
        space.Add(AddressSpace.PciPriority, 0xA0000, 0x20000, 0, MemoryKind.Ram);
        space.Update();

        Engine = options.Engine(_map, _systemManagementMap);
        Services.Engine = Engine;
        memory.Reserved = Engine.ReservedRange;
        var controllers = Engine.InterruptControllers;
        var gsi = new GsiRouter();
        Services.IsaInterrupts = gsi;
        if (controllers == InterruptControllers.Kernel)
        {
            gsi.Engine = Engine;
            Services.Messages = new EngineMessages(Engine);
        }
        else
        {
            if (controllers == InterruptControllers.Machine)
            {
                _apicBus = new ApicBus();
                Services.Messages = _apicBus;
            }
            else
                Services.Messages = new EngineMessages(Engine);
            _pic = Add(new Pic(Services, SetPicOutput));
            _ioApic = Add(new IoApic(Services));
            if (controllers == InterruptControllers.Split)
                _ioApic.RouteChanged = Engine.SetIoApicRoute;
            gsi.Pic = _pic;
            gsi.IoApic = _ioApic;
        }
        for (int i = 0; i < options.Processors; i++)
        {
            var bus = new VcpuBus(Services) { FpuError = () => _fpuErrors?.Raise() };
            var thread = _vcpus.Add(Engine.CreateVcpu(i, bus));
            if (_apicBus != null)
                bus.Apic = Add(_apicBus.Add(Services, thread));
            else if (_pic != null)
            {
                bus.Acknowledge = _pic.Acknowledge;
                bus.Ended = _ioApic!.EndOfInterrupt;
            }
            if (bus.Apic != null)
                bus.Apic.TimeOfTsc = tsc => (long)Math.Min(tsc, long.MaxValue / 4);
        }
        if (_apicBus != null)
        {
            _apicBus.IoApic = _ioApic;
            _apicBus.Pic = _pic;
        }
        // Where the kernel has local APICs, nobody can tell whether a tick waits there.
        var ticks = Add(new TickLine(Services.IsaLine(0), _apicBus != null && options.DeliversLateTicks ? LookAtTicks : null));
        if (_apicBus != null)
            _apicBus.Taken = _pic!.Taken = ticks.Taken;
        if (controllers != InterruptControllers.Kernel)
            _pit = Add(new Pit(Services, ticks));

        var a20 = Add(new A20Gate(Services, Engine.SetA20));
        Keyboard = Add(new I8042(Services, a20));
        _fpuErrors = Add(new FpuErrorLatch(Services, Services.IsaLine(13), () =>
        {
            foreach (var t in _vcpus.Threads)
                t.Cpu.IgnoreFpuErrors();
        }));
        _rtc = Add(new Rtc(Services, Services.IsaLine(8), options.Date) { DeliversLateTicks = options.DeliversLateRtcTicks });
        Dma = Add(new Dma8237(Services));
        if (options.HasHpet)
            Add(new Hpet(Services, gsi, ticks, replaced =>
            {
                _pit?.SetLegacyReplaced(replaced);
                Engine.SetTimerReplaced(replaced);
                _rtc.SetLegacyReplaced(replaced);
            }));
        AddPorts();

        if (_flash.Count > 0 && _flash[0].Length < LowRomLength)
            throw new MachineException($"system firmware block device {options.Flash[0]!.Name} is too small: {LowRomLength} bytes are the least");
        nint romLow = _flash.Count > 0 ? _flash[0].Host + (nint)(_flash[0].Length - LowRomLength) : _rom != null ? _rom.Address + (nint)_rom.Length - LowRomLength : 0;
        if (options.HasPci)
        {
            _isaBridge = new Piix3(Services, gsi);
            Pci = new PciBus(_isaBridge);
            _host = Add(new I440Fx(Services, Pci, romLow) { ResetControl = _isaBridge.WriteResetControl });
            Pci.Add(Add(_isaBridge), 1);
            var ide = Add(new PiixIde(Services));
            Pci.Add(ide, 1, 1);
            IdeChannels = ide.Channels;
            if (options.HasUsb)
                Pci.Add(Add(new Devices.Usb.Uhci(Services)), 1, 2);
            if (options.HasAcpi)
            {
                _pm = Add(new Piix4Pm(Services, Services.IsaLine(9), () => _vcpus.Threads[0].RaiseSmi(), Engine.HasSystemManagementMode)
                {
                    Sleep = OnSleep,
                });
                _rtc.AlarmDue = _pm.RaiseRtcAlarm;
                Pci.Add(_pm, 1, 3);
            }
        }
        else
        {
            // Without a chipset that shadows it, the firmware runs from memory that it can write.
            if (romLow != 0)
                space.Add(AddressSpace.ChipsetPriority, 0x10_0000 - LowRomLength, LowRomLength, romLow, MemoryKind.Ram);
            space.Update();
            IdeChannels = [new IdeChannel(Services, Services.IsaLine(14)), new IdeChannel(Services, Services.IsaLine(15)) { Number = 1 }];
            IdeChannels[0].RegisterPorts(0x1F0, 0x3F6);
            IdeChannels[1].RegisterPorts(0x170, 0x376);
            foreach (var c in IdeChannels)
                Add(c);
        }
        for (int i = 0; i < 4; i++)
            if (options.IdeDrives[i] is { } drive)
            {
                IdeChannels[i >> 1].Attach(i & 1, drive);
                int place = i;
                if (drive.BootIndex >= 0)
                    AddBootEntry(drive.BootIndex, () => $"/pci@i0cf8/ide@1,1/drive@{place >> 1}/disk@{place & 1}");
            }
        Floppy = Add(new FloppyController(Services, Dma) { ChecksRate = options.ChecksFloppyRate });
        for (int i = 0; i < 2; i++)
            if (options.Floppies[i] is { } floppy)
            {
                Floppy.Attach(i, floppy, options.FloppyKinds[i]);
                AddFloppyBoot(i, floppy);
            }
        FwCfg = Add(new FwCfg(Services));
        if (options is { Kernel: not null, StartsKernelByFirmware: false })
            _kernel = new KernelLoader(options.Kernel, options.InitialRamDisks, options.CommandLine);
    }

    // A guest that has the I/O APIC pass the timer on does not listen to the PIC for it.
    private TickState LookAtTicks()
    {
        var (open, waiting) = _ioApic!.Look(2, _apicBus!);
        if (open)
            return new TickState(2, waiting);
        (open, waiting) = _pic!.Look(0);
        return open ? new TickState(1, waiting) : default;
    }

    /// <summary>What devices are given.</summary>
    public MachineServices Services { get; }

    /// <summary>What runs the processors.</summary>
    public CpuEngine Engine { get; }

    /// <summary>The PCI bus; null on <c>isapc</c>.</summary>
    public PciBus? Pci { get; }

    /// <summary>The two IDE channels.</summary>
    public IReadOnlyList<IdeChannel> IdeChannels { get; }

    /// <summary>The floppy disk controller.</summary>
    public FloppyController Floppy { get; }

    /// <summary>The ISA DMA controllers.</summary>
    public Dma8237 Dma { get; }

    /// <summary>Keyboard and mouse.</summary>
    public I8042 Keyboard { get; }

    /// <summary>The firmware's configuration.</summary>
    public FwCfg FwCfg { get; }

    /// <summary>The real-time clock.</summary>
    public Rtc Rtc => _rtc;

    /// <summary>Every device, in the order in which they are reset.</summary>
    public IReadOnlyList<Device> Devices => _devices;

    /// <summary>The processors.</summary>
    public IEnumerable<Vcpu> Processors => _vcpus.Threads.Select(t => t.Cpu);

    /// <summary>The options it was made with.</summary>
    public PcOptions Options => _options;

    /// <summary>Adds a device, to be reset and saved with the machine.</summary>
    public T Add<T>(T device) where T : Device
    {
        if (device.Id.Length == 0)
            device.Id = $"{device.TypeName}.{_devices.Count}";
        _devices.Add(device);
        return device;
    }

    /// <summary>Makes a device from the catalogue. Throws <see cref="MachineException"/>.</summary>
    public Device AddDevice(DeviceType type, IReadOnlyDictionary<string, string> values, Func<string, Drive?>? drives = null,
        Func<string, CharDevices.CharDevice>? charDevices = null)
    {
        var plug = new DevicePlug
        {
            Services = Services,
            Options = new DeviceOptions(values),
            Pci = Pci,
            Machine = this,
            Drives = drives,
            CharDevices = charDevices,
        };
        plug.CheckBus(type);
        var device = type.Create(plug);
        if (values.TryGetValue("id", out var id))
            device.Id = id;
        return Add(device);
    }

    private readonly List<Drive> _drives = [];

    /// <summary>Who uses the nodes below them.</summary>
    internal Devices.Storage.NodeUses Nodes { get; } = new();

    /// <summary>Every drive, for monitors; in the order of <c>info block</c>.</summary>
    public IReadOnlyList<Drive> Drives => _drives;

    /// <summary>Lists a drive.</summary>
    public void AddDrive(Drive drive) => _drives.Add(drive);

    /// <summary>Lists a drive in place of the one that it was made from.</summary>
    internal void ReplaceDrive(Drive? old, Drive drive)
    {
        int at = old == null ? -1 : _drives.IndexOf(old);
        if (at >= 0)
            _drives[at] = drive;
        else
            _drives.Add(drive);
    }

    private void SetPicOutput(bool level)
    {
        if (_apicBus != null)
            _apicBus.SetExternal(level);
        else
            _vcpus.Threads[0].SetInterruptLine(level);
    }

    private void AddPorts()
    {
        ReadOnlySpan<ushort> serial = [0x3F8, 0x2F8, 0x3E8, 0x2E8], parallel = [0x378, 0x278, 0x3BC];
        ReadOnlySpan<int> lines = [7, 5, 5];
        for (int i = 0; i < Math.Min(4, _options.SerialPorts.Count); i++)
            if (_options.SerialPorts[i] is { } back)
                Add(new Uart16550(Services, serial[i], (i & 1) == 0 ? 4 : 3, back));
        for (int i = 0; i < Math.Min(3, _options.ParallelPorts.Count); i++)
            if (_options.ParallelPorts[i] is { } back)
                Add(new ParallelPort(Services, parallel[i], lines[i], back));
        if (_options.DebugConsole != null)
            Add(new DebugConsole(Services, 0x402, _options.DebugConsole));
    }

    private AcpiMachine DescribeAcpi() => new(
        [.. Processors.Select(p => (uint)p.Index)],
        (uint)Math.Max(Services.Memory.LowSize, 0xC000_0000 - 0x2000_0000UL),
        (1UL << 32) + Services.Memory.HighSize,
        _devices.Any(d => d is Hpet), Floppy.KindOf(0) != 0 || Floppy.KindOf(1) != 0,
        _options.SerialPorts.Count(s => s != null), _options.ParallelPorts.Any(p => p != null),
        _devices.Any(d => d is PanicPort), _pm!.PmBase);

    // What firmware, or a kernel that is started without one, finds at power-on. Under the machine lock, processors parked.
    private void PrepareBoot()
    {
        if (_rom != null)
            unsafe
            {
                var rom = new Span<byte>((void*)_rom.Address, (int)_rom.Length);
                rom[..^_options.Firmware!.Length].Fill(0xFF);
                _options.Firmware.CopyTo(rom[^_options.Firmware.Length..]);
            }
        FillCmos();
        var acpi = _pm != null ? new AcpiTables(DescribeAcpi()) : null;
        int perSocket = _options.Cores * _options.Threads;
        var smbios = SmbiosTables.Build((_options.Processors + perSocket - 1) / perSocket, _options.Cores, _options.Threads, _options.MemorySize, _options.Uuid);
        if (_kernel != null)
        {
            _host?.ShadowAll();
            _pm?.SetUpWithoutFirmware();
            if (Pci != null)
                PciSetup.Assign(Pci, (uint)Math.Max(Services.Memory.LowSize, 0xE000_0000));
            _kernel.Start(this, acpi, smbios);
            return;
        }
        FwCfg.SetItem(2, _options.Uuid.ToByteArray());
        FwCfg.SetItem(3, BitConverter.GetBytes(_options.MemorySize));
        FwCfg.SetItem(5, (ushort)_options.Processors);
        FwCfg.SetItem(0x0E, (ushort)(_options.BootMenu ? 1 : 0));
        FwCfg.SetItem(0x0F, (ushort)_options.Processors);
        FwCfg.SetItem(0x8002, [1, 0, 0, 0]);
        FwCfg.SetFile("etc/e820", E820.File(Services.Memory));
        if (_options.BootMenuWait is { } wait)
            FwCfg.SetFile("etc/boot-menu-wait", [(byte)wait, (byte)(wait >> 8)]);
        if (_options.BootRetry is { } retry)
            FwCfg.SetFile("etc/boot-fail-wait", BitConverter.GetBytes(retry));
        string order = BootOrderList();
        if (_options is { Kernel: { } kernel, StartsKernelByFirmware: true })
            order = ProvideKernel(kernel) + (order.Length > 0 ? "\n" : "") + order;
        if (order.Length > 0)
            FwCfg.SetFile("bootorder", Encoding.ASCII.GetBytes(order + "\0"));
        foreach (var (name, content) in _options.FirmwareFiles)
            FwCfg.SetFile(name, content);
        if (acpi != null)
            TableLoader.Provide(FwCfg, acpi, () => new AcpiTables(DescribeAcpi()), smbios);
    }

    private string ProvideKernel(BootFile kernel) => LinuxKernel.IsLinux(kernel)
        ? LinuxBootRom.Provide(FwCfg, kernel, _options.InitialRamDisks.Select(d => d.Content).FirstOrDefault(), _options.CommandLine, Services.Memory.LowSize)
        : MultibootKernel.Provide(FwCfg, kernel, _options.InitialRamDisks, _options.CommandLine, Services.Memory.LowSize);

    /// <summary>Firmware paths of the devices with a boot index, best first.</summary>
    private string BootOrderList()
    {
        var paths = _bootEntries.OrderBy(e => e.Index).Select(e => e.Path()).ToList();
        if (_options.BootStrict && paths.Count > 0)
            paths.Add("HALT");
        return string.Join('\n', paths);
    }

    private readonly List<(int Index, Func<string> Path)> _bootEntries = [];

    /// <summary>Has a device take part in the boot order.</summary>
    /// <param name="index">its place, from 0.</param>
    /// <param name="path">the firmware's path to it, asked for at each start.</param>
    /// <exception cref="MachineException">the place is taken.</exception>
    public void AddBootEntry(int index, Func<string> path)
    {
        if (_bootEntries.Exists(e => e.Index == index))
            throw new MachineException($"The bootindex {index} has already been used");
        _bootEntries.Add((index, path));
    }

    internal void AddFloppyBoot(int unit, Drive drive)
    {
        if (drive.BootIndex >= 0)
            AddBootEntry(drive.BootIndex, () => $"{(Pci != null ? "/pci@i0cf8/isa@1" : "/isa")}/fdc@03f0/floppy@{unit}");
    }

    private bool _bootedOnce;

    // The bytes that SeaBIOS reads (its src/hw/rtc.h) and those of the IBM AT.
    private void FillCmos()
    {
        ulong memory = Services.Memory.LowSize;
        ulong above1M = Math.Min(memory - (1 << 20), 63 << 20) >> 10;
        _rtc[0x15] = 0x80;
        _rtc[0x16] = 0x02;
        _rtc[0x17] = _rtc[0x30] = (byte)above1M;
        _rtc[0x18] = _rtc[0x31] = (byte)(above1M >> 8);
        ulong above16M = memory > 16 << 20 ? Math.Min((memory - (16 << 20)) >> 16, 0xFFFF) : 0;
        _rtc[0x34] = (byte)above16M;
        _rtc[0x35] = (byte)(above16M >> 8);
        ulong high = Services.Memory.HighSize >> 16;
        _rtc[0x5B] = (byte)high;
        _rtc[0x5C] = (byte)(high >> 8);
        _rtc[0x5D] = (byte)(high >> 16);
        _rtc[0x5F] = (byte)(_options.Processors - 1);
        _rtc[0x0F] = 0;
        byte equipment = 0x06;      // FPU and mouse
        int floppies = (Floppy.KindOf(0) != 0 ? 1 : 0) + (Floppy.KindOf(1) != 0 ? 1 : 0);
        if (floppies > 0)
            equipment |= (byte)(1 | (floppies - 1) << 6);
        _rtc[0x14] = equipment;
        _rtc[0x10] = (byte)((int)Floppy.KindOf(0) << 4 | (int)Floppy.KindOf(1));
        string order = !_bootedOnce && _options.BootOnce != null ? _options.BootOnce : _options.BootOrder;
        int nibbles = 0;
        for (int i = 0; i < Math.Min(3, order.Length); i++)
            nibbles |= (order[i] switch { 'a' => 1, 'c' => 2, 'd' => 3, 'n' => 4, _ => 0 }) << (4 * i);
        _rtc[0x3D] = (byte)nibbles;
        _rtc[0x38] = (byte)((nibbles >> 8 & 15) << 4);
        _bootedOnce = true;
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _vcpus.End();
        Services.Loop.Dispose();
        Services.Workers.Dispose();
        foreach (var d in _devices)
            d.Close();
        foreach (var t in _vcpus.Threads)
            t.Cpu.Dispose();
        Engine.Dispose();
        _rom?.Dispose();
        _options.Kernel?.Dispose();
        foreach (var (content, _) in _options.InitialRamDisks)
            content.Dispose();
        Services.Memory.Dispose();
    }
}
