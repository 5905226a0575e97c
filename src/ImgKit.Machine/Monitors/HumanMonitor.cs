using System.Text;
using ImgKit.Machine.CharDevices;

namespace ImgKit.Machine.Monitors;

/// <summary>The monitor for people: a line, an answer.</summary>
public sealed class HumanMonitor
{
    private const string Prompt = "(qemu) ";

    private readonly Pc _pc;
    private readonly HumanCommands _commands;
    private readonly CharDevice _device;
    private readonly List<byte> _line = [];
    private readonly List<string> _history = [];
    private int _historyAt, _escape;
    private bool _greeted, _afterReturn;

    /// <summary>Listens to a character device.</summary>
    public HumanMonitor(Pc pc, CharDevice device)
    {
        _pc = pc;
        _commands = new HumanCommands(pc);
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

    private void Greet()
    {
        Write(_greeted ? "\r\n" + Prompt : $"QEMU {ProductVersion.Peer} monitor - type 'help' for more information\r\n{Prompt}");
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
        // Telnet ends lines by CR LF, or CR NUL (RFC 854).
        bool isSecond = _afterReturn && b is (byte)'\n' or (byte)'\0';
        _afterReturn = b == '\r';
        if (isSecond)
            return;
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
                    string answer = _commands.Execute(line);
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
