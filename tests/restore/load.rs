//! What a restore costs an InfluxDB 1.x, and what else of the server sees it.

use super::*;

/// How many writes the shards of a database have had, as the server counts them.
fn writes_of_shards(server: &Influxd, database: &str) -> (usize, u64) {
    let answer = server.query("SHOW STATS FOR 'shard'");
    let series = answer["results"][0]["series"].as_array().unwrap();
    let ours = series.iter().filter(|series| series["tags"]["database"] == database);
    let writes: Vec<u64> = ours
        .map(|series| {
            let columns = series["columns"].as_array().unwrap();
            let at = columns.iter().position(|column| column == "writeReq").unwrap();
            series["values"][0][at].as_u64().unwrap()
        })
        .collect();
    (writes.len(), writes.iter().sum())
}

#[test]
fn a_request_touches_few_shards_of_the_target() {
    // Four months, a point every 20 minutes of 3 series: the archive has windows of weeks, the target has days.
    let shape = Shape { points: 8_000, step: 1_200_000_000_000, ..Shape::default() };
    let setting = Setting::of(Model::generate(12, &shape));
    let target = Influxd::start();
    target.query("CREATE DATABASE plant WITH DURATION INF SHARD DURATION 1d");
    target.write("plant", "", "somebody else=1i 0\n");
    let proxy = Proxy::before(&target);
    let summary = setting.restore(&proxy.url(), &[]).expect(0).json();
    assert_eq!(summary["rows"], 48_000, "{summary}");
    let (shards, writes) = writes_of_shards(&target, "plant");
    let requests = proxy.requests().iter().filter(|asked| asked.line == "POST /write").count();
    assert!(shards > 110 && requests < 60, "{shards} shards, {requests} requests");
    // Each chunk of the two tables writes each of its shards once, and once more where a request ends within a shard.
    let most = 2 * (shards + requests) as u64;
    assert!(writes <= most, "{writes} writes of {shards} shards by {requests} requests");
    assert_eq!(
        target.query(r#"SELECT count(*) FROM plant.autogen.cpu"#),
        setting.source.query(r#"SELECT count(*) FROM plant.autogen.cpu"#)
    );
}

#[test]
fn many_shards_cause_advice_for_the_server() {
    let day = Shape { points: 250, step: DAY, ..Shape::default() };
    let setting = Setting::of(Model::generate(13, &day));
    let target = Influxd::start();
    let advice =
        |summary: &Json| summary["notes"].to_string().contains("max-concurrent-compactions");
    let summary = setting.restore(&target.url(), &["--dry-run"]).expect(0).json();
    assert!(!advice(&summary), "a new policy has long shards: {summary}");
    target.query("CREATE DATABASE plant WITH DURATION INF SHARD DURATION 1d");
    target.write("plant", "", "somebody else=1i 0\n");
    let summary = setting.restore(&target.url(), &["--dry-run"]).expect(0).json();
    assert!(advice(&summary), "{summary}");
}

#[test]
fn what_sees_each_point_is_named_before_anything_is_written() {
    let setting = Setting::small();
    let target = Influxd::start();
    for database in ["plant", "elsewhere"] {
        target.query(&format!("CREATE DATABASE {database}"));
        target.query(&format!(
            r#"CREATE CONTINUOUS QUERY "means of {database}" ON {database} BEGIN SELECT mean(*) INTO m FROM /.*/ GROUP BY time(1h) END"#
        ));
        target.query(&format!(
            r#"CREATE SUBSCRIPTION "copy of {database}" ON {database}.autogen DESTINATIONS ALL 'http://127.0.0.1:9'"#
        ));
    }
    let summary = setting.restore(&target.url(), &["--dry-run"]).expect(0).json();
    let notes = summary["notes"].to_string();
    assert!(notes.contains("the continuous query means of plant of plant"), "{notes}");
    assert!(notes.contains("the subscription copy of plant of plant"), "{notes}");
    assert!(!notes.contains("elsewhere"), "only of the databases that rows go into: {notes}");
}

/// The write-ahead log of the target lies on a disk that is soon full. InfluxDB 1.x refuses what comes then even after room
/// was made, until it is started again.
#[test]
fn a_target_without_room_ends_with_its_own_words_and_the_same_command_goes_on_once_there_is() {
    let shape = Shape { points: 8_000, ..Shape::default() };
    let setting = Setting::of(Model::generate(13, &shape));
    let mut target = Influxd::start();
    target.kill();
    fs::create_dir_all(target.wal()).unwrap();
    let Some(disk) = SmallDisk::mount(&target.wal(), 1) else { return };
    target.restart();
    let config = setting.folder.path().join("patience.toml");
    fs::write(&config, "patience = \"3s\"\n").unwrap();
    let more = ["--config", config.to_str().unwrap()];
    let failed = setting.restore(&target.url(), &more).expect(3);
    for words in ["no space left on device", "run the same command again"] {
        assert!(failed.stderr.contains(words), "{words}: {}", failed.stderr);
    }
    disk.grow(200);
    target.restart();
    let summary = setting.restore(&target.url(), &more).expect(0).json();
    assert_eq!(summary["status"], "complete", "{summary}");
    assert_eq!(points(&target, "plant", "autogen"), points(&setting.source, "plant", "autogen"));
    target.kill();
}
