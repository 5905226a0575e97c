using ImgKit.Block.Jobs.Convert;
using ImgKit.Host;

namespace ImgKit.Block.Jobs.Streams;

/// <summary>
/// An image written to something that cannot seek. Where the format can be written front to back it is; otherwise it is made in a
/// nameless scratch file and sent from there.
/// </summary>
public static class ImageStreamJob
{
    /// <summary>Writes <paramref name="context"/>'s source as an image of the given format.</summary>
    /// <param name="driver">the format.</param>
    /// <param name="opener">to make the image in scratch space, if need be.</param>
    /// <param name="context">content, output and options.</param>
    public static void Run(BlockDriver driver, ImageOpener opener, StreamWriteContext context)
    {
        if (driver.WriteStream is { } write)
        {
            try
            {
                write(context);
                context.Output.Flush();
                return;
            }
            catch (StreamNeedsSeekException)
            {
                // Nothing has been written: these options need scratch space.
            }
        }
        if (driver.Create is null)
            throw new ImageException(ImageErrorKind.Unsupported, $"Format driver '{driver.Name}' does not support image creation");
        using var scratch = new ScratchFile();
        driver.Create(new CreateContext
        {
            FileName = scratch.Path,
            Size = context.Source.Length,
            Options = context.Options.Clone(),
            Opener = opener,
            Reproducible = context.Reproducible,
        });
        using (var target = opener.Open(scratch.Path, driver.Name, new OpenSettings { NoFlush = true, Unmap = true }))
        {
            ConvertJob.Run(new ConvertRequest
            {
                Sources = [context.Source],
                Target = target,
                TargetIsZero = true,
                Compress = context.Compress,
                Threads = context.Threads,
                Progress = context.Progress,
                Digest = context.Digest,
            }, context.Cancellation);
            target.Flush();
        }
        using var image = HostFile.Open(scratch.Path, HostFileMode.Read);
        using var buffer = new AlignedBuffer(1 << 20);
        for (long at = 0, length = image.GetLength(); at < length;)
        {
            context.Cancellation.ThrowIfCancellationRequested();
            int n = image.Read(at, buffer.Span);
            context.Output.Write(buffer.Span[..n]);
            at += n;
        }
        context.Output.Flush();
    }
}

/// <summary>Thrown by <see cref="BlockDriver.WriteStream"/>, before it has written anything, when the options asked for cannot be
/// written front to back.</summary>
public sealed class StreamNeedsSeekException() : Exception("this image cannot be written front to back");
