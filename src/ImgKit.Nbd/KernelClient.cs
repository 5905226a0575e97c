using ImgKit.Block.Protocols;
using ImgKit.Block.Protocols.Nbd;
using ImgKit.Host;

namespace ImgKit.Nbd;

/// <summary>The kernel's NBD client, fed by a server in this process.</summary>
public static class KernelClient
{
    /// <summary>Connects a device to an export and serves it until the device is disconnected.</summary>
    /// <param name="server">offers the export.</param>
    /// <param name="export">its name.</param>
    /// <param name="path">of the device, <c>/dev/nbdN</c>.</param>
    /// <param name="ready">called when the device can be used.</param>
    public static void Run(NbdServer server, string export, string path, Action ready)
    {
        using var device = KernelNbdDevice.Open(path);
        var (ours, theirs) = HostSocket.CreatePair();
        server.Serve(ours);
        using var transport = new StreamTransport(theirs);
        var agreement = new NbdHandshake(transport, null, "").OpenSimple(export);
        device.Connect(theirs, agreement.Size, (int)Math.Clamp(agreement.MinBlock, 512, 4096), (int)agreement.Flags);
        var ran = new TaskCompletionSource();
        new Thread(() =>
        {
            // The kernel reads the partition table only once somebody opens the device while it is served.
            Thread.Sleep(10);
            ready();
            ran.SetResult();
        }) { IsBackground = true }.Start();
        device.Run();
        ran.Task.Wait();
    }

    /// <summary>Disconnects a device.</summary>
    public static void Disconnect(string path)
    {
        using var device = KernelNbdDevice.Open(path);
        device.Disconnect();
    }
}
