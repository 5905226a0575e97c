namespace ImgKit.Block.Formats.Qcow2;

internal sealed partial class Qcow2Image
{
    private void LoadBitmaps()
    {
        if (Header.Bitmaps is not null && _writable)
            throw new ImageException(ImageErrorKind.Unsupported, "Images with bitmaps cannot be written yet", FileName);
    }

    private void BeforeGuestWrite(long offset, long count)
    {
    }

    private void RepairDirty() =>
        throw new ImageException(ImageErrorKind.Unsupported, "Could not repair dirty image", FileName) { Errno = 95 };
}
