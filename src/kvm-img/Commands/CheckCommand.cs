using System.Globalization;
using ImgKit.Block;
using ImgKit.CommandLine;

namespace ImgKit.Programs.Img;

/// <summary><c>check</c>: whether an image's metadata is consistent, and repair.</summary>
internal sealed class CheckCommand : Command
{
    private const int Unsupported = 63;

    protected override CommandSpec Declare() => new()
    {
        Name = "check",
        Summary = "Check the metadata of an image, and repair it",
        Operands = "FILE",
        Description = "Exit status: 0 consistent (or now repaired), 1 the check could not be done, 2 corrupt, 3 leaked clusters only, "
            + "63 the format has no check.",
        Options =
        [
            CommonOptions.FormatOption(),
            CommonOptions.ImageOptsOption,
            new('T', "cache", "SRC_CACHE", "cache mode") { Choices = CommonOptions.CacheModes },
            new('r', "repair", "leaks|all", "repair leaked clusters, or all that is wrong") { Choices = ["leaks", "all"] },
            CommonOptions.ForceShareOption,
            CommonOptions.OutputOption,
            CommonOptions.QuietOption,
            .. CommonOptions.Always,
        ],
    };

    public override int Run(string[] arguments)
    {
        var common = new CommonOptions();
        var repair = CheckRepair.None;
        string cache = "writeback";
        var operands = Parse(arguments, common, (id, value) =>
        {
            if (id == 'T')
                cache = value;
            else
                repair = value switch
                {
                    "leaks" => CheckRepair.Leaks,
                    "all" => CheckRepair.All,
                    _ => throw new UsageException($"Unknown option value for -r (expecting 'leaks' or 'all'): {value}"),
                };
        });
        if (operands.Length != 1)
            throw new UsageException("Expecting one image file name");
        string name = operands[0];
        bool json = common.IsJson();
        var settings = new OpenSettings { ReadOnly = repair == CheckRepair.None, ForCheck = true }.WithCacheMode(cache, "Invalid source cache option");
        using var device = ImageAccess.Open(common, name, settings);
        if (device is not ICheckableImage image)
        {
            Report.Error("This image format does not support checks");
            return Unsupported;
        }
        return Check(image, device, name, repair, json, common.Quiet);
    }

    private static int Check(ICheckableImage image, BlockDevice device, string name, CheckRepair repair, bool json, bool quiet)
    {
        var w = OutputWriter.Out;
        CheckResult result;
        try
        {
            result = image.Check(repair, Report.Write);
            if (result.CorruptionsFixed > 0 || result.LeaksFixed > 0)
            {
                if (!json && !quiet)
                    w.Write(string.Create(CultureInfo.InvariantCulture,
                        $"The following inconsistencies were found and repaired:\n\n    {result.LeaksFixed} leaked clusters\n    {result.CorruptionsFixed} corruptions\n\nDouble checking the fixed image now...\n"));
                var again = image.Check(CheckRepair.None, Report.Write);
                again.LeaksFixed = result.LeaksFixed;
                again.CorruptionsFixed = result.CorruptionsFixed;
                result = again;
            }
        }
        catch (Exception e) when (e is ImageException or (IOException and not OutputException))
        {
            throw new CommandException($"Check failed: {e.Message}");
        }
        if (!quiet)
        {
            if (json)
                w.WriteLine(JsonText.Pretty(Json(result, device, name)));
            else
                w.Write(Human(result));
        }
        if (result.CheckErrors > 0)
        {
            Report.Error("Check failed");
            return 1;
        }
        return result.Corruptions > 0 ? 2 : result.Leaks > 0 ? 3 : 0;
    }

    private static string Human(CheckResult r)
    {
        string s = "";
        if (r.Corruptions == 0 && r.Leaks == 0 && r.CheckErrors == 0)
            s = "No errors were found on the image.\n";
        if (r.Corruptions > 0)
            s += $"\n{r.Corruptions} errors were found on the image.\nData may be corrupted, or further writes to the image may corrupt it.\n";
        if (r.Leaks > 0)
            s += $"\n{r.Leaks} leaked clusters were found on the image.\nThis means waste of disk space, but no harm to data.\n";
        if (r.CheckErrors > 0)
            s += $"\n{r.CheckErrors} internal errors have occurred during the check.\n";
        if (r.TotalClusters > 0 && r.AllocatedClusters > 0)
            s += string.Create(CultureInfo.InvariantCulture,
                $"{r.AllocatedClusters}/{r.TotalClusters} = {Percent(r.AllocatedClusters, r.TotalClusters)} allocated, {Percent(r.FragmentedClusters, r.AllocatedClusters)} fragmented, {Percent(r.CompressedClusters, r.AllocatedClusters)} compressed clusters\n");
        if (r.ImageEndOffset > 0)
            s += $"Image end offset: {r.ImageEndOffset}\n";
        return s;
    }

    private static string Percent(long part, long whole) => (part * 100.0 / whole).ToString("F2", CultureInfo.InvariantCulture) + "%";

    private static JsonObject Json(CheckResult r, BlockDevice device, string name)
    {
        static object? Some(long n) => n != 0 ? n : null;
        return new JsonObject
        {
            { "filename", name },
            { "format", device.DriverName },
            { "check-errors", r.CheckErrors },
            { "image-end-offset", Some(r.ImageEndOffset) },
            { "corruptions", Some(r.Corruptions) },
            { "leaks", Some(r.Leaks) },
            { "corruptions-fixed", Some(r.CorruptionsFixed) },
            { "leaks-fixed", Some(r.LeaksFixed) },
            { "total-clusters", Some(r.TotalClusters) },
            { "allocated-clusters", Some(r.AllocatedClusters) },
            { "fragmented-clusters", Some(r.FragmentedClusters) },
            { "compressed-clusters", Some(r.CompressedClusters) },
        };
    }
}
