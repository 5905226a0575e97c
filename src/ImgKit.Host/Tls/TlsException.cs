namespace ImgKit.Host.Tls;

/// <summary>TLS could not be agreed on, or broke.</summary>
public sealed class TlsException(string message) : IOException(message);
