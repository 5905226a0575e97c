using System.Diagnostics;

namespace ImgKit.Cpu.Tests.Programs;

/// <summary>
/// Small programs in assembly language that print what the processor does in the tricky cases. What they must print is what Bochs 2.7 (a
/// precise interpreter) prints, recorded by <c>record</c> beside them; where it and the manuals or real processors disagree, the program says so.
/// </summary>
public sealed class ProgramTests
{
    [Theory]
    [InlineData("real")]
    [InlineData("protected")]
    [InlineData("paging")]
    [InlineData("long")]
    [InlineData("debug")]
    public void A_program_prints_what_it_prints_on_a_precise_interpreter(string name)
    {
        string folder = Path.Combine(AppContext.BaseDirectory, "Programs");
        using var machine = new ProgramMachine(Build(folder, name), "max");
        string text = machine.Run(TimeSpan.FromSeconds(5));
        string expected = File.ReadAllText(Path.Combine(folder, name + ".expected"));
        string[] want = expected.Trim('\n').Split('\n'), got = text.Trim('\n').Split('\n');
        string[] differences = [.. Enumerable.Range(0, Math.Max(want.Length, got.Length))
            .Select(i => (Want: i < want.Length ? want[i] : "(nothing)", Got: i < got.Length ? got[i] : "(nothing)"))
            .Where(line => line.Want != line.Got)
            .Select(line => $"want {line.Want}\n got {line.Got}")];
        Assert.True(differences.Length == 0, string.Join("\n", differences.Take(20)));
    }

    /// <summary>Assembles a program and puts it into a ROM image: the stub at FF00 copies it to 0x2000.</summary>
    private static byte[] Build(string folder, string name)
    {
        string work = Directory.CreateTempSubdirectory("imgkit-program-").FullName;
        try
        {
            string obj = Path.Combine(work, "o"), elf = Path.Combine(work, "elf"), bin = Path.Combine(work, "bin");
            Execute(folder, "as", "--64", name + ".S", "-o", obj);
            Execute(folder, "ld", "--no-warn-rwx-segments", "-m", "elf_x86_64", "-Ttext", "0x2000", "-o", elf, obj);
            Execute(folder, "objcopy", "-O", "binary", "-j", ".text", elf, bin);
            byte[] program = File.ReadAllBytes(bin), rom = new byte[0x10000];
            Assert.InRange(program.Length, 1, 0xC000);
            program.CopyTo(rom, 0);
            Convert.FromHexString("FAFC31C08EC0B800F08ED831F6BF0020B900C0F3A4EA00200000").CopyTo(rom, 0xFF00);
            Convert.FromHexString("EA00FF00F0").CopyTo(rom, 0xFFF0);
            return rom;
        }
        finally
        {
            Directory.Delete(work, true);
        }
    }

    private static void Execute(string folder, string program, params string[] arguments)
    {
        using var process = Process.Start(new ProcessStartInfo(program, arguments) { WorkingDirectory = folder, RedirectStandardError = true })!;
        string error = process.StandardError.ReadToEnd();
        process.WaitForExit();
        Assert.True(process.ExitCode == 0, error);
    }
}
