using System.Runtime.InteropServices;
using ImgKit.Block;
using ImgKit.CommandLine;

namespace ImgKit.Programs.Io;

/// <summary>Commands about the program and about which image is open.</summary>
internal static partial class ControlCommands
{
    public static IoCommand Open { get; } = new()
    {
        Name = "open",
        ShortName = "o",
        MinArguments = 1,
        MaxArguments = -1,
        NeedsNoFile = true,
        Arguments = "[-rsCnkU] [-t cache] [-d discard] [-o options] [path]",
        Summary = "open the file specified by path",
        Help = """

             opens a new file in the requested mode

             Example:
             'open -n -o driver=raw /tmp/data' - opens raw data file read-write, uncached

             Opens a file for subsequent use by all of the other qemu-io commands.
             -r, -- open file read-only
             -s, -- use snapshot file
             -C, -- use copy-on-read
             -n, -- disable host cache, short for -t none
             -U, -- force shared permissions
             -k, -- use kernel AIO implementation (Linux only, prefer use of -i)
             -i, -- use AIO mode (threads, native or io_uring)
             -t, -- use the given cache mode for the image
             -d, -- use the given discard mode for the image
             -o, -- options to be given to the block driver

            """,
        Run = RunOpen,
    };

    public static IoCommand Close { get; } = new()
    {
        Name = "close",
        ShortName = "c",
        Summary = "close the current open file",
        Run = (session, _) =>
        {
            session.Close();
            return true;
        },
    };

    public static IoCommand Quit { get; } = new()
    {
        Name = "quit",
        ShortName = "q",
        MaxArguments = -1,
        NeedsNoFile = true,
        Summary = "exit the program",
        Run = (session, _) => session.Quit = true,
    };

    public static IoCommand Help { get; } = new()
    {
        Name = "help",
        ShortName = "?",
        Arguments = "[command]",
        Summary = "help for one or all commands",
        MaxArguments = 1,
        NeedsNoFile = true,
        Run = RunHelp,
    };

    public static IoCommand Sleep { get; } = new()
    {
        Name = "sleep",
        Summary = "waits for the given value in milliseconds",
        MinArguments = 1,
        MaxArguments = 1,
        NeedsNoFile = true,
        Run = (session, a) =>
        {
            if (!Numbers.TryParseInt(a[1], out long ms) || ms < 0)
            {
                Console.Out($"{a[1]} is not a valid number\n");
                return false;
            }
            session.Async.Wait(ms);
            return true;
        },
    };

    public static IoCommand SigRaise { get; } = new()
    {
        Name = "sigraise",
        Arguments = "signal",
        Summary = "raises a signal",
        Help = """

             raises the given signal

             Example:
             'sigraise 15' - raises SIGTERM

             Invokes raise(signal), where "signal" is the mandatory integer argument
             given to sigraise.


            """,
        MinArguments = 1,
        MaxArguments = 1,
        NeedsNoFile = true,
        Run = (session, a) =>
        {
            if (!Numbers.TryParse(a[1], out long signal))
                return false;
            if (signal > 65)
            {
                Console.Out($"signal argument '{a[1]}' is too large to be a valid signal\n");
                return false;
            }
            // What it kills must still have said what it did until here.
            OutputWriter.Out.Flush();
            _ = kill(getpid(), (int)signal);
            return true;
        },
    };

    public static IoCommand Abort { get; } = new()
    {
        Name = "abort",
        Summary = "simulate a program crash using abort(3)",
        NeedsNoFile = true,
        Run = static (_, _) =>
        {
            // A handler of the runtime's own would print a stack trace.
            _ = signal(6, 0);
            abort();
            return false;
        },
    };

    private static bool RunOpen(Session session, string[] arguments)
    {
        var letters = new CommandOptions(arguments, "snCro:ki:t:d:U");
        OpenRequest? request = new();
        var options = new BlockOptions();
        while (letters.Next(out char c))
        {
            switch (c)
            {
                case 'o':
                    OptionText.Parse(letters.Value, options);
                    break;
                case '?':
                    return Open.Misused();
                default:
                    request = request.With(c, letters.Value);
                    if (request is null)
                        return false;
                    break;
            }
        }
        var operands = letters.Operands;
        if (operands.Length > 1)
            return Open.Misused();
        return session.Open(request with { FileName = operands.Length == 1 ? operands[0] : null, Options = options });
    }

    private static bool RunHelp(Session session, string[] arguments)
    {
        if (arguments.Length == 1)
        {
            foreach (var c in CommandTable.All)
                c.PrintUsage();
            Console.Out("\nUse 'help commandname' for extended help.\n");
            return true;
        }
        if (CommandTable.Find(arguments[1]) is not { } command)
        {
            Console.Out($"command {arguments[1]} not found\n");
            return false;
        }
        command.PrintUsage(arguments[1]);
        Console.Out(command.Help ?? "");
        return true;
    }

    [LibraryImport("libc.so.6")]
    private static partial int getpid();

    [LibraryImport("libc.so.6")]
    private static partial int kill(int process, int signal);

    [LibraryImport("libc.so.6")]
    private static partial nint signal(int number, nint handler);

    [LibraryImport("libc.so.6")]
    private static partial void abort();
}
