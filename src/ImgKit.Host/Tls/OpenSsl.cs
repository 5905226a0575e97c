using System.Runtime.InteropServices;

namespace ImgKit.Host.Tls;

/// <summary>The calls of OpenSSL 3 that <see cref="TlsContext"/> and <see cref="TlsConnection"/> make. The libraries are loaded at
/// the first call: a program that uses no TLS does not need them.</summary>
internal static unsafe partial class OpenSsl
{
    internal const int MinProtocolControl = 123;
    internal const int ModeControl = 33;
    internal const int HostNameControl = 55;
    internal const int Tls12 = 0x0303;
    internal const int PartialWriteMode = 1;
    internal const int MovingBufferMode = 2;
    internal const ulong NoRenegotiation = 1ul << 30;
    internal const int FileTypePem = 1;
    internal const int VerifyNone = 0;
    internal const int VerifyPeer = 1;
    internal const int VerifyFailIfNoCertificate = 2;
    internal const int ErrorWantRead = 2;
    internal const int ErrorWantWrite = 3;
    internal const int ErrorZeroReturn = 6;

    private const string Ssl = "libssl.so.3";
    private const string Crypto = "libcrypto.so.3";

    [LibraryImport(Ssl)]
    internal static partial nint TLS_client_method();

    [LibraryImport(Ssl)]
    internal static partial nint TLS_server_method();

    [LibraryImport(Ssl)]
    internal static partial nint SSL_CTX_new(nint method);

    [LibraryImport(Ssl)]
    internal static partial void SSL_CTX_free(nint context);

    [LibraryImport(Ssl)]
    internal static partial long SSL_CTX_ctrl(nint context, int command, long number, void* pointer);

    [LibraryImport(Ssl)]
    internal static partial ulong SSL_CTX_set_options(nint context, ulong options);

    [LibraryImport(Ssl, StringMarshalling = StringMarshalling.Utf8)]
    internal static partial int SSL_CTX_use_certificate_chain_file(nint context, string path);

    [LibraryImport(Ssl, StringMarshalling = StringMarshalling.Utf8)]
    internal static partial int SSL_CTX_use_PrivateKey_file(nint context, string path, int type);

    [LibraryImport(Ssl)]
    internal static partial int SSL_CTX_check_private_key(nint context);

    [LibraryImport(Ssl, StringMarshalling = StringMarshalling.Utf8)]
    internal static partial int SSL_CTX_load_verify_locations(nint context, string file, string? folder);

    [LibraryImport(Ssl)]
    internal static partial int SSL_CTX_set_default_verify_paths(nint context);

    [LibraryImport(Ssl)]
    internal static partial void SSL_CTX_set_verify(nint context, int mode, void* callback);

    [LibraryImport(Ssl, StringMarshalling = StringMarshalling.Utf8)]
    internal static partial int SSL_CTX_set_cipher_list(nint context, string ciphers);

    [LibraryImport(Ssl)]
    internal static partial void SSL_CTX_set_psk_client_callback(nint context,
        delegate* unmanaged<nint, byte*, byte*, uint, byte*, uint, uint> callback);

    [LibraryImport(Ssl)]
    internal static partial void SSL_CTX_set_psk_server_callback(nint context, delegate* unmanaged<nint, byte*, byte*, uint, uint> callback);

    [LibraryImport(Ssl)]
    internal static partial nint SSL_new(nint context);

    [LibraryImport(Ssl)]
    internal static partial void SSL_free(nint ssl);

    [LibraryImport(Ssl)]
    internal static partial nint SSL_get_SSL_CTX(nint ssl);

    [LibraryImport(Ssl)]
    internal static partial int SSL_set_fd(nint ssl, int fd);

    [LibraryImport(Ssl)]
    internal static partial int SSL_connect(nint ssl);

    [LibraryImport(Ssl)]
    internal static partial int SSL_accept(nint ssl);

    [LibraryImport(Ssl)]
    internal static partial int SSL_read(nint ssl, byte* buffer, int length);

    [LibraryImport(Ssl)]
    internal static partial int SSL_write(nint ssl, byte* buffer, int length);

    [LibraryImport(Ssl)]
    internal static partial int SSL_get_error(nint ssl, int result);

    [LibraryImport(Ssl)]
    internal static partial int SSL_shutdown(nint ssl);

    [LibraryImport(Ssl, StringMarshalling = StringMarshalling.Utf8)]
    internal static partial int SSL_set1_host(nint ssl, string name);

    [LibraryImport(Ssl)]
    internal static partial long SSL_ctrl(nint ssl, int command, long number, byte* pointer);

    [LibraryImport(Ssl)]
    internal static partial nint SSL_get0_param(nint ssl);

    [LibraryImport(Ssl)]
    internal static partial long SSL_get_verify_result(nint ssl);

    [LibraryImport(Ssl)]
    internal static partial nint SSL_get1_peer_certificate(nint ssl);

    [LibraryImport(Crypto, StringMarshalling = StringMarshalling.Utf8)]
    internal static partial int X509_VERIFY_PARAM_set1_ip_asc(nint parameters, string address);

    [LibraryImport(Crypto)]
    internal static partial byte* X509_verify_cert_error_string(long error);

    [LibraryImport(Crypto)]
    internal static partial nint X509_get_subject_name(nint certificate);

    [LibraryImport(Crypto)]
    internal static partial byte* X509_NAME_oneline(nint name, byte* buffer, int length);

    [LibraryImport(Crypto)]
    internal static partial void X509_free(nint certificate);

    [LibraryImport(Crypto)]
    internal static partial ulong ERR_get_error();

    [LibraryImport(Crypto)]
    internal static partial byte* ERR_reason_error_string(ulong error);

    [LibraryImport(Crypto)]
    internal static partial void ERR_clear_error();

    [LibraryImport("libc.so.6")]
    internal static partial nint signal(int number, nint handler);

    [LibraryImport("libc.so.6")]
    internal static partial int fcntl(int descriptor, int command, int argument);
}
