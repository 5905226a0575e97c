namespace ImgKit.Machine.Devices.Virtio;

/// <summary>Feature bits that all devices share. Source: VIRTIO 1.2, section 6, and 6.3 for the legacy ones.</summary>
internal static class VirtioFeatures
{
    internal const ulong NotifyOnEmpty = 1ul << 24;
    internal const ulong AnyLayout = 1ul << 27;
    internal const ulong IndirectDescriptors = 1ul << 28;
    internal const ulong EventIndex = 1ul << 29;
    internal const ulong Version1 = 1ul << 32;
}

/// <summary>Bits of the device status. Source: VIRTIO 1.2, section 2.1.</summary>
internal static class VirtioStatus
{
    internal const byte Acknowledge = 1, Driver = 2, DriverOk = 4, FeaturesOk = 8, NeedsReset = 64, Failed = 128;
}

/// <summary>Which interfaces a virtio PCI function offers.</summary>
public enum VirtioInterfaces
{
    /// <summary>Legacy and modern.</summary>
    Transitional,

    /// <summary>Modern (1.0 and later) alone.</summary>
    Modern,

    /// <summary>Legacy (0.9) alone.</summary>
    Legacy,
}
