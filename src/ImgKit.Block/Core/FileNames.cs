namespace ImgKit.Block;

/// <summary>Rules for image file names.</summary>
public static class FileNames
{
    /// <summary>True for <c>nbd:...</c>, <c>https://...</c>: a colon before any slash.</summary>
    public static bool HasProtocol(string name) => ProtocolOf(name) is not null;

    /// <summary>The part before the colon, or null for a plain path.</summary>
    public static string? ProtocolOf(string name)
    {
        int colon = name.IndexOf(':', StringComparison.Ordinal);
        if (colon < 0)
            return null;
        int slash = name.IndexOf('/', StringComparison.Ordinal);
        return slash >= 0 && slash < colon ? null : name[..colon];
    }

    /// <summary>The path in a name with the prefix <c>file:</c>, such that nobody takes a part of it for a protocol; other names as they are.</summary>
    public static string WithoutFilePrefix(string name)
    {
        if (!name.StartsWith("file:", StringComparison.Ordinal))
            return name;
        string path = name["file:".Length..];
        return HasProtocol(path) ? "./" + path : path;
    }

    /// <summary>The name from whose folder an image's relative names start: the image's own, or, where that is composed (<c>json:</c>, a filter's
    /// prefix), the file's below the filters.</summary>
    /// <param name="fileName">the image's name.</param>
    /// <param name="storage">the device that holds its bytes.</param>
    public static string BaseOf(string fileName, BlockDevice? storage)
    {
        while (storage is { Storage: { } below })
            storage = below;
        bool composed = fileName.StartsWith("json:", StringComparison.Ordinal) || HasProtocol(fileName);
        return composed && storage is Protocols.File.FileDevice ? storage.FileName : fileName;
    }

    /// <summary>A name found in an image, made usable from here: relative ones are relative to the image's folder.</summary>
    /// <exception cref="ImageException">relative, and the image is not a plain file.</exception>
    public static string Resolve(string image, string name)
    {
        if (name.Length == 0 || HasProtocol(name) || name[0] == '/')
            return name;
        if (image.StartsWith("json:", StringComparison.Ordinal))
            throw new ImageException(ImageErrorKind.InvalidArgument, $"Cannot use relative backing file names for '{image}'", image);
        string? protocol = ProtocolOf(image);
        string path = image;
        if (protocol == "file")
            path = image["file:".Length..];
        int slash = path.LastIndexOf('/');
        if (protocol is not null && protocol != "file" && !path.Contains("://", StringComparison.Ordinal))
            throw new ImageException(ImageErrorKind.InvalidArgument, $"Cannot use relative backing file names for '{image}'", image);
        return slash < 0 ? name : path[..(slash + 1)] + name;
    }
}
