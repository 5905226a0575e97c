using System.Globalization;
using ImgKit.CommandLine;
using ImgKit.Cpu;
using ImgKit.Cpu.Models;
using ImgKit.Machine;

namespace ImgKit.Programs.Kvm;

/// <summary>An option of the program.</summary>
/// <param name="Name">without its dash.</param>
/// <param name="Argument">what its argument is called in the help; null: it takes none.</param>
/// <param name="Help">one line.</param>
/// <param name="Apply">takes the value in.</param>
internal sealed record Option(string Name, string? Argument, string Help, Action<Settings, string> Apply);

/// <summary>The command line: one table, read by the parser and by <c>-help</c>.</summary>
internal static class Options
{
    internal static readonly Option[] All =
    [
        new("h", null, "display this help and exit", (_, _) => throw new HelpRequested(Help())),
        new("help", null, "display this help and exit", (_, _) => throw new HelpRequested(Help())),
        new("version", null, "display version information and exit", (_, _) => throw new HelpRequested(Version())),
        new("generate", "man|bash|zsh", "", (_, v) => throw new HelpRequested(Generate(v))),
        new("machine", "[type=]name[,prop[=value][,...]]", "select the machine ('-machine help' lists them)", Machine),
        new("M", "[type=]name[,prop[=value][,...]]", "as -machine", Machine),
        new("cpu", "cpu", "select the CPU model ('-cpu help' lists them)", Cpu),
        new("accel", "[accel=]accelerator[,prop[=value][,...]]", "select the accelerator (kvm, soft, auto; 'help' lists them)", Accel),
        new("enable-kvm", null, "as -accel kvm", (s, _) => Accel(s, "kvm")),
        new("no-kvm", null, "as -accel soft", (s, _) => s.Accelerator = "soft"),
        new("smp", "[cpus=]n[,sockets=n][,cores=n][,threads=n]", "number of processors and how they are grouped", Smp),
        new("m", "[size=]megs", "RAM size, in MiB or with a suffix K, M, G (default: 128)", Memory),
        new("k", "language", "keyboard layout of graphical displays", (_, _) => { }),
        new("fda", "file", "floppy disk image of drive A", (s, v) => Image(s, "-fda", v, "if", "floppy", "index", "0")),
        new("fdb", "file", "floppy disk image of drive B", (s, v) => Image(s, "-fdb", v, "if", "floppy", "index", "1")),
        new("hda", "file", "IDE hard disk 0 image", (s, v) => Image(s, "-hda", v, "index", "0", "media", "disk")),
        new("hdb", "file", "IDE hard disk 1 image", (s, v) => Image(s, "-hdb", v, "index", "1", "media", "disk")),
        new("hdc", "file", "IDE hard disk 2 image", (s, v) => Image(s, "-hdc", v, "index", "2", "media", "disk")),
        new("hdd", "file", "IDE hard disk 3 image", (s, v) => Image(s, "-hdd", v, "index", "3", "media", "disk")),
        new("cdrom", "file", "CD-ROM image, at IDE position 2", (s, v) => Image(s, "-cdrom", v, "index", "2", "media", "cdrom")),
        new("drive", "[file=file][,if=type][,index=n][,media=d][,snapshot=on|off][,cache=mode][,format=f]...",
            "a drive; also id=, serial=, readonly=, discard=, detect-zeroes=, copy-on-read=, rerror=, werror=, bus=, unit=, aio=, throttling.*=, bootindex=",
            (s, v) => s.Drives.Add(new DriveSpec("-drive " + v, OptionList.Parse(v)))),
        new("blockdev", "[driver=]driver[,node-name=n][,prop=value...]", "a block device for -device drive=", (s, v) => s.BlockDevices.Add(v)),
        new("snapshot", null, "write to temporary files instead of the disk images", (s, _) => s.Snapshot = true),
        new("boot", "[order=drives][,once=drives][,menu=on|off][,splash=file][,splash-time=ms][,reboot-timeout=ms][,strict=on|off]",
            "drives: floppy (a), hard disk (c), CD-ROM (d), network (n)", Boot),
        new("device", "driver[,prop[=value][,...]]", "add a device ('-device help' lists them)", Device),
        new("global", "driver.property=value", "set a property of all devices of a type (also isa-fdc: driveA, driveB, fdtypeA, fdtypeB, check_media_rate; kvm-pit: lost_tick_policy=delay|discard; mc146818rtc: lost_tick_policy=discard|slew)", Global),
        new("kernel", "file", "start a kernel: Linux (any), ELF with PVH entry, Multiboot", (s, v) => s.Kernel = v),
        new("append", "cmdline", "command line of the kernel", (s, v) => s.CommandLine = v),
        new("initrd", "file", "initial RAM disk of the kernel", (s, v) => s.InitialRamDisk = v),
        new("bios", "file", "firmware image", (s, v) => s.Firmware = v),
        new("L", "path", "folder where firmware is looked for first", (s, v) => s.Folders.Add(v)),
        new("fw_cfg", "[name=]name,file=file|string=text", "add a file to the firmware configuration", (s, v) => s.FirmwareConfig.Add(v)),
        new("serial", "dev", "send a serial port to a character device", (s, v) => s.Serials.Add(v)),
        new("parallel", "dev", "send a parallel port to a character device", (s, v) => s.Parallels.Add(v)),
        new("debugcon", "dev", "send the firmware's log (port 0x402) to a character device", (s, v) => s.DebugConsole = v),
        new("chardev", "backend,id=id[,prop=value...]", "a character device: null, stdio, file, pty, socket", (s, v) => s.CharDevices.Add(v)),
        new("monitor", "dev", "send the monitor to a character device", (s, v) => AddMonitor(s, $"-monitor {v}", v, false, false)),
        new("qmp", "dev", "like -monitor, in QMP", (s, v) => AddMonitor(s, $"-qmp {v}", v, true, false)),
        new("qmp-pretty", "dev", "like -qmp, with line breaks", (s, v) => AddMonitor(s, $"-qmp-pretty {v}", v, true, true)),
        new("mon", "[chardev=]name[,mode=readline|control][,pretty=on|off]", "a monitor on a -chardev", Mon),
        new("nographic", null, "no graphical output; serial port and monitor on the terminal", (s, _) => s.NoGraphic = true),
        new("display", "type", "what shows the screen", (s, v) => s.Display = v),
        new("vga", "std|none", "the graphics card", (s, v) => s.Vga = v),
        new("rtc", "[base=utc|localtime|date]", "date and time of the clock at the start", Rtc),
        new("name", "[guest=]name", "the guest's name", Name),
        new("uuid", "uuid", "the machine's UUID", (s, v) => s.Uuid = Guid.TryParse(v, out var g) ? g : throw new UsageException("failed to parse UUID string: wrong format")),
        new("pidfile", "file", "write the process's number to a file", (s, v) => s.PidFile = v),
        new("daemonize", null, "run in the background once the machine is set up", (s, _) => s.Daemonize = true),
        new("nodefaults", null, "no devices but those asked for", (s, _) => s.NoDefaults = true),
        new("no-user-config", null, "accepted: there is no configuration file", (_, _) => { }),
        new("nodefconfig", null, "accepted: there is no configuration file", (_, _) => { }),
        new("usb", null, "the USB host controller; nothing can be plugged into it yet", (s, _) => s.Usb = true),
        new("no-reboot", null, "exit instead of rebooting", (s, _) => s.NoReboot = true),
        new("no-shutdown", null, "stop instead of exiting when the guest powers off", (s, _) => s.NoShutdown = true),
        new("no-acpi", null, "no ACPI", (s, _) => s.Acpi = false),
        new("no-hpet", null, "no HPET", (s, _) => s.Hpet = false),
        new("S", null, "do not start the processors ('c' in the monitor does)", (s, _) => s.StartStopped = true),
        new("D", "logfile", "write the log to a file", (s, v) => s.LogFile = v),
        new("d", "item1,...", "log items ('-d help' lists them)", LogItems),
        new("net", "none", "networking; only 'none' is there", (_, v) => NoNetwork("net", v)),
        new("nic", "none", "networking; only 'none' is there", (_, v) => NoNetwork("nic", v)),
    ];

    internal sealed class HelpRequested(string text, int exitCode = 0) : Exception
    {
        internal string Text => text;

        internal int ExitCode => exitCode;
    }

    internal static Settings Parse(string[] args)
    {
        var settings = new Settings();
        for (int i = 0; i < args.Length; i++)
        {
            string arg = args[i];
            if (!arg.StartsWith('-') || arg == "-")
            {
                // A bare name is the first disk.
                Image(settings, null, arg, "index", "0", "media", "disk");
                continue;
            }
            string name = arg[(arg.StartsWith("--", StringComparison.Ordinal) ? 2 : 1)..];
            var option = Array.Find(All, o => o.Name == name) ?? throw new UsageException($"{arg}: invalid option");
            string value = "";
            if (option.Argument != null)
                value = ++i < args.Length ? args[i] : throw new UsageException($"{arg}: requires an argument");
            try
            {
                option.Apply(settings, value);
            }
            catch (UsageException e)
            {
                throw new UsageException(value.Length > 0 ? $"-{name} {value}: {e.Message}" : $"-{name}: {e.Message}");
            }
        }
        return settings;
    }

    private static string Version() => $"ImgKit kvm version {ProductVersion.Own}\n"
        + $"Compatible with the command line of QEMU emulator version {ProductVersion.Peer}\nCopyright (c) 2026 The ImgKit authors\n";

    /// <summary>The options that help and manual show: those with a word of help.</summary>
    private static IEnumerable<Option> Shown => All.Where(static o => o.Help.Length > 0);

    private static string Generate(string what)
    {
        int id = 256;
        var program = new ProgramSpec
        {
            Name = "kvm",
            Summary = "a PC on KVM or on a software CPU",
            Version = typeof(Pc).Assembly.GetName().Version?.ToString(3) ?? "",
            Description = "One dash before an option is enough: -drive and --drive are the same.",
            Options = [.. Shown.Where(static o => o.Name.Length > 1).Select(o => new OptionSpec(id++, o.Name, o.Argument, o.Help))],
            Operands = "[disk_image]",
        };
        return GeneratedText.Write(program, what) ?? throw new MachineException("-generate takes man, bash or zsh");
    }

    private static string Help()
    {
        var text = new System.Text.StringBuilder(Version()).Append($"usage: {ProgramName.Base} [options] [disk_image]\n\n");
        text.Append("'disk_image' is an image for IDE hard disk 0\n\n");
        foreach (var o in Shown)
        {
            string left = o.Argument == null ? $"-{o.Name}" : $"-{o.Name} {o.Argument}";
            text.Append(left.Length < 16 ? left.PadRight(16) : left + "\n                ").Append(o.Help).Append('\n');
        }
        return text.Append("\nDuring emulation with -nographic: C-a h shows the keys.\n").ToString();
    }

    private static void Image(Settings s, string? option, string file, params string[] pairs)
    {
        var values = new List<KeyValuePair<string, string>> { new("file", file) };
        for (int i = 0; i < pairs.Length; i += 2)
            values.Add(new(pairs[i], pairs[i + 1]));
        s.Drives.Add(new DriveSpec(option == null ? file : $"{option} {file}", values));
    }

    private static void AddMonitor(Settings s, string option, string device, bool qmp, bool pretty)
    {
        s.MonitorGiven |= !qmp;
        if (device != "none")
            s.Monitors.Add(new MonitorSpec(option, device, qmp, pretty));
    }

    private static void Mon(Settings s, string value)
    {
        string? device = null;
        bool qmp = false, pretty = false;
        foreach (var (key, v) in OptionList.Parse(value, "chardev"))
            switch (key)
            {
                case "chardev":
                    device = "chardev:" + v;
                    break;
                case "mode":
                    qmp = v is "readline" or "control" ? v == "control" : throw new UsageException($"Parameter 'mode' does not accept value '{v}'");
                    break;
                case "pretty":
                    pretty = OnOff(key, v);
                    break;
                case "id":
                    break;
                default:
                    throw new UsageException($"Invalid parameter '{key}'");
            }
        if (pretty && !qmp)
            throw new UsageException("'pretty' is not compatible with HMP monitors");
        AddMonitor(s, $"-mon {value}", device ?? throw new UsageException("Parameter 'chardev' is missing"), qmp, pretty);
    }

    private static void Machine(Settings s, string value)
    {
        if (OptionList.AsksForHelp(value))
            throw new HelpRequested("Supported machines are:\npc                   Standard PC (i440FX + PIIX, 1996) (default)\n"
                + "isapc                ISA-only PC\n");
        foreach (var (key, v) in OptionList.Parse(value, "type"))
            switch (key)
            {
                case "type":
                    s.Machine = v switch
                    {
                        "pc" or "isapc" => v,
                        _ when v.StartsWith("pc-i440fx-", StringComparison.Ordinal) => "pc",
                        _ => throw new UsageException($"unsupported machine type\nUse -machine help to list supported machines"),
                    };
                    break;
                case "accel":
                    s.Accelerator = v.Split(':').Aggregate(Accelerator.Combine);
                    break;
                case "kernel_irqchip" or "kernel-irqchip":
                    s.Accelerator = (s.Accelerator ?? "auto") + ",kernel-irqchip=" + v;
                    break;
                case "acpi":
                    s.Acpi = OnOff(key, v);
                    break;
                case "hpet":
                    s.Hpet = OnOff(key, v);
                    break;
                case "usb":
                    s.Usb = OnOff(key, v);
                    break;
                case "vmport" or "dump-guest-core" or "mem-merge" or "graphics" or "pcspk-audiodev":
                    break;
                case "smm" when v is "on" or "off" or "auto":
                    s.Smm = v != "off";
                    break;
                default:
                    throw new UsageException($"Property '{s.Machine}-machine.{key}' not found");
            }
    }

    private static void Cpu(Settings s, string value)
    {
        if (value is "help" or "?")
            throw new HelpRequested(CpuModelCatalog.Help());
        s.Cpu = value;
    }

    private static void Accel(Settings s, string value)
    {
        if (value is "help" or "?")
            throw new HelpRequested(Accelerator.Help());
        string accelerator = value.StartsWith("accel=", StringComparison.Ordinal) ? value[6..] : value;
        s.Accelerator = s.Accelerator == null ? accelerator : Accelerator.Combine(s.Accelerator, accelerator);
    }

    // As many as APIC identifiers of 8 bits can tell apart.
    private const int MostProcessors = 255;

    private static void Smp(Settings s, string value)
    {
        int cpus = 0;
        foreach (var (key, v) in OptionList.Parse(value, "cpus"))
        {
            if (!int.TryParse(v, NumberStyles.None, CultureInfo.InvariantCulture, out int n))
                throw new UsageException($"Parameter 'smp.{key}' expects integer");
            if (n == 0)
                throw new UsageException("Invalid CPU topology: CPU topology parameters must be greater than zero");
            if (n > MostProcessors)
                throw new UsageException($"Invalid SMP CPUs {n}. The max CPUs supported by machine 'pc' is {MostProcessors}");
            switch (key)
            {
                case "cpus":
                    cpus = n;
                    break;
                case "sockets":
                    s.Sockets = n;
                    break;
                case "cores":
                    s.Cores = n;
                    break;
                case "threads":
                    s.Threads = n;
                    break;
                case "maxcpus" or "dies":
                    break;
                default:
                    throw new UsageException($"Invalid parameter '{key}'");
            }
        }
        int product = Math.Max(1, s.Sockets) * Math.Max(1, s.Cores) * Math.Max(1, s.Threads);
        s.Processors = cpus == 0 ? product : cpus;
        if (cpus != 0 && (s.Sockets != 0 && s.Cores != 0 && s.Threads != 0 ? product != cpus : cpus % product != 0))
            throw new UsageException($"Invalid CPU topology: product of the hierarchy must match maxcpus: sockets ({s.Sockets}) * cores ({s.Cores}) * threads ({s.Threads}) != maxcpus ({cpus})");
    }

    private static void Memory(Settings s, string value)
    {
        foreach (var (key, v) in OptionList.Parse(value, "size"))
        {
            if (key is "slots" or "maxmem")
                throw new UsageException("memory hotplug is not supported");
            if (key != "size")
                throw new UsageException($"Invalid parameter '{key}'");
            string digits = v.TrimEnd('k', 'K', 'm', 'M', 'g', 'G', 't', 'T', 'b', 'B');
            int shift = v.Length == digits.Length ? 20 : char.ToLowerInvariant(v[digits.Length]) switch { 'b' => 0, 'k' => 10, 'm' => 20, 'g' => 30, _ => 40 };
            if (!double.TryParse(digits, NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture, out double n) || n * Math.Pow(2, shift) is < 0 or > 1L << 46)
                throw new UsageException("Parameter 'size' expects a non-negative number below 2^64");
            ulong bytes = (ulong)(n * Math.Pow(2, shift));
            s.Memory = bytes == 0 ? 128 << 20 : (bytes + 8191) & ~8191UL;
        }
    }

    private static void Boot(Settings s, string value)
    {
        foreach (var (key, v) in OptionList.Parse(value, "order"))
            switch (key)
            {
                case "order" or "once":
                    if (v.FirstOrDefault(c => c is < 'a' or > 'p') is var wrong and not '\0')
                        throw new UsageException($"Invalid boot device '{wrong}'");
                    if (v.GroupBy(c => c).FirstOrDefault(g => g.Count() > 1) is { } twice)
                        throw new UsageException($"Boot device '{twice.Key}' was given twice");
                    if (key == "order")
                        s.BootOrder = v;
                    else
                        s.BootOnce = v;
                    break;
                case "menu":
                    s.BootMenu = OnOff(key, v);
                    break;
                case "splash-time":
                    s.BootMenuWait = Number(key, v, 0, 0xFFFF);
                    break;
                case "reboot-timeout":
                    s.BootRetry = Number(key, v, -1, 0xFFFF);
                    break;
                case "strict":
                    s.BootStrict = OnOff(key, v);
                    break;
                case "splash":
                    s.BootSplash = v;
                    break;
                default:
                    throw new UsageException($"Invalid parameter '{key}'");
            }
    }

    private static int Number(string key, string text, int least, int most) =>
        int.TryParse(text, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out int n) && n >= least && n <= most ? n
            : throw new UsageException($"Parameter '{key}' expects a number from {least} to {most}");

    private static bool OnOff(string key, string text) => text switch
    {
        "on" or "yes" or "true" or "y" => true,
        "off" or "no" or "false" or "n" => false,
        _ => throw new UsageException($"Parameter '{key}' expects 'on' or 'off'"),
    };

    private static void Device(Settings s, string value)
    {
        if (value is "help" or "?")
            throw new HelpRequested(DeviceCatalogue.Help());
        string name = value.Split(',')[0];
        if (!value.StartsWith('{') && OptionList.AsksForHelp(value))
            throw new HelpRequested(DeviceCatalogue.Help(DeviceCatalogue.Find(name)
                ?? throw new UsageException($"'{name}' is not a valid device model name")));
        s.Devices.Add(value);
    }

    private static readonly string[] FloppyGlobals = ["driveA", "driveB", "fdtypeA", "fdtypeB", "bootindexA", "bootindexB", "check_media_rate"];

    private static void Global(Settings s, string value)
    {
        int equals = value.IndexOf('=', StringComparison.Ordinal), dot = value.IndexOf('.', StringComparison.Ordinal);
        string? driver = null, property = null, text = null;
        if (dot > 0 && equals > dot)
            (driver, property, text) = (value[..dot], value[(dot + 1)..equals], value[(equals + 1)..]);
        else
            foreach (var (key, v) in OptionList.Parse(value))
                switch (key)
                {
                    case "driver":
                        driver = v;
                        break;
                    case "property":
                        property = v;
                        break;
                    case "value":
                        text = v;
                        break;
                    default:
                        throw new UsageException($"Invalid parameter '{key}'");
                }
        if (driver == null || property == null || text == null)
            throw new UsageException("driver, property and value are needed");
        if (driver is "kvm-pit" or "mc146818rtc" && property == "lost_tick_policy")
        {
            LostTicks(s, driver, text);
            return;
        }
        bool known = driver == "isa-fdc" ? FloppyGlobals.Contains(property)
            : DeviceCatalogue.Find(driver) is { } type && type.Properties.Any(p => p.Name == property);
        if (!known)
            throw new UsageException($"Property '{driver}.{property}' not found");
        s.Globals.Add((driver, property, text));
    }

    private static void LostTicks(Settings s, string driver, string policy)
    {
        bool isPit = driver == "kvm-pit";
        if (policy is not ("delay" or "discard" or "merge" or "slew"))
            throw new UsageException($"can't apply global {driver}.lost_tick_policy={policy}: Parameter 'lost_tick_policy' does not accept value '{policy}'");
        if (policy != "discard" && policy != (isPit ? "delay" : "slew"))
            throw new UsageException(isPit ? $"Can't initialize in-kernel PIT: {policy} lost tick policy is not supported" : "Invalid lost tick policy.");
        if (isPit)
            s.ReinjectPitTicks = policy == "delay";
        else
            s.ReinjectRtcTicks = policy == "slew";
    }

    private static void Name(Settings s, string value)
    {
        foreach (var (key, v) in OptionList.Parse(value, "guest"))
            switch (key)
            {
                case "guest":
                    s.Name = v;
                    break;
                case "process":
                    s.ProcessName = v;
                    break;
                case "debug-threads":
                    // Threads have names in any case.
                    OnOff(key, v);
                    break;
                default:
                    throw new UsageException($"Invalid parameter '{key}'");
            }
    }

    private static void Rtc(Settings s, string value)
    {
        foreach (var (key, v) in OptionList.Parse(value))
            switch (key)
            {
                case "base":
                    s.RtcBase = v;
                    break;
                case "clock" when v is "host" or "vm" or "rt":
                    break;
                case "driftfix" when v is "none" or "slew":
                    s.ReinjectRtcTicks = v == "slew";
                    break;
                case "clock" or "driftfix":
                    throw new UsageException($"invalid option value '{v}'");
                default:
                    throw new UsageException($"Invalid parameter '{key}'");
            }
    }

    private static void LogItems(Settings s, string value)
    {
        if (value is "help" or "?")
            throw new HelpRequested("Log items (comma separated):\nevents     what monitors are told: RESET, STOP, SHUTDOWN, BLOCK_IO_ERROR ...\n"
                + "exec       each instruction, with the registers that the one before has changed (software CPU; slow)\n"
                + "exits      at the end, what each processor left the guest for (KVM)\n");
        foreach (string item in value.Split(','))
            switch (item)
            {
                case "events":
                    s.LogEvents = true;
                    break;
                case "exec":
                    s.LogExecution = true;
                    break;
                case "exits":
                    s.LogExits = true;
                    break;
                default:
                    throw new UsageException($"unknown log item '{item}'");
            }
        s.LogFile ??= "-";
    }

    private static void NoNetwork(string option, string value)
    {
        if (value != "none")
            throw new UsageException("networking is not there yet: only 'none' can be given");
    }
}
