using System.Globalization;
using System.Text;
using ImgKit.Block.Protocols;
using ImgKit.Block.Protocols.Nbd;
using ImgKit.CommandLine;

namespace ImgKit.Programs.Nbd;

/// <summary><c>--list</c>: what another server exports.</summary>
internal static class ExportList
{
    private static readonly (NbdExportFlags Flag, string Name)[] FlagNames =
    [
        (NbdExportFlags.ReadOnly, "readonly"),
        (NbdExportFlags.SendFlush, "flush"),
        (NbdExportFlags.SendFua, "fua"),
        (NbdExportFlags.Rotational, "rotational"),
        (NbdExportFlags.SendTrim, "trim"),
        (NbdExportFlags.SendWriteZeroes, "zeroes"),
        (NbdExportFlags.SendDontFragment, "df"),
        (NbdExportFlags.CanMultiConnect, "multi"),
        (NbdExportFlags.SendResize, "resize"),
        (NbdExportFlags.SendCache, "cache"),
        (NbdExportFlags.SendFastZero, "fast-zero"),
    ];

    /// <summary>Asks and prints.</summary>
    public static void Print(ServerOptions options)
    {
        string host = options.Bind ?? "0.0.0.0";
        var address = options.Socket is not null ? NbdAddress.Unix(options.Socket) : NbdAddress.Tcp(host, options.Port);
        NbdTls? tls = options.TlsCredentials is { } id ? NbdTls.FromObject(options.Objects, id, server: false) : null;
        using var transport = new StreamTransport(address.Connect());
        var list = new NbdHandshake(transport, tls, options.TlsHostName ?? (options.Socket is null ? host : "")).List();
        var s = new StringBuilder();
        s.Append(CultureInfo.InvariantCulture, $"exports available: {list.Count}\n");
        foreach (var e in list)
            Append(s, e);
        OutputWriter.Out.Write(s.ToString());
    }

    private static void Append(StringBuilder s, NbdExportInfo e)
    {
        s.Append(CultureInfo.InvariantCulture, $" export: '{e.Name}'\n");
        if (!string.IsNullOrEmpty(e.Description))
            s.Append(CultureInfo.InvariantCulture, $"  description: {e.Description}\n");
        if ((e.Flags & NbdExportFlags.HasFlags) != 0)
        {
            s.Append(CultureInfo.InvariantCulture, $"  size:  {e.Size}\n  flags: 0x{(int)e.Flags:x} (");
            foreach (var (flag, name) in FlagNames)
                if ((e.Flags & flag) != 0)
                    s.Append(' ').Append(name);
            s.Append(" )\n");
        }
        if (e.MinBlock != 0)
            s.Append(CultureInfo.InvariantCulture, $"  min block: {e.MinBlock}\n  opt block: {e.PreferredBlock}\n  max block: {e.MaxBlock}\n");
        if (e.Contexts.Count == 0)
            return;
        s.Append(CultureInfo.InvariantCulture, $"  available meta contexts: {e.Contexts.Count}\n");
        foreach (string c in e.Contexts)
            s.Append("   ").Append(c).Append('\n');
    }
}
