using ImgKit.Block.Jobs.Compare;

namespace ImgKit.Block.Tests.Jobs;

public sealed class CompareJobTests
{
    [Theory]
    [InlineData(1)]
    [InlineData(4)]
    public void The_first_differing_sector_is_found(int threads)
    {
        byte[] data = TestData.Mixed(6_000_128, 3);
        using var a = Device(data);
        foreach (int at in new[] { 5_999_999, 4_000_000, 1_234_567, 0 })
        {
            data[at] ^= 1;
            using var b = Device(data);
            var r = CompareJob.Run(new CompareRequest { First = a, Second = b, Threads = threads });
            Assert.Equal(new CompareResult(Difference.Content, at / 512 * 512), r);
        }
    }

    [Fact]
    public void A_longer_disk_is_equal_when_the_rest_is_zero()
    {
        byte[] data = TestData.Mixed(1_000_000, 4);
        using var a = Device(data);
        using var b = Device([.. data, .. new byte[3_000_000]]);
        Assert.Equal(Difference.None, CompareJob.Run(new CompareRequest { First = a, Second = b }).Difference);
        Assert.Equal(Difference.Size, CompareJob.Run(new CompareRequest { First = a, Second = b, Strict = true }).Difference);
        b.Write(3_500_000, [1]);
        Assert.Equal(new CompareResult(Difference.Content, 3_500_000 / 512 * 512), CompareJob.Run(new CompareRequest { First = b, Second = a }));
    }

    private static MemoryDevice Device(byte[] data)
    {
        var d = new MemoryDevice(data.Length);
        d.Write(0, data);
        return d;
    }
}
