using System.Numerics;
using ImgKit.Block;
using ImgKit.CommandLine;

namespace ImgKit.Programs.Img;

/// <summary><c>bitmap</c>: persistent dirty bitmaps.</summary>
internal sealed class BitmapCommand : Command
{
    private const int Add = 300;
    private const int Remove = 301;
    private const int Clear = 302;
    private const int Enable = 303;
    private const int Disable = 304;
    private const int Merge = 305;

    protected override CommandSpec Declare() => new()
    {
        Name = "bitmap",
        Summary = "Change the persistent dirty bitmaps of an image",
        Operands = "FILE BITMAP",
        Options =
        [
            new(Add, "add", null, "add the bitmap, recording"),
            new(Remove, "remove", null, "remove it"),
            new(Clear, "clear", null, "clear all its bits"),
            new(Enable, "enable", null, "start recording in it"),
            new(Disable, "disable", null, "stop recording in it"),
            new(Merge, "merge", "SOURCE", "set the bits in it that are set in the bitmap SOURCE"),
            new('g', "granularity", "GRANULARITY", "bytes a bit, for --add"),
            new('b', "source-file", "SRC_FILE", "image that holds SOURCE, if another") { IsFile = true },
            new('F', "source-format", "SRC_FMT", "format of SRC_FILE") { Choices = CommonOptions.FormatNames },
            CommonOptions.FormatOption(),
            CommonOptions.ImageOptsOption,
            .. CommonOptions.Always,
        ],
    };

    public override int Run(string[] arguments)
    {
        var common = new CommonOptions();
        var actions = new List<(int Action, string Source)>();
        long granularity = 0;
        string? sourceFile = null, sourceFormat = null;
        var operands = Parse(arguments, common, (id, value) =>
        {
            switch (id)
            {
                case 'g':
                    granularity = Sizes.Parse("granularity", value);
                    break;
                case 'b':
                    sourceFile = value;
                    break;
                case 'F':
                    sourceFormat = value;
                    break;
                default:
                    actions.Add((id, value));
                    break;
            }
        });
        if (actions.Count == 0)
            throw new CommandException("Need at least one of --add, --remove, --clear, --enable, --disable, or --merge");
        if (granularity != 0 && !actions.Exists(static a => a.Action == Add))
            throw new CommandException("granularity only supported with --add");
        if (sourceFormat is not null && sourceFile is null)
            throw new CommandException("-F only supported with -b");
        if (sourceFile is not null && !actions.Exists(static a => a.Action == Merge))
            throw new CommandException("Merge bitmap source file only supported with --merge");
        if (operands.Length != 2)
            throw new CommandException("Expecting filename and bitmap name");
        string bitmap = operands[1];
        using var device = ImageAccess.Open(common, operands[0], new OpenSettings { NoBacking = true });
        using var source = sourceFile is null ? null
            : ImageAccess.Open(common, sourceFile, sourceFormat, false, new OpenSettings { ReadOnly = true, NoBacking = true });
        foreach (var (action, from) in actions)
        {
            try
            {
                Do(device, source ?? device, action, bitmap, from, granularity);
            }
            catch (ImageException e)
            {
                throw new CommandException($"Operation {NameOf(action)} on bitmap {bitmap} failed: {e.Message}");
            }
        }
        return 0;
    }

    private static void Do(BlockDevice device, BlockDevice source, int action, string bitmap, string from, long granularity)
    {
        if (device is not IBitmapImage image)
            throw new ImageException(ImageErrorKind.Unsupported, action == Add
                ? $"Cannot store dirty bitmaps in file '{device.FileName}'" : $"Dirty bitmap '{bitmap}' not found");
        switch (action)
        {
            case Add:
                if (bitmap.Length == 0)
                    throw new ImageException(ImageErrorKind.InvalidArgument, "Bitmap name cannot be empty");
                if (granularity != 0 && (granularity < 512 || !BitOperations.IsPow2(granularity)))
                    throw new ImageException(ImageErrorKind.InvalidArgument, "Granularity must be power of 2 and at least 512");
                image.AddBitmap(bitmap, granularity != 0 ? granularity : DefaultGranularity(device), true);
                break;
            case Remove:
                image.RemoveBitmap(bitmap);
                break;
            case Clear:
                image.ClearBitmap(bitmap);
                break;
            case Enable or Disable:
                image.EnableBitmap(bitmap, action == Enable);
                break;
            case Merge:
                if (!image.Bitmaps.Any(b => b.Name == bitmap))
                    throw new ImageException(ImageErrorKind.NotFound, $"Dirty bitmap '{bitmap}' not found");
                image.MergeBitmap(bitmap, source as IBitmapImage
                    ?? throw new ImageException(ImageErrorKind.NotFound, $"Dirty bitmap '{from}' not found"), from);
                break;
        }
    }

    /// <summary>The cluster size, within 4 KiB and 64 KiB.</summary>
    private static long DefaultGranularity(BlockDevice device) =>
        device is IImageDetails { ClusterSize: > 0 } d ? Math.Clamp(d.ClusterSize, 4096, 65536) : 65536;

    private static string NameOf(int action) => action switch
    {
        Add => "add",
        Remove => "remove",
        Clear => "clear",
        Enable => "enable",
        Disable => "disable",
        _ => "merge",
    };
}
