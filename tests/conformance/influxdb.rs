//! InfluxDB 1.x, a real one, and InfluxDB 3 by both of its ways, a stand-in.

use std::sync::OnceLock;

use crate::influxdb3::{Grpc, InfluxDb3, Options as Options3, Product, TOKEN};
use crate::subject::{Ability, Address, Login, NewTable, Record, Subject, Time, other, text};
use crate::support::influxd::{ADMIN, Influxd, Options, READER};
use crate::support::{Point, Value};

/// The times at the ends of what InfluxDB takes.
const ENDS: [i64; 2] = [i64::MIN + 2, i64::MAX - 1];

/// Line protocol of a table; a tag tells rows of one time apart.
pub(crate) fn lines(table: &NewTable<'_>, escape: impl Fn(&str) -> String) -> String {
    let point = |record: &Record| {
        let time = match record.time {
            Time::At(time) => time,
            Time::Extreme(number) => ENDS[number],
            Time::Null => unreachable!("each point has a time"),
        };
        let point =
            Point::new(&escape(table.name), time).tag("series", &format!("s{}", record.id % 7));
        let point = point
            .field("id", Value::Integer(record.id))
            .field("other", Value::String(other(record.id)));
        point.field(&escape(table.text), Value::String(text(record.id))).line() + "\n"
    };
    table.records.iter().map(point).collect()
}

/// InfluxDB 1.6, read by InfluxQL.
#[derive(Default)]
pub(crate) struct InfluxDb1 {
    server: OnceLock<Influxd>,
}

impl InfluxDb1 {
    fn running(&self) -> &Influxd {
        self.server
            .get_or_init(|| Influxd::start_with(Options { auth: true, ..Options::default() }))
    }
}

fn influxql(variables: (&str, &str)) -> Vec<(&'static str, String)> {
    vec![("INFLUX_USERNAME", variables.0.to_owned()), ("INFLUX_PASSWORD", variables.1.to_owned())]
}

impl Subject for InfluxDb1 {
    fn name(&self) -> String {
        "InfluxQL".to_owned()
    }

    fn abilities(&self) -> &'static [Ability] {
        &[Ability::Network, Ability::Grows, Ability::Rights]
    }

    fn extremes(&self) -> usize {
        ENDS.len()
    }

    fn port(&self) -> Option<u16> {
        Some(self.running().address().port())
    }

    fn create(&self, database: &str) {
        self.running().query(&format!("CREATE DATABASE \"{database}\" WITH SHARD DURATION 10d"));
    }

    fn load(&self, database: &str, table: NewTable<'_>) {
        self.running().write(database, "", &lines(&table, str::to_owned));
    }

    fn count(&self, database: &str, table: &str) -> Option<u64> {
        let name = table.replace('\\', "\\\\").replace('"', "\\\"");
        let answer =
            self.running().query(&format!("SELECT count(id) FROM \"{database}\"..\"{name}\""));
        answer["results"][0]["series"][0]["values"][0][1].as_u64()
    }

    fn address(&self, database: &str, port: Option<u16>) -> Address {
        let port = port.unwrap_or_else(|| self.running().address().port());
        let url = format!("influxdb1+http://127.0.0.1:{port}/{database}");
        Address { url, more: String::new(), variables: influxql(ADMIN) }
    }

    fn takes_name(&self, name: &str) -> bool {
        !name.contains(['\n', '\r']) && !name.ends_with('\\')
    }

    fn logins(&self, database: &str) -> Vec<Login> {
        let address = Address { variables: influxql(READER), ..self.address(database, None) };
        vec![Login { what: "READ on the database", address, warning: None }]
    }
}

/// InfluxDB 3 as a stand-in.
pub(crate) struct InfluxDb3Subject {
    grpc: bool,
    server: OnceLock<InfluxDb3>,
}

impl InfluxDb3Subject {
    /// Read by Flight, or, where gRPC does not pass, by `/query`.
    pub(crate) fn new(grpc: bool) -> Self {
        Self { grpc, server: OnceLock::new() }
    }

    fn running(&self) -> &InfluxDb3 {
        self.server.get_or_init(|| {
            let grpc = if self.grpc { Grpc::Passes } else { Grpc::Http1 };
            let options = Options3 { grpc, auth: true, ..Options3::of(Product::Core) };
            InfluxDb3::start_with(Product::Core, options)
        })
    }
}

impl Subject for InfluxDb3Subject {
    fn name(&self) -> String {
        if self.grpc { "Flight" } else { "/query" }.to_owned()
    }

    fn abilities(&self) -> &'static [Ability] {
        &[Ability::Network, Ability::Grows, Ability::Rights]
    }

    fn extremes(&self) -> usize {
        ENDS.len()
    }

    fn port(&self) -> Option<u16> {
        Some(self.running().port())
    }

    fn create(&self, database: &str) {
        self.running().create(database);
    }

    fn load(&self, database: &str, table: NewTable<'_>) {
        // Here a backslash escapes itself.
        self.running().write(database, &lines(&table, |name| name.replace('\\', "\\\\")));
    }

    fn count(&self, _database: &str, _table: &str) -> Option<u64> {
        None
    }

    fn address(&self, database: &str, port: Option<u16>) -> Address {
        let port = port.unwrap_or_else(|| self.running().port());
        let url = format!("influxdb3+http://127.0.0.1:{port}/{database}");
        Address { url, more: String::new(), variables: vec![("INFLUX_TOKEN", TOKEN.to_owned())] }
    }

    fn takes_name(&self, name: &str) -> bool {
        !name.contains(['\n', '\r']) && !name.ends_with('\\')
    }

    fn logins(&self, database: &str) -> Vec<Login> {
        self.running().configure(|options| options.forbidden.push(database.to_owned()));
        vec![Login { what: "the database", address: self.address(database, None), warning: None }]
    }
}
