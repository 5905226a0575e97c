namespace ImgKit.Block.Tests.Core;

public sealed class OpenerTests : IDisposable
{
    private readonly TestData.Folder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Theory]
    [InlineData("nosuch:x", "Unknown protocol 'nosuch'")]
    [InlineData("json:{\"driver\":\"raw\"}", "A block device must be specified for \"file\"")]
    [InlineData("json:{\"driver\":\"nosuch\"}", "Unknown driver 'nosuch'")]
    [InlineData("json:{", "Could not parse the JSON options: JSON parse error, premature EOI")]
    [InlineData("json:[]", "Invalid JSON object given")]
    [InlineData("json:{\"driver\":\"null-co\",\"foo\":1}", "Block protocol 'null-co' doesn't support the option 'foo'")]
    [InlineData("json:{\"driver\":\"raw\",\"file\":{\"driver\":\"null-co\",\"size\":1024},\"x\":\"y\"}", "Block format 'raw' does not support the option 'x'")]
    public void What_cannot_be_opened_is_said(string name, string message)
    {
        var e = Assert.Throws<ImageException>(() => new ImageOpener().Open(name, null, OpenSettings.ReadOnlyDefault));
        Assert.Equal(message, e.Message);
    }

    [Fact]
    public void Nested_descriptions_are_opened()
    {
        using var d = new ImageOpener().Open("json:{\"driver\":\"raw\",\"offset\":512,\"file\":{\"driver\":\"null-co\",\"size\":2048,\"read-zeroes\":true}}",
            null, OpenSettings.ReadOnlyDefault);
        Assert.Equal(1536, d.Length);
        Assert.Equal("null-co", d.Storage!.DriverName);
    }

    private static BlockDevice Open(ImageOpener opener, params (string Name, string Value)[] options)
    {
        var all = new BlockOptions();
        foreach (var (name, value) in options)
            all.Set(name, value);
        return opener.Open(all, new OpenSettings());
    }

    [Fact]
    public void Nodes_are_shared_by_those_who_name_them_and_closed_with_the_last()
    {
        var opener = new ImageOpener();
        string image = _folder.File("image");
        File.WriteAllBytes(image, new byte[4096]);
        var file = Open(opener, ("driver", "file"), ("filename", image), ("node-name", "f"));
        var one = Open(opener, ("driver", "raw"), ("file", "f"), ("size", "1024"), ("node-name", "one"));
        var two = Open(opener, ("driver", "raw"), ("file", "f"), ("offset", "1024"));
        Assert.Same(file, one.Storage);
        Assert.True(file.IsShared);
        Assert.Equal("f", file.NodeName);
        file.Dispose();
        one.Write(0, "one"u8);
        one.Dispose();
        Assert.Null(opener.Nodes.Find("one"));
        Assert.False(file.IsShared);
        two.Write(0, "two"u8);
        Assert.Equal("Duplicate nodes with node-name='f'", Assert.Throws<ImageException>(() =>
            Open(opener, ("driver", "null-co"), ("node-name", "f"))).Message);
        two.Dispose();
        Assert.Null(opener.Nodes.Find("f"));
        byte[] content = File.ReadAllBytes(image);
        Assert.StartsWith("one", System.Text.Encoding.ASCII.GetString(content));
        Assert.StartsWith("two", System.Text.Encoding.ASCII.GetString(content, 1024, 16));
    }

    /// <summary>Who could not be opened on a node leaves it to those who have it.</summary>
    [Theory]
    [InlineData("raw", "bogus", "1")]
    [InlineData("raw", "size", "1000000")]
    [InlineData("qcow2", "bogus", "1")]
    [InlineData("copy-on-read", "bogus", "1")]
    [InlineData("throttle", "throttle-group", "none")]
    public void A_node_stays_open_when_another_use_of_it_is_refused(string driver, string option, string value)
    {
        var opener = new ImageOpener();
        string image = _folder.File("image");
        File.WriteAllBytes(image, new byte[4096]);
        using var file = Open(opener, ("driver", "file"), ("filename", image), ("node-name", "f"));
        for (int i = 0; i < 3; i++)
            Assert.Throws<ImageException>(() => Open(opener, ("driver", driver), ("file", "f"), (option, value)));
        // Nor does it lose more than one user with each.
        var user = Open(opener, ("driver", "raw"), ("file", "f"));
        user.Dispose();
        user.Dispose();
        Assert.Same(file, opener.Nodes.Find("f"));
        Assert.False(file.IsShared);
        file.Write(0, [1]);
    }

    [Theory]
    [InlineData("qcow2")]
    [InlineData("vmdk")]
    public void A_node_is_the_backing_file_and_a_named_child_a_node(string format)
    {
        var opener = new ImageOpener();
        string image = _folder.File("image." + format);
        opener.Drivers.Get(format).Create!(new CreateContext { FileName = image, Size = 1 << 20, Options = new BlockOptions(), Opener = opener });
        var below = Open(opener, ("driver", "null-co"), ("size", "1M"), ("node-name", "below"));
        using (var top = Open(opener, ("driver", format), ("file.driver", "file"), ("file.filename", image), ("file.node-name", "child"), ("backing", "below")))
        {
            Assert.Same(below, top.Backing);
            Assert.Equal(image, opener.Nodes.Find("child")!.FileName);
        }
        Assert.Null(opener.Nodes.Find("child"));
        Assert.NotNull(opener.Nodes.Find("below"));
        below.Dispose();
        var e = Assert.Throws<ImageException>(() => Open(opener, ("driver", format), ("file.driver", "file"), ("file.filename", image), ("backing", "below")));
        Assert.Equal("Cannot find device='' nor node-name='below'", e.Message);
    }

    [Fact]
    public void The_folder_policy_looks_through_links()
    {
        Directory.CreateDirectory(_folder.File("in"));
        string image = _folder.File("in/image"), inside = _folder.File("in/base"), outside = _folder.File("base");
        foreach (string f in new[] { image, inside, outside })
            File.WriteAllText(f, "");
        File.CreateSymbolicLink(_folder.File("in/link"), outside);
        var policy = ReferencePolicy.SameFolder;
        Assert.Null(policy.Refuse(new(ReferenceKind.Backing, image, inside, null)));
        Assert.NotNull(policy.Refuse(new(ReferenceKind.Backing, image, outside, null)));
        Assert.NotNull(policy.Refuse(new(ReferenceKind.Backing, image, _folder.File("in/../base"), null)));
        Assert.NotNull(policy.Refuse(new(ReferenceKind.Backing, image, _folder.File("in/link"), null)));
        Assert.NotNull(policy.Refuse(new(ReferenceKind.Backing, image, "nbd://host/x", null)));
    }

    [Theory]
    [InlineData("/a/b.img", "c", "/a/c")]
    [InlineData("b.img", "c", "c")]
    [InlineData("x/b.img", "../c", "x/../c")]
    [InlineData("/a/b.img", "/c", "/c")]
    [InlineData("/a/b.img", "nbd://h/c", "nbd://h/c")]
    [InlineData("file:/a/b.img", "c", "/a/c")]
    [InlineData("nbd://h/dir/b", "c", "nbd://h/dir/c")]
    public void Names_in_images_are_relative_to_the_image(string image, string name, string expected) =>
        Assert.Equal(expected, FileNames.Resolve(image, name));

    [Theory]
    [InlineData("1", 1)]
    [InlineData("64k", 65536)]
    [InlineData("1.5G", 1610612736)]
    [InlineData("0x200", 512)]
    [InlineData("8E", -1)]
    [InlineData("", -1)]
    [InlineData("-1", -1)]
    [InlineData("k", -1)]
    [InlineData("1kk", -1)]
    [InlineData("1e3", -1)]
    public void Sizes_are_parsed(string text, long expected) =>
        Assert.Equal(expected, SizeText.TryParse(text, out long v) ? v : -1);

    [Theory]
    [InlineData(0, "0 B")]
    [InlineData(999, "999 B")]
    [InlineData(1000, "0.977 KiB")]
    [InlineData(1024, "1 KiB")]
    [InlineData(196616, "192 KiB")]
    [InlineData(1610612736, "1.5 GiB")]
    [InlineData(1L << 40, "1 TiB")]
    public void Sizes_are_shown(long bytes, string expected) => Assert.Equal(expected, SizeText.ToHuman(bytes));
}
