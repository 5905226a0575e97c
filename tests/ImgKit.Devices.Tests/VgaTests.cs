using System.Text;
using ImgKit.Machine;
using ImgKit.Machine.Devices.Display;

namespace ImgKit.Devices.Tests;

public sealed class VgaTests : IDisposable
{
    private readonly Board _board = new();
    private readonly StdVga _vga;
    private readonly ScreenImage _image = new();

    public VgaTests() => _vga = _board.Plug(new StdVga(_board.Services, new byte[1000], 4));

    public void Dispose()
    {
        _vga.Close();
        _board.Dispose();
    }

    private void Indexed(int port, params (int Index, int Value)[] values)
    {
        foreach (var (index, value) in values)
        {
            _board.Out(port, (uint)index, 1);
            _board.Out(port + 1, (uint)value, 1);
        }
    }

    private void Attributes(params (int Index, int Value)[] values)
    {
        foreach (var (index, value) in values)
        {
            _board.In(0x3DA, 1);
            _board.Out(0x3C0, (uint)index, 1);
            _board.Out(0x3C0, (uint)value, 1);
        }
        _board.In(0x3DA, 1);
        _board.Out(0x3C0, 0x20, 1);
    }

    /// <summary>The first 16 colours: R, G, B from the bits of the index, and all attribute registers one to one.</summary>
    private void Palette()
    {
        _board.Out(0x3C8, 0, 1);
        for (int i = 0; i < 256; i++)
            foreach (int bit in new[] { 4, 2, 1 })
                _board.Out(0x3C9, (i & bit) == 0 ? 0 : i == 42 ? 42u : 63u, 1);
        Attributes([.. Enumerable.Range(0, 16).Select(i => (i, i)), (0x10, 0), (0x12, 15), (0x14, 0)]);
    }

    private void SetTiming(int columns, int height, int maxScan, int offset, int mode)
    {
        Indexed(0x3D4, (0x11, 0), (1, columns - 1), (7, (height - 1 >> 8 & 1) << 1 | (height - 1 >> 9 & 1) << 6 | 0x10), (9, maxScan | 0x40), (0x12, height - 1 & 0xFF),
            (0x13, offset), (0x17, mode), (0x18, 0xFF), (0xC, 0), (0xD, 0), (0xE, 0), (0xF, 0), (0xA, 0x20));
    }

    private void TextMode()
    {
        _board.Out(0x3C2, 0x67, 1);
        Indexed(0x3C4, (1, 1), (2, 3), (3, 0), (4, 2));
        Indexed(0x3CE, (1, 0), (3, 0), (4, 0), (5, 0x10), (6, 0x0E), (8, 0xFF));
        SetTiming(80, 400, 15, 40, 0xA3);
        Palette();
    }

    private void Font(byte character, Func<int, byte> rows)
    {
        Indexed(0x3C4, (2, 4), (4, 6));
        Indexed(0x3CE, (5, 0), (6, 4));
        for (int y = 0; y < 16; y++)
            _board.Store(0xA0000u + (ulong)character * 32 + (ulong)y, rows(y), 1);
        Indexed(0x3C4, (2, 3), (4, 2));
        Indexed(0x3CE, (5, 0x10), (6, 0x0E));
    }

    private ScreenArea Update()
    {
        lock (_board.Services.Lock)
            return _vga.Update(_image);
    }

    [Fact]
    public void Text_is_drawn_and_can_be_read()
    {
        TextMode();
        Font((byte)'A', y => (byte)(y == 3 ? 0x81 : 0));
        for (int i = 0; i < 80 * 25; i++)
            _board.Store(0xB8000 + 2u * (uint)i, 0x0720, 2);
        _board.Store(0xB8000 + 2 * (80 * 2 + 5), 0x1441, 2);
        string[]? lines = _vga.TextLines();
        Assert.NotNull(lines);
        Assert.Equal(25, lines.Length);
        Assert.Equal("     A", lines[2]);
        Assert.Equal("", lines[0]);
        Assert.Equal(new ScreenArea(0, 0, 640, 400), Update());
        Assert.Equal(0xFF0000u, _image.Row(2 * 16 + 3)[40]);
        Assert.Equal(0x0000FFu, _image.Row(2 * 16 + 3)[41]);
        Assert.Equal(0xFF0000u, _image.Row(2 * 16 + 3)[47]);
        Assert.True(Update().IsEmpty);
        _board.Store(0xB8000 + 2 * (80 * 24 + 79), 0x0741, 2);
        Assert.Equal(new ScreenArea(632, 384, 8, 16), Update());
        Assert.Equal(0x0720ul, _board.Load(0xB8000, 2));
    }

    [Fact]
    public void Planar_mode_writes_through_the_graphics_controller()
    {
        _board.Out(0x3C2, 0xE3, 1);
        Indexed(0x3C4, (1, 1), (2, 15), (4, 6));
        Indexed(0x3CE, (0, 0), (1, 0), (3, 0), (4, 0), (5, 0), (6, 5), (7, 15), (8, 0xFF));
        SetTiming(80, 480, 0, 40, 0xE3);
        Palette();
        _board.Store(0xA0000, 0xFF, 1); // white
        Indexed(0x3CE, (0, 4), (1, 15), (8, 0x0F)); // set/reset red, low four pixels
        _board.Load(0xA0000, 1);
        _board.Store(0xA0000, 0, 1);
        Indexed(0x3CE, (1, 0), (5, 2), (8, 0x80)); // write mode 2: one pixel of colour 1
        _board.Load(0xA0050, 1);
        _board.Store(0xA0050, 1, 1);
        Update();
        Assert.Equal((640, 480), (_image.Width, _image.Height));
        Assert.Equal([0xFFFFFFu, 0xFFFFFF, 0xFFFFFF, 0xFFFFFF, 0xFF0000, 0xFF0000, 0xFF0000, 0xFF0000, 0], _image.Row(0)[..9].ToArray());
        Assert.Equal([0x0000FFu, 0], _image.Row(1)[..2].ToArray());
        // read mode 1: which pixels are red
        Indexed(0x3CE, (2, 4), (5, 8));
        Assert.Equal(0x0Ful, _board.Load(0xA0000, 1));
        // write mode 1 copies the latches
        Indexed(0x3CE, (5, 0));
        _board.Load(0xA0000, 1);
        Indexed(0x3CE, (5, 1));
        _board.Store(0xA0001, 0, 1);
        Assert.InRange(Update().Height, 1, 52); // a page of 4096 bytes is 51 rows and a bit
        Assert.Equal(0xFF0000u, _image.Row(0)[15]);
    }

    [Fact]
    public unsafe void Chain4_window_is_plain_memory()
    {
        _board.Out(0x3C2, 0x63, 1);
        Indexed(0x3C4, (1, 1), (2, 15), (4, 0xE));
        Indexed(0x3CE, (0, 0), (1, 0), (3, 0), (4, 0), (5, 0x40), (6, 5), (8, 0xFF));
        SetTiming(80, 400, 1, 40, 0xA3);
        Palette();
        Assert.True(_board.Services.Space.Map.TryFind(0xA0000, out var region));
        Assert.Equal(0x10000ul, region.Length);
        Update();
        ((byte*)region.HostAddress)[320 * 7 + 9] = 5;
        ((byte*)region.DirtyLog)[0] = 1;
        Assert.False(Update().IsEmpty);
        Assert.Equal((320, 200), (_image.Width, _image.Height));
        Assert.Equal(0xFF00FFu, _image.Row(7)[9]);
        Indexed(0x3C4, (2, 1)); // one plane only: no plain memory
        Assert.False(_board.Services.Space.Map.TryFind(0xA0000, out _));
    }

    [Theory]
    [InlineData(8, 5u, 0xFF00FFu)]
    [InlineData(8, 42u, 0x00A800u)]
    [InlineData(15, 0x7C1Fu, 0xF800F8u)]
    [InlineData(15, 0x56B5u, 0xA8A8A8u)]
    [InlineData(16, 0x07E0u, 0x00FF00u)]
    [InlineData(24, 0x123456u, 0x123456u)]
    [InlineData(32, 0xFF654321u, 0x654321u)]
    public unsafe void Vbe_modes_show_the_frame_buffer(int bpp, uint pixel, uint expected)
    {
        Palette();
        void Dispi(int index, int value)
        {
            _board.Out(0x1CE, (uint)index, 2);
            _board.Out(0x1CF, (uint)value, 2);
        }
        _board.Out(0x1CE, 0, 2);
        Assert.Equal(0xB0C5u, _board.In(0x1CF, 2));
        Dispi(1, 320);
        Dispi(2, 200);
        Dispi(3, bpp);
        Dispi(4, 0x41);
        Assert.True(_board.Services.Space.Map.TryFind(Board.BarAddress(0), out var region));
        Assert.Equal(4ul << 20, region.Length);
        Update();
        Assert.Equal((320, 200), (_image.Width, _image.Height));
        int at = (320 * 11 + 7) * ((bpp + 7) / 8);
        for (int i = 0; i < (bpp + 7) / 8; i++)
            ((byte*)region.HostAddress)[at + i] = (byte)(pixel >> (8 * i));
        ((byte*)region.DirtyLog)[at >> 12] = 1;
        Assert.False(Update().IsEmpty);
        Assert.Equal(expected, _image.Row(11)[7]);
        Assert.Equal(0u, _image.Row(11)[8]);
        // A store that was under way while the mark was taken is found without one; then there is nothing more to find.
        for (int i = 0; i < (bpp + 7) / 8; i++)
            ((byte*)region.HostAddress)[at + (bpp + 7) / 8 + i] = (byte)(pixel >> (8 * i));
        Assert.Equal(new ScreenArea(0, 11, 320, 1), Update());
        Assert.Equal(expected, _image.Row(11)[8]);
        Assert.True(Update().IsEmpty);
        Dispi(9, 11); // y offset
        Update();
        Assert.Equal(expected, _image.Row(0)[7]);
        Dispi(4, 0);
        Assert.True(Update().Width > 0);
    }

    [Fact]
    public void Impossible_modes_are_cut_down()
    {
        foreach (int[] mode in new int[][] { [65535, 65535, 32], [0, 0, 0], [8, 65535, 4], [16000, 1, 99], [1, 1, 24] })
        {
            for (int i = 0; i < 3; i++)
                _board.Store(Board.BarAddress(2) + 0x502 + 2u * (uint)i, (ulong)mode[i], 2);
            _board.Store(Board.BarAddress(2) + 0x508, 0x41, 2);
            foreach (uint register in new uint[] { 6, 8, 9, 5 })
                _board.Store(Board.BarAddress(2) + 0x500 + 2 * register, 0xFFFF, 2);
            Update();
            Assert.InRange((long)_image.Width * _image.Height, 1, 4 << 20);
            _board.Store(Board.BarAddress(2) + 0x508, 0, 2);
        }
    }

    [Fact]
    public void Random_registers_never_harm_the_host()
    {
        var random = new Random(7);
        for (int i = 0; i < 20000; i++)
        {
            switch (random.Next(4))
            {
                case 0:
                    _board.Out(random.Next(3) == 0 ? 0x1CE + random.Next(2) : 0x3B4 + random.Next(0x28), (uint)random.Next(65536), 1 + random.Next(2));
                    break;
                case 1:
                    _board.Store(0xA0000 + (ulong)random.Next(0x20000 - 4), (ulong)random.NextInt64(), 1 << random.Next(3));
                    break;
                case 2:
                    _board.Load(0xA0000 + (ulong)random.Next(0x20000 - 4), 1 << random.Next(3));
                    break;
                case 3 when i % 50 == 0:
                    Update();
                    _vga.TextLines();
                    break;
            }
        }
        lock (_board.Services.Lock)
            _vga.Reset();
        Assert.Equal(0u, _board.In(0x3CC, 1));
    }

    [Fact]
    public void Images_are_written_as_pixmap_and_png()
    {
        TextMode();
        Update();
        using var ppm = new MemoryStream();
        _image.WritePpm(ppm);
        Assert.Equal("P6\n640 400\n255\n", Encoding.ASCII.GetString(ppm.ToArray(), 0, 15));
        Assert.Equal(15 + 640 * 400 * 3, ppm.Length);
        using var png = new MemoryStream();
        _image.WritePng(png);
        byte[] bytes = png.ToArray();
        Assert.Equal([0x89, 0x50, 0x4E, 0x47], bytes[..4]);
        string file = Path.GetTempFileName();
        try
        {
            File.WriteAllBytes(file, bytes);
            using var python = System.Diagnostics.Process.Start(new System.Diagnostics.ProcessStartInfo("python3", ["-c",
                "import sys,zlib,struct\nd=open(sys.argv[1],'rb').read();p=8;z=b''\nwhile p<len(d):\n n,=struct.unpack('>I',d[p:p+4]);t=d[p+4:p+8];b=d[p+8:p+8+n];c,=struct.unpack('>I',d[p+8+n:p+12+n])\n assert zlib.crc32(t+b)==c\n z+=b if t==b'IDAT' else b''\n p+=12+n\nprint(len(zlib.decompress(z)))", file])
            { RedirectStandardOutput = true })!;
            Assert.Equal((1 + 640 * 3) * 400, int.Parse(python.StandardOutput.ReadToEnd()));
        }
        finally
        {
            File.Delete(file);
        }
    }

    [Fact]
    public void State_round_trip()
    {
        TextMode();
        _board.Store(0xB8000, 0x0741, 2);
        var writer = new StateWriter();
        _vga.Describe(writer);
        using var other = new Board();
        var copy = other.Plug(new StdVga(other.Services, new byte[1000], 4));
        copy.Describe(new StateReader(writer.ToArray()));
        Assert.Equal("A", copy.TextLines()![0]);
        copy.Close();
    }
}
