using System.Text;

namespace ImgKit.Machine.Monitors;

/// <summary>What an argument of a command for people is.</summary>
internal enum ArgumentKind
{
    /// <summary>A switch of one letter: <c>-f</c>.</summary>
    Switch,

    /// <summary>A switch that takes a word: <c>-f png</c>.</summary>
    SwitchWord,

    /// <summary>A word, perhaps in quotation marks.</summary>
    Word,

    /// <summary>The name of a file.</summary>
    FileName,

    /// <summary>The name of a block device.</summary>
    BlockName,

    /// <summary>An expression.</summary>
    Number,

    /// <summary>A size, in MiB unless it has a suffix.</summary>
    Size,

    /// <summary>How to show memory, after a slash.</summary>
    Format,

    /// <summary>The line's rest, as words.</summary>
    Rest,
}

/// <summary>An argument of a command for people.</summary>
/// <param name="Name">for the command; a switch's letter stands in front: <c>f:force</c>.</param>
/// <param name="Kind">what it is.</param>
/// <param name="IsOptional">may be left out (switches and formats always may).</param>
internal sealed record Argument(string Name, ArgumentKind Kind, bool IsOptional = false);

/// <summary>The arguments of one command, parsed as it declares them.</summary>
internal sealed class MonitorArguments
{
    private readonly Dictionary<string, object> _values = [];
    private readonly string _line;
    private readonly Func<string, ulong> _register;
    private int _at;

    /// <summary>Parses. Throws <see cref="ArgumentsException"/>.</summary>
    /// <param name="name">what messages call the command.</param>
    /// <param name="line">the line.</param>
    /// <param name="at">where the command's name ends.</param>
    /// <param name="wanted">what the command takes, in order.</param>
    /// <param name="register">the value of a register.</param>
    internal MonitorArguments(string name, string line, int at, IReadOnlyList<Argument> wanted, Func<string, ulong> register)
    {
        _line = line;
        _at = at;
        _register = register;
        try
        {
            foreach (var argument in wanted)
                Take(name, argument);
        }
        catch (CommandException e)
        {
            throw new ArgumentsException(e.Message);
        }
        SkipSpaces();
        if (_at < _line.Length)
            throw new ArgumentsException($"{name}: extraneous characters at the end of line");
    }

    internal bool Has(string name) => _values.ContainsKey(name);

    internal string Text(string name) => (string)_values[name];

    internal string? TextOrNull(string name) => (string?)_values.GetValueOrDefault(name);

    internal ulong Number(string name, ulong otherwise = 0) => _values.TryGetValue(name, out object? value) ? (ulong)value : otherwise;

    internal MemoryFormat Format => (MemoryFormat?)_values.GetValueOrDefault("fmt") ?? MemoryFormat.Default;

    internal string[] Rest => (string[])_values["rest"];

    private void SkipSpaces()
    {
        while (_at < _line.Length && char.IsWhiteSpace(_line[_at]))
            _at++;
    }

    private void Take(string name, Argument argument)
    {
        SkipSpaces();
        bool ended = _at == _line.Length;
        if (ended && argument is { IsOptional: true })
            return;
        switch (argument.Kind)
        {
            case ArgumentKind.Switch or ArgumentKind.SwitchWord:
                TakeSwitch(name, argument);
                break;
            case ArgumentKind.Word:
                _values[argument.Name] = Word() ?? throw new CommandException($"{name}: string expected");
                break;
            case ArgumentKind.FileName:
                _values[argument.Name] = Word() ?? throw new CommandException($"{name}: filename expected");
                break;
            case ArgumentKind.BlockName when !ended && _line[_at] == '-':
                throw new CommandException($"{name}: unsupported option {Word()}");
            case ArgumentKind.BlockName:
                _values[argument.Name] = Word() ?? throw new CommandException($"{name}: block device name expected");
                break;
            case ArgumentKind.Number:
            {
                var expression = new Expression(_line, _at, _register);
                _values[argument.Name] = expression.Parse();
                _at = expression.At;
                break;
            }
            case ArgumentKind.Size:
                _values[argument.Name] = Word() is { } text && ImgKit.Block.SizeText.TryParse(text, out long size, 1 << 20) && size >= 0
                    ? (ulong)size : throw new CommandException("invalid size");
                break;
            case ArgumentKind.Format when !ended && _line[_at] == '/':
            {
                int end = ++_at;
                while (end < _line.Length && !char.IsWhiteSpace(_line[end]))
                    end++;
                _values[argument.Name] = MemoryFormat.Parse(_line.AsSpan(_at, end - _at));
                _at = end;
                break;
            }
            case ArgumentKind.Format:
                break;
            case ArgumentKind.Rest:
            {
                var words = new List<string>();
                for (; _at < _line.Length; SkipSpaces())
                    words.Add(Word() ?? throw new CommandException($"{name}: string expected"));
                _values[argument.Name] = words.ToArray();
                break;
            }
        }
    }

    private void TakeSwitch(string name, Argument argument)
    {
        if (_at == _line.Length || _line[_at] != '-')
            return;
        char letter = _at + 1 < _line.Length ? _line[_at + 1] : ' ';
        if (letter != argument.Name[0])
            // A name of a device, or a negative number, may begin like a switch.
            throw new CommandException($"{name}: unsupported option -{letter}");
        _at += 2;
        string key = argument.Name[2..];
        if (argument.Kind == ArgumentKind.Switch)
            _values[key] = "on";
        else
        {
            SkipSpaces();
            _values[key] = Word() ?? throw new CommandException($"{name}: value expected for -{letter}");
        }
    }

    // A word; in quotation marks it may have blanks in it, and \n \r \\ \' \" stand for themselves. Null: there is none, or it does not end.
    private string? Word()
    {
        if (_at == _line.Length)
            return null;
        var word = new StringBuilder();
        if (_line[_at] != '"')
        {
            while (_at < _line.Length && !char.IsWhiteSpace(_line[_at]))
                word.Append(_line[_at++]);
            return word.ToString();
        }
        for (_at++; _at < _line.Length && _line[_at] != '"'; _at++)
        {
            char c = _line[_at];
            if (c == '\\' && _at + 1 < _line.Length)
                c = _line[++_at] switch
                {
                    'n' => '\n',
                    'r' => '\r',
                    '\\' or '\'' or '"' => _line[_at],
                    var other => throw new CommandException($"unsupported escape code: '\\{other}'"),
                };
            word.Append(c);
        }
        if (_at == _line.Length)
            return null;
        _at++;
        return word.ToString();
    }
}

/// <summary>A command was given arguments that it does not take.</summary>
internal sealed class ArgumentsException(string message) : Exception(message);
