using System.Diagnostics;
using ImgKit.Machine.Firmware;

namespace ImgKit.Machine.Tests;

public sealed class BootFileTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("boot").FullName;

    public void Dispose() => Directory.Delete(_folder, true);

    private string Put(string name, params byte[] content)
    {
        string path = Path.Combine(_folder, name);
        File.WriteAllBytes(path, content);
        return path;
    }

    [Fact]
    public void Reads_by_place()
    {
        using var file = new BootFile(Put("kernel", 1, 2, 3, 4, 5), "could not load kernel");
        Assert.Equal(5, file.Length);
        Assert.Equal(new byte[] { 2, 3 }, file.Read(1, 2));
        Assert.Equal(0x0302, file.U16(1));
        Assert.Throws<MachineException>(() => file.Read(4, 2));
    }

    [Fact]
    public void A_file_that_has_become_shorter_is_one_line()
    {
        string path = Put("kernel", new byte[100]);
        using var file = new BootFile(path, "could not load kernel");
        using (var other = new FileStream(path, FileMode.Open, FileAccess.Write, FileShare.ReadWrite))
            other.SetLength(10);
        var e = Assert.Throws<MachineException>(() => file.Read(0, 100));
        Assert.Equal($"'{path}' ends too early", e.Message);
    }

    [Fact]
    public void What_has_no_places_is_read_once()
    {
        string path = Path.Combine(_folder, "pipe");
        using (var make = Process.Start("mkfifo", [path]))
            make.WaitForExit();
        var writer = new Thread(() => File.WriteAllBytes(path, [7, 8, 9]));
        writer.Start();
        using var file = new BootFile(path, "could not load initrd");
        writer.Join();
        Assert.Equal(new byte[] { 7, 8, 9 }, file.Read(0, 3));
        Assert.Equal(new byte[] { 8 }, file.Read(1, 1));
    }

    [Fact]
    public void A_missing_file_is_one_line()
    {
        var e = Assert.Throws<MachineException>(() => new BootFile(Path.Combine(_folder, "none"), "could not load kernel"));
        Assert.StartsWith($"could not load kernel '{_folder}/none': ", e.Message);
        Assert.DoesNotContain('\n', e.Message);
    }
}
