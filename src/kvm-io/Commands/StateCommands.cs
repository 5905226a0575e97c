using System.Globalization;
using ImgKit.Block;
using ImgKit.Block.Protocols.File;

namespace ImgKit.Programs.Io;

/// <summary>Commands that change or flush the image as a whole, and those that tell about it.</summary>
internal static class StateCommands
{
    public static IoCommand Flush { get; } = new()
    {
        Name = "flush",
        ShortName = "f",
        Summary = "flush all in-core file state to disk",
        Run = (session, _) => session.Perform(null, static d => d.Flush(), out var _),
    };

    public static IoCommand Discard { get; } = new()
    {
        Name = "discard",
        ShortName = "d",
        MinArguments = 2,
        MaxArguments = -1,
        Access = CommandAccess.Write,
        Arguments = "[-Cq] off len",
        Summary = "discards a number of bytes at a specified offset",
        Help = """

             discards a range of bytes from the given offset

             Example:
             'discard 512 1k' - discards 1 kilobyte from 512 bytes into the file

             Discards a segment of the currently open file.
             -C, -- report statistics in a machine parsable format
             -q, -- quiet mode, do not show I/O statistics


            """,
        Run = RunDiscard,
    };

    public static IoCommand Truncate { get; } = new()
    {
        Name = "truncate",
        ShortName = "t",
        MinArguments = 1,
        MaxArguments = 3,
        Access = CommandAccess.Write,
        Arguments = "[-m prealloc_mode] off",
        Summary = "truncates the current file at the given offset",
        Run = RunTruncate,
    };

    public static IoCommand Length { get; } = new()
    {
        Name = "length",
        ShortName = "l",
        Summary = "gets the length of the current file",
        Run = (session, _) =>
        {
            Console.Out(Numbers.Bytes(session.Device.Length) + "\n");
            return true;
        },
    };

    public static IoCommand Info { get; } = new()
    {
        Name = "info",
        ShortName = "i",
        Summary = "prints information about the current file",
        Run = RunInfo,
    };

    public static IoCommand Map { get; } = new()
    {
        Name = "map",
        Arguments = "",
        Summary = "prints the allocated areas of a file",
        Run = RunMap,
    };

    public static IoCommand Alloc { get; } = new()
    {
        Name = "alloc",
        Arguments = "offset [count]",
        Summary = "checks if offset is allocated in the file",
        MinArguments = 1,
        MaxArguments = 2,
        Run = RunAlloc,
    };

    private static bool RunDiscard(Session session, string[] arguments)
    {
        if (IoRequest.Parse(Discard, arguments, "Cq", vector: false) is not { } request)
            return false;
        if (!session.Perform("discard", d =>
            {
                Transfer.CheckRange(d, request.Offset, request.Total);
                d.Discard(request.Offset, request.Total);
            }, out var time))
            return false;
        if (!request.Has(RequestFlags.Quiet))
            Printing.Report("discard", time, request);
        return true;
    }

    private static bool RunTruncate(Session session, string[] arguments)
    {
        var options = new CommandOptions(arguments, "m:");
        var preallocation = Preallocation.Off;
        while (options.Next(out char c))
        {
            if (c != 'm')
                return Truncate.Misused();
            switch (options.Value)
            {
                case "off":
                    preallocation = Preallocation.Off;
                    break;
                case "metadata":
                    preallocation = Preallocation.Metadata;
                    break;
                case "falloc":
                    preallocation = Preallocation.Falloc;
                    break;
                case "full":
                    preallocation = Preallocation.Full;
                    break;
                default:
                    Console.Report($"Invalid preallocation mode '{options.Value}'");
                    return false;
            }
        }
        if (options.Operands.Length != 1)
            return Truncate.Misused();
        if (!Numbers.TryParse(options.Operands[0], out long length))
            return false;
        try
        {
            session.Device.Resize(length, new ResizeOptions(preallocation, Exact: false));
            return true;
        }
        catch (Exception e) when (IoError.IsRequestError(e))
        {
            Console.Report(e.Message);
            return false;
        }
    }

    private static bool RunInfo(Session session, string[] arguments)
    {
        var device = session.Device;
        Console.Out($"format name: {device.DriverName}\n");
        if (session.Opener.Drivers.Find(device.DriverName)?.Kind == DriverKind.Protocol)
            Console.Out($"format name: {device.DriverName}\n");
        var details = device as IImageDetails;
        if (details is null && !HasInformation(device))
            return false;
        Console.Out($"cluster size: {Numbers.Bytes(details?.ClusterSize ?? 0)}\n");
        Console.Out($"vm state offset: {Numbers.Bytes((device as IVmStateImage)?.VmStateOffset ?? 0)}\n");
        if (details?.FormatSpecific is { } specific)
        {
            Console.Out("Format specific information:\n");
            Print(specific, 1);
        }
        return true;
    }

    /// <summary>Whether there is more to tell of a device without details: of files there is.</summary>
    private static bool HasInformation(BlockDevice device)
    {
        while (device.Storage is { } below)
            device = below;
        return device is FileDevice;
    }

    private static void Print(InfoObject o, int indent)
    {
        foreach (var (name, value) in o)
            Print(name.Replace('-', ' ') + ":", value, indent);
    }

    private static void Print(string label, object value, int indent)
    {
        string margin = new(' ', indent * 4);
        switch (value)
        {
            case InfoObject o:
                Console.Out($"{margin}{label}\n");
                Print(o, indent + 1);
                break;
            case IReadOnlyList<object> list:
                Console.Out($"{margin}{label}\n");
                for (int i = 0; i < list.Count; i++)
                    Print(string.Create(CultureInfo.InvariantCulture, $"[{i}]:"), list[i], indent + 1);
                break;
            default:
                string text = value is bool b ? (b ? "true" : "false") : Convert.ToString(value, CultureInfo.InvariantCulture) ?? "";
                Console.Out($"{margin}{label} {text}\n");
                break;
        }
    }

    private static bool RunMap(Session session, string[] arguments)
    {
        var device = session.Device;
        long length = device.Length;
        try
        {
            for (long at = 0; at < length;)
            {
                bool allocated = IsAllocated(device, at, length - at, out long count);
                while (at + count < length && IsAllocated(device, at + count, length - at - count, out long more) == allocated)
                    count += more;
                Console.Out(string.Create(CultureInfo.InvariantCulture,
                    $"{Numbers.Bytes(count)} (0x{count:x}) bytes {(allocated ? "    allocated" : "not allocated")} at offset {Numbers.Bytes(at)} (0x{at:x})\n"));
                at += count;
            }
            return true;
        }
        catch (Exception e) when (IoError.IsRequestError(e))
        {
            Console.Report("Failed to get allocation status: " + IoError.Text(e));
            return false;
        }
    }

    private static bool RunAlloc(Session session, string[] arguments)
    {
        long count = 512;
        if (!Numbers.TryParse(arguments[1], out long start) || (arguments.Length > 2 && !Numbers.TryParse(arguments[2], out count)))
            return false;
        var device = session.Device;
        long length = device.Length, sum = 0, seen = 0;
        try
        {
            while (seen < count && start + seen < length)
            {
                bool allocated = IsAllocated(device, start + seen, Math.Min(count - seen, length - start - seen), out long n);
                if (allocated)
                    sum += n;
                seen += n;
            }
        }
        catch (Exception e) when (IoError.IsRequestError(e))
        {
            Console.Out($"is_allocated failed: {IoError.Text(e)}\n");
            return false;
        }
        Console.Out(string.Create(CultureInfo.InvariantCulture, $"{sum}/{seen} bytes allocated at offset {Numbers.Bytes(start)}\n"));
        return true;
    }

    /// <summary>Whether the image itself (not what is below it) decides the content.</summary>
    private static bool IsAllocated(BlockDevice device, long offset, long count, out long length)
    {
        var e = device.GetExtent(offset, count);
        length = Math.Min(e.Length, count);
        return e.IsAllocated || e.IsZero;
    }
}
