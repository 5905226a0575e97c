using System.Runtime.InteropServices;

namespace ImgKit.Host;

/// <summary>Events of epoll(7).</summary>
[Flags]
public enum EpollEvents : uint
{
    /// <summary>Nothing.</summary>
    None = 0,

    /// <summary>Readable.</summary>
    In = 1,

    /// <summary>Writable.</summary>
    Out = 4,

    /// <summary>Error; always reported.</summary>
    Error = 8,

    /// <summary>Hang-up; always reported.</summary>
    HangUp = 0x10,
}

/// <summary>A descriptor that is ready.</summary>
public readonly record struct EpollReady(int Descriptor, EpollEvents Events);

/// <summary>An epoll instance. Thread-safe as the kernel's is.</summary>
public sealed partial class Epoll : IDisposable
{
    private readonly int _fd;

    /// <summary>Makes one. Throws <see cref="IOException"/>.</summary>
    public Epoll() => _fd = Native.Check(Native.EpollCreate(0x80000), "epoll_create1");

    /// <summary>Adds a descriptor.</summary>
    public void Add(int descriptor, EpollEvents events) => Control(1, descriptor, events);

    /// <summary>Changes the events of a descriptor.</summary>
    public void Modify(int descriptor, EpollEvents events) => Control(3, descriptor, events);

    /// <summary>Removes a descriptor.</summary>
    public void Remove(int descriptor) => Control(2, descriptor, EpollEvents.None);

    private unsafe void Control(int operation, int descriptor, EpollEvents events)
    {
        var e = new Native.EpollEvent { Events = (uint)events, Data = descriptor };
        Native.Check(Native.EpollControl(_fd, operation, descriptor, &e), "epoll_ctl");
    }

    /// <summary>Waits for ready descriptors, at most <paramref name="milliseconds"/> (-1: for ever); 0 when there are none.</summary>
    public unsafe int Wait(Span<EpollReady> ready, int milliseconds)
    {
        const int Max = 64;
        var events = stackalloc Native.EpollEvent[Max];
        int n = Native.EpollWait(_fd, events, Math.Min(Max, ready.Length), milliseconds);
        if (n < 0)
        {
            if (Marshal.GetLastPInvokeError() == Native.EINTR)
                return 0;
            Native.Check(n, "epoll_wait");
        }
        for (int i = 0; i < n; i++)
            ready[i] = new EpollReady((int)events[i].Data, (EpollEvents)events[i].Events);
        return n;
    }

    /// <inheritdoc/>
    public void Dispose() => Native.Close(_fd);
}

/// <summary>An eventfd(2) counter used as a wake-up. Thread-safe.</summary>
public sealed unsafe class EventFd : IDisposable
{
    /// <summary>Makes one. Throws <see cref="IOException"/>.</summary>
    public EventFd() => Descriptor = Native.Check(Native.EventFdCreate(0, 0x80800), "eventfd");

    /// <summary>The descriptor, to poll.</summary>
    public int Descriptor { get; }

    /// <summary>Makes it readable.</summary>
    public void Signal()
    {
        ulong one = 1;
        Native.Write(Descriptor, &one, 8);
    }

    /// <summary>Makes it unreadable; true when it had been signalled.</summary>
    public bool Clear()
    {
        ulong value;
        return Native.Read(Descriptor, &value, 8) == 8;
    }

    /// <inheritdoc/>
    public void Dispose() => Native.Close(Descriptor);
}

/// <summary>A timerfd on the monotonic clock. Thread-safe.</summary>
public sealed unsafe class TimerFd : IDisposable
{
    /// <summary>Makes one that is not set. Throws <see cref="IOException"/>.</summary>
    public TimerFd() => Descriptor = Native.Check(Native.TimerFdCreate(1, 0x80800), "timerfd_create");

    /// <summary>The descriptor, to poll.</summary>
    public int Descriptor { get; }

    /// <summary>Becomes readable at a time of CLOCK_MONOTONIC in nanoseconds, above 0.</summary>
    public void SetAbsolute(long nanoseconds)
    {
        var value = stackalloc long[4] { 0, 0, nanoseconds / 1_000_000_000, nanoseconds % 1_000_000_000 };
        Native.Check(Native.TimerFdSet(Descriptor, 1, value, null), "timerfd_settime");
    }

    /// <summary>Makes it unreadable.</summary>
    public void Clear()
    {
        ulong value;
        Native.Read(Descriptor, &value, 8);
    }

    /// <inheritdoc/>
    public void Dispose() => Native.Close(Descriptor);
}
