using ImgKit.Cpu.Kvm.Interop;
using static ImgKit.Cpu.Kvm.Interop.KvmApi;

namespace ImgKit.Cpu.Kvm;

/// <summary>/dev/kvm, open, and found to have what every machine needs.</summary>
public sealed unsafe class KvmSystem : IDisposable
{
    private List<CpuidLeaf>? _cpuid;
    private uint[]? _msrs;

    private KvmSystem(KvmFd fd) => Fd = fd;

    /// <summary>Opens it. Throws <see cref="KvmException"/> with one line that says what is missing.</summary>
    public static KvmSystem Open()
    {
        var fd = KvmFd.Open(out int errno) ?? throw new KvmException(KvmHost.FindProblem() ?? $"cannot open /dev/kvm: {LibC.ErrorText(errno)}", errno);
        try
        {
            int version = fd.Try(KVM_GET_API_VERSION, (nuint)0);
            if (version != KVM_API_VERSION)
                throw new KvmException($"/dev/kvm speaks API version {version}, not {KVM_API_VERSION}");
            foreach (var (name, capability, needed) in KvmHost.Asked)
                if (needed && fd.Extension(capability) == 0)
                    throw new KvmException($"this kernel's KVM lacks: {name}");
            return new KvmSystem(fd);
        }
        catch
        {
            fd.Dispose();
            throw;
        }
    }

    internal KvmFd Fd { get; }

    /// <summary>What KVM can show a guest, before the CPU model.</summary>
    public IReadOnlyList<CpuidLeaf> SupportedCpuid => _cpuid ??= KvmCpuid.GetSupported(Fd, KVM_GET_SUPPORTED_CPUID);

    /// <summary>Indices of the MSRs that a vCPU may have.</summary>
    internal uint[] MsrIndices => _msrs ??= ListMsrs();

    private uint[] ListMsrs()
    {
        uint* probe = stackalloc uint[1];
        probe[0] = 0;
        _ = Fd.Try(KVM_GET_MSR_INDEX_LIST, probe); // E2BIG, with the number
        uint count = Math.Min(probe[0], 4096);
        uint[] list = new uint[1 + count];
        fixed (uint* p = list)
        {
            p[0] = count;
            Fd.Call(KVM_GET_MSR_INDEX_LIST, p, "list of MSRs");
            return list[1..(int)(1 + Math.Min(p[0], count))];
        }
    }

    /// <inheritdoc/>
    public void Dispose() => Fd.Dispose();
}
