namespace ImgKit.KvmSmoke;

internal sealed class CheckFailed(string message) : Exception(message);

internal static class Check
{
    public static void True(bool condition, string what)
    {
        if (!condition)
            throw new CheckFailed(what);
    }

    public static void Equal<T>(T expected, T actual, string what)
    {
        if (!EqualityComparer<T>.Default.Equals(expected, actual))
            throw new CheckFailed($"{what}: expected {Text(expected)}, got {Text(actual)}");
    }

    public static void Sequence<T>(IEnumerable<T> expected, IEnumerable<T> actual, string what)
    {
        if (!expected.SequenceEqual(actual))
            throw new CheckFailed($"{what}: expected [{string.Join(" ", expected)}], got [{string.Join(" ", actual)}]");
    }

    private static string Text<T>(T value) => value is uint or ulong or ushort or long or int ? $"0x{value:x}" : $"{value}";
}
