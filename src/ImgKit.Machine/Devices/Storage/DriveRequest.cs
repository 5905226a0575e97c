using ImgKit.Block;

namespace ImgKit.Machine.Devices.Storage;

/// <summary>What a request does.</summary>
internal enum DriveOperation
{
    Read,
    Write,
    Flush,
    Discard,
    WriteZeroes,
}

/// <summary>
/// A request of a device to its drive, run on a worker, with the drive's error policy: one object a queue slot, used again and again.
/// Pieces are guest memory or pinned buffers, never copied.
/// </summary>
internal sealed unsafe class DriveRequest(MachineServices services, Drive drive, Action<DriveRequest> completed) : DiskWork
{
    private readonly List<DmaSegment> _segments = [];
    private IoBuffer[] _vector = new IoBuffer[8];
    private int _count;
    private Exception? _failure;
    private bool _retrying;

    internal DriveOperation Operation { get; private set; }

    internal long Offset { get; private set; }

    internal long Length { get; private set; }

    /// <summary>Flush after the write (FUA).</summary>
    internal bool ThenFlush { get; set; }

    /// <summary>Zeroes may give space back, where the drive passes discards on.</summary>
    internal bool MayUnmap { get; set; }

    /// <summary>After completion: what went wrong, by the policy to be told to the guest; null: nothing.</summary>
    internal Exception? Failure { get; private set; }

    /// <summary>Submitted and not completed yet.</summary>
    internal bool IsBusy { get; private set; }

    /// <summary>The user's tag.</summary>
    internal int Tag { get; set; }

    /// <summary>Reads or writes pieces of guest memory.</summary>
    internal void Submit(DriveOperation operation, long offset, List<DmaSegment> segments)
    {
        _segments.Clear();
        _segments.AddRange(segments);
        if (_vector.Length < segments.Count)
            _vector = new IoBuffer[Math.Max(segments.Count, 2 * _vector.Length)];
        Length = 0;
        for (int i = 0; i < segments.Count; i++)
        {
            _vector[i] = new IoBuffer((void*)segments[i].Host, segments[i].Length);
            Length += segments[i].Length;
        }
        Begin(operation, offset, segments.Count);
    }

    /// <summary>Reads or writes a pinned array.</summary>
    internal void Submit(DriveOperation operation, long offset, byte[] pinned, int start, int length)
    {
        _segments.Clear();
        _vector[0] = new IoBuffer((byte*)System.Runtime.InteropServices.Marshal.UnsafeAddrOfPinnedArrayElement(pinned, 0) + start, length);
        Length = length;
        Begin(operation, offset, 1);
    }

    /// <summary>Flush, discard, zero.</summary>
    internal void Submit(DriveOperation operation, long offset, long length)
    {
        _segments.Clear();
        Length = length;
        Begin(operation, offset, 0);
    }

    private void Begin(DriveOperation operation, long offset, int count)
    {
        Operation = operation;
        Offset = offset;
        _count = count;
        Failure = null;
        IsBusy = true;
        services.Workers.Submit(this);
    }

    public override void Execute()
    {
        _failure = null;
        try
        {
            var media = drive.Media ?? throw new ImageException(ImageErrorKind.NotFound, "no medium");
            switch (Operation)
            {
                case DriveOperation.Read:
                    media.ReadVector(Offset, _vector.AsSpan(0, _count));
                    break;
                case DriveOperation.Write:
                    media.WriteVector(Offset, _vector.AsSpan(0, _count));
                    if (ThenFlush)
                        media.Flush();
                    break;
                case DriveOperation.Flush:
                    media.Flush();
                    break;
                case DriveOperation.Discard:
                    if (drive.Discard)
                        media.Discard(Offset, Length);
                    break;
                case DriveOperation.WriteZeroes:
                    media.WriteZeroes(Offset, Length, MayUnmap && drive.Discard ? ZeroOptions.MayUnmap : ZeroOptions.None);
                    break;
            }
        }
        catch (Exception e)
        {
            _failure = e;
        }
    }

    public override void Complete()
    {
        if (_failure != null)
        {
            bool isRead = Operation == DriveOperation.Read;
            var policy = drive.Decide(isRead, _failure);
            services.Control.ReportBlockError(drive.Name, isRead,
                policy switch { ErrorPolicy.Stop => "stop", ErrorPolicy.Ignore => "ignore", _ => "report" }, Drive.IsNoSpace(_failure));
            if (policy == ErrorPolicy.Stop)
            {
                drive.IoStatus = Drive.IsNoSpace(_failure) ? "nospace" : "failed";
                // Tried again when the machine goes on; until then the device is busy.
                if (!_retrying)
                {
                    _retrying = true;
                    services.Control.RetryWhenResumed(() =>
                    {
                        _retrying = false;
                        services.Workers.Submit(this);
                    }, () =>
                    {
                        _retrying = false;
                        Failure = _failure;
                        IsBusy = false;
                        completed(this);
                    });
                }
                return;
            }
            if (policy != ErrorPolicy.Ignore)
                Failure = _failure;
        }
        if (Operation == DriveOperation.Read)
            foreach (var s in _segments)
                services.Memory.Written(s.Guest, s.Length);
        IsBusy = false;
        completed(this);
    }
}
