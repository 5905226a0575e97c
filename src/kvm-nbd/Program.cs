using System.Globalization;
using System.Runtime.InteropServices;
using ImgKit.Block;
using ImgKit.Block.Protocols.Nbd;
using ImgKit.CommandLine;
using ImgKit.Host;
using ImgKit.Nbd;

namespace ImgKit.Programs.Nbd;

/// <summary><c>kvm-nbd</c>: exports an image by the NBD protocol.</summary>
internal static class Program
{
    private const string ReadyVariable = "KVM_NBD_READY_FD";

    private static int Main(string[] args)
    {
        int code;
        OutputWriter.OpenStandardStreams();
        try
        {
            code = Run([ProgramName.Called, .. args]);
            OutputWriter.Out.Close();
        }
        catch (Exception e) when (e is ProgramException or ImageException or IOException or UnauthorizedAccessException or NotSupportedException)
        {
            OutputWriter.Error.WriteLine($"{ProgramName.Base}: {e.Message}");
            code = 1;
        }
        return code;
    }

    private static int Run(string[] arguments)
    {
        var activated = HostProcess.TakeActivationSockets();
        var options = ServerOptions.Parse(arguments);
        if (options.Text is { } text)
        {
            OutputWriter.Out.Write(text);
            return 0;
        }
        if (activated.Count > 0)
            CheckActivation(options);
        if (options.List)
        {
            ExportList.Print(options);
            return 0;
        }
        if (options.Disconnect)
            return Disconnect(options.File!);
        string? ready = Environment.GetEnvironmentVariable(ReadyVariable);
        if (ready is null && (options.Fork || (options.Device is not null && !options.Verbose)))
            return StartInBackground(arguments);
        int readyDescriptor = ready is null ? -1 : int.Parse(ready, CultureInfo.InvariantCulture);
        if (ready is not null)
        {
            Environment.SetEnvironmentVariable(ReadyVariable, null);
            HostProcess.StartSession();
        }
        return Serve(options, activated, readyDescriptor);
    }

    private static void CheckActivation(ServerOptions options)
    {
        string? conflict = options.Device is not null ? "NBD device can't be set when using socket activation"
            : options.Socket is not null ? "Unix socket can't be set when using socket activation"
            : options.Bind is not null ? "The interface can't be set when using socket activation"
            : options.Port is not null ? "TCP port number can't be set when using socket activation"
            : options.List ? "List mode is incompatible with socket activation"
            : null;
        if (conflict is not null)
            throw new ProgramException(conflict);
    }

    private static int Disconnect(string device)
    {
        try
        {
            KernelClient.Disconnect(device);
        }
        catch (HostException e)
        {
            throw new ProgramException($"Cannot open {device}: {e.Message}");
        }
        OutputWriter.Out.Write($"{device} disconnected\n");
        return 0;
    }

    /// <summary>Starts the server as another process, and returns when it is ready or has failed.</summary>
    private static int StartInBackground(string[] arguments)
    {
        var (read, write) = HostProcess.MakeInheritedPipe();
        int pid = HostProcess.StartSelf(arguments, string.Create(CultureInfo.InvariantCulture, $"{ReadyVariable}={write}"));
        HostProcess.Close(write);
        Span<byte> said = stackalloc byte[1];
        return HostProcess.Read(read, said) == 1 ? 0 : Math.Max(1, HostProcess.WaitFor(pid));
    }

    private static int Serve(ServerOptions options, IReadOnlyList<int> activated, int readyDescriptor)
    {
        NbdTls? tls = null;
        if (options.TlsCredentials is { } id)
        {
            try
            {
                tls = NbdTls.FromObject(options.Objects, id, server: true);
            }
            catch (ImageException e)
            {
                throw new ProgramException($"Failed to get TLS creds: {e.Message}");
            }
        }
        // Before the image is opened, as the peer does it: an address that cannot be had is the first thing to be said.
        using var listeners = new Listeners(options.Shared);
        if (options.Device is null)
            listeners.Listen(options, activated);
        using var image = ExportOpener.Open(options);
        var export = image.Export(options);
        using var server = new NbdServer([export])
        {
            Tls = tls,
            Authorize = TlsAuthorization.Find(options),
            Log = options.Verbose ? static m => OutputWriter.Error.WriteLine($"{ProgramName.Base}: {m}") : null,
        };
        server.ClientLeft = (remaining, negotiated) =>
        {
            listeners.ClientLeft();
            if (negotiated && remaining == 0 && !options.Persistent && options.Device is null)
                listeners.Stop();
        };
        using var term = PosixSignalRegistration.Create(PosixSignal.SIGTERM, Terminate);
        using var interrupt = PosixSignalRegistration.Create(PosixSignal.SIGINT, Terminate);
        using var hangup = PosixSignalRegistration.Create(PosixSignal.SIGHUP, Terminate);
        if (options.Device is { } d)
        {
            if (options.PidFile is { } pidFile)
                WritePidFile(pidFile);
            Connect(server, export, d, readyDescriptor, options.Verbose);
        }
        else
        {
            if (options.PidFile is { } pidFile)
                WritePidFile(pidFile);
            SayReady(readyDescriptor);
            listeners.Run(server);
        }
        server.Stop();
        return 0;

        void Terminate(PosixSignalContext context)
        {
            context.Cancel = true;
            listeners.Stop();
            if (options.Device is { } connected)
                KernelClient.Disconnect(connected);
        }
    }

    private static void Connect(NbdServer server, NbdExport export, string device, int readyDescriptor, bool verbose)
    {
        try
        {
            KernelClient.Run(server, export.Name, device, () =>
            {
                if (verbose)
                    OutputWriter.Error.WriteLine($"NBD device {device} is now connected to {export.Device.FileName}");
                SayReady(readyDescriptor);
            });
        }
        catch (HostException e)
        {
            throw new ProgramException($"Failed to open {device}: {e.Message}");
        }
    }

    private static void WritePidFile(string path)
    {
        try
        {
            using var file = HostFile.Open(path, HostFileMode.ReadWrite | HostFileMode.Create);
            file.SetLength(0);
            file.Write(0, System.Text.Encoding.ASCII.GetBytes(string.Create(CultureInfo.InvariantCulture, $"{Environment.ProcessId}\n")));
        }
        catch (HostException e)
        {
            throw new ProgramException($"Could not create '{path}': {e.Message}");
        }
    }

    private static void SayReady(int descriptor)
    {
        HostProcess.NotifyReady();
        if (descriptor < 0)
            return;
        OutputWriter.Out.Flush();
        HostProcess.DetachStandardStreams();
        HostProcess.Write(descriptor, "+"u8);
        HostProcess.Close(descriptor);
    }
}
