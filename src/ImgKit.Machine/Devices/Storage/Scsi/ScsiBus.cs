namespace ImgKit.Machine.Devices.Storage.Scsi;

/// <summary>A SCSI bus with one initiator: up to 16 targets of 8 logical units.</summary>
public sealed class ScsiBus(MachineServices services) : IStateful
{
    /// <summary>The initiator's own identifier.</summary>
    public const int InitiatorId = 7;

    private const int Targets = 16, Units = 8;
    private readonly ScsiUnit?[] _units = new ScsiUnit?[Targets * Units];
    private readonly AbsentScsiUnit?[] _absent = new AbsentScsiUnit?[Targets];

    /// <summary>Name in <c>bus=</c>.</summary>
    public required string Name { get; init; }

    /// <summary>The controller's place as firmware names it, for the boot order.</summary>
    public required Func<string> FirmwarePath { get; init; }

    /// <summary>Told when a unit goes on by itself.</summary>
    internal Action<ScsiTask>? Advanced { get; set; }

    internal bool HasTarget(int target) => _absent[target & 15] != null;

    /// <summary>The unit that answers: where a target has no such unit, one that says so.</summary>
    internal ScsiUnit Find(int target, int unit) => (unit < Units ? _units[target * Units + unit] : null) ?? _absent[target]!;

    /// <summary>Plugs a unit. Throws <see cref="MachineException"/> where the place is taken.</summary>
    /// <param name="unit">the unit.</param>
    /// <param name="target">0..15; -1: the first where this unit number is free.</param>
    /// <param name="number">logical unit number, 0..7.</param>
    internal (int Target, int Unit) Add(ScsiUnit unit, int target, int number)
    {
        if (number is < 0 or >= Units)
            throw new MachineException($"bad scsi device lun: {number}");
        for (int t = 0; target < 0 && t < Targets; t++)
            if (t != InitiatorId && _units[t * Units + number] == null)
                target = t;
        if (target is < 0 or >= Targets or InitiatorId)
            throw new MachineException($"bad scsi device id: {target}");
        ref var place = ref _units[target * Units + number];
        if (place != null)
            throw new MachineException($"lun already used by another device (scsi-id {target}, lun {number})");
        place = unit;
        _absent[target] ??= Connect(new AbsentScsiUnit(services), target, 0);
        Connect(unit, target, number);
        return (target, number);
    }

    private T Connect<T>(T unit, int target, int number) where T : ScsiUnit
    {
        unit.Target = target;
        unit.Number = number;
        unit.Advanced = task => Advanced?.Invoke(task);
        unit.Siblings = () => [.. Enumerable.Range(0, Units).Where(u => u == 0 || _units[target * Units + u] != null)];
        return unit;
    }

    /// <summary>Every unit, absent ones with them.</summary>
    internal IEnumerable<ScsiUnit> All => _units.Concat(_absent).OfType<ScsiUnit>();

    /// <summary>Resets every unit.</summary>
    /// <param name="qualifier">of the unit attention: 0 power on, 2 bus reset, 3 device reset.</param>
    internal void Reset(byte qualifier)
    {
        foreach (var unit in All)
            unit.Reset(qualifier);
    }

    /// <summary>Resets the units of one target.</summary>
    internal void ResetTarget(int target, byte qualifier)
    {
        for (int u = 0; u < Units; u++)
            _units[target * Units + u]?.Reset(qualifier);
        _absent[target]?.Reset(qualifier);
    }

    /// <inheritdoc/>
    public void Describe(StateVisitor state)
    {
        for (int i = 0; i < _units.Length; i++)
            if (_units[i] is { } unit)
                state.Part($"unit-{i / Units}-{i % Units}", unit);
        for (int t = 0; t < Targets; t++)
            if (_absent[t] is { } absent)
                state.Part($"absent-{t}", absent);
    }
}

/// <summary>Answers for logical units that a target does not have (SPC-3, 6.4.2 and SAM-3, 4.6.3).</summary>
internal sealed class AbsentScsiUnit : ScsiUnit
{
    internal AbsentScsiUnit(MachineServices services) : base(services, null) => SetAttention(0, 0);

    /// <summary>Not connected, and this target could not support one.</summary>
    protected override byte PeripheralType => 0x7F;

    internal override void Reset(byte qualifier)
    {
        base.Reset(qualifier);
        SetAttention(0, 0);
    }

    protected override void Execute() => Fail(IllegalRequest, 0x25);

    protected override int MakeInquiry(int page) => page >= 0 ? -1 : MakeStandardInquiry(false, "", "", "");
}
