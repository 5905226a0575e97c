namespace ImgKit.Host;

/// <summary>What the kernel knows about the calling thread.</summary>
public static unsafe class HostThread
{
    private const int RusageThread = 1;
    private const int InputBlocks = 11;

    /// <summary>The number by which the kernel, and tools such as taskset, know the thread.</summary>
    public static int CurrentId => NativeCalls.gettid();

    /// <summary>Blocks that the thread had to be brought from a disk so far, as they were not in the page cache.</summary>
    public static long DiskReads
    {
        get
        {
            long* usage = stackalloc long[18];      // struct rusage: two timevals, then 14 longs
            return NativeCalls.getrusage(RusageThread, usage) == 0 ? usage[InputBlocks] : 0;
        }
    }
}
