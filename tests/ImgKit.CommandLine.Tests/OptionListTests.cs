namespace ImgKit.CommandLine.Tests;

public sealed class OptionListTests
{
    private static string Text(IEnumerable<KeyValuePair<string, string>> list) => string.Join('|', list.Select(static o => $"{o.Key}:{o.Value}"));

    [Theory]
    [InlineData("a=1,b=2", null, "a:1|b:2")]
    [InlineData("a=x,,y,b=,,", null, "a:x,y|b:,")]
    [InlineData("a=b=c", null, "a:b=c")]
    [InlineData("share,nocow", null, "share:on|cow:off")]
    [InlineData("disk,,1.img,driver=raw", "file", "file:disk,1.img|driver:raw")]
    [InlineData("file.filename=x", "file", "file.filename:x")]
    [InlineData("", "file", "")]
    [InlineData("a=,b", null, "a:|b:on")]
    public void Lists_are_taken_apart(string text, string? implied, string expected) => Assert.Equal(expected, Text(OptionList.Parse(text, implied)));

    [Fact]
    public void Short_switches_are_warned_of()
    {
        var warnings = new List<string>();
        OptionList.Parse("a=1,noshare,help", null, warnings.Add);
        Assert.Equal("short-form boolean option 'noshare' deprecated\nPlease use share=off instead", Assert.Single(warnings));
    }

    [Theory]
    [InlineData("a", true)]
    [InlineData("", false)]
    [InlineData(",a", false)]
    [InlineData("a,", false)]
    [InlineData("a,,", true)]
    [InlineData("a,,,", false)]
    public void Lists_can_be_joined_or_not(string text, bool expected) => Assert.Equal(expected, OptionList.IsWellFormed(text));

    [Theory]
    [InlineData("help", true)]
    [InlineData("a=1,?", true)]
    [InlineData("a=help", false)]
    [InlineData("help=1", false)]
    [InlineData("a=x,,help", false)]
    public void Help_is_a_word_of_its_own(string text, bool expected) => Assert.Equal(expected, OptionList.AsksForHelp(text));
}
