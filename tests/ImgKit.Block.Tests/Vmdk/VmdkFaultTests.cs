namespace ImgKit.Block.Tests.Vmdk;

/// <summary>One call to the file fails, whichever it is, and all later ones succeed: only the request that met it may be half done.</summary>
public sealed class VmdkFaultTests
{
    private const int Stride = 5;

    [Theory]
    [InlineData("subformat=monolithicSparse", false, 1)]
    [InlineData("subformat=monolithicSparse", true, 2)]
    [InlineData("subformat=monolithicSparse,zeroed_grain=on", true, 3)]
    public void An_error_costs_nothing_but_the_request_that_met_it(string options, bool withParent, int seed)
    {
        var memory = new MemoryProtocol();
        var opener = memory.Opener();
        byte[] parent = VmdkCrashTests.CreateChain(opener, options, withParent);
        byte[] start = ((RecordingDevice)memory.Devices["t"]).Snapshot();
        int calls = 1;
        for (int at = -1; at < calls; at = at < 0 ? seed : at + Stride)
        {
            var device = new FaultyDevice(start, at, (FaultKind)(at % 3 < 0 ? 0 : at % 3), "read write flush discard resize");
            memory.Devices["t"] = device;
            new Run(device, opener, (byte[])parent.Clone(), seed, $"{options}: call {at} of {calls} fails").All(memory);
            if (at < 0)
                calls = device.Calls;
        }
    }

    private sealed class Run(FaultyDevice device, ImageOpener opener, byte[] model, int seed, string what)
    {
        private readonly Random _random = new(seed);
        private bool[] _unknown = new bool[model.Length];

        public void All(MemoryProtocol memory)
        {
            BlockDevice image;
            try
            {
                image = opener.Open("mem:t", "vmdk", new OpenSettings { Unmap = true });
            }
            catch (ImageException) when (device.HasFailed)
            {
                return;
            }
            for (int step = 0; step < 50; step++)
                Step(image, step);
            Compare(image, "in memory");
            while (Fails(image.Flush))
            {
            }
            byte[] killed = device.Snapshot();
            Fails(image.Dispose);
            foreach (byte[] bytes in new[] { killed, device.Snapshot() })
            {
                memory.Devices["after"] = new RecordingDevice(bytes);
                using var after = opener.Open("mem:after", "vmdk", OpenSettings.ReadOnlyDefault);
                Compare(after, "opened again");
                var lines = new List<string>();
                ((ICheckableImage)after).Check(CheckRepair.None, lines.Add);
                Assert.True(lines.Count == 0, $"{what}, {device.Failed}: {string.Join(';', lines.Take(3))}");
            }
        }

        private void Step(BlockDevice image, int step)
        {
            int offset = _random.Next(model.Length), count = _random.Next(1, Math.Min(150_000, model.Length - offset) + 1);
            byte[] data = new byte[count];
            _random.NextBytes(data);
            switch (_random.Next(12))
            {
                case 0 or 1:
                    Change(offset, new byte[count], () => image.WriteZeroes(offset, count, (ZeroOptions)(step & 1)));
                    break;
                case 2:
                    Fails(() => image.Discard(offset, count));
                    _unknown.AsSpan(offset, count).Fill(true);
                    break;
                case 3 or 4:
                    Fails(image.Flush);
                    break;
                case 5 when step % 4 == 0:
                    int to = model.Length + (_random.Next(1, 200) * 512);
                    Fails(() => image.Resize(to));
                    Assert.True(image.Length == to || image.Length == model.Length, $"{what}, {device.Failed}: length {image.Length}");
                    Array.Resize(ref model, (int)image.Length);
                    Array.Resize(ref _unknown, (int)image.Length);
                    break;
                case 6:
                    byte[] read = new byte[count];
                    if (!Fails(() => image.Read(offset, read)))
                        Judge(read, offset, $"step {step}");
                    break;
                default:
                    Change(offset, data, () => image.Write(offset, data));
                    break;
            }
        }

        private void Change(int offset, byte[] data, Action action)
        {
            bool failed = Fails(action);
            data.CopyTo(model, offset);
            _unknown.AsSpan(offset, data.Length).Fill(failed);
        }

        private bool Fails(Action action)
        {
            bool before = device.HasFailed;
            try
            {
                action();
                return false;
            }
            catch (Exception e) when (e is ImageException or IOException && device.HasFailed && !before)
            {
                return true;
            }
        }

        private void Compare(BlockDevice image, string when)
        {
            Assert.Equal(model.Length, image.Length);
            byte[] content = new byte[model.Length];
            if (Fails(() => image.Read(0, content)))
                image.Read(0, content);
            Judge(content, 0, when);
        }

        private void Judge(ReadOnlySpan<byte> content, int offset, string when)
        {
            for (int i = 0; i < content.Length; i++)
                if (content[i] != model[offset + i] && !_unknown[offset + i])
                    Assert.Fail($"{what}, {device.Failed}: {when}: byte {offset + i}");
        }
    }
}
