using System.Text.RegularExpressions;

namespace ImgKit.KvmRig;

/// <summary>What scripts/test-kvm found, name by name.</summary>
public sealed partial class RigTests(Rig rig) : IClassFixture<Rig>
{
    /// <summary>The guests of the file "boots".</summary>
    public static TheoryData<string> Guests =>
    [
        .. File.ReadLines(Path.Combine(Rig.Root, "tests/KvmRig/boots")).Where(l => l.Length > 0 && l[0] != '#').Select(l => l.Split('|')[0]),
        "the first guest on the software CPU",
    ];

    /// <summary>The cases of "programs.sh".</summary>
    public static TheoryData<string> Cases => [.. SayLine().Matches(File.ReadAllText(Path.Combine(Rig.Root, "tests/KvmRig/programs.sh")))
        .Select(m => m.Groups[1].Value).Where(n => !n.Contains('$')).Append("internal error").Distinct()];

    [GeneratedRegex("^ +say \"([^\"]+)\"", RegexOptions.Multiline)]
    private static partial Regex SayLine();

    [Theory]
    [MemberData(nameof(Guests))]
    public void Guest_boots(string name) => Passed("BOOT " + name);

    [Theory]
    [MemberData(nameof(Cases))]
    public void Program_says(string name) => Passed("PROGRAM " + name);

    [Fact]
    public void Engine_runs_every_small_guest()
    {
        var all = rig.Of("SMOKE");
        Assert.True(all.Count >= 70, $"only {all.Count} ran:\n{rig.Log}");
        Assert.Empty(all.Where(r => !r.Value.StartsWith("pass", StringComparison.Ordinal)).Select(r => $"{r.Key}: {r.Value}"));
    }

    [Fact]
    public void Device_tests_pass_on_KVM_too()
    {
        var all = rig.Of("GUESTS");
        Assert.True(all.Count >= 5, $"only {all.Count} ran:\n{rig.Log}");
        Assert.Empty(all.Where(r => !r.Value.StartsWith("pass", StringComparison.Ordinal)).Select(r => $"{r.Key}: {r.Value}"));
    }

    private void Passed(string name) =>
        Assert.True(rig[name]?.StartsWith("pass", StringComparison.Ordinal) == true, $"{rig[name] ?? "did not come to it"}\n{rig.Log}");
}
