using ImgKit.Block.Protocols.Nbd;
using ImgKit.Host;

namespace ImgKit.Nbd;

/// <summary>A request as received.</summary>
internal struct NbdRequest
{
    public NbdCommand Command;
    public NbdCommandFlags Flags;
    public ulong Cookie;
    public ulong Offset;
    public ulong Length;

    /// <summary>The payload of a write, if it has not been dealt with while it came.</summary>
    public AlignedBuffer? Payload;

    /// <summary>What happened while the payload came: 0, or the error number to reply; then the request is done.</summary>
    public int? Result;
}
