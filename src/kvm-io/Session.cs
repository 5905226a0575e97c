using System.Diagnostics;
using ImgKit.Block;

namespace ImgKit.Programs.Io;

/// <summary>The open image and what commands share.</summary>
internal sealed class Session : IDisposable
{
    private OpenedImage? _image;

    /// <summary>Requests in flight.</summary>
    public AsyncRequests Async { get; } = new();

    /// <summary>Opens images.</summary>
    public required ImageOpener Opener { get; init; }

    /// <summary>Put buffers off their alignment.</summary>
    public bool Misaligned { get; set; }

    /// <summary>Command <c>quit</c> was given.</summary>
    public bool Quit { get; set; }

    /// <summary>Some command failed.</summary>
    public bool Failed { get; private set; }

    /// <summary>Whether an image is open.</summary>
    public bool IsOpen => _image is not null;

    /// <summary>The open image; commands that need none must not ask.</summary>
    public BlockDevice Device => _image?.Device ?? throw new InvalidOperationException("no image is open");

    /// <summary>How the image was opened.</summary>
    public OpenedImage? Image => _image;

    /// <summary>Runs one line.</summary>
    public void Execute(string line)
    {
        string[] words = line.Split(' ', StringSplitOptions.RemoveEmptyEntries);
        if (words.Length == 0)
            return;
        Async.PrintDone();
        if (!Run(words))
            Failed = true;
    }

    private bool Run(string[] words)
    {
        if (CommandTable.Find(words[0]) is not { } command)
        {
            Console.Error($"command \"{words[0]}\" not found");
            return false;
        }
        if (!command.NeedsNoFile && _image is null)
        {
            Console.Error("no file open, try 'help open'");
            return false;
        }
        int given = words.Length - 1;
        if (given < command.MinArguments || (command.MaxArguments >= 0 && given > command.MaxArguments))
        {
            string expected = command.MaxArguments < 0 ? $"at least {command.MinArguments}"
                : command.MinArguments == command.MaxArguments ? $"{command.MinArguments}"
                : $"between {command.MinArguments} and {command.MaxArguments}";
            Console.Error($"bad argument count {given} to {words[0]}, expected {expected} arguments");
            return false;
        }
        if (command.Access == CommandAccess.Write && _image is { } image && image.Device.IsReadOnly)
        {
            Console.Report("Block node is read-only");
            return false;
        }
        return command.Run(this, words);
    }

    /// <summary>Opens an image; says so when it cannot.</summary>
    public bool Open(OpenRequest request)
    {
        if (_image is not null)
        {
            Console.Report("file open already, try 'help close'");
            return false;
        }
        try
        {
            _image = OpenedImage.Open(Opener, request);
            return true;
        }
        catch (Exception e) when (IoError.IsRequestError(e) || e is UnauthorizedAccessException)
        {
            Console.Report($"can't open{(request.FileName is null ? "" : " device " + request.FileName)}: {e.Message}");
            return false;
        }
    }

    /// <summary>Waits for what is in flight, and closes the image.</summary>
    public void Close()
    {
        if (_image is null)
            return;
        Async.WaitForAll();
        var image = _image;
        _image = null;
        image.Dispose();
    }

    /// <summary>Puts a reopened image in the place of the open one (which has been closed).</summary>
    public void Replace(OpenedImage? image) => _image = image;

    /// <summary>Carries a request out and takes its time.</summary>
    /// <param name="name">for the message when it fails; null: none, the exit code tells.</param>
    /// <param name="request">what to do.</param>
    /// <param name="time">how long it took.</param>
    /// <returns>false when it failed, which has been said.</returns>
    public bool Perform(string? name, Action<BlockDevice> request, out TimeSpan time)
    {
        long start = Stopwatch.GetTimestamp();
        Exception? error = null;
        try
        {
            request(Device);
        }
        catch (Exception e) when (IoError.IsRequestError(e))
        {
            error = e;
        }
        time = Stopwatch.GetElapsedTime(start);
        Async.PrintDone();
        if (error is null)
            return true;
        if (name is not null)
            Console.Out($"{name} failed: {IoError.Text(error)}\n");
        return false;
    }

    public void Dispose() => Close();
}
