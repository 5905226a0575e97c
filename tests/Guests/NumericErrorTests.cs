
namespace ImgKit.Guests;

/// <summary>A program for DOS that lets the FPU interrupt it: IRQ 13, port F0h, both interrupt controllers.</summary>
public sealed class NumericErrorTests
{
    // Divides by zero twice with the error unmasked; the handler of INT 75h counts, and leaves by the book.
    private const string Program = """
            .code16
            .globl _start
        _start:
            cli
            xorw %ax, %ax
            xorw %bx, %bx
            movw %ax, %ds
            movw %ax, %ss
            movw $0x7000, %sp
            movw $handler, 0x75 * 4
            movw %ax, 0x75 * 4 + 2
            movl %cr0, %eax
            andb $~0x2E, %al
            movl %eax, %cr0
            inb $0xA1, %al
            andb $0xDF, %al
            outb %al, $0xA1
            inb $0x21, %al
            andb $0xFB, %al
            outb %al, $0x21
            sti
            fninit
            fldcw control
            fld1
            fdivs zero
            incb %bh
            fwait
            fld1
            fdivs zero
            fld1
            movb %bh, %al
            call put
            movb %bl, %al
            call put
            movb status, %al
            andb $4, %al
            call put
            movw $0x501, %dx
            movl $16, %eax
            outl %eax, %dx
        1:  hlt
            jmp 1b
        put:
            addb $'0', %al
            movw $0x3F8, %dx
            outb %al, %dx
            ret
        handler:
            pushw %ax
            incb %bl
            xorb %al, %al
            outb %al, $0xF0
            fnstsw status
            fnclex
            movb $0x20, %al
            outb %al, $0xA0
            outb %al, $0x20
            popw %ax
            iret
        control: .word 0x37B
        zero: .long 0
        status: .word 0
            .org 510
            .word 0xAA55

        """;

    [Fact]
    public void A_numeric_error_is_irq_13_once()
    {
        string folder = Directory.CreateTempSubdirectory("numeric").FullName;
        try
        {
            string At(string name) => Path.Combine(folder, name);
            Assembly.Make(At("disk"), Program, "0x7C00", "--oformat", "binary");
            // Under KVM it is the host's processor that decides, and an exception.
            using var guest = new Guest("-accel", "soft", "-m", "16", "-drive", $"file={At("disk")},format=raw", "-device", "isa-debug-exit,iosize=4");
            Assert.Equal(33, guest.WaitForExit(60));
            Assert.Equal("124", guest.Serial);
        }
        finally
        {
            Directory.Delete(folder, true);
        }
    }
}
