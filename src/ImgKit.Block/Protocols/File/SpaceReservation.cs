using ImgKit.Host;

namespace ImgKit.Block.Protocols.File;

/// <summary>
/// Reserves the space of large writes into a new file before they come, which some file systems take much faster so
/// (<see cref="HostFile.IsFasterReserved"/>). Behind the end of the file it reserves ahead, and gives back what was not used.
/// </summary>
/// <remarks>Whatever makes the file longer does so under the same lock as this: giving space back cuts the file at its end.</remarks>
internal sealed class SpaceReservation(HostFile file)
{
    /// <summary>Reserving space for less is not worth a call.</summary>
    private const int LargeWrite = 128 << 10;

    /// <summary>The same where one call serves many writes.</summary>
    private const int LargeAppend = 32 << 10;
    private const long MaxAhead = 32 << 20;

    private bool _works = true;
    private long _end;

    /// <summary>Before a write inside the file.</summary>
    public void BeforeWrite(long offset, int count)
    {
        if (count >= LargeWrite)
            Reserve(offset, count);
    }

    /// <summary>Before something makes the file longer. Under the lock of what changes the length.</summary>
    /// <param name="offset">where it begins.</param>
    /// <param name="count">bytes of data; 0 when it brings none.</param>
    /// <param name="length">the file's length.</param>
    public void BeforeGrowth(long offset, int count, long length)
    {
        if (offset > length || count == 0)
            GiveBack();
        long end = offset + count;
        if (count < LargeAppend || end <= _end)
            return;
        long ahead = Math.Min(end / 4, MaxAhead);
        if (Reserve(offset, count + ahead))
            _end = end + ahead;
    }

    /// <summary>Gives back what is reserved behind the file's end. Under the lock of what changes the length.</summary>
    public void GiveBack()
    {
        if (_end == 0)
            return;
        try
        {
            long length = file.GetLength();
            if (_end > length)
                file.SetLength(length);
        }
        catch (HostException)
        {
            // The file is as it should be; it only takes more space than it needs.
        }
        _end = 0;
    }

    private bool Reserve(long offset, long count)
    {
        if (!_works)
            return false;
        try
        {
            _works = file.TryAllocate(offset, count, keepSize: true);
        }
        catch (HostException)
        {
            // No space for it all: the write itself says what cannot be had.
            _works = false;
        }
        return _works;
    }
}
