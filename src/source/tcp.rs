//! A TCP connection, with or without TLS, for protocols that are read on a thread that may block. Only this file and
//! `end_point` deal with TLS.

pub(crate) mod end_point;

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore,
    SignatureScheme, StreamOwned,
};

use rustix::net::sockopt;

use crate::config::{ClientCertificate, Tls, TlsMode};
use crate::error::{Class, Error, Result};
use crate::source::tunnel::{Passage, Tunnel};

/// How long to wait for a connection to each address of a host.
const CONNECT: Duration = Duration::from_secs(10);

/// How long a connection may be idle before the system probes it.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// A connection to a server.
pub(super) struct TcpTransport {
    stream: Stream,
    socket: TcpStream,
    way: Option<Way>,
}

/// A connection's way through a tunnel. It tells the tunnel whether anything arrives through it.
struct Way {
    tunnel: Arc<Tunnel>,
    passage: Passage,
    is_heard: bool,
}

impl Way {
    fn heard(&mut self) {
        self.is_heard = true;
        self.tunnel.heard();
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        if !self.is_heard {
            self.tunnel.was_silent(self.passage);
        }
    }
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

/// Closes a connection from another thread, so that a thread that reads from it sees its end.
pub(crate) struct Closer(TcpStream);

impl Closer {
    pub(crate) fn close(&self) {
        let _ = self.0.shutdown(Shutdown::Both); // it may be closed already
    }
}

impl TcpTransport {
    /// Connects, through the tunnel if there is one. A read or write that transfers no byte for `idle` fails.
    pub(super) fn connect(
        host: &str,
        port: u16,
        tunnel: Option<&Arc<Tunnel>>,
        idle: Duration,
    ) -> Result<Self> {
        let through = if tunnel.is_some() { " through the tunnel" } else { "" };
        let failed = |error: &dyn std::fmt::Display| {
            Error::of(Class::Retry, format!("{host}:{port}: cannot connect{through}: {error}"))
        };
        let way = |tunnel: &Arc<Tunnel>| {
            let passage = tunnel.ask()?;
            Ok::<_, Error>(Way { tunnel: Arc::clone(tunnel), passage, is_heard: false })
        };
        let way = tunnel.map(way).transpose()?;
        let addresses: Vec<SocketAddr> = match &way {
            Some(way) => vec![way.passage.address()],
            None => (host, port).to_socket_addrs().map_err(|error| failed(&error))?.collect(),
        };
        let mut last = None;
        for address in addresses {
            match TcpStream::connect_timeout(&address, CONNECT) {
                Ok(socket) => {
                    let set_up = || {
                        socket.set_nodelay(true)?;
                        socket.set_read_timeout(Some(idle))?;
                        socket.set_write_timeout(Some(idle))?;
                        // This detects that a tunnel is gone while nothing is read from it, and keeps one open that
                        // would be closed while idle. The system's default is two hours.
                        sockopt::set_socket_keepalive(&socket, true)?;
                        sockopt::set_tcp_keepidle(&socket, KEEP_ALIVE)?;
                        sockopt::set_tcp_keepintvl(&socket, KEEP_ALIVE)?;
                        socket.try_clone()
                    };
                    let clone = set_up().map_err(|error: io::Error| failed(&error))?;
                    return Ok(Self { stream: Stream::Plain(clone), socket, way });
                }
                Err(error) => last = Some(error),
            }
        }
        Err(last.map_or_else(|| failed(&"the name has no address"), |error| failed(&error)))
    }

    /// Continues in TLS, to which the server has agreed. If the mode verifies it, the server's certificate must be for
    /// `host`.
    pub(super) fn upgrade(self, tls: &Tls, host: &str) -> Result<Self> {
        let Self { stream: Stream::Plain(plain), socket, way } = self else { return Ok(self) };
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| Error::usage(format!("`{host}` is not the name of a server")))?;
        let mut connection = ClientConnection::new(client_config(tls)?, name)
            .map_err(|error| Error::stop(format!("{host}: TLS: {error}")))?;
        let mut plain = plain;
        while connection.is_handshaking() {
            connection.complete_io(&mut plain).map_err(|error| handshake_error(host, &error))?;
        }
        let stream = Stream::Tls(Box::new(StreamOwned::new(connection, plain)));
        Ok(Self { stream, socket, way })
    }

    pub(super) fn is_tls(&self) -> bool {
        matches!(self.stream, Stream::Tls(_))
    }

    /// The hash of the server's certificate to which a login is bound; `None` without TLS, and for a certificate whose
    /// signature uses no hash.
    pub(super) fn end_point(&self) -> Option<Vec<u8>> {
        let Stream::Tls(stream) = &self.stream else { return None };
        end_point::hash(stream.conn.peer_certificates()?.first()?)
    }

    /// From now on, a read that receives no byte for this long fails.
    pub(super) fn wait_for(&self, idle: Duration) -> io::Result<()> {
        self.socket.set_read_timeout(Some(idle))
    }

    pub(super) fn closer(&self) -> io::Result<Closer> {
        self.socket.try_clone().map(Closer)
    }
}

impl Read for TcpTransport {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = match &mut self.stream {
            Stream::Plain(stream) => stream.read(buffer),
            Stream::Tls(stream) => stream.read(buffer),
        }?;
        if let Some(way) = &mut self.way
            && count > 0
        {
            way.heard();
        }
        Ok(count)
    }
}

impl Write for TcpTransport {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.stream {
            Stream::Plain(stream) => stream.write(bytes),
            Stream::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.stream {
            Stream::Plain(stream) => stream.flush(),
            Stream::Tls(stream) => stream.flush(),
        }
    }
}

fn handshake_error(host: &str, error: &io::Error) -> Error {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidCertificate(why)) => {
            Error::stop(format!("{host}: the server's certificate is not accepted: {why:?}")).hint(
                "name the file of its authority (sslrootcert=FILE), or do not verify it (sslmode=require)",
            )
        }
        Some(rustls::Error::AlertReceived(alert)) => {
            Error::stop(format!("{host}: the server refused TLS: {alert:?}")).hint(
                "it may offer only old cipher suites (DHE or CBC, TLS 1.1), which moveout does not support: within an \
                 encrypted tunnel, use sslmode=disable",
            )
        }
        Some(error) => Error::stop(format!("{host}: TLS failed: {error}")),
        None => Error::of(Class::Retry, format!("{host}: TLS failed: {error}")),
    }
}

fn client_config(tls: &Tls) -> Result<Arc<ClientConfig>> {
    let provider = Arc::new(ring::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = match tls.mode {
        TlsMode::Disable | TlsMode::Prefer | TlsMode::Require => {
            Arc::new(Verifier { chain: None, provider: Arc::clone(&provider), any_name: true })
        }
        TlsMode::VerifyCa | TlsMode::VerifyFull => {
            let roots = Arc::new(roots(tls)?);
            let chain =
                WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider)).build();
            let chain = chain
                .map_err(|error| Error::usage(format!("the authorities to trust: {error}")))?;
            let any_name = tls.mode == TlsMode::VerifyCa;
            Arc::new(Verifier { chain: Some(chain), provider: Arc::clone(&provider), any_name })
        }
    };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::stop(format!("TLS: {error}")))?;
    let config = config.dangerous().with_custom_certificate_verifier(verifier);
    let Some(client) = &tls.client else { return Ok(Arc::new(config.with_no_client_auth())) };
    let (chain, key) = identity(client)?;
    let config = config.with_client_auth_cert(chain, key).map_err(|error| {
        let ClientCertificate { certificate, key } = client;
        let files = format!("{} and {}", certificate.display(), key.display());
        Error::usage(format!("sslcert and sslkey: {files} do not match: {error}"))
    })?;
    Ok(Arc::new(config))
}

/// The client's certificate, followed by those of its authorities, and its key.
fn identity(
    client: &ClientCertificate,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    let bad = |name: &str, path: &Path, error: &dyn std::fmt::Display| {
        Error::usage(format!("{name}: {}: {error}", path.display()))
    };
    let path = &client.certificate;
    let chain =
        CertificateDer::pem_file_iter(path).and_then(|found| found.collect::<Result<Vec<_>, _>>());
    let chain = chain.map_err(|error| bad("sslcert", path, &error))?;
    if chain.is_empty() {
        return Err(bad("sslcert", path, &"the file contains no certificate"));
    }
    let key = PrivateKeyDer::from_pem_file(&client.key).map_err(|error| {
        bad("sslkey", &client.key, &error).hint("it must be in PEM and must not need a password")
    })?;
    Ok((chain, key))
}

/// Whether the server ended TLS because it does not accept the client's certificate, or requires one. In TLS 1.3 this
/// happens only after the handshake.
pub(super) fn refuses_certificate(error: &io::Error) -> bool {
    use rustls::AlertDescription as Alert;
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(
        inner,
        Some(rustls::Error::AlertReceived(
            Alert::BadCertificate
                | Alert::UnsupportedCertificate
                | Alert::CertificateRevoked
                | Alert::CertificateExpired
                | Alert::CertificateUnknown
                | Alert::CertificateRequired
                | Alert::UnknownCA
                | Alert::AccessDenied
        ))
    )
}

fn roots(tls: &Tls) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    match &tls.ca {
        None => {
            let found = rustls_native_certs::load_native_certs().certs;
            roots.add_parsable_certificates(found);
        }
        Some(path) => {
            let bad = |error: &dyn std::fmt::Display| {
                Error::usage(format!("sslrootcert: {}: {error}", path.display()))
            };
            let certificates = CertificateDer::pem_file_iter(path).map_err(|error| bad(&error))?;
            for certificate in certificates {
                let certificate = certificate.map_err(|error| bad(&error))?;
                roots.add(certificate).map_err(|error| bad(&error))?;
            }
        }
    }
    if roots.is_empty() {
        Err(Error::usage("there is no certificate authority to trust")
            .hint("name one: sslrootcert=FILE"))
    } else {
        Ok(roots)
    }
}

/// Verifies what the mode requires. A mode that does not verify the certificate does not check its signature either, since
/// a certificate of version 1, which some instructions create, could not even be parsed.
#[derive(Debug)]
struct Verifier {
    chain: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
    any_name: bool,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        let verified =
            chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match verified {
            // The name is checked last, so everything else is in order.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if self.any_name => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        if self.chain.is_none() {
            return Ok(HandshakeSignatureValid::assertion());
        }
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        if self.chain.is_none() {
            return Ok(HandshakeSignatureValid::assertion());
        }
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
