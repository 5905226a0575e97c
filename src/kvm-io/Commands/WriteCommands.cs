namespace ImgKit.Programs.Io;

/// <summary><c>write</c> and <c>writev</c>.</summary>
internal static class WriteCommands
{
    public static IoCommand Write { get; } = new()
    {
        Name = "write",
        ShortName = "w",
        MinArguments = 2,
        MaxArguments = -1,
        Access = CommandAccess.Write,
        Arguments = "[-bcCfnquz] [-P pattern | -s source_file] off len",
        Summary = "writes a number of bytes at a specified offset",
        Help = """

             writes a range of bytes from the given offset

             Example:
             'write 512 1k' - writes 1 kilobyte at 512 bytes into the open file

             Writes into a segment of the currently open file, using a buffer
             filled with a set pattern (0xcdcdcdcd).
             -b, -- write to the VM state rather than the virtual disk
             -c, -- write compressed data with blk_write_compressed
             -f, -- use Force Unit Access semantics
             -n, -- with -z, don't allow slow fallback
             -p, -- ignored for backwards compatibility
             -P, -- use different pattern to fill file
             -s, -- use a pattern file to fill the write buffer
             -C, -- report statistics in a machine parsable format
             -q, -- quiet mode, do not show I/O statistics
             -u, -- with -z, allow unmapping
             -z, -- write zeroes using blk_co_pwrite_zeroes


            """,
        Run = RunWrite,
    };

    public static IoCommand WriteVector { get; } = new()
    {
        Name = "writev",
        MinArguments = 2,
        MaxArguments = -1,
        Access = CommandAccess.Write,
        Arguments = "[-Cfq] [-P pattern] off len [len..]",
        Summary = "writes a number of bytes at a specified offset",
        Help = """

             writes a range of bytes from the given offset source from multiple buffers

             Example:
             'writev 512 1k 1k' - writes 2 kilobytes at 512 bytes into the open file

             Writes into a segment of the currently open file, using a buffer
             filled with a set pattern (0xcdcdcdcd).
             -P, -- use different pattern to fill file
             -C, -- report statistics in a machine parsable format
             -f, -- use Force Unit Access semantics
             -q, -- quiet mode, do not show I/O statistics


            """,
        Run = RunWriteVector,
    };

    private static bool RunWrite(Session session, string[] arguments) =>
        Run(session, "write", IoRequest.Parse(Write, arguments, "bcCfnpP:qs:uz", vector: false));

    private static bool RunWriteVector(Session session, string[] arguments) =>
        Run(session, "writev", IoRequest.Parse(WriteVector, arguments, "CfqP:", vector: true));

    private static bool Run(Session session, string name, IoRequest? request)
    {
        if (request is null || Transfer.OfWrite(session, request) is not { } transfer)
            return false;
        using (transfer)
            return session.Perform(name, transfer.Run, out var time) && transfer.Report(time);
    }
}
