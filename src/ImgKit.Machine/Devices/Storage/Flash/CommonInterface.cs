using System.Buffers.Binary;
using System.Numerics;

namespace ImgKit.Machine.Devices.Storage.Flash;

/// <summary>What a flash chip says of itself. Source: JEDEC JESD68.01, tables 1 to 4, and JEP137 for the primary command set 1.</summary>
internal static class CommonInterface
{
    /// <summary>The bytes that a query reads, from address 0.</summary>
    /// <param name="length">bytes of the chip; told as the next power of two.</param>
    /// <param name="blockSize">bytes that are erased together, a multiple of 256.</param>
    /// <param name="bufferSize">bytes that can be programmed together, a power of two.</param>
    internal static byte[] Query(uint length, int blockSize, int bufferSize)
    {
        const int Extended = 0x31;
        var q = new byte[0x40];
        "QRY"u8.CopyTo(q.AsSpan(0x10));
        q[0x13] = 1;                                            // command set: Intel's extended one
        q[0x15] = Extended;
        q[0x1B] = 0x45;                                         // supply from 4.5 to 5.5 V
        q[0x1C] = 0x55;
        q[0x1F] = 7;                                            // typical times, 2^n: a byte in us, a buffer in us, a block in ms
        q[0x20] = 7;
        q[0x21] = 10;
        q[0x23] = q[0x24] = q[0x25] = 4;                        // and how many times as long at the most
        q[0x27] = (byte)BitOperations.Log2(BitOperations.RoundUpToPowerOf2(length));
        q[0x28] = 2;                                            // interface of 8 bits
        q[0x2A] = (byte)int.Log2(bufferSize);
        q[0x2C] = 1;                                            // one region of equal blocks
        BinaryPrimitives.WriteUInt16LittleEndian(q.AsSpan(0x2D), (ushort)(length / (uint)blockSize - 1));
        BinaryPrimitives.WriteUInt16LittleEndian(q.AsSpan(0x2F), (ushort)(blockSize / 256));
        "PRI10"u8.CopyTo(q.AsSpan(Extended));
        return q;
    }
}
