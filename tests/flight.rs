//! InfluxDB 3 over Flight, through the program. No real server can be had for these tests: the other side
//! is the stand-in of `support/influxdb3.rs`, with the faults that are known of the real ones.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

#[path = "flight/fallback.rs"]
mod fallback;
#[path = "support/influxdb3.rs"]
mod influxdb3;
#[path = "flight/restore.rs"]
mod restore;
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use influxdb3::cloud::{SECRET_TOKEN, TELEGRAF};
use influxdb3::{Break, Fault, Generate, InfluxDb3, Options, Product, Quota, QuotaAnswer, TOKEN};
use serde_json::Value as Json;
use support::{
    Archive, Model, Point, Run, Shape, Value, assert_rows, command, repository, run, server,
};
use tempfile::TempDir;

const DAY: i64 = 86_400_000_000_000;
/// 2026-01-01.
const NEW_YEAR: i64 = 1_767_225_600_000_000_000;

/// Points as InfluxDB 3 can hold them: a tag and a field have names of their own.
fn model(shape: &Shape) -> Model {
    let mut model = Model::generate(7, shape);
    for point in &mut model.points {
        if let Some(value) = point.fields.remove("unit") {
            point.fields.insert("unit_of".to_owned(), value);
        }
    }
    model
}

/// Line protocol by the rules of InfluxDB 3, where a backslash escapes itself.
fn lines(model: &Model) -> String {
    let lines = model.points.iter().map(|point| {
        let name = |text: &str| text.replace('\\', "\\\\");
        let mut written = Point::new(&name(&point.measurement), point.time);
        for (key, value) in &point.tags {
            written = written.tag(&name(key), &name(value));
        }
        for (key, value) in &point.fields {
            written = written.field(&name(key), value.clone());
        }
        written.line() + "\n"
    });
    lines.collect()
}

struct Setting {
    server: InfluxDb3,
    folder: TempDir,
}

impl Setting {
    fn new(product: Product) -> Self {
        Self::with(product, |_| {})
    }

    fn with(product: Product, change: impl FnOnce(&mut Options)) -> Self {
        let mut options = Options::of(product);
        change(&mut options);
        let folder = TempDir::with_prefix("flight-").unwrap();
        let setting = Self { server: InfluxDb3::start_with(product, options), folder };
        setting.configure("", "");
        setting
    }

    /// With a week of three measurements in the database `d`.
    fn small() -> (Self, Model) {
        let setting = Self::new(Product::Serverless);
        let model = model(&Shape::default());
        setting.server.write("d", &lines(&model));
        (setting, model)
    }

    fn configure(&self, job: &str, source: &str) {
        let url = format!("influxdb+{}", self.server.url());
        let text = format!("{job}\n[[source]]\nname = \"s\"\nurl = \"{url}\"\n{source}\n");
        fs::write(self.folder.path().join("config.toml"), text).unwrap();
    }

    fn archive(&self) -> PathBuf {
        self.folder.path().join("archive")
    }

    fn on(&self, verb: &str, args: &[&str]) -> Run {
        let config = self.folder.path().join("config.toml");
        let mut command = command([verb, "--config", config.to_str().unwrap()]);
        run({
            command.args(args).env("INFLUX_TOKEN", TOKEN);
            command
        })
    }

    fn export(&self, args: &[&str]) -> Run {
        let archive = self.archive();
        let run = self.on("export", &[&["--archive", archive.to_str().unwrap()], args].concat());
        assert!(!run.stderr.contains(TOKEN) && !run.stdout.contains(TOKEN));
        run
    }

    /// Sealed, verified, and with exactly these rows of a database.
    #[track_caller]
    fn assert_complete(&self, database: &str, model: &Model) {
        let archive = self.archive();
        let verified = support::moveout(["verify", archive.to_str().unwrap()]);
        assert_eq!(verified.status, 0, "{}{}", verified.stdout, verified.stderr);
        let archive = Archive::open(archive);
        assert!(archive.is_sealed());
        for measurement in model.measurements() {
            let name = format!("{database}.{measurement}");
            assert_eq!(archive.columns(&name), model.columns(&measurement), "{name}");
            assert_rows(&archive.rows(&name), &model.rows(&measurement));
        }
    }

    fn count_rows(&self, table: &str) -> usize {
        Archive::open(self.archive()).rows(table).len()
    }
}

fn is_read(sql: &str) -> bool {
    sql.starts_with("SELECT * FROM")
}

fn reads(server: &InfluxDb3) -> usize {
    server.queries().iter().filter(|query| is_read(&query.sql)).count()
}

#[test]
fn everything_comes_out_exactly() {
    for product in [Product::Serverless, Product::Core] {
        let setting = Setting::new(product);
        let edges = model(&Shape { edges: true, points: 40, ..Shape::default() });
        let other = model(&Shape { points: 500, series: 5, ..Shape::default() });
        setting.server.write("d", &lines(&edges));
        setting.server.write("d/autogen", &lines(&other));
        let run = setting.export(&["--json"]).expect(0).json();
        assert_eq!(run["status"], "complete", "{run}");
        setting.assert_complete("d", &edges);
        setting.assert_complete("d/autogen", &other);
        Archive::open(setting.archive()).validate_as_bag();
        // Nothing is left to be done, and nothing is read again.
        let before = reads(&setting.server);
        setting.export(&[]).expect(0);
        assert_eq!(reads(&setting.server), before);
    }
}

#[test]
fn a_tunnel_that_is_lost_on_the_way_costs_no_row() {
    let certificates = server::folder("certificates-");
    let certificate = server::certificate(&certificates, "DNS:influx.invalid");
    let (file, key) = (certificate.certificate.display(), certificate.key.display());
    let tls = format!("tls={file},{key}");
    for (scheme, tls, lost, said) in [
        ("http", "plain", "once-crash=60000", "Tunnel crashed (255)"),
        ("https", &tls, "once-crash=60000", "Tunnel crashed (255)"),
        ("http", "plain", "once-hang=60000", "nothing arrives through them"),
    ] {
        let setting = Setting::new(Product::Serverless);
        let model = model(&Shape { points: 3000, series: 5, ..Shape::default() });
        setting.server.write("d", &lines(&model));
        // A name that leads nowhere: only through the tunnel is there a server.
        let (folder, forwarder) = (setting.folder.path(), repository("tests/support/forwarder.py"));
        let port = setting.server.url().rsplit(':').next().unwrap().to_owned();
        let text = format!(
            "concurrency = 1\nidle_timeout = \"3s\"\n[[source]]\nname = \"s\"\nurl = \"influxdb+{scheme}://influx.invalid:8181\"\n\
             [source.tunnel]\ncommand = [\"python3\", {forwarder:?}, {folder:?}, \"{{port}}\", \"127.0.0.1\", \
             \"{port}\", \"words\", {lost:?}, {tls:?}, \"alpn=h2,http/1.1\"]\nready = \"is ready\"\n"
        );
        fs::write(folder.join("config.toml"), text).unwrap();
        let (config, archive) = (folder.join("config.toml"), setting.archive());
        let mut command = command(["export", "--window", "1d", "--config"]);
        command.arg(config).arg("--archive").arg(archive).env("INFLUX_TOKEN", TOKEN);
        command.env("SSL_CERT_FILE", &certificate.authority);
        let run = run(command).expect(0);
        assert!(run.stderr.contains(said), "{}", run.stderr);
        // It was read by Flight, not by what takes its place.
        assert!(!run.stdout.contains("gRPC does not pass"), "{}", run.stdout);
        setting.assert_complete("d", &model);
    }
}

#[test]
fn limits_halve_the_window_at_once() {
    // Core has a file for each ten minutes, and refuses what touches more than 50 of them.
    let setting = Setting::with(Product::Core, |options| options.parquet_files = Some(50));
    let model = model(&Shape { points: 300, step: 900_000_000_000, ..Shape::default() });
    setting.server.write("d", &lines(&model));
    let run = setting.export(&["--json"]).expect(0).json();
    assert!(run["chunks"].as_u64().unwrap() > 6, "{run}");
    setting.assert_complete("d", &model);
}

#[test]
fn bounds_are_found_where_no_wide_query_is_answered() {
    let setting = Setting::with(Product::Core, |options| {
        options.parquet_files = Some(20);
        // Anything wider than a day and a half takes longer than anybody waits.
        options.cost = Arc::new(|scan| match i128::from(scan.to) - i128::from(scan.from) {
            wide if wide > i128::from(DAY + DAY / 2) && !scan.sql.starts_with("EXPLAIN") => {
                Duration::from_secs(30)
            }
            _ => Duration::ZERO,
        });
    });
    let mut model = Model::default();
    for time in [-100 * 365 * DAY + 17, 5, NEW_YEAR + 1, NEW_YEAR + 150 * 365 * DAY] {
        model.push(Point::new("m", time).tag("t", "x").field("f", Value::Float(time as f64)));
    }
    setting.server.write("d", &lines(&model));
    let plan = setting.on("plan", &["--json"]).expect(0).json();
    let bounds = &plan["tables"][0]["bounds"];
    assert_eq!(bounds["from"], "1870-01-25T00:00:00.000000017Z", "{plan}");
    assert_eq!(bounds["to"], "2175-11-26T00:00:00.000000001Z", "{plan}");
}

// Times before 1677-09-21T00:12:44Z can be written, and no literal can name them.
#[test]
fn points_at_both_ends_of_time_come_out() {
    const EARLIEST: i64 = i64::MIN + 2;
    const NAMED: i64 = -9_223_372_036_000_000_000;
    for product in [Product::Serverless, Product::Core] {
        let setting = Setting::new(product);
        let mut model = Model::default();
        for time in [EARLIEST, EARLIEST + 1, NAMED - 1, NAMED, 0, i64::MAX - 1] {
            model.push(Point::new("all", time).field("f", Value::Integer(time)));
        }
        model.push(Point::new("early", EARLIEST + 7).field("f", Value::Integer(1)));
        setting.server.write("d", &lines(&model));
        setting.export(&[]).expect(0);
        setting.assert_complete("d", &model);
        // What is older than what is there is found by a later run, and nothing comes twice.
        let older = Point::new("early", EARLIEST + 5).field("f", Value::Integer(2));
        setting.server.write("d", &older.line());
        model.push(older);
        setting.export(&[]).expect(0);
        setting.assert_complete("d", &model);
    }
}

#[test]
fn ten_years_of_mostly_empty_days_are_few_queries() {
    let setting = Setting::new(Product::Serverless);
    let mut model = Model::default();
    for day in [0, 1, 700, 701, 2000, 3600, 3649] {
        for hour in 0..24 {
            let time = NEW_YEAR - 3650 * DAY + day * DAY + hour * 3_600_000_000_000;
            model.push(Point::new("m", time).field("f", Value::Integer(hour)));
        }
    }
    setting.server.write("d", &lines(&model));
    let began = Instant::now();
    setting.on("plan", &[]).expect(0);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    let planned = setting.server.queries().len();
    assert!(planned < 20, "{planned} queries");
    setting.export(&[]).expect(0);
    setting.assert_complete("d", &model);
    let all = setting.server.queries().len() - planned;
    assert!(all < 50, "{all} queries");
}

/// What happened once, or a few times, and is over: the rows are exact.
#[test]
fn faults_that_pass_cost_nothing() {
    let faults: Vec<(&str, Fault, usize)> = vec![
        ("too many partitions", Fault::partitions(500), 3),
        ("too many files", Fault::parquet_files(1000), 2),
        ("no memory", Fault::memory(), 2),
        ("deadline of ours", Fault::grpc_timeout(), 1),
        ("deadline of theirs", Fault::deadline(), 1),
        ("cancelled", Fault::cancelled(), 1),
        ("unavailable", Fault::unavailable(), 2),
        ("an error of execution", Fault::execution(), 1),
        ("no trailers at once", Fault::Break { batches: 0, how: Break::NoTrailers }, 1),
        ("no trailers after a batch", Fault::Break { batches: 1, how: Break::NoTrailers }, 2),
        ("no trailers after all", Fault::Break { batches: usize::MAX, how: Break::NoTrailers }, 2),
        ("NO_ERROR after a batch", Fault::Break { batches: 1, how: Break::Rst(0) }, 2),
        ("NO_ERROR after all", Fault::Break { batches: usize::MAX, how: Break::Rst(0) }, 2),
        ("INTERNAL_ERROR", Fault::Break { batches: 1, how: Break::Rst(2) }, 2),
        ("cancelled stream", Fault::Break { batches: 1, how: Break::Rst(8) }, 1),
        ("closed", Fault::Break { batches: 1, how: Break::Close }, 1),
        ("reset", Fault::Break { batches: 1, how: Break::Reset }, 1),
        ("reset at once", Fault::BreakAtOnce(Break::Reset), 1),
        (
            "an error after all rows",
            Fault::StatusAfter {
                batches: usize::MAX,
                code: tonic::Code::Internal,
                text: "Error while execution Flight SQL stream: boom".into(),
            },
            1,
        ),
        ("a page of the edge", Fault::edge(502), 1),
        ("503 without a body", Fault::bare(503), 1),
        ("504", Fault::edge(504), 1),
        ("429 with a page", Fault::edge(429), 1),
        ("429 that says when", Fault::too_many_requests(Some(1)), 2),
        ("a quota in gRPC", Fault::quota(), 1),
        ("silence, then rows", Fault::Stall { batches: 1, pause: Duration::from_millis(300) }, 1),
        ("slow, with signs of life", Fault::Slow(Duration::from_secs(4)), 1),
        ("silence", Fault::Stall { batches: 1, pause: Duration::from_secs(60) }, 1),
    ];
    for (name, fault, times) in faults {
        let (setting, model) = Setting::small();
        // Shorter than the silence, longer than a sign of life.
        setting.configure("idle_timeout = \"2s\"", "");
        setting.server.configure(|options| options.keep_alive = Duration::from_millis(500));
        setting.server.fault(is_read, times, fault);
        let run = setting.export(&["--concurrency", "2"]);
        assert_eq!(run.status, 0, "{name}\n{}{}", run.stdout, run.stderr);
        assert_eq!(setting.server.fired(), times, "{name}");
        setting.assert_complete("d", &model);
    }
}

/// What does not pass ends the run with a clear status, and never with fewer rows.
#[test]
fn faults_that_stay_end_the_run() {
    let faults: Vec<(&str, Fault, i32, &str)> = vec![
        ("credentials", Fault::unauthenticated(), 1, "hint: check the token"),
        ("another bucket", Fault::unauthorized_bucket(), 1, "is unauthorized"),
        ("rights", Fault::permission_denied(), 1, "hint: check the token"),
        ("no gRPC", Fault::bare(405), 1, "influxdb2+"),
        ("always cut", Fault::Break { batches: usize::MAX, how: Break::NoTrailers }, 3, "trailer"),
        ("always reset", Fault::BreakAtOnce(Break::Reset), 3, "run the same command again"),
        ("always down", Fault::edge(502), 3, "502"),
    ];
    for (name, fault, status, said) in faults {
        let (setting, model) = Setting::small();
        setting.configure("attempts = 2", "");
        setting.server.fault(is_read, usize::MAX, fault);
        let run = setting.export(&["--to", "2024-01-02T00:00:00Z"]);
        assert_eq!(run.status, status, "{name}\n{}{}", run.stdout, run.stderr);
        assert!(format!("{}{}", run.stdout, run.stderr).contains(said), "{name}: {}", run.stderr);
        assert!(!Archive::open(setting.archive()).is_sealed(), "{name}");
        setting.server.heal();
        setting.export(&[]).expect(0);
        setting.assert_complete("d", &model);
    }
}

#[test]
fn a_large_row_and_a_new_column_are_no_fault() {
    let (setting, mut model) = Setting::small();
    let large = Point::new("cpu", NEW_YEAR).tag("host", "h0");
    let large = large.field("text", Value::String("0123456789".repeat(900_000)));
    setting.server.write("d", &(lines(&Model { points: vec![large.clone()] })));
    model.push(large);
    // While the run is at work somebody writes a tag and a field that were not there.
    let new = Point::new("cpu", NEW_YEAR + 7).tag("zone", "z").field("new", Value::Integer(7));
    setting.server.fault(is_read, 1, Fault::Write(lines(&Model { points: vec![new.clone()] })));
    model.push(new);
    setting.export(&["--to", "2030-01-01"]).expect(0);
    let rows = Archive::open(setting.archive()).rows("d.cpu");
    let expected = model.rows("cpu");
    // The point itself may lie in a window that was read before.
    assert!(rows.len() == expected.len() || rows.len() + 1 == expected.len());
    assert!(Archive::open(setting.archive()).columns("d.cpu").iter().any(|c| c.key == "new"));
}

#[test]
fn a_quota_is_used_and_never_passed() {
    // So little that a busy machine reaches it, too.
    const QUOTA: u64 = 2_000_000;
    let window = Duration::from_secs(3);
    let setting = Setting::with(Product::Serverless, |options| {
        options.quota = Some(Quota { bytes: QUOTA, window, ..Quota::default() });
    });
    let what = Generate { rows: 130_000, step: 10_000_000_000, floats: 8, ..Generate::default() };
    setting.server.generate("d", "cpu", &what);
    setting.configure("window = \"1h\"", "quota = \"2MB\"\nquota_window = \"3s\"");
    let began = Instant::now();
    let run = setting.export(&["--json"]).expect(0);
    let elapsed = began.elapsed();
    assert_eq!(run.json()["failed"].as_array().unwrap().len(), 0);
    assert_eq!(setting.server.refusals(), 0, "{:?}", setting.server.served());
    let served: u64 = setting.server.served().iter().sum();
    // The first window and the last are not full.
    let windows = elapsed.as_secs_f64() / window.as_secs_f64();
    let full = (windows - 1.0).max(1.0) * QUOTA as f64;
    assert!(served as f64 >= 0.9 * full, "{served} bytes in {windows} windows");
    assert!(windows > 3.0, "{windows}");
    assert!(run.stderr.contains("quota of 2 MB in 3 s"), "{}", run.stderr);
    assert_eq!(setting.count_rows("d.cpu"), 130_000);
}

#[test]
fn a_quota_that_nobody_told_is_waited_out() {
    for (answer, retry_after) in [
        (QuotaAnswer::Grpc, true),
        (QuotaAnswer::Grpc, false),
        (QuotaAnswer::Http { body: true }, true),
        (QuotaAnswer::Http { body: false }, true),
    ] {
        let setting = Setting::with(Product::Serverless, |options| {
            let window = Duration::from_secs(2);
            // Less than one window of the table takes, so that the next query is refused.
            let bytes = 400_000;
            options.quota = Some(Quota { bytes, window, answer, retry_after, ..Quota::default() });
        });
        let what =
            Generate { rows: 60_000, step: 10_000_000_000, floats: 8, ..Generate::default() };
        setting.server.generate("d", "cpu", &what);
        setting.configure("attempts = 1", "quota = \"none\"");
        setting.export(&["--concurrency", "2"]).expect(0);
        assert!(setting.server.refusals() > 0, "{answer:?}");
        assert_eq!(setting.count_rows("d.cpu"), 60_000);
    }
}

#[test]
fn a_run_that_is_killed_goes_on() {
    let setting = Setting::new(Product::Serverless);
    let model = model(&Shape { points: 2000, step: 600_000_000_000, ..Shape::default() });
    setting.server.write("d", &lines(&model));
    setting.server.configure(|options| options.cost = Arc::new(|_| Duration::from_millis(30)));
    let config = setting.folder.path().join("config.toml");
    let archive = setting.archive();
    for kill in 0..4 {
        let args = ["export", "--config", config.to_str().unwrap(), "--archive"];
        let mut command = command(args);
        command.arg(&archive).env("INFLUX_TOKEN", TOKEN);
        let mut child = command.stdout(std::process::Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(150 + 130 * kill));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    setting.export(&[]).expect(0);
    setting.assert_complete("d", &model);
}

#[test]
fn the_width_seeks_speed() {
    // As measured: rows per second fall with the width.
    let setting = Setting::with(Product::Core, |options| {
        options.parquet_files = None;
        options.cost = Arc::new(|scan| {
            let days = (i128::from(scan.to) - i128::from(scan.from)) as f64 / DAY as f64;
            match is_read(&scan.sql) && days < 40.0 {
                true => Duration::from_secs_f64(0.02 * days * days),
                false => Duration::ZERO,
            }
        });
    });
    let what = Generate { rows: 640_000, step: 8_640_000_000, floats: 1, ..Generate::default() };
    setting.server.generate("d", "cpu", &what);
    setting.export(&["--window", "16d", "--concurrency", "1"]).expect(0);
    assert_eq!(setting.count_rows("d.cpu"), 640_000);
    // 64 days: two windows of 16 are on their way before it is known how slow that is.
    assert!(reads(&setting.server) > 7, "{:#?}", setting.server.queries());
}

#[test]
fn what_a_query_waits_in_a_queue_is_not_held_against_its_width() {
    let setting = Setting::with(Product::Serverless, |options| {
        (options.trailers, options.queue) = (true, Duration::from_millis(1500));
    });
    let points =
        (0..64).map(|day| Point::new("m", NEW_YEAR + day * DAY).field("v", Value::Integer(day)));
    let model = Model { points: points.collect() };
    setting.server.write("d", &lines(&model));
    let args = ["--concurrency", "1", "--json"];
    let exported = setting.export(&args).expect(0).json();
    // Of a day, and then of all others: doubled each time it would be seven.
    assert!(exported["chunks"].as_u64().unwrap() <= 4, "{exported}");
    setting.assert_complete("d", &model);
}

#[test]
fn all_artifacts_are_kept_or_said_to_be_missing() {
    let (setting, _) = Setting::small();
    let missing = |path: &str| path == "GET /api/v2/tasks";
    setting.server.fault(missing, usize::MAX, Fault::json(404, "not found", "path not found"));
    let broken = |path: &str| path == "GET /api/v2/labels";
    setting.server.fault(broken, usize::MAX, Fault::json(500, "internal error", "boom"));
    // Every row is in a sealed archive, and what is not saved is no success.
    let run = setting.export(&[]).expect(1);
    assert!(run.stdout.contains("labels"), "{}", run.stdout);
    let archive = Archive::open(setting.archive());
    assert!(archive.is_sealed());
    let catalog: Json = serde_json::from_str(&archive.text("catalog/run.json")).unwrap();
    let status = |kind: &str| {
        let all = catalog["artifacts"].as_array().unwrap();
        let of_kind = all.iter().find(|status| status["kind"] == kind);
        of_kind.unwrap_or_else(|| panic!("{kind}: {all:#?}"))["status"].as_str().unwrap().to_owned()
    };
    assert_eq!(status("telegrafs"), "saved");
    assert_eq!(status("dashboards"), "saved");
    assert_eq!(status("stacks"), "none");
    assert!(status("tasks").starts_with("not available"), "{}", status("tasks"));
    assert!(status("labels").starts_with("failed"), "{}", status("labels"));
    assert!(status("tokens").starts_with("saved: without the values of 1 secret"));
    assert_eq!(status("template"), "saved");
    let of = |path: &str| {
        let found = archive.files().into_iter().find(|file| file.contains(path));
        archive.text(&found.unwrap_or_else(|| panic!("no {path}: {:?}", archive.files())))
    };
    assert_eq!(of("_artifacts/telegrafs/hosts-"), TELEGRAF);
    assert!(of("_artifacts/dashboards.json").contains("SELECT * FROM cpu"));
    for file in archive.files() {
        let bytes = fs::read(Path::new(&setting.archive()).join(&file)).unwrap();
        let found =
            |secret: &str| bytes.windows(secret.len()).any(|part| part == secret.as_bytes());
        assert!(!found(SECRET_TOKEN) && !found(TOKEN), "{file}");
    }
}

#[test]
fn what_cannot_be_read_is_said_in_a_sentence() {
    let (setting, _) = Setting::small();
    let mut command = command(["plan", "--source", &format!("influxdb+{}", setting.server.url())]);
    command.env("INFLUX_TOKEN", "wrong-token");
    let refused = run(command).expect(1);
    assert!(refused.stderr.contains("hint: check the credentials"), "{}", refused.stderr);
    assert!(!refused.stderr.contains("wrong-token"));
    let lost =
        setting.on("plan", &["--source", &format!("influxdb+{}/lost", setting.server.url())]);
    let lost = lost.expect(1);
    assert!(lost.stderr.contains("there is no database `lost`"), "{}", lost.stderr);
    let dedicated = Setting::new(Product::Dedicated);
    let unnamed = dedicated.on("plan", &[]).expect(1);
    assert!(unnamed.stderr.contains("hint: name them"), "{}", unnamed.stderr);
    dedicated.server.write("d", "m f=1 1\n");
    dedicated.configure("", "databases = [\"d\"]");
    dedicated.export(&[]).expect(0);
    assert_eq!(dedicated.count_rows("d.m"), 1);
}

#[test]
fn a_proof_tells_its_cost_before_it_asks() {
    let setting = Setting::new(Product::Serverless);
    setting.server.generate(
        "d",
        "cpu",
        &Generate { rows: 2_000, floats: 2, ..Generate::default() },
    );
    setting.configure("", "price_per_query = 0.5\nprice_per_gigabyte = 2.0");
    setting.export(&[]).expect(0);
    let archive = setting.archive();
    let proof = |depth: &[&str]| {
        let archive = archive.to_str().unwrap();
        let args = [&[archive, "--against-source", "--json"][..], depth].concat();
        setting.on("verify", &args).expect(0)
    };
    let read = |report: &serde_json::Value| report["quotas"][0]["read_bytes_estimate"].as_u64();
    let run = proof(&[]);
    let (report, told) = (run.json(), run.stderr);
    let quota = &report["quotas"][0];
    assert_eq!(quota["bytes"], 300_000_000, "{report}");
    assert!(quota["queries_estimate"].as_u64().unwrap() >= 1, "{report}");
    assert!(quota["cost_estimate"].as_f64().unwrap() >= 0.5, "{report}");
    assert!(told.contains("the comparison takes") && told.contains("under the quota of"), "{told}");
    let deep = proof(&["--deep"]).json();
    assert!(read(&deep) > read(&report), "rows are more than counts: {deep}");
}

#[test]
fn a_plan_tells_time_and_cost() {
    let setting = Setting::new(Product::Serverless);
    let what = Generate { rows: 200_000, floats: 8, ..Generate::default() };
    setting.server.generate("d", "cpu", &what);
    setting.configure("", "price_per_query = 0.5\nprice_per_gigabyte = 2.0");
    let plan = setting.on("plan", &["--json"]).expect(0).json();
    let quota = &plan["quotas"][0];
    assert_eq!(quota["bytes"], 300_000_000, "{plan}");
    assert_eq!(quota["window_seconds"], 300.0, "{plan}");
    assert!(quota["read_bytes_estimate"].as_u64().unwrap() > 10_000_000, "{plan}");
    assert!(quota["cost_estimate"].as_f64().unwrap() > 0.5, "{plan}");
    let text = setting.on("plan", &[]).expect(0).stdout;
    assert!(text.contains("quota of 300 MB in 5 minutes"), "{text}");
    // Each of several machines keeps to its part of it.
    let part = setting.on("plan", &["--json", "--shard", "1/3"]).expect(0).json();
    assert_eq!(part["quotas"][0]["bytes"], 100_000_000, "{part}");
}
