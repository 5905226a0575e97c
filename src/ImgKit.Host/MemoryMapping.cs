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
        const int ReadWrite = 3, PrivateAnonymousNoReserve = 0x4022;
        nint at = Native.MemoryMap(0, length, ReadWrite, PrivateAnonymousNoReserve, -1, 0);
        if (at == -1)
        {
            int error = Marshal.GetLastPInvokeError();
            throw new IOException($"cannot map {length} bytes of memory: {Marshal.GetPInvokeErrorMessage(error)}", error);
        }
        return new MemoryMapping(at, length);
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
