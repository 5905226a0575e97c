namespace ImgKit.Cpu.Kvm;

/// <summary>/dev/kvm refused something, or lacks what is needed. The message is one line for the user.</summary>
public sealed class KvmException : Exception
{
    /// <summary>Makes one.</summary>
    /// <param name="message">one line, without a full stop.</param>
    /// <param name="errno">error number of the kernel, or 0.</param>
    public KvmException(string message, int errno = 0)
        : base(message) => Errno = errno;

    /// <summary>errno, or 0 where the kernel had no say.</summary>
    public int Errno { get; }
}
