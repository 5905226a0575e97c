using System.Buffers.Binary;
using System.Runtime.InteropServices;
using ImgKit.Block.Jobs.Streams;

namespace ImgKit.Block.Formats.Cloop;

/// <summary>Compressed loop images of Knoppix and others, and FreeBSD's geom_uzip.</summary>
public static class CloopFormat
{
    /// <summary>The declaration.</summary>
    public static BlockDriver Driver { get; } = new()
    {
        Name = "cloop",
        SupportsCompression = true,
        Kind = DriverKind.Format,
        Description = "Compressed loop images, and geom_uzip; written once, front to back",
        Probe = Probe,
        Open = Open,
        Create = CloopBuilder.Create,
        CreateOptions = CloopOptions.Declaration,
        Measure = Measure,
        ReadStream = CloopStreamImage.TryOpen,
        WriteStream = WriteStream,
    };

    /// <summary>The version's place holds one, and the numbers behind it can be right.</summary>
    private static int Probe(ReadOnlySpan<byte> head, string fileName, BlockDevice storage)
    {
        if (head.Length < CloopHeader.Size)
            return 0;
        var header = CloopHeader.Parse(head);
        if (header.IsUnfinished)
            return 50;
        if (header.Preamble.StartsWith(CloopHeader.Preamble2, StringComparison.Ordinal))
            return 50;
        if (header.HasVersion && header.IsPlausible
            && (header.Blocks == CloopHeader.BlocksInTail || CloopHeader.Size + 4L * header.Blocks <= storage.Length))
            return 50;
        // A footer is believed only where the name says so, too: the end of a raw disk is what its user makes of it.
        if (!fileName.EndsWith(".cloop", StringComparison.OrdinalIgnoreCase))
            return 0;
        return FindFooter(storage) is not null ? 50 : 0;
    }

    private static CloopHeader? FindFooter(BlockDevice file)
    {
        if (file.Length < CloopHeader.Size)
            return null;
        byte[] b = new byte[CloopHeader.Size];
        file.Read(file.Length - b.Length, b);
        var footer = CloopHeader.Parse(b);
        return footer.HasVersion && footer.IsPlausible && footer.Version is "V4.0" or "V2.0" ? footer : null;
    }

    private static BlockDevice Open(OpenContext context)
    {
        var file = context.File;
        if (file.Length < CloopHeader.Size)
            throw new ImageException(ImageErrorKind.InvalidFormat, $"a file of {file.Length} bytes is too short for a cloop image", file.FileName) { Errno = 22 };
        byte[] b = new byte[CloopHeader.Size];
        file.Read(0, b);
        var header = CloopHeader.Parse(b);
        if (header.IsUnfinished)
        {
            header.CheckBlockSize(file.FileName);
            if (context.Settings.ReadOnly)
                throw new ImageException(ImageErrorKind.InvalidFormat, "the cloop image is incomplete: whoever wrote it did not finish", file.FileName, 0)
                {
                    Errno = 22,
                };
            return CloopBuilder.Open(file, header);
        }
        if (!context.Settings.ReadOnly)
            throw new ImageException(ImageErrorKind.ReadOnly, "Image is read-only", file.FileName) { Errno = 13 };
        bool isFooter = false;
        if (!header.HasVersion && FindFooter(file) is { } footer)
            (header, isFooter) = (footer, true);
        header.CheckBlockSize(file.FileName);
        return new CloopImage(file, header, CloopIndex.Read(file, header, isFooter));
    }

    private static MeasureResult Measure(MeasureContext context)
    {
        var options = CloopOptions.Take(context.Options.Clone(), streaming: false);
        long blocks = options.CountBlocks(context.Size);
        long metadata = CloopHeader.Size + 8 * (blocks + 1);
        // What a block takes is known only when it is compressed; at worst it is stored, in frames of its compressor.
        long most = options.Compressors.Contains(CloopCompressor.None) ? options.BlockSize
            : Host.Compression.Deflate.MaxCompressedLength(options.BlockSize);
        return new MeasureResult(metadata + blocks * most, metadata + blocks * most);
    }

    /// <summary>The form with a footer: blocks, index, header. Only 4.0 has it.</summary>
    private static void WriteStream(StreamWriteContext context)
    {
        var options = CloopOptions.Take(context.Options, streaming: true);
        if (!options.IsVersion4)
            throw new StreamNeedsSeekException();
        long blocks = options.CountBlocks(context.Source.Length);
        var words = new ulong[blocks + 1];
        long position = 0;
        byte[]? zeroes = null;
        StreamPipeline.Run(context, options.BlockSize, options.BlockSize, options.Room, (content, destination) => (options.Pack(content, destination), 0),
            (index, packed, _) =>
            {
                if (packed.IsEmpty)
                {
                    if (zeroes is null)
                    {
                        byte[] b = new byte[options.Room];
                        zeroes = b[..options.Pack(new byte[options.BlockSize], b)];
                    }
                    packed = zeroes;
                }
                words[index] = (ulong)position | ((ulong)packed[0] << 60);
                context.Output.Write(packed[1..]);
                position += packed.Length - 1;
            });
        words[blocks] = (ulong)position;
        BinaryPrimitives.ReverseEndianness(words, words);
        context.Output.Write(MemoryMarshal.AsBytes(words.AsSpan()));
        byte[] footer = new byte[CloopHeader.Size];
        new CloopHeader(CloopHeader.Preamble4, (uint)options.BlockSize, (uint)blocks).WriteTo(footer);
        context.Output.Write(footer);
        context.Output.Flush();
    }
}
