using ImgKit.Host;

namespace ImgKit.Machine.CharDevices;

/// <summary>Makes character devices from the words of <c>-serial</c>, <c>-monitor</c> and <c>-chardev</c>.</summary>
/// <param name="loop">the machine's event loop.</param>
/// <param name="notify">told lines for the user, such as the name of a pseudo-terminal.</param>
public sealed class CharDeviceFactory(EventLoop loop, Action<string> notify)
{
    private readonly Dictionary<string, CharDevice> _named = [];
    private readonly List<CharDevice> _all = [];
    private readonly Dictionary<string, Multiplexer> _multiplexers = [];
    private readonly HashSet<string> _taken = [];
    private bool _terminalTaken;

    /// <summary>Run by Ctrl-A x.</summary>
    public required Action Quit { get; init; }

    /// <summary>Leave Ctrl-C and Ctrl-Z to the host (not with <c>-nographic</c>).</summary>
    public bool KeepSignals { get; set; } = true;

    /// <summary>Every device made, for <c>info chardev</c>.</summary>
    public IReadOnlyList<CharDevice> All => _all;

    /// <summary>A device by the short form: <c>null</c>, <c>none</c>, <c>vc</c>, <c>stdio</c>, <c>mon:</c>..., <c>file:</c>, <c>pty</c>, <c>tcp:</c>,
    /// <c>telnet:</c>, <c>unix:</c>, <c>chardev:ID</c>, or a device's path. Throws <see cref="MachineException"/>.</summary>
    /// <param name="text">the word.</param>
    /// <param name="id">name for messages and <c>info chardev</c>.</param>
    /// <param name="monitor">gets a channel for a monitor when the word begins with <c>mon:</c>.</param>
    public CharDevice Make(string text, string id, Action<CharDevice>? monitor = null)
    {
        if (text.StartsWith("mon:", StringComparison.Ordinal))
        {
            var mux = Multiplexed(text[4..], id);
            var channel = mux.AddChannel(id);
            monitor?.Invoke(mux.AddChannel("monitor"));
            return channel;
        }
        if (text.StartsWith("chardev:", StringComparison.Ordinal))
            return Named(text[8..]);
        if (_multiplexers.TryGetValue(text, out var shared))
            return shared.AddChannel(id);
        return Add(Plain(text, id), id);
    }

    private Multiplexer Multiplexed(string text, string id)
    {
        if (!_multiplexers.TryGetValue(text, out var mux))
            _multiplexers[text] = mux = new Multiplexer(Add(Plain(text, id), id), Quit);
        return mux;
    }

    private CharDevice Add(CharDevice device, string id)
    {
        device.Id = id;
        _all.Add(device);
        return device;
    }

    /// <summary>The device of an identifier. Throws <see cref="MachineException"/>.</summary>
    public CharDevice Named(string id)
    {
        if (_multiplexers.TryGetValue("\0" + id, out var mux))
            return mux.AddChannel(id);
        if (!_named.TryGetValue(id, out var device))
            throw new MachineException($"chardev \"{id}\" not found");
        return _taken.Add(id) ? device : throw new MachineException($"Device '{id}' is in use");
    }

    private CharDevice Plain(string text, string id)
    {
        int colon = text.IndexOf(':', StringComparison.Ordinal);
        string kind = colon < 0 ? text : text[..colon], rest = colon < 0 ? "" : text[(colon + 1)..];
        switch (kind)
        {
            case "null" or "none" or "vc":
                return new NullCharDevice(kind);
            case "stdio":
                return Terminal(KeepSignals);
            case "pty":
                return Pty(id);
            case "file":
                return ToFile(rest, false);
            case "unix" or "tcp" or "telnet":
            {
                int comma = rest.IndexOf(',', StringComparison.Ordinal);
                var values = CharDeviceOptions.Parse(comma < 0 ? "" : rest[(comma + 1)..]);
                var address = SocketAddress.Parse(kind == "unix", comma < 0 ? rest : rest[..comma]);
                var use = UseOf(values, kind == "telnet");
                values.Finish();
                return new SocketCharDevice(loop, text, address, use);
            }
            default:
                if (text.StartsWith('/'))
                    return FromDevice(text);
                throw new MachineException($"'{text}' is not a valid char driver");
        }
    }

    private static SocketUse UseOf(CharDeviceOptions values, bool telnet)
    {
        bool server = values.Flag("server", false), waits = values.Flag("wait", server);
        int reconnect = values.Number("reconnect");
        if (!server && values.Given("wait"))
            throw new MachineException("'wait' option is incompatible with socket in client connect mode");
        if (server && reconnect > 0)
            throw new MachineException("'reconnect' option is incompatible with socket in server listen mode");
        return new SocketUse(server, waits, values.Flag("telnet", telnet), reconnect, values.Flag("delay", false) || !values.Flag("nodelay", true));
    }

    /// <summary>A device by the long form of <c>-chardev</c>. Throws <see cref="MachineException"/>.</summary>
    public void AddNamed(IReadOnlyList<KeyValuePair<string, string>> list)
    {
        var values = new CharDeviceOptions(list);
        string kind = values.Text("backend") ?? throw new MachineException("chardev: \"\" missing backend");
        string id = values.Needed("id");
        if (_named.ContainsKey(id) || _multiplexers.ContainsKey("\0" + id))
            throw new MachineException($"Duplicate ID '{id}' for chardev");
        bool isShared = values.Flag("mux", false);
        // Nothing is touched before all of it is known to be right.
        Func<CharDevice> make;
        switch (kind)
        {
            case "null" or "vc":
                make = () => new NullCharDevice(kind);
                break;
            case "stdio":
                bool keepSignals = values.Flag("signal", KeepSignals);
                make = () => Terminal(keepSignals);
                break;
            case "pty":
                make = () => Pty(id);
                break;
            case "file":
            {
                string path = values.Needed("path", "chardev: file: no filename given");
                bool append = values.Flag("append", false);
                make = () => ToFile(path, append);
                break;
            }
            case "serial" or "tty" or "parallel" or "parport":
            {
                string path = values.Needed("path", $"chardev: {kind}: no device path given");
                make = () => FromDevice(path);
                break;
            }
            case "socket":
            {
                string? path = values.Text("path"), host = values.Text("host"), port = values.Text("port");
                if (path == null && port == null)
                    throw new MachineException("chardev: socket: no port given");
                if (path != null && host != null)
                    throw new MachineException("Invalid parameter 'host'");
                string where = path ?? $"{host}:{port}";
                var address = SocketAddress.Parse(path != null, where);
                var use = UseOf(values, false);
                make = () => new SocketCharDevice(loop, $"{(path != null ? "unix" : "tcp")}:{where}", address, use);
                break;
            }
            default:
                throw new MachineException($"'{kind}' is not a valid char driver name");
        }
        values.Finish();
        var device = Add(make(), id);
        if (isShared)
            _multiplexers["\0" + id] = new Multiplexer(device, Quit);
        else
            _named[id] = device;
    }

    /// <summary>Begins input everywhere.</summary>
    public void Start()
    {
        foreach (var d in _all)
            d.Start();
    }

    /// <summary>Lets all of them go: terminals are as they were.</summary>
    public void Dispose()
    {
        foreach (var d in _all)
            d.Dispose();
        _all.Clear();
    }

    private DescriptorCharDevice Terminal(bool keepSignals)
    {
        if (_terminalTaken)
            throw new MachineException("cannot use stdio by multiple character devices");
        _terminalTaken = true;
        bool raw = Descriptors.SetRaw(0, out byte[] before, keepSignals);
        return new DescriptorCharDevice(loop, "stdio", 0, 1, () =>
        {
            if (raw)
                Descriptors.Restore(0, before);
        });
    }

    private DescriptorCharDevice Pty(string id)
    {
        try
        {
            var (master, name) = Descriptors.OpenPty();
            notify($"char device redirected to {name} (label {id})");
            return new DescriptorCharDevice(loop, $"pty:{name}", master, master, () => Descriptors.Close(master));
        }
        catch (IOException e)
        {
            throw new MachineException($"Failed to create PTY: {e.Message}", e);
        }
    }

    private DescriptorCharDevice ToFile(string path, bool append)
    {
        try
        {
            // What is in it stays until the machine starts.
            int fd = Descriptors.OpenToAppend(path);
            return new DescriptorCharDevice(loop, $"file:{path}", -1, fd, () => Descriptors.Close(fd), append ? null : () => Descriptors.Truncate(fd));
        }
        catch (IOException e)
        {
            throw new MachineException($"Could not open '{path}': {e.Message[(e.Message.IndexOf(": ", StringComparison.Ordinal) + 2)..]}", e);
        }
    }

    private DescriptorCharDevice FromDevice(string path)
    {
        try
        {
            int fd = Descriptors.OpenBoth(path);
            return new DescriptorCharDevice(loop, $"serial:{path}", fd, fd, () => Descriptors.Close(fd));
        }
        catch (IOException e)
        {
            throw new MachineException($"Could not open '{path}': {e.Message[(e.Message.IndexOf(": ", StringComparison.Ordinal) + 2)..]}", e);
        }
    }
}
