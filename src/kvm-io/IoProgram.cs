using ImgKit.CommandLine;

namespace ImgKit.Programs.Io;

/// <summary>The program's options and texts.</summary>
internal static class IoProgram
{
    public const int ObjectOption = 1000;
    public const int ImageOptsOption = 1001;
    public const int GenerateOption = 1002;

    /// <summary>All options.</summary>
    public static IReadOnlyList<OptionSpec> Options { get; } =
    [
        new(ObjectOption, "object", "OBJECTDEF", "define an object such as TLS credentials or a throttle group"),
        new(ImageOptsOption, "image-opts", null, "treat file as option string"),
        new('c', "cmd", "STRING", "execute command with its arguments from the given string"),
        new('f', "format", "FMT", "specifies the block driver to use"),
        new('r', "read-only", null, "open the image for reading only"),
        new('s', "snapshot", null, "write to a temporary overlay"),
        new('n', "nocache", null, "disable host cache, short for -t none"),
        new('C', "copy-on-read", null, "enable copy-on-read"),
        new('m', "misalign", null, "misalign allocations for O_DIRECT"),
        new('k', "native-aio", null, "use kernel AIO implementation (prefer use of -i)"),
        new('i', "aio", "MODE", "use AIO mode (threads, native or io_uring)") { Choices = ["threads", "native", "io_uring"] },
        new('t', "cache", "MODE", "use the given cache mode for the image")
        {
            Choices = ["none", "writeback", "writethrough", "directsync", "unsafe"],
        },
        new('d', "discard", "MODE", "use the given discard mode for the image") { Choices = ["ignore", "unmap"] },
        new('T', "trace", "PATTERN", "specify tracing options (not offered)"),
        new('U', "force-share", null, "force shared permissions"),
        new('h', "help", null, "display this help and exit"),
        new('V', "version", null, "output version information and exit"),
        GeneratedText.Option(GenerateOption),
    ];

    /// <summary>Declared for help, manual and completion.</summary>
    public static ProgramSpec Specification => new()
    {
        Name = "kvm-io",
        Summary = "QEMU-compatible disk exerciser",
        Version = VersionNumber,
        Options = Options,
        Operands = "[-c STRING]... [file]",
        Sections = [("Commands", "'-c help' lists the commands, '-c \"help COMMAND\"' tells more about one.")],
    };

    private const string VersionNumber = "0.1.0";

    /// <summary><c>--help</c>.</summary>
    public static string Help() => HelpText.Program(Specification, ProgramName.Base);

    /// <summary><c>--version</c>.</summary>
    public static string VersionText() => $"{ProgramName.Base} version {VersionNumber} (ImgKit)\nCopyright (c) 2026 The ImgKit authors\n";
}
