namespace ImgKit.Machine;

/// <summary>
/// A device of the machine: registers and state, reached through buses, talking to interrupt lines, a clock and a back end that
/// were given to it. All its members are called under the machine lock unless they say otherwise.
/// </summary>
public abstract class Device : IStateful
{
    /// <summary>The name of the type in the catalogue, such as <c>ide-hd</c>.</summary>
    public abstract string TypeName { get; }

    /// <summary>The identifier that the user gave (<c>id=</c>), or one the machine made up; unique in a machine.</summary>
    public string Id { get; set; } = "";

    /// <summary>The bus that it is plugged into, where there are several of its kind; else null.</summary>
    public virtual string? BusName => null;

    /// <summary>Back to the state after power-on or the reset line.</summary>
    public abstract void Reset();

    /// <inheritdoc/>
    public abstract void Describe(StateVisitor state);

    /// <summary>Work outside the guest stops: back ends are flushed and let go. Called once, at the end, not under the lock.</summary>
    public virtual void Close()
    {
    }
}
