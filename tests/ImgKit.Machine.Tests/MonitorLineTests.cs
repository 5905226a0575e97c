using ImgKit.Machine.Monitors;

namespace ImgKit.Machine.Tests;

/// <summary>Lines for the human monitor, without a machine.</summary>
public sealed class MonitorLineTests
{
    private static ulong Register(string name) => name == "eip" ? 0x1000ul : throw new CommandException("unknown register");

    private static ulong Value(string text)
    {
        var e = new Expression(text, 0, Register);
        return e.Parse();
    }

    [Theory]
    [InlineData("0x10", 16)]
    [InlineData("010", 8)]
    [InlineData(" 1 + 2 ", 3)]
    [InlineData("2+3*4", 14)]
    [InlineData("(2+3)*4", 20)]
    [InlineData("7%4", 3)]
    [InlineData("9/2", 4)]
    [InlineData("'A'", 65)]
    [InlineData("$eip+4", 0x1004)]
    [InlineData("0xF0 & 0x3c | 1", 0x31)]
    [InlineData("5 ^ 1", 4)]
    [InlineData("10-2-3", 5)]
    public void An_expression_has_a_value(string text, ulong value) => Assert.Equal(value, Value(text));

    [Fact]
    public void Negative_numbers_are_those_of_64_bits()
    {
        Assert.Equal(ulong.MaxValue, Value("-1"));
        Assert.Equal(ulong.MaxValue - 1, Value("~1"));
    }

    [Theory]
    [InlineData("", "unexpected end of expression")]
    [InlineData("x", "invalid char 'x' in expression")]
    [InlineData("(1", "')' expected")]
    [InlineData("1/0", "division by zero")]
    [InlineData("$rxx", "unknown register")]
    [InlineData("99999999999999999999", "number too large")]
    [InlineData("'a", "missing terminating ' character")]
    public void A_wrong_expression_says_what_is_wrong(string text, string message) =>
        Assert.Equal(message, Assert.Throws<CommandException>(() => Value(text)).Message);

    [Fact]
    public void Parentheses_without_end_are_refused() =>
        Assert.Throws<CommandException>(() => Value(new string('(', 1_000_000)));

    private static readonly Argument[] Save = [new("f:force", ArgumentKind.Switch), new("addr", ArgumentKind.Number), new("file", ArgumentKind.FileName), new("more", ArgumentKind.Word, true)];

    private static MonitorArguments Parse(string line) => new("save|s", line, 0, Save, Register);

    [Fact]
    public void Arguments_are_taken_as_they_are_declared()
    {
        var a = Parse("-f 16 /tmp/file \"a \\\"b\"");
        Assert.True(a.Has("force"));
        Assert.Equal(16ul, a.Number("addr"));
        Assert.Equal("/tmp/file", a.Text("file"));
        Assert.Equal("a \"b", a.Text("more"));
        a = Parse("1 + 2 name");
        Assert.False(a.Has("force"));
        Assert.Equal(3ul, a.Number("addr"));
        Assert.Null(a.TextOrNull("more"));
    }

    [Theory]
    [InlineData("", "unexpected end of expression")]
    [InlineData("1", "save|s: filename expected")]
    [InlineData("1 \"x", "save|s: filename expected")]
    [InlineData("1 x y z", "save|s: extraneous characters at the end of line")]
    [InlineData("-g 1 x", "save|s: unsupported option -g")]
    public void Wrong_arguments_say_what_is_wrong(string line, string message) =>
        Assert.Equal(message, Assert.Throws<ArgumentsException>(() => Parse(line)).Message);

    [Theory]
    [InlineData("", 255, "0xff")]
    [InlineData("d", ulong.MaxValue, "-1")]
    [InlineData("u", ulong.MaxValue, "18446744073709551615")]
    [InlineData("o", 8, "010")]
    [InlineData("x", 0, "0")]
    [InlineData("c", 65, "'A'")]
    [InlineData("c", 10, "'\\n'")]
    public void Values_are_shown_in_a_format(string format, ulong value, string text) => Assert.Equal(text, MemoryFormat.Parse(format).Show(value));

    [Fact]
    public void A_format_has_a_count_a_kind_and_a_size()
    {
        Assert.Equal(new MemoryFormat(20, 'i', 4), MemoryFormat.Parse("20i"));
        Assert.Equal(new MemoryFormat(1, 'd', 2), MemoryFormat.Parse("hd"));
        Assert.Equal(new MemoryFormat(65536, 'x', 8), MemoryFormat.Parse("99999999999g"));
        Assert.Equal("invalid char in format: 'z'", Assert.Throws<CommandException>(() => MemoryFormat.Parse("4z")).Message);
    }
}
