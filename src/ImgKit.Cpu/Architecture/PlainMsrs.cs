using ImgKit.Cpu.Models;

namespace ImgKit.Cpu.Architecture;

/// <summary>
/// Registers without effect here, which kernels read or write because the family of the processor has them: some keep what is written, some
/// read as a constant.
/// </summary>
internal static class PlainMsrs
{
    private const ulong All = ulong.MaxValue;

    // First index, last index, initial value, writable bits. Intel SDM volume 4, tables 2-2, 2-3 and 2-20.
    private static readonly (uint First, uint Last, ulong Initial, ulong Writable)[] Intel =
    [
        (0x17, 0x17, 0, 0),                 // IA32_PLATFORM_ID
        (0x2A, 0x2A, 0, All),               // EBL_CR_POWERON
        (0x2C, 0x2C, 1UL << 24, 0),         // EBC_FREQUENCY_ID
        (0x3A, 0x3A, 1, 0),                 // IA32_FEATURE_CONTROL, locked
        (0x88, 0x8A, 0, All),               // BBL_CR_D0..2
        (0xC1, 0xC2, 0, 0),                 // PERFCTR0, 1
        (0xCD, 0xCD, 3, 0),                 // FSB_FREQ
        (0xCE, 0xCE, 0, 0),                 // PLATFORM_INFO
        (0xE2, 0xE2, 1 << 15, 0),           // PKG_CST_CONFIG_CONTROL, locked
        (0x116, 0x11E, 0, All),             // BBL_CR_ADDR .. BBL_CR_CTL3
        (0x186, 0x187, 0, 0),               // EVNTSEL0, 1
        (0x198, 0x198, 0, 0),               // IA32_PERF_STATUS
        (0x199, 0x199, 0, All),             // IA32_PERF_CTL
        (0x19A, 0x19B, 0, All),             // IA32_CLOCK_MODULATION, IA32_THERM_INTERRUPT
        (0x19C, 0x19C, 0, 0),               // IA32_THERM_STATUS
        (0x1A0, 0x1A0, 0x1801, 0x4_00C5_0009),  // IA32_MISC_ENABLE: fast strings, no BTS, no PEBS; what else can be set has no effect
    ];

    // Both vendors.
    private static readonly (uint First, uint Last, ulong Initial, ulong Writable)[] Common =
    [
        (0x1D9, 0x1D9, 0, 3),               // DEBUGCTL: LBR, BTF
        (0x1DB, 0x1DE, 0, 0),               // last branch and exception
    ];

    // AMD APM 2 appendix A.
    private static readonly (uint First, uint Last, ulong Initial, ulong Writable)[] Amd =
    [
        (0xC0010000, 0xC0010007, 0, 0),     // PerfEvtSel, PerfCtr
        (0xC0010010, 0xC0010010, 0, 0x7C0000), // SYSCFG
        (0xC0010015, 0xC0010015, 0, All),   // HWCR
        (0xC0010016, 0xC0010019, 0, All),   // IORR
        (0xC001001A, 0xC001001A, 0, All),   // TOP_MEM
        (0xC001001D, 0xC001001D, 0, All),   // TOP_MEM2
        (0xC001001F, 0xC001001F, 0, All),   // NB_CFG
        (0xC0010022, 0xC0010022, 0, All),   // MC_EXP_REDIR
        (0xC0010030, 0xC0010035, 0, 0),     // processor name: leaves 0x80000002..4 tell it
        (0xC0010044, 0xC001004A, 0, All),   // MCi_CTL_MASK
        (0xC0010055, 0xC0010055, 0, All),   // INT_PENDING
        (0xC0010058, 0xC0010058, 0, 0),     // MMIO_CFG_BASE
        (0xC0010061, 0xC0010063, 0, 0),     // P-state limit, control, status
        (0xC0010064, 0xC001006B, 0, 0),     // P-states
        (0xC0010111, 0xC0010113, 0, 0),     // SMBASE, SMM address and mask: of no use with the chipset's SMRAM
        (0xC0010114, 0xC0010114, 0x10, 0),  // VM_CR: SVM disabled
        (0xC0010140, 0xC0010141, 0, 0),     // OSVW
        (0xC0011020, 0xC0011023, 0, All),   // LS_CFG, IC_CFG, DC_CFG, BU_CFG
        (0xC0011029, 0xC0011029, 2, All),   // DE_CFG: LFENCE serialises
        (0xC001102A, 0xC001102D, 0, All),   // BU_CFG2, FP_CFG, LS_CFG2
    ];

    /// <summary>Finds a register; false where it does not exist.</summary>
    public static bool TryDescribe(CpuModel model, uint index, out ulong initial, out ulong writable)
    {
        if (model.Family >= 6)
        {
            if (Find(Common, index, out initial, out writable) || Find(model.IsAmd ? Amd : Intel, index, out initial, out writable))
                return true;
        }
        initial = writable = 0;
        return false;
    }

    private static bool Find((uint First, uint Last, ulong Initial, ulong Writable)[] table, uint index, out ulong initial, out ulong writable)
    {
        foreach (var row in table)
        {
            if (index >= row.First && index <= row.Last)
            {
                (initial, writable) = (row.Initial, row.Writable);
                return true;
            }
        }
        initial = writable = 0;
        return false;
    }
}
