using ImgKit.Block.Jobs.Create;

namespace ImgKit.Block.Tests.Overlay;

/// <summary>Chains of images in a folder, and the content that they must have.</summary>
internal sealed class Chain : IDisposable
{
    private readonly TestData.Folder _folder = new();

    public ImageOpener Opener { get; } = new();

    public string this[string name] => _folder.File(name);

    /// <summary>An image with content, which may lie over another.</summary>
    public void Make(string name, string format, long size, string? backing = null, string? backingFormat = null, string options = "")
    {
        CreateJob.Run(Opener, new CreateRequest
        {
            FileName = this[name],
            Format = format,
            Size = size,
            BackingFile = backing is null ? null : this[backing],
            BackingFormat = backingFormat,
            Options = [.. options.Split(',', StringSplitOptions.RemoveEmptyEntries).Select(static o => new KeyValuePair<string, string>(o.Split('=')[0], o.Split('=')[1]))],
        });
    }

    public BlockDevice Open(string name, string? format, bool write = false) =>
        Opener.Open(this[name], format, new OpenSettings { ReadOnly = !write, Unmap = true });

    /// <summary>What a guest sees.</summary>
    public byte[] Content(string name, string? format = null)
    {
        using var d = Open(name, format);
        byte[] b = new byte[d.Length];
        d.Read(0, b);
        return b;
    }

    /// <summary>Writes a stretch of one byte, or of zeroes.</summary>
    public void Write(string name, string format, int offset, int count, byte value)
    {
        using var d = Open(name, format, write: true);
        if (value == 0)
            d.WriteZeroes(offset, count);
        else
            d.Write(offset, Enumerable.Repeat(value, count).ToArray());
        d.Flush();
    }

    public void Dispose() => _folder.Dispose();
}
