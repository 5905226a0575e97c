using ImgKit.Block;
using ImgKit.Block.Jobs.Info;
using ImgKit.CommandLine;

namespace ImgKit.Programs.Img;

/// <summary><c>info</c>: what an image is.</summary>
internal sealed class InfoCommand : Command
{
    private const int BackingChain = 300;

    protected override CommandSpec Declare() => new()
    {
        Name = "info",
        Summary = "Display information about an image",
        Operands = "FILE",
        Options =
        [
            CommonOptions.FormatOption(),
            CommonOptions.ImageOptsOption,
            new(BackingChain, "backing-chain", null, "also show the backing files, all the way down"),
            CommonOptions.ForceShareOption,
            CommonOptions.OutputOption,
            .. CommonOptions.Always,
        ],
    };

    public override int Run(string[] arguments)
    {
        var common = new CommonOptions();
        bool chain = false;
        var operands = Parse(arguments, common, (id, _) => chain |= id == BackingChain);
        if (operands.Length != 1)
            throw new UsageException("Expecting one image file name");
        bool json = common.IsJson();
        var list = Collect(common, operands[0], chain);
        var w = OutputWriter.Out;
        if (!json)
        {
            for (int i = 0; i < list.Count; i++)
                w.Write((i > 0 ? "\n" : "") + InfoText.Human(list[i]));
            return 0;
        }
        w.WriteLine(JsonText.Pretty(chain ? list.Select(static object (i) => InfoText.Json(i)).ToList() : InfoText.Json(list[0])));
        return 0;
    }

    private static List<ImageInfo> Collect(CommonOptions common, string name, bool chain)
    {
        var list = new List<ImageInfo>();
        var seen = new HashSet<string>(StringComparer.Ordinal);
        var settings = new OpenSettings { ReadOnly = true, NoBacking = true, NoIo = true, ForceShare = common.ForceShare };
        string? format = common.Format;
        bool imageOpts = common.IsImageOpts;
        for (string? next = name; next is not null; imageOpts = false)
        {
            if (!seen.Add(next))
                throw new CommandException($"Backing file '{next}' creates an infinite loop.");
            using var device = ImageAccess.Open(common, next, format, imageOpts, settings);
            var info = ImageInfo.Of(device);
            list.Add(info);
            next = null;
            if (!chain || info.BackingFile is null)
                continue;
            next = info.FullBackingFile ?? throw new CommandException(
                $"Could not determine absolute backing filename, but backing filename '{info.BackingFile}' present");
            format = info.BackingFormat;
            if (common.Opener.Policy.Refuse(new ImageReference(ReferenceKind.Backing, info.FileName, next, format)) is { } why)
                throw new CommandException($"'{info.FileName}' names '{next}', which is not opened: {why}");
        }
        return list;
    }
}
