using System.Globalization;
using System.Text;
using ImgKit.CommandLine;
using ImgKit.Cpu.Models;
using ImgKit.Machine;
using ImgKit.Machine.CharDevices;
using ImgKit.Machine.Devices.Storage;
using ImgKit.Machine.Firmware;
using ImgKit.Machine.Monitors;

namespace ImgKit.Programs.Kvm;

/// <summary>Makes the machine that the settings describe.</summary>
internal sealed class MachineBuilder : IDisposable
{
    private static readonly string[] FirmwareFolders =
        ["/usr/share/seabios", "/usr/share/qemu", "/usr/share/qemu-kvm", "/usr/share/vgabios", "/usr/local/share/qemu", "/usr/lib/ipxe/qemu"];

    private readonly Settings _settings;
    private readonly Lock _lock = new();
    private readonly EventLoop _loop;
    private readonly CharDeviceFactory _chars;
    private readonly List<(CharDevice Device, bool IsQmp, bool Pretty)> _monitors = [];
    private MachineDrives? _drives;
    private Pc? _pc;

    internal MachineBuilder(Settings settings)
    {
        _settings = settings;
        _loop = new EventLoop(_lock);
        _chars = new CharDeviceFactory(_loop, Program.Tell) { Quit = () => _pc?.Quit(0), KeepSignals = !settings.NoGraphic };
    }

    /// <summary>Builds. Everything that can be wrong is found here, before anything runs.</summary>
    internal Pc Build()
    {
        var s = _settings;
        if (s.Machine == "isapc" && s.Memory > 3UL << 30)
            throw new MachineException("isapc has at most 3 GiB of RAM");
        if (HasFlash && s.Machine == "isapc")
            throw new MachineException("machine type does not support if=pflash,bus=0,unit=0");
        if (HasFlash && (s.Firmware != null || s.Kernel != null))
            throw new MachineException($"pflash and {(s.Firmware != null ? "-bios" : "-kernel")} exclude each other");
        if (s.Vga is not ("std" or "none"))
            throw new MachineException($"-vga {s.Vga}: there is only 'std' and 'none'");
        if (s.Kernel == null && s.CommandLine.Length > 0)
            throw new MachineException("-append only allowed with -kernel option");
        if (s.Kernel == null && s.InitialRamDisk != null)
            throw new MachineException("-initrd only allowed with -kernel option");
        if (s.Display is not (null or "none"))
            throw new MachineException($"Parameter 'type' does not accept value '{s.Display}': only 'none' is there yet");
        var topology = Topology();
        var engines = new EngineChooser(s, topology);
        var devices = ParseDevices();
        // Images first: who starts a machine twice by mistake meets their locks before sockets and files of the first one are touched.
        _drives = new MachineDrives(s, devices.Select(d => d.Values));
        _drives.Open();

        var kernel = s.Kernel == null ? null : new BootFile(s.Kernel, "could not load kernel");
        byte[]? firmware = HasFlash ? null : kernel == null || MultibootKernel.IsMultiboot(kernel) ? FindFirmware() : NeedsFirmware(kernel, engines) ? TryFindFirmware() : null;
        var ramDisks = LoadRamDisks();
        var files = FirmwareFiles();
        foreach (string text in s.CharDevices)
            With($"-chardev {text}", () => _chars.AddNamed(OptionList.Parse(text, "backend")));
        var options = new PcOptions
        {
            MachineLock = _lock,
            Loop = _loop,
            MemorySize = s.Memory,
            Processors = s.Processors,
            Cores = topology.Cores,
            Threads = topology.Threads,
            // Nothing but the firmware sets up system-management mode.
            Engine = (map, inSmm) => engines.Make(map, (firmware != null || HasFlash) && s.Smm ? inSmm : null),
            HasPci = s.Machine == "pc",
            HasAcpi = s.Acpi && s.Machine == "pc",
            HasUsb = s.Usb,
            HasHpet = s.Hpet && s.Machine == "pc",
            Firmware = firmware,
            Kernel = kernel,
            StartsKernelByFirmware = kernel != null && firmware != null,
            CommandLine = s.CommandLine,
            BootOrder = s.BootOrder,
            BootOnce = s.BootOnce,
            BootMenu = s.BootMenu,
            BootMenuWait = s.BootMenuWait,
            BootRetry = s.BootRetry,
            BootStrict = s.BootStrict,
            DebugConsole = s.DebugConsole == null ? null : With($"-debugcon {s.DebugConsole}", () => _chars.Make(s.DebugConsole, "debugcon")),
            Date = StartDate(s.RtcBase),
            DeliversLateTicks = s.ReinjectPitTicks,
            DeliversLateRtcTicks = s.ReinjectRtcTicks,
            Uuid = s.Uuid,
            Name = s.Name,
            NoReboot = s.NoReboot,
            NoShutdown = s.NoShutdown,
            StartStopped = s.StartStopped,
            ChecksFloppyRate = s.Global("isa-fdc", "check_media_rate") is not ("off" or "false" or "no"),
        };
        options.InitialRamDisks.AddRange(ramDisks);
        foreach (var (name, content) in files)
            options.FirmwareFiles[name] = content;
        AddPorts(options);
        foreach (var p in _drives.Placed)
            if (p.Interface == DriveInterface.Ide)
                options.IdeDrives[p.Index] = p.Drive;
            else if (p.Interface == DriveInterface.Floppy)
                options.Floppies[p.Index] = p.Drive;
            else if (p.Interface == DriveInterface.Pflash)
                options.Flash[p.Index] = p.Drive;
        if (HasFlash && options.Flash[0] == null)
            throw new MachineException("pflash1 requires pflash0");
        for (int i = 0; i < 2; i++)
        {
            options.FloppyKinds[i] = _drives.GlobalFloppyKind(i);
            if (_drives.GlobalFloppy(i) is { } floppy)
                options.Floppies[i] = options.Floppies[i] == null ? floppy : throw new MachineException($"Floppy unit {i} is in use");
        }
        // As the peer has it: a floppy drive and a CD-ROM drive without a medium, unless the place is taken.
        if (!s.NoDefaults && options.Floppies[0] == null && !devices.Exists(d => d.Type.Name == "floppy"))
            options.Floppies[0] = new Drive { Name = "floppy0", IsRemovable = true };
        if (!s.NoDefaults && options.IdeDrives[2] == null)
            options.IdeDrives[2] = new Drive { Name = "ide1-cd0", IsCdRom = true, IsRemovable = true, IsReadOnly = true };

        _pc = new Pc(options) { Report = Program.Say };
        for (int i = 0; i < 4; i++)
            if (options.IdeDrives[i] is { } d)
            {
                d.AttachedTo = $"/machine/unattached/ide{i >> 1}-{i & 1}";
                _pc.AddDrive(d);
            }
        for (int i = 0; i < 2; i++)
            if (options.Floppies[i] is { } f)
            {
                f.AttachedTo = $"/machine/unattached/floppy{i}";
                _pc.AddDrive(f);
            }
        AddDevices(_drives, devices);
        foreach (var (device, qmp, pretty) in _monitors)
            _ = qmp ? (object)new QmpMonitor(_pc, device, pretty) : new HumanMonitor(_pc, device);
        _pc.MediaOpener = _drives.Opener;
        _pc.NodeOpener = _drives.Nodes;
        _pc.CharDeviceList = () => _chars.All;
        return _pc;
    }

    // Firmware comes from flash memory.
    private bool HasFlash => _settings.Drives.Exists(d => d.Values.Exists(v => v is { Key: "if", Value: "pflash" }));

    private CpuTopology Topology()
    {
        var s = _settings;
        int threads = Math.Max(1, s.Threads), cores = s.Cores, sockets = s.Sockets;
        if (cores == 0)
            cores = Math.Max(1, s.Processors / (Math.Max(1, sockets) * threads));
        if (sockets == 0)
            sockets = (s.Processors + cores * threads - 1) / (cores * threads);
        return new CpuTopology(sockets, cores, threads);
    }

    // A kernel that the processor may be too old for is started by its own setup code, which says so; it also sets the screen's mode. Both need a BIOS.
    private bool NeedsFirmware(BootFile kernel, EngineChooser engines) =>
        LinuxKernel.IsLinux(kernel) && (!engines.HasLongMode || LinuxKernel.Is32Bit(kernel) || LinuxKernel.WantsScreenMode(_settings.CommandLine));

    private byte[]? TryFindFirmware()
    {
        try
        {
            return FindFirmware();
        }
        catch (MachineException) when (_settings.Firmware == null)
        {
            return null;
        }
    }

    private byte[] FindFirmware()
    {
        // The larger build needs a chipset that shadows it.
        string[] names = _settings.Firmware != null ? [_settings.Firmware] : _settings.Machine == "pc" ? ["bios-256k.bin", "bios.bin"] : ["bios.bin"];
        foreach (string name in names)
        {
            if (_settings.Firmware != null && File.Exists(name))
                return ReadFile(name, "could not load PC BIOS");
            foreach (string folder in _settings.Folders.Concat(FirmwareFolders))
                if (File.Exists(Path.Combine(folder, name)))
                    return ReadFile(Path.Combine(folder, name), "could not load PC BIOS");
        }
        throw new MachineException(_settings.Firmware != null ? $"could not load PC BIOS '{_settings.Firmware}'"
            : $"could not load PC BIOS '{names[0]}': install the package seabios, or name a folder with -L");
    }

    private static byte[] ReadFile(string path, string what)
    {
        try
        {
            return File.ReadAllBytes(path);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new MachineException($"{what} '{path}': {Host.HostException.TextOf(e)}");
        }
    }

    private List<(BootFile Content, string CommandLine)> LoadRamDisks()
    {
        if (_settings.InitialRamDisk is not { } text)
            return [];
        // Multiboot modules are separated by commas, each with its arguments; a single file may have a comma in its name.
        string[] modules = File.Exists(text) ? [text] : text.Split(',');
        return [.. modules.Select(m => (new BootFile(File.Exists(m) ? m : m.Split(' ')[0], "could not load initrd"), m))];
    }

    private Dictionary<string, byte[]> FirmwareFiles()
    {
        var files = new Dictionary<string, byte[]>();
        foreach (string text in _settings.FirmwareConfig)
            With($"-fw_cfg {text}", () => AddFirmwareFile(files, text));
        if (_settings.BootSplash != null)
            AddSplash(files, ReadFile(_settings.BootSplash, "failed to read splash file"));
        // Without a screen the firmware talks over the first serial port, as the peer has it for -nographic.
        if (_settings.NoGraphic)
            files["etc/sercon-port"] = [0xF8, 0x03];
        return files;
    }

    private void AddPorts(PcOptions options)
    {
        var s = _settings;
        void Monitor(CharDevice device) => _monitors.Add((device, false, false));
        if (s.NoGraphic && s.Serials.Count == 0 && !s.NoDefaults)
            options.SerialPorts.Add(_chars.Make(s.MonitorGiven ? "stdio" : "mon:stdio", "serial0", Monitor));
        else if (s.Serials.Count == 0 && !s.NoDefaults)
            options.SerialPorts.Add(_chars.Make("vc", "serial0"));
        if (s.Serials.Count > 4)
            throw new MachineException("Too many serial ports: there are four");
        for (int i = 0; i < s.Serials.Count; i++)
            options.SerialPorts.Add(s.Serials[i] == "none" ? null : With($"-serial {s.Serials[i]}", () => _chars.Make(s.Serials[i], $"serial{i}", Monitor)));
        if (s.Parallels.Count > 3)
            throw new MachineException("Too many parallel ports: there are three");
        for (int i = 0; i < s.Parallels.Count; i++)
            options.ParallelPorts.Add(s.Parallels[i] == "none" ? null : With($"-parallel {s.Parallels[i]}", () => _chars.Make(s.Parallels[i], $"parallel{i}", Monitor)));
        if (s.Parallels.Count == 0 && !s.NoDefaults)
            options.ParallelPorts.Add(_chars.Make("vc", "parallel0"));
        for (int i = 0; i < s.Monitors.Count; i++)
        {
            var m = s.Monitors[i];
            _monitors.Add((With(m.Option, () => _chars.Make(m.Device, $"compat_monitor{i}")), m.IsQmp, m.Pretty));
        }
    }

    // Errors name the option that they are about.
    private static T With<T>(string option, Func<T> work)
    {
        try
        {
            return work();
        }
        catch (MachineException e)
        {
            throw new MachineException($"{option}: {e.Message}", e);
        }
    }

    private static void With(string option, Action work) => With(option, () =>
    {
        work();
        return 0;
    });

    // JPEG or BMP, told by their first bytes.
    private static void AddSplash(Dictionary<string, byte[]> files, byte[] picture)
    {
        string? kind = picture.AsSpan() switch
        {
            [0xFF, 0xD8, ..] => "jpg",
            [0x42, 0x4D, ..] => "bmp",
            _ => null,
        };
        files[$"bootsplash.{kind ?? throw new MachineException("splash file must be a JPEG or BMP picture")}"] = picture;
    }

    private static void AddFirmwareFile(Dictionary<string, byte[]> files, string text)
    {
        var values = OptionList.Parse(text, "name");
        string? name = values.Find(v => v.Key == "name").Value, file = values.Find(v => v.Key == "file").Value, content = values.Find(v => v.Key == "string").Value;
        if (values.Find(v => v.Key is not ("name" or "file" or "string")).Key is { } other)
            throw new MachineException($"Invalid parameter '{other}'");
        if (name == null || (file == null) == (content == null))
            throw new MachineException("name, plus exactly one of file and string, are needed");
        files[name] = file != null ? ReadFile(file, "can't load") : Encoding.UTF8.GetBytes(content!);
    }

    private static DateTime StartDate(string text)
    {
        switch (text)
        {
            case "utc":
                return DateTime.UtcNow;
            case "localtime":
                return DateTime.SpecifyKind(DateTime.Now, DateTimeKind.Utc);
            default:
                string[] forms = ["yyyy-MM-dd", "yyyy-MM-dd'T'HH:mm:ss"];
                return DateTime.TryParseExact(text, forms, CultureInfo.InvariantCulture,
                    DateTimeStyles.AssumeUniversal | DateTimeStyles.AdjustToUniversal, out var date) ? date
                    : throw new MachineException("invalid datetime format. Valid formats: 'utc', 'localtime', 'YYYY-MM-DD' and 'YYYY-MM-DDTHH:MM:SS'");
        }
    }

    // What -device says, with its type; before anything is opened.
    private List<(string Text, DeviceType Type, List<KeyValuePair<string, string>> Values)> ParseDevices()
    {
        var devices = new List<(string, DeviceType, List<KeyValuePair<string, string>>)>();
        foreach (string text in _settings.Devices)
        {
            string option = $"-device {text}: ";
            var values = PropertyList.Parse(text);
            string name = values.Find(v => v.Key == "driver").Value ?? throw new MachineException($"{option}Parameter 'driver' is missing");
            var type = DeviceCatalogue.Find(name) ?? throw new MachineException($"{option}'{name}' is not a valid device model name");
            var known = Known(type);
            foreach (var (key, _) in values)
                if (!known.Contains(key))
                    throw new MachineException($"{option}Property '{type.Name}.{key}' not found");
            if (values.Find(v => v.Key == "id").Value is { } id && devices.Exists(d => d.Item3.Contains(new("id", id))))
                throw new MachineException($"{option}Duplicate device ID '{id}'");
            devices.Add((text, type, values));
        }
        return devices;
    }

    private static HashSet<string> Known(DeviceType type) => [.. type.Properties.Select(p => p.Name), "driver", "id", "bus", "addr", "bootindex", "multifunction"];

    private void AddDevices(MachineDrives drives, List<(string Text, DeviceType Type, List<KeyValuePair<string, string>> Values)> devices)
    {
        if (_settings is { NoDefaults: false, Vga: "std" })
        {
            var (vga, bios) = _settings.Machine == "pc" ? ("VGA", "vgabios-stdvga.bin") : ("isa-vga", "vgabios-isavga.bin");
            var values = new Dictionary<string, string>();
            if (_settings.Folders.Select(f => Path.Combine(f, bios)).FirstOrDefault(File.Exists) is { } file)
                values["romfile"] = file;
            _pc!.AddDevice(DeviceCatalogue.Find(vga)!, values);
        }
        foreach (var p in drives.Placed)
            AddDrive(drives, p);
        foreach (var (text, type, values) in devices)
        {
            var known = Known(type);
            var properties = new Dictionary<string, string>();
            foreach (var (driver, key, value) in _settings.Globals)
                if (driver == type.Name && known.Contains(key))
                    properties[key] = value;
            foreach (var (key, value) in values)
                properties[key] = value;
            With($"-device {text}", () => _pc!.AddDevice(type, properties, drives.Find, _chars.Named));
        }
    }

    // The device of a -drive that has none on the board.
    private void AddDrive(MachineDrives drives, DriveOpener.Placed p)
    {
        if (p.Interface is DriveInterface.Ide or DriveInterface.Floppy)
            return;
        if (!drives.IsReplaced(p.Drive))
            _pc!.AddDrive(p.Drive);
        if (p.Interface is DriveInterface.None or DriveInterface.Pflash)
            return;
        var values = new Dictionary<string, string> { ["drive"] = p.Drive.Name };
        string type = "virtio-blk-pci";
        if (p.Interface == DriveInterface.Scsi)
        {
            int bus = p.Index / 7;
            while (_pc!.Devices.Count(d => d.TypeName == "lsi53c895a") <= bus)
                _pc.AddDevice(DeviceCatalogue.Find("lsi53c895a")!, new Dictionary<string, string>());
            values["bus"] = $"scsi.{bus}";
            values["scsi-id"] = $"{p.Index % 7}";
            type = p.Drive.IsCdRom ? "scsi-cd" : "scsi-hd";
        }
        _pc!.AddDevice(DeviceCatalogue.Find(type)!, values, drives.Find, _chars.Named);
    }

    /// <summary>Begins input and output of character devices.</summary>
    internal void Start()
    {
        lock (_lock)
            _chars.Start();
    }

    /// <summary>Closes what the machine used: images last, so that what the guest wrote is in them.</summary>
    public void Dispose()
    {
        _pc?.Dispose();
        _loop.Dispose();
        _drives?.Close(_pc?.Drives ?? []);
        _chars.Dispose();
    }
}
