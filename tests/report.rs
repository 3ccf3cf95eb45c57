//! `report` through the binary: how it ends, what it says, what it does to an archive, and what others prove of that.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use insta::{Settings, assert_snapshot};
use moveout::model::{Level, Open, OpenKind, Verdict};
use serde_json::Value;
use support::made::{Made, id, source};
use support::{Archive, Run, S3, View, command, files, run};
use tempfile::TempDir;

const ROWS: &str = "cpu,host=a load=1.5 1704067200000000000\ncpu,host=b load=2.5 1704153600000000000\nmem used=7i 1704067200000000000\n";

/// A file of line protocol, and what becomes of it.
struct Sample {
    folder: TempDir,
}

impl Sample {
    /// Exported.
    fn new() -> Self {
        let sample = Self { folder: TempDir::new().unwrap() };
        fs::write(sample.path("metrics.lp"), ROWS).unwrap();
        sample.export("metrics.lp");
        sample
    }

    /// Exported and proved.
    fn safe() -> Self {
        let sample = Self::new();
        sample.prove(0);
        sample
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn archive(&self) -> PathBuf {
        self.path("archive")
    }

    fn export(&self, file: &str) {
        self.run(&["export", "--source", &format!("lp:{file}"), "--archive", "archive"], &[])
            .expect(0);
    }

    #[track_caller]
    fn prove(&self, exit: i32) -> Run {
        self.run(&["verify", "archive", "--against-source"], &[]).expect(exit)
    }

    fn run(&self, args: &[&str], environment: &[(&str, &Path)]) -> Run {
        let mut command = command(args);
        command.current_dir(self.folder.path()).envs(environment.iter().copied());
        run(command)
    }

    #[track_caller]
    fn report(&self, exit: i32) -> String {
        self.run(&["report", "archive"], &[]).expect(exit).stdout
    }

    fn json(&self, more: &[&str]) -> Value {
        let mut args = vec!["report", "archive", "--json"];
        args.extend(more);
        self.run(&args, &[]).json()
    }

    fn page(&self) -> String {
        fs::read_to_string(self.path("archive/report.html")).unwrap()
    }

    /// All files of the archive.
    fn content(&self) -> BTreeMap<String, Vec<u8>> {
        let root = self.archive();
        files(&root)
            .into_iter()
            .map(|file| (file.clone(), fs::read(root.join(file)).unwrap()))
            .collect()
    }
}

/// Leaves out of a snapshot what is another every time.
fn settings() -> Settings {
    let mut settings = Settings::clone_current();
    settings.add_filter(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "[TIME]");
    settings.add_filter(r"[0-9a-f]{64}", "[HASH]");
    settings.add_filter(r"\d+(\.\d+)? (KiB|B)\b", "[BYTES]");
    settings
}

#[test]
fn people_are_told_the_verdict_first() {
    settings().bind(|| {
        let sample = Sample::new();
        assert_snapshot!("no_proof", sample.report(3));
        sample.prove(0);
        assert_snapshot!("safe", sample.report(0));
        // Another row at the source, which the archive has not.
        fs::write(
            sample.path("metrics.lp"),
            format!("{ROWS}cpu,host=a load=9 1704240000000000000\n"),
        )
        .unwrap();
        sample.prove(4);
        assert_snapshot!("different", sample.report(4));
        // What was proved was another archive.
        fs::write(sample.path("metrics.lp"), ROWS).unwrap();
        sample.prove(0);
        fs::write(sample.path("more.lp"), ROWS).unwrap();
        sample.export("more.lp");
        assert_snapshot!("outdated", sample.report(3));
        fs::remove_file(sample.path("archive/tagmanifest-sha256.txt")).unwrap();
        assert_snapshot!("unsealed", sample.report(3));
    });
}

#[test]
fn what_could_not_be_compared_is_open_and_no_difference() {
    let sample = Sample { folder: TempDir::new().unwrap() };
    let id = id("s", "d", "t");
    let mut made =
        Made::of(vec![source("s", "https://h", "InfluxDB 1.8")], &[id], 3).proved(Level::Counts);
    let record = made.record.as_mut().unwrap();
    record.verdict = Verdict::NotYet;
    let text = |text: &str| text.to_owned();
    let (what, why, todo) = (text("the source"), text("it does not answer"), text("see to it"));
    record.open = vec![Open { source: text("s"), what, why, todo, kind: OpenKind::Unfinished }];
    for (kind, word, exit) in [
        (OpenKind::Unfinished, "unfinished", 3),
        (OpenKind::Failed, "failed", 3),
        (OpenKind::Different, "different", 4),
    ] {
        made.record.as_mut().unwrap().open[0].kind = kind;
        made.write(&sample.archive());
        let json = sample
            .run(&["report", "archive", "--json", "--output", "page.html"], &[])
            .expect(exit)
            .json();
        assert_eq!(
            (json["verdict"].as_str(), json["open"][0]["kind"].as_str()),
            (Some("not yet"), Some(word))
        );
    }
    // What is open stands in the way whatever else the record says.
    made.record.as_mut().unwrap().verdict = Verdict::Safe;
    made.write(&sample.archive());
    let said = sample.run(&["report", "archive", "--output", "page.html"], &[]).expect(4).stdout;
    assert!(said.starts_with("NOT YET\n"), "{said}");
}

#[test]
fn the_verdict_comes_with_what_it_is_founded_on_as_json() {
    let sample = Sample::safe();
    let json = sample.json(&[]);
    assert_eq!(
        (json["command"].as_str(), json["verdict"].as_str()),
        (Some("report"), Some("safe"))
    );
    let source = &json["sources"][0];
    assert_eq!((source["name"].as_str(), source["rows"].as_u64()), (Some("metrics.lp"), Some(3)));
    assert_eq!(source["compared"]["rows"]["chunks"], source["chunks"]);
    assert_eq!(json["page"], "archive/report.html");
    assert_eq!(json["run"], Value::Null);
}

#[test]
fn the_page_belongs_to_the_archive_and_changes_nothing_else() {
    let sample = Sample::safe();
    let before = sample.content();
    sample.report(0);
    let mut after = sample.content();
    let page = after.remove("report.html").unwrap();
    let manifest = "tagmanifest-sha256.txt";
    assert_ne!(before[manifest], after.remove(manifest).unwrap());
    assert!(
        after.iter().all(|(key, bytes)| before[key] == *bytes) && after.len() + 1 == before.len()
    );
    Archive::open(sample.archive()).validate_as_bag();
    sample.run(&["verify", "archive"], &[]).expect(0);
    // The proof is still one, and the same again is the same.
    let all = sample.content();
    sample.report(0);
    assert_eq!(sample.content(), all);
    let elsewhere = sample.path("page.html");
    sample.run(&["report", "archive", "--output", "page.html"], &[]).expect(0);
    assert_eq!(fs::read(elsewhere).unwrap(), page, "the page does not depend on where it goes");
}

#[test]
fn with_output_the_archive_stays_untouched() {
    let sample = Sample::safe();
    let before = sample.content();
    let json = sample.json(&["--output", "page.html"]);
    assert_eq!(json["page"], "page.html");
    assert_eq!(sample.content(), before);
    assert!(fs::read_to_string(sample.path("page.html")).unwrap().contains("SAFE TO CANCEL"));
    // Also where it cannot be changed at all.
    let run =
        sample.run(&["report", "archive", "--output", "archive/catalog/page.html"], &[]).expect(2);
    assert!(run.stderr.contains("lies in the archive"), "{}", run.stderr);
    assert_eq!(sample.content(), before);
    let run =
        sample.run(&["report", "archive", "--output", "no/such/folder/page.html"], &[]).expect(1);
    assert!(run.stderr.contains("no/such/folder/page.html"), "{}", run.stderr);
}

#[test]
fn an_archive_without_a_seal_gets_no_page_but_can_be_shown() {
    let sample = Sample::safe();
    fs::remove_file(sample.path("archive/tagmanifest-sha256.txt")).unwrap();
    let before = sample.content();
    sample.report(3);
    assert_eq!(sample.content(), before);
    sample.run(&["report", "archive", "--output", "page.html"], &[]).expect(3);
    let page = fs::read_to_string(sample.path("page.html")).unwrap();
    assert!(page.contains("NOT YET") && page.contains("not sealed"));
    assert_eq!(sample.content(), before);
}

/// A run that was killed before it had sealed anything.
#[test]
fn an_archive_that_has_only_been_begun_has_a_page() {
    let sample = Sample { folder: TempDir::new().unwrap() };
    fs::create_dir_all(sample.path("archive/.moveout/plans")).unwrap();
    fs::write(sample.path("archive/.moveout/archive.json"), "{\"format\":2}\n").unwrap();
    sample.run(&["report", "archive", "--output", "page.html"], &[]).expect(3);
    let table = serde_json::to_value(id("s", "d", "t")).unwrap();
    let requested =
        serde_json::json!({"from": "2024-01-01T00:00:00Z", "to": "2024-02-01T00:00:00Z"});
    let plan = serde_json::json!({
        "run": "r",
        "sources": [source("s", "https://h", "InfluxDB 1.8")],
        "tables": [{"id": table, "path": "data/s/d/autogen/t", "requested": requested}],
    });
    fs::write(sample.path("archive/.moveout/plans/r.json"), plan.to_string()).unwrap();
    let text = sample.run(&["report", "archive", "--output", "page.html"], &[]).expect(3).stdout;
    assert!(text.starts_with("NOT YET\nThe archive is not sealed"), "{text}");
    let page = fs::read_to_string(sample.path("page.html")).unwrap();
    assert!(page.contains("2024-01-01 to 2024-02-01: missing"));
    assert!(page.contains("Export everything <span class=\"state\">· open"));
}

#[test]
fn a_page_that_cannot_be_put_into_the_archive_is_an_error() {
    let sample = Sample::safe();
    // A folder is where the page belongs.
    fs::create_dir_all(sample.path("archive/report.html/x")).unwrap();
    let run = sample.run(&["report", "archive"], &[]);
    assert_ne!(run.status, 0);
    assert!(run.stderr.contains("putting the report into the archive"), "{}", run.stderr);
}

#[test]
fn a_record_that_is_broken_is_no_proof() {
    let sample = Sample::safe();
    let path = sample.path("archive/catalog/verdict.json");
    let record = fs::read_to_string(&path).unwrap();
    for broken in [
        record.replace("\"safe\"", "\"sure\""),
        String::new(),
        record.replace("\"verdict\": \"safe\"", "\"verdict\":  \"safe\""),
    ] {
        fs::write(&path, broken).unwrap();
        let text =
            sample.run(&["report", "archive", "--output", "page.html"], &[]).expect(3).stdout;
        assert!(text.starts_with("NOT YET\n"), "{text}");
        assert!(text.contains("moveout verify archive --against-source"), "{text}");
    }
}

#[test]
fn an_archive_in_a_bucket_has_a_report_too() {
    let sample = Sample::new();
    let s3 = S3::start();
    let url = "s3://bucket/backup";
    let run = |args: &[&str]| {
        let mut command = command(args);
        command.current_dir(sample.folder.path()).envs(s3.env());
        run(command)
    };
    run(&["export", "--source", "lp:metrics.lp", "--archive", url]).expect(0);
    run(&["report", url]).expect(3);
    run(&["verify", url, "--against-source"]).expect(0);
    let text = run(&["report", url]).expect(0).stdout;
    assert!(
        text.starts_with("SAFE TO CANCEL\n") && text.contains(&format!("{url}/report.html")),
        "{text}"
    );
    run(&["verify", url]).expect(0);
}

/// The page of a real archive, in a real browser.
#[test]
fn the_page_of_an_archive_opens_in_a_browser() {
    let sample = Sample::safe();
    sample.report(0);
    let told = View { width: 800, dark: false }.ask(
        &sample.page(),
        "",
        "[document.title, document.querySelector('h1').innerText.trim(), document.querySelectorAll('tbody th').length > 2]",
    );
    assert_eq!(
        told,
        serde_json::json!(["SAFE TO CANCEL: report of metrics.lp", "SAFE TO CANCEL", true])
    );
}

/// A key of minisign, by its own program.
fn key(folder: &Path, password: Option<&str>) -> PathBuf {
    let mut minisign = Command::new("minisign");
    minisign.current_dir(folder).args(["-G", "-f", "-p", "key.pub", "-s", "key"]);
    if password.is_none() {
        minisign.arg("-W");
    }
    let answers = folder.join("answers");
    fs::write(
        &answers,
        password.map(|password| format!("{password}\n{password}\n")).unwrap_or_default(),
    )
    .unwrap();
    minisign.stdin(fs::File::open(&answers).unwrap());
    let made = minisign.output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    fs::remove_file(answers).unwrap();
    folder.join("key")
}

/// What the program minisign says of the archive's signature; `None` where it refuses it.
fn trusted_comment(sample: &Sample) -> Option<String> {
    let mut minisign = Command::new("minisign");
    let public = sample.path("key.pub");
    minisign
        .current_dir(sample.archive())
        .args(["-V", "-Q", "-m", "tagmanifest-sha256.txt", "-p"])
        .arg(public);
    let said = minisign.output().unwrap();
    said.status.success().then(|| String::from_utf8(said.stdout).unwrap())
}

#[test]
fn a_verdict_and_a_report_are_signed() {
    let sample = Sample::new();
    let key = key(sample.folder.path(), None);
    let environment = [("MOVEOUT_MINISIGN_KEY", key.as_path())];
    // Nothing is vouched for that is not safe.
    fs::write(sample.path("metrics.lp"), ROWS.replace("1.5", "1.6")).unwrap();
    sample.run(&["verify", "archive", "--against-source"], &environment).expect(4);
    assert_eq!(trusted_comment(&sample), None);
    fs::write(sample.path("metrics.lp"), ROWS).unwrap();
    sample.run(&["verify", "archive", "--against-source"], &environment).expect(0);
    let comment = trusted_comment(&sample).unwrap();
    let json = sample.json(&["--output", "page.html"]);
    let proved = json["proved"].as_str().unwrap();
    assert_eq!(
        comment.trim_end(),
        format!("SAFE TO CANCEL, compared with the sources until {proved}")
    );
    sample.run(&["verify", "archive"], &environment).expect(0);
    // A report without the key takes the signature away, and says so.
    let text = sample.report(0);
    assert!(text.contains("The signature of the archive is gone"), "{text}");
    assert_eq!(trusted_comment(&sample), None);
    sample.run(&["verify", "archive"], &[]).expect(0);
    let signed = sample.run(&["report", "archive"], &environment).expect(0).stdout;
    assert!(signed.contains("signed: tagmanifest-sha256.txt.minisig"), "{signed}");
    assert_eq!(trusted_comment(&sample).unwrap(), comment);
    // One that changes nothing leaves it.
    let text = sample.report(0);
    assert!(!text.contains("gone"), "{text}");
    assert_eq!(trusted_comment(&sample).unwrap(), comment);
    // It is of these bytes alone.
    let manifest = sample.path("archive/tagmanifest-sha256.txt");
    let changed = fs::read_to_string(&manifest).unwrap().replacen('a', "b", 1);
    fs::write(&manifest, changed).unwrap();
    assert_eq!(trusted_comment(&sample), None);
}

#[test]
fn a_key_that_cannot_be_used_is_refused_at_once() {
    let sample = Sample::new();
    let before = sample.content();
    let key = key(sample.folder.path(), Some("correct horse"));
    let with = |args: &[&str], key: &Path, password: Option<&str>| {
        let mut command = command(args);
        command.current_dir(sample.folder.path()).env("MOVEOUT_MINISIGN_KEY", key);
        command.envs(password.map(|password| ("MOVEOUT_MINISIGN_PASSWORD", password)));
        run(command)
    };
    // The sources are away: nobody has asked them.
    fs::rename(sample.path("metrics.lp"), sample.path("away.lp")).unwrap();
    let nonsense = sample.path("nonsense");
    fs::write(&nonsense, "untrusted comment: x\nAAAA\n").unwrap();
    let missing = sample.path("missing");
    for args in [&["verify", "archive", "--against-source"][..], &["report", "archive"]] {
        for (key, password) in
            [(&key, Some("battery staple")), (&key, None), (&nonsense, None), (&missing, None)]
        {
            let run = with(args, key, password).expect(2);
            assert!(run.stderr.contains("MOVEOUT_MINISIGN_KEY"), "{}", run.stderr);
            assert!(!run.stderr.contains("battery"), "{}", run.stderr);
        }
    }
    assert_eq!(sample.content(), before);
    fs::rename(sample.path("away.lp"), sample.path("metrics.lp")).unwrap();
    let proof =
        with(&["verify", "archive", "--against-source"], &key, Some("correct horse")).expect(0);
    assert!(trusted_comment(&sample).is_some());
    assert!(!format!("{}{}", proof.stdout, proof.stderr).contains("horse"));
}

/// Every command of `README.txt` in the archive, as it stands there.
#[test]
fn the_readme_of_an_archive_is_true_to_the_letter() {
    let sample = Sample::new();
    let key = key(sample.folder.path(), None);
    let environment = [("MOVEOUT_MINISIGN_KEY", key.as_path())];
    sample.run(&["verify", "archive", "--against-source"], &environment).expect(0);
    sample.run(&["report", "archive"], &environment).expect(0);
    let readme = fs::read_to_string(sample.path("archive/README.txt")).unwrap();
    let bin = support::repository("target/venv/bin");
    let program = PathBuf::from(env!("CARGO_BIN_EXE_moveout"));
    let path = format!("{}:{}:/usr/bin:/bin", bin.display(), program.parent().unwrap().display());
    let table = fs::read_dir(sample.path("archive/data/metrics.lp/metrics/autogen"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    let table = format!("data/metrics.lp/metrics/autogen/{}", table.file_name().to_str().unwrap());
    let mut commands = 0;
    for line in readme.lines().filter_map(|line| line.strip_prefix("    ")) {
        let line = line.split("   (").next().unwrap().trim();
        if let Some(sql) = line.strip_prefix("SELECT ") {
            let sql = format!("SELECT {sql}").replace("data/SOURCE/DATABASE/POLICY/TABLE", &table);
            let counted = "import duckdb, os, sys; os.chdir(sys.argv[1]); print(duckdb.sql('SELECT count(*) FROM (' + sys.argv[2].rstrip(';') + ')').fetchall()[0][0])";
            let rows = support::python(counted, &[sample.archive().to_str().unwrap(), &sql]);
            assert!(rows.trim().parse::<u64>().unwrap() > 0, "{sql}: {rows}");
            commands += 1;
        } else if ["sha256sum ", "bagit.py ", "moveout ", "minisign "]
            .iter()
            .any(|program| line.starts_with(program))
        {
            let line = line.replace("KEY.pub", "../key.pub");
            let mut shell = Command::new("bash");
            shell.args(["-c", &line]).current_dir(sample.archive()).env("PATH", &path);
            let said = shell.output().unwrap();
            let (out, err) =
                (String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
            assert!(said.status.success(), "{line}: {out}{err}");
            commands += 1;
        }
    }
    assert_eq!(commands, 5, "{readme}");
    // Every path that it names is there, but for the kinds that this archive has none of.
    for path in [
        "catalog/tables.json",
        "catalog/chunks.parquet",
        "catalog/run.json",
        "catalog/verdict.json",
        "report.html",
    ] {
        assert!(readme.contains(path) && sample.archive().join(path).exists(), "{path}");
    }
}
