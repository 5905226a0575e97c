namespace ImgKit.Machine;

/// <summary>What the program says that it is.</summary>
public static class ProductVersion
{
    /// <summary>Its own version.</summary>
    public static string Own => typeof(ProductVersion).Assembly.GetName().Version!.ToString(3);

    /// <summary>The version of QEMU whose options and monitors it speaks.</summary>
    public const string Peer = "7.2.22";
}
