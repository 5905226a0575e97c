namespace ImgKit.Block.Protocols.Nbd;

/// <summary>What a server says of an export.</summary>
public sealed class NbdExportInfo
{
    /// <summary>As the server names it.</summary>
    public string Name { get; set; } = "";

    /// <summary>For people, or null.</summary>
    public string? Description { get; set; }

    /// <summary>Bytes.</summary>
    public long Size { get; set; }

    /// <summary>What can be done with it.</summary>
    public NbdExportFlags Flags { get; set; }

    /// <summary>Requests are multiples of it; 0: the server did not say.</summary>
    public uint MinBlock { get; set; }

    /// <summary>A good size for requests; 0: the server did not say.</summary>
    public uint PreferredBlock { get; set; }

    /// <summary>The longest payload; 0: the server did not say.</summary>
    public uint MaxBlock { get; set; }

    /// <summary>The contexts that it can tell a status in.</summary>
    public List<string> Contexts { get; } = [];
}

/// <summary>What has been agreed on at the start of a connection.</summary>
public sealed class NbdAgreement
{
    /// <summary>The export.</summary>
    public required NbdExportInfo Export { get; init; }

    /// <summary>Replies come in chunks.</summary>
    public bool StructuredReplies { get; init; }

    /// <summary>Headers have 64-bit lengths.</summary>
    public bool ExtendedHeaders { get; init; }

    /// <summary>The number of the context for allocation, if there is one.</summary>
    public uint? AllocationContext { get; init; }
}
