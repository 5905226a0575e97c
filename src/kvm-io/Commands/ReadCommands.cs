using System.Globalization;
using ImgKit.Block;

namespace ImgKit.Programs.Io;

/// <summary><c>read</c> and <c>readv</c>.</summary>
internal static class ReadCommands
{
    public static IoCommand Read { get; } = new()
    {
        Name = "read",
        ShortName = "r",
        MinArguments = 2,
        MaxArguments = -1,
        Arguments = "[-abCqv] [-P pattern [-s off] [-l len]] off len",
        Summary = "reads a number of bytes at a specified offset",
        Help = """

             reads a range of bytes from the given offset

             Example:
             'read -v 512 1k' - dumps 1 kilobyte read from 512 bytes into the file

             Reads a segment of the currently open file, optionally dumping it to the
             standard output stream (with -v option) for subsequent inspection.
             -b, -- read from the VM state rather than the virtual disk
             -C, -- report statistics in a machine parsable format
             -l, -- length for pattern verification (only with -P)
             -p, -- ignored for backwards compatibility
             -P, -- use a pattern to verify read data
             -q, -- quiet mode, do not show I/O statistics
             -s, -- start offset for pattern verification (only with -P)
             -v, -- dump buffer to standard output


            """,
        Run = RunRead,
    };

    public static IoCommand ReadVector { get; } = new()
    {
        Name = "readv",
        MinArguments = 2,
        MaxArguments = -1,
        Arguments = "[-Cqv] [-P pattern] off len [len..]",
        Summary = "reads a number of bytes at a specified offset",
        Help = """

             reads a range of bytes from the given offset into multiple buffers

             Example:
             'readv -v 512 1k 1k ' - dumps 2 kilobytes read from 512 bytes into the file

             Reads a segment of the currently open file, optionally dumping it to the
             standard output stream (with -v option) for subsequent inspection.
             Uses multiple iovec buffers if more than one byte range is specified.
             -C, -- report statistics in a machine parsable format
             -P, -- use a pattern to verify read data
             -v, -- dump buffer to standard output
             -q, -- quiet mode, do not show I/O statistics


            """,
        Run = RunReadVector,
    };

    private static bool RunRead(Session session, string[] arguments)
    {
        var options = new CommandOptions(arguments, "bCl:pP:qs:v");
        bool vmState = false, terse = false, quiet = false, dump = false;
        byte? pattern = null;
        long checkAt = 0, checkLength = -1;
        bool checkRange = false;
        while (options.Next(out char c))
        {
            switch (c)
            {
                case 'b':
                    vmState = true;
                    break;
                case 'C':
                    terse = true;
                    break;
                case 'l':
                    if (!Numbers.TryParse(options.Value, out checkLength))
                        return false;
                    checkRange = true;
                    break;
                case 'p':
                    break;
                case 'P':
                    if (!Numbers.TryParsePattern(options.Value, out byte p))
                        return false;
                    pattern = p;
                    break;
                case 'q':
                    quiet = true;
                    break;
                case 's':
                    if (!Numbers.TryParse(options.Value, out checkAt))
                        return false;
                    checkRange = true;
                    break;
                case 'v':
                    dump = true;
                    break;
                default:
                    return Read.Misused();
            }
        }
        if (options.Operands.Length != 2)
            return Read.Misused();
        if (!RequestText.TryParseRange(options.Operands, out long offset, out long count))
            return false;
        if (pattern is null && checkRange)
            return Read.Misused();
        if (checkLength < 0)
            checkLength = count - checkAt;
        if (checkLength < 0 || checkAt > count - checkLength)
        {
            Console.Out("pattern verification range exceeds end of read data\n");
            return false;
        }
        if (vmState && !RequestText.AreSectors(offset, count))
            return false;

        using var buffer = new RequestBuffer(count, session.Misaligned, 0xab);
        if (!session.Perform("read", d =>
            {
                if (vmState)
                {
                    VmState(d).ReadVmState(offset, buffer.Span);
                    return;
                }
                session.CheckRange(offset, count);
                d.Read(offset, buffer.Span);
            }, out var time))
            return false;
        bool ok = pattern is not { } b || Printing.Verify(buffer.Span.Slice((int)checkAt, (int)checkLength), b, offset + checkAt);
        if (quiet)
            return ok;
        if (dump)
            Printing.Dump(buffer.Span, offset);
        Printing.Report("read", time, offset, count, count, 1, terse);
        return ok;
    }

    private static bool RunReadVector(Session session, string[] arguments)
    {
        var options = new CommandOptions(arguments, "CP:qv");
        bool terse = false, quiet = false, dump = false;
        byte? pattern = null;
        while (options.Next(out char c))
        {
            switch (c)
            {
                case 'C':
                    terse = true;
                    break;
                case 'P':
                    if (!Numbers.TryParsePattern(options.Value, out byte p))
                        return false;
                    pattern = p;
                    break;
                case 'q':
                    quiet = true;
                    break;
                case 'v':
                    dump = true;
                    break;
                default:
                    return ReadVector.Misused();
            }
        }
        if (options.Operands.Length < 2)
            return ReadVector.Misused();
        if (!RequestText.TryParseVector(options.Operands, out long offset, out long[] lengths, out long total))
            return false;

        using var buffer = new RequestBuffer(total, session.Misaligned, 0xab);
        if (!session.Perform("readv", d =>
            {
                session.CheckRange(offset, total);
                d.ReadVector(offset, buffer.Split(lengths));
            }, out var time))
            return false;
        bool ok = pattern is not { } b || Printing.Verify(buffer.Span, b, offset);
        if (quiet)
            return ok;
        if (dump)
            Printing.Dump(buffer.Span, offset);
        Printing.Report("read", time, offset, total, total, 1, terse);
        return ok;
    }

    /// <summary>The image's room for machine state.</summary>
    /// <exception cref="NotSupportedException">it has none.</exception>
    public static IVmStateImage VmState(BlockDevice device)
    {
        for (BlockDevice? d = device; d is not null; d = d.Storage)
            if (d is IVmStateImage v)
                return v;
        throw new NotSupportedException($"{device.DriverName} holds no machine state");
    }
}

/// <summary>Offsets and lengths of requests.</summary>
internal static class RequestText
{
    /// <summary>Offset and length; says what is wrong.</summary>
    public static bool TryParseRange(ReadOnlySpan<string> operands, out long offset, out long count, bool unlimited = false)
    {
        count = 0;
        if (!Numbers.TryParse(operands[0], out offset) || !Numbers.TryParse(operands[1], out count))
            return false;
        if (count <= Numbers.MaxRequest || unlimited)
            return true;
        Console.Out(string.Create(CultureInfo.InvariantCulture, $"length cannot exceed {Numbers.MaxRequest}, given {operands[1]}\n"));
        return false;
    }

    /// <summary>Offset and lengths; says what is wrong.</summary>
    public static bool TryParseVector(ReadOnlySpan<string> operands, out long offset, out long[] lengths, out long total)
    {
        lengths = new long[operands.Length - 1];
        total = 0;
        if (!Numbers.TryParse(operands[0], out offset))
            return false;
        for (int i = 0; i < lengths.Length; i++)
        {
            if (!Numbers.TryParse(operands[i + 1], out lengths[i]))
                return false;
            if (lengths[i] > Numbers.MaxRequest)
            {
                Console.Out(string.Create(CultureInfo.InvariantCulture,
                    $"Argument '{operands[i + 1]}' exceeds maximum size {Numbers.MaxRequest}\n"));
                return false;
            }
            total += lengths[i];
            if (total > Numbers.MaxRequest)
            {
                Console.Out(string.Create(CultureInfo.InvariantCulture,
                    $"The total number of bytes exceed the maximum size {Numbers.MaxRequest}\n"));
                return false;
            }
        }
        return true;
    }

    /// <summary>Whether both are whole sectors; says so when not.</summary>
    public static bool AreSectors(long offset, long count)
    {
        if (offset % 512 != 0)
            Console.Out(string.Create(CultureInfo.InvariantCulture, $"{offset} is not a sector-aligned value for 'offset'\n"));
        else if (count % 512 != 0)
            Console.Out(string.Create(CultureInfo.InvariantCulture, $"{count} is not a sector-aligned value for 'count'\n"));
        else
            return true;
        return false;
    }
}
