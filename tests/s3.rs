//! Archives in a bucket: every verb works as it does on a disk, whatever the store does to requests.
//! The store is `support::S3`, an in-process server that checks signatures (s3s-fs behind a layer of
//! faults); no other server is spoken to here, but for an `influxd` as a source.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value as Json;
use support::s3::{Fault, Request};
use support::{Archive, Model, Run, S3, Shape, assert_rows, command, moveout, repository, run};
use tempfile::TempDir;

const PLACE: &str = "s3://bucket/some/place";
const PREFIX: &str = "some/place";

fn with_env(s3: &S3, mut command: Command) -> Command {
    command.envs(s3.env());
    command
}

fn on(s3: &S3, args: &[&str]) -> Run {
    run(with_env(s3, command(args)))
}

/// A line-protocol file with more rows than one part of an upload holds.
struct Lines {
    folder: TempDir,
    model: Model,
}

impl Lines {
    fn new(shape: &Shape) -> Self {
        let folder = TempDir::with_prefix("lines-").unwrap();
        let model = Model::generate(5, shape);
        fs::write(folder.path().join("d.lp"), model.lines()).unwrap();
        Self { folder, model }
    }

    fn small() -> Self {
        Self::new(&Shape { points: 60, ..Shape::default() })
    }

    /// Some megabytes that do not compress, in one table: an upload of three parts.
    fn large() -> Self {
        let mut lines = Self::small();
        let mut random = fastrand::Rng::with_seed(6);
        for time in 0..90_000 {
            let text: String = (0..200).map(|_| random.alphanumeric()).collect();
            let point = support::Point::new("large", 1_704_067_200_000_000_000 + time);
            lines.model.push(point.field("text", support::Value::String(text)));
        }
        fs::write(lines.folder.path().join("d.lp"), lines.model.lines()).unwrap();
        lines
    }

    fn source(&self) -> String {
        format!("lp:{}", self.folder.path().join("d.lp").display())
    }

    fn export(&self, s3: &S3) -> Run {
        on(s3, &["export", "--json", "--source", &self.source(), "--archive", PLACE])
    }

    fn start(&self, s3: &S3) -> Child {
        let args = ["export", "--source", &self.source(), "--archive", PLACE];
        let mut command = with_env(s3, command(args));
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// Sealed, exact, verified, and with nothing in the bucket that does not belong there.
    #[track_caller]
    fn assert_complete(&self, s3: &S3) {
        on(s3, &["verify", PLACE]).expect(0);
        on(s3, &["verify", "--quick", PLACE]).expect(0);
        assert_eq!(s3.uploads(), []);
        let folder = TempDir::with_prefix("downloaded-").unwrap();
        s3.download(PREFIX, folder.path());
        let archive = Archive::open(folder.path());
        assert!(archive.is_sealed());
        for measurement in self.model.measurements() {
            let table = archive
                .catalog()
                .into_iter()
                .find(|entry| entry["table"] == measurement.as_str())
                .unwrap();
            let name =
                format!("{}.{}.{measurement}", text(&table, "database"), text(&table, "schema"));
            assert_rows(&archive.rows(&name), &self.model.rows(&measurement));
        }
        // As a folder it is the same archive.
        moveout(["verify", folder.path().to_str().unwrap()]).expect(0);
        let listed: usize = ["manifest-sha256.txt", "tagmanifest-sha256.txt"]
            .map(|manifest| archive.text(manifest).lines().count())
            .iter()
            .sum();
        assert_eq!(s3.objects(PREFIX).len(), listed + 1, "the tag manifest, and what both list");
    }
}

fn text(entry: &Json, key: &str) -> String {
    entry[key].as_str().unwrap().to_owned()
}

fn writes(request: &Request) -> bool {
    matches!(request.method.as_str(), "PUT" | "POST")
}

#[test]
fn every_verb_works_in_a_bucket() {
    let (s3, lines) = (S3::start(), Lines::small());
    s3.put("some/other", "not ours, and never touched");
    let first = lines.export(&s3).expect(0).json();
    assert_eq!(first["status"], "complete");
    lines.assert_complete(&s3);
    let before = s3.objects("");
    let again = lines.export(&s3).expect(0).json();
    assert_eq!(again["rows"], 0);
    assert!(s3.objects("") == before, "a run that has nothing to do writes nothing");
    let status = on(&s3, &["status", PLACE]).expect(0);
    assert!(status.stdout.contains("sealed"), "{}", status.stdout);
    on(&s3, &["plan", "--source", &lines.source(), "--archive", PLACE]).expect(0);
    assert!(s3.objects("") == before);
    // Another source extends it.
    let weather = format!("lp:{}", repository("tests/data/weather.lp").display());
    on(&s3, &["export", "--source", &weather, "--archive", PLACE]).expect(0);
    on(&s3, &["verify", PLACE]).expect(0);
    assert!(s3.objects("").len() > before.len());
    assert_eq!(s3.objects("")["some/other"], b"not ours, and never touched");
}

#[test]
fn a_range_is_extended_and_the_bucket_itself_can_be_the_place() {
    let (s3, lines) = (S3::start(), Lines::small());
    for to in ["2024-01-02", "max"] {
        let source = lines.source();
        let args = ["export", "--source", &source, "--archive", "s3://bucket", "--to", to];
        on(&s3, &args).expect(0);
        on(&s3, &["verify", "s3://bucket"]).expect(0);
    }
    assert!(s3.objects("").contains_key("tagmanifest-sha256.txt"));
}

#[test]
fn large_files_go_up_in_equal_parts() {
    let (s3, lines) = (S3::start(), Lines::large());
    lines.export(&s3).expect(0);
    lines.assert_complete(&s3);
    let parts = s3.requests().into_iter().filter(|r| r.parameter("partNumber").is_some()).count();
    assert!(parts >= 3, "{parts} parts");
}

#[test]
fn a_store_without_conditions_is_no_less_safe() {
    for refuses in [false, true] {
        let (s3, lines) = (S3::start(), Lines::small());
        match refuses {
            true => s3.refuse_conditions(),
            false => s3.ignore_conditions(),
        }
        // Two at once, which cannot see who was first.
        let (mut one, mut two) = (lines.start(&s3), lines.start(&s3));
        assert!(one.wait().unwrap().success() && two.wait().unwrap().success());
        lines.export(&s3).expect(0);
        lines.assert_complete(&s3);
    }
}

#[test]
fn a_store_that_fails_half_of_the_time_gets_an_exact_archive() {
    let lines = Lines::large();
    for seed in 0..3 {
        let s3 = S3::start();
        s3.half(seed, writes);
        let began = Instant::now();
        while lines.export(&s3).status != 0 {
            assert!(began.elapsed() < Duration::from_secs(120), "seed {seed}");
        }
        assert!(s3.fired() > 5, "seed {seed}: {} faults", s3.fired());
        s3.heal();
        lines.assert_complete(&s3);
    }
}

#[test]
fn single_faults_change_nothing() {
    let lines = Lines::large();
    let part = |request: &Request| request.parameter("partNumber").is_some();
    let complete =
        |request: &Request| request.method == "POST" && request.parameter("uploadId").is_some();
    let commit = |request: &Request| {
        request.method == "PUT" && request.key().is_some_and(|key| key.contains("/commits/"))
    };
    let read = |request: &Request| {
        request.method == "GET" && request.key().is_some_and(|key| key.contains("/data/"))
    };
    type Case = (&'static str, fn(&Request) -> bool, Fault);
    let cases: [Case; 9] = [
        ("a part that fails", part, Fault::Status(500, "InternalError")),
        ("a part that is too much", part, Fault::Status(503, "SlowDown")),
        ("a part that is cut", part, Fault::Reset),
        ("a part whose answer is lost", part, Fault::LostAnswer),
        ("a slow part", part, Fault::Slow(Duration::from_secs(1))),
        ("a completion whose answer is lost", complete, Fault::LostAnswer),
        ("a commit whose answer is lost", commit, Fault::LostAnswer),
        ("a wrong byte on reading back", read, Fault::WrongByte),
        ("an answer that is cut", read, Fault::Truncate),
    ];
    for (name, matches, fault) in cases {
        let s3 = S3::start();
        s3.fault(matches, 1, fault);
        let run = lines.export(&s3);
        assert_eq!(run.status, 0, "{name}: {}", run.stderr);
        assert_eq!(s3.fired(), 1, "{name}");
        lines.assert_complete(&s3);
    }
}

#[test]
fn a_killed_upload_is_taken_back_by_the_next_run() {
    let (s3, lines) = (S3::start(), Lines::large());
    let second = |request: &Request| request.parameter("partNumber").as_deref() == Some("2");
    s3.fault(second, 1, Fault::Slow(Duration::from_secs(60)));
    let mut child = lines.start(&s3);
    let began = Instant::now();
    while s3.uploads().is_empty() || s3.fired() == 0 {
        assert!(began.elapsed() < Duration::from_secs(60), "no upload began");
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(s3.uploads().len(), 1);
    // Somebody else's upload in the same bucket is nobody's business.
    on(&s3, &["verify", PLACE]).expect(3);
    lines.export(&s3).expect(0);
    lines.assert_complete(&s3);
}

#[test]
fn damage_in_a_bucket_is_found() {
    let (s3, lines) = (S3::start(), Lines::small());
    lines.export(&s3).expect(0);
    let whole = s3.objects(PREFIX);
    let keys: BTreeMap<&String, &Vec<u8>> =
        whole.iter().filter(|(key, _)| key.contains("/data/")).collect();
    for (key, bytes) in keys {
        let mut flipped = bytes.clone();
        let middle = flipped.len() / 2;
        flipped[middle] ^= 1;
        s3.put(key, flipped);
        let name = key.strip_prefix("some/place/").unwrap();
        let found = on(&s3, &["verify", PLACE]).expect(4);
        assert!(found.stdout.contains(name), "{}", found.stdout);
        s3.remove(key);
        let found = on(&s3, &["verify", "--quick", PLACE]).expect(4);
        assert!(found.stdout.contains(name), "{}", found.stdout);
        s3.put(key, bytes.clone());
    }
    s3.put("some/place/data/stranger", "?");
    on(&s3, &["verify", "--quick", PLACE]).expect(4);
}

/// Neither this machine's clock nor that of the other one says whether a run over there lives.
#[test]
fn whoever_only_looks_goes_by_the_clock_of_the_store() {
    let (s3, lines) = (S3::start(), Lines::small());
    lines.export(&s3).expect(0);
    let run = "zzzzzzzz000000";
    let key = format!("{PREFIX}/.moveout/runs/{run}.json");
    for ahead in [-130, 0, 130, 100_000] {
        s3.set_clock(ahead);
        for (age, lives) in [(5, true), (110, true), (130, false)] {
            let beat = format!(
                r#"{{"run":"{run}","started":"1999-01-01T00:00:00Z","beat":"1999-01-01T00:00:00Z",
                "host":"elsewhere","pid":1,"pid_started":1}}"#
            );
            s3.put(&key, beat);
            s3.age(&key, age);
            let status = on(&s3, &["status", "--json", PLACE]).expect(0).json();
            let runs = status["runs"].as_array().unwrap().len();
            assert_eq!(
                runs,
                usize::from(lives),
                "{ahead} s ahead, {age} s after the beat: {status}"
            );
            // What a dead run left of its first steps is unfinished.
            on(&s3, &["verify", "--quick", PLACE]).expect(if lives { 0 } else { 3 });
        }
    }
}

#[test]
fn what_cannot_work_is_said_at_once() {
    let lines = Lines::small();
    let s3 = S3::start();
    let export = |env: &[(&str, &str)], place: &str| {
        let mut command = with_env(
            &s3,
            command(["export", "--source", &lines.source(), "--archive", place, "-vv"]),
        );
        command.envs(env.iter().copied());
        run(command)
    };
    let wrong = export(&[("AWS_SECRET_ACCESS_KEY", "wr0ng-secret")], PLACE).expect(1);
    assert!(wrong.stderr.contains("SignatureDoesNotMatch"), "{}", wrong.stderr);
    assert!(wrong.stderr.contains("hint: check AWS_ACCESS_KEY_ID"), "{}", wrong.stderr);
    assert!(!wrong.stderr.contains("wr0ng-secret"), "{}", wrong.stderr);
    let lost = export(&[], "s3://nowhere/x").expect(1);
    assert!(
        lost.stderr.contains("NoSuchBucket") && lost.stderr.contains("create the bucket"),
        "{}",
        lost.stderr
    );
    export(&[], "s3://").expect(2);
    export(&[("AWS_ENDPOINT_URL", "::")], PLACE).expect(2);
    s3.put("elsewhere/file", "of somebody else");
    let strange = export(&[], "s3://bucket/elsewhere").expect(1);
    assert!(strange.stderr.contains("not empty"), "{}", strange.stderr);
    on(&s3, &["verify", "s3://bucket/nothing"]).expect(1);
    s3.fault(|_| true, 1000, Fault::Status(400, "PublicEndpointForbidden"));
    let forbidden = export(&[], PLACE).expect(1);
    assert!(forbidden.stderr.contains("internal endpoint"), "{}", forbidden.stderr);
    s3.heal();
    s3.fault(writes, 1000, Fault::Status(403, "AccessDenied"));
    let denied = export(&[], PLACE).expect(1);
    assert!(denied.stderr.contains("must be allowed to"), "{}", denied.stderr);
}

#[test]
fn the_configuration_says_how_a_bucket_is_reached() {
    let (s3, lines) = (S3::start(), Lines::small());
    let folder = TempDir::with_prefix("config-").unwrap();
    let config = folder.path().join("moveout.toml");
    fs::write(folder.path().join("key"), support::s3::SECRET_KEY).unwrap();
    let text = format!(
        "archive = \"{PLACE}\"\n[s3]\npreset = \"garage\"\nendpoint = \"{}\"\nregion = \"us-east-1\"\n\
         access_key_id = \"{}\"\nsecret_access_key = {{ file = \"key\" }}\n\
         [[source]]\nname = \"d\"\nurl = \"{}\"\n",
        s3.url(),
        support::s3::ACCESS_KEY,
        lines.source()
    );
    fs::write(&config, text).unwrap();
    let config = config.to_str().unwrap();
    moveout(["export", "--config", config]).expect(0);
    moveout(["verify", "--config", config, PLACE]).expect(0);
    moveout(["status", "--config", config, PLACE]).expect(0);
    moveout(["doctor", "--config", config]).expect(0);
    assert!(s3.requests().iter().all(|request| !request.conditional), "Garage ignores conditions");
    for (key, bytes) in s3.objects("") {
        let secret = support::s3::SECRET_KEY;
        assert!(!String::from_utf8_lossy(&bytes).contains(secret), "{key} holds the secret");
    }
}

#[test]
fn the_doctor_tries_everything_and_leaves_nothing() {
    let (s3, lines) = (S3::start(), Lines::small());
    let doctor = || on(&s3, &["doctor", "--json", "--source", &lines.source(), "--archive", PLACE]);
    let found = doctor().expect(0).json();
    let tried: Vec<_> =
        found["checks"].as_array().unwrap().iter().map(|check| text(check, "what")).collect();
    for what in ["put", "get", "get a range", "upload in parts", "list", "delete"] {
        assert!(tried.iter().any(|tried| tried == what), "{tried:?}");
    }
    assert!(s3.objects("").is_empty() && s3.uploads().is_empty());
    // Each thing that does not work is named.
    for (what, matches, fault) in [
        ("put", writes as fn(&Request) -> bool, Fault::Status(403, "AccessDenied")),
        ("get", |r| r.method == "GET" && r.key().is_some(), Fault::WrongByte),
        (
            "upload in parts",
            |r| r.parameter("partNumber").is_some(),
            Fault::Status(403, "AccessDenied"),
        ),
        ("delete", |r| r.method == "DELETE", Fault::Status(403, "AccessDenied")),
    ] {
        s3.fault(matches, 1000, fault);
        let found = doctor().expect(1).json();
        let checks = found["checks"].as_array().unwrap();
        let failed = checks.iter().find(|check| check["what"] == what).unwrap();
        assert_eq!(failed["status"], "failed", "{what}: {failed}");
        s3.heal();
    }
    assert!(s3.uploads().is_empty());
}
