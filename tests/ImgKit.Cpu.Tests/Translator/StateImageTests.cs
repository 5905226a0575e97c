using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace ImgKit.Cpu.Tests.Translator;

/// <summary>FXSAVE, XSAVE and what restores their images, right and wrong ones, beside the host's processor.</summary>
[Collection("host comparison")]
public sealed class StateImageTests
{
    private const ulong Image = HostComparison.Data + 0x1000, Spare = HostComparison.Data + 0x2000;

    private static Span<byte> Bytes
    {
        get
        {
            unsafe
            {
                return new Span<byte>((void*)Image, 1024);
            }
        }
    }

    private static void Check(HostComparison comparison, string what, Action<Assembler> write)
    {
        string? difference = comparison.Compare(ProgramTests.Assemble(64, HostComparison.Code, write));
        Assert.True(difference == null, $"{what}: {difference}");
    }

    private static void Prepare(HostComparison comparison, Random random)
    {
        InstructionTests.RandomState(comparison, random);
        comparison.Gpr[0] = (ulong)random.Next(8);
        comparison.Gpr[2] = 0;
        comparison.Gpr[3] = Image;
        comparison.Gpr[4] = HostComparison.Data + 0x8000;
        comparison.Gpr[6] = Spare;
    }

    [Fact]
    public void Images_are_written_as_the_processor_writes_them()
    {
        var random = new Random(5);
        using var comparison = new HostComparison(64, user: true);
        for (int round = 0; round < 24; round++)
        {
            (string, Action<Assembler>)[] cases =
            [
                ("fxsave", a => a.fxsave(__[rbx])), ("fxsave64", a => a.fxsave64(__[rbx])), ("xsave", a => a.xsave(__[rbx])),
                ("xsave64", a => a.xsave64(__[rbx])), ("xsavec", a => a.xsavec(__[rbx])), ("xsaveopt", a => a.xsaveopt(__[rbx])),
                // With parts in their initial state.
                ("fninit, xsave", a =>
                {
                    a.fninit();
                    a.xsave(__[rbx]);
                }),
                ("vzeroall, xsaveopt", a =>
                {
                    a.vzeroall();
                    a.xsaveopt(__[rbx]);
                }),
                ("fninit, xsavec64", a =>
                {
                    a.fninit();
                    a.xsavec64(__[rbx]);
                }),
                ("vzeroupper, xsave", a =>
                {
                    a.vzeroupper();
                    a.xsave(__[rbx]);
                }),
                ("vzeroall, xsavec", a =>
                {
                    a.vzeroall();
                    a.xsavec(__[rbx]);
                }),
            ];
            foreach (var (what, write) in cases)
            {
                Prepare(comparison, random);
                // The header's reserved part is zero, as a program has it.
                Bytes[512..576].Clear();
                Bytes[512] = (byte)random.Next(8);
                Check(comparison, what, write);
            }
        }
    }

    [Fact]
    public void Images_are_taken_or_refused_as_the_processor_does()
    {
        var random = new Random(6);
        using var comparison = new HostComparison(64, user: true);
        int faults = 0;
        for (int round = 0; round < 150; round++)
        {
            Prepare(comparison, random);
            Bytes[512..576].Clear();
            Bytes[512] = (byte)random.Next(8);
            BitConverter.TryWriteBytes(Bytes, (ushort)(random.Next(0x10000) & 0x1F3F | 0x7F));
            BitConverter.TryWriteBytes(Bytes[2..], (ushort)(random.Next(0x10000) & 0x7F00));
            BitConverter.TryWriteBytes(Bytes[24..], 0x1F80u | (uint)random.Next(64));
            Bytes[8..24].Clear();
            Bytes[5..8].Clear();
            // One thing wrong, in a third of them.
            int[] at = [512 + 7, 520, 528, 27, 540];
            if (random.Next(3) == 0)
                Bytes[at[random.Next(at.Length)]] = (byte)(1 << random.Next(8));
            if (random.Next(4) == 0)
            {
                Bytes[527] = 0x80;
                Bytes[520] = 7;
            }
            Action<Assembler> write = random.Next(4) switch
            {
                0 => a => a.fxrstor(__[rbx]),
                1 => a => a.fxrstor64(__[rbx]),
                2 => a => a.xrstor(__[rbx]),
                _ => a => a.xrstor64(__[rbx]),
            };
            Check(comparison, $"round {round} {Convert.ToHexString(Bytes[512..560])} {comparison.Gpr[0]} mxcsr {Convert.ToHexString(Bytes[24..28])}", write);
            if (comparison.LastTrap != HostComparison.NoTrap)
                faults++;
        }
        Assert.InRange(faults, 10, 100);
    }

    [Fact]
    public void A_state_that_was_saved_comes_back()
    {
        var random = new Random(7);
        using var comparison = new HostComparison(64, user: true);
        for (int round = 0; round < 40; round++)
        {
            Prepare(comparison, random);
            Bytes[512..576].Clear();
            comparison.Gpr[0] = 7;
            bool compact = random.Next(2) == 0;
            int parts = random.Next(8);
            Check(comparison, $"round {round}", a =>
            {
                if (compact)
                    a.xsavec(__[rbx]);
                else
                    a.xsave64(__[rbx]);
                a.fninit();
                a.vzeroall();
                a.movups(xmm3, __xmmword_ptr[rsi]);
                a.fldpi();
                a.mov(eax, parts);
                a.xrstor64(__[rbx]);
            });
        }
    }
}
