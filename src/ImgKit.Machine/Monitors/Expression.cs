using System.Globalization;

namespace ImgKit.Machine.Monitors;

/// <summary>Numbers as the human monitor takes them: sums of products of numbers in C's notation, characters, registers with <c>$</c> and parentheses, and
/// bit operations (which bind least).</summary>
/// <param name="text">the line.</param>
/// <param name="at">where the expression begins; afterwards, what follows it.</param>
/// <param name="register">the value of a register; throws for a name that there is not.</param>
internal ref struct Expression(ReadOnlySpan<char> text, int at, Func<string, ulong> register)
{
    private const int MostNested = 100;

    private readonly ReadOnlySpan<char> _text = text;
    private int _nested;

    /// <summary>Where the next character is.</summary>
    internal int At { get; private set; } = at;

    private readonly char Next => At < _text.Length ? _text[At] : '\0';

    private void SkipSpaces()
    {
        while (char.IsWhiteSpace(Next))
            At++;
    }

    /// <summary>Parses. Throws <see cref="CommandException"/>.</summary>
    internal ulong Parse()
    {
        SkipSpaces();
        ulong value = Sum();
        while (Next is '&' or '|' or '^')
        {
            char operation = Take();
            ulong right = Sum();
            value = operation switch { '&' => value & right, '|' => value | right, _ => value ^ right };
        }
        return value;
    }

    private char Take()
    {
        char c = Next;
        At++;
        SkipSpaces();
        return c;
    }

    private ulong Sum()
    {
        ulong value = Product();
        while (Next is '+' or '-')
            value = Take() == '+' ? value + Product() : value - Product();
        return value;
    }

    private ulong Product()
    {
        ulong value = Unary();
        while (Next is '*' or '/' or '%')
        {
            // A path may follow a number: "memsave 0 16 /tmp/file".
            if (Next == '/' && At + 1 < _text.Length && char.IsLetter(_text[At + 1]))
                break;
            char operation = Take();
            ulong right = Unary();
            if (operation != '*' && right == 0)
                throw new CommandException("division by zero");
            value = operation switch { '*' => value * right, '/' => value / right, _ => value % right };
        }
        return value;
    }

    private ulong Unary()
    {
        if (++_nested > MostNested)
            throw new CommandException("expression is nested too deeply");
        ulong value;
        switch (Next)
        {
            case '+':
                Take();
                value = Unary();
                break;
            case '-':
                Take();
                value = 0 - Unary();
                break;
            case '~':
                Take();
                value = ~Unary();
                break;
            case '(':
                Take();
                value = Parse();
                if (Next != ')')
                    throw new CommandException("')' expected");
                Take();
                break;
            case '\'':
                At++;
                if (Next == '\0')
                    throw new CommandException("character constant expected");
                value = _text[At++];
                if (Next != '\'')
                    throw new CommandException("missing terminating ' character");
                Take();
                break;
            case '$':
            {
                int start = ++At;
                while (char.IsAsciiLetterOrDigit(Next) || Next is '_' or '.')
                    At++;
                value = register(_text[start..At].ToString());
                SkipSpaces();
                break;
            }
            case '\0':
                throw new CommandException("unexpected end of expression");
            default:
                value = Number();
                SkipSpaces();
                break;
        }
        _nested--;
        return value;
    }

    private ulong Number()
    {
        int start = At;
        bool hex = Next == '0' && At + 2 < _text.Length && _text[At + 1] is 'x' or 'X' && char.IsAsciiHexDigit(_text[At + 2]);
        uint radix = hex ? 16u : Next == '0' ? 8u : 10u;
        if (hex)
            At += 2;
        UInt128 value = 0;
        while (char.IsAsciiHexDigit(Next) && Convert.ToUInt32(Next.ToString(CultureInfo.InvariantCulture), 16) is var digit && digit < radix)
        {
            value = value * radix + digit;
            if (value > ulong.MaxValue)
                throw new CommandException("number too large");
            At++;
        }
        return At > start ? (ulong)value : throw new CommandException($"invalid char '{Next}' in expression");
    }
}
