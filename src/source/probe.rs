//! Finds out what kind of server answers at an address, from the little that every server says before a login. That is
//! enough to recognize a wrong port, a missing or needless TLS, or another product. It is used only after a contact has
//! failed, and sends no secret.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use crate::config::SourceKind;

/// How long a host may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a server may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(1500);
/// How long to wait for a server that speaks first.
const GREETING_TIMEOUT: Duration = Duration::from_millis(500);
/// PostgreSQL's request for TLS. PostgreSQL answers it with one byte, and no other server with so short an answer.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// An address, and the server that is expected there.
#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    host: String,
    port: u16,
    /// Whether it is the local end of a tunnel. That it accepts connections then says nothing about the server.
    is_tunnel: bool,
    expected: Service,
}

/// The kind of server that answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Service {
    Http,
    /// TLS, with any protocol in it.
    Tls,
    Postgres,
    MySql,
    MongoDb,
    Redis,
    Ssh,
    /// A server that accepts a connection and closes it at once.
    HangsUp,
    /// A server that says nothing that identifies it.
    Unknown,
}

impl Service {
    fn name(self) -> &'static str {
        match self {
            Self::Http => "an HTTP server",
            Self::Tls => "a server that speaks TLS",
            Self::Postgres => "a PostgreSQL server",
            Self::MySql => "a MySQL or MariaDB server",
            Self::MongoDb => "a MongoDB server",
            Self::Redis => "a Redis server",
            Self::Ssh => "an SSH server",
            Self::HangsUp | Self::Unknown => "something",
        }
    }
}

impl Endpoint {
    /// The endpoint of a server, through its tunnel if it has one. Files have none, and neither has a server behind an
    /// HTTP proxy, since the proxy would answer in its place.
    pub(super) fn of(kind: &SourceKind) -> Option<Self> {
        let endpoint = Self::of_address(kind)?;
        let Some(tunnel) = kind.tunnel() else { return Some(endpoint) };
        let passage = tunnel.now()?;
        let host = passage.address().ip().to_string();
        Some(Self { host, port: passage.port(), is_tunnel: true, ..endpoint })
    }

    fn of_address(kind: &SourceKind) -> Option<Self> {
        match kind {
            SourceKind::InfluxDb(influxdb) => {
                let tls = influxdb.base.scheme() == "https";
                let proxies = [
                    "HTTP_PROXY",
                    "HTTPS_PROXY",
                    "ALL_PROXY",
                    "http_proxy",
                    "https_proxy",
                    "all_proxy",
                ];
                let is_direct = influxdb.tunnel.is_some();
                if !is_direct && proxies.iter().any(|name| std::env::var_os(name).is_some()) {
                    return None;
                }
                let host = influxdb.base.host_str()?.trim_start_matches('[').trim_end_matches(']');
                Some(Self {
                    host: host.to_owned(),
                    port: influxdb.base.port_or_known_default()?,
                    is_tunnel: false,
                    expected: if tls { Service::Tls } else { Service::Http },
                })
            }
            SourceKind::Postgres(database) => Some(Self {
                host: database.host.clone(),
                port: database.port,
                is_tunnel: false,
                expected: Service::Postgres,
            }),
            SourceKind::MySql(database) => Some(Self {
                host: database.host.clone(),
                port: database.port,
                is_tunnel: false,
                expected: Service::MySql,
            }),
            SourceKind::LineProtocol { .. }
            | SourceKind::Aptible(_)
            | SourceKind::Behind(_)
            | SourceKind::Redis(_)
            | SourceKind::MongoDb(_)
            | SourceKind::Program(_)
            | SourceKind::Given(_) => None,
        }
    }

    fn usual_port(&self) -> &'static str {
        match self.expected {
            Service::Postgres => "5432 is the usual one of PostgreSQL",
            Service::MySql => "3306 is the usual one of MySQL",
            _ => "8086 and 8181 are the usual ones of InfluxDB",
        }
    }
}

/// Why a contact failed.
pub(super) struct Cause {
    pub(super) text: String,
    /// Whether another server answers at the address. Otherwise the expected one may come back.
    pub(super) answers: bool,
}

/// Why a contact failed; `None` if the expected server answers, or if nothing identifies the one that does.
pub(super) fn probe(endpoint: &Endpoint) -> Option<Cause> {
    let Endpoint { host, port, is_tunnel, expected } = endpoint;
    let (text, answers) = match identify(host, *port) {
        Err(_) if *is_tunnel => return None,
        Err(cause) => (cause + &format!(" ({})", endpoint.usual_port()), false),
        Ok(found) if *expected == found => return None,
        Ok(Service::Unknown) => return None,
        Ok(Service::HangsUp) => (
            format!(
                "port {port} of {host} accepts connections and closes them at once: most often it is a tunnel or a \
                 proxy whose other end is missing"
            ),
            false,
        ),
        Ok(Service::Tls) if *expected == Service::Http => {
            (format!("the server speaks TLS on port {port}: write influxdb+https://"), true)
        }
        Ok(Service::Http) if *expected == Service::Tls => (
            format!("the server speaks HTTP without TLS on port {port}: write influxdb+http://"),
            true,
        ),
        Ok(found) => (
            format!(
                "{} answers on port {port} of {host}: check the port ({}) and the beginning of the URL",
                found.name(),
                endpoint.usual_port()
            ),
            true,
        ),
    };
    Some(Cause { text, answers })
}

fn identify(host: &str, port: u16) -> Result<Service, String> {
    // First come the servers that speak first, then each server's answer to the first message of another protocol.
    match exchange(host, port, &[], GREETING_TIMEOUT)? {
        Response::Nothing => {}
        Response::End => return Ok(Service::HangsUp),
        Response::Bytes(bytes) => return Ok(greeting(&bytes)),
    }
    if let Response::Bytes(bytes) = exchange(host, port, &SSL_REQUEST, ANSWER_TIMEOUT)? {
        match bytes.as_slice() {
            b"S" | b"N" => return Ok(Service::Postgres),
            bytes => {
                if let Some(found) = answer(bytes) {
                    return Ok(found);
                }
            }
        }
    }
    match exchange(host, port, b"GET / HTTP/1.0\r\n\r\n", ANSWER_TIMEOUT)? {
        Response::Bytes(bytes) => Ok(answer(&bytes).unwrap_or(Service::Unknown)),
        Response::Nothing | Response::End => Ok(Service::Unknown),
    }
}

fn greeting(bytes: &[u8]) -> Service {
    match bytes {
        // The length of a packet, its number, and the version of the protocol or an error.
        [_, _, 0, 0, 10 | 255, ..] => Service::MySql,
        bytes if bytes.starts_with(b"SSH-") => Service::Ssh,
        bytes => answer(bytes).unwrap_or(Service::Unknown),
    }
}

fn answer(bytes: &[u8]) -> Option<Service> {
    let text = String::from_utf8_lossy(bytes);
    match bytes {
        // A TLS alert, whose second byte is the version.
        [0x15, 3, ..] => Some(Service::Tls),
        _ if text.contains("MongoDB") => Some(Service::MongoDb),
        // Servers in Go and nginx say in plain text that they expect HTTPS.
        _ if text.starts_with("HTTP/") && text.contains("HTTPS") => Some(Service::Tls),
        _ if text.starts_with("HTTP/") => Some(Service::Http),
        _ if text.starts_with("-ERR") || text.starts_with("-NOAUTH") => Some(Service::Redis),
        _ => None,
    }
}

enum Response {
    Bytes(Vec<u8>),
    Nothing,
    End,
}

/// What a server answers to a message within the time-out.
fn exchange(host: &str, port: u16, bytes: &[u8], timeout: Duration) -> Result<Response, String> {
    let mut stream = connect(host, port)?;
    let set_up = stream.set_read_timeout(Some(timeout)).and_then(|()| stream.write_all(bytes));
    if set_up.is_err() {
        return Ok(Response::End);
    }
    let mut bytes = vec![0; 1024];
    Ok(match stream.read(&mut bytes) {
        Ok(0) => Response::End,
        Ok(length) => {
            bytes.truncate(length);
            Response::Bytes(bytes)
        }
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            Response::Nothing
        }
        Err(_) => Response::End,
    })
}

fn connect(host: &str, port: u16) -> Result<TcpStream, String> {
    let addresses = (host, port)
        .to_socket_addrs()
        .map_err(|_| format!("no address is known for the host {host}: check its name"))?;
    let mut failed = None;
    for address in addresses {
        match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    Err(match failed.as_ref().map(std::io::Error::kind) {
        Some(ErrorKind::ConnectionRefused) => format!(
            "nothing listens on port {port} of {host}: check the port, and whether the server or the tunnel to it \
             runs"
        ),
        Some(ErrorKind::TimedOut | ErrorKind::WouldBlock) => format!(
            "{host} does not answer on port {port}: check host and port, and whether a firewall lets this machine in"
        ),
        _ => format!("there is no way to {host}: check its name, and this machine's network"),
    })
}
