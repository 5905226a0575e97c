namespace ImgKit.Block.Filters.Blkdebug;

/// <summary>
/// The rules of a blkdebug device, its state, and the requests that stand still. (Behaviour: QEMU's
/// docs/devel/testing/blkdebug.) The rules for errors that an event finds are active until the next event that has such rules;
/// a request is refused by the first active one that is for it.
/// </summary>
internal sealed class BlkdebugRules
{
    private readonly object _gate = new();
    private readonly List<BlkdebugRule>[] _byEvent = new List<BlkdebugRule>[BlockDebugEvents.Count];
    private readonly List<BlkdebugRule> _active = [];
    private readonly List<string> _suspended = [];
    private readonly bool[] _hasRules = new bool[BlockDebugEvents.Count];
    private volatile bool _anyActive;
    private bool _closed;
    private int _state = 1;

    public void Add(BlkdebugRule rule)
    {
        lock (_gate)
        {
            (_byEvent[(int)rule.Event] ??= []).Add(rule);
            Volatile.Write(ref _hasRules[(int)rule.Event], true);
        }
    }

    /// <summary>Something is about to happen. Returns when it may.</summary>
    public void Event(BlockDebugEvent e)
    {
        if (!Volatile.Read(ref _hasRules[(int)e]))
            return;
        lock (_gate)
        {
            int newState = _state;
            bool first = true;
            List<BlkdebugRule>? stops = null;
            foreach (var rule in _byEvent[(int)e])
            {
                if (rule.State != 0 && rule.State != _state)
                    continue;
                switch (rule.Action)
                {
                    case BlkdebugAction.InjectError:
                        if (first)
                            _active.Clear();
                        first = false;
                        _active.Insert(0, rule);
                        _anyActive = true;
                        break;
                    case BlkdebugAction.SetState:
                        newState = rule.NewState;
                        break;
                    case BlkdebugAction.Suspend:
                        (stops ??= []).Add(rule);
                        break;
                }
            }
            _state = newState;
            foreach (var rule in stops ?? [])
                Suspend(rule);
        }
    }

    /// <summary>Stops the calling thread until somebody resumes it; a breakpoint is good for one request.</summary>
    private void Suspend(BlkdebugRule rule)
    {
        _byEvent[(int)rule.Event].Remove(rule);
        _suspended.Add(rule.Tag);
        Monitor.PulseAll(_gate);
        while (_suspended.Contains(rule.Tag) && !_closed)
            Monitor.Wait(_gate);
    }

    /// <summary>Throws if a rule refuses a request.</summary>
    public void Check(BlkdebugRequest request, long offset, long count, string fileName)
    {
        if (!_anyActive)
            return;
        BlkdebugRule? found;
        lock (_gate)
        {
            found = _active.Find(r => (r.Requests & request) != 0
                && (r.Offset < 0 || (count > 0 && r.Offset >= offset && r.Offset < offset + count)));
            if (found is null || found.Errno == 0)
                return;
            if (found.Once)
            {
                _active.Remove(found);
                _byEvent[(int)found.Event].Remove(found);
                _anyActive = _active.Count > 0;
            }
        }
        throw new ImageException(ImageErrorKind.Io, System.Runtime.InteropServices.Marshal.GetPInvokeErrorMessage(found.Errno), fileName, offset)
        {
            Errno = found.Errno,
            Operation = $"an error was injected at event {found.Event.Name()}",
        };
    }

    public bool AddBreakpoint(string name, string tag)
    {
        if (!BlockDebugEvents.TryParse(name, out var e))
            return false;
        Add(new BlkdebugRule { Action = BlkdebugAction.Suspend, Event = e, Tag = tag });
        return true;
    }

    public bool RemoveBreakpoint(string tag)
    {
        lock (_gate)
        {
            bool found = false;
            foreach (var rules in _byEvent)
                found |= rules?.RemoveAll(r => r.Action == BlkdebugAction.Suspend && r.Tag == tag) > 0;
            return found | Release(tag);
        }
    }

    public bool Resume(string tag)
    {
        lock (_gate)
            return Release(tag);
    }

    private bool Release(string tag)
    {
        bool found = _suspended.RemoveAll(t => t == tag) > 0;
        Monitor.PulseAll(_gate);
        return found;
    }

    public bool IsSuspended(string tag)
    {
        lock (_gate)
            return _suspended.Contains(tag);
    }

    /// <summary>Lets all go.</summary>
    public void Close()
    {
        lock (_gate)
        {
            _closed = true;
            Monitor.PulseAll(_gate);
        }
    }
}
