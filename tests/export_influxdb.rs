//! What an InfluxDB 1.x holds comes out exactly: every row, every type, every name, every nanosecond;
//! once, whatever is run again later, and with no more questions than needed.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]
#![allow(clippy::print_stderr, reason = "shown where a test fails")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value as Json;
use support::influxd::{ADMIN, READER};
use support::{
    Archive, Fault, Influxd, Model, Options, Point, Proxy, Run, Shape, Value, assert_rows, command,
    files, moveout, python, run,
};
use tempfile::TempDir;

const DAY: i64 = 86_400_000_000_000;
/// 2024-01-01.
const NEW_YEAR: i64 = 1_704_067_200_000_000_000;

/// A place for an archive, gone on drop.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(TempDir::with_prefix("archive-").unwrap())
    }

    fn path(&self) -> String {
        self.0.path().join("a").to_str().unwrap().to_owned()
    }

    fn archive(&self) -> Archive {
        Archive::open(self.path())
    }

    /// A run that shall do it all.
    #[track_caller]
    fn export(&self, source: &str, more: &[&str]) -> Json {
        self.run(source, more).expect(0).json()
    }

    fn run(&self, source: &str, more: &[&str]) -> Run {
        let path = self.path();
        let args = ["export", "--json", "--source", source, "--archive", &path];
        moveout(args.iter().chain(more))
    }

    /// The archive holds what the model says, under `prefix` (`DATABASE.POLICY.`), and is whole.
    #[track_caller]
    fn assert_holds(&self, prefix: &str, model: &Model) {
        let archive = self.archive();
        for name in model.measurements() {
            let table = format!("{prefix}{name}");
            assert_rows(&archive.rows(&table), &model.rows(&name));
            assert_eq!(archive.columns(&table), model.columns(&name), "{table}");
        }
        self.assert_verified();
    }

    #[track_caller]
    fn assert_verified(&self) {
        assert!(self.archive().is_sealed());
        moveout(["verify", &self.path()]).expect(0);
    }

    /// Every file with its bytes.
    fn contents(&self) -> BTreeMap<String, Vec<u8>> {
        let paths = self.archive().files().into_iter();
        paths
            .map(|path| (path.clone(), fs::read(Path::new(&self.path()).join(&path)).unwrap()))
            .collect()
    }
}

/// A server with a model's points in the database `d`.
fn server_with(model: &Model) -> Influxd {
    let server = Influxd::start();
    server.query("CREATE DATABASE d");
    server.write("d", "", &model.lines());
    server
}

fn is_data(query: &str) -> bool {
    query.starts_with("SELECT *::field FROM ") && query.ends_with("GROUP BY *")
}

fn data_queries(proxy: &Proxy) -> Vec<String> {
    proxy.queries().into_iter().filter(|query| is_data(query)).collect()
}

/// First and last nanosecond that a data query asks for.
fn window(query: &str) -> (i64, i64) {
    let after = |mark: &str| {
        let text = query.rsplit_once(mark).unwrap().1;
        text.split(' ').next().unwrap().parse().unwrap()
    };
    (after("time >= "), after("time <= "))
}

/// Numbers `from..to` in measurement `m`, `step` nanoseconds apart.
fn numbers(from: i64, to: i64, step: i64) -> Model {
    let mut model = Model::default();
    for i in from..to {
        let point =
            Point::new("m", NEW_YEAR + i * step).tag("host", if i % 2 == 0 { "a" } else { "b" });
        model.push(point.field("v", Value::Integer(i)));
    }
    model
}

#[test]
fn everything_that_a_database_can_hold_comes_back_exactly() {
    let widths = [["1d", "4"], ["6h", "2"], ["2w", "1"], ["90m", "8"]];
    for (seed, [width, concurrency]) in (1..).zip(widths) {
        eprintln!("seed {seed}");
        let shape =
            Shape { mixed: true, edges: true, points: 45, step: DAY + 12_345, ..Shape::default() };
        let model = Model::generate(seed, &shape);
        let server = server_with(&model);
        let place = Place::new();
        let summary =
            place.export(&server.url(), &["--window", width, "--concurrency", concurrency]);
        place.assert_holds("", &model);
        let rows: usize = model.measurements().iter().map(|name| model.rows(name).len()).sum();
        assert_eq!(summary["rows"], rows);
        assert_eq!(summary["outside"], serde_json::json!([]));
        let counted: u64 =
            place.archive().catalog().iter().map(|t| t["rows"].as_u64().unwrap()).sum();
        assert_eq!(counted, rows as u64);
    }
}

// Without a field of several types, so that some windows span many shards.
#[test]
fn many_dense_series_come_back_exactly() {
    let shape = Shape { series: 40, points: 150, edges: true, ..Shape::default() };
    let model = Model::generate(99, &shape);
    let server = server_with(&model);
    let place = Place::new();
    place.export(&server.url(), &[]);
    place.assert_holds("", &model);
}

#[test]
fn an_archive_is_a_bag_that_needs_no_moveout_to_be_checked() {
    let shape = Shape { mixed: true, edges: true, points: 20, step: DAY, ..Shape::default() };
    let model = Model::generate(5, &shape);
    let server = server_with(&model);
    let place = Place::new();
    place.export(&server.url(), &[]);
    place.archive().validate_as_bag();
    for manifest in ["manifest-sha256.txt", "tagmanifest-sha256.txt"] {
        let mut check = Command::new("sha256sum");
        let check = check.args(["-c", "--strict", "--quiet", manifest]).current_dir(place.path());
        let output = check.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let path = place.path();
    let kept = Path::new(&path);
    for file in ["README.txt", "bagit.txt", "bag-info.txt", "catalog/chunks.parquet"] {
        assert!(kept.join(file).is_file(), "{file}");
    }
    assert!(!kept.join(".moveout").exists());
}

#[test]
fn other_programs_read_every_nanosecond_and_every_type() {
    let shape = Shape { mixed: true, edges: true, points: 30, step: DAY + 1, ..Shape::default() };
    let model = Model::generate(11, &shape);
    let server = server_with(&model);
    let place = Place::new();
    place.export(&server.url(), &[]);
    let code = "
import sys, glob, duckdb, pandas
files = sorted(glob.glob(sys.argv[1] + '/data/*/d/autogen/cpu/*.parquet'))
sql = 'FROM read_parquet($1, union_by_name=true) SELECT '
duck = duckdb.execute(sql + 'epoch_ns(time)', [files]).fetchall()
print(sorted(row[0] for row in duck))
frames = pandas.concat(pandas.read_parquet(file) for file in files)
print(sorted(frames['time'].astype('int64').tolist()))
print(duckdb.execute(sql + 'sum(count), count(state), count(mixed_string)', [files]).fetchall()[0])
print(int(sum(map(int, frames['count'].dropna().astype(object)))) if len(files) == 1 else '')";
    let output = python(code, &[&place.path()]);
    let mut lines = output.lines();
    let rows = model.rows("cpu");
    let mut times: Vec<i64> = rows.iter().map(|row| row["time"].parse().unwrap()).collect();
    times.sort_unstable();
    assert_eq!(lines.next().unwrap(), format!("{times:?}"), "DuckDB");
    assert_eq!(lines.next().unwrap(), format!("{times:?}"), "pandas");
    let count = |row: &support::Row| row.get("count")?.strip_suffix('i')?.parse::<i128>().ok();
    let sum: i128 = rows.iter().filter_map(count).sum();
    let with = |name: &str| rows.iter().filter(|row| row.contains_key(name)).count();
    let expected = format!("({sum}, {}, {})", with("state"), with("mixed_string"));
    assert_eq!(lines.next().unwrap(), expected);
}

#[test]
fn all_databases_and_all_retention_policies_come_but_not_the_servers_own() {
    let server = Influxd::start();
    server.query(
        "CREATE DATABASE d; CREATE DATABASE \"B c.é\"; CREATE DATABASE \"D\"; CREATE DATABASE empty; CREATE DATABASE _internal;
         CREATE RETENTION POLICY \"other one\" ON d DURATION INF REPLICATION 1;
         CREATE RETENTION POLICY short ON \"B c.é\" DURATION 5200w REPLICATION 1 DEFAULT",
    );
    let shape = Shape { points: 12, ..Shape::default() };
    let places = [
        ("d", "autogen"),
        ("d", "other one"),
        ("B c.é", "short"),
        ("B c.é", "autogen"),
        ("D", "autogen"),
    ];
    let models: Vec<_> =
        (1..).zip(places).map(|(seed, place)| (place, Model::generate(seed, &shape))).collect();
    for ((db, rp), model) in &models {
        server.write(db, rp, &model.lines());
    }
    server.write("_internal", "", "m a=1 1");

    let place = Place::new();
    let summary = place.export(&server.url(), &[]);
    for ((db, rp), model) in &models {
        assert_holds_rows(&place, &format!("{db}.{rp}."), model);
    }
    assert_eq!(summary["tables"], 2 * models.len());
    let left_out = |json: &Json| {
        let excluded = json["excluded"].as_array().unwrap().iter();
        excluded.map(|e| e["what"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(left_out(&summary), ["database _internal"]);
    let run: Json = serde_json::from_str(&place.archive().text("catalog/run.json")).unwrap();
    assert_eq!(left_out(&run), ["database _internal"]);

    let place = Place::new();
    let summary = place.export(&format!("{}/B%20c.%C3%A9", server.url()), &[]);
    for ((db, rp), model) in models.iter().filter(|(place, _)| place.0 == "B c.é") {
        assert_holds_rows(&place, &format!("{db}.{rp}."), model);
    }
    assert_eq!(place.archive().catalog().len(), 4);
    assert_eq!(left_out(&summary).len(), 4, "{summary}");

    let place = Place::new();
    place.export(&format!("{}/_internal", server.url()), &[]);
    assert_eq!(
        place.archive().rows("_internal.monitor.m").len()
            + place.archive().rows("_internal.autogen.m").len(),
        1
    );
}

// Without the columns: a server lists the tags of a measurement over all retention policies.
#[track_caller]
fn assert_holds_rows(place: &Place, prefix: &str, model: &Model) {
    for name in model.measurements() {
        assert_rows(&place.archive().rows(&format!("{prefix}{name}")), &model.rows(&name));
    }
    place.assert_verified();
}

#[test]
fn a_range_is_half_open_and_what_lies_outside_is_counted() {
    let model = numbers(0, 1000, 3_600_000_000_000);
    let server = server_with(&model);
    let place = Place::new();
    // From point 24 on, up to but without point 240.
    let summary =
        place.export(&server.url(), &["--from", "2024-01-02", "--to", "2024-01-11T00:00:00Z"]);
    let (from, to) = (NEW_YEAR + DAY, NEW_YEAR + 10 * DAY);
    let expected = model.rows_between("m", from, to);
    assert_eq!(expected.len(), 216);
    assert_rows(&place.archive().rows("m"), &expected);
    assert_eq!(summary["rows"], 216);
    let outside: Vec<_> =
        summary["outside"].as_array().unwrap().iter().map(|o| &o["count"]).collect();
    assert_eq!(
        outside,
        [
            &serde_json::json!({"rows": 24, "exact": true}),
            &serde_json::json!({"rows": 760, "exact": true})
        ]
    );
    place.assert_verified();

    // A nanosecond decides.
    let place = Place::new();
    let (from, to) = ("2024-01-02T00:00:00.000000001Z", "2024-01-11T00:00:00.000000001Z");
    place.export(&server.url(), &["--from", from, "--to", to]);
    let rows = place.archive().rows("m");
    assert_rows(&rows, &model.rows_between("m", NEW_YEAR + DAY + 1, NEW_YEAR + 10 * DAY + 1));

    // Where nothing lies, an empty archive is sealed, which says so.
    let place = Place::new();
    let summary = place.export(&server.url(), &["--from", "2010-01-01", "--to", "2010-02-01"]);
    assert_eq!(summary["rows"], 0);
    assert_eq!(summary["outside"][0]["count"]["rows"], 1000);
    place.assert_verified();
}

// Two fields of one point are one row; several types of a field make counting difficult.
#[test]
fn rows_outside_are_counted_exactly_where_fields_are_sparse() {
    let shape = Shape { mixed: true, edges: true, points: 40, step: DAY, ..Shape::default() };
    let model = Model::generate(21, &shape);
    let server = server_with(&model);
    let place = Place::new();
    let summary = place.export(&server.url(), &["--from", "2024-01-10", "--to", "2024-02-01"]);
    let (from, to) = (NEW_YEAR + 9 * DAY, NEW_YEAR + 31 * DAY);
    for name in model.measurements() {
        assert_rows(&place.archive().rows(&name), &model.rows_between(&name, from, to));
        let expected = model.rows(&name).len() - model.rows_between(&name, from, to).len();
        let outside = summary["outside"].as_array().unwrap().iter();
        let outside: Vec<_> = outside.filter(|o| o["table"]["table"] == *name).collect();
        let counted: u64 = outside.iter().map(|o| o["count"]["rows"].as_u64().unwrap()).sum();
        assert_eq!(counted, expected as u64, "{name}");
        assert!(outside.iter().all(|o| o["count"]["exact"] == true), "{outside:?}");
    }
    place.assert_verified();
}

#[test]
fn a_wider_range_extends_a_sealed_archive_and_reads_nothing_twice() {
    let model = numbers(0, 2000, 3_600_000_000_000);
    let server = server_with(&model);
    let proxy = Proxy::before(&server);
    let place = Place::new();
    let mut covered: Vec<(i64, i64)> = Vec::new();
    let mut data = BTreeMap::new();
    for range in [
        ["--from", "2024-01-10", "--to", "2024-01-20"],
        ["--from", "2024-01-15", "--to", "2024-01-25"],
        ["--from", "2024-02-01", "--to", "2024-02-05T12:34:56.789Z"],
        ["--from", "min", "--to", "max"],
    ] {
        let before = data_queries(&proxy).len();
        place.export(&proxy.url(), &[&range[..], &["--window", "12h"]].concat());
        place.assert_verified();
        for query in &data_queries(&proxy)[before..] {
            let (first, last) = window(query);
            let again = covered.iter().find(|(from, to)| first <= *to && *from <= last);
            assert_eq!(again, None, "{query} for {range:?}");
            covered.push((first, last));
        }
        let now = place.contents();
        for (path, bytes) in &data {
            assert!(now.get(path) == Some(bytes), "{path} was changed or removed for {range:?}");
        }
        data = now
            .into_iter()
            .filter(|(path, _)| path.ends_with(".parquet") && path.starts_with("data/"))
            .collect();
    }
    place.assert_holds("", &model);
    let run: Json = serde_json::from_str(&place.archive().text("catalog/run.json")).unwrap();
    assert_eq!(run["earlier"].as_array().unwrap().len(), 3);
    place.archive().validate_as_bag();
}

#[test]
fn running_again_does_nothing() {
    let shape = Shape { mixed: true, edges: true, points: 20, step: DAY, ..Shape::default() };
    let model = Model::generate(3, &shape);
    let server = server_with(&model);
    let proxy = Proxy::before(&server);
    let place = Place::new();
    place.export(&proxy.url(), &[]);
    let (asked, before) = (data_queries(&proxy).len(), place.contents());
    let changed =
        |path: &str| fs::metadata(Path::new(&place.path()).join(path)).unwrap().modified().unwrap();
    let times: Vec<_> = before.keys().map(|path| changed(path)).collect();
    for _ in 0..2 {
        let summary = place.export(&proxy.url(), &[]);
        assert_eq!((&summary["rows"], &summary["chunks"]), (&0.into(), &0.into()));
        assert_eq!(summary["status"], "complete");
    }
    assert_eq!(data_queries(&proxy).len(), asked);
    assert!(place.contents() == before);
    assert_eq!(times, before.keys().map(|path| changed(path)).collect::<Vec<_>>());
    place.assert_holds("", &model);
}

#[test]
fn data_that_came_later_is_picked_up() {
    let mut model = numbers(0, 500, 3_600_000_000_000);
    let server = server_with(&model);
    let proxy = Proxy::before(&server);
    let place = Place::new();
    place.export(&proxy.url(), &["--to", "max"]);
    for part in 1..4 {
        let mut later = numbers(500 * part, 500 * (part + 1), 3_600_000_000_000);
        // Another measurement, another tag, another field as well.
        later.points[7] =
            later.points[7].clone().tag("rack", "r1").field("new", Value::Boolean(true));
        later.push(Point::new(&format!("late{part}"), NEW_YEAR).field("x", Value::Float(0.5)));
        server.write("d", "", &later.lines());
        model.points.extend(later.points);
        let before = data_queries(&proxy).len();
        place.export(&proxy.url(), &["--to", "max"]);
        let asked = data_queries(&proxy).len() - before;
        assert!((1..10).contains(&asked), "{asked} queries for what was new");
        for name in model.measurements() {
            assert_rows(&place.archive().rows(&name), &model.rows(&name));
        }
        place.assert_verified();
    }
}

#[test]
fn centuries_without_a_row_cost_nothing() {
    let mut model = Model::default();
    for time in [i64::MIN + 2, i64::MAX - 1] {
        model.push(Point::new("m", time).tag("t", "x").field("v", Value::Integer(time)));
        model.push(Point::new("n", time).field("v", Value::Float(1.5)));
    }
    let server = server_with(&model);
    let proxy = Proxy::before(&server);
    let place = Place::new();
    // One after the other: how many windows are begun before the first has taught a width would depend on the machine.
    place.export(&proxy.url(), &["--concurrency", "1"]);
    place.assert_holds("", &model);
    let asked = data_queries(&proxy);
    assert!(asked.len() <= 12, "{asked:#?}");
    // As the future and the past are asked for by name.
    let place = Place::new();
    place.export(&proxy.url(), &["--from", "1677-09-22", "--to", "2262-04-11"]);
    assert!(place.archive().rows("m").is_empty());
    place.assert_verified();
}

#[test]
fn a_thousand_small_measurements_are_quick() {
    let mut model = Model::default();
    for number in 0..1000 {
        for i in 0..3 {
            let point = Point::new(&format!("m{number}"), NEW_YEAR + (number + i * 40) * DAY / 7);
            model.push(point.tag("host", &format!("h{i}")).field("v", Value::Integer(number * i)));
        }
    }
    let server = server_with(&model);
    let proxy = Proxy::before(&server);
    let place = Place::new();
    let began = Instant::now();
    let summary = place.export(&proxy.url(), &[]);
    let elapsed = began.elapsed();
    assert_eq!((&summary["tables"], &summary["rows"]), (&1000.into(), &3000.into()));
    let mut found = BTreeMap::<_, Vec<_>>::new();
    for file in place.archive().data_files() {
        found.entry(file.metadata["moveout.table"].clone()).or_default().extend(file.rows);
    }
    assert_eq!(found.len(), 1000);
    for (table, mut rows) in found {
        rows.sort();
        assert_rows(&rows, &model.rows(&table));
    }
    place.assert_verified();
    let asked = proxy.queries().len();
    assert!(asked < 2500, "{asked} queries");
    assert!(elapsed < Duration::from_secs(40), "{elapsed:?}");
}

#[test]
fn a_user_without_an_administrators_rights_reads_exactly() {
    // Such a user may not see shards: one database has a field of all types, the other all of time.
    let mixed = Shape { mixed: true, points: 45, step: DAY, ..Shape::default() };
    let mixed = Model::generate(8, &mixed);
    let wide = Model::generate(9, &Shape { edges: true, ..Shape::default() });
    let server = Influxd::start_with(Options { auth: true, ..Options::default() });
    server.query("CREATE DATABASE d; CREATE DATABASE wide; CREATE DATABASE hidden");
    server.write("d", "", &mixed.lines());
    server.write("wide", "", &wide.lines());
    server.write("hidden", "", "m a=1 1");
    for db in ["d", "wide"] {
        server.grant_reader(db);
    }
    let place = Place::new();
    as_user(&place, &server.url(), READER).expect(0);
    place.assert_holds("d.autogen.", &mixed);
    place.assert_holds("wide.autogen.", &wide);
    assert_eq!(place.archive().catalog().len(), 4);
    let run: Json = serde_json::from_str(&place.archive().text("catalog/run.json")).unwrap();
    let users = run["artifacts"].as_array().unwrap().iter().find(|a| a["kind"] == "users").unwrap();
    assert!(users["status"].as_str().unwrap().starts_with("not available"), "{users}");
    let place = Place::new();
    as_user(&place, &format!("{}/d", server.url()), READER).expect(0);
    place.assert_holds("d.autogen.", &mixed);

    // What an administrator gets is the same, and more.
    let place = Place::new();
    as_user(&place, &server.url(), ADMIN).expect(0);
    place.assert_holds("d.autogen.", &mixed);
    place.assert_holds("wide.autogen.", &wide);
    assert_eq!(place.archive().rows("hidden.autogen.m").len(), 1);

    // A database that is there, but not for this user.
    let place = Place::new();
    let run = as_user(&place, &format!("{}/hidden", server.url()), READER).expect(1);
    assert!(run.stderr.contains("hidden"), "{}", run.stderr);
    assert!(!place.archive().is_sealed());
}

fn as_user(place: &Place, source: &str, (user, password): (&str, &str)) -> Run {
    let mut command = command(["export", "--source", source, "--archive", &place.path(), "-vv"]);
    command.env("INFLUX_USERNAME", user).env("INFLUX_PASSWORD", password);
    run(command)
}

// After the shard duration of a policy is altered, a new shard can lie over an old one; asked for both
// at once, the server shows one type of a field and drops the values of the others.
#[test]
fn types_that_overlapping_shards_hide_are_exact() {
    const BEYOND_FLOATS: i64 = (1 << 53) + 1;
    let server = Influxd::start_with(Options { auth: true, ..Options::default() });
    server.query("CREATE DATABASE d WITH DURATION INF SHARD DURATION 168h NAME r");
    server.grant_reader("d");
    let mut model = Model::default();
    let mut write = |hours: std::ops::Range<i64>, old: bool| {
        let mut points = Model::default();
        for hour in hours {
            let text = Value::String(format!("hour {hour}"));
            let float = Value::Float(hour as f64 + 0.5);
            let odd = Value::Integer(BEYOND_FLOATS + 2 * hour);
            let [text, whole, truth] = match old {
                true => [text, odd, Value::Boolean(hour % 2 == 0)],
                false => [float.clone(), float, text],
            };
            for (name, shown) in [("all", &[0, 1, 2, 3][..]), ("text", &[0]), ("truth", &[2, 3])] {
                let mut point = Point::new(name, NEW_YEAR + hour * DAY / 24);
                point = point.tag("host", if hour % 5 == 0 { "a" } else { "b" });
                let fields = [("text", &text), ("whole", &whole), ("truth", &truth)];
                for at in shown {
                    point = match fields.get(*at) {
                        Some((key, value)) => point.field(key, (*value).clone()),
                        None => point.field("host", Value::Integer(hour)),
                    };
                }
                points.push(point);
            }
        }
        server.write("d", "r", &points.lines());
        points.points.into_iter().for_each(|point| model.push(point));
    };
    // The week's last day comes to lie in two shards, with rows in the first.
    write(0..168, true);
    server.query("ALTER RETENTION POLICY r ON d SHARD DURATION 72h");
    write(168..400, false);

    for user in [ADMIN, READER] {
        for more in [&["--window", "365d"][..], &[], &["--window", "7h"]] {
            let place = Place::new();
            let path = place.path();
            let mut command = command(["export", "--source", &server.url(), "--archive", &path]);
            command.args(more).env("INFLUX_USERNAME", user.0).env("INFLUX_PASSWORD", user.1);
            run(command).expect(0);
            place.assert_holds("d.r.", &model);
        }
    }
}

#[test]
fn a_wrong_password_is_said_and_no_secret_ever_shows() {
    let server = Influxd::start_with(Options { auth: true, ..Options::default() });
    server.query("CREATE DATABASE d");
    server.write("d", "", "m a=1 1");
    let wrong = "Wr0ngSecret%&";
    let place = Place::new();
    let failed = as_user(&place, &server.url(), (ADMIN.0, wrong)).expect(1);
    assert!(
        failed.stderr.contains("401") && failed.stderr.contains("credentials"),
        "{}",
        failed.stderr
    );
    let none = place.run(&server.url(), &[]).expect(1);
    assert!(none.stderr.contains("INFLUX_PASSWORD"), "{}", none.stderr);

    let good = as_user(&place, &server.url(), ADMIN).expect(0);
    let encoded: String = ADMIN.1.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let in_url = server.url().replace("://", &format!("://{}:{encoded}@", ADMIN.0));
    let place2 = Place::new();
    let by_url = place2.run(&in_url, &["-vv"]).expect(0);
    assert!(by_url.stdout.contains("process list"), "{}", by_url.stdout);

    let secrets = [wrong, ADMIN.1, &encoded, &support::http::basic(ADMIN.0, ADMIN.1)[6..]];
    let printed = [failed, none, good, by_url].map(|run| run.stdout + &run.stderr);
    let stored = [&place, &place2].map(|place| place.contents());
    for secret in secrets {
        assert!(printed.iter().all(|text| !text.contains(secret)), "{printed:#?}");
        for (path, bytes) in stored.iter().flatten() {
            let text = String::from_utf8_lossy(bytes);
            assert!(!text.contains(secret) && !path.contains(secret), "{path} holds a secret");
        }
    }
}

#[test]
fn a_database_that_is_not_there_is_named() {
    let server = Influxd::start();
    server.query("CREATE DATABASE there");
    let place = Place::new();
    let run = place.run(&format!("{}/elsewhere", server.url()), &[]).expect(1);
    assert!(run.stderr.contains("`elsewhere`") && run.stderr.contains("there"), "{}", run.stderr);
    assert_eq!(run.json()["exit"], 1);
    assert!(!place.archive().is_sealed());
}

#[test]
fn a_selection_that_fits_nothing_is_named_instead_of_left_out() {
    let server = Influxd::start();
    server.query("CREATE DATABASE d");
    server.write("d", "", "cpu a=1 1\nmem a=1 1");
    let place = Place::new();
    let config = place.0.path().join("moveout.toml");
    let run = |selection: &str| {
        let source = format!("[[source]]\nname = \"s\"\nurl = \"{}\"\n", server.url());
        fs::write(&config, source + selection).unwrap();
        moveout(["export", "--config", config.to_str().unwrap(), "--archive", &place.path()])
    };
    for (selection, named) in [
        ("tables = [\"cpu\", \"mme\"]", "`mme`"),
        ("tables = [\"m*\", \"dsk*\"]", "`dsk*`"),
        ("retention_policies = [\"autogne\"]", "`autogne`"),
    ] {
        let failed = run(selection).expect(1);
        assert!(failed.stderr.contains(named), "{}", failed.stderr);
        assert!(!place.archive().is_sealed());
    }
    run("tables = [\"m*\"]\nretention_policies = [\"auto*\"]").expect(0);
    assert_eq!(place.archive().catalog().len(), 1);
    place.assert_verified();
}

#[test]
fn a_server_that_is_not_there_is_said() {
    let address = Proxy::to(([127, 0, 0, 1], 1).into()).url(); // dropped: nobody listens
    let place = Place::new();
    let folder = TempDir::new().unwrap();
    let config = folder.path().join("c.toml");
    fs::write(&config, "attempts = 1\n").unwrap();
    let run = place.run(&address, &["--config", config.to_str().unwrap()]).expect(1);
    assert!(run.stderr.contains("connect"), "{}", run.stderr);
}

#[test]
fn an_answer_in_json_gives_exactly_the_same() {
    let shape = Shape { edges: true, points: 200, ..Shape::default() };
    let model = Model::generate(31, &shape);
    let server = server_with(&model);
    let proxy = Proxy::before(&server);
    proxy.fault(is_data, usize::MAX, Fault::RefuseMsgpack);
    let place = Place::new();
    place.export(&proxy.url(), &[]);
    assert!(proxy.fired() > 0);
    place.assert_holds("", &model);
}

#[test]
fn a_server_that_cuts_answers_of_one_piece_loses_nothing() {
    let shape = Shape { mixed: true, points: 30, step: DAY, ..Shape::default() };
    let model = Model::generate(41, &shape);
    let settings = vec![("INFLUXDB_HTTP_MAX_ROW_LIMIT", "1")];
    let server = Influxd::start_with(Options { settings, ..Options::default() });
    for name in ["d", "e", "f"] {
        server.query(&format!("CREATE DATABASE {name}"));
        server.write(name, "", &model.lines());
    }
    let place = Place::new();
    place.export(&server.url(), &[]);
    for name in ["d", "e", "f"] {
        place.assert_holds(&format!("{name}.autogen."), &model);
    }
}

#[test]
fn a_field_and_a_tag_that_appear_during_the_run_are_exported() {
    let mut model = Model::default();
    for i in 0..400 {
        for name in ["a", "b"] {
            model.push(Point::new(name, NEW_YEAR + i * DAY).field("v", Value::Integer(i)));
        }
    }
    let server = server_with(&model);
    let proxy = Proxy::before(&server);
    proxy.fault(is_data, 1, Fault::Stall { after: 0, pause: Duration::from_millis(1500) });
    let place = Place::new();
    std::thread::scope(|scope| {
        let run = scope.spawn(|| place.export(&proxy.url(), &["--concurrency", "1"]));
        while proxy.fired() == 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
        let mut late = Model::default();
        for (i, name) in (390..).zip(["a", "b", "b"]) {
            let point = Point::new(name, NEW_YEAR + i * DAY).field("w", Value::Float(0.25));
            late.push(if i == 392 { point.tag("t", "new") } else { point });
        }
        server.write("d", "", &late.lines());
        model.points.extend(late.points);
        run.join().unwrap();
    });
    assert!(data_queries(&proxy).len() > 3);
    for name in ["a", "b"] {
        assert_rows(&place.archive().rows(name), &model.rows(name));
    }
    place.assert_verified();
    // And once more, to the same.
    assert_eq!(place.export(&proxy.url(), &[])["chunks"], 0);
}

// Over shards of several types a server shows one of them and hides the others: rows that were there
// long before must not vanish because somebody writes another type during the run.
#[test]
fn a_type_that_appears_during_the_run_hides_nothing() {
    for (old, new) in [
        (Value::String("kept".to_owned()), Value::Float(1.5)),
        (Value::Boolean(true), Value::Integer(7)),
        (Value::Integer(i64::MAX), Value::Float(-1.5)),
    ] {
        let mut model = Model::default();
        for i in 0..30 {
            model.push(Point::new("m", NEW_YEAR + i * DAY / 10).field("v", old.clone()));
        }
        model.push(Point::new("m", NEW_YEAR + 40 * DAY).field("w", Value::Boolean(true)));
        model.push(Point::new("a", NEW_YEAR - DAY).field("v", Value::Boolean(true)));
        let server = server_with(&model);
        let proxy = Proxy::before(&server);
        proxy.fault(is_data, 1, Fault::Stall { after: 0, pause: Duration::from_millis(1500) });
        let place = Place::new();
        std::thread::scope(|scope| {
            let run = scope
                .spawn(|| place.export(&proxy.url(), &["--concurrency", "1", "--window", "100d"]));
            while proxy.fired() == 0 {
                std::thread::sleep(Duration::from_millis(5));
            }
            assert!(data_queries(&proxy)[0].contains("\"a\""));
            let late = Point::new("m", NEW_YEAR + 20 * DAY).field("v", new);
            server.write("d", "", &late.line());
            model.push(late);
            run.join().unwrap();
        });
        assert_rows(&place.archive().rows("m"), &model.rows("m"));
        place.assert_verified();
    }
}

#[test]
fn what_is_not_rows_is_kept_too() {
    let server = Influxd::start_with(Options { auth: true, ..Options::default() });
    server.query(
        "CREATE DATABASE d;
         CREATE RETENTION POLICY short ON d DURATION 5200w REPLICATION 1;
         CREATE CONTINUOUS QUERY \"cq é\" ON d BEGIN SELECT mean(v) INTO d.short.mean FROM d.autogen.m GROUP BY time(1h) END;
         CREATE SUBSCRIPTION sub ON d.autogen DESTINATIONS ALL 'http://me:SubSecret1@example.org:9090'",
    );
    server.write("d", "", "m v=1 1");
    server.grant_reader("d");
    let place = Place::new();
    as_user(&place, &server.url(), ADMIN).expect(0);
    let folder = format!("data/127.0.0.1_x3A{}/_artifacts", server.address().port());
    let read = |kind: &str| -> Json {
        serde_json::from_str(&place.archive().text(&format!("{folder}/{kind}.json"))).unwrap()
    };
    let has = |kind: &str, words: &[&str]| {
        let text = read(kind).to_string();
        assert!(words.iter().all(|word| text.contains(word)), "{kind}: {text}");
    };
    has("databases", &["\"d\""]);
    has("retention-policies", &["\"short\"", "\"autogen\"", "873600h0m0s", "\"d\""]);
    has("continuous-queries", &["cq é", "CREATE CONTINUOUS QUERY", "GROUP BY time(1h)"]);
    has("users", &["\"admin\"", "\"reader\"", "true", "false"]);
    has("grants", &["\"reader\"", "READ"]);
    has("subscriptions", &["sub", "example.org:9090"]);
    for (path, bytes) in place.contents() {
        assert!(!String::from_utf8_lossy(&bytes).contains("SubSecret1"), "{path}");
    }
    place.assert_verified();
    place.archive().validate_as_bag();
    assert!(files(Path::new(&place.path())).iter().any(|path| path.contains("_artifacts")));
}
