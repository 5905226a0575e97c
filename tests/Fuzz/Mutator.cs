using System.Buffers.Binary;

namespace ImgKit.Fuzz;

/// <summary>Changes inputs: bits, bytes, numbers that are edges of something, lengths, pieces moved about.</summary>
internal sealed class Mutator(Random random)
{
    private static readonly ulong[] Edges =
    [
        0, 1, 2, 7, 8, 127, 128, 255, 256, 511, 512, 513, 4095, 4096, 65535, 65536, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, 0x1_0000_0000,
        0x7FFF_FFFF_FFFF_FFFF, 0x8000_0000_0000_0000, ulong.MaxValue, ulong.MaxValue - 511,
    ];

    public byte[] Mutate(byte[] seed)
    {
        byte[] b = (byte[])seed.Clone();
        for (int n = random.Next(1, 6); n > 0 && b.Length > 16; n--)
        {
            // Mostly where formats keep their numbers: at the start, and at the end.
            int at = random.Next(4) switch
            {
                0 => random.Next(Math.Min(b.Length, 160)),
                1 => random.Next(Math.Min(b.Length, 2048)),
                2 => b.Length - 1 - random.Next(Math.Min(b.Length, 2048)),
                _ => random.Next(b.Length),
            };
            switch (random.Next(8))
            {
                case 0:
                    b[at] ^= (byte)(1 << random.Next(8));
                    break;
                case 1:
                    b[at] = (byte)random.Next(256);
                    break;
                case 2 or 3:
                    Put(b, at & ~3, 4);
                    break;
                case 4:
                    Put(b, at & ~7, 8);
                    break;
                case 5:
                    Put(b, at, 8);
                    break;
                case 6:
                    Array.Resize(ref b, random.Next(b.Length));
                    break;
                default:
                    int from = random.Next(b.Length), length = Math.Min(random.Next(1, 1024), b.Length - Math.Max(at, from));
                    b.AsSpan(from, length).ToArray().CopyTo(b, at);
                    break;
            }
        }
        return b;
    }

    private void Put(byte[] b, int at, int size)
    {
        if (at + 8 > b.Length)
            return;
        ulong v = random.Next(3) == 0 ? (ulong)random.NextInt64() >> random.Next(63) : Edges[random.Next(Edges.Length)];
        bool big = random.Next(2) == 0;
        var span = b.AsSpan(at);
        if (size == 8 && big)
            BinaryPrimitives.WriteUInt64BigEndian(span, v);
        else if (size == 8)
            BinaryPrimitives.WriteUInt64LittleEndian(span, v);
        else if (big)
            BinaryPrimitives.WriteUInt32BigEndian(span, (uint)v);
        else
            BinaryPrimitives.WriteUInt32LittleEndian(span, (uint)v);
    }
}
