namespace ImgKit.Block;

/// <summary>Option <c>preallocation</c>.</summary>
public static class PreallocationOption
{
    /// <summary>Null means off.</summary>
    /// <exception cref="ImageException">not a mode.</exception>
    public static Preallocation Parse(string? text, bool allowMetadata) => text switch
    {
        null or "off" => Preallocation.Off,
        "metadata" when allowMetadata => Preallocation.Metadata,
        "falloc" => Preallocation.Falloc,
        "full" => Preallocation.Full,
        "metadata" => throw new ImageException(ImageErrorKind.InvalidArgument, "Unsupported preallocation mode: metadata"),
        _ => throw new ImageException(ImageErrorKind.InvalidArgument, $"Parameter 'preallocation' does not accept value '{text}'"),
    };
}
