using System.Diagnostics.CodeAnalysis;

namespace ImgKit.Cpu.Architecture;

/// <summary>Makes the exceptions of the guest's processor. The error code of a selector leaves out its RPL (Intel SDM 3A 6.13).</summary>
internal static class Faults
{
    /// <summary>Selector bits of an error code.</summary>
    public const uint SelectorMask = 0xFFFC;

    public static GuestFault UndefinedOpcode() => new(Vector.InvalidOpcode);

    public static GuestFault DeviceNotAvailable() => new(Vector.DeviceNotAvailable);

    public static GuestFault GeneralProtection(uint code = 0) => new(Vector.GeneralProtection, code);

    public static GuestFault NotPresent(uint code) => new(Vector.SegmentNotPresent, code);

    public static GuestFault Stack(uint code = 0) => new(Vector.StackFault, code);

    public static GuestFault InvalidTss(uint code) => new(Vector.InvalidTss, code);

    [DoesNotReturn]
    public static void ThrowGeneralProtection(uint code = 0) => throw GeneralProtection(code);

    [DoesNotReturn]
    public static void ThrowUndefinedOpcode() => throw UndefinedOpcode();
}
