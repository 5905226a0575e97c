using System.Runtime.InteropServices;

namespace ImgKit.Host;

/// <summary>The C library's socket calls.</summary>
internal static unsafe partial class NativeSocketCalls
{
    internal const int Unix = 1;
    internal const int StreamType = 1;
    internal const int CloseOnExec = 0x80000;
    internal const int NoSignal = 0x4000;
    internal const int DontWait = 0x40;
    internal const int SocketLevel = 1;
    internal const int ReuseAddress = 2;
    internal const int KeepAlive = 9;
    internal const int ReceiveTimeout = 20;
    internal const int SendTimeout = 21;
    internal const int TcpLevel = 6;
    internal const int TcpNoDelay = 1;
    internal const int Passive = 1;

    [StructLayout(LayoutKind.Sequential)]
    internal struct MessageHeader
    {
        public void* Name;
        public uint NameLength;
        public NativeCalls.IoVec* Vectors;
        public nuint VectorCount;
        public void* Control;
        public nuint ControlLength;
        public int Flags;
    }

    [StructLayout(LayoutKind.Sequential)]
    internal struct AddressInfo
    {
        public int Flags;
        public int Family;
        public int SocketType;
        public int Protocol;
        public uint AddressLength;
        public void* Address;
        public byte* CanonicalName;
        public AddressInfo* Next;
    }

    [StructLayout(LayoutKind.Sequential)]
    internal struct TimeValue
    {
        public long Seconds;
        public long Microseconds;
    }

    [StructLayout(LayoutKind.Sequential)]
    internal struct PollDescriptor
    {
        public int Descriptor;
        public short Events;
        public short Returned;
    }

    [LibraryImport("libc.so.6", SetLastError = true)]
    internal static partial int socket(int family, int type, int protocol);

    [LibraryImport("libc.so.6", SetLastError = true)]
    internal static partial int connect(int fd, void* address, uint length);

    [LibraryImport("libc.so.6", SetLastError = true)]
    internal static partial int bind(int fd, void* address, uint length);

    [LibraryImport("libc.so.6", SetLastError = true)]
    internal static partial int listen(int fd, int backlog);

    [LibraryImport("libc.so.6", SetLastError = true)]
    internal static partial int accept4(int fd, void* address, uint* length, int flags);

    [LibraryImport("libc.so.6", SetLastError = true)]
    internal static partial nint recv(int fd, void* buffer, nuint length, int flags);

    [LibraryImport("libc.so.6", SetLastError = true)]
    internal static partial nint sendmsg(int fd, MessageHeader* message, int flags);

    [LibraryImport("libc.so.6", SetLastError = true)]
    internal static partial int shutdown(int fd, int how);

    [LibraryImport("libc.so.6", SetLastError = true)]
    internal static partial int close(int fd);

    [LibraryImport("libc.so.6", SetLastError = true)]
    internal static partial int setsockopt(int fd, int level, int name, void* value, uint length);

    [LibraryImport("libc.so.6", SetLastError = true)]
    internal static partial int getsockname(int fd, void* address, uint* length);

    [LibraryImport("libc.so.6", SetLastError = true)]
    internal static partial int poll(PollDescriptor* descriptors, nuint count, int milliseconds);

    [LibraryImport("libc.so.6", SetLastError = true)]
    internal static partial int socketpair(int family, int type, int protocol, int* descriptors);

    [LibraryImport("libc.so.6", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    internal static partial int getaddrinfo(string? node, string? service, AddressInfo* hints, AddressInfo** result);

    [LibraryImport("libc.so.6")]
    internal static partial void freeaddrinfo(AddressInfo* list);

    [LibraryImport("libc.so.6")]
    internal static partial byte* gai_strerror(int error);
}
