//! A database on Aptible: its tunnel, and the source behind it. The tunnel prints an address without the options of the
//! stored credential, which are added here.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use url::Url;

use crate::config::{
    AptibleAddress, Behind, Binding, Credentials, Database, DumpServer, DumpTls, InfluxDb,
    QuotaChoice, SourceKind, Tls, TlsMode, Version,
};
use crate::error::{Error, Result};
use crate::model::Prices;
use crate::source::aptible::account::{Engine, Listed};
use crate::source::aptible::cli::PROGRAM;
use crate::source::aptible::printed::{Output, Printed};
use crate::source::tunnel::{PATIENCE, Settings, Tunnel};

/// A database, and the way to it.
pub(super) struct AptibleDatabase {
    name: String,
    engine: Engine,
    asked: AptibleAddress,
    output: Arc<Output>,
    tunnel: Arc<Tunnel>,
}

impl AptibleDatabase {
    /// A database whose tunnel is not open yet.
    pub(super) fn new(listed: &Listed, asked: &AptibleAddress) -> Self {
        let engine = listed.engine();
        // Redis has TLS only with its own credential. The default one is as safe within the tunnel.
        let kind = (engine == Engine::Redis && listed.has_way("redis+ssl")).then_some("redis+ssl");
        let output = Arc::<Output>::default();
        let environment = &listed.environment.handle;
        let mut command: Vec<String> = [
            PROGRAM,
            "db:tunnel",
            &listed.handle,
            "--environment",
            environment,
            "--port",
            "{port}",
        ]
        .map(str::to_owned)
        .into();
        if let Some(kind) = kind {
            command.extend(["--type".to_owned(), kind.to_owned()]);
        }
        let tunnel = Arc::new(Tunnel::new(Settings {
            command,
            env: vec![("APTIBLE_OUTPUT_FORMAT".to_owned(), "text".to_owned())],
            host: format!("{environment}/{}", listed.handle),
            port: usual_port(engine),
            patience: PATIENCE,
            program: Arc::clone(&output) as _,
        }));
        let address = format!("aptible:{environment}/{}", listed.handle);
        Self { name: address, engine, asked: asked.clone(), output, tunnel }
    }

    fn relational(&self, printed: Printed, user: String, mode: TlsMode) -> Database {
        Database {
            host: printed.host,
            port: usual_port(self.engine),
            user,
            password: Some(printed.password),
            // The other end of the tunnel was verified when it was opened.
            tls: Tls { mode, ca: None, client: None, binding: Binding::Prefer },
            time_columns: self.asked.time_columns.clone(),
            dump: self.asked.dump,
            lock: self.asked.lock,
            server_key: None,
            tunnel: Some(Arc::clone(&self.tunnel)),
        }
    }

    fn influxdb(&self, printed: Printed, version: Version) -> Result<InfluxDb> {
        let base = Url::parse(&format!("https://{}:{}/", printed.host, printed.port));
        let base = base.map_err(|error| {
            Error::stop(format!("{}: the address of its tunnel: {error}", self.name))
        })?;
        let password = Credentials::Password { user: printed.user, password: printed.password };
        let credentials = match (version, &self.asked.influx_token) {
            (Version::Two, Some(token)) => Credentials::Token(token.clone()),
            _ => password,
        };
        Ok(InfluxDb {
            base,
            credentials,
            version: Some(version),
            quota: QuotaChoice::Ask,
            prices: Prices::default(),
            verify: false,
            tunnel: Some(Arc::clone(&self.tunnel)),
        })
    }

    /// The source behind the address that the tunnel printed.
    fn kind(&self, printed: Printed) -> Result<SourceKind> {
        Ok(match self.engine {
            Engine::Postgres => {
                let user = printed.user.clone();
                SourceKind::Postgres(self.relational(printed, user, TlsMode::Require))
            }
            // `aptible` sees one database; `root`, with the same password, sees all of them.
            Engine::MySql { is_old: false } => {
                SourceKind::MySql(self.relational(printed, "root".to_owned(), TlsMode::Require))
            }
            // It has only cipher suites that moveout does not support. The tunnel itself is encrypted.
            Engine::MySql { is_old: true } => {
                let user = "aptible-nossl".to_owned();
                SourceKind::MySql(self.relational(printed, user, TlsMode::Disable))
            }
            Engine::InfluxDb1 => SourceKind::InfluxDb(self.influxdb(printed, Version::One)?),
            Engine::InfluxDb2 => SourceKind::InfluxDb(self.influxdb(printed, Version::Two)?),
            Engine::Redis => {
                let has_tls = printed.scheme == "rediss";
                SourceKind::Redis(self.dump_server(printed, has_tls, &[]))
            }
            // `aptible` is one user in `db` and another in `admin`; the latter may read everything.
            Engine::MongoDb => {
                let options = [("authSource", "admin"), ("directConnection", "true")];
                SourceKind::MongoDb(self.dump_server(printed, true, &options))
            }
            _ => return Err(Error::fail(format!("{} must be exported by hand", self.name))),
        })
    }

    fn dump_server(&self, printed: Printed, has_tls: bool, options: &[(&str, &str)]) -> DumpServer {
        let name = Some(printed.host.clone());
        let tls = DumpTls { verify: false, ca: None, client: None, name };
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        DumpServer {
            host: printed.host,
            port: usual_port(self.engine),
            user: Some(printed.user).filter(|user| !user.is_empty()),
            password: Some(printed.password).filter(|password| !password.expose().is_empty()),
            tls: has_tls.then_some(tls),
            database: None,
            options: options.iter().map(owned).collect(),
            tunnel: Some(Arc::clone(&self.tunnel)),
        }
    }
}

#[async_trait]
impl Behind for AptibleDatabase {
    async fn found(&self) -> Result<SourceKind> {
        self.tunnel.ready().await?;
        let printed = self.output.printed().ok_or_else(|| {
            Error::stop(format!("the tunnel of {} has not printed its address", self.name))
                .hint("update Aptible's CLI, and moveout")
        })?;
        self.kind(printed)
    }

    fn address(&self) -> &str {
        &self.name
    }
}

impl fmt::Debug for AptibleDatabase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AptibleDatabase({})", self.name)
    }
}

/// A source that cannot be opened and reports why.
#[derive(Debug)]
pub(super) struct Unavailable {
    pub(super) address: String,
    pub(super) error: Error,
}

#[async_trait]
impl Behind for Unavailable {
    async fn found(&self) -> Result<SourceKind> {
        Err(self.error.clone())
    }

    fn address(&self) -> &str {
        &self.address
    }
}

fn usual_port(engine: Engine) -> u16 {
    match engine {
        Engine::Postgres => 5432,
        Engine::MySql { .. } => 3306,
        Engine::Redis => 6379,
        Engine::MongoDb => 27017,
        _ => 8086,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    fn kind(kind: &str, version: &str) -> SourceKind {
        let listed = serde_json::json!({
            "handle": "h", "type": kind, "version": version, "status": "provisioned",
            "environment": {"handle": "e"}, "credentials": [{"type": kind, "connection_url": "a secret"}]
        });
        let listed = serde_json::from_value(listed).unwrap();
        let database = AptibleDatabase::new(&listed, &AptibleAddress::default());
        let printed = Printed {
            scheme: if kind == "redis" { "rediss" } else { kind }.to_owned(),
            host: "localhost.aptible.in".to_owned(),
            port: 4242,
            user: "aptible".to_owned(),
            password: Secret::new("pw"),
        };
        database.kind(printed).unwrap()
    }

    #[test]
    fn each_type_of_database_has_its_own_settings() {
        let relational = |kind: SourceKind| match kind {
            SourceKind::Postgres(database) | SourceKind::MySql(database) => {
                assert!(database.tunnel.is_some() && database.tls.ca.is_none());
                (database.user, database.tls.mode)
            }
            other => panic!("{other:?}"),
        };
        let of = |user: &str, mode| (user.to_owned(), mode);
        assert_eq!(relational(kind("postgresql", "15")), of("aptible", TlsMode::Require));
        assert_eq!(relational(kind("mysql", "8.4")), of("root", TlsMode::Require));
        assert_eq!(relational(kind("mysql", "5.7")), of("aptible-nossl", TlsMode::Disable));
        for (version, expected) in [("1.11", Version::One), ("2.7", Version::Two)] {
            let SourceKind::InfluxDb(influxdb) = kind("influxdb", version) else { panic!() };
            assert_eq!((influxdb.version, influxdb.verify), (Some(expected), false));
            assert_eq!(influxdb.base.as_str(), "https://localhost.aptible.in:4242/");
        }
        for (name, options) in [("redis", 0), ("mongodb", 2)] {
            let (SourceKind::Redis(server) | SourceKind::MongoDb(server)) = kind(name, "4.0")
            else {
                panic!()
            };
            let tls = server.tls.unwrap();
            assert_eq!((tls.verify, tls.name.as_deref()), (false, Some("localhost.aptible.in")));
            assert_eq!((server.options.len(), server.database), (options, None));
            assert!(server.tunnel.is_some());
        }
    }
}
