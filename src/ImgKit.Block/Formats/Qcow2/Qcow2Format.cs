namespace ImgKit.Block.Formats.Qcow2;

/// <summary>QEMU's copy-on-write format, versions 2 and 3.</summary>
public static class Qcow2Format
{
    private static readonly DriverOption[] Encryption =
    [
        new("encryption", OptionType.Bool, "Encrypt the image with format 'aes'. (Deprecated in favor of encrypt.format=aes)"),
        new("encrypt.format", OptionType.String, "Encrypt the image, format choices: 'aes', 'luks'"),
        new("encrypt.key-secret", OptionType.String, "ID of secret providing qcow AES key or LUKS passphrase"),
        new("encrypt.cipher-alg", OptionType.String, "Name of encryption cipher algorithm"),
        new("encrypt.cipher-mode", OptionType.String, "Name of encryption cipher mode"),
        new("encrypt.hash-alg", OptionType.String, "Name of encryption hash algorithm"),
        new("encrypt.iter-time", OptionType.Number, "Time to spend in PBKDF in milliseconds"),
        new("encrypt.ivgen-alg", OptionType.String, "Name of IV generator algorithm"),
        new("encrypt.ivgen-hash-alg", OptionType.String, "Name of IV generator hash algorithm"),
    ];

    /// <summary>The declaration.</summary>
    public static BlockDriver Driver { get; } = new()
    {
        Name = "qcow2",
        Kind = DriverKind.Format,
        Description = "QEMU's copy-on-write format",
        Probe = Probe,
        Open = Qcow2Image.Open,
        OpenOptions = Qcow2Options.Declared,
        Create = Qcow2Creator.Create,
        WriteStream = Qcow2StreamWriter.Write,
        CreateOptions =
        [
            .. Encryption,
            new("cluster_size", OptionType.Size, "qcow2 cluster size", "65536"),
            new("extended_l2", OptionType.Bool, "Extended L2 tables", "off"),
            new("preallocation", OptionType.Enum, "Preallocation mode (allowed values: off, metadata, falloc, full)",
                Values: ["off", "metadata", "falloc", "full"]),
            new("compression_type", OptionType.Enum, "Compression method used for image cluster compression", "zlib", ["zlib", "zstd"]),
            new("size", OptionType.Size, "Virtual disk size"),
            new("compat", OptionType.String, "Compatibility level (v2 [0.10] or v3 [1.1])"),
            new("backing_file", OptionType.String, "File name of a base image"),
            new("backing_fmt", OptionType.String, "Image format of the base image"),
            new("data_file", OptionType.String, "File name of an external data file"),
            new("data_file_raw", OptionType.Bool, "The external data file must stay valid as a raw image"),
            new("lazy_refcounts", OptionType.Bool, "Postpone refcount updates", "off"),
            new("refcount_bits", OptionType.Number, "Width of a reference count entry in bits", "16"),
        ],
        AmendOptions =
        [
            new("backing_file", OptionType.String, "File name of a base image"),
            new("backing_fmt", OptionType.String, "Image format of the base image"),
            new("compat", OptionType.String, "Compatibility level (v2 [0.10] or v3 [1.1])"),
            new("data_file", OptionType.String, "File name of an external data file"),
            new("data_file_raw", OptionType.Bool, "The external data file must stay valid as a raw image"),
            new("encrypt.iter-time", OptionType.Number, "Time to spend in PBKDF in milliseconds"),
            new("encrypt.keyslot", OptionType.Number, "Select a single keyslot to modify explicitly"),
            new("encrypt.new-secret", OptionType.String, "New secret to set in the matching keyslots. Empty string to erase"),
            new("encrypt.old-secret", OptionType.String, "Select all keyslots that match this password"),
            new("encrypt.state", OptionType.String, "Select new state of affected keyslots (active/inactive)"),
            new("lazy_refcounts", OptionType.Bool, "Postpone refcount updates"),
            new("refcount_bits", OptionType.Number, "Width of a reference count entry in bits"),
            new("size", OptionType.Size, "Virtual disk size"),
        ],
        Measure = Qcow2Measure.Measure,
        SupportsBacking = true,
        SupportsCompression = true,
        FlushesRequests = true,
    };

    private static int Probe(ReadOnlySpan<byte> head, string fileName, BlockDevice storage) =>
        head.Length >= Qcow2Layout.V2HeaderLength && head.StartsWith((ReadOnlySpan<byte>)[0x51, 0x46, 0x49, 0xFB]) && head[4] == 0 && head[5] == 0
            && head[6] == 0 && head[7] >= 2 ? 100 : 0;
}
