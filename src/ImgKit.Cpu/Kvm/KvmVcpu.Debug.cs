using System.Globalization;
using System.Text;
using ImgKit.Cpu.Kvm.Interop;
using static ImgKit.Cpu.Kvm.Interop.KvmApi;

namespace ImgKit.Cpu.Kvm;

/// <summary>A breakpoint that the host sets in the guest's debug registers.</summary>
/// <param name="Address">linear address.</param>
/// <param name="Kind">R/W field of DR7: 0 execution, 1 write, 3 read or write.</param>
/// <param name="Length">bytes: 1, 2, 4 or 8; 1 for execution.</param>
public readonly record struct HardwareBreakpoint(ulong Address, int Kind, int Length);

public sealed unsafe partial class KvmVcpu
{
    private bool _singleStep;
    private bool _softwareBreakpoints;
    private HardwareBreakpoint[] _breakpoints = [];

    /// <summary>Lets the host debug the guest: Run returns <see cref="VcpuExit.Debug"/> after one instruction, at INT3 (when
    /// <paramref name="softwareBreakpoints"/>), and at up to four hardware breakpoints. Only while it does not run.</summary>
    public void SetGuestDebug(bool singleStep, bool softwareBreakpoints, params HardwareBreakpoint[] breakpoints)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan(breakpoints.Length, 4);
        if (_machine.VmExtension(KVM_CAP_SET_GUEST_DEBUG) == 0)
            throw new KvmException("this kernel's KVM cannot debug guests");
        (_singleStep, _softwareBreakpoints, _breakpoints) = (singleStep, softwareBreakpoints, breakpoints);
        SetDebug(0);
    }

    /// <summary>Exception that stopped the guest, its address and DR6, after <see cref="VcpuExit.Debug"/>.</summary>
    public (byte Vector, ulong Address, ulong Dr6) DebugEvent { get; private set; }

    private void SetDebug(uint inject)
    {
        var debug = new kvm_guest_debug();
        if (_singleStep || _softwareBreakpoints || _breakpoints.Length > 0)
            debug.control = KVM_GUESTDBG_ENABLE;
        if (_singleStep)
            debug.control |= KVM_GUESTDBG_SINGLESTEP;
        if (_softwareBreakpoints)
            debug.control |= KVM_GUESTDBG_USE_SW_BP;
        if (_breakpoints.Length > 0)
        {
            debug.control |= KVM_GUESTDBG_USE_HW_BP;
            ulong dr7 = 0x600;
            for (int i = 0; i < _breakpoints.Length; i++)
            {
                var b = _breakpoints[i];
                debug.arch.debugreg[i] = b.Address;
                ulong length = b.Length switch { 2 => 1u, 4 => 3u, 8 => 2u, _ => 0u };
                dr7 |= 2ul << (2 * i) | (ulong)b.Kind << (16 + 4 * i) | length << (18 + 4 * i);
            }
            debug.arch.debugreg[7] = dr7;
        }
        debug.control |= inject;
        _fd.Call(KVM_SET_GUEST_DEBUG, &debug, "guest debugging");
    }

    /// <summary>True when the event is the host's; what the guest asked for itself is given to it.</summary>
    private bool HandleDebug()
    {
        ref var d = ref _run->debug;
        bool ours;
        if (d.exception == 1)
        {
            ours = _singleStep && (d.dr6 & 1 << 14) != 0;
            for (int i = 0; i < _breakpoints.Length; i++)
                ours |= (d.dr6 & 1ul << i) != 0;
        }
        else
        {
            ours = d.exception == 3 && _softwareBreakpoints;
        }
        if (ours)
        {
            DebugEvent = ((byte)d.exception, d.pc, d.dr6);
            return true;
        }
        SetDebug(d.exception == 3 ? KVM_GUESTDBG_INJECT_BP : KVM_GUESTDBG_INJECT_DB);
        return false;
    }

    /// <summary>Raises a machine check in the guest (bank, status, MCG status, address, miscellaneous), SDM volume 3B chapter 16.</summary>
    public void InjectMachineCheck(byte bank, ulong status, ulong mcgStatus, ulong address, ulong misc)
    {
        var mce = new kvm_x86_mce { bank = bank, status = status, mcg_status = mcgStatus, addr = address, misc = misc };
        _fd.Call(KVM_X86_SET_MCE, &mce, "machine check");
    }

    private void SetUpMachineCheck()
    {
        int banks = Math.Min(_machine.VmExtension(KVM_CAP_MCE), 10);
        if (banks == 0)
            return;
        ulong supported;
        _machine.System.Fd.Call(KVM_X86_GET_MCE_CAP_SUPPORTED, &supported, "machine-check capabilities");
        const ulong MCG_CTL_P = 1 << 8, MCG_SER_P = 1 << 24;
        ulong capabilities = supported & (MCG_CTL_P | MCG_SER_P) | (uint)banks;
        _fd.Call(KVM_X86_SETUP_MCE, &capabilities, "machine-check banks");
    }

    /// <summary>The kernel's own way: the message and event pages lie in the guest's memory.</summary>
    private void EnableSyntheticInterrupts()
    {
        var cap = new kvm_enable_cap { cap = KVM_CAP_HYPERV_SYNIC };
        _fd.Call(KVM_ENABLE_CAP, &cap, "synthetic interrupt controller");
    }

    // Where the pages lie is the kernel's matter; there is nobody here to take a guest's messages (TLFS 4.13: invalid connection ID).
    private void HyperVExit()
    {
        if (_run->hyperv.type == KVM_EXIT_HYPERV_HCALL)
            _run->hyperv.result = 0x12;
    }

    // HV_X64_MSR_CRASH_P0 to P4 (TLFS, partition crash enlightenment): the guest's words, with the last of which the kernel came here.
    private void ReportCrash()
    {
        const uint First = 0x40000100;
        var list = new KvmList<kvm_msr_entry>(5) { Count = 5 };
        for (uint i = 0; i < 5; i++)
            list.Entries[(int)i].index = First + i;
        int got = list.Call(_fd, KVM_GET_MSRS, "crash MSRs");
        ulong[] arguments = new ulong[5];
        for (int i = 0; i < got; i++)
            arguments[i] = list.Entries[i].data;
        _bus.ReportCrash(this, arguments);
    }

    private void Fail(string what) => _failure = $"KVM: {what}";

    private string DescribeExit()
    {
        switch (_run->exit_reason)
        {
            case KVM_EXIT_INTERNAL_ERROR:
                ref var e = ref _run->@internal;
                string text = e.suberror switch
                {
                    KVM_INTERNAL_ERROR_EMULATION => "an instruction could not be emulated",
                    KVM_INTERNAL_ERROR_SIMUL_EX => "exceptions at the same time",
                    KVM_INTERNAL_ERROR_DELIVERY_EV => "an exit during event delivery",
                    KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON => "an unexpected exit of the processor",
                    _ => "unknown",
                };
                var line = new StringBuilder($"internal error {e.suberror} ({text})");
                for (int i = 0; i < Math.Min(e.ndata, 16); i++)
                    line.Append(CultureInfo.InvariantCulture, $" 0x{e.data[i]:x}");
                return line.ToString();
            case KVM_EXIT_FAIL_ENTRY:
                return $"the processor refused to enter the guest, hardware reason 0x{_run->fail_entry.hardware_entry_failure_reason:x}";
            case KVM_EXIT_UNKNOWN:
                return $"unknown exit of the processor, hardware reason 0x{_run->hw:x}";
            case KVM_EXIT_SYSTEM_EVENT:
                return $"system event {_run->system_event.type}";
            default:
                return $"unexpected exit reason {_run->exit_reason}";
        }
    }
}
