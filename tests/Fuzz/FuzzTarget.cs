namespace ImgKit.Fuzz;

/// <summary>Something that takes bytes from strangers.</summary>
internal interface IFuzzTarget
{
    /// <summary>For the command line.</summary>
    string Name { get; }

    /// <summary>Inputs that are right; what is tried are changes of these.</summary>
    IEnumerable<byte[]> Seeds();

    /// <summary>Takes an input. Whatever is wrong with it, only an <see cref="Block.ImageException"/> of one line may come out, in bounded time
    /// and memory.</summary>
    void Run(byte[] input);
}

/// <summary>The targets: add yours here.</summary>
internal static class FuzzTargets
{
    public static IReadOnlyList<IFuzzTarget> All { get; } =
    [
        new Targets.ImageTarget("qcow2", Targets.Qcow2Seeds.Make, writable: true),
        new Targets.ImageTarget("vmdk", Targets.VmdkSeeds.Make, writable: true),
        new Targets.ImageTarget("cloop", Targets.CloopSeeds.Make, writable: false),
        new Targets.NbdServerTarget(),
        new Targets.NbdClientTarget(),
        Targets.DeviceTarget.Ide,
        Targets.DeviceTarget.Floppy,
        Targets.DeviceTarget.Scsi,
        Targets.DeviceTarget.Virtio,
        Targets.DeviceTarget.Flash,
        Targets.DeviceTarget.FirmwareConfig,
        new Targets.PcTarget(),
        new Targets.TranslatorTarget(),
        new Targets.RacesTarget(),
    ];
}
