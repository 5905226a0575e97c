namespace ImgKit.Block.Protocols.Nbd;

/// <summary>Numbers of the NBD protocol (NetworkBlockDevice/nbd, doc/proto.md), which client and server share. All fields on the
/// wire are big-endian.</summary>
public static class NbdWire
{
    /// <summary>"NBDMAGIC": the first 8 bytes that a server sends.</summary>
    public const ulong InitMagic = 0x4e42444d41474943;

    /// <summary>"IHAVEOPT": new style, and in front of each option.</summary>
    public const ulong OptionMagic = 0x49484156454F5054;

    /// <summary>Old style: size and flags follow at once.</summary>
    public const ulong OldStyleMagic = 0x0000420281861253;

    /// <summary>In front of a reply to an option.</summary>
    public const ulong OptionReplyMagic = 0x0003e889045565a9;

    /// <summary>In front of a request.</summary>
    public const uint RequestMagic = 0x25609513;

    /// <summary>In front of a request with extended headers.</summary>
    public const uint ExtendedRequestMagic = 0x21e41c71;

    /// <summary>In front of a simple reply.</summary>
    public const uint SimpleReplyMagic = 0x67446698;

    /// <summary>In front of a chunk of a structured reply.</summary>
    public const uint StructuredReplyMagic = 0x668e33ef;

    /// <summary>In front of a chunk with extended headers.</summary>
    public const uint ExtendedReplyMagic = 0x6e8a278c;

    /// <summary>Bytes of a request's header.</summary>
    public const int RequestLength = 28;

    /// <summary>Bytes of a request's header with extended headers.</summary>
    public const int ExtendedRequestLength = 32;

    /// <summary>Bytes of a simple reply's header.</summary>
    public const int SimpleReplyLength = 16;

    /// <summary>Bytes of a structured chunk's header.</summary>
    public const int StructuredReplyLength = 20;

    /// <summary>Bytes of an extended chunk's header.</summary>
    public const int ExtendedReplyLength = 32;

    /// <summary>The longest string (names, descriptions, messages), in bytes.</summary>
    public const int MaxString = 4096;

    /// <summary>The longest payload of a request that every server takes, in bytes.</summary>
    public const int MaxPayload = 32 << 20;

    /// <summary>The port that is registered.</summary>
    public const int DefaultPort = 10809;

    /// <summary>The context that tells holes and zeroes.</summary>
    public const string BaseAllocation = "base:allocation";

    /// <summary>QEMU's context that tells how far down a chain data is: 0 nowhere, 1 in the image itself, 2 and more below.</summary>
    public const string AllocationDepth = "qemu:allocation-depth";

    /// <summary>In front of a bitmap's name: QEMU's contexts that tell what has changed.</summary>
    public const string DirtyBitmapPrefix = "qemu:dirty-bitmap:";
}

/// <summary>Handshake flags of the server (16 bits) and of the client (32 bits).</summary>
[Flags]
public enum NbdHandshakeFlags
{
    /// <summary>Errors of options are replied to.</summary>
    FixedNewStyle = 1,

    /// <summary>No 124 zero bytes behind the reply to EXPORT_NAME.</summary>
    NoZeroes = 2,
}

/// <summary>Transmission flags of an export (16 bits).</summary>
[Flags]
public enum NbdExportFlags
{
    /// <summary>Always set.</summary>
    HasFlags = 1,
    ReadOnly = 2,
    SendFlush = 4,
    SendFua = 8,
    Rotational = 16,
    SendTrim = 32,
    SendWriteZeroes = 64,
    SendDontFragment = 128,

    /// <summary>What one connection flushed is seen by all.</summary>
    CanMultiConnect = 256,
    SendResize = 512,
    SendCache = 1024,
    SendFastZero = 2048,
    BlockStatusPayload = 4096,
}

/// <summary>Options of the handshake.</summary>
public enum NbdOption : uint
{
    ExportName = 1,
    Abort = 2,
    List = 3,
    StartTls = 5,
    Info = 6,
    Go = 7,
    StructuredReply = 8,
    ListMetaContext = 9,
    SetMetaContext = 10,
    ExtendedHeaders = 11,
}

/// <summary>Types of replies to options; those with the top bit are errors.</summary>
public enum NbdReplyType : uint
{
    Ack = 1,
    Server = 2,
    Info = 3,
    MetaContext = 4,
    ErrorUnsupported = 0x8000_0001,
    ErrorPolicy = 0x8000_0002,
    ErrorInvalid = 0x8000_0003,
    ErrorPlatform = 0x8000_0004,
    ErrorTlsRequired = 0x8000_0005,
    ErrorUnknown = 0x8000_0006,
    ErrorShutdown = 0x8000_0007,
    ErrorBlockSizeRequired = 0x8000_0008,
    ErrorTooBig = 0x8000_0009,
    ErrorExtendedHeaderRequired = 0x8000_000A,
}

/// <summary>What INFO and GO tell.</summary>
public enum NbdInfoType : ushort
{
    Export = 0,
    Name = 1,
    Description = 2,
    BlockSize = 3,
}

/// <summary>Commands.</summary>
public enum NbdCommand : ushort
{
    Read = 0,
    Write = 1,
    Disconnect = 2,
    Flush = 3,
    Trim = 4,
    Cache = 5,
    WriteZeroes = 6,
    BlockStatus = 7,
}

/// <summary>Flags of a command.</summary>
[Flags]
public enum NbdCommandFlags : ushort
{
    None = 0,

    /// <summary>On stable storage before the reply.</summary>
    Fua = 1,

    /// <summary>WRITE_ZEROES keeps the space.</summary>
    NoHole = 2,

    /// <summary>READ in one chunk.</summary>
    DontFragment = 4,

    /// <summary>BLOCK_STATUS for one extent only.</summary>
    RequestOne = 8,

    /// <summary>WRITE_ZEROES fails rather than write.</summary>
    FastZero = 16,

    /// <summary>The length is that of a payload (extended headers).</summary>
    PayloadLength = 32,
}

/// <summary>Types of chunks of a structured reply; those with the top bit are errors.</summary>
public enum NbdChunkType : ushort
{
    None = 0,
    OffsetData = 1,
    OffsetHole = 2,
    BlockStatus = 5,
    BlockStatusExtended = 6,
    Error = 0x8001,
    ErrorOffset = 0x8002,
}

/// <summary>Status flags of <c>base:allocation</c>.</summary>
[Flags]
public enum NbdAllocation : uint
{
    Hole = 1,
    Zero = 2,
}

/// <summary>Error numbers on the wire: Linux's, but only these.</summary>
public static class NbdError
{
    public const int NotPermitted = 1;
    public const int Io = 5;
    public const int NoMemory = 12;
    public const int Invalid = 22;
    public const int NoSpace = 28;
    public const int Overflow = 75;
    public const int NotSupported = 95;
    public const int Shutdown = 108;

    /// <summary>The number to send for one of the host's.</summary>
    public static int ToWire(int errno) => errno switch
    {
        0 => 0,
        1 or 30 or 13 => NotPermitted,      // EPERM EROFS EACCES
        5 or 12 or 75 or 95 or 108 => errno,
        28 or 27 or 122 => NoSpace,         // ENOSPC EFBIG EDQUOT
        22 => Invalid,
        _ => Io,
    };

    /// <summary>The host's number for one that was received: unknown ones are EINVAL.</summary>
    public static int FromWire(uint error) => error switch
    {
        1 or 5 or 12 or 22 or 28 or 75 or 95 or 108 => (int)error,
        _ => Invalid,
    };
}
