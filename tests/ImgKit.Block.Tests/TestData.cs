namespace ImgKit.Block.Tests;

/// <summary>Content and folders for tests.</summary>
internal static class TestData
{
    /// <summary>Bytes with stretches of zeroes, of text and of noise, the same for the same seed.</summary>
    public static byte[] Mixed(int length, int seed)
    {
        var random = new Random(seed);
        byte[] data = new byte[length];
        for (int at = 0; at < length;)
        {
            int n = Math.Min(length - at, random.Next(1, 150_000));
            var part = data.AsSpan(at, n);
            switch (random.Next(3))
            {
                case 0:
                    break;
                case 1:
                    for (int i = 0; i < n; i++)
                        part[i] = (byte)"the quick brown fox "[(i + seed) % 20];
                    break;
                default:
                    random.NextBytes(part);
                    break;
            }
            at += n;
        }
        return data;
    }

    /// <summary>A folder that is removed at the end.</summary>
    public sealed class Folder : IDisposable
    {
        public string Path { get; } = Directory.CreateTempSubdirectory("imgkit").FullName;

        public string File(string name) => System.IO.Path.Combine(Path, name);

        public void Dispose() => Directory.Delete(Path, true);
    }
}
