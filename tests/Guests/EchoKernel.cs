
namespace ImgKit.Guests;

/// <summary>A guest of a few hundred bytes, for what the program around it does. It writes "ready" to the first serial port and does what it is told
/// there by single letters; everything else it sends back.</summary>
/// <remarks>q: ends the process with status 3. r: resets. w: writes sector 1 of the first IDE disk, and answers K or E. t: the date in CMOS memory.
/// !: tells pvpanic. d: writes e and f to the debug ports 0xE9 and 0x402.</remarks>
internal static class EchoKernel
{
    /// <summary>The kernel's file, made once by as and ld.</summary>
    internal static string Path { get; } = Assembly.MakeShell(Commands);

    private const string Commands = """
            cmpb $'q', %al
            je quit
            cmpb $'r', %al
            je reset
            cmpb $'w', %al
            je write
            cmpb $'t', %al
            je date
            cmpb $'!', %al
            je panic
            cmpb $'d', %al
            je debug
            call put
            jmp listen
        quit:
            movw $0x501, %dx
            movl $1, %eax
            outl %eax, %dx
            jmp listen
        panic:
            movw $0x505, %dx
            movb $1, %al
            outb %al, %dx
            jmp listen
        debug:
            movb $'e', %al
            outb %al, $0xE9
            movw $0x402, %dx
            movb $'f', %al
            outb %al, %dx
            jmp listen
        reset:
            movw $0xCF9, %dx
            movb $6, %al
            outb %al, %dx
            jmp listen
        hex:
            movb %al, %cl
            shrb $4, %al
            call digit
            movb %cl, %al
            andb $15, %al
        digit:
            addb $'0', %al
            jmp put
        date:
            movb $9, %ch
        3:  movb %ch, %al
            outb %al, $0x70
            inb $0x71, %al
            call hex
            decb %ch
            cmpb $6, %ch
            jne 3b
            movb $'.', %al
            call put
            jmp listen
        write:
            movw $0x1F2, %dx
            movb $1, %al
            outb %al, %dx
            incw %dx
            outb %al, %dx
            incw %dx
            xorb %al, %al
            outb %al, %dx
            incw %dx
            outb %al, %dx
            incw %dx
            movb $0xE0, %al
            outb %al, %dx
            incw %dx
            movb $0x30, %al
            outb %al, %dx
        4:  inb %dx, %al
            testb $0x80, %al
            jnz 4b
            movl $256, %ecx
            movw $0x1F0, %dx
            movw $0xA5A5, %ax
        5:  outw %ax, %dx
            loop 5b
            movw $0x1F7, %dx
        6:  inb %dx, %al
            testb $0x80, %al
            jnz 6b
            testb $1, %al
            movb $'K', %al
            jz 7f
            movb $'E', %al
        7:  call put
            jmp listen

        """;
}
