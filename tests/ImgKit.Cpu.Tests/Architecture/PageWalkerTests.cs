using ImgKit.Cpu.Architecture;

namespace ImgKit.Cpu.Tests.Architecture;

public sealed unsafe class PageWalkerTests
{
    // Where the tests keep their tables; the page itself is at physical 0 + offset, which no test reads.
    private const ulong Root = 0x100000, Level3 = 0x101000, Level2 = 0x102000, Level1 = 0x103000;

    public enum Shape
    {
        Legacy4K,
        Legacy4M,
        Pae4K,
        Pae2M,
        Long4K,
        Long2M,
        Long1G,
    }

    private static readonly Shape[] Shapes = Enum.GetValues<Shape>();

    /// <summary>Puts the processor into a paging mode with one page at linear 0; entry flags of the leaf and of the level above it.</summary>
    private static void Map(FakeProcessor p, Shape shape, ulong leaf, ulong upper)
    {
        var c = p.Context;
        c->Cr0 |= Cr0.Pe | Cr0.Pg;
        c->Cr3 = Root;
        const ulong large = 0x80;
        switch (shape)
        {
            case Shape.Legacy4K:
                c->Cr4 &= ~Cr4.Pae;
                p.WritePhysical(Root, (Level1 | upper) & 0xFFFFFFFF, 4);
                p.WritePhysical(Level1, leaf & 0xFFFFFFFF, 4);
                break;
            case Shape.Legacy4M:
                c->Cr4 = (c->Cr4 & ~Cr4.Pae) | Cr4.Pse;
                p.WritePhysical(Root, (leaf | large) & 0xFFFFFFFF, 4);
                break;
            case Shape.Pae4K or Shape.Pae2M:
                c->Cr4 |= Cr4.Pae;
                c->Pdpte[0] = Level2 | 1;
                p.WritePhysical(Level2, shape == Shape.Pae2M ? leaf | large : Level1 | upper, 8);
                p.WritePhysical(Level1, leaf, 8);
                break;
            default:
                c->Cr4 |= Cr4.Pae;
                c->Efer |= Efer.Lme | Efer.Lma;
                bool giga = shape == Shape.Long1G, mega = shape == Shape.Long2M;
                p.WritePhysical(Root, Level3 | (giga ? upper : 7), 8);
                p.WritePhysical(Level3, giga ? leaf | large : Level2 | (mega ? upper : 7), 8);
                p.WritePhysical(Level2, mega ? leaf | large : Level1 | upper, 8);
                p.WritePhysical(Level1, leaf, 8);
                break;
        }
    }

    /// <summary>Rules of the Intel SDM 3A 4.6.1 and 4.7 once more, in the order of the book's sentences.</summary>
    private static (bool Allowed, uint Error) Oracle(
        bool userPage, bool writable, bool noExecute, bool wp, bool nxe, bool smep, bool smap, bool ac, bool pae, bool write, bool fetch, int who)
    {
        const int user = 1, implicitSupervisor = 2;
        bool allowed;
        bool xd = noExecute && pae && nxe;
        if (who == user)
        {
            allowed = userPage;
            if (write && !writable)
                allowed = false;
            if (fetch && xd)
                allowed = false;
        }
        else if (fetch)
        {
            allowed = !xd && !(userPage && smep);
        }
        else
        {
            bool reachable = !userPage || !smap || (ac && who != implicitSupervisor);
            allowed = reachable && (!write || writable || !wp);
        }
        uint error = 1u | (write ? 2u : 0) | (who == user ? 4u : 0) | (fetch && ((pae && nxe) || smep) ? 16u : 0);
        return (allowed, allowed ? 0 : error);
    }

    private static IEnumerable<bool[]> Bits(int count) =>
        Enumerable.Range(0, 1 << count).Select(n => Enumerable.Range(0, count).Select(b => (n >> b & 1) != 0).ToArray());

    [Fact]
    public void Rights_follow_the_manual_in_every_combination()
    {
        using var p = new FakeProcessor("qemu64,+pdpe1gb,+smep,+smap");
        var c = p.Context;
        int checks = 0;
        foreach (var shape in Shapes)
        {
            bool pae = shape is not (Shape.Legacy4K or Shape.Legacy4M), hasUpper = shape != Shape.Legacy4M && shape != Shape.Pae2M;
            foreach (var e in Bits(6))
            {
                if ((!hasUpper && (e[3] || e[4] || e[5])) || (!pae && (e[2] || e[5])))
                    continue;
                ulong leaf = 1 | (e[0] ? 2UL : 0) | (e[1] ? 4UL : 0) | (e[2] ? 1UL << 63 : 0);
                ulong upper = 1 | (e[3] ? 2UL : 0) | (e[4] ? 4UL : 0) | (e[5] ? 1UL << 63 : 0);
                bool writable = e[0] && (e[3] || !hasUpper), userPage = e[1] && (e[4] || !hasUpper), noExecute = e[2] || e[5];
                foreach (var m in Bits(5))
                {
                    bool wp = m[0], nxe = m[1], smep = m[2], smap = m[3], ac = m[4];
                    if (noExecute && !nxe)
                        continue;
                    c->Cr0 = Cr0.Et | (wp ? Cr0.Wp : 0);
                    c->Cr4 = (smep ? Cr4.Smep : 0) | (smap ? Cr4.Smap : 0);
                    c->Efer = nxe ? Efer.Nxe : 0;
                    c->Rflags = 2 | (ac ? Flags.Ac : 0);
                    Map(p, shape, leaf, upper);
                    for (int kind = 0; kind < 3; kind++)
                    {
                        for (int who = 0; who < 3; who++)
                        {
                            var access = (kind == 1 ? PageAccess.Write : kind == 2 ? PageAccess.Fetch : PageAccess.Read)
                                | (who == 1 ? PageAccess.User : who == 2 ? PageAccess.Implicit : PageAccess.Read) | PageAccess.Probe;
                            var (allowed, error) = Oracle(userPage, writable, noExecute, wp, nxe, smep, smap, ac, pae, kind == 1, kind == 2, who);
                            bool got = PageWalker.Translate(c, p, 0x123, access, out var t);
                            if (got != allowed || t.ErrorCode != error || (got && t.Physical != 0x123))
                                Assert.Fail($"{shape} leaf {leaf:x} upper {upper:x} cr0 {c->Cr0:x} cr4 {c->Cr4:x} efer {c->Efer:x} ac {ac} {access}: {t}, expected {allowed} {error}");
                            if (got)
                            {
                                var may = Oracle(userPage, writable, noExecute, wp, nxe, smep, smap, ac, pae, true, false, who).Allowed;
                                var runs = Oracle(userPage, writable, noExecute, wp, nxe, smep, smap, ac, pae, false, true, who).Allowed;
                                Assert.Equal(userPage, t.User);
                                Assert.Equal(runs, t.Executable);
                                Assert.False(t.Writable && !may);
                            }
                            checks++;
                        }
                    }
                }
            }
        }
        Assert.True(checks > 50_000, $"{checks} checks");
    }

    [Theory]
    [InlineData(Shape.Legacy4K, 12)]
    [InlineData(Shape.Legacy4M, 22)]
    [InlineData(Shape.Pae4K, 12)]
    [InlineData(Shape.Pae2M, 21)]
    [InlineData(Shape.Long4K, 12)]
    [InlineData(Shape.Long2M, 21)]
    [InlineData(Shape.Long1G, 30)]
    public void A_read_sets_accessed_a_write_also_dirty_of_the_leaf_only(Shape shape, int shift)
    {
        using var p = new FakeProcessor("qemu64,+pdpe1gb");
        var c = p.Context;
        Map(p, shape, 7, 7);
        ulong leafAddress = shape switch
        {
            Shape.Legacy4K or Shape.Pae4K or Shape.Long4K => Level1,
            Shape.Legacy4M => Root,
            Shape.Pae2M or Shape.Long2M => Level2,
            _ => Level3,
        };
        Assert.True(PageWalker.Translate(c, p, 0, PageAccess.Read, out var t));
        Assert.False(t.Writable);
        Assert.Equal(shift, t.PageShift);
        Assert.Equal(0x20UL, p.ReadPhysical(leafAddress, 4) & 0x60);
        Assert.True(PageWalker.Translate(c, p, 0, PageAccess.Write, out t));
        Assert.True(t.Writable);
        Assert.Equal(0x60UL, p.ReadPhysical(leafAddress, 4) & 0x60);
        if (leafAddress == Level1)
        {
            ulong above = shape == Shape.Legacy4K ? Root : Level2;
            Assert.Equal(0x20UL, p.ReadPhysical(above, 4) & 0x60);
        }
    }

    [Fact]
    public void A_forbidden_access_sets_no_bits()
    {
        using var p = new FakeProcessor();
        Map(p, Shape.Legacy4K, 5, 7);
        Assert.False(PageWalker.Translate(p.Context, p, 0, PageAccess.Write | PageAccess.User, out var t));
        Assert.Equal(7u, t.ErrorCode);
        Assert.Equal(5UL, p.ReadPhysical(Level1, 4));
        Assert.Equal(Level1 | 7, p.ReadPhysical(Root, 4));
    }

    [Fact]
    public void A_table_entry_changed_meanwhile_is_read_again()
    {
        using var p = new FakeProcessor();
        Map(p, Shape.Legacy4K, 7, 7);
        int calls = 0;
        p.BeforeExchange = () =>
        {
            if (++calls == 1)
                p.WritePhysical(Root, Level3 | 7, 4);
        };
        p.WritePhysical(Level3, 0x5007, 4);
        Assert.True(PageWalker.Translate(p.Context, p, 0, PageAccess.Read, out var t));
        Assert.Equal(0x5000UL, t.Physical);
    }

    [Theory]
    // Bits above the processor's 40 physical ones, PS where there is no such page, low bits of large pages, and NX without EFER.NXE.
    [InlineData(Shape.Long4K, Level1, 1UL << 40, true)]
    [InlineData(Shape.Long4K, Level2, 1UL << 51, true)]
    [InlineData(Shape.Long4K, Level1, 1UL << 52, false)]
    [InlineData(Shape.Long4K, Root, 0x80UL, true)]
    [InlineData(Shape.Long4K, Level3, 0x80UL, true)]
    [InlineData(Shape.Long4K, Level1, 1UL << 63, true)]
    [InlineData(Shape.Long2M, Level2, 1UL << 13, true)]
    [InlineData(Shape.Long2M, Level2, 1UL << 20, true)]
    [InlineData(Shape.Long2M, Level2, 1UL << 12, false)]
    [InlineData(Shape.Pae4K, Level1, 1UL << 52, true)]
    [InlineData(Shape.Pae4K, Level1, 1UL << 62, true)]
    [InlineData(Shape.Pae2M, Level2, 1UL << 14, true)]
    [InlineData(Shape.Legacy4M, Root, 1UL << 21, true)]
    [InlineData(Shape.Legacy4M, Root, 1UL << 20, false)]
    [InlineData(Shape.Legacy4K, Root, 0x80UL, false)]
    public void Reserved_bits_fault(Shape shape, ulong address, ulong bit, bool faults)
    {
        using var p = new FakeProcessor();
        Map(p, shape, 7, 7);
        int size = shape is Shape.Legacy4K or Shape.Legacy4M ? 4 : 8;
        p.WritePhysical(address, p.ReadPhysical(address, size) | bit, size);
        Assert.Equal(!faults, PageWalker.Translate(p.Context, p, 0, PageAccess.Read, out var t));
        Assert.Equal(faults ? 9u : 0, t.ErrorCode);
    }

    [Fact]
    public void An_absent_level_faults_without_present_whatever_the_rights_above()
    {
        using var p = new FakeProcessor();
        Map(p, Shape.Long4K, 0, 1);
        Assert.False(PageWalker.Translate(p.Context, p, 0, PageAccess.Write | PageAccess.User, out var t));
        Assert.Equal(6u, t.ErrorCode);
    }

    [Fact]
    public void Pse36_pages_reach_beyond_4_gib()
    {
        using var p = new FakeProcessor("pentium3");
        Map(p, Shape.Legacy4M, 7 | (0xFUL << 13), 0);
        Assert.True(PageWalker.Translate(p.Context, p, 0x3FFFFF, PageAccess.Read, out var t));
        Assert.Equal(0xF_003FFFFFUL, t.Physical);
        p.WritePhysical(Root, 0x87 | (1 << 17), 4);
        Assert.False(PageWalker.Translate(p.Context, p, 0, PageAccess.Read, out t));
        Assert.Equal(9u, t.ErrorCode);
    }

    [Fact]
    public void Pages_are_global_only_with_cr4_pge()
    {
        using var p = new FakeProcessor();
        Map(p, Shape.Legacy4K, 7 | 0x100, 7);
        Assert.True(PageWalker.Translate(p.Context, p, 0, PageAccess.Read, out var t));
        Assert.False(t.Global);
        p.Context->Cr4 |= Cr4.Pge;
        Assert.True(PageWalker.Translate(p.Context, p, 0, PageAccess.Read, out t));
        Assert.True(t.Global);
    }

    [Fact]
    public void Peek_sees_pages_of_every_privilege_and_changes_nothing()
    {
        using var p = new FakeProcessor("qemu64,+smap");
        Map(p, Shape.Long4K, 0x7007, 7);
        p.Context->Cr4 |= Cr4.Smap;
        byte[] before = (byte[])p.Memory.Clone();
        Assert.Equal(0x7123, PageWalker.Peek(p.Context, p, 0x123));
        Assert.Equal(-1, PageWalker.Peek(p.Context, p, 0x1000));
        Assert.Equal(-1, PageWalker.Peek(p.Context, p, 1UL << 50));
        Assert.Equal(before, p.Memory);
    }

    [Fact]
    public void Without_paging_linear_is_physical()
    {
        using var p = new FakeProcessor();
        Assert.True(PageWalker.Translate(p.Context, p, 0x12345678, PageAccess.Write | PageAccess.User, out var t));
        Assert.Equal(0x12345678UL, t.Physical);
        Assert.True(t.Writable);
    }
}
