using System.Runtime.InteropServices;

namespace ImgKit.Block.Formats.Qcow2;

/// <summary>The system's words for error numbers.</summary>
internal static class HostErrors
{
    public static string Text(int errno) => Marshal.GetPInvokeErrorMessage(errno);

    /// <summary>The error number that an exception stands for; EIO where it tells none.</summary>
    public static int NumberOf(Exception e) => e switch
    {
        ImageException { Errno: not 0 } i => i.Errno,
        Host.HostException h => h.Errno,
        _ => 5,
    };
}
