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
    private readonly BlockDevice _original;

    private TemporaryOverlay(ScratchFile scratch, BlockDevice original, BlockDevice disk)
    {
        _scratch = scratch;
        _original = original;
        Disk = disk;
    }

    /// <summary>The disk to use.</summary>
    public BlockDevice Disk { get; }

    /// <summary>Puts an overlay over a disk.</summary>
    /// <param name="opener">to make it.</param>
    /// <param name="original">the disk below, now owned; open for writing if <see cref="Commit"/> is to work.</param>
    /// <param name="format">of the scratch file; its driver must make images that can have a backing device.</param>
    public static TemporaryOverlay Over(ImageOpener opener, BlockDevice original, string format = "qcow2")
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
            return new TemporaryOverlay(scratch, original, disk);
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
        if (_original.IsReadOnly)
            throw new ImageException(ImageErrorKind.ReadOnly, "the disk below is open for reading only", _original.FileName);
        CommitJob.Copy(Disk, _original, new CommitRequest { Top = Disk, Progress = progress }, cancellation);
        _original.Flush();
        if (Disk is IEmptyableImage e)
            e.MakeEmpty();
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        Disk.Dispose();
        _scratch.Dispose();
    }
}
