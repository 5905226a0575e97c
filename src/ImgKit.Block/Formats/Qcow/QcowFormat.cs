namespace ImgKit.Block.Formats.Qcow;

/// <summary>The first version of QEMU's format: reading only.</summary>
public static class QcowFormat
{
    /// <summary>The declaration.</summary>
    public static BlockDriver Driver { get; } = new()
    {
        Name = "qcow",
        Kind = DriverKind.Format,
        Description = "QEMU's first copy-on-write format (read only)",
        Probe = static (head, _, _) => head.StartsWith((ReadOnlySpan<byte>)[0x51, 0x46, 0x49, 0xFB, 0, 0, 0, 1]) ? 100 : 0,
        Open = QcowImage.Open,
        OpenOptions = [new("backing", OptionType.String, "The backing file (backing.driver, backing.file.filename, ...); empty for none")],
        SupportsBacking = true,
    };
}
