using System.Globalization;
using System.Text;
using System.Text.Json;
using ImgKit.Machine.Pci;

namespace ImgKit.Machine.Monitors;

/// <summary>The functions of the PCI bus, for people and for programs.</summary>
internal static class PciInfo
{
    private const int SubsystemIds = 0x2C, Line = 0x3C, Pin = 0x3D;

    // Names of classes as the PCI Code and ID Assignment Specification has them, of those that there are here.
    private static string? ClassName(ushort code) => code switch
    {
        0x0100 => "SCSI controller",
        0x0101 => "IDE controller",
        0x0200 => "Ethernet controller",
        0x0300 => "VGA controller",
        0x0600 => "Host bridge",
        0x0601 => "ISA bridge",
        0x0680 => "Bridge",
        0x0C03 => "USB controller",
        _ => null,
    };

    internal static string Text(Pc pc)
    {
        if (pc.Pci == null)
            return "No PCI buses\n";
        var text = new StringBuilder();
        foreach (var f in pc.Pci.Functions)
        {
            text.Append(CultureInfo.InvariantCulture, $"  Bus  0, device {f.DeviceFunction >> 3,3}, function {f.DeviceFunction & 7}:\n");
            text.Append(CultureInfo.InvariantCulture, $"    {ClassName(f.ClassId) ?? $"Class {f.ClassId:x4}"}: PCI device {f.VendorId:x4}:{f.DeviceId:x4}\n");
            uint ids = f.ConfigRead(SubsystemIds, 4);
            if (ids != 0)
                text.Append(CultureInfo.InvariantCulture, $"      PCI subsystem {ids & 0xFFFF:x4}:{ids >> 16:x4}\n");
            if (f.ConfigRead(Pin, 1) is var pin and not 0)
                text.Append(CultureInfo.InvariantCulture, $"      IRQ {f.ConfigRead(Line, 1)}, pin {(char)('A' + pin - 1)}\n");
            foreach (var bar in f.Regions)
                text.Append($"      {bar}\n");
            text.Append($"      id \"{f.Id}\"\n");
        }
        return text.ToString();
    }

    internal static void Write(Utf8JsonWriter w, PciBus bus)
    {
        w.WriteStartObject();
        w.WriteNumber("bus", 0);
        w.WriteStartArray("devices");
        foreach (var f in bus.Functions)
            Write(w, f);
        w.WriteEndArray();
        w.WriteEndObject();
    }

    private static void Write(Utf8JsonWriter w, PciDevice f)
    {
        uint pin = f.ConfigRead(Pin, 1), ids = f.ConfigRead(SubsystemIds, 4);
        w.WriteStartObject();
        w.WriteNumber("bus", 0);
        w.WriteNumber("slot", f.DeviceFunction >> 3);
        w.WriteNumber("function", f.DeviceFunction & 7);
        w.WriteString("qdev_id", f.Id);
        w.WriteNumber("irq_pin", pin);
        if (pin != 0)
            w.WriteNumber("irq", f.ConfigRead(Line, 1));
        w.WriteStartObject("class_info");
        w.WriteNumber("class", f.ClassId);
        if (ClassName(f.ClassId) is { } name)
            w.WriteString("desc", name);
        w.WriteEndObject();
        w.WriteStartObject("id");
        w.WriteNumber("vendor", f.VendorId);
        w.WriteNumber("device", f.DeviceId);
        if (ids != 0)
        {
            w.WriteNumber("subsystem-vendor", ids & 0xFFFF);
            w.WriteNumber("subsystem", ids >> 16);
        }
        w.WriteEndObject();
        w.WriteStartArray("regions");
        foreach (var bar in f.Regions)
        {
            w.WriteStartObject();
            w.WriteNumber("bar", bar.Index);
            w.WriteNumber("size", bar.Size);
            // All ones, as a signed number, where it is not mapped.
            w.WriteNumber("address", (long)(bar.Address ?? ulong.MaxValue));
            w.WriteString("type", bar.IsPort ? "io" : "memory");
            if (!bar.IsPort)
            {
                w.WriteBoolean("prefetch", bar.IsPrefetchable);
                w.WriteBoolean("mem_type_64", bar.Is64);
            }
            w.WriteEndObject();
        }
        w.WriteEndArray();
        w.WriteEndObject();
    }
}
