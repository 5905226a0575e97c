using System.Globalization;
using System.Text;
using ImgKit.Block;
using ImgKit.Block.Jobs.Info;
using ImgKit.CommandLine;

namespace ImgKit.Programs.Img;

/// <summary><c>info</c> and snapshot lists in the peer's layouts.</summary>
internal static class InfoText
{
    /// <summary>For people.</summary>
    public static string Human(ImageInfo info)
    {
        var s = new StringBuilder();
        s.Append(CultureInfo.InvariantCulture, $"""
            image: {info.FileName}
            file format: {info.Format}
            virtual size: {SizeText.ToHuman(info.VirtualSize)} ({info.VirtualSize} bytes)
            disk size: {(info.ActualSize < 0 ? "unavailable" : SizeText.ToHuman(info.ActualSize))}

            """);
        if (info.IsEncrypted)
            s.Append("encrypted: yes\n");
        if (info.ClusterSize > 0)
            s.Append(CultureInfo.InvariantCulture, $"cluster_size: {info.ClusterSize}\n");
        if (info.IsDirty == true)
            s.Append("cleanly shut down: no\n");
        if (info.BackingFile is { } backing)
        {
            s.Append("backing file: ").Append(backing);
            if (info.FullBackingFile is not { } full)
                s.Append(" (cannot determine actual path)");
            else if (full != backing)
                s.Append(" (actual path: ").Append(full).Append(')');
            s.Append('\n');
            if (info.BackingFormat is { } format)
                s.Append("backing file format: ").Append(format).Append('\n');
        }
        if (info.Snapshots.Count > 0)
            AppendSnapshots(s, info.Snapshots);
        if (info.FormatSpecific is { } specific)
        {
            s.Append("Format specific information:\n");
            AppendObject(s, specific, 1);
        }
        return s.ToString();
    }

    /// <summary>For programs.</summary>
    public static JsonObject Json(ImageInfo info)
    {
        var o = new JsonObject
        {
            { "filename", info.FileName },
            { "format", info.Format },
            { "dirty-flag", info.IsDirty },
            { "actual-size", info.ActualSize < 0 ? null : info.ActualSize },
            { "virtual-size", info.VirtualSize },
            { "cluster-size", info.ClusterSize > 0 ? info.ClusterSize : null },
            { "encrypted", info.IsEncrypted ? true : null },
            { "backing-filename", info.BackingFile },
            { "full-backing-filename", info.FullBackingFile },
            { "backing-filename-format", info.BackingFormat },
        };
        if (info.Snapshots.Count > 0)
            o.Add("snapshots", info.Snapshots.Select(static object (n) => Json(n)).ToList());
        if (info.FormatSpecific is { } specific)
            o.Add("format-specific", new JsonObject { { "type", info.Format }, { "data", specific } });
        return o;
    }

    /// <summary>The table of internal snapshots, with heading.</summary>
    public static void AppendSnapshots(StringBuilder s, IReadOnlyList<SnapshotInfo> snapshots)
    {
        s.Append("Snapshot list:\n")
            .Append("ID".PadRight(10)).Append("TAG".PadRight(17)).Append("VM SIZE".PadLeft(8)).Append("DATE".PadLeft(20)).Append("VM CLOCK".PadLeft(13))
            .Append("ICOUNT".PadLeft(11)).Append('\n');
        foreach (var n in snapshots)
        {
            long ms = n.VmClock / 1_000_000;
            string clock = string.Create(CultureInfo.InvariantCulture, $"{ms / 3_600_000:00}:{ms / 60_000 % 60:00}:{ms / 1000 % 60:00}.{ms % 1000:000}");
            string date = n.Date.ToLocalTime().ToString("yyyy-MM-dd HH:mm:ss", CultureInfo.InvariantCulture);
            string instructions = n.InstructionCount >= 0 ? n.InstructionCount.ToString(CultureInfo.InvariantCulture) : "";
            s.Append(n.Id.PadRight(9)).Append(' ').Append(n.Name.PadRight(16)).Append(' ').Append(SizeText.ToHuman(n.VmStateSize).PadLeft(8))
                .Append(date.PadLeft(20)).Append(clock.PadLeft(13)).Append(instructions.PadLeft(11)).Append('\n');
        }
    }

    private static JsonObject Json(SnapshotInfo n) => new()
    {
        { "id", n.Id },
        { "name", n.Name },
        { "vm-state-size", n.VmStateSize },
        { "date-sec", n.Date.ToUnixTimeSeconds() },
        { "date-nsec", n.Date.Ticks % TimeSpan.TicksPerSecond * 100 },
        { "vm-clock-sec", n.VmClock / 1_000_000_000 },
        { "vm-clock-nsec", n.VmClock % 1_000_000_000 },
        { "icount", n.InstructionCount >= 0 ? n.InstructionCount : null },
    };

    private static void AppendObject(StringBuilder s, IReadOnlyList<KeyValuePair<string, object>> members, int depth)
    {
        foreach (var (name, value) in JsonText.Ordered(members))
        {
            s.Append(' ', depth * 4).Append(name.Replace('-', ' ')).Append(':');
            AppendValue(s, value, depth);
        }
    }

    private static void AppendValue(StringBuilder s, object value, int depth)
    {
        switch (value)
        {
            case IReadOnlyList<KeyValuePair<string, object>> members:
                s.Append('\n');
                AppendObject(s, members, depth + 1);
                break;
            case IReadOnlyList<object> list:
                s.Append('\n');
                for (int i = 0; i < list.Count; i++)
                {
                    s.Append(' ', (depth + 1) * 4).Append(CultureInfo.InvariantCulture, $"[{i}]:");
                    AppendValue(s, list[i], depth + 1);
                }
                break;
            default:
                s.Append(' ').Append(value is bool b ? (b ? "true" : "false") : Convert.ToString(value, CultureInfo.InvariantCulture)).Append('\n');
                break;
        }
    }
}
