using ImgKit.Cpu;
using ImgKit.Machine.CharDevices;
using ImgKit.Machine.Firmware;

namespace ImgKit.Machine;

/// <summary>How a <see cref="Pc"/> is made.</summary>
public sealed class PcOptions
{
    /// <summary>The machine lock and the event loop, made before the machine so that character devices can be on it.</summary>
    public required Lock MachineLock { get; init; }

    /// <inheritdoc cref="MachineLock"/>
    public required EventLoop Loop { get; init; }

    /// <summary>RAM in bytes: a multiple of 4096, at least 1 MiB.</summary>
    public ulong MemorySize { get; init; } = 128 << 20;

    /// <summary>Processors.</summary>
    public int Processors { get; init; } = 1;

    /// <summary>How the processors are grouped: cores of a socket, threads of a core.</summary>
    public int Cores { get; init; } = 1;

    /// <inheritdoc cref="Cores"/>
    public int Threads { get; init; } = 1;

    /// <summary>Makes the engine for this machine's memory: as it is seen usually, and in system-management mode.</summary>
    public required Func<PhysicalMemoryMap, PhysicalMemoryMap, CpuEngine> Engine { get; init; }

    /// <summary>PCI board (<c>pc</c>); else ISA only (<c>isapc</c>).</summary>
    public bool HasPci { get; init; } = true;

    /// <summary>ACPI tables and the PM function.</summary>
    public bool HasAcpi { get; init; } = true;

    /// <summary>The USB function.</summary>
    public bool HasUsb { get; init; }

    /// <summary>The HPET.</summary>
    public bool HasHpet { get; init; } = true;

    /// <summary>Firmware: the whole ROM that ends at 4 GiB; null only with <see cref="Kernel"/> or <see cref="Flash"/>.</summary>
    public byte[]? Firmware { get; init; }

    /// <summary>Drives that are flash memory: the first ends at 4 GiB and has the firmware, the second lies before it. Not with <see cref="Firmware"/>.</summary>
    public Drive?[] Flash { get; } = new Drive?[2];

    /// <summary>Files for fw_cfg, such as <c>vgaroms/vgabios.bin</c>.</summary>
    public Dictionary<string, byte[]> FirmwareFiles { get; } = [];

    /// <summary>A kernel to start, in place of the firmware or after it. The machine closes it, and the RAM disks.</summary>
    public BootFile? Kernel { get; init; }

    /// <summary>The kernel starts after the firmware (needs <see cref="Firmware"/>): Linux through its own 16-bit setup code, and Multiboot.</summary>
    public bool StartsKernelByFirmware { get; init; }

    /// <summary>Initial RAM disk, or (multiboot) modules, with their command lines.</summary>
    public List<(BootFile Content, string CommandLine)> InitialRamDisks { get; } = [];

    /// <summary>The kernel's command line.</summary>
    public string CommandLine { get; init; } = "";

    /// <summary>Order of boot devices: letters a, c, d, n.</summary>
    public string BootOrder { get; init; } = "cad";

    /// <summary>Boot once in this order, then in <see cref="BootOrder"/>.</summary>
    public string? BootOnce { get; init; }

    /// <summary>Show the firmware's boot menu.</summary>
    public bool BootMenu { get; init; }

    /// <summary>Milliseconds that the menu waits.</summary>
    public int? BootMenuWait { get; init; }

    /// <summary>Milliseconds before a failed boot is tried again; -1: never.</summary>
    public int? BootRetry { get; init; }

    /// <summary>Nothing is tried but devices with a boot index, when there are any.</summary>
    public bool BootStrict { get; init; }

    /// <summary>Up to four serial ports; null entries are absent.</summary>
    public List<CharDevice?> SerialPorts { get; } = [];

    /// <summary>Up to three parallel ports.</summary>
    public List<CharDevice?> ParallelPorts { get; } = [];

    /// <summary>Where the firmware's log (port 0x402) goes; null: no such port.</summary>
    public CharDevice? DebugConsole { get; init; }

    /// <summary>Date and time at the start.</summary>
    public DateTime Date { get; init; } = DateTime.UtcNow;

    /// <summary>Ticks of the interval timer that the guest was not able to take follow late; else they are lost.</summary>
    public bool DeliversLateTicks { get; init; } = true;

    /// <summary>Likewise the periodic interrupts of the real-time clock.</summary>
    public bool DeliversLateRtcTicks { get; init; }

    /// <summary>System UUID.</summary>
    public Guid Uuid { get; init; }

    /// <summary>The guest's name.</summary>
    public string Name { get; init; } = "";

    /// <summary>Exit instead of resetting.</summary>
    public bool NoReboot { get; init; }

    /// <summary>Stop instead of exiting when the guest powers off.</summary>
    public bool NoShutdown { get; init; }

    /// <summary>Do not start the processors.</summary>
    public bool StartStopped { get; init; }

    /// <summary>Disks by IDE position 0..3 (primary master, slave, secondary master, slave).</summary>
    public Drive?[] IdeDrives { get; } = new Drive?[4];

    /// <summary>Kinds of the floppy drives; None: the one for the disk.</summary>
    public Devices.Storage.Floppy.FloppyDriveKind[] FloppyKinds { get; } = new Devices.Storage.Floppy.FloppyDriveKind[2];

    /// <summary>Floppy disks can be read at their own data rates only.</summary>
    public bool ChecksFloppyRate { get; init; } = true;

    /// <summary>Floppies A and B.</summary>
    public Drive?[] Floppies { get; } = new Drive?[2];
}
