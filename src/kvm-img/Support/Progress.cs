using System.Diagnostics;
using System.Globalization;
using System.Runtime.InteropServices;
using ImgKit.CommandLine;

namespace ImgKit.Programs.Img;

/// <summary>
/// How far a command is: text as the peer prints it (<c>-p</c>), JSON lines (<c>--progress=json</c>), or one line on standard error for
/// each SIGUSR1.
/// </summary>
internal sealed partial class Progress : IProgress<long>, IDisposable
{
    private const int UserSignal = 10;      // SIGUSR1 on Linux
    private const nint SignalDefault = 0;
    private const nint SignalIgnore = 1;
    private static readonly TimeSpan JsonInterval = TimeSpan.FromMilliseconds(500);

    private readonly OutputWriter _out;
    private readonly bool _text;
    private readonly bool _json;
    private readonly float _step;
    private readonly long _started = Stopwatch.GetTimestamp();
    private PosixSignalRegistration? _signal;
    private volatile bool _asked;
    private long _total;
    private long _done;
    private long _lastJson;
    private float _current;
    private float _printed;
    private bool _any;
    private bool _ended;

    /// <summary>Starts at 0.</summary>
    /// <param name="common">says in which form.</param>
    /// <param name="step">percent between two prints.</param>
    /// <param name="total">what makes 100 %; can be set later.</param>
    /// <param name="usesError">standard output is taken: an image goes there.</param>
    public Progress(CommonOptions common, float step, long total = 0, bool usesError = false)
    {
        _out = usesError ? OutputWriter.Error : OutputWriter.Out;
        _text = common.ShowProgress && !common.Quiet && !common.JsonProgress;
        _json = common.JsonProgress && !common.Quiet;
        _step = step;
        _total = total;
        // Until it is worth a thread, and where progress is shown anyway, the signal must at least not kill.
        _ = signal(UserSignal, SignalIgnore);
        if (_text)
            Show(0);
    }

    /// <summary>Somebody looks at it.</summary>
    public bool IsShown => _text || _json;

    /// <summary>What makes 100 %.</summary>
    public long Total
    {
        get => _total;
        set => _total = value;
    }

    /// <inheritdoc/>
    public void Report(long value)
    {
        _done = value;
        if (_json)
        {
            if (Stopwatch.GetElapsedTime(_lastJson) >= JsonInterval)
                WriteJson();
        }
        else if (_text || _asked)
        {
            Show(_total > 0 ? (float)((double)value / _total * 100) : 0);
        }
        else if (_signal is null && Stopwatch.GetElapsedTime(_started).TotalMilliseconds > 50)
        {
            // The runtime leaves alone a signal that is ignored.
            _ = signal(UserSignal, SignalDefault);
            _signal = PosixSignalRegistration.Create((PosixSignal)UserSignal, context =>
            {
                context.Cancel = true;
                _asked = true;
            });
        }
    }

    /// <summary>All is done.</summary>
    public void Complete()
    {
        _done = _total;
        if (_json)
            WriteJson();
        else if (_text)
            Show(100);
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _signal?.Dispose();
        if (_text && !_ended)
            _out.WriteLine();
        _ended = true;
    }

    private void Show(float percent)
    {
        _current = Math.Min(percent, 100);
        if (_any && _current <= _printed + _step && _current >= _printed - _step && _current is not (100 or 0))
            return;
        _any = true;
        _printed = _current;
        string text = ((double)_current).ToString("F2", CultureInfo.InvariantCulture);
        if (_text)
        {
            _out.Write($"    ({text}/100%)\r");
            _out.Flush();
        }
        else if (_asked)
        {
            _asked = false;
            OutputWriter.Error.Write($"    ({text}/100%)\n");
        }
    }

    private void WriteJson()
    {
        _lastJson = Stopwatch.GetTimestamp();
        double seconds = Stopwatch.GetElapsedTime(_started).TotalSeconds;
        double rate = seconds > 0 ? _done / seconds : 0;
        string eta = rate > 0 && _total >= _done ? ((_total - _done) / rate).ToString("F1", CultureInfo.InvariantCulture) : "null";
        OutputWriter.Error.WriteLine(string.Create(CultureInfo.InvariantCulture,
            $"{{\"done\": {_done}, \"total\": {_total}, \"rate\": {rate:F0}, \"eta\": {eta}}}"));
    }

    [LibraryImport("libc.so.6")]
    private static partial nint signal(int number, nint handler);
}
