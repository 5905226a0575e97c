using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace ImgKit.Cpu.Kvm.Interop;

// Structures of the kernel's KVM interface, under the kernel's own names (linux/kvm.h and asm/kvm.h of Linux 6.1, x86-64). A test
// compiles a C program and compares every size and offset.

[StructLayout(LayoutKind.Sequential)]
internal struct kvm_userspace_memory_region
{
    public uint slot;
    public uint flags;
    public ulong guest_phys_addr;
    public ulong memory_size;
    public ulong userspace_addr;
}

[StructLayout(LayoutKind.Sequential)]
internal struct kvm_irq_level
{
    public uint irq;
    public uint level;
}

[StructLayout(LayoutKind.Sequential)]
internal unsafe struct kvm_pit_config
{
    public uint flags;
    public fixed uint pad[15];
}

[StructLayout(LayoutKind.Sequential)]
internal unsafe struct kvm_irqchip
{
    public uint chip_id;
    public uint pad;
    public fixed byte chip[512];
}

[StructLayout(LayoutKind.Sequential)]
internal struct kvm_regs
{
    public ulong rax, rbx, rcx, rdx;
    public ulong rsi, rdi, rsp, rbp;
    public ulong r8, r9, r10, r11;
    public ulong r12, r13, r14, r15;
    public ulong rip, rflags;
}

[StructLayout(LayoutKind.Sequential)]
internal unsafe struct kvm_lapic_state
{
    public fixed byte regs[0x400];
}

[StructLayout(LayoutKind.Sequential)]
internal struct kvm_segment
{
    public ulong @base;
    public uint limit;
    public ushort selector;
    public byte type;
    public byte present, dpl, db, s, l, g, avl;
    public byte unusable;
    public byte padding;
}

[StructLayout(LayoutKind.Sequential)]
internal unsafe struct kvm_dtable
{
    public ulong @base;
    public ushort limit;
    public fixed ushort padding[3];
}

[StructLayout(LayoutKind.Sequential)]
internal unsafe struct kvm_sregs
{
    public kvm_segment cs, ds, es, fs, gs, ss;
    public kvm_segment tr, ldt;
    public kvm_dtable gdt, idt;
    public ulong cr0, cr2, cr3, cr4, cr8;
    public ulong efer;
    public ulong apic_base;
    public fixed ulong interrupt_bitmap[4];
}

[StructLayout(LayoutKind.Sequential)]
internal struct kvm_msr_entry
{
    public uint index;
    public uint reserved;
    public ulong data;
}

[StructLayout(LayoutKind.Sequential)]
internal unsafe struct kvm_cpuid_entry2
{
    public uint function;
    public uint index;
    public uint flags;
    public uint eax;
    public uint ebx;
    public uint ecx;
    public uint edx;
    public fixed uint padding[3];
}

[StructLayout(LayoutKind.Sequential)]
internal struct kvm_pit_channel_state
{
    public uint count;
    public ushort latched_count;
    public byte count_latched;
    public byte status_latched;
    public byte status;
    public byte read_state;
    public byte write_state;
    public byte write_latch;
    public byte rw_mode;
    public byte mode;
    public byte bcd;
    public byte gate;
    public long count_load_time;
}

[InlineArray(3)]
internal struct kvm_pit_channels
{
    private kvm_pit_channel_state _first;
}

[StructLayout(LayoutKind.Sequential)]
internal unsafe struct kvm_pit_state2
{
    public kvm_pit_channels channels;
    public uint flags;
    public fixed uint reserved[9];
}

[StructLayout(LayoutKind.Sequential)]
internal unsafe struct kvm_reinject_control
{
    public byte pit_reinject;
    public fixed byte reserved[31];
}

[StructLayout(LayoutKind.Sequential)]
internal struct kvm_debug_exit_arch
{
    public uint exception;
    public uint pad;
    public ulong pc;
    public ulong dr6;
    public ulong dr7;
}

[StructLayout(LayoutKind.Sequential)]
internal unsafe struct kvm_guest_debug_arch
{
    public fixed ulong debugreg[8];
}

[StructLayout(LayoutKind.Sequential)]
internal struct kvm_guest_debug
{
    public uint control;
    public uint pad;
    public kvm_guest_debug_arch arch;
}

[StructLayout(LayoutKind.Sequential)]
internal struct kvm_vcpu_events_exception
{
    public byte injected;
    public byte nr;
    public byte has_error_code;
    public byte pending;
    public uint error_code;
}

[StructLayout(LayoutKind.Sequential)]
internal struct kvm_vcpu_events_interrupt
{
    public byte injected;
    public byte nr;
    public byte soft;
    public byte shadow;
}

[StructLayout(LayoutKind.Sequential)]
internal struct kvm_vcpu_events_nmi
{
    public byte injected;
    public byte pending;
    public byte masked;
    public byte pad;
}

[StructLayout(LayoutKind.Sequential)]
internal struct kvm_vcpu_events_smi
{
    public byte smm;
    public byte pending;
    public byte smm_inside_nmi;
    public byte latched_init;
}

[StructLayout(LayoutKind.Sequential)]
internal unsafe struct kvm_vcpu_events
{
    public kvm_vcpu_events_exception exception;
    public kvm_vcpu_events_interrupt interrupt;
    public kvm_vcpu_events_nmi nmi;
    public uint sipi_vector;
    public uint flags;
    public kvm_vcpu_events_smi smi;
    public byte triple_fault;
    public fixed byte reserved[26];
    public byte exception_has_payload;
    public ulong exception_payload;
}

[StructLayout(LayoutKind.Sequential)]
internal unsafe struct kvm_debugregs
{
    public fixed ulong db[4];
    public ulong dr6;
    public ulong dr7;
    public ulong flags;
    public fixed ulong reserved[9];
}

[StructLayout(LayoutKind.Sequential)]
internal struct kvm_xcr
{
    public uint xcr;
    public uint reserved;
    public ulong value;
}

[InlineArray(16)]
internal struct kvm_xcr_array
{
    private kvm_xcr _first;
}

[StructLayout(LayoutKind.Sequential)]
internal unsafe struct kvm_xcrs
{
    public uint nr_xcrs;
    public uint flags;
    public kvm_xcr_array xcrs;
    public fixed ulong padding[16];
}

[StructLayout(LayoutKind.Sequential)]
internal unsafe struct kvm_translation
{
    public ulong linear_address;
    public ulong physical_address;
    public byte valid;
    public byte writeable;
    public byte usermode;
    public fixed byte pad[5];
}

[StructLayout(LayoutKind.Sequential)]
internal struct kvm_interrupt
{
    public uint irq;
}

[StructLayout(LayoutKind.Sequential)]
internal struct kvm_dirty_log
{
    public uint slot;
    public uint padding1;
    public nint dirty_bitmap;
}

[StructLayout(LayoutKind.Sequential)]
internal struct kvm_coalesced_mmio_zone
{
    public ulong addr;
    public uint size;
    public uint pio;
}

[StructLayout(LayoutKind.Sequential)]
internal unsafe struct kvm_coalesced_mmio
{
    public ulong phys_addr;
    public uint len;
    public uint pio;
    public fixed byte data[8];
}

[StructLayout(LayoutKind.Sequential)]
internal struct kvm_coalesced_mmio_ring
{
    public uint first;
    public uint last;
}

[StructLayout(LayoutKind.Sequential)]
internal struct kvm_mp_state
{
    public uint mp_state;
}

[StructLayout(LayoutKind.Sequential)]
internal unsafe struct kvm_ioeventfd
{
    public ulong datamatch;
    public ulong addr;
    public uint len;
    public int fd;
    public uint flags;
    public fixed byte pad[36];
}

[StructLayout(LayoutKind.Sequential)]
internal unsafe struct kvm_enable_cap
{
    public uint cap;
    public uint flags;
    public fixed ulong args[4];
    public fixed byte pad[64];
}

[StructLayout(LayoutKind.Sequential)]
internal unsafe struct kvm_irqfd
{
    public uint fd;
    public uint gsi;
    public uint flags;
    public uint resamplefd;
    public fixed byte pad[16];
}

[StructLayout(LayoutKind.Sequential)]
internal unsafe struct kvm_clock_data
{
    public ulong clock;
    public uint flags;
    public uint pad0;
    public ulong realtime;
    public ulong host_tsc;
    public fixed uint pad[4];
}

[StructLayout(LayoutKind.Sequential)]
internal unsafe struct kvm_msi
{
    public uint address_lo;
    public uint address_hi;
    public uint data;
    public uint flags;
    public uint devid;
    public fixed byte pad[12];
}

[StructLayout(LayoutKind.Sequential)]
internal struct kvm_irq_routing_irqchip
{
    public uint irqchip;
    public uint pin;
}

[StructLayout(LayoutKind.Sequential)]
internal struct kvm_irq_routing_msi
{
    public uint address_lo;
    public uint address_hi;
    public uint data;
    public uint devid;
}

[StructLayout(LayoutKind.Explicit, Size = 48)]
internal struct kvm_irq_routing_entry
{
    [FieldOffset(0)] public uint gsi;
    [FieldOffset(4)] public uint type;
    [FieldOffset(8)] public uint flags;
    [FieldOffset(12)] public uint pad;
    [FieldOffset(16)] public kvm_irq_routing_irqchip irqchip;
    [FieldOffset(16)] public kvm_irq_routing_msi msi;
}

[StructLayout(LayoutKind.Sequential)]
internal unsafe struct kvm_x86_mce
{
    public ulong status;
    public ulong addr;
    public ulong misc;
    public ulong mcg_status;
    public byte bank;
    public fixed byte pad1[7];
    public fixed ulong pad2[3];
}
