using System.Globalization;
using System.Net;
using System.Net.Sockets;

namespace ImgKit.Machine.CharDevices;

/// <summary>Addresses of sockets as users write them.</summary>
internal static class SocketAddress
{
    // sockaddr_un (unix(7)), less its final zero.
    private const int LongestPath = 107;

    /// <summary>Parses a path, or <c>HOST:PORT</c> (no host: every address). Throws <see cref="MachineException"/>.</summary>
    internal static EndPoint Parse(bool unix, string text)
    {
        if (unix)
        {
            if (text.Length is 0 or > LongestPath)
                throw new MachineException($"UNIX socket path '{text}' is too {(text.Length == 0 ? "short" : "long")}");
            return new UnixDomainSocketEndPoint(text);
        }
        int colon = text.LastIndexOf(':');
        string host = colon < 0 ? "" : text[..colon].Trim('[', ']');
        if (!ushort.TryParse(text.AsSpan(colon + 1), NumberStyles.None, CultureInfo.InvariantCulture, out ushort port))
            throw new MachineException($"'{text}' is not an address with a port");
        if (host.Length == 0)
            return new IPEndPoint(IPAddress.Any, port);
        if (!IPAddress.TryParse(host, out var ip))
        {
            try
            {
                ip = Dns.GetHostAddresses(host, AddressFamily.InterNetwork).FirstOrDefault();
            }
            catch (SocketException e)
            {
                throw new MachineException($"address resolution failed for {text}: {e.Message}", e);
            }
        }
        return new IPEndPoint(ip ?? throw new MachineException($"address resolution failed for {text}"), port);
    }
}
