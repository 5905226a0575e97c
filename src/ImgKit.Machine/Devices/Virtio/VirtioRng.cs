using System.Runtime.InteropServices;

namespace ImgKit.Machine.Devices.Virtio;

/// <summary>A source of random bytes from the host's generator. Source: VIRTIO 1.2, section 5.4.</summary>
/// <param name="services">what the machine gives.</param>
/// <param name="interfaces">legacy, modern or both.</param>
public sealed unsafe partial class VirtioRng(MachineServices services, VirtioInterfaces interfaces = VirtioInterfaces.Transitional)
    : VirtioPci(services, 4, 0x00FF00, interfaces, [8])
{
    /// <summary>Most bytes for one request: a device may give less than was asked for.</summary>
    private const int MostBytes = 4096;

    private readonly VirtioChain _chain = new();

    /// <inheritdoc/>
    public override string TypeName => "virtio-rng-pci";

    /// <inheritdoc/>
    protected override ulong DeviceFeatures => 0;

    /// <inheritdoc/>
    protected override int ConfigLength => 0;

    /// <inheritdoc/>
    protected override void ReadConfig(Span<byte> config)
    {
    }

    /// <inheritdoc/>
    protected override void DriverReset()
    {
    }

    private protected override void Notified(VirtQueue queue)
    {
        Span<byte> random = stackalloc byte[MostBytes];
        // each chain is taken once; a driver that refills while we work notifies again
        for (int i = 0; i < queue.Size && TryPop(queue, _chain); i++)
        {
            var piece = random[..(int)Math.Min(MostBytes, _chain.WritableLength)];
            nint got;
            fixed (byte* p = piece)
                got = getrandom(p, (nuint)piece.Length, 0);
            Complete(queue, _chain.Head, (uint)_chain.Fill(Services.Memory, piece[..(int)Math.Max(0, got)]));
        }
    }

    // the kernel's generator itself: .NET's class loads OpenSSL
    [LibraryImport("libc.so.6")]
    private static partial nint getrandom(byte* buffer, nuint length, uint flags);

    /// <summary>The type in the catalogue.</summary>
    public static DeviceType Type { get; } = new("virtio-rng-pci", DeviceBus.Pci, "Misc", "virtio random number generator",
    [
        new("disable-legacy", "OnOffAuto", "no interface of virtio 0.9"),
        new("disable-modern", "bool", "no interface of virtio 1.0"),
    ], plug =>
    {
        var device = new VirtioRng(plug.Services, Interfaces(plug.Options));
        plug.PlugPci(device);
        return device;
    });
}
