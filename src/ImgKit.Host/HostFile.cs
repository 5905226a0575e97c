using System.Runtime.InteropServices;
using System.Text;
using Tmds.Linux;
using static Tmds.Linux.LibC;

namespace ImgKit.Host;

/// <summary>How <see cref="HostFile.Open"/> opens.</summary>
[Flags]
public enum HostFileMode
{
    /// <summary>Read only.</summary>
    Read = 0,

    /// <summary>Read and write.</summary>
    ReadWrite = 1,

    /// <summary>Make the file if it is not there.</summary>
    Create = 2,

    /// <summary>Bypass the page cache (O_DIRECT): memory, offsets and counts must be aligned.</summary>
    Direct = 4,

    /// <summary>The file must not be there (with <see cref="Create"/>).</summary>
    Exclusive = 8,
}

/// <summary>What a path leads to.</summary>
public enum HostFileKind
{
    /// <summary>A regular file.</summary>
    Regular,

    /// <summary>A block device.</summary>
    BlockDevice,

    /// <summary>A character device.</summary>
    CharacterDevice,

    /// <summary>Anything else: pipes, folders.</summary>
    Other,
}

/// <summary>
/// An open file or block device: positioned reads and writes that are whole or fail, holes, locks, and kernel-side copying.
/// Thread-safe. Errors are <see cref="HostException"/>.
/// </summary>
public sealed unsafe class HostFile : IDisposable
{
    private const int SeekData = 3;
    private const int SeekHole = 4;
    private const int FallocKeepSize = 1;
    private const int FallocPunchHole = 2;
    private const int FallocZeroRange = 16;
    private const nuint BlkGetSize64 = 0x80081272;
    private const nuint BlkSectorSize = 0x1268;
    private const nuint BlkRoGet = 0x125E;
    private const nuint BlkDiscard = 0x1277;
    private const nuint BlkZeroOut = 0x127F;
    private const nuint FiClone = 0x40049409;
    private const int MaxVectors = 1024;
    private const long Ext4 = 0xEF53;

    private int _fd;

    private HostFile(int fd, string path, HostFileKind kind, bool writable, bool direct)
    {
        _fd = fd;
        Path = path;
        Kind = kind;
        IsWritable = writable;
        IsDirect = direct;
    }

    /// <summary>As given.</summary>
    public string Path { get; }

    /// <summary>What it is.</summary>
    public HostFileKind Kind { get; }

    /// <summary>Opened for writing.</summary>
    public bool IsWritable { get; }

    /// <summary>Opened with O_DIRECT.</summary>
    public bool IsDirect { get; }

    /// <summary>Writing large stretches is cheaper after <see cref="TryAllocate"/>: the file system (ext4) then need not find and count each
    /// block while it takes the data. Others do that in one step anyway, or fill what is allocated with zeroes.</summary>
    public bool IsFasterReserved
    {
        get
        {
            long* s = stackalloc long[32];      // struct statfs: 120 bytes, f_type first
            return Kind == HostFileKind.Regular && !IsDirect && NativeCalls.fstatfs(_fd, s) == 0 && s[0] == Ext4;
        }
    }

    /// <summary>The descriptor, for calls that are not wrapped here.</summary>
    public int Descriptor => _fd;

    /// <summary>Opens a path.</summary>
    public static HostFile Open(string path, HostFileMode mode)
    {
        bool writable = (mode & HostFileMode.ReadWrite) != 0;
        int flags = (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC
            | ((mode & HostFileMode.Create) != 0 ? O_CREAT : 0)
            | ((mode & HostFileMode.Exclusive) != 0 ? O_EXCL : 0)
            | ((mode & HostFileMode.Direct) != 0 ? O_DIRECT : 0);
        byte[] name = CString(path);
        int fd;
        fixed (byte* p = name)
        {
            do
                fd = open(p, flags, (mode_t)420);
            while (fd < 0 && errno == EINTR);
        }
        if (fd < 0)
            HostException.ThrowLast();
        try
        {
            return new HostFile(fd, path, KindOf(fd), writable, (mode & HostFileMode.Direct) != 0);
        }
        catch
        {
            _ = close(fd);
            throw;
        }
    }

    /// <summary>What a path leads to, or null when nothing is there or it cannot be looked at.</summary>
    public static HostFileKind? KindOfPath(string path)
    {
        stat s;
        byte[] name = CString(path);
        fixed (byte* p = name)
            return Tmds.Linux.LibC.stat(p, &s) == 0 ? KindOf(s) : null;
    }

    /// <summary>Size in bytes now; 0 for what has none.</summary>
    public long GetLength()
    {
        if (Kind == HostFileKind.BlockDevice)
        {
            ulong bytes;
            if (NativeCalls.ioctl(_fd, BlkGetSize64, &bytes) < 0)
                HostException.ThrowLast();
            return checked((long)bytes);
        }
        if (Kind != HostFileKind.Regular)
            return 0;
        stat s;
        if (fstat(_fd, &s) < 0)
            HostException.ThrowLast();
        return (long)s.st_size;
    }

    /// <summary>A block device that takes no writes, however it was opened.</summary>
    public bool IsWriteProtected()
    {
        int isReadOnly = 0;
        return Kind == HostFileKind.BlockDevice && NativeCalls.ioctl(_fd, BlkRoGet, &isReadOnly) == 0 && isReadOnly != 0;
    }

    /// <summary>Bytes that the file takes on its file system.</summary>
    public long GetAllocatedBytes()
    {
        stat s;
        if (fstat(_fd, &s) < 0)
            HostException.ThrowLast();
        return (long)s.st_blocks * 512;
    }

    /// <summary>Device and inode: equal for two names of one file.</summary>
    public (ulong Device, ulong Inode) GetIdentity()
    {
        stat s;
        if (fstat(_fd, &s) < 0)
            HostException.ThrowLast();
        return ((ulong)s.st_dev, (ulong)s.st_ino);
    }

    /// <summary>The alignment that direct access needs, and that block devices have, in bytes.</summary>
    public int GetSectorSize()
    {
        int size = 512;
        if (Kind == HostFileKind.BlockDevice && NativeCalls.ioctl(_fd, BlkSectorSize, &size) < 0)
            size = 512;
        return IsDirect ? Math.Max(size, 4096) : size;
    }

    /// <summary>Reads up to the end of the file.</summary>
    /// <returns>bytes read; fewer than asked for only at the end.</returns>
    public int Read(long offset, Span<byte> destination)
    {
        int done = 0;
        fixed (byte* p = destination)
        {
            while (done < destination.Length)
            {
                long n = (long)pread(_fd, p + done, (size_t)(ulong)(destination.Length - done), (off_t)(offset + done));
                if (n == 0)
                    break;
                if (n < 0)
                {
                    if (errno == EINTR)
                        continue;
                    HostException.ThrowLast();
                }
                done += (int)n;
            }
        }
        return done;
    }

    /// <summary>Reads the next bytes of something without positions (a pipe).</summary>
    /// <returns>bytes read; 0 at the end.</returns>
    public int ReadStream(Span<byte> destination)
    {
        fixed (byte* p = destination)
        {
            while (true)
            {
                long n = (long)read(_fd, p, (size_t)(ulong)destination.Length);
                if (n >= 0)
                    return (int)n;
                if (errno != EINTR)
                    HostException.ThrowLast();
            }
        }
    }

    /// <summary>Writes all of <paramref name="source"/>.</summary>
    public void Write(long offset, ReadOnlySpan<byte> source)
    {
        int done = 0;
        fixed (byte* p = source)
        {
            while (done < source.Length)
            {
                long n = (long)pwrite(_fd, p + done, (size_t)(ulong)(source.Length - done), (off_t)(offset + done));
                if (n < 0)
                {
                    if (errno == EINTR)
                        continue;
                    HostException.ThrowLast();
                }
                if (n == 0)
                    throw new HostException(ENOSPC);
                done += (int)n;
            }
        }
    }

    /// <summary>Vectored <see cref="Read"/>: pairs of address and length.</summary>
    /// <returns>bytes read; fewer than asked for only at the end of the file.</returns>
    public long ReadVector(long offset, ReadOnlySpan<(nint Address, int Length)> buffers) => Vector(offset, buffers, false);

    /// <summary>Vectored <see cref="Write"/>.</summary>
    public void WriteVector(long offset, ReadOnlySpan<(nint Address, int Length)> buffers) => Vector(offset, buffers, true);

    private long Vector(long offset, ReadOnlySpan<(nint Address, int Length)> buffers, bool write)
    {
        Span<NativeCalls.IoVec> vectors = stackalloc NativeCalls.IoVec[Math.Min(buffers.Length, 64)];
        long total = 0;
        int at = 0, skip = 0;
        while (at < buffers.Length)
        {
            int n = 0;
            for (int i = at; i < buffers.Length && n < vectors.Length; i++, n++)
            {
                int s = i == at ? skip : 0;
                vectors[n].Base = (byte*)buffers[i].Address + s;
                vectors[n].Length = (nuint)(buffers[i].Length - s);
            }
            nint done;
            fixed (NativeCalls.IoVec* v = vectors)
                done = write ? NativeCalls.pwritev(_fd, v, n, offset + total) : NativeCalls.preadv(_fd, v, n, offset + total);
            if (done < 0)
            {
                if (Marshal.GetLastPInvokeError() == EINTR)
                    continue;
                HostException.ThrowLast();
            }
            if (done == 0)
            {
                bool onlyEmpty = true;
                for (int i = at; i < at + n; i++)
                    onlyEmpty &= buffers[i].Length - (i == at ? skip : 0) == 0;
                if (!onlyEmpty)
                    return write ? throw new HostException(ENOSPC) : total;
            }
            total += done;
            while (at < buffers.Length && done >= buffers[at].Length - skip)
            {
                done -= buffers[at].Length - skip;
                skip = 0;
                at++;
            }
            skip += (int)done;
        }
        return total;
    }

    /// <summary>Sets the size; bytes gained are a hole.</summary>
    public void SetLength(long length)
    {
        if (ftruncate(_fd, (off_t)length) < 0)
            HostException.ThrowLast();
    }

    /// <summary>Where data starts at or behind an offset (<paramref name="data"/> true), or a hole; the file's end counts as a hole.</summary>
    /// <returns>the offset; -1 when there is no more data; -2 when the file system does not know.</returns>
    public long Seek(long offset, bool data)
    {
        long r = (long)lseek(_fd, (off_t)offset, data ? SeekData : SeekHole);
        if (r >= 0)
            return r;
        return errno == ENXIO ? -1 : -2;
    }

    /// <summary>Reserves space for a range.</summary>
    /// <param name="offset">bytes.</param>
    /// <param name="count">bytes.</param>
    /// <param name="keepSize">do not make the file longer.</param>
    /// <returns>false when the file system cannot.</returns>
    public bool TryAllocate(long offset, long count, bool keepSize) => Fallocate(keepSize ? FallocKeepSize : 0, offset, count);

    /// <summary>Makes a range a hole (a block device: discards it). It reads as zeroes on a regular file; on a block device that is not certain.</summary>
    /// <returns>false when the host cannot.</returns>
    public bool TryPunchHole(long offset, long count)
    {
        if (Kind != HostFileKind.BlockDevice)
            return Fallocate(FallocPunchHole | FallocKeepSize, offset, count);
        ulong* range = stackalloc ulong[2] { (ulong)offset, (ulong)count };
        return NativeCalls.ioctl(_fd, BlkDiscard, range) == 0 || Unsupported();
    }

    /// <summary>Makes a range read as zeroes, keeping its space.</summary>
    /// <param name="offset">bytes.</param>
    /// <param name="count">bytes.</param>
    /// <param name="mayUnmap">a block device may give the space back.</param>
    /// <returns>false when the host cannot do it without writing.</returns>
    public bool TryZeroRange(long offset, long count, bool mayUnmap)
    {
        if (Kind == HostFileKind.BlockDevice)
        {
            if (mayUnmap && Fallocate(FallocPunchHole | FallocKeepSize, offset, count))
                return true;
            ulong* range = stackalloc ulong[2] { (ulong)offset, (ulong)count };
            return NativeCalls.ioctl(_fd, BlkZeroOut, range) == 0 || Unsupported();
        }
        return Fallocate(FallocZeroRange, offset, count);
    }

    private bool Fallocate(int mode, long offset, long count)
    {
        int r;
        do
            r = fallocate(_fd, mode, (off_t)offset, (off_t)count);
        while (r < 0 && errno == EINTR);
        return r == 0 || Unsupported();
    }

    /// <summary>False for errors that mean "cannot do this here"; throws for others.</summary>
    private static bool Unsupported()
    {
        if (errno is not (95 or 38 or 25 or 22 or 1 or 19))      // EOPNOTSUPP ENOSYS ENOTTY EINVAL EPERM ENODEV
            HostException.ThrowLast();
        return false;
    }

    /// <summary>Brings data, and what is needed to find it, to stable storage.</summary>
    public void Sync()
    {
        while (fdatasync(_fd) < 0)
        {
            if (errno == EINTR)
                continue;
            if (errno is 22 or 30)      // EINVAL, EROFS: a pipe or a special file, nothing to do
                return;
            HostException.ThrowLast();
        }
    }

    /// <summary>Copies inside the kernel.</summary>
    /// <returns>bytes copied, 0 at the end of the source; -1 when this pair of files cannot.</returns>
    public long CopyTo(long offset, HostFile target, long targetOffset, long count)
    {
        nint n = NativeCalls.copy_file_range(_fd, &offset, target._fd, &targetOffset, (nuint)count, 0);
        if (n >= 0)
            return n;
        int e = Marshal.GetLastPInvokeError();
        if (e is 18 or 22 or 38 or 95 or 26 or 9)      // EXDEV EINVAL ENOSYS EOPNOTSUPP ETXTBSY EBADF
            return -1;
        throw new HostException(e);
    }

    /// <summary>Makes this file share all of another's blocks.</summary>
    /// <returns>false when the file system cannot.</returns>
    public bool TryClone(HostFile source) => NativeCalls.ioctl(_fd, FiClone, (void*)source._fd) == 0;

    /// <summary>Tries to take an open-file-description lock on one byte.</summary>
    /// <returns>false when another holder excludes it.</returns>
    public bool TryLockByte(long offset, bool exclusive)
    {
        var l = new flock { l_type = (short)(exclusive ? F_WRLCK : F_RDLCK), l_start = (off_t)offset, l_len = (off_t)1 };
        if (fcntl(_fd, F_OFD_SETLK, &l) == 0)
            return true;
        if (errno is 11 or 13)      // EAGAIN EACCES
            return false;
        if (errno is 22 or 37 or 38 or 95)      // no locks on this file system
            return true;
        HostException.ThrowLast();
        return false;
    }

    /// <summary>Gives back a lock of <see cref="TryLockByte"/>.</summary>
    public void UnlockByte(long offset)
    {
        var l = new flock { l_type = (short)F_UNLCK, l_start = (off_t)offset, l_len = (off_t)1 };
        _ = fcntl(_fd, F_OFD_SETLK, &l);
    }

    /// <summary>Whether someone else's lock would exclude an exclusive lock on one byte.</summary>
    public bool IsByteLockedByOthers(long offset)
    {
        var l = new flock { l_type = (short)F_WRLCK, l_start = (off_t)offset, l_len = (off_t)1 };
        return fcntl(_fd, F_OFD_GETLK, &l) == 0 && l.l_type != (short)F_UNLCK;
    }

    /// <summary>Tells the kernel how the file will be read.</summary>
    public void Advise(long offset, long count, int advice) => _ = posix_fadvise(_fd, (off_t)offset, (off_t)count, advice);

    /// <inheritdoc/>
    public void Dispose()
    {
        int fd = Interlocked.Exchange(ref _fd, -1);
        if (fd >= 0)
            _ = close(fd);
    }

    private static HostFileKind KindOf(int fd)
    {
        stat s;
        if (fstat(fd, &s) < 0)
            HostException.ThrowLast();
        return KindOf(s);
    }

    private static HostFileKind KindOf(in stat s) => ((uint)s.st_mode & 0xF000) switch
    {
        0x8000 => HostFileKind.Regular,
        0x6000 => HostFileKind.BlockDevice,
        0x2000 => HostFileKind.CharacterDevice,
        _ => HostFileKind.Other,
    };

    private static byte[] CString(string path)
    {
        byte[] b = new byte[Encoding.UTF8.GetByteCount(path) + 1];
        Encoding.UTF8.GetBytes(path, b);
        return b;
    }
}
