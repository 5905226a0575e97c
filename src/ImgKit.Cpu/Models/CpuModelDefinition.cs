namespace ImgKit.Cpu.Models;

/// <summary>A row of the catalogue: what <c>-cpu NAME</c> stands for before flags are added and removed.</summary>
internal sealed record CpuModelDefinition
{
    /// <summary>Name on the command line.</summary>
    public required string Name { get; init; }

    /// <summary>CPUID vendor, 12 characters.</summary>
    public required string Vendor { get; init; }

    /// <summary>Family, extended family included.</summary>
    public required int Family { get; init; }

    /// <summary>Model, extended model included.</summary>
    public required int Model { get; init; }

    /// <summary>Stepping, 0..15.</summary>
    public required int Stepping { get; init; }

    /// <summary>Highest basic CPUID leaf.</summary>
    public required uint Level { get; init; }

    /// <summary>Highest extended CPUID leaf; 0: none.</summary>
    public uint ExtendedLevel { get; init; }

    /// <summary>Flags, by name, separated by blanks.</summary>
    public required string Flags { get; init; }

    /// <summary>Brand string, up to 47 characters; empty where leaves 0x80000002..4 do not exist.</summary>
    public string Brand { get; init; } = "";

    /// <summary>What <c>-cpu help</c> says of it.</summary>
    public string Description => Brand.Length != 0 ? Brand : "";
}
