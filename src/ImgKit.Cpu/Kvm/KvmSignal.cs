using System.Runtime.InteropServices;
using ImgKit.Cpu.Kvm.Interop;

namespace ImgKit.Cpu.Kvm;

/// <summary>
/// The signal that gets a thread out of KVM_RUN. Its handler must do nothing, and must not be managed code (it may interrupt a thread at any
/// place): the C library's abs() is such a function. Without SA_RESTART-able work to lose, only KVM_RUN ends early, with EINTR.
/// </summary>
internal static unsafe class KvmSignal
{
    // .NET takes SIGRTMIN (34) for itself
    private const int Signal = 34 + 6;

    private static readonly Lock s_lock = new();
    private static bool s_installed;
    private static int s_process;

    /// <summary>The kernel's struct sigaction as the C library has it on x86-64 (bits/sigaction.h).</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct SigAction
    {
        public nint Handler;
        public fixed ulong Mask[16];
        public int Flags;
        public nint Restorer;
    }

    public static void Install()
    {
        lock (s_lock)
        {
            if (s_installed)
                return;
            const int SA_RESTART = 0x10000000, SA_ONSTACK = 0x08000000;
            var action = new SigAction
            {
                Handler = NativeLibrary.GetExport(NativeLibrary.GetMainProgramHandle(), "abs"),
                Flags = SA_RESTART | SA_ONSTACK,
            };
            if (LibC.sigaction(Signal, &action, null) != 0)
                throw new KvmException($"cannot set up signal {Signal}: {LibC.LastErrorText()}");
            s_process = LibC.getpid();
            s_installed = true;
        }
    }

    /// <summary>Interrupts a thread of this process.</summary>
    public static void Send(int thread) => _ = LibC.tgkill(s_process, thread, Signal);
}
