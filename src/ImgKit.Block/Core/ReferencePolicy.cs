namespace ImgKit.Block;

/// <summary>Why an image names a file.</summary>
public enum ReferenceKind
{
    /// <summary>A backing file or parent.</summary>
    Backing,

    /// <summary>An external data file.</summary>
    DataFile,

    /// <summary>An extent of a descriptor.</summary>
    Extent,
}

/// <summary>A file that an image names.</summary>
/// <param name="Kind">why.</param>
/// <param name="Image">the image that names it.</param>
/// <param name="Name">the name, resolved against the image's folder.</param>
/// <param name="Format">the format that the image says it has, or null (it would be probed).</param>
public sealed record ImageReference(ReferenceKind Kind, string Image, string Name, string? Format);

/// <summary>Decides on every file that an image (and not the user) names. One gate, used by <see cref="ImageOpener"/> alone.</summary>
public abstract class ReferencePolicy
{
    /// <summary>Everything, as the peer does.</summary>
    public static ReferencePolicy AllowAll { get; } = new AllowAllPolicy();

    /// <summary>Nothing.</summary>
    public static ReferencePolicy DenyAll { get; } = new DenyAllPolicy();

    /// <summary>Plain files below the folder of the image that names them, links resolved.</summary>
    public static ReferencePolicy SameFolder { get; } = new SameFolderPolicy();

    /// <summary>Null when the file may be opened, else a phrase that says why not.</summary>
    public abstract string? Refuse(ImageReference reference);

    private sealed class AllowAllPolicy : ReferencePolicy
    {
        public override string? Refuse(ImageReference reference) => null;
    }

    private sealed class DenyAllPolicy : ReferencePolicy
    {
        public override string? Refuse(ImageReference reference) => "no image may name other files";
    }

    private sealed class SameFolderPolicy : ReferencePolicy
    {
        public override string? Refuse(ImageReference reference)
        {
            if (FileNames.HasProtocol(reference.Name))
                return "only plain files in the image's own folder are allowed";
            string folder = Real(Path.GetDirectoryName(Path.GetFullPath(reference.Image)) ?? "/");
            string target = Real(Path.GetFullPath(reference.Name));
            return target.StartsWith(folder.TrimEnd('/') + "/", StringComparison.Ordinal) ? null : "it is outside the image's own folder";
        }

        private static string Real(string path)
        {
            // Every component, for a link may stand anywhere in the path.
            string real = "/";
            foreach (string part in path.Split('/', StringSplitOptions.RemoveEmptyEntries))
            {
                real = Path.Combine(real, part);
                if (new FileInfo(real).LinkTarget is not null)
                    real = File.ResolveLinkTarget(real, true)?.FullName is { } t ? Real(t) : real;
            }
            return real;
        }
    }
}
