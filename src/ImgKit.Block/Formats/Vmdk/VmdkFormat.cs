namespace ImgKit.Block.Formats.Vmdk;

/// <summary>VMware's virtual disks, all kinds.</summary>
public static class VmdkFormat
{
    /// <summary>The declaration.</summary>
    public static BlockDriver Driver { get; } = new()
    {
        Name = "vmdk",
        Kind = DriverKind.Format,
        Description = "VMware virtual disks: sparse, flat, split, stream-optimized",
        Probe = (head, _, _) => Probe(head),
        Open = VmdkOpen.Open,
        Create = VmdkCreate.Create,
        CreateOptions = VmdkCreateOptions.Declaration,
        SupportsBacking = true,
        SupportsCompression = true,
        Measure = VmdkCreate.Measure,
        ReadStream = StreamOptimizedReader.TryOpen,
        WriteStream = StreamOptimizedWriter.Write,
    };

    /// <summary>A sparse extent by its magic; a descriptor by its version line, before which only comments and blank lines stand.</summary>
    private static int Probe(ReadOnlySpan<byte> head)
    {
        if (SparseHeader.HasMagic(head) || CowdHeader.HasMagic(head))
            return 100;
        while (!head.IsEmpty)
        {
            int end = head.IndexOf((byte)'\n');
            if (end < 0)
                return 0;
            var line = head[..end];
            head = head[(end + 1)..];
            if (!line.IsEmpty && line[0] == (byte)'#')
                continue;
            if (!line.IsEmpty && line[^1] == (byte)'\r')
                line = line[..^1];
            if (!line.ContainsAnyExcept((byte)' '))
                continue;
            return line.Length == 9 && line.StartsWith("version="u8) && line[8] is (byte)'1' or (byte)'2' or (byte)'3' ? 100 : 0;
        }
        return 0;
    }
}
