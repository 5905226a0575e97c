using System.Globalization;
using System.Text.Json;
using ImgKit.Block;
using ImgKit.Block.Filters;
using ImgKit.Block.Jobs.Info;
using ImgKit.Machine.Devices.Storage;

namespace ImgKit.Machine.Monitors;

/// <summary>What programs are told of drives: <c>query-block</c>. Names and types: QEMU's qapi/block-core.json, BlockInfo.</summary>
internal static class BlockInfo
{
    internal static void Write(Utf8JsonWriter w, Drive d)
    {
        w.WriteStartObject();
        // Floppy drives have no error policies to tell of.
        if (!d.IsRemovable || d.IsCdRom)
            w.WriteString("io-status", d.IoStatus);
        w.WriteString("device", d.IsNameless ? "" : d.Name);
        w.WriteBoolean("locked", d.IsLocked);
        w.WriteBoolean("removable", d.IsRemovable);
        if (d.Media is { } media)
        {
            w.WritePropertyName("inserted");
            WriteNode(w, d, media, media.NodeName ?? d.Name, false);
        }
        if (d.IsRemovable)
            w.WriteBoolean("tray_open", d.IsTrayOpen);
        if (d.AttachedTo != null)
            w.WriteString("qdev", d.AttachedTo);
        w.WriteString("type", "unknown");
        w.WriteEndObject();
    }

    /// <summary>Writes what is known of a node: QEMU's BlockDeviceInfo.</summary>
    /// <param name="w">where to.</param>
    /// <param name="d">the drive whose medium it is or is below.</param>
    /// <param name="media">the node.</param>
    /// <param name="name">its name.</param>
    /// <param name="isFlat">without the images below.</param>
    internal static void WriteNode(Utf8JsonWriter w, Drive d, BlockDevice media, string name, bool isFlat)
    {
        bool isTop = media == d.Media;
        w.WriteStartObject();
        w.WriteString("file", isTop && d.FileName.Length > 0 ? d.FileName : media.FileName);
        w.WriteString("node-name", name);
        w.WriteBoolean("ro", media.IsReadOnly || isTop && d.IsReadOnly && !d.IsCdRom);
        w.WriteString("drv", media.DriverName);
        w.WriteBoolean("encrypted", false);
        w.WriteString("detect_zeroes", isTop ? d.DetectZeroes : "off");
        w.WriteNumber("write_threshold", 0);
        w.WriteNumber("backing_file_depth", MediaCommands.Depth(media));
        if (media.Backing != null)
            w.WriteString("backing_file", media.Backing.FileName);
        foreach (var (old, limit) in DriveDescription.PlainLimits)
            w.WriteNumber(old, isTop ? d.Limits.GetValueOrDefault(limit) : 0);
        w.WriteStartObject("cache");
        w.WriteBoolean("writeback", d.CacheMode.StartsWith("writeback", StringComparison.Ordinal));
        w.WriteBoolean("direct", d.CacheMode.Contains("direct", StringComparison.Ordinal));
        w.WriteBoolean("no-flush", d.CacheMode.Contains("ignore flushes", StringComparison.Ordinal));
        w.WriteEndObject();
        w.WritePropertyName("image");
        WriteImage(w, media, isFlat);
        w.WriteEndObject();
    }

    // An image, and those below it inside.
    private static void WriteImage(Utf8JsonWriter w, BlockDevice device, bool isFlat)
    {
        var info = ImageInfo.Of(FilterDevice.ImageBelow(device));
        w.WriteStartObject();
        w.WriteString("filename", info.FileName);
        w.WriteString("format", info.Format);
        w.WriteNumber("virtual-size", info.VirtualSize);
        if (info.ActualSize >= 0)
            w.WriteNumber("actual-size", info.ActualSize);
        if (info.ClusterSize > 0)
            w.WriteNumber("cluster-size", info.ClusterSize);
        w.WriteBoolean("dirty-flag", info.IsDirty ?? false);
        WriteText(w, "backing-filename", info.BackingFile);
        WriteText(w, "full-backing-filename", info.FullBackingFile);
        WriteText(w, "backing-filename-format", info.BackingFormat);
        if (info.FormatSpecific is { } specific)
        {
            w.WriteStartObject("format-specific");
            w.WriteString("type", info.Format);
            w.WritePropertyName("data");
            WriteValue(w, specific);
            w.WriteEndObject();
        }
        if (device.Backing is { } backing && !isFlat)
        {
            w.WritePropertyName("backing-image");
            WriteImage(w, backing, false);
        }
        w.WriteEndObject();
    }

    private static void WriteText(Utf8JsonWriter w, string name, string? value)
    {
        if (value != null)
            w.WriteString(name, value);
    }

    private static void WriteValue(Utf8JsonWriter w, object value)
    {
        switch (value)
        {
            case InfoObject members:
                w.WriteStartObject();
                foreach (var (name, member) in members)
                {
                    w.WritePropertyName(name);
                    WriteValue(w, member);
                }
                w.WriteEndObject();
                break;
            case IReadOnlyList<object> list:
                w.WriteStartArray();
                foreach (object item in list)
                    WriteValue(w, item);
                w.WriteEndArray();
                break;
            case bool flag:
                w.WriteBooleanValue(flag);
                break;
            case string text:
                w.WriteStringValue(text);
                break;
            default:
                w.WriteNumberValue(Convert.ToInt64(value, CultureInfo.InvariantCulture));
                break;
        }
    }
}
