using ImgKit.Machine.Firmware;

namespace ImgKit.Machine.Tests;

public sealed class BootRomTests
{
    [Fact]
    public void The_rom_has_a_header_that_firmware_accepts_and_a_request_a_piece()
    {
        byte[] rom = BootRom.Build("Linux", [BootRom.Piece.Of(0x18, 0x10000, 0x4000), BootRom.Piece.Of(0x15, 0x20000, 0), BootRom.Piece.Next(0x100000, 5_000_000)], [0xEB, 0xFE]);
        Assert.Equal([0x55, 0xAA, 1], rom[..3]);
        Assert.Equal(0, rom.Sum(b => b) & 0xFF);
        int header = rom[0x1A];
        Assert.Equal("$PnP"u8.ToArray(), rom[header..(header + 4)]);
        Assert.Equal(0, rom[header..(header + 32)].Sum(b => b) & 0xFF);
        // One piece is empty: nothing is fetched for it.
        Assert.Equal(2, rom[0x61]);
        Assert.Equal([0, 0x18, 0, 10, 0, 0, 0x40, 0, 0, 0, 0, 0, 0, 1, 0, 0], rom[0x80..0x90]);
        Assert.Equal([0, 0, 0, 2, 0, 0x4C, 0x4B, 0x40, 0, 0, 0, 0, 0, 0x10, 0, 0], rom[0x90..0xA0]);
    }

    [Theory]
    [InlineData("console=tty0 vga=788", true)]
    [InlineData("vga=ask quiet", true)]
    [InlineData("vga=normal", false)]
    [InlineData("novga=788", false)]
    [InlineData("", false)]
    public void A_mode_of_the_screen_is_a_reason_for_the_setup_code(string commandLine, bool wants) =>
        Assert.Equal(wants, LinuxKernel.WantsScreenMode(commandLine));
}
