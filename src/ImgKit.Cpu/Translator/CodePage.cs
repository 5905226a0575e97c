namespace ImgKit.Cpu.Translator;

/// <summary>Blocks of one page of host memory.</summary>
internal sealed class CodePage
{
    private struct Entry
    {
        public ulong Rip;
        public ulong Mode;
        public Block? Block;
    }

    // Open addressing: an entry is in the first free place from its own on.
    private Entry[] _table = new Entry[16];
    private int _count;

    /// <summary>Blocks of the page before whose one instruction ends in this page.</summary>
    public List<Block> Crossing => _crossing ??= [];

    private List<Block>? _crossing;

    /// <summary>Blocks that are gone, by what they were: when it is translated again, their entry jumps there.</summary>
    public Dictionary<(ulong Rip, ulong Mode), List<Block>> Retired => _retired ??= [];

    public bool HasRetired => _retired != null;

    private Dictionary<(ulong Rip, ulong Mode), List<Block>>? _retired;

    /// <summary>A bit for each byte that some block was made from.</summary>
    private readonly ulong[] _covered = new ulong[64];

    private static uint Hash(ulong rip, ulong mode) => (uint)(rip * 0x9E3779B1 + mode * 0x85EBCA77 >> 8);

    public Block? Find(ulong rip, ulong mode)
    {
        var table = _table;
        for (uint i = Hash(rip, mode); ; i++)
        {
            ref var entry = ref table[i & (uint)(table.Length - 1)];
            if (entry.Block == null || entry.Rip == rip && entry.Mode == mode)
                return entry.Block;
        }
    }

    /// <summary>Adds a block in place of an equal one.</summary>
    public void Add(Block block)
    {
        if (_count * 2 >= _table.Length)
            Rebuild(_table.Length * 2, null);
        for (uint i = Hash(block.Rip, block.ModeKey); ; i++)
        {
            ref var entry = ref _table[i & (uint)(_table.Length - 1)];
            if (entry.Block == null)
                _count++;
            else if (entry.Rip != block.Rip || entry.Mode != block.ModeKey)
                continue;
            entry = new Entry { Rip = block.Rip, Mode = block.ModeKey, Block = block };
            return;
        }
    }

    /// <summary>Removes the blocks of a set.</summary>
    public void Remove(List<Block> gone) => Rebuild(_table.Length, gone);

    private void Rebuild(int size, List<Block>? without)
    {
        var old = _table;
        _table = new Entry[size];
        _count = 0;
        foreach (var entry in old)
        {
            if (entry.Block != null && (without == null || !without.Contains(entry.Block)))
                Add(entry.Block);
        }
    }

    /// <summary>All blocks that bytes of this page belong to.</summary>
    public IEnumerable<Block> All()
    {
        foreach (var entry in _table)
        {
            if (entry.Block != null)
                yield return entry.Block;
        }
        if (_crossing == null)
            yield break;
        foreach (var block in _crossing)
            yield return block;
    }

    public void Cover(int start, int end)
    {
        for (int i = start; i < Math.Min(end, 4096); i++)
            _covered[i >> 6] |= 1UL << i;
    }

    public void ClearCover() => Array.Clear(_covered);

    public bool IsCovered(int start, int end)
    {
        for (int i = start; i < end;)
        {
            ulong word = _covered[i >> 6] >> i;
            int left = Math.Min(64 - (i & 63), end - i);
            if (left < 64)
                word &= (1UL << left) - 1;
            if (word != 0)
                return true;
            i += left;
        }
        return false;
    }
}
