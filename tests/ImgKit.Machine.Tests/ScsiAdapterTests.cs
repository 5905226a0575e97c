using System.Buffers.Binary;
using System.Text;

namespace ImgKit.Machine.Tests;

/// <summary>The SCSI adapter, programmed as drivers do: by scripts in memory.</summary>
public sealed class ScsiAdapterTests : ScsiRig
{
    /// <summary>Runs a command; data goes from or to Data. Returns the status.</summary>
    private int Command(byte[] cdb, int length = 0, bool write = false, int target = 0, int lun = 0)
    {
        Memory.Write(Cdb, cdb);
        Memory.Write(Message, [(byte)(0xC0 | lun), 0x20, 5]);
        Memory.Write(Status, [0xEE, 0xEE]);
        var script = new List<uint> { 0x41000000u | (uint)target << 16, 0, 0x0E000003, (uint)Message, 0x0A000000u | (uint)cdb.Length, (uint)Cdb };
        if (length > 0)
            script.AddRange([(write ? 0x08000000u : 0x09000000u) | (uint)length, (uint)Data]);
        int tail = script.Count;
        // That the target leaves is expected from here on.
        script.AddRange([0x7C027F00, 0, 0x0B000001, (uint)Status, 0x0F000001, (uint)Status + 1, 0x60000040, 0, 0x48000000, 0, Interrupt, 0x1234]);
        Write(Script, [.. script]);
        Run();
        byte sist = Register(Sist0);
        if (sist == 0x80)
        {
            // The target had other data than the script: it goes on with the status.
            _left = (int)(Register32(0x24) & 0xFFFFFF);
            Run(Script + 4 * (ulong)tail);
        }
        else
        {
            Assert.Equal(0, sist);
            _left = 0;
        }
        Assert.Equal(0x84, Register(Dstat));
        Assert.Equal(0x1234u, Register32(Dsps));
        Assert.Equal(0, Register(Istat) & 8);
        byte[] status = Read(Status, 2);
        Assert.Equal(0, status[1]);
        return status[0];
    }

    private int _left;

    private (byte Key, byte Code, byte Qualifier) Sense(int target = 0, int lun = 0)
    {
        Assert.Equal(0, Command([3, 0, 0, 0, 18, 0], 18, target: target, lun: lun));
        byte[] s = Read(Data, 18);
        return (s[2], s[12], s[13]);
    }

    private void Ready(int target = 0, int lun = 0)
    {
        Assert.Equal(2, Command([0, 0, 0, 0, 0, 0], target: target, lun: lun));
        Assert.Equal((6, 0x29, 0), Sense(target, lun));
        Assert.Equal(0, Command([0, 0, 0, 0, 0, 0], target: target, lun: lun));
    }

    private static byte[] Ten(byte op, uint block, ushort count, byte flags = 0)
    {
        var cdb = new byte[10];
        cdb[0] = op;
        cdb[1] = flags;
        BinaryPrimitives.WriteUInt32BigEndian(cdb.AsSpan(2), block);
        BinaryPrimitives.WriteUInt16BigEndian(cdb.AsSpan(7), count);
        return cdb;
    }

    [Fact]
    public void Inquiry_answers_before_the_unit_attention_of_power_on()
    {
        Assert.Equal(0, Command([0x12, 0, 0, 0, 36, 0], 36));
        byte[] data = Read(Data, 36);
        Assert.Equal(0, data[0]);
        Assert.Equal("QEMU    QEMU HARDDISK   2.5+", Encoding.ASCII.GetString(data, 8, 28));
        Ready();
    }

    [Fact]
    public void Vital_product_data_lists_its_pages()
    {
        Assert.Equal(0, Command([0x12, 1, 0, 0, 255, 0], 255));
        int n = Read(Data, 4)[3];
        Assert.Equal(255 - 4 - n, _left);
        foreach (byte page in Read(Data + 4, n))
        {
            Assert.Equal(0, Command([0x12, 1, page, 0, 255, 0], 255));
            Assert.Equal(page, Read(Data, 4)[1]);
        }
        Assert.Equal(0, Command([0x12, 1, 0x80, 0, 6, 0], 6));
        Assert.Equal("S7", Encoding.ASCII.GetString(Read(Data + 4, 2)));
        Assert.Equal(2, Command([0x12, 1, 0x55, 0, 255, 0], 255));
        Assert.Equal((5, 0x24, 0), Sense());
        // The CD-ROM drive, which has no serial number
        Assert.Equal(0, Command([0x12, 1, 0, 0, 255, 0], 255, target: 2, lun: 1));
        Assert.Equal([5, 0, 0, 2, 0, 0x83], Read(Data, 6));
        Assert.Equal(0, Command([0x12, 1, 0x83, 0, 255, 0], 255, target: 2, lun: 1));
        Assert.Equal([5, 0x83, 0, 6, 2, 0, 0, 2, (byte)'c', (byte)'d'], Read(Data, 10));
    }

    [Theory]
    [InlineData(6)]
    [InlineData(10)]
    [InlineData(12)]
    [InlineData(16)]
    public void It_reads_and_writes_with_commands_of_every_length(int size)
    {
        Ready();
        byte[] Cdb(bool write, uint block, byte count)
        {
            byte[] b = [(size, write) switch { (6, false) => 8, (6, true) => 0xA, (10, false) => 0x28, (10, true) => 0x2A, (12, false) => 0xA8, (12, true) => 0xAA, (_, false) => 0x88, _ => 0x8A }, .. new byte[size - 1]];
            if (size == 6)
                (b[2], b[3], b[4]) = ((byte)(block >> 8), (byte)block, count);
            else
            {
                BinaryPrimitives.WriteUInt32BigEndian(b.AsSpan(size == 16 ? 6 : 2), block);
                b[size switch { 10 => 8, 12 => 9, _ => 13 }] = count;
            }
            return b;
        }

        Assert.Equal(0, Command(Cdb(false, 300, 9), 9 * 512));
        Assert.Equal(_disk.Bytes.AsSpan(300 * 512, 9 * 512).ToArray(), Read(Data, 9 * 512));
        var data = new byte[3 * 512];
        new Random(size).NextBytes(data);
        Memory.Write(Data, data);
        Assert.Equal(0, Command(Cdb(true, 700, 3), data.Length, true));
        Assert.Equal(data, _disk.Bytes.AsSpan(700 * 512, data.Length).ToArray());
        int flushes = _disk.Flushes;
        if (size > 6)
        {
            byte[] forced = Cdb(true, 700, 3);
            forced[1] = 8;
            Assert.Equal(0, Command(forced, data.Length, true));
            Assert.Equal(flushes + 1, _disk.Flushes);
        }
        Assert.Equal(2, Command(Cdb(false, 8191, 2), 1024));
        Assert.Equal(1024, _left);
        Assert.Equal((5, 0x21, 0), Sense());
    }

    [Fact]
    public void A_scatter_list_in_a_table_is_one_request()
    {
        Ready();
        Memory.Write(Cdb, Ten(0x28, 16, 24));
        Memory.Write(Message, [0xC0]);
        // Three pieces; the last is longer than what is left.
        Write(Table, 4096, 0x20000, 4096, 0x30000, 8192, 0x40000);
        Write(Script, 0x41000000, 0, 0x0E000001, (uint)Message, 0x0A00000A, (uint)Cdb,
            0x11000000, 0, 0x11000000, 8, 0x11000000, 16, Interrupt, 1);
        _board.Out(Ports + 0x10, (uint)Table, 4);
        int reads = _disk.Reads;
        Run();
        Assert.Equal(reads + 1, _disk.Reads);
        Assert.Equal(0x80, Register(Sist0));
        Assert.Equal(4096u, Register32(0x24) & 0xFFFFFF);
        Assert.Equal((uint)Script + 48, Register32(Dsp));
        byte[] read = [.. Read(0x20000, 4096), .. Read(0x30000, 4096), .. Read(0x40000, 4096)];
        Assert.Equal(_disk.Bytes.AsSpan(16 * 512, 24 * 512).ToArray(), read);
    }

    [Fact]
    public void A_mismatch_of_phases_jumps_when_the_chip_is_told_to()
    {
        Ready();
        Memory.Write(Cdb, Ten(0x28, 0, 1));
        Memory.Write(Message, [0x80]);
        Write(Script, 0x41000000, 0, 0x0E000001, (uint)Message, 0x0A00000A, (uint)Cdb, 0x09000400, (uint)Data, Interrupt, 1, Interrupt, 2);
        _board.Out(Ports + 0x56, 0x80);
        _board.Out(Ports + 0xC0, (uint)Script + 40, 4);
        Run();
        Assert.Equal(0, Register(Sist0));
        Assert.Equal(2u, Register32(Dsps));
        Assert.Equal(512u, Register32(0xC8) & 0xFFFFFF);
        Assert.Equal((uint)Data + 512, Register32(0xCC));
        Assert.Equal((uint)Script + 24, Register32(0xD4));
    }

    [Fact]
    public void Errors_of_the_block_layer_become_sense_data()
    {
        Ready();
        _disk.Failure = new IOException("broken");
        Assert.Equal(2, Command(Ten(0x28, 0, 8), 4096));
        Assert.Equal(4096, _left);
        Assert.Equal((3, 0x11, 0), Sense());
        Assert.Contains("block-error d read report False", _board.Requests);
        Assert.Equal(2, Command(Ten(0x2A, 0, 1), 512, true));
        Assert.Equal((3, 0x0C, 0), Sense());
        _disk.Failure = new Block.ImageException(Block.ImageErrorKind.Io, "full") { Errno = 28 };
        Assert.Equal(2, Command(Ten(0x2A, 0, 1), 512, true));
        Assert.Equal((7, 0x27, 7), Sense());
    }

    [Fact]
    public void Nobody_there_is_a_selection_timeout_where_the_script_needs_somebody()
    {
        // The processor goes on until then: the register is written.
        Write(Script, 0x41050000, 0, 0x78340000 | 0x5A << 8, 0, 0x9F030000, 7, Interrupt, 1);
        Run();
        Assert.Equal(0x04, Register(Sist1));
        Assert.Equal(0x5A, Register(0x34));
        Assert.Equal((uint)Script + 24, Register32(Dsp));
    }

    [Fact]
    public void Absent_units_say_so_and_are_not_listed()
    {
        Assert.Equal(0, Command([0x12, 0, 0, 0, 36, 0], 36, target: 2, lun: 3));
        Assert.Equal(0x7F, Read(Data, 1)[0]);
        Assert.Equal(2, Command([0, 0, 0, 0, 0, 0], target: 2, lun: 3));
        Assert.Equal((5, 0x25, 0), Sense(2, 3));
        Assert.Equal(0, Command([0xA0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0], 24, target: 2));
        Assert.Equal(16, BinaryPrimitives.ReadInt32BigEndian(Read(Data, 4)));
        Assert.Equal(1, Read(Data + 16, 2)[1]);
    }

    [Fact]
    public void Negotiation_is_rejected()
    {
        Memory.Write(Message, [0xC0, 1, 3, 1, 12, 31]);
        Write(Script, 0x41000000, 0, 0x0E000006, (uint)Message, 0x0F000001, (uint)Status, 0x60000040, 0, 0x9A030000, 0xBAD, Interrupt, 1);
        Run();
        Assert.Equal(7, Read(Status, 1)[0]);
        Assert.Equal(7, Register(0x08));
        // The command phase came after it.
        Assert.Equal(1u, Register32(Dsps));
    }

    [Fact]
    public void A_target_that_is_told_to_abort_leaves_the_bus()
    {
        Memory.Write(Message, [0x80, 6]);
        Write(Script, 0x41000000, 0, 0x0E000002, (uint)Message, Interrupt, 1);
        Run();
        Assert.Equal(0x04, Register(Sist0));
        Write(Script, 0x41000000, 0, 0x7C027F00, 0, 0x0E000002, (uint)Message, 0x48000000, 0, Interrupt, 1);
        Run();
        Assert.Equal(0, Register(Sist0));
        Assert.Equal(0x84, Register(Dstat));
    }

    [Fact]
    public void Capacity_is_told_in_both_sizes()
    {
        Ready();
        Assert.Equal(0, Command(Ten(0x25, 0, 0), 8));
        Assert.Equal([0, 0, 0x1F, 0xFF, 0, 0, 2, 0], Read(Data, 8));
        Assert.Equal(0, Command([0x9E, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0], 32));
        Assert.Equal(0x1FFF, BinaryPrimitives.ReadInt64BigEndian(Read(Data, 8)));
        Assert.Equal(0x80, Read(Data, 15)[14]);
    }

    [Fact]
    public void Unmap_discards_all_ranges_or_none()
    {
        Ready();
        var list = new byte[8 + 32];
        BinaryPrimitives.WriteUInt16BigEndian(list, 38);
        BinaryPrimitives.WriteUInt16BigEndian(list.AsSpan(2), 32);
        void Range(int i, long block, int count)
        {
            BinaryPrimitives.WriteInt64BigEndian(list.AsSpan(8 + 16 * i), block);
            BinaryPrimitives.WriteInt32BigEndian(list.AsSpan(16 + 16 * i), count);
        }

        Range(0, 8, 16);
        Range(1, 100, 4);
        Memory.Write(Data, list);
        Assert.Equal(0, Command([0x42, 0, 0, 0, 0, 0, 0, 0, 40, 0], 40, true));
        Assert.Equal([(8 * 512L, 16 * 512L), (100 * 512L, 4 * 512L)], _disk.Discards);
        Range(1, 8190, 4);
        Memory.Write(Data, list);
        Assert.Equal(2, Command([0x42, 0, 0, 0, 0, 0, 0, 0, 40, 0], 40, true));
        Assert.Equal((5, 0x21, 0), Sense());
        Assert.Equal(2, _disk.Discards.Count);
    }

    [Fact]
    public void Write_same_repeats_a_block()
    {
        Ready();
        byte[] block = new byte[512];
        new Random(8).NextBytes(block);
        Memory.Write(Data, block);
        Assert.Equal(0, Command(Ten(0x41, 64, 300), 512, true));
        for (int i = 64; i < 364; i++)
            Assert.Equal(block, _disk.Bytes.AsSpan(i * 512, 512).ToArray());
        Memory.Write(Data, new byte[512]);
        Assert.Equal(0, Command(Ten(0x41, 65, 298), 512, true));
        Assert.False(_disk.Bytes.AsSpan(65 * 512, 298 * 512).ContainsAnyExcept((byte)0));
        Assert.Equal(block, _disk.Bytes.AsSpan(64 * 512, 512).ToArray());
    }

    [Fact]
    public void The_write_cache_is_switched_by_its_mode_page_and_nothing_else_is()
    {
        Ready();
        Assert.Equal(0, Command([0x1A, 0, 8, 0, 255, 0], 255));
        byte[] page = Read(Data, 32);
        Assert.Equal(31, page[0]);
        Assert.Equal(0x10, page[2]);
        Assert.Equal(4, page[12 + 2]);
        page[0] = page[2] = 0;
        page[12 + 2] = 0;
        Memory.Write(Data, page);
        int flushes = _disk.Flushes;
        Assert.Equal(0, Command([0x15, 0x10, 0, 0, 32, 0], 32, true));
        Assert.Equal(0, Command(Ten(0x2A, 0, 1), 512, true));
        Assert.Equal(flushes + 2, _disk.Flushes);
        page[12 + 3] = 1;
        Memory.Write(Data, page);
        Assert.Equal(2, Command([0x15, 0x10, 0, 0, 32, 0], 32, true));
        Assert.Equal((5, 0x26, 0), Sense());
        Assert.Equal(0, Command(Ten(0x35, 0, 0)));
        Assert.Equal(flushes + 3, _disk.Flushes);
    }

    [Fact]
    public void The_cd_reads_its_sectors_and_table_of_contents()
    {
        Ready(2, 1);
        Assert.Equal(0, Command(Ten(0x28, 5, 7), 7 * 2048, target: 2, lun: 1));
        Assert.Equal(_cd.Bytes.AsSpan(5 * 2048, 7 * 2048).ToArray(), Read(Data, 7 * 2048));
        Assert.Equal(0, Command([0x43, 0, 0, 0, 0, 0, 0, 0, 20, 0], 20, target: 2, lun: 1));
        Assert.Equal(18, Read(Data, 2)[1]);
        // Raw sectors, more than the buffer holds at a time
        Assert.Equal(0, Command([0xBE, 0, 0, 0, 0, 4, 0, 0, 40, 0xF8, 0, 0], 40 * 2352, target: 2, lun: 1));
        byte[] raw = Read(Data, 40 * 2352);
        for (int i = 0; i < 40; i++)
            Assert.Equal(_cd.Bytes.AsSpan((4 + i) * 2048, 2048).ToArray(), raw.AsSpan(i * 2352 + 16, 2048).ToArray());
        Assert.Equal(2, Command(Ten(0x2A, 0, 1), 2048, true, 2, 1));
        Assert.Equal((5, 0x20, 0), Sense(2, 1));
    }

    [Fact]
    public void Registers_are_computed_with_carry()
    {
        // SCRATCHA0 = 0xF0 + 0x20, SCRATCHA1 = 1 + carry; SFBR = SCRATCHA0 | 3; SCRATCHA2 = SFBR ^ 0xFF; SCRATCHA3 = SCRATCHA1 << 1
        Write(Script, 0x78340000 | 0xF0 << 8, 0, 0x7E340000 | 0x20 << 8, 0, 0x78350100, 0, 0x7F350000, 0, 0x72340300, 0, 0x6B36FF00, 0,
            0x78370000 | 0x41 << 8, 0, 0x79370000, 0, Interrupt, 9);
        Run();
        Assert.Equal(9u, Register32(Dsps));
        Assert.Equal(0x82EC0210u, Register32(0x34));
    }

    [Fact]
    public void Memory_is_moved_loaded_and_stored_and_jumps_are_taken()
    {
        Memory.Write(Data, "0123456789abcdef"u8);
        Write(Script,
            0xC0000010, (uint)Data, (uint)Data + 0x100,         // memory move
            0xE1340004, (uint)Data,                             // load SCRATCHA
            0xE05C0004, (uint)Data + 0x200,                     // store SCRATCHB (0)
            0xE0340003, (uint)Data + 0x204,
            0x88080000, (uint)Script + 64,                      // call
            Interrupt, 0xBAD,                                   // returned here with the data different
            0, 0, 0,
            0x72340000, 0,                                      // SFBR = '0'
            0x80040031, (uint)Script + 44,                      // jump unless SFBR is '1'
            Interrupt, 0x600D);
        Run();
        Assert.Equal(0xBADu, Register32(Dsps));
        Assert.Equal("0123456789abcdef", Encoding.ASCII.GetString(Read(Data + 0x100, 16)));
        Assert.Equal("\0\0\0\0", Encoding.ASCII.GetString(Read(Data + 0x200, 4)));
        Assert.Equal("012", Encoding.ASCII.GetString(Read(Data + 0x204, 3)));
        Assert.Equal((uint)Script + 44, Register32(0x1C));
    }

    [Fact]
    public void The_host_signals_a_script_that_waits_to_be_reselected()
    {
        Write(Script, 0x50000000, (uint)Script + 16, Interrupt, 0xBAD, 0x74001A00 & 0xFF000000 | 0x1A0000, 0, 0x98180000, 0, 0x50000000, (uint)Script);
        Run();
        Assert.Equal(0, Register(Istat) & 7);
        _board.Out(Ports + Istat, 0x20);
        // Reading CTEST2 took the signal; an interrupt on the fly is raised and the script waits again.
        Assert.Equal(0x04, Register(Istat) & 0x27);
        _board.Out(Ports + Istat, 0x04);
        Assert.Equal(0, Register(Istat) & 0x27);
    }

    [Fact]
    public void A_script_that_loops_for_ever_lets_others_run_and_can_be_aborted()
    {
        Write(Script, ToJump, (uint)Script);
        Run();
        _board.Pass(10_000_000);
        Assert.Equal(0, Register(Istat) & 3);
        _board.Out(Ports + Istat, 0x80);
        Assert.Equal(0x90, Register(Dstat));
    }

    [Theory]
    [InlineData(0xF0000000u)]
    [InlineData(0xFFFFFFFCu)]
    public void A_script_where_there_is_no_memory_is_a_bus_fault(uint at)
    {
        _board.Out(Ports + Dsp, at, 4);
        Assert.Equal(0xA0, Register(Dstat));
        Ready();
        Assert.Equal(0, Command(Ten(0x28, 0, 1), 512));
    }

    [Fact]
    public void Data_to_where_there_is_no_memory_is_a_bus_fault()
    {
        Ready();
        Memory.Write(Cdb, Ten(0x28, 0, 1));
        Memory.Write(Message, [0x80]);
        Write(Script, 0x41000000, 0, 0x0E000001, (uint)Message, 0x0A00000A, (uint)Cdb, 0x09000200, 0xF0000000, Interrupt, 1);
        Run();
        Assert.Equal(0xA0, Register(Dstat));
        // A reset of the bus frees it.
        _board.Out(Ports + 1, 8);
        Assert.Equal(2, Register(Sist0));
        Assert.Equal(2, Register(0x0D) & 2);
        _board.Out(Ports + 1, 0);
        Assert.Equal(2, Command([0, 0, 0, 0, 0, 0]));
        Assert.Equal((6, 0x29, 2), Sense());
    }

    [Fact]
    public void State_saved_in_the_middle_of_a_command_goes_on_elsewhere()
    {
        Ready();
        Memory.Write(Cdb, Ten(0x28, 3, 2));
        Memory.Write(Message, [0x80]);
        Write(Script, 0x41000000, 0, 0x0E000001, (uint)Message, 0x0A00000A, (uint)Cdb, 0x09000200, (uint)Data, Interrupt, 1,
            0x09000200, (uint)Data + 512, Interrupt, 2);
        Run();
        Assert.Equal(1u, Register32(Dsps));
        var state = new StateWriter();
        _adapter.Describe(state);
        using var board = new TestBoard();
        var (other, _) = Plug(board, _disk, _cd);
        using var _2 = other;
        board.Services.Memory.Write(0, Read(0, 0x20000));
        other.Describe(new StateReader(state.ToArray()));
        board.Out(Ports + Dcntl, 4);
        board.Drain();
        Assert.Equal(2u, board.In(Ports + Dsps, 4));
        var read = new byte[1024];
        board.Services.Memory.Read(Data, read);
        Assert.Equal(_disk.Bytes.AsSpan(3 * 512, 1024).ToArray(), read);
    }
}
