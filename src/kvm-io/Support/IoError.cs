using System.Runtime.InteropServices;
using ImgKit.Block;
using ImgKit.Host;

namespace ImgKit.Programs.Io;

/// <summary>Errors of requests, as the system's words for an error number.</summary>
internal static class IoError
{
    public const int InvalidArgument = 22;
    private const int IoFailed = 5;
    private const int NoMemory = 12;
    private const int NotSupported = 95;

    /// <summary>Whether an exception is a request's failure, and not a defect of this program.</summary>
    public static bool IsRequestError(Exception e) => e is ImageException or IOException or NotSupportedException or OutOfMemoryException;

    /// <summary>The error number that stands for an exception.</summary>
    public static int Number(Exception e) => e switch
    {
        ImageException { Errno: > 0 } i => i.Errno,
        ImageException { Kind: ImageErrorKind.Unsupported } => NotSupported,
        ImageException { Kind: ImageErrorKind.InvalidFormat or ImageErrorKind.InvalidArgument } => InvalidArgument,
        ImageException { Kind: ImageErrorKind.ReadOnly or ImageErrorKind.Denied } => 1,
        ImageException { Kind: ImageErrorKind.NotFound } => 2,
        HostException h => h.Errno,
        NotSupportedException => NotSupported,
        OutOfMemoryException => NoMemory,
        _ => IoFailed,
    };

    /// <summary>The text for an exception.</summary>
    public static string Text(Exception e) => Text(Number(e));

    /// <summary>The text for an error number.</summary>
    public static string Text(int number) => Marshal.GetPInvokeErrorMessage(number);
}
