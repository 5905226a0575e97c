using System.Diagnostics;
using System.Text;

namespace ImgKit.Guests;

/// <summary>What the firmware starts from, as <c>-boot</c> and <c>bootindex=</c> say: media whose boot sectors print what they are.</summary>
public sealed class BootOrderTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("boot").FullName;
    private readonly string[] _all;

    public BootOrderTests()
    {
        File.WriteAllBytes(At("floppy"), [.. Sector("A-FLOPPY"), .. new byte[1_474_560 - 512]]);
        File.WriteAllBytes(At("disk"), [.. Sector("A-DISK"), .. new byte[(1 << 20) - 512]]);
        File.WriteAllBytes(At("second"), [.. Sector("B-DISK"), .. new byte[(1 << 20) - 512]]);
        Directory.CreateDirectory(At("tree"));
        File.WriteAllBytes(At("tree/boot"), [.. Sector("A-DISC"), .. new byte[2048 - 512]]);
        Tool.Run("xorriso", "-as", "mkisofs", "-quiet", "-b", "boot", "-no-emul-boot", "-boot-load-size", "4", "-o", At("disc"), At("tree"));
        _all = ["-m", "16", "-drive", $"file={At("floppy")},format=raw,if=floppy", "-drive", $"file={At("disk")},format=raw", "-cdrom", At("disc")];
    }

    public void Dispose() => Directory.Delete(_folder, true);

    private string At(string name) => Path.Combine(_folder, name);

    /// <summary>A boot sector that prints a text by the BIOS, and stands.</summary>
    private static byte[] Sector(string text)
    {
        byte[] sector = new byte[512];
        // xor ax,ax; mov ds,ax; mov si,text; next: lodsb; test al,al; jz end; mov ah,0Eh; int 10h; jmp next; end: hlt; jmp end
        ReadOnlySpan<byte> code = [0x31, 0xC0, 0x8E, 0xD8, 0xBE, 0x20, 0x7C, 0xAC, 0x84, 0xC0, 0x74, 0x06, 0xB4, 0x0E, 0xCD, 0x10, 0xEB, 0xF5, 0xF4, 0xEB, 0xFD];
        code.CopyTo(sector);
        Encoding.ASCII.GetBytes(text).CopyTo(sector, 0x20);
        sector[510] = 0x55;
        sector[511] = 0xAA;
        return sector;
    }

    [Theory]
    [InlineData("a", "A-FLOPPY")]
    [InlineData("c", "A-DISK")]
    [InlineData("order=d", "A-DISC")]
    public void It_starts_from_what_the_order_names(string order, string text)
    {
        using var guest = new Guest([.. _all, "-boot", order]);
        guest.WaitForScreen(text, 60);
        guest.Quit();
    }

    [Fact]
    public void Once_is_for_the_first_start()
    {
        using var guest = new Guest([.. _all, "-boot", "once=d,order=ac"]);
        guest.WaitForScreen("A-DISC", 60);
        guest.Qmp("system_reset");
        guest.WaitForScreen("A-FLOPPY", 60);
        guest.Quit();
    }

    [Fact]
    public void A_key_opens_the_menu_and_another_chooses()
    {
        using var guest = new Guest([.. _all, "-boot", "menu=on,splash-time=20000"]);
        guest.WaitForScreen("Press ESC for boot menu", 60);
        guest.Hmp("sendkey esc");
        guest.WaitForScreen("DVD/CD", 30);
        string screen = guest.Screen();
        string line = screen.Split('\n').Single(l => l.Contains("DVD/CD", StringComparison.Ordinal));
        guest.Hmp($"sendkey {line.Trim()[0]}");
        guest.WaitForScreen("A-DISC", 30);
        guest.Quit();
    }

    [Fact]
    public void The_menu_is_on_the_serial_port_when_there_is_no_screen()
    {
        var info = new ProcessStartInfo(Repository.Program, ["-accel", Guest.Accelerator, "-nographic", .. _all, "-boot", "menu=on,splash-time=20000"])
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        using var process = Process.Start(info)!;
        var text = new StringBuilder();
        void Expect(string expected)
        {
            while (!text.ToString().Contains(expected, StringComparison.Ordinal))
                text.Append(process.StandardOutput.Read() is var c and >= 0 ? (char)c : throw new IOException($"no '{expected}' in: {text}"));
        }

        Expect("Press ESC for boot menu");
        process.StandardInput.Write("\u001b");
        process.StandardInput.Flush();
        Expect("Floppy");
        Expect("Select boot device:");
        string line = text.ToString().Split('\n').Single(l => l.Contains("Floppy", StringComparison.Ordinal));
        process.StandardInput.Write(line.Trim()[0]);
        process.StandardInput.Flush();
        Expect("A-FLOPPY");
        process.StandardInput.Write("\u0001x");
        process.StandardInput.Flush();
        Assert.True(process.WaitForExit(60_000));
        Assert.Equal(0, process.ExitCode);
    }

    [Fact]
    public void Boot_indices_come_before_the_order()
    {
        using var guest = new Guest([.. _all, "-boot", "order=a", "-drive", $"file={At("second")},format=raw,if=none,id=s", "-device", "virtio-blk-pci,drive=s,bootindex=1"]);
        guest.WaitForScreen("B-DISK", 60);
        guest.Quit();
    }

    [Theory]
    [InlineData("on", "No bootable device")]
    [InlineData("off", "A-FLOPPY")]
    public void A_strict_order_tries_nothing_else(string strict, string text)
    {
        File.WriteAllBytes(At("second"), new byte[1 << 20]);
        using var guest = new Guest([.. _all, "-boot", $"strict={strict},order=acd", "-drive", $"file={At("second")},format=raw,if=none,id=s", "-device", "virtio-blk-pci,drive=s,bootindex=1"]);
        guest.WaitForScreen(text, 60);
        guest.Quit();
    }

    [Fact]
    public void A_failed_start_is_tried_again_after_the_time_given()
    {
        using var guest = new Guest("-m", "16", "-boot", "reboot-timeout=500", "-nodefaults", "-vga", "std");
        guest.Qmp("query-status");
        guest.WaitForEvent("RESET", 60);
        guest.Quit();
    }

    [Theory]
    [InlineData("1")]
    [InlineData("2")]
    [InlineData("3073")]
    [InlineData("6G")]
    public void It_starts_with_little_memory_and_with_much(string memory)
    {
        using var guest = new Guest("-m", memory, "-drive", $"file={At("floppy")},format=raw,if=floppy", "-boot", "a");
        guest.WaitForScreen("A-FLOPPY", 60);
        guest.Quit();
    }

    [Fact]
    public void The_bare_pc_starts_from_a_floppy()
    {
        using var guest = new Guest("-M", "isapc", "-m", "16", "-cpu", "486", "-fda", At("floppy"));
        guest.WaitForScreen("A-FLOPPY", 60);
        guest.Quit();
    }
}
