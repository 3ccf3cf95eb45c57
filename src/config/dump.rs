//! Sources that are exported only as a native dump: Redis and MongoDB, by their URL and the usual variables, and
//! programs whose output is the dump. Reads the environment.

use std::env;
use std::path::{Path, PathBuf};

use url::Url;

use crate::config::file::{FileProgram, FileSource};
use crate::config::job::{SourceKind, SourceSpec};
use crate::config::select::Select;
use crate::config::server::{
    ClientCertificate, DumpProgram, DumpServer, DumpTls, Secret, decoded, without_password,
};
use crate::config::tunnel::tunnel;
use crate::error::{Error, Result};

/// A source that is the output of a program.
pub(super) fn program(source: &FileSource, program: &FileProgram) -> Result<SourceSpec> {
    if source.name.is_empty() {
        return Err(Error::usage("a source needs a name"));
    }
    source.refuse_keys_but(&["precision", "quota"])?;
    let FileProgram { command, ends_with } = program;
    if command.first().is_none_or(String::is_empty) {
        return Err(Error::usage("`command` needs a program"));
    }
    let ends_with = ends_with.trim().to_owned();
    if ends_with.is_empty() {
        return Err(Error::usage(
            "`ends_with` is empty: nothing would prove that the output is complete",
        ));
    }
    Ok(SourceSpec {
        name: source.name.clone(),
        named: true,
        kind: SourceKind::Program(DumpProgram { command: command.clone(), ends_with }),
        select: Select::default(),
    })
}

/// Parses `redis://[USER[:PASSWORD]@]HOST[:PORT]`, or `rediss://` for TLS. Returns the name of the source as well.
pub(super) fn redis(
    text: &str,
    file: Option<&FileSource>,
    folder: &Path,
    warnings: &mut Vec<String>,
) -> Result<(String, SourceKind)> {
    refuse_selection(file, false)?;
    let mut address = Address::of(text, 6379, "redis://[USER@]HOST[:PORT]")?;
    // A dump holds all databases of a server, so the number of one of them has no effect.
    if address.path.parse::<u32>().is_err() && !address.path.is_empty() {
        return Err(address.bad("the path must be the number of a database"));
    }
    let tls = if address.url.scheme() == "rediss" {
        Some(tls(&mut address, file.map(|_| folder), None)?)
    } else {
        None
    };
    if let Some((name, _)) = address.parameters.first() {
        return Err(address.unknown(name));
    }
    let name = address.name();
    let server = address.server(file, folder, "REDISCLI_AUTH", tls, warnings)?;
    Ok((name, SourceKind::Redis(server)))
}

/// Parses `mongodb://[USER[:PASSWORD]@]HOST[:PORT][/DATABASE][?authSource=…&tls=true]`. Returns the name of the source
/// as well.
pub(super) fn mongodb(
    text: &str,
    file: Option<&FileSource>,
    folder: &Path,
    select: &mut Select,
    warnings: &mut Vec<String>,
) -> Result<(String, SourceKind)> {
    refuse_selection(file, true)?;
    let mut address = Address::of(text, 27017, "mongodb://[USER@]HOST[:PORT][/DATABASE]")?;
    let database = match (address.path.as_str(), select.databases.as_slice()) {
        ("", []) => None,
        ("", [only]) => Some(only.clone()),
        ("", _) => return Err(address.bad("mongodump dumps either one database or all of them")),
        (path, []) => Some(path.to_owned()),
        _ => return Err(address.bad("the database is in the URL and in `databases`")),
    };
    select.databases.clear();
    let has_tls = address.take(&["tls", "ssl"]);
    let tls = if has_tls.as_deref() == Some("true") {
        let insecure = ["tlsInsecure", "tlsAllowInvalidCertificates", "sslInsecure"];
        let insecure = address.take(&insecure).map(|insecure| insecure == "true");
        Some(tls(&mut address, file.map(|_| folder), insecure)?)
    } else {
        None
    };
    let options = std::mem::take(&mut address.parameters);
    let name = address.name();
    let mut server = address.server(file, folder, "MONGODB_PASSWORD", tls, warnings)?;
    (server.database, server.options) = (database, options);
    Ok((name, SourceKind::MongoDb(server)))
}

/// The parts of a URL.
struct Address {
    url: Url,
    shown: String,
    form: &'static str,
    host: String,
    port: u16,
    path: String,
    parameters: Vec<(String, String)>,
}

impl Address {
    fn of(text: &str, port: u16, form: &'static str) -> Result<Self> {
        let shown = without_password(text);
        let shown = shown.split(['?', '#']).next().unwrap_or_default().to_owned();
        let bad = |why: &str| refused(&shown, form, why);
        let url = Url::parse(text).map_err(|error| bad(&error.to_string()))?;
        if url.fragment().is_some() {
            return Err(bad("there is a `#` in it"));
        }
        let host = url.host_str().unwrap_or_default();
        let host = decoded(host.trim_start_matches('[').trim_end_matches(']'), &bad)?;
        if host.is_empty() || host.contains(',') {
            return Err(bad("it must name exactly one host; for a replica set, name one member"));
        }
        let path = decoded(url.path().trim_start_matches('/'), &bad)?;
        let pairs = url.query_pairs();
        let parameters = pairs.map(|(name, value)| (name.into_owned(), value.into_owned()));
        let (parameters, port) = (parameters.collect(), url.port().unwrap_or(port));
        Ok(Self { url, shown, form, host, port, path, parameters })
    }

    fn name(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    fn bad(&self, why: &str) -> Error {
        refused(&self.shown, self.form, why)
    }

    fn unknown(&self, name: &str) -> Error {
        self.bad(&format!("it has the unknown parameter `{}`", name.escape_debug()))
    }

    /// Removes a parameter, which may have any of these names, and returns its value.
    fn take(&mut self, names: &[&str]) -> Option<String> {
        let same = |name: &str| names.iter().any(|known| known.eq_ignore_ascii_case(name));
        let at = self.parameters.iter().position(|(name, _)| same(name))?;
        Some(self.parameters.remove(at).1)
    }

    fn server(
        self,
        file: Option<&FileSource>,
        folder: &Path,
        password_var: &str,
        tls: Option<DumpTls>,
        warnings: &mut Vec<String>,
    ) -> Result<DumpServer> {
        let bad = |why: &str| self.bad(why);
        let user = Some(decoded(self.url.username(), &bad)?).filter(|user| !user.is_empty());
        let user = user.or_else(|| file.and_then(|file| file.username.clone()));
        let password = match (self.url.password(), file.and_then(|file| file.password.as_ref())) {
            (Some(password), _) => {
                warnings.push(format!(
                    "the password in the URL can be seen in the process list; {password_var} cannot"
                ));
                Some(Secret(decoded(password, &bad)?))
            }
            (None, Some(password)) => Some(password.read(folder, "password")?),
            (None, None) => env::var(password_var).ok().filter(|p| !p.is_empty()).map(Secret),
        };
        let tunnel = tunnel(file, folder, &self.host, self.port)?;
        let (host, port, database, options) = (self.host, self.port, None, Vec::new());
        Ok(DumpServer { host, port, user, password, tls, database, options, tunnel })
    }
}

fn refused(shown: &str, form: &str, why: &str) -> Error {
    Error::usage(format!("`{shown}` is not a source: {why}")).hint(format!("write {form}"))
}

/// The parameters for TLS, which may have the names that the other sources use, or those of MongoDB.
fn tls(address: &mut Address, folder: Option<&Path>, insecure: Option<bool>) -> Result<DumpTls> {
    let file = |value: String| folder.unwrap_or(Path::new("")).join(value);
    let mode = address.take(&["sslmode"]);
    let ca: Option<PathBuf> = address.take(&["sslrootcert", "tlsCAFile"]).map(file);
    let verify = match (mode.as_deref(), insecure) {
        (None, insecure) => !insecure.unwrap_or_default(),
        (Some("require"), None) => ca.is_some(),
        (Some("verify-ca"), None) => true,
        (Some("verify-full"), None) if address.url.scheme() == "rediss" => {
            return Err(address.bad("redis-cli does not check the name in a certificate: sslmode can be verify-ca at most"));
        }
        (Some("verify-full"), None) => true,
        _ => return Err(address.bad("sslmode must be require, verify-ca or verify-full")),
    };
    let certificate = address.take(&["sslcert", "tlsCertificateKeyFile"]).map(file);
    let key = address.take(&["sslkey"]).map(file);
    let client = match (certificate, key) {
        (Some(certificate), Some(key)) => Some(ClientCertificate { certificate, key }),
        // MongoDB keeps the certificate and the key in one file.
        (Some(both), None) if address.url.scheme() == "mongodb" => {
            Some(ClientCertificate { key: both.clone(), certificate: both })
        }
        (None, None) => None,
        _ => return Err(address.bad("a client certificate needs both `sslcert` and `sslkey`")),
    };
    Ok(DumpTls { verify, ca, client, name: None })
}

/// Refuses the keys that choose rows, since they choose nothing within a dump.
fn refuse_selection(file: Option<&FileSource>, has_databases: bool) -> Result<()> {
    let Some(file) = file else { return Ok(()) };
    let mut known = vec!["username", "password", "tunnel", "precision", "quota"];
    known.extend(has_databases.then_some("databases"));
    file.refuse_keys_but(&known)
}
