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
    private static byte[] Flat(uint clearEnd) =>
        Words(Magic, 0x10000, unchecked(0u - Magic - 0x10000), Megabyte, Megabyte, 0, clearEnd, Megabyte + 32, 0x90909090);

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
}
