namespace ImgKit.Block.Tests.Core;

public sealed class JsonFileNameTests
{
    [Fact]
    public void Members_become_dotted_options()
    {
        var o = JsonFileName.Parse("""json:{"driver": "raw", 'file': {'filename': "it's \"x\" \u00e9\n", "n": -5, "t": true, "f": false, "z": null, "d": 1.5}, "l": [{"a": 1}, 2, []]}""");
        Assert.Equal(
            ["driver=raw", "file.filename=it's \"x\" \u00e9\n", "file.n=-5", "file.t=True", "file.f=False", "file.z=", "file.d=1.5", "l.0.a=1", "l.1=2"],
            o.Entries.Select(static e => $"{e.Key}={e.Value}"));
    }

    [Theory]
    [InlineData("{", "JSON parse error, premature EOI")]
    [InlineData("{bad", "JSON parse error, invalid keyword 'bad'")]
    [InlineData("{\"a\":tru}", "JSON parse error, invalid keyword 'tru'")]
    [InlineData("{\"a\" 1}", "JSON parse error, missing : in object pair")]
    [InlineData("{\"a\":}", "JSON parse error, expecting value")]
    [InlineData("{\"a\":1,}", "JSON parse error, expecting value")]
    [InlineData("{\"a\":1 \"b\":2}", "JSON parse error, expected separator in dict")]
    [InlineData("{\"a\":[1 2]}", "JSON parse error, expected separator in list")]
    [InlineData("{\"a\":\"\\q\"}", "JSON parse error, invalid escape sequence in string")]
    [InlineData("{\"a\":\"b", "JSON parse error, stray '\"b'")]
    [InlineData("{\"a\":.}", "JSON parse error, stray '.'")]
    [InlineData("{\"a\":--1}", "JSON parse error, invalid number '--1'")]
    [InlineData("{1:2}", "JSON parse error, key is not a string in object")]
    [InlineData("", "Expecting a JSON value")]
    [InlineData("{} x", "Expecting at most one JSON value")]
    public void What_is_no_JSON_is_said_in_the_peers_words(string text, string message)
    {
        var e = Assert.Throws<ImageException>(() => JsonFileName.Parse("json:" + text));
        Assert.Equal($"Could not parse the JSON options: {message}", e.Message);
    }

    [Fact]
    public void Only_objects_describe_an_image_and_only_so_deep()
    {
        Assert.Equal("Invalid JSON object given", Assert.Throws<ImageException>(() => JsonFileName.Parse("json:[]")).Message);
        string deep = "json:" + string.Concat(Enumerable.Repeat("{\"a\":", 100_000));
        Assert.Contains("limit of nesting", Assert.Throws<ImageException>(() => JsonFileName.Parse(deep)).Message, StringComparison.Ordinal);
    }
}
