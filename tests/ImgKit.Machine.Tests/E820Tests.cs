using System.Buffers.Binary;
using ImgKit.Cpu;
using ImgKit.Machine.Firmware;

namespace ImgKit.Machine.Tests;

public sealed class E820Tests
{
    [Fact]
    public void What_the_engine_needs_for_itself_is_reserved_for_firmware_and_kernels()
    {
        using var memory = new GuestMemory(64 << 20, new PhysicalMemoryMap()) { Reserved = (0xFEFF_C000, 0x4000) };
        var expected = new E820.Entry(0xFEFF_C000, 0x4000, E820.Reserved);
        Assert.Contains(expected, E820.ForKernel(memory));
        byte[] file = E820.File(memory);
        Assert.Equal(40, file.Length);
        Assert.Equal(expected, new E820.Entry(BinaryPrimitives.ReadUInt64LittleEndian(file.AsSpan(20)), BinaryPrimitives.ReadUInt64LittleEndian(file.AsSpan(28)),
            BinaryPrimitives.ReadUInt32LittleEndian(file.AsSpan(36))));
    }

    [Fact]
    public void An_engine_without_needs_reserves_nothing()
    {
        using var memory = new GuestMemory(64 << 20, new PhysicalMemoryMap());
        Assert.DoesNotContain(E820.ForKernel(memory), e => e.Start > 0x1000_0000);
        Assert.Equal(20, E820.File(memory).Length);
    }
}
