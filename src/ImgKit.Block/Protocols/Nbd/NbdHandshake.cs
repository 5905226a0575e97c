using System.Buffers.Binary;
using System.Globalization;
using System.Numerics;
using System.Text;

namespace ImgKit.Block.Protocols.Nbd;

/// <summary>The client's side of the handshake (doc/proto.md, "The NBD protocol: Handshake phase").</summary>
public sealed class NbdHandshake
{
    private const int MaxReply = 64 << 10;
    private const int MaxExports = 100_000;

    private readonly StreamTransport _transport;
    private readonly NbdTls? _tls;
    private readonly string _tlsHost;

    /// <param name="transport">connected.</param>
    /// <param name="tls">ask for TLS with these credentials, or null.</param>
    /// <param name="tlsHost">the name that the server's certificate must have.</param>
    public NbdHandshake(StreamTransport transport, NbdTls? tls, string tlsHost)
    {
        _transport = transport;
        _tls = tls;
        _tlsHost = tlsHost;
    }

    /// <summary>Whether the server speaks the fixed new style, with options.</summary>
    private bool IsFixedNewStyle { get; set; }

    private bool NoZeroes { get; set; }

    /// <summary>Agrees on an export.</summary>
    /// <param name="name">of the export.</param>
    /// <param name="allocationContext">the context wanted for allocation.</param>
    public NbdAgreement Open(string name, string allocationContext)
    {
        if (Start() is { } oldStyle)
            return new NbdAgreement { Export = oldStyle };
        if (!IsFixedNewStyle)
            return new NbdAgreement { Export = AskByName(name) };
        bool extended = Ask(NbdOption.ExtendedHeaders);
        bool structured = extended || Ask(NbdOption.StructuredReply);
        uint? context = structured ? SetContext(name, allocationContext) : null;
        var export = AskInfo(NbdOption.Go, name, [NbdInfoType.BlockSize]);
        if (export is null)
        {
            // EXPORT_NAME has no reply that could tell of an error: look at the list first, where there is one.
            var list = TryList();
            if (list is { Count: > 0 } && list.TrueForAll(e => e.Name != name))
                throw Refused("Requested export not available", 22);
            export = AskByName(name);
        }
        return new NbdAgreement
        {
            Export = export,
            ExtendedHeaders = extended,
            StructuredReplies = structured,
            AllocationContext = context,
        };
    }

    /// <summary>Agrees on an export with simple replies only, as the kernel's client needs it.</summary>
    public NbdExportInfo OpenSimple(string name)
    {
        if (Start() is { } oldStyle)
            return oldStyle;
        return (IsFixedNewStyle ? AskInfo(NbdOption.Go, name, [NbdInfoType.BlockSize]) : null) ?? AskByName(name);
    }

    /// <summary>All exports that the server lists, with what it says of each.</summary>
    public List<NbdExportInfo> List()
    {
        if (Start() is { } oldStyle)
            return [oldStyle];
        if (!IsFixedNewStyle)
            return [AskByName("")];
        bool structured = Ask(NbdOption.StructuredReply);
        var exports = TryList() ?? throw Refused("Server does not support export list", 95);
        for (int i = 0; i < exports.Count; i++)
        {
            var e = AskInfo(NbdOption.Info, exports[i].Name, [NbdInfoType.Name, NbdInfoType.Description, NbdInfoType.BlockSize]);
            if (e is null)
                continue;
            e.Name = exports[i].Name;
            e.Description ??= exports[i].Description;
            if (structured)
                ListContexts(e);
            exports[i] = e;
        }
        SendOption(NbdOption.Abort, []);
        return exports;
    }

    /// <summary>Up to the options; with TLS where asked for.</summary>
    /// <returns>an export of the old style, or null.</returns>
    private NbdExportInfo? Start()
    {
        if (_transport.ReceiveUInt64() != NbdWire.InitMagic)
            throw Invalid("Bad initial magic received");
        ulong magic = _transport.ReceiveUInt64();
        if (magic == NbdWire.OldStyleMagic)
        {
            if (_tls is not null)
                throw Invalid("Server does not support STARTTLS");
            ulong size = _transport.ReceiveUInt64();
            uint flags = _transport.ReceiveUInt32();
            _transport.Skip(124);
            return new NbdExportInfo { Size = CheckSize(size), Flags = (NbdExportFlags)(ushort)flags };
        }
        if (magic != NbdWire.OptionMagic)
            throw Invalid($"Bad server magic received: 0x{magic:x16}");
        var handshake = (NbdHandshakeFlags)_transport.ReceiveUInt16();
        IsFixedNewStyle = (handshake & NbdHandshakeFlags.FixedNewStyle) != 0;
        NoZeroes = (handshake & NbdHandshakeFlags.NoZeroes) != 0;
        Span<byte> answer = stackalloc byte[4];
        BinaryPrimitives.WriteUInt32BigEndian(answer, (uint)(handshake & (NbdHandshakeFlags.FixedNewStyle | NbdHandshakeFlags.NoZeroes)));
        _transport.Send(answer);
        if (_tls is null)
            return null;
        if (!IsFixedNewStyle)
            throw Invalid("Server does not support STARTTLS");
        SendOption(NbdOption.StartTls, []);
        var (type, length) = ReceiveReply(NbdOption.StartTls);
        if (!CheckError(NbdOption.StartTls, type, length))
            throw Invalid("Server does not support STARTTLS");
        if (type != NbdReplyType.Ack || length != 0)
            throw Invalid("unexpected reply to STARTTLS");
        _transport.StartTls(s => _tls.Start(s, _tlsHost, TimeSpan.FromSeconds(60)));
        return null;
    }

    /// <summary>An option without data: true if the server acknowledges it.</summary>
    private bool Ask(NbdOption option)
    {
        SendOption(option, []);
        var (type, length) = ReceiveReply(option);
        // Old servers answer an option that they do not know with other errors, too; going without is always right.
        if ((uint)type >= 0x8000_0000)
        {
            _transport.Skip(length);
            return false;
        }
        if (type != NbdReplyType.Ack || length != 0)
            throw Invalid($"unexpected reply of type 0x{(uint)type:x} and {length} bytes to option {Name(option)}");
        return true;
    }

    private NbdExportInfo AskByName(string name)
    {
        SendOption(NbdOption.ExportName, Encoding.UTF8.GetBytes(name));
        ulong size;
        try
        {
            size = _transport.ReceiveUInt64();
        }
        catch (EndOfStreamException e)
        {
            throw new ImageException(ImageErrorKind.NotFound, "Requested export not available", inner: e) { Errno = 22 };
        }
        ushort flags = _transport.ReceiveUInt16();
        if (!NoZeroes)
            _transport.Skip(124);
        return new NbdExportInfo { Name = name, Size = CheckSize(size), Flags = (NbdExportFlags)flags };
    }

    /// <summary>INFO or GO; null: the server does not know the option.</summary>
    private NbdExportInfo? AskInfo(NbdOption option, string name, ReadOnlySpan<NbdInfoType> wanted)
    {
        byte[] text = Encoding.UTF8.GetBytes(name);
        byte[] data = new byte[4 + text.Length + 2 + 2 * wanted.Length];
        BinaryPrimitives.WriteUInt32BigEndian(data, (uint)text.Length);
        text.CopyTo(data, 4);
        BinaryPrimitives.WriteUInt16BigEndian(data.AsSpan(4 + text.Length), (ushort)wanted.Length);
        for (int i = 0; i < wanted.Length; i++)
            BinaryPrimitives.WriteUInt16BigEndian(data.AsSpan(6 + text.Length + 2 * i), (ushort)wanted[i]);
        SendOption(option, data);
        var info = new NbdExportInfo { Name = name };
        bool complete = false;
        for (int replies = 0; ; replies++)
        {
            var (type, length) = ReceiveReply(option);
            if (!CheckError(option, type, length))
                return null;
            if (type == NbdReplyType.Ack)
            {
                if (length != 0)
                    throw Invalid("server sent invalid NBD_REP_ACK");
                return complete ? info : throw Invalid("broken server omitted NBD_INFO_EXPORT");
            }
            if (type != NbdReplyType.Info || length < 2 || replies > 1000)
                throw Invalid($"unexpected reply type {(uint)type} ({length} bytes), expected {(uint)NbdReplyType.Info}");
            var kind = (NbdInfoType)_transport.ReceiveUInt16();
            length -= 2;
            switch (kind)
            {
                case NbdInfoType.Export:
                    if (length != 10)
                        throw Invalid($"remaining export info len {length} is unexpected size");
                    info.Size = CheckSize(_transport.ReceiveUInt64());
                    info.Flags = (NbdExportFlags)_transport.ReceiveUInt16();
                    complete = true;
                    break;
                case NbdInfoType.BlockSize:
                    if (length != 12)
                        throw Invalid($"remaining export info len {length} is unexpected size");
                    ReceiveBlockSizes(info);
                    break;
                case NbdInfoType.Description when length <= NbdWire.MaxString:
                    info.Description = ReceiveText(length);
                    break;
                default:
                    _transport.Skip(length);
                    break;
            }
        }
    }

    private void ReceiveBlockSizes(NbdExportInfo info)
    {
        info.MinBlock = _transport.ReceiveUInt32();
        info.PreferredBlock = _transport.ReceiveUInt32();
        info.MaxBlock = _transport.ReceiveUInt32();
        if (!BitOperations.IsPow2(info.MinBlock) || info.MinBlock > 64 << 10)
            throw Invalid($"server advertised invalid minimum block size {info.MinBlock}");
        if (!BitOperations.IsPow2(info.PreferredBlock) || info.PreferredBlock < info.MinBlock)
            throw Invalid($"server advertised invalid preferred block size {info.PreferredBlock}");
        if (info.MaxBlock < info.MinBlock)
            throw Invalid($"server advertised invalid maximum block size {info.MaxBlock}");
        if (info.MaxBlock != uint.MaxValue)
            info.MaxBlock -= info.MaxBlock % info.MinBlock;
    }

    private List<NbdExportInfo>? TryList()
    {
        SendOption(NbdOption.List, []);
        var list = new List<NbdExportInfo>();
        while (true)
        {
            var (type, length) = ReceiveReply(NbdOption.List);
            if (!CheckError(NbdOption.List, type, length))
                return null;
            if (type == NbdReplyType.Ack)
                return list;
            if (type != NbdReplyType.Server || length < 4 || list.Count >= MaxExports)
                throw Invalid($"unexpected reply type {(uint)type} ({length} bytes) to a list of exports");
            uint nameLength = _transport.ReceiveUInt32();
            if (nameLength > length - 4 || nameLength > NbdWire.MaxString || length - 4 - nameLength > NbdWire.MaxString)
                throw Invalid("incorrect option name length");
            string name = ReceiveText((int)nameLength);
            string description = ReceiveText(length - 4 - (int)nameLength);
            list.Add(new NbdExportInfo { Name = name, Description = description.Length > 0 ? description : null });
        }
    }

    /// <summary>Asks for one context; null: the server has none of that name, or no contexts at all.</summary>
    private uint? SetContext(string export, string context)
    {
        SendOption(NbdOption.SetMetaContext, ContextQuery(export, context));
        uint? id = null;
        for (int replies = 0; ; replies++)
        {
            var (type, length) = ReceiveReply(NbdOption.SetMetaContext);
            if ((uint)type >= 0x8000_0000)
            {
                // The export's absence is for GO to report; anything else means doing without.
                _transport.Skip(length);
                return null;
            }
            if (type == NbdReplyType.Ack)
                return id;
            if (type != NbdReplyType.MetaContext || length is < 5 or > 4 + NbdWire.MaxString || replies > 16)
                throw Invalid($"unexpected reply type {(uint)type} ({length} bytes) to a choice of contexts");
            uint received = _transport.ReceiveUInt32();
            if (ReceiveText(length - 4) == context)
                id = received;
        }
    }

    private void ListContexts(NbdExportInfo export)
    {
        SendOption(NbdOption.ListMetaContext, ContextQuery(export.Name, null));
        while (true)
        {
            var (type, length) = ReceiveReply(NbdOption.ListMetaContext);
            if ((uint)type >= 0x8000_0000)
            {
                _transport.Skip(length);
                return;
            }
            if (type == NbdReplyType.Ack)
                return;
            if (type != NbdReplyType.MetaContext || length is < 5 or > 4 + NbdWire.MaxString || export.Contexts.Count > 1000)
                throw Invalid($"unexpected reply type {(uint)type} ({length} bytes) to a list of contexts");
            _ = _transport.ReceiveUInt32();
            export.Contexts.Add(ReceiveText(length - 4));
        }
    }

    private static byte[] ContextQuery(string export, string? context)
    {
        byte[] name = Encoding.UTF8.GetBytes(export);
        byte[] query = context is null ? [] : Encoding.UTF8.GetBytes(context);
        byte[] data = new byte[4 + name.Length + 4 + (context is null ? 0 : 4 + query.Length)];
        BinaryPrimitives.WriteUInt32BigEndian(data, (uint)name.Length);
        name.CopyTo(data, 4);
        BinaryPrimitives.WriteUInt32BigEndian(data.AsSpan(4 + name.Length), context is null ? 0u : 1u);
        if (context is not null)
        {
            BinaryPrimitives.WriteUInt32BigEndian(data.AsSpan(8 + name.Length), (uint)query.Length);
            query.CopyTo(data, 12 + name.Length);
        }
        return data;
    }

    private void SendOption(NbdOption option, ReadOnlySpan<byte> data)
    {
        Span<byte> header = stackalloc byte[16];
        BinaryPrimitives.WriteUInt64BigEndian(header, NbdWire.OptionMagic);
        BinaryPrimitives.WriteUInt32BigEndian(header[8..], (uint)option);
        BinaryPrimitives.WriteUInt32BigEndian(header[12..], (uint)data.Length);
        _transport.Send(header, data);
    }

    private (NbdReplyType Type, int Length) ReceiveReply(NbdOption option)
    {
        if (_transport.ReceiveUInt64() != NbdWire.OptionReplyMagic)
            throw Invalid("Unexpected option reply magic");
        uint echoed = _transport.ReceiveUInt32();
        if (echoed != (uint)option)
            throw Invalid($"Unexpected option type {echoed}, expected {(uint)option}");
        var type = (NbdReplyType)_transport.ReceiveUInt32();
        uint length = _transport.ReceiveUInt32();
        return length <= MaxReply ? (type, (int)length) : throw Invalid($"option reply of {length} bytes is too long");
    }

    /// <summary>False: the option is not known there; throws for other errors.</summary>
    private bool CheckError(NbdOption option, NbdReplyType type, int length)
    {
        if ((uint)type < 0x8000_0000)
            return true;
        string said = "";
        if (length <= NbdWire.MaxString)
            said = ReceiveText(length);
        else
            _transport.Skip(length);
        string which = string.Create(CultureInfo.InvariantCulture, $"option {(uint)option} ({Name(option)})");
        string message;
        switch (type)
        {
            case NbdReplyType.ErrorUnsupported:
                return false;
            case NbdReplyType.ErrorPolicy:
                message = $"Denied by server for {which}";
                break;
            case NbdReplyType.ErrorInvalid:
                message = $"Invalid parameters for {which}";
                break;
            case NbdReplyType.ErrorPlatform:
                message = $"Server lacks support for {which}";
                break;
            case NbdReplyType.ErrorTlsRequired:
                message = $"TLS negotiation required before {which}\nDid you forget a valid tls-creds?";
                break;
            case NbdReplyType.ErrorUnknown:
                message = "Requested export not available";
                break;
            case NbdReplyType.ErrorShutdown:
                message = $"Server shutting down before {which}";
                break;
            case NbdReplyType.ErrorBlockSizeRequired:
                message = $"Server requires INFO_BLOCK_SIZE for {which}";
                break;
            default:
                message = $"Unknown error code when asking for {which}";
                break;
        }
        if (said.Length > 0)
            message += "\nserver reported: " + Printable(said);
        throw Refused(message, 22);
    }

    private string ReceiveText(int length)
    {
        byte[] b = new byte[length];
        _transport.Receive(b);
        return Encoding.UTF8.GetString(b);
    }

    /// <summary>A server's words without what would steer a terminal.</summary>
    private static string Printable(string text) => string.Concat(text.Select(static c => char.IsControl(c) ? '?' : c));

    private static long CheckSize(ulong size) =>
        size <= long.MaxValue ? (long)size : throw Invalid($"export length {size} is too large");

    private static string Name(NbdOption option) => option switch
    {
        NbdOption.ExportName => "export name",
        NbdOption.StartTls => "starttls",
        NbdOption.StructuredReply => "structured reply",
        NbdOption.ListMetaContext => "list meta context",
        NbdOption.SetMetaContext => "set meta context",
        NbdOption.ExtendedHeaders => "extended headers",
        NbdOption.List => "list",
        NbdOption.Info => "info",
        NbdOption.Go => "go",
        _ => "abort",
    };

    private static ImageException Invalid(string message) => Refused(message, 22);

    private static ImageException Refused(string message, int errno) => new(ImageErrorKind.Io, message) { Errno = errno };
}
