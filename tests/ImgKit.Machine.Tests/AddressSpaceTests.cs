using ImgKit.Cpu;

namespace ImgKit.Machine.Tests;

public sealed class AddressSpaceTests
{
    private const nint Ram = 0x7000_0000, Other = 0x1000_0000;

    private static (AddressSpace Space, PhysicalMemoryMap Map, PhysicalMemoryMap InSmm) Make()
    {
        var (map, inSmm) = (new PhysicalMemoryMap(), new PhysicalMemoryMap());
        var space = new AddressSpace(map, inSmm);
        space.Add(AddressSpace.RamPriority, 0, 0x40_0000, Ram, MemoryKind.Ram);
        space.Add(AddressSpace.PciPriority, 0xA_0000, 0x2_0000, 0, MemoryKind.Ram);
        return (space, map, inSmm);
    }

    [Fact]
    public void What_continues_in_guest_and_host_memory_is_one_region()
    {
        var (space, map, _) = Make();
        for (uint at = 0xC_0000; at < 0x10_0000; at += 0x4000)
            space.Add(AddressSpace.ChipsetPriority, at, 0x4000, Ram + (nint)at, MemoryKind.Ram);
        space.Update();
        Assert.Equal([new MemoryRegion(0, 0xA_0000, Ram, MemoryKind.Ram), new MemoryRegion(0xC_0000, 0x34_0000, Ram + 0xC_0000, MemoryKind.Ram)], map.Regions);
    }

    [Fact]
    public void Other_memory_or_another_kind_makes_a_region_of_its_own()
    {
        var (space, map, _) = Make();
        space.Add(AddressSpace.ChipsetPriority, 0xC_0000, 0x4000, Ram + 0xC_0000, MemoryKind.Rom);
        space.Add(AddressSpace.ChipsetPriority, 0xC_4000, 0x4000, Other, MemoryKind.Ram);
        space.Update();
        Assert.Equal(
        [
            new MemoryRegion(0, 0xA_0000, Ram, MemoryKind.Ram),
            new MemoryRegion(0xC_0000, 0x4000, Ram + 0xC_0000, MemoryKind.Rom),
            new MemoryRegion(0xC_4000, 0x4000, Other, MemoryKind.Ram),
            new MemoryRegion(0xC_8000, 0x33_8000, Ram + 0xC_8000, MemoryKind.Ram),
        ], map.Regions);
    }

    [Fact]
    public void Memory_with_a_dirty_log_is_not_taken_together_with_memory_without()
    {
        var (space, map, _) = Make();
        var logged = space.Add(AddressSpace.ChipsetPriority, 0x20_0000, 0x1000, Ram + 0x20_0000, MemoryKind.Ram);
        logged.DirtyLog = Other;
        space.Update();
        Assert.Equal([0ul, 0xC_0000ul, 0x20_0000ul, 0x20_1000ul], map.Regions.Select(r => r.Start));
    }

    [Fact]
    public void Only_processors_in_system_management_mode_see_what_is_theirs()
    {
        var (space, map, inSmm) = Make();
        var smram = space.Add(AddressSpace.SmramPriority, true);
        (smram.Start, smram.Length, smram.Host, smram.Kind) = (0xA_0000, 0x2_0000, Ram + 0xA_0000, MemoryKind.Ram);
        space.Update();
        Assert.False(map.TryFind(0xA_8000, out _));
        Assert.True(inSmm.TryFind(0xA_8000, out var region));
        Assert.Equal(new MemoryRegion(0, 0x40_0000, Ram, MemoryKind.Ram), region);
    }
}
