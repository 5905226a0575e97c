namespace ImgKit.Guests;

/// <summary>Firmware of a few kilobytes: less than its window below 1 MiB.</summary>
public sealed class SmallFirmwareTests : IDisposable
{
    // Prints what is at the window's begin and at its own, from real mode and its shadow; ends with status 33.
    private const string Firmware = """
            .code16
            .org 0
            .byte 'a'
        start:
            movl $0x3F8, %edx
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

    private readonly string _folder = Directory.CreateTempSubdirectory("firmware").FullName;

    public SmallFirmwareTests() => Assembly.Make(At("rom"), Firmware, "0", "--oformat", "binary");

    public void Dispose() => Directory.Delete(_folder, true);

    private string At(string name) => Path.Combine(_folder, name);

    [Theory]
    [InlineData("pc")]
    [InlineData("isapc")]
    public void What_lies_before_it_reads_as_ones(string machine)
    {
        using var guest = new Guest("-M", machine, "-m", "16", "-bios", At("rom"), "-device", "isa-debug-exit,iosize=4");
        Assert.Equal(33, guest.WaitForExit(60));
        Assert.Equal("\u00FFa", guest.Serial);
    }

    [Fact]
    public void Each_instruction_is_logged_with_what_the_one_before_has_changed()
    {
        // under KVM nobody sees the instructions
        using var guest = new Guest("-accel", "soft", "-m", "16", "-bios", At("rom"), "-device", "isa-debug-exit,iosize=4", "-d", "exec", "-D", At("log"));
        Assert.Equal(33, guest.WaitForExit(60));
        string[] lines = File.ReadAllLines(At("log"));
        Assert.StartsWith("0 f000:000000000000fff0 ", lines[0]);
        Assert.Equal(["0 ff00:0000000000000001", "0 ff00:0000000000000007 rdx=3f8", "0 ff00:000000000000000a rax=e000",
            "0 ff00:000000000000000c", "0 ff00:000000000000000f rax=e0ff"], lines[1..6]);
        Assert.StartsWith("0 ff00:", lines[^1]);
        Assert.Contains(" rdx=501", lines[^1]);
    }
}
