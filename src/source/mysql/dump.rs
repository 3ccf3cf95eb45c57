//! The native dump of all exported databases as of one moment, made by mariadb-dump or mysqldump.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::config::{ClientCertificate, Database, Limits, ServerKey, TlsMode};
use crate::error::{Error, Result};
use crate::model::{DumpFormat, DumpPlan, Dumped, Listing, Size};
use crate::source::channel::DumpSender;
use crate::source::dump::{ALL, Listed, Terms, program};
use crate::source::mysql::catalog;
use crate::source::mysql::select::literal;
use crate::source::mysql::server::Inner;
use crate::source::relational::cancel::blocking;
use crate::source::tunnel::Passage;

/// Texts of errors that another attempt would only repeat.
const PERMANENT: &[&str] = &[
    "Access denied",
    "denied to user",
    "Couldn't find table",
    "unknown option",
    "unknown variable",
];

/// The dump of a server.
#[derive(Debug)]
pub(super) struct Dump {
    pub(super) listed: Listed,
    server: Database,
    silence: Duration,
    setup: Mutex<Option<Setup>>,
}

#[derive(Debug, Clone)]
struct Setup {
    program: &'static str,
    /// Whether the program is MariaDB's, whose options differ.
    is_mariadb: bool,
    has_tls: bool,
    databases: Vec<String>,
}

impl Dump {
    pub(super) fn of(server: &Database, limits: &Limits) -> Self {
        let (server, silence) = (server.clone(), program::silence(limits));
        Self { listed: Listed::default(), server, silence, setup: Mutex::default() }
    }

    fn setup(&self) -> MutexGuard<'_, Option<Setup>> {
        self.setup.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lists the dump if the configuration asks for one and there is a database.
pub(super) async fn list(dump: &Dump, inner: &Arc<Inner>, listing: &mut Listing) -> Result<()> {
    if !dump.server.dump {
        return Ok(());
    }
    let this = Arc::clone(inner);
    let asked = blocking(move |cancel| {
        this.pool.outside(cancel, |client| {
            let databases = catalog::databases(client, &this.select)?.databases;
            let bytes = match databases.as_slice() {
                [] => None,
                some => client.value(&format!(
                    "SELECT SUM(DATA_LENGTH) FROM information_schema.TABLES WHERE {}",
                    of_databases(some)
                ))?,
            };
            Ok((databases, bytes, client.is_mariadb, client.is_tls()))
        })
    });
    let (databases, bytes, is_mariadb, has_tls) = asked.await?;
    if databases.is_empty() {
        return Ok(());
    }
    let bytes = bytes.and_then(|bytes| bytes.parse().ok());
    let plan = match find(is_mariadb).await {
        Ok((program, version)) => {
            let is_mariadb = version.contains("MariaDB") || program == "mariadb-dump";
            let setup = Setup { program, is_mariadb, has_tls, databases };
            *dump.setup() = Some(setup);
            let plan = DumpPlan { program: version, format: DumpFormat::MysqlDump };
            Ok((plan, Size { rows: None, bytes }))
        }
        Err(error) => Err(error),
    };
    dump.listed.add(listing, &inner.name, ALL, plan);
    Ok(())
}

/// The first program that is installed, with its version. That of the server's own product is tried first.
async fn find(is_mariadb: bool) -> Result<(&'static str, String)> {
    let programs =
        if is_mariadb { ["mariadb-dump", "mysqldump"] } else { ["mysqldump", "mariadb-dump"] };
    let mut missing = None;
    for name in programs {
        match program::version(name).await {
            Ok(version) => return Ok((name, version)),
            Err(error) => missing = missing.or(Some(error)),
        }
    }
    Err(missing.unwrap_or_else(|| Error::fail("there is no program that makes the dump")))
}

/// Dumps all of the databases.
pub(super) async fn run(dump: &Dump, inner: &Arc<Inner>, output: DumpSender) -> Result<Dumped> {
    let setup = dump.setup().clone();
    let setup = setup.ok_or_else(|| Error::fail("the dump was not listed"))?;
    let Dump { server, silence, .. } = dump;
    let before = tables(inner, &setup.databases).await?;
    let terms = Terms { silence: *silence, secret: server.password.as_ref(), permanent: PERMANENT };
    let passage = program::passage(server.tunnel.as_ref()).await?;
    let is_verified = match server.tls.mode {
        TlsMode::VerifyFull => true,
        TlsMode::VerifyCa => setup.is_mariadb,
        TlsMode::Disable | TlsMode::Prefer | TlsMode::Require => false,
    };
    if passage.is_some() && is_verified {
        return Err(Error::fail(format!(
            "{} compares the server's certificate with the address that it connects to, which is the tunnel's",
            setup.program
        ))
        .hint("the tunnel may be protection enough for sslmode=require; or take the dump without it"));
    }
    program::run(command(&setup, server, passage), &output, terms).await?;
    let after = tables(inner, &setup.databases).await?;
    // A table that was created or dropped meanwhile may or may not be in the dump.
    Ok(Dumped { expected: before.intersection(&after).cloned().collect() })
}

async fn tables(inner: &Arc<Inner>, databases: &[String]) -> Result<BTreeSet<String>> {
    let sql = format!(
        "SELECT CONCAT(TABLE_SCHEMA, '.', TABLE_NAME) FROM information_schema.TABLES
         WHERE TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED') AND {}",
        of_databases(databases)
    );
    let this = Arc::clone(inner);
    let listed = blocking(move |cancel| this.pool.outside(cancel, |client| client.query(&sql)));
    Ok(listed.await?.into_iter().flatten().flatten().collect())
}

fn of_databases(databases: &[String]) -> String {
    let names: Vec<String> = databases.iter().map(|name| literal(name)).collect();
    format!("TABLE_SCHEMA IN ({})", names.join(","))
}

fn command(setup: &Setup, server: &Database, passage: Option<Passage>) -> Command {
    let mut command = Command::new(setup.program);
    // A configuration file could switch off the lines that show that a dump is complete. This option must come first.
    command.args(["--no-defaults", "--protocol=TCP"]);
    let through = passage.map(Passage::address);
    let host = through.map_or_else(|| server.host.clone(), |address| address.ip().to_string());
    let port = through.map_or(server.port, |address| address.port());
    command.arg(format!("--host={host}")).arg(format!("--port={port}"));
    command.arg(format!("--user={}", server.user));
    command.args(["--single-transaction", "--routines", "--events", "--triggers", "--hex-blob"]);
    // A row may be as large as the server allows. Tablespaces name places on the disks of the server that is left.
    command.args(["--max-allowed-packet=1G", "--no-tablespaces", "--comments", "--skip-dump-date"]);
    command.arg("--default-character-set=utf8mb4");
    for name in ["MYSQL_PWD", "MYSQL_HOST", "MYSQL_TCP_PORT", "MYSQL_UNIX_PORT"] {
        command.env_remove(name);
    }
    command.env("LC_ALL", "C");
    if let Some(password) = &server.password {
        command.env("MYSQL_PWD", password.expose());
    }
    if setup.is_mariadb {
        tls_of_mariadb(&mut command, setup, server);
    } else {
        // Older servers have no column statistics, and a dump must not change the GTIDs of the server that loads it.
        command.args(["--column-statistics=0", "--set-gtid-purged=OFF"]);
        tls_of_mysql(&mut command, server);
    }
    if let Some(ca) = &server.tls.ca {
        command.arg("--ssl-ca").arg(ca);
    }
    if let Some(ClientCertificate { certificate, key }) = &server.tls.client {
        command.arg("--ssl-cert").arg(certificate).arg("--ssl-key").arg(key);
    }
    command.args(["--databases", "--"]).args(&setup.databases);
    command
}

/// MariaDB's program has no option for "TLS where the server offers it", so the options follow what moveout's own
/// session got.
fn tls_of_mariadb(command: &mut Command, setup: &Setup, server: &Database) {
    if !setup.has_tls {
        command.arg("--skip-ssl");
        return;
    }
    command.arg("--ssl");
    command.arg(match server.tls.mode {
        TlsMode::VerifyCa | TlsMode::VerifyFull => "--ssl-verify-server-cert",
        TlsMode::Disable | TlsMode::Prefer | TlsMode::Require => "--skip-ssl-verify-server-cert",
    });
}

fn tls_of_mysql(command: &mut Command, server: &Database) {
    let mode = match server.tls.mode {
        TlsMode::Disable => "DISABLED",
        TlsMode::Prefer => "PREFERRED",
        TlsMode::Require => "REQUIRED",
        TlsMode::VerifyCa => "VERIFY_CA",
        TlsMode::VerifyFull => "VERIFY_IDENTITY",
    };
    command.arg(format!("--ssl-mode={mode}"));
    match &server.server_key {
        Some(ServerKey::File(path)) => drop(command.arg("--server-public-key-path").arg(path)),
        Some(ServerKey::Fetch) => drop(command.arg("--get-server-public-key")),
        None => {}
    }
}
