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
        if (IoRequest.Parse(Read, arguments, "CP:iqv", vector: true) is not { } request)
            return false;
        if (request.Has(RequestFlags.Invalid))
            return Injected("read");
        Start(session, Transfer.OfRead(session, request), "readv");
        return true;
    }

    private static bool RunWrite(Session session, string[] arguments)
    {
        if (IoRequest.Parse(Write, arguments, "CfiP:quz", vector: true) is not { } request)
            return false;
        if (request.Has(RequestFlags.Invalid))
            return Injected("write");
        if (Transfer.OfWrite(session, request) is not { } transfer)
            return false;
        Start(session, transfer, "aio_write");
        return true;
    }

    private static bool Injected(string what)
    {
        Console.Out($"injecting invalid {what} request\n");
        return true;
    }

    /// <summary>Starts a request; what comes of it does not change what its command has returned.</summary>
    private static void Start(Session session, Transfer transfer, string name)
    {
        var device = session.Device;
        session.Async.Start(() => transfer.Run(device), (error, time) =>
        {
            using (transfer)
            {
                if (error is not null)
                    Console.Out($"{name} failed: {IoError.Text(error)}\n");
                else
                    transfer.Report(time);
            }
        });
    }
}
