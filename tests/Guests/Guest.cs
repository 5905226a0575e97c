using System.Diagnostics;
using System.Net.Sockets;
using System.Text;
using System.Text.Json;

namespace ImgKit.Guests;

/// <summary>A guest in the program <c>kvm</c>, watched over QMP: its text screen and its first serial port.</summary>
internal sealed class Guest : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("guest").FullName;
    private readonly Process _process;
    private readonly StringBuilder _errors = new();
    private readonly Socket _line;
    private readonly Thread _listener;
    private readonly StringBuilder _serial = new();
    private StreamReader? _reader;
    private Socket? _socket;

    internal Guest(params string[] arguments)
    {
        var info = new ProcessStartInfo(Repository.Program) { RedirectStandardError = true, RedirectStandardInput = true };
        string[] own =
        [
            "-display", "none", "-serial", $"unix:{SerialSocket},server",
            "-qmp", $"unix:{Path.Combine(_folder, "qmp")},server,nowait",
        ];
        if (!arguments.Contains("-accel"))
            own = ["-accel", Accelerator, .. own];
        foreach (string a in own.Concat(arguments))
            info.ArgumentList.Add(a);
        _process = Process.Start(info)!;
        _process.ErrorDataReceived += (_, e) => _errors.AppendLine(e.Data);
        _process.BeginErrorReadLine();
        _line = Connect(SerialSocket);
        _listener = new Thread(Listen) { IsBackground = true };
        _listener.Start();
    }

    /// <summary>What executes the guests, for <c>-accel</c>: the environment's ACCEL.</summary>
    internal static string Accelerator => Environment.GetEnvironmentVariable("ACCEL") ?? "soft";

    /// <summary>How many times longer than usual this host may take: the environment's PATIENCE.</summary>
    private static int Patience { get; } = int.Parse(Environment.GetEnvironmentVariable("PATIENCE") ?? "1", System.Globalization.CultureInfo.InvariantCulture);

    private string SerialSocket => Path.Combine(_folder, "serial");

    /// <summary>What the guest has written to its first serial port.</summary>
    internal string Serial
    {
        get
        {
            lock (_serial)
                return _serial.ToString();
        }
    }

    /// <summary>Types into the first serial port.</summary>
    internal void Type(string text) => _line.Send(Encoding.ASCII.GetBytes(text));

    /// <summary>Types a line, and waits for a text that comes after it (the echo of what is typed counts).</summary>
    /// <returns>what the guest wrote since.</returns>
    internal string Command(string line, string answer, int seconds)
    {
        int start = Serial.Length;
        Type(line + "\n");
        WaitFor(() => Serial.IndexOf(answer, start, StringComparison.Ordinal) >= 0, $"'{answer}' on the serial port", seconds);
        return Serial[start..];
    }

    private int _asked;

    /// <summary>Runs a command in the guest's shell (kernel parameter <c>shell</c> of scripts/guest-kernel), which must succeed.</summary>
    /// <returns>what it printed, trimmed.</returns>
    internal string Ask(string command, int seconds = 60)
    {
        var (status, output) = TryAsk(command, seconds);
        Assert.True(status == 0, $"'{command}' ended with {status}: {output}");
        return output;
    }

    /// <summary>As <see cref="Ask"/>, whatever its exit status.</summary>
    internal (int Status, string Output) TryAsk(string command, int seconds = 60) => Begin(command)(seconds);

    /// <summary>Begins a command in the guest's shell. Returns what waits for its end.</summary>
    internal Func<int, (int Status, string Output)> Begin(string command)
    {
        string mark = $"={++_asked}=\r\n";
        int start = Serial.Length;
        Type($"{command}; echo =$?={_asked}=\n");
        return seconds =>
        {
            WaitFor(() => Serial.IndexOf(mark, start, StringComparison.Ordinal) >= 0, $"end of '{command}'", seconds);
            string text = Serial[start..];
            text = text[..text.IndexOf(mark, StringComparison.Ordinal)];
            int at = text.LastIndexOf('=');
            return (int.Parse(text[(at + 1)..], System.Globalization.CultureInfo.InvariantCulture), text[..at].Trim());
        };
    }

    /// <summary>Runs a command of the monitor for people.</summary>
    internal string Hmp(string line) =>
        Qmp("human-monitor-command", new Dictionary<string, string> { ["command-line"] = line }).GetString()!.Replace("\r\n", "\n", StringComparison.Ordinal);

    /// <summary>The flags (open(2)) with which the program has a file open.</summary>
    internal int FlagsOf(string file)
    {
        foreach (string descriptor in Directory.EnumerateFiles($"/proc/{_process.Id}/fd"))
            if (new FileInfo(descriptor).LinkTarget == file)
                foreach (string line in File.ReadLines($"/proc/{_process.Id}/fdinfo/{Path.GetFileName(descriptor)}"))
                    if (line.StartsWith("flags:", StringComparison.Ordinal))
                        return Convert.ToInt32(line[6..].Trim(), 8);
        throw new FileNotFoundException("the program does not have it open", file);
    }

    private Socket Connect(string path)
    {
        WaitFor(() => File.Exists(path), path, 60);
        for (int tries = 0; ; tries++)
        {
            var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
            try
            {
                socket.Connect(new UnixDomainSocketEndPoint(path));
                return socket;
            }
            catch (SocketException) when (tries < 100)
            {
                // The name is there a moment before the socket listens.
                socket.Dispose();
                Thread.Sleep(50);
            }
        }
    }

    private void Listen()
    {
        var buffer = new byte[4096];
        try
        {
            for (int n; _isListening && (n = _line.Receive(buffer)) > 0;)
            {
                lock (_serial)
                    _serial.Append(Encoding.Latin1.GetString(buffer, 0, n));
            }
        }
        catch (SocketException)
        {
            // The program has ended.
        }
    }

    private readonly List<JsonElement> _events = [];

    /// <summary>Waits for an event of the monitor, which must have been spoken to before it, and takes it.</summary>
    internal JsonElement WaitForEvent(string name, int seconds)
    {
        int at = -1;
        WaitFor(() =>
        {
            Qmp("query-status");
            at = _events.FindIndex(e => e.GetProperty("event").GetString() == name);
            return at >= 0;
        }, $"event {name}", seconds);
        var found = _events[at];
        _events.RemoveAt(at);
        return found;
    }

    /// <summary>The first event that came and was not taken; null: none.</summary>
    internal JsonElement? TakeEvent()
    {
        if (_events.Count == 0)
            return null;
        var first = _events[0];
        _events.RemoveAt(0);
        return first;
    }

    /// <summary>Reads the monitor's last words.</summary>
    internal JsonElement WaitForLastEvent()
    {
        while (_reader!.ReadLine() is { } line)
            _events.Add(JsonDocument.Parse(line).RootElement);
        return TakeEvent() ?? throw new IOException("the monitor has said nothing before the end");
    }

    /// <summary>Nobody takes any more what the guest writes to its first serial port.</summary>
    internal void StopListening() => _isListening = false;

    private volatile bool _isListening = true;

    internal JsonElement Qmp(string command, object? arguments = null)
    {
        if (_reader == null)
        {
            _socket = Connect(Path.Combine(_folder, "qmp"));
            _socket.ReceiveTimeout = 120_000;
            _reader = new StreamReader(new NetworkStream(_socket));
            Assert.Contains("QMP", _reader.ReadLine());
            Send("qmp_capabilities", null);
        }
        return Send(command, arguments);
    }

    /// <summary>Presses keys, as the monitor names them.</summary>
    internal void Press(string keys) => Qmp("human-monitor-command", new Dictionary<string, string> { ["command-line"] = "sendkey " + keys });

    private JsonElement Send(string command, object? arguments)
    {
        _socket!.Send(Encoding.UTF8.GetBytes(arguments == null ? $"{{\"execute\":\"{command}\"}}"
            : $"{{\"execute\":\"{command}\",\"arguments\":{JsonSerializer.Serialize(arguments)}}}"));
        while (true)
        {
            string line = _reader!.ReadLine() ?? throw new IOException("the monitor is gone: " + _errors);
            var answer = JsonDocument.Parse(line).RootElement;
            if (answer.TryGetProperty("event", out _))
                _events.Add(answer);
            if (answer.TryGetProperty("error", out var error))
                throw new InvalidOperationException($"{command}: {error}");
            if (answer.TryGetProperty("return", out var result))
                return result;
        }
    }

    /// <summary>The colour text screen, a line a row.</summary>
    internal string Screen()
    {
        string file = Path.Combine(_folder, "screen");
        Qmp("pmemsave", new { val = 0xB8000, size = 4000, filename = file });
        byte[] cells = File.ReadAllBytes(file);
        var text = new StringBuilder();
        for (int i = 0; i < 2000; i++)
        {
            text.Append(cells[2 * i] is >= 32 and < 127 ? (char)cells[2 * i] : ' ');
            if (i % 80 == 79)
                text.Append('\n');
        }
        return text.ToString();
    }

    internal void WaitForScreen(string text, int seconds) => WaitFor(() => Screen().Contains(text, StringComparison.Ordinal), $"'{text}' on the screen", seconds);

    internal void WaitForSerial(string text, int seconds) => WaitFor(() => Serial.Contains(text, StringComparison.Ordinal), $"'{text}' on the serial port", seconds);

    internal int WaitForExit(int seconds)
    {
        Assert.True(_process.WaitForExit(seconds * Patience * 1000), $"the guest did not end within {seconds} s; its last words:\n{Tail}");
        _listener.Join();
        return _process.ExitCode;
    }

    /// <summary>Ends the machine from outside, which must go well.</summary>
    internal void Quit()
    {
        Qmp("quit");
        Assert.Equal(0, WaitForExit(60));
    }

    /// <summary>Leaves the guest's shell, which powers off.</summary>
    internal void LeaveShell()
    {
        Type("exit\n");
        Assert.Equal(0, WaitForExit(60));
    }

    private string Tail => Serial is { Length: > 2000 } text ? text[^2000..] : Serial;

    private void WaitFor(Func<bool> condition, string what, int seconds)
    {
        var watch = Stopwatch.StartNew();
        while (!condition())
        {
            Assert.False(_process.HasExited, $"the program ended while {what} was awaited: {_errors}");
            Assert.True(watch.Elapsed.TotalSeconds < seconds * Patience, $"no {what} within {seconds} s; serial port:\n{Tail}\n{_errors}");
            Thread.Sleep(200);
        }
    }

    public void Dispose()
    {
        _reader?.Dispose();
        _line.Dispose();
        if (!_process.HasExited)
            _process.Kill();
        _process.WaitForExit();
        _process.Dispose();
        Directory.Delete(_folder, true);
    }
}
