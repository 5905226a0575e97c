namespace ImgKit.Cpu.Translator;

/// <summary>
/// Which vCPUs hold code translated from which page of host memory: a bit a vCPU, 32 at most. Pages whose addresses are equal modulo
/// 256 GiB share an entry, which only makes stores to them slower.
/// </summary>
internal sealed unsafe class CodeMap : IDisposable
{
    /// <summary>An entry has 4 bytes; its index is the page number modulo this.</summary>
    public const long Entries = 1L << 26;
    private readonly uint* _masks;

    public CodeMap()
    {
        nint map = NativeMethods.Map(0, (nuint)(Entries * 4), NativeMethods.ProtRead | NativeMethods.ProtWrite,
            NativeMethods.MapPrivate | NativeMethods.MapAnonymous | NativeMethods.MapNoReserve, -1, 0);
        if (map == -1)
            throw new PlatformNotSupportedException("no address space for the map of code pages");
        _masks = (uint*)map;
    }

    /// <summary>The first entry.</summary>
    public uint* Masks => _masks;

    private uint* Entry(ulong hostPage) => _masks + (hostPage >> 12 & (ulong)Entries - 1);

    public uint Get(ulong hostPage) => Volatile.Read(ref *Entry(hostPage));

    public void Set(ulong hostPage, int vcpu) => Interlocked.Or(ref *Entry(hostPage), 1u << vcpu);

    public void Clear(ulong hostPage, int vcpu) => Interlocked.And(ref *Entry(hostPage), ~(1u << vcpu));

    public void Dispose() => _ = NativeMethods.Unmap((nint)_masks, (nuint)(Entries * 4));
}
