namespace ImgKit.Block.Filters;

/// <summary>Option <c>detect-zeroes</c>: what is written and turns out to be nothing but zeroes is zeroed instead, which may take no
/// space. It stands on top of an image and goes by the image's name.</summary>
public sealed class DetectZeroesDevice : FilterDevice
{
    private readonly ZeroOptions _options;

    private DetectZeroesDevice(BlockDevice inner, ZeroOptions options)
        : base(inner)
    {
        _options = options;
        FileName = inner.FileName;
    }

    /// <inheritdoc/>
    public override string DriverName => Inner.DriverName;

    /// <summary>Around an image that is to be written; an image that is not, as it is.</summary>
    /// <param name="image">owned by the result.</param>
    /// <param name="settings">say whether zeroes are looked for, and whether they may give space back.</param>
    public static BlockDevice Over(BlockDevice image, OpenSettings settings) =>
        settings.DetectZeroes == 0 || image.IsReadOnly ? image
            : new DetectZeroesDevice(image, settings.DetectZeroes == 2 ? ZeroOptions.MayUnmap : ZeroOptions.None);

    /// <summary>The image itself.</summary>
    public static BlockDevice Below(BlockDevice device) => device is DetectZeroesDevice d ? d.Inner : device;

    /// <inheritdoc/>
    public override void Write(long offset, ReadOnlySpan<byte> source)
    {
        if (!source.IsEmpty && ZeroBuffer.IsZero(source))
            Inner.WriteZeroes(offset, source.Length, _options);
        else
            Inner.Write(offset, source);
    }
}
