//! The configuration file as it is written: its keys, and the secrets that it refers to. Reads files.
use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::IgnoredAny;
use toml::de::DeTable;

use crate::config::keys::check;
use crate::config::location::Preset;
use crate::config::server::Secret;
use crate::error::{Error, Result};

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct File {
    pub(super) archive: Option<String>,
    #[serde(default)]
    pub(super) s3: FileS3,
    pub(super) from: Option<String>,
    pub(super) to: Option<String>,
    pub(super) window: Option<String>,
    pub(super) concurrency: Option<usize>,
    pub(super) memory: Option<String>,
    pub(super) bandwidth: Option<String>,
    pub(super) file_size: Option<String>,
    pub(super) idle_timeout: Option<String>,
    pub(super) attempts: Option<u32>,
    pub(super) patience: Option<String>,
    #[serde(default, rename = "source")]
    pub(super) sources: Vec<FileSource>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileS3 {
    pub(super) preset: Option<Preset>,
    pub(super) endpoint: Option<String>,
    pub(super) region: Option<String>,
    pub(super) access_key_id: Option<String>,
    pub(super) secret_access_key: Option<SecretRef>,
    pub(super) session_token: Option<SecretRef>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileSource {
    /// Empty for databases on Aptible, which have names of their own.
    #[serde(default)]
    pub(super) name: String,
    pub(super) url: Option<String>,
    pub(super) username: Option<String>,
    pub(super) password: Option<SecretRef>,
    pub(super) token: Option<SecretRef>,
    #[serde(default)]
    pub(super) databases: Vec<String>,
    #[serde(default)]
    pub(super) retention_policies: Vec<String>,
    #[serde(default)]
    pub(super) tables: Vec<String>,
    #[serde(default)]
    pub(super) schemas: Vec<String>,
    #[serde(default)]
    pub(super) exclude: Vec<String>,
    #[serde(default)]
    pub(super) time_columns: BTreeMap<String, String>,
    pub(super) lock: Option<bool>,
    pub(super) tunnel: Option<FileTunnel>,
    pub(super) dump: Option<FileDump>,
    pub(super) precision: Option<String>,
    pub(super) quota: Option<String>,
    pub(super) quota_window: Option<String>,
    pub(super) price_per_query: Option<f64>,
    pub(super) price_per_gigabyte: Option<f64>,
}

/// A native dump, which is taken beside the rows of a server, or is the output of a program that is a source by itself.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum FileDump {
    Beside(bool),
    Program(FileProgram),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileProgram {
    pub(super) command: Vec<String>,
    pub(super) ends_with: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileTunnel {
    pub(super) command: Vec<String>,
    pub(super) ready: Option<String>,
    pub(super) ready_timeout: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum SecretRef {
    Of(SecretPlace),
    /// Most likely the secret itself, which no error message may show.
    Other(IgnoredAny),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SecretPlace {
    pub(super) env: Option<String>,
    pub(super) file: Option<PathBuf>,
}

impl FileSource {
    /// Refuses all keys but these among those that not every kind of source has.
    pub(super) fn refuse_keys_but(&self, known: &[&str]) -> Result<()> {
        let given = [
            ("username", self.username.is_some()),
            ("password", self.password.is_some()),
            ("token", self.token.is_some()),
            ("databases", !self.databases.is_empty()),
            ("retention_policies", !self.retention_policies.is_empty()),
            ("tables", !self.tables.is_empty()),
            ("schemas", !self.schemas.is_empty()),
            ("exclude", !self.exclude.is_empty()),
            ("time_columns", !self.time_columns.is_empty()),
            ("lock", self.lock.is_some()),
            ("tunnel", self.tunnel.is_some()),
            ("precision", self.precision.is_some()),
            ("quota", self.quota.is_some()),
        ];
        match given.iter().find(|(key, is_given)| *is_given && !known.contains(key)) {
            Some((key, _)) => Err(misplaced(key)),
            None => Ok(()),
        }
    }
}

/// The error for a key that not every kind of source has.
pub(super) fn misplaced(key: &str) -> Error {
    Error::usage(format!("`{key}` does not apply to a source of this kind"))
}

impl SecretRef {
    pub(super) fn read(&self, folder: &Path, key: &str) -> Result<Secret> {
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

/// The file that is read where no other is named.
const USUAL: &str = "moveout.toml";

/// The configuration, and the folder that its paths are relative to; both are empty where there is no file. The file is
/// the one that a flag or `MOVEOUT_CONFIG` names, or else `moveout.toml` in the working directory.
pub(super) fn file_of(config: Option<&Path>) -> Result<(File, PathBuf)> {
    let of_env =
        || env::var_os("MOVEOUT_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from);
    let usual = || Some(PathBuf::from(USUAL)).filter(|path| path.is_file());
    let Some(path) = config.map(Path::to_path_buf).or_else(of_env).or_else(usual) else {
        return Ok((File::default(), PathBuf::new()));
    };
    tracing::info!("reading the configuration {}", path.display());
    Ok((read_file(&path)?, path.parent().map(Path::to_path_buf).unwrap_or_default()))
}

fn read_file(path: &Path) -> Result<File> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Error::usage(format!("reading {}: {error}", path.display())))?;
    parse(path, &text)
}

/// The configuration that is the text of a file.
pub(crate) fn parse(path: &Path, text: &str) -> Result<File> {
    // Only the key of the line is shown, because its value may be a secret.
    let wrong = |at: Option<usize>, what: &str| {
        let before = at.and_then(|at| text.get(..at)).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        Error::usage(format!("{}, line {line}: {what}", path.display()))
    };
    let malformed = |error: toml::de::Error| {
        let at = error.span().map(|span| span.start);
        let before = at.and_then(|at| text.get(..at)).unwrap_or_default();
        let key = before.rsplit('\n').next().and_then(|line| line.split_once('='));
        let key = key.map(|(key, _)| format!("`{}`: ", key.trim())).unwrap_or_default();
        wrong(at, &format!("{key}{}", error.message()))
    };
    check(&DeTable::parse(text).map_err(malformed)?).map_err(|found| {
        let error = wrong(Some(found.at), &found.what);
        match found.hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    })?;
    toml::from_str(text).map_err(malformed)
}
