namespace ImgKit.Machine.Pci;

/// <summary>What a base address register places, as it stands now.</summary>
/// <param name="Index">of the register; 6: the expansion ROM.</param>
/// <param name="Size">bytes or ports.</param>
/// <param name="Address">first byte or port; null: not mapped.</param>
/// <param name="IsPort">in I/O space.</param>
/// <param name="Is64">the address has 64 bits.</param>
/// <param name="IsPrefetchable">reads have no side effects.</param>
public sealed record PciRegion(int Index, ulong Size, ulong? Address, bool IsPort, bool Is64, bool IsPrefetchable)
{
    /// <summary>As <c>info pci</c> shows it.</summary>
    public override string ToString()
    {
        string range = Address is not { } at ? "(not mapped)" : IsPort ? $"at 0x{at:x4} [0x{at + Size - 1:x4}]" : $"at 0x{at:x8} [0x{at + Size - 1:x8}]";
        return IsPort ? $"BAR{Index}: I/O {range}." : $"BAR{Index}: {(Is64 ? 64 : 32)} bit{(IsPrefetchable ? " prefetchable" : "")} memory {range}.";
    }
}
