using System.Text.Json;

namespace ImgKit.Guests;

/// <summary>Block nodes that programs make, use and delete while the machine is there. Answers and errors are QEMU's.</summary>
public sealed class NodeTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("nodes").FullName;

    public void Dispose() => Directory.Delete(_folder, true);

    private string At(string name) => Path.Combine(_folder, name);

    private Guest Start()
    {
        File.WriteAllBytes(At("a"), new byte[1 << 20]);
        Tool.Run("qemu-img", "create", "-q", "-f", "qcow2", At("q"), "2M");
        return new Guest("-m", "16", "-S", "-kernel", EchoKernel.Path, "-nodefaults", "-drive", "if=none,id=cd0,media=cdrom", "-device", "ide-cd,drive=cd0,id=cd",
            "-drive", $"if=none,id=hd0,format=raw,file={At("a")}", "-device", "virtio-blk-pci,drive=hd0,id=vd");
    }

    // A command with its arguments, and what comes: "" for success.
    private void Say(Guest guest, string command, string arguments, string expected)
    {
        string answer = "";
        try
        {
            guest.Qmp(command, JsonDocument.Parse(arguments.Replace('\'', '"').Replace("AT/", _folder + "/", StringComparison.Ordinal)).RootElement);
        }
        catch (InvalidOperationException e)
        {
            answer = JsonDocument.Parse(e.Message[(command.Length + 2)..]).RootElement.GetProperty("desc").GetString()!;
        }
        Assert.Equal((command + arguments, expected.Replace("AT/", _folder + "/", StringComparison.Ordinal)), (command + arguments, answer));
    }

    [Fact]
    public void A_node_is_made_put_into_a_drive_taken_out_and_deleted()
    {
        using var guest = Start();
        Say(guest, "blockdev-add", "{'driver':'file','node-name':'f','filename':'AT/q'}", "");
        Say(guest, "blockdev-add", "{'driver':'qcow2','node-name':'n','file':'f'}", "");
        Say(guest, "blockdev-del", "{'node-name':'f'}", "Block device f is in use");
        Say(guest, "blockdev-insert-medium", "{'id':'cd','node-name':'n'}", "Tray of the device is not open");
        Say(guest, "blockdev-open-tray", "{'id':'cd'}", "");
        Assert.Equal("cd", guest.WaitForEvent("DEVICE_TRAY_MOVED", 10).GetProperty("data").GetProperty("id").GetString());
        Say(guest, "blockdev-insert-medium", "{'id':'cd','node-name':'no'}", "Node 'no' not found");
        Say(guest, "blockdev-insert-medium", "{'id':'no','node-name':'n'}", "Device 'no' not found");
        Say(guest, "blockdev-insert-medium", "{'id':'cd','node-name':'n'}", "");
        Say(guest, "blockdev-insert-medium", "{'id':'cd','node-name':'f'}", "There already is a medium in the device");
        Say(guest, "blockdev-close-tray", "{'id':'cd'}", "");
        Say(guest, "blockdev-del", "{'node-name':'n'}", "Node n is in use");
        Say(guest, "blockdev-remove-medium", "{'id':'cd'}", "Tray of device 'cd' is not open");
        var drive = guest.Qmp("query-block").EnumerateArray().Single(b => b.GetProperty("device").GetString() == "cd0");
        Assert.Equal("n", drive.GetProperty("inserted").GetProperty("node-name").GetString());
        var names = guest.Qmp("query-named-block-nodes").EnumerateArray().ToDictionary(n => n.GetProperty("node-name").GetString()!, n => n.GetProperty("drv").GetString());
        Assert.Equal(("qcow2", "file", "raw", 4), (names["n"], names["f"], names["hd0"], names.Count));
        Say(guest, "block_resize", "{'node-name':'n','size':4194304}", "");
        Say(guest, "blockdev-open-tray", "{'id':'cd'}", "");
        Say(guest, "blockdev-remove-medium", "{'id':'cd'}", "");
        Say(guest, "blockdev-del", "{'node-name':'n'}", "");
        Say(guest, "blockdev-del", "{'node-name':'f'}", "");
        Assert.Contains("virtual-size\": 4194304", Tool.Run("qemu-img", "info", "--output=json", At("q")));
        guest.Qmp("quit");
    }

    [Fact]
    public void What_cannot_be_is_said_in_the_peers_words()
    {
        using var guest = Start();
        foreach (var (arguments, error) in ((string, string)[])
        [
            ("{'node-name':'n'}", "Parameter 'driver' is missing"),
            ("{'driver':'nosuch','node-name':'n'}", "Parameter 'driver' does not accept value 'nosuch'"),
            ("{'driver':'raw','node-name':'n'}", "Parameter 'file' is missing"),
            ("{'driver':'null-co'}", "'node-name' must be specified for the root node"),
            ("{'driver':'null-co','node-name':'9'}", "Invalid node-name: '9'"),
            ("{'driver':'null-co','node-name':'n','colour':1}", "Parameter 'colour' is unexpected"),
            ("{'driver':'raw','node-name':'n','file':{'driver':'null-co','colour':1}}", "Parameter 'file.colour' is unexpected"),
            ("{'driver':'null-co','node-name':'n','read-only':'yes'}", "Invalid parameter type for 'read-only', expected: boolean"),
            ("{'driver':'null-co','node-name':'n','detect-zeroes':'perhaps'}", "Parameter 'detect-zeroes' does not accept value 'perhaps'"),
            ("{'driver':'null-co','node-name':'n','detect-zeroes':'unmap'}", "setting detect-zeroes to unmap is not allowed without setting discard operation to unmap"),
            ("{'driver':'qcow2','node-name':'n','file':{'driver':'null-co'}}", "Image is not in qcow2 format"),
            ("{'driver':'raw','node-name':'n','file':'no'}", "Cannot find device='no' nor node-name='no'"),
            ("{'driver':'file','node-name':'n','filename':'AT/none'}", "Could not open 'AT/none': No such file or directory"),
            ("{'driver':'qcow2','node-name':'n','file':{'driver':'file','filename':'AT/q'}}", ""),
            ("{'driver':'qcow2','node-name':'n','file':{'driver':'file','filename':'AT/q'}}", "Duplicate nodes with node-name='n'"),
            ("{'driver':'qcow2','node-name':'m','file':{'driver':'file','filename':'AT/q'}}", "Failed to get \"write\" lock"),
        ])
            Say(guest, "blockdev-add", arguments, error);
        Say(guest, "blockdev-del", "{'node-name':'no'}", "Failed to find node with node-name='no'");
        Say(guest, "block_resize", "{'node-name':'no','size':512}", "Cannot find device='' nor node-name='no'");
        Say(guest, "device_add", "{'driver':'nosuch'}", "'nosuch' is not a valid device model name");
        Say(guest, "device_add", "{'driver':'ide-cd','bus':'ide.0'}", "Bus 'ide.0' does not support hotplugging");
        Say(guest, "device_del", "{'id':'no'}", "Device 'no' not found");
        Say(guest, "device_del", "{'id':'cd'}", "Bus 'ide.1' does not support hotplugging");
        guest.Qmp("quit");
    }
}
