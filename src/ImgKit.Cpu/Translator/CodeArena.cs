using System.Runtime.InteropServices;
using System.Runtime.Intrinsics.X86;

namespace ImgKit.Cpu.Translator;

/// <summary>
/// All generated code of the process: the stubs, then one slot a virtual CPU. One reservation of address space under 2 GiB, so that
/// every jump reaches every target, and so that the signal handler knows generated code by its address alone.
/// </summary>
internal static unsafe class CodeArena
{
    public const long SlotSize = 64L << 20;
    private const long HugePage = 2L << 20;
    private const long StubSize = HugePage;
    private const int Slots = 30;

    private static readonly Lock Gate = new();
    private static readonly Stack<int> Free = new();
    private static byte* _base;

    /// <summary>The stubs, after <see cref="Prepare"/>.</summary>
    public static Stubs Stubs { get; private set; } = null!;

    /// <summary>XSAVE components that the engine saves: x87, SSE, and AVX where the host has it.</summary>
    public static int XsaveMask { get; private set; }

    /// <summary>True when generated code sets its GS base itself.</summary>
    public static bool HasFsGsBase { get; private set; }

    /// <summary>Maps the arena, writes the stubs and installs the signal handlers, once.
    /// Throws <see cref="PlatformNotSupportedException"/> with a reason where the host cannot run translated code.</summary>
    public static void Prepare()
    {
        lock (Gate)
        {
            if (_base != null)
                return;
            CheckHost();
            nint map = NativeMethods.Map(0, (nuint)(StubSize + Slots * SlotSize + HugePage), NativeMethods.ProtRead | NativeMethods.ProtWrite |
                NativeMethods.ProtExec, NativeMethods.MapPrivate | NativeMethods.MapAnonymous | NativeMethods.MapNoReserve, -1, 0);
            if (map == -1)
                throw new PlatformNotSupportedException(
                    $"no memory for translated code: {Marshal.GetPInvokeErrorMessage(Marshal.GetLastPInvokeError())}");
            map = (nint)AlignForHugePages((byte*)map, StubSize + Slots * SlotSize);
            for (int i = Slots - 1; i >= 0; i--)
                Free.Push(i);
            Stubs = new Stubs((byte*)map, StubSize + Slots * SlotSize);
            _base = (byte*)map;
        }
    }

    /// <summary>True for addresses of generated code.</summary>
    public static bool Contains(ulong address) => address - (ulong)_base < (ulong)(StubSize + Slots * SlotSize);

    /// <summary>The first address from <paramref name="map"/> on that huge pages can begin at; asks for them for
    /// <paramref name="size"/> bytes: translated code and the tables beside it are used all over.</summary>
    public static byte* AlignForHugePages(byte* map, long size)
    {
        const int hugePage = 14;
        byte* aligned = (byte*)((nint)map + HugePage - 1 & -(nint)HugePage);
        _ = NativeMethods.Advise((nint)aligned, (nuint)size, hugePage);
        return aligned;
    }

    /// <summary>Takes a slot of <see cref="SlotSize"/> bytes.</summary>
    public static byte* Take()
    {
        lock (Gate)
        {
            if (!Free.TryPop(out int slot))
                throw new PlatformNotSupportedException($"more than {Slots} translated processors in one process");
            return _base + StubSize + slot * SlotSize;
        }
    }

    /// <summary>Gives a slot back, with its memory.</summary>
    public static void Return(byte* slot)
    {
        const int dontNeed = 4;
        _ = NativeMethods.Advise((nint)slot, (nuint)SlotSize, dontNeed);
        lock (Gate)
            Free.Push((int)((slot - _base - StubSize) / SlotSize));
    }

    private static void CheckHost()
    {
        if (!X86Base.IsSupported)
            throw new PlatformNotSupportedException("the translator needs an x86-64 host");
        var leaf1 = X86Base.CpuId(1, 0);
        var leaf7 = X86Base.CpuId(7, 0);
        if ((leaf1.Ecx & 1 << 27) == 0)
            throw new PlatformNotSupportedException("the translator needs a host processor and kernel with XSAVE");
        if ((leaf7.Ebx & 1 << 8) == 0)
            throw new PlatformNotSupportedException("the translator needs a host processor with BMI2");
        const ulong hwcap2 = 26;
        HasFsGsBase = (NativeMethods.AuxiliaryValue(hwcap2) & 2) != 0;
        XsaveMask = (leaf1.Ecx & 1 << 28) != 0 ? 7 : 3;
    }
}
