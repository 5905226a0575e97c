using System.Runtime.InteropServices;
using ImgKit.Block;
using ImgKit.Block.Jobs.Create;

namespace ImgKit.Programs.Img;

/// <summary>While it lives, a signal that ends the program first removes the files that an opener has created: none is left that
/// looks complete and is not.</summary>
internal sealed class InterruptGuard : IDisposable
{
    private readonly ImageOpener _opener;
    private readonly PosixSignalRegistration[] _registrations;

    public InterruptGuard(ImageOpener opener)
    {
        _opener = opener;
        _registrations =
        [
            PosixSignalRegistration.Create(PosixSignal.SIGINT, Remove),
            PosixSignalRegistration.Create(PosixSignal.SIGTERM, Remove),
            PosixSignalRegistration.Create(PosixSignal.SIGHUP, Remove),
            PosixSignalRegistration.Create(PosixSignal.SIGQUIT, Remove),
        ];
    }

    public void Dispose()
    {
        foreach (var r in _registrations)
            r.Dispose();
    }

    /// <summary>The program ends by the signal itself once this returns.</summary>
    private void Remove(PosixSignalContext context) => CreateJob.RemoveFiles(_opener);
}
