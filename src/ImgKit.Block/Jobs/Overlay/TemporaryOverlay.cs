using ImgKit.Block.Jobs.Commit;
using ImgKit.Block.Jobs.Streams;

namespace ImgKit.Block.Jobs.Overlay;

/// <summary>
/// A disk over another that is not touched: changes go to a nameless scratch file and are gone when this is closed, unless they are
/// committed before (<c>-snapshot</c> of the peer).
/// </summary>
public sealed class TemporaryOverlay : IDisposable
{
    private readonly ScratchFile _scratch;
    private readonly Func<bool, BlockDevice>? _reopen;
    private BlockDevice _original;

    private TemporaryOverlay(ScratchFile scratch, BlockDevice original, BlockDevice disk, Func<bool, BlockDevice>? reopen)
    {
        _scratch = scratch;
        _original = original;
        _reopen = reopen;
        Disk = disk;
    }

    /// <summary>The disk to use.</summary>
    public BlockDevice Disk { get; }

    /// <summary>Puts an overlay over a disk.</summary>
    /// <param name="opener">to make it.</param>
    /// <param name="original">the disk below, now owned; open for writing if <see cref="Commit"/> is to work.</param>
    /// <param name="format">of the scratch file; its driver must make images that can have a backing device.</param>
    /// <param name="reopen">opens the disk below again, read-only or (false) for writing, for a <see cref="Commit"/> over a disk that is open for
    /// reading only, so that others may read it meanwhile; may be null.</param>
    public static TemporaryOverlay Over(ImageOpener opener, BlockDevice original, string format = "qcow2", Func<bool, BlockDevice>? reopen = null)
    {
        var scratch = new ScratchFile();
        try
        {
            var driver = opener.Drivers.Get(format);
            if (driver.Create is null || !driver.SupportsBacking)
                throw new ImageException(ImageErrorKind.Unsupported, $"Backing file not supported for file format '{format}'");
            driver.Create(new CreateContext { FileName = scratch.Path, Size = original.Length, Options = new BlockOptions(), Opener = opener });
            // Nobody looks at it after a crash: nothing need reach stable storage.
            var disk = opener.Open(scratch.Path, format, new OpenSettings { NoFlush = true, Unmap = true });
            if (disk is not IBackedImage image)
            {
                disk.Dispose();
                throw new ImageException(ImageErrorKind.Unsupported, $"Backing file not supported for file format '{format}'");
            }
            image.ReplaceBacking(original);
            return new TemporaryOverlay(scratch, original, disk, reopen);
        }
        catch
        {
            scratch.Dispose();
            throw;
        }
    }

    /// <summary>Writes the changes so far into the original; they then show from there. Nobody else may be writing meanwhile.</summary>
    /// <exception cref="ImageException">the original is read-only, or cannot be written.</exception>
    public void Commit(IProgress<long>? progress = null, CancellationToken cancellation = default)
    {
        bool reopens = _original.IsReadOnly && _reopen is not null;
        if (reopens)
            Reopen(readOnly: false);
        try
        {
            if (_original.IsReadOnly)
                throw new ImageException(ImageErrorKind.ReadOnly, "the disk below is open for reading only", _original.FileName);
            CommitJob.Copy(Disk, _original, new CommitRequest { Top = Disk, Progress = progress }, cancellation);
            _original.Flush();
            if (Disk is IEmptyableImage e)
                e.MakeEmpty();
        }
        finally
        {
            if (reopens)
                Reopen(readOnly: true);
        }
    }

    // Its own locks would be in the way of a second one: the old goes before the new comes.
    private void Reopen(bool readOnly)
    {
        var image = (IBackedImage)Disk;
        image.ReplaceBacking(null)?.Dispose();
        try
        {
            _original = _reopen!(readOnly);
        }
        catch (Exception e) when (!readOnly && e is ImageException or IOException)
        {
            _original = _reopen!(true);
            throw;
        }
        finally
        {
            image.ReplaceBacking(_original);
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        Disk.Dispose();
        _scratch.Dispose();
    }
}
