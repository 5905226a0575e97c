using System.Diagnostics;

namespace ImgKit.Block.Filters;

/// <summary>
/// Limits that devices share: requests and bytes a second, of reads, of writes and of both. Each limit is a leaky bucket: its
/// level falls at the average rate; a request adds to it, and must wait while it is too high. (Options: QEMU's ThrottleLimits.)
/// </summary>
public sealed class ThrottleGroup
{
    private const int Kinds = 6;

    /// <summary>Without a burst rate, this part of a second may be used up at once.</summary>
    private const double Slack = 0.1;

    private static readonly string[] Names = ["bps-total", "bps-read", "bps-write", "iops-total", "iops-read", "iops-write"];

    private readonly object _gate = new();
    private readonly Bucket[] _buckets = new Bucket[Kinds];
    private readonly long _iopsSize;
    private long _lastLeak = Stopwatch.GetTimestamp();

    private ThrottleGroup(BlockOptions options)
    {
        for (int i = 0; i < Kinds; i++)
        {
            long average = Take(options, Names[i]), max = Take(options, Names[i] + "-max"), length = Take(options, Names[i] + "-max-length");
            if (length == 0)
                length = 1;
            if (max > 0 && average == 0)
                throw Invalid("bps_max/iops_max require corresponding bps/iops values");
            if (max > 0 && max < average)
                throw Invalid("bps_max/iops_max cannot be lower than bps/iops");
            if (length > 1 && max == 0)
                throw Invalid("bps_max_length/iops_max_length require corresponding bps_max/iops_max");
            _buckets[i] = new Bucket { Average = average, Capacity = max > 0 ? (double)max * length : average * Slack };
        }
        if (HasBoth(0) || HasBoth(3))
            throw Invalid("bps/iops/max total values and read/write values cannot be used at the same time");
        _iopsSize = Take(options, "iops-size");
    }

    private bool HasBoth(int first) => _buckets[first].Average > 0 && (_buckets[first + 1].Average > 0 || _buckets[first + 2].Average > 0);

    /// <summary>The group of an object <c>throttle-group</c>.</summary>
    public static ThrottleGroup Find(BlockObjects objects, string id) => objects.Instance(id, definition =>
    {
        var o = definition ?? throw Invalid($"Throttle group '{id}' does not exist");
        if (o.TakeString("qom-type") != "throttle-group")
            throw Invalid($"Throttle group '{id}' does not exist");
        var group = new ThrottleGroup(o);
        return o.IsEmpty ? group : throw Invalid($"Property 'throttle-group.{o.Entries[0].Key}' not found");
    });

    /// <summary>The limits of a disk's own options <c>throttling.*</c>; disks that name the same <c>throttling.group</c> share them.</summary>
    public static ThrottleGroup OfDisk(BlockObjects objects, BlockOptions limits)
    {
        string? name = limits.TakeString("group");
        return name is null ? Make(limits) : objects.Instance("throttling.group=" + name, _ => Make(limits));

        static ThrottleGroup Make(BlockOptions o)
        {
            var group = new ThrottleGroup(o);
            return o.IsEmpty ? group : throw Invalid($"Invalid parameter 'throttling.{o.Entries[0].Key}'");
        }
    }

    private static long Take(BlockOptions options, string name)
    {
        long value = options.TakeNumber("x-" + name) ?? options.TakeNumber("limits." + name) ?? options.TakeNumber(name) ?? 0;
        const long most = 1_000_000_000_000_000;
        return value <= most ? value : throw Invalid($"bps/iops/max values must be within [0, {most}]");
    }

    /// <summary>Returns when a request may be made.</summary>
    /// <param name="write">it changes something.</param>
    /// <param name="bytes">that it moves.</param>
    public void Wait(bool write, long bytes)
    {
        double operations = _iopsSize > 0 && bytes > _iopsSize ? (double)bytes / _iopsSize : 1;
        while (true)
        {
            double seconds;
            lock (_gate)
            {
                Leak();
                seconds = 0;
                for (int i = 0; i < Kinds; i++)
                    if (Applies(i, write))
                        seconds = Math.Max(seconds, _buckets[i].Wait);
                if (seconds <= 0)
                {
                    for (int i = 0; i < Kinds; i++)
                        if (Applies(i, write))
                            _buckets[i].Level += i < 3 ? bytes : operations;
                    return;
                }
            }
            Thread.Sleep(TimeSpan.FromSeconds(Math.Clamp(seconds, 0.0001, 10)));
        }
    }

    private bool Applies(int kind, bool write) => _buckets[kind].Average > 0 && (kind % 3 == 0 || kind % 3 == (write ? 2 : 1));

    private void Leak()
    {
        long now = Stopwatch.GetTimestamp();
        double seconds = Stopwatch.GetElapsedTime(_lastLeak, now).TotalSeconds;
        _lastLeak = now;
        for (int i = 0; i < Kinds; i++)
            _buckets[i].Level = Math.Max(0, _buckets[i].Level - _buckets[i].Average * seconds);
    }

    private static ImageException Invalid(string message) => new(ImageErrorKind.InvalidArgument, message);

    private struct Bucket
    {
        public double Average;
        public double Capacity;
        public double Level;

        /// <summary>Seconds until there is room.</summary>
        public readonly double Wait => Level <= Capacity ? 0 : (Level - Capacity) / Average;
    }
}
