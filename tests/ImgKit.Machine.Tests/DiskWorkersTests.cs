namespace ImgKit.Machine.Tests;

/// <summary>The threads that do the work of disks.</summary>
public sealed class DiskWorkersTests
{
    [Fact]
    public void What_runs_alone_meets_no_work_and_loses_none()
    {
        using var workers = new DiskWorkers(new Lock(), 4);
        var counter = new Counter();
        using var done = new CountdownEvent(400);
        var submitter = new Thread(() =>
        {
            for (int i = 0; i < 400; i++)
                workers.Submit(new Work(counter, done));
        });
        submitter.Start();
        int met = 0;
        for (int i = 0; i < 50; i++)
            workers.RunAlone(() =>
            {
                met += Volatile.Read(ref counter.Inside);
                Thread.SpinWait(500);
                met += Volatile.Read(ref counter.Inside);
            });
        submitter.Join();
        Assert.True(done.Wait(10_000));
        Assert.Equal(0, met);
        workers.Drain();
    }

    private sealed class Counter
    {
        public int Inside;
    }

    private sealed class Work(Counter counter, CountdownEvent done) : DiskWork
    {
        public override void Execute()
        {
            Interlocked.Increment(ref counter.Inside);
            Thread.SpinWait(300);
            Interlocked.Decrement(ref counter.Inside);
        }

        public override void Complete() => done.Signal();
    }
}
