using System.Buffers.Binary;
using System.IO.Compression;
using System.Text;

namespace ImgKit.Machine.Devices.Display;

/// <summary>A device with a screen.</summary>
public interface IScreenSource
{
    /// <summary>The screen as it is now. Under the machine lock.</summary>
    ScreenImage Capture();
}

/// <summary>A picture of a screen.</summary>
/// <param name="Width">pixels.</param>
/// <param name="Height">pixels.</param>
/// <param name="Pixels">rows from the top, pixels from the left: red, green, blue; 3 bytes each.</param>
public sealed record ScreenImage(int Width, int Height, byte[] Pixels)
{
    /// <summary>As a portable pixmap (P6).</summary>
    public byte[] ToPpm() => [.. Encoding.ASCII.GetBytes($"P6\n{Width} {Height}\n255\n"), .. Pixels];

    /// <summary>As a PNG (ISO 15948): 8 bits a sample, RGB.</summary>
    public byte[] ToPng()
    {
        var png = new MemoryStream();
        png.Write([0x89, 0x50, 0x4E, 0x47, 0x0D, 0x0A, 0x1A, 0x0A]);
        var header = new byte[13];
        BinaryPrimitives.WriteInt32BigEndian(header, Width);
        BinaryPrimitives.WriteInt32BigEndian(header.AsSpan(4), Height);
        header[8] = 8;
        header[9] = 2;
        Chunk(png, "IHDR"u8, header);
        var data = new MemoryStream();
        using (var zlib = new ZLibStream(data, CompressionLevel.Fastest, true))
            for (int y = 0; y < Height; y++)
            {
                zlib.WriteByte(0);      // no filter
                zlib.Write(Pixels, y * Width * 3, Width * 3);
            }
        Chunk(png, "IDAT"u8, data.ToArray());
        Chunk(png, "IEND"u8, []);
        return png.ToArray();
    }

    private static void Chunk(MemoryStream png, ReadOnlySpan<byte> type, byte[] content)
    {
        Span<byte> number = stackalloc byte[4];
        BinaryPrimitives.WriteInt32BigEndian(number, content.Length);
        png.Write(number);
        png.Write(type);
        png.Write(content);
        BinaryPrimitives.WriteUInt32BigEndian(number, Crc(type, content));
        png.Write(number);
    }

    private static uint Crc(ReadOnlySpan<byte> type, byte[] content)
    {
        uint crc = uint.MaxValue;
        void Take(byte b)
        {
            crc ^= b;
            for (int i = 0; i < 8; i++)
                crc = (crc & 1) != 0 ? crc >> 1 ^ 0xEDB88320 : crc >> 1;
        }
        foreach (byte b in type)
            Take(b);
        foreach (byte b in content)
            Take(b);
        return ~crc;
    }
}
