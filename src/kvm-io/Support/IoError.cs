using System.Runtime.InteropServices;
using ImgKit.Block;

namespace ImgKit.Programs.Io;

/// <summary>Errors of requests, as the system's words for an error number.</summary>
internal static class IoError
{
    /// <summary>Whether an exception is a request's failure, and not a defect of this program.</summary>
    public static bool IsRequestError(Exception e) => e is ImageException or IOException or NotSupportedException or OutOfMemoryException;

    /// <summary>The text for an exception.</summary>
    public static string Text(Exception e) => Text(ErrorNumbers.Of(e));

    /// <summary>The text for an error number.</summary>
    public static string Text(int number) => Marshal.GetPInvokeErrorMessage(number);
}
