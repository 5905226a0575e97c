namespace ImgKit.Guests;

/// <summary>An image of the Debian disk that a machine writes to, and the files below it that must not change.</summary>
/// <param name="Path">the image.</param>
/// <param name="Format">its format.</param>
/// <param name="Bases">the files below.</param>
internal sealed record DebianDisk(string Path, string Format, string[] Bases)
{
    private static readonly string Raw = Tool.Run(System.IO.Path.Combine(Repository.Root, "scripts/guest-debian")).Trim();

    /// <summary>Takes the raw disk to an image of a kind, by kvm-img.</summary>
    internal static DebianDisk Make(string kind, string folder)
    {
        string File(string name) => System.IO.Path.Combine(folder, name);
        string Convert(string format, string name, params string[] options)
        {
            Tool.Run("kvm-img", ["convert", "-f", "raw", "-O", format, .. options, Raw, File(name)]);
            return File(name);
        }
        string Overlay(string name, string backing, string format)
        {
            Tool.Run("kvm-img", "create", "-q", "-f", "qcow2", "-b", backing, "-F", format, File(name));
            return File(name);
        }
        switch (kind)
        {
            case "qcow2":
                return new(Convert("qcow2", "disk.qcow2"), "qcow2", []);
            case "vmdk":
                return new(Convert("vmdk", "disk.vmdk"), "vmdk", []);
            case "stream":
            {
                string stream = Convert("vmdk", "stream.vmdk", "-o", "subformat=streamOptimized");
                return new(Overlay("overlay.qcow2", stream, "vmdk"), "qcow2", [stream]);
            }
            case "cloop":
            {
                string cloop = Convert("cloop", "disk.cloop");
                return new(Overlay("overlay.qcow2", cloop, "cloop"), "qcow2", [cloop]);
            }
            case "chain":
            {
                string vmdk = Convert("vmdk", "base.vmdk");
                string middle = Overlay("middle.qcow2", vmdk, "vmdk");
                return new(Overlay("top.qcow2", middle, "qcow2"), "qcow2", [vmdk, middle]);
            }
            default:
                throw new ArgumentOutOfRangeException(nameof(kind));
        }
    }
}
