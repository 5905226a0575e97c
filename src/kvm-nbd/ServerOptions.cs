using System.Globalization;
using System.Text;
using ImgKit.Block;
using ImgKit.CommandLine;

namespace ImgKit.Programs.Nbd;

/// <summary>Ends the program with a message.</summary>
internal sealed class ProgramException(string message) : Exception(message);

/// <summary>The command line, checked.</summary>
internal sealed class ServerOptions
{
    public string? Port { get; private set; }

    public string? Bind { get; private set; }

    public string? Socket { get; private set; }

    public int Shared { get; private set; } = 1;

    public bool Persistent { get; private set; }

    public bool Verbose { get; private set; }

    public string ExportName { get; private set; } = "";

    public bool ExportNameGiven { get; private set; }

    public string? Description { get; private set; }

    public long Offset { get; private set; }

    public bool AllocationDepth { get; private set; }

    public List<string> Bitmaps { get; } = [];

    public bool List { get; private set; }

    public BlockObjects Objects { get; } = new();

    public string? TlsCredentials { get; private set; }

    public string? TlsAuthorization { get; private set; }

    public string? TlsHostName { get; private set; }

    public bool Fork { get; private set; }

    public string? PidFile { get; private set; }

    public string? Device { get; private set; }

    public bool Disconnect { get; private set; }

    public string? Format { get; private set; }

    public bool ReadOnly { get; private set; }

    public bool Snapshot { get; private set; }

    public string? LoadSnapshot { get; private set; }

    public bool ImageOpts { get; private set; }

    public OpenSettings Settings { get; private set; } = new();

    public string? File { get; private set; }

    /// <summary>The way of I/O that was asked for works only without the host's cache.</summary>
    public bool NeedsDirect { get; private set; }

    /// <summary>Help or version to print instead.</summary>
    public string? Text { get; private set; }

    /// <summary>Reads the command line.</summary>
    /// <exception cref="ProgramException">it makes no sense.</exception>
    public static ServerOptions Parse(string[] arguments)
    {
        var o = new ServerOptions();
        var options = new GetOpt(arguments, NbdProgram.Options);
        bool cacheGiven = false, aioGiven = false, discardGiven = false;
        int detectZeroes = 0;
        string? aio = null;
        for (int c; (c = options.Next()) != GetOpt.End;)
        {
            string value = options.Value ?? "";
            switch (c)
            {
                case GetOpt.Unrecognized or GetOpt.MissingArgument:
                    OutputWriter.Error.WriteLine($"{ProgramName.Base}: {options.Error}");
                    throw new ProgramException($"Try `{ProgramName.Called} --help' for more information.");
                case 'h':
                    o.Text = NbdProgram.Help();
                    return o;
                case 'V':
                    o.Text = NbdProgram.VersionText();
                    return o;
                case NbdProgram.GenerateOption:
                    o.Text = GeneratedText.Write(NbdProgram.Specification, options.Value ?? "")
                        ?? throw new ProgramException("--generate takes man, bash or zsh");
                    return o;
                case 's':
                    o.Snapshot = true;
                    break;
                case 'n' or NbdProgram.CacheOption:
                    if (cacheGiven)
                        throw new ProgramException("-n and --cache can only be specified once");
                    cacheGiven = true;
                    o.SetCacheMode(c == 'n' ? "none" : value);
                    break;
                case NbdProgram.AioOption:
                    if (aioGiven)
                        throw new ProgramException("--aio can only be specified once");
                    aioGiven = true;
                    if (value is not ("native" or "io_uring" or "threads"))
                        throw new ProgramException($"Invalid aio mode '{value}'");
                    aio = value;
                    break;
                case NbdProgram.DiscardOption:
                    if (discardGiven)
                        throw new ProgramException("--discard can only be specified once");
                    discardGiven = true;
                    if (value is not ("ignore" or "off" or "unmap" or "on"))
                        throw new ProgramException($"Invalid discard mode `{value}'");
                    o.Settings = o.Settings with { Unmap = value is "unmap" or "on" };
                    break;
                case NbdProgram.DetectZeroesOption:
                    detectZeroes = value switch
                    {
                        "off" => 0,
                        "on" => 1,
                        "unmap" => 2,
                        _ => throw new ProgramException($"Failed to parse detect_zeroes mode: invalid parameter value: {value}"),
                    };
                    if (detectZeroes == 2 && !o.Settings.Unmap)
                        throw new ProgramException("setting detect-zeroes to unmap is not allowed without setting discard operation to unmap");
                    break;
                case 'b':
                    o.Bind = value;
                    break;
                case 'p':
                    o.Port = value;
                    break;
                case 'o':
                    if (!long.TryParse(value, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out long offset) || offset < 0)
                        throw new ProgramException($"Invalid offset '{value}'");
                    o.Offset = offset;
                    break;
                case 'l':
                    o.LoadSnapshot = value;
                    o.ReadOnly = true;
                    break;
                case 'r':
                    o.ReadOnly = true;
                    break;
                case 'P':
                    throw new ProgramException("-P is no longer offered (the peer dropped it, too): "
                        + "use --image-opts with driver=raw,offset=...,size=... to export a partition");
                case 'A':
                    o.AllocationDepth = true;
                    break;
                case 'B':
                    o.Bitmaps.Add(value);
                    break;
                case 'k':
                    if (!value.StartsWith('/'))
                        throw new ProgramException("socket path must be absolute");
                    o.Socket = value;
                    break;
                case 'd':
                    o.Disconnect = true;
                    break;
                case 'c':
                    o.Device = value;
                    break;
                case 'e':
                    if (!int.TryParse(value, NumberStyles.None, CultureInfo.InvariantCulture, out int shared))
                        throw new ProgramException($"Invalid shared device number '{value}'");
                    o.Shared = shared;
                    break;
                case 'f':
                    o.Format = value;
                    break;
                case 't':
                    o.Persistent = true;
                    break;
                case 'x':
                    if (Encoding.UTF8.GetByteCount(value) > 4096)
                        throw new ProgramException($"export name '{value}' too long");
                    o.ExportName = value;
                    o.ExportNameGiven = true;
                    break;
                case 'D':
                    if (Encoding.UTF8.GetByteCount(value) > 4096)
                        throw new ProgramException($"export description '{value}' too long");
                    o.Description = value;
                    break;
                case 'v':
                    o.Verbose = true;
                    break;
                case 'T' when value.Contains('='):
                    throw new ProgramException($"trace events are not offered: {value}");
                case 'T':
                    OutputWriter.Error.WriteLine($"{ProgramName.Base}: warning: trace event '{value}' does not exist");
                    break;
                case 'L':
                    o.List = true;
                    break;
                case NbdProgram.ObjectOption:
                    o.AddObject(value);
                    break;
                case NbdProgram.TlsCredentialsOption:
                    o.TlsCredentials = value;
                    break;
                case NbdProgram.TlsHostNameOption:
                    o.TlsHostName = value;
                    break;
                case NbdProgram.TlsAuthorizationOption:
                    o.TlsAuthorization = value;
                    break;
                case NbdProgram.ImageOptsOption:
                    o.ImageOpts = true;
                    break;
                case NbdProgram.ForkOption:
                    o.Fork = true;
                    break;
                case NbdProgram.PidFileOption:
                    o.PidFile = value;
                    break;
                case NbdProgram.SecurityLabelOption:
                    throw new ProgramException("SELinux labels are not supported");
            }
        }
        o.Settings = o.Settings with { ReadOnly = o.ReadOnly, DetectZeroes = detectZeroes };
        o.NeedsDirect = aio == "native";
        o.TakeOperands(options.Operands);
        return o;
    }

    private void SetCacheMode(string mode)
    {
        try
        {
            Settings = Settings.WithCacheMode(mode);
        }
        catch (ImageException)
        {
            throw new ProgramException($"Invalid cache mode `{mode}'");
        }
    }

    private void AddObject(string text)
    {
        var definition = new BlockOptions();
        foreach (var (name, value) in OptionList.Parse(text, "qom-type"))
            definition.Set(name, value);
        try
        {
            Objects.Add(definition);
        }
        catch (ImageException e)
        {
            throw new ProgramException(e.Message);
        }
    }

    private void TakeOperands(ReadOnlySpan<string> operands)
    {
        if (List)
        {
            if (operands.Length > 0)
                throw new ProgramException("List mode is incompatible with a file name");
            if (ExportNameGiven || Description is not null || Device is not null || Disconnect)
                throw new ProgramException("List mode is incompatible with per-device settings");
            if (PidFile is not null)
                throw new ProgramException("List mode is incompatible with --pid-file");
            return;
        }
        if (operands.Length != 1)
            throw new ProgramException($"Invalid number of arguments\nTry `{ProgramName.Called} --help' for more information.");
        if (ImageOpts && Format is not null)
            throw new ProgramException("--image-opts and -f are mutually exclusive");
        if (TlsCredentials is null && TlsAuthorization is not null)
            throw new ProgramException("--tls-authz is not permitted without --tls-creds");
        if (TlsHostName is not null)
            throw new ProgramException("TLS hostname is only supported with export list");
        if (TlsCredentials is not null && Device is not null)
            throw new ProgramException("TLS is not supported with a host device");
        File = operands[0];
    }
}
