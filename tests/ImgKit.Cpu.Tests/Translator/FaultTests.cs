using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace ImgKit.Cpu.Tests.Translator;

/// <summary>Faults of programs at privilege level 3: which, where, and with what state, as the host's own processor has them.</summary>
[Collection("host comparison")]
public sealed class FaultTests
{
    /// <summary>PF AF ZF SF CF OF.</summary>
    private const ulong Arithmetic = 0x8D5;

    private static void Check(HostComparison comparison, Action<Assembler> write, ulong expected, ulong undefinedFlags = 0,
        ulong flags = 0)
    {
        InstructionTests.RandomState(comparison, new Random(3));
        comparison.Flags |= flags;
        string? difference = comparison.Compare(ProgramTests.Assemble(64, HostComparison.Code, write), undefinedFlags);
        Assert.True(difference == null, difference);
        Assert.Equal(expected, comparison.LastTrap);
    }

    [Fact]
    public void Single_faults_are_those_of_the_host()
    {
        using var comparison = new HostComparison(64, user: true);
        comparison.Gpr[4] = HostComparison.Data + 0x8000;
        comparison.Gpr[3] = HostComparison.Hole + 8;
        comparison.Gpr[6] = HostComparison.ReadOnlyPage + 16;
        comparison.Gpr[7] = 0x123456789ABCDEF0;
        Check(comparison, a => a.ud2(), 6);
        Check(comparison, a => a.hlt(), 13);
        Check(comparison, a =>
        {
            a.xor(ecx, ecx);
            a.div(ecx);
        }, 0);
        Check(comparison, a => a.mov(__qword_ptr[rbx], rax), 14);
        Check(comparison, a => a.mov(rax, __qword_ptr[rbx - 12]), 14);
        Check(comparison, a => a.add(__dword_ptr[rsi], eax), 14);
        Check(comparison, a => a.mov(rax, __qword_ptr[rdi]), 13);
        Check(comparison, a =>
        {
            a.mov(rsp, rdi);
            a.push(rax);
        }, 12);
        Check(comparison, a => a.movaps(xmm0, __xmmword_ptr[rsp + 4]), 13);
        Check(comparison, a =>
        {
            a.mov(__dword_ptr[rsp], 0x1F80 & ~0x200);
            a.ldmxcsr(__dword_ptr[rsp]);
            a.xorps(xmm0, xmm0);
            a.mov(eax, 0x3F800000);
            a.movd(xmm1, eax);
            a.divss(xmm1, xmm0);
        }, 19);
    }

    [Fact]
    public void Branches_to_no_address_fault_themselves()
    {
        using var comparison = new HostComparison(64, user: true);
        void Fault(Action<Assembler> write)
        {
            comparison.Gpr[0] = 0x800000000000;
            comparison.Gpr[13] = 0x0001000000000000;
            comparison.Gpr[14] = 0xFFFF7FFFFFFFFFFF;
            // In memory that is compared: a call that faults has written no return address.
            comparison.Gpr[4] = HostComparison.Data + 0x8000;
            InstructionTests.RandomState(comparison, new Random(3));
            unsafe
            {
                *(ulong*)(HostComparison.Data + 0x8000) = 0x8000000000000000;
            }
            string? difference = comparison.Compare(ProgramTests.Assemble(64, HostComparison.Code, write), 0);
            Assert.True(difference == null, difference);
            Assert.Equal(13UL, comparison.LastTrap);
        }
        Fault(a => a.jmp(rax));
        Fault(a => a.jmp(r14));
        Fault(a => a.jmp(__qword_ptr[rsp]));
        Fault(a => a.call(rax));
        Fault(a => a.call(r14));
        Fault(a => a.call(__qword_ptr[rsp]));
        Fault(a => a.call(r13));
        Fault(a => a.ret());
        Fault(a => a.ret(0x100));
        Fault(a =>
        {
            a.push(rax);
            a.cmp(rax, r14);
            a.ret();
        });
    }

    [Theory]
    [InlineData(64)]
    [InlineData(32)]
    public void Alignment_is_checked_as_the_host_checks_it(int bits)
    {
        var random = new Random(bits);
        using var comparison = new HostComparison(bits, user: true);
        var sampler = new InstructionSampler(random, bits) { AlignsVectors = false };
        var failures = new List<string>();
        int faults = 0;
        foreach (Code code in Enum.GetValues<Code>())
        {
            // AMD reads four bytes for this one, Intel two.
            if (!InstructionTests.IsComparable(code, bits) || code == Code.Movsxd_r16_rm16 || random.Next(2) == 0)
                continue;
            for (int round = 0; round < 1; round++)
            {
                sampler.Registers();
                var bytes = sampler.Make(code, out var instruction);
                if (bytes == null || instruction.MemorySize.GetSize() <= 1 || instruction.Mnemonic == Mnemonic.Lea || instruction.Mnemonic is (Mnemonic.Bt or Mnemonic.Bts or Mnemonic.Btr or Mnemonic.Btc))
                    continue;
                InstructionTests.RandomState(comparison, random);
                comparison.Flags |= 1 << 18;
                sampler.Gpr.CopyTo(comparison.Gpr, 0);
                string? difference = comparison.Compare(bytes, InstructionTests.UndefinedFlags(instruction));
                if (comparison.LastTrap == 17)
                    faults++;
                if (difference != null)
                {
                    failures.Add($"{instruction} [{code}] {instruction.MemorySize} {Convert.ToHexString(bytes)}: {difference}");
                    break;
                }
            }
        }
        Assert.True(failures.Count == 0, $"{failures.Count}\n{string.Join('\n', failures)}");
        Assert.True(faults > 25, $"only {faults} faults");
    }

    [Fact]
    public void Misaligned_strings_stacks_and_pages_that_are_not_there_fault_as_on_the_host()
    {
        using var comparison = new HostComparison(64, user: true);
        void Fault(Action<Assembler> write, ulong expected)
        {
            comparison.Gpr[1] = 20;
            comparison.Gpr[3] = HostComparison.Hole + 8;
            comparison.Gpr[4] = HostComparison.Data + 0x8004;
            comparison.Gpr[5] = HostComparison.Data + 0x800C;
            comparison.Gpr[6] = HostComparison.Data + 0x101;
            comparison.Gpr[7] = HostComparison.Data + 0x2100;
            Check(comparison, write, expected, 0, 1 << 18);
        }
        Fault(a => a.push(rax), 17);
        Fault(a => a.pop(rax), 17);
        Fault(a => a.push(ax), HostComparison.NoTrap);
        Fault(a => a.leave(), 17);
        Fault(a => a.enter(16, 0), 17);
        Fault(a => a.pushfq(), 17);
        Fault(a => a.call(__qword_ptr[rdi]), 17);
        Fault(a => a.call(__qword_ptr[rsi]), 17);
        Fault(a => a.jmp(__qword_ptr[rsi]), 17);
        Fault(a => a.ret(), 17);
        Fault(a => a.iretq(), 17);
        Fault(a => a.retf(), 17);
        Fault(a => a.movsw(), 17);
        Fault(a => a.movsb(), HostComparison.NoTrap);
        Fault(a => a.rep.movsw(), 17);
        Fault(a => a.rep.movsb(), HostComparison.NoTrap);
        Fault(a =>
        {
            a.inc(rdi);
            a.rep.stosw();
        }, 17);
        Fault(a => a.lodsd(), 17);
        Fault(a => a.scasq(), HostComparison.NoTrap);
        Fault(a => a.repe.cmpsw(), 17);
        Fault(a => a.mov(rax, __qword_ptr[rbx - 4]), 17);
        Fault(a => a.mov(__qword_ptr[rbx - 4], rax), 17);
        Fault(a => a.mov(rax, __qword_ptr[rbx - 12]), 17);
        Fault(a => a.mov(rax, __qword_ptr[rbx]), 14);
        Fault(a => a.bts(__dword_ptr[rsi], eax), 17);
        Fault(a => a.cmpxchg8b(__qword_ptr[rsi + 3]), 17);
        Fault(a => a.cmpxchg16b(__xmmword_ptr[rsi + 3]), 13);
        Fault(a => a.fxsave(__[rsi + 3]), 13);
        Fault(a => a.xsave(__[rsi + 31]), 13);
        Fault(a => a.fnstenv(__[rsi]), 17);
        Fault(a => a.fnstenv(__[rsi + 3]), HostComparison.NoTrap);
        Fault(a => a.fldenv(__[rsi + 1]), 17);
        Fault(a => a.fnsave(__[rsi + 1]), 17);
        Fault(a => a.fnsave(__[rsi + 3]), HostComparison.NoTrap);
        Fault(a => a.fbstp(__[rsi + 3]), 17);
        Fault(a => a.fld(__tword_ptr[rsi + 3]), 17);
        Fault(a => a.mov(ds, __word_ptr[rsi]), 17);
        Fault(a => a.maskmovdqu(xmm0, xmm1), HostComparison.NoTrap);
        // Flag off again: nothing is checked.
        Fault(a =>
        {
            a.sub(rsp, 4);
            a.pushfq();
            a.and(__dword_ptr[rsp], ~0x40000);
            a.popfq();
            a.mov(rax, __qword_ptr[rsi]);
        }, HostComparison.NoTrap);
    }

    [Fact]
    public void Operands_in_pages_that_are_not_there_or_not_writable_fault_as_on_the_host()
    {
        var random = new Random(8);
        using var comparison = new HostComparison(64, user: true);
        // Within the page, and up to its beginning from the page before.
        var sampler = new InstructionSampler(random)
        {
            AlignsVectors = false,
            Target = () => (random.Next(3) switch
            {
                0 => HostComparison.ReadOnlyPage + (ulong)random.Next(64) * 16,
                1 => HostComparison.Hole + (ulong)random.Next(64) * 16,
                _ => HostComparison.Hole - (ulong)random.Next(1, 8),
            }),
        };
        var failures = new List<string>();
        int faults = 0;
        foreach (Code code in Enum.GetValues<Code>())
        {
            if (!InstructionTests.IsComparable(code, 64) || random.Next(2) == 0)
                continue;
            sampler.Registers();
            var bytes = sampler.Make(code, out var instruction);
            if (bytes == null || instruction.MemorySize.GetSize() is 0 or > 32 || instruction.Mnemonic is (Mnemonic.Lea or Mnemonic.Bt or Mnemonic.Bts
                or Mnemonic.Btr or Mnemonic.Btc))
            {
                continue;
            }
            InstructionTests.RandomState(comparison, random);
            sampler.Gpr.CopyTo(comparison.Gpr, 0);
            string? difference = comparison.Compare(bytes);
            // What fits before the page finds what the host's run has left there.
            if (comparison.LastTrap == HostComparison.NoTrap)
                difference = comparison.Compare(bytes, Arithmetic);
            if (comparison.LastTrap == 14)
                faults++;
            if (difference != null)
                failures.Add($"{instruction} [{code}] {instruction.MemorySize} {Convert.ToHexString(bytes)}: {difference}");
        }
        Assert.True(failures.Count == 0, $"{failures.Count}\n{string.Join('\n', failures)}");
        Assert.True(faults > 100, $"only {faults} faults");
    }
}
