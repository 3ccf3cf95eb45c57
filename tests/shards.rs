//! One export on several machines: shards as processes against real servers, with a bucket or a folder as all that they
//! share. Some are killed, some run twice, some never; the plain command completes and seals.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value as Json;
use support::s3::Request;
use support::{
    Archive, Influxd, Model, Point, Postgres, Run, S3, Shape, Value, assert_rows, command, run,
    server,
};
use tempfile::TempDir;

const DAY: i64 = 86_400_000_000_000;
const START: i64 = 1_704_067_200_000_000_000;

/// Where the shards write.
enum Place {
    Folder(TempDir),
    Bucket(Box<S3>),
}

impl Place {
    fn folder() -> Self {
        Self::Folder(TempDir::with_prefix("shards-").unwrap())
    }

    fn bucket() -> Self {
        Self::Bucket(Box::new(S3::start()))
    }

    fn url(&self) -> String {
        match self {
            Self::Folder(folder) => folder.path().join("archive").to_str().unwrap().to_owned(),
            Self::Bucket(_) => "s3://bucket/archive".to_owned(),
        }
    }

    fn command(&self, verb: &[&str]) -> std::process::Command {
        let mut command = command(verb);
        command.env("PGUSER", server::USER).env("PGPASSWORD", server::PASSWORD);
        if let Self::Bucket(s3) = self {
            command.envs(s3.env());
        }
        command
    }

    fn export(&self, source: &str, more: &[&str]) -> Run {
        let url = self.url();
        let args = ["export", "--json", "--source", source, "--name", "source", "--archive", &url];
        run(self.command(&[&args, more].concat()))
    }

    fn start(&self, source: &str, shard: &str) -> Child {
        let url = self.url();
        let args = [
            "export",
            "--json",
            "--source",
            source,
            "--name",
            "source",
            "--archive",
            &url,
            "--shard",
            shard,
        ];
        let mut command = self.command(&args);
        command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// The archive as a folder, which lives as long as the second value.
    fn read(&self) -> (Archive, Option<TempDir>) {
        match self {
            Self::Folder(_) => (Archive::open(self.url()), None),
            Self::Bucket(s3) => {
                let folder = TempDir::with_prefix("downloaded-").unwrap();
                s3.download("archive", folder.path());
                (Archive::open(folder.path()), Some(folder))
            }
        }
    }

    /// How many commits there are at least: a shard that ends folds its own if they are so many.
    fn commits(&self) -> usize {
        let (loose, segments) = match self {
            Self::Folder(_) => {
                let files = support::files(Path::new(&self.url()));
                let below = |part: &str| files.iter().filter(|file| file.contains(part)).count();
                (below(".moveout/commits/"), below(".moveout/segments/"))
            }
            Self::Bucket(s3) => (
                s3.objects("archive/.moveout/commits/").len(),
                s3.objects("archive/.moveout/segments/").len(),
            ),
        };
        loose + 62 * segments
    }

    /// Waits until some shard has committed something.
    #[track_caller]
    fn wait_for_commits(&self, least: usize) {
        let until = Instant::now() + Duration::from_secs(60);
        while self.commits() < least {
            assert!(Instant::now() < until, "nothing was committed");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sealed, verified, equal to its source, and without a trace of the shards.
    #[track_caller]
    fn assert_complete(&self) -> (Archive, Option<TempDir>) {
        let url = self.url();
        run(self.command(&["verify", &url])).expect(0);
        let proof = ["verify", &url, "--against-source", "--deep", "--json"];
        let verdict = run(self.command(&proof)).expect(0).json();
        assert_eq!(verdict["verdict"], "safe", "{verdict}");
        let (archive, folder) = self.read();
        assert!(archive.is_sealed());
        assert!(
            !archive.files().iter().any(|file| file.contains(".moveout")),
            "{:?}",
            archive.files()
        );
        (archive, folder)
    }
}

fn ended(child: Child) -> (i32, Json) {
    let output = child.wait_with_output().unwrap();
    let json = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (output.status.code().unwrap_or(-1), json)
}

/// One large measurement, and many small ones.
fn plant() -> (Influxd, Model) {
    let server = Influxd::start();
    server.query("CREATE DATABASE plant WITH SHARD DURATION 52w");
    let small: Vec<String> = (0..20).map(|number| format!("small {number}")).collect();
    let shape = Shape { measurements: small, points: 20, ..Shape::default() };
    let mut model = Model::generate(3, &shape);
    for point in 0..6000 {
        let time = START + point * DAY / 60;
        let large = Point::new("large", time).tag("site", &format!("s{}", point % 3));
        model.push(large.field("flow", Value::Float(point as f64 / 8.0)));
    }
    server.write("plant", "", &model.lines());
    (server, model)
}

fn assert_plant(archive: &Archive, model: &Model) {
    for measurement in model.measurements() {
        let name = format!("plant.autogen.{measurement}");
        assert_rows(&archive.rows(&name), &model.rows(&measurement));
    }
}

/// Tables of every kind: a large one with time, some with a time that may be null, some without a time, one empty.
fn shop() -> Postgres {
    let server = Postgres::start();
    server.sql("postgres", "CREATE DATABASE shop");
    server.sql(
        "shop",
        "CREATE TABLE large AS SELECT i AS id, '2024-01-01Z'::timestamptz + i * interval '10 minutes' AS at,
                repeat(md5(i::text), 6) AS text FROM generate_series(1, 40000) i;
         CREATE INDEX ON large (at);
         CREATE TABLE small (id bigint PRIMARY KEY, text text);
         INSERT INTO small SELECT i, md5(i::text) FROM generate_series(1, 50) i;
         CREATE TABLE nulls (id bigint, created_at timestamptz);
         CREATE INDEX ON nulls (created_at);
         INSERT INTO nulls SELECT i, CASE WHEN i % 3 > 0 THEN '2024-02-01Z'::timestamptz + i * interval '1 hour' END
            FROM generate_series(1, 3000) i;
         CREATE TABLE empty (id bigint, at timestamptz);
         ANALYZE",
    );
    for number in 0..6 {
        server.sql("shop", &format!("CREATE TABLE whole_{number} AS SELECT * FROM small"));
    }
    server
}

fn ids(archive: &Archive, table: &str) -> Vec<i64> {
    let mut ids: Vec<i64> = archive
        .rows(&format!("shop.public.{table}"))
        .iter()
        .map(|row| row["id"].split(' ').next_back().unwrap().trim_end_matches('i').parse().unwrap())
        .collect();
    ids.sort_unstable();
    ids
}

fn assert_shop(archive: &Archive) {
    let all = |last: i64| (1..=last).collect::<Vec<_>>();
    for (table, last) in
        [("large", 40_000), ("small", 50), ("nulls", 3000), ("empty", 0), ("whole_3", 50)]
    {
        assert_eq!(ids(archive, table), all(last), "{table}");
    }
}

/// So many shards at once: one is killed, one runs twice at once, one never. The plain command completes.
#[track_caller]
fn some_die_run_twice_or_never(
    source: &str,
    place: &Place,
    shards: usize,
) -> (Archive, Option<TempDir>) {
    let name = |shard: usize| format!("{shard}/{shards}");
    let mut killed = place.start(source, &name(1 % shards));
    let twice = [place.start(source, &name(0)), place.start(source, &name(0))];
    let others: Vec<Child> =
        (2..shards.saturating_sub(1)).map(|shard| place.start(source, &name(shard))).collect();
    place.wait_for_commits(1);
    killed.kill().unwrap();
    killed.wait().unwrap();
    for child in twice.into_iter().chain(others) {
        let (status, summary) = ended(child);
        assert_eq!(status, 0, "{summary}");
        assert_eq!(summary["status"], "shard complete");
    }
    // A shard that runs late finds its own work done.
    let late = place.export(source, &["--shard", &name(0)]).expect(0).json();
    assert_eq!((&late["chunks"], &late["status"]), (&0.into(), &"shard complete".into()), "{late}");
    run(place.command(&["verify", &place.url()])).expect(3);
    let sealed = place.export(source, &[]).expect(0).json();
    assert_eq!(sealed["status"], "complete", "{sealed}");
    if shards > 2 {
        assert!(
            sealed["rows"].as_u64() < sealed["rows_total"].as_u64(),
            "the shards did something: {sealed}"
        );
    }
    place.assert_complete()
}

#[test]
fn two_four_and_eight_shards_of_an_influxdb_lose_nothing() {
    let (server, model) = plant();
    let source = format!("{}/plant", server.url());
    for shards in [2, 4, 8] {
        let (archive, _folder) = some_die_run_twice_or_never(&source, &Place::bucket(), shards);
        assert_plant(&archive, &model);
    }
}

#[test]
fn two_four_and_eight_shards_of_a_postgresql_lose_nothing() {
    let server = shop();
    for shards in [2, 4, 8] {
        let (archive, _folder) =
            some_die_run_twice_or_never(&server.url("shop"), &Place::bucket(), shards);
        assert_shop(&archive);
    }
}

/// Each shard alone, one after the other: together they do everything, once, and each does about as much as the others.
#[track_caller]
fn each_does_its_part(source: &str, place: &Place, shards: usize, large: &str) {
    let mut rows = Vec::new();
    let mut files = BTreeSet::new();
    for shard in 0..shards {
        let name = format!("{shard}/{shards}");
        let summary = place.export(source, &["--shard", &name]).expect(0).json();
        assert_eq!(summary["shard"], name.as_str());
        assert_eq!(summary["missing"], Json::Array(Vec::new()), "{summary}");
        assert!(summary["hint"].as_str().unwrap().contains("without `--shard`"), "{summary}");
        let (archive, _folder) = place.read();
        let now: BTreeSet<String> =
            archive.data_files().into_iter().map(|file| file.path).collect();
        assert!(now.is_superset(&files), "no shard touches the files of another one");
        let large = archive.files_of(large).into_iter();
        rows.push(
            large
                .filter(|file| !files.contains(&file.path))
                .map(|file| file.rows.len())
                .sum::<usize>(),
        );
        files = now;
    }
    let mean = rows.iter().sum::<usize>() as f64 / shards as f64;
    let most = *rows.iter().max().unwrap() as f64;
    assert!(most <= 1.2 * mean, "{rows:?}");
    let sealed = place.export(source, &[]).expect(0).json();
    assert_eq!(
        (&sealed["chunks"], &sealed["rows"]),
        (&0.into(), &0.into()),
        "nothing was left: {sealed}"
    );
}

#[test]
fn the_shards_of_an_influxdb_share_the_work_evenly_and_disjointly() {
    let (server, model) = plant();
    let (place, source) = (Place::folder(), format!("{}/plant", server.url()));
    each_does_its_part(&source, &place, 4, "plant.autogen.large");
    let (archive, _folder) = place.assert_complete();
    assert_plant(&archive, &model);
}

#[test]
fn the_shards_of_a_postgresql_share_the_work_evenly_and_disjointly() {
    let (server, place) = (shop(), Place::folder());
    each_does_its_part(&server.url("shop"), &place, 3, "shop.public.large");
    let (archive, _folder) = place.assert_complete();
    assert_shop(&archive);
}

#[test]
fn rows_that_come_between_two_shards_are_found_by_the_run_that_seals() {
    let server = shop();
    let (place, source) = (Place::folder(), server.url("shop"));
    place.export(&source, &["--shard", "0/2"]).expect(0);
    // The end of the large table moves far, and a table comes.
    server.sql(
        "shop",
        "INSERT INTO large SELECT i, '2024-01-01Z'::timestamptz + i * interval '10 minutes', 'late'
            FROM generate_series(40001, 90000) i;
         CREATE TABLE late AS SELECT * FROM small; ANALYZE",
    );
    place.export(&source, &["--shard", "1/2"]).expect(0);
    let between = place.export(&source, &["--shard", "0/2"]).expect(0).json();
    assert!(between["rows"].as_u64().unwrap() < 50_050, "{between}");
    place.export(&source, &[]).expect(0);
    let (archive, _folder) = place.assert_complete();
    assert_eq!(ids(&archive, "large"), (1..=90_000).collect::<Vec<_>>());
    assert_eq!(ids(&archive, "late").len(), 50);
}

#[test]
fn a_table_that_goes_between_two_shards_is_not_taken_for_whole() {
    let server = shop();
    let (place, source) = (Place::folder(), server.url("shop"));
    place.export(&source, &["--shard", "0/2"]).expect(0);
    server.sql("shop", "DROP TABLE large");
    place.export(&source, &["--shard", "1/2"]).expect(0);
    let sealed = place.export(&source, &[]).expect(0).json();
    let of_large = |list: &Json| -> Vec<String> {
        let all = list.as_array().unwrap().iter().map(Json::to_string);
        all.filter(|text| text.contains("large")).collect()
    };
    let warned = of_large(&sealed["warnings"]);
    let lacks = warned.iter().filter(|warning| warning.contains("did not finish")).count();
    assert_eq!(lacks, 1, "{warned:?}");
    // A later run knows no plan of the shards any more, and still says so.
    place.export(&source, &[]).expect(0);

    let config = Path::new(&place.url()).with_file_name("moveout.toml");
    let ask = |more: &str| {
        let text = format!("[[source]]\nname = \"source\"\nurl = \"{source}\"\n{more}");
        fs::write(&config, text).unwrap();
        let (url, config) = (place.url(), config.to_str().unwrap());
        let asked = ["verify", &url, "--against-source", "--deep", "--json", "--config", config];
        run(place.command(&asked))
    };
    let proof = ask("").expect(3).json();
    assert_eq!(proof["verdict"], "not yet", "{proof}");
    let open = of_large(&proof["open"]);
    assert!(open.len() == 1 && open[0].contains("the archive lacks"), "{open:?}");
    // The user can do without it, and says so.
    assert_eq!(ask("exclude = [\"shop.public.large\"]").expect(0).json()["verdict"], "safe");
}

#[test]
fn a_late_shard_changes_nothing_in_a_sealed_archive() {
    let (plant, shop) = (plant().0, shop());
    for source in [format!("{}/plant", plant.url()), shop.url("shop")] {
        // In a range that ends now or later there is always time that nobody has read.
        for range in [&[][..], &["--to", "now"], &["--to", "2100-01-01T00:00:00Z"]] {
            late_shards_change_nothing(&source, range);
        }
    }
}

fn late_shards_change_nothing(source: &str, range: &[&str]) {
    let place = Place::folder();
    place.export(source, range).expect(0);
    let content = || -> Vec<(String, Vec<u8>)> {
        let root = place.url();
        let files = support::files(Path::new(&root)).into_iter();
        files.map(|file| (file.clone(), fs::read(Path::new(&root).join(file)).unwrap())).collect()
    };
    let before = content();
    for shard in ["0/3", "1/3", "2/3", "0/1"] {
        let late = place.export(source, &[&["--shard", shard], range].concat()).expect(0).json();
        assert_eq!(late["status"], "shard complete", "{late}");
        assert!(content() == before, "shard {shard} of {range:?} changed the archive");
    }
}

#[test]
fn a_shard_without_new_rows_leaves_the_seal_on() {
    let server = shop();
    let (place, source) = (Place::folder(), server.url("shop"));
    place.export(&source, &[]).expect(0);
    // A minute later than all others: one shard has it, and nothing else is new.
    server.sql(
        "shop",
        "INSERT INTO large VALUES (40001, '2024-01-01Z'::timestamptz + interval '400001 minutes', 'late')",
    );
    let plan = |shard: &str| {
        let args = [
            "plan",
            "--json",
            "--source",
            &source,
            "--name",
            "source",
            "--archive",
            &place.url(),
            "--shard",
            shard,
        ];
        let plan = run(place.command(&args)).expect(0).json();
        let tables = plan["tables"].as_array().unwrap().clone();
        tables.iter().any(|table| !table["remaining"].as_array().unwrap().is_empty())
    };
    let (with, without): (Vec<&str>, Vec<&str>) =
        ["0/4", "1/4", "2/4", "3/4"].into_iter().partition(|shard| plan(shard));
    assert_eq!(with.len(), 1, "{with:?}");
    for shard in without {
        let summary = place.export(&source, &["--shard", shard]).expect(0).json();
        assert_eq!(summary["status"], "shard complete", "{summary}");
        assert!(place.read().0.is_sealed(), "{shard}");
        run(place.command(&["verify", &place.url()])).expect(0);
    }
    // A shard that is killed before it has taken the seal off leaves the record of the division. As with the plan of any run
    // that is killed there, no fault is found, and the export is to go on.
    let folder = Path::new(&place.url()).join(".moveout/shards");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("4-0123456789abcdef.json"), r#"{"shards":4,"tables":[]}"#).unwrap();
    let told = run(place.command(&["verify", &place.url()])).expect(3).stdout;
    assert!(told.contains("no fault found"), "{told}");
    fs::write(folder.join("4-0123456789abcdee.json"), "nonsense").unwrap();
    run(place.command(&["verify", &place.url()])).expect(4);
    fs::remove_file(folder.join("4-0123456789abcdee.json")).unwrap();
    place.export(&source, &["--shard", with[0]]).expect(0);
    place.export(&source, &[]).expect(0);
    let (archive, _folder) = place.assert_complete();
    assert_eq!(ids(&archive, "large"), (1..=40_001).collect::<Vec<_>>());
}

#[test]
fn shards_extend_a_sealed_archive() {
    let server = shop();
    let (place, source) = (Place::bucket(), server.url("shop"));
    place.export(&source, &[]).expect(0);
    server.sql(
        "shop",
        "INSERT INTO large SELECT i, '2024-01-01Z'::timestamptz + i * interval '10 minutes', 'later'
            FROM generate_series(40001, 60000) i;
         INSERT INTO small VALUES (51, 'later'); ANALYZE",
    );
    // All of them at once, so that they take the seal off together.
    let shards: Vec<Child> =
        (0..3).map(|shard| place.start(&source, &format!("{shard}/3"))).collect();
    let rows: u64 = shards
        .into_iter()
        .map(|child| {
            let (status, summary) = ended(child);
            assert_eq!(status, 0, "{summary}");
            summary["rows"].as_u64().unwrap()
        })
        .sum();
    assert!(rows >= 20_000, "{rows}");
    let sealed = place.export(&source, &[]).expect(0).json();
    assert!(sealed["rows"].as_u64().unwrap() < 20_000, "{sealed}");
    let (archive, _folder) = place.assert_complete();
    assert_eq!(ids(&archive, "large"), (1..=60_000).collect::<Vec<_>>());
    assert_eq!(ids(&archive, "small"), (1..=51).collect::<Vec<_>>());
}

#[test]
fn a_store_without_conditions_costs_work_alone() {
    let (server, model) = plant();
    let source = format!("{}/plant", server.url());
    let place = Place::bucket();
    let Place::Bucket(s3) = &place else { unreachable!() };
    s3.ignore_conditions();
    let (archive, _folder) = some_die_run_twice_or_never(&source, &place, 4);
    assert_plant(&archive, &model);
}

#[test]
fn an_interrupted_shard_is_continued_and_a_failing_store_is_an_incomplete_shard() {
    let (server, model) = plant();
    let source = format!("{}/plant", server.url());
    let place = Place::bucket();
    let Place::Bucket(s3) = &place else { unreachable!() };
    let child = place.start(&source, "1/2");
    place.wait_for_commits(2);
    support::interrupt(&child);
    let (status, summary) = ended(child);
    // It may have been quicker than the signal.
    assert!(matches!(status, 130 | 0), "{status}: {summary}");
    // Nothing can be written: what it says is what an engine retries.
    let is_data = |request: &Request| {
        request.method == "PUT" && request.key().is_some_and(|key| key.contains("/data/"))
    };
    s3.fault(is_data, usize::MAX, support::s3::Fault::Status(403, "AccessDenied"));
    let refused = place.export(&source, &["--shard", "0/2"]);
    assert!(matches!(refused.status, 1 | 3), "{}", refused.stdout);
    assert_ne!(refused.json()["missing"], Json::Array(Vec::new()), "{}", refused.stdout);
    s3.heal();
    for shard in ["0/2", "1/2"] {
        place.export(&source, &["--shard", shard]).expect(0);
    }
    place.export(&source, &[]).expect(0);
    let (archive, _folder) = place.assert_complete();
    assert_plant(&archive, &model);
}

#[test]
fn a_plan_says_what_one_shard_would_do() {
    let (server, _) = plant();
    let (place, source) = (Place::folder(), format!("{}/plant", server.url()));
    let plan = |more: &[&str]| {
        let args = ["plan", "--json", "--source", &source, "--archive", &place.url()];
        run(place.command(&[&args, more].concat())).expect(0).json()
    };
    let all = plan(&[])["tables"].as_array().unwrap().len();
    let parts: Vec<Json> = (0..4).map(|shard| plan(&["--shard", &format!("{shard}/4")])).collect();
    let windows = |plan: &Json| -> Vec<Json> {
        let tables = plan["tables"].as_array().unwrap().iter();
        let large = tables.filter(|table| table["table"]["table"] == "large");
        large.flat_map(|table| table["remaining"].as_array().unwrap().clone()).collect()
    };
    let large: Vec<Json> = parts.iter().flat_map(windows).collect();
    let distinct: BTreeSet<String> = large.iter().map(Json::to_string).collect();
    assert_eq!(distinct.len(), large.len(), "no window is in two shards");
    let tables: BTreeSet<String> = parts
        .iter()
        .flat_map(|plan| plan["tables"].as_array().unwrap())
        .map(|table| table["table"].to_string())
        .collect();
    assert_eq!(tables.len(), all, "each table is in some shard");
    assert!(!Path::new(&place.url()).exists(), "a plan writes nothing");
}

#[test]
fn a_wrong_shard_is_refused_before_anything_is_done() {
    let place = Place::folder();
    for (shard, why) in [
        ("4/4", "the last one of 4 is 3"),
        ("/4", "is the variable of the engine set?"),
        ("4", "this is not a shard"),
        ("0/0", "from 1 to 10000 shards"),
    ] {
        let refused = place.export("lp:nothing", &["--shard", shard]).expect(2);
        assert!(refused.stderr.contains(why), "{}", refused.stderr);
    }
    assert!(!Path::new(&place.url()).exists());
}
