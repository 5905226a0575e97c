namespace ImgKit.Machine.CharDevices;

/// <summary>
/// The host's end of a character stream: a terminal, a file, a socket. The guest's end writes to it and takes what came in. Under the machine lock.
/// </summary>
public abstract class CharDevice : IDisposable
{
    private const int Limit = 4096;
    private readonly Queue<byte> _input = new();

    /// <summary>The identifier, as <c>-chardev id=</c>.</summary>
    public string Id { get; init; } = "";

    /// <summary>What it is, for <c>info chardev</c>.</summary>
    public abstract string Description { get; }

    /// <summary>Somebody is at the other end.</summary>
    public virtual bool IsConnected => true;

    /// <summary>Set by the guest's end: called when something can be taken.</summary>
    public Action? InputAvailable { get; set; }

    /// <summary>Set by the guest's end: a peer came (true) or went.</summary>
    public Action<bool>? ConnectionChanged { get; set; }

    /// <summary>Set by the guest's end: the user has turned to it.</summary>
    public Action? GotFocus { get; set; }

    /// <summary>True when no more input should be read now.</summary>
    protected bool IsFull => _input.Count >= Limit;

    /// <summary>Input waits.</summary>
    public bool HasInput => _input.Count > 0;

    /// <summary>Sends bytes; what cannot be sent is lost.</summary>
    public abstract void Write(ReadOnlySpan<byte> data);

    /// <summary>Begins to take input.</summary>
    public virtual void Start()
    {
    }

    /// <summary>Takes the next byte that came in.</summary>
    public bool TryTake(out byte value)
    {
        bool any = _input.TryDequeue(out value);
        if (any && _input.Count == 0)
            Drained();
        return any;
    }

    /// <summary>Input has come.</summary>
    public void Receive(ReadOnlySpan<byte> data)
    {
        foreach (byte b in data)
            _input.Enqueue(b);
        if (data.Length > 0)
            InputAvailable?.Invoke();
    }

    /// <summary>The queue is empty again.</summary>
    protected virtual void Drained()
    {
    }

    /// <summary>Lets the host's end go.</summary>
    public virtual void Dispose() => GC.SuppressFinalize(this);
}

/// <summary>Nowhere.</summary>
public sealed class NullCharDevice : CharDevice
{
    /// <inheritdoc/>
    public override string Description => "null";

    /// <inheritdoc/>
    public override void Write(ReadOnlySpan<byte> data)
    {
    }
}
