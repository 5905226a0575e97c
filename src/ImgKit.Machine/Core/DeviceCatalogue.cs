namespace ImgKit.Machine;

/// <summary>Every device type that <c>-device</c> knows. A plain list: a new device is one line here.</summary>
public static class DeviceCatalogue
{
    /// <summary>All types, in the order of <c>-device help</c> within a category.</summary>
    public static IReadOnlyList<DeviceType> All { get; } =
    [
    ];

    /// <summary>The type of a name; null when there is none.</summary>
    public static DeviceType? Find(string name) => All.FirstOrDefault(t => t.Name == name);
}
