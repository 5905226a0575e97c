using System.Diagnostics;
using System.Globalization;
using System.Reflection;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Text;
using ImgKit.Cpu.Kvm.Interop;

namespace ImgKit.Kvm.Tests;

/// <summary>Compiles a C program against the installed kernel headers and compares every size, offset and constant with ours.</summary>
public sealed class KernelHeaderTests
{
    // where C# cannot say it as C does: nested anonymous structs and unions
    private static readonly Dictionary<string, string> s_typeNames = new()
    {
        ["kvm_vcpu_events_exception"] = "((struct kvm_vcpu_events *)0)->exception",
        ["kvm_vcpu_events_interrupt"] = "((struct kvm_vcpu_events *)0)->interrupt",
        ["kvm_vcpu_events_nmi"] = "((struct kvm_vcpu_events *)0)->nmi",
        ["kvm_vcpu_events_smi"] = "((struct kvm_vcpu_events *)0)->smi",
        ["kvm_run_io"] = "((struct kvm_run *)0)->io",
        ["kvm_run_mmio"] = "((struct kvm_run *)0)->mmio",
        ["kvm_run_fail_entry"] = "((struct kvm_run *)0)->fail_entry",
        ["kvm_run_internal"] = "((struct kvm_run *)0)->internal",
        ["kvm_run_system_event"] = "((struct kvm_run *)0)->system_event",
        ["kvm_run_msr"] = "((struct kvm_run *)0)->msr",
        ["kvm_pit_channels"] = "((struct kvm_pit_state2 *)0)->channels",
        ["kvm_xcr_array"] = "((struct kvm_xcrs *)0)->xcrs",
    };

    private static readonly Dictionary<string, string> s_fieldNames = new()
    {
        ["kvm_hyperv_exit.result"] = "u.hcall.result",
        ["kvm_irq_routing_entry.irqchip"] = "u.irqchip",
        ["kvm_irq_routing_entry.msi"] = "u.msi",
    };

    private static IEnumerable<Type> Structures() => typeof(kvm_regs).Assembly.GetTypes()
        .Where(t => t.IsValueType && t.Namespace == typeof(kvm_regs).Namespace && t.Name.StartsWith("kvm_", StringComparison.Ordinal));

    private static IEnumerable<FieldInfo> Constants() => typeof(KvmApi).GetFields(BindingFlags.Public | BindingFlags.Static)
        .Where(f => f.IsLiteral);

    [Fact]
    public void Structures_and_constants_are_those_of_the_kernel_headers()
    {
        var program = new StringBuilder("#include <stdio.h>\n#include <stddef.h>\n#include <linux/kvm.h>\nint main(void) {\n");
        var expected = new Dictionary<string, long>();
        foreach (var type in Structures())
        {
            string c = s_typeNames.TryGetValue(type.Name, out string? expression) ? $"__typeof__({expression})" : $"struct {type.Name}";
            expected[type.Name] = (int)typeof(Unsafe).GetMethod(nameof(Unsafe.SizeOf))!.MakeGenericMethod(type).Invoke(null, null)!;
            program.AppendLine(CultureInfo.InvariantCulture, $"printf(\"{type.Name} %ld\\n\", (long)sizeof({c}));");
            if (type.GetCustomAttribute<InlineArrayAttribute>() is not null)
                continue;
            foreach (var field in type.GetFields(BindingFlags.Public | BindingFlags.Instance))
            {
                string key = $"{type.Name}.{field.Name}";
                string name = s_fieldNames.TryGetValue(key, out string? other) ? other : field.Name;
                expected[key] = (long)Marshal.OffsetOf(type, field.Name);
                program.AppendLine(CultureInfo.InvariantCulture, $"printf(\"{key} %ld\\n\", (long)offsetof({c}, {name}));");
            }
        }
        foreach (var constant in Constants())
        {
            expected[constant.Name] = Convert.ToInt64(constant.GetRawConstantValue(), CultureInfo.InvariantCulture);
            program.AppendLine(CultureInfo.InvariantCulture, $"printf(\"{constant.Name} %ld\\n\", (long){constant.Name});");
        }
        program.AppendLine("return 0; }");

        var actual = CompileAndRun(program.ToString());
        var wrong = expected.Where(e => !actual.TryGetValue(e.Key, out long v) || v != e.Value)
            .Select(e => $"{e.Key}: {e.Value} here, {actual.GetValueOrDefault(e.Key, -1)} in the header");
        Assert.Empty(wrong);
        Assert.True(expected.Count > 300, $"only {expected.Count} items compared");
    }


    private static Dictionary<string, long> CompileAndRun(string source)
    {
        string directory = Directory.CreateTempSubdirectory("kvm-headers-").FullName;
        try
        {
            string file = Path.Combine(directory, "check.c"), exe = Path.Combine(directory, "check");
            File.WriteAllText(file, source);
            Execute("gcc", "-o", exe, file);
            return Execute(exe).Split('\n', StringSplitOptions.RemoveEmptyEntries).Select(line => line.Split(' '))
                .ToDictionary(f => f[0], f => long.Parse(f[1], CultureInfo.InvariantCulture));
        }
        finally
        {
            Directory.Delete(directory, true);
        }
    }

    private static string Execute(string program, params string[] arguments)
    {
        var start = new ProcessStartInfo(program, arguments) { RedirectStandardOutput = true, RedirectStandardError = true };
        using var process = Process.Start(start)!;
        var error = process.StandardError.ReadToEndAsync();
        string output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        Assert.True(process.ExitCode == 0, error.Result);
        return output;
    }
}
