using ImgKit.Block;

namespace ImgKit.Machine;

/// <summary>What to do when a request fails.</summary>
public enum ErrorPolicy
{
    /// <summary>Tell the guest.</summary>
    Report,

    /// <summary>Pretend that it went well.</summary>
    Ignore,

    /// <summary>Stop the machine; the request is tried again when it goes on.</summary>
    Stop,

    /// <summary>Stop when the host's disk is full, else report.</summary>
    StopOnNoSpace,
}

/// <summary>Sizes that a disk tells its guest, in bytes.</summary>
/// <param name="LogicalBlock">what requests are counted in.</param>
/// <param name="PhysicalBlock">what is written at once.</param>
/// <param name="MinimumIo">the least that is efficient; 0: not told.</param>
/// <param name="OptimalIo">the best; 0: not told.</param>
/// <param name="DiscardGranularity">what discards should be aligned to; -1: the device's default; 0: no discards.</param>
public sealed record DriveGeometry(int LogicalBlock, int PhysicalBlock, int MinimumIo, int OptimalIo, long DiscardGranularity)
{
    /// <summary>Sectors of 512 bytes.</summary>
    public static DriveGeometry Default { get; } = new(512, 512, 0, 0, -1);

    /// <summary>The binary logarithm of logical blocks in a physical one.</summary>
    public int PhysicalExponent => int.Log2(PhysicalBlock / LogicalBlock);
}

/// <summary>How an IDE disk names itself.</summary>
/// <param name="Model">up to 40 characters; null: the usual.</param>
/// <param name="Revision">of its firmware, up to 8 characters; null: the usual.</param>
/// <param name="WorldWideName">NAA name; 0: none.</param>
/// <param name="RotationRate">revolutions a minute; 1: does not rotate; 0: not told.</param>
public sealed record DriveIdentity(string? Model, string? Revision, ulong WorldWideName, ushort RotationRate)
{
    /// <summary>Nothing told.</summary>
    public static DriveIdentity Default { get; } = new(null, null, 0, 0);
}

/// <summary>A disk of the machine as <c>-drive</c> or <c>-blockdev</c> describes it: a block device and the policies around it. Removable media
/// change underneath.</summary>
public sealed class Drive
{
    /// <summary>The name in monitors, such as <c>ide0-hd0</c>.</summary>
    public required string Name { get; init; }

    /// <summary>The medium; null: none.</summary>
    public BlockDevice? Media { get; set; }

    /// <summary>The temporary overlay that <see cref="Media"/> is the disk of; null: none.</summary>
    public ImgKit.Block.Jobs.Overlay.TemporaryOverlay? Overlay { get; init; }

    /// <summary>The name of the file as the user gave it.</summary>
    public string FileName { get; set; } = "";

    /// <summary>A CD-ROM.</summary>
    public bool IsCdRom { get; init; }

    /// <summary>The medium can be taken out.</summary>
    public bool IsRemovable { get; init; }

    /// <summary>Writes are refused.</summary>
    public bool IsReadOnly { get; set; }

    /// <summary>Serial number for the guest, or null.</summary>
    public string? Serial { get; set; }

    /// <summary>Failed reads.</summary>
    public ErrorPolicy OnReadError { get; init; } = ErrorPolicy.Report;

    /// <summary>Failed writes.</summary>
    public ErrorPolicy OnWriteError { get; init; } = ErrorPolicy.StopOnNoSpace;

    /// <summary>Discards of the guest are passed on.</summary>
    public bool Discard { get; init; }

    /// <summary>The device's write cache is on at first; while it is off, each write is followed by a flush.</summary>
    public bool WriteCache { get; init; } = true;

    /// <summary>How <c>info block</c> calls the cache mode.</summary>
    public string CacheMode { get; init; } = "writeback";

    /// <summary>What becomes of written zeroes: off, on or unmap.</summary>
    public string DetectZeroes { get; init; } = "off";

    /// <summary>Limits of its speed by the names of <c>throttling.*</c>; those that are not there: none.</summary>
    public IReadOnlyDictionary<string, long> Limits { get; init; } = new Dictionary<string, long>();

    /// <summary>The medium is a node of <c>-blockdev</c>, which lives on when it is taken out.</summary>
    public bool IsNode { get; set; }

    /// <summary>A device has a node alone, without a name of a drive: monitors know it by the device.</summary>
    public bool IsNameless { get; init; }

    /// <summary>Sizes that the device tells the guest.</summary>
    public DriveGeometry Geometry { get; init; } = DriveGeometry.Default;

    /// <summary>How the device names itself.</summary>
    public DriveIdentity Identity { get; init; } = DriveIdentity.Default;

    /// <summary>The guest has locked the medium.</summary>
    public bool IsLocked { get; set; }

    /// <summary>The tray is out.</summary>
    public bool IsTrayOpen { get; set; }

    /// <summary>Place in the boot order from 0; -1: none.</summary>
    public int BootIndex { get; set; } = -1;

    /// <summary>Set by the device: told that the medium was changed, or the tray moved.</summary>
    public Action? MediaChanged { get; set; }

    /// <summary>Set by the device: the user wishes that the guest let the medium go.</summary>
    public Action? EjectRequested { get; set; }

    /// <summary>The device that uses it, for <c>info block</c>; null: none.</summary>
    public string? AttachedTo { get; set; }

    /// <summary>Bytes of the medium; 0 without one.</summary>
    public long Length => Media?.Length ?? 0;

    /// <summary>What the last request that stopped the machine died of: ok, failed or nospace, as QMP's <c>io-status</c>.</summary>
    public string IoStatus { get; set; } = "ok";

    /// <summary>Decides on a failure.</summary>
    public ErrorPolicy Decide(bool isRead, Exception error)
    {
        var policy = isRead ? OnReadError : OnWriteError;
        if (policy != ErrorPolicy.StopOnNoSpace)
            return policy;
        return IsNoSpace(error) ? ErrorPolicy.Stop : ErrorPolicy.Report;
    }

    /// <summary>The host's disk is full.</summary>
    public static bool IsNoSpace(Exception error)
    {
        const int NoSpace = 28;
        for (Exception? e = error; e != null; e = e.InnerException)
            if (e is ImageException { Errno: NoSpace } or ImgKit.Host.HostException { Errno: NoSpace }
                || (e is IOException && (e.HResult & 0xFFFF) == NoSpace))
                return true;
        return false;
    }
}
