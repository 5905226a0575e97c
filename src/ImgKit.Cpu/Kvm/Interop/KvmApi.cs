namespace ImgKit.Cpu.Kvm.Interop;

/// <summary>Requests and constants of the KVM interface, under the kernel's names (linux/kvm.h, asm/kvm.h of Linux 6.1). A test
/// compares each with the header.</summary>
internal static class KvmApi
{
    /// <summary>The only version there ever was.</summary>
    public const int KVM_API_VERSION = 12;

    public const uint KVM_GET_API_VERSION = 0xae00;
    public const uint KVM_CREATE_VM = 0xae01;
    public const uint KVM_GET_MSR_INDEX_LIST = 0xc004ae02;
    public const uint KVM_CHECK_EXTENSION = 0xae03;
    public const uint KVM_GET_VCPU_MMAP_SIZE = 0xae04;
    public const uint KVM_GET_SUPPORTED_CPUID = 0xc008ae05;
    public const uint KVM_CREATE_VCPU = 0xae41;
    public const uint KVM_GET_DIRTY_LOG = 0x4010ae42;
    public const uint KVM_SET_USER_MEMORY_REGION = 0x4020ae46;
    public const uint KVM_SET_TSS_ADDR = 0xae47;
    public const uint KVM_SET_IDENTITY_MAP_ADDR = 0x4008ae48;
    public const uint KVM_CREATE_IRQCHIP = 0xae60;
    public const uint KVM_IRQ_LINE = 0x4008ae61;
    public const uint KVM_GET_IRQCHIP = 0xc208ae62;
    public const uint KVM_SET_IRQCHIP = 0x8208ae63;
    public const uint KVM_REGISTER_COALESCED_MMIO = 0x4010ae67;
    public const uint KVM_UNREGISTER_COALESCED_MMIO = 0x4010ae68;
    public const uint KVM_SET_GSI_ROUTING = 0x4008ae6a;
    public const uint KVM_REINJECT_CONTROL = 0xae71;
    public const uint KVM_IRQFD = 0x4020ae76;
    public const uint KVM_CREATE_PIT2 = 0x4040ae77;
    public const uint KVM_IOEVENTFD = 0x4040ae79;
    public const uint KVM_SET_CLOCK = 0x4030ae7b;
    public const uint KVM_GET_CLOCK = 0x8030ae7c;
    public const uint KVM_GET_PIT2 = 0x8070ae9f;
    public const uint KVM_SET_PIT2 = 0x4070aea0;
    public const uint KVM_SET_TSC_KHZ = 0xaea2;
    public const uint KVM_GET_TSC_KHZ = 0xaea3;
    public const uint KVM_SIGNAL_MSI = 0x4020aea5;
    public const uint KVM_RUN = 0xae80;
    public const uint KVM_GET_REGS = 0x8090ae81;
    public const uint KVM_SET_REGS = 0x4090ae82;
    public const uint KVM_GET_SREGS = 0x8138ae83;
    public const uint KVM_SET_SREGS = 0x4138ae84;
    public const uint KVM_TRANSLATE = 0xc018ae85;
    public const uint KVM_INTERRUPT = 0x4004ae86;
    public const uint KVM_GET_MSRS = 0xc008ae88;
    public const uint KVM_SET_MSRS = 0x4008ae89;
    public const uint KVM_GET_LAPIC = 0x8400ae8e;
    public const uint KVM_SET_LAPIC = 0x4400ae8f;
    public const uint KVM_SET_CPUID2 = 0x4008ae90;
    public const uint KVM_GET_MP_STATE = 0x8004ae98;
    public const uint KVM_SET_MP_STATE = 0x4004ae99;
    public const uint KVM_NMI = 0xae9a;
    public const uint KVM_SET_GUEST_DEBUG = 0x4048ae9b;
    public const uint KVM_X86_SETUP_MCE = 0x4008ae9c;
    public const uint KVM_X86_GET_MCE_CAP_SUPPORTED = 0x8008ae9d;
    public const uint KVM_X86_SET_MCE = 0x4040ae9e;
    public const uint KVM_GET_VCPU_EVENTS = 0x8040ae9f;
    public const uint KVM_SET_VCPU_EVENTS = 0x4040aea0;
    public const uint KVM_GET_DEBUGREGS = 0x8080aea1;
    public const uint KVM_SET_DEBUGREGS = 0x4080aea2;
    public const uint KVM_GET_SUPPORTED_HV_CPUID = 0xc008aec1;
    public const uint KVM_ENABLE_CAP = 0x4068aea3;
    public const uint KVM_GET_XSAVE = 0x9000aea4;
    public const uint KVM_SET_XSAVE = 0x5000aea5;
    public const uint KVM_GET_XCRS = 0x8188aea6;
    public const uint KVM_SET_XCRS = 0x4188aea7;
    public const uint KVM_KVMCLOCK_CTRL = 0xaead;
    public const uint KVM_SMI = 0xaeb7;

    public const uint KVM_MEM_LOG_DIRTY_PAGES = 1;
    public const uint KVM_MEM_READONLY = 2;

    public const uint KVM_EXIT_UNKNOWN = 0;
    public const uint KVM_EXIT_IO = 2;
    public const uint KVM_EXIT_DEBUG = 4;
    public const uint KVM_EXIT_HLT = 5;
    public const uint KVM_EXIT_MMIO = 6;
    public const uint KVM_EXIT_IRQ_WINDOW_OPEN = 7;
    public const uint KVM_EXIT_SHUTDOWN = 8;
    public const uint KVM_EXIT_FAIL_ENTRY = 9;
    public const uint KVM_EXIT_INTR = 10;
    public const uint KVM_EXIT_SET_TPR = 11;
    public const uint KVM_EXIT_INTERNAL_ERROR = 17;
    public const uint KVM_EXIT_SYSTEM_EVENT = 24;
    public const uint KVM_EXIT_IOAPIC_EOI = 26;
    public const uint KVM_EXIT_HYPERV = 27;
    public const uint KVM_EXIT_HYPERV_HCALL = 2;
    public const uint KVM_EXIT_X86_RDMSR = 29;
    public const uint KVM_EXIT_X86_WRMSR = 30;
    public const uint KVM_EXIT_IO_IN = 0;

    public const uint KVM_INTERNAL_ERROR_EMULATION = 1;
    public const uint KVM_INTERNAL_ERROR_SIMUL_EX = 2;
    public const uint KVM_INTERNAL_ERROR_DELIVERY_EV = 3;
    public const uint KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON = 4;

    public const uint KVM_SYSTEM_EVENT_SHUTDOWN = 1;
    public const uint KVM_SYSTEM_EVENT_RESET = 2;
    public const uint KVM_SYSTEM_EVENT_CRASH = 3;

    public const uint KVM_MSR_EXIT_REASON_UNKNOWN = 2;


    public const uint KVM_MP_STATE_RUNNABLE = 0;
    public const uint KVM_MP_STATE_UNINITIALIZED = 1;
    public const uint KVM_MP_STATE_INIT_RECEIVED = 2;
    public const uint KVM_MP_STATE_HALTED = 3;

    public const uint KVM_IRQCHIP_PIC_MASTER = 0;
    public const uint KVM_IRQCHIP_PIC_SLAVE = 1;
    public const uint KVM_IRQCHIP_IOAPIC = 2;

    public const uint KVM_IRQ_ROUTING_IRQCHIP = 1;
    public const uint KVM_IRQ_ROUTING_MSI = 2;

    public const uint KVM_IRQFD_FLAG_DEASSIGN = 1;
    public const uint KVM_IRQFD_FLAG_RESAMPLE = 2;

    public const uint KVM_IOEVENTFD_FLAG_DATAMATCH = 1;
    public const uint KVM_IOEVENTFD_FLAG_PIO = 2;
    public const uint KVM_IOEVENTFD_FLAG_DEASSIGN = 4;

    public const uint KVM_PIT_SPEAKER_DUMMY = 1;
    public const uint KVM_PIT_FLAGS_HPET_LEGACY = 1;

    public const uint KVM_CPUID_FLAG_SIGNIFCANT_INDEX = 1;

    public const uint KVM_GUESTDBG_ENABLE = 1;
    public const uint KVM_GUESTDBG_SINGLESTEP = 2;
    public const uint KVM_GUESTDBG_USE_SW_BP = 65536;
    public const uint KVM_GUESTDBG_USE_HW_BP = 131072;
    public const uint KVM_GUESTDBG_INJECT_DB = 262144;
    public const uint KVM_GUESTDBG_INJECT_BP = 524288;

    public const uint KVM_VCPUEVENT_VALID_NMI_PENDING = 1;
    public const uint KVM_VCPUEVENT_VALID_SHADOW = 4;
    public const uint KVM_VCPUEVENT_VALID_SMM = 8;

    public const uint KVM_X86_SHADOW_INT_STI = 2;


    public const uint KVM_CAP_IRQCHIP = 0;
    public const uint KVM_CAP_USER_MEMORY = 3;
    public const uint KVM_CAP_SET_TSS_ADDR = 4;
    public const uint KVM_CAP_NR_VCPUS = 9;
    public const uint KVM_CAP_NR_MEMSLOTS = 10;
    public const uint KVM_CAP_MP_STATE = 14;
    public const uint KVM_CAP_COALESCED_MMIO = 15;
    public const uint KVM_CAP_SET_GUEST_DEBUG = 23;
    public const uint KVM_CAP_REINJECT_CONTROL = 24;
    public const uint KVM_CAP_IRQ_ROUTING = 25;
    public const uint KVM_CAP_MCE = 31;
    public const uint KVM_CAP_IRQFD = 32;
    public const uint KVM_CAP_PIT2 = 33;
    public const uint KVM_CAP_IOEVENTFD = 36;
    public const uint KVM_CAP_SET_IDENTITY_MAP_ADDR = 37;
    public const uint KVM_CAP_ADJUST_CLOCK = 39;
    public const uint KVM_CAP_VCPU_EVENTS = 41;
    public const uint KVM_CAP_HYPERV = 44;
    public const uint KVM_CAP_DEBUGREGS = 50;
    public const uint KVM_CAP_XSAVE = 55;
    public const uint KVM_CAP_XCRS = 56;
    public const uint KVM_CAP_TSC_CONTROL = 60;
    public const uint KVM_CAP_MAX_VCPUS = 66;
    public const uint KVM_CAP_TSC_DEADLINE_TIMER = 72;
    public const uint KVM_CAP_SIGNAL_MSI = 77;
    public const uint KVM_CAP_READONLY_MEM = 81;
    public const uint KVM_CAP_IRQFD_RESAMPLE = 82;
    public const uint KVM_CAP_X86_SMM = 117;
    public const uint KVM_CAP_SPLIT_IRQCHIP = 121;
    public const uint KVM_CAP_IOEVENTFD_ANY_LENGTH = 122;
    public const uint KVM_CAP_MULTI_ADDRESS_SPACE = 118;
    public const uint KVM_CAP_HYPERV_SYNIC = 123;
    public const uint KVM_CAP_IMMEDIATE_EXIT = 136;
    public const uint KVM_CAP_NESTED_STATE = 157;
    public const uint KVM_CAP_COALESCED_PIO = 162;
    public const uint KVM_CAP_X86_USER_SPACE_MSR = 188;
    public const uint KVM_CAP_SYS_HYPERV_CPUID = 191;
}
