using ImgKit.Block;

namespace ImgKit.Fuzz;

/// <summary>Image files in memory, <c>mem:NAME</c>.</summary>
internal sealed class MemoryImages
{
    private const int MaxLength = 64 << 20;
    private readonly Dictionary<string, byte[]> _files = [];

    public byte[] this[string name]
    {
        get => _files[name];
        set => _files[name] = value;
    }

    /// <summary>An opener that finds these files and, whatever an image names, no others.</summary>
    public ImageOpener Opener() => new(new DriverCatalogue(
    [
        .. DriverCatalogue.Default.All.Where(d => d.Kind == DriverKind.Format),
        new BlockDriver
        {
            Name = "file",
            Kind = DriverKind.Protocol,
            Description = "Files in memory",
            FileNamePrefixes = ["mem:"],
            ParseFileName = (name, options) => options.Set("filename", name),
            Open = context => new Device(this, (context.Options.TakeString("filename") ?? "")),
            Create = context => _files[context.FileName] = new byte[context.Size],
        },
    ]));

    private sealed class Device : BlockDevice
    {
        private readonly MemoryImages _images;
        private readonly string _name;

        public Device(MemoryImages images, string name)
        {
            _images = images;
            _name = name;
            if (!images._files.ContainsKey(name))
                throw new ImageException(ImageErrorKind.NotFound, $"Could not open '{name}': No such file or directory", name) { Errno = 2 };
        }

        private byte[] Bytes => _images._files[_name];

        public override string DriverName => "file";

        public override long Length => Bytes.Length;

        public override void Read(long offset, Span<byte> destination)
        {
            ArgumentOutOfRangeException.ThrowIfNegative(offset);
            int n = (int)Math.Clamp(Bytes.Length - offset, 0, destination.Length);
            if (n > 0)
                Bytes.AsSpan((int)offset, n).CopyTo(destination);
            destination[n..].Clear();
        }

        public override void Write(long offset, ReadOnlySpan<byte> source)
        {
            ArgumentOutOfRangeException.ThrowIfNegative(offset);
            if (offset + source.Length > MaxLength)
                throw new IOException("File too large");
            if (offset + source.Length > Bytes.Length)
                Resize(offset + source.Length);
            source.CopyTo(Bytes.AsSpan((int)offset));
        }

        public override void Resize(long length, ResizeOptions options = default)
        {
            if (length > MaxLength)
                throw new IOException("File too large");
            byte[] b = Bytes;
            Array.Resize(ref b, (int)length);
            _images._files[_name] = b;
        }

        public override void Flush() { }
    }
}
