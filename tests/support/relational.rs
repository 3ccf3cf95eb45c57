//! The relational servers that are installed here, whatever their product and version, behind one face.

use std::process::Command;

use super::mariadb::{self, Flavour, MariaDb};
use super::postgres::{self, Postgres};
use super::server;

/// A product in a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Postgres(u32),
    MySql(Flavour),
}

impl Kind {
    /// Those that the tests want, installed or not.
    pub(crate) fn wanted() -> Vec<Self> {
        let postgres = [13, 15, 16, 17, 18].map(Self::Postgres);
        postgres.into_iter().chain(Flavour::ALL.map(Self::MySql)).collect()
    }

    /// All that are installed here.
    pub(crate) fn all() -> Vec<Self> {
        let postgres = postgres::versions().into_keys().map(Self::Postgres);
        let mysql = Flavour::ALL.into_iter().filter(|flavour| flavour.is_here()).map(Self::MySql);
        postgres.chain(mysql).collect()
    }

    pub(crate) fn name(self) -> String {
        match self {
            Self::Postgres(version) => format!("PostgreSQL {version}"),
            Self::MySql(flavour) => flavour.name().to_owned(),
        }
    }

    /// Starts one that is installed. PostgreSQL and MySQL take the same settings by other names.
    pub(crate) fn start(self) -> Option<Relational> {
        self.start_with(&[])
    }

    pub(crate) fn start_with(
        self,
        settings: &[(&'static str, &'static str)],
    ) -> Option<Relational> {
        let settings = settings.to_vec();
        match self {
            Self::Postgres(version) => {
                let options = postgres::Options { settings, ..postgres::Options::default() };
                Postgres::start_version_with(version, options).map(Relational::Postgres)
            }
            Self::MySql(flavour) => {
                let options = mariadb::Options { settings, ..mariadb::Options::default() };
                MariaDb::start_flavour(flavour, options).map(Relational::MySql)
            }
        }
    }
}

/// The running server.
#[derive(Debug)]
pub(crate) enum Relational {
    Postgres(Postgres),
    MySql(MariaDb),
}

impl Relational {
    /// Its address as a source.
    pub(crate) fn url(&self, database: &str) -> String {
        match self {
            Self::Postgres(server) => server.url(database),
            Self::MySql(server) => server.url(database),
        }
    }

    /// Gives a command the password of that address.
    pub(crate) fn authorize(&self, command: &mut Command) {
        command.env("PGPASSWORD", server::PASSWORD).env("MYSQL_PWD", server::PASSWORD);
    }

    pub(crate) fn port(&self) -> u16 {
        match self {
            Self::Postgres(server) => server.port(),
            Self::MySql(server) => server.port(),
        }
    }

    /// Runs SQL; returns the rows, one a line. An empty name is the server's own database, or none.
    #[track_caller]
    pub(crate) fn sql(&self, database: &str, text: &str) -> String {
        match self {
            Self::Postgres(server) if database.is_empty() => server.sql("postgres", text),
            Self::Postgres(server) => server.sql(database, text),
            Self::MySql(server) => server.sql(database, text),
        }
    }

    /// The same, or what the client said.
    pub(crate) fn try_sql(&self, database: &str, text: &str) -> Result<String, String> {
        match self {
            Self::Postgres(server) if database.is_empty() => server.try_sql("postgres", text),
            Self::Postgres(server) => server.try_sql(database, text),
            Self::MySql(server) => server.try_sql(database, text),
        }
    }

    /// Kills it and starts it again on the same port with the same data.
    pub(crate) fn restart(&mut self) {
        match self {
            Self::Postgres(server) => server.restart(),
            Self::MySql(server) => server.restart(),
        }
    }

    /// Ends the connections of all clients; returns how many there were.
    pub(crate) fn kill_connections(&self) -> usize {
        match self {
            Self::Postgres(server) => server.kill_connections(),
            Self::MySql(server) => server.kill_connections(),
        }
    }
}
