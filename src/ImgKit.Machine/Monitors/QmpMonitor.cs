using System.Buffers;
using System.Text.Json;
using ImgKit.Machine.CharDevices;

namespace ImgKit.Machine.Monitors;

/// <summary>The monitor for programs: QMP, JSON objects a line. Source: QEMU's docs/interop/qmp-spec.</summary>
public sealed class QmpMonitor
{
    private const int LongestRequest = 1 << 20;

    private readonly Pc _pc;
    private readonly CharDevice _device;
    private readonly bool _pretty;
    private readonly List<byte> _input = [];
    private int _depth;
    private bool _inString, _escaped, _ready;

    /// <summary>Listens to a character device.</summary>
    public QmpMonitor(Pc pc, CharDevice device, bool pretty)
    {
        _pc = pc;
        _device = device;
        _pretty = pretty;
        device.InputAvailable = Take;
        device.ConnectionChanged = on =>
        {
            _ready = false;
            _input.Clear();
            _depth = 0;
            _inString = false;
            if (on)
                Greet();
        };
        if (device.IsConnected)
            Greet();
        pc.EventRaised += OnEvent;
    }

    private void Greet() => Send(w =>
    {
        w.WriteStartObject();
        w.WriteStartObject("QMP");
        w.WriteStartObject("version");
        WriteVersion(w);
        w.WriteEndObject();
        w.WriteStartArray("capabilities");
        w.WriteStringValue("oob");
        w.WriteEndArray();
        w.WriteEndObject();
        w.WriteEndObject();
    });

    private static void WriteVersion(Utf8JsonWriter w)
    {
        w.WriteStartObject("qemu");
        w.WriteNumber("micro", 22);
        w.WriteNumber("minor", 2);
        w.WriteNumber("major", 7);
        w.WriteEndObject();
        w.WriteString("package", $"ImgKit {typeof(Pc).Assembly.GetName().Version?.ToString(3)}");
    }

    private void Send(Action<Utf8JsonWriter> write)
    {
        var buffer = new ArrayBufferWriter<byte>();
        using (var w = new Utf8JsonWriter(buffer, new JsonWriterOptions { Indented = _pretty, Encoder = System.Text.Encodings.Web.JavaScriptEncoder.UnsafeRelaxedJsonEscaping }))
            write(w);
        buffer.Write("\r\n"u8);
        _device.Write(buffer.WrittenSpan);
    }

    private static void WriteTime(Utf8JsonWriter w)
    {
        long us = (DateTime.UtcNow - DateTime.UnixEpoch).Ticks / 10;
        w.WriteStartObject("timestamp");
        w.WriteNumber("seconds", us / 1_000_000);
        w.WriteNumber("microseconds", us % 1_000_000);
        w.WriteEndObject();
    }

    private void OnEvent(MachineEvent e)
    {
        // On the loop's thread, in order: whoever raises an event may hold locks.
        _pc.Services.Loop.Post(() =>
        {
            if (!_ready)
                return;
            Send(w =>
            {
                w.WriteStartObject();
                WriteTime(w);
                w.WriteString("event", e.Name);
                if (e.Data.Length > 0)
                {
                    w.WriteStartObject("data");
                    foreach (var (name, value) in e.Data)
                        if (value is bool b)
                            w.WriteBoolean(name, b);
                        else if (value is long n)
                            w.WriteNumber(name, n);
                        else
                            w.WriteString(name, value.ToString());
                    w.WriteEndObject();
                }
                w.WriteEndObject();
            });
        });
    }

    private void Take()
    {
        while (_device.TryTake(out byte b))
        {
            if (_depth == 0 && b != '{')
            {
                // White space between requests; anything else is no JSON object.
                if (b is not ((byte)' ' or (byte)'\t' or (byte)'\r' or (byte)'\n'))
                    SendError(null, "GenericError", "JSON parse error, expecting value");
                continue;
            }
            if (_input.Count == LongestRequest)
            {
                _input.Clear();
                _depth = 0;
                SendError(null, "GenericError", "JSON token size limit exceeded");
                continue;
            }
            _input.Add(b);
            if (_inString)
            {
                if (_escaped)
                    _escaped = false;
                else if (b == '\\')
                    _escaped = true;
                else if (b == '"')
                    _inString = false;
            }
            else if (b == '"')
                _inString = true;
            else if (b == '{')
                _depth++;
            else if (b == '}' && --_depth == 0)
            {
                byte[] request = [.. _input];
                _input.Clear();
                _pc.Post(() => Serve(request));
            }
        }
    }

    private void SendError(JsonElement? id, string kind, string text) => Send(w =>
    {
        w.WriteStartObject();
        if (id is { } i)
        {
            w.WritePropertyName("id");
            i.WriteTo(w);
        }
        w.WriteStartObject("error");
        w.WriteString("class", kind);
        w.WriteString("desc", text);
        w.WriteEndObject();
        w.WriteEndObject();
    });

    // On the control thread.
    private void Serve(byte[] request)
    {
        JsonElement? id = null;
        try
        {
            using var document = JsonDocument.Parse(request);
            var root = document.RootElement;
            if (root.TryGetProperty("id", out var given))
                id = given.Clone();
            if (!root.TryGetProperty("execute", out var name) || name.ValueKind != JsonValueKind.String)
                throw new CommandException("QMP input lacks member 'execute'");
            string command = name.GetString()!;
            var arguments = root.TryGetProperty("arguments", out var a) ? a : default;
            if (!_ready && command != "qmp_capabilities")
            {
                lock (_pc.Services.Lock)
                    SendError(id, "CommandNotFound", "Expecting capabilities negotiation with 'qmp_capabilities'");
                return;
            }
            if (!QmpCommands.All.TryGetValue(command, out var run))
            {
                lock (_pc.Services.Lock)
                    SendError(id, "CommandNotFound", command == "qmp_capabilities" && _ready
                        ? "Capabilities negotiation is already complete, command ignored" : $"The command {command} has not been found");
                return;
            }
            Action<Utf8JsonWriter>? result = run(_pc, new QmpArguments(arguments));
            lock (_pc.Services.Lock)
                Send(w =>
                {
                    w.WriteStartObject();
                    w.WritePropertyName("return");
                    if (result == null)
                    {
                        w.WriteStartObject();
                        w.WriteEndObject();
                    }
                    else
                        result(w);
                    if (id is { } i)
                    {
                        w.WritePropertyName("id");
                        i.WriteTo(w);
                    }
                    w.WriteEndObject();
                });
            if (command == "qmp_capabilities")
                _ready = true;
        }
        catch (JsonException)
        {
            lock (_pc.Services.Lock)
                SendError(id, "GenericError", "JSON parse error, invalid keyword");
        }
        catch (CommandException e)
        {
            lock (_pc.Services.Lock)
                SendError(id, e.Message.StartsWith("Device '", StringComparison.Ordinal) && e.Message.EndsWith("not found", StringComparison.Ordinal)
                    ? "DeviceNotFound" : "GenericError", e.Message);
        }
    }
}

/// <summary>Arguments of a QMP command. Members throw <see cref="CommandException"/> for what is missing or of the wrong type.</summary>
internal readonly struct QmpArguments(JsonElement element)
{
    private JsonElement? Find(string name) =>
        element.ValueKind == JsonValueKind.Object && element.TryGetProperty(name, out var v) && v.ValueKind != JsonValueKind.Null ? v : null;

    internal string? TextOrNull(string name) => Find(name) is not { } v ? null
        : v.ValueKind == JsonValueKind.String ? v.GetString()
        : throw new CommandException($"Invalid parameter type for '{name}', expected: string");

    internal string Text(string name) => TextOrNull(name) ?? throw new CommandException($"Parameter '{name}' is missing");

    internal ulong Number(string name, ulong? otherwise = null)
    {
        if (Find(name) is not { } v)
            return otherwise ?? throw new CommandException($"Parameter '{name}' is missing");
        if (v.ValueKind == JsonValueKind.Number && v.TryGetUInt64(out ulong n))
            return n;
        throw new CommandException($"Invalid parameter type for '{name}', expected: integer");
    }

    internal bool Flag(string name) => Find(name) is { } v && (v.ValueKind switch
    {
        JsonValueKind.True => true,
        JsonValueKind.False => false,
        _ => throw new CommandException($"Invalid parameter type for '{name}', expected: boolean"),
    });

    internal IEnumerable<JsonElement> List(string name)
    {
        if (Find(name) is not { } v)
            throw new CommandException($"Parameter '{name}' is missing");
        return v.ValueKind == JsonValueKind.Array ? v.EnumerateArray() : throw new CommandException($"Invalid parameter type for '{name}', expected: array");
    }
}
