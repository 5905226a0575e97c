namespace ImgKit.Block.Protocols.Nbd;

/// <summary>Network block devices: <c>nbd://host:port/export</c>, <c>nbd+unix:///export?socket=path</c>, <c>nbds://</c> (TLS),
/// <c>nbd:host:port:exportname=name</c>, <c>nbd:unix:path</c>.</summary>
public static class NbdProtocol
{
    /// <summary>The declaration.</summary>
    public static BlockDriver Driver { get; } = new()
    {
        Name = "nbd",
        Kind = DriverKind.Protocol,
        Description = "An export of a network block device server",
        FileNamePrefixes = ["nbd:", "nbd+tcp:", "nbd+unix:", "nbds:", "nbds+tcp:", "nbds+unix:"],
        ParseFileName = NbdAddress.ParseFileName,
        Open = Open,
        OpenOptions =
        [
            new("host", OptionType.String, "TCP host to connect to"),
            new("port", OptionType.String, "TCP port to connect to", "10809"),
            new("path", OptionType.String, "Unix socket path to connect to"),
            new("server", OptionType.String, "server.type (inet or unix), and server.host, server.port or server.path"),
            new("export", OptionType.String, "Name of the NBD export to open", ""),
            new("tls-creds", OptionType.String, "ID of the TLS credentials to use"),
            new("tls-hostname", OptionType.String, "Override hostname for validating TLS x509 certificate"),
            new("tls-certificates", OptionType.String, "folder with ca-cert.pem, client-cert.pem and client-key.pem"),
            new("tls", OptionType.Bool, "use TLS, trusting what the system trusts where no credentials are given"),
            new("x-dirty-bitmap", OptionType.String, "expose the named context in place of block status"),
            new("reconnect-delay", OptionType.Number, "seconds that requests wait for a lost connection to come back", "0"),
            new("open-timeout", OptionType.Number, "seconds that opening keeps trying to connect", "0"),
        ],
        Create = Create,
    };

    private static NbdDevice Open(OpenContext context)
    {
        var o = context.Options;
        _ = o.TakeString("filename");
        var address = NbdAddress.Take(o);
        string? credentials = o.TakeString("tls-creds"), folder = o.TakeString("tls-certificates"), host = o.TakeString("tls-hostname");
        bool wanted = o.TakeBool("tls") ?? false;
        NbdTls? tls = credentials is not null ? NbdTls.FromObject(context.Opener.Objects, credentials, server: false)
            : folder is not null ? NbdTls.FromFolder(folder, server: false)
            : wanted ? NbdTls.SystemClient()
            : null;
        if (host is not null && tls is null)
            throw new ImageException(ImageErrorKind.InvalidArgument, "tls-hostname given without TLS credentials");
        string export = o.TakeString("export") ?? "";
        if (System.Text.Encoding.UTF8.GetByteCount(export) > NbdWire.MaxString)
            throw new ImageException(ImageErrorKind.InvalidArgument, "export name too long to send to server");
        string? bitmap = o.TakeString("x-dirty-bitmap");
        if (bitmap is { Length: > NbdWire.MaxString })
            throw new ImageException(ImageErrorKind.InvalidArgument, "x-dirty-bitmap query too long to send to server");
        try
        {
            return new NbdDevice(new NbdClientSettings
            {
                Address = address,
                Export = export,
                Tls = tls,
                TlsHost = host ?? (address.Path is null ? address.Host : ""),
                AllocationContext = bitmap ?? NbdWire.BaseAllocation,
                ReconnectDelay = TimeSpan.FromSeconds(o.TakeNumber("reconnect-delay") ?? 0),
                OpenTimeout = TimeSpan.FromSeconds(o.TakeNumber("open-timeout") ?? 0),
            }, context.Settings);
        }
        catch (IOException e)
        {
            throw new ImageException(ImageErrorKind.Io, e.Message, context.FileName, inner: e) { Errno = 5 };
        }
    }

    /// <summary>An export is there already; it only must be large enough.</summary>
    private static void Create(CreateContext context)
    {
        var o = context.Options.Clone();
        _ = context.Options.TakeString("size");
        _ = o.TakeString("size");
        if (!o.ContainsChild("server"))
            NbdAddress.ParseFileName(context.FileName, o);
        using var device = Open(new OpenContext { Options = o, Settings = new OpenSettings(), Opener = context.Opener, FileName = context.FileName });
        if (device.Length < context.Size)
            throw new ImageException(ImageErrorKind.InvalidArgument,
                "The image file driver does not support growing, but the requested size is larger than the existing image: Cannot grow NBD nodes",
                context.FileName);
        // What looked like an image before must not be found by probing afterwards.
        device.Write(0, ZeroBuffer.Span((int)Math.Min(512, device.Length)));
    }
}
