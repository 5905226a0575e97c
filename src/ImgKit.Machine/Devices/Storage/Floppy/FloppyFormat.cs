namespace ImgKit.Machine.Devices.Storage.Floppy;

/// <summary>A kind of floppy drive, numbered as the IBM AT's CMOS memory has it.</summary>
public enum FloppyDriveKind : byte
{
    /// <summary>No drive.</summary>
    None = 0,

    /// <summary>5.25 inches, 40 tracks, 360 KiB.</summary>
    Kind360 = 1,

    /// <summary>5.25 inches, 1.2 MB.</summary>
    Kind120 = 2,

    /// <summary>3.5 inches, 720 KiB.</summary>
    Kind720 = 3,

    /// <summary>3.5 inches, 1.44 MB.</summary>
    Kind144 = 4,

    /// <summary>3.5 inches, 2.88 MB.</summary>
    Kind288 = 5,
}

/// <summary>How sectors of 512 bytes lie on a floppy disk, and at which data rates it can be read.</summary>
/// <param name="Tracks">tracks a side.</param>
/// <param name="Heads">1 or 2.</param>
/// <param name="Sectors">sectors a track.</param>
/// <param name="Rates">data rates as bits: 1 of 500, 2 of 300, 4 of 250 kbit/s, 8 of 1 Mbit/s (the number of the bit is what DSR and CCR hold).</param>
/// <param name="Kind">the drive that such a disk is usually in.</param>
internal readonly record struct FloppyFormat(byte Tracks, byte Heads, byte Sectors, byte Rates, FloppyDriveKind Kind)
{
    private const byte High = 1, Low = 6, Extra = 8;

    internal long Length => (long)Tracks * Heads * Sectors * 512;

    private static readonly FloppyFormat[] Known =
    [
        new(80, 2, 18, High, FloppyDriveKind.Kind144),
        new(80, 2, 36, Extra, FloppyDriveKind.Kind288),
        new(80, 2, 15, High, FloppyDriveKind.Kind120),
        new(80, 2, 9, Low, FloppyDriveKind.Kind144),
        new(40, 2, 9, Low, FloppyDriveKind.Kind360),
        new(40, 2, 8, Low, FloppyDriveKind.Kind360),
        new(40, 1, 9, Low, FloppyDriveKind.Kind360),
        new(40, 1, 8, Low, FloppyDriveKind.Kind360),
        new(80, 1, 9, Low, FloppyDriveKind.Kind144),
        new(80, 2, 10, Low, FloppyDriveKind.Kind144),
    ];

    /// <summary>The format of a disk of some length; for a length that no format has, the smallest that holds it.</summary>
    internal static FloppyFormat Of(long length)
    {
        foreach (var f in Known)
            if (f.Length == length)
                return f;
        // Formats with more tracks and sectors than usual, such as 1.68 MB: 80 to 83 tracks of up to 48 sectors.
        for (byte tracks = 80; tracks <= 83; tracks++)
            for (byte sectors = 8; sectors <= 48; sectors++)
                if ((long)tracks * 2 * sectors * 512 == length)
                    return new FloppyFormat(tracks, 2, sectors, sectors > 24 ? Extra : sectors > 12 ? High : Low,
                        sectors > 24 ? FloppyDriveKind.Kind288 : FloppyDriveKind.Kind144);
        return length <= Known[0].Length ? Known[0] : Known[1];
    }
}

/// <summary>A drive on the controller's cable: where its head is, and what is in it.</summary>
internal sealed class FloppyDrive : IStateful
{
    private byte _track, _nextSector;
    private bool _changed = true;

    internal FloppyDrive(Drive drive, FloppyDriveKind kind)
    {
        Drive = drive;
        Kind = kind != FloppyDriveKind.None ? kind : drive.Media == null ? FloppyDriveKind.Kind288 : FloppyFormat.Of(drive.Length).Kind;
        Format = FloppyFormat.Of(drive.Length);
        drive.MediaChanged = () =>
        {
            _changed = true;
            Format = FloppyFormat.Of(drive.Length);
        };
    }

    internal Drive Drive { get; }

    internal FloppyDriveKind Kind { get; }

    internal FloppyFormat Format { get; private set; }

    internal bool HasMedia => Drive.Media != null;

    /// <summary>The disk was taken out or changed, and the head has not moved since.</summary>
    internal bool IsChanged => _changed || !HasMedia;

    /// <summary>The track where the head is.</summary>
    internal byte Track => _track;

    /// <summary>The disk's track below the head: a disk of 40 tracks in a drive of 80 has one at every second.</summary>
    internal int DiskTrack => Format.Tracks == 40 && Kind != FloppyDriveKind.Kind360 ? _track >> 1 : _track;

    internal void Seek(int track)
    {
        _track = (byte)Math.Clamp(track, 0, Kind == FloppyDriveKind.Kind360 ? 42 : 84);
        if (HasMedia)
            _changed = false;
    }

    /// <summary>The number of the sector that comes by next.</summary>
    internal byte NextSector()
    {
        _nextSector = (byte)(_nextSector % Format.Sectors + 1);
        return _nextSector;
    }

    internal void Reset() => _track = _nextSector = 0;

    public void Describe(StateVisitor state)
    {
        state.Field("track", ref _track);
        state.Field("next-sector", ref _nextSector);
        state.Field("changed", ref _changed);
    }
}
