using ImgKit.Block;
using ImgKit.CommandLine;

namespace ImgKit.Programs.Img;

/// <summary>What the program consists of.</summary>
internal static class ImgProgram
{
    /// <summary>Id of the hidden option that writes the manual page and the completions.</summary>
    public const int GenerateOption = 256;

    private const string Version = "0.1.0";

    private static readonly string[] Names =
    [
        "amend", "bench", "bitmap", "check", "checksum", "commit", "compare", "convert", "create", "dd", "info", "inspect", "map", "measure",
        "rebase", "resize", "snapshot",
    ];

    /// <summary>Options before the command.</summary>
    public static OptionSpec[] StandardOptions =>
    [
        new('h', "help", null, "display this help and exit"),
        new('V', "version", null, "output version information and exit"),
        new('T', "trace", "[[enable=]<pattern>][,events=<file>][,file=<file>]", "accepted, as builds without trace points accept it"),
        GeneratedText.Option(GenerateOption),
    ];

    /// <summary>What <c>--version</c> prints.</summary>
    public static string VersionText => $"{ProgramName.Base} version {Version} (ImgKit)\nCopyright (c) 2026 The ImgKit authors\n";

    /// <summary>The command of that name, or null.</summary>
    public static Command? Find(string name) => name switch
    {
        "amend" => new AmendCommand(),
        "bench" => new BenchCommand(),
        "bitmap" => new BitmapCommand(),
        "check" => new CheckCommand(),
        "checksum" => new ChecksumCommand(),
        "commit" => new CommitCommand(),
        "compare" => new CompareCommand(),
        "convert" => new ConvertCommand(),
        "create" => new CreateCommand(),
        "dd" => new DdCommand(),
        "info" => new InfoCommand(),
        "inspect" => new InspectCommand(),
        "map" => new MapCommand(),
        "measure" => new MeasureCommand(),
        "rebase" => new RebaseCommand(),
        "resize" => new ResizeCommand(),
        "snapshot" => new SnapshotCommand(),
        _ => null,
    };

    /// <summary>What <c>--help</c> prints.</summary>
    public static string Help()
    {
        var formats = new SortedSet<string>(StringComparer.Ordinal);
        foreach (var d in DriverCatalogue.Default.All)
            formats.Add(d.Name);
        return VersionText + HelpText.Program(Declare(), ProgramName.Base) + $"\nSupported formats: {string.Join(' ', formats)}\n";
    }

    /// <summary>The manual page or a completion.</summary>
    public static string Generate(string what) =>
        GeneratedText.Write(Declare(), what) ?? throw new UsageException($"--generate takes man, bash or zsh, not '{what}'");

    /// <summary>Trace points are refused as by a peer that was built without any: a pattern matches nothing.</summary>
    public static void Trace(string options)
    {
        foreach (var (name, value) in OptionList.Parse(options, "enable"))
        {
            if (name == "enable" && OptionList.IsHelp(value))
                throw new ReportedException(0);
            if (name is not ("enable" or "events" or "file"))
                throw new CommandException($"Invalid parameter '{name}'");
        }
    }

    private static ProgramSpec Declare()
    {
        var commands = new List<CommandSpec>();
        foreach (string name in Names)
            if (Find(name) is { } c)
                commands.Add(c.Spec);
        return new ProgramSpec
        {
            Name = "kvm-img",
            Version = Version,
            Summary = "disk image utility",
            Description = "Creates, converts, inspects and modifies disk images. Takes the commands, options and exit codes of qemu-img.",
            Options = StandardOptions,
            Commands = commands,
            Sections =
            [
                ("Sizes", "Bytes, with an optional suffix: k or K (1024), M, G, T, P or E, each 1024 times the one before. b is ignored."),
                ("File names", "A path; protocol:...; or json:{...} with the options of a device. With --image-opts, a list of options: "
                    + "driver=qcow2,file.filename=disk.img."),
                ("Exit status", "0 on success, 1 on failure. compare: 1 when the images differ, above 1 on failure. check: 2 when the image is "
                    + "corrupt, 3 when it only has leaked clusters, 63 when its format has no check. inspect: 2 when the image is not safe."),
            ],
        };
    }
}
