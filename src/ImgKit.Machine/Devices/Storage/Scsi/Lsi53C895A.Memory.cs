namespace ImgKit.Machine.Devices.Storage.Scsi;

// Memory moves, loads and stores (manual, chapter 5).
public sealed partial class Lsi53C895A
{
    private void MoveMemory(uint first, uint source)
    {
        uint at = Get32(Dsp);
        if (!Fetch(ref at, out uint target))
            return;
        Set32(Dsp, at);
        Set32(Temp, target);
        uint left = first & 0xFFFFFF;
        Span<byte> piece = stackalloc byte[1024];
        while (left > 0)
        {
            int n = (int)Math.Min(left, (uint)piece.Length);
            if (!ReadOwnOrMemory(source, piece[..n]) || !WriteOwnOrMemory(target, piece[..n]))
            {
                DmaInterrupt(BusFault);
                return;
            }
            source += (uint)n;
            target += (uint)n;
            left -= (uint)n;
        }
    }

    // A memory move may name the adapter's own registers.
    private bool IsOwn(uint address, out int register)
    {
        ulong bar = BarAddress(1);
        register = (int)(address & 0xFF);
        return bar != 0 && address >= bar && address - bar < 1024;
    }

    private bool ReadOwnOrMemory(uint address, Span<byte> to)
    {
        if (!IsOwn(address, out int register))
            return Services.Memory.Read(address, to);
        for (int i = 0; i < to.Length; i++)
            to[i] = ReadByte((register + i) & 0xFF);
        return true;
    }

    private bool WriteOwnOrMemory(uint address, ReadOnlySpan<byte> from)
    {
        if (!IsOwn(address, out int register))
            return Services.Memory.Write(address, from);
        for (int i = 0; i < from.Length; i++)
            WriteByte((register + i) & 0xFF, from[i]);
        return true;
    }

    private void LoadStore(uint first, uint second)
    {
        int register = (int)(first >> 16 & 0xFF), count = (int)(first & 7);
        if (count is 0 or > 4)
        {
            DmaInterrupt(IllegalInstruction);
            return;
        }
        uint address = (first & 0x1000_0000) != 0 ? Get32(Dsa) + SignExtend(second) : second;
        Set32(Dnad, address);
        Span<byte> data = stackalloc byte[4];
        data = data[..count];
        bool load = (first & 0x0100_0000) != 0, ok;
        if (load)
        {
            ok = Services.Memory.Read(address, data);
            for (int i = 0; ok && i < count; i++)
                WriteByte((register + i) & 0xFF, data[i]);
        }
        else
        {
            for (int i = 0; i < count; i++)
                data[i] = ReadByte((register + i) & 0xFF);
            ok = Services.Memory.Write(address, data);
        }
        if (!ok)
            DmaInterrupt(BusFault);
    }
}
