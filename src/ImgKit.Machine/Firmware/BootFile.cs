using System.Buffers.Binary;
using ImgKit.Host;
using Microsoft.Win32.SafeHandles;

namespace ImgKit.Machine.Firmware;

/// <summary>
/// A file that is put into guest memory at power-on and at each reset: kernel, initial RAM disk. It is read straight to where the guest finds it,
/// each time anew; no copy is kept.
/// </summary>
public sealed class BootFile : IDisposable
{
    private readonly string _name;
    private readonly byte[]? _content;
    private readonly SafeFileHandle? _file;

    /// <summary>Opens a file. Throws <see cref="MachineException"/>.</summary>
    /// <param name="path">the file.</param>
    /// <param name="failed">begin of the error's line, such as "could not load kernel".</param>
    public BootFile(string path, string failed)
    {
        _name = path;
        try
        {
            _file = File.OpenHandle(path);
            Length = LengthOf(_file);
            if (Length > int.MaxValue)
                throw new IOException("the file is too large");
            // What cannot be read by place (a pipe) is read once.
            if (Length == 0)
            {
                using var stream = new FileStream(_file, FileAccess.Read);
                using var all = new MemoryStream();
                stream.CopyTo(all);
                _file = null;
                _content = all.ToArray();
                Length = _content.Length;
            }
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            _file?.Dispose();
            throw new MachineException($"{failed} '{path}': {HostException.TextOf(e)}", e);
        }
    }

    private static long LengthOf(SafeFileHandle file)
    {
        try
        {
            return RandomAccess.GetLength(file);
        }
        catch (NotSupportedException)
        {
            return 0;
        }
    }

    /// <summary>Content that is in memory.</summary>
    public BootFile(byte[] content)
    {
        _name = "memory";
        _content = content;
        Length = content.Length;
    }

    /// <summary>The file's name as it was given.</summary>
    public string Name => _name;

    /// <summary>Bytes, at most 2 GiB.</summary>
    public long Length { get; }

    /// <summary>Reads bytes, all of them. Throws <see cref="MachineException"/> where the file has not so many (any more).</summary>
    public void Read(long offset, Span<byte> to)
    {
        if (offset < 0 || offset > Length - to.Length)
            throw new MachineException($"'{_name}' ends too early");
        if (_content != null)
        {
            _content.AsSpan((int)offset, to.Length).CopyTo(to);
            return;
        }
        try
        {
            while (to.Length > 0)
            {
                int n = RandomAccess.Read(_file!, to, offset);
                if (n == 0)
                    throw new MachineException($"'{_name}' ends too early");
                to = to[n..];
                offset += n;
            }
        }
        catch (IOException e)
        {
            throw new MachineException($"could not read '{_name}': {HostException.TextOf(e)}", e);
        }
    }

    /// <summary>Bytes at a place. Throws <see cref="MachineException"/>.</summary>
    public byte[] Read(long offset, int length)
    {
        byte[] bytes = new byte[length];
        Read(offset, bytes);
        return bytes;
    }

    /// <summary>A little-endian 16-bit value.</summary>
    public ushort U16(long at)
    {
        Span<byte> b = stackalloc byte[2];
        Read(at, b);
        return BinaryPrimitives.ReadUInt16LittleEndian(b);
    }

    /// <summary>A little-endian 32-bit value.</summary>
    public uint U32(long at)
    {
        Span<byte> b = stackalloc byte[4];
        Read(at, b);
        return BinaryPrimitives.ReadUInt32LittleEndian(b);
    }

    /// <inheritdoc/>
    public void Dispose() => _file?.Dispose();
}
