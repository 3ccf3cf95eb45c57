//! Configuration file, environment and flags become one validated `Job`. The only reader of secrets.

mod aptible;
mod database;
mod dump;
pub(crate) mod file;
mod job;
mod keys;
mod location;
mod select;
mod server;
mod signing;
mod source;
mod tunnel;
mod units;

use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

use self::file::{File, FileS3, FileSource, SecretRef, file_of};
pub use self::job::{Behind, Job, Limits, MAX_CONCURRENCY, SourceKind, SourceSpec};
use self::keys::closest;
pub use self::location::{Location, Preset, S3Options};
pub use self::select::{Select, matches};
pub use self::server::{
    AptibleAddress, Binding, ClientCertificate, Credentials, Database, DumpProgram, DumpServer,
    DumpTls, InfluxDb, QuotaChoice, Secret, ServerKey, Tls, TlsMode, Version,
};
pub use self::signing::signing_key;
use self::source::{source_of_file, source_of_url};
pub use self::units::memory;
use self::units::{duration, size};
use crate::error::{Error, Result};
use crate::shards::Shard;
use crate::window::{Bound, now_micros};

/// What the command line gives. It takes precedence over the file.
#[derive(Debug, Default)]
pub struct Flags {
    /// `--config`.
    pub config: Option<PathBuf>,
    /// `--source`, names or URLs.
    pub sources: Vec<String>,
    /// `--name`.
    pub name: Option<String>,
    /// The sources of an archive: the name of each there, its URLs, and which part was requested besides the databases that
    /// these name. They count where nobody names any other.
    pub recorded: Vec<(String, Vec<String>, Select)>,
    /// `--archive`.
    pub archive: Option<String>,
    /// `--from`.
    pub from: Option<String>,
    /// `--to`.
    pub to: Option<String>,
    /// `--keep`.
    pub keep: bool,
    /// `--shard`.
    pub shard: Option<Shard>,
    /// `--window`.
    pub window: Option<String>,
    /// `--concurrency`.
    pub concurrency: Option<usize>,
    /// `--memory`.
    pub memory: Option<String>,
    /// `--bandwidth`.
    pub bandwidth: Option<String>,
}

/// Reads the file and the environment, lets the flags take precedence, and checks the result.
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
        let is_wanted = |source: &&FileSource| match source.name.as_str() {
            "" => source.url.as_ref() == Some(wanted),
            name => name == wanted,
        };
        match file.sources.iter().find(is_wanted) {
            Some(source) => sources.push(source_of_file(source, &folder)?),
            None => {
                let names = file.sources.iter().map(|source| source.name.as_str());
                if let Some(meant) = closest(wanted, names)
                    && !wanted.contains(':')
                {
                    return Err(Error::usage(format!(
                        "the configuration has no source `{wanted}`"
                    ))
                    .hint(format!("did you mean `{meant}`?")));
                }
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
    if sources.is_empty() {
        for (name, urls, part) in &flags.recorded {
            let mut source = source_of_archive(name, urls, &mut warnings)?;
            let databases = std::mem::take(&mut source.select.databases);
            source.select = Select { databases, ..part.clone() };
            sources.push(source);
        }
    }
    warnings.dedup();
    if sources.is_empty() {
        return Err(Error::usage("there is no source")
            .hint("give --source URL (influxdb+https://…, postgres://…, mysql://…, redis://…, mongodb://…, aptible:ENVIRONMENT, lp:FILE) or --config FILE"));
    }
    match (&flags.name, sources.as_mut_slice()) {
        (None, _) => {}
        (Some(name), [only]) if !flags.sources.is_empty() && !name.is_empty() => {
            (only.name, only.named) = (name.clone(), true);
        }
        (Some(_), _) => {
            return Err(Error::usage("`--name` needs exactly one source, given with `--source`")
                .hint("name several sources in the configuration file"));
        }
    }
    refuse_same_names(&sources)?;

    let now = now_micros();
    let from = flags.from.clone().or(file.from.clone()).unwrap_or_else(|| "min".to_owned());
    let to = flags.to.clone().or(file.to.clone()).unwrap_or_else(|| "max".to_owned());
    let bounds = (
        Bound::parse(&from, now).map_err(|e| e.context("--from"))?,
        Bound::parse(&to, now).map_err(|e| e.context("--to"))?,
    );
    match bounds {
        (Bound::Max, _) | (_, Bound::Min) => {
            return Err(Error::usage("`--from` cannot be `max`, and `--to` cannot be `min`"));
        }
        (Bound::At(begin), Bound::At(end)) if begin >= end => {
            return Err(Error::usage(if begin == end {
                format!("`--from` and `--to` are both {from}: the range is empty")
            } else {
                format!("`--from` ({from}) is after `--to` ({to})")
            }));
        }
        _ => {}
    }
    let archive = archive_of(flags.archive.as_deref(), &file, &folder);
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
    // S3 accepts no part below 5 MiB, and a chunk holds three parts besides a row group.
    if archive.as_ref().is_some_and(Location::is_bucket)
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
        shard: flags.shard,
        limits,
        excluded: Vec::new(),
        warnings,
    })
}

/// Refuses two sources with the same name, whose tables could not be told apart.
pub fn refuse_same_names(sources: &[SourceSpec]) -> Result<()> {
    let mut names: Vec<&str> = sources.iter().map(|source| source.name.as_str()).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        None => Ok(()),
        Some(pair) => Err(Error::usage(format!("two sources have the name `{}`", pair[0]))
            .hint("give each source its own name in the configuration")),
    }
}

/// A source that an archive names. Its credentials come from the environment.
fn source_of_archive(
    name: &str,
    urls: &[String],
    warnings: &mut Vec<String>,
) -> Result<SourceSpec> {
    let mut found: Option<SourceSpec> = None;
    for url in urls {
        let one = source_of_url(url, None, Path::new(""), warnings)?;
        match &mut found {
            Some(found) => found.select.add_databases(one.select.databases),
            None => found = Some(one),
        }
    }
    let found = found.ok_or_else(|| {
        Error::usage(format!("the archive does not record the address of the source `{name}`"))
            .hint("give it with --source URL or --config FILE")
    })?;
    Ok(SourceSpec { name: name.to_owned(), named: true, ..found })
}

fn limits(flags: &Flags, file: &File) -> Result<Limits> {
    let usual = Limits::default();
    let time = |key, text: &Option<String>, usual: Duration| -> Result<Duration> {
        let nanos = duration(key, text.clone(), usual.as_nanos() as i64)?;
        Ok(Duration::from_nanos(nanos.unsigned_abs()))
    };
    let memory = flags.memory.clone().or_else(|| file.memory.clone());
    let bandwidth = flags.bandwidth.clone().or_else(|| file.bandwidth.clone());
    Ok(Limits {
        window: match flags.window.clone().or_else(|| file.window.clone()) {
            Some(text) => Some(duration("window", Some(text), 0)?),
            None => usual.window,
        },
        concurrency: flags.concurrency.or(file.concurrency).unwrap_or(usual.concurrency),
        memory_bytes: size("memory", memory, usual.memory_bytes as u64)? as usize,
        quota_parts: flags.shard.map_or(usual.quota_parts, |shard| shard.of),
        bandwidth_bytes: match bandwidth {
            Some(text) => Some(size("bandwidth", Some(text), 0)?),
            None => usual.bandwidth_bytes,
        },
        file_bytes: size("file_size", file.file_size.clone(), usual.file_bytes)?,
        idle_timeout: time("idle_timeout", &file.idle_timeout, usual.idle_timeout)?,
        attempts: file.attempts.unwrap_or(usual.attempts),
        patience: time("patience", &file.patience, usual.patience)?,
        first_pause: usual.first_pause,
        fold_commits: usual.fold_commits,
    })
}

/// The archive that a verb names, or else the configuration, which also says how a bucket is reached.
pub fn place(archive: Option<&str>, config: Option<&Path>) -> Result<Location> {
    let (file, folder) = file_of(config)?;
    let archive = archive_of(archive, &file, &folder).ok_or_else(|| {
        Error::usage("no archive is given")
            .hint("give the path of the archive or s3://BUCKET/PREFIX, or set MOVEOUT_ARCHIVE")
    })?;
    place_of(&archive, &file.s3, &folder)
}

/// The command line takes precedence over the environment, and the environment over the file.
fn archive_of(given: Option<&str>, file: &File, folder: &Path) -> Option<String> {
    let of_env = || env::var("MOVEOUT_ARCHIVE").ok().filter(|archive| !archive.is_empty());
    // A path in the file is relative to the folder of the file.
    let of_file = || {
        file.archive.as_ref().map(|archive| {
            if archive.contains("://") {
                archive.clone()
            } else {
                folder.join(archive).display().to_string()
            }
        })
    };
    given.map(str::to_owned).or_else(of_env).or_else(of_file)
}

fn place_of(url: &str, s3: &FileS3, folder: &Path) -> Result<Location> {
    let secret = |secret: &Option<SecretRef>, key| {
        secret.as_ref().map(|secret| secret.read(folder, key)).transpose()
    };
    let place = Location {
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
            Err(Error::usage("`access_key_id` and `secret_access_key` must be given together"))
        }
        _ => Ok(place),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(source: &str) -> Result<Job> {
        load(Flags { sources: vec![source.to_owned()], ..Flags::default() })
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
            load(Flags { sources, ..Flags::default() })
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
        // Another user sees another part of the server.
        assert!(of(&["mysql://me@h/a", "mysql://you@h/b"]).is_err());
        assert!(of(&["lp:x", "lp:x"]).is_err());
    }

    #[test]
    fn one_source_can_be_named() {
        let of = |sources: &[&str], name: &str| {
            let sources = sources.iter().map(|source| (*source).to_owned()).collect();
            load(Flags { sources, name: Some(name.to_owned()), ..Flags::default() })
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
            load(Flags {
                sources: vec!["lp:x".into()],
                from: Some(from.into()),
                to: Some(to.into()),
                ..Flags::default()
            })
        };
        assert!(range("2024-01-02", "2024-01-01").is_err());
        assert!(range("max", "min").is_err());
        assert!(range("min", "max").is_ok());
        assert!(load(Flags::default()).is_err());
        for size_text in ["", "MiB", "12XB", "-1", "99999999999999999999", "0"] {
            assert!(size("memory", Some(size_text.into()), 1).is_err(), "{size_text}");
        }
    }
}
