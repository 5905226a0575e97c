namespace ImgKit.Block;

/// <summary>What kind of thing is wrong; programs decide on it, people read the message.</summary>
public enum ImageErrorKind
{
    /// <summary>The bytes do not follow the format.</summary>
    InvalidFormat,

    /// <summary>Right, but nothing here can do it.</summary>
    Unsupported,

    /// <summary>Metadata contradicts itself.</summary>
    Corrupt,

    /// <summary>A request lies outside the device.</summary>
    OutOfBounds,

    /// <summary>An option or a name makes no sense.</summary>
    InvalidArgument,

    /// <summary>Something named does not exist.</summary>
    NotFound,

    /// <summary>Another process uses the image.</summary>
    Locked,

    /// <summary>The opener's policy forbids it.</summary>
    Denied,

    /// <summary>The device is read-only.</summary>
    ReadOnly,

    /// <summary>The host refused.</summary>
    Io,
}

/// <summary>The block layer's error. <see cref="Exception.Message"/> is one line that a user can act on, without the
/// program's name in front and without a full stop.</summary>
public class ImageException : Exception
{
    /// <summary>Makes one.</summary>
    /// <param name="kind">what a program decides on.</param>
    /// <param name="message">one line.</param>
    /// <param name="file">the image, where known.</param>
    /// <param name="offset">byte offset in <paramref name="file"/> of what is wrong, or -1.</param>
    /// <param name="inner">the cause.</param>
    public ImageException(ImageErrorKind kind, string message, string? file = null, long offset = -1, Exception? inner = null)
        : base(message, inner)
    {
        Kind = kind;
        File = file;
        Offset = offset;
    }

    /// <summary>What a program decides on.</summary>
    public ImageErrorKind Kind { get; }

    /// <summary>The image, where known.</summary>
    public string? File { get; }

    /// <summary>Byte offset of what is wrong, or -1.</summary>
    public long Offset { get; }

    /// <summary>The errno that the peer would report, for formats of message that show one (0: none).</summary>
    public int Errno { get; init; }

    /// <summary>The option that nobody knew, as it stands in the user's own; null: something else is wrong.</summary>
    public string? UnknownOption { get; init; }

    /// <summary>What was being done, for the details that one-line messages leave out; may be empty.</summary>
    public string Operation { get; init; } = "";
}
