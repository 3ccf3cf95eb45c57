//! Finds out which InfluxDB is at an address, and chooses how it is read: InfluxDB 3 by Flight if gRPC passes, everything
//! else by `/query`.

pub(in crate::source) mod bounds;
pub(in crate::source) mod budget;
pub(crate) mod cloud;
pub(crate) mod core;
pub(in crate::source) mod counts;
pub(in crate::source) mod databases;
pub(crate) mod errors;
pub(crate) mod flight;
pub(crate) mod http;
mod http_query;
pub(in crate::source) mod influxdb3;
pub mod influxql;
pub(crate) mod metadata;
pub mod points;
pub(in crate::source) mod sql;

use std::sync::Arc;
use std::time::Duration;

use self::budget::Budget;
use self::cloud::{Cloud, Storage};
use self::flight::{Client, Flight};
use self::http::Server;
use self::http_query::HttpQuery;
use self::influxdb3::{InfluxDb3, Product, Transport};
use self::influxql::InfluxQl;
use crate::config::{InfluxDb, Limits, QuotaChoice, Select, SourceSpec, Version};
use crate::error::{Class, Error, Result};
use crate::model::Quota;
use crate::source::Source;

/// The window of Serverless's quota.
const QUOTA_WINDOW: Duration = Duration::from_secs(300);
/// The bytes of the free plan, which are assumed if the token may not see the limits.
const FREE_PLAN: u64 = 300_000_000;

/// The domain of Serverless and Cloud TSM.
const CLOUD: &str = ".cloud2.influxdata.com";

/// What was found at an address.
enum Detected {
    /// 1.x, or 2.x and Cloud TSM, which have buckets.
    InfluxQl { has_buckets: bool },
    /// A product of InfluxDB 3, and the name that it gives itself.
    Three(Product, String),
}

/// Asks the server what it is and opens it accordingly.
pub(super) async fn open(
    spec: &SourceSpec,
    influxdb: &InfluxDb,
    limits: &Limits,
) -> Result<Arc<dyn Source>> {
    let InfluxDb { base, version, quota, prices, .. } = influxdb;
    let server = Server::new(influxdb, limits.idle_timeout)?;
    // A token that may read a named database is not necessarily allowed to see its organization.
    let named = !spec.select.databases.is_empty();
    match detect(&server, *version, named).await? {
        Detected::InfluxQl { has_buckets } => {
            let (name, select) = (spec.name.clone(), spec.select.clone());
            Ok(Arc::new(InfluxQl::new(name, server, select, has_buckets)))
        }
        Detected::Three(product, version) => {
            let mut warnings = Vec::new();
            let in_cloud = base.host_str().is_some_and(|host| host.ends_with(CLOUD));
            let quota = choose_quota(quota, &product, in_cloud, &mut warnings).await?;
            let quota = quota.map(|quota| quota.divided(limits.quota_parts));
            let budget = Arc::new(Budget::new(quota));
            let client = Client::new(influxdb, limits.concurrency, limits.idle_timeout)?;
            let transport: Box<dyn Transport> = match client.probe_grpc().await? {
                None => {
                    let is_core = matches!(product, Product::Core);
                    Box::new(Flight::new(client, Arc::clone(&budget), is_core))
                }
                // In the cloud, /query maps a name to any bucket. Without the right to see the organization, nobody
                // knows to which.
                Some(why) if in_cloud && matches!(product, Product::Dedicated) => {
                    return Err(Error::stop(format!(
                        "gRPC does not pass to {} ({why}), and this token may not see which bucket /query would \
                         read",
                        server.address()
                    ))
                    .hint("let HTTP/2 pass, or use a token that may read its organization and its mappings"));
                }
                Some(why) => {
                    warnings.push(format!(
                        "gRPC does not pass to {} ({why}): its rows are read by /query, which is slower and may \
                         write -0 as 0; let HTTP/2 pass to read them by Flight",
                        server.address()
                    ));
                    let budget = Arc::clone(&budget);
                    Box::new(HttpQuery::open(server.clone(), budget, &product).await?)
                }
            };
            Ok(Arc::new(InfluxDb3 {
                name: spec.name.clone(),
                version,
                product,
                server,
                select: spec.select.clone(),
                budget,
                prices: *prices,
                warnings,
                transport,
            }))
        }
    }
}

/// What matters of a server to those who write to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Generation {
    /// 1.x: databases with retention policies.
    One,
    /// 2.x and Cloud TSM: buckets.
    Two,
    /// InfluxDB 3: databases.
    Three,
}

/// Asks the server which generation it is, and what it calls itself.
pub(crate) async fn generation(
    server: &Server,
    wanted: Option<Version>,
) -> Result<(Generation, String)> {
    Ok(match detect(server, wanted, true).await? {
        Detected::InfluxQl { has_buckets } => {
            let ping = server.ping().await?;
            let version = format!("InfluxDB {} {}", ping.version, ping.build);
            let generation = if has_buckets { Generation::Two } else { Generation::One };
            (generation, version.trim_end().to_owned())
        }
        Detected::Three(_, version) => (Generation::Three, version),
    })
}

/// Whether a database is exported if the server lists it.
pub(super) fn takes_database(select: &Select, name: &str) -> bool {
    databases::is_selected(select, name, name == databases::INTERNAL)
}

async fn detect(server: &Server, wanted: Option<Version>, named: bool) -> Result<Detected> {
    if let Some(version @ (Version::One | Version::Two)) = wanted {
        return Ok(Detected::InfluxQl { has_buckets: version == Version::Two });
    }
    let ping = server.ping().await?;
    let number = ping.version.trim_start_matches('v');
    let called = |what: &str| format!("InfluxDB {what}").trim_end().to_owned();
    match (number.split('.').next().unwrap_or_default(), ping.build.as_str()) {
        (version @ ("1" | "2"), _) if wanted.is_none() => {
            return Ok(Detected::InfluxQl { has_buckets: version == "2" });
        }
        ("3", build @ ("Core" | "Enterprise")) => {
            let version = called(&format!("{} {build}", ping.version));
            return Ok(Detected::Three(Product::Core, version));
        }
        _ => {}
    }
    // This is a cloud, whose organization, and not its host, shows how it stores data.
    let organization = match cloud::organization(server).await {
        Err(error) if error.class() == Class::Stop && named => None,
        other => other?,
    };
    match organization {
        Some((org, Storage::Iox)) => {
            let cloud = Cloud::new(server.clone(), org);
            Ok(Detected::Three(Product::Serverless(Box::new(cloud)), called("Cloud Serverless")))
        }
        Some((_, Storage::Tsm)) if wanted == Some(Version::Three) => {
            Err(Error::stop(format!("{} is InfluxDB Cloud (TSM), which has no Flight", server.address()))
                .hint("name it influxdb2+https://…, or influxdb+https://…"))
        }
        Some((_, Storage::Tsm)) => Ok(Detected::InfluxQl { has_buckets: true }),
        None if number.starts_with('3') || ping.build == "cloud2" || wanted.is_some() => {
            let version = called(&format!("{} {}", ping.version, ping.build));
            Ok(Detected::Three(Product::Dedicated, version))
        }
        None if ping.version.is_empty() => {
            Err(Error::stop(format!("{} does not identify itself as an InfluxDB", server.address())).hint(
                "check the host and port; is there a proxy before it? influxdb1+, influxdb2+ and influxdb3+ name its \
                 version",
            ))
        }
        None => Err(Error::stop(format!(
            "{} is InfluxDB {} {}, which this version of moveout cannot read",
            server.address(),
            ping.version,
            ping.build
        ))),
    }
}

async fn choose_quota(
    choice: &QuotaChoice,
    product: &Product,
    in_cloud: bool,
    warnings: &mut Vec<String>,
) -> Result<Option<Quota>> {
    let mut free_plan = || {
        warnings.push(
            "the token may not read the limits of its organization, so the free plan's 300 MB in 5 minutes are \
             assumed; if others hold, set `quota` in the configuration"
                .to_owned(),
        );
        Some(Quota { bytes: FREE_PLAN, window: QUOTA_WINDOW })
    };
    match (choice, product) {
        (QuotaChoice::None, _) => Ok(None),
        (QuotaChoice::Bytes { bytes, window }, _) => {
            Ok(Some(Quota { bytes: *bytes, window: window.unwrap_or(QUOTA_WINDOW) }))
        }
        (QuotaChoice::Ask, Product::Serverless(cloud)) => {
            Ok(match cloud.read_kilobytes().await? {
                Some(0) => None,
                // The documented 300 MB in 5 minutes are 1000 kB a second.
                Some(per_second) => Some(Quota {
                    bytes: per_second.saturating_mul(1000).saturating_mul(QUOTA_WINDOW.as_secs()),
                    window: QUOTA_WINDOW,
                }),
                None => free_plan(),
            })
        }
        (QuotaChoice::Ask, _) if in_cloud => Ok(free_plan()),
        (QuotaChoice::Ask, _) => Ok(None),
    }
}
