//! Configuration file, environment and flags become one validated `Job`. The only reader of secrets.

use std::env;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde::de::IgnoredAny;
use url::Url;

use crate::error::{Error, Result};
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
}

/// One source as configured.
#[derive(Debug, Clone)]
pub struct SourceSpec {
    /// Its name in the archive.
    pub name: String,
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
}

/// An InfluxDB as configured.
#[derive(Debug, Clone)]
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
    /// Names of retention policies; `*` stands for any text.
    pub retention_policies: Vec<String>,
    /// Names of tables; `*` stands for any text.
    pub tables: Vec<String>,
}

impl Select {
    /// Whether a database is wanted. The server's own `_internal` only when it is named.
    pub fn takes_database(&self, name: &str) -> bool {
        match self.databases.is_empty() {
            true => name != "_internal",
            false => self.databases.iter().any(|wanted| wanted == name),
        }
    }

    /// Whether a retention policy is wanted.
    pub fn takes_policy(&self, name: &str) -> bool {
        matches_any(&self.retention_policies, name)
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
#[derive(Debug, Clone)]
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
#[derive(Clone)]
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
}

impl From<&str> for Place {
    fn from(url: &str) -> Self {
        Self { url: url.to_owned(), s3: S3Options::default() }
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
        self.url.starts_with("s3://")
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
    /// `--archive`.
    pub archive: Option<String>,
    /// `--from`.
    pub from: Option<String>,
    /// `--to`.
    pub to: Option<String>,
    /// `--window`.
    pub window: Option<String>,
    /// `--concurrency`.
    pub concurrency: Option<usize>,
    /// `--memory`.
    pub memory: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    archive: Option<String>,
    #[serde(default)]
    s3: FileS3,
    from: Option<String>,
    to: Option<String>,
    window: Option<String>,
    concurrency: Option<usize>,
    memory: Option<String>,
    file_size: Option<String>,
    idle_timeout: Option<String>,
    attempts: Option<u32>,
    #[serde(default, rename = "source")]
    sources: Vec<FileSource>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileS3 {
    preset: Option<Preset>,
    endpoint: Option<String>,
    region: Option<String>,
    access_key_id: Option<String>,
    secret_access_key: Option<SecretRef>,
    session_token: Option<SecretRef>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileSource {
    name: String,
    url: String,
    username: Option<String>,
    password: Option<SecretRef>,
    token: Option<SecretRef>,
    #[serde(default)]
    databases: Vec<String>,
    #[serde(default)]
    retention_policies: Vec<String>,
    #[serde(default)]
    tables: Vec<String>,
    precision: Option<String>,
    quota: Option<String>,
    quota_window: Option<String>,
    price_per_query: Option<f64>,
    price_per_gigabyte: Option<f64>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum SecretRef {
    Of(SecretPlace),
    /// Most likely the secret itself, which no error may show.
    Other(IgnoredAny),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SecretPlace {
    env: Option<String>,
    file: Option<PathBuf>,
}

impl SecretRef {
    fn read(&self, folder: &Path, key: &str) -> Result<Secret> {
        let secret = match self {
            Self::Of(SecretPlace { env: Some(name), file: None }) => env::var(name)
                .map_err(|_| Error::usage(format!("`{key}`: the variable {name} is not set")))?,
            Self::Of(SecretPlace { env: None, file: Some(file) }) => {
                let path = folder.join(file);
                std::fs::read_to_string(&path).map_err(|e| {
                    Error::usage(format!("`{key}`: reading {}: {e}", path.display()))
                })?
            }
            _ => {
                return Err(Error::usage(format!(
                    "`{key}` must be {{ env = \"NAME\" }} or {{ file = \"PATH\" }}"
                )));
            }
        };
        match secret.trim() {
            "" => Err(Error::usage(format!("`{key}` is empty"))),
            secret => Ok(Secret(secret.to_owned())),
        }
    }
}

/// Reads the file and the environment, puts the flags over them, and checks the whole.
pub fn load(flags: Flags) -> Result<Job> {
    let (file, folder) = file_of(flags.config.as_deref())?;
    let mut warnings = Vec::new();
    let mut sources = Vec::new();
    if flags.sources.is_empty() {
        for source in &file.sources {
            sources.push(source_of_file(source, &folder)?);
        }
    }
    for wanted in &flags.sources {
        match file.sources.iter().find(|source| source.name == *wanted) {
            Some(source) => sources.push(source_of_file(source, &folder)?),
            None => sources.push(source_of_url(wanted, None, Path::new(""), &mut warnings)?),
        }
    }
    if sources.is_empty() {
        return Err(Error::usage("there is no source")
            .hint("give --source URL (influxdb+https://HOST/DATABASE, lp:FILE) or --config FILE"));
    }
    let mut names: Vec<&str> = sources.iter().map(|source| source.name.as_str()).collect();
    names.sort_unstable();
    if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(Error::usage(format!("two sources have the name `{}`", pair[0]))
            .hint("name them apart in the configuration"));
    }

    let now = now();
    let from = flags.from.or(file.from).unwrap_or_else(|| "min".to_owned());
    let to = flags.to.or(file.to).unwrap_or_else(|| "max".to_owned());
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
    let archive = flags.archive.or_else(|| {
        // A path in the file is meant from where the file is.
        file.archive.map(|archive| match archive.contains("://") {
            true => archive,
            false => folder.join(archive).display().to_string(),
        })
    });
    let archive = archive.map(|url| place_of(&url, &file.s3, &folder)).transpose()?;
    let limits = Limits {
        window: duration("window", flags.window.or(file.window), DAY)?,
        concurrency: flags.concurrency.or(file.concurrency).unwrap_or(4),
        memory_bytes: size("memory", flags.memory.or(file.memory), 256 << 20)? as usize,
        file_bytes: size("file_size", file.file_size, 512 << 20)?,
        idle_timeout: Duration::from_nanos(
            duration("idle_timeout", file.idle_timeout, 60_000_000_000)?.unsigned_abs(),
        ),
        attempts: file.attempts.unwrap_or(6),
    };
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
    Ok(Job { sources, archive, from: bounds.0, to: bounds.1, range: (from, to), limits, warnings })
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
    };
    match (&place.s3.access_key_id, &place.s3.secret_access_key) {
        (Some(_), None) | (None, Some(_)) => {
            Err(Error::usage("`access_key_id` and `secret_access_key` belong together"))
        }
        _ => Ok(place),
    }
}

fn file_of(config: Option<&Path>) -> Result<(File, PathBuf)> {
    match config {
        None => Ok((File::default(), PathBuf::new())),
        Some(path) => {
            Ok((read_file(path)?, path.parent().map(Path::to_path_buf).unwrap_or_default()))
        }
    }
}

fn read_file(path: &Path) -> Result<File> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Error::usage(format!("reading {}: {error}", path.display())))?;
    // The line itself is not shown, but for its key: there may be a secret in it.
    toml::from_str(&text).map_err(|error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let key = before.rsplit('\n').next().and_then(|line| line.split_once('='));
        let key = key.map(|(key, _)| format!("`{}`: ", key.trim())).unwrap_or_default();
        Error::usage(format!("{}, line {line}: {key}{}", path.display(), error.message()))
    })
}

fn source_of_file(source: &FileSource, folder: &Path) -> Result<SourceSpec> {
    // The process list does not show a file, so a password in a URL there needs no warning.
    source_of_url(&source.url, Some(source), folder, &mut Vec::new())
        .map_err(|error| error.context(format!("source `{}`", source.name)))
}

fn source_of_url(
    text: &str,
    file: Option<&FileSource>,
    folder: &Path,
    warnings: &mut Vec<String>,
) -> Result<SourceSpec> {
    let mut select = Select::default();
    if let Some(file) = file {
        select.databases = file.databases.clone();
        select.retention_policies = file.retention_policies.clone();
        select.tables = file.tables.clone();
        if file.name.is_empty() {
            return Err(Error::usage("a source needs a name"));
        }
    }
    let (name, kind) = match text.strip_prefix("lp:") {
        Some(path) if !path.is_empty() => line_protocol(path, file, folder, &select)?,
        Some(_) => return Err(Error::usage("`lp:` needs the path of a file")),
        None => influxdb(text, file, folder, &mut select, warnings)?,
    };
    if file.is_some_and(|f| f.precision.is_some())
        && !matches!(kind, SourceKind::LineProtocol { .. })
    {
        return Err(Error::usage("`precision` is for line-protocol files"));
    }
    Ok(SourceSpec { name: file.map(|file| file.name.clone()).unwrap_or(name), kind, select })
}

fn line_protocol(
    path: &str,
    file: Option<&FileSource>,
    folder: &Path,
    select: &Select,
) -> Result<(String, SourceKind)> {
    let precision = match file.and_then(|file| file.precision.as_deref()).unwrap_or("ns") {
        "ns" => 1,
        "us" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        other => {
            return Err(Error::usage(format!("`precision` is ns, us, ms or s, not `{other}`")));
        }
    };
    let path = folder.join(path);
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
    let kind = SourceKind::LineProtocol {
        file: path,
        database: match select.databases.as_slice() {
            [only] => Some(only.clone()),
            _ => None,
        },
        retention_policy: match select.retention_policies.as_slice() {
            [only] if !only.contains('*') => Some(only.clone()),
            _ => None,
        },
        precision,
    };
    Ok((name.unwrap_or_else(|| "lines".to_owned()), kind))
}

fn influxdb(
    text: &str,
    file: Option<&FileSource>,
    folder: &Path,
    select: &mut Select,
    warnings: &mut Vec<String>,
) -> Result<(String, SourceKind)> {
    let bad = |why: &str| {
        Error::usage(format!("`{}` is not a source: {why}", without_password(text))).hint(
            "a source is influxdb+https://HOST[:PORT]/DATABASE, lp:FILE, or a name from the configuration",
        )
    };
    let (product, address) = text.split_once('+').ok_or_else(|| match text.split_once("://") {
        Some((scheme, _)) => bad(&format!("this version cannot read `{scheme}://`")),
        None => bad("there is no such name in the configuration, and it is no URL"),
    })?;
    let version = match product {
        "influxdb" => None,
        "influxdb1" => Some(Version::One),
        "influxdb2" => Some(Version::Two),
        "influxdb3" => Some(Version::Three),
        _ => return Err(bad("unknown scheme")),
    };
    let mut url = Url::parse(address).map_err(|error| bad(&error.to_string()))?;
    // A URL without a host, or without its slashes, is read as another one.
    let rest = address.get(url.scheme().len()..).and_then(|rest| rest.strip_prefix("://"));
    let has_host = url.host_str().is_some() && rest.is_some_and(|r| !r.starts_with(['/', '\\']));
    if !matches!(url.scheme(), "http" | "https") || !has_host {
        return Err(bad("it needs +https://HOST or +http://HOST"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(bad("there is something after the database"));
    }
    let decoded = |text: &str| {
        let bytes = percent_decode(text);
        String::from_utf8(bytes).map_err(|_| bad("a name in it is not UTF-8"))
    };
    let database = decoded(url.path().trim_start_matches('/'))?;
    if !database.is_empty() {
        if !select.databases.is_empty() {
            return Err(bad("the database is in the URL and in `databases`"));
        }
        select.databases.push(database);
    }
    let user = decoded(url.username())?;
    let password = url.password().map(decoded).transpose()?;
    // Neither can fail for a URL that has a host.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_path("/");
    let credentials = match (user.is_empty(), password) {
        (false, Some(password)) => {
            warnings.push(
                "the password in the URL can be seen in the process list; INFLUX_PASSWORD cannot"
                    .to_owned(),
            );
            Credentials::Password { user, password: Secret(password) }
        }
        (false, None) => named_credentials(file, folder, Some(user))?,
        (true, _) => named_credentials(file, folder, None)?,
    };
    let host = url.host_str().unwrap_or_default();
    let name = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    let (quota, prices) = quota_and_prices(file)?;
    let influxdb = InfluxDb { base: url, credentials, version, quota, prices };
    Ok((name, SourceKind::InfluxDb(influxdb)))
}

fn quota_and_prices(file: Option<&FileSource>) -> Result<(QuotaChoice, Prices)> {
    let Some(file) = file else { return Ok((QuotaChoice::Ask, Prices::default())) };
    let window = file.quota_window.clone().map(|text| duration("quota_window", Some(text), 0));
    let window = window.transpose()?.map(|nanos| Duration::from_nanos(nanos.unsigned_abs()));
    let quota = match file.quota.as_deref() {
        None if window.is_some() => {
            return Err(Error::usage("`quota_window` without `quota`"));
        }
        None => QuotaChoice::Ask,
        Some("none") => QuotaChoice::None,
        Some(_) => {
            let bytes = size("quota", file.quota.clone(), 0)?;
            if bytes < 100_000 {
                return Err(Error::usage("`quota` must be at least 100KB, or \"none\""));
            }
            QuotaChoice::Bytes { bytes, window }
        }
    };
    let prices = Prices {
        per_query: file.price_per_query.unwrap_or(Prices::default().per_query),
        per_gigabyte: file.price_per_gigabyte.unwrap_or(Prices::default().per_gigabyte),
    };
    if !(prices.per_query >= 0.0 && prices.per_gigabyte >= 0.0) {
        return Err(Error::usage("a price cannot be negative"));
    }
    Ok((quota, prices))
}

// What the file names wins over the usual variables.
fn named_credentials(
    file: Option<&FileSource>,
    folder: &Path,
    user: Option<String>,
) -> Result<Credentials> {
    let var = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
    if let Some(file) = file {
        if let Some(token) = &file.token {
            return Ok(Credentials::Token(token.read(folder, "token")?));
        }
        if let Some(password) = &file.password {
            let user = file.username.clone().or(user).or_else(|| var("INFLUX_USERNAME"));
            let user = user.ok_or_else(|| Error::usage("`password` without `username`"))?;
            let password = password.read(folder, "password")?;
            return Ok(Credentials::Password { user, password });
        }
    }
    let user =
        file.and_then(|file| file.username.clone()).or(user).or_else(|| var("INFLUX_USERNAME"));
    Ok(match (var("INFLUX_TOKEN"), user, var("INFLUX_PASSWORD")) {
        (_, Some(user), Some(password)) => {
            Credentials::Password { user, password: Secret(password) }
        }
        (Some(token), _, _) => Credentials::Token(Secret(token)),
        (None, Some(_), None) => {
            // The user is not shown: in a URL a token may stand in its place.
            return Err(Error::usage("there is a user but no password")
                .hint("set INFLUX_PASSWORD; a token belongs in INFLUX_TOKEN, not into the URL"));
        }
        (None, None, _) => Credentials::None,
    })
}

fn percent_decode(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escape = text.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        match escape.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                decoded.push(byte);
                at += 3;
            }
            None => {
                decoded.push(bytes[at]);
                at += 1;
            }
        }
    }
    decoded
}

/// A URL as it may be shown, also one that is none because it was mistyped.
fn without_password(text: &str) -> String {
    let Some(at) = text.rfind('@') else { return text.to_owned() };
    let from = text.find("://").map(|scheme| scheme + 3).filter(|from| *from <= at).unwrap_or(0);
    format!("{}***{}", &text[..from], &text[at..])
}

fn duration(key: &str, text: Option<String>, default: i64) -> Result<i64> {
    let Some(text) = text else { return Ok(default) };
    parse_duration(&text).ok_or_else(|| {
        Error::usage(format!("`{key}`: `{text}` is not a length of time"))
            .hint("write 1d, 12h, 30m, 10s or 500ms")
    })
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
