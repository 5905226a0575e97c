using System.Buffers.Binary;

namespace ImgKit.Machine.Devices.Storage;

// Self-monitoring, as tools for disks ask for it: a disk that is well, whose self-tests end at once. Source: ATA8-ACS, 7.53 (SMART) and annex A (logs).
public sealed partial class AtaDisk
{
    private const byte SmartKeyMid = 0x4F, SmartKeyHigh = 0xC2;
    private const int MostTests = 21;

    // Attribute, flags, threshold: read errors, reallocated sectors, power-on hours, power cycles, pending sectors.
    private static readonly (byte Id, ushort Flags, byte Threshold)[] Attributes =
        [(1, 0x000B, 6), (5, 0x0033, 36), (9, 0x0032, 0), (12, 0x0032, 0), (197, 0x0012, 0)];

    private readonly byte[] _tests = new byte[MostTests];       // kinds of the self-tests, as they were asked for
    private byte _testCount, _lastTest;
    private bool _isSmartOn = true, _savesAttributes = true;

    private ushort PowerOnHours => (ushort)Math.Min(Channel.Services.Clock.Now / 3_600_000_000_000, ushort.MaxValue);

    private void Smart()
    {
        if (Lba1 != SmartKeyMid || Lba2 != SmartKeyHigh || (!_isSmartOn && Feature != 0xD8))
        {
            Fail(Aborted);
            return;
        }
        switch (Feature)
        {
            case 0xD0:
                OfferSmart(SmartData);
                break;
            case 0xD1:
                OfferSmart(SmartThresholds);
                break;
            case 0xD2 when Count is 0 or 0xF1:
                _savesAttributes = Count != 0;
                Finish();
                break;
            case 0xD3 or 0xDA:
                Finish();
                break;
            case 0xD4:
                SelfTest();
                break;
            case 0xD5 when Lba0 == 0:
                OfferSmart(data => (data[0], data[2], data[12]) = (1, 1, 1), false);
                break;
            case 0xD5 when Lba0 == 1:
                OfferSmart(data => data[0] = 1);
                break;
            case 0xD5 when Lba0 == 6:
                OfferSmart(TestLog);
                break;
            case 0xD8 or 0xD9:
                _isSmartOn = Feature == 0xD8;
                Finish();
                break;
            default:
                Fail(Aborted);
                break;
        }
    }

    private delegate void Filler(Span<byte> data);

    private void OfferSmart(Filler fill, bool hasChecksum = true)
    {
        var data = Buffer[..Sector];
        data.Clear();
        fill(data);
        if (hasChecksum)
            data[511] = Checksum(data[..511]);
        _left = _buffered = 0;
        OfferData(0, Sector);
    }

    private void SmartData(Span<byte> data)
    {
        data[0] = 0x10;
        for (int i = 0; i < Attributes.Length; i++)
        {
            var at = data[(2 + 12 * i)..];
            at[0] = Attributes[i].Id;
            BinaryPrimitives.WriteUInt16LittleEndian(at[1..], Attributes[i].Flags);
            at[3] = at[4] = 100;
            BinaryPrimitives.WriteUInt16LittleEndian(at[5..], Attributes[i].Id switch { 9 => PowerOnHours, 12 => 1, _ => 0 });
        }
        data[362] = (byte)(_savesAttributes ? 0x82 : 0x02);     // off-line collection has been completed
        data[367] = 0x11;                                       // self-tests, at once
        data[368] = 3;
        data[370] = 1;
        data[372] = data[373] = 1;
    }

    private static void SmartThresholds(Span<byte> data)
    {
        data[0] = 0x10;
        for (int i = 0; i < Attributes.Length; i++)
            (data[2 + 12 * i], data[3 + 12 * i]) = (Attributes[i].Id, Attributes[i].Threshold);
    }

    private void TestLog(Span<byte> data)
    {
        data[0] = 1;
        for (int i = 0; i < _testCount; i++)
        {
            data[2 + 24 * i] = _tests[i];
            BinaryPrimitives.WriteUInt16LittleEndian(data[(4 + 24 * i)..], PowerOnHours);
        }
        data[508] = _lastTest;
    }

    private void SelfTest()
    {
        switch (Lba0)
        {
            case 0 or 0x7F:
                Finish();
                break;
            case 1 or 2 or 0x81 or 0x82:
                _lastTest = (byte)(_lastTest % MostTests + 1);
                _tests[_lastTest - 1] = Lba0;
                _testCount = (byte)Math.Min(_testCount + 1, MostTests);
                Finish();
                break;
            default:
                Fail(Aborted);
                break;
        }
    }
}
