using System.Net;
using System.Runtime.InteropServices;
using System.Text;
using static ImgKit.Host.Tls.OpenSsl;

namespace ImgKit.Host.Tls;

/// <summary>
/// TLS over a socket. One thread may receive while another sends: the library is entered by one at a time and never waits inside, for
/// the socket does not block; who must wait does so outside.
/// </summary>
public sealed unsafe class TlsConnection : IDisposable
{
    private readonly HostSocket _socket;
    private readonly Lock _gate = new();
    private nint _ssl;

    private TlsConnection(TlsContext context, HostSocket socket)
    {
        _socket = socket;
        _ssl = SSL_new(context.Handle);
        if (_ssl == 0 || SSL_set_fd(_ssl, socket.Descriptor) != 1)
            throw TlsContext.Failed("TLS cannot be used on this connection");
    }

    /// <summary>How long one receive or send may wait, in milliseconds; -1: for ever.</summary>
    public int Timeout { get; set; } = -1;

    /// <summary>The subject of the peer's certificate, <c>CN=name,O=organization</c>; null when it showed none.</summary>
    public string? PeerName { get; private set; }

    /// <summary>Does the handshake; the socket belongs to the connection's protocol from here on, but is not owned.</summary>
    /// <param name="context">the credentials.</param>
    /// <param name="socket">connected.</param>
    /// <param name="hostName">the name (or address) that a server's certificate must have; null or empty: it is not looked at.</param>
    /// <param name="limit">for the whole handshake.</param>
    public static TlsConnection Start(TlsContext context, HostSocket socket, string? hostName, TimeSpan limit)
    {
        var c = new TlsConnection(context, socket);
        try
        {
            socket.SetNonBlocking();
            if (!context.IsServer && !string.IsNullOrEmpty(hostName))
                c.ExpectHost(hostName);
            c.Handshake(context.IsServer, hostName, limit);
            return c;
        }
        catch
        {
            c.Dispose();
            throw;
        }
    }

    private void ExpectHost(string name)
    {
        if (IPAddress.TryParse(name, out _))
        {
            _ = X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(_ssl), name);
            return;
        }
        byte[] text = Encoding.UTF8.GetBytes(name + "\0");
        fixed (byte* p = text)
            _ = SSL_ctrl(_ssl, HostNameControl, 0, p);
        _ = SSL_set1_host(_ssl, name);
    }

    private void Handshake(bool server, string? hostName, TimeSpan limit)
    {
        long end = Environment.TickCount64 + (long)limit.TotalMilliseconds;
        while (true)
        {
            ERR_clear_error();
            int r = server ? SSL_accept(_ssl) : SSL_connect(_ssl);
            if (r == 1)
                break;
            int error = SSL_get_error(_ssl, r);
            if (error is not (ErrorWantRead or ErrorWantWrite))
            {
                long verify = SSL_get_verify_result(_ssl);
                throw verify == 0 ? TlsContext.Failed("TLS handshake failed") : new TlsException(Distrust(verify, hostName));
            }
            long left = end - Environment.TickCount64;
            if (left <= 0 || !_socket.WaitFor(error == ErrorWantWrite, (int)Math.Min(left, int.MaxValue)))
                throw new TlsException("TLS handshake failed: it takes too long");
        }
        nint certificate = SSL_get1_peer_certificate(_ssl);
        if (certificate == 0)
            return;
        byte* name = stackalloc byte[1024];
        X509_NAME_oneline(X509_get_subject_name(certificate), name, 1024);
        PeerName = (Marshal.PtrToStringUTF8((nint)name) ?? "").TrimStart('/').Replace('/', ',');
        X509_free(certificate);
    }

    /// <summary>Why a certificate is not trusted; the usual reasons in the words of GnuTLS' users.</summary>
    private static string Distrust(long result, string? hostName) => result switch
    {
        9 => "The certificate is not yet activated",
        10 => "The certificate has expired",
        2 or 18 or 19 or 20 or 21 => "The certificate hasn't got a known issuer",
        23 => "The certificate has been revoked",
        62 or 64 => $"Certificate does not match the hostname {hostName}",
        _ => $"TLS handshake failed: {Marshal.PtrToStringUTF8((nint)X509_verify_cert_error_string(result))}",
    };

    /// <summary>Receives what is there, at least one byte.</summary>
    /// <returns>bytes; 0 at the end of the stream.</returns>
    public int Receive(Span<byte> buffer)
    {
        fixed (byte* p = buffer)
        {
            while (true)
            {
                int error;
                lock (_gate)
                {
                    if (_ssl == 0)
                        return 0;
                    ERR_clear_error();
                    int n = SSL_read(_ssl, p, buffer.Length);
                    if (n > 0)
                        return n;
                    error = SSL_get_error(_ssl, n);
                }
                if (!WaitAfter(error))
                    return 0;
            }
        }
    }

    /// <summary>Sends all of it.</summary>
    public void Send(ReadOnlySpan<byte> data)
    {
        fixed (byte* start = data)
        {
            byte* p = start;
            int left = data.Length;
            while (left > 0)
            {
                int error;
                lock (_gate)
                {
                    if (_ssl == 0)
                        throw new TlsException("the connection is closed");
                    ERR_clear_error();
                    int n = SSL_write(_ssl, p, left);
                    if (n > 0)
                    {
                        p += n;
                        left -= n;
                        continue;
                    }
                    error = SSL_get_error(_ssl, n);
                }
                if (!WaitAfter(error))
                    throw new TlsException("the connection is closed");
            }
        }
    }

    /// <summary>Waits for what the library wants; false: the stream has ended.</summary>
    private bool WaitAfter(int error)
    {
        switch (error)
        {
            case ErrorWantRead or ErrorWantWrite:
                return _socket.WaitFor(error == ErrorWantWrite, Timeout) ? true : throw new TlsException("the peer is silent for too long");
            case ErrorZeroReturn:
                return false;
            default:
                throw TlsContext.Failed("the TLS connection broke");
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        lock (_gate)
        {
            if (_ssl == 0)
                return;
            _ = SSL_shutdown(_ssl);
            SSL_free(_ssl);
            _ssl = 0;
        }
    }
}
