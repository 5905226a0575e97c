using ImgKit.Host;

namespace ImgKit.Block.Jobs.Streams;

/// <summary>
/// An image that comes through standard input. A redirected file is opened like any other. From a pipe, raw content is taken as it
/// comes (<see cref="RawPipeJob"/>), and so are images that can be read front to back (<see cref="BlockDriver.ReadStream"/>); others
/// need to be looked at out of order and are kept in a nameless scratch file first.
/// </summary>
public static class PipeSource
{
    /// <summary>The path of standard input.</summary>
    public const string StandardInput = "/proc/self/fd/0";

    /// <summary>True when standard input can be opened as a file or device.</summary>
    public static bool IsSeekable => HostFile.KindOfPath(StandardInput) is HostFileKind.Regular or HostFileKind.BlockDevice;

    /// <summary>Opens the image on standard input; reads a pipe to its end first when its format needs that.</summary>
    /// <param name="opener">opens it.</param>
    /// <param name="format">a format's name, or null to probe.</param>
    /// <param name="settings">read-only is added.</param>
    /// <param name="cancellation">to stop reading.</param>
    public static BlockDevice Open(ImageOpener opener, string? format, OpenSettings settings, CancellationToken cancellation = default)
    {
        settings = settings with { ReadOnly = true };
        if (IsSeekable)
            return opener.Open(StandardInput, format, settings);
        var pipe = new PipeReader(HostFile.Open(StandardInput, HostFileMode.Read));
        ScratchFile? scratch = null;
        try
        {
            foreach (var driver in opener.Drivers.All)
                if ((format is null || format == driver.Name) && driver.ReadStream?.Invoke(pipe) is { } stream)
                    return stream;
            scratch = new ScratchFile();
            using (pipe)
            using (var spool = HostFile.Open(scratch.Path, HostFileMode.ReadWrite))
            {
                using var buffer = new AlignedBuffer(1 << 20);
                for (int n; (n = pipe.Take(buffer.Span)) > 0;)
                {
                    cancellation.ThrowIfCancellationRequested();
                    if (!ZeroBuffer.IsZero(buffer.Span[..n]))
                        spool.Write(pipe.Position - n, buffer.Span[..n]);
                }
                spool.SetLength(pipe.Position);
            }
            return new Owner(opener.Open(scratch.Path, format, settings), scratch);
        }
        catch (HostException e)
        {
            scratch?.Dispose();
            pipe.Dispose();
            throw new ImageException(ImageErrorKind.Io, $"Could not read standard input: {e.Message}", "-", inner: e) { Errno = e.Errno };
        }
        catch
        {
            scratch?.Dispose();
            pipe.Dispose();
            throw;
        }
    }

    /// <summary>An image and the scratch file that it lies in.</summary>
    private sealed class Owner(BlockDevice image, ScratchFile scratch) : BlockDevice
    {
        public override long Length => image.Length;

        public override bool IsReadOnly => true;

        public override BlockLimits Limits => image.Limits;

        public override string DriverName => image.DriverName;

        public override string FileName { get; set; } = "-";

        public override BlockDevice? Backing => image.Backing;

        public override BlockDevice? Storage => image.Storage;

        public override void Read(long offset, Span<byte> destination) => image.Read(offset, destination);

        public override void Write(long offset, ReadOnlySpan<byte> source) =>
            throw new ImageException(ImageErrorKind.ReadOnly, "standard input cannot be written", "-");

        public override void Flush() { }

        public override BlockExtent GetExtent(long offset, long count) => image.GetExtent(offset, count);

        protected override void Dispose(bool disposing)
        {
            image.Dispose();
            scratch.Dispose();
        }
    }
}
