using System.Globalization;
using ImgKit.Host;

namespace ImgKit.Block.Protocols.File;

/// <summary>
/// The byte-range locks by which programs that use one image exclude each other: open-file-description read locks, on
/// byte 100 + n for a permission held and on byte 200 + n for a permission that nobody else may hold; n is 0 for
/// consistent read, 1 write, 2 write unchanged, 3 resize. QEMU takes and honours the same ones.
/// </summary>
internal static class ImageLocks
{
    private const int HeldBase = 100;
    private const int UnsharedBase = 200;
    private const int ConsistentRead = 0;
    private const int Write = 1;
    private const int Resize = 3;

    private static readonly string[] Names = ["consistent read", "write", "write unchanged", "resize"];

    /// <summary>Takes the locks of one who reads, or writes, a file's bytes; they go with the descriptor.</summary>
    /// <exception cref="ImageException">another holder excludes it.</exception>
    public static void Take(HostFile file, OpenSettings settings)
    {
        ReadOnlySpan<int> held = settings.ReadOnly ? [ConsistentRead] : [ConsistentRead, Write];
        Take(file, settings, held, settings.UnshareWrite ? [Write] : []);
    }

    /// <summary>Adds the locks of one who holds a format's tables in memory: nobody else may write or resize.</summary>
    /// <exception cref="ImageException">another holder excludes it.</exception>
    public static void TakeForFormat(HostFile file, OpenSettings settings) =>
        Take(file, settings, settings.ReadOnly ? [] : [Resize], [Write, Resize]);

    private static void Take(HostFile file, OpenSettings settings, ReadOnlySpan<int> held, ReadOnlySpan<int> unshared)
    {
        if (settings.ForceShare || file.Kind is HostFileKind.CharacterDevice or HostFileKind.Other)
            return;
        // First all of ours, then a look at the others': of two who come at once at least one sees the other.
        foreach (int p in held)
            _ = file.TryLockByte(HeldBase + p, exclusive: false);
        foreach (int p in unshared)
            _ = file.TryLockByte(UnsharedBase + p, exclusive: false);
        foreach (int p in held)
            if (file.IsByteLockedByOthers(UnsharedBase + p))
                throw Refused(file, $"Failed to get \"{Names[p]}\" lock");
        foreach (int p in unshared)
            if (file.IsByteLockedByOthers(HeldBase + p))
                throw Refused(file, $"Failed to get shared \"{Names[p]}\" lock");
    }

    private static ImageException Refused(HostFile file, string what)
    {
        string holder = FindHolder(file) is { } h ? $" It is in use by {h}." : "";
        return new ImageException(ImageErrorKind.Locked, $"{what}\nIs another process using the image [{file.Path}]?{holder}", file.Path) { Errno = 11 };
    }

    /// <summary>The process that holds a lock on the file, as <c>name (pid N)</c>. The kernel does not say who owns an
    /// open-file-description lock, but each process's fdinfo lists the locks of its descriptors.</summary>
    private static string? FindHolder(HostFile file)
    {
        var (_, inode) = file.GetIdentity();
        string mark = ":" + inode.ToString(CultureInfo.InvariantCulture) + " ";
        foreach (string process in Directory.EnumerateDirectories("/proc"))
        {
            if (!int.TryParse(Path.GetFileName(process), NumberStyles.None, CultureInfo.InvariantCulture, out int pid) || pid == Environment.ProcessId)
                continue;
            try
            {
                foreach (string info in Directory.EnumerateFiles(process + "/fdinfo"))
                    foreach (string line in System.IO.File.ReadLines(info))
                        if (line.StartsWith("lock:", StringComparison.Ordinal) && line.Contains(mark, StringComparison.Ordinal))
                            return $"{System.IO.File.ReadAllText(process + "/comm").Trim()} (pid {pid})";
            }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException)
            {
                // It ended meanwhile, or is somebody else's: look at the next one.
                continue;
            }
        }
        return null;
    }
}
