using ImgKit.CommandLine;

namespace ImgKit.Programs.Nbd;

/// <summary>The program's options and texts.</summary>
internal static class NbdProgram
{
    public const int CacheOption = 1000;
    public const int AioOption = 1001;
    public const int DiscardOption = 1002;
    public const int DetectZeroesOption = 1003;
    public const int ObjectOption = 1004;
    public const int TlsCredentialsOption = 1005;
    public const int ImageOptsOption = 1006;
    public const int ForkOption = 1007;
    public const int TlsAuthorizationOption = 1008;
    public const int PidFileOption = 1009;
    public const int SecurityLabelOption = 1010;
    public const int GenerateOption = 1011;

    public const int TlsHostNameOption = 1012;

    private const string Version = "0.1.0";

    /// <summary>All options.</summary>
    public static IReadOnlyList<OptionSpec> Options { get; } =
    [
        new('h', "help", null, "display this help and exit"),
        new('V', "version", null, "output version information and exit"),
        GeneratedText.Option(GenerateOption),
        new('p', "port", "PORT", "port to listen on (default 10809)"),
        new('b', "bind", "IFACE", "interface to bind to (default 0.0.0.0)"),
        new('k', "socket", "PATH", "path to the unix socket (default /var/lock/qemu-nbd-DEVICE)") { IsFile = true },
        new('e', "shared", "NUM", "device can be shared by NUM clients (default 1; 0: any number)"),
        new('t', "persistent", null, "don't exit on the last connection"),
        new('v', "verbose", null, "say why clients are dropped"),
        new('x', "export-name", "NAME", "expose export by name (default is empty string)"),
        new('D', "description", "TEXT", "export a human-readable description"),
        new('o', "offset", "OFFSET", "offset into the image"),
        new('A', "allocation-depth", null, "expose the allocation depth"),
        new('B', "bitmap", "NAME", "expose a persistent dirty bitmap"),
        new('L', "list", null, "list exports available from another NBD server"),
        new(ObjectOption, "object", "type,id=ID,...", "define an object such as TLS credentials"),
        new(TlsCredentialsOption, "tls-creds", "ID", "use id of an earlier --object to provide TLS"),
        new(TlsHostNameOption, "tls-hostname", "HOSTNAME", "override hostname used to check x509 certificate (with --list)"),
        new(TlsAuthorizationOption, "tls-authz", "ID", "use id of an earlier --object to provide authorization"),
        new('T', "trace", "PATTERN", "specify tracing options (not offered)"),
        new(ForkOption, "fork", null, "fork off the server process and exit the parent once the server is running"),
        new(PidFileOption, "pid-file", "PATH", "store the server's process ID in the given file") { IsFile = true },
        new(SecurityLabelOption, "selinux-label", "LABEL", "set SELinux process label on listening socket (not offered)"),
        new('c', "connect", "DEV", "connect FILE to the local NBD device DEV") { IsFile = true },
        new('d', "disconnect", null, "disconnect the specified device"),
        new('f', "format", "FORMAT", "set image format (raw, qcow2, ...)"),
        new('r', "read-only", null, "export read-only"),
        new('s', "snapshot", null, "use FILE as an external snapshot: changes go to a temporary file"),
        new('l', "load-snapshot", "SNAPSHOT_PARAM",
            "load an internal snapshot inside FILE and export it as a read-only device; SNAPSHOT_PARAM is "
            + "'snapshot.id=[ID],snapshot.name=[NAME]', or '[ID_OR_NAME]'"),
        new('n', "nocache", null, "disable host cache"),
        new(CacheOption, "cache", "MODE", "set cache mode used to access the disk image")
        {
            Choices = ["none", "writeback", "writethrough", "directsync", "unsafe"],
        },
        new(AioOption, "aio", "MODE", "set AIO mode") { Choices = ["native", "io_uring", "threads"] },
        new(DiscardOption, "discard", "MODE", "set discard mode") { Choices = ["ignore", "unmap"] },
        new(DetectZeroesOption, "detect-zeroes", "MODE", "set detect-zeroes mode") { Choices = ["off", "on", "unmap"] },
        new(ImageOptsOption, "image-opts", null, "treat FILE as a full set of image options"),
        new('P', "partition", "NUM", "no longer offered: use the raw format's offset and size options") { Hidden = true },
    ];

    /// <summary>Declared for help, manual and completion.</summary>
    public static ProgramSpec Specification => new()
    {
        Name = "kvm-nbd",
        Summary = "Network block device server",
        Version = Version,
        Description = "Exports a disk image by the NBD protocol, shows what another server exports (-L), or connects an image to a device "
            + "of the kernel (-c).",
        Options = Options,
        Operands = "FILE",
    };

    /// <summary><c>--help</c>.</summary>
    public static string Help() => HelpText.Program(Specification, ProgramName.Base);

    /// <summary><c>--version</c>.</summary>
    public static string VersionText() => $"{ProgramName.Base} {Version} (ImgKit)\nCopyright (c) 2026 The ImgKit authors\n";
}
