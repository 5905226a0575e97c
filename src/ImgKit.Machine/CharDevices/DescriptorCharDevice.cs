using ImgKit.Host;

namespace ImgKit.Machine.CharDevices;

/// <summary>A pair of descriptors: standard input and output, a pseudo-terminal, a file.</summary>
public sealed class DescriptorCharDevice : HostCharDevice
{
    private readonly EventLoop _loop;
    private readonly int _in, _out;
    private readonly DescriptorKind _kind;
    private readonly Action? _closed, _started;
    private readonly Dictionary<int, EpollEvents> _watched = [];
    private bool _reads, _ended, _closedDown;

    /// <summary>Makes one.</summary>
    /// <param name="loop">the machine's event loop.</param>
    /// <param name="description">for <c>info chardev</c>.</param>
    /// <param name="input">descriptor to read, or -1.</param>
    /// <param name="output">descriptor to write.</param>
    /// <param name="closed">run once at the end: restores a terminal, closes descriptors.</param>
    /// <param name="started">run once when the machine starts.</param>
    public DescriptorCharDevice(EventLoop loop, string description, int input, int output, Action? closed = null, Action? started = null)
    {
        _started = started;
        _loop = loop;
        Description = description;
        _in = input;
        _out = output;
        _kind = Descriptors.KindOf(output);
        _closed = closed;
    }

    /// <inheritdoc/>
    public override string Description { get; }

    /// <inheritdoc/>
    public override void Start()
    {
        _started?.Invoke();
        Watch();
    }

    private void Watch()
    {
        if (_reads || _ended || _in < 0)
            return;
        _reads = true;
        try
        {
            Rewatch();
        }
        catch (IOException)
        {
            // A plain file cannot be polled: it is read to its end at once.
            _reads = false;
            _ended = true;
            byte[] data = new byte[4096];
            while (Descriptors.Read(_in, data) is > 0 and var n)
                Receive(data.AsSpan(0, n));
        }
    }

    // Input and output may be one descriptor.
    private void Rewatch()
    {
        if (_closedDown)
            return;
        var reads = _reads ? EpollEvents.In : EpollEvents.None;
        var writes = IsCongested ? EpollEvents.Out : EpollEvents.None;
        if (_in == _out)
            Await(_in, reads | writes);
        else
        {
            Await(_in, reads);
            Await(_out, writes);
        }
    }

    private void Await(int descriptor, EpollEvents events)
    {
        if (_watched.GetValueOrDefault(descriptor) == events)
            return;
        if (events == EpollEvents.None)
            _loop.Unwatch(descriptor);
        else
            _loop.Watch(descriptor, events, e => Happened(descriptor, e));
        _watched[descriptor] = events;
    }

    private void Happened(int descriptor, EpollEvents events)
    {
        const EpollEvents Over = EpollEvents.HangUp | EpollEvents.Error;
        if (descriptor == _out && IsCongested && (events & (EpollEvents.Out | Over)) != 0)
            SendWaiting();
        if (descriptor == _in && _reads && (events & (EpollEvents.In | Over)) != 0)
            Ready(events);
    }

    /// <inheritdoc/>
    protected override void WatchOutput() => Rewatch();

    /// <inheritdoc/>
    protected override int Send(ReadOnlySpan<byte> data) => Descriptors.TryWrite(_out, _kind, data);

    private void Ready(EpollEvents events)
    {
        Span<byte> data = stackalloc byte[512];
        int n = Descriptors.Read(_in, data);
        if (n > 0)
            Receive(data[..n]);
        else if (n == 0 || (n < 0 && (events & (EpollEvents.HangUp | EpollEvents.Error)) != 0))
        {
            // The end of input: a pseudo-terminal nobody has open comes back later, all else stays at its end.
            Unwatch();
            if (Description.StartsWith("pty", StringComparison.Ordinal))
                _loop.After(500, Watch);
            else
                _ended = true;
            return;
        }
        if (IsFull)
            Unwatch();
    }

    private void Unwatch()
    {
        _reads = false;
        Rewatch();
    }

    /// <inheritdoc/>
    protected override void Drained() => Watch();

    /// <inheritdoc/>
    public override void Dispose()
    {
        SayFarewell();
        _reads = false;
        Forget();
        _closedDown = true;
        _closed?.Invoke();
        base.Dispose();
    }
}
