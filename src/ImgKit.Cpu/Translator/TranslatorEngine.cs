using ImgKit.Cpu.Models;

namespace ImgKit.Cpu.Translator;

/// <summary>The software engine: vCPUs that run by binary translation, on any x86-64 host. Code caches are one a vCPU; what is shared
/// is the knowledge of which pages hold translated code.</summary>
public sealed class TranslatorEngine : CpuEngine
{
    private readonly PhysicalMemoryMap _memory, _memoryInSmm;
    private readonly CpuModel _model;
    private TranslatorVcpu[] _vcpus = [];

    /// <summary>Makes an engine over a map of guest memory.</summary>
    /// <param name="memory">may change at any time.</param>
    /// <param name="model">what the CPUs claim to be.</param>
    /// <param name="inSmm">the memory as CPUs in system-management mode see it; null: as all others do.</param>
    /// <exception cref="PlatformNotSupportedException">the host cannot run translated code.</exception>
    public TranslatorEngine(PhysicalMemoryMap memory, CpuModel model, PhysicalMemoryMap? inSmm = null)
    {
        ArgumentNullException.ThrowIfNull(memory);
        _memory = memory;
        _memoryInSmm = inSmm ?? memory;
        _model = model;
        CodeArena.Prepare();
        memory.Changed += OnMapChanged;
        if (inSmm != null)
            inSmm.Changed += OnMapChanged;
        memory.DeviceWrote += OnDeviceWrote;
        memory.DirtyScan += OnDirtyScan;
    }

    /// <inheritdoc/>
    public override string Name => "soft";

    internal PhysicalMemoryMap Memory => _memory;

    internal PhysicalMemoryMap MemoryInSmm => _memoryInSmm;

    internal CodeMap CodePages { get; } = new();

    /// <summary>Held while a locked access is done in pieces.</summary>
    internal Lock AtomicGate { get; } = new();

    internal TranslatorVcpu[] Vcpus => Volatile.Read(ref _vcpus);

    /// <inheritdoc/>
    public override Vcpu CreateVcpu(int index, IVcpuBus bus)
    {
        if (index is < 0 or > 29)
            throw new ArgumentOutOfRangeException(nameof(index), "the software engine runs up to 30 processors");
        var vcpu = new TranslatorVcpu(this, _model, bus, index);
        lock (AtomicGate)
            _vcpus = [.. _vcpus, vcpu];
        return vcpu;
    }

    /// <inheritdoc/>
    public override void SetA20(bool enabled)
    {
        foreach (var vcpu in Vcpus)
            vcpu.SetA20(enabled);
    }

    internal void Remove(TranslatorVcpu vcpu)
    {
        lock (AtomicGate)
            _vcpus = [.. _vcpus.Where(v => v != vcpu)];
    }

    /// <summary>Memory in a page of host memory changed: all vCPUs drop what they translated from there.</summary>
    /// <param name="hostPage">page-aligned host address.</param>
    /// <param name="start">first byte in the page.</param>
    /// <param name="end">behind the last.</param>
    /// <param name="current">the vCPU on whose thread this runs, or null.</param>
    internal void InvalidateCode(ulong hostPage, int start, int end, TranslatorVcpu? current)
    {
        uint mask = CodePages.Get(hostPage);
        if (mask == 0)
            return;
        foreach (var vcpu in Vcpus)
        {
            if ((mask >> vcpu.Index & 1) == 0)
                continue;
            if (vcpu == current)
                vcpu.InvalidateCode(hostPage, start, end);
            else
                vcpu.PostInvalidation(hostPage, start, end);
        }
    }

    /// <summary>A vCPU has stored to a page: the others, which may have looked before the store, drop what they translated from there.</summary>
    internal void InvalidateOthers(ulong hostPage, int start, int end, TranslatorVcpu current)
    {
        uint mask = CodePages.Get(hostPage);
        foreach (var vcpu in Vcpus)
        {
            if (vcpu != current && (mask >> vcpu.Index & 1) != 0)
                vcpu.PostInvalidation(hostPage, start, end);
        }
    }

    /// <summary>A page gets its first translated code: no vCPU may go on storing to it unseen.</summary>
    internal void ProtectPage(ulong hostPage)
    {
        foreach (var vcpu in Vcpus)
            vcpu.Memory.DropWriteEntries(hostPage);
    }

    private void OnMapChanged()
    {
        foreach (var vcpu in Vcpus)
            vcpu.PostFlush();
    }

    private void OnDeviceWrote(ulong address, ulong length)
    {
        ulong end = address + length;
        while (address < end)
        {
            ulong next = Math.Min(end, (address | 0xFFF) + 1);
            if (_memory.TryFind(address, out var region))
            {
                ulong host = (ulong)region.HostAddress + (address - region.Start);
                int start = (int)(host & 0xFFF);
                InvalidateCode(host & ~0xFFFUL, start, start + (int)(next - address), null);
            }
            address = next;
        }
    }

    private void OnDirtyScan()
    {
        foreach (var vcpu in Vcpus)
            vcpu.Memory.DropLoggedWriteEntries();
    }

    /// <inheritdoc/>
    public override void Dispose()
    {
        _memory.Changed -= OnMapChanged;
        _memoryInSmm.Changed -= OnMapChanged;
        _memory.DeviceWrote -= OnDeviceWrote;
        _memory.DirtyScan -= OnDirtyScan;
        CodePages.Dispose();
        base.Dispose();
    }
}
