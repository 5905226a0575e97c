using System.Runtime.InteropServices;
using System.Text;

namespace ImgKit.Host;

/// <summary>Processes and descriptors, for programs that go to the background or are started by a service manager.</summary>
public static unsafe partial class HostProcess
{
    /// <summary>Starts this program once more, with the same descriptors.</summary>
    /// <param name="arguments">including the name in front.</param>
    /// <param name="variable">an environment variable, <c>NAME=value</c>, besides those that are set.</param>
    /// <returns>the process's id.</returns>
    public static int StartSelf(IReadOnlyList<string> arguments, string variable)
    {
        var environment = new List<string> { variable };
        foreach (System.Collections.DictionaryEntry e in Environment.GetEnvironmentVariables())
            environment.Add($"{e.Key}={e.Value}");
        byte** argv = ToNative(arguments), envp = ToNative(environment);
        try
        {
            int pid;
            int error = posix_spawn(&pid, "/proc/self/exe", null, null, argv, envp);
            return error == 0 ? pid : throw new HostException(error);
        }
        finally
        {
            Free(argv);
            Free(envp);
        }
    }

    /// <summary>A pipe whose ends are inherited by programs that this one starts.</summary>
    public static (int Read, int Write) MakeInheritedPipe()
    {
        int* fds = stackalloc int[2];
        if (pipe2(fds, 0) < 0)
            HostException.ThrowLast();
        return (fds[0], fds[1]);
    }

    /// <summary>Closes a descriptor.</summary>
    public static void Close(int descriptor) => _ = close(descriptor);

    /// <summary>Reads from a descriptor.</summary>
    /// <returns>bytes; 0 at the end.</returns>
    public static int Read(int descriptor, Span<byte> buffer)
    {
        fixed (byte* p = buffer)
        {
            nint n;
            do
                n = read(descriptor, p, (nuint)buffer.Length);
            while (n < 0 && Marshal.GetLastPInvokeError() == 4);
            return (int)Math.Max(n, 0);
        }
    }

    /// <summary>Writes to a descriptor.</summary>
    public static void Write(int descriptor, ReadOnlySpan<byte> data)
    {
        fixed (byte* p = data)
            _ = write(descriptor, p, (nuint)data.Length);
    }

    /// <summary>Waits for a process that this one started.</summary>
    /// <returns>its exit code; 1 when a signal ended it.</returns>
    public static int WaitFor(int pid)
    {
        int status;
        while (waitpid(pid, &status, 0) < 0 && Marshal.GetLastPInvokeError() == 4)
        {
        }
        return (status & 0x7f) == 0 ? status >> 8 & 0xff : 1;
    }

    /// <summary>Leaves the terminal's session.</summary>
    public static void StartSession() => _ = setsid();

    /// <summary>Puts the null device in the place of standard input, output and error.</summary>
    public static void DetachStandardStreams()
    {
        int fd = open("/dev/null", 2);
        if (fd < 0)
            return;
        for (int i = 0; i < 3; i++)
            _ = dup2(fd, i);
        if (fd > 2)
            _ = close(fd);
    }

    /// <summary>Sockets that a service manager has opened for this process (systemd's protocol: sd_listen_fds(3)); forgets them.</summary>
    public static IReadOnlyList<int> TakeActivationSockets()
    {
        string? pid = Environment.GetEnvironmentVariable("LISTEN_PID"), count = Environment.GetEnvironmentVariable("LISTEN_FDS");
        Environment.SetEnvironmentVariable("LISTEN_PID", null);
        Environment.SetEnvironmentVariable("LISTEN_FDS", null);
        if (!int.TryParse(pid, out int p) || p != Environment.ProcessId || !int.TryParse(count, out int n) || n is < 1 or > 64)
            return [];
        var list = new List<int>();
        for (int i = 0; i < n; i++)
        {
            _ = fcntl(3 + i, 2, 1);     // F_SETFD, FD_CLOEXEC
            list.Add(3 + i);
        }
        return list;
    }

    /// <summary>Tells a service manager that this process is ready (sd_notify(3)), if one asked for it.</summary>
    public static void NotifyReady()
    {
        string? path = Environment.GetEnvironmentVariable("NOTIFY_SOCKET");
        if (string.IsNullOrEmpty(path) || Encoding.UTF8.GetByteCount(path) > 107)
            return;
        byte* address = stackalloc byte[110];
        new Span<byte>(address, 110).Clear();
        *(ushort*)address = 1;
        int n = Encoding.UTF8.GetBytes(path, new Span<byte>(address + 2, 107));
        if (path[0] == '@')
            address[2] = 0;
        int fd = NativeSocketCalls.socket(1, 2 | 0x80000, 0);
        if (fd < 0)
            return;
        if (NativeSocketCalls.connect(fd, address, (uint)(2 + n + (path[0] == '@' ? 0 : 1))) == 0)
            Write(fd, "READY=1"u8);
        _ = close(fd);
    }

    private static byte** ToNative(IReadOnlyList<string> texts)
    {
        byte** list = (byte**)NativeMemory.Alloc((nuint)(texts.Count + 1), (nuint)sizeof(byte*));
        for (int i = 0; i < texts.Count; i++)
            list[i] = (byte*)Marshal.StringToCoTaskMemUTF8(texts[i]);
        list[texts.Count] = null;
        return list;
    }

    private static void Free(byte** list)
    {
        for (byte** p = list; *p is not null; p++)
            Marshal.FreeCoTaskMem((nint)(*p));
        NativeMemory.Free(list);
    }

    [LibraryImport("libc.so.6", StringMarshalling = StringMarshalling.Utf8)]
    private static partial int posix_spawn(int* pid, string path, void* actions, void* attributes, byte** argv, byte** envp);

    [LibraryImport("libc.so.6", SetLastError = true)]
    private static partial int pipe2(int* descriptors, int flags);

    [LibraryImport("libc.so.6")]
    private static partial int close(int descriptor);

    [LibraryImport("libc.so.6", SetLastError = true)]
    private static partial nint read(int descriptor, byte* buffer, nuint count);

    [LibraryImport("libc.so.6", SetLastError = true)]
    private static partial nint write(int descriptor, byte* buffer, nuint count);

    [LibraryImport("libc.so.6", SetLastError = true)]
    private static partial int waitpid(int pid, int* status, int options);

    [LibraryImport("libc.so.6")]
    private static partial int setsid();

    [LibraryImport("libc.so.6", StringMarshalling = StringMarshalling.Utf8)]
    private static partial int open(string path, int flags);

    [LibraryImport("libc.so.6")]
    private static partial int dup2(int from, int to);

    [LibraryImport("libc.so.6")]
    private static partial int fcntl(int descriptor, int command, int argument);
}
