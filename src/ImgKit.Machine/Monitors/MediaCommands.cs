using System.Text;
using ImgKit.Block;

namespace ImgKit.Machine.Monitors;

/// <summary>What monitors do to drives and their media. On the control thread.</summary>
internal static class MediaCommands
{
    internal static Drive FindDrive(Pc pc, string name) =>
        pc.Drives.FirstOrDefault(d => d.Name == name || d.AttachedTo == name) ?? throw CommandException.NoDevice(name);

    /// <summary>The mode of a medium that is put in: null keeps the drive's.</summary>
    internal static bool? ReadOnlyMode(string? mode) => mode switch
    {
        null or "retain" => null,
        "read-only" => true,
        "read-write" => false,
        _ => throw new CommandException($"Parameter 'read-only-mode' does not accept value '{mode}'"),
    };

    private static Drive FindRemovable(Pc pc, string name)
    {
        var drive = FindDrive(pc, name);
        return drive.IsRemovable ? drive : throw new CommandException($"Device '{name}' is not removable");
    }

    /// <summary>Opens the tray and takes the medium out.</summary>
    internal static void Eject(Pc pc, string name, bool force)
    {
        var drive = FindRemovable(pc, name);
        OpenTray(pc, drive, force);
        SetMedium(pc, drive, null, "");
    }

    /// <summary>Opens the tray, puts a new medium in, closes it.</summary>
    internal static void Change(Pc pc, string name, string file, string? format, bool? readOnly, bool force)
    {
        var drive = FindRemovable(pc, name);
        if (pc.MediaOpener == null)
            throw new CommandException("media cannot be changed");
        BlockDevice media;
        bool ro = readOnly ?? (drive.IsCdRom || drive.IsReadOnly);
        try
        {
            media = pc.MediaOpener.OpenImage(file, format, new OpenSettings { ReadOnly = ro, UnshareWrite = true }, new BlockOptions(), readOnly == null);
        }
        catch (Exception e) when (e is ImageException or IOException)
        {
            throw new CommandException(e.Message);
        }
        try
        {
            OpenTray(pc, drive, force);
        }
        catch (CommandException)
        {
            media.Dispose();
            throw;
        }
        SetMedium(pc, drive, media, file);
        CloseTray(pc, drive);
    }

    /// <summary>Opens the tray alone.</summary>
    internal static void OpenTray(Pc pc, string name, bool force) => OpenTray(pc, FindRemovable(pc, name), force);

    /// <summary>Closes the tray with what is in it.</summary>
    internal static void CloseTray(Pc pc, string name) => CloseTray(pc, FindRemovable(pc, name));

    /// <summary>Takes the medium from an open tray.</summary>
    internal static void RemoveMedium(Pc pc, string name)
    {
        var drive = FindRemovable(pc, name);
        if (drive is { IsCdRom: true, IsTrayOpen: false })
            throw new CommandException($"Tray of device '{name}' is not open");
        SetMedium(pc, drive, null, "");
    }

    /// <summary>Puts a node into an open tray.</summary>
    internal static void InsertMedium(Pc pc, string name, string node)
    {
        var drive = FindRemovable(pc, name);
        var found = pc.NodeOpener?.Find(node) ?? throw new CommandException($"Node '{node}' not found");
        if (drive is { IsCdRom: true, IsTrayOpen: false })
            throw new CommandException("Tray of the device is not open");
        if (drive.Media != null)
            throw new CommandException("There already is a medium in the device");
        if (pc.Drives.Any(d => d.Media == found.Media))
            throw new CommandException($"Node '{node}' is already in use");
        try
        {
            pc.Nodes.Add(found.Media!, drive.AttachedTo ?? drive.Name, !drive.IsCdRom && !found.IsReadOnly, false);
        }
        catch (MachineException e)
        {
            throw new CommandException(e.Message);
        }
        SetMedium(pc, drive, found.Media, found.FileName);
        drive.IsNode = true;
    }

    // A locked door opens when the guest is so kind, or by force: a needle into the hole beside it. Floppy drives have neither.
    private static void OpenTray(Pc pc, Drive drive, bool force)
    {
        if (!drive.IsCdRom || drive.IsTrayOpen)
            return;
        lock (pc.Services.Lock)
        {
            if (drive.IsLocked)
            {
                drive.EjectRequested?.Invoke();
                if (!force)
                    throw new CommandException($"Device '{drive.Name}' is locked and force was not specified, wait for tray to open and try again");
                drive.IsLocked = false;
            }
            drive.IsTrayOpen = true;
            drive.MediaChanged?.Invoke();
        }
        pc.ReportTray(drive.Name, true);
    }

    private static void CloseTray(Pc pc, Drive drive)
    {
        if (!drive.IsTrayOpen)
            return;
        lock (pc.Services.Lock)
        {
            drive.IsTrayOpen = false;
            drive.MediaChanged?.Invoke();
        }
        pc.ReportTray(drive.Name, false);
    }

    private static void SetMedium(Pc pc, Drive drive, BlockDevice? media, string file)
    {
        BlockDevice? old = null;
        pc.Services.Workers.Drain();
        pc.Services.Workers.RunAlone(() =>
        {
            lock (pc.Services.Lock)
            {
                old = drive.Media;
                drive.Media = media;
                drive.FileName = file;
                if (media != null)
                    drive.IsReadOnly = drive.IsCdRom || media.IsReadOnly;
                drive.MediaChanged?.Invoke();
            }
        });
        if (drive.IsNode)
            pc.Nodes.Remove(drive.AttachedTo ?? drive.Name);
        else
            old?.Dispose();
        drive.IsNode = false;
    }

    /// <summary>Gives a disk, or a node, another size, and tells the devices that have it.</summary>
    internal static void Resize(Pc pc, string? device, string? node, long size)
    {
        string name = device ?? node ?? "";
        if ((pc.Drives.FirstOrDefault(d => d.Name == name) ?? (node == null ? null : pc.NodeOpener?.Find(node))) is not { } drive)
            throw new CommandException($"Cannot find device='{device}' nor node-name='{node}'");
        if (size < 0)
            throw new CommandException("Parameter 'size' expects a >0 size");
        if (drive.Media is not { } media)
            throw NoMedium(name);
        if (size % 512 != 0)
            throw new CommandException("The new size must be a multiple of 512");
        try
        {
            pc.Services.Workers.RunAlone(() => media.Resize(size));
        }
        catch (Exception e) when (e is ImageException or IOException or NotSupportedException)
        {
            throw new CommandException(e.Message);
        }
        lock (pc.Services.Lock)
            foreach (var d in pc.Drives)
                if (d.Media == media && !d.IsCdRom)
                    d.MediaChanged?.Invoke();
    }

    private static CommandException NoMedium(string name) => new($"Device '{name}' has no medium");

    internal static void Commit(Pc pc, string name)
    {
        var drives = name == "all" ? pc.Drives.Where(d => d.Media?.Backing != null).ToList() : [FindDrive(pc, name)];
        foreach (var drive in drives)
        {
            if (drive.Media == null)
                throw NoMedium(drive.Name);
            if (drive.Media.Backing == null)
                throw new CommandException($"Device '{name}' has no backing file to commit to");
            if (pc.MediaOpener == null)
                throw new CommandException("committing is not possible here");
            bool was = pc.IsRunning;
            if (was)
                pc.Stop();
            try
            {
                pc.Services.Workers.Drain();
                pc.MediaOpener.Commit(drive);
            }
            catch (Exception e) when (e is ImageException or IOException)
            {
                throw new CommandException($"'commit' error for '{drive.Name}': {e.Message}");
            }
            finally
            {
                if (was)
                    pc.Resume();
            }
        }
    }

    /// <summary>What is known of one drive, or of all.</summary>
    internal static string InfoBlock(Pc pc, string? name)
    {
        var text = new StringBuilder();
        foreach (var d in pc.Drives.Where(d => name == null || d.Name == name || d.AttachedTo == name))
        {
            if (text.Length > 0)
                text.Append('\n');
            if (d.Media == null)
                text.Append($"{d.Name}: [not inserted]\n");
            else
                text.Append($"{d.Name} (#{d.Name}): {d.FileName} ({d.Media.DriverName}{(d.IsReadOnly ? ", read-only" : "")})\n");
            if (d.AttachedTo != null)
                text.Append($"    Attached to:      {d.AttachedTo}\n");
            if (d.IoStatus != "ok")
                text.Append($"    I/O status:       {d.IoStatus}\n");
            if (d.IsRemovable)
                text.Append($"    Removable device: {(d.IsLocked ? "" : "not ")}locked, tray {(d.IsTrayOpen ? "open" : "closed")}\n");
            if (d.Media != null)
                text.Append($"    Cache mode:       {d.CacheMode}\n");
            if (d.Media?.Backing is { } backing)
                text.Append($"    Backing file:     {backing.FileName} (chain depth: {Depth(d.Media)})\n");
        }
        return text.ToString();
    }

    internal static int Depth(BlockDevice device)
    {
        int n = 0;
        for (var b = device.Backing; b != null; b = b.Backing)
            n++;
        return n;
    }
}
