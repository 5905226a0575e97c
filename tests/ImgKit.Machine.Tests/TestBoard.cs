using ImgKit.Block;
using ImgKit.Boards;
using ImgKit.Machine.Chipset;

namespace ImgKit.Machine.Tests;

/// <summary>2 MiB of RAM, and a clock that is moved by hand.</summary>
internal sealed class TestBoard : BareBoard
{
    internal TestBoard() : base(2 << 20, [(0, 2 << 20)], 2) => Services.IsaInterrupts = Lines;

    /// <summary>The device under test, where a test needs it again.</summary>
    internal Device? Controller { get; set; }

    internal LineRecorder Lines { get; } = new();
}

/// <summary>Remembers the level of lines, and how often each rose.</summary>
internal sealed class LineRecorder : IInterruptSink
{
    internal bool[] Level { get; } = new bool[32];

    internal int[] Rises { get; } = new int[32];

    public void SetLine(int line, bool asserted)
    {
        if (asserted && !Level[line])
            Rises[line]++;
        Level[line] = asserted;
    }
}

/// <summary>A processor for APICs to talk to.</summary>
internal sealed class TestProcessor : IApicProcessor
{
    internal bool Line { get; private set; }

    internal List<string> Signals { get; } = [];

    public void SetInterruptLine(bool asserted) => Line = asserted;

    public void RaiseNmi() => Signals.Add("nmi");

    public void RaiseSmi() => Signals.Add("smi");

    public void RaiseInit() => Signals.Add("init");

    public void RaiseStartup(byte vector) => Signals.Add($"startup {vector:x2}");
}

/// <summary>A disk in memory whose next requests can be made to fail.</summary>
internal sealed class MemoryDisk(long length) : BlockDevice
{
    internal byte[] Bytes { get; } = new byte[length];

    internal Exception? Failure { get; set; }

    internal int Flushes { get; private set; }

    internal int Reads { get; private set; }

    internal List<(long Offset, long Count)> Discards { get; } = [];

    public override long Length => Bytes.Length;

    public override string DriverName => "memory";

    /// <summary>Told of each read, on the thread that makes it.</summary>
    internal Action<long>? Reading { get; set; }

    public override void ReadVector(long offset, ReadOnlySpan<IoBuffer> buffers)
    {
        Reads++;
        Reading?.Invoke(offset);
        base.ReadVector(offset, buffers);
    }

    public override void Read(long offset, Span<byte> destination)
    {
        CheckRange(offset, destination.Length);
        if (Failure != null)
            throw Failure;
        Bytes.AsSpan((int)offset, destination.Length).CopyTo(destination);
    }

    public override void Write(long offset, ReadOnlySpan<byte> source)
    {
        CheckRange(offset, source.Length);
        if (Failure != null)
            throw Failure;
        source.CopyTo(Bytes.AsSpan((int)offset));
    }

    public override void Discard(long offset, long count) => Discards.Add((offset, count));

    public override void Flush() => Flushes++;
}
