//! The one list of sources, which turns a configured source into one that can be read.

use std::sync::Arc;

use crate::config::{Limits, SourceKind, SourceSpec};
use crate::error::{Error, Result};
use crate::source::{Source, dump, influxdb, line_protocol, mysql, postgres};

/// Opens a source. If the address does not determine the kind of server, the server is asked.
pub async fn open(spec: &SourceSpec, limits: &Limits) -> Result<Arc<dyn Source>> {
    let name = spec.name.clone();
    Ok(match &spec.kind {
        SourceKind::InfluxDb(influxdb) => influxdb::open(spec, influxdb, limits).await?,
        SourceKind::Postgres(database) => postgres::open(spec, database, limits)?,
        SourceKind::MySql(database) => mysql::open(spec, database, limits)?,
        SourceKind::Redis(server) => dump::open_redis(spec, server, limits),
        SourceKind::MongoDb(server) => dump::open_mongodb(spec, server, limits),
        SourceKind::Program(program) => dump::open_program(spec, program, limits),
        SourceKind::Given(source) => Arc::clone(source),
        SourceKind::Behind(behind) => {
            let spec = SourceSpec { kind: behind.found().await?, ..spec.clone() };
            Box::pin(open(&spec, limits)).await?
        }
        SourceKind::Aptible(_) => {
            return Err(Error::stop("the databases on Aptible have not been listed yet"));
        }
        SourceKind::LineProtocol { file, database, retention_policy, precision } => {
            let select = spec.select.clone();
            let options = line_protocol::Options {
                database: database.clone(),
                retention_policy: retention_policy.clone(),
                precision_nanos: *precision,
                memory_bytes: limits.memory_bytes / 4,
                selects: Arc::new(move |id| {
                    select.takes_database(&id.database)
                        && select.takes_schema(&id.schema)
                        && select.takes_table(&id.table)
                }),
            };
            Arc::new(line_protocol::LineProtocolSource::new(name, file.clone(), options))
        }
    })
}

/// Whether a source exports a database that it lists. The database with an InfluxDB's own records is exported only if it
/// is named.
pub fn takes_database(spec: &SourceSpec, name: &str) -> bool {
    match &spec.kind {
        SourceKind::InfluxDb(_) => influxdb::takes_database(&spec.select, name),
        _ => spec.select.takes_database(name),
    }
}
