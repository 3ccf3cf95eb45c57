//! How a server is reached, and what it asks of those who come.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use url::Url;

use crate::model::Prices;
use crate::source::tunnel::Tunnel;

/// A relational database as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Database {
    /// Name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Who asks.
    pub user: String,
    /// How to be let in; some servers ask for none.
    pub password: Option<Secret>,
    /// How the connection is protected.
    pub tls: Tls,
    /// The column of time by tables: `SCHEMA.TABLE` or a pattern, to the column's name.
    pub time_columns: BTreeMap<String, String>,
    /// Keep all writers out while the snapshots are taken (MySQL, MariaDB).
    pub lock: bool,
    /// Whether a native dump is taken besides the rows.
    pub dump: bool,
    /// The server's public key, for a password that is wanted itself without TLS (MySQL).
    pub server_key: Option<ServerKey>,
    /// What leads there, where the address alone does not.
    pub tunnel: Option<Arc<Tunnel>>,
}

/// Where the public RSA key of a MySQL comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerKey {
    /// A file, in PEM.
    File(PathBuf),
    /// The server itself, in clear: whoever stands in its place could send his own.
    Fetch,
}

/// How a connection is protected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// As the servers' own clients call it.
    pub mode: TlsMode,
    /// File of the authorities to trust, in PEM; the system's where there is none.
    pub ca: Option<PathBuf>,
    /// What the client proves who it is with, where the server asks for that.
    pub client: Option<ClientCertificate>,
    /// Whether the password is tied to the connection's certificate.
    pub binding: Binding,
}

/// Files of a client's certificate, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The certificate, followed by those of its authorities, if the server needs them.
    pub certificate: PathBuf,
    /// Its private key, without a password.
    pub key: PathBuf,
}

/// What is asked of a login, as libpq's `channel_binding` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binding {
    /// Never.
    Disable,
    /// Where the server offers it.
    Prefer,
    /// Else no login.
    Require,
}

/// What is asked of a connection, as libpq's `sslmode` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsMode {
    /// No TLS.
    Disable,
    /// TLS if the server has it; nobody is verified.
    Prefer,
    /// TLS; nobody is verified.
    Require,
    /// TLS, and a certificate by an authority that is trusted.
    VerifyCa,
    /// That, and the certificate is the host's.
    VerifyFull,
}

/// A server of which a native dump is taken and no rows: Redis, MongoDB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DumpServer {
    /// Name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Who asks; some servers know no users.
    pub user: Option<String>,
    /// How to be let in.
    pub password: Option<Secret>,
    /// How the connection is protected; `None` without TLS.
    pub tls: Option<DumpTls>,
    /// The database to dump; `None` for all of them.
    pub database: Option<String>,
    /// Further parameters of a connection string (MongoDB).
    pub options: Vec<(String, String)>,
    /// The tunnel to it, if it has one.
    pub tunnel: Option<Arc<Tunnel>>,
}

/// TLS of a program that takes a dump.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DumpTls {
    /// Whether the server must prove who it is.
    pub verify: bool,
    /// File of the authorities to trust, in PEM; the system's where there is none.
    pub ca: Option<PathBuf>,
    /// What the client proves who it is with, where the server asks for that.
    pub client: Option<ClientCertificate>,
    /// The name that the server has in its certificate, where it is not the host.
    pub name: Option<String>,
}

/// A program whose output is the dump.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DumpProgram {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// The very end of its output, trailing white space aside.
    pub ends_with: String,
}

/// An InfluxDB as configured.
#[derive(Debug, Clone, PartialEq)]
pub struct InfluxDb {
    /// Scheme, host and port.
    pub base: Url,
    /// How to be let in.
    pub credentials: Credentials,
    /// Which one it is, where the user says so.
    pub version: Option<Version>,
    /// How much may be read in a window of time.
    pub quota: QuotaChoice,
    /// What reading costs.
    pub prices: Prices,
    /// Whether the server must prove who it is, where it has TLS.
    pub verify: bool,
    /// What leads there, where the address alone does not.
    pub tunnel: Option<Arc<Tunnel>>,
}

/// A major version of InfluxDB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// 1.x.
    One,
    /// 2.x, and Cloud TSM.
    Two,
    /// 3: Core, Enterprise, Cloud Serverless, Dedicated, Clustered.
    Three,
}

/// Where a quota comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuotaChoice {
    /// The server's own limits.
    Ask,
    /// The user's word.
    Bytes {
        /// Bytes of answers in a window.
        bytes: u64,
        /// Its length, where it is not the plan's.
        window: Option<Duration>,
    },
    /// There is none.
    None,
}

/// How to be let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credentials {
    /// Without.
    None,
    /// HTTP Basic.
    Password {
        /// User.
        user: String,
        /// Password.
        password: Secret,
    },
    /// A token.
    Token(Secret),
}

/// Databases on Aptible: one, all of an environment, or all of all environments.
#[derive(Debug, Clone, Default)]
pub struct AptibleAddress {
    /// The environment; `None` for all of them.
    pub environment: Option<String>,
    /// The database; `None` for all of the environment.
    pub handle: Option<String>,
    /// Column of time by table, for PostgreSQL and MySQL.
    pub time_columns: BTreeMap<String, String>,
    /// Keep all writers out while the snapshots are taken (MySQL).
    pub lock: bool,
    /// Whether a native dump is taken besides the rows (PostgreSQL, MySQL).
    pub dump: bool,
    /// For an InfluxDB 2.x, which may not take the password.
    pub influx_token: Option<Secret>,
}

/// A secret that does not print.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub(super) String);

impl Secret {
    /// A secret that a program has said.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The secret itself, for the wire alone.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A URL as it may be shown, also one that is none because it was mistyped.
pub(super) fn without_password(text: &str) -> String {
    let Some(at) = text.rfind('@') else { return text.to_owned() };
    let from = text.find("://").map(|scheme| scheme + 3).filter(|from| *from <= at).unwrap_or(0);
    format!("{}***{}", &text[..from], &text[at..])
}
