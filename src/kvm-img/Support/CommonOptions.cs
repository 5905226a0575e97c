using ImgKit.Block;
using ImgKit.CommandLine;

namespace ImgKit.Programs.Img;

/// <summary>Options that several commands have, declared once, and what they say.</summary>
internal sealed class CommonOptions
{
    public const int Object = 1000;
    public const int ImageOpts = 1001;
    public const int AllowReferences = 1002;
    public const int Output = 1003;
    public const int ProgressForm = 1004;

    private ReferencePolicy? _policy;
    private ImageOpener? _opener;
    private List<string>? _objects;

    /// <summary>The file name operand is a list of options (<c>--image-opts</c>).</summary>
    public bool IsImageOpts { get; private set; }

    /// <summary>Print nothing but errors (<c>-q</c>).</summary>
    public bool Quiet { get; private set; }

    /// <summary>Open beside a writer (<c>-U</c>).</summary>
    public bool ForceShare { get; private set; }

    /// <summary>Format of the (source) image, or null (<c>-f</c>).</summary>
    public string? Format { get; private set; }

    /// <summary><c>--output</c> as given.</summary>
    public string? OutputForm { get; private set; }

    /// <summary>Show progress (<c>-p</c>).</summary>
    public bool ShowProgress { get; private set; }

    /// <summary>Progress as JSON lines on standard error (<c>--progress=json</c>).</summary>
    public bool JsonProgress { get; private set; }

    /// <summary>A target is made that is removed when making it fails: of its metadata nothing need be said then, for whoever flushes it
    /// gets an error, too.</summary>
    public bool DropsTarget { get; set; }

    /// <summary>Opens images as these options say.</summary>
    public ImageOpener Opener => _opener ??= new ImageOpener(null, _policy)
    {
        Objects = DefinedObjects(),
        Warn = Warn,
        Print = Report.Write,
        Note = Quiet ? null : Report.Warning,
    };

    /// <summary>The options <c>-h</c>, <c>--object</c> and <c>--allow-references</c>, which every command has.</summary>
    public static OptionSpec[] Always =>
    [
        new('h', "help", null, "show this help"),
        new(Object, "object", "OBJDEF", "define an object that options name by its id (tls-creds-x509, throttle-group, ...)"),
        new(AllowReferences, "allow-references", "any|folder|none",
            "which other files an image may name: any (default), folder (only files in the image's own folder), or none")
        {
            Choices = ["any", "folder", "none"],
        },
    ];

    public static OptionSpec FormatOption(string what = "format of the image; found out when not given") =>
        new('f', "format", "FMT", what) { Choices = FormatNames };

    public static OptionSpec ImageOptsOption => new(ImageOpts, "image-opts", null, "FILE is a list of options (driver=..., file.filename=...)");

    public static OptionSpec QuietOption => new('q', "quiet", null, "print nothing but errors");

    public static OptionSpec ForceShareOption => new('U', "force-share", null, "open the image even while another program writes to it");

    /// <summary>Two, for <c>-pq</c> is two letters, whereas <c>--progress</c> may have a value.</summary>
    public static OptionSpec[] ProgressOptions =>
    [
        new('p', null, null, "show progress"),
        new(ProgressForm, "progress", "text|json", "show progress, as text (default) or as JSON lines on standard error")
        {
            Argument = ArgumentKind.Optional,
            Choices = ["text", "json"],
        },
    ];

    public static OptionSpec OutputOption => new(Output, "output", "human|json", "form of the output") { Choices = ["human", "json"] };

    public static IReadOnlyList<string> CacheModes { get; } = ["none", "writeback", "writethrough", "directsync", "unsafe"];

    /// <summary>The formats' names, for completion.</summary>
    public static IReadOnlyList<string> FormatNames =>
        field ??= [.. DriverCatalogue.Default.All.Where(static d => d.Kind == DriverKind.Format).Select(static d => d.Name)];

    /// <summary>Takes an option if it is one of these.</summary>
    public bool Take(int id, string value)
    {
        switch (id)
        {
            case Object:
                (_objects ??= []).Add(value);
                return true;
            case ImageOpts:
                IsImageOpts = true;
                return true;
            case AllowReferences:
                _policy = value switch
                {
                    "any" => ReferencePolicy.AllowAll,
                    "folder" => ReferencePolicy.SameFolder,
                    "none" => ReferencePolicy.DenyAll,
                    _ => throw new UsageException($"--allow-references takes any, folder or none, not '{value}'"),
                };
                return true;
            case Output:
                OutputForm = value;
                return true;
            case 'f':
                Format = value;
                return true;
            case 'q':
                Quiet = true;
                return true;
            case 'U':
                ForceShare = true;
                return true;
            case 'p' or ProgressForm:
                ShowProgress = true;
                JsonProgress = value switch
                {
                    "" or "text" => false,
                    "json" => true,
                    _ => throw new UsageException($"--progress takes text or json, not '{value}'"),
                };
                return true;
            default:
                return false;
        }
    }

    /// <summary>Whether <c>--output=json</c> was given.</summary>
    public bool IsJson() => OutputForm switch
    {
        null or "human" => false,
        "json" => true,
        _ => throw new CommandException("--output must be used with human or json as argument."),
    };

    private void Warn(string line)
    {
        if (!DropsTarget || !line.StartsWith("Failed to flush the ", StringComparison.Ordinal))
            Report.Error(line);
    }

    private BlockObjects DefinedObjects()
    {
        var objects = new BlockObjects();
        foreach (string text in _objects ?? [])
        {
            var definition = new BlockOptions();
            foreach (var (name, value) in OptionList.Parse(text, "qom-type"))
                definition.Set(name, value);
            objects.Add(definition);
        }
        return objects;
    }
}
