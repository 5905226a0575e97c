namespace ImgKit.Block;

/// <summary>
/// Moments inside a format at which tests inject errors, change states or stop a request (driver <c>blkdebug</c>). A
/// format announces them to the device that holds its bytes, just before the access that they name:
/// <see cref="BlockDevice.DebugEvent"/>. The names are those that QEMU's tests use.
/// </summary>
public enum BlockDebugEvent
{
    L1Update,
    L1GrowAllocTable,
    L1GrowWriteTable,
    L1GrowActivateTable,
    L2Load,
    L2Update,
    L2UpdateCompressed,
    L2AllocCowRead,
    L2AllocWrite,
    ReadAio,
    ReadBackingAio,
    ReadCompressed,
    WriteAio,
    WriteCompressed,
    VmStateLoad,
    VmStateSave,
    CowRead,
    CowWrite,
    RefTableLoad,
    RefTableGrow,
    RefTableUpdate,
    RefBlockLoad,
    RefBlockUpdate,
    RefBlockUpdatePart,
    RefBlockAlloc,
    RefBlockAllocHookup,
    RefBlockAllocWrite,
    RefBlockAllocWriteBlocks,
    RefBlockAllocWriteTable,
    RefBlockAllocSwitchTable,
    ClusterAlloc,
    ClusterAllocBytes,
    ClusterFree,
    FlushToOs,
    FlushToDisk,
    PwritevRmwHead,
    PwritevRmwAfterHead,
    PwritevRmwTail,
    PwritevRmwAfterTail,
    Pwritev,
    PwritevZero,
    PwritevDone,
    EmptyImagePrepare,
    L1ShrinkWriteTable,
    L1ShrinkFreeL2Clusters,
    CorWrite,
    ClusterAllocSpace,

    /// <summary>No event: rules for it apply to every request.</summary>
    None,
}

/// <summary>The events' names in options.</summary>
public static class BlockDebugEvents
{
    private static readonly string[] Names =
    [
        "l1_update", "l1_grow_alloc_table", "l1_grow_write_table", "l1_grow_activate_table", "l2_load", "l2_update",
        "l2_update_compressed", "l2_alloc_cow_read", "l2_alloc_write", "read_aio", "read_backing_aio", "read_compressed", "write_aio",
        "write_compressed", "vmstate_load", "vmstate_save", "cow_read", "cow_write", "reftable_load", "reftable_grow",
        "reftable_update", "refblock_load", "refblock_update", "refblock_update_part", "refblock_alloc", "refblock_alloc_hookup",
        "refblock_alloc_write", "refblock_alloc_write_blocks", "refblock_alloc_write_table", "refblock_alloc_switch_table",
        "cluster_alloc", "cluster_alloc_bytes", "cluster_free", "flush_to_os", "flush_to_disk", "pwritev_rmw_head",
        "pwritev_rmw_after_head", "pwritev_rmw_tail", "pwritev_rmw_after_tail", "pwritev", "pwritev_zero", "pwritev_done",
        "empty_image_prepare", "l1_shrink_write_table", "l1_shrink_free_l2_clusters", "cor_write", "cluster_alloc_space", "none",
    ];

    /// <summary>How many there are.</summary>
    public static int Count => Names.Length;

    /// <summary>The name in options.</summary>
    public static string Name(this BlockDebugEvent e) => Names[(int)e];

    /// <summary>Finds one by its name.</summary>
    public static bool TryParse(string name, out BlockDebugEvent e)
    {
        int i = Array.IndexOf(Names, name);
        e = (BlockDebugEvent)i;
        return i >= 0;
    }
}

/// <summary>A device on which requests can be stopped at an event and let go again.</summary>
public interface IBlockDebugger
{
    /// <summary>The next request that announces <paramref name="debugEvent"/> stops there, and is called <paramref name="tag"/>.</summary>
    /// <returns>false: there is no such event.</returns>
    bool AddBreakpoint(string debugEvent, string tag);

    /// <summary>Removes a breakpoint, and lets go the request that waits at it.</summary>
    /// <returns>false: there is none.</returns>
    bool RemoveBreakpoint(string tag);

    /// <summary>Lets a stopped request go on.</summary>
    /// <returns>false: none of that name is stopped.</returns>
    bool Resume(string tag);

    /// <summary>Whether a request of that name is stopped.</summary>
    bool IsSuspended(string tag);
}
