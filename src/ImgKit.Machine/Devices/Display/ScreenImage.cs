using System.Buffers.Binary;
using System.Globalization;
using System.Text;
using ImgKit.Host.Compression;

namespace ImgKit.Machine.Devices.Display;

/// <summary>What a screen shows: pixels 0x00RRGGBB, row by row without gaps.</summary>
public sealed class ScreenImage
{
    /// <summary>Pixels across.</summary>
    public int Width { get; private set; }

    /// <summary>Rows.</summary>
    public int Height { get; private set; }

    /// <summary>The pixels; only the first <see cref="Width"/> * <see cref="Height"/> count.</summary>
    public uint[] Pixels { get; private set; } = [];

    /// <summary>A row.</summary>
    public Span<uint> Row(int y) => Pixels.AsSpan(y * Width, Width);

    /// <summary>Changes the size; the content is undefined afterwards. False when it has that size already.</summary>
    internal bool Resize(int width, int height)
    {
        if (width == Width && height == Height)
            return false;
        (Width, Height) = (width, height);
        if (Pixels.Length < width * height)
            Pixels = new uint[width * height];
        return true;
    }

    /// <summary>Writes it as a portable pixmap (P6).</summary>
    public void WritePpm(Stream to)
    {
        to.Write(Encoding.ASCII.GetBytes(string.Create(CultureInfo.InvariantCulture, $"P6\n{Width} {Height}\n255\n")));
        byte[] line = new byte[3 * Width];
        for (int y = 0; y < Height; y++)
        {
            Rgb(Row(y), line);
            to.Write(line);
        }
    }

    /// <summary>The file that <see cref="WritePpm"/> writes.</summary>
    public byte[] ToPpm()
    {
        var file = new MemoryStream();
        WritePpm(file);
        return file.ToArray();
    }

    /// <summary>The file that <see cref="WritePng"/> writes.</summary>
    public byte[] ToPng()
    {
        var file = new MemoryStream();
        WritePng(file);
        return file.ToArray();
    }

    private static void Rgb(ReadOnlySpan<uint> row, Span<byte> to)
    {
        for (int x = 0; x < row.Length; x++)
        {
            uint p = row[x];
            to[3 * x] = (byte)(p >> 16);
            to[3 * x + 1] = (byte)(p >> 8);
            to[3 * x + 2] = (byte)p;
        }
    }

    /// <summary>Writes it as PNG, 8 bits a channel (W3C PNG specification, second edition).</summary>
    public void WritePng(Stream to)
    {
        to.Write([0x89, (byte)'P', (byte)'N', (byte)'G', 13, 10, 26, 10]);
        byte[] header = new byte[13];
        BinaryPrimitives.WriteInt32BigEndian(header, Width);
        BinaryPrimitives.WriteInt32BigEndian(header.AsSpan(4), Height);
        header[8] = 8; // bits
        header[9] = 2; // red, green, blue
        Chunk(to, "IHDR"u8, header);
        int stride = 1 + 3 * Width; // filter 0, then the row
        byte[] rows = new byte[stride * Height];
        for (int y = 0; y < Height; y++)
            Rgb(Row(y), rows.AsSpan(y * stride + 1, 3 * Width));
        byte[] packed = new byte[Deflate.MaxCompressedLength(rows.Length)];
        int length = Deflate.ForLevel(1).Compress(DeflateContainer.Zlib, rows, packed);
        Chunk(to, "IDAT"u8, packed.AsSpan(0, length));
        Chunk(to, "IEND"u8, []);
    }

    private static void Chunk(Stream to, ReadOnlySpan<byte> name, ReadOnlySpan<byte> data)
    {
        Span<byte> word = stackalloc byte[4];
        BinaryPrimitives.WriteInt32BigEndian(word, data.Length);
        to.Write(word);
        to.Write(name);
        to.Write(data);
        uint crc = Crc(Crc(uint.MaxValue, name), data) ^ uint.MaxValue;
        BinaryPrimitives.WriteUInt32BigEndian(word, crc);
        to.Write(word);
    }

    private static uint Crc(uint crc, ReadOnlySpan<byte> data)
    {
        foreach (byte b in data)
        {
            crc ^= b;
            for (int i = 0; i < 8; i++)
                crc = (crc & 1) != 0 ? crc >> 1 ^ 0xEDB88320 : crc >> 1;
        }
        return crc;
    }
}
