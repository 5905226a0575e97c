namespace ImgKit.Machine.Monitors;

/// <summary>Plugging devices in and out of the running machine: its buses take none while it runs, which is said in the words of a bus that cannot.</summary>
internal static class PlugCommands
{
    /// <summary><c>device_add</c>.</summary>
    internal static void Add(Pc pc, string driver, string? bus)
    {
        var type = DeviceCatalogue.Find(driver) ?? throw new CommandException($"'{driver}' is not a valid device model name");
        string[] buses = BusesOf(pc, type.Bus);
        if (bus != null && !buses.Contains(bus))
            throw new CommandException($"Bus '{bus}' not found");
        if (buses.Length == 0)
            throw new CommandException(type.Bus == DeviceBus.System ? "Parameter 'driver' expects a pluggable device type"
                : $"No '{type.Bus.ToString().ToUpperInvariant()}' bus found for device '{driver}'");
        throw NotWhileRunning(bus ?? buses[0]);
    }

    /// <summary><c>device_del</c>.</summary>
    internal static void Remove(Pc pc, string id)
    {
        var device = pc.Devices.FirstOrDefault(d => d.Id == id && DeviceCatalogue.Find(d.TypeName) != null) ?? throw CommandException.NoDevice(id);
        throw NotWhileRunning(device.BusName ?? BusesOf(pc, DeviceCatalogue.Find(device.TypeName)!.Bus).FirstOrDefault() ?? "main-system-bus");
    }

    private static string[] BusesOf(Pc pc, DeviceBus kind) => kind switch
    {
        DeviceBus.Isa => ["isa.0"],
        DeviceBus.Pci => pc.Pci == null ? [] : ["pci.0"],
        DeviceBus.Ide => ["ide.0", "ide.1"],
        DeviceBus.Floppy => ["floppy-bus.0"],
        DeviceBus.Usb => ["usb-bus.0"],
        DeviceBus.Scsi => [.. pc.Devices.OfType<Devices.Storage.Scsi.Lsi53C895A>().Select(a => a.Scsi.Name)],
        _ => [],
    };

    private static CommandException NotWhileRunning(string bus) => new($"Bus '{bus}' does not support hotplugging");
}
