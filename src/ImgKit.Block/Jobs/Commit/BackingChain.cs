using ImgKit.Host;

namespace ImgKit.Block.Jobs.Commit;

/// <summary>Finding one's way in a chain of images.</summary>
public static class BackingChain
{
    /// <summary>The image below <paramref name="top"/> that has the given name, and the one right above it; null when there is none.</summary>
    /// <param name="top">where to start.</param>
    /// <param name="name">as a user names it: as it stands in an image, relative to an image, or in full.</param>
    public static (IBackedImage Above, BlockDevice Image)? Find(BlockDevice top, string name)
    {
        for (var layer = top; layer.Backing is { } below; layer = below)
        {
            if (layer is not IBackedImage image)
                continue;
            string? own = image.BackingFileName;
            if (name == below.FileName || (own is not null && IsSame(layer.FileName, own, name)))
                return (image, below);
        }
        return null;
    }

    private static bool IsSame(string image, string own, string name)
    {
        try
        {
            if (FileNames.HasProtocol(own) || FileNames.HasProtocol(name))
                return name == own || name == FileNames.Resolve(image, own);
            string a = FileNames.Resolve(image, own), b = FileNames.Resolve(image, name);
            return a == b || Identity(a) == Identity(b);
        }
        catch (Exception e) when (e is ImageException or IOException)
        {
            return false;
        }
    }

    private static (ulong, ulong) Identity(string path)
    {
        using var file = HostFile.Open(path, HostFileMode.Read);
        return file.GetIdentity();
    }
}
