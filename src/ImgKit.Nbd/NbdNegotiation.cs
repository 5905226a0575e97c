using System.Buffers.Binary;
using System.Diagnostics;
using System.Text;
using ImgKit.Block.Protocols;
using ImgKit.Block.Protocols.Nbd;

namespace ImgKit.Nbd;

/// <summary>The server's side of the handshake (doc/proto.md, "The NBD protocol: Handshake phase").</summary>
internal sealed class NbdNegotiation
{
    private const int MaxOptionLength = 64 << 10;
    private const int MaxSkip = 32 << 20;
    private const int MaxOptions = 10_000;

    private readonly NbdServer _server;
    private readonly StreamTransport _transport;
    private readonly long _start = Stopwatch.GetTimestamp();
    private bool _fixedNewStyle;
    private bool _noZeroes;

    public NbdNegotiation(NbdServer server, StreamTransport transport)
    {
        _server = server;
        _transport = transport;
    }

    /// <summary>Negotiates; false: the client has left, as it may.</summary>
    /// <exception cref="IOException">the connection failed, or the client broke the rules.</exception>
    public bool Run(NbdSession session)
    {
        _transport.SetTimeout(_server.HandshakeLimit);
        Span<byte> greeting = stackalloc byte[18];
        BinaryPrimitives.WriteUInt64BigEndian(greeting, NbdWire.InitMagic);
        BinaryPrimitives.WriteUInt64BigEndian(greeting[8..], NbdWire.OptionMagic);
        BinaryPrimitives.WriteUInt16BigEndian(greeting[16..], (ushort)(NbdHandshakeFlags.FixedNewStyle | NbdHandshakeFlags.NoZeroes));
        _transport.Send(greeting);
        uint flags = _transport.ReceiveUInt32();
        if ((flags & ~(uint)(NbdHandshakeFlags.FixedNewStyle | NbdHandshakeFlags.NoZeroes)) != 0)
            throw new IOException($"unknown client flags 0x{flags:x}");
        _fixedNewStyle = (flags & (uint)NbdHandshakeFlags.FixedNewStyle) != 0;
        _noZeroes = (flags & (uint)NbdHandshakeFlags.NoZeroes) != 0;
        for (int i = 0; i < MaxOptions; i++)
        {
            if (Stopwatch.GetElapsedTime(_start) > _server.HandshakeLimit)
                throw new IOException("the handshake takes too long");
            ulong magic = _transport.ReceiveUInt64();
            if (magic != NbdWire.OptionMagic)
                throw new IOException($"bad magic 0x{magic:x16} of an option");
            var option = (NbdOption)_transport.ReceiveUInt32();
            uint length = _transport.ReceiveUInt32();
            if (length > MaxOptionLength)
            {
                if (length > MaxSkip || option == NbdOption.ExportName)
                    throw new IOException($"option {(uint)option} of {length} bytes");
                _transport.Skip(length);
                Reply(option, NbdReplyType.ErrorTooBig, $"option of {length} bytes is too long");
                continue;
            }
            byte[] data = new byte[length];
            _transport.Receive(data);
            if (Handle(session, option, data) is { } done)
            {
                _transport.SetTimeout(TimeSpan.Zero);
                return done;
            }
        }
        throw new IOException("too many options");
    }

    /// <summary>True: transmission begins. False: the client leaves. Null: the next option.</summary>
    private bool? Handle(NbdSession session, NbdOption option, ReadOnlySpan<byte> data)
    {
        if (_server.Tls is not null && !_transport.IsEncrypted && option is not (NbdOption.StartTls or NbdOption.Abort))
        {
            if (option == NbdOption.ExportName)
                throw new IOException("export asked for before TLS");
            Reply(option, NbdReplyType.ErrorTlsRequired, $"Option 0x{(uint)option:x} not permitted before TLS");
            return null;
        }
        if (!_fixedNewStyle && option != NbdOption.ExportName)
            throw new IOException($"option {(uint)option} of a client that does not speak the fixed new style");
        switch (option)
        {
            case NbdOption.ExportName:
                return ExportName(session, Encoding.UTF8.GetString(data));
            case NbdOption.Abort:
                // The client may be gone already, and need not wait for this.
                Reply(option, NbdReplyType.Ack, default(ReadOnlySpan<byte>));
                return false;
            case NbdOption.List:
                List(data);
                return null;
            case NbdOption.StartTls:
                StartTls(session, data);
                return null;
            case NbdOption.Info or NbdOption.Go:
                return Info(session, option, data);
            case NbdOption.StructuredReply:
                if (RefuseData(option, data))
                    return null;
                if (session.ExtendedHeaders)
                {
                    Reply(option, NbdReplyType.ErrorExtendedHeaderRequired, "extended headers were agreed on");
                    return null;
                }
                session.StructuredReplies = true;
                Reply(option, NbdReplyType.Ack, default(ReadOnlySpan<byte>));
                return null;
            case NbdOption.ExtendedHeaders:
                if (RefuseData(option, data))
                    return null;
                session.StructuredReplies = true;
                session.ExtendedHeaders = true;
                Reply(option, NbdReplyType.Ack, default(ReadOnlySpan<byte>));
                return null;
            case NbdOption.ListMetaContext or NbdOption.SetMetaContext:
                Contexts(session, option, data);
                return null;
            default:
                Reply(option, NbdReplyType.ErrorUnsupported, $"Unsupported option {(uint)option}");
                return null;
        }
    }

    private bool ExportName(NbdSession session, string name)
    {
        var export = _server.Find(name) ?? throw new IOException($"export '{Shown(name)}' not present");
        session.Export = export;
        DropForeignContexts(session, name);
        Span<byte> reply = stackalloc byte[10 + 124];
        reply.Clear();
        BinaryPrimitives.WriteUInt64BigEndian(reply, (ulong)export.Size);
        BinaryPrimitives.WriteUInt16BigEndian(reply[8..], (ushort)FlagsOf(session, export));
        _transport.Send(_noZeroes ? reply[..10] : reply);
        return true;
    }

    private static NbdExportFlags FlagsOf(NbdSession session, NbdExport export) =>
        export.Flags | (session.StructuredReplies ? NbdExportFlags.SendDontFragment : 0);

    private void List(ReadOnlySpan<byte> data)
    {
        if (RefuseData(NbdOption.List, data))
            return;
        foreach (var e in _server.Exports)
        {
            byte[] name = Encoding.UTF8.GetBytes(e.Name), description = Encoding.UTF8.GetBytes(e.Description ?? "");
            byte[] reply = new byte[4 + name.Length + description.Length];
            BinaryPrimitives.WriteUInt32BigEndian(reply, (uint)name.Length);
            name.CopyTo(reply, 4);
            description.CopyTo(reply, 4 + name.Length);
            Reply(NbdOption.List, NbdReplyType.Server, reply);
        }
        Reply(NbdOption.List, NbdReplyType.Ack, default(ReadOnlySpan<byte>));
    }

    private void StartTls(NbdSession session, ReadOnlySpan<byte> data)
    {
        if (RefuseData(NbdOption.StartTls, data))
            return;
        if (_server.Tls is null)
        {
            Reply(NbdOption.StartTls, NbdReplyType.ErrorPolicy, "TLS not configured");
            return;
        }
        if (_transport.IsEncrypted)
        {
            Reply(NbdOption.StartTls, NbdReplyType.ErrorInvalid, "TLS already enabled");
            return;
        }
        Reply(NbdOption.StartTls, NbdReplyType.Ack, default(ReadOnlySpan<byte>));
        string? peer = null;
        _transport.StartTls(s =>
        {
            var tls = _server.Tls.Start(s, null, _server.HandshakeLimit);
            peer = tls.PeerName;
            return tls;
        });
        if (_server.Authorize is { } authorize && !authorize(peer))
            throw new IOException($"TLS x509 authz check for {peer ?? "nobody"} is denied");
        // What was said in clear may have been said by another.
        session.StructuredReplies = false;
        session.ExtendedHeaders = false;
        session.Contexts.Clear();
    }

    private bool? Info(NbdSession session, NbdOption option, ReadOnlySpan<byte> data)
    {
        if (data.Length < 6 || BinaryPrimitives.ReadUInt32BigEndian(data) is var nameLength && nameLength > data.Length - 6)
        {
            Reply(option, NbdReplyType.ErrorInvalid, "the lengths in the request do not fit");
            return null;
        }
        string name = Encoding.UTF8.GetString(data.Slice(4, (int)nameLength));
        var requests = data[(4 + (int)nameLength)..];
        int count = BinaryPrimitives.ReadUInt16BigEndian(requests);
        if (requests.Length != 2 + 2 * count)
        {
            Reply(option, NbdReplyType.ErrorInvalid, "the number of requests does not fit the length");
            return null;
        }
        if (nameLength > NbdWire.MaxString)
        {
            Reply(option, NbdReplyType.ErrorInvalid, "the export's name is too long");
            return null;
        }
        if (_server.Find(name) is not { } export)
        {
            Reply(option, NbdReplyType.ErrorUnknown, $"export '{Shown(name)}' not present");
            return null;
        }
        bool wantsName = false, wantsDescription = false;
        for (int i = 0; i < count; i++)
        {
            var kind = (NbdInfoType)BinaryPrimitives.ReadUInt16BigEndian(requests[(2 + 2 * i)..]);
            wantsName |= kind == NbdInfoType.Name;
            wantsDescription |= kind == NbdInfoType.Description;
        }
        if (wantsName)
            ReplyInfo(option, NbdInfoType.Name, Encoding.UTF8.GetBytes(export.Name));
        if (wantsDescription && !string.IsNullOrEmpty(export.Description))
            ReplyInfo(option, NbdInfoType.Description, Encoding.UTF8.GetBytes(export.Description));
        Span<byte> sizes = stackalloc byte[12];
        BinaryPrimitives.WriteUInt32BigEndian(sizes, export.MinBlock);
        BinaryPrimitives.WriteUInt32BigEndian(sizes[4..], export.PreferredBlock);
        BinaryPrimitives.WriteUInt32BigEndian(sizes[8..], NbdWire.MaxPayload);
        ReplyInfo(option, NbdInfoType.BlockSize, sizes);
        BinaryPrimitives.WriteUInt64BigEndian(sizes, (ulong)export.Size);
        BinaryPrimitives.WriteUInt16BigEndian(sizes[8..], (ushort)FlagsOf(session, export));
        ReplyInfo(option, NbdInfoType.Export, sizes[..10]);
        Reply(option, NbdReplyType.Ack, default(ReadOnlySpan<byte>));
        if (option == NbdOption.Info)
            return null;
        session.Export = export;
        DropForeignContexts(session, name);
        return true;
    }

    private void ReplyInfo(NbdOption option, NbdInfoType kind, ReadOnlySpan<byte> data)
    {
        byte[] reply = new byte[2 + data.Length];
        BinaryPrimitives.WriteUInt16BigEndian(reply, (ushort)kind);
        data.CopyTo(reply.AsSpan(2));
        Reply(option, NbdReplyType.Info, reply);
    }

    private static void DropForeignContexts(NbdSession session, string name)
    {
        if (session.ContextExport != name)
            session.Contexts.Clear();
    }

    private void Contexts(NbdSession session, NbdOption option, ReadOnlySpan<byte> data)
    {
        bool set = option == NbdOption.SetMetaContext;
        if (set)
            session.Contexts.Clear();
        if (!session.StructuredReplies)
        {
            Reply(option, NbdReplyType.ErrorInvalid, "request option 'meta context' when structured reply is not negotiated");
            return;
        }
        if (!TryTakeString(ref data, out string name) || !TryTakeNumber(ref data, out uint queries))
        {
            Reply(option, NbdReplyType.ErrorInvalid, "the lengths in the request do not fit");
            return;
        }
        if (_server.Find(name) is not { } export)
        {
            Reply(option, NbdReplyType.ErrorUnknown, $"export '{Shown(name)}' not present");
            return;
        }
        var chosen = new SortedSet<uint>();
        for (uint i = 0; i < queries; i++)
        {
            if (!TryTakeString(ref data, out string query))
            {
                Reply(option, NbdReplyType.ErrorInvalid, "the lengths in the request do not fit");
                return;
            }
            foreach (var (id, context) in export.Contexts)
                if (context == query || (!set && Matches(query, context)))
                    chosen.Add(id);
        }
        if (!data.IsEmpty)
        {
            Reply(option, NbdReplyType.ErrorInvalid, "more data than queries");
            return;
        }
        foreach (var (id, context) in export.Contexts)
        {
            if (!chosen.Contains(id) && (set || queries > 0))
                continue;
            byte[] text = Encoding.UTF8.GetBytes(context);
            byte[] reply = new byte[4 + text.Length];
            BinaryPrimitives.WriteUInt32BigEndian(reply, set ? id : 0);
            text.CopyTo(reply, 4);
            Reply(option, NbdReplyType.MetaContext, reply);
        }
        if (set)
        {
            session.Contexts.AddRange(chosen);
            session.ContextExport = name;
        }
        Reply(option, NbdReplyType.Ack, default(ReadOnlySpan<byte>));
    }

    /// <summary>Whether a query of a list stands for a context: a namespace stands for all in it.</summary>
    private static bool Matches(string query, string context) => query.EndsWith(':') && context.StartsWith(query, StringComparison.Ordinal);

    private static bool TryTakeNumber(ref ReadOnlySpan<byte> data, out uint number)
    {
        number = 0;
        if (data.Length < 4)
            return false;
        number = BinaryPrimitives.ReadUInt32BigEndian(data);
        data = data[4..];
        return true;
    }

    private static bool TryTakeString(ref ReadOnlySpan<byte> data, out string text)
    {
        text = "";
        if (!TryTakeNumber(ref data, out uint length) || length > data.Length || length > NbdWire.MaxString)
            return false;
        text = Encoding.UTF8.GetString(data[..(int)length]);
        data = data[(int)length..];
        return true;
    }

    private bool RefuseData(NbdOption option, ReadOnlySpan<byte> data)
    {
        if (data.IsEmpty)
            return false;
        Reply(option, NbdReplyType.ErrorInvalid, $"option {(uint)option} should have no data");
        return true;
    }

    private static string Shown(string name) => name.Length <= 80 ? name : name[..77] + "...";

    private void Reply(NbdOption option, NbdReplyType type, string text) => Reply(option, type, Encoding.UTF8.GetBytes(text));

    private void Reply(NbdOption option, NbdReplyType type, ReadOnlySpan<byte> data)
    {
        Span<byte> header = stackalloc byte[20];
        BinaryPrimitives.WriteUInt64BigEndian(header, NbdWire.OptionReplyMagic);
        BinaryPrimitives.WriteUInt32BigEndian(header[8..], (uint)option);
        BinaryPrimitives.WriteUInt32BigEndian(header[12..], (uint)type);
        BinaryPrimitives.WriteUInt32BigEndian(header[16..], (uint)data.Length);
        _transport.Send(header, data);
    }
}
