using System.Buffers.Binary;

namespace ImgKit.Block.Tests.Filters;

public sealed class WriteLogTests
{
    /// <summary>What could not be logged is not in the log, and leaves no gap in it: entries are found one behind the other.</summary>
    [Fact]
    public void An_entry_that_could_not_be_written_leaves_no_gap()
    {
        for (int at = 1; at < 9; at++)
        {
            var memory = new MemoryProtocol();
            var log = new FaultyDevice([], at, counts: "write");
            memory.Devices["disk"] = new RecordingDevice(new byte[65536]);
            memory.Devices["log"] = log;
            using (var device = memory.Opener().Open("json:{'driver': 'blklogwrites', 'file': {'driver': 'mem', 'filename': 'mem:disk'}, "
                + "'log': {'driver': 'mem', 'filename': 'mem:log'}}", null, new OpenSettings()))
            {
                for (int i = 0; i < 5; i++)
                {
                    try
                    {
                        device.Write(i * 1024, TestData.Mixed(1024, i));
                        device.Flush();
                    }
                    catch (ImageException)
                    {
                        Assert.True(log.HasFailed);
                    }
                }
            }
            byte[] bytes = log.Snapshot();
            ulong entries = BinaryPrimitives.ReadUInt64LittleEndian(bytes.AsSpan(16));
            int place = 512;
            for (ulong e = 0; e < entries; e++)
            {
                ulong sector = BinaryPrimitives.ReadUInt64LittleEndian(bytes.AsSpan(place)), count = BinaryPrimitives.ReadUInt64LittleEndian(bytes.AsSpan(place + 8)),
                    flags = BinaryPrimitives.ReadUInt64LittleEndian(bytes.AsSpan(place + 16));
                Assert.True((flags, count) is (1, 0) or (0, 2), $"write {at} failed: entry {e}");
                place += 512;
                if (count > 0)
                    Assert.Equal(TestData.Mixed(1024, (int)sector / 2), bytes.AsSpan(place, 1024).ToArray());
                place += (int)count * 512;
            }
        }
    }
}
