using System.Text;
using Microsoft.Win32.SafeHandles;

namespace ImgKit.Programs.Io;

/// <summary>Standard input, by lines.</summary>
internal sealed class StandardInput : IDisposable
{
    private readonly StreamReader _reader = new(new FileStream(new SafeFileHandle(0, false), FileAccess.Read, 1), Encoding.UTF8);

    /// <summary>The next line, or null at the end.</summary>
    public string? ReadLine() => _reader.ReadLine();

    public void Dispose() => _reader.Dispose();
}
