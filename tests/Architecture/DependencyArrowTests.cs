using System.Xml.Linq;

namespace ImgKit.Architecture;

/// <summary>
/// Holds the direction of dependencies: programs -> Machine -> {Cpu, Block, Net, Display} -> Host, and Nbd -> Block -> Host.
/// Read from the project files themselves, so that a reference that nothing uses yet counts, too.
/// </summary>
public sealed class DependencyArrowTests
{
    /// <summary>What each project may refer to directly. A project that is not named here fails the test.</summary>
    private static readonly Dictionary<string, string[]> Allowed = new()
    {
        ["ImgKit.Host"] = [],
        ["ImgKit.CommandLine"] = [],
        ["ImgKit.Block"] = ["ImgKit.Host"],
        ["ImgKit.Nbd"] = ["ImgKit.Block", "ImgKit.Host"],
        ["ImgKit.Cpu"] = ["ImgKit.Host"],
        ["ImgKit.Net"] = ["ImgKit.Host"],
        ["ImgKit.Display"] = ["ImgKit.Host"],
        ["ImgKit.Machine"] = ["ImgKit.Cpu", "ImgKit.Block", "ImgKit.Net", "ImgKit.Display", "ImgKit.Host"],
        ["kvm-img"] = ["ImgKit.Block", "ImgKit.CommandLine", "ImgKit.Host"],
        ["kvm-io"] = ["ImgKit.Block", "ImgKit.CommandLine", "ImgKit.Host"],
        ["kvm-nbd"] = ["ImgKit.Nbd", "ImgKit.Block", "ImgKit.CommandLine", "ImgKit.Host"],
        ["kvm"] = ["ImgKit.Machine", "ImgKit.Cpu", "ImgKit.Block", "ImgKit.Net", "ImgKit.Display", "ImgKit.CommandLine", "ImgKit.Host"],
    };

    private static readonly string Root = FindRoot();

    public static TheoryData<string> Projects()
    {
        var data = new TheoryData<string>();
        foreach (string p in Directory.EnumerateFiles(Path.Combine(Root, "src"), "*.csproj", SearchOption.AllDirectories))
            data.Add(Path.GetRelativePath(Root, p));
        return data;
    }

    [Theory]
    [MemberData(nameof(Projects))]
    public void A_project_refers_only_to_what_lies_below_it(string project)
    {
        string name = Path.GetFileNameWithoutExtension(project);
        Assert.True(Allowed.TryGetValue(name, out string[]? allowed), $"{project} has no place in the order of dependencies");
        var references = XDocument.Load(Path.Combine(Root, project)).Descendants("ProjectReference")
            .Select(e => Path.GetFileNameWithoutExtension((string)e.Attribute("Include")!));
        Assert.All(references, r => Assert.Contains(r, allowed!));
    }

    [Fact]
    public void The_solution_names_every_project()
    {
        string solution = File.ReadAllText(Path.Combine(Root, "ImgKit.sln"));
        var projects = new[] { "src", "tests" }.SelectMany(d => Directory.EnumerateFiles(Path.Combine(Root, d), "*.csproj", SearchOption.AllDirectories));
        Assert.All(projects, p => Assert.Contains(Path.GetRelativePath(Root, p).Replace('/', '\\'), solution, StringComparison.Ordinal));
    }

    private static string FindRoot()
    {
        string? d = AppContext.BaseDirectory;
        while (d is not null && !File.Exists(Path.Combine(d, "global.json")))
            d = Path.GetDirectoryName(d);
        return d ?? throw new InvalidOperationException("the tests must run inside the source tree");
    }
}
