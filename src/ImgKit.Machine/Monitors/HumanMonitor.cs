using System.Text;
using ImgKit.Machine.CharDevices;

namespace ImgKit.Machine.Monitors;

/// <summary>The monitor for people: a line, an answer.</summary>
public sealed class HumanMonitor
{
    private sealed record Command(string Name, string Arguments, string Help, Func<Pc, string[], string> Run, string? Alias = null);

    private const string Prompt = "(qemu) ";

    private readonly Pc _pc;
    private readonly CharDevice _device;
    private readonly List<byte> _line = [];
    private readonly List<string> _history = [];
    private int _historyAt, _escape;
    private bool _greeted;

    /// <summary>Listens to a character device.</summary>
    public HumanMonitor(Pc pc, CharDevice device)
    {
        _pc = pc;
        _device = device;
        device.InputAvailable = Take;
        device.GotFocus = Greet;
        device.ConnectionChanged = on =>
        {
            _greeted = false;
            if (on)
                Greet();
        };
        if (device is not NullCharDevice && device.IsConnected && !device.Description.StartsWith("mux", StringComparison.Ordinal))
            Greet();
    }

    private static readonly Command[] All =
    [
        new("block_resize", "device size", "resize a block image", (pc, a) =>
        {
            string size = Need(a, 1, "size");
            MediaCommands.Resize(pc, Need(a, 0, "device"), Block.SizeText.TryParse(size, out long n, 1 << 20) ? (ulong)n : throw new CommandException("invalid size"));
            return "";
        }),
        new("commit", "device|all", "commit changes to the disk images (if -snapshot is used) or backing files", (pc, a) =>
        {
            MediaCommands.Commit(pc, Need(a, 0, "device"));
            return "";
        }),
        new("change", "[-f] device filename [format [read-only-mode]]", "change a removable medium, optional format, use -f to force the operation", (pc, a) =>
        {
            bool force = a.Length > 0 && a[0] == "-f";
            if (force)
                a = a[1..];
            MediaCommands.Change(pc, Need(a, 0, "device"), Need(a, 1, "target"), a.Length > 2 ? a[2] : null, ReadOnlyMode(a.Length > 3 ? a[3] : null), force);
            return "";
        }),
        new("cont", "", "resume emulation", (pc, _) =>
        {
            pc.Resume();
            return "";
        }, "c"),
        new("eject", "[-f] device", "eject a removable medium (use -f to force it)", (pc, a) =>
        {
            bool force = a.Length > 0 && a[0] == "-f";
            MediaCommands.Eject(pc, Need(a, force ? 1 : 0, "device"), force);
            return "";
        }),
        new("help", "[cmd]", "show the help", (_, a) => HelpText(a), "?"),
        new("info", "[subcommand]", "show various information about the system state", Info),
        new("nmi", "", "inject an NMI", (pc, _) =>
        {
            pc.InjectNmi();
            return "";
        }),
        new("memsave", "addr size file", "save to disk virtual memory dump starting at 'addr' of size 'size'", (pc, a) =>
        {
            Commands.SaveVirtual(pc, 0, Commands.Number(pc, Need(a, 0, "val")), Commands.Number(pc, Need(a, 1, "size")), Need(a, 2, "filename"));
            return "";
        }),
        new("pmemsave", "addr size file", "save to disk physical memory dump starting at 'addr' of size 'size'", (pc, a) =>
        {
            Commands.SavePhysical(pc, Commands.Number(pc, Need(a, 0, "val")), Commands.Number(pc, Need(a, 1, "size")), Need(a, 2, "filename"));
            return "";
        }),
        new("print", "/fmt expr", "print expression value", (pc, a) => $"0x{Commands.Number(pc, a.Length > 0 ? a[^1] : "0"):x}\n", "p"),
        new("quit", "", "quit the emulator", (pc, _) =>
        {
            pc.Quit(0, "host-qmp-quit");
            return "";
        }, "q"),
        new("screendump", "filename [-f format]", "save screen into image 'filename' in PPM or PNG format", (pc, a) =>
        {
            int f = Array.IndexOf(a, "-f");
            Commands.ScreenDump(pc, Need(a, f == 0 ? 2 : 0, "filename"), f >= 0 && f + 1 < a.Length ? a[f + 1] : null);
            return "";
        }),
        new("sendkey", "keys [hold_ms]", "send keys to the VM (e.g. 'sendkey ctrl-alt-f1', default hold time=100 ms)", (pc, a) =>
        {
            Commands.SendKeys(pc, Need(a, 0, "keys"), a.Length > 1 ? (int)Math.Min(60000, Commands.Number(pc, a[1])) : 100);
            return "";
        }),
        new("stop", "", "stop emulation", (pc, _) =>
        {
            pc.Stop();
            return "";
        }, "s"),
        new("system_powerdown", "", "send system power down event", (pc, _) =>
        {
            pc.PressPowerButton();
            return "";
        }),
        new("system_reset", "", "reset the system", (pc, _) =>
        {
            pc.ResetNow("host-qmp-system-reset");
            return "";
        }),
        new("x", "/fmt addr", "virtual memory dump starting at 'addr'", (pc, a) => Dump(pc, a, false)),
        new("xp", "/fmt addr", "physical memory dump starting at 'addr'", (pc, a) => Dump(pc, a, true)),
    ];

    private static readonly (string Name, string Help, Func<Pc, string> Text)[] Infos =
    [
        ("block", "show info of all the block devices", MediaCommands.InfoBlock),
        ("chardev", "show the character devices", pc => string.Concat((pc.CharDeviceNames?.Invoke() ?? []).Select(n => $"{n}: filename={n}\n"))),
        ("cpus", "show infos for each CPU", pc => string.Concat(pc.Processors.Select(p => $"{(p.Index == 0 ? '*' : ' ')} CPU #{p.Index}: thread_id={Environment.ProcessId}\n"))),
        ("kvm", "show KVM information", pc => $"kvm support: {(pc.Engine.Name == "kvm" ? "enabled" : "disabled")}\n{Registers.Exits(pc.Processors)}"),
        ("name", "show the current VM name", pc => pc.Options.Name + "\n"),
        ("pci", "show PCI info", Commands.InfoPci),
        ("registers", "show the cpu registers", pc => Registers.Text(Commands.StateOf(pc, 0))),
        ("status", "show the current VM status (running|paused)", pc => $"VM status: {(pc.IsRunning ? "running" : pc.State == RunState.Paused ? "paused" : $"paused ({pc.State.Name()})")}\n"),
        ("uuid", "show the current VM UUID", pc => pc.Options.Uuid + "\n"),
        ("version", "show the version", _ => $"7.2.22 (ImgKit {typeof(Pc).Assembly.GetName().Version?.ToString(3)})\n"),
    ];

    /// <summary>The mode of a medium that is put in: null keeps the drive's.</summary>
    internal static bool? ReadOnlyMode(string? mode) => mode switch
    {
        null or "retain" => null,
        "read-only" => true,
        "read-write" => false,
        _ => throw new CommandException($"Parameter 'read-only-mode' does not accept value '{mode}'"),
    };

    private static string Need(string[] arguments, int index, string name) =>
        index < arguments.Length ? arguments[index] : throw new CommandException($"{name}: argument expected");

    private static string Dump(Pc pc, string[] a, bool physical)
    {
        string format = "";
        int at = 0;
        if (a.Length > 0 && a[0].StartsWith('/'))
            format = a[at++][1..];
        return Commands.Dump(pc, format, Commands.Number(pc, string.Concat(a[at..])), physical);
    }

    private static string Info(Pc pc, string[] a)
    {
        if (a.Length == 0)
            return string.Concat(Infos.Select(i => $"info {i.Name}  -- {i.Help}\n"));
        foreach (var (name, _, text) in Infos)
            if (name == a[0])
                return text(pc);
        throw new CommandException($"unknown command: 'info {a[0]}'");
    }

    private static string HelpText(string[] a)
    {
        if (a.Length > 0 && a[0] == "info")
            return string.Concat(Infos.Select(i => $"info {i.Name}  -- {i.Help}\n"));
        return string.Concat(All.Where(c => a.Length == 0 || c.Name == a[0] || c.Alias == a[0])
            .Select(c => $"{c.Name}{(c.Alias == null ? "" : "|" + c.Alias)} {c.Arguments}{(c.Arguments.Length > 0 ? " " : "")}-- {c.Help}\n"));
    }

    /// <summary>Runs a command line and returns what it prints. On the control thread.</summary>
    public static string Execute(Pc pc, string line)
    {
        string[] words = Split(line);
        if (words.Length == 0)
            return "";
        // "x/4i $eip": the format follows the name at once.
        int slash = words[0].IndexOf('/', StringComparison.Ordinal);
        if (slash > 0)
            words = [words[0][..slash], words[0][slash..], .. words[1..]];
        var command = Array.Find(All, c => c.Name == words[0] || c.Alias == words[0]);
        if (command == null)
            return $"unknown command: '{words[0]}'\n";
        try
        {
            return command.Run(pc, words[1..]);
        }
        catch (CommandException e)
        {
            return $"Error: {e.Message}\n";
        }
    }

    private static string[] Split(string line)
    {
        var words = new List<string>();
        var word = new StringBuilder();
        bool quoted = false, any = false;
        foreach (char c in line)
        {
            if (c == '"')
            {
                quoted = !quoted;
                any = true;
            }
            else if (c == ' ' && !quoted)
            {
                if (word.Length > 0 || any)
                    words.Add(word.ToString());
                word.Clear();
                any = false;
            }
            else
                word.Append(c);
        }
        if (word.Length > 0 || any)
            words.Add(word.ToString());
        return [.. words];
    }

    private void Greet()
    {
        Write(_greeted ? "\r\n" + Prompt : $"QEMU 7.2.22 monitor - type 'help' for more information\r\n{Prompt}");
        _greeted = true;
    }

    private void Write(string text) => _device.Write(Encoding.UTF8.GetBytes(text));

    private void Take()
    {
        while (_device.TryTake(out byte b))
            Key(b);
    }

    // Echo, backspace, Ctrl-U, history by arrow keys.
    private void Key(byte b)
    {
        if (_escape == 1)
        {
            _escape = b == '[' ? 2 : 0;
            return;
        }
        if (_escape == 2)
        {
            _escape = 0;
            if (b is (byte)'A' or (byte)'B')
                Recall(b == 'A' ? -1 : 1);
            return;
        }
        switch (b)
        {
            case 0x1B:
                _escape = 1;
                break;
            case (byte)'\r' or (byte)'\n':
                Write("\r\n");
                string line = Encoding.UTF8.GetString(_line.ToArray());
                _line.Clear();
                if (line.Length > 0 && (_history.Count == 0 || _history[^1] != line))
                    _history.Add(line);
                _historyAt = _history.Count;
                _pc.Post(() =>
                {
                    string answer = Execute(_pc, line);
                    lock (_pc.Services.Lock)
                        Write(answer.Replace("\n", "\r\n", StringComparison.Ordinal) + Prompt);
                });
                break;
            case 0x7F or 0x08:
                if (_line.Count > 0)
                {
                    _line.RemoveAt(_line.Count - 1);
                    Write("\b \b");
                }
                break;
            case 0x15:
                SetLine("");
                break;
            case >= 0x20 when _line.Count < 4096:
                _line.Add(b);
                _device.Write([b]);
                break;
        }
    }

    private void Recall(int direction)
    {
        _historyAt = Math.Clamp(_historyAt + direction, 0, _history.Count);
        SetLine(_historyAt < _history.Count ? _history[_historyAt] : "");
    }

    private void SetLine(string text)
    {
        Write(string.Concat(Enumerable.Repeat("\b \b", _line.Count)) + text);
        _line.Clear();
        _line.AddRange(Encoding.UTF8.GetBytes(text));
    }
}
