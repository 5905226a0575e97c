using System.Runtime.InteropServices;

namespace ImgKit.Host;

/// <summary>The calls of the C library that Tmds.LibC does not declare.</summary>
internal static unsafe partial class NativeCalls
{
    [StructLayout(LayoutKind.Sequential)]
    internal struct IoVec
    {
        public void* Base;
        public nuint Length;
    }

    [LibraryImport("libc.so.6")]
    internal static partial int gettid();

    [LibraryImport("libc.so.6", SetLastError = true)]
    internal static partial nint preadv(int fd, IoVec* vectors, int count, long offset);

    [LibraryImport("libc.so.6", SetLastError = true)]
    internal static partial nint pwritev(int fd, IoVec* vectors, int count, long offset);

    [LibraryImport("libc.so.6", SetLastError = true)]
    internal static partial nint copy_file_range(int fdIn, long* offsetIn, int fdOut, long* offsetOut, nuint length, uint flags);

    [LibraryImport("libc.so.6", SetLastError = true)]
    internal static partial int ioctl(int fd, nuint request, void* argument);

    [LibraryImport("libc.so.6", SetLastError = true)]
    internal static partial int fstatfs(int fd, long* result);

    [LibraryImport("libc.so.6", SetLastError = true)]
    internal static partial int getrusage(int who, long* usage);

    [LibraryImport("libc.so.6", SetLastError = true)]
    internal static partial int flock(int fd, int operation);
}
