using ImgKit.Block.Protocols.Nbd;

namespace ImgKit.Nbd;

/// <summary>What has been agreed on with a client.</summary>
internal sealed class NbdSession
{
    public NbdExport? Export { get; set; }

    public bool StructuredReplies { get; set; }

    public bool ExtendedHeaders { get; set; }

    /// <summary>Numbers of the contexts that a block status tells.</summary>
    public List<uint> Contexts { get; } = [];

    /// <summary>The export that the contexts were chosen for.</summary>
    public string? ContextExport { get; set; }

    /// <summary>Bytes of a request's header.</summary>
    public int RequestLength => ExtendedHeaders ? NbdWire.ExtendedRequestLength : NbdWire.RequestLength;

    /// <summary>Bytes in front of the data of a read.</summary>
    public int DataHeaderLength => ExtendedHeaders ? NbdWire.ExtendedReplyLength + 8
        : StructuredReplies ? NbdWire.StructuredReplyLength + 8 : NbdWire.SimpleReplyLength;
}
