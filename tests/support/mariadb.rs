//! A real MariaDB of its own for a test: a free loopback port, a temporary folder, gone on drop. Its one
//! user is [`USER`], by password.

use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::server::{self, Certificate, PASSWORD, Server, USER};

/// What is not as it is by default.
#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    /// Takes connections with TLS alone; the certificate is for these names, as in
    /// `IP:127.0.0.1,DNS:localhost`.
    pub(crate) tls: Option<&'static str>,
    /// Keeps a binary log, so that the server has a position.
    pub(crate) binlog: bool,
    /// Settings of the server, as in `("net-write-timeout", "1")`.
    pub(crate) settings: Vec<(&'static str, &'static str)>,
}

/// The running server.
#[derive(Debug)]
pub(crate) struct MariaDb {
    // Ended before its folder goes.
    server: Server,
    folder: TempDir,
    options: Options,
    certificate: Option<Certificate>,
    port: u16,
}

impl MariaDb {
    pub(crate) fn start() -> Self {
        Self::start_with(Options::default())
    }

    pub(crate) fn start_with(options: Options) -> Self {
        let folder = server::folder("mariadb-");
        let mut install = server::unprivileged("mariadb-install-db", &folder);
        let data = folder.path().join("data");
        install.arg("--no-defaults").arg(format!("--datadir={}", data.display()));
        // A server that starts removes the temporary tables of others from the folder that it shares.
        install.arg(format!("--tmpdir={}", folder.path().display()));
        install.args(["--skip-test-db", "--skip-name-resolve"]);
        install.args(["--auth-root-authentication-method=normal", "--innodb-log-file-size=16M"]);
        server::run(install);
        let password = PASSWORD.replace('\'', "''");
        let users = format!(
            "DELETE FROM mysql.global_priv WHERE User IN ('', 'root');
FLUSH PRIVILEGES;
CREATE USER IF NOT EXISTS '{USER}'@'127.0.0.1' IDENTIFIED BY '{password}';
GRANT ALL ON *.* TO '{USER}'@'127.0.0.1' WITH GRANT OPTION;
"
        );
        fs::write(folder.path().join("users.sql"), users).unwrap();
        let certificate = options.tls.map(|names| server::certificate(&folder, names));
        let (server, port) =
            server::on_free_port(|port| launch(&folder, &options, certificate.as_ref(), port));
        Self { server, folder, options, certificate, port }
    }

    /// Its address as a source.
    pub(crate) fn url(&self, database: &str) -> String {
        server::url("mysql", self.port, database)
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

    /// Runs SQL by the `mariadb` client, which stops at the first error, and is then a panic. Returns the
    /// rows, one a line, a tab between the columns, `NULL` for null; line feeds, tabs, NUL and `\` in
    /// values are escaped. An empty name is no database.
    #[track_caller]
    pub(crate) fn sql(&self, database: &str, text: &str) -> String {
        self.try_sql(database, text).unwrap_or_else(|error| panic!("{text:.200}: {error}"))
    }

    /// The same, with the server's complaint as an error.
    pub(crate) fn try_sql(&self, database: &str, text: &str) -> Result<String, String> {
        server::feed(self.client(database), text)
    }

    /// A `mariadb` that reads its commands from standard input, to be changed further.
    pub(crate) fn client(&self, database: &str) -> Command {
        let mut mariadb = server::clean("mariadb", &self.folder);
        mariadb.args(["--no-defaults", "--batch", "--skip-column-names", "--protocol=TCP"]);
        mariadb.args(["--default-character-set=utf8mb4", "--host=127.0.0.1", "--user", USER]);
        mariadb.arg(format!("--port={}", self.port)).env("MYSQL_PWD", PASSWORD);
        if let Some(authority) = self.authority() {
            mariadb.arg("--ssl-ca").arg(authority);
        }
        mariadb.args((!database.is_empty()).then_some(database));
        mariadb
    }

    /// Ends the connections of all clients; returns how many there were.
    pub(crate) fn kill_connections(&self) -> usize {
        let others = format!(
            "SELECT id FROM information_schema.processlist
             WHERE user = '{USER}' AND id <> connection_id()"
        );
        let ids = self.sql("", &others);
        // One that has gone meanwhile is an error.
        ids.lines().filter(|id| self.try_sql("", &format!("KILL {id}")).is_ok()).count()
    }

    /// Kills it and starts it again on the same port with the same data.
    pub(crate) fn restart(&mut self) {
        self.stop();
        let certificate = self.certificate.as_ref();
        let started = launch(&self.folder, &self.options, certificate, self.port);
        self.server = started.unwrap_or_else(|log| panic!("{log}"));
    }

    /// Kills it, as a crash would; [`MariaDb::restart`] starts it again.
    pub(crate) fn stop(&mut self) {
        self.server.stop();
    }
}

fn launch(
    folder: &TempDir,
    options: &Options,
    certificate: Option<&Certificate>,
    port: u16,
) -> Result<Server, String> {
    let mut mariadbd = server::unprivileged("/usr/sbin/mariadbd", folder);
    let root = folder.path().to_str().unwrap();
    mariadbd.arg("--no-defaults");
    let mut set = |name: &str, value: &str| {
        mariadbd.arg(format!("--{name}={value}"));
    };
    for (name, value) in [
        ("bind-address", "127.0.0.1"),
        ("datadir", &format!("{root}/data")),
        ("tmpdir", root),
        ("socket", &format!("{root}/socket")),
        ("pid-file", &format!("{root}/pid")),
        ("init-file", &format!("{root}/users.sql")),
        ("port", &port.to_string()),
        ("skip-name-resolve", "on"),
        ("character-set-server", "utf8mb4"),
        ("innodb-log-file-size", "16M"),
        ("innodb-buffer-pool-size", "64M"),
        // Written at each commit, so that a kill loses nothing; synced never.
        ("innodb-flush-log-at-trx-commit", "2"),
        ("innodb-flush-method", "nosync"),
        ("max-allowed-packet", "256M"),
    ] {
        set(name, value);
    }
    if options.binlog {
        set("log-bin", "binlog");
        set("server-id", "1");
    }
    if let Some(Certificate { authority, certificate, key }) = certificate {
        set("ssl-ca", authority.to_str().unwrap());
        set("ssl-cert", certificate.to_str().unwrap());
        set("ssl-key", key.to_str().unwrap());
        set("require-secure-transport", "on");
    }
    for (name, value) in &options.settings {
        set(name, value);
    }
    let ready = |log: &str| log.contains("ready for connections").then_some(());
    Server::start(mariadbd, &folder.path().join("log"), "KILL", ready).map(|(server, ())| server)
}
