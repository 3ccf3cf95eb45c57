//! Combines the URL of a source, its entry in the file, and the usual variables into one `SourceSpec`. Reads the
//! environment.

use std::env;
use std::path::Path;
use std::time::Duration;

use url::{Host, Url};

use crate::config::aptible::aptible;
use crate::config::database::{MYSQL, POSTGRES, database};
use crate::config::dump;
use crate::config::file::{FileDump, FileSource, misplaced};
use crate::config::job::{SourceKind, SourceSpec};
use crate::config::keys::closest;
use crate::config::select::Select;
use crate::config::server::{
    Credentials, InfluxDb, QuotaChoice, Secret, Version, decoded, without_password,
};
use crate::config::tunnel::tunnel;
use crate::config::units::{duration, size};
use crate::error::{Error, Result};
use crate::model::Prices;

const SOURCES: &str = "a source is influxdb+https://HOST[:PORT]/DATABASE, postgres://…, mysql://…, redis://…, mongodb://…, aptible:…, lp:FILE, or a name \
                       from the configuration";

/// A source that the file describes.
pub(super) fn source_of_file(source: &FileSource, folder: &Path) -> Result<SourceSpec> {
    // The process list does not show the file, so a password in a URL there needs no warning.
    let spec = match (&source.url, &source.dump) {
        (Some(url), _) => source_of_url(url, Some(source), folder, &mut Vec::new()),
        (None, Some(FileDump::Program(program))) => dump::program(source, program),
        (None, _) => Err(Error::usage("a source needs the key `url`")),
    };
    spec.map_err(|error| error.context(format!("source `{}`", source.name)))
}

/// A source by its URL, with its entry in the file if it has one.
pub(super) fn source_of_url(
    text: &str,
    file: Option<&FileSource>,
    folder: &Path,
    warnings: &mut Vec<String>,
) -> Result<SourceSpec> {
    let mut select = Select::default();
    if let Some(file) = file {
        select.databases = file.databases.clone();
        select.schemas = [file.retention_policies.as_slice(), &file.schemas].concat();
        select.exclude = file.exclude.clone();
        select.tables = file.tables.clone();
    }
    if let Some(spec) = aptible(text, file, select.clone())? {
        return Ok(spec);
    }
    if file.is_some_and(|file| file.name.is_empty()) {
        return Err(Error::usage("a source needs a name"));
    }
    let (name, kind) = match text.strip_prefix("lp:") {
        Some(path) if !path.is_empty() => line_protocol(path, file, folder, &select)?,
        Some(_) => return Err(Error::usage("`lp:` needs the path of a file")),
        None => match text.split_once("://").map(|(scheme, _)| scheme) {
            Some("postgres" | "postgresql") => {
                let found = database(&POSTGRES, text, file, folder, &mut select, warnings)?;
                (found.0, SourceKind::Postgres(found.1))
            }
            Some("mysql" | "mariadb") => {
                let found = database(&MYSQL, text, file, folder, &mut select, warnings)?;
                (found.0, SourceKind::MySql(found.1))
            }
            Some("redis" | "rediss") => dump::redis(text, file, folder, warnings)?,
            Some("mongodb") => dump::mongodb(text, file, folder, &mut select, warnings)?,
            _ => influxdb(text, file, folder, &mut select, warnings)?,
        },
    };
    let relational = matches!(kind, SourceKind::Postgres(_) | SourceKind::MySql(_));
    if let Some(FileSource { dump: Some(dump), .. }) = file {
        let only_dump = matches!(kind, SourceKind::Redis(_) | SourceKind::MongoDb(_));
        let why = match dump {
            FileDump::Program(_) => "`dump = { command = … }` is for a source without `url`",
            FileDump::Beside(false) if only_dump => {
                "`dump = false` is impossible: this source is exported only as a dump"
            }
            FileDump::Beside(true) if !relational && !only_dump => {
                "`dump = true` is for PostgreSQL and MySQL"
            }
            FileDump::Beside(_) => "",
        };
        if !why.is_empty() {
            return Err(Error::usage(why));
        }
    }
    if let Some(file) = file {
        let wrong_key = match relational {
            true if !file.retention_policies.is_empty() => Some("retention_policies"),
            true if file.token.is_some() => Some("token"),
            true if file.quota.is_some() => Some("quota"),
            false if !file.schemas.is_empty() => Some("schemas"),
            false if file.lock.is_some() => Some("lock"),
            false if !file.time_columns.is_empty() => Some("time_columns"),
            _ => None,
        };
        if let Some(key) = wrong_key {
            return Err(misplaced(key));
        }
    }
    let is_file = matches!(kind, SourceKind::LineProtocol { .. });
    if file.is_some_and(|f| f.precision.is_some()) && !is_file {
        return Err(Error::usage("`precision` is for line-protocol files"));
    }
    if file.is_some_and(|f| f.tunnel.is_some()) && is_file {
        return Err(Error::usage("`tunnel` is for servers, and not for a line-protocol file"));
    }
    Ok(SourceSpec {
        name: file.map(|file| file.name.clone()).unwrap_or(name),
        named: file.is_some(),
        kind,
        select,
    })
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
            return Err(Error::usage(format!(
                "`precision` must be ns, us, ms or s, not `{other}`"
            )));
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
        retention_policy: match select.schemas.as_slice() {
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
    let refused = |why: &str, meant: Option<String>| {
        let hint = match meant {
            Some(meant) => format!("did you mean {}?", without_password(&meant)),
            None => SOURCES.to_owned(),
        };
        Error::usage(format!("`{}` is not a source: {why}", without_password(text))).hint(hint)
    };
    let bad = |why: &str| refused(why, None);
    // A password may contain a `+` as well.
    let scheme = text.split_once("://").map(|(scheme, _)| scheme);
    let product = text.split_once('+').filter(|(product, _)| !product.contains(':'));
    let (product, address) = product.ok_or_else(|| match scheme {
        Some(scheme) => {
            let right = meant_by(scheme).map(|right| text.replacen(scheme, right, 1));
            refused(&format!("this version cannot read `{scheme}://`"), right)
        }
        None if Path::new(text).is_file() => {
            refused("it is a file and not a URL", Some(format!("lp:{text}")))
        }
        None => bad("it is neither a URL nor the name of a source in the configuration"),
    })?;
    let version = match product {
        "influxdb" => None,
        "influxdb1" => Some(Version::One),
        "influxdb2" => Some(Version::Two),
        "influxdb3" => Some(Version::Three),
        _ => {
            let known = ["influxdb", "influxdb1", "influxdb2", "influxdb3"];
            let right = closest(product, known).map(|right| text.replacen(product, right, 1));
            return Err(refused("unknown scheme", right));
        }
    };
    let mut url = Url::parse(address).map_err(|error| bad(&error.to_string()))?;
    // The parser takes a URL without a host or without its slashes for a different URL.
    let rest = address.get(url.scheme().len()..).and_then(|rest| rest.strip_prefix("://"));
    let has_host = url.host_str().is_some() && rest.is_some_and(|r| !r.starts_with(['/', '\\']));
    if !matches!(url.scheme(), "http" | "https") || !has_host {
        return Err(bad("it needs +https://HOST or +http://HOST"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(bad("nothing may follow the database"));
    }
    let decoded = |text: &str| decoded(text, &bad);
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
    let port = url.port_or_known_default().unwrap_or_default(); // both schemes have a default port
    let tunnel = tunnel(file, folder, host.trim_start_matches('[').trim_end_matches(']'), port)?;
    if tunnel.is_some() && url.scheme() == "https" && !matches!(url.host(), Some(Host::Domain(_))) {
        return Err(bad("TLS through a tunnel needs the name of the server, not its IP address"));
    }
    let influxdb =
        InfluxDb { base: url, credentials, version, quota, prices, verify: true, tunnel };
    Ok((name, SourceKind::InfluxDb(influxdb)))
}

/// The scheme that the user most likely meant by an unknown one.
fn meant_by(scheme: &str) -> Option<&'static str> {
    match scheme {
        "http" => Some("influxdb+http"),
        "https" | "influx" | "influxdb" | "influxdb1" | "influxdb2" | "influxdb3" => {
            Some("influxdb+https")
        }
        "jdbc:postgresql" | "pg" | "pgsql" | "psql" => Some("postgres"),
        "jdbc:mysql" | "jdbc:mariadb" | "mysql2" | "mysqlx" => Some("mysql"),
        _ => closest(scheme, ["postgres", "postgresql", "mysql", "mariadb", "redis", "mongodb"]),
    }
}

fn quota_and_prices(file: Option<&FileSource>) -> Result<(QuotaChoice, Prices)> {
    let Some(file) = file else { return Ok((QuotaChoice::Ask, Prices::default())) };
    let window = file.quota_window.clone().map(|text| duration("quota_window", Some(text), 0));
    let window = window.transpose()?.map(|nanos| Duration::from_nanos(nanos.unsigned_abs()));
    let quota = match file.quota.as_deref() {
        None if window.is_some() => {
            return Err(Error::usage("`quota_window` needs `quota`"));
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

// The file takes precedence over the usual variables.
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
            let user = user.ok_or_else(|| Error::usage("`password` needs `username`"))?;
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
            // The user is not shown, because somebody may have put a token in its place in the URL.
            return Err(Error::usage("there is a user but no password")
                .hint("set INFLUX_PASSWORD; put a token in INFLUX_TOKEN and not in the URL"));
        }
        (None, None, _) => Credentials::None,
    })
}
