//! A real MariaDB or MySQL of its own for a test: a free loopback port, a temporary folder, gone on drop.
//! Its one user is [`USER`], by password.

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
    /// Keeps a binary log, so that the server has a position.
    pub(crate) binlog: bool,
    /// Settings of the server, as in `("net-write-timeout", "1")`.
    pub(crate) settings: Vec<(&'static str, &'static str)>,
}

/// Which of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flavour {
    /// The MariaDB of the system.
    System,
    /// A newer MariaDB, by `.ci/servers`.
    Newer,
    /// A MySQL, by `.ci/servers`. It always takes TLS, with a certificate of its own; its users log in by
    /// `caching_sha2_password`.
    MySql,
}

impl Flavour {
    pub(crate) const ALL: [Self; 3] = [Self::System, Self::Newer, Self::MySql];

    /// The folder of `.ci/servers`, where it comes from there: `None` where it is not installed.
    fn folder(self) -> Option<PathBuf> {
        match self {
            Self::System => None,
            Self::Newer => server::installed().remove("mariadb"),
            Self::MySql => server::installed().remove("mysql"),
        }
    }

    pub(crate) fn is_here(self) -> bool {
        self == Self::System || self.folder().is_some()
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::System => "MariaDB",
            Self::Newer => "newer MariaDB",
            Self::MySql => "MySQL",
        }
    }
}

/// Starts a MySQL, which is [`MariaDb`] in all else.
pub(crate) struct MySql;

impl MySql {
    /// Where it is not installed, that is said, and the test shall pass.
    pub(crate) fn start() -> Option<MariaDb> {
        Self::start_with(Options::default())
    }

    pub(crate) fn start_with(options: Options) -> Option<MariaDb> {
        MariaDb::start_flavour(Flavour::MySql, options)
    }
}

/// The running server.
#[derive(Debug)]
pub(crate) struct MariaDb {
    // Ended before its folder goes.
    server: Server,
    setup: Setup,
    port: u16,
}

/// What it takes to start it.
#[derive(Debug)]
struct Setup {
    folder: TempDir,
    flavour: Flavour,
    /// Of a flavour that `.ci/servers` installed.
    installed: Option<PathBuf>,
    options: Options,
    certificate: Option<Certificate>,
}

impl MariaDb {
    pub(crate) fn start() -> Self {
        Self::start_with(Options::default())
    }

    pub(crate) fn start_with(options: Options) -> Self {
        Self::start_of(Flavour::System, None, options)
    }

    /// Where it is not installed, that is said, and the test shall pass.
    pub(crate) fn start_flavour(flavour: Flavour, options: Options) -> Option<Self> {
        let folder = flavour.folder();
        if folder.is_none() && flavour != Flavour::System {
            return server::skipped(flavour.name());
        }
        Some(Self::start_of(flavour, folder, options))
    }

    fn start_of(flavour: Flavour, installed: Option<PathBuf>, options: Options) -> Self {
        let folder = server::folder("mariadb-");
        let data = folder.path().join("data");
        server::run(match &installed {
            None => {
                let mut install = server::unprivileged("mariadb-install-db", &folder);
                install.arg("--no-defaults").arg(format!("--datadir={}", data.display()));
                // A server that starts removes the temporary tables of others from the folder that it shares.
                install.arg(format!("--tmpdir={}", folder.path().display()));
                install.args([
                    "--skip-test-db",
                    "--skip-name-resolve",
                    "--innodb-log-file-size=16M",
                ]);
                install.arg("--auth-root-authentication-method=normal");
                install
            }
            Some(installed) => {
                let mut copy = server::unprivileged("cp", &folder);
                copy.arg("-r").arg(installed.join("data")).arg(&data);
                copy
            }
        });
        let password = PASSWORD.replace('\'', "''");
        let others = match flavour {
            Flavour::MySql => "DROP USER IF EXISTS root@localhost;",
            _ => "DELETE FROM mysql.global_priv WHERE User IN ('', 'root');\nFLUSH PRIVILEGES;",
        };
        let users = format!(
            "{others}
CREATE USER IF NOT EXISTS '{USER}'@'127.0.0.1' IDENTIFIED BY '{password}';
GRANT ALL ON *.* TO '{USER}'@'127.0.0.1' WITH GRANT OPTION;
"
        );
        fs::write(folder.path().join("users.sql"), users).unwrap();
        let certificate = options.tls.map(|names| server::certificate(&folder, names));
        let setup = Setup { folder, flavour, installed, options, certificate };
        let (server, port) = server::on_free_port(|port| setup.launch(port));
        Self { server, setup, port }
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
        self.setup.certificate.as_ref().map(|certificate| certificate.authority.as_path())
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
        let mut mariadb = server::clean("mariadb", &self.setup.folder);
        mariadb.args(["--no-defaults", "--batch", "--skip-column-names", "--protocol=TCP"]);
        mariadb.args(["--default-character-set=utf8mb4", "--host=127.0.0.1", "--user", USER]);
        mariadb.arg(format!("--port={}", self.port)).env("MYSQL_PWD", PASSWORD);
        if let Some(authority) = self.authority() {
            mariadb.arg("--ssl-ca").arg(authority);
        } else if self.setup.flavour == Flavour::MySql {
            mariadb.arg("--ssl");
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
        self.server = self.setup.launch(self.port).unwrap_or_else(|log| panic!("{log}"));
    }

    /// Kills it, as a crash would; [`MariaDb::restart`] starts it again.
    pub(crate) fn stop(&mut self) {
        self.server.stop();
    }
}

impl Setup {
    fn launch(&self, port: u16) -> Result<Server, String> {
        let program = match &self.installed {
            None => PathBuf::from("/usr/sbin/mariadbd"),
            Some(installed) => installed.join("server"),
        };
        let mut command = server::unprivileged(program, &self.folder);
        let root = self.folder.path().to_str().unwrap();
        command.arg("--no-defaults");
        let mut set = |name: &str, value: &str| {
            command.arg(format!("--{name}={value}"));
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
            ("innodb-buffer-pool-size", "64M"),
            // Written at each commit, so that a kill loses nothing; synced never.
            ("innodb-flush-log-at-trx-commit", "2"),
            ("innodb-flush-method", "nosync"),
            ("max-allowed-packet", "256M"),
        ] {
            set(name, value);
        }
        if let Some(installed) = self.installed.as_ref().and_then(|path| path.to_str()) {
            let messages = if self.flavour == Flavour::MySql { "mysql" } else { "mariadb" };
            set("basedir", &format!("{installed}/usr"));
            set("plugin-dir", &format!("{installed}/usr/lib/mysql/plugin"));
            set("lc-messages-dir", &format!("{installed}/usr/share/{messages}"));
        }
        match self.flavour {
            Flavour::MySql => {
                set("innodb-redo-log-capacity", "32M");
                set("mysqlx", "off");
                set("secure-file-priv", root);
            }
            _ => set("innodb-log-file-size", "16M"),
        }
        match self.options.binlog {
            true => set("log-bin", "binlog"),
            false => set("skip-log-bin", "on"),
        }
        set("server-id", "1");
        if let Some(Certificate { authority, certificate, key }) = &self.certificate {
            set("ssl-ca", authority.to_str().unwrap());
            set("ssl-cert", certificate.to_str().unwrap());
            set("ssl-key", key.to_str().unwrap());
            set("require-secure-transport", "on");
        }
        for (name, value) in &self.options.settings {
            set(name, value);
        }
        let ready = |log: &str| log.contains("ready for connections").then_some(());
        let log = self.folder.path().join("log");
        Server::start(command, &log, "KILL", ready).map(|(server, ())| server)
    }
}
