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
    private bool _inString, _escaped, _inGarbage, _ready;

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
        QmpCommands.WriteVersion(w);
        w.WriteEndObject();
        w.WriteStartArray("capabilities");
        w.WriteEndArray();
        w.WriteEndObject();
        w.WriteEndObject();
    });

    private void Send(Action<Utf8JsonWriter> write) => _device.Write(Format(write));

    private ReadOnlySpan<byte> Format(Action<Utf8JsonWriter> write)
    {
        var buffer = new ArrayBufferWriter<byte>();
        using (var w = new Utf8JsonWriter(buffer, new JsonWriterOptions { Indented = _pretty, Encoder = System.Text.Encodings.Web.JavaScriptEncoder.UnsafeRelaxedJsonEscaping }))
            write(w);
        buffer.Write("\r\n"u8);
        return buffer.WrittenSpan;
    }

    // Behind the events that came before it.
    private void Answer(Action<Utf8JsonWriter> write)
    {
        byte[] text = Format(write).ToArray();
        _pc.Services.Loop.Post(() => _device.Write(text));
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
                    WriteData(w, "data", e.Data);
                w.WriteEndObject();
            });
        });
    }

    private static void WriteData(Utf8JsonWriter w, string key, (string Name, object Value)[] data)
    {
        w.WriteStartObject(key);
        foreach (var (name, value) in data)
            switch (value)
            {
                case bool b:
                    w.WriteBoolean(name, b);
                    break;
                case long n:
                    w.WriteNumber(name, n);
                    break;
                case ulong n:
                    w.WriteNumber(name, n);
                    break;
                case (string, object)[] inner:
                    WriteData(w, name, inner);
                    break;
                default:
                    w.WriteString(name, value.ToString());
                    break;
            }
        w.WriteEndObject();
    }

    private void Take()
    {
        while (_device.TryTake(out byte b))
        {
            if (_depth == 0 && b != '{')
            {
                // White space between requests; anything else is no JSON object, which is said once.
                bool isSpace = b is (byte)' ' or (byte)'\t' or (byte)'\r' or (byte)'\n';
                if (!isSpace && !_inGarbage)
                    SendError(null, "GenericError", "JSON parse error, expecting value");
                _inGarbage = !isSpace;
                continue;
            }
            _inGarbage = false;
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

    private void SendError(JsonElement? id, string kind, string text) => Answer(w =>
    {
        w.WriteStartObject();
        if (id is { } i)
        {
            w.WritePropertyName("id");
            i.WriteTo(w);
        }
        w.WriteStartObject("error");
        w.WriteString("class", kind);
        // One line; a hint that follows is for people.
        w.WriteString("desc", text.Split('\n')[0]);
        w.WriteEndObject();
        w.WriteEndObject();
    });

    private static void Check(JsonProperty member)
    {
        bool isRight = member.Name switch
        {
            "execute" => member.Value.ValueKind == JsonValueKind.String ? true : throw new CommandException("QMP input member 'execute' must be a string"),
            "arguments" => member.Value.ValueKind == JsonValueKind.Object ? true : throw new CommandException("QMP input member 'arguments' must be an object"),
            "id" => true,
            _ => false,
        };
        if (!isRight)
            throw new CommandException($"QMP input member '{member.Name}' is unexpected");
    }

    // On the control thread.
    private void Serve(byte[] request)
    {
        JsonElement? id = null;
        try
        {
            using var document = JsonDocument.Parse(request);
            var root = document.RootElement;
            if (root.TryGetProperty("id", out var tag))
                id = tag.Clone();
            foreach (var member in root.EnumerateObject())
                Check(member);
            if (!root.TryGetProperty("execute", out var name))
                throw new CommandException("QMP input lacks member 'execute'");
            string command = name.GetString()!;
            var arguments = root.TryGetProperty("arguments", out var a) ? a : default;
            if (!_ready && command != "qmp_capabilities")
            {
                SendError(id, "CommandNotFound", "Expecting capabilities negotiation with 'qmp_capabilities'");
                return;
            }
            if (!QmpCommands.All.TryGetValue(command, out var found) || (_ready && command == "qmp_capabilities"))
            {
                SendError(id, "CommandNotFound", command == "qmp_capabilities" && _ready
                        ? "Capabilities negotiation is already complete, command ignored" : $"The command {command} has not been found");
                return;
            }
            var given = new QmpArguments(arguments);
            given.Expect(found.Parameters);
            Action<Utf8JsonWriter>? result = found.Run(_pc, given);
            Answer(w =>
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
            SendError(id, "GenericError", "JSON parse error, invalid keyword");
        }
        catch (CommandException e)
        {
            SendError(id, e.Kind, e.Message);
        }
    }
}
