using System.Collections.Concurrent;
using System.Runtime.InteropServices;
using System.Text;
using static ImgKit.Host.Tls.OpenSsl;

namespace ImgKit.Host.Tls;

/// <summary>Credentials for TLS connections: certificates, or keys that both sides know before (PSK).</summary>
public sealed unsafe class TlsContext : IDisposable
{
    private static readonly ConcurrentDictionary<nint, TlsContext> ByHandle = new();

    private nint _context;
    private string? _identity;
    private byte[]? _key;
    private Func<string, byte[]?>? _findKey;

    private TlsContext(bool server)
    {
        IsServer = server;
        try
        {
            _context = SSL_CTX_new(server ? TLS_server_method() : TLS_client_method());
        }
        catch (DllNotFoundException)
        {
            throw new TlsException("TLS needs the library libssl.so.3 (package libssl3), which is not installed");
        }
        if (_context == 0)
            throw Failed("TLS cannot be used");
        // A peer that is gone must be an error, not the end of the process.
        _ = signal(13, 1);
        _ = SSL_CTX_ctrl(_context, MinProtocolControl, Tls12, null);
        _ = SSL_CTX_ctrl(_context, ModeControl, PartialWriteMode | MovingBufferMode, null);
        _ = SSL_CTX_set_options(_context, NoRenegotiation);
    }

    /// <summary>For the accepting side.</summary>
    public bool IsServer { get; }

    internal nint Handle => _context;

    /// <summary>With X.509 certificates.</summary>
    /// <param name="server">for the accepting side.</param>
    /// <param name="authorities">a PEM file of those who are trusted; null: those whom the system trusts.</param>
    /// <param name="certificate">a PEM file, own certificate first; null: none (clients only).</param>
    /// <param name="key">its private key.</param>
    /// <param name="verifyPeer">the peer must have a certificate of a trusted authority.</param>
    public static TlsContext WithCertificates(bool server, string? authorities, string? certificate, string? key, bool verifyPeer)
    {
        var c = new TlsContext(server);
        try
        {
            if (authorities is null ? SSL_CTX_set_default_verify_paths(c._context) != 1 : SSL_CTX_load_verify_locations(c._context, authorities, null) != 1)
                throw Failed($"Unable to load certificates from {authorities ?? "the system"}");
            if (certificate is not null && (SSL_CTX_use_certificate_chain_file(c._context, certificate) != 1
                || SSL_CTX_use_PrivateKey_file(c._context, key ?? certificate, FileTypePem) != 1 || SSL_CTX_check_private_key(c._context) != 1))
                throw Failed($"Unable to load certificate {certificate} and its key");
            SSL_CTX_set_verify(c._context, verifyPeer ? VerifyPeer | (server ? VerifyFailIfNoCertificate : 0) : VerifyNone, null);
            return c;
        }
        catch
        {
            c.Dispose();
            throw;
        }
    }

    /// <summary>A client with a key known before.</summary>
    public static TlsContext WithKey(string identity, byte[] key)
    {
        var c = new TlsContext(false) { _identity = identity, _key = key };
        ByHandle[c._context] = c;
        _ = SSL_CTX_set_cipher_list(c._context, "PSK");
        SSL_CTX_set_psk_client_callback(c._context, &ClientKey);
        SSL_CTX_set_verify(c._context, VerifyNone, null);
        return c;
    }

    /// <summary>A server whose clients have keys known before.</summary>
    /// <param name="find">the key of an identity, or null.</param>
    public static TlsContext WithKeys(Func<string, byte[]?> find)
    {
        var c = new TlsContext(true) { _findKey = find };
        ByHandle[c._context] = c;
        _ = SSL_CTX_set_cipher_list(c._context, "PSK");
        SSL_CTX_set_psk_server_callback(c._context, &ServerKey);
        SSL_CTX_set_verify(c._context, VerifyNone, null);
        return c;
    }

    [UnmanagedCallersOnly]
    private static uint ClientKey(nint ssl, byte* hint, byte* identity, uint maxIdentity, byte* key, uint maxKey)
    {
        if (!ByHandle.TryGetValue(SSL_get_SSL_CTX(ssl), out var c) || c._key!.Length > maxKey || Encoding.UTF8.GetByteCount(c._identity!) + 1 > maxIdentity)
            return 0;
        int n = Encoding.UTF8.GetBytes(c._identity!, new Span<byte>(identity, (int)maxIdentity));
        identity[n] = 0;
        c._key.CopyTo(new Span<byte>(key, (int)maxKey));
        return (uint)c._key.Length;
    }

    [UnmanagedCallersOnly]
    private static uint ServerKey(nint ssl, byte* identity, byte* key, uint maxKey)
    {
        if (identity is null || !ByHandle.TryGetValue(SSL_get_SSL_CTX(ssl), out var c)
            || c._findKey!(Marshal.PtrToStringUTF8((nint)identity) ?? "") is not { } found || found.Length > maxKey)
            return 0;
        found.CopyTo(new Span<byte>(key, (int)maxKey));
        return (uint)found.Length;
    }

    /// <summary>The library's words for what went wrong last on this thread.</summary>
    internal static TlsException Failed(string what)
    {
        ulong error = ERR_get_error();
        string? reason = error == 0 ? null : Marshal.PtrToStringUTF8((nint)ERR_reason_error_string(error));
        ERR_clear_error();
        return new TlsException(reason is null ? what : $"{what}: {reason}");
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        nint c = Interlocked.Exchange(ref _context, 0);
        if (c == 0)
            return;
        ByHandle.TryRemove(c, out _);
        SSL_CTX_free(c);
    }
}
