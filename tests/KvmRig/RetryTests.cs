using System.Diagnostics;

namespace ImgKit.KvmRig;

/// <summary>When the rig runs a machine again: with a stand-in for the emulator, each of whose starts does the next word of a plan.</summary>
public sealed class RetryTests(RetryTests.Runs runs) : IClassFixture<RetryTests.Runs>
{
    // What the rig must say of it, line by line.
    private static readonly (string Plan, int Starts, bool Success, int Passed, string[] Said)[] _plans =
    [
        ("good", 1, true, 2, []),
        ("silent good", 2, true, 2, ["the machine of the guests: no sign of life for 2 s", "the guests once more in a fresh one"]),
        ("dies good", 2, true, 2, ["the machine of the guests: it ended before its time", "the guests once more in a fresh one"]),
        ("silent silent", 2, false, 1, ["no sign of life", "once more", "no sign of life", "the guests did not come to its end"]),
        ("dies dies", 2, false, 1, ["ended before", "once more", "ended before", "the guests did not come to its end"]),
        ("silent fails", 2, false, 2, ["no sign of life", "once more", "SMOKE two: FAIL"]),
        ("fails good", 1, false, 2, ["SMOKE two: FAIL"]),
        ("fails-silent good", 1, false, 1, ["SMOKE two: FAIL", "no sign of life", "the guests did not come to its end"]),
        ("late good", 1, false, 1, ["out of time after 1 s", "the guests did not come to its end"]),
    ];

    // The stand-in's console looks like that of a machine of rig_initramfs. Its starts are counted in the file "starts".
    private const string Emulator = """
        #!/bin/bash
        cd "$(dirname "$0")"
        echo >>starts
        echo "SMOKE one: pass (1 ms)"
        case $(cut -d' ' -f"$(wc -l <starts)" plan) in
          good) ;;
          dies) exit 0 ;;
          silent) exec sleep 30 ;;
          fails) echo "SMOKE two: FAIL for a reason" ;;
          fails-silent) echo "SMOKE two: FAIL for a reason"; exec sleep 30 ;;
          late) while :; do echo kvm-rig-alive; sleep 0.1; done ;;
          *) echo "SMOKE plan: FAIL one start more than planned" ;;
        esac
        echo "SMOKE three: pass (1 ms)"
        echo kvm-rig-off
        exec sleep 30
        """;

    /// <summary>The plans.</summary>
    public static TheoryData<string> Plans => [.. _plans.Select(p => p.Plan)];

    [Theory]
    [MemberData(nameof(Plans))]
    public void A_silent_machine_is_run_once_more_and_a_failure_never(string plan)
    {
        var (_, starts, success, passed, said) = _plans.Single(p => p.Plan == plan);
        var run = runs.Of[plan];
        Assert.Equal((starts, success), (run.Starts, run.Success));
        Assert.Contains($"KVM passed {passed} failed {said.Count(s => s.Contains("FAIL", StringComparison.Ordinal))}\n", run.Output);
        string[] lines = [.. run.Output.Split('\n').Where(l => l.StartsWith("kvm-rig: ", StringComparison.Ordinal) || l.Contains(": FAIL", StringComparison.Ordinal))];
        Assert.Equal(said.Length, lines.Length);
        Assert.All(said.Zip(lines), p => Assert.Contains(p.First, p.Second));
    }

    /// <summary>All plans, run side by side: most of their time is silence.</summary>
    public sealed class Runs
    {
        internal IReadOnlyDictionary<string, (int Starts, bool Success, string Output)> Of { get; } =
            _plans.Select(p => (p.Plan, Run: Task.Run(() => Run(p.Plan)))).ToArray().ToDictionary(r => r.Plan, r => r.Run.Result);
    }

    private static (int Starts, bool Success, string Output) Run(string plan)
    {
        string folder = Directory.CreateTempSubdirectory("rig").FullName;
        File.WriteAllText(Path.Combine(folder, "qemu-system-x86_64"), Emulator);
        File.WriteAllText(Path.Combine(folder, "plan"), plan + " none none");
        // as scripts/test-kvm calls it, but for the measurement of the counter's frequency, which takes its time
        var info = new ProcessStartInfo("bash", ["-euc", """
            . scripts/kvm-rig.sh
            gcc() { printf '#!/bin/sh\necho 1\n' >"$3"; chmod +x "$3"; }
            chmod +x "$1/qemu-system-x86_64"
            kernel=none
            rig_attempts SMOKE "the guests" "$1/initramfs" "$2" | tee "$1/log"
            rig_verdict "$1/log" SMOKE
            """, "bash", folder, plan.StartsWith("late", StringComparison.Ordinal) ? "1" : "60"]) { RedirectStandardOutput = true, WorkingDirectory = Rig.Root };
        info.Environment["PATH"] = $"{folder}:{Environment.GetEnvironmentVariable("PATH")}";
        info.Environment["RIG_SILENCE"] = "2";
        using var process = Process.Start(info)!;
        string output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        int starts = File.ReadLines(Path.Combine(folder, "starts")).Count();
        Directory.Delete(folder, true);
        return (starts, process.ExitCode == 0, output);
    }
}
