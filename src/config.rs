//! Configuration file, environment and flags become one validated `Job`. The only reader of secrets.

mod database;
mod file;
mod source;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use object_store::ObjectStore;
use serde::Deserialize;
use url::Url;

use self::file::{File, FileS3, SecretRef, file_of};
use self::source::{source_of_file, source_of_url};
use crate::error::{Error, Result};
use crate::source::Source;
use crate::window::{Bound, DAY, now, parse_duration};

/// Chunks in flight at most: each takes two threads and a part of the memory.
pub const MAX_CONCURRENCY: usize = 64;

/// Everything that a run needs to know.
#[derive(Debug)]
pub struct Job {
    /// What to leave.
    pub sources: Vec<SourceSpec>,
    /// Where to; `plan` can do without.
    pub archive: Option<Place>,
    /// Begin of the asked range.
    pub from: Bound,
    /// Its end.
    pub to: Bound,
    /// Both in the user's words.
    pub range: (String, String),
    /// Whether what earlier runs read whole is left as it is.
    pub keep: bool,
    /// How to work.
    pub limits: Limits,
    /// What the user should be told before the run.
    pub warnings: Vec<String>,
}

/// How much at once, and for how long.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Width of the first window of each table, in nanoseconds.
    pub window: i64,
    /// Chunks in flight.
    pub concurrency: usize,
    /// All buffers together, in bytes.
    pub memory_bytes: usize,
    /// Size from which on a chunk goes on in another file, in bytes.
    pub file_bytes: u64,
    /// After how long without a byte an answer counts as broken.
    pub idle_timeout: Duration,
    /// Attempts at a chunk that cannot be split, before the run gives up on it.
    pub attempts: u32,
    /// For how long a source or store that has worked may fail at everything before the run gives up.
    pub patience: Duration,
    /// Pause after a failure, doubled after each that follows it.
    pub first_pause: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            window: DAY,
            concurrency: 4,
            memory_bytes: 256 << 20,
            file_bytes: 512 << 20,
            idle_timeout: Duration::from_secs(60),
            attempts: 6,
            patience: Duration::from_secs(15 * 60),
            first_pause: Duration::from_millis(500),
        }
    }
}

/// One source as configured.
#[derive(Debug, Clone)]
pub struct SourceSpec {
    /// Its name in the archive.
    pub name: String,
    /// Whether the user gave that name. Otherwise it is the address, which may lead to another server
    /// tomorrow, and the same server may have another one.
    pub named: bool,
    /// What it is.
    pub kind: SourceKind,
    /// Which part of it.
    pub select: Select,
}

/// What a source is.
#[derive(Debug, Clone)]
pub enum SourceKind {
    /// An InfluxDB of any version.
    InfluxDb(InfluxDb),
    /// A PostgreSQL.
    Postgres(Database),
    /// A MySQL or MariaDB.
    MySql(Database),
    /// A line-protocol file.
    LineProtocol {
        /// Its path.
        file: PathBuf,
        /// Database of lines that name none.
        database: Option<String>,
        /// Retention policy of lines that name none.
        retention_policy: Option<String>,
        /// Nanoseconds in one unit of its timestamps.
        precision: i64,
    },
    /// A source that the caller of the library brings.
    Given(Arc<dyn Source>),
}

impl SourceKind {
    /// Whether both are one server, asked in one way.
    fn is_server_of(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::InfluxDb(one), Self::InfluxDb(other)) => one == other,
            (Self::Postgres(one), Self::Postgres(other))
            | (Self::MySql(one), Self::MySql(other)) => one == other,
            _ => false,
        }
    }
}

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
    /// The server's public key, for a password that is wanted itself without TLS (MySQL).
    pub server_key: Option<ServerKey>,
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

/// What reading costs, in the currency of the bill. The defaults are the list prices of the usage plan of
/// InfluxDB Cloud in US dollars.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prices {
    /// Of a query execution.
    pub per_query: f64,
    /// Of a gigabyte (10⁹ bytes) of answers.
    pub per_gigabyte: f64,
}

impl Default for Prices {
    fn default() -> Self {
        Self { per_query: 0.012 / 100.0, per_gigabyte: 0.09 }
    }
}

/// Which part of a source to export. Empty lists mean everything.
#[derive(Debug, Clone, Default)]
pub struct Select {
    /// Names of databases.
    pub databases: Vec<String>,
    /// Names of schemas or retention policies; `*` stands for any text.
    pub schemas: Vec<String>,
    /// Names of tables; `*` stands for any text.
    pub tables: Vec<String>,
    /// Tables to leave out: `TABLE`, `SCHEMA.TABLE` or `DATABASE.SCHEMA.TABLE`; `*` stands for any text.
    pub exclude: Vec<String>,
}

impl Select {
    /// Takes these databases as well; an empty list means all of them.
    fn add_databases(&mut self, more: Vec<String>) {
        match self.databases.is_empty() || more.is_empty() {
            true => self.databases.clear(),
            false => self.databases.extend(more),
        }
        let mut seen = std::collections::BTreeSet::new();
        self.databases.retain(|name| seen.insert(name.clone()));
    }

    /// Whether a table is to be left out.
    pub fn excludes(&self, database: &str, schema: &str, table: &str) -> bool {
        let names =
            [table.to_owned(), format!("{schema}.{table}"), format!("{database}.{schema}.{table}")];
        let excluded = |pattern: &String| names.iter().any(|name| matches(pattern, name));
        self.exclude.iter().any(excluded)
    }

    /// Whether a database is wanted. The server's own `_internal` only when it is named.
    pub fn takes_database(&self, name: &str) -> bool {
        match self.databases.is_empty() {
            true => name != "_internal",
            false => self.databases.iter().any(|wanted| wanted == name),
        }
    }

    /// Whether a schema or a retention policy is wanted.
    pub fn takes_schema(&self, name: &str) -> bool {
        matches_any(&self.schemas, name)
    }

    /// Whether a table is wanted.
    pub fn takes_table(&self, name: &str) -> bool {
        matches_any(&self.tables, name)
    }
}

fn matches_any(patterns: &[String], name: &str) -> bool {
    patterns.is_empty() || patterns.iter().any(|pattern| matches(pattern, name))
}

/// Whether a name fits a pattern, in which `*` stands for any text.
pub fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((start, rest)) => name.strip_prefix(start).is_some_and(|name| {
            (0..=name.len())
                .filter(|at| name.is_char_boundary(*at))
                .any(|at| matches(rest, &name[at..]))
        }),
    }
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

/// A secret that does not print.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The secret itself, for the wire alone.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// Where an archive lives.
#[derive(Debug, Clone, Default)]
pub struct Place {
    /// A path, or `s3://BUCKET/PREFIX`.
    pub url: String,
    /// How a bucket is reached.
    pub s3: S3Options,
    /// The store itself, where the caller of the library has one; the URL is then only its name.
    pub given: Option<Arc<dyn ObjectStore>>,
}

impl From<&str> for Place {
    fn from(url: &str) -> Self {
        Self { url: url.to_owned(), ..Self::default() }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

impl Place {
    /// Whether it is a bucket.
    pub fn is_bucket(&self) -> bool {
        self.given.is_none() && self.url.starts_with("s3://")
    }

    /// A store that the caller of the library has made, under a name for messages.
    pub fn given(name: &str, store: Arc<dyn ObjectStore>) -> Self {
        Self { url: name.to_owned(), given: Some(store), ..Self::default() }
    }
}

/// How a bucket is reached; what is `None` comes from the usual `AWS_*` variables, which the store's
/// library reads itself.
#[derive(Debug, Clone, Default)]
pub struct S3Options {
    /// The kind of service; told from the endpoint where it is `None`.
    pub preset: Option<Preset>,
    /// `https://HOST[:PORT]`, without the bucket.
    pub endpoint: Option<String>,
    /// As the service names it.
    pub region: Option<String>,
    /// Not a secret.
    pub access_key_id: Option<String>,
    /// The key itself.
    pub secret_access_key: Option<Secret>,
    /// Of temporary keys.
    pub session_token: Option<Secret>,
}

/// Services that speak S3's protocol, each with habits of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// Amazon's own.
    Aws,
    /// Cloudflare R2.
    R2,
    /// MinIO, and whatever else is like S3.
    Minio,
    /// Garage.
    Garage,
    /// Google Cloud Storage by its S3 form, with HMAC keys.
    Gcs,
    /// Alibaba Cloud OSS.
    Oss,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// What the command line gives; it wins over the file.
#[derive(Debug, Default)]
pub struct Flags {
    /// `--config`.
    pub config: Option<PathBuf>,
    /// `--source`, names or URLs.
    pub sources: Vec<String>,
    /// `--name`.
    pub name: Option<String>,
    /// `--archive`.
    pub archive: Option<String>,
    /// `--from`.
    pub from: Option<String>,
    /// `--to`.
    pub to: Option<String>,
    /// `--keep`.
    pub keep: bool,
    /// `--window`.
    pub window: Option<String>,
    /// `--concurrency`.
    pub concurrency: Option<usize>,
    /// `--memory`.
    pub memory: Option<String>,
}

/// Reads the file and the environment, puts the flags over them, and checks the whole.
pub fn load(flags: Flags) -> Result<Job> {
    let (file, folder) = file_of(flags.config.as_deref())?;
    let mut warnings = Vec::new();
    let mut sources = Vec::<SourceSpec>::new();
    if flags.sources.is_empty() {
        for source in &file.sources {
            sources.push(source_of_file(source, &folder)?);
        }
    }
    for wanted in &flags.sources {
        match file.sources.iter().find(|source| source.name == *wanted) {
            Some(source) => sources.push(source_of_file(source, &folder)?),
            None => {
                let source = source_of_url(wanted, None, Path::new(""), &mut warnings)?;
                let same = |there: &&mut SourceSpec| {
                    !there.named
                        && there.name == source.name
                        && there.kind.is_server_of(&source.kind)
                };
                match sources.iter_mut().find(same) {
                    Some(there) => there.select.add_databases(source.select.databases),
                    None => sources.push(source),
                }
            }
        }
    }
    warnings.dedup();
    if sources.is_empty() {
        return Err(Error::usage("there is no source")
            .hint("give --source URL (influxdb+https://HOST/DATABASE, lp:FILE) or --config FILE"));
    }
    match (&flags.name, sources.as_mut_slice()) {
        (None, _) => {}
        (Some(name), [only]) if !flags.sources.is_empty() && !name.is_empty() => {
            (only.name, only.named) = (name.clone(), true);
        }
        (Some(_), _) => {
            return Err(Error::usage("`--name` names the source of one `--source`")
                .hint("several sources are named in the configuration"));
        }
    }
    let mut names: Vec<&str> = sources.iter().map(|source| source.name.as_str()).collect();
    names.sort_unstable();
    if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(Error::usage(format!("two sources have the name `{}`", pair[0]))
            .hint("name them apart in the configuration"));
    }

    let now = now();
    let from = flags.from.clone().or(file.from.clone()).unwrap_or_else(|| "min".to_owned());
    let to = flags.to.clone().or(file.to.clone()).unwrap_or_else(|| "max".to_owned());
    let bounds = (
        Bound::parse(&from, now).map_err(|e| e.context("--from"))?,
        Bound::parse(&to, now).map_err(|e| e.context("--to"))?,
    );
    match bounds {
        (Bound::Max, _) | (_, Bound::Min) => {
            return Err(Error::usage("`max` can only be an end, `min` only a begin"));
        }
        (Bound::At(begin), Bound::At(end)) if begin >= end => {
            return Err(Error::usage(format!("the range from {from} to {to} is empty")));
        }
        _ => {}
    }
    let archive = flags.archive.clone().or_else(|| {
        // A path in the file is meant from where the file is.
        file.archive.as_ref().map(|archive| match archive.contains("://") {
            true => archive.clone(),
            false => folder.join(archive).display().to_string(),
        })
    });
    let archive = archive.map(|url| place_of(&url, &file.s3, &folder)).transpose()?;
    let limits = limits(&flags, &file)?;
    if !(1..=MAX_CONCURRENCY).contains(&limits.concurrency) {
        return Err(Error::usage(format!("`concurrency` must be between 1 and {MAX_CONCURRENCY}")));
    }
    if limits.memory_bytes < 32 << 20 {
        return Err(Error::usage("`memory` must be at least 32MiB"));
    }
    if limits.memory_bytes / limits.concurrency < 2 << 20 {
        return Err(Error::usage("`memory` must be at least 2MiB for each of `concurrency`"));
    }
    // The least that S3 takes for a part is 5 MiB, of which a chunk holds three, besides a row group.
    if archive.as_ref().is_some_and(Place::is_bucket)
        && limits.memory_bytes / limits.concurrency < 24 << 20
    {
        return Err(Error::usage(
            "`memory` must be at least 24MiB for each of `concurrency` where the archive is a bucket",
        ));
    }
    if limits.attempts == 0 {
        return Err(Error::usage("`attempts` must be at least 1"));
    }
    Ok(Job {
        sources,
        archive,
        from: bounds.0,
        to: bounds.1,
        range: (from, to),
        keep: flags.keep,
        limits,
        warnings,
    })
}

fn limits(flags: &Flags, file: &File) -> Result<Limits> {
    let usual = Limits::default();
    let time = |key, text: &Option<String>, usual: Duration| -> Result<Duration> {
        let nanos = duration(key, text.clone(), usual.as_nanos() as i64)?;
        Ok(Duration::from_nanos(nanos.unsigned_abs()))
    };
    let memory = flags.memory.clone().or_else(|| file.memory.clone());
    Ok(Limits {
        window: duration(
            "window",
            flags.window.clone().or_else(|| file.window.clone()),
            usual.window,
        )?,
        concurrency: flags.concurrency.or(file.concurrency).unwrap_or(usual.concurrency),
        memory_bytes: size("memory", memory, usual.memory_bytes as u64)? as usize,
        file_bytes: size("file_size", file.file_size.clone(), usual.file_bytes)?,
        idle_timeout: time("idle_timeout", &file.idle_timeout, usual.idle_timeout)?,
        attempts: file.attempts.unwrap_or(usual.attempts),
        patience: time("patience", &file.patience, usual.patience)?,
        first_pause: usual.first_pause,
    })
}

/// Where an archive is that a verb names; a configuration may say how its bucket is reached.
pub fn place(archive: &str, config: Option<&Path>) -> Result<Place> {
    let (file, folder) = file_of(config)?;
    place_of(archive, &file.s3, &folder)
}

fn place_of(url: &str, s3: &FileS3, folder: &Path) -> Result<Place> {
    let secret = |secret: &Option<SecretRef>, key| {
        secret.as_ref().map(|secret| secret.read(folder, key)).transpose()
    };
    let place = Place {
        url: url.to_owned(),
        s3: S3Options {
            preset: s3.preset,
            endpoint: s3.endpoint.clone(),
            region: s3.region.clone(),
            access_key_id: s3.access_key_id.clone(),
            secret_access_key: secret(&s3.secret_access_key, "secret_access_key")?,
            session_token: secret(&s3.session_token, "session_token")?,
        },
        given: None,
    };
    match (&place.s3.access_key_id, &place.s3.secret_access_key) {
        (Some(_), None) | (None, Some(_)) => {
            Err(Error::usage("`access_key_id` and `secret_access_key` belong together"))
        }
        _ => Ok(place),
    }
}

fn duration(key: &str, text: Option<String>, default: i64) -> Result<i64> {
    let Some(text) = text else { return Ok(default) };
    parse_duration(&text).ok_or_else(|| {
        Error::usage(format!("`{key}`: `{text}` is not a length of time"))
            .hint("write 1d, 12h, 30m, 10s or 500ms")
    })
}

/// The size that `--memory` says, in bytes.
pub fn memory(text: &str) -> Result<usize> {
    size("memory", Some(text.to_owned()), 0).map(|bytes| bytes as usize)
}

fn size(key: &str, text: Option<String>, default: u64) -> Result<u64> {
    let Some(text) = text else { return Ok(default) };
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let unit: Option<u64> = match text[digits..].trim() {
        "" | "B" => Some(1),
        "KiB" => Some(1 << 10),
        "MiB" => Some(1 << 20),
        "GiB" => Some(1 << 30),
        "kB" | "KB" => Some(1_000),
        "MB" => Some(1_000_000),
        "GB" => Some(1_000_000_000),
        _ => None,
    };
    let bytes = unit.and_then(|unit| text[..digits].parse::<u64>().ok()?.checked_mul(unit));
    bytes.filter(|bytes| *bytes > 0).ok_or_else(|| {
        Error::usage(format!("`{key}`: `{text}` is not a size")).hint("write 256MiB or 1GiB")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(flags: Flags) -> Result<Job> {
        load(flags)
    }

    fn of(source: &str) -> Result<Job> {
        job(Flags { sources: vec![source.to_owned()], ..Flags::default() })
    }

    #[test]
    fn a_url_names_server_and_database() {
        let job = of("influxdb+http://localhost:8086/my%2Fdb").unwrap();
        assert_eq!(job.sources[0].name, "localhost:8086");
        assert_eq!(job.sources[0].select.databases, ["my/db"]);
    }

    #[test]
    fn urls_that_differ_in_the_database_alone_are_one_source() {
        let of = |sources: &[&str]| {
            let sources = sources.iter().map(|source| (*source).to_owned()).collect();
            job(Flags { sources, ..Flags::default() })
        };
        for scheme in ["postgres://me@h:1", "mysql://h", "influxdb+http://h:8086"] {
            let url = |database: &str| format!("{scheme}/{database}");
            let job = of(&[&url("a"), &url("b"), &url("a")]).unwrap();
            assert_eq!(job.sources.len(), 1, "{scheme}");
            assert_eq!(job.sources[0].select.databases, ["a", "b"], "{scheme}");
            let job = of(&[&url("a"), &url(""), &url("b")]).unwrap();
            assert!(job.sources[0].select.databases.is_empty(), "{scheme}: all of them");
        }
        assert_eq!(of(&["mysql://h/a", "mysql://i/a"]).unwrap().sources.len(), 2);
        // Who asks sees another part of it.
        assert!(of(&["mysql://me@h/a", "mysql://you@h/b"]).is_err());
        assert!(of(&["lp:x", "lp:x"]).is_err());
    }

    #[test]
    fn one_source_can_be_named() {
        let of = |sources: &[&str], name: &str| {
            let sources = sources.iter().map(|source| (*source).to_owned()).collect();
            job(Flags { sources, name: Some(name.to_owned()), ..Flags::default() })
        };
        let job = of(&["mysql://h/a", "mysql://h/b"], "shop").unwrap();
        assert!(job.sources[0].name == "shop" && job.sources[0].named);
        assert!(of(&["mysql://h/a", "mysql://i/a"], "shop").is_err());
        assert!(of(&["mysql://h/a"], "").is_err());
        assert!(of(&[], "shop").is_err());
    }

    #[test]
    fn a_password_never_prints() {
        let job = of("influxdb+http://me:geheim@localhost/db").unwrap();
        assert!(!format!("{job:?}").contains("geheim"));
        assert_eq!(job.warnings.len(), 1);
        for nonsense in [
            "influxdb9+http://me:geheim@h/db",
            "influxdb+ftp://me:geheim@h",
            "x://me:geheim@h",
            "me:geheim@h",
            "influxdb+http//me:geheim@h",
        ] {
            let error = of(nonsense).unwrap_err();
            assert!(!error.to_string().contains("geheim"), "{error}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let range = |from: &str, to: &str| {
            job(Flags {
                sources: vec!["lp:x".into()],
                from: Some(from.into()),
                to: Some(to.into()),
                ..Flags::default()
            })
        };
        assert!(range("2024-01-02", "2024-01-01").is_err());
        assert!(range("max", "min").is_err());
        assert!(range("min", "max").is_ok());
        assert!(job(Flags::default()).is_err());
        for size_text in ["", "MiB", "12XB", "-1", "99999999999999999999", "0"] {
            assert!(size("memory", Some(size_text.into()), 1).is_err(), "{size_text}");
        }
    }

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, name, expected) in [
            ("cpu", "cpu", true),
            ("cpu", "cpu2", false),
            ("c*u*", "cpu_load", true),
            ("*", "", true),
            ("*é", "aé", true),
            ("a*b", "ab", true),
            ("a*b", "ba", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
