namespace ImgKit.Host;

/// <summary>What the kernel knows about the calling thread.</summary>
public static unsafe class HostThread
{
    private const int RusageThread = 1;
    private const int VoluntarySwitches = 16;

    /// <summary>How often the thread has given up its processor to wait for something. 0 when the kernel does not say.</summary>
    public static long Waits
    {
        get
        {
            long* usage = stackalloc long[18];      // struct rusage: two timevals, then 14 longs
            return NativeCalls.getrusage(RusageThread, usage) == 0 ? usage[VoluntarySwitches] : 0;
        }
    }
}
