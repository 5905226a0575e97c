using ImgKit.Block.Jobs.Digest;

namespace ImgKit.Block.Jobs.Convert;

/// <summary>What <see cref="ConvertJob"/> copies, and how.</summary>
public sealed record ConvertRequest
{
    /// <summary>Read one behind the other as one disk. Opened by the caller, who also closes them.</summary>
    public required IReadOnlyList<BlockDevice> Sources { get; init; }

    /// <summary>Written; at least as long as the sources together (a longer rest becomes zeroes unless <see cref="TargetIsZero"/>).</summary>
    public required BlockDevice Target { get; init; }

    /// <summary>The target reads as zeroes all over (it was just created, or the user says so), so zeroes need not be written.</summary>
    public bool TargetIsZero { get; init; }

    /// <summary>The target has a backing file with the content of the source's backing file (<c>-B</c>): only what the source's top
    /// layer holds is copied.</summary>
    public bool TargetHasBacking { get; init; }

    /// <summary>With <see cref="TargetHasBacking"/>: length of the target's backing file in bytes, behind which nothing shows through.</summary>
    public long TargetBackingLength { get; init; } = long.MaxValue;

    /// <summary>Store compressed; the target must be an <see cref="ICompressingDevice"/>.</summary>
    public bool Compress { get; init; }

    /// <summary>Runs of zeroes of at least this many bytes are found in data and not written (<c>-S</c>); 0: everything is written as data.</summary>
    public long MinimumZeroRun { get; init; } = 4096;

    /// <summary>A thread for each processor, and some more for sources that answer slowly.</summary>
    public static int DefaultThreads => Math.Max(Environment.ProcessorCount, 8);

    /// <summary>Threads, at most, that read, decompress, look for zeroes and compress; more than there are processors are started only when reads
    /// have to be waited for. The target's bytes do not depend on it.</summary>
    public int Threads { get; init; } = DefaultThreads;

    /// <summary>Let the kernel copy where both sides are files (<c>-C</c>).</summary>
    public bool CopyInKernel { get; init; }

    /// <summary>What cannot be read becomes zeroes, with a warning (<c>--salvage</c>).</summary>
    public bool Salvage { get; init; }

    /// <summary>Bytes a second, or 0: no limit (<c>-r</c>).</summary>
    public long RateLimit { get; init; }

    /// <summary>Receives the content's digest, or null.</summary>
    public ContentDigest? Digest { get; init; }

    /// <summary>Receives one line for each thing that went wrong but did not stop the job.</summary>
    public Action<string>? Warn { get; init; }

    /// <summary>Told the bytes of the disk that are done, in steps; called from any of the job's threads, one at a time.</summary>
    public IProgress<long>? Progress { get; init; }

    /// <summary>When set: told before the first piece how many bytes of data there are, and <see cref="Progress"/> then counts only data,
    /// not what is known to be zero or is left to a backing file.</summary>
    public Action<long>? AnnounceData { get; init; }
}
