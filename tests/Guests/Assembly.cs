namespace ImgKit.Guests;

/// <summary>Guests of a few hundred bytes, made by as and ld.</summary>
internal static class Assembly
{
    /// <summary>Assembles and links a program for 16 and 32 bits.</summary>
    /// <param name="file">where it goes; its source and object file lie beside it.</param>
    /// <param name="source">text for as.</param>
    /// <param name="start">address of its first instruction.</param>
    /// <param name="more">further arguments of ld; with <c>--oformat binary</c> it is the bytes alone.</param>
    internal static void Make(string file, string source, string start, params string[] more)
    {
        File.WriteAllText(file + ".s", source);
        Tool.Run("/usr/bin/as", "--32", "-o", file + ".o", file + ".s");
        Tool.Run("/usr/bin/ld", ["-m", "elf_i386", "-Ttext", start, "-z", "max-page-size=4096", "-e", "0", .. more, "-o", file, file + ".o"]);
    }

    /// <summary>A Multiboot kernel at 2 MiB that says "ready" on the first serial port, and then runs what follows <c>next:</c> for each letter that comes
    /// there, in AL. <c>put</c> writes AL; changed are BL and DX.</summary>
    internal const string Shell = """
            .set MAGIC, 0x1BADB002
            .section .text
            .long MAGIC, 0, -MAGIC
            .globl _start
        _start:
            movl $0x280000, %esp
            movl $ready, %esi
        1:  lodsb
            testb %al, %al
            jz listen
            call put
            jmp 1b
        ready: .asciz "ready\n"
        put:
            movb %al, %bl
            movw $0x3FD, %dx
        2:  inb %dx, %al
            testb $0x20, %al
            jz 2b
            movb %bl, %al
            movw $0x3F8, %dx
            outb %al, %dx
            ret
        listen:
            movw $0x3FD, %dx
            inb %dx, %al
            testb $1, %al
            jz listen
            movw $0x3F8, %dx
            inb %dx, %al

        """;

    /// <summary>Makes a kernel of <see cref="Shell"/> and what follows; its file is there until the process ends.</summary>
    internal static string MakeShell(string commands)
    {
        string folder = Directory.CreateTempSubdirectory("kernel").FullName;
        AppDomain.CurrentDomain.ProcessExit += (_, _) => Directory.Delete(folder, true);
        string kernel = Path.Combine(folder, "kernel");
        Make(kernel, Shell + commands, "0x200000", "-e", "_start");
        return kernel;
    }
}
