namespace ImgKit.Programs.Kvm;

/// <summary>An error of the command line: one line for the user.</summary>
internal sealed class UsageException(string message) : Exception(message);

/// <summary>A <c>-drive</c> or one of its short forms, as its names and values.</summary>
/// <param name="Text">the option as it was given, for messages.</param>
/// <param name="Values">what it says.</param>
internal sealed record DriveSpec(string Text, List<KeyValuePair<string, string>> Values);

/// <summary>A <c>-mon</c>, <c>-monitor</c> or <c>-qmp</c>.</summary>
/// <param name="Option">the option as it was given, for messages.</param>
/// <param name="Device">the character device's description, or <c>chardev:ID</c>.</param>
/// <param name="IsQmp">speaks QMP.</param>
/// <param name="Pretty">QMP with line breaks.</param>
internal sealed record MonitorSpec(string Option, string Device, bool IsQmp, bool Pretty);

/// <summary>Everything that the command line says, in the order it was said where that matters.</summary>
internal sealed class Settings
{
    internal string Machine { get; set; } = "pc";
    internal bool Acpi { get; set; } = true;
    internal bool Hpet { get; set; } = true;
    internal bool Usb { get; set; }
    internal bool Smm { get; set; } = true;
    internal string? Accelerator { get; set; }
    internal bool ReinjectPitTicks { get; set; } = true;

    internal bool ReinjectRtcTicks { get; set; }
    internal string? Cpu { get; set; }
    internal ulong Memory { get; set; } = 128 << 20;
    internal int Processors { get; set; } = 1;
    internal int Sockets { get; set; }
    internal int Cores { get; set; }
    internal int Threads { get; set; }
    internal List<DriveSpec> Drives { get; } = [];
    internal List<string> BlockDevices { get; } = [];
    internal List<string> Devices { get; } = [];
    internal List<(string Driver, string Property, string Value)> Globals { get; } = [];

    /// <summary>The last <c>-global</c> of a property; null: none.</summary>
    internal string? Global(string driver, string property) => Globals.FindLast(g => g.Driver == driver && g.Property == property).Value;

    internal List<string> CharDevices { get; } = [];
    internal List<string> Serials { get; } = [];
    internal List<string> Parallels { get; } = [];
    internal List<MonitorSpec> Monitors { get; } = [];
    internal bool MonitorGiven { get; set; }
    internal List<string> FirmwareConfig { get; } = [];
    internal string? DebugConsole { get; set; }
    internal bool Snapshot { get; set; }
    internal string? Kernel { get; set; }
    internal string? InitialRamDisk { get; set; }
    internal string CommandLine { get; set; } = "";
    internal string BootOrder { get; set; } = "cad";
    internal string? BootOnce { get; set; }
    internal bool BootMenu { get; set; }
    internal int? BootMenuWait { get; set; }
    internal bool BootStrict { get; set; }
    internal string? BootSplash { get; set; }
    internal int? BootRetry { get; set; }
    internal string? Firmware { get; set; }
    internal List<string> Folders { get; } = [];
    internal bool NoGraphic { get; set; }
    internal string? Display { get; set; }
    internal string Vga { get; set; } = "std";
    internal string RtcBase { get; set; } = "utc";
    internal string Name { get; set; } = "";

    /// <summary>What ps and top call the process; null: as it was started.</summary>
    internal string? ProcessName { get; set; }

    internal Guid Uuid { get; set; }
    internal string? PidFile { get; set; }
    internal bool Daemonize { get; set; }
    internal bool NoDefaults { get; set; }
    internal bool StartStopped { get; set; }
    internal bool NoReboot { get; set; }
    internal bool NoShutdown { get; set; }
    internal string? LogFile { get; set; }
    internal bool LogEvents { get; set; }
    internal bool LogExecution { get; set; }
    internal bool LogExits { get; set; }
}
