using ImgKit.Block;

namespace ImgKit.Programs.Io;

/// <summary><c>aio_read</c>, <c>aio_write</c> and <c>aio_flush</c>.</summary>
internal static class AsyncCommands
{
    public static IoCommand Read { get; } = new()
    {
        Name = "aio_read",
        MinArguments = 2,
        MaxArguments = -1,
        Arguments = "[-Ciqv] [-P pattern] off len [len..]",
        Summary = "asynchronously reads a number of bytes",
        Help = """

             asynchronously reads a range of bytes from the given offset

             Example:
             'aio_read -v 512 1k 1k ' - dumps 2 kilobytes read from 512 bytes into the file

             Reads a segment of the currently open file, optionally dumping it to the
             standard output stream (with -v option) for subsequent inspection.
             The read is performed asynchronously and the aio_flush command must be
             used to ensure all outstanding aio requests have been completed.
             Note that due to its asynchronous nature, this command will be
             considered successful once the request is submitted, independently
             of potential I/O errors or pattern mismatches.
             -C, -- report statistics in a machine parsable format
             -P, -- use a pattern to verify read data
             -i, -- treat request as invalid, for exercising stats
             -v, -- dump buffer to standard output
             -q, -- quiet mode, do not show I/O statistics


            """,
        Run = RunRead,
    };

    public static IoCommand Write { get; } = new()
    {
        Name = "aio_write",
        MinArguments = 2,
        MaxArguments = -1,
        Access = CommandAccess.Write,
        Arguments = "[-Cfiquz] [-P pattern] off len [len..]",
        Summary = "asynchronously writes a number of bytes",
        Help = """

             asynchronously writes a range of bytes from the given offset source
             from multiple buffers

             Example:
             'aio_write 512 1k 1k' - writes 2 kilobytes at 512 bytes into the open file

             Writes into a segment of the currently open file, using a buffer
             filled with a set pattern (0xcdcdcdcd).
             The write is performed asynchronously and the aio_flush command must be
             used to ensure all outstanding aio requests have been completed.
             Note that due to its asynchronous nature, this command will be
             considered successful once the request is submitted, independently
             of potential I/O errors or pattern mismatches.
             -P, -- use different pattern to fill file
             -C, -- report statistics in a machine parsable format
             -f, -- use Force Unit Access semantics
             -i, -- treat request as invalid, for exercising stats
             -q, -- quiet mode, do not show I/O statistics
             -u, -- with -z, allow unmapping
             -z, -- write zeroes using blk_aio_pwrite_zeroes


            """,
        Run = RunWrite,
    };

    public static IoCommand Flush { get; } = new()
    {
        Name = "aio_flush",
        Summary = "completes all outstanding aio requests",
        Run = (session, _) =>
        {
            session.Async.WaitForAll();
            return true;
        },
    };

    private static bool RunRead(Session session, string[] arguments)
    {
        var options = new CommandOptions(arguments, "CP:iqv");
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
                case 'i':
                    Console.Out("injecting invalid read request\n");
                    return true;
                case 'q':
                    quiet = true;
                    break;
                case 'v':
                    dump = true;
                    break;
                default:
                    return Read.Misused();
            }
        }
        if (options.Operands.Length < 2)
            return Read.Misused();
        if (!RequestText.TryParseVector(options.Operands, out long offset, out long[] lengths, out long total))
            return false;

        var buffer = new RequestBuffer(total, session.Misaligned, 0xab);
        var device = session.Device;
        session.Async.Start(() =>
        {
            session.CheckRange(offset, total);
            device.ReadVector(offset, buffer.Split(lengths));
        }, (error, time) =>
        {
            if (error is not null)
            {
                Console.Out($"readv failed: {IoError.Text(error)}\n");
            }
            else
            {
                if (pattern is { } b)
                    _ = Printing.Verify(buffer.Span, b, offset);
                if (!quiet)
                {
                    if (dump)
                        Printing.Dump(buffer.Span, offset);
                    Printing.Report("read", time, offset, total, total, 1, terse);
                }
            }
            buffer.Dispose();
        });
        return true;
    }

    private static bool RunWrite(Session session, string[] arguments)
    {
        var options = new CommandOptions(arguments, "CfiP:quz");
        bool terse = false, fua = false, quiet = false, unmap = false, zero = false;
        byte pattern = 0xcd;
        while (options.Next(out char c))
        {
            switch (c)
            {
                case 'C':
                    terse = true;
                    break;
                case 'f':
                    fua = true;
                    break;
                case 'i':
                    Console.Out("injecting invalid write request\n");
                    return true;
                case 'P':
                    if (!Numbers.TryParsePattern(options.Value, out pattern))
                        return false;
                    break;
                case 'q':
                    quiet = true;
                    break;
                case 'u':
                    unmap = true;
                    break;
                case 'z':
                    zero = true;
                    break;
                default:
                    return Write.Misused();
            }
        }
        var operands = options.Operands;
        if (operands.Length < 2)
            return Write.Misused();
        if (zero && operands.Length != 2)
        {
            Console.Out("-z supports only a single length parameter\n");
            return false;
        }
        if (unmap && !zero)
        {
            Console.Out("-u requires -z to be specified\n");
            return false;
        }
        long[] lengths = [];
        if (zero ? !RequestText.TryParseRange(operands, out long offset, out long total, unlimited: true)
                : !RequestText.TryParseVector(operands, out offset, out lengths, out total))
            return false;

        var buffer = zero ? null : new RequestBuffer(total, session.Misaligned, pattern);
        var device = session.Device;
        session.Async.Start(() =>
        {
            session.CheckRange(offset, total);
            if (buffer is null)
                device.WriteZeroes(offset, total, unmap ? ZeroOptions.MayUnmap : ZeroOptions.None);
            else
                device.WriteVector(offset, buffer.Split(lengths));
            if (fua)
                device.Flush();
        }, (error, time) =>
        {
            if (error is not null)
                Console.Out($"aio_write failed: {IoError.Text(error)}\n");
            else if (!quiet)
                Printing.Report("wrote", time, offset, total, total, 1, terse);
            buffer?.Dispose();
        });
        return true;
    }
}
