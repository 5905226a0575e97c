using System.Globalization;
using System.Net;
using System.Net.Sockets;
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
            var mux = Multiplexed(text[4..]);
            var channel = mux.AddChannel(id);
            monitor?.Invoke(mux.AddChannel("monitor"));
            return channel;
        }
        if (text.StartsWith("chardev:", StringComparison.Ordinal))
            return Named(text[8..]);
        if (_multiplexers.TryGetValue(text, out var shared))
            return shared.AddChannel(id);
        return Add(Plain(text));
    }

    private Multiplexer Multiplexed(string text)
    {
        if (!_multiplexers.TryGetValue(text, out var mux))
            _multiplexers[text] = mux = new Multiplexer(Add(Plain(text)), Quit);
        return mux;
    }

    private CharDevice Add(CharDevice device)
    {
        _all.Add(device);
        return device;
    }

    /// <summary>The device of an identifier. Throws <see cref="MachineException"/>.</summary>
    public CharDevice Named(string id)
    {
        if (_multiplexers.TryGetValue("\0" + id, out var mux))
            return mux.AddChannel(id);
        return _named.TryGetValue(id, out var device) ? device : throw new MachineException($"chardev \"{id}\" not found");
    }

    private CharDevice Plain(string text)
    {
        int colon = text.IndexOf(':', StringComparison.Ordinal);
        string kind = colon < 0 ? text : text[..colon], rest = colon < 0 ? "" : text[(colon + 1)..];
        switch (kind)
        {
            case "null" or "none" or "vc":
                return new NullCharDevice();
            case "stdio":
                return Terminal();
            case "pty":
                return Pty();
            case "file":
                return ToFile(rest);
            case "unix" or "tcp" or "telnet":
            {
                string[] parts = rest.Split(',');
                bool server = parts.Contains("server") || parts.Contains("server=on");
                bool wait = server && !parts.Contains("nowait") && !parts.Contains("wait=off");
                return new SocketCharDevice(loop, text, Address(kind == "unix", parts[0]), server, wait, kind == "telnet");
            }
            default:
                if (text.StartsWith('/'))
                    return FromDevice(text);
                throw new MachineException($"'{text}' is not a valid char driver");
        }
    }

    /// <summary>A device by the long form of <c>-chardev</c>. Throws <see cref="MachineException"/>.</summary>
    public void AddNamed(IReadOnlyList<KeyValuePair<string, string>> values)
    {
        string? Value(string key) => values.FirstOrDefault(v => v.Key == key).Value;
        string id = Value("id") ?? throw new MachineException("Parameter 'id' is missing");
        if (_named.ContainsKey(id))
            throw new MachineException($"Duplicate ID '{id}' for chardev");
        bool On(string key, bool otherwise = false) => Value(key) is { } v ? v is "on" or "yes" or "true" : otherwise;
        CharDevice device;
        switch (Value("backend"))
        {
            case "null":
                device = new NullCharDevice();
                break;
            case "stdio":
                device = Terminal();
                break;
            case "pty":
                device = Pty();
                break;
            case "file":
                device = ToFile(Value("path") ?? throw new MachineException("Parameter 'path' is missing"));
                break;
            case "serial" or "tty" or "parallel" or "parport":
                device = FromDevice(Value("path") ?? throw new MachineException("Parameter 'path' is missing"));
                break;
            case "socket":
            {
                string? path = Value("path");
                if (path == null && Value("port") == null)
                    throw new MachineException("chardev: socket: no path or port given");
                var address = Address(path != null, path ?? $"{Value("host")}:{Value("port")}");
                device = new SocketCharDevice(loop, $"socket:{address}", address, On("server"), On("server") && On("wait", true), On("telnet"));
                break;
            }
            case var other:
                throw new MachineException($"'{other}' is not a valid char driver name");
        }
        _all.Add(device);
        if (On("mux"))
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

    private DescriptorCharDevice Terminal()
    {
        if (_terminalTaken)
            throw new MachineException("cannot use stdio by multiple character devices");
        _terminalTaken = true;
        bool raw = Descriptors.SetRaw(0, out byte[] before, KeepSignals);
        return new DescriptorCharDevice(loop, "stdio", 0, 1, () =>
        {
            if (raw)
                Descriptors.Restore(0, before);
        });
    }

    private DescriptorCharDevice Pty()
    {
        try
        {
            var (master, slave, name) = Descriptors.OpenPty();
            notify($"char device redirected to {name}");
            return new DescriptorCharDevice(loop, $"pty:{name}", master, master, () =>
            {
                Descriptors.Close(master);
                Descriptors.Close(slave);
            });
        }
        catch (IOException e)
        {
            throw new MachineException($"Failed to create PTY: {e.Message}", e);
        }
    }

    private DescriptorCharDevice ToFile(string path)
    {
        try
        {
            int fd = Descriptors.Create(path);
            return new DescriptorCharDevice(loop, $"file:{path}", -1, fd, () => Descriptors.Close(fd));
        }
        catch (IOException e)
        {
            throw new MachineException($"Failed to open '{path}': {e.Message[(e.Message.IndexOf(": ", StringComparison.Ordinal) + 2)..]}", e);
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
            throw new MachineException($"Failed to open '{path}': {e.Message[(e.Message.IndexOf(": ", StringComparison.Ordinal) + 2)..]}", e);
        }
    }

    private static EndPoint Address(bool unix, string text)
    {
        if (unix)
        {
            if (text.Length is 0 or > 107)
                throw new MachineException($"UNIX socket path '{text}' is too long");
            return new UnixDomainSocketEndPoint(text);
        }
        int colon = text.LastIndexOf(':');
        string host = colon < 0 ? "" : text[..colon].Trim('[', ']');
        if (!ushort.TryParse(text.AsSpan(colon + 1), NumberStyles.None, CultureInfo.InvariantCulture, out ushort port))
            throw new MachineException($"'{text}' is not an address with a port");
        if (host.Length == 0)
            return new IPEndPoint(IPAddress.Any, port);
        if (!IPAddress.TryParse(host, out var ip))
        {
            try
            {
                ip = Dns.GetHostAddresses(host, AddressFamily.InterNetwork).FirstOrDefault();
            }
            catch (SocketException e)
            {
                throw new MachineException($"address resolution failed for {text}: {e.Message}", e);
            }
        }
        return new IPEndPoint(ip ?? throw new MachineException($"address resolution failed for {text}"), port);
    }
}
