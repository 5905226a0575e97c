namespace ImgKit.Machine.Monitors;

/// <summary>Memory as monitors look at it. On the control thread.</summary>
/// <param name="pc">the machine.</param>
/// <param name="processor">by whose pages addresses are translated; null: they are physical.</param>
internal sealed class MonitorMemory(Pc pc, int? processor)
{
    private const int PageSize = 4096, PieceSize = 1 << 20;

    /// <summary>The machine.</summary>
    internal Pc Pc => pc;

    /// <summary>The processor whose registers belong to what is looked at.</summary>
    internal int Processor => processor ?? 0;

    /// <summary>Reads until something is not memory. Returns how many bytes were.</summary>
    internal int Read(ulong address, Span<byte> to)
    {
        if (processor is not { } cpu)
            return ReadPhysical(address, to);
        int done = 0;
        while (done < to.Length)
        {
            long physical = Translate(cpu, address + (ulong)done);
            if (physical < 0)
                break;
            int wanted = (int)Math.Min(to.Length - done, PageSize - (physical & (PageSize - 1)));
            int got = ReadPhysical((ulong)physical, to.Slice(done, wanted));
            done += got;
            if (got < wanted)
                break;
        }
        return done;
    }

    private long Translate(int cpu, ulong address) => pc.WithStandingProcessors(() => Commands.Processor(pc, cpu).TranslateAddress(address));

    private int ReadPhysical(ulong address, Span<byte> to)
    {
        lock (pc.Services.Lock)
        {
            if (pc.Services.Memory.Read(address, to))
                return to.Length;
            var window = pc.Devices.OfType<IPhysicalWindow>().FirstOrDefault();
            for (int i = 0; i < to.Length; i++)
                if (!pc.Services.Memory.Read(address + (ulong)i, to.Slice(i, 1)))
                {
                    if (window?.Peek(address + (ulong)i) is not { } value)
                        return i;
                    to[i] = value;
                }
            return to.Length;
        }
    }

    /// <summary>Writes a range to a file, which is made anew. Physical ranges that are not memory are zeroes in it. Throws <see cref="CommandException"/>.</summary>
    internal void Save(ulong address, ulong size, string file)
    {
        using var output = Commands.CreateFile(file);
        byte[] piece = new byte[Math.Min(size, PieceSize)];
        for (ulong done = 0; done < size;)
        {
            var span = piece.AsSpan(0, (int)Math.Min(size - done, PieceSize));
            // Zeroes for pages that are not there.
            for (int at = 0, n; at < span.Length; at += n)
            {
                ulong from = address + done + (ulong)at;
                n = (int)Math.Min(span.Length - at, PageSize - (long)(from & (PageSize - 1)));
                int got = Read(from, span.Slice(at, n));
                if (got < n && processor != null)
                    throw new CommandException($"Invalid addr 0x{from:x16}/size {size} specified");
                span[(at + got)..(at + n)].Clear();
            }
            Commands.Guarded(file, () => output.Write(piece, 0, (int)Math.Min(size - done, PieceSize)));
            done += (ulong)span.Length;
        }
    }
}

/// <summary>Memory of a device that is not in the flat map, such as the VGA window: for looking at it without side effects.</summary>
public interface IPhysicalWindow
{
    /// <summary>The byte at a physical address; null where the device has none.</summary>
    byte? Peek(ulong address);
}
