//! How a server is reached, and which credentials it gets.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use url::Url;

use crate::error::{Error, Result};
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
    /// The name of the time column by table, which is `SCHEMA.TABLE` or a pattern.
    pub time_columns: BTreeMap<String, String>,
    /// Whether all writers are locked out while the snapshots are taken (MySQL, MariaDB).
    pub lock: bool,
    /// Whether a native dump is taken besides the rows.
    pub dump: bool,
    /// The server's public key, which encrypts the password where there is no TLS (MySQL).
    pub server_key: Option<ServerKey>,
    /// What leads there, where the address alone does not.
    pub tunnel: Option<Arc<Tunnel>>,
}

/// Where the public RSA key of a MySQL server comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerKey {
    /// A file, in PEM.
    File(PathBuf),
    /// The server itself, unencrypted: an impostor could send a key of its own.
    Fetch,
}

/// How a connection is protected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// The mode, as the clients of the servers name it.
    pub mode: TlsMode,
    /// File of the authorities to trust, in PEM; the system's where there is none.
    pub ca: Option<PathBuf>,
    /// What the client proves who it is with, where the server asks for that.
    pub client: Option<ClientCertificate>,
    /// Whether the login is bound to the certificate of the connection.
    pub binding: Binding,
}

/// Files of a client's certificate, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The certificate, followed by the certificates of its authorities if the server needs them.
    pub certificate: PathBuf,
    /// Its private key, without a password.
    pub key: PathBuf,
}

/// What a login requires, as in libpq's `channel_binding`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binding {
    /// The login is never bound to the certificate.
    Disable,
    /// The login is bound where the server offers it.
    Prefer,
    /// There is no login without it.
    Require,
}

/// What a connection requires, as in libpq's `sslmode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsMode {
    /// No TLS.
    Disable,
    /// TLS if the server offers it; its certificate is not verified.
    Prefer,
    /// TLS; the certificate of the server is not verified.
    Require,
    /// TLS with a certificate from a trusted authority.
    VerifyCa,
    /// TLS with a certificate from a trusted authority for the name of the host.
    VerifyFull,
}

/// A server that is exported only as a native dump: Redis or MongoDB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DumpServer {
    /// Name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// The user; some servers have no users.
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

/// The TLS settings of a program that takes a dump.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DumpTls {
    /// Whether the certificate of the server is verified.
    pub verify: bool,
    /// File of the authorities to trust, in PEM; the system's where there is none.
    pub ca: Option<PathBuf>,
    /// What the client proves who it is with, where the server asks for that.
    pub client: Option<ClientCertificate>,
    /// The name in the certificate of the server, where it is not the host.
    pub name: Option<String>,
}

/// A program whose output is the dump.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DumpProgram {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// The text that its output ends with, apart from trailing white space.
    pub ends_with: String,
}

/// An InfluxDB as configured.
#[derive(Debug, Clone, PartialEq)]
pub struct InfluxDb {
    /// Scheme, host and port.
    pub base: Url,
    /// How to be let in.
    pub credentials: Credentials,
    /// The version, if the user names it.
    pub version: Option<Version>,
    /// How much may be read within a period.
    pub quota: QuotaChoice,
    /// The prices of reading.
    pub prices: Prices,
    /// Whether the certificate of the server is verified where there is TLS.
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
    /// The limits that the server reports.
    Ask,
    /// The limit that the user gives.
    Bytes {
        /// Bytes of answers within a period.
        bytes: u64,
        /// The length of the period, where it is not that of the plan.
        window: Option<Duration>,
    },
    /// There is no quota.
    None,
}

/// How to be let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credentials {
    /// No credentials.
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
    /// The name of the time column by table, for PostgreSQL and MySQL.
    pub time_columns: BTreeMap<String, String>,
    /// Whether all writers are locked out while the snapshots are taken (MySQL).
    pub lock: bool,
    /// Whether a native dump is taken besides the rows (PostgreSQL, MySQL).
    pub dump: bool,
    /// A token for an InfluxDB 2.x, which may refuse the password.
    pub influx_token: Option<Secret>,
}

/// A secret that does not print.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub(super) String);

impl Secret {
    /// Wraps a secret.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The secret itself, which is only for the wire.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A URL as it may be shown, even if it was mistyped and cannot be parsed.
pub(super) fn without_password(text: &str) -> String {
    let Some(at) = text.rfind('@') else { return text.to_owned() };
    let from = text.find("://").map(|scheme| scheme + 3).filter(|from| *from <= at).unwrap_or(0);
    format!("{}***{}", &text[..from], &text[at..])
}

/// The text of a percent-encoded part of a URL.
pub(super) fn decoded(text: &str, bad: &dyn Fn(&str) -> Error) -> Result<String> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded.map(String::from).map_err(|_| bad("a name in it is not UTF-8"))
}
