using ImgKit.Host;

namespace ImgKit.Programs.Io;

/// <summary>Buffers filled from a file, over and over when it is shorter.</summary>
internal static class PatternFile
{
    /// <summary>Fills; says so when it cannot.</summary>
    public static bool Fill(Span<byte> buffer, string path)
    {
        int have;
        try
        {
            using var file = HostFile.Open(path, HostFileMode.Read);
            have = file.Read(0, buffer);
        }
        catch (HostException e)
        {
            Console.Error($"{path}: {IoError.Text(e)}");
            return false;
        }
        if (have == 0)
        {
            Console.Error($"{path}: file is empty");
            return false;
        }
        // Doubling copies what is there already; it stays a multiple of the file's length until the end.
        while (have < buffer.Length)
        {
            int n = Math.Min(have, buffer.Length - have);
            buffer[..n].CopyTo(buffer[have..]);
            have += n;
        }
        return true;
    }
}
