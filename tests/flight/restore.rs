//! The way back into InfluxDB 3, and from one generation into another.

use support::Influxd;

use super::*;

fn restore(archive: &Path, target: &InfluxDb3, folder: &TempDir, more: &[&str]) -> Run {
    let url = format!("influxdb3+{}", target.url());
    let mut restore = command(["restore", "--json", archive.to_str().unwrap(), "--target", &url]);
    restore.current_dir(folder.path()).env("XDG_STATE_HOME", folder.path());
    let run = run({
        restore.args(more).env("INFLUX_TOKEN", TOKEN);
        restore
    });
    assert!(!run.stderr.contains(TOKEN) && !run.stdout.contains(TOKEN));
    run
}

/// An archive of what was written to a 1.x, window by window of a width.
fn archive_of(source: &Influxd, folder: &TempDir, window: &str) -> PathBuf {
    let archive = folder.path().join("a");
    let mut export =
        command(["export", "--source", &source.url(), "--window", window, "--archive"]);
    export.arg(&archive);
    run(export).expect(0);
    archive
}

/// Restores an archive into a server, and makes a place to export it from there.
fn round(archive: &Path, target: &InfluxDb3, status: i32) -> (Json, Setting) {
    let folder = TempDir::with_prefix("back-").unwrap();
    let run = restore(archive, target, &folder, &[]).expect(status);
    let url = format!("influxdb3+{}", target.url());
    let again = Setting { server: InfluxDb3::start(Product::Core), folder };
    let text = format!("[[source]]\nname = \"s\"\nurl = \"{url}\"\n");
    fs::write(again.folder.path().join("config.toml"), text).unwrap();
    (run.json(), again)
}

#[test]
fn what_was_exported_is_in_another_server_again() {
    let (setting, model) = Setting::small();
    setting.export(&[]).expect(0);
    let target = InfluxDb3::start(Product::Core);
    let (summary, again) = round(&setting.archive(), &target, 0);
    assert_eq!(summary["status"], "complete", "{summary}");
    again.export(&[]).expect(0);
    again.assert_complete("d", &model);

    // Nothing is mixed with what is there.
    let (_, _) = round(&setting.archive(), &target, 1);
}

#[test]
fn a_busy_server_gets_each_line_in_the_end() {
    let (setting, model) = Setting::small();
    setting.export(&[]).expect(0);
    let target = InfluxDb3::start(Product::Core);
    let is_write = |text: &str| text.starts_with("POST /api/v3/write_lp");
    let headers = vec![("Retry-After".to_owned(), "1".to_owned())];
    let busy = Fault::Http { status: 503, headers, body: "busy".to_owned() };
    target.fault(is_write, 3, busy);
    let (summary, again) = round(&setting.archive(), &target, 0);
    assert_eq!((&summary["status"], target.fired()), (&"complete".into(), 3), "{summary}");
    again.export(&[]).expect(0);
    again.assert_complete("d", &model);
}

#[test]
fn an_archive_of_version_1_goes_into_version_3() {
    let source = Influxd::start();
    source.query("CREATE DATABASE d");
    source.query("CREATE RETENTION POLICY week ON d DURATION INF REPLICATION 1");
    let model = model(&Shape::default());
    source.write("d", "", &model.lines());
    source.write("d", "week", "m,a=b v=1,s=\"x\" 1767225600000000000\n");
    let folder = TempDir::with_prefix("one-").unwrap();
    let archive = folder.path().join("a");
    let mut export = command(["export", "--source", &source.url(), "--archive"]);
    export.arg(&archive);
    run(export).expect(0);
    let target = InfluxDb3::start(Product::Core);
    let (summary, again) = round(&archive, &target, 0);
    assert_eq!(summary["status"], "complete", "{summary}");
    again.export(&[]).expect(0);
    again.assert_complete("d", &model);
    assert_eq!(again.count_rows("d/week.m"), 1);
}

#[test]
fn a_type_that_changes_is_rejected_row_by_row() {
    let source = Influxd::start();
    source.query("CREATE DATABASE d");
    let week = 7 * DAY;
    let line = |value: &str, at: i64| format!("m v={value} {}\n", NEW_YEAR + at * week);
    source.write("d", "", &(line("1", 0) + &line("2", 1) + &line("\"three\"", 2) + &line("4", 3)));
    let folder = TempDir::with_prefix("one-").unwrap();
    let archive = folder.path().join("a");
    let mut export = command(["export", "--source", &source.url(), "--archive"]);
    export.arg(&archive);
    run(export).expect(0);
    let target = InfluxDb3::start(Product::Core);
    let (summary, again) = round(&archive, &target, 4);
    assert_eq!((&summary["rows"], &summary["rejected"]), (&3.into(), &1.into()), "{summary}");
    let notes = summary["notes"].to_string();
    assert!(notes.contains("several types"), "{notes}");
    let rejects = fs::read_to_string(summary["rejects"].as_str().unwrap()).unwrap();
    assert!(rejects.contains("three") && rejects.contains("invalid column type"), "{rejects}");
    again.export(&[]).expect(0);
    assert_eq!(again.count_rows("d.m"), 3);
}

#[test]
fn what_core_cannot_have_is_named_before_anything_is_made() {
    let source = Influxd::start();
    let folder = TempDir::with_prefix("one-").unwrap();
    source.query("CREATE DATABASE d");
    source.write("d", "", "m v=1 1767225600000000000\n");
    for n in 1..=5 {
        source.query(&format!("CREATE RETENTION POLICY r{n} ON d DURATION INF REPLICATION 1"));
        source.write("d", &format!("r{n}"), "m v=1 1767225600000000000\n");
    }
    let archive = archive_of(&source, &folder, "1d");
    let target = InfluxDb3::start(Product::Core);
    let run = restore(&archive, &target, &folder, &[]).expect(1);
    assert!(run.stderr.contains("5 databases") && run.stderr.contains("d/r5"), "{}", run.stderr);
    let made = |line: &String| line.starts_with("POST /api/v3/configure");
    assert!(!target.requests().iter().any(made), "nothing is made");
    let map = ["--map", "d/r5=d/r5", "--table", "r*.m"];
    assert_eq!(restore(&archive, &target, &folder, &map).expect(0).json()["rows"], 5);

    let source = Influxd::start();
    let folder = TempDir::with_prefix("wide-").unwrap();
    source.query("CREATE DATABASE d");
    let fields: Vec<String> = (0..500).map(|n| format!("f{n}=1")).collect();
    source.write("d", "", &format!("wide {} 1767225600000000000\n", fields.join(",")));
    source.write("d", "", &format!("fits {} 1767225600000000000\n", fields[1..].join(",")));
    let archive = archive_of(&source, &folder, "1d");
    let target = InfluxDb3::start(Product::Core);
    let run = restore(&archive, &target, &folder, &[]).expect(1);
    assert!(run.stderr.contains("d.wide (501)"), "{}", run.stderr);
    restore(&archive, &target, &folder, &["--table", "fits"]).expect(0);
}

#[test]
fn more_time_than_a_query_of_core_may_read_is_said_and_verified_in_parts() {
    let source = Influxd::start();
    let folder = TempDir::with_prefix("one-").unwrap();
    source.query("CREATE DATABASE d");
    // Ten days, a point for each file of Core: 1,440 files, in two chunks.
    let minutes = 600_000_000_000;
    let line =
        |n: i64| format!("m,a=b v={}.5,i={n}i,s=\"x{n}\" {}\n", n % 7, NEW_YEAR + n * minutes);
    source.write("d", "", &(0..1_440).map(line).collect::<String>());
    let archive = archive_of(&source, &folder, "7d");
    let target = InfluxDb3::start(Product::Core);
    let summary = restore(&archive, &target, &folder, &["--dry-run"]).expect(0).json();
    assert!(summary["notes"].to_string().contains("span more than 3 days"), "{summary}");
    let summary = restore(&archive, &target, &folder, &["--verify"]).expect(0).json();
    assert_eq!((&summary["status"], &summary["rows"]), (&"complete".into(), &1_440.into()));
    let is_asked = |what: &str| target.queries().iter().any(|query| query.sql.contains(what));
    assert!(is_asked("count("), "the statistics were asked for");
    assert!(is_asked("SELECT * FROM"), "and then the rows were read");
}
