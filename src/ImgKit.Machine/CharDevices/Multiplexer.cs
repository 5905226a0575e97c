using System.Text;

namespace ImgKit.Machine.CharDevices;

/// <summary>Several users of one terminal, such as serial port and monitor: keys Ctrl-A c change between them.</summary>
public sealed class Multiplexer
{
    private const byte Escape = 1;
    private readonly CharDevice _terminal;
    private readonly List<Channel> _channels = [];
    private readonly Action _quit;
    private int _focus;
    private bool _escaped;

    /// <summary>Takes a terminal over.</summary>
    /// <param name="terminal">the host's end.</param>
    /// <param name="quit">Ctrl-A x.</param>
    public Multiplexer(CharDevice terminal, Action quit)
    {
        _terminal = terminal;
        _quit = quit;
        terminal.InputAvailable = Take;
        terminal.OutputDrained = () =>
        {
            foreach (var c in _channels)
                c.OutputDrained?.Invoke();
        };
        terminal.ConnectionChanged = on =>
        {
            foreach (var c in _channels)
                c.ConnectionChanged?.Invoke(on);
        };
    }

    /// <summary>Adds a user. The first one has the focus.</summary>
    public CharDevice AddChannel(string name)
    {
        var channel = new Channel(this, name);
        _channels.Add(channel);
        return channel;
    }

    private void Take()
    {
        Span<byte> one = stackalloc byte[1];
        while (_terminal.TryTake(out byte b))
        {
            if (!_escaped && b == Escape)
            {
                _escaped = true;
                continue;
            }
            if (_escaped)
            {
                _escaped = false;
                switch ((char)b)
                {
                    case 'c':
                        _focus = (_focus + 1) % _channels.Count;
                        _channels[_focus].GotFocus?.Invoke();
                        continue;
                    case 'x':
                        _terminal.Write("QEMU: Terminated\r\n"u8);
                        _quit();
                        continue;
                    case 'h' or '?':
                        _terminal.Write(Encoding.ASCII.GetBytes(
                            "\r\nC-a h    print this help\r\nC-a x    exit emulator\r\nC-a c    switch between console and monitor\r\nC-a C-a  sends C-a\r\n"));
                        continue;
                    case (char)Escape:
                        break;
                    default:
                        continue;
                }
            }
            one[0] = b;
            _channels[_focus].Receive(one);
        }
    }

    private sealed class Channel(Multiplexer owner, string name) : CharDevice
    {
        public override string Description => $"mux:{name}";

        public override bool IsConnected => owner._terminal.IsConnected;

        public override bool IsCongested => owner._terminal.IsCongested;

        public override void Write(ReadOnlySpan<byte> data) => owner._terminal.Write(data);
    }
}
