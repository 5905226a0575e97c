using System.Runtime.InteropServices;

namespace ImgKit.Host;

/// <summary>A system call failed. The message is the system's text for <see cref="Errno"/> (for example
/// <c>No space left on device</c>), so that callers can put it behind what they were doing.</summary>
public sealed class HostException(int errno) : IOException(Marshal.GetPInvokeErrorMessage(errno))
{
    /// <summary>The error number.</summary>
    public int Errno { get; } = errno;

    /// <summary>Throws with the last call's error number.</summary>
    [System.Diagnostics.CodeAnalysis.DoesNotReturn]
    public static void ThrowLast() => throw new HostException(Marshal.GetLastPInvokeError());
}
