namespace ImgKit.Machine.Tests;

/// <summary>Commands with tags: their targets leave the bus while they work, and come back.</summary>
public sealed class ScsiTagTests : ScsiRig
{
    private const ulong Back = Script + 0x800;

    public ScsiTagTests()
    {
        _board.Out(Ports + 4, 0x47);        // responds to reselection
        _adapter.Patience = 0;
        // Comes back: reselected, IDENTIFY with the tag, status, COMMAND COMPLETE.
        Write(Back, 0x50000000, (uint)Back + 0x100, 0x0F000003, (uint)Message + 8, 0x60000040, 0, 0x7C027F00, 0,
            0x0B000001, (uint)Status, 0x0F000001, (uint)Status + 1, 0x60000040, 0, 0x48000000, 0, Interrupt, 0x77);
        Write(Back + 0x100, Interrupt, 0x99);
    }

    /// <summary>Sends a read of a block with a tag; the target takes the place of the data and leaves.</summary>
    private void Send(byte tag, byte block, byte kind = 0x20)
    {
        Memory.Write(Cdb, [0x28, 0, 0, 0, 0, block, 0, 0, 1, 0]);
        Memory.Write(Message, [0xC0, kind, tag]);
        Memory.Write(Status, [0xEE, 0xEE]);
        Write(Script, 0x41000000, 0, 0x0E000003, (uint)Message, 0x0A00000A, (uint)Cdb, 0x09000200, (uint)Data + (uint)tag * 512,
            0x0F000001, (uint)Status, 0x60000040, 0, 0x7C027F00, 0, 0x0F000001, (uint)Status + 1, 0x60000040, 0, 0x48000000, 0, Interrupt, 0x55);
        _board.Out(Ports + Dsp, (uint)Script, 4);
        Assert.Equal(0x55u, Register32(Dsps));
        Assert.Equal(0x84, Register(Dstat));
        Assert.Equal([2, 4], Read(Status, 2));      // SAVE DATA POINTER, DISCONNECT
        Assert.Equal(0, Register(Istat) & 8);
    }

    /// <summary>Waits for a target that comes back. Returns its tag and the status.</summary>
    private (byte Tag, byte Status) Receive()
    {
        _board.Out(Ports + Dsp, (uint)Back, 4);
        for (int i = 0; (Register(Istat) & 1) == 0; i++)
        {
            Assert.True(i < 5000, "nobody came back");
            Thread.Sleep(1);
        }
        Assert.Equal(0x77u, Register32(Dsps));
        Assert.Equal(0x84, Register(Dstat));
        Assert.Equal(0, Register(Sist0));
        Assert.Equal(0x80, Register(0x0A));         // SSID: valid, target 0
        byte[] message = Read(Message + 8, 3), status = Read(Status, 2);
        Assert.Equal([0x80, 0x20], message[..2]);
        Assert.Equal(0, status[1]);
        return (message[2], status[0]);
    }

    private void Ready()
    {
        // The unit attention of power-on, and its sense data.
        Assert.Equal(2, Untagged([0, 0, 0, 0, 0, 0], 0));
        Assert.Equal((6, 0x29), Sense());
    }

    /// <summary>A command without a tag, which stays on the bus. Returns the status.</summary>
    private byte Untagged(byte[] cdb, int length)
    {
        Memory.Write(Cdb, cdb);
        Memory.Write(Message, [0x80]);
        uint[] data = length > 0 ? [0x09000000u | (uint)length, (uint)Data] : [];
        Write(Script, [0x41000000, 0, 0x0E000001, (uint)Message, 0x0A000000u | (uint)cdb.Length, (uint)Cdb, .. data, 0x7C027F00, 0,
            0x0B000001, (uint)Status, 0x0F000001, (uint)Status + 1, 0x60000040, 0, 0x48000000, 0, Interrupt, 0x66]);
        Run();
        Assert.Equal(0x66u, Register32(Dsps));
        Assert.Equal(0x84, Register(Dstat));
        return Read(Status, 1)[0];
    }

    private (byte Key, byte Code) Sense()
    {
        Assert.Equal(0, Untagged([3, 0, 0, 0, 18, 0], 18));
        byte[] sense = Read(Data, 14);
        return (sense[2], sense[12]);
    }

    [Fact]
    public void Commands_of_one_target_are_worked_on_together()
    {
        Ready();
        using var both = new Barrier(2);
        _disk.Reading = _ => Assert.True(both.SignalAndWait(10_000));
        Send(7, 3);
        Send(8, 5);
        var tags = new[] { Receive(), Receive() };
        Assert.Equal([(7, 0), (8, 0)], tags.Order().Select(t => ((int)t.Tag, (int)t.Status)));
        Assert.Equal(_disk.Bytes.AsSpan(3 * 512, 512).ToArray(), Read(Data + 7 * 512, 512));
        Assert.Equal(_disk.Bytes.AsSpan(5 * 512, 512).ToArray(), Read(Data + 8 * 512, 512));
    }

    [Fact]
    public void An_ordered_command_waits_for_those_before_it()
    {
        Ready();
        using var first = new ManualResetEventSlim();
        var order = new List<long>();
        _disk.Reading = at =>
        {
            if (at == 512)
                Assert.True(first.Wait(10_000));
            lock (order)
                order.Add(at / 512);
        };
        Send(1, 1);
        // Nothing of an ordered command that has to wait goes over the bus: it comes back for its data.
        Memory.Write(Cdb, [0x28, 0, 0, 0, 0, 2, 0, 0, 1, 0]);
        Memory.Write(Message, [0xC0, 0x22, 2]);
        Write(Script, 0x41000000, 0, 0x0E000003, (uint)Message, 0x0A00000A, (uint)Cdb, 0x0F000002, (uint)Status, 0x7C027F00, 0, 0x60000040, 0, 0x48000000, 0, Interrupt, 0x55);
        _board.Out(Ports + Dsp, (uint)Script, 4);
        Assert.Equal(0x55u, Register32(Dsps));
        Assert.Equal([2, 4], Read(Status, 2));
        Assert.Equal(0x84, Register(Dstat));
        first.Set();
        Assert.Equal((1, 0), Receive());
        // It is back, in the phase for data.
        Write(Script, 0x50000000, (uint)Back + 0x100, 0x0F000003, (uint)Message + 8, 0x60000040, 0, 0x09000200, (uint)Data, 0x0F000002, (uint)Status, 0x7C027F00, 0,
            0x60000040, 0, 0x48000000, 0, Interrupt, 0x56);
        Run();
        Assert.Equal(0x56u, Register32(Dsps));
        Assert.Equal(0x84, Register(Dstat));
        Assert.Equal((2, 0), Receive());
        Assert.Equal([1, 2], order);
        Assert.Equal(_disk.Bytes.AsSpan(1024, 512).ToArray(), Read(Data, 512));
    }

    [Fact]
    public void A_second_failure_waits_until_the_first_has_been_asked_about()
    {
        Ready();
        _disk.Failure = new IOException("bad");
        Send(1, 1);
        Send(2, 2);
        _board.Drain();
        var first = Receive();
        Assert.Equal(2, first.Status);
        // Nobody comes back: the script waits.
        _board.Out(Ports + Dsp, (uint)Back, 4);
        Assert.Equal(0, Register(Istat) & 1);
        _board.Out(Ports + Istat, 0x20);
        Assert.Equal(0x99u, Register32(Dsps));
        Assert.Equal(0x84, Register(Dstat));
        Assert.Equal((3, 0x11), Sense());
        var second = Receive();
        Assert.Equal(2, second.Status);
        Assert.Equal(3, first.Tag + second.Tag);
        Assert.Equal((3, 0x11), Sense());
    }

    [Fact]
    public void A_command_is_aborted_by_its_tag()
    {
        Ready();
        using var gate = new ManualResetEventSlim();
        _disk.Reading = at => Assert.True(at != 512 || gate.Wait(10_000));
        Send(1, 1);
        Send(2, 2);
        Memory.Write(Message, [0xC0, 0x20, 1, 0x0D]);
        Write(Script, 0x41000000, 0, 0x7C027F00, 0, 0x0E000004, (uint)Message, 0x48000000, 0, Interrupt, 0x57);
        _board.Out(Ports + Dsp, (uint)Script, 4);
        Assert.Equal(0x57u, Register32(Dsps));
        Assert.Equal(0x84, Register(Dstat));
        gate.Set();
        _board.Drain();
        Assert.Equal((2, 0), Receive());
        // The tag is free again.
        Send(1, 6);
        Assert.Equal((1, 0), Receive());
    }

    [Fact]
    public void What_has_left_the_bus_comes_back_elsewhere_after_its_state_was_saved()
    {
        Ready();
        Send(3, 4);
        _board.Drain();
        var state = new StateWriter();
        _adapter.Describe(state);
        using var board = new TestBoard();
        var (other, _) = Plug(board, _disk, _cd);
        Assert.Equal(150_000, other.Patience);
        using var _2 = other;
        board.Services.Memory.Write(0, Read(0, 0x20000));
        other.Describe(new StateReader(state.ToArray()));
        board.Out(Ports + Dsp, (uint)Back, 4);
        board.Drain();
        Assert.Equal(0x77u, board.In(Ports + Dsps, 4));
        var read = new byte[3];
        board.Services.Memory.Read(Message + 8, read);
        Assert.Equal([0x80, 0x20, 3], read);
    }
}
