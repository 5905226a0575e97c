using System.Globalization;

namespace ImgKit.Block.Formats.Vmdk;

/// <summary>The create options of <c>vmdk</c>, judged.</summary>
internal sealed class VmdkCreateOptions
{
    private static readonly string[] Subformats = ["monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat", "streamOptimized"];
    private static readonly string[] Adapters = ["ide", "buslogic", "lsilogic", "legacyESX"];

    private VmdkCreateOptions() { }

    /// <summary>The declaration.</summary>
    public static IReadOnlyList<DriverOption> Declaration { get; } =
    [
        new("size", OptionType.Size, "Virtual disk size"),
        new("adapter_type", OptionType.String, "Virtual adapter type, can be one of ide (default), lsilogic, buslogic or legacyESX"),
        new("backing_file", OptionType.String, "File name of a base image"),
        new("backing_fmt", OptionType.String, "Must be 'vmdk' if present"),
        new("compat6", OptionType.Bool, "VMDK version 6 image", "off"),
        new("hwversion", OptionType.String, "VMDK hardware version", "undefined"),
        new("toolsversion", OptionType.String, "VMware guest tools version"),
        new("subformat", OptionType.String,
            "VMDK flat extent format, can be one of {monolithicSparse (default) | monolithicFlat | twoGbMaxExtentSparse | twoGbMaxExtentFlat | streamOptimized} "),
        new("zeroed_grain", OptionType.Bool, "Enable efficient zero writes using the zeroed-grain GTE feature"),
        new("compression_level", OptionType.Number, "Deflate level of streamOptimized images, 1 (fastest) to 12 (smallest)"),
    ];

    public required string Subformat { get; init; }

    public required string Adapter { get; init; }

    public string? BackingFile { get; init; }

    public required string HardwareVersion { get; init; }

    public required string ToolsVersion { get; init; }

    public bool ZeroedGrain { get; init; }

    public Preallocation Preallocation { get; init; }

    public int? CompressionLevel { get; init; }

    public bool IsSplit => Subformat is "twoGbMaxExtentSparse" or "twoGbMaxExtentFlat";

    public bool IsFlat => Subformat is "monolithicFlat" or "twoGbMaxExtentFlat";

    public bool IsStream => Subformat == "streamOptimized";

    /// <summary>For one more extent of a split disk.</summary>
    public static VmdkCreateOptions ForExtent(bool isFlat, bool zeroedGrain, Preallocation preallocation) => new()
    {
        Subformat = isFlat ? "twoGbMaxExtentFlat" : "twoGbMaxExtentSparse",
        Adapter = "",
        HardwareVersion = "",
        ToolsVersion = "",
        ZeroedGrain = zeroedGrain,
        Preallocation = preallocation,
    };

    /// <summary>Takes the options out and judges them.</summary>
    /// <param name="options">as given.</param>
    /// <param name="defaultSubformat">when none is given.</param>
    public static VmdkCreateOptions Take(BlockOptions options, string defaultSubformat = "monolithicSparse")
    {
        _ = options.TakeString("size");
        _ = options.TakeString("nocow");
        _ = options.TakeString("extent_size_hint");
        string? format = options.TakeString("backing_fmt");
        if (format is not null and not "vmdk")
            throw Invalid("backing_file must be a vmdk image");
        string subformat = options.TakeString("subformat") ?? defaultSubformat;
        if (!Subformats.Contains(subformat))
            throw Invalid($"invalid parameter value: {subformat}");
        // ESXi takes no streamed disk for another adapter, whatever the machine will have.
        string adapter = options.TakeString("adapter_type") ?? (subformat == "streamOptimized" ? "lsilogic" : "ide");
        if (!Adapters.Contains(adapter))
            throw Invalid($"invalid parameter value: {adapter}");
        bool compat6 = options.TakeBool("compat6") ?? false;
        string? hardware = options.TakeString("hwversion");
        if (hardware == "undefined")
            hardware = null;
        if (compat6 && hardware is not null)
            throw Invalid("compat6 cannot be enabled with hwversion set");
        string? backing = options.TakeString("backing_file");
        var result = new VmdkCreateOptions
        {
            Subformat = subformat,
            Adapter = adapter,
            BackingFile = string.IsNullOrEmpty(backing) ? null : backing,
            HardwareVersion = compat6 ? "6" : hardware ?? "4",
            ToolsVersion = options.TakeString("toolsversion") ?? "2147483647",
            ZeroedGrain = options.TakeBool("zeroed_grain") ?? false,
            Preallocation = PreallocationOption.Parse(options.TakeString("preallocation"), allowMetadata: false),
            CompressionLevel = TakeLevel(options),
        };
        if (result.IsFlat && result.BackingFile is not null)
            throw new ImageException(ImageErrorKind.Unsupported, "Flat image can't have backing file") { Errno = 95 };
        if (result.IsFlat && result.ZeroedGrain)
            throw new ImageException(ImageErrorKind.Unsupported, "Flat image can't enable zeroed grain") { Errno = 95 };
        foreach (string? value in (ReadOnlySpan<string?>)[result.HardwareVersion, result.ToolsVersion, result.BackingFile])
            if (value is not null)
                VmdkCreate.CheckName(value);
        return result;
    }

    private static int? TakeLevel(BlockOptions options)
    {
        long? level = options.TakeNumber("compression_level");
        if (level is < 1 or > 12)
            throw Invalid("Parameter 'compression_level' expects a number from 1 to 12");
        return (int?)level;
    }

    private static ImageException Invalid(string message) => new(ImageErrorKind.InvalidArgument, message) { Errno = 22 };

    /// <summary>The text of a descriptor.</summary>
    /// <param name="cid">content ID.</param>
    /// <param name="parentCid">the parent's.</param>
    /// <param name="extents">extent lines, each with its newline.</param>
    /// <param name="size">bytes of the disk.</param>
    /// <param name="contentId">the upper 96 bits of the long content ID, 24 hexadecimal digits (streamOptimized).</param>
    public string Describe(uint cid, uint parentCid, string extents, long size, string contentId)
    {
        int heads = Adapter == "ide" ? 16 : 255;
        long perCylinder = 63L * heads * 512;
        long cylinders = IsStream ? Math.Min((size + perCylinder - 1) / perCylinder, 65535) : size / perCylinder;
        string parent = BackingFile is null ? "" : $"parentFileNameHint=\"{BackingFile}\"";
        string encoding = IsStream ? "encoding=\"UTF-8\"\n" : "";
        string more = IsStream ? $"ddb.longContentID = \"{contentId}{VmdkDescriptor.Hex(cid)}\"\nddb.toolsInstallType = \"4\"\n" : "";
        return string.Create(CultureInfo.InvariantCulture, $"""
            # Disk DescriptorFile
            version=1
            {encoding}CID={VmdkDescriptor.Hex(cid)}
            parentCID={VmdkDescriptor.Hex(parentCid)}
            createType="{Subformat}"
            {parent}
            # Extent description
            {extents}
            # The Disk Data Base
            #DDB

            ddb.virtualHWVersion = "{HardwareVersion}"
            ddb.geometry.cylinders = "{cylinders}"
            ddb.geometry.heads = "{heads}"
            ddb.geometry.sectors = "63"
            ddb.adapterType = "{Adapter}"
            ddb.toolsVersion = "{ToolsVersion}"
            {more}
            """).TrimEnd('\n') + "\n";
    }
}
