//! The way back into InfluxDB 3, and from one generation into another.

use support::Influxd;

use super::*;

/// Restores an archive into a server, and exports it from there.
fn round(archive: &Path, target: &InfluxDb3, status: i32) -> (Json, Setting) {
    let folder = TempDir::with_prefix("back-").unwrap();
    let url = format!("influxdb3+{}", target.url());
    let mut restore = command(["restore", "--json", archive.to_str().unwrap(), "--target", &url]);
    restore.current_dir(folder.path()).env("XDG_STATE_HOME", folder.path());
    restore.env("INFLUX_TOKEN", TOKEN);
    let run = run(restore).expect(status);
    assert!(!run.stderr.contains(TOKEN) && !run.stdout.contains(TOKEN));
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
