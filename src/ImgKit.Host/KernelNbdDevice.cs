namespace ImgKit.Host;

/// <summary>A device of the kernel's own NBD client, <c>/dev/nbdN</c> (linux/nbd.h).</summary>
public sealed unsafe class KernelNbdDevice : IDisposable
{
    private const nuint SetSocket = 0xab00;
    private const nuint SetBlockSize = 0xab01;
    private const nuint DoIt = 0xab03;
    private const nuint ClearSocket = 0xab04;
    private const nuint ClearQueue = 0xab05;
    private const nuint SetSizeBlocks = 0xab07;
    private const nuint DisconnectRequest = 0xab08;
    private const nuint SetFlags = 0xab0a;
    private const nuint BlkRoSet = 0x125d;

    private readonly HostFile _file;

    private KernelNbdDevice(HostFile file)
    {
        _file = file;
    }

    /// <summary>Opens a device.</summary>
    public static KernelNbdDevice Open(string path) => new(HostFile.Open(path, HostFileMode.ReadWrite));

    /// <summary>Gives the device a connection on which an export has been agreed on.</summary>
    /// <param name="socket">of the client.</param>
    /// <param name="size">of the export in bytes.</param>
    /// <param name="blockSize">512 to 4096, a power of two.</param>
    /// <param name="flags">of the export, as on the wire.</param>
    public void Connect(HostSocket socket, long size, int blockSize, int flags)
    {
        _ = NativeCalls.ioctl(_file.Descriptor, ClearSocket, null);
        Call(SetBlockSize, blockSize);
        Call(SetSizeBlocks, (nint)(size / blockSize));
        Call(SetFlags, flags);
        if ((flags & 2) != 0)
        {
            int readOnly = 1;
            if (NativeCalls.ioctl(_file.Descriptor, BlkRoSet, &readOnly) < 0)
                HostException.ThrowLast();
        }
        Call(SetSocket, socket.Descriptor);
    }

    /// <summary>Lets the kernel serve the device; returns when it has been disconnected.</summary>
    public void Run()
    {
        int r = NativeCalls.ioctl(_file.Descriptor, DoIt, null);
        int error = r < 0 ? System.Runtime.InteropServices.Marshal.GetLastPInvokeError() : 0;
        _ = NativeCalls.ioctl(_file.Descriptor, ClearQueue, null);
        _ = NativeCalls.ioctl(_file.Descriptor, ClearSocket, null);
        if (error is not (0 or 32))     // EPIPE: the server ended the connection
            throw new HostException(error);
    }

    /// <summary>Ends the device's connection, whoever made it.</summary>
    public void Disconnect()
    {
        _ = NativeCalls.ioctl(_file.Descriptor, ClearQueue, null);
        Call(DisconnectRequest, 0);
        _ = NativeCalls.ioctl(_file.Descriptor, ClearSocket, null);
    }

    private void Call(nuint request, nint argument)
    {
        if (NativeCalls.ioctl(_file.Descriptor, request, (void*)argument) < 0)
            HostException.ThrowLast();
    }

    /// <inheritdoc/>
    public void Dispose() => _file.Dispose();
}
