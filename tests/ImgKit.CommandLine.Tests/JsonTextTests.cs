using System.Text.Json;

namespace ImgKit.CommandLine.Tests;

public sealed class JsonTextTests
{
    /// <summary>The order and the layout in which qemu-img 7.2 prints <c>info --output=json</c> of a raw image.</summary>
    [Fact]
    public void Members_stand_in_the_peers_order()
    {
        var o = new JsonObject
        {
            { "filename", "a" },
            { "format", "raw" },
            { "dirty-flag", false },
            { "actual-size", 4096L },
            { "virtual-size", 1048576L },
            { "encrypted", null },
        };
        const string expected = """
            {
                "virtual-size": 1048576,
                "filename": "a",
                "format": "raw",
                "actual-size": 4096,
                "dirty-flag": false
            }
            """;
        Assert.Equal(expected, JsonText.Pretty(o));
        Assert.Equal("""{"virtual-size": 1048576, "filename": "a", "format": "raw", "actual-size": 4096, "dirty-flag": false}""", JsonText.Compact(o));
    }

    [Fact]
    public void Any_text_comes_back()
    {
        var random = new Random(1);
        for (int i = 0; i < 200; i++)
        {
            string text = new([.. Enumerable.Range(0, random.Next(20)).Select(_ => (char)random.Next(random.Next(2) == 0 ? 128 : 0xd800))]);
            var o = new JsonObject { { "t", text }, { "list", new List<object> { 1L, true, "x", new List<object>() } } };
            foreach (string json in new[] { JsonText.Pretty(o), JsonText.Compact(o) })
            {
                using var d = JsonDocument.Parse(json);
                Assert.Equal(text, d.RootElement.GetProperty("t").GetString());
                Assert.Equal(4, d.RootElement.GetProperty("list").GetArrayLength());
                Assert.DoesNotContain(json, static c => c > '~');
            }
        }
    }
}
