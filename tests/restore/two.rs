//! The way back into an InfluxDB 2.x: the stand-in of `support/influxdb2.py`, or a real one, whose program the variable
//! `MOVEOUT_TEST_INFLUXD2` names.

use std::net::SocketAddr;

use super::support::{http, server};
use super::*;

const TOKEN: &str = "a-token-of-2.x";

/// A 2.x that lives as long as this.
struct Two {
    _server: Server,
    /// Where the stand-in keeps the points.
    _points: Option<Influxd>,
    folder: TempDir,
    address: SocketAddr,
}

impl Two {
    fn start() -> Self {
        let folder = TempDir::with_prefix("influxd2-").unwrap();
        match std::env::var_os("MOVEOUT_TEST_INFLUXD2") {
            Some(program) => Self::real(&program, folder),
            None => Self::stand_in(folder),
        }
    }

    fn stand_in(folder: TempDir) -> Self {
        let points = Influxd::start();
        let mut command = std::process::Command::new("python3");
        command.arg(repository("tests/support/influxdb2.py"));
        command.arg(points.address().to_string()).arg(TOKEN);
        let started = Server::start(command, &folder.path().join("log"), "KILL", |log| {
            log.lines().find_map(|line| line.strip_prefix("listening on "))?.parse().ok()
        });
        let (server, address) = started.unwrap_or_else(|log| panic!("{log}"));
        Self { _server: server, _points: Some(points), folder, address }
    }

    fn real(program: &std::ffi::OsStr, folder: TempDir) -> Self {
        let (server, port) = server::on_free_port(|port| {
            let mut command = std::process::Command::new("sh");
            command.args(["-c", r#"exec "$0" "$@" 1>&2"#]).arg(program).arg("--reporting-disabled");
            command.arg(format!("--http-bind-address=127.0.0.1:{port}"));
            for kept in ["bolt", "engine", "sqlite"] {
                command.arg(format!("--{kept}-path")).arg(folder.path().join(kept));
            }
            let log = folder.path().join("log");
            let ready = |log: &str| log.contains("Listening").then_some(());
            Server::start(command, &log, "KILL", ready).map(|(server, ())| server)
        });
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let setup = serde_json::json!({
            "username": "me", "password": "a-long-password", "org": "org", "bucket": "first", "token": TOKEN
        });
        let made = http::request(address, "POST /api/v2/setup", &[], setup.to_string().as_bytes());
        assert_eq!(made.unwrap().status, 201);
        Self { _server: server, _points: None, folder, address }
    }

    fn url(&self) -> String {
        format!("influxdb+http://{}", self.address)
    }

    fn ask(&self, request: &str, body: &[u8]) -> Json {
        let token = format!("Token {TOKEN}");
        let form = "application/x-www-form-urlencoded";
        let headers = [("Authorization", token.as_str()), ("Content-Type", form)];
        let answer = http::request(self.address, request, &headers, body).unwrap();
        assert!(answer.status < 300, "{request}: {}", answer.text());
        serde_json::from_slice(&answer.body).unwrap_or_default()
    }

    /// All points of a measurement, series by series.
    fn points(&self, place: &str, measurement: &str) -> Json {
        let form = http::form(&[("q", &select(place, measurement)), ("epoch", "ns")]);
        without_empty_tags(self.ask("POST /query", form.as_bytes()))
    }

    /// The names of the user's buckets, each with the seconds that it keeps and those of a shard.
    fn buckets(&self) -> BTreeSet<(String, u64, u64)> {
        let all = self.ask("GET /api/v2/buckets?limit=100", b"");
        let buckets = all["buckets"].as_array().unwrap().iter();
        let bucket = |bucket: &Json| {
            let rule = &bucket["retentionRules"][0];
            let seconds = |key: &str| rule[key].as_u64().unwrap_or(0);
            let name = bucket["name"].as_str().unwrap().to_owned();
            (name, seconds("everySeconds"), seconds("shardGroupDurationSeconds"))
        };
        buckets.map(bucket).filter(|(name, ..)| !name.starts_with('_') && name != "first").collect()
    }

    fn restore(&self, setting: &Setting, more: &[&str]) -> Run {
        self.restore_by(&self.url(), setting, more)
    }

    fn restore_by(&self, url: &str, setting: &Setting, more: &[&str]) -> Run {
        let mut command = setting.command(url, more);
        command.env("INFLUX_TOKEN", TOKEN);
        let run = run(command);
        assert!(!run.stdout.contains(TOKEN) && !run.stderr.contains(TOKEN));
        run
    }

    /// What an export of it has.
    fn export(&self) -> Archive {
        let again = self.folder.path().join(format!("again-{}", fastrand::u64(..)));
        let mut export = command(["export", "--source", &self.url(), "--archive"]);
        run({
            export.arg(&again).env("INFLUX_TOKEN", TOKEN);
            export
        })
        .expect(0);
        Archive::open(again)
    }
}

/// 1.x shows the tags of all policies of a database, and 2.x those of a bucket.
fn without_empty_tags(mut answer: Json) -> Json {
    for series in answer["results"][0]["series"].as_array_mut().into_iter().flatten() {
        series["tags"].as_object_mut().unwrap().retain(|_, value| value != "");
    }
    answer
}

fn select(place: &str, measurement: &str) -> String {
    let measurement = measurement.replace('\\', "\\\\").replace('"', "\\\"");
    format!(r#"SELECT * FROM {place}."{measurement}" GROUP BY *"#)
}

/// Both servers have the same points of all measurements of a policy.
#[track_caller]
fn assert_same(two: &Two, source: &Influxd, place: &str, model: &Model) {
    for name in model.measurements() {
        let expected = without_empty_tags(source.query(&select(place, &name)));
        assert_eq!(two.points(place, &name), expected, "{place} {name}");
    }
}

#[test]
fn policies_of_version_1_become_buckets_of_version_2_with_their_mappings() {
    // Both together would make an export of 2.x, which does not show its shards, ask for each week of 584 years.
    let setting = Setting::of(Model::generate(5, &Shape { mixed: true, ..Shape::default() }));
    let source = &setting.source;
    source.query(
        "CREATE RETENTION POLICY week ON plant DURATION 5200w REPLICATION 1 SHARD DURATION 1d",
    );
    let other = Model::generate(6, &Shape::default());
    source.write("plant", "week", &other.lines());
    source.query(
        "CREATE RETENTION POLICY far ON plant DURATION INF REPLICATION 1 SHARD DURATION 520w",
    );
    let far = Model::generate(7, &Shape { edges: true, points: 9, ..Shape::default() });
    source.write("plant", "far", &far.lines());
    fs::remove_dir_all(setting.archive()).unwrap();
    setting.export();

    let two = Two::start();
    let planned = two.restore(&setting, &["--dry-run"]).expect(0).json();
    let made = ["the bucket plant", "the bucket plant/far", "the bucket plant/week"];
    let made = serde_json::json!(made);
    assert_eq!(planned["created"], made);
    assert!(two.buckets().is_empty(), "nothing is made by a dry run");
    let summary = two.restore(&setting, &[]).expect(0).json();
    assert_eq!(summary["status"], "complete", "{summary}");
    assert_same(&two, source, "plant.autogen", &setting.model);
    assert_same(&two, source, "plant.week", &other);
    assert_same(&two, source, "plant.far", &far);
    let (day, week) = (86_400, 7 * 86_400);
    let buckets =
        [("plant", 0, week), ("plant/far", 0, 520 * week), ("plant/week", 5200 * week, day)];
    let buckets = buckets.map(|(name, keeps, shard)| (name.to_owned(), keeps, shard));
    assert_eq!(two.buckets(), buckets.into(), "they keep and divide points as in the source");
    assert!(two.restore(&setting, &[]).expect(1).stderr.contains("nothing was changed"));

    // And out of it again, with the durations of the buckets, which InfluxQL of 2.x does not show.
    let archive = two.export();
    for name in setting.model.measurements() {
        assert_rows(&archive.rows(&format!("plant.autogen.{name}")), &setting.model.rows(&name));
    }
    let kept = archive.files().into_iter().find(|path| path.ends_with("retention-policies.json"));
    let policies: Json = serde_json::from_str(&archive.text(&kept.unwrap())).unwrap();
    let policies = policies.as_array().unwrap().iter();
    let durations: BTreeSet<String> = policies
        .filter(|policy| policy["database"] == "plant")
        .map(|p| format!("{} {} {}", p["name"], p["duration"], p["shardGroupDuration"]))
        .collect();
    let expected = [
        r#""autogen" "0s" "168h0m0s""#,
        r#""far" "0s" "87360h0m0s""#,
        r#""week" "873600h0m0s" "24h0m0s""#,
    ];
    let expected = expected.map(str::to_owned);
    assert_eq!(durations, expected.into());
}

#[test]
fn a_name_that_no_bucket_can_have_is_refused_before_anything_is_made() {
    let setting = Setting::small();
    let source = &setting.source;
    source.query(r#"CREATE RETENTION POLICY "two \"w\"" ON plant DURATION INF REPLICATION 1"#);
    source.query(r#"CREATE RETENTION POLICY "no \"rows\"" ON plant DURATION INF REPLICATION 1"#);
    source.write("plant", "two \"w\"", "m v=1 1704067200000000000\n");
    fs::remove_dir_all(setting.archive()).unwrap();
    setting.export();
    let two = Two::start();
    let run = two.restore(&setting, &[]).expect(1);
    assert!(
        run.stderr.contains("quotation mark") && run.stderr.contains("--map"),
        "{}",
        run.stderr
    );
    assert!(two.buckets().is_empty());

    let map = ["--map", r#"plant/two "w"=plant/two"#];
    let summary = two.restore(&setting, &map).expect(0).json();
    assert_eq!(summary["rows"], 601, "{summary}");
    let notes = summary["notes"].to_string();
    assert!(notes.contains("rows") && notes.contains("is not made"), "{notes}");
    assert_same(&two, source, "plant.autogen", &setting.model);
}

#[test]
fn a_restore_into_version_2_that_is_killed_or_told_to_wait_goes_on() {
    let setting = Setting::of(Model::generate(3, &Shape { points: 1_500, ..Shape::default() }));
    let two = Two::start();
    let proxy = Proxy::to(two.address);
    let is_write = |request: &str| request.starts_with("POST /api/v2/write");
    proxy.fault(is_write, 1, Fault::busy(429, 1));
    proxy.fault(is_write, 1, Fault::busy(503, 1));
    proxy.fault(is_write, 1, Fault::Close);
    let url = proxy.url();
    for wait in [60, 300, 700] {
        let mut command = setting.command(&url, &["--concurrency", "1"]);
        command.env("INFLUX_TOKEN", TOKEN).stdout(std::process::Stdio::null());
        let mut child = command.stderr(std::process::Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(wait));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let last = two.restore_by(&url, &setting, &[]);
    assert!([0, 1].contains(&last.status), "{}{}", last.stdout, last.stderr);
    assert_eq!(proxy.fired(), 3);
    assert_same(&two, &setting.source, "plant.autogen", &setting.model);
    let archive = two.export();
    for name in setting.model.measurements() {
        assert_rows(&archive.rows(&format!("plant.autogen.{name}")), &setting.model.rows(&name));
    }
}

#[test]
fn rows_that_version_2_cannot_hold_are_named_one_by_one() {
    let mut model = Model::default();
    for n in 0..40 {
        let tag = if n % 10 == 3 { "_field" } else { "host" };
        let point = Point::new("m", NEW_YEAR + n * DAY / 50).tag(tag, "x");
        model.push(point.field("v", Value::Integer(n)));
    }
    let setting = Setting::of(model);
    let two = Two::start();
    let summary = two.restore(&setting, &[]).expect(4).json();
    assert_eq!((&summary["rows"], &summary["rejected"]), (&36.into(), &4.into()), "{summary}");
    let file = fs::read_to_string(summary["rejects"].as_str().unwrap()).unwrap();
    assert_eq!(file.lines().count(), 4, "{file}");
    assert!(file.lines().all(|line| line.contains("reserved tag key")), "{file}");
}

#[test]
fn a_bucket_that_somebody_has_made_stays_as_it_is() {
    let setting = Setting::small();
    let two = Two::start();
    let orgs = two.ask("GET /api/v2/orgs", b"");
    let bucket = serde_json::json!({ "orgID": orgs["orgs"][0]["id"], "name": "plant", "retentionRules":
        [{ "type": "expire", "everySeconds": 0, "shardGroupDurationSeconds": 86_400 }] });
    two.ask("POST /api/v2/buckets", bucket.to_string().as_bytes());
    let summary = two.restore(&setting, &[]).expect(0).json();
    assert_eq!(summary["status"], "complete", "{summary}");
    assert_eq!(two.buckets(), [("plant".to_owned(), 0, 86_400)].into());
    assert_same(&two, &setting.source, "plant.autogen", &setting.model);
}
