using System.Buffers.Binary;
using System.Text;
using ImgKit.Cpu;

namespace ImgKit.Machine.Firmware;

/// <summary>
/// Starts a kernel in place of the firmware: Linux bzImage (Linux, Documentation/arch/x86/boot.rst, 32-bit boot protocol), ELF with a PVH
/// entry (Xen, docs/misc/pvh), and a plain vmlinux of 32 or 64 bits.
/// Every number in the kernel's headers is checked against guest RAM.
/// </summary>
public sealed class KernelLoader
{
    // Where things lie below 640 KiB.
    private const ulong Gdt = 0x0800, StartInfo = 0x1000, PageTables = 0x4000, ZeroPage = 0x1_0000, CommandLine = 0x2_0000;
    private const int CommandLineLimit = 0x1_0000;
    private const ulong TablesAt = 0xF_1000, SmbiosAnchorAt = 0xF_0000, RsdpAt = 0xF_0040;

    // The headers of every kind lie in its first bytes; the rest is read when it is put in place.
    private const int HeadLength = 12 << 10;

    private readonly BootFile _file;
    private readonly byte[] _kernel;
    private readonly IReadOnlyList<(BootFile Content, string CommandLine)> _modules;
    private readonly string _commandLine;

    private enum Kind
    {
        Linux,
        Elf,
    }

    private readonly Kind _kind;

    /// <summary>Looks at the kernel. Throws <see cref="MachineException"/> when it is of no known kind.</summary>
    public KernelLoader(BootFile file, IReadOnlyList<(BootFile Content, string CommandLine)> modules, string commandLine)
    {
        _file = file;
        byte[] kernel = _kernel = file.Read(0, (int)Math.Min(file.Length, HeadLength));
        _modules = modules;
        _commandLine = commandLine;
        if (Encoding.ASCII.GetByteCount(commandLine) >= CommandLineLimit)
            throw new MachineException("the kernel command line is too long");
        if (kernel.Length > 0x264 && U32(0x202) == 0x53726448)      // "HdrS"
            _kind = Kind.Linux;
        else if (kernel.Length > 64 && U32(0) == 0x464C457F)
            _kind = Kind.Elf;
        else
            throw new MachineException("invalid kernel header: neither Linux, nor ELF, nor Multiboot");
        if (_kind == Kind.Linux && (U16(0x206) < 0x202 || (_kernel[0x211] & 1) == 0))
            throw new MachineException("linux kernel too old to load: boot protocol 2.02 with a high load address is needed");
    }

    private ushort U16(int at) => BinaryPrimitives.ReadUInt16LittleEndian(_kernel.AsSpan(at));

    private uint U32(int at) => BinaryPrimitives.ReadUInt32LittleEndian(_kernel.AsSpan(at));

    /// <summary>Puts kernel, tables and the bootstrap processor's state in place. Under the machine lock, processors parked.</summary>
    internal void Start(Pc pc, AcpiTables? acpi, (byte[] Table, int Structures, int Longest) smbios)
    {
        var memory = pc.Services.Memory;
        PlaceTables(memory, acpi, smbios);
        var state = new CpuState();
        var cpu = pc.Processors.First();
        cpu.GetState(state);
        switch (_kind)
        {
            case Kind.Linux:
                StartLinux(memory, state, acpi != null);
                break;
            default:
                StartElf(memory, state, acpi != null);
                break;
        }
        cpu.SetState(state);
        // What was written goes around devices and engines.
        memory.Map.NotifyDeviceWrite(0, memory.LowSize);
    }

    private static void PlaceTables(GuestMemory memory, AcpiTables? acpi, (byte[] Table, int Structures, int Longest) smbios)
    {
        int at = (int)TablesAt;
        if (acpi != null)
        {
            byte[] blob = acpi.Relocated((uint)at);
            blob.CopyTo(memory.Ram((ulong)at, blob.Length));
            byte[] rsdp = AcpiTables.Rsdp((uint)(at + acpi.RsdtOffset));
            rsdp[8] = AcpiTables.Checksum(rsdp);
            rsdp.CopyTo(memory.Ram(RsdpAt, rsdp.Length));
            at = (at + blob.Length + 63) & ~63;
        }
        if (at + smbios.Table.Length > 0x10_0000)
            throw new MachineException("too many processors for the firmware tables of a direct kernel boot");
        smbios.Table.CopyTo(memory.Ram((ulong)at, smbios.Table.Length));
        byte[] anchor = SmbiosTables.Anchor(smbios.Table.Length, smbios.Structures, smbios.Longest, (uint)at);
        anchor.CopyTo(memory.Ram(SmbiosAnchorAt, anchor.Length));
    }

    private static Span<byte> Room(GuestMemory memory, ulong at, long length, string what)
    {
        if (at > memory.LowSize || length < 0 || (ulong)length > memory.LowSize - at)
            throw new MachineException($"{what} does not fit in guest memory");
        return memory.Ram(at, (int)length);
    }

    private static void PutCommandLine(GuestMemory memory, string text)
    {
        var room = memory.Ram(CommandLine, CommandLineLimit);
        int n = Encoding.UTF8.GetBytes(text, room);
        room[n] = 0;
    }

    // Flat segments with base 0 and limit 4 GiB, and the descriptor table that holds them at selectors 0x10 and 0x18.
    private static void SetProtectedMode(GuestMemory memory, CpuState s, uint eip, bool longMode = false)
    {
        var gdt = memory.Ram(Gdt, 32);
        gdt.Clear();
        BinaryPrimitives.WriteUInt64LittleEndian(gdt[16..], longMode ? 0x00AF_9B00_0000_FFFFUL : 0x00CF_9B00_0000_FFFFUL);
        BinaryPrimitives.WriteUInt64LittleEndian(gdt[24..], 0x00CF_9300_0000_FFFF);
        const uint Code32 = 0xC09B, Code64 = 0xA09B, Data = 0xC093;
        var data = new SegmentRegister(0x18, 0, uint.MaxValue, Data);
        for (int i = 0; i < 6; i++)
            s.Segments[i] = i == 1 ? new SegmentRegister(0x10, 0, uint.MaxValue, longMode ? Code64 : Code32) : data;
        s.Tr = new SegmentRegister(0, 0, 0x67, 0x8B);
        s.Ldtr = new SegmentRegister(0, 0, 0, 0x1_0082);
        s.Gdtr = (Gdt, 31);
        s.Idtr = (0, 0);
        s.Cr0 = s.Cr0 & 0x10 | 1;
        s.Cr4 = 0;
        s.Rflags = 2;
        Array.Clear(s.Gpr);
        s.Gpr[4] = 0x9_0000;
        s.Rip = eip;
        s.Halted = s.WaitingForStartup = false;
    }

    private static void SetLongMode(GuestMemory memory, CpuState s, ulong rip)
    {
        // Identity map of the first 4 GiB in pages of 2 MiB: one PML4, one PDPT, four page directories.
        var tables = memory.Ram(PageTables, 6 * 4096);
        tables.Clear();
        BinaryPrimitives.WriteUInt64LittleEndian(tables, PageTables + 0x1000 | 3);
        for (int i = 0; i < 4; i++)
            BinaryPrimitives.WriteUInt64LittleEndian(tables[(0x1000 + 8 * i)..], PageTables + 0x2000 + (ulong)i * 0x1000 | 3);
        for (int i = 0; i < 2048; i++)
            BinaryPrimitives.WriteUInt64LittleEndian(tables[(0x2000 + 8 * i)..], (ulong)i << 21 | 0x83);
        SetProtectedMode(memory, s, 0, true);
        s.Cr3 = PageTables;
        s.Cr4 = 0x20;
        s.Cr0 |= 0x8000_0000;
        s.Msrs[0xC000_0080] = 0x500;
        s.Rip = rip;
    }

    private long RamDiskLength => _modules.Count == 0 ? 0 : _modules[0].Content.Length;

    private ulong PlaceRamDisk(GuestMemory memory, ulong highest, ulong above)
    {
        if (RamDiskLength == 0)
            return 0;
        ulong top = Math.Min(memory.LowSize, highest + 1);
        if (top < (ulong)RamDiskLength + above)
            throw new MachineException("initrd does not fit in guest memory");
        ulong at = (top - (ulong)RamDiskLength) & ~0xFFFUL;
        _modules[0].Content.Read(0, Room(memory, at, RamDiskLength, "initrd"));
        return at;
    }

    private void StartLinux(GuestMemory memory, CpuState state, bool hasAcpi)
    {
        int setup = (_kernel[0x1F1] == 0 ? 4 : _kernel[0x1F1]) * 512 + 512;
        if (setup >= _file.Length)
            throw new MachineException("the kernel file ends inside its setup code");
        const ulong LoadAt = 0x10_0000;
        long body = _file.Length - setup;
        _file.Read(setup, Room(memory, LoadAt, body, "the kernel"));

        var zero = memory.Ram(ZeroPage, 4096);
        zero.Clear();
        int headerEnd = Math.Min(0x202 + _kernel[0x201], Math.Min(0x290, setup));
        _kernel.AsSpan(0x1F1, headerEnd - 0x1F1).CopyTo(zero[0x1F1..]);
        PutScreen(zero);
        ulong highest = U16(0x206) >= 0x203 ? U32(0x22C) : 0x37FF_FFFF;
        ulong above = LoadAt + Math.Max((ulong)body, U16(0x206) >= 0x20A ? U32(0x260) : (ulong)body * 4);
        ulong disk = PlaceRamDisk(memory, highest, above);
        zero[0x210] = 0xFF;                 // a loader without a number
        zero[0x211] |= 0x80;                // the heap may be used
        BinaryPrimitives.WriteUInt16LittleEndian(zero[0x224..], 0xFE00);
        BinaryPrimitives.WriteUInt32LittleEndian(zero[0x218..], (uint)disk);
        BinaryPrimitives.WriteUInt32LittleEndian(zero[0x21C..], (uint)RamDiskLength);
        BinaryPrimitives.WriteUInt32LittleEndian(zero[0x214..], (uint)LoadAt);
        BinaryPrimitives.WriteUInt32LittleEndian(zero[0x228..], (uint)CommandLine);
        PutCommandLine(memory, _commandLine);
        if (hasAcpi)
            BinaryPrimitives.WriteUInt64LittleEndian(zero[0x70..], RsdpAt);
        var map = E820.ForKernel(memory);
        zero[0x1E8] = (byte)map.Count;
        E820.Encode(map).CopyTo(zero[0x2D0..]);
        // alt_mem_k, for kernels that do not look at E820
        BinaryPrimitives.WriteUInt32LittleEndian(zero[0x1E0..], (uint)((memory.LowSize - (1 << 20)) >> 10));

        SetProtectedMode(memory, state, (uint)LoadAt);
        state.Gpr[6] = ZeroPage;
    }

    // An 80x25 colour text screen, as the firmware would leave it.
    private static void PutScreen(Span<byte> zero)
    {
        zero[0x06] = 3;
        zero[0x07] = 80;
        zero[0x0E] = 25;
        zero[0x0F] = 1;
        BinaryPrimitives.WriteUInt16LittleEndian(zero[0x10..], 16);
    }

    // Returns where the kernel ends.
    private ulong LoadElf(GuestMemory memory, ElfImage image)
    {
        ulong end = 0;
        foreach (var (offset, stored, at, length) in image.Segments)
        {
            if (length > memory.LowSize)
                throw new MachineException("the kernel does not fit in guest memory");
            var room = Room(memory, at, (long)length, "the kernel");
            _file.Read(offset, room[..(int)stored]);
            room[(int)stored..].Clear();
            end = Math.Max(end, at + length);
        }
        return end;
    }

    private void StartElf(GuestMemory memory, CpuState state, bool hasAcpi)
    {
        var image = new ElfImage(_file);
        ulong end = LoadElf(memory, image);
        PutCommandLine(memory, _commandLine);
        ulong disk = PlaceRamDisk(memory, 0xFFFF_FFFF, end);
        var map = E820.ForKernel(memory);
        if (image.PvhEntry != 0)
        {
            var info = memory.Ram(StartInfo, 4096);
            info.Clear();
            BinaryPrimitives.WriteUInt32LittleEndian(info, 0x336EC578);
            BinaryPrimitives.WriteUInt32LittleEndian(info[4..], 1);
            BinaryPrimitives.WriteUInt32LittleEndian(info[12..], RamDiskLength > 0 ? 1u : 0);
            BinaryPrimitives.WriteUInt64LittleEndian(info[16..], StartInfo + 64);
            BinaryPrimitives.WriteUInt64LittleEndian(info[24..], CommandLine);
            BinaryPrimitives.WriteUInt64LittleEndian(info[32..], hasAcpi ? RsdpAt : 0);
            BinaryPrimitives.WriteUInt64LittleEndian(info[40..], StartInfo + 128);
            BinaryPrimitives.WriteUInt32LittleEndian(info[48..], (uint)map.Count);
            BinaryPrimitives.WriteUInt64LittleEndian(info[64..], disk);
            BinaryPrimitives.WriteUInt64LittleEndian(info[72..], (ulong)RamDiskLength);
            for (int i = 0; i < map.Count; i++)
            {
                var e = info[(128 + 24 * i)..];
                BinaryPrimitives.WriteUInt64LittleEndian(e, map[i].Start);
                BinaryPrimitives.WriteUInt64LittleEndian(e[8..], map[i].Length);
                BinaryPrimitives.WriteUInt32LittleEndian(e[16..], map[i].Kind);
            }
            SetProtectedMode(memory, state, (uint)image.PvhEntry);
            state.Gpr[3] = StartInfo;
            return;
        }
        // A vmlinux: its entry takes the zero page in (E)SI, in the mode that it is made for.
        var zero = memory.Ram(ZeroPage, 4096);
        zero.Clear();
        PutScreen(zero);
        BinaryPrimitives.WriteUInt16LittleEndian(zero[0x1FE..], 0xAA55);
        "HdrS"u8.CopyTo(zero[0x202..]);
        BinaryPrimitives.WriteUInt16LittleEndian(zero[0x206..], 0x20C);
        zero[0x210] = 0xFF;
        zero[0x211] = 1;
        BinaryPrimitives.WriteUInt32LittleEndian(zero[0x218..], (uint)disk);
        BinaryPrimitives.WriteUInt32LittleEndian(zero[0x21C..], (uint)RamDiskLength);
        BinaryPrimitives.WriteUInt32LittleEndian(zero[0x228..], (uint)CommandLine);
        if (hasAcpi)
            BinaryPrimitives.WriteUInt64LittleEndian(zero[0x70..], RsdpAt);
        zero[0x1E8] = (byte)map.Count;
        E820.Encode(map).CopyTo(zero[0x2D0..]);
        if (image.Is64)
            SetLongMode(memory, state, image.Entry);
        else
            SetProtectedMode(memory, state, (uint)image.Entry);
        state.Gpr[6] = ZeroPage;
    }
}
