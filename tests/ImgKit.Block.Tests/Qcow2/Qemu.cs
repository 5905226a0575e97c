namespace ImgKit.Block.Tests.Qcow2;

/// <summary>The peer as judge of images.</summary>
internal static class Qemu
{
    public static (int Code, string Output) TryRun(string program, params string[] arguments) => Peer.TryRun(program, arguments);

    public static string Img(params string[] arguments) => Peer.Run("qemu-img", arguments);

    public static string Io(params string[] arguments) => Peer.Run("qemu-io", arguments);

    /// <summary>The peer finds nothing to complain of.</summary>
    public static void CheckClean(string image) => Img("check", "-q", image);

    /// <summary>The image's content as the peer reads it.</summary>
    public static byte[] Content(string image, params string[] more)
    {
        string raw = image + ".raw";
        Img(["convert", .. more, "-O", "raw", image, raw]);
        byte[] content = File.ReadAllBytes(raw);
        File.Delete(raw);
        return content;
    }
}
