//! A real InfluxDB 1.x of its own for a test: free loopback ports, a temporary folder, gone on drop.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde_json::Value;
use tempfile::TempDir;

use super::http::{self, Response};
use super::server::{self, Server};

/// The administrator of a server with authentication.
pub(crate) const ADMIN: (&str, &str) = ("admin", "adm1n/p@ss:w%rd");
/// A user who may read the databases that [`Influxd::grant_reader`] was called with.
pub(crate) const READER: (&str, &str) = ("reader", "re4der&p+ss?");

/// What is not as it is by default.
#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    /// With [`ADMIN`] and [`READER`], and nobody else.
    pub(crate) auth: bool,
    /// Variables that override the configuration, as in `("INFLUXDB_HTTP_MAX_ROW_LIMIT", "1")`.
    pub(crate) settings: Vec<(&'static str, &'static str)>,
}

/// The running server.
#[derive(Debug)]
pub(crate) struct Influxd {
    // Ended before its folder goes.
    server: Server,
    folder: TempDir,
    options: Options,
    address: SocketAddr,
}

impl Influxd {
    pub(crate) fn start() -> Self {
        Self::start_with(Options::default())
    }

    pub(crate) fn start_with(options: Options) -> Self {
        let folder = TempDir::with_prefix("influxd-").unwrap();
        let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let (server, address) = launch(&folder, &options, any_port);
        let server = Self { server, folder, options, address };
        if server.options.auth {
            let ((admin, secret), (reader, secret2)) = (ADMIN, READER);
            let create =
                format!("CREATE USER {admin} WITH PASSWORD '{secret}' WITH ALL PRIVILEGES");
            server.query(&create);
            server.query(&format!("CREATE USER {reader} WITH PASSWORD '{secret2}'"));
        }
        server
    }

    /// Lets [`READER`] read a database.
    pub(crate) fn grant_reader(&self, db: &str) {
        self.query(&format!("GRANT READ ON \"{db}\" TO {}", READER.0));
    }

    /// Its address as a source.
    pub(crate) fn url(&self) -> String {
        format!("influxdb+http://{}", self.address)
    }

    /// Its address as HTTP.
    pub(crate) fn http(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Writes line protocol with nanosecond timestamps; an empty `rp` is the default one.
    #[track_caller]
    pub(crate) fn write(&self, db: &str, rp: &str, lines: &str) {
        let mut pairs = vec![("db", db), ("precision", "ns")];
        pairs.extend((!rp.is_empty()).then_some(("rp", rp)));
        let answer = self.post(&format!("/write?{}", http::form(&pairs)), lines.as_bytes());
        assert_eq!(answer.status, 204, "writing to {db}: {}", answer.text());
    }

    /// Writes bytes that need not be line protocol; returns the status.
    pub(crate) fn write_raw(&self, db: &str, lines: &[u8]) -> u16 {
        let pairs = http::form(&[("db", db), ("precision", "ns")]);
        self.post(&format!("/write?{pairs}"), lines).status
    }

    /// Asks with `epoch=ns`; panics on any error.
    #[track_caller]
    pub(crate) fn query(&self, q: &str) -> Value {
        self.query_in("", q)
    }

    /// The same, for statements that take their database from the request.
    #[track_caller]
    pub(crate) fn query_in(&self, db: &str, q: &str) -> Value {
        let form = http::form(&[("db", db), ("q", q), ("epoch", "ns")]);
        let answer = self.post("/query", form.as_bytes());
        let json: Value = serde_json::from_slice(&answer.body)
            .unwrap_or_else(|error| panic!("{q}: {error}: {}", answer.text()));
        let results = json["results"].as_array().map(Vec::as_slice).unwrap_or_default();
        let error = results.iter().chain([&json]).find_map(|result| result.get("error"));
        assert!(error.is_none() && answer.status == 200, "{q}: {}", answer.text());
        json
    }

    /// The folder of its write-ahead log.
    pub(crate) fn wal(&self) -> PathBuf {
        self.folder.path().join("wal")
    }

    /// Kills it and starts it again on the same port with the same data.
    pub(crate) fn restart(&mut self) {
        self.kill();
        (self.server, self.address) = launch(&self.folder, &self.options, self.address);
    }

    /// Kills it, as a crash would; [`Influxd::restart`] starts it again.
    pub(crate) fn kill(&mut self) {
        self.server.stop();
    }

    fn post(&self, path: &str, body: &[u8]) -> Response {
        let authorization = http::basic(ADMIN.0, ADMIN.1);
        let mut headers = vec![("Content-Type", "application/x-www-form-urlencoded")];
        headers.extend(self.options.auth.then_some(("Authorization", authorization.as_str())));
        http::request(self.address, &format!("POST {path}"), &headers, body).unwrap()
    }
}

fn launch(folder: &TempDir, options: &Options, address: SocketAddr) -> (Server, SocketAddr) {
    let root = folder.path();
    let config = format!(
        "reporting-disabled = true
bind-address = \"127.0.0.1:0\"
[meta]
dir = {root:?}
[data]
dir = {:?}
wal-dir = {:?}
query-log-enabled = false
max-series-per-database = 0
max-values-per-tag = 0
[http]
bind-address = \"{address}\"
auth-enabled = {}
log-enabled = false
max-body-size = 0
[monitor]
store-enabled = false
[continuous_queries]
enabled = false
",
        root.join("data"),
        root.join("wal"),
        options.auth,
    );
    fs::write(root.join("config"), config).unwrap();
    let mut command = server::clean("influxd", folder);
    command.arg("-config").arg(root.join("config")).envs(options.settings.iter().copied());
    let started = Server::start(command, &root.join("log"), "KILL", |log| {
        let address = listening(log)?;
        let ping = http::request(address, "GET /ping", &[], b"");
        ping.is_ok_and(|answer| answer.status == 204).then_some(address)
    });
    started.unwrap_or_else(|log| panic!("{log}"))
}

/// The port is chosen by the system, so that no other process can take it; the log has it.
fn listening(log: &str) -> Option<SocketAddr> {
    let line = log.lines().find(|line| line.contains("Listening on HTTP"))?;
    line.split("addr=").nth(1)?.split(' ').next()?.parse().ok()
}
