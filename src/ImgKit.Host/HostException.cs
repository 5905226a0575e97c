using System.Runtime.InteropServices;

namespace ImgKit.Host;

/// <summary>A system call failed. The message is the system's text for <see cref="Errno"/> (for example
/// <c>No space left on device</c>), so that callers can put it behind what they were doing.</summary>
public sealed class HostException(int errno) : IOException(Marshal.GetPInvokeErrorMessage(errno))
{
    /// <summary>The error number.</summary>
    public int Errno { get; } = errno;

    /// <summary>The system's own words for an error that the runtime words differently.</summary>
    public static string TextOf(Exception e) => e switch
    {
        HostException => e.Message,
        FileNotFoundException or DirectoryNotFoundException => Marshal.GetPInvokeErrorMessage(2),
        UnauthorizedAccessException => Marshal.GetPInvokeErrorMessage(13),
        System.Net.Sockets.SocketException s => Marshal.GetPInvokeErrorMessage(s.NativeErrorCode),
        // The runtime keeps errno here.
        IOException { HResult: > 0 and < 134 } => Marshal.GetPInvokeErrorMessage(e.HResult),
        _ => e.Message,
    };

    /// <summary>Throws with the last call's error number.</summary>
    [System.Diagnostics.CodeAnalysis.DoesNotReturn]
    public static void ThrowLast() => throw new HostException(Marshal.GetLastPInvokeError());
}
