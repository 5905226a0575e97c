using System.Runtime.InteropServices;

namespace ImgKit.Cpu.Kvm.Interop;

/// <summary>The shape of struct kvm_cpuid2, kvm_msrs and kvm_irq_routing: a count, 32 bits of flags or padding, and the entries.</summary>
internal sealed unsafe class KvmList<T>(int room) where T : unmanaged
{
    private const int Header = 8;

    private readonly byte[] _bytes = new byte[Header + room * sizeof(T)];

    /// <summary>Makes a list of these entries.</summary>
    public KvmList(ReadOnlySpan<T> entries) : this(entries.Length)
    {
        entries.CopyTo(Entries);
        Count = entries.Length;
    }

    /// <summary>Entries that the kernel is to take, or that it has given.</summary>
    public int Count
    {
        get => Math.Clamp(MemoryMarshal.Read<int>(_bytes), 0, room);
        set => MemoryMarshal.Write(_bytes, value);
    }

    /// <summary>All the room there is.</summary>
    public Span<T> Entries => MemoryMarshal.Cast<byte, T>(_bytes.AsSpan(Header));

    /// <summary>As <see cref="KvmFd.Call(uint, void*, string)"/>.</summary>
    public int Call(KvmFd fd, uint request, string what)
    {
        fixed (byte* p = _bytes)
            return fd.Call(request, p, what);
    }

    /// <summary>As <see cref="KvmFd.Try(uint, void*)"/>.</summary>
    public int Try(KvmFd fd, uint request)
    {
        fixed (byte* p = _bytes)
            return fd.Try(request, p);
    }
}
