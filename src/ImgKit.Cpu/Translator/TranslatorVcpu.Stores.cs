namespace ImgKit.Cpu.Translator;

/// <summary>Agreement on stores: a page's code is translated only when no other vCPU can be at a store to it that it looked up before the page
/// was marked (README.md, Invalidation).</summary>
public sealed unsafe partial class TranslatorVcpu
{
    /// <summary>How often this looks whether the others have passed before it goes on without keeping what it translates.</summary>
    private const int Patience = 100;

    // Inside Run; a store may be under way.
    private int _running;

    // Moments without a store under way.
    private long _rounds;

    private readonly List<(TranslatorVcpu Cpu, long Rounds)> _awaited = [];
    private ulong _awaitedPage;

    private bool HasPassed(long rounds) => Volatile.Read(ref _running) == 0 || Volatile.Read(ref _rounds) != rounds;

    private void EnterRounds()
    {
        Volatile.Write(ref _running, 1);
        Interlocked.MemoryBarrier();
    }

    private void LeaveRounds() => Volatile.Write(ref _running, 0);

    /// <summary>Marks a page as one with code. False: another vCPU may still be at a store to it, so that what is read from it must not be
    /// kept. Only between blocks.</summary>
    private bool ProtectCode(byte* page)
    {
        ulong at = (ulong)page;
        if ((_engine.CodePages.Get(at) >> Index & 1) == 0)
        {
            if (_awaited.Count > 0)
                _engine.CodePages.Clear(_awaitedPage, Index);
            _awaited.Clear();
            _engine.CodePages.Set(at, Index);
            _engine.ProtectPage(at);
            Interlocked.MemoryBarrier();
            foreach (var other in _engine.Vcpus)
            {
                long rounds = Volatile.Read(ref other._rounds);
                if (other == this || other.HasPassed(rounds))
                    continue;
                _awaited.Add((other, rounds));
                other.Ask();
            }
            _awaitedPage = at;
        }
        return _awaited.Count == 0 || _awaitedPage != at || AwaitOthers();
    }

    private bool AwaitOthers()
    {
        // Two may wait for each other: neither is at a store.
        LeaveRounds();
        for (int i = 0; i < Patience; i++)
        {
            for (int k = _awaited.Count - 1; k >= 0; k--)
            {
                if (_awaited[k].Cpu.HasPassed(_awaited[k].Rounds))
                    _awaited.RemoveAt(k);
            }
            if (_awaited.Count == 0)
                break;
            if (i < Patience / 4)
                Thread.SpinWait(20);
            else
                Thread.Yield();
        }
        EnterRounds();
        return _awaited.Count == 0;
    }
}
