using System.Runtime.InteropServices;

namespace ImgKit.Host;

/// <summary>Plain reads and writes of descriptors, and terminals.</summary>
public static unsafe class Descriptors
{
    private const int Interrupted = 4, WouldBlock = 11;

    /// <summary>Reads what is there: bytes, 0 at the end, -1 when there is nothing or an error.</summary>
    public static int Read(int descriptor, Span<byte> data)
    {
        fixed (byte* p = data)
        {
            while (true)
            {
                nint n = Native.Read(descriptor, p, (nuint)data.Length);
                if (n >= 0 || Marshal.GetLastPInvokeError() != Interrupted)
                    return (int)n;
            }
        }
    }

    /// <summary>Writes everything, waiting where it must; gives up at an error.</summary>
    public static void WriteAll(int descriptor, ReadOnlySpan<byte> data)
    {
        fixed (byte* p = data)
        {
            int done = 0;
            while (done < data.Length)
            {
                nint n = Native.Write(descriptor, p + done, (nuint)(data.Length - done));
                if (n > 0)
                    done += (int)n;
                else
                {
                    int error = Marshal.GetLastPInvokeError();
                    if (error == WouldBlock)
                        Thread.Sleep(1);
                    else if (error != Interrupted)
                        return;
                }
            }
        }
    }

    /// <summary>What a descriptor leads to, as far as waiting is concerned.</summary>
    public static DescriptorKind KindOf(int descriptor)
    {
        const int FromHere = 1;
        byte* state = stackalloc byte[64];
        return Native.Seek(descriptor, 0, FromHere) >= 0 ? DescriptorKind.File : Native.GetTerminal(descriptor, state) == 0 ? DescriptorKind.Terminal : DescriptorKind.Stream;
    }

    /// <summary>Writes what can be written without waiting. Returns the bytes taken; 0: none now; -1: an error, none ever.</summary>
    /// <param name="descriptor">any; others may have it open, too.</param>
    /// <param name="kind">what it leads to.</param>
    /// <param name="data">bytes.</param>
    public static int TryWrite(int descriptor, DescriptorKind kind, ReadOnlySpan<byte> data)
    {
        const short Writable = 4, HungUp = 0x10;
        // Once it is ready, a pipe takes this much without waiting, a terminal a byte.
        const int PipeBuffer = 4096;
        int most = kind switch { DescriptorKind.File => int.MaxValue, DescriptorKind.Terminal => 1, _ => PipeBuffer };
        fixed (byte* p = data)
        {
            int done = 0;
            while (done < data.Length)
            {
                if (kind != DescriptorKind.File)
                {
                    var poll = new NativeSocketCalls.PollDescriptor { Descriptor = descriptor, Events = Writable };
                    if (NativeSocketCalls.poll(&poll, 1, 0) == 0)
                        return done;
                    if ((poll.Returned & HungUp) != 0)
                        return -1;
                }
                nint written = Native.Write(descriptor, p + done, (nuint)Math.Min(data.Length - done, most));
                if (written >= 0)
                    done += (int)written;
                else if (Marshal.GetLastPInvokeError() is var error && error == WouldBlock)
                    return done;
                else if (error != Interrupted)
                    return -1;
            }
            return done;
        }
    }

    /// <summary>Opens a pseudo-terminal in raw mode; until somebody opens its other end by its name, that is hung up. Throws <see cref="IOException"/>.</summary>
    public static (int Master, string Name) OpenPty()
    {
        int master = Native.Check(Native.PosixOpenPt(0x80102), "posix_openpt");     // O_RDWR | O_NOCTTY | O_CLOEXEC
        Native.Check(Native.GrantPt(master), "grantpt");
        Native.Check(Native.UnlockPt(master), "unlockpt");
        var name = stackalloc byte[64];
        Native.Check(Native.PtsName(master, name, 64) == 0 ? 0 : -1, "ptsname");
        string path = Marshal.PtrToStringUTF8((nint)name)!;
        int slave = Native.Check(Native.Open(path, 0x80102), "open");
        SetRaw(slave, out _);
        Close(slave);
        return (master, path);
    }

    /// <summary>Puts a terminal into raw mode; false when it is none. <paramref name="before"/> restores it.</summary>
    public static bool SetRaw(int descriptor, out byte[] before, bool keepSignals = false)
    {
        before = new byte[64];
        fixed (byte* b = before)
        {
            if (Native.GetTerminal(descriptor, b) != 0)
                return false;
            byte[] raw = [.. before];
            fixed (byte* r = raw)
            {
                // struct termios: c_iflag, c_oflag, c_cflag, c_lflag, c_line, c_cc (VTIME 5, VMIN 6)
                uint* flags = (uint*)r;
                flags[0] &= ~0x5FBu;            // IGNBRK BRKINT PARMRK INPCK ISTRIP INLCR IGNCR ICRNL IXON
                flags[1] |= 1;                  // OPOST: a newline of the host's stays right
                flags[2] = (flags[2] & ~0x130u) | 0x30;
                flags[3] &= keepSignals ? ~0x804Au : ~0x804Bu;      // ECHO ECHONL ICANON IEXTEN (ISIG)
                r[17 + 6] = 1;
                r[17 + 5] = 0;
                Native.SetTerminal(descriptor, 0, r);
            }
            return true;
        }
    }

    /// <summary>Gives a terminal back the state that <see cref="SetRaw"/> found.</summary>
    public static void Restore(int descriptor, byte[] before)
    {
        fixed (byte* b = before)
            Native.SetTerminal(descriptor, 0, b);
    }

    /// <summary>Opens a file for writing from its start, without what was in it. Throws <see cref="IOException"/>.</summary>
    public static int Create(string path) => Native.Check(Native.OpenMode(path, 0x80241, 0x1B6), path);

    /// <summary>Opens a file, or makes it, for writing at its end. Throws <see cref="IOException"/>.</summary>
    public static int OpenToAppend(string path) => Native.Check(Native.OpenMode(path, 0x80441, 0x1B6), path);

    /// <summary>Empties a file; pipes and devices have nothing to be emptied of.</summary>
    public static void Truncate(int descriptor) => Native.Truncate(descriptor, 0);

    /// <summary>Opens a file or device for reading and writing. Throws <see cref="IOException"/>.</summary>
    public static int OpenBoth(string path) => Native.Check(Native.Open(path, 0x80102), path);

    /// <summary>Opens a file for reading. Throws <see cref="IOException"/>.</summary>
    public static int OpenRead(string path) => Native.Check(Native.Open(path, 0x80100), path);

    /// <summary>Begins a session of its own, with /dev/null as standard input, output and error.</summary>
    public static void DetachFromTerminal()
    {
        Native.SetSession();
        int nothing = OpenBoth("/dev/null");
        // The runtime keeps copies of the standard descriptors; whoever reads our output to its end must not wait for them.
        string?[] standard = [.. Enumerable.Range(1, 2).Select(Target)];
        foreach (string path in Directory.GetFiles("/proc/self/fd"))
            if (int.TryParse(Path.GetFileName(path), out int fd) && fd > 2 && fd != nothing && Target(fd) is { } target
                && target.StartsWith("pipe:", StringComparison.Ordinal) && standard.Contains(target))
                Native.Duplicate(nothing, fd);
        for (int i = 0; i < 3; i++)
            Native.Duplicate(nothing, i);
        Close(nothing);
    }

    private static string? Target(int descriptor) => new FileInfo($"/proc/self/fd/{descriptor}").LinkTarget;

    /// <summary>Closes a descriptor.</summary>
    public static void Close(int descriptor) => Native.Close(descriptor);
}

/// <summary>What a descriptor leads to, as far as waiting is concerned.</summary>
public enum DescriptorKind
{
    /// <summary>A file: nobody waits for it.</summary>
    File,

    /// <summary>A terminal, or its other end.</summary>
    Terminal,

    /// <summary>A pipe or a socket.</summary>
    Stream,
}
