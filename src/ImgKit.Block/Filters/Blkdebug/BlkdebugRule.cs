using System.Globalization;

namespace ImgKit.Block.Filters.Blkdebug;

/// <summary>What a rule does.</summary>
internal enum BlkdebugAction
{
    InjectError,
    SetState,
    Suspend,
}

/// <summary>The kinds of requests that an error can be injected into.</summary>
[Flags]
internal enum BlkdebugRequest
{
    Read = 1,
    Write = 2,
    WriteZeroes = 4,
    Discard = 8,
    Flush = 16,
    BlockStatus = 32,

    /// <summary>What a rule without <c>iotype</c> is for.</summary>
    Usual = Read | Write | WriteZeroes | Discard | Flush,
}

/// <summary>A rule: at an event, in a state, something is done.</summary>
internal sealed class BlkdebugRule
{
    public required BlkdebugAction Action { get; init; }

    public required BlockDebugEvent Event { get; init; }

    /// <summary>0: in any state.</summary>
    public int State { get; init; }

    public int NewState { get; init; }

    public int Errno { get; init; } = 5;

    /// <summary>Byte offset that a request must touch, or -1.</summary>
    public long Offset { get; init; } = -1;

    public bool Once { get; init; }

    public BlkdebugRequest Requests { get; init; } = BlkdebugRequest.Usual;

    /// <summary>Of a breakpoint.</summary>
    public string Tag { get; init; } = "";

    /// <summary>Reads a rule's options.</summary>
    public static BlkdebugRule Parse(BlkdebugAction action, BlockOptions options)
    {
        string name = options.TakeString("event") ?? throw Invalid("Missing event name for rule");
        if (!BlockDebugEvents.TryParse(name, out var e))
            throw Invalid($"invalid parameter value: {name}");
        int state = Number(options, "state", 0);
        BlkdebugRule rule;
        if (action == BlkdebugAction.SetState)
        {
            rule = new BlkdebugRule { Action = action, Event = e, State = state, NewState = Number(options, "new_state", 0) };
        }
        else
        {
            long sector = options.TakeString("sector") is { } s
                ? long.TryParse(s, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out long n) ? n : throw Invalid("Parameter 'sector' expects a number")
                : -1;
            rule = new BlkdebugRule
            {
                Action = action,
                Event = e,
                State = state,
                Errno = Number(options, "errno", 5),
                Offset = sector < 0 ? -1 : checked(sector * 512),
                Once = options.TakeBool("once") ?? false,
                Requests = RequestsOf(options.TakeString("iotype")),
            };
            // Errors are reported when they happen here, in any case.
            _ = options.TakeBool("immediately");
        }
        if (!options.IsEmpty)
            throw Invalid($"[{(action == BlkdebugAction.SetState ? "set-state" : "inject-error")}] section doesn't support the option '{options.Entries[0].Key}'");
        return rule;
    }

    private static BlkdebugRequest RequestsOf(string? text) => text switch
    {
        null => BlkdebugRequest.Usual,
        "read" => BlkdebugRequest.Read,
        "write" => BlkdebugRequest.Write,
        "write-zeroes" => BlkdebugRequest.WriteZeroes,
        "discard" => BlkdebugRequest.Discard,
        "flush" => BlkdebugRequest.Flush,
        "block-status" => BlkdebugRequest.BlockStatus,
        _ => throw Invalid($"Invalid iotype value: {text}"),
    };

    private static int Number(BlockOptions options, string name, int fallback)
    {
        string? text = options.TakeString(name);
        return text is null ? fallback
            : int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out int n) ? n : throw Invalid($"Parameter '{name}' expects a number");
    }

    private static ImageException Invalid(string message) => new(ImageErrorKind.InvalidArgument, message);
}
