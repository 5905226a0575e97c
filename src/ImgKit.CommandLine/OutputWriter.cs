using System.Runtime.InteropServices;
using System.Text;

namespace ImgKit.CommandLine;

/// <summary>
/// Text straight to a file descriptor. (System.Console would do, but sets up encodings, terminals and threads: several
/// milliseconds that a program that runs for one cannot afford.)
/// </summary>
/// <remarks>As with the C library, standard output is written at each line's end on a terminal, and otherwise in pieces of 4 KiB and
/// at the end of the program, whereas standard error is written at once: what appears in which order is part of what
/// scripts know. Text that cannot be written does not stop the work that it tells of: that is reported at the end, by <see cref="Close"/>.
/// Not thread-safe.</remarks>
public sealed unsafe partial class OutputWriter
{
    private const int Capacity = 4096;

    private readonly int _descriptor;
    private readonly bool _unbuffered;
    private byte[]? _buffer;
    private int _used;
    private bool? _isTerminal;
    private OutputException? _failure;

    private OutputWriter(int descriptor, bool unbuffered)
    {
        _descriptor = descriptor;
        _unbuffered = unbuffered;
    }

    /// <summary>Standard output.</summary>
    public static OutputWriter Out { get; } = new(1, false);

    /// <summary>Standard error.</summary>
    public static OutputWriter Error { get; } = new(2, true);

    /// <summary>Whether the descriptor is a terminal.</summary>
    public bool IsTerminal => _isTerminal ??= isatty(_descriptor) == 1;

    /// <summary>A text.</summary>
    public void Write(ReadOnlySpan<char> text)
    {
        byte[] buffer = _buffer ??= new byte[Capacity];
        bool lines = !_unbuffered && IsTerminal && text.Contains('\n');
        while (!text.IsEmpty)
        {
            if (Capacity - _used < 4)
                Flush();
            // At most three bytes a character, but never half of a surrogate pair.
            int n = Math.Min(text.Length, Math.Max(1, (Capacity - _used) / 3));
            if (n < text.Length && char.IsHighSurrogate(text[n - 1]))
                n += n < 2 ? 1 : -1;
            _used += Encoding.UTF8.GetBytes(text[..n], buffer.AsSpan(_used));
            text = text[n..];
        }
        if (_unbuffered || lines)
            Flush();
    }

    /// <summary>Sees to it that descriptors 0 to 2 are open. Where a caller has closed one, the next file that is opened would get its number,
    /// and messages would go into that file.</summary>
    public static void OpenStandardStreams()
    {
        const int getFlags = 1, readWrite = 2;
        for (int fd = 0; fd <= 2; fd++)
            if (fcntl(fd, getFlags) < 0)
                _ = open("/dev/null", readWrite);
    }

    /// <summary>Bytes that are the program's result: unlike text, they must arrive.</summary>
    /// <exception cref="OutputException">they cannot be written, for example because the reader is gone.</exception>
    public void Write(ReadOnlySpan<byte> bytes)
    {
        Flush();
        if (_failure is not null)
            throw _failure;
        WriteAll(bytes);
    }

    /// <summary>A text and a line break.</summary>
    public void WriteLine(string text = "")
    {
        // One write for one message: others may write to the same terminal.
        if (_unbuffered)
        {
            Write(text + "\n");
            return;
        }
        Write(text);
        Write("\n");
    }

    /// <summary>Writes what is held back. Once that fails, text is dropped.</summary>
    public void Flush()
    {
        int n = _used;
        _used = 0;
        if (n == 0 || _failure is not null)
            return;
        try
        {
            WriteAll(_buffer.AsSpan(0, n));
        }
        catch (OutputException e)
        {
            _failure = e;
        }
    }

    /// <summary>Writes what is held back, at the end of the program.</summary>
    /// <exception cref="OutputException">something could not be written. That a reader of text went away is no error.</exception>
    public void Close()
    {
        Flush();
        if (_failure is { IsClosedPipe: false })
            throw _failure;
    }

    private void WriteAll(ReadOnlySpan<byte> bytes)
    {
        fixed (byte* p = bytes)
        {
            int done = 0;
            while (done < bytes.Length)
            {
                nint n = write(_descriptor, p + done, (nuint)(bytes.Length - done));
                if (n < 0)
                {
                    int error = Marshal.GetLastPInvokeError();
                    if (error == 4)         // EINTR
                        continue;
                    if (error == 11)        // EAGAIN: somebody made the terminal non-blocking
                    {
                        Thread.Sleep(1);
                        continue;
                    }
                    throw new OutputException(error);
                }
                done += (int)n;
            }
        }
    }

    [LibraryImport("libc.so.6", SetLastError = true)]
    private static partial nint write(int descriptor, byte* buffer, nuint count);

    [LibraryImport("libc.so.6")]
    private static partial int fcntl(int descriptor, int command);

    [LibraryImport("libc.so.6", StringMarshalling = StringMarshalling.Utf8)]
    private static partial int open(string path, int flags);

    [LibraryImport("libc.so.6")]
    private static partial int isatty(int descriptor);
}

/// <summary>Standard output or standard error cannot be written.</summary>
public sealed class OutputException(int errno) : IOException(Marshal.GetPInvokeErrorMessage(errno))
{
    /// <summary>The error number.</summary>
    public int Errno { get; } = errno;

    /// <summary>Nobody reads: the reader went away (EPIPE), or there never was one (EBADF).</summary>
    public bool IsClosedPipe => Errno is 32 or 9;
}
