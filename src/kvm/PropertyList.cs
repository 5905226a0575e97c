using ImgKit.Block;
using ImgKit.CommandLine;
using ImgKit.Machine;

namespace ImgKit.Programs.Kvm;

/// <summary>What <c>-blockdev</c> and <c>-device</c> take: <c>name=value,...</c>, or an object in JSON, whose nested names get dots.</summary>
internal static class PropertyList
{
    /// <summary>Parses. Throws <see cref="MachineException"/>.</summary>
    internal static List<KeyValuePair<string, string>> Parse(string text)
    {
        if (!text.StartsWith('{'))
            return OptionList.Parse(text, "driver");
        try
        {
            return [.. JsonFileName.Parse("json:" + text).Entries.Select(e => new KeyValuePair<string, string>(e.Key, Text(e.Value)))];
        }
        catch (ImageException e)
        {
            throw new MachineException(e.Message.Replace("Could not parse the JSON options: ", "", StringComparison.Ordinal), e);
        }
    }

    private static string Text(object value) => value switch
    {
        bool b => b ? "on" : "off",
        _ => Convert.ToString(value, System.Globalization.CultureInfo.InvariantCulture) ?? "",
    };
}
