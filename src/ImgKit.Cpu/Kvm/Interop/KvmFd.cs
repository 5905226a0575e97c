using System.Runtime.InteropServices;

namespace ImgKit.Cpu.Kvm.Interop;

/// <summary>A file descriptor of KVM (system, VM or vCPU) and the ways to ask it something.</summary>
internal sealed unsafe class KvmFd : IDisposable
{
    private int _fd;

    public KvmFd(int fd) => _fd = fd;

    public int Value => _fd;

    /// <summary>Opens /dev/kvm; null with errno when that fails.</summary>
    public static KvmFd? Open(out int errno)
    {
        const int O_RDWR = 2, O_CLOEXEC = 0x80000;
        int fd = LibC.open("/dev/kvm", O_RDWR | O_CLOEXEC, 0);
        errno = fd < 0 ? Marshal.GetLastPInvokeError() : 0;
        return fd < 0 ? null : new KvmFd(fd);
    }

    /// <summary>An ioctl whose failure is an error; returns its result.</summary>
    public int Call(uint request, void* argument, string what)
    {
        int r = LibC.ioctl(_fd, request, argument);
        if (r < 0)
            throw Failed(what);
        return r;
    }

    /// <inheritdoc cref="Call(uint, void*, string)"/>
    public int Call(uint request, nuint argument, string what)
    {
        int r = LibC.ioctl(_fd, request, argument);
        if (r < 0)
            throw Failed(what);
        return r;
    }

    /// <summary>An ioctl whose failure the caller judges: the result, or minus errno.</summary>
    public int Try(uint request, void* argument)
    {
        int r = LibC.ioctl(_fd, request, argument);
        return r < 0 ? -Marshal.GetLastPInvokeError() : r;
    }

    /// <inheritdoc cref="Try(uint, void*)"/>
    public int Try(uint request, nuint argument)
    {
        int r = LibC.ioctl(_fd, request, argument);
        return r < 0 ? -Marshal.GetLastPInvokeError() : r;
    }

    /// <summary>KVM_CHECK_EXTENSION: 0 for what is not there.</summary>
    public int Extension(uint capability) => Math.Max(0, Try(KvmApi.KVM_CHECK_EXTENSION, (nuint)capability));

    private static KvmException Failed(string what)
    {
        int errno = Marshal.GetLastPInvokeError();
        return new KvmException($"KVM: {what}: {LibC.ErrorText(errno)}", errno);
    }

    public void Dispose()
    {
        int fd = Interlocked.Exchange(ref _fd, -1);
        if (fd >= 0)
            _ = LibC.close(fd);
    }
}
