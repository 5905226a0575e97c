using System.Globalization;
using ImgKit.Block;
using ImgKit.Block.Jobs.Bench;
using ImgKit.CommandLine;

namespace ImgKit.Programs.Img;

/// <summary><c>bench</c>: how fast an image can be read or written.</summary>
internal sealed class BenchCommand : Command
{
    private const int FlushInterval = 300;
    private const int PatternOption = 301;
    private const int NoDrain = 302;

    protected override CommandSpec Declare() => new()
    {
        Name = "bench",
        Summary = "Run a simple sequential benchmark on an image",
        Operands = "FILE",
        Options =
        [
            CommonOptions.FormatOption(),
            CommonOptions.ImageOptsOption,
            new('t', "cache", "CACHE", "cache mode") { Choices = CommonOptions.CacheModes },
            new('c', "count", "COUNT", "number of requests (default: 75000)"),
            new('d', "depth", "DEPTH", "requests at a time (default: 64)"),
            new('s', "buffer-size", "BUFFER_SIZE", "bytes a request (default: 4096)"),
            new('S', "step-size", "STEP_SIZE", "bytes from one request's start to the next one's (default: BUFFER_SIZE)"),
            new('o', "offset", "OFFSET", "where the first request starts (default: 0)"),
            new('w', "write", null, "write (default: read)"),
            new(PatternOption, "pattern", "PATTERN", "byte to write (default: 0)"),
            new(FlushInterval, "flush-interval", "FLUSH_INTERVAL", "writes between two flushes"),
            new(NoDrain, "no-drain", null, "do not wait for requests under way before a flush"),
            new('n', "native", null, "accepted: requests are served by the calling threads"),
            new('i', "aio", "AIO", "accepted, as -n: threads, native or io_uring") { Choices = ["threads", "native", "io_uring"] },
            CommonOptions.ForceShareOption,
            CommonOptions.QuietOption,
            .. CommonOptions.Always,
        ],
    };

    public override int Run(string[] arguments)
    {
        var common = new CommonOptions();
        var settings = new OpenSettings { ReadOnly = true };
        long count = 75000, depth = 64, offset = 0, size = 4096, step = 0, pattern = 0, flush = 0;
        bool write = false, drain = true, native = false;
        var operands = Parse(arguments, common, (id, value) =>
        {
            switch (id)
            {
                case 'c':
                    count = Count(value, int.MaxValue, "Invalid request count specified");
                    break;
                case 'd':
                    depth = Count(value, int.MaxValue, "Invalid queue depth specified");
                    break;
                case 'i':
                    if (value is not ("threads" or "native" or "io_uring"))
                        throw new CommandException($"Invalid aio option: {value}");
                    native = value == "native";
                    break;
                case 'n':
                    native = true;
                    break;
                case 'o':
                    offset = Sizes.Parse("offset", value);
                    break;
                case 's':
                    size = Sizes.Parse("buffer size", value, 0, int.MaxValue);
                    break;
                case 'S':
                    step = Sizes.Parse("step_size", value, 0, int.MaxValue);
                    break;
                case 't':
                    try
                    {
                        settings = settings.WithCacheMode(value);
                    }
                    catch (ImageException)
                    {
                        throw new CommandException("Invalid cache mode");
                    }
                    break;
                case 'w':
                    write = true;
                    break;
                case PatternOption:
                    pattern = Count(value, 255, "Invalid pattern byte specified");
                    break;
                case FlushInterval:
                    flush = Count(value, int.MaxValue, "Invalid flush interval specified");
                    break;
                case NoDrain:
                    drain = false;
                    break;
            }
        });
        if (operands.Length != 1)
            throw new UsageException("Expecting one image file name");
        if (!write && flush > 0)
            throw new CommandException("--flush-interval is only available in write tests");
        if (flush > 0 && flush < depth)
            throw new CommandException("Flush interval can't be smaller than depth");
        if (native && !settings.Direct)
            throw new CommandException($"Could not open '{operands[0]}': aio=native was specified, but it requires cache.direct=on, which was not specified.");
        using var device = ImageAccess.Open(common, operands[0], settings with { ReadOnly = !write });
        step = step > 0 ? step : size;
        Run(new BenchRequest
        {
            Device = device,
            IsWrite = write,
            Count = (int)count,
            Depth = (int)depth,
            Size = (int)size,
            Offset = offset,
            Step = step,
            Pattern = (byte)pattern,
            FlushInterval = (int)flush,
            DrainBeforeFlush = drain,
        }, settings.Direct || IsRemote(device));
        return 0;
    }

    /// <summary>Whether requests wait for a server.</summary>
    private static bool IsRemote(BlockDevice device)
    {
        while (device.Storage is { } below)
            device = below;
        return device.DriverName is "nbd" or "http" or "https";
    }

    private static void Run(BenchRequest r, bool direct)
    {
        var w = OutputWriter.Out;
        w.WriteLine($"Sending {r.Count} {(r.IsWrite ? "write" : "read")} requests, {r.Size} bytes each, {r.Depth} in parallel "
            + $"(starting at offset {r.Offset}, step size {r.Step})");
        if (r.FlushInterval > 0)
            w.WriteLine($"Sending flush every {r.FlushInterval} requests");
        try
        {
            var time = BenchJob.Run(r, direct);
            w.WriteLine(string.Create(CultureInfo.InvariantCulture, $"Run completed in {time.TotalSeconds:F3} seconds."));
        }
        catch (Exception e) when (e is ImageException or (IOException and not OutputException))
        {
            throw new CommandException($"Failed request: {e.Message}");
        }
    }

    private static long Count(string text, long max, string message)
    {
        long n = Sizes.ParseCount(text);
        return n >= 0 && n <= max ? n : throw new CommandException(message);
    }
}
