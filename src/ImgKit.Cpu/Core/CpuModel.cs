namespace ImgKit.Cpu;

/// <summary>A processor model: what CPUID reports and which instructions and registers exist.</summary>
public sealed partial class CpuModel
{
    /// <summary>As in <c>-cpu NAME</c>.</summary>
    public required string Name { get; init; }
}
