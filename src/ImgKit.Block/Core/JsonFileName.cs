using System.Globalization;
using System.Text;

namespace ImgKit.Block;

/// <summary>
/// The <c>json:{...}</c> form of a file name: nested objects and lists become flat, dotted options. Texts may stand in single quotes,
/// too, as the peer takes them (RFC 8259 knows double ones only).
/// </summary>
public static class JsonFileName
{
    /// <summary>Parses <c>json:{...}</c>.</summary>
    /// <exception cref="ImageException">not JSON, or not an object.</exception>
    public static BlockOptions Parse(string fileName)
    {
        var options = new BlockOptions();
        var reader = new Reader(fileName, "json:".Length, options);
        reader.ReadDocument();
        return options;
    }

    private ref struct Reader(string text, int start, BlockOptions options)
    {
        private const int MaxDepth = 64;
        private int _at = start;

        public void ReadDocument()
        {
            SkipSpace();
            if (_at >= text.Length)
                throw Invalid("Expecting a JSON value");
            bool isObject = Peek() == '{';
            ReadValue("", 0);
            SkipSpace();
            if (_at < text.Length)
                throw Invalid("Expecting at most one JSON value");
            if (!isObject)
                throw new ImageException(ImageErrorKind.InvalidArgument, "Invalid JSON object given", text);
        }

        private void ReadValue(string name, int depth)
        {
            if (depth > MaxDepth)
                throw Bad("exceeds the limit of nesting");
            SkipSpace();
            switch (Peek())
            {
                case '{':
                    ReadMembers(name, depth);
                    break;
                case '[':
                    ReadElements(name, depth);
                    break;
                case '"' or '\'':
                    options.Set(name, ReadText());
                    break;
                case '-' or (>= '0' and <= '9'):
                    ReadNumber(name);
                    break;
                case >= 'a' and <= 'z':
                    ReadKeyword(name);
                    break;
                case '}' or ']' or ',' or ':' or '\0':
                    throw Bad("expecting value");
                default:
                    throw Bad($"stray '{text[_at]}'");
            }
        }

        private void ReadMembers(string name, int depth)
        {
            _at++;
            SkipSpace();
            if (Take('}'))
                return;
            do
            {
                SkipSpace();
                if (Peek() == '}')
                    throw Bad("expecting value");
                if (Peek() is >= 'a' and <= 'z')
                    throw Invalid($"JSON parse error, invalid keyword '{ReadWord()}'");
                if (Peek() is not ('"' or '\''))
                    throw Bad("key is not a string in object");
                string key = ReadText();
                SkipSpace();
                if (!Take(':'))
                    throw Bad("missing : in object pair");
                ReadValue(name.Length == 0 ? key : $"{name}.{key}", depth + 1);
                SkipSpace();
            }
            while (Take(','));
            if (!Take('}'))
                throw Bad("expected separator in dict");
        }

        private void ReadElements(string name, int depth)
        {
            _at++;
            SkipSpace();
            if (Take(']'))
                return;
            int i = 0;
            do
            {
                ReadValue(string.Create(CultureInfo.InvariantCulture, $"{name}.{i++}"), depth + 1);
                SkipSpace();
            }
            while (Take(','));
            if (!Take(']'))
                throw Bad("expected separator in list");
        }

        private void ReadNumber(string name)
        {
            int first = _at;
            while (Peek() is '-' or '+' or '.' or 'e' or 'E' or (>= '0' and <= '9'))
                _at++;
            string number = text[first.._at];
            if (long.TryParse(number, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out long n))
                options.Set(name, n);
            else if (double.TryParse(number, NumberStyles.Float, CultureInfo.InvariantCulture, out _))
                options.Set(name, number);
            else
                throw Bad($"invalid number '{number}'");
        }

        private void ReadKeyword(string name)
        {
            switch (ReadWord())
            {
                case "true":
                    options.Set(name, true);
                    break;
                case "false":
                    options.Set(name, false);
                    break;
                case "null":
                    options.Set(name, "");
                    break;
                case var word:
                    throw Invalid($"JSON parse error, invalid keyword '{word}'");
            }
        }

        private string ReadWord()
        {
            int first = _at;
            while (Peek() is >= 'a' and <= 'z')
                _at++;
            return text[first.._at];
        }

        private string ReadText()
        {
            var s = new StringBuilder();
            int first = _at;
            char quote = text[_at++];
            while (!Take(quote))
            {
                if (_at >= text.Length)
                    throw Invalid($"JSON parse error, stray '{text[first..]}'");
                char c = text[_at++];
                s.Append(c == '\\' ? ReadEscape() : c);
            }
            return s.ToString();
        }

        private char ReadEscape()
        {
            char c = Peek();
            _at++;
            switch (c)
            {
                case 'b':
                    return '\b';
                case 'f':
                    return '\f';
                case 'n':
                    return '\n';
                case 'r':
                    return '\r';
                case 't':
                    return '\t';
                case '"' or '\'' or '\\' or '/':
                    return c;
                case 'u' when _at + 4 <= text.Length
                    && ushort.TryParse(text.AsSpan(_at, 4), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out ushort unit):
                    _at += 4;
                    return (char)unit;
                default:
                    throw Bad("invalid escape sequence in string");
            }
        }

        private char Peek() => _at < text.Length ? text[_at] : '\0';

        private bool Take(char c)
        {
            if (_at >= text.Length || text[_at] != c)
                return false;
            _at++;
            return true;
        }

        private void SkipSpace()
        {
            while (Peek() is ' ' or '\t' or '\n' or '\r')
                _at++;
        }

        /// <summary>At the end of the text, whatever was expected is missing.</summary>
        private ImageException Bad(string what) => Invalid($"JSON parse error, {(_at >= text.Length ? "premature EOI" : what)}");

        private ImageException Invalid(string what) =>
            new(ImageErrorKind.InvalidArgument, $"Could not parse the JSON options: {what}", text, _at);
    }
}
