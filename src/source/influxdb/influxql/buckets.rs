//! Finds the buckets of 2.x and Cloud TSM that InfluxQL does not show. InfluxQL finds a bucket only by its DBRP mapping,
//! so that one without a mapping would silently be left out.

use std::collections::HashSet;

use crate::error::Result;
use crate::model::{Listing, TableId};
use crate::source::influxdb::cloud;
use crate::source::influxdb::databases;
use crate::source::influxdb::influxql::InfluxQl;
use crate::source::influxdb::influxql::statements::quoted;

/// Stands for every retention policy of a database, or for every table.
const EVERY: &str = "*";

impl InfluxQl {
    /// The tags of a measurement of any bucket: the columns of a row that are no fields. A tag with the name of a field
    /// is the column `NAME_1`.
    pub(super) async fn tags_of(
        &self,
        database: &str,
        policy: &str,
        measurement: &str,
        fields: &HashSet<&str>,
    ) -> Result<Vec<String>> {
        let place = [database, policy, measurement].map(quoted).join(".");
        let answer = self.server.query(&format!("SELECT * FROM {place} LIMIT 1")).await?;
        let series = answer.iter().flat_map(|statement| &statement.series);
        let columns = series.flat_map(|series| &series.columns);
        let tags = columns.filter(|name| *name != "time" && !fields.contains(name.as_str()));
        let key = |name: &String| match name.strip_suffix("_1") {
            Some(field) if fields.contains(field) => field.to_owned(),
            _ => name.clone(),
        };
        Ok(tags.map(key).collect())
    }

    /// Adds each selected bucket that InfluxQL does not show to the unreadable tables. `shown` has the databases and
    /// retention policies that it shows.
    pub(super) async fn add_hidden_buckets(
        &self,
        shown: &HashSet<(String, String)>,
        listing: &mut Listing,
    ) -> Result<()> {
        let address = self.server.address();
        let buckets = match cloud::mapped_buckets(&self.server).await? {
            // A server shows an empty list to credentials without rights.
            Ok(buckets) if buckets.is_empty() => {
                Err("the server shows no bucket to these credentials".to_owned())
            }
            Ok(buckets) => Ok(buckets),
            Err((what, why)) => Err(format!("{what}: {why}")),
        };
        let buckets = match buckets {
            Ok(buckets) => buckets,
            Err(why) => {
                listing.warnings.push(format!(
                    "{address}: there may be more buckets than InfluxQL shows, which finds a bucket only by its DBRP \
                     mapping ({why}): compare the tables with the buckets in the console"
                ));
                return Ok(());
            }
        };
        for bucket in buckets.iter().filter(|bucket| !bucket.is_system) {
            let is_selected = |database: &str, policy: &str| {
                databases::is_selected(&self.select, database, false)
                    && self.select.takes_schema(policy)
            };
            // The names that an automatic mapping would give.
            let (database, policy) =
                bucket.name.split_once('/').unwrap_or((&bucket.name, "autogen"));
            let is_read = |place: &&(String, String)| shown.contains(*place);
            let is_left_out = |place: &(String, String)| !is_selected(&place.0, &place.1);
            if bucket.places.iter().any(|place| is_read(&place) || is_left_out(place))
                || bucket.places.is_empty() && !is_selected(database, policy)
            {
                continue;
            }
            let has_database = shown.iter().any(|(other, _)| other == database);
            let schema = if has_database { policy } else { EVERY };
            let id = TableId {
                source: self.name.clone(),
                database: database.to_owned(),
                schema: schema.to_owned(),
                table: EVERY.to_owned(),
            };
            let why = if bucket.places.is_empty() {
                "has no DBRP mapping, so InfluxQL does not find it"
            } else {
                "has a DBRP mapping, but InfluxQL does not show it"
            };
            listing.unreadable.push((
                id,
                format!(
                    "the bucket `{}` {why}; create a mapping (influx v1 dbrp create --bucket-id {} --db BUCKET --rp \
                     autogen), or leave it out by `exclude`",
                    bucket.name.escape_debug(),
                    bucket.id.escape_debug()
                ),
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;
    use std::time::Duration;

    use super::*;
    use crate::config::{Credentials, InfluxDb, QuotaChoice, Select};
    use crate::model::Prices;
    use crate::source::influxdb::http::Server;

    /// Answers each request by the beginning of its target; 404 to any other. It ends with the process.
    fn serve(answers: &'static [(&'static str, u16, &'static str)]) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                let first = lines.next().unwrap().unwrap();
                while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
                let target = first.split(' ').nth(1).unwrap();
                let known = answers.iter().find(|(start, ..)| target.starts_with(start));
                let (_, status, body) = known.unwrap_or(&("", 404, ""));
                let length = body.len();
                let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n");
                let text = format!("{head}Connection: close\r\n\r\n{body}");
                stream.write_all(text.as_bytes()).unwrap();
            }
        });
        let _ = rustls::crypto::ring::default_provider().install_default();
        let base = format!("http://127.0.0.1:{port}").parse().unwrap();
        let influxdb = InfluxDb {
            base,
            credentials: Credentials::None,
            version: None,
            quota: QuotaChoice::Ask,
            prices: Prices::default(),
            verify: true,
            tunnel: None,
        };
        Server::new(&influxdb, Duration::from_secs(20)).unwrap()
    }

    async fn hidden(server: Server, select: Select, shown: &[(&str, &str)]) -> Listing {
        let source = InfluxQl::new("s".to_owned(), server, select, true);
        let shown = shown.iter().map(|(db, rp)| ((*db).to_owned(), (*rp).to_owned())).collect();
        let mut listing = Listing::default();
        source.add_hidden_buckets(&shown, &mut listing).await.unwrap();
        listing
    }

    const BUCKETS: (&str, u16, &str) = (
        "/api/v2/buckets",
        200,
        r#"{"buckets":[
            {"id":"b1","orgID":"o","name":"mapped","type":"user"},
            {"id":"b2","orgID":"o","name":"lost","type":"user"},
            {"id":"b3","orgID":"o","name":"mapped/week","type":"user"},
            {"id":"b4","orgID":"o","name":"_monitoring","type":"system"},
            {"id":"b5","orgID":"o","name":"renamed","type":"user"}]}"#,
    );
    const MAPPINGS: (&str, u16, &str) = (
        "/api/v2/dbrps?orgID=o",
        200,
        r#"{"content":[
            {"id":"m1","bucketID":"b1","database":"mapped","retention_policy":"autogen"},
            {"id":"m5","bucketID":"b5","database":"other","retention_policy":"rp"}]}"#,
    );

    #[tokio::test]
    async fn the_durations_are_those_of_the_buckets() {
        let buckets = r#"{"buckets":[{"id":"b1","orgID":"o","name":"d","type":"user",
            "retentionRules":[{"everySeconds":90061,"shardGroupDurationSeconds":86400}]},
            {"id":"b2","orgID":"o","name":"cloud","type":"user","retentionRules":[{"everySeconds":0}]}]}"#;
        let mappings = r#"{"content":[
            {"id":"m1","bucketID":"b1","database":"d","retention_policy":"autogen"},
            {"id":"m2","bucketID":"b2","database":"cloud","retention_policy":"autogen"}]}"#;
        let server = serve(Vec::leak(vec![
            ("/api/v2/buckets", 200, buckets),
            ("/api/v2/dbrps?orgID=o", 200, mappings),
        ]));
        let durations = cloud::durations(&server).await.unwrap().unwrap();
        let expected = ("25h1m1s".to_owned(), "24h0m0s".to_owned());
        assert_eq!(durations.get(&("d".to_owned(), "autogen".to_owned())), Some(&expected));
        assert_eq!(durations.len(), 1, "what a server does not say is not made up");
    }

    #[tokio::test]
    async fn a_bucket_without_a_mapping_is_named_with_the_remedy() {
        let shown = [("mapped", "autogen"), ("other", "rp")];
        let server = serve(&[BUCKETS, MAPPINGS]);
        let listing = hidden(server.clone(), Select::default(), &shown).await;
        let names: Vec<_> = listing.unreadable.iter().map(|(id, _)| id.to_string()).collect();
        assert_eq!(names, ["lost.*.*", "mapped.week.*"], "{:?}", listing.unreadable);
        let why = &listing.unreadable[0].1;
        assert!(why.contains("the bucket `lost` has no DBRP mapping"), "{why}");
        assert!(why.contains("influx v1 dbrp create --bucket-id b2") && why.contains("exclude"));
        assert!(listing.warnings.is_empty(), "{:?}", listing.warnings);

        let select = Select { databases: vec!["mapped".to_owned()], ..Select::default() };
        let listing = hidden(server, select, &shown[..1]).await;
        let names: Vec<_> = listing.unreadable.iter().map(|(id, _)| id.to_string()).collect();
        assert_eq!(names, ["mapped.week.*"], "only what is asked for is missed");
    }

    #[tokio::test]
    async fn a_mapping_that_is_not_shown_is_named() {
        let listing =
            hidden(serve(&[BUCKETS, MAPPINGS]), Select::default(), &[("mapped", "autogen")]).await;
        let whys: Vec<_> = listing.unreadable.iter().map(|(_, why)| why.as_str()).collect();
        assert_eq!(whys.len(), 3, "{whys:?}");
        assert!(whys[2].contains("`renamed` has a DBRP mapping, but InfluxQL does not show it"));
    }

    #[tokio::test]
    async fn buckets_that_cannot_be_listed_cause_a_warning() {
        let refused = ("/api/v2/dbrps", 403, "");
        for answers in [
            &[][..],
            &[("/api/v2/buckets", 401, "")],
            &[("/api/v2/buckets", 200, r#"{"buckets":[]}"#)],
            &[("/api/v2/buckets", 200, "<html>")],
            &[BUCKETS, refused],
        ] {
            let answers: &'static [_] = Vec::leak(answers.to_vec());
            let listing = hidden(serve(answers), Select::default(), &[("mapped", "autogen")]).await;
            assert!(listing.unreadable.is_empty(), "{:?}", listing.unreadable);
            assert_eq!(listing.warnings.len(), 1, "{answers:?}");
            assert!(listing.warnings[0].contains("more buckets than InfluxQL shows"));
        }
    }
}
