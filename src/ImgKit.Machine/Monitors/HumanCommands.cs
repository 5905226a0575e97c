using System.Globalization;
using static ImgKit.Machine.Monitors.ArgumentKind;

namespace ImgKit.Machine.Monitors;

/// <summary>The commands for people, for one user of them. On the control thread.</summary>
/// <param name="pc">the machine.</param>
public sealed class HumanCommands(Pc pc)
{
    private sealed record Command(string Name, Argument[] Arguments, string Usage, string Help, Func<HumanCommands, MonitorArguments, string> Run, string? Alias = null)
    {
        internal string FullName => Alias == null ? Name : $"{Name}|{Alias}";

        internal string HelpLine => $"{FullName} {Usage} -- {Help}\n";
    }

    private byte _mouseButtons;

    /// <summary>The processor that commands are about.</summary>
    internal int Processor { get; set; }

    /// <summary>The machine.</summary>
    internal Pc Pc => pc;

    private static Func<HumanCommands, MonitorArguments, string> Do(Action<HumanCommands, MonitorArguments> action) => (human, arguments) =>
    {
        action(human, arguments);
        return "";
    };

    private static readonly Argument[] DumpArguments = [new("fmt", Format), new("addr", Number)];
    private static readonly Argument[] SaveArguments = [new("val", Number), new("size", Number), new("filename", Word)];

    private static readonly Command[] All =
    [
        new("block_resize", [new("device", BlockName), new("size", Size)], "device size", "resize a block image",
            Do((h, a) => MediaCommands.Resize(h.Pc, a.Text("device"), null, (long)a.Number("size")))),
        new("commit", [new("device", BlockName)], "device|all", "commit changes to the disk images (if -snapshot is used) or backing files", (h, a) =>
        {
            try
            {
                MediaCommands.Commit(h.Pc, a.Text("device"));
                return "";
            }
            catch (CommandException e)
            {
                return e.Message + "\n";
            }
        }),
        new("change", [new("f:force", Switch), new("device", BlockName), new("f:force", Switch), new("target", FileName), new("arg", Word, true), new("mode", Word, true)],
            "device [-f] filename [format [read-only-mode]]", "change a removable medium, optional format, use -f to force the operation", Do((h, a) =>
                MediaCommands.Change(h.Pc, a.Text("device"), a.Text("target"), a.TextOrNull("arg"), MediaCommands.ReadOnlyMode(a.TextOrNull("mode")), a.Has("force")))),
        new("cont", [], "", "resume emulation", Do((h, _) => h.Pc.Resume()), "c"),
        new("cpu", [new("index", Number)], "index", "set the default CPU", Do((h, a) =>
        {
            if (a.Number("index") >= (ulong)h.Pc.Processors.Count())
                throw new CommandException("invalid CPU index");
            h.Processor = (int)a.Number("index");
        })),
        new("device_add", [new("device", Word)], "driver[,prop=value][,...]", "add device, like -device on the command line", Do((h, a) =>
        {
            string[] parts = a.Text("device").Split(',');
            PlugCommands.Add(h.Pc, parts[0], parts.FirstOrDefault(p => p.StartsWith("bus=", StringComparison.Ordinal))?[4..]);
        })),
        new("device_del", [new("id", Word)], "device", "remove device", Do((h, a) => PlugCommands.Remove(h.Pc, a.Text("id")))),
        new("eject", [new("f:force", Switch), new("device", BlockName)], "[-f] device", "eject a removable medium (use -f to force it)",
            Do((h, a) => MediaCommands.Eject(h.Pc, a.Text("device"), a.Has("force")))),
        new("help", [new("rest", Rest)], "[cmd]", "show the help", (_, a) => HelpText(a.Rest), "?"),
        new("info", [new("rest", Rest)], "[subcommand]", "show various information about the system state", (_, a) => HelpText(["info", .. a.Rest])),
        new("memsave", SaveArguments, "addr size file", "save to disk virtual memory dump starting at 'addr' of size 'size'",
            Do((h, a) => new MonitorMemory(h.Pc, h.Processor).Save(a.Number("val"), a.Number("size"), a.Text("filename")))),
        new("mouse_button", [new("button_state", Number)], "state", "change mouse button state (1=L, 2=M, 4=R)", Do((h, a) => h.MoveMouse(0, 0, 0, (byte)a.Number("button_state")))),
        new("mouse_move", [new("dx", Word), new("dy", Word), new("dz", Word, true)], "dx dy [dz]", "send mouse move events",
            Do((h, a) => h.MoveMouse(Distance(a.Text("dx")), Distance(a.Text("dy")), Distance(a.TextOrNull("dz") ?? "0"), null))),
        new("nmi", [], "", "inject an NMI", Do((h, _) => h.Pc.InjectNmi())),
        new("pmemsave", SaveArguments, "addr size file", "save to disk physical memory dump starting at 'addr' of size 'size'",
            Do((h, a) => new MonitorMemory(h.Pc, null).Save(a.Number("val"), a.Number("size"), a.Text("filename")))),
        new("print", [new("fmt", Format), new("val", Number)], "/fmt expr", "print expression value (use $reg for CPU register access)",
            (_, a) => a.Format.Show(a.Number("val")) + "\n", "p"),
        new("quit", [], "", "quit the emulator", Do((h, _) => h.Pc.Quit(0, "host-qmp-quit")), "q"),
        new("screendump", [new("f:format", SwitchWord), new("filename", FileName), new("f:format", SwitchWord), new("device", Word, true)],
            "filename [-f format] [device]", "save screen from head 'head' of display device 'device' in specified format 'format' as image 'filename'. Format 'ppm' or 'png'",
            Do((h, a) => Commands.ScreenDump(h.Pc, a.Text("filename"), a.TextOrNull("format"), a.TextOrNull("device")))),
        new("sendkey", [new("keys", Word), new("hold-time", Number, true)], "keys [hold_ms]", "send keys to the VM (e.g. 'sendkey ctrl-alt-f1', default hold time=100 ms)", SendKeys),
        new("stop", [], "", "stop emulation", Do((h, _) => h.Pc.Stop()), "s"),
        new("system_powerdown", [], "", "send system power down event", Do((h, _) => h.Pc.PressPowerButton())),
        new("system_reset", [], "", "reset the system", Do((h, _) => h.Pc.ResetNow("host-qmp-system-reset"))),
        new("x", DumpArguments, "/fmt addr", "virtual memory dump starting at 'addr'", (h, a) => a.Format.Dump(new(h.Pc, h.Processor), a.Number("addr"))),
        new("xp", DumpArguments, "/fmt addr", "physical memory dump starting at 'addr'", (h, a) => a.Format.Dump(new(h.Pc, null), a.Number("addr"))),
    ];

    private static readonly Command[] Infos =
    [
        new("block", [new("device", BlockName, true)], "[device]", "show info of one block device or all block devices", (h, a) => MediaCommands.InfoBlock(h.Pc, a.TextOrNull("device"))),
        new("chardev", [], "", "show the character devices", (h, _) => string.Concat((h.Pc.CharDeviceList?.Invoke() ?? []).Select(c => $"{c.Id}: filename={c.Description}\n"))),
        new("cpus", [], "", "show infos for each CPU", (h, _) => string.Concat(h.Pc.Processors.Select(p =>
            $"{(p.Index == h.Processor ? '*' : ' ')} CPU #{p.Index}: thread_id={h.Pc.ThreadOf(p.Index)}\n"))),
        new("kvm", [], "", "show KVM information", (h, _) => $"kvm support: {(h.Pc.Engine.Name == "kvm" ? "enabled" : "disabled")}\n{Registers.Exits(h.Pc.Processors)}"),
        new("mem", [], "", "show the active virtual memory mappings", (h, _) => PageTables.Ranges(h.Pc, h.Processor)),
        new("name", [], "", "show the current VM name", (h, _) => h.Pc.Options.Name.Length > 0 ? h.Pc.Options.Name + "\n" : ""),
        new("pci", [], "", "show PCI info", (h, _) => PciInfo.Text(h.Pc)),
        new("pic", [], "", "show PIC state", (h, _) => InterruptInfo.Text(h.Pc)),
        new("registers", [new("a:all", Switch), new("vcpu", Number, true)], "[-a|vcpu]", "show the cpu registers (-a: show register info for all cpus; vcpu: specific vCPU to query; "
            + "show the current CPU's registers if no argument is specified)", ShowRegisters),
        new("status", [], "", "show the current VM status (running|paused)", (h, _) => $"VM status: {(h.Pc.IsRunning ? "running"
            : h.Pc.State == RunState.Paused ? "paused" : $"paused ({h.Pc.State.Name()})")}\n"),
        new("tlb", [], "", "show virtual to physical memory mappings", (h, _) => PageTables.Pages(h.Pc, h.Processor)),
        new("uuid", [], "", "show the current VM UUID", (h, _) => h.Pc.Options.Uuid + "\n"),
        new("version", [], "", "show the version of kvm", (_, _) => $"{ProductVersion.Peer} (ImgKit {ProductVersion.Own})\n"),
    ];

    private static string SendKeys(HumanCommands human, MonitorArguments a)
    {
        var codes = new List<int>();
        foreach (string name in a.Text("keys").Split('-'))
            if (KeyNames.Find(name) is { } code)
                codes.Add(code);
            else
                return $"invalid parameter: {name}\n";
        Commands.SendKeys(human.Pc, codes, (int)Math.Min(a.Number("hold-time", 100), 60_000));
        return "";
    }

    // A word, not an expression: "10 -5" is two of them.
    private static int Distance(string text) => int.TryParse(text, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out int n) && n is > -10000 and < 10000 ? n
        : throw new CommandException($"'{text}' is not a distance");

    private void MoveMouse(int dx, int dy, int dz, byte? buttons)
    {
        // The mouse has right and middle the other way round.
        if (buttons is { } b)
            _mouseButtons = (byte)(b & 1 | (b & 2) << 1 | (b & 4) >> 1);
        lock (pc.Services.Lock)
            pc.Keyboard.Mouse.Move(dx, dy, dz, _mouseButtons);
    }

    private static string ShowRegisters(HumanCommands human, MonitorArguments a)
    {
        int all = human.Pc.Processors.Count();
        if (a.Has("vcpu") && a.Number("vcpu") >= (ulong)all)
            return "CPU#" + (int)a.Number("vcpu") + " not available\n";
        int first = a.Has("all") ? 0 : (int)a.Number("vcpu", (ulong)human.Processor), last = a.Has("all") ? all - 1 : first;
        return string.Concat(Enumerable.Range(first, last - first + 1).Select(i => $"\nCPU#{i}\n{Registers.Text(Commands.StateOf(human.Pc, i))}"));
    }

    private static string HelpText(string[] words)
    {
        var table = words.Length > 0 && words[0] == "info" ? Infos : All;
        string prefix = table == Infos ? "info " : "";
        if (table == Infos)
            words = words[1..];
        if (words.Length == 0)
            return string.Concat(table.Select(c => prefix + c.HelpLine));
        return Find(table, words[0]) is { } command ? prefix + command.HelpLine : $"unknown command: '{prefix}{words[0]}'\n";
    }

    private static Command? Find(Command[] table, string name) => Array.Find(table, c => c.Name == name || c.Alias == name);

    // A command's name ends at the first blank, or at the slash of a format.
    private static string NameAt(string line, ref int at)
    {
        while (at < line.Length && char.IsWhiteSpace(line[at]))
            at++;
        int start = at;
        while (at < line.Length && !char.IsWhiteSpace(line[at]) && line[at] != '/')
            at++;
        return line[start..at];
    }

    /// <summary>Runs a command line and returns what it prints.</summary>
    public string Execute(string line)
    {
        int at = 0;
        string given = NameAt(line, ref at);
        if (given.Length == 0)
            return "";
        var command = Find(All, given);
        if (command?.Name == "info")
        {
            int before = at;
            string subject = NameAt(line, ref at);
            if (subject.Length == 0)
                at = before;
            else
            {
                given = "info " + subject;
                command = Find(Infos, subject);
            }
        }
        if (command == null)
            return $"unknown command: '{given}'\n";
        try
        {
            return command.Run(this, new MonitorArguments(command.FullName, line, at, command.Arguments, name => Registers.Value(Commands.StateOf(pc, Processor), name)));
        }
        catch (ArgumentsException e)
        {
            return $"{e.Message}\nTry \"help {given}\" for more information\n";
        }
        catch (CommandException e)
        {
            return $"Error: {e.Message}\n";
        }
    }
}
