//! The only list of targets, which leads from an address to what writes there.

use std::sync::Arc;

use crate::config::{Limits, SourceKind, SourceSpec};
use crate::error::{Error, Result};
use crate::retry::Retry;
use crate::target::{Target, influxdb, mysql, postgres};

/// Opens a target. It asks the server what it is if the address does not say that.
pub async fn open(spec: &SourceSpec, limits: &Limits, retry: &Retry) -> Result<Arc<dyn Target>> {
    match &spec.kind {
        SourceKind::InfluxDb(influxdb) => influxdb::open(spec, influxdb, limits, retry).await,
        SourceKind::Postgres(server) => Ok(postgres::open(spec, server, limits)),
        SourceKind::MySql(server) => Ok(mysql::open(spec, server, limits)),
        SourceKind::Behind(behind) => {
            let spec = SourceSpec { kind: behind.found().await?, ..spec.clone() };
            Box::pin(open(&spec, limits, retry)).await
        }
        _ => Err(Error::usage(format!("this version cannot restore into {}", spec.name)).hint(
            "a target is influxdb+https://HOST[:PORT][/DATABASE], postgres://USER@HOST[:PORT][/DATABASE] or \
             mysql://USER@HOST[:PORT][/DATABASE]",
        )),
    }
}
