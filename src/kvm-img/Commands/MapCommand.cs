using System.Globalization;
using ImgKit.Block;
using ImgKit.Block.Jobs.Map;
using ImgKit.CommandLine;

namespace ImgKit.Programs.Img;

/// <summary><c>map</c>: where the content of an image comes from.</summary>
internal sealed class MapCommand : Command
{
    protected override CommandSpec Declare() => new()
    {
        Name = "map",
        Summary = "Show which parts of an image are stored where, through its backing chain",
        Operands = "FILE",
        Options =
        [
            CommonOptions.FormatOption(),
            CommonOptions.ImageOptsOption,
            new('s', "start-offset", "OFFSET", "first byte to look at"),
            new('l', "max-length", "LENGTH", "bytes to look at"),
            CommonOptions.OutputOption,
            CommonOptions.ForceShareOption,
            .. CommonOptions.Always,
        ],
    };

    public override int Run(string[] arguments)
    {
        var common = new CommonOptions();
        long start = 0, max = -1;
        var operands = Parse(arguments, common, (id, value) =>
        {
            if (id == 's')
                start = Sizes.Parse("start offset", value);
            else
                max = Sizes.Parse("max length", value);
        });
        if (operands.Length != 1)
            throw new UsageException("Expecting one image file name");
        bool json = common.IsJson();
        using var device = ImageAccess.Open(common, operands[0], new OpenSettings { ReadOnly = true });
        long end = device.Length;
        if (max >= 0)
            end = (long)Math.Min((ulong)start + (ulong)max, (ulong)end);
        var entries = MapJob.Run(device, start, end);
        return json ? Json(entries, start) : Human(entries);
    }

    private static int Human(IEnumerable<MapEntry> entries)
    {
        var w = OutputWriter.Out;
        w.Write("Offset          Length          Mapped to       File\n");
        // What is no data is all one here, so data behind it may join to something longer; data itself is joined already.
        foreach (var e in entries)
        {
            if (e.IsData && e.Offset < 0)
            {
                w.Flush();
                throw new CommandException("File contains external, encrypted or compressed clusters.");
            }
            if (e.IsData && !e.IsZero)
                w.Write(Hex(e.Start) + Hex(e.Length) + Hex(Math.Max(e.Offset, 0)) + e.FileName + "\n");
        }
        return 0;
    }

    private static int Json(IEnumerable<MapEntry> entries, long start)
    {
        var w = OutputWriter.Out;
        w.Write("[");
        bool first = true;
        foreach (var e in entries)
        {
            if (!first)
                w.Write(",\n");
            first = false;
            w.Write(string.Create(CultureInfo.InvariantCulture, $"{{ \"start\": {e.Start}, \"length\": {e.Length}, \"depth\": {e.Depth},")
                + $" \"present\": {Text(e.IsPresent)}, \"zero\": {Text(e.IsZero)}, \"data\": {Text(e.IsData)}"
                + (e.Offset >= 0 ? string.Create(CultureInfo.InvariantCulture, $", \"offset\": {e.Offset}}}") : "}"));
        }
        if (first)
            w.Write($"{{ \"start\": {start}, \"length\": 0, \"depth\": 0, \"present\": false, \"zero\": false, \"data\": false}}");
        w.Write("]\n");
        return 0;
    }

    private static string Text(bool b) => b ? "true" : "false";

    private static string Hex(long n) => (n == 0 ? "0" : "0x" + n.ToString("x", CultureInfo.InvariantCulture)).PadRight(16);
}
