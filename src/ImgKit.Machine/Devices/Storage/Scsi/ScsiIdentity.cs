using System.Buffers.Binary;
using System.Text;

namespace ImgKit.Machine.Devices.Storage.Scsi;

/// <summary>How a unit names itself.</summary>
/// <param name="Vendor">8 characters.</param>
/// <param name="Product">16 characters.</param>
/// <param name="Revision">4 characters.</param>
/// <param name="Serial">serial number, or null: none.</param>
/// <param name="DeviceId">vendor-specific identifier for page 83h.</param>
/// <param name="WorldWideName">NAA name, 0: none.</param>
/// <param name="RotationRate">revolutions a minute; 1: does not rotate; 0: not told.</param>
internal sealed record ScsiIdentity(string Vendor, string Product, string Revision, string? Serial, string DeviceId, ulong WorldWideName, ushort RotationRate)
{
    /// <summary>Puts the designators of page 83h (SPC-3, 7.6.3) behind the page's head; returns where they end.</summary>
    internal int PutDesignators(Span<byte> page)
    {
        int at = 4;
        string name = Serial ?? DeviceId;
        if (name.Length > 0)
        {
            int n = Encoding.ASCII.GetBytes(name.AsSpan(0, Math.Min(100, name.Length)), page[(at + 4)..]);
            page[at] = 2;           // ASCII, vendor specific
            page[at + 3] = (byte)n;
            at += 4 + n;
        }
        if (WorldWideName != 0)
        {
            page[at] = 1;           // binary
            page[at + 1] = 3;       // NAA
            page[at + 3] = 8;
            BinaryPrimitives.WriteUInt64BigEndian(page[(at + 4)..], WorldWideName);
            at += 12;
        }
        return at;
    }
}
