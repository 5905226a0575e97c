namespace ImgKit.Guests;

/// <summary>Guests that hurt themselves: nobody else is hurt, and a reset makes them whole again.</summary>
public sealed class HostileTests : IDisposable
{
    // 3 triple fault; 9 port 92's reset; k the keyboard controller's; j, m, z jump to nothing, to registers, to the end of memory; r writes to ROM;
    // a closes both gates of A20 and opens one (says A when that did what it should); d DMA from the disk to ROM, to registers and to nothing, by descriptors that lie
    // there, too (says D); v puts the frame buffer over this program; f writes to a port for ever; t has every timer run at its fastest, for ever.
    private const string Commands = """
            cmpb $'3', %al
            je triple
            cmpb $'9', %al
            je fast
            cmpb $'k', %al
            je keyboard
            cmpb $'j', %al
            je nothing
            cmpb $'m', %al
            je registers
            cmpb $'z', %al
            je end
            cmpb $'r', %al
            je rom
            cmpb $'a', %al
            je a20
            cmpb $'d', %al
            je dma
            cmpb $'v', %al
            je cover
            cmpb $'f', %al
            je flood
            cmpb $'t', %al
            je timers
            jmp listen
        triple:
            lidt none
            int3
        none: .word 0
            .long 0
        fast:
            inb $0x92, %al
            andb $0xFE, %al
            outb %al, $0x92
            orb $1, %al
            outb %al, $0x92
            jmp .
        keyboard:
            movb $0xFE, %al
            outb %al, $0x64
            jmp .
        nothing:
            lidt none
            movl $0xE8000000, %eax
            jmp *%eax
        registers:
            lidt none
            movl $0xFED00000, %eax
            jmp *%eax
        end:
            lidt none
            movl $0xFFFFFFFF, %eax
            jmp *%eax
        rom:
            movl $0xFFFF0000, %edi
            movl $0x3FFF, %ecx
            xorl %eax, %eax
            rep stosl
            movl $0xFFFFFFFC, %edi
            movl %eax, (%edi)
            movb $6, %al
            movw $0xCF9, %dx
            outb %al, %dx
            jmp .
        a20:
            movl $0x11111111, 0x8000
            movb $0xD1, %al
            outb %al, $0x64
            movb $0xDD, %al
            outb %al, $0x60
            movb $0, %al
            outb %al, $0x92
            movl $0x22222222, 0x108000
            movl 0x8000, %ecx
            movb $2, %al
            outb %al, $0x92
            movl $0x33333333, 0x108000
            cmpl $0x22222222, %ecx
            jne 3f
            cmpl $0x22222222, 0x8000
            jne 3f
            movb $'A', %al
            call put
        3:  jmp listen
        # EAX: a register of configuration space
        config:
            movw $0xCF8, %dx
            outl %eax, %dx
            movw $0xCFC, %dx
            ret
        cover:
            movl $0x80001004, %eax
            call config
            movl $7, %eax
            outl %eax, %dx
            movl $0x80001010, %eax
            call config
            movl $0, %eax
            outl %eax, %dx
            jmp .
        # The memory map has no such places for descriptors or data.
        places: .long 0x290000, 0xFFFF0000, 0xFED00000, 0xE8000000, 0xFFFFFFFC, 0xA0000, 0
        dma:
            movl $0x80000904, %eax
            call config
            inl %dx, %eax
            orl $5, %eax
            outl %eax, %dx
            movl $0x80000920, %eax
            call config
            inl %dx, %eax
            andl $0xFFF0, %eax
            movl %eax, %ebp
            movl $places, %esi
        4:  lodsl
            testl %eax, %eax
            jz 9f
            movl %eax, 0x290000
            movl $0x80000000, 0x290004
            movl $0x290000, %edi
            call transfer
            movl %eax, %edi
            call transfer
            jmp 4b
        9:  movb $'D', %al
            call put
            jmp listen
        # EDI: the descriptors. Reads 128 sectors; in vain, for all that matters here.
        transfer:
            pushl %eax
            movl %ebp, %edx
            movb $0, %al
            outb %al, %dx
            addl $4, %edx
            movl %edi, %eax
            outl %eax, %dx
            movw $0x1F6, %dx
            movb $0xE0, %al
            outb %al, %dx
            movw $0x1F2, %dx
            movb $128, %al
            outb %al, %dx
            movw $0x1F7, %dx
            movb $0xC8, %al
            outb %al, %dx
            movl %ebp, %edx
            movb $9, %al
            outb %al, %dx
            movl $200000, %ecx
        5:  inb $0x80, %al
            loop 6f
        6:  decl %ecx
            jg 5b
            movl %ebp, %edx
            movb $0, %al
            outb %al, %dx
            movw $0x3F6, %dx
            movb $4, %al
            outb %al, %dx
            movb $0, %al
            outb %al, %dx
            popl %eax
            ret
        flood:
            movl $0x200000, %esi
            movl $0x10000, %ecx
            movw $0x402, %dx
            rep outsb
            movw $0x1CE, %dx
            outw %ax, %dx
            incl %eax
            jmp flood
        timers:
            movb $0x34, %al
            outb %al, $0x43
            movb $1, %al
            outb %al, $0x40
            movb $0, %al
            outb %al, $0x40
            movb $10, %al
            outb %al, $0x70
            movb $0x21, %al
            outb %al, $0x71
            movb $11, %al
            outb %al, $0x70
            movb $0x72, %al
            outb %al, $0x71
            movl $0x4C, 0xFED00100
            movl $1, 0xFED00108
            movl $1, 0xFED00108
            movl $0x4C, 0xFED00120
            movl $1, 0xFED00128
            movl $1, 0xFED00128
            movl $3, 0xFED00010
            movl $0xB, 0xFEE003E0
            movl $0x20030, 0xFEE00320
            movl $1, 0xFEE00380
        7:  inb $0x71, %al
            jmp 7b

        """;

    private static readonly string Kernel = Assembly.MakeShell(Commands);

    private readonly string _disk = Path.GetTempFileName();

    public HostileTests() => File.WriteAllBytes(_disk, new byte[1 << 20]);

    public void Dispose() => File.Delete(_disk);

    private Guest Start(params string[] more)
    {
        var guest = new Guest(["-m", "16", "-kernel", Kernel, "-drive", $"file={_disk},format=raw", .. more]);
        guest.WaitForSerial("ready", 60);
        return guest;
    }

    [Fact]
    public void It_starts_again_whatever_it_died_of()
    {
        using (var guest = Start())
        {
            guest.Qmp("query-status");
            const string Deaths = "39kjmzr3";
            for (int i = 0; i < Deaths.Length; i++)
            {
                guest.Type(Deaths[i..(i + 1)]);
                Assert.True(guest.WaitForEvent("RESET", 30).GetProperty("data").GetProperty("guest").GetBoolean());
                guest.WaitForSerial(string.Concat(Enumerable.Repeat("ready\n", i + 2)), 60);
            }
            guest.Quit();
        }
        using var once = Start("-no-reboot");
        once.Type("3");
        Assert.Equal(0, once.WaitForExit(60));
    }

    [Fact]
    public void It_goes_on_after_what_hurt_nobody()
    {
        using var guest = Start();
        guest.Type("a");
        guest.WaitForSerial("ready\nA", 60);
        guest.Type("d");
        guest.WaitForSerial("AD", 60);
        guest.Type("3");
        guest.WaitForSerial("ADready\n", 60);
        guest.Quit();
    }

    [Fact]
    public void It_is_lost_until_somebody_resets_it()
    {
        using var guest = Start();
        const string Losses = "vft";
        for (int i = 0; i < Losses.Length; i++)
        {
            string before = guest.Serial;
            guest.Type(Losses[i..(i + 1)]);
            Thread.Sleep(500);
            Assert.Equal("running", guest.Qmp("query-status").GetProperty("status").GetString());
            guest.Hmp("info registers");
            Assert.Equal(before, guest.Serial);
            guest.Qmp("system_reset");
            guest.WaitForSerial(before + "ready\n", 60);
        }
        guest.Quit();
    }
}
