using System.Text.Json;

namespace ImgKit.Machine.Monitors;

/// <summary>The commands of QMP: each does its work on the control thread and returns what writes its answer (null: an empty object).</summary>
internal static class QmpCommands
{
    internal delegate Action<Utf8JsonWriter>? Command(Pc pc, QmpArguments arguments);

    internal static readonly SortedDictionary<string, Command> All = new(StringComparer.Ordinal)
    {
        ["qmp_capabilities"] = (_, _) => null,
        ["quit"] = (pc, _) => Do(() => pc.Quit(0, "host-qmp-quit")),
        ["stop"] = (pc, _) => Do(() => pc.Stop()),
        ["cont"] = (pc, _) => Do(pc.Resume),
        ["system_reset"] = (pc, _) => Do(() => pc.ResetNow("host-qmp-system-reset")),
        ["system_powerdown"] = (pc, _) => Do(pc.PressPowerButton),
        ["inject-nmi"] = (pc, _) => Do(pc.InjectNmi),
        ["query-status"] = (pc, _) => w =>
        {
            w.WriteStartObject();
            w.WriteString("status", pc.State.Name());
            w.WriteBoolean("singlestep", false);
            w.WriteBoolean("running", pc.IsRunning);
            w.WriteEndObject();
        },
        ["query-version"] = (_, _) => w =>
        {
            w.WriteStartObject();
            w.WriteStartObject("qemu");
            w.WriteNumber("micro", 22);
            w.WriteNumber("minor", 2);
            w.WriteNumber("major", 7);
            w.WriteEndObject();
            w.WriteString("package", $"ImgKit {typeof(Pc).Assembly.GetName().Version?.ToString(3)}");
            w.WriteEndObject();
        },
        ["query-name"] = (pc, _) => w =>
        {
            w.WriteStartObject();
            if (pc.Options.Name.Length > 0)
                w.WriteString("name", pc.Options.Name);
            w.WriteEndObject();
        },
        ["query-uuid"] = (pc, _) => w =>
        {
            w.WriteStartObject();
            w.WriteString("UUID", pc.Options.Uuid.ToString());
            w.WriteEndObject();
        },
        ["query-kvm"] = (pc, _) => w =>
        {
            w.WriteStartObject();
            w.WriteBoolean("enabled", pc.Engine.Name == "kvm");
            w.WriteBoolean("present", File.Exists("/dev/kvm"));
            w.WriteEndObject();
        },
        ["query-cpus-fast"] = (pc, _) => w =>
        {
            w.WriteStartArray();
            foreach (var p in pc.Processors)
            {
                w.WriteStartObject();
                w.WriteNumber("cpu-index", p.Index);
                w.WriteString("qom-path", $"/machine/unattached/cpu[{p.Index}]");
                w.WriteNumber("thread-id", Environment.ProcessId);
                w.WriteString("target", "x86_64");
                w.WriteEndObject();
            }
            w.WriteEndArray();
        },
        ["query-commands"] = (_, _) => w =>
        {
            w.WriteStartArray();
            foreach (string name in All!.Keys)
            {
                w.WriteStartObject();
                w.WriteString("name", name);
                w.WriteEndObject();
            }
            w.WriteEndArray();
        },
        ["query-chardev"] = (pc, _) => w =>
        {
            w.WriteStartArray();
            foreach (string name in pc.CharDeviceNames?.Invoke() ?? [])
            {
                w.WriteStartObject();
                w.WriteString("label", name);
                w.WriteString("filename", name);
                w.WriteBoolean("frontend-open", true);
                w.WriteEndObject();
            }
            w.WriteEndArray();
        },
        ["query-block"] = (pc, _) => w =>
        {
            w.WriteStartArray();
            foreach (var d in pc.Drives)
                WriteDrive(w, d);
            w.WriteEndArray();
        },
        ["query-pci"] = (pc, _) => w =>
        {
            w.WriteStartArray();
            if (pc.Pci != null)
                WritePci(w, pc);
            w.WriteEndArray();
        },
        ["pmemsave"] = (pc, a) => Do(() => Commands.SavePhysical(pc, a.Number("val"), a.Number("size"), a.Text("filename"))),
        ["memsave"] = (pc, a) => Do(() => Commands.SaveVirtual(pc, (int)Math.Min(a.Number("cpu-index", 0), 1000), a.Number("val"), a.Number("size"), a.Text("filename"))),
        ["screendump"] = (pc, a) => Do(() => Commands.ScreenDump(pc, a.Text("filename"), a.TextOrNull("format"))),
        ["eject"] = (pc, a) => Do(() => MediaCommands.Eject(pc, a.TextOrNull("id") ?? a.Text("device"), a.Flag("force"))),
        ["blockdev-change-medium"] = (pc, a) => Do(() => MediaCommands.Change(pc, a.TextOrNull("id") ?? a.Text("device"), a.Text("filename"), a.TextOrNull("format"),
            HumanMonitor.ReadOnlyMode(a.TextOrNull("read-only-mode")), a.Flag("force"))),
        ["blockdev-open-tray"] = (pc, a) => Do(() => MediaCommands.OpenTray(pc, a.TextOrNull("id") ?? a.Text("device"), a.Flag("force"))),
        ["blockdev-close-tray"] = (pc, a) => Do(() => MediaCommands.CloseTray(pc, a.TextOrNull("id") ?? a.Text("device"))),
        ["blockdev-remove-medium"] = (pc, a) => Do(() => MediaCommands.RemoveMedium(pc, a.Text("id"))),
        ["block_resize"] = (pc, a) => Do(() => MediaCommands.Resize(pc, a.TextOrNull("device") ?? a.Text("node-name"), a.Number("size"))),
        ["change"] = (pc, a) => Do(() => MediaCommands.Change(pc, a.Text("device"), a.Text("target"), a.TextOrNull("arg"), null, false)),
        ["send-key"] = (pc, a) => Do(() => SendKey(pc, a)),
        ["human-monitor-command"] = (pc, a) =>
        {
            string text = HumanMonitor.Execute(pc, a.Text("command-line"));
            return w => w.WriteStringValue(text.Replace("\n", "\r\n", StringComparison.Ordinal));
        },
    };

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
            string name = data.ToString();
            codes.Add((data.ValueKind == JsonValueKind.Number && data.TryGetInt32(out int n) ? KeyNames.Find($"0x{n:x}") : KeyNames.Find(name))
                ?? throw new CommandException($"Parameter 'data' does not accept value '{name}'"));
        }
        Commands.SendKeys(pc, codes, (int)Math.Min(a.Number("hold-time", 100), 60000));
    }

    private static void WriteDrive(Utf8JsonWriter w, Drive d)
    {
        w.WriteStartObject();
        w.WriteString("io-status", "ok");
        w.WriteString("device", d.Name);
        w.WriteBoolean("locked", d.IsLocked);
        w.WriteBoolean("removable", d.IsRemovable);
        if (d.Media is { } m)
        {
            w.WriteStartObject("inserted");
            w.WriteString("file", d.FileName);
            w.WriteString("node-name", d.Name);
            w.WriteBoolean("ro", d.IsReadOnly);
            w.WriteString("drv", m.DriverName);
            w.WriteBoolean("encrypted", false);
            w.WriteNumber("backing_file_depth", MediaCommands.Depth(m));
            if (m.Backing != null)
                w.WriteString("backing_file", m.Backing.FileName);
            w.WriteStartObject("image");
            w.WriteString("filename", d.FileName);
            w.WriteString("format", m.DriverName);
            w.WriteNumber("virtual-size", m.Length);
            if (m.AllocatedHostBytes >= 0)
                w.WriteNumber("actual-size", m.AllocatedHostBytes);
            w.WriteEndObject();
            w.WriteEndObject();
        }
        if (d.IsRemovable)
            w.WriteBoolean("tray_open", d.IsTrayOpen);
        w.WriteString("qdev", d.AttachedTo ?? "");
        w.WriteString("type", "unknown");
        w.WriteEndObject();
    }

    private static void WritePci(Utf8JsonWriter w, Pc pc)
    {
        w.WriteStartObject();
        w.WriteNumber("bus", 0);
        w.WriteStartArray("devices");
        foreach (var f in pc.Pci!.Functions)
        {
            w.WriteStartObject();
            w.WriteNumber("bus", 0);
            w.WriteNumber("slot", f.DeviceFunction >> 3);
            w.WriteNumber("function", f.DeviceFunction & 7);
            w.WriteString("qdev_id", f.Id);
            w.WriteStartObject("class_info");
            w.WriteNumber("class", f.ClassId);
            w.WriteEndObject();
            w.WriteStartObject("id");
            w.WriteNumber("vendor", f.VendorId);
            w.WriteNumber("device", f.DeviceId);
            w.WriteEndObject();
            w.WriteStartArray("regions");
            w.WriteEndArray();
            w.WriteEndObject();
        }
        w.WriteEndArray();
        w.WriteEndObject();
    }
}
