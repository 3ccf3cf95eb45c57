//! A real PostgreSQL of its own for a test, of any version that is installed: a free loopback port, a
//! temporary folder, gone on drop. Its one user is [`USER`], by password (SCRAM) and over TCP alone; it
//! syncs nothing and never vacuums by itself.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::server::{self, Certificate, PASSWORD, Server, USER};

/// What is not as it is by default.
#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    /// Takes connections with TLS alone; the certificate is for these names, as in
    /// `IP:127.0.0.1,DNS:localhost`.
    pub(crate) tls: Option<&'static str>,
    /// Lines of `pg_hba.conf` before the usual one.
    pub(crate) hba: &'static str,
    /// Settings of the server, as in `("statement_timeout", "1s")`.
    pub(crate) settings: Vec<(&'static str, &'static str)>,
}

/// The running server.
#[derive(Debug)]
pub(crate) struct Postgres {
    // Ended before its folder goes.
    server: Server,
    folder: TempDir,
    programs: PathBuf,
    options: Options,
    certificate: Option<Certificate>,
    port: u16,
}

impl Postgres {
    /// The version that the system has.
    pub(crate) fn start() -> Self {
        Self::start_with(Options::default())
    }

    pub(crate) fn start_with(options: Options) -> Self {
        Self::start_of(programs(), options)
    }

    /// A version of [`versions`]. Where it is not installed, that is said, and the test shall pass.
    pub(crate) fn start_version(version: u32) -> Option<Self> {
        Self::start_version_with(version, Options::default())
    }

    pub(crate) fn start_version_with(version: u32, options: Options) -> Option<Self> {
        match versions().remove(&version) {
            Some(programs) => Some(Self::start_of(programs, options)),
            None => server::skipped(&format!("PostgreSQL {version}")),
        }
    }

    fn start_of(programs: PathBuf, options: Options) -> Self {
        let folder = server::folder("postgres-");
        let password = folder.path().join("password");
        fs::write(&password, PASSWORD).unwrap();
        let mut initdb = server::unprivileged(programs.join("initdb"), &folder);
        initdb.args(["--no-sync", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8"]);
        initdb.args(["--username", USER, "--pgdata", "data", "--pwfile", "password"]);
        server::run(initdb);
        let kind = if options.tls.is_some() { "hostssl" } else { "host" };
        let hba = format!("{}{kind} all all 127.0.0.1/32 scram-sha-256\n", options.hba);
        fs::write(folder.path().join("data/pg_hba.conf"), hba).unwrap();
        let certificate = options.tls.map(|names| server::certificate(&folder, names));
        let (server, port) = server::on_free_port(|port| {
            launch(&programs, &folder, &options, certificate.as_ref(), port)
        });
        Self { server, folder, programs, options, certificate, port }
    }

    /// Its address as a source.
    pub(crate) fn url(&self, database: &str) -> String {
        server::url("postgres", self.port, database)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn password(&self) -> &'static str {
        PASSWORD
    }

    /// The certificate of who signed the server's, where it has TLS.
    pub(crate) fn authority(&self) -> Option<&Path> {
        self.certificate.as_ref().map(|certificate| certificate.authority.as_path())
    }

    /// The certificate and the key of a client, signed by [`Postgres::authority`].
    pub(crate) fn client_certificate(&self, name: &str) -> (PathBuf, PathBuf) {
        server::client_certificate(&self.folder, name)
    }

    /// Runs SQL by `psql`, which stops at the first error, and is then a panic. Returns the rows, one a
    /// line, `|` between the columns, null as nothing.
    #[track_caller]
    pub(crate) fn sql(&self, database: &str, text: &str) -> String {
        self.try_sql(database, text).unwrap_or_else(|error| panic!("{text:.200}: {error}"))
    }

    /// The same, with the server's complaint as an error.
    pub(crate) fn try_sql(&self, database: &str, text: &str) -> Result<String, String> {
        server::feed(self.client(database), text)
    }

    /// A `psql` that reads its commands from standard input, to be changed further.
    pub(crate) fn client(&self, database: &str) -> Command {
        let mut psql = server::clean("psql", &self.folder);
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1"]);
        psql.args(["-p", &self.port.to_string(), "-U", USER, "-d", database, "-f", "-"]);
        psql.env("PGPASSWORD", PASSWORD);
        psql.env("PGSSLMODE", if self.options.tls.is_some() { "require" } else { "disable" });
        psql
    }

    /// Ends the sessions of all clients; returns how many there were.
    pub(crate) fn kill_connections(&self) -> usize {
        let kill = "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity
                    WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
        self.sql("postgres", kill).parse().unwrap()
    }

    /// Ends it at once and starts it again on the same port with the same data.
    pub(crate) fn restart(&mut self) {
        self.stop();
        let certificate = self.certificate.as_ref();
        let started = launch(&self.programs, &self.folder, &self.options, certificate, self.port);
        self.server = started.unwrap_or_else(|log| panic!("{log}"));
    }

    /// Ends it at once, and all sessions with it; [`Postgres::restart`] starts it again.
    pub(crate) fn stop(&mut self) {
        self.server.stop();
    }
}

fn launch(
    programs: &Path,
    folder: &TempDir,
    options: &Options,
    certificate: Option<&Certificate>,
    port: u16,
) -> Result<Server, String> {
    let mut postgres = server::unprivileged(programs.join("postgres"), folder);
    postgres.args(["-D", "data", "-p", &port.to_string()]);
    let mut set = |name: &str, value: &str| {
        postgres.arg("-c").arg(format!("{name}={value}"));
    };
    for (name, value) in [
        ("listen_addresses", "127.0.0.1"),
        ("unix_socket_directories", ""),
        ("fsync", "off"),
        ("full_page_writes", "off"),
        ("wal_level", "minimal"),
        ("max_wal_senders", "0"),
        ("autovacuum", "off"),
        ("jit", "off"),
        ("timezone", "UTC"),
        ("logging_collector", "off"),
    ] {
        set(name, value);
    }
    if let Some(Certificate { authority, certificate, key }) = certificate {
        set("ssl", "on");
        set("ssl_cert_file", certificate.to_str().unwrap());
        set("ssl_key_file", key.to_str().unwrap());
        set("ssl_ca_file", authority.to_str().unwrap());
    }
    for (name, value) in &options.settings {
        set(name, value);
    }
    // SIGKILL would leave its children behind.
    let ready = |log: &str| log.contains("system is ready to accept connections").then_some(());
    Server::start(postgres, &folder.path().join("log"), "QUIT", ready).map(|(server, ())| server)
}

/// Where the newest server's programs are that the system has.
fn programs() -> PathBuf {
    let newest = system().max_by_key(|(version, _)| *version);
    newest.expect("PostgreSQL is not installed: run .ci/setup").1
}

/// The versions that are installed, by the system or by `.ci/servers`, and where their programs are.
pub(crate) fn versions() -> BTreeMap<u32, PathBuf> {
    let other = server::installed().into_iter().filter_map(|(name, folder)| {
        let version = name.strip_prefix("postgres-")?.parse().ok()?;
        Some((version, folder.join("bin")))
    });
    other.chain(system()).collect()
}

/// Debian keeps the programs out of `PATH`.
fn system() -> impl Iterator<Item = (u32, PathBuf)> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    versions.filter_map(|entry| {
        let entry = entry.ok()?;
        Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin")))
    })
}
