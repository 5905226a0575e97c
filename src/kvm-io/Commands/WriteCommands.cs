using System.Globalization;
using ImgKit.Block;

namespace ImgKit.Programs.Io;

/// <summary><c>write</c> and <c>writev</c>.</summary>
internal static class WriteCommands
{
    private const byte DefaultPattern = 0xcd;

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

    private static bool RunWrite(Session session, string[] arguments)
    {
        var options = new CommandOptions(arguments, "bcCfnpP:qs:uz");
        bool vmState = false, compressed = false, terse = false, fua = false, noFallback = false, quiet = false, unmap = false, zero = false;
        byte? pattern = null;
        string? sourceFile = null;
        while (options.Next(out char c))
        {
            switch (c)
            {
                case 'b':
                    vmState = true;
                    break;
                case 'c':
                    compressed = true;
                    break;
                case 'C':
                    terse = true;
                    break;
                case 'f':
                    fua = true;
                    break;
                case 'n':
                    noFallback = true;
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
                    sourceFile = options.Value;
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
        if (options.Operands.Length != 2)
            return Write.Misused();
        string? conflict = vmState && zero ? "-b and -z cannot be specified at the same time"
            : fua && (vmState || compressed) ? "-f and -b or -c cannot be specified at the same time"
            : noFallback && !zero ? "-n requires -z to be specified"
            : unmap && !zero ? "-u requires -z to be specified"
            : (zero ? 1 : 0) + (pattern is null ? 0 : 1) + (sourceFile is null ? 0 : 1) > 1 ? "Only one of -z, -P, and -s can be specified at the same time"
            : null;
        if (conflict is not null)
        {
            Console.Out(conflict + "\n");
            return false;
        }
        if (!RequestText.TryParseRange(options.Operands, out long offset, out long count, unlimited: true))
            return false;
        if (count > Numbers.MaxRequest && !(zero && noFallback))
        {
            Console.Out(string.Create(CultureInfo.InvariantCulture,
                $"length cannot exceed {Numbers.MaxRequest}{(zero ? " without -n" : "")}, given {options.Operands[1]}\n"));
            return false;
        }
        if ((vmState || compressed) && !RequestText.AreSectors(offset, count))
            return false;

        using var buffer = zero ? null : new RequestBuffer(count, session.Misaligned, pattern ?? DefaultPattern);
        if (sourceFile is not null && !PatternFile.Fill(buffer!.Span, sourceFile))
            return false;
        if (!session.Perform("write", d =>
            {
                if (vmState)
                {
                    ReadCommands.VmState(d).WriteVmState(offset, buffer!.Span);
                    return;
                }
                session.CheckRange(offset, count);
                if (zero)
                    d.WriteZeroes(offset, count, (unmap ? ZeroOptions.MayUnmap : 0) | (noFallback ? ZeroOptions.NoFallback : 0));
                else if (compressed)
                    WriteCompressed(d, offset, buffer!.Span);
                else
                    d.Write(offset, buffer!.Span);
                if (fua)
                    d.Flush();
            }, out var time))
            return false;
        if (!quiet)
            Printing.Report("wrote", time, offset, count, count, 1, terse);
        return true;
    }

    private static void WriteCompressed(BlockDevice device, long offset, ReadOnlySpan<byte> data)
    {
        var target = CompressingDevice(device);
        int unit = target.CompressionUnit;
        if (offset % unit != 0 || (data.Length % unit != 0 && offset + data.Length != device.Length))
            throw new ImageException(ImageErrorKind.InvalidArgument, "compressed writes are whole clusters", device.FileName, offset);
        byte[] packed = new byte[target.MaxCompressedLength];
        while (!data.IsEmpty)
        {
            var piece = data[..Math.Min(unit, data.Length)];
            int n = target.Compress(piece, packed);
            if (n < 0)
                device.Write(offset, piece);
            else
                target.WriteCompressed(offset, packed.AsSpan(0, n), piece.Length);
            data = data[piece.Length..];
            offset += piece.Length;
        }
    }

    private static ICompressingDevice CompressingDevice(BlockDevice device)
    {
        for (BlockDevice? d = device; d is not null; d = d.Storage)
            if (d is ICompressingDevice c)
                return c;
        throw new NotSupportedException($"{device.DriverName} does not compress");
    }

    private static bool RunWriteVector(Session session, string[] arguments)
    {
        var options = new CommandOptions(arguments, "CfqP:");
        bool terse = false, fua = false, quiet = false;
        byte pattern = DefaultPattern;
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
                case 'q':
                    quiet = true;
                    break;
                case 'P':
                    if (!Numbers.TryParsePattern(options.Value, out pattern))
                        return false;
                    break;
                default:
                    return WriteVector.Misused();
            }
        }
        if (options.Operands.Length < 2)
            return WriteVector.Misused();
        if (!RequestText.TryParseVector(options.Operands, out long offset, out long[] lengths, out long total))
            return false;

        using var buffer = new RequestBuffer(total, session.Misaligned, pattern);
        if (!session.Perform("writev", d =>
            {
                session.CheckRange(offset, total);
                d.WriteVector(offset, buffer.Split(lengths));
                if (fua)
                    d.Flush();
            }, out var time))
            return false;
        if (!quiet)
            Printing.Report("wrote", time, offset, total, total, 1, terse);
        return true;
    }
}
