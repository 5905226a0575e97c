using System.Globalization;

namespace ImgKit.Block.Filters;

/// <summary>
/// Several copies of one disk, <c>children.N</c>: writes go to all, a read counts when enough of them agree. Up to a minority may fail
/// or lie.
/// </summary>
internal sealed class QuorumDevice : BlockDevice
{
    private readonly BlockDevice[] _children;
    private readonly int _threshold;
    private readonly bool _rewrite;
    private readonly bool _firstOnly;

    /// <summary>Held by each change: two that overlap leave the same in all copies. Held by a read only when copies differ: what one of them has
    /// already and another has not yet is not to be taken for damage.</summary>
    private readonly Lock _changing = new();

    private QuorumDevice(BlockDevice[] children, int threshold, bool rewrite, bool firstOnly)
    {
        _children = children;
        _threshold = threshold;
        _rewrite = rewrite;
        _firstOnly = firstOnly;
        string list = string.Join(", ", children.Select(static c => $"{{\"driver\": \"{c.DriverName}\", \"filename\": \"{c.FileName}\"}}"));
        FileName = $"json:{{\"driver\": \"quorum\", \"vote-threshold\": {threshold}, \"children\": [{list}]}}";
    }

    /// <summary>The declaration.</summary>
    public static BlockDriver Driver { get; } = new()
    {
        Name = "quorum",
        Kind = DriverKind.Filter,
        Description = "Several copies of a disk that vote",
        Open = Open,
        OpenOptions =
        [
            new("vote-threshold", OptionType.Number, "The number of vote needed for reaching quorum"),
            new("blkverify", OptionType.Bool, "Trigger block verify mode if set", "off"),
            new("rewrite-corrupted", OptionType.Bool, "Rewrite corrupted block on read quorum", "off"),
            new("read-pattern", OptionType.Enum, "Allowed pattern: quorum, fifo. Quorum is default", "quorum", ["quorum", "fifo"]),
        ],
    };

    public override string DriverName => "quorum";

    public override long Length => _children.Min(static c => c.Length);

    public override bool IsReadOnly => Array.Exists(_children, static c => c.IsReadOnly);

    public override long AllocatedHostBytes => _children.Sum(static c => c.AllocatedHostBytes);

    private static QuorumDevice Open(OpenContext context)
    {
        var o = context.Options;
        long? threshold = o.TakeNumber("vote-threshold");
        bool verify = o.TakeBool("blkverify") ?? false, rewrite = o.TakeBool("rewrite-corrupted") ?? false;
        string pattern = o.TakeString("read-pattern") ?? "quorum";
        if (pattern is not ("quorum" or "fifo"))
            throw Invalid($"Parameter 'read-pattern' does not accept value '{pattern}'");
        var children = new List<BlockDevice>();
        try
        {
            for (int i = 0; ; i++)
            {
                string name = "children." + i.ToString(CultureInfo.InvariantCulture);
                if (!o.ContainsChild(name) && !o.Contains(name))
                    break;
                children.Add(context.Opener.OpenChild(context, name, null, context.IsStorage));
            }
            if (children.Count == 0)
                throw Invalid("Number of provided children must be 1 or more");
            if (pattern == "quorum" && threshold is null)
                throw Invalid("Parameter 'vote-threshold' expects a value in range [1, children]");
            long votes = threshold ?? 1;
            if (votes < 1)
                throw Invalid("Parameter 'vote-threshold' expects a value >= 1");
            if (votes > children.Count)
                throw Invalid("threshold may not exceed children count");
            if (verify && (children.Count != 2 || votes != 2))
                throw Invalid("blkverify=on can only be set if there are exactly two files and vote-threshold is 2");
            if (verify && rewrite)
                throw Invalid("rewrite-corrupted=on cannot be used with blkverify=on");
            return new QuorumDevice([.. children], (int)votes, rewrite, pattern == "fifo");
        }
        catch
        {
            foreach (var c in children)
                c.Dispose();
            throw;
        }
    }

    public override void Read(long offset, Span<byte> destination)
    {
        CheckRange(offset, destination.Length);
        if (_firstOnly)
            ReadFirst(offset, destination);
        else
            ReadAndVote(offset, destination);
    }

    public override void Write(long offset, ReadOnlySpan<byte> source)
    {
        CheckRange(offset, source.Length);
        int done = 0;
        Exception? failure = null;
        lock (_changing)
        {
            foreach (var c in _children)
            {
                try
                {
                    c.Write(offset, source);
                    done++;
                }
                catch (Exception e) when (e is IOException or ImageException)
                {
                    failure = e;
                }
            }
        }
        Require(done, failure, "write", offset);
    }

    public override void WriteZeroes(long offset, long count, ZeroOptions options = ZeroOptions.None)
    {
        CheckRange(offset, count);
        lock (_changing)
            ForAll(c => c.WriteZeroes(offset, count, options & ~ZeroOptions.NoFallback), "zero", offset);
    }

    public override void Discard(long offset, long count)
    {
        CheckRange(offset, count);
        // What a range reads as after a discard need not be the same everywhere, so none is passed on.
    }

    public override void Flush() => ForAll(static c => c.Flush(), "flush", 0);

    protected override void Dispose(bool disposing)
    {
        foreach (var c in _children)
            c.Dispose();
    }

    private void ReadFirst(long offset, Span<byte> destination)
    {
        Exception? failure = null;
        foreach (var c in _children)
        {
            try
            {
                c.Read(offset, destination);
                return;
            }
            catch (Exception e) when (e is IOException or ImageException)
            {
                failure = e;
            }
        }
        Require(0, failure, "read", offset);
    }

    private void ReadAndVote(long offset, Span<byte> destination)
    {
        byte[] all = System.Buffers.ArrayPool<byte>.Shared.Rent(checked(destination.Length * _children.Length));
        try
        {
            if (TryVote(offset, destination, all, last: false))
                return;
            lock (_changing)
                TryVote(offset, destination, all, last: true);
        }
        finally
        {
            System.Buffers.ArrayPool<byte>.Shared.Return(all);
        }
    }

    /// <summary>Reads all copies, and takes what most of them say.</summary>
    /// <param name="offset">bytes.</param>
    /// <param name="destination">receives it.</param>
    /// <param name="all">room for all copies.</param>
    /// <param name="last">nobody changes anything meanwhile: what differs is wrong. Else only what all agree on is taken.</param>
    private bool TryVote(long offset, Span<byte> destination, byte[] all, bool last)
    {
        int length = destination.Length;
        Span<bool> read = stackalloc bool[_children.Length];
        Exception? failure = null;
        for (int i = 0; i < _children.Length; i++)
        {
            try
            {
                _children[i].Read(offset, all.AsSpan(i * length, length));
                read[i] = true;
            }
            catch (Exception e) when (e is IOException or ImageException)
            {
                failure = e;
            }
        }
        int best = -1, bestVotes = 0;
        for (int i = 0; i < _children.Length; i++)
        {
            int votes = 0;
            for (int j = 0; read[i] && j < _children.Length; j++)
                if (read[j] && all.AsSpan(i * length, length).SequenceEqual(all.AsSpan(j * length, length)))
                    votes++;
            if (votes > bestVotes)
                (best, bestVotes) = (i, votes);
        }
        if (!last && bestVotes < _children.Length)
            return false;
        Require(bestVotes, failure, "read", offset);
        var winner = all.AsSpan(best * length, length);
        winner.CopyTo(destination);
        for (int i = 0; _rewrite && i < _children.Length; i++)
            if (!read[i] || !all.AsSpan(i * length, length).SequenceEqual(winner))
                Rewrite(_children[i], offset, winner);
        return true;
    }

    private static void Rewrite(BlockDevice copy, long offset, ReadOnlySpan<byte> content)
    {
        try
        {
            copy.Write(offset, content);
        }
        catch (Exception e) when (e is IOException or ImageException)
        {
            // It stays as wrong as it was; what was asked for is known.
        }
    }

    private void ForAll(Action<BlockDevice> act, string what, long offset)
    {
        int done = 0;
        Exception? failure = null;
        foreach (var c in _children)
        {
            try
            {
                act(c);
                done++;
            }
            catch (Exception e) when (e is IOException or ImageException)
            {
                failure = e;
            }
        }
        Require(done, failure, what, offset);
    }

    private void Require(int votes, Exception? failure, string what, long offset)
    {
        if (votes >= (_firstOnly ? 1 : _threshold))
            return;
        throw new ImageException(ImageErrorKind.Io, "Input/output error", FileName, offset, failure)
        {
            Errno = 5,
            Operation = $"{what} at offset {offset}: {votes} of {_children.Length} copies agree, {_threshold} are needed",
        };
    }

    private static ImageException Invalid(string message) => new(ImageErrorKind.InvalidArgument, message);
}
