using System.Globalization;
using System.Runtime.InteropServices;
using System.Text;
using static ImgKit.Host.NativeSocketCalls;

namespace ImgKit.Host;

/// <summary>The name of a host or service cannot be resolved.</summary>
public sealed class AddressException(string message) : IOException(message);

/// <summary>
/// A stream socket (TCP or Unix), blocking. One thread may receive while another sends. Errors are
/// <see cref="HostException"/>; a signal never arises from a peer that is gone.
/// </summary>
public sealed unsafe class HostSocket : IDisposable
{
    private int _fd;

    private HostSocket(int fd, bool isUnix)
    {
        _fd = fd;
        IsUnix = isUnix;
    }

    /// <summary>A Unix socket, not TCP.</summary>
    public bool IsUnix { get; }

    /// <summary>The descriptor.</summary>
    public int Descriptor => _fd;

    /// <summary>Takes over a descriptor that exists already.</summary>
    public static HostSocket FromDescriptor(int fd)
    {
        ushort* address = stackalloc ushort[64];
        uint length = 128;
        if (getsockname(fd, address, &length) < 0)
            HostException.ThrowLast();
        return new HostSocket(fd, address[0] == Unix);
    }

    /// <summary>Two sockets that are connected with each other.</summary>
    public static (HostSocket First, HostSocket Second) CreatePair()
    {
        int* fds = stackalloc int[2];
        if (socketpair(Unix, StreamType | CloseOnExec, 0, fds) < 0)
            HostException.ThrowLast();
        return (new HostSocket(fds[0], true), new HostSocket(fds[1], true));
    }

    /// <summary>Connects to a Unix socket.</summary>
    public static HostSocket ConnectUnix(string path)
    {
        byte* address = stackalloc byte[110];
        uint length = UnixAddress(path, new Span<byte>(address, 110));
        int fd = Make(Unix, 0);
        while (connect(fd, address, length) < 0)
            FailUnlessInterrupted(fd);
        return new HostSocket(fd, true);
    }

    /// <summary>Connects by TCP; of several addresses that a name has, to the first that answers.</summary>
    public static HostSocket ConnectTcp(string host, string service)
    {
        var list = Resolve(host, service, passive: false);
        try
        {
            int error = 111;    // ECONNREFUSED
            for (var a = list; a is not null; a = a->Next)
            {
                int fd = socket(a->Family, StreamType | CloseOnExec, a->Protocol);
                if (fd < 0)
                {
                    error = Marshal.GetLastPInvokeError();
                    continue;
                }
                if (connect(fd, a->Address, a->AddressLength) == 0)
                {
                    var s = new HostSocket(fd, false);
                    s.SetOption(TcpLevel, TcpNoDelay, 1);
                    s.SetOption(SocketLevel, KeepAlive, 1);
                    return s;
                }
                error = Marshal.GetLastPInvokeError();
                _ = close(fd);
            }
            throw new HostException(error);
        }
        finally
        {
            freeaddrinfo(list);
        }
    }

    /// <summary>Listens on a Unix socket; a file of that name must not be there.</summary>
    public static HostSocket ListenUnix(string path, int backlog)
    {
        byte* address = stackalloc byte[110];
        uint length = UnixAddress(path, new Span<byte>(address, 110));
        int fd = Make(Unix, 0);
        if (bind(fd, address, length) < 0 || listen(fd, backlog) < 0)
            FailUnlessInterrupted(fd);
        return new HostSocket(fd, true);
    }

    /// <summary>Listens by TCP on the first of the host's addresses that can be had.</summary>
    public static HostSocket ListenTcp(string host, string service, int backlog)
    {
        var list = Resolve(host, service, passive: true);
        try
        {
            int error = 98;     // EADDRINUSE
            for (var a = list; a is not null; a = a->Next)
            {
                int fd = socket(a->Family, StreamType | CloseOnExec, a->Protocol);
                if (fd < 0)
                {
                    error = Marshal.GetLastPInvokeError();
                    continue;
                }
                var s = new HostSocket(fd, false);
                s.SetOption(SocketLevel, ReuseAddress, 1);
                if (bind(fd, a->Address, a->AddressLength) == 0 && listen(fd, backlog) == 0)
                    return s;
                error = Marshal.GetLastPInvokeError();
                s.Dispose();
            }
            throw new HostException(error);
        }
        finally
        {
            freeaddrinfo(list);
        }
    }

    /// <summary>The TCP port that the socket is bound to, or 0.</summary>
    public int GetLocalPort()
    {
        byte* address = stackalloc byte[128];
        uint length = 128;
        if (getsockname(_fd, address, &length) < 0)
            HostException.ThrowLast();
        return IsUnix ? 0 : address[2] << 8 | address[3];
    }

    /// <summary>Waits for a client.</summary>
    /// <returns>null: the socket has been shut down, or the client is gone already.</returns>
    public HostSocket? Accept()
    {
        while (true)
        {
            int fd = accept4(_fd, null, null, CloseOnExec);
            if (fd >= 0)
            {
                var s = new HostSocket(fd, IsUnix);
                if (!IsUnix)
                {
                    s.SetOption(TcpLevel, TcpNoDelay, 1);
                    s.SetOption(SocketLevel, KeepAlive, 1);
                }
                return s;
            }
            int error = Marshal.GetLastPInvokeError();
            if (error == 4)         // EINTR
                continue;
            if (error is 22 or 9 or 103 or 71)      // EINVAL EBADF: shut down; ECONNABORTED EPROTO: gone
                return null;
            throw new HostException(error);
        }
    }

    /// <summary>Waits until there is something to receive (or to accept), or the peer is gone.</summary>
    /// <param name="milliseconds">-1: for ever.</param>
    public bool WaitReadable(int milliseconds) => WaitFor(false, milliseconds);

    /// <summary>Waits until it can be written, or read; or the peer is gone.</summary>
    internal bool WaitFor(bool write, int milliseconds)
    {
        var p = new PollDescriptor { Descriptor = _fd, Events = (short)(write ? 4 : 1) };
        int n;
        do
            n = poll(&p, 1, milliseconds);
        while (n < 0 && Marshal.GetLastPInvokeError() == 4);
        return n > 0;
    }

    /// <summary>Calls on the socket do not wait from here on.</summary>
    internal void SetNonBlocking() => _ = Tls.OpenSsl.fcntl(_fd, 4, Tls.OpenSsl.fcntl(_fd, 3, 0) | 0x800);

    /// <summary>Receives what is there, at least one byte.</summary>
    /// <returns>bytes; 0 at the end of the stream; -1 when <paramref name="wait"/> is false and nothing is there.</returns>
    public int Receive(Span<byte> buffer, bool wait = true)
    {
        fixed (byte* p = buffer)
        {
            while (true)
            {
                nint n = recv(_fd, p, (nuint)buffer.Length, wait ? 0 : DontWait);
                if (n >= 0)
                    return (int)n;
                int error = Marshal.GetLastPInvokeError();
                if (error == 4)
                    continue;
                if (error == 11)        // EAGAIN: nothing there, or the time limit passed
                    return wait ? throw new HostException(110) : -1;
                throw new HostException(error);
            }
        }
    }

    /// <summary>Sends all of it.</summary>
    public void Send(ReadOnlySpan<byte> first) => Send(first, default);

    /// <summary>Sends all of both, with one call where the system takes it.</summary>
    public void Send(ReadOnlySpan<byte> first, ReadOnlySpan<byte> second)
    {
        fixed (byte* a = first)
        fixed (byte* b = second)
        {
            NativeCalls.IoVec* v = stackalloc NativeCalls.IoVec[2];
            v[0] = new NativeCalls.IoVec { Base = a, Length = (nuint)first.Length };
            v[1] = new NativeCalls.IoVec { Base = b, Length = (nuint)second.Length };
            SendVectors(v, 2);
        }
    }

    /// <summary>Sends all of a header and of the pieces of memory behind it.</summary>
    public void SendVector(ReadOnlySpan<byte> header, ReadOnlySpan<(nint Address, int Length)> pieces)
    {
        NativeCalls.IoVec* v = stackalloc NativeCalls.IoVec[65];
        fixed (byte* h = header)
        {
            v[0] = new NativeCalls.IoVec { Base = h, Length = (nuint)header.Length };
            int n = 1;
            foreach (var (address, length) in pieces)
            {
                v[n++] = new NativeCalls.IoVec { Base = (void*)address, Length = (nuint)length };
                if (n == 65)
                {
                    SendVectors(v, n);
                    n = 0;
                }
            }
            SendVectors(v, n);
        }
    }

    private void SendVectors(NativeCalls.IoVec* vectors, int count)
    {
        while (count > 0)
        {
            if (vectors->Length == 0)
            {
                vectors++;
                count--;
                continue;
            }
            var message = new MessageHeader { Vectors = vectors, VectorCount = (nuint)count };
            nint n = sendmsg(_fd, &message, NoSignal);
            if (n < 0)
            {
                int error = Marshal.GetLastPInvokeError();
                if (error == 4)
                    continue;
                throw new HostException(error == 11 ? 110 : error);
            }
            while (count > 0 && (nuint)n >= vectors->Length)
            {
                n -= (nint)vectors->Length;
                vectors++;
                count--;
            }
            if (count > 0)
            {
                vectors->Base = (byte*)vectors->Base + n;
                vectors->Length -= (nuint)n;
            }
        }
    }

    /// <summary>Limits how long one receive and one send may wait; zero: no limit. What exceeds it fails with ETIMEDOUT.</summary>
    public void SetTimeout(TimeSpan limit)
    {
        var t = new TimeValue { Seconds = limit.Ticks / TimeSpan.TicksPerSecond, Microseconds = limit.Ticks % TimeSpan.TicksPerSecond / 10 };
        _ = setsockopt(_fd, SocketLevel, ReceiveTimeout, &t, (uint)sizeof(TimeValue));
        _ = setsockopt(_fd, SocketLevel, SendTimeout, &t, (uint)sizeof(TimeValue));
    }

    /// <summary>Ends both directions: whoever waits in a call on this socket gets its end.</summary>
    public void Shutdown() => _ = shutdown(_fd, 2);

    /// <inheritdoc/>
    public void Dispose()
    {
        int fd = Interlocked.Exchange(ref _fd, -1);
        if (fd >= 0)
            _ = close(fd);
    }

    private void SetOption(int level, int name, int value) => _ = setsockopt(_fd, level, name, &value, sizeof(int));

    private static int Make(int family, int protocol)
    {
        int fd = socket(family, StreamType | CloseOnExec, protocol);
        if (fd < 0)
            HostException.ThrowLast();
        return fd;
    }

    private static void FailUnlessInterrupted(int fd)
    {
        int error = Marshal.GetLastPInvokeError();
        if (error == 4)
            return;
        _ = close(fd);
        throw new HostException(error);
    }

    private static uint UnixAddress(string path, Span<byte> address)
    {
        int n = Encoding.UTF8.GetByteCount(path);
        if (n is 0 or > 107)
            throw new AddressException(string.Create(CultureInfo.InvariantCulture, $"UNIX socket path '{path}' is too long\nPath must be less than 108 bytes"));
        address.Clear();
        MemoryMarshal.Write(address, (ushort)Unix);
        Encoding.UTF8.GetBytes(path, address[2..]);
        return (uint)(3 + n);
    }

    private static AddressInfo* Resolve(string host, string service, bool passive)
    {
        var hints = new AddressInfo { SocketType = StreamType, Flags = passive ? Passive : 0 };
        AddressInfo* list;
        int error = getaddrinfo(host.Length == 0 ? null : host, service, &hints, &list);
        if (error != 0)
            throw new AddressException($"address resolution failed for {host}:{service}: {Marshal.PtrToStringUTF8((nint)gai_strerror(error))}");
        return list;
    }
}
