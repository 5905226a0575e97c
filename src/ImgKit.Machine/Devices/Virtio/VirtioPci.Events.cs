using ImgKit.Cpu;
using ImgKit.Host;

namespace ImgKit.Machine.Devices.Virtio;

// Where the engine can: notifications of the driver become events for the event loop, so that the processor goes on at once, and
// message interrupts are raised by an event, so that no message has to be taken apart each time.
public abstract partial class VirtioPci
{
    private readonly List<(IoEvent Event, EventFd Fd)> _attached = [];
    private (EventFd Fd, int Gsi)?[] _routes = [];
    private (ulong Ports, ulong Modern) _eventBars;

    private void AttachEvents()
    {
        if (Services.Engine is not { } engine || (_status & VirtioStatus.DriverOk) == 0 || _attached.Count > 0)
            return;
        _eventBars = (BarAddress(0), BarAddress(ModernBar));
        foreach (var queue in _queues)
        {
            if (!queue.IsEnabled)
                continue;
            var (legacyAt, modernAt) = _eventBars;
            IoEvent io;
            if (_legacyDriver && _hasLegacy && legacyAt != 0)
                io = new IoEvent(legacyAt + 16, 2, true, (uint)queue.Index, 0);
            else if (!_legacyDriver && modernAt != 0)
                io = new IoEvent(modernAt + NotifyAt + 4ul * (uint)queue.Index, 0, false, null, 0);
            else
                continue;
            var fd = new EventFd();
            io = io with { EventFd = fd.Descriptor };
            if (!engine.AttachIoEvent(io))
            {
                fd.Dispose();
                return;
            }
            var served = queue;
            Services.Loop.Watch(fd.Descriptor, EpollEvents.In, _ =>
            {
                if (fd.Clear() && IsRunning)
                    Serve(served);
            });
            _attached.Add((io, fd));
        }
    }

    private void DetachEvents()
    {
        foreach (var (io, fd) in _attached)
        {
            Services.Engine!.DetachIoEvent(io);
            Services.Loop.Unwatch(fd.Descriptor);
            fd.Dispose();
        }
        _attached.Clear();
        for (int i = 0; i < _routes.Length; i++)
            DropRoute(i);
    }

    /// <summary>A BAR was moved or switched off: the events move with it.</summary>
    private void FollowBars()
    {
        if (_attached.Count == 0 || (BarAddress(0), BarAddress(ModernBar)) == _eventBars)
            return;
        foreach (var (io, fd) in _attached)
        {
            Services.Engine!.DetachIoEvent(io);
            Services.Loop.Unwatch(fd.Descriptor);
            fd.Dispose();
        }
        _attached.Clear();
        AttachEvents();
    }

    /// <summary>Interrupts through an event with a route of its own. False: send the message.</summary>
    private bool SignalRoute(int vector)
    {
        if (Services.Engine is not { InterruptControllers: not InterruptControllers.Machine } engine)
            return false;
        if (_routes.Length == 0)
            _routes = new (EventFd, int)?[Msix!.Vectors];
        if (_routes[vector] is null)
        {
            var (address, data, masked) = Msix!.Message(vector);
            int gsi = masked ? -1 : engine.AddMessageRoute(address, data);
            if (gsi < 0)
                return false;
            var fd = new EventFd();
            if (!engine.AttachInterruptEvent(fd.Descriptor, gsi))
            {
                engine.RemoveMessageRoute(gsi);
                fd.Dispose();
                return false;
            }
            _routes[vector] = (fd, gsi);
        }
        _routes[vector]!.Value.Fd.Signal();
        return true;
    }

    /// <summary>The driver changed a vector (or, -1, all): its route is made anew when it is next used.</summary>
    private void RouteChanged(int vector)
    {
        for (int i = 0; i < _routes.Length; i++)
            if (vector < 0 || i == vector)
                DropRoute(i);
    }

    private void DropRoute(int vector)
    {
        if (_routes[vector] is not { } route)
            return;
        Services.Engine!.DetachInterruptEvent(route.Fd.Descriptor, route.Gsi);
        Services.Engine.RemoveMessageRoute(route.Gsi);
        route.Fd.Dispose();
        _routes[vector] = null;
    }

    /// <inheritdoc/>
    public override void Close()
    {
        // the event loop has ended
        foreach (var (io, fd) in _attached)
        {
            Services.Engine!.DetachIoEvent(io);
            fd.Dispose();
        }
        _attached.Clear();
        for (int i = 0; i < _routes.Length; i++)
            DropRoute(i);
    }
}
