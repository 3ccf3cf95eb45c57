//! What lives at an address, by the little that any server says to a stranger: enough to tell a wrong port, TLS
//! where there is none, or another product. Asked only after something has failed there; sends no secret.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use crate::config::SourceKind;

/// How long a host may take to let somebody in.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a server may take to say a word.
const WORD: Duration = Duration::from_millis(1500);
/// How long one that speaks first is waited for.
const GREETING: Duration = Duration::from_millis(500);
/// What PostgreSQL answers with one byte, and nobody else with anything short.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// Where something is expected to live.
#[derive(Debug, Clone)]
pub(super) struct Door {
    host: String,
    port: u16,
    expected: Lives,
}

/// What lives somewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lives {
    Http,
    /// TLS, with whatever is in it.
    Tls,
    Postgres,
    MySql,
    MongoDb,
    Redis,
    Ssh,
    /// Lets one in and hangs up.
    Nobody,
    /// Says nothing that tells.
    Somebody,
}

impl Lives {
    fn name(self) -> &'static str {
        match self {
            Self::Http => "an HTTP server",
            Self::Tls => "a server that speaks TLS",
            Self::Postgres => "a PostgreSQL server",
            Self::MySql => "a MySQL or MariaDB server",
            Self::MongoDb => "a MongoDB server",
            Self::Redis => "a Redis server",
            Self::Ssh => "an SSH server",
            Self::Nobody | Self::Somebody => "something",
        }
    }
}

impl Door {
    /// The door of a server; files have none, and a proxy stands before what is behind it.
    pub(super) fn of(kind: &SourceKind) -> Option<Self> {
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
                if proxies.iter().any(|name| std::env::var_os(name).is_some()) {
                    return None;
                }
                let host = influxdb.base.host_str()?.trim_start_matches('[').trim_end_matches(']');
                Some(Self {
                    host: host.to_owned(),
                    port: influxdb.base.port_or_known_default()?,
                    expected: if tls { Lives::Tls } else { Lives::Http },
                })
            }
            SourceKind::Postgres(database) => Some(Self {
                host: database.host.clone(),
                port: database.port,
                expected: Lives::Postgres,
            }),
            SourceKind::MySql(database) => Some(Self {
                host: database.host.clone(),
                port: database.port,
                expected: Lives::MySql,
            }),
            SourceKind::LineProtocol { .. } | SourceKind::Given(_) => None,
        }
    }

    fn usual_port(&self) -> &'static str {
        match self.expected {
            Lives::Postgres => "5432 is the usual one of PostgreSQL",
            Lives::MySql => "3306 is the usual one of MySQL",
            _ => "8086 and 8181 are the usual ones of InfluxDB",
        }
    }
}

/// Why nothing comes of a conversation there; `None` where that lives there which is expected.
pub(super) fn knock(door: &Door) -> Option<String> {
    let Door { host, port, expected } = door;
    let found = match look(host, *port) {
        Ok(found) => found,
        Err(cause) => return Some(cause + &format!(" ({})", door.usual_port())),
    };
    match (expected, found) {
        _ if *expected == found => None,
        (_, Lives::Somebody) => None,
        (Lives::Http, Lives::Tls) => {
            Some(format!("the server speaks TLS on port {port}: write influxdb+https://"))
        }
        (Lives::Tls, Lives::Http) => Some(format!(
            "the server speaks HTTP without TLS on port {port}: write influxdb+http://"
        )),
        (_, Lives::Nobody) => Some(format!(
            "port {port} of {host} lets everybody in and hangs up: most often it is a tunnel or a proxy whose \
             other end is not there"
        )),
        _ => Some(format!(
            "{} answers on port {port} of {host}: check the port ({}) and the beginning of the URL",
            found.name(),
            door.usual_port()
        )),
    }
}

fn look(host: &str, port: u16) -> Result<Lives, String> {
    // Servers that speak first; then what each says to the others' first words.
    match say(host, port, &[], GREETING)? {
        Said::Nothing => {}
        Said::End => return Ok(Lives::Nobody),
        Said::Words(words) => return Ok(greeting(&words)),
    }
    if let Said::Words(words) = say(host, port, &SSL_REQUEST, WORD)? {
        match words.as_slice() {
            b"S" | b"N" => return Ok(Lives::Postgres),
            words => {
                if let Some(found) = answer(words) {
                    return Ok(found);
                }
            }
        }
    }
    match say(host, port, b"GET / HTTP/1.0\r\n\r\n", WORD)? {
        Said::Words(words) => Ok(answer(&words).unwrap_or(Lives::Somebody)),
        Said::Nothing | Said::End => Ok(Lives::Somebody),
    }
}

fn greeting(words: &[u8]) -> Lives {
    match words {
        // The length of a packet, its number, and the protocol's version or an error.
        [_, _, 0, 0, 10 | 255, ..] => Lives::MySql,
        words if words.starts_with(b"SSH-") => Lives::Ssh,
        words => answer(words).unwrap_or(Lives::Somebody),
    }
}

fn answer(words: &[u8]) -> Option<Lives> {
    let text = String::from_utf8_lossy(words);
    match words {
        // An alert, of which the second byte is the version.
        [0x15, 3, ..] => Some(Lives::Tls),
        _ if text.contains("MongoDB") => Some(Lives::MongoDb),
        // Go's servers and nginx say so in clear.
        _ if text.starts_with("HTTP/") && text.contains("HTTPS") => Some(Lives::Tls),
        _ if text.starts_with("HTTP/") => Some(Lives::Http),
        _ if text.starts_with("-ERR") || text.starts_with("-NOAUTH") => Some(Lives::Redis),
        _ => None,
    }
}

enum Said {
    Words(Vec<u8>),
    Nothing,
    End,
}

/// What a server says to these words within a time.
fn say(host: &str, port: u16, words: &[u8], patience: Duration) -> Result<Said, String> {
    let mut stream = enter(host, port)?;
    let set_up = stream.set_read_timeout(Some(patience)).and_then(|()| stream.write_all(words));
    if set_up.is_err() {
        return Ok(Said::End);
    }
    let mut said = vec![0; 1024];
    Ok(match stream.read(&mut said) {
        Ok(0) => Said::End,
        Ok(length) => {
            said.truncate(length);
            Said::Words(said)
        }
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            Said::Nothing
        }
        Err(_) => Said::End,
    })
}

fn enter(host: &str, port: u16) -> Result<TcpStream, String> {
    let addresses = (host, port)
        .to_socket_addrs()
        .map_err(|_| format!("no address is known for the host {host}: check its name"))?;
    let mut failed = None;
    for address in addresses {
        match TcpStream::connect_timeout(&address, CONNECT) {
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
