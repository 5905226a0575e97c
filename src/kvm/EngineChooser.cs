using ImgKit.Cpu;
using ImgKit.Cpu.Kvm;
using ImgKit.Cpu.Models;
using ImgKit.Cpu.Translator;
using ImgKit.Machine;

namespace ImgKit.Programs.Kvm;

/// <summary>Decides what runs the guest, before anything is opened or started: KVM where it can be used and offers the CPU model, else (unless it was
/// demanded) the software CPU, with a line that says so.</summary>
internal sealed class EngineChooser
{
    private readonly Settings _settings;
    private readonly CpuTopology _topology;
    private readonly Accelerator _accelerator;
    private KvmSystem? _kvm;
    private KvmCpuModel? _kvmModel;
    private CpuModel? _model;

    /// <summary>Decides. Throws <see cref="MachineException"/>, <see cref="KvmException"/> or <see cref="CpuModelException"/>, one line each.</summary>
    internal EngineChooser(Settings settings, CpuTopology topology)
    {
        _settings = settings;
        _topology = topology;
        if (!Accelerator.TryParse(settings.Accelerator ?? "auto", out var accelerator, out string error))
            throw new MachineException(error);
        _accelerator = accelerator!;
        if (_accelerator.Check)
        {
            var host = KvmHost.Probe();
            throw new Options.HelpRequested(host.Describe(), host.IsHardware ? 0 : 1);
        }
        var choice = _accelerator.Choose();
        if (choice.Notice != null)
            Program.Say(choice.Notice);
        if (choice.UseKvm)
            TryKvm(OpenKvm);
        if (_kvm == null)
            _model = CpuModel.Parse(settings.Cpu ?? "qemu64", topology);
    }

    /// <summary>The processors have 64-bit mode.</summary>
    internal bool HasLongMode => (_kvm != null ? _kvmModel!.Model : _model)?.Has(CpuFeature.Lm) ?? true;

    private void OpenKvm()
    {
        _kvmModel = new KvmCpuModel(_settings.Cpu ?? "host", _topology);
        _kvm = KvmSystem.Open();
        if (_kvmModel.Check(_kvm.SupportedCpuid) is { } leftOut)
            Program.Warn(leftOut);
    }

    // With auto, KVM's refusal of this machine is a reason like any other to run it on the software CPU.
    private void TryKvm(Action work)
    {
        try
        {
            work();
        }
        catch (Exception e) when (_accelerator.Kind == AcceleratorKind.Auto && e is KvmException or CpuModelException)
        {
            _kvm?.Dispose();
            _kvm = null;
            Program.Say(Accelerator.FallBack(e.Message));
        }
    }

    /// <summary>Makes the engine for a machine's memory.</summary>
    /// <param name="memory">the memory as processors see it.</param>
    /// <param name="inSmm">as they see it in system-management mode; null: the machine has no such mode.</param>
    internal CpuEngine Make(PhysicalMemoryMap memory, PhysicalMemoryMap? inSmm)
    {
        CpuEngine? engine = null;
        if (_kvm != null)
            TryKvm(() => engine = new KvmVm(memory, new KvmOptions
            {
                InterruptControllers = _accelerator.InterruptControllers,
                ReinjectPitTicks = _settings.ReinjectPitTicks,
                SystemManagementMemory = inSmm,
                ProcessorCount = _settings.Processors,
                SelectCpuid = _kvmModel!.Select,
                HasOwnTopology = _kvmModel.HasOwnTopology,
                HideKvm = _kvmModel.HideKvm,
                HyperV = _kvmModel.HyperV,
                HyperVSpinlocks = _kvmModel.HyperVSpinlocks,
                HyperVVendor = _kvmModel.HyperVVendor,
                TscKilohertz = _kvmModel.TscKilohertz,
            }, _kvm));
        return engine ?? new TranslatorEngine(memory, _model ?? CpuModel.Parse(_settings.Cpu ?? "qemu64", _topology), inSmm);
    }
}
