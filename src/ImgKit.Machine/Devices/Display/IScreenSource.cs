namespace ImgKit.Machine.Devices.Display;

/// <summary>A rectangle of a screen, pixels.</summary>
/// <param name="X">left.</param>
/// <param name="Y">top.</param>
/// <param name="Width">0: empty.</param>
/// <param name="Height">rows.</param>
public readonly record struct ScreenArea(int X, int Y, int Width, int Height)
{
    /// <summary>Nothing.</summary>
    public bool IsEmpty => Width == 0 || Height == 0;
}

/// <summary>A device that has a screen. Under the machine lock.</summary>
public interface IScreenSource
{
    /// <summary>Brings the image up to date and returns what changed in it since the last call with the same image (all of it when the size did).</summary>
    ScreenArea Update(ScreenImage image);

    /// <summary>The screen as it is now.</summary>
    ScreenImage Capture()
    {
        var image = new ScreenImage();
        Update(image);
        return image;
    }

    /// <summary>The characters on the screen, a string a row without trailing blanks; null in a graphics mode.</summary>
    string[]? TextLines();
}
