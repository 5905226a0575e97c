using System.Globalization;
using ImgKit.Host;

namespace ImgKit.Block.Protocols.Ssh;

/// <summary>
/// Files of a host that is reached by SSH: not offered. The name is known so that options are checked and a host that cannot be
/// reached is reported as such, and so that the refusal says what to do instead.
/// </summary>
public static class SshProtocol
{
    /// <summary>The declaration.</summary>
    public static BlockDriver Driver { get; } = new()
    {
        Name = "ssh",
        Kind = DriverKind.Protocol,
        Description = "Files by SSH (not offered: mount them with sshfs)",
        FileNamePrefixes = ["ssh:"],
        Open = Open,
        OpenOptions =
        [
            new("host", OptionType.String, "Host to connect to"),
            new("port", OptionType.Number, "Port to connect to", "22"),
            new("path", OptionType.String, "Path of the image on the host"),
            new("user", OptionType.String, "User as which to connect"),
        ],
    };

    private static BlockDevice Open(OpenContext context)
    {
        var o = context.Options;
        string host = o.TakeString("host") ?? o.TakeString("server.host") ?? throw Invalid("Parameter 'server.host' is missing");
        string port = o.TakeString("port") ?? o.TakeString("server.port") ?? "22";
        if (!int.TryParse(port, NumberStyles.None, CultureInfo.InvariantCulture, out _))
            throw Invalid("Parameter 'port' expects a number");
        try
        {
            HostSocket.ConnectTcp(host, port).Dispose();
        }
        catch (HostException e)
        {
            throw new ImageException(ImageErrorKind.Io, $"Failed to connect to '{host}:{port}': {e.Message}", inner: e) { Errno = e.Errno };
        }
        catch (AddressException e)
        {
            throw new ImageException(ImageErrorKind.NotFound, e.Message, inner: e) { Errno = 5 };
        }
        throw new ImageException(ImageErrorKind.Unsupported, "images cannot be read by SSH here; mount the folder with sshfs, or serve the image by NBD");
    }

    private static ImageException Invalid(string message) => new(ImageErrorKind.InvalidArgument, message);
}
