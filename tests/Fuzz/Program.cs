using System.Diagnostics;
using System.Globalization;
using ImgKit.Fuzz;

// fuzz TARGET|all [SECONDS [SEED]]      tries changed inputs; what fails is saved, and named
// fuzz TARGET --replay FILE             runs one input
const int HangSeconds = 20;
const long MaxHeap = 1L << 30;

if (args.Length == 0)
{
    Console.Error.WriteLine("usage: fuzz TARGET|all [SECONDS [SEED]] | fuzz TARGET --replay FILE\ntargets: "
        + string.Join(' ', FuzzTargets.All.Select(t => t.Name)));
    return 2;
}
var targets = FuzzTargets.All.Where(t => args[0] == "all" || t.Name == args[0]).ToList();
if (targets.Count == 0)
{
    Console.Error.WriteLine($"no target '{args[0]}'");
    return 2;
}
if (args is [_, "--replay", var file])
{
    targets[0].Run(File.ReadAllBytes(file));
    Console.WriteLine("no failure");
    return 0;
}
double seconds = args.Length > 1 ? double.Parse(args[1], CultureInfo.InvariantCulture) : 10;
int seed = args.Length > 2 ? int.Parse(args[2], CultureInfo.InvariantCulture) : Environment.TickCount;
int failures = 0;
foreach (var target in targets)
{
    var random = new Random(seed);
    var mutator = new Mutator(random);
    var seeds = target.Seeds().ToList();
    foreach (byte[] s in seeds)
        target.Run(s);
    byte[] input = [];
    long started = Stopwatch.GetTimestamp();
    using var watchdog = new Timer(_ =>
    {
        if (Stopwatch.GetElapsedTime(Volatile.Read(ref started)).TotalSeconds < HangSeconds)
            return;
        Console.WriteLine($"{target.Name}: takes longer than {HangSeconds} s: {Save(target, input)}");
        Environment.Exit(1);
    }, null, 1000, 1000);
    var clock = Stopwatch.StartNew();
    long runs = 0;
    for (; clock.Elapsed.TotalSeconds < seconds; runs++)
    {
        input = mutator.Mutate(seeds[random.Next(seeds.Count)]);
        Volatile.Write(ref started, Stopwatch.GetTimestamp());
        try
        {
            target.Run(input);
            if (GC.GetTotalMemory(false) > MaxHeap)
                throw new InvalidOperationException($"the heap has grown to {GC.GetTotalMemory(false) >> 20} MiB");
        }
        catch (Exception e)
        {
            failures++;
            Console.WriteLine($"{target.Name}: {Save(target, input)}\n{e}");
            if (failures > 10)
                return 1;
        }
    }
    Console.WriteLine($"{target.Name}: {runs} inputs in {clock.Elapsed.TotalSeconds:F0} s, seed {seed}, {failures} failures");
}
return failures == 0 ? 0 : 1;

static string Save(IFuzzTarget target, byte[] input)
{
    string path = Path.Combine(Path.GetTempPath(), $"fuzz-{target.Name}-{Convert.ToHexString(System.Security.Cryptography.SHA1.HashData(input))[..12]}");
    File.WriteAllBytes(path, input);
    return path;
}
