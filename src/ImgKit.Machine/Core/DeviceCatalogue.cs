using System.Text;
using ImgKit.Machine.Devices.Display;
using ImgKit.Machine.Devices.Misc;
using ImgKit.Machine.Devices.Storage;
using ImgKit.Machine.Devices.Storage.Floppy;
using ImgKit.Machine.Devices.Storage.Scsi;
using ImgKit.Machine.Devices.Usb;
using ImgKit.Machine.Devices.Virtio;

namespace ImgKit.Machine;

/// <summary>Every device type that <c>-device</c> knows. A plain list: a new device is one line here.</summary>
public static class DeviceCatalogue
{
    /// <summary>All types, in the order of <c>-device help</c> within a category.</summary>
    public static IReadOnlyList<DeviceType> All { get; } =
    [
        IdeDriveDevice.HardDisk,
        IdeDriveDevice.CdRom,
        Lsi53C895A.Type,
        ScsiDriveDevice.HardDisk,
        ScsiDriveDevice.CdRom,
        FloppyDriveDevice.Type,
        VirtioBlk.Type,
        VirtioRng.Type,
        Uhci.Type,
        StdVga.Type,
        IsaVga.Type,
        MiscDevices.DebugExit,
        MiscDevices.DebugConsole,
        MiscDevices.TestDevice,
        MiscDevices.PanicPort,
    ];

    /// <summary>The type of a name; null when there is none.</summary>
    public static DeviceType? Find(string name) => All.FirstOrDefault(t => t.Name == name);

    /// <summary>The text of <c>-device help</c>.</summary>
    public static string Help()
    {
        var text = new StringBuilder();
        foreach (var category in All.GroupBy(t => t.Category))
        {
            text.Append(text.Length > 0 ? "\n" : "").Append(category.Key).Append(" devices:\n");
            foreach (var t in category.OrderBy(t => t.Name, StringComparer.Ordinal))
            {
                text.Append($"name \"{t.Name}\"");
                if (t.Bus != DeviceBus.System)
                    text.Append($", bus {(t.Bus is DeviceBus.Floppy ? "floppy-bus" : t.Bus.ToString().ToUpperInvariant())}");
                text.Append($", desc \"{t.Description}\"\n");
            }
        }
        return text.ToString();
    }

    /// <summary>The text of <c>-device NAME,help</c>.</summary>
    public static string Help(DeviceType type)
    {
        var text = new StringBuilder($"{type.Name} options:\n");
        foreach (var p in type.Properties.OrderBy(p => p.Name, StringComparer.Ordinal))
            text.Append($"  {p.Name}=<{p.Kind}>".PadRight(24)).Append($" - {p.Help}\n");
        return text.ToString();
    }
}
