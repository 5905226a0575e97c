namespace ImgKit.Block;

/// <summary>The drivers there are: a plain list, put together here and nowhere else.</summary>
public sealed class DriverCatalogue(IReadOnlyList<BlockDriver> drivers)
{
    /// <summary>All that ImgKit has.</summary>
    public static DriverCatalogue Default { get; } = new(
    [
        Formats.Raw.RawFormat.Driver,
        Formats.Vmdk.VmdkFormat.Driver,
        Formats.Qcow2.Qcow2Format.Driver,
        Formats.Qcow.QcowFormat.Driver,
        Formats.Cloop.CloopFormat.Driver,
        Formats.Bochs.BochsFormat.Driver,
        Protocols.File.FileProtocol.File,
        Protocols.File.FileProtocol.HostDevice,
        Protocols.File.FileProtocol.HostCdrom,
        Protocols.Nbd.NbdProtocol.Driver,
        Protocols.Http.HttpProtocol.Http,
        Protocols.Http.HttpProtocol.Https,
        Protocols.Ssh.SshProtocol.Driver,
        Filters.Blkdebug.BlkdebugFilter.Driver,
        Filters.CopyOnReadDevice.Driver,
        Filters.ThrottleDevice.Driver,
        Filters.BlkverifyDevice.Driver,
        Filters.WriteLogDevice.Driver,
        Filters.CompressDevice.Driver,
        Filters.QuorumDevice.Driver,
        Protocols.Null.NullProtocol.Coroutine,
        Protocols.Null.NullProtocol.Aio,
    ]);

    /// <summary>In the order of the list.</summary>
    public IReadOnlyList<BlockDriver> All { get; } = drivers;

    /// <summary>The driver of that name, or null.</summary>
    public BlockDriver? Find(string name)
    {
        foreach (var d in All)
            if (d.Name == name)
                return d;
        return null;
    }

    /// <summary>The driver of that name.</summary>
    /// <exception cref="ImageException">there is none.</exception>
    public BlockDriver Get(string name) =>
        Find(name) ?? throw new ImageException(ImageErrorKind.InvalidArgument, $"Unknown driver '{name}'");

    /// <summary>The format that is surest of an image; raw when none is.</summary>
    public BlockDriver ProbeFormat(BlockDevice storage, string fileName)
    {
        Span<byte> head = stackalloc byte[2048];
        head = head[..(int)Math.Min(head.Length, storage.Length)];
        storage.Read(0, head);
        BlockDriver best = Formats.Raw.RawFormat.Driver;
        int score = 0;
        foreach (var d in All)
        {
            int s = d.Probe?.Invoke(head, fileName, storage) ?? 0;
            if (s > score)
                (best, score) = (d, s);
        }
        return best;
    }
}
