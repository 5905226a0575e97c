namespace ImgKit.Machine.Firmware;

/// <summary>What the header of a Linux kernel says. Source: Linux, Documentation/arch/x86/boot.rst.</summary>
public static class LinuxKernel
{
    /// <summary>A bzImage of boot protocol 2.02 or later.</summary>
    public static bool IsLinux(BootFile kernel) => kernel.Length > 0x264 && kernel.U32(0x202) == 0x53726448 && kernel.U16(0x206) >= 0x202;

    /// <summary>It has no entry for 64-bit mode (before 2.12 nobody knows).</summary>
    public static bool Is32Bit(BootFile kernel) => kernel.U16(0x206) < 0x20C || (kernel.U16(0x236) & 1) == 0;

    /// <summary>The command line asks for a mode of the screen (<c>vga=</c>), which the kernel's setup code sets.</summary>
    public static bool WantsScreenMode(string commandLine) =>
        commandLine.Split(' ').Any(word => word.StartsWith("vga=", StringComparison.Ordinal) && word is not ("vga=normal" or "vga=current"));
}
