namespace ImgKit.Guests;

/// <summary>Firmware of a few kilobytes: less than its window below 1 MiB.</summary>
public sealed class SmallFirmwareTests
{
    // Prints what is at the window's begin and at its own, from real mode and its shadow; ends with status 33.
    private const string Firmware = """
            .code16
            .org 0
            .byte 'a'
        start:
            movw $0x3F8, %dx
            movw $0xE000, %ax
            movw %ax, %ds
            movb 0, %al
            outb %al, %dx
            movw $0xFF00, %ax
            movw %ax, %ds
            movb 0, %al
            outb %al, %dx
            movl $16, %eax
            movw $0x501, %dx
            outl %eax, %dx
        end:
            hlt
            jmp end
            .org 0xFF0
            ljmp $0xFF00, $start
            .org 0x1000

        """;

    [Theory]
    [InlineData("pc")]
    [InlineData("isapc")]
    public void What_lies_before_it_reads_as_ones(string machine)
    {
        string folder = Directory.CreateTempSubdirectory("firmware").FullName;
        try
        {
            string At(string name) => Path.Combine(folder, name);
            File.WriteAllText(At("rom.s"), Firmware);
            Tool.Run("/usr/bin/as", "--32", "-o", At("rom.o"), At("rom.s"));
            Tool.Run("/usr/bin/objcopy", "-O", "binary", "-j", ".text", At("rom.o"), At("rom"));
            using var guest = new Guest("-M", machine, "-m", "16", "-bios", At("rom"), "-device", "isa-debug-exit,iosize=4");
            Assert.Equal(33, guest.WaitForExit(60));
            Assert.Equal("\u00FFa", guest.Serial);
        }
        finally
        {
            Directory.Delete(folder, true);
        }
    }
}
