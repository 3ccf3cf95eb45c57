//! PURE: what an account has on Aptible, as the CLI lists it.

use serde::Deserialize;
use serde_json::Value;

/// An environment.
#[derive(Debug, Deserialize)]
pub(crate) struct Environment {
    pub(super) handle: String,
}

/// A database in `db:list`. One in RDS has only its handle.
#[derive(Debug, Deserialize)]
pub(crate) struct Listed {
    pub(super) handle: String,
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
    pub(super) version: Option<String>,
    pub(super) status: Option<String>,
    pub(super) environment: Environment,
    #[serde(default)]
    pub(super) credentials: Vec<Credential>,
    /// The size of its disk in gigabytes.
    pub(super) disk_size: Option<u64>,
}

/// One of the credentials of a database. The address and the password are not read here: the tunnel prints them.
#[derive(Debug, Deserialize)]
pub(crate) struct Credential {
    #[serde(rename = "type")]
    pub(super) kind: String,
}

/// A backup of a database, which may be gone.
#[derive(Debug, Deserialize)]
pub(crate) struct Backup {
    pub(super) id: Value,
    pub(super) created_at: String,
    pub(super) size: Option<f64>,
    pub(super) database: Option<Deleted>,
}

/// A database that was deprovisioned.
#[derive(Debug, Deserialize)]
pub(crate) struct Deleted {
    pub(super) handle: String,
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
    pub(super) deleted_at: Option<String>,
    pub(super) environment: Option<Environment>,
}

/// The kind of server of a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Engine {
    Postgres,
    /// MySQL. An old one supports no TLS that moveout does.
    MySql {
        is_old: bool,
    },
    InfluxDb1,
    InfluxDb2,
    Redis,
    MongoDb,
    Elasticsearch,
    RabbitMq,
    CouchDb,
    Sftp,
    Rds,
    Unknown,
}

impl Listed {
    /// Its name in the archive.
    pub(crate) fn name(&self) -> String {
        format!("{}.{}", self.environment.handle, self.handle)
    }

    pub(super) fn engine(&self) -> Engine {
        let version = self.version.as_deref().unwrap_or_default();
        if self.handle.starts_with("aws:rds::") {
            return Engine::Rds;
        }
        match self.kind.as_deref().unwrap_or_default().to_ascii_lowercase().as_str() {
            "postgresql" => Engine::Postgres,
            "mysql" => Engine::MySql { is_old: version.starts_with("5.") },
            "influxdb" if version.starts_with('1') => Engine::InfluxDb1,
            "influxdb" | "influxdb2" if version.starts_with('2') => Engine::InfluxDb2,
            "redis" => Engine::Redis,
            "mongodb" => Engine::MongoDb,
            "elasticsearch" => Engine::Elasticsearch,
            "rabbitmq" => Engine::RabbitMq,
            "couchdb" => Engine::CouchDb,
            "sftp" => Engine::Sftp,
            _ => Engine::Unknown,
        }
    }

    /// Whether it has a credential of this type.
    pub(super) fn has_way(&self, kind: &str) -> bool {
        self.credentials.iter().any(|credential| credential.kind == kind)
    }

    /// The product and its version, for people.
    pub(crate) fn product(&self) -> String {
        let kind = self.kind.as_deref().unwrap_or("RDS");
        match self.version.as_deref() {
            // Some versions contain the name of the product.
            Some(version) if version.starts_with(kind) => version.to_owned(),
            Some(version) => format!("{kind} {version}"),
            None => kind.to_owned(),
        }
    }
}

impl Engine {
    /// How such a database is exported, for people.
    pub(super) fn how(self) -> &'static str {
        match self {
            Self::Postgres | Self::MySql { .. } | Self::InfluxDb1 | Self::InfluxDb2 => "Parquet",
            Self::Redis => "native dump (RDB)",
            Self::MongoDb => "native dump (mongodump)",
            _ => "by hand",
        }
    }
}
