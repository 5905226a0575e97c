using ImgKit.Machine.CharDevices;

namespace ImgKit.Machine.Devices.Misc;

/// <summary>Catalogue entries of small devices.</summary>
internal static class MiscDevices
{
    internal static DeviceType DebugExit { get; } = new("isa-debug-exit", DeviceBus.Isa, "Misc", "ends the process with a status",
        [new("iobase", "uint32", "port (default 0x501)"), new("iosize", "uint32", "number of ports (default 2)")],
        p => new DebugExit(p.Services, (ushort)p.Options.Number("iobase", 0x501), (int)Math.Clamp(p.Options.Number("iosize", 2), 1, 64)));

    internal static DeviceType DebugConsole { get; } = new("isa-debugcon", DeviceBus.Isa, "Misc", "takes characters at a port",
        [new("iobase", "uint32", "port (default 0xe9)"), new("chardev", "str", "ID of a chardev to use as a backend")],
        p => new DebugConsole(p.Services, (ushort)p.Options.Number("iobase", 0xE9),
            p.Options.Text("chardev") is { } id && p.CharDevices != null ? p.CharDevices(id) : new NullCharDevice()));

    internal static DeviceType PanicPort { get; } = new("pvpanic", DeviceBus.Isa, "Misc", "the guest tells that it panicked",
        [new("ioport", "uint16", "port (default 0x505)")],
        p => new PanicPort(p.Services, (ushort)p.Options.Number("ioport", 0x505)));

    internal static DeviceType TestDevice { get; } = new("pc-testdev", DeviceBus.Isa, "Misc", "what programs that test a processor use", [],
        p => new TestDevice(p.Services));
}
