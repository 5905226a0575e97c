using System.Text.Json;

namespace ImgKit.Machine.Monitors;

/// <summary>The commands of QMP: each does its work on the control thread and returns what writes its answer (null: an empty object).</summary>
internal static class QmpCommands
{
    /// <summary>A command.</summary>
    /// <param name="Parameters">the arguments that it takes.</param>
    /// <param name="Run">does it.</param>
    internal sealed record Command(string[] Parameters, Func<Pc, QmpArguments, Action<Utf8JsonWriter>?> Run)
    {
        /// <summary>Whatever is given is for the command to check.</summary>
        internal static readonly string[] Any = ["*"];
    }

    private static readonly string[] TrayArguments = ["device", "id", "force"];

    internal static readonly SortedDictionary<string, Command> All = new(StringComparer.Ordinal)
    {
        ["qmp_capabilities"] = new(["enable"], (_, a) => Do(() =>
        {
            if (a.Has("enable") && a.List("enable").Any())
                throw new CommandException($"Capability {a.List("enable").First()} not available");
        })),
        ["quit"] = Act(pc => pc.Quit(0, "host-qmp-quit")),
        ["stop"] = Act(pc => pc.Stop()),
        ["cont"] = Act(pc => pc.Resume()),
        ["system_reset"] = Act(pc => pc.ResetNow("host-qmp-system-reset")),
        ["system_powerdown"] = Act(pc => pc.PressPowerButton()),
        ["inject-nmi"] = Act(pc => pc.InjectNmi()),
        ["query-status"] = Tell((w, pc) => Members(w, () =>
        {
            w.WriteString("status", pc.State.Name());
            w.WriteBoolean("singlestep", false);
            w.WriteBoolean("running", pc.IsRunning);
        })),
        ["query-version"] = Tell((w, _) => Members(w, () => WriteVersion(w))),
        ["query-name"] = Tell((w, pc) => Members(w, () =>
        {
            if (pc.Options.Name.Length > 0)
                w.WriteString("name", pc.Options.Name);
        })),
        ["query-uuid"] = Tell((w, pc) => Members(w, () => w.WriteString("UUID", pc.Options.Uuid.ToString()))),
        ["query-kvm"] = Tell((w, pc) => Members(w, () =>
        {
            w.WriteBoolean("enabled", pc.Engine.Name == "kvm");
            w.WriteBoolean("present", File.Exists("/dev/kvm"));
        })),
        ["query-cpus-fast"] = Tell((w, pc) => Elements(w, pc.Processors, p =>
        {
            w.WriteNumber("cpu-index", p.Index);
            w.WriteString("qom-path", $"/machine/unattached/cpu[{p.Index}]");
            w.WriteNumber("thread-id", pc.ThreadOf(p.Index));
            w.WriteString("target", "x86_64");
        })),
        ["query-commands"] = Tell((w, _) => Elements(w, All!.Keys, name => w.WriteString("name", name))),
        ["query-chardev"] = Tell((w, pc) => Elements(w, pc.CharDeviceList?.Invoke() ?? [], c =>
        {
            w.WriteString("label", c.Id);
            w.WriteString("filename", c.Description);
            w.WriteBoolean("frontend-open", true);
        })),
        ["query-block"] = Tell((w, pc) =>
        {
            w.WriteStartArray();
            foreach (var d in pc.Drives)
                BlockInfo.Write(w, d);
            w.WriteEndArray();
        }),
        ["query-pci"] = Tell((w, pc) =>
        {
            w.WriteStartArray();
            if (pc.Pci != null)
                PciInfo.Write(w, pc.Pci);
            w.WriteEndArray();
        }),
        ["pmemsave"] = new(["val", "size", "filename"], (pc, a) => Do(() => new MonitorMemory(pc, null).Save((ulong)a.Number("val"), Size(a), a.Text("filename")))),
        ["memsave"] = new(["val", "size", "filename", "cpu-index"], (pc, a) => Do(() =>
            new MonitorMemory(pc, Processor(pc, a)).Save((ulong)a.Number("val"), Size(a), a.Text("filename")))),
        ["screendump"] = new(["filename", "device", "head", "format"], (pc, a) => Do(() =>
        {
            string file = a.Text("filename");
            if (a.Has("head") && !a.Has("device"))
                throw new CommandException("'head' must be specified together with 'device'");
            if (a.Number("head", 0) != 0)
                throw new CommandException($"There is no head {a.Number("head")}");
            Commands.ScreenDump(pc, file, a.TextOrNull("format"), a.TextOrNull("device"));
        })),
        ["eject"] = new(TrayArguments, (pc, a) => Do(() => MediaCommands.Eject(pc, a.Drive(), a.Flag("force")))),
        ["blockdev-change-medium"] = new(["device", "id", "filename", "format", "force", "read-only-mode"], (pc, a) => Do(() =>
            MediaCommands.Change(pc, a.Drive(), a.Text("filename"), a.TextOrNull("format"), MediaCommands.ReadOnlyMode(a.TextOrNull("read-only-mode")), a.Flag("force")))),
        ["blockdev-open-tray"] = new(TrayArguments, (pc, a) => Do(() => MediaCommands.OpenTray(pc, a.Drive(), a.Flag("force")))),
        ["blockdev-close-tray"] = new(["device", "id"], (pc, a) => Do(() => MediaCommands.CloseTray(pc, a.Drive()))),
        ["blockdev-remove-medium"] = new(["id"], (pc, a) => Do(() => MediaCommands.RemoveMedium(pc, a.Text("id")))),
        ["block_resize"] = new(["device", "node-name", "size"], (pc, a) => Do(() =>
            MediaCommands.Resize(pc, a.TextOrNull("device"), a.TextOrNull("node-name"), a.Number("size")))),
        ["blockdev-add"] = new(Command.Any, (pc, a) => Do(() => NodeCommands.Add(pc, a.Options()))),
        ["blockdev-del"] = new(["node-name"], (pc, a) => Do(() => NodeCommands.Delete(pc, a.Text("node-name")))),
        ["blockdev-insert-medium"] = new(["id", "node-name"], (pc, a) => Do(() => MediaCommands.InsertMedium(pc, a.Text("id"), a.Text("node-name")))),
        ["query-named-block-nodes"] = new(["flat"], (pc, a) => NodeCommands.Write(pc, a.Flag("flat"))),
        ["query-block-jobs"] = Tell((w, _) => Elements<object>(w, [], _ => { })),
        ["device_add"] = new(Command.Any, (pc, a) => Do(() => PlugCommands.Add(pc, a.Text("driver"), a.TextOrNull("bus")))),
        ["device_del"] = new(["id"], (pc, a) => Do(() => PlugCommands.Remove(pc, a.Text("id")))),
        ["change"] = new(["device", "target", "arg"], (pc, a) => Do(() => MediaCommands.Change(pc, a.Text("device"), a.Text("target"), a.TextOrNull("arg"), null, false))),
        ["send-key"] = new(["keys", "hold-time"], (pc, a) => Do(() => SendKey(pc, a))),
        ["human-monitor-command"] = new(["command-line", "cpu-index"], (pc, a) =>
        {
            string text = new HumanCommands(pc) { Processor = Processor(pc, a) }.Execute(a.Text("command-line"));
            return w => w.WriteStringValue(text.Replace("\n", "\r\n", StringComparison.Ordinal));
        }),
    };

    private static int Processor(Pc pc, QmpArguments a)
    {
        long index = a.Number("cpu-index", 0);
        return Commands.Processor(pc, (int)Math.Clamp(index, -1, int.MaxValue)).Index;
    }

    private static ulong Size(QmpArguments a) =>
        a.Number("size") is >= 0 and var size ? (ulong)size : throw new CommandException("Parameter 'size' expects a size");

    private static Command Act(Action<Pc> action) => new([], (pc, _) => Do(() => action(pc)));

    private static Command Tell(Action<Utf8JsonWriter, Pc> write) => new([], (pc, _) => w => write(w, pc));

    private static void Members(Utf8JsonWriter w, Action write)
    {
        w.WriteStartObject();
        write();
        w.WriteEndObject();
    }

    private static void Elements<T>(Utf8JsonWriter w, IEnumerable<T> elements, Action<T> write)
    {
        w.WriteStartArray();
        foreach (var e in elements)
            Members(w, () => write(e));
        w.WriteEndArray();
    }

    /// <summary>The version that we answer for, and our own.</summary>
    internal static void WriteVersion(Utf8JsonWriter w)
    {
        var peer = Version.Parse(ProductVersion.Peer);
        w.WriteStartObject("qemu");
        w.WriteNumber("micro", peer.Build);
        w.WriteNumber("minor", peer.Minor);
        w.WriteNumber("major", peer.Major);
        w.WriteEndObject();
        w.WriteString("package", $"ImgKit {ProductVersion.Own}");
    }

    private static Action<Utf8JsonWriter>? Do(Action action)
    {
        action();
        return null;
    }

    private static void SendKey(Pc pc, QmpArguments a)
    {
        var codes = new List<int>();
        foreach (var key in a.List("keys"))
        {
            if (key.ValueKind != JsonValueKind.Object || !key.TryGetProperty("data", out var data))
                throw new CommandException("Parameter 'keys' expects key values");
            string type = key.TryGetProperty("type", out var t) ? t.ToString() : throw new CommandException("Parameter 'type' is missing");
            if (type is not ("qcode" or "number"))
                throw new CommandException($"Parameter 'type' does not accept value '{type}'");
            string name = data.ToString();
            codes.Add((data.ValueKind == JsonValueKind.Number && data.TryGetInt32(out int n) ? KeyNames.Find($"0x{n:x}") : KeyNames.Find(name))
                ?? throw new CommandException($"Parameter 'data' does not accept value '{name}'"));
        }
        Commands.SendKeys(pc, codes, (int)Math.Clamp(a.Number("hold-time", 100), 0, 60_000));
    }
}
