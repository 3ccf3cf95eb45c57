//! Parses the URL of a relational database, in the form of its own clients, and the usual variables into a
//! `Database`. Reads the environment.

use std::env;
use std::path::{Path, PathBuf};

use url::Url;

use crate::config::file::{FileDump, FileSource};
use crate::config::keys::closest;
use crate::config::select::Select;
use crate::config::server::{
    Binding, ClientCertificate, Database, Secret, ServerKey, Tls, TlsMode, decoded,
    without_password,
};
use crate::config::tunnel::tunnel;
use crate::error::{Error, Result};

/// The conventions of the clients of a server.
pub(super) struct Dialect {
    name: &'static str,
    port: u16,
    host_var: &'static str,
    port_var: &'static str,
    user_vars: &'static [&'static str],
    password_var: &'static str,
    database_var: &'static str,
    default_user: &'static str,
}

pub(super) const POSTGRES: Dialect = Dialect {
    name: "postgres",
    port: 5432,
    host_var: "PGHOST",
    port_var: "PGPORT",
    user_vars: &["PGUSER"],
    password_var: "PGPASSWORD",
    database_var: "PGDATABASE",
    default_user: "postgres",
};

pub(super) const MYSQL: Dialect = Dialect {
    name: "mysql",
    port: 3306,
    host_var: "MYSQL_HOST",
    port_var: "MYSQL_TCP_PORT",
    user_vars: &["MYSQL_USER"],
    password_var: "MYSQL_PWD",
    database_var: "",
    default_user: "root",
};

fn var(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !name.is_empty() && !value.is_empty())
}

/// Parses `SCHEME://[USER[:PASSWORD]@][HOST][:PORT][/DATABASE][?sslmode=…&sslrootcert=…]`, which means all databases
/// where it names none. Returns the name of the source as well.
pub(super) fn database(
    dialect: &Dialect,
    text: &str,
    file: Option<&FileSource>,
    folder: &Path,
    select: &mut Select,
    warnings: &mut Vec<String>,
) -> Result<(String, Database)> {
    let bad = |why: &str| {
        // libpq also accepts a password among the parameters, and a password may contain any character.
        let shown = without_password(text);
        let shown = shown.split(['?', '#']).next().unwrap_or_default();
        let shown = if text.contains("password=") { dialect.name } else { shown };
        Error::usage(format!("`{shown}` is not a source: {why}"))
            .hint(format!("write {}://USER@HOST[:PORT][/DATABASE]", dialect.name))
    };
    let url = Url::parse(text).map_err(|error| bad(&error.to_string()))?;
    if url.fragment().is_some() {
        return Err(bad("there is a `#` after the database"));
    }
    let decoded = |text: &str| decoded(text, &bad);
    let host = match url.host_str().unwrap_or_default() {
        "" => var(dialect.host_var).unwrap_or_else(|| "localhost".to_owned()),
        host => decoded(host.trim_start_matches('[').trim_end_matches(']'))?,
    };
    if host.starts_with('/') || host.contains(',') {
        return Err(bad("it must name exactly one host, which is reached by TCP"));
    }
    let port = match (url.port(), var(dialect.port_var)) {
        (Some(port), _) => port,
        (None, Some(text)) => {
            let port = text.parse();
            port.map_err(|_| {
                Error::usage(format!("the value of {} is not a port", dialect.port_var))
            })?
        }
        (None, None) => dialect.port,
    };
    let name = decoded(url.path().trim_start_matches('/'))?;
    let name = Some(name).filter(|name| !name.is_empty());
    let named = name.or_else(|| var(dialect.database_var).filter(|_| select.databases.is_empty()));
    if let Some(name) = named {
        if !select.databases.is_empty() {
            return Err(bad("the database is in the URL and in `databases`"));
        }
        select.databases.push(name);
    }
    let of_vars = || dialect.user_vars.iter().find_map(|name| var(name));
    let user = match decoded(url.username())? {
        user if !user.is_empty() => user,
        _ => file
            .and_then(|file| file.username.clone())
            .or_else(of_vars)
            .unwrap_or_else(|| dialect.default_user.to_owned()),
    };
    let password = match (url.password(), file.and_then(|file| file.password.as_ref())) {
        (Some(password), _) => {
            warnings.push(format!(
                "the password in the URL can be seen in the process list; {} cannot",
                dialect.password_var
            ));
            Some(Secret(decoded(password)?))
        }
        (None, Some(password)) => Some(password.read(folder, "password")?),
        (None, None) => var(dialect.password_var).map(Secret),
    };
    let source_name = format!("{host}:{port}");
    let (tls, server_key) = tls(&url, file.map(|_| folder), &bad)?;
    let time_columns = file.map(|file| file.time_columns.clone()).unwrap_or_default();
    let lock = file.and_then(|file| file.lock).unwrap_or_default();
    let tunnel = tunnel(file, folder, &host, port)?;
    let dump = file.is_some_and(|file| matches!(file.dump, Some(FileDump::Beside(true))));
    let database =
        Database { host, port, user, password, tls, time_columns, lock, dump, server_key, tunnel };
    Ok((source_name, database))
}

fn tls(
    url: &Url,
    folder: Option<&Path>,
    bad: &dyn Fn(&str) -> Error,
) -> Result<(Tls, Option<ServerKey>)> {
    let is_postgres = url.scheme() != "mysql" && url.scheme() != "mariadb";
    let of_libpq = |name: &str| var(name).filter(|_| is_postgres);
    let file_of_libpq = |name: &str| of_libpq(name).map(PathBuf::from);
    let (mut mode, mut binding) = (of_libpq("PGSSLMODE"), of_libpq("PGCHANNELBINDING"));
    let (mut ca, mut certificate, mut key) =
        (file_of_libpq("PGSSLROOTCERT"), file_of_libpq("PGSSLCERT"), file_of_libpq("PGSSLKEY"));
    let file = |value: &str| Some(folder.unwrap_or(Path::new("")).join(value));
    let mut server_key = None;
    for (name, value) in url.query_pairs() {
        match name.as_ref() {
            "server-public-key-path" if !is_postgres => {
                server_key = file(&value).map(ServerKey::File);
            }
            // MySQL's own client uses the first name, JDBC the second. A named file is safer and takes precedence.
            "get-server-public-key" | "allowPublicKeyRetrieval" if !is_postgres => {
                let fetch = (value == "true").then_some(ServerKey::Fetch);
                server_key = server_key.or(fetch);
            }
            "sslmode" | "ssl-mode" => mode = Some(value.into_owned()),
            "sslrootcert" | "ssl-ca" => ca = file(&value),
            "sslcert" | "ssl-cert" => certificate = file(&value),
            "sslkey" | "ssl-key" => key = file(&value),
            "channel_binding" if is_postgres => binding = Some(value.into_owned()),
            // This is how JDBC spells it.
            "ssl" if value == "true" => mode = mode.or(Some("require".to_owned())),
            // The addresses that providers hand out carry these parameters, which have no effect here.
            "application_name"
            | "connect_timeout"
            | "gssencmode"
            | "target_session_attrs"
            | "client_encoding"
            | "charset" => {}
            other => {
                let only_mysql = ["server-public-key-path", "get-server-public-key"];
                let only_postgres = ["channel_binding"];
                let theirs = if is_postgres { &only_postgres[..] } else { &only_mysql };
                let known = || ["sslmode", "sslrootcert", "sslcert", "sslkey"].iter().chain(theirs);
                let all = known().map(|known| format!("`{known}`")).collect::<Vec<_>>().join(", ");
                let meant = closest(other, known().copied());
                let meant = meant.map(|meant| format!(", did you mean `{meant}`?"));
                let meant = meant.unwrap_or_default();
                let other = other.escape_debug();
                let why =
                    format!("it has the unknown parameter `{other}`{meant} (known are {all})");
                return Err(bad(&why));
            }
        }
    }
    let mode = mode.map(|mode| mode.to_ascii_lowercase().replace('_', "-"));
    let mode = match mode.as_deref() {
        None | Some("prefer" | "preferred" | "allow") => TlsMode::Prefer,
        Some("disable" | "disabled") => TlsMode::Disable,
        // libpq does the same: whoever names an authority wants the certificate to be checked.
        Some("require" | "required") if ca.is_some() => TlsMode::VerifyCa,
        Some("require" | "required") => TlsMode::Require,
        Some("verify-ca") => TlsMode::VerifyCa,
        Some("verify-full" | "verify-identity") => TlsMode::VerifyFull,
        Some(other) => {
            return Err(bad(&format!(
                "sslmode must be disable, prefer, require, verify-ca or verify-full, not `{other}`"
            )));
        }
    };
    let ca = ca.filter(|ca| ca.as_os_str() != "system");
    // Anybody can get a certificate from a public authority for a name of their own, so only the host's name proves it.
    let mode = if mode == TlsMode::VerifyCa && ca.is_none() { TlsMode::VerifyFull } else { mode };
    let client = match (certificate, key) {
        (Some(certificate), Some(key)) => Some(ClientCertificate { certificate, key }),
        (None, None) => None,
        _ => return Err(bad("a client certificate needs both `sslcert` and `sslkey`")),
    };
    let binding = match binding.as_deref() {
        None | Some("prefer") => Binding::Prefer,
        Some("disable") => Binding::Disable,
        Some("require") if mode == TlsMode::Disable => {
            return Err(bad("channel_binding=require needs TLS, which sslmode=disable forbids"));
        }
        Some("require") => Binding::Require,
        Some(other) => {
            let why = format!("channel_binding must be disable, prefer or require, not `{other}`");
            return Err(bad(&why));
        }
    };
    Ok((Tls { mode, ca, client, binding }, server_key))
}
