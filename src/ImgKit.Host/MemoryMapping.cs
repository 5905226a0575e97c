using System.Runtime.InteropServices;

namespace ImgKit.Host;

/// <summary>A mapping of memory that is not in a file.</summary>
public sealed class MemoryMapping : IDisposable
{
    private MemoryMapping(nint address, nuint length)
    {
        Address = address;
        Length = length;
    }

    /// <summary>Address of the first byte; 0 after <see cref="Dispose"/>.</summary>
    public nint Address { get; private set; }

    /// <summary>Bytes.</summary>
    public nuint Length { get; }

    /// <summary>Maps zeroed memory, taken from the host page by page as it is touched. Throws <see cref="IOException"/>.</summary>
    public static MemoryMapping Anonymous(nuint length)
    {
        // With a reservation: the host refuses at once what it could never give.
        const int ReadWrite = 3, PrivateAnonymous = 0x22, HugePages = 14;
        const nuint HugePage = 2 << 20;
        // Large mappings begin at a huge page: nested paging and the host's TLB then work with those.
        nuint extra = length >= HugePage ? HugePage : 0;
        nint at = length > nuint.MaxValue - extra ? -1 : Native.MemoryMap(0, length + extra, ReadWrite, PrivateAnonymous, -1, 0);
        if (at == -1)
        {
            int error = Marshal.GetLastPInvokeError();
            throw new IOException(Marshal.GetPInvokeErrorMessage(error), error);
        }
        if (extra == 0)
            return new MemoryMapping(at, length);
        nint aligned = (nint)(((nuint)at + HugePage - 1) & ~(HugePage - 1));
        if (aligned > at)
            Native.MemoryUnmap(at, (nuint)(aligned - at));
        nuint behind = (nuint)at + length + extra - ((nuint)aligned + length);
        if (behind > 0)
            Native.MemoryUnmap(aligned + (nint)length, behind);
        Native.MemoryAdvise(aligned, length, HugePages);
        return new MemoryMapping(aligned, length);
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        if (Address == 0)
            return;
        Native.MemoryUnmap(Address, Length);
        Address = 0;
    }
}
