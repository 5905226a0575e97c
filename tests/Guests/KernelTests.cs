namespace ImgKit.Guests;

/// <summary>Kernels that <c>-kernel</c> starts in each of its ways.</summary>
public sealed class KernelTests
{
    [Fact]
    public void A_kernel_for_newer_processors_says_what_is_missing()
    {
        var (kernel, _) = Repository.MakeKernel("686");
        using var guest = new Guest("-m", "64", "-cpu", "pentium", "-kernel", kernel);
        guest.WaitForScreen("This kernel requires the following features not present on the CPU:", 60);
        guest.WaitForScreen("cmov", 5);
        guest.Quit();
    }

    [Fact]
    public void A_kernel_of_64_bits_says_that_it_needs_them()
    {
        var (kernel, _) = Repository.CloudKernel;
        using var guest = new Guest("-m", "64", "-cpu", "qemu32", "-kernel", kernel);
        guest.WaitForScreen("This kernel requires an x86-64 CPU, but only detected an i686 CPU.", 60);
        guest.Quit();
    }

    [Fact]
    public void A_kernel_of_32_bits_without_pae_starts_through_its_setup_code()
    {
        var (kernel, disk) = Repository.MakeKernel("686");
        using var guest = new Guest("-m", "256", "-cpu", "pentium2", "-vga", "none", "-kernel", kernel, "-initrd", disk,
            "-append", "console=ttyS0 panic=-1 quiet", "-no-reboot");
        Assert.Equal(0, guest.WaitForExit(240));
        Assert.Contains("-686 i686", guest.Serial);
        Assert.Contains("INIT-DONE", guest.Serial);
    }

    // Prints its command line, and each module with its own, on the serial port; ends with status 33.
    private const string Multiboot = """
            .set MAGIC, 0x1BADB002
            .section .text
            .long MAGIC, 3, -(MAGIC + 3)
            .globl _start
        _start:
            cmpl $0x2BADB002, %eax
            jne end
            movl $stack, %esp
            movl %ebx, %edi
            # memory, boot device, command line, modules, map; 32 MiB less what the firmware keeps; a map of whole entries
            movl (%edi), %eax
            andl $0x4F, %eax
            cmpl $0x4F, %eax
            jne end
            cmpl $600, 4(%edi)
            jb end
            cmpl $640, 4(%edi)
            ja end
            cmpl $30000, 8(%edi)
            jb end
            cmpl $31744, 8(%edi)
            jae end
            movl 48(%edi), %ebx
            cmpl $48, 44(%edi)
            jb end
            cmpl $20, (%ebx)
            jne end
            # what is beyond the file is zero
            movl $space, %esi
        zero:
            lodsl
            testl %eax, %eax
            jnz end
            cmpl $space + 4096, %esi
            jb zero
            # the firmware has set up the text screen
            movl $0xB8000, %ebx
            movl $0x074D0742, (%ebx)
            movl 16(%edi), %esi
            call text
            movl 20(%edi), %ebp
            movl 24(%edi), %ebx
        next:
            testl %ebp, %ebp
            jz good
            movb $'|', %al
            call put
            movl 8(%ebx), %esi
            call text
            movb $'=', %al
            call put
            movl (%ebx), %esi
        1:  cmpl 4(%ebx), %esi
            jae 2f
            lodsb
            call put
            jmp 1b
        2:  addl $16, %ebx
            decl %ebp
            jmp next
        text:
            lodsb
            testb %al, %al
            jz 3f
            call put
            jmp text
        put:
            movw $0x3F8, %dx
            outb %al, %dx
        3:  ret
        good:
            movb $'.', %al
            call put
        wait:
            inb $0x64, %al
            testb $1, %al
            jz wait
            movl $16, %eax
            movw $0x501, %dx
            outl %eax, %dx
        end:
            hlt
            jmp end
            .lcomm space, 4096
            .set stack, space + 4096

        """;

    // Looks at the start information of PVH, and prints it: command line, first module, the name of the RSDP, and how many ranges of memory begin at 0
    // and at 1 MiB. Ends with status 33. Source of the layout: Xen, public/arch-x86/hvm/start_info.h.
    private const string Pvh = """
            .section .note.Xen, "a", @note
            .long 4, 4, 18
            .asciz "Xen"
            .long _start
            .section .text
            .globl _start
        _start:
            movl $stack, %esp
            cmpl $0x336EC578, (%ebx)
            jne end
            cmpl $1, 12(%ebx)
            jne end
            movl 24(%ebx), %esi
        1:  lodsb
            testb %al, %al
            jz 2f
            call put
            jmp 1b
        2:  call bar
            movl 16(%ebx), %edi
            movl (%edi), %esi
            movl 8(%edi), %ecx
            call print
            call bar
            movl 32(%ebx), %esi
            movl $8, %ecx
            call print
            call bar
            movl 40(%ebx), %esi
            movl 48(%ebx), %ecx
        3:  cmpl $1, 16(%esi)
            jne 5f
            movb $'0', %al
            cmpl $0, (%esi)
            je 4f
            movb $'1', %al
            cmpl $0x100000, (%esi)
            jne 5f
        4:  call put
        5:  addl $24, %esi
            loop 3b
            movl $16, %eax
            movw $0x501, %dx
            outl %eax, %dx
        end:
            hlt
            jmp end
        bar:
            movb $'|', %al
            jmp put
        print:
            lodsb
            call put
            loop print
            ret
        put:
            movw $0x3F8, %dx
            outb %al, %dx
            ret
            .lcomm space, 4096
            .set stack, space + 4096

        """;

    [Theory]
    [InlineData("elf32-i386")]
    [InlineData("elf64-x86-64")]
    public void A_kernel_with_a_pvh_entry_gets_its_start_information(string format)
    {
        string folder = Directory.CreateTempSubdirectory("pvh").FullName;
        try
        {
            string At(string name) => Path.Combine(folder, name);
            Assembly.Make(At("kernel32"), Pvh, "0x200000", "-e", "_start", "--section-start=.note.Xen=0x210000");
            Tool.Run("objcopy", "-O", format, At("kernel32"), At("kernel"));
            File.WriteAllText(At("disk"), "the disk");
            using var guest = new Guest("-m", "32", "-kernel", At("kernel"), "-append", "a line", "-initrd", At("disk"), "-device", "isa-debug-exit,iosize=4");
            Assert.Equal(33, guest.WaitForExit(60));
            Assert.Equal("a line|the disk|RSD PTR |01", guest.Serial);
        }
        finally
        {
            Directory.Delete(folder, true);
        }
    }

    [Fact]
    public void A_multiboot_kernel_gets_its_command_line_and_modules()
    {
        string folder = Directory.CreateTempSubdirectory("multiboot").FullName;
        try
        {
            string At(string name) => Path.Combine(folder, name);
            Assembly.Make(At("kernel"), Multiboot, "0x200000", "-e", "_start");
            File.WriteAllText(At("one"), "first");
            File.WriteAllText(At("two"), "second");
            using var guest = new Guest("-m", "32", "-kernel", At("kernel"), "-append", "to be or not", "-initrd", $"{At("one")} a b,{At("two")}",
                "-device", "isa-debug-exit,iosize=4");
            guest.WaitForScreen("BM", 60);
            guest.Press("ret");
            Assert.Equal(33, guest.WaitForExit(60));
            Assert.Equal($"{At("kernel")} to be or not|{At("one")} a b=first|{At("two")}=second.", guest.Serial);
        }
        finally
        {
            Directory.Delete(folder, true);
        }
    }
}
