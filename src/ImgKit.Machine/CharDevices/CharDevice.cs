namespace ImgKit.Machine.CharDevices;

/// <summary>
/// The host's end of a character stream: a terminal, a file, a socket. The guest's end writes to it and takes what came in. Under the machine lock.
/// </summary>
public abstract class CharDevice : IDisposable
{
    private const int Limit = 4096;
    private readonly Queue<byte> _input = new();

    /// <summary>The identifier, as <c>-chardev id=</c>; those without one are called after their user.</summary>
    public string Id { get; set; } = "";

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

    /// <summary>Sends bytes, without waiting: what nobody takes is kept for a while; what is too much then is lost.</summary>
    public abstract void Write(ReadOnlySpan<byte> data);

    /// <summary>Bytes wait for somebody to take them: the guest's end had better not send more now.</summary>
    public virtual bool IsCongested => false;

    /// <summary>Set by the guest's end: called when all bytes that waited are gone.</summary>
    public Action? OutputDrained { get; set; }

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
/// <param name="name">how the user called it.</param>
public sealed class NullCharDevice(string name = "null") : CharDevice
{
    /// <inheritdoc/>
    public override string Description => name;

    /// <inheritdoc/>
    public override void Write(ReadOnlySpan<byte> data)
    {
    }
}
