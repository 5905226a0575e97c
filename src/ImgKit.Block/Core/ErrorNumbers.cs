using ImgKit.Host;

namespace ImgKit.Block;

/// <summary>The error numbers (Linux's errno) that exceptions stand for, where a protocol or a message needs one.</summary>
public static class ErrorNumbers
{
    private const int NotPermitted = 1;
    private const int NotFound = 2;
    private const int IoFailed = 5;
    private const int NoMemory = 12;
    private const int InvalidArgument = 22;
    private const int NotSupported = 95;

    /// <summary>The number for an exception that a device threw; EIO where nothing better is known.</summary>
    public static int Of(Exception e) => e switch
    {
        ImageException { Errno: > 0 } i => i.Errno,
        ImageException { Kind: ImageErrorKind.Unsupported } => NotSupported,
        ImageException { Kind: ImageErrorKind.InvalidFormat or ImageErrorKind.InvalidArgument } => InvalidArgument,
        ImageException { Kind: ImageErrorKind.ReadOnly or ImageErrorKind.Denied } => NotPermitted,
        ImageException { Kind: ImageErrorKind.NotFound } => NotFound,
        HostException h => h.Errno,
        NotSupportedException => NotSupported,
        OutOfMemoryException => NoMemory,
        _ => IoFailed,
    };
}
