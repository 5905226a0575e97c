namespace ImgKit.Block.Filters;

/// <summary>Holds requests back so that a group's limits are kept.</summary>
internal sealed class ThrottleDevice(BlockDevice inner, ThrottleGroup group) : FilterDevice(inner)
{
    /// <summary>The declaration.</summary>
    public static BlockDriver Driver { get; } = new()
    {
        Name = "throttle",
        Kind = DriverKind.Filter,
        Description = "Keeps requests below the limits of a throttle group",
        Open = static context => new ThrottleDevice(context.File, ThrottleGroup.Find(context.Opener.Objects,
            context.Options.TakeString("throttle-group")
            ?? throw new ImageException(ImageErrorKind.InvalidArgument, "Please specify a throttle group"))),
        OpenOptions = [new("throttle-group", OptionType.String, "Name of the throttle group")],
    };

    public override string DriverName => "throttle";

    public override void Read(long offset, Span<byte> destination)
    {
        group.Wait(write: false, destination.Length);
        Inner.Read(offset, destination);
    }

    public override void Write(long offset, ReadOnlySpan<byte> source)
    {
        group.Wait(write: true, source.Length);
        Inner.Write(offset, source);
    }

    public override void WriteZeroes(long offset, long count, ZeroOptions options = ZeroOptions.None)
    {
        group.Wait(write: true, count);
        Inner.WriteZeroes(offset, count, options);
    }

    public override void Discard(long offset, long count)
    {
        group.Wait(write: true, count);
        Inner.Discard(offset, count);
    }
}
