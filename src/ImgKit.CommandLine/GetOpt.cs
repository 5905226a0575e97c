using System.Text;

namespace ImgKit.CommandLine;

/// <summary>How <see cref="GetOpt"/> treats arguments that are no options.</summary>
public enum GetOptOrder
{
    /// <summary>Options may stand behind operands, as GNU programs allow (unless POSIXLY_CORRECT is set).</summary>
    Permute,

    /// <summary>The first operand ends the options.</summary>
    StopAtOperand,
}

/// <summary>
/// GNU <c>getopt_long</c>: bundled letters (<c>-qf raw</c>), attached values (<c>-fraw</c>, <c>--format=raw</c>), unambiguous prefixes
/// of long names, <c>--</c>, and permutation; with the C library's error texts. (Behaviour: the GNU C library's manual, "Parsing
/// program options using getopt".)
/// </summary>
public sealed class GetOpt
{
    /// <summary><see cref="Next"/>: no more options.</summary>
    public const int End = -1;

    /// <summary><see cref="Next"/>: an option that is not known, is ambiguous, or got a value that it does not take.</summary>
    public const int Unrecognized = '?';

    /// <summary><see cref="Next"/>: an option lacks its value.</summary>
    public const int MissingArgument = ':';

    private readonly string[] _arguments;
    private readonly IReadOnlyList<OptionSpec> _options;
    private readonly bool _permute;
    private string? _letters;       // the argument whose letters are being taken
    private int _letterAt;
    private int _firstOperand = 1;
    private int _lastOperand = 1;

    /// <summary>Starts with the argument behind the first, which is the program's (or the command's) name.</summary>
    /// <param name="arguments">copied, for they are put in another order.</param>
    /// <param name="options">those known.</param>
    /// <param name="order">what an operand does.</param>
    public GetOpt(ReadOnlySpan<string> arguments, IReadOnlyList<OptionSpec> options, GetOptOrder order = GetOptOrder.Permute)
    {
        _arguments = arguments.ToArray();
        _options = options;
        _permute = order == GetOptOrder.Permute && Environment.GetEnvironmentVariable("POSIXLY_CORRECT") is null;
    }

    /// <summary>Index of the argument that is looked at next (<c>optind</c>).</summary>
    public int Index { get; private set; } = 1;

    /// <summary>The value of the option that <see cref="Next"/> returned, or null (<c>optarg</c>).</summary>
    public string? Value { get; private set; }

    /// <summary>The C library's text for the last error, without the program's name.</summary>
    public string Error { get; private set; } = "";

    /// <summary>What lies behind the options, once <see cref="Next"/> has returned <see cref="End"/>.</summary>
    public ReadOnlySpan<string> Operands => _arguments.AsSpan(Math.Min(Index, _arguments.Length));

    /// <summary>The argument before <see cref="Index"/>: what programs that word errors themselves name (<c>argv[optind - 1]</c>).</summary>
    public string LastTaken => _arguments[Index - 1];

    /// <summary>The next option's <see cref="OptionSpec.Id"/>, or <see cref="End"/>, <see cref="Unrecognized"/> or
    /// <see cref="MissingArgument"/>.</summary>
    public int Next()
    {
        Value = null;
        if (_letters is null)
        {
            if (!Advance())
                return End;
            string argument = _arguments[Index];
            if (argument[1] == '-')
                return NextLong(argument[2..]);
            _letters = argument;
            _letterAt = 1;
        }
        return NextLetter();
    }

    /// <summary>Goes to the next argument that is an option; false when there is none.</summary>
    private bool Advance()
    {
        if (_permute)
        {
            if (_firstOperand != _lastOperand && _lastOperand != Index)
                MoveOperandsBehindOptions();
            else if (_lastOperand != Index)
                _firstOperand = Index;
            while (Index < _arguments.Length && IsOperand(_arguments[Index]))
                Index++;
            _lastOperand = Index;
        }
        if (Index < _arguments.Length && _arguments[Index] == "--")
        {
            Index++;
            if (_firstOperand != _lastOperand && _lastOperand != Index)
                MoveOperandsBehindOptions();
            else if (_firstOperand == _lastOperand)
                _firstOperand = Index;
            _lastOperand = _arguments.Length;
            Index = _arguments.Length;
        }
        if (Index >= _arguments.Length)
        {
            if (_firstOperand != _lastOperand)
                Index = _firstOperand;
            return false;
        }
        return !IsOperand(_arguments[Index]);
    }

    private static bool IsOperand(string argument) => argument.Length < 2 || argument[0] != '-';

    private void MoveOperandsBehindOptions()
    {
        int operands = _lastOperand - _firstOperand, options = Index - _lastOperand;
        string[] moved = _arguments[_firstOperand.._lastOperand];
        Array.Copy(_arguments, _lastOperand, _arguments, _firstOperand, options);
        moved.CopyTo(_arguments, _firstOperand + options);
        _firstOperand += options;
        _lastOperand = _firstOperand + operands;
    }

    private int NextLetter()
    {
        string letters = _letters!;
        char c = letters[_letterAt++];
        bool last = _letterAt == letters.Length;
        if (last)
        {
            Index++;
            _letters = null;
        }
        if (FindLetter(c) is not { } option)
        {
            Error = $"invalid option -- '{c}'";
            return Unrecognized;
        }
        if (option.Argument == ArgumentKind.None)
            return option.Id;
        _letters = null;
        if (!last)
        {
            Value = letters[_letterAt..];
            Index++;
        }
        else if (option.Argument == ArgumentKind.Required)
        {
            if (Index >= _arguments.Length)
            {
                Error = $"option requires an argument -- '{c}'";
                return MissingArgument;
            }
            Value = _arguments[Index++];
        }
        return option.Id;
    }

    private OptionSpec? FindLetter(char c)
    {
        if (c is ':' or ';' or '-' or '\0')
            return null;
        foreach (var o in _options)
            if (o.Letter == c)
                return o;
        return null;
    }

    private int NextLong(string text)
    {
        int equals = text.IndexOf('=', StringComparison.Ordinal);
        string name = equals < 0 ? text : text[..equals];
        Index++;
        if (!FindLong(name, out var option))
        {
            Error = $"option '--{text}' is ambiguous; possibilities:{Possibilities(name)}";
            return Unrecognized;
        }
        if (option is null)
        {
            Error = $"unrecognized option '--{text}'";
            return Unrecognized;
        }
        if (equals >= 0)
        {
            if (option.Argument == ArgumentKind.None)
            {
                Error = $"option '--{option.Name}' doesn't allow an argument";
                return Unrecognized;
            }
            Value = text[(equals + 1)..];
        }
        else if (option.Argument == ArgumentKind.Required)
        {
            if (Index >= _arguments.Length)
            {
                Error = $"option '--{option.Name}' requires an argument";
                return MissingArgument;
            }
            Value = _arguments[Index++];
        }
        return option.Id;
    }

    /// <summary>False: ambiguous.</summary>
    private bool FindLong(string name, out OptionSpec? found)
    {
        found = null;
        bool ambiguous = false;
        foreach (var o in _options)
        {
            if (o.Name is null || !o.Name.StartsWith(name, StringComparison.Ordinal))
                continue;
            if (o.Name.Length == name.Length)
            {
                found = o;
                return true;
            }
            if (found is null)
                found = o;
            else if (found.Id != o.Id || found.Argument != o.Argument)
                ambiguous = true;
        }
        return !ambiguous;
    }

    /// <summary>The first match, and those that differ from it.</summary>
    private string Possibilities(string name)
    {
        var s = new StringBuilder();
        OptionSpec? first = null;
        foreach (var o in _options)
        {
            if (o.Name is null || !o.Name.StartsWith(name, StringComparison.Ordinal))
                continue;
            if (first is null || first.Id != o.Id || first.Argument != o.Argument)
                s.Append(" '--").Append(o.Name).Append('\'');
            first ??= o;
        }
        return s.ToString();
    }
}
