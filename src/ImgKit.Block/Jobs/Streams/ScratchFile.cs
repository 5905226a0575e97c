using System.Globalization;
using System.Text;
using ImgKit.Host;
using Tmds.Linux;
using static Tmds.Linux.LibC;

namespace ImgKit.Block.Jobs.Streams;

/// <summary>A file without a name in the temporary folder (<c>TMPDIR</c>, else /var/tmp, as large files belong there):
/// gone with the process, whatever happens.</summary>
internal sealed class ScratchFile : IDisposable
{
    private readonly int _fd;

    public unsafe ScratchFile()
    {
        string folder = Environment.GetEnvironmentVariable("TMPDIR") is { Length: > 0 } t ? t : "/var/tmp";
        byte[] name = Encoding.UTF8.GetBytes(folder + "\0");
        fixed (byte* p = name)
            _fd = open(p, O_RDWR | O_TMPFILE | O_CLOEXEC, (mode_t)384);
        if (_fd < 0)
        {
            var e = new HostException(errno);
            throw new ImageException(ImageErrorKind.Io, $"Could not create a scratch file in '{folder}': {e.Message}", folder, inner: e) { Errno = e.Errno };
        }
    }

    /// <summary>A path that leads to the file for as long as this object lives.</summary>
    public string Path => "/proc/self/fd/" + _fd.ToString(CultureInfo.InvariantCulture);

    public void Dispose() => _ = close(_fd);
}
