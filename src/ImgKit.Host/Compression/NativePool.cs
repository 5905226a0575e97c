namespace ImgKit.Host.Compression;

/// <summary>Idle native objects, so that a request need not make one. Thread-safe, without locks; when it is full,
/// what comes back is freed.</summary>
internal sealed class NativePool(Func<nint> make, Action<nint> free)
{
    private readonly nint[] _idle = new nint[64];

    public nint Take()
    {
        nint o;
        for (int i = 0; i < _idle.Length; i++)
            if (Volatile.Read(ref _idle[i]) != 0 && (o = Interlocked.Exchange(ref _idle[i], 0)) != 0)
                return o;
        o = make();
        return o != 0 ? o : throw new InsufficientMemoryException("no memory for a compressor");
    }

    public void Return(nint o)
    {
        for (int i = 0; i < _idle.Length; i++)
            if (Volatile.Read(ref _idle[i]) == 0 && Interlocked.CompareExchange(ref _idle[i], o, 0) == 0)
                return;
        free(o);
    }
}
