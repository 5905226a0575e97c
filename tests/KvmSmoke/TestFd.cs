using System.Runtime.InteropServices;

namespace ImgKit.KvmSmoke;

/// <summary>An eventfd, non-blocking.</summary>
internal static unsafe partial class TestFd
{
    [LibraryImport("libc")]
    private static partial int eventfd(uint initial, int flags);

    [LibraryImport("libc")]
    private static partial nint read(int fd, void* buffer, nuint count);

    [LibraryImport("libc")]
    private static partial nint write(int fd, void* buffer, nuint count);

    [LibraryImport("libc")]
    private static partial int close(int fd);

    public static int Create() => eventfd(0, 0x800);

    public static void Signal(int fd)
    {
        ulong one = 1;
        Check.True(write(fd, &one, 8) == 8, "eventfd write");
    }

    public static ulong Take(int fd)
    {
        ulong value;
        return read(fd, &value, 8) == 8 ? value : 0;
    }

    public static void Close(int fd) => close(fd);
}
