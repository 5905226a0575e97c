namespace ImgKit.Cpu;

/// <summary>An exception of the guest's processor, on its way to delivery. Not an error of the host.</summary>
public sealed class GuestFault : Exception
{
    /// <summary>Makes one.</summary>
    /// <param name="vector">0..31.</param>
    /// <param name="errorCode">pushed, when not null.</param>
    public GuestFault(byte vector, uint? errorCode = null)
    {
        Vector = vector;
        ErrorCode = errorCode;
    }

    /// <summary>Exception vector.</summary>
    public byte Vector { get; }

    /// <summary>Error code, or null where the exception has none.</summary>
    public uint? ErrorCode { get; }
}
