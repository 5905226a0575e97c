namespace ImgKit.Programs.Io;

/// <summary>Letters of requests that have no value.</summary>
[Flags]
internal enum RequestFlags
{
    None = 0,

    /// <summary><c>-b</c>: the room for machine state instead of the disk.</summary>
    VmState = 1,

    /// <summary><c>-c</c>: store compressed.</summary>
    Compressed = 2,

    /// <summary><c>-C</c>: report for programs.</summary>
    Terse = 4,

    /// <summary><c>-f</c>: on stable storage before it ends.</summary>
    Fua = 8,

    /// <summary><c>-i</c>: count as invalid instead of doing anything.</summary>
    Invalid = 16,

    /// <summary><c>-n</c>: zero fast or fail.</summary>
    NoFallback = 32,

    /// <summary><c>-q</c>: report nothing.</summary>
    Quiet = 64,

    /// <summary><c>-u</c>: zeroing may give space back.</summary>
    Unmap = 128,

    /// <summary><c>-v</c>: dump what was read.</summary>
    Dump = 256,

    /// <summary><c>-z</c>: write zeroes without a buffer.</summary>
    Zero = 512,
}

/// <summary>A request (read, write, their vectored and asynchronous forms, discard) as its command line asks for it.</summary>
internal sealed record IoRequest
{
    public RequestFlags Flags { get; init; }

    /// <summary><c>-P</c>: the byte to write, or to compare with.</summary>
    public byte? Pattern { get; init; }

    /// <summary><c>-s</c> of a write: a file with the bytes to write.</summary>
    public string? SourceFile { get; init; }

    /// <summary><c>-s</c> of a read: where comparing begins, in bytes from the offset; null: not given.</summary>
    public long? CheckStart { get; init; }

    /// <summary><c>-l</c> of a read: how many bytes are compared; null: not given.</summary>
    public long? CheckLength { get; init; }

    /// <summary>Bytes.</summary>
    public long Offset { get; init; }

    /// <summary>The buffers, in bytes.</summary>
    public long[] Lengths { get; init; } = [];

    /// <summary>Bytes of all buffers.</summary>
    public long Total { get; init; }

    public bool Has(RequestFlags flag) => (Flags & flag) != 0;

    /// <summary>Reads a command line.</summary>
    /// <param name="command">says how it is used when it is misused.</param>
    /// <param name="arguments">with the command's name in front.</param>
    /// <param name="letters">that the command knows, as getopt takes them.</param>
    /// <param name="vector">any number of lengths may be given.</param>
    /// <returns>null: it makes no sense, which has been said.</returns>
    public static IoRequest? Parse(IoCommand command, string[] arguments, string letters, bool vector)
    {
        var options = new CommandOptions(arguments, letters);
        var request = new IoRequest();
        while (options.Next(out char letter))
        {
            if (letter == '?')
            {
                command.PrintUsage();
                return null;
            }
            if (request.With(letter, options.Value, isWrite: command.Access == CommandAccess.Write) is not { } changed)
                return null;
            request = changed;
            if (request.Has(RequestFlags.Invalid))
                return request;
        }
        var operands = options.Operands;
        if (vector ? operands.Length < 2 : operands.Length != 2)
        {
            command.PrintUsage();
            return null;
        }
        return request.Conflict(vector, operands.Length) is { } conflict ? Refused($"{conflict}")
            : request.WithRange(command, operands, vector, mayZero: letters.Contains('z', StringComparison.Ordinal));
    }

    /// <summary>With a letter taken; null: its value makes no sense, which has been said.</summary>
    private IoRequest? With(char letter, string value, bool isWrite)
    {
        switch (letter)
        {
            case 'l':
                return Numbers.TryParse(value, out long length) ? this with { CheckLength = length } : null;
            case 'p':
                // Was a way of I/O once.
                return this;
            case 'P':
                return Numbers.TryParsePattern(value, out byte pattern) ? this with { Pattern = pattern } : null;
            case 's' when isWrite:
                return this with { SourceFile = value };
            case 's':
                return Numbers.TryParse(value, out long start) ? this with { CheckStart = start } : null;
            default:
                return this with { Flags = Flags | FlagOf(letter) };
        }
    }

    private static RequestFlags FlagOf(char letter) => letter switch
    {
        'b' => RequestFlags.VmState,
        'c' => RequestFlags.Compressed,
        'C' => RequestFlags.Terse,
        'f' => RequestFlags.Fua,
        'i' => RequestFlags.Invalid,
        'n' => RequestFlags.NoFallback,
        'q' => RequestFlags.Quiet,
        'u' => RequestFlags.Unmap,
        'v' => RequestFlags.Dump,
        'z' => RequestFlags.Zero,
        _ => throw new ArgumentOutOfRangeException(nameof(letter)),
    };

    /// <summary>What cannot be asked for at the same time, or null.</summary>
    private string? Conflict(bool vector, int operands)
    {
        bool zero = Has(RequestFlags.Zero);
        return Has(RequestFlags.VmState) && zero ? "-b and -z cannot be specified at the same time"
            : Has(RequestFlags.Fua) && Has(RequestFlags.VmState | RequestFlags.Compressed) ? "-f and -b or -c cannot be specified at the same time"
            : Has(RequestFlags.NoFallback) && !zero ? "-n requires -z to be specified"
            : vector && zero && operands != 2 ? "-z supports only a single length parameter"
            : Has(RequestFlags.Unmap) && !zero ? "-u requires -z to be specified"
            : !vector && (zero ? 1 : 0) + (Pattern is null ? 0 : 1) + (SourceFile is null ? 0 : 1) > 1
                ? "Only one of -z, -P, and -s can be specified at the same time"
            : null;
    }

    /// <summary>With offset and lengths, checked; null: they make no sense, which has been said.</summary>
    private IoRequest? WithRange(IoCommand command, ReadOnlySpan<string> operands, bool vector, bool mayZero)
    {
        bool zero = Has(RequestFlags.Zero);
        long offset, total;
        long[] lengths;
        if (vector && !zero)
        {
            if (!RequestText.TryParseVector(operands, out offset, out lengths, out total))
                return null;
        }
        else
        {
            if (!RequestText.TryParseRange(operands, out offset, out total))
                return null;
            if (total > Numbers.MaxRequest && !(zero && (vector || Has(RequestFlags.NoFallback))))
                return Refused($"length cannot exceed {Numbers.MaxRequest}{(mayZero ? " without -n" : "")}, given {operands[1]}");
            lengths = [total];
        }
        if (Pattern is null && (CheckStart ?? CheckLength) is not null)
        {
            command.PrintUsage();
            return null;
        }
        long checkStart = CheckStart ?? 0, checkLength = CheckLength ?? total - checkStart;
        if (checkLength < 0 || checkStart > total - checkLength)
            return Refused($"pattern verification range exceeds end of read data");
        if (Has(RequestFlags.VmState | RequestFlags.Compressed) && !RequestText.AreSectors(offset, total))
            return null;
        return this with { Offset = offset, Lengths = lengths, Total = total, CheckStart = checkStart, CheckLength = checkLength };
    }

    private static IoRequest? Refused(FormattableString message)
    {
        RequestText.Refuse(message);
        return null;
    }
}
