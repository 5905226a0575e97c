using ImgKit.Block;
using ImgKit.Block.Jobs.Inspect;
using ImgKit.CommandLine;

namespace ImgKit.Programs.Img;

/// <summary><c>inspect --untrusted</c>: whether an image is safe to take from a stranger.</summary>
internal sealed class InspectCommand : Command
{
    private const int Untrusted = 300;
    private const int MaxVirtualSize = 301;
    private const int MaxExpansion = 302;
    private const int Unsafe = 2;

    protected override CommandSpec Declare() => new()
    {
        Name = "inspect",
        Summary = "Say in JSON whether an image is safe to take from a stranger",
        Operands = "FILE",
        Description = "Looks for names of other files, features that are not known, tables that contradict themselves and bombs. Opens no other "
            + "file. Exit status: 0 nothing found, 2 not safe, 1 the inspection failed.",
        Options =
        [
            new(Untrusted, "untrusted", null, "inspect as a stranger's image (the default, and the only way there is)"),
            CommonOptions.FormatOption(),
            new(MaxVirtualSize, "max-virtual-size", "SIZE", "largest virtual size that is no bomb (default: 16T)"),
            new(MaxExpansion, "max-expansion", "N", "most bytes of data for each byte of the file (default: 1100)"),
            CommonOptions.ForceShareOption,
            CommonOptions.QuietOption,
            .. CommonOptions.Always,
        ],
    };

    public override int Run(string[] arguments)
    {
        var common = new CommonOptions();
        var limits = new InspectLimits();
        var operands = Parse(arguments, common, (id, value) =>
        {
            if (id == MaxVirtualSize)
                limits = limits with { MaximumVirtualSize = Sizes.Parse("virtual size", value) };
            else if (id == MaxExpansion)
                limits = limits with { MaximumExpansion = Sizes.Parse("expansion", value, 1) };
        });
        if (operands.Length != 1)
            throw new UsageException("Expecting one image file name");
        var r = InspectJob.Run(common.Opener.Drivers, operands[0], common.Format, limits, new OpenSettings { ForceShare = common.ForceShare });
        if (!common.Quiet)
        {
            OutputWriter.Out.WriteLine(JsonText.Pretty(new JsonObject
            {
                { "filename", r.FileName },
                { "format", r.Format },
                { "virtual-size", r.VirtualSize >= 0 ? r.VirtualSize : null },
                { "file-size", r.FileSize >= 0 ? r.FileSize : null },
                { "safe", r.IsSafe },
                {
                    "findings", r.Findings.Select(static object (f) => new JsonObject
                    {
                        { "check", f.Check },
                        { "detail", f.Detail },
                        { "offset", f.Offset >= 0 ? f.Offset : null },
                    }).ToList()
                },
            }));
        }
        return r.IsSafe ? 0 : Unsafe;
    }
}
