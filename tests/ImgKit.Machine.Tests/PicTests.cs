using ImgKit.Machine.Chipset;

namespace ImgKit.Machine.Tests;

public sealed class PicTests : IDisposable
{
    private readonly TestBoard _board = new();
    private readonly Pic _pic;
    private bool _output;

    public PicTests()
    {
        _pic = new Pic(_board.Services, level => _output = level);
        foreach (var (port, vector, cascade) in new[] { (0x20, 0x08, 4), (0xA0, 0x70, 2) })
        {
            _board.Out((ushort)port, 0x11);
            _board.Out((ushort)(port + 1), (uint)vector);
            _board.Out((ushort)(port + 1), (uint)cascade);
            _board.Out((ushort)(port + 1), 1);
            _board.Out((ushort)(port + 1), 0);
        }
    }

    public void Dispose() => _board.Dispose();

    [Fact]
    public void The_lowest_line_comes_first()
    {
        _pic.SetLine(5, true);
        _pic.SetLine(3, true);
        Assert.True(_output);
        Assert.Equal(0x0B, _pic.Acknowledge());
        Assert.False(_output);
        _board.Out(0x20, 0x20);
        Assert.True(_output);
        Assert.Equal(0x0D, _pic.Acknowledge());
    }

    [Fact]
    public void A_line_in_service_holds_back_lower_priorities_and_lets_higher_ones_through()
    {
        _pic.SetLine(4, true);
        Assert.Equal(0x0C, _pic.Acknowledge());
        _pic.SetLine(6, true);
        Assert.False(_output);
        _pic.SetLine(1, true);
        Assert.True(_output);
        Assert.Equal(0x09, _pic.Acknowledge());
    }

    [Fact]
    public void A_slave_line_comes_through_line_2_and_needs_two_ends()
    {
        _pic.SetLine(14, true);
        Assert.Equal(0x76, _pic.Acknowledge());
        _pic.SetLine(15, true);
        Assert.False(_output);
        _board.Out(0xA0, 0x20);
        Assert.False(_output);
        _board.Out(0x20, 0x20);
        Assert.True(_output);
        Assert.Equal(0x77, _pic.Acknowledge());
    }

    [Fact]
    public void A_request_that_goes_away_gives_the_spurious_vector()
    {
        _board.Out(0x4D0, 0x08);
        _pic.SetLine(3, true);
        _pic.SetLine(3, false);
        Assert.False(_output);
        Assert.Equal(0x0F, _pic.Acknowledge());
        _board.Out(0x20, 0x0B);
        Assert.Equal(0u, _board.In(0x20));
    }

    [Theory]
    [InlineData(3, 0x0B)]
    [InlineData(8, 0x70)]
    public void A_pulse_is_kept_until_its_acknowledge(int line, int vector)
    {
        _pic.SetLine(line, true);
        _pic.SetLine(line, false);
        Assert.True(_output);
        Assert.Equal(vector, _pic.Acknowledge());
        Assert.False(_output);
    }

    [Fact]
    public void An_edge_counts_once_and_a_level_again_after_its_end()
    {
        _pic.SetLine(3, true);
        _pic.Acknowledge();
        _board.Out(0x20, 0x20);
        Assert.False(_output);
        _pic.SetLine(3, false);
        _board.Out(0x4D1, 0x08);
        _pic.SetLine(11, true);
        _pic.Acknowledge();
        _board.Out(0xA0, 0x20);
        _board.Out(0x20, 0x20);
        Assert.True(_output);
        Assert.Equal(0x73, _pic.Acknowledge());
    }

    [Fact]
    public void A_masked_line_waits()
    {
        _board.Out(0x21, 0x08);
        _pic.SetLine(3, true);
        Assert.False(_output);
        Assert.Equal(0x08u, _board.In(0x21));
        _board.Out(0x21, 0);
        Assert.True(_output);
    }

    [Fact]
    public void Rotation_makes_the_ended_line_the_lowest()
    {
        _pic.SetLine(3, true);
        _pic.Acknowledge();
        _board.Out(0x20, 0xA0);
        _pic.SetLine(3, false);
        _pic.SetLine(3, true);
        _pic.SetLine(5, true);
        Assert.Equal(0x0D, _pic.Acknowledge());
    }

    [Fact]
    public void Automatic_end_leaves_nothing_in_service()
    {
        _board.Out(0x20, 0x11);
        _board.Out(0x21, 0x20);
        _board.Out(0x21, 4);
        _board.Out(0x21, 3);
        _pic.SetLine(1, true);
        Assert.Equal(0x21, _pic.Acknowledge());
        _board.Out(0x20, 0x0B);
        Assert.Equal(0u, _board.In(0x20));
    }

    [Fact]
    public void Polling_acknowledges_and_names_the_line()
    {
        _pic.SetLine(6, true);
        _board.Out(0x20, 0x0C);
        Assert.Equal(0x86u, _board.In(0x20));
        Assert.False(_output);
    }

    [Fact]
    public void Its_state_goes_into_another_one()
    {
        _pic.SetLine(4, true);
        _pic.Acknowledge();
        _pic.SetLine(12, true);
        var writer = new StateWriter();
        _pic.Describe(writer);
        using var board = new TestBoard();
        bool output = false;
        var other = new Pic(board.Services, level => output = level);
        other.Describe(new StateReader(writer.ToArray()));
        var again = new StateWriter();
        other.Describe(again);
        Assert.Equal(writer.ToArray(), again.ToArray());
        Assert.True(output);
        Assert.Equal(0x74, other.Acknowledge());
    }
}
