using System.Text;

namespace ImgKit.CommandLine;

/// <summary>
/// Lists of options as the peer's programs take them: <c>name=value,name=value</c>, where a comma in a value is written
/// twice.
/// </summary>
public static class OptionList
{
    /// <summary>Whether a list can be put together with others by commas: not empty, no comma in front, no single one at the end.</summary>
    public static bool IsWellFormed(string text)
    {
        if (text.Length == 0 || text[0] == ',')
            return false;
        int commas = 0;
        for (int i = text.Length - 1; i >= 0 && text[i] == ','; i--)
            commas++;
        return commas % 2 == 0;
    }

    /// <summary>Whether <c>help</c> (or <c>?</c>) is one of the list's words.</summary>
    public static bool AsksForHelp(string text)
    {
        foreach (var (name, value) in Split(text))
            if (value is null && IsHelp(name))
                return true;
        return false;
    }

    /// <summary><c>help</c> or <c>?</c>.</summary>
    public static bool IsHelp(string word) => word is "help" or "?";

    /// <summary>Names and values in order. A word without <c>=</c> has value null.</summary>
    public static List<KeyValuePair<string, string?>> Split(string text)
    {
        var list = new List<KeyValuePair<string, string?>>();
        int at = 0;
        while (at < text.Length)
        {
            int end = text.AsSpan(at).IndexOfAny('=', ',');
            end = end < 0 ? text.Length : at + end;
            string name = text[at..end];
            string? value = null;
            at = end;
            if (at < text.Length && text[at] == '=')
                value = TakeValue(text, ref at, at + 1);
            list.Add(new(name, value));
            if (at < text.Length)
                at++;
        }
        return list;
    }

    /// <summary>Names and values in order. A word alone is a switch: <c>word=on</c>, and <c>noword</c> is <c>word=off</c>.</summary>
    /// <param name="text">the list.</param>
    /// <param name="implied">the name that the first value has if it comes without one, or null.</param>
    /// <param name="warn">told when a switch is written short, which the peer warns of; may be null.</param>
    public static List<KeyValuePair<string, string>> Parse(string text, string? implied = null, Action<string>? warn = null)
    {
        var list = new List<KeyValuePair<string, string>>();
        int at = 0;
        while (at < text.Length)
        {
            int end = text.AsSpan(at).IndexOfAny('=', ',');
            end = end < 0 ? text.Length : at + end;
            if (end < text.Length && text[end] == '=')
            {
                string name = text[at..end];
                at = end;
                list.Add(new(name, TakeValue(text, ref at, at + 1)));
            }
            else if (implied is not null && list.Count == 0)
            {
                list.Add(new(implied, TakeValue(text, ref at, at)));
            }
            else
            {
                string word = text[at..end];
                bool off = word.StartsWith("no", StringComparison.Ordinal);
                string name = off ? word[2..] : word;
                list.Add(new(name, off ? "off" : "on"));
                if (word is not ("help" or "?"))
                    warn?.Invoke($"short-form boolean option '{word}' deprecated\nPlease use {name}={(off ? "off" : "on")} instead");
                at = end;
            }
            if (at < text.Length)
                at++;
        }
        return list;
    }

    /// <summary>A value up to a single comma; <paramref name="at"/> is left on that comma, or at the end.</summary>
    private static string TakeValue(string text, ref int at, int start)
    {
        int comma = text.IndexOf(',', start);
        if (comma < 0 || comma + 1 >= text.Length || text[comma + 1] != ',')
        {
            at = comma < 0 ? text.Length : comma;
            return text[start..at];
        }
        var s = new StringBuilder();
        for (at = start; at < text.Length; at++)
        {
            if (text[at] == ',')
            {
                if (at + 1 >= text.Length || text[at + 1] != ',')
                    break;
                at++;
            }
            s.Append(text[at]);
        }
        return s.ToString();
    }
}
