using System.Runtime.InteropServices;

namespace ImgKit.Cpu.Kvm.Interop;

/// <summary>What KVM needs of the C library beyond Tmds.LibC: ioctl with a pointer, thread-directed signals.</summary>
internal static unsafe partial class LibC
{
    public const int EPERM = 1;
    public const int EINTR = 4;
    public const int EAGAIN = 11;
    public const int ENOENT = 2;
    public const int EACCES = 13;
    public const int ENODEV = 19;

    [LibraryImport("libc.so.6", SetLastError = true)]
    public static partial int ioctl(int fd, nuint request, void* argument);

    [LibraryImport("libc.so.6", EntryPoint = "ioctl", SetLastError = true)]
    public static partial int ioctl(int fd, nuint request, nuint argument);

    [LibraryImport("libc.so.6", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    public static partial int open(string path, int flags, int mode);

    [LibraryImport("libc.so.6")]
    public static partial int close(int fd);

    [LibraryImport("libc.so.6", SetLastError = true)]
    public static partial void* mmap(void* address, nuint length, int protection, int flags, int fd, nint offset);

    [LibraryImport("libc.so.6")]
    public static partial int munmap(void* address, nuint length);

    [LibraryImport("libc.so.6")]
    public static partial int gettid();

    [LibraryImport("libc.so.6")]
    public static partial int getpid();

    [LibraryImport("libc.so.6")]
    public static partial int tgkill(int process, int thread, int signal);

    [LibraryImport("libc.so.6", SetLastError = true)]
    public static partial int sigaction(int signal, void* action, void* old);

    [LibraryImport("libc.so.6")]
    public static partial nint strerror(int error);

    /// <summary>errno of the last call, and its text.</summary>
    public static string LastErrorText() => ErrorText(Marshal.GetLastPInvokeError());

    /// <summary>The C library's text for an errno.</summary>
    public static string ErrorText(int errno) => Marshal.PtrToStringUTF8(strerror(errno)) ?? $"error {errno}";
}
