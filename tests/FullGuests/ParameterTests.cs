namespace ImgKit.Guests;

/// <summary>Linux told to do without parts of the board: interrupts and time come by the older ones.</summary>
public sealed class ParameterTests
{
    [Theory]
    [InlineData("nolapic")]
    [InlineData("nolapic hpet=disable")]
    [InlineData("noapic")]
    [InlineData("hpet=disable clocksource=acpi_pm")]
    [InlineData("clocksource=jiffies nohz=off highres=off")]
    [InlineData("nox2apic lapic=notscdeadline")]
    public void Linux_does_without(string parameters)
    {
        var (kernel, disk) = Repository.CloudKernel;
        using var guest = new Guest("-m", "256", "-smp", "2", "-vga", "none", "-kernel", kernel, "-initrd", disk, "-append", $"console=ttyS0 panic=-1 quiet {parameters}", "-no-reboot");
        Assert.Equal(0, guest.WaitForExit(120));
        Assert.Contains("INIT-DONE", guest.Serial);
        Assert.Contains("HOST ata_piix", guest.Serial);
        Assert.Contains("reboot: Power down", guest.Serial);
    }
}
