using System.Buffers.Binary;
using ImgKit.Machine.Devices.Misc;
using ImgKit.Machine.Firmware;

namespace ImgKit.Machine.Tests;

public sealed class MultibootKernelTests : IDisposable
{
    private const uint Magic = 0x1BADB002, Megabyte = 1 << 20;
    private readonly TestBoard _board = new();

    public void Dispose() => _board.Dispose();

    private void Provide(byte[] kernel, ulong memory)
    {
        using var file = new BootFile(kernel);
        MultibootKernel.Provide(new FwCfg(_board.Services), file, [], "", memory);
    }

    private static byte[] Words(params uint[] words)
    {
        var bytes = new byte[4 * words.Length];
        for (int i = 0; i < words.Length; i++)
            BinaryPrimitives.WriteUInt32LittleEndian(bytes.AsSpan(4 * i), words[i]);
        return bytes;
    }

    // The header names the addresses: header, load, its end, the end of what is cleared, the entry.
    private static byte[] Flat(uint clearEnd, uint at = Megabyte) =>
        Words(Magic, 0x10000, unchecked(0u - Magic - 0x10000), at, at, 0, clearEnd, at + 32, 0x90909090);

    private static byte[] Elf(int segments)
    {
        var kernel = new byte[256 + 32 * segments];
        Words(0x464C457F, 0x00010101).CopyTo(kernel, 0);
        Words(Megabyte, 256).CopyTo(kernel, 24);                                // entry, program headers
        Words(0x0020_0034, (uint)segments).CopyTo(kernel, 40);                  // their size and number
        Words(Magic, 0, unchecked(0u - Magic)).CopyTo(kernel, 64);
        for (int i = 0; i < segments; i++)
            Words(1, 0, Megabyte + 16 * (uint)i, Megabyte + 16 * (uint)i, 4, 16, 7, 0).CopyTo(kernel, 256 + 32 * i);
        return kernel;
    }

    [Fact]
    public void What_fits_is_provided()
    {
        Provide(Flat(2 * Megabyte), 16 * Megabyte);
        Provide(Elf(100), 16 * Megabyte);
    }

    [Theory]
    [InlineData(20, 16, "fit")]             // beyond memory
    [InlineData(2800, 3000, "fit")]         // more than one request can clear
    public void What_is_cleared_has_a_limit(uint end, uint memory, string message) =>
        Assert.Contains(message, Assert.Throws<MachineException>(() => Provide(Flat(end * Megabyte), (ulong)memory * Megabyte)).Message);

    [Theory]
    [InlineData(129)]
    [InlineData(5000)]
    public void So_have_segments(int count) =>
        Assert.Contains("more than 256 segments", Assert.Throws<MachineException>(() => Provide(Elf(count), 16 * Megabyte)).Message);

    [Theory]
    [InlineData(0x7C00, 0x10000)]
    [InlineData(0x21000, 0x80000)]
    public void Low_memory_that_nobody_uses_is_the_kernels(uint at, uint end) => Provide(Flat(end, at), 16 * Megabyte);

    [Theory]
    [InlineData(0x7000, 0x8000)]            // the firmware's stack
    [InlineData(0x8000, 0x10001)]           // the information
    [InlineData(0x20000, 0x30000)]
    [InlineData(0x7F000, 0x80001)]          // what the firmware keeps at the end
    [InlineData(0x8000, 0x200000)]
    public void The_rest_of_it_is_not(uint at, uint end) =>
        Assert.Contains("in use", Assert.Throws<MachineException>(() => Provide(Flat(end, at), 16 * Megabyte)).Message);
}
