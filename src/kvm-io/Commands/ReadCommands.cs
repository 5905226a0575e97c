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

    private static bool RunRead(Session session, string[] arguments) =>
        Run(session, "read", IoRequest.Parse(Read, arguments, "bCl:pP:qs:v", vector: false));

    private static bool RunReadVector(Session session, string[] arguments) =>
        Run(session, "readv", IoRequest.Parse(ReadVector, arguments, "CP:qv", vector: true));

    private static bool Run(Session session, string name, IoRequest? request)
    {
        if (request is null)
            return false;
        using var transfer = Transfer.OfRead(session, request);
        return session.Perform(name, transfer.Run, out var time) && transfer.Report(time);
    }
}
