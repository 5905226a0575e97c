using System.Buffers.Binary;
using System.Text;

namespace ImgKit.Cpu.Models;

/// <summary>The four registers that CPUID returns.</summary>
public readonly record struct CpuidResult(uint Eax, uint Ebx, uint Ecx, uint Edx);

/// <summary>What of the processor's present state CPUID reflects.</summary>
/// <param name="ApicId">local APIC id.</param>
/// <param name="Cr4">for OSXSAVE.</param>
/// <param name="Xcr0">for the size of the enabled XSAVE components.</param>
/// <param name="ApicEnabled">global enable of the local APIC (MSR 0x1B bit 11).</param>
public readonly record struct CpuidState(uint ApicId, ulong Cr4, ulong Xcr0, bool ApicEnabled);

/// <summary>
/// The CPUID instruction. Sources: Intel SDM volume 2A, CPUID; AMD APM volume 3, appendix E.
/// </summary>
public sealed class Cpuid(CpuModel model, CpuTopology topology)
{
    private const ulong Cr4OsXsave = 1UL << 18;
    private const uint HypervisorBase = 0x40000000;

    private int ThreadsPerPackage => topology.Cores * topology.Threads;

    /// <summary>One leaf. A leaf beyond the highest gives what Intel's processors give: the data of the highest basic leaf.</summary>
    public CpuidResult Query(uint leaf, uint subleaf, in CpuidState state)
    {
        bool hypervisor = model.Has(CpuFeature.Hypervisor);
        if (hypervisor && leaf - HypervisorBase <= 0x10)
            return Hypervisor(leaf);
        if (leaf >= 0x80000000)
        {
            if (leaf <= model.ExtendedLevel)
                return Extended(leaf, subleaf);
            if (model.IsAmd)
                return default;
            leaf = model.Level;
        }
        else if (leaf > model.Level)
        {
            if (model.IsAmd)
                return default;
            leaf = model.Level;
        }
        return Basic(leaf, subleaf, state);
    }

    private CpuidResult Basic(uint leaf, uint subleaf, in CpuidState state) => leaf switch
    {
        0 => VendorLeaf(model.Level),
        1 => Leaf1(state),
        // Descriptors: 64-byte prefetch, caches of 32 KiB + 32 KiB, 2 MiB; Intel only.
        2 when !model.IsAmd => new(0x00000001, 0, model.Level >= 4 ? 0x4Du : 0, 0x002C307D),
        4 when !model.IsAmd => CacheLeaf(subleaf),
        5 when model.Has(CpuFeature.Monitor) => new(64, 64, 3, 0),
        6 => new(model.Word(CpuidWord.Leaf6Eax), 0, 0, 0),
        7 when subleaf == 0 => new(0, model.Word(CpuidWord.Leaf7Ebx), model.Word(CpuidWord.Leaf7Ecx), model.Word(CpuidWord.Leaf7Edx)),
        0xB => TopologyLeaf(subleaf, state),
        0xD => XsaveLeaf(subleaf, state),
        0x15 when model.TscFrequency != 0 => new(1, (uint)(model.TscFrequency / 1_000_000), 1_000_000, 0),
        0x16 when model.TscFrequency != 0 =>
            new((uint)(model.TscFrequency / 1_000_000), (uint)(model.TscFrequency / 1_000_000), 100, 0),
        _ => default,
    };

    private CpuidResult VendorLeaf(uint top)
    {
        Span<byte> v = stackalloc byte[12];
        Encoding.ASCII.GetBytes(model.Vendor, v);
        return new(top, Word(v, 0), Word(v, 8), Word(v, 4));
    }

    private CpuidResult Leaf1(in CpuidState state)
    {
        uint ebx = state.ApicId << 24;
        if (model.Has(CpuFeature.Clflush))
            ebx |= 8 << 8;
        uint ecx = model.Word(CpuidWord.Leaf1Ecx), edx = model.Word(CpuidWord.Leaf1Edx);
        if ((state.Cr4 & Cr4OsXsave) != 0)
            ecx |= 1u << 27;
        if (!state.ApicEnabled)
            edx &= ~(1u << 9);
        if (ThreadsPerPackage > 1)
        {
            ebx |= (uint)ThreadsPerPackage << 16;
            edx |= 1u << 28;
        }
        return new(model.Signature, ebx, ecx, edx);
    }

    // L1 data and instruction 32 KiB 8-way, L2 512 KiB 8-way a core, L3 8 MiB 16-way a package; lines of 64 bytes.
    private CpuidResult CacheLeaf(uint subleaf)
    {
        var (type, level, ways, sets, sharing) = subleaf switch
        {
            0 => (1u, 1u, 8u, 64u, topology.Threads),
            1 => (2u, 1u, 8u, 64u, topology.Threads),
            2 => (3u, 2u, 8u, 1024u, topology.Threads),
            3 => (3u, 3u, 16u, 8192u, ThreadsPerPackage),
            _ => (0u, 0u, 0u, 0u, 0),
        };
        return type == 0
            ? default
            : new(type | (level << 5) | (1u << 8) | ((uint)(sharing - 1) << 14) | ((uint)(topology.Cores - 1) << 26),
                63 | ((ways - 1) << 22), sets - 1, 0);
    }

    private CpuidResult TopologyLeaf(uint subleaf, in CpuidState state) => subleaf switch
    {
        0 => new((uint)topology.ThreadBits, (uint)topology.Threads, 1 << 8, state.ApicId),
        1 => new((uint)(topology.ThreadBits + topology.CoreBits), (uint)ThreadsPerPackage, (2 << 8) | 1, state.ApicId),
        _ => new(0, 0, subleaf, state.ApicId),
    };

    private CpuidResult XsaveLeaf(uint subleaf, in CpuidState state)
    {
        ulong supported = model.SupportedXcr0;
        if (supported == 0)
            return default;
        return subleaf switch
        {
            0 => new((uint)supported, Size(state.Xcr0), Size(supported), 0),
            1 => new(model.Word(CpuidWord.LeafDEax), model.Has(CpuFeature.Xsavec) ? Size(state.Xcr0) : 0, 0, 0),
            2 when (supported & 4) != 0 => new(256, 576, 0, 0),
            _ => default,
        };

        static uint Size(ulong components) => (components & 4) != 0 ? 832u : 576u;
    }

    private CpuidResult Hypervisor(uint leaf)
    {
        if (leaf == HypervisorBase)
        {
            Span<byte> v = stackalloc byte[12];
            Encoding.ASCII.GetBytes(model.HypervisorVendor, v);
            return new(model.TscFrequency != 0 ? HypervisorBase + 0x10 : HypervisorBase + 1, Word(v, 0), Word(v, 4), Word(v, 8));
        }
        // Frequencies of the TSC and of the local APIC's timer, in kHz, as VMware introduced them.
        return leaf == HypervisorBase + 0x10 && model.TscFrequency != 0 ? new((uint)(model.TscFrequency / 1000), 1_000_000, 0, 0) : default;
    }

    private CpuidResult Extended(uint leaf, uint subleaf)
    {
        switch (leaf)
        {
            case 0x80000000:
                return model.IsAmd ? VendorLeaf(model.ExtendedLevel) : new(model.ExtendedLevel, 0, 0, 0);
            case 0x80000001:
                uint edx = model.Word(CpuidWord.Extended1Edx), ecx = model.Word(CpuidWord.Extended1Ecx);
                if (model.IsAmd)
                {
                    // Bits 0-9, 12-17, 23 and 24 repeat leaf 1 (APM 3, E.4.2).
                    edx |= model.Word(CpuidWord.Leaf1Edx) & 0x0183F3FF;
                    if (ThreadsPerPackage > 1)
                        ecx |= 2;
                }
                else
                {
                    edx &= 0x2C100800;
                    ecx &= 0x00000121;
                }
                return new(model.IsAmd ? model.Signature : 0, 0, ecx, edx);
            case 0x80000002 or 0x80000003 or 0x80000004:
                Span<byte> brand = stackalloc byte[48];
                brand.Clear();
                Encoding.ASCII.GetBytes(model.Brand, brand);
                brand = brand.Slice((int)(leaf - 0x80000002) * 16, 16);
                return new(Word(brand, 0), Word(brand, 4), Word(brand, 8), Word(brand, 12));
            case 0x80000005 when model.IsAmd:
                return new(0x01FF01FF, 0x01FF01FF, 0x40020140, 0x40020140);
            case 0x80000006:
                // L2 512 KiB 16-way; L3 16 MiB 16-way on AMD.
                return model.IsAmd ? new(0, 0x42004200, 0x02008140, 0x00808140) : new(0, 0, 0x02006040, 0);
            case 0x80000007:
                return new(0, 0, 0, model.Word(CpuidWord.Extended7Edx));
            case 0x80000008:
                uint linear = model.Has(CpuFeature.Lm) ? 48u : 32u;
                return new((linear << 8) | (uint)model.PhysicalAddressBits, model.Word(CpuidWord.Extended8Ebx),
                    model.IsAmd && ThreadsPerPackage > 1
                        ? ((uint)(topology.CoreBits + topology.ThreadBits) << 12) | (uint)(ThreadsPerPackage - 1)
                        : 0,
                    0);
            case 0x8000001D when model.Has(CpuFeature.TopoExt):
                return AmdCacheLeaf(subleaf);
            default:
                return default;
        }
    }

    private CpuidResult AmdCacheLeaf(uint subleaf)
    {
        var leaf = CacheLeaf(subleaf);
        return leaf with { Eax = leaf.Eax & 0x03FFFFFF };
    }

    private static uint Word(ReadOnlySpan<byte> bytes, int offset) => BinaryPrimitives.ReadUInt32LittleEndian(bytes[offset..]);
}
