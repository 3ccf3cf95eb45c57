//! Line-protocol files through the program: every form of a file gives the rows that a server would
//! hold, and a file that was cut, changed or broken is never sealed as if it were whole.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]
#![allow(clippy::print_stderr, reason = "shown where a test fails")]

mod support;

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value as Json;
use support::{
    Archive, Model, Point, Run, Shape, Value, assert_rows, command, moveout, peak_memory,
};
use tempfile::TempDir;

/// A file and the archive that it becomes.
struct Setting {
    folder: TempDir,
    file: PathBuf,
}

impl Setting {
    fn new(name: &str, content: impl AsRef<[u8]>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(name);
        fs::write(&file, content).unwrap();
        Self { folder, file }
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("archive")
    }

    fn export(&self, more: &[&str]) -> Run {
        export(&self.file, &self.root(), more)
    }

    /// With more keys in its source's table of a configuration.
    fn export_with(&self, keys: &str) -> Run {
        let config = self.folder.path().join("config.toml");
        let name = self.file.file_name().unwrap().to_str().unwrap();
        let text = format!("[[source]]\nname = \"lines\"\nurl = \"lp:{name}\"\n{keys}\n");
        fs::write(&config, text).unwrap();
        let (config, root) = (config.to_str().unwrap(), self.root());
        moveout(["export", "--json", "--config", config, "--archive", root.to_str().unwrap()])
    }

    /// The archive, which is whole.
    #[track_caller]
    fn archive(&self) -> Archive {
        moveout(["verify", self.root().to_str().unwrap()]).expect(0);
        Archive::open(self.root())
    }

    #[track_caller]
    fn assert_holds(&self, model: &Model) {
        let archive = self.archive();
        for measurement in model.measurements() {
            assert_rows(&archive.rows(&measurement), &model.rows(&measurement));
            assert_eq!(archive.columns(&measurement), model.columns(&measurement));
        }
        assert_eq!(archive.catalog().len(), model.measurements().len());
    }

    /// Whatever is there, nobody can take it for whole.
    #[track_caller]
    fn assert_not_sealed(&self) {
        assert!(!Archive::open(self.root()).is_sealed());
        let verify = moveout(["verify", self.root().to_str().unwrap()]);
        assert!([1, 3].contains(&verify.status), "{}", verify.stdout);
    }
}

fn export(file: &Path, root: &Path, more: &[&str]) -> Run {
    let source = format!("lp:{}", file.display());
    let args = ["export", "--source", &source, "--archive", root.to_str().unwrap()];
    moveout(args.iter().chain(more))
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn zstd(content: &[u8]) -> Vec<u8> {
    zstd::stream::encode_all(content, 1).unwrap()
}

fn model() -> Model {
    Model::generate(5, &Shape { edges: true, ..Shape::default() })
}

/// Cut at some line, and at some place within one.
fn parts(text: &str) -> [(&[u8], &[u8]); 2] {
    let bytes = text.as_bytes();
    let newline =
        bytes.len() / 2 + bytes[bytes.len() / 2..].iter().position(|b| *b == b'\n').unwrap();
    [newline + 1, newline - 5].map(|at| bytes.split_at(at))
}

#[test]
fn a_file_gives_the_rows_of_a_server_in_every_form() {
    let model = model();
    let lines = model.lines();
    let bytes = lines.as_bytes();
    let mut forms = vec![
        ("data.lp", bytes.to_vec()),
        ("without an ending", bytes.to_vec()),
        ("data.lp.gz", gzip(bytes)),
        ("data.lp.zst", zstd(bytes)),
        // The content says what it is, not the name.
        ("compressed.lp", gzip(bytes)),
        ("plain.lp.gz", bytes.to_vec()),
    ];
    for (one, two) in parts(&lines) {
        forms.push(("members.gz", [gzip(one), gzip(two)].concat()));
        forms.push(("frames.zst", [zstd(one), zstd(two)].concat()));
        forms.push(("empty-member.gz", [gzip(one), gzip(b""), gzip(two)].concat()));
    }
    for (name, content) in forms {
        let setting = Setting::new(name, content);
        setting.export(&[]).expect(0);
        setting.assert_holds(&model);
    }
}

#[test]
fn fields_of_several_types_get_a_column_each() {
    let model =
        Model::generate(6, &Shape { mixed: true, step: 86_400_000_000_000, ..Shape::default() });
    for lines in [model.lines(), model.lines_by_field()] {
        let setting = Setting::new("data.lp", lines);
        setting.export(&[]).expect(0);
        setting.assert_holds(&model);
    }
}

#[test]
fn lines_of_one_field_each_are_merged_to_points() {
    let model = model();
    let lines = model.lines_by_field();
    assert!(lines.matches('\n').count() > 2 * model.points.len());
    for content in [lines.clone().into_bytes(), gzip(lines.as_bytes())] {
        let setting = Setting::new("data.lp", content);
        setting.export(&[]).expect(0);
        setting.assert_holds(&model);
    }
}

#[test]
fn a_value_that_was_written_twice_is_told_and_the_last_one_kept() {
    let setting = Setting::new("data.lp", "m,h=a v=1,w=1 5\nm,h=b v=9 5\nm,h=a v=2 5\n");
    let summary = setting.export(&["--json"]).expect(0).json();
    assert!(summary["warnings"].to_string().contains("1 values were written twice"), "{summary}");
    let mut model = Model::default();
    let values = [("v", Value::Float(2.0)), ("w", Value::Float(1.0))];
    let point = Point::new("m", 5).tag("h", "a");
    model.push(values.into_iter().fold(point, |point, (key, value)| point.field(key, value)));
    model.push(Point::new("m", 5).tag("h", "b").field("v", Value::Float(9.0)));
    setting.assert_holds(&model);
}

#[test]
fn line_ends_of_windows_and_a_missing_last_one_lose_nothing() {
    let mut model = Model::default();
    for time in 1_000_000_000..1_000_000_010 {
        model.push(Point::new("m", time).tag("h", "a").field("v", Value::Integer(time)));
    }
    let lines = model.lines();
    for content in [lines.replace('\n', "\r\n"), lines.trim_end().to_owned()] {
        let setting = Setting::new("data.lp", content);
        setting.export(&[]).expect(0);
        setting.assert_holds(&model);
    }
}

#[test]
fn a_compressed_file_that_was_cut_is_never_sealed() {
    let lines = model().lines();
    let whole = lines.as_bytes();
    for (name, content, from) in [
        ("data.gz", gzip(whole), 2),
        ("data.zst", zstd(whole), 4),
        ("members.gz", [gzip(whole), gzip(b"m v=1 1\n")].concat(), gzip(whole).len() + 1),
    ] {
        let length = content.len();
        let cuts = [from, from + 8, length / 2, length - 9, length - 8, length - 4, length - 1];
        for cut in cuts.into_iter().filter(|cut| *cut >= from) {
            let setting = Setting::new(name, &content[..cut]);
            let run = setting.export(&[]);
            assert!([1, 3].contains(&run.status), "{name} cut at {cut}: {}", run.stdout);
            let said = format!("{}{}", run.stdout, run.stderr);
            assert!(said.contains(name), "{said}");
            setting.assert_not_sealed();
        }
        // Bytes that are other than they were, but as many.
        for at in [length / 2, length - 6] {
            let mut content = content.clone();
            content[at] ^= 4;
            let setting = Setting::new(name, content);
            let run = setting.export(&[]);
            if name.ends_with(".gz") || run.status != 0 {
                assert!([1, 3].contains(&run.status), "{name} changed at {at}: {}", run.stdout);
                setting.assert_not_sealed();
            }
        }
    }
}

#[test]
fn a_plain_file_that_was_cut_within_a_line_is_never_sealed() {
    let lines = "m,h=a v=1,s=\"x y\" 1704067200000000000\nm,h=b v=2,s=\"z\" 1704067200000000001\n";
    let second = lines.find('\n').unwrap() + 1;
    for cut in second + 1..lines.len() - 1 {
        let setting = Setting::new("data.lp", &lines[..cut]);
        let run = setting.export(&[]);
        assert!([1, 3].contains(&run.status), "{}: {}", &lines[second..cut], run.stdout);
        setting.assert_not_sealed();
    }
    // Only the newline is missing: whole, most likely, and told.
    let setting = Setting::new("data.lp", lines.trim_end());
    let summary = setting.export(&["--json"]).expect(0).json();
    assert!(summary["warnings"].to_string().contains("newline"), "{summary}");
    assert_eq!(setting.archive().rows("m").len(), 2);
}

#[test]
fn comments_switch_database_and_retention_policy() {
    let lines = "\
m v=1i 1
# DDL
CREATE DATABASE one WITH NAME autogen
CREATE USER x WITH PASSWORD 'geheim'
# DML
# CONTEXT-DATABASE:one
# CONTEXT-RETENTION-POLICY:autogen
m v=2i 1
m v=3i 2
# CONTEXT-RETENTION-POLICY:short term
m v=4i 1
# CONTEXT-DATABASE: two, with = odd \"name\"
m v=5i 1
other,t=x v=6i 1
# CONTEXT-DATABASE:one
# CONTEXT-RETENTION-POLICY:autogen
# writing tsm data
m w=7i 2
m v=8i 3
";
    let setting = Setting::new("backup.lp", lines);
    setting.export(&[]).expect(0);
    let archive = setting.archive();
    let row = |cells: &[(&str, &str)]| -> support::Row {
        cells.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    for (table, rows) in [
        ("backup.autogen.m", vec![row(&[("time", "1"), ("v", "1i")])]),
        (
            "one.autogen.m",
            vec![
                row(&[("time", "1"), ("v", "2i")]),
                row(&[("time", "2"), ("v", "3i"), ("w", "7i")]),
                row(&[("time", "3"), ("v", "8i")]),
            ],
        ),
        ("one.short term.m", vec![row(&[("time", "1"), ("v", "4i")])]),
        ("two, with = odd \"name\".short term.m", vec![row(&[("time", "1"), ("v", "5i")])]),
        (
            "two, with = odd \"name\".short term.other",
            vec![row(&[("t", "\"x\""), ("time", "1"), ("v", "6i")])],
        ),
    ] {
        assert_rows(&archive.rows(table), &rows);
    }
    assert_eq!(archive.catalog().len(), 5);
    let ddl = archive.files().into_iter().find(|file| file.ends_with("ddl.influxql")).unwrap();
    let ddl = archive.text(&ddl);
    assert!(ddl.contains("CREATE DATABASE one") && !ddl.contains("geheim"), "{ddl}");
}

#[test]
fn the_configuration_says_what_the_file_does_not() {
    let setting = Setting::new("data.lp", "cpu v=1i 1704067200\ndisk v=2i 1704067201\n");
    let keys = "databases = [\"d\"]\nretention_policies = [\"rp\"]\nprecision = \"s\"\n\
                tables = [\"c*\"]\n";
    let summary = setting.export_with(keys).expect(0).json();
    // What is left out is told, here and in the archive.
    let told = |json: &Json| json["excluded"].to_string().contains("disk");
    assert!(told(&summary), "{summary}");
    let archive = setting.archive();
    assert!(told(&serde_json::from_str(&archive.text("catalog/run.json")).unwrap()));
    let rows = archive.rows("d.rp.cpu");
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0]["time"], "1704067200000000000");
    assert_eq!(archive.data_files().len(), 1);
}

#[test]
fn a_range_takes_what_is_inside_and_counts_what_is_outside() {
    let shape = Shape::default();
    let model = Model::generate(8, &shape);
    let setting = Setting::new("data.lp", model.lines());
    let (from, to) = (shape.from + 86_400_000_000_000, shape.from + 2 * 86_400_000_000_000);
    let range = ["--from", "2024-01-02", "--to", "2024-01-03", "--json"];
    let summary = setting.export(&range).expect(0).json();
    let mut total = 0;
    for measurement in model.measurements() {
        let inside = model.rows_between(&measurement, from, to);
        assert!(inside.len() > 30);
        assert_rows(&setting.archive().rows(&measurement), &inside);
        let entries = summary["outside"].as_array().unwrap();
        let of_table = entries.iter().filter(|entry| entry["table"]["table"] == measurement);
        let counts = of_table.map(|entry| {
            assert_eq!(entry["count"]["exact"], true);
            entry["count"]["rows"].as_u64().unwrap()
        });
        let before = model.rows_between(&measurement, i64::MIN, from).len() as u64;
        let after = model.rows_between(&measurement, to, i64::MAX).len() as u64;
        assert_eq!(counts.collect::<Vec<_>>(), [before, after]);
        total += inside.len() as u64;
    }
    assert_eq!(summary["rows"], total);
    let run: Json = serde_json::from_str(&setting.archive().text("catalog/run.json")).unwrap();
    assert_eq!(run["outside"], summary["outside"]);
    // The same again does nothing; all of it takes the rest.
    assert_eq!(setting.export(&range).expect(0).json()["rows"], 0);
    let rest = setting.export(&["--json"]).expect(0).json();
    let all: usize = model.measurements().iter().map(|name| model.rows(name).len()).sum();
    assert_eq!((&rest["rows_total"], &rest["outside"]), (&all.into(), &serde_json::json!([])));
    setting.assert_holds(&model);
}

#[test]
fn bounds_of_a_range_are_exact_to_the_nanosecond() {
    let lines = "m v=1i 1704067199999999999\nm v=2i 1704067200000000000\n\
                 m v=3i 1704153599999999999\nm v=4i 1704153600000000000\n";
    let setting = Setting::new("data.lp", lines);
    let range = ["--from", "2024-01-01", "--to", "2024-01-02", "--json"];
    let summary = setting.export(&range).expect(0).json();
    let rows = setting.archive().rows("m");
    let values: Vec<_> = rows.iter().map(|row| row["v"].as_str()).collect();
    assert_eq!(values, ["2i", "3i"]);
    let outside = summary["outside"].as_array().unwrap();
    let counts: Vec<_> = outside.iter().map(|entry| &entry["count"]["rows"]).collect();
    assert_eq!(counts, [1, 1]);
}

#[test]
fn a_file_that_changed_between_two_runs_is_refused() {
    let model = Model::generate(9, &Shape::default());
    let lines = model.lines();
    let setting = Setting::new("data.lp", &lines);
    setting.export(&["--to", "2024-01-02"]).expect(0);
    let before = setting.archive().files();
    let another = lines.replacen("load=", "laod=", 1);
    assert_eq!(another.len(), lines.len());
    for changed in [another, lines.clone() + "cpu load=1 1\n"] {
        fs::write(&setting.file, changed).unwrap();
        let run = setting.export(&[]);
        assert_eq!(run.status, 1, "{}{}", run.stdout, run.stderr);
        assert!(run.stderr.contains("changed"), "{}", run.stderr);
        // What was sealed stays sealed, and as it was.
        assert_eq!(setting.archive().files(), before);
    }
    fs::write(&setting.file, &lines).unwrap();
    setting.export(&[]).expect(0);
    setting.assert_holds(&model);
}

#[test]
fn a_line_that_is_malformed_is_named_by_file_and_number() {
    for (line, why) in [
        ("m", "no fields"),
        ("m v=1", "no timestamp"),
        ("m v=1 x", "a time that is no number"),
        ("m v=1 1 1", "something after the time"),
        ("m v= 1", "no value"),
        ("m =1 1", "no key"),
        ("m v 1", "no equals sign"),
        ("m v=1, 1", "a comma too many"),
        ("m v=abc 1", "no number"),
        ("m v=1x 1", "no such type"),
        ("m v=1.5i 1", "no integer"),
        ("m v=9223372036854775808i 1", "too great an integer"),
        ("m v=18446744073709551616u 1", "too great an unsigned integer"),
        ("m v=-1u 1", "a negative unsigned integer"),
        ("m v=1 99999999999999999999", "too late"),
        ("m v=1 -9223372036854775808", "too early"),
        ("m,t v=1 1", "a tag without a value"),
        ("m,=x v=1 1", "a tag without a name"),
        (",t=x v=1 1", "no measurement"),
        ("m v=\"x\"y 1", "something after a text"),
        ("m v=NaN 1", "not a number"),
    ] {
        // Before it, a text of two lines, an empty line and a comment, which all count.
        let lines = format!("m s=\"a\nb\" 1\n\n# comment\nm s=\"c\" 2\n{line}\nm s=\"d\" 3\n");
        let setting = Setting::new("broken.lp", lines);
        let run = setting.export(&[]);
        let said = format!("{}{}", run.stdout, run.stderr);
        assert!([1, 3].contains(&run.status), "{why}: `{line}` was taken\n{said}");
        assert!(said.contains("broken.lp") && said.contains("line 6"), "{why}: `{line}`\n{said}");
        setting.assert_not_sealed();
    }
    // Bytes that are no text.
    for line in [b"m s=\"\xff\" 1\n".as_slice(), b"m,t=\xff v=1 1\n", b"\xff v=1 1\n"] {
        let setting = Setting::new("broken.lp", [b"m v=1 1\n", line].concat());
        let run = setting.export(&[]);
        let said = format!("{}{}", run.stdout, run.stderr);
        assert!([1, 3].contains(&run.status), "{said}");
        assert!(said.contains("broken.lp") && said.contains("line 2"), "{said}");
        setting.assert_not_sealed();
    }
    // A quote that is never closed swallows what follows.
    let setting = Setting::new("broken.lp", "m s=\"a 1\nm v=1 2\nm v=1 3\n");
    let run = setting.export(&[]).expect(1);
    assert!(run.stderr.contains("line 1"), "{}", run.stderr);
    setting.assert_not_sealed();
}

// A tag without a value is none.
#[test]
fn an_empty_tag_is_no_tag() {
    let setting = Setting::new("data.lp", "m,t= v=1i 1\nm v=2i 2\nm,t=x v=3i 3\n");
    setting.export(&[]).expect(0);
    let rows = setting.archive().rows("m");
    let tags: Vec<_> = rows.iter().map(|row| row.get("t").map(String::as_str)).collect();
    assert_eq!(tags, [Some("\"x\""), None, None]);
}

#[test]
fn what_is_no_file_is_refused_and_an_empty_one_told() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("archive");
    for file in ["missing.lp", ".", "/dev/null", "/dev/stdin"] {
        let run = export(&folder.path().join(file), &root, &[]).expect(1);
        assert!(run.stderr.contains("regular file") || run.stderr.contains("No such file"));
        assert!(!Archive::open(&root).is_sealed());
    }
    for content in ["", "\n", "# comment\n"] {
        let setting = Setting::new("empty.lp", content);
        let summary = setting.export(&["--json"]).expect(0).json();
        assert!(summary["warnings"].to_string().contains("no points"), "{summary}");
        assert!(setting.archive().data_files().is_empty());
    }
}

#[test]
fn little_memory_gives_the_same_rows() {
    let mut random = fastrand::Rng::with_seed(3);
    let mut lines = String::new();
    // In no order, from many series, and with values that are written twice.
    for number in 0..150_000 {
        let (host, time) = (random.u32(0..500), random.u32(0..40_000));
        let value: f64 = random.f64();
        match number % 3 {
            0 => writeln!(lines, "cpu,host=host-{host} load={value} {time}").unwrap(),
            1 => writeln!(lines, "cpu,host=host-{host} note=\"number {number}\" {time}").unwrap(),
            _ => writeln!(lines, "mem,host=host-{host} load={value},n={number}i {time}").unwrap(),
        }
    }
    let content = gzip(lines.as_bytes());
    let (large, small) = (Setting::new("data.gz", &content), Setting::new("data.gz", &content));
    let json = |run: Run| run.expect(0).json();
    let expected = json(large.export(&["--memory", "1GiB", "--json"]));
    let memory = ["--memory", "32MiB", "--concurrency", "8", "--json"];
    let found = json(small.export(&memory));
    assert_eq!(found["rows"], expected["rows"]);
    let twice = |summary: &Json| {
        let warning = summary["warnings"][0].as_str().unwrap();
        warning.split_once(" values were written twice").unwrap().0.parse::<u32>().unwrap()
    };
    assert!(twice(&expected) > 0 && twice(&found) == twice(&expected), "{found}");
    for table in ["cpu", "mem"] {
        let rows = large.archive().rows(table);
        assert!(rows.len() > 45_000);
        assert_rows(&small.archive().rows(table), &rows);
    }
}

/// A small constant for each table, and no more. In a folder in memory, since a disk would be waited for.
#[test]
fn a_bandwidth_holds_for_all_chunks_together() {
    // 120,000 rows of 16 bytes, in several chunks at once: 1.92 MB.
    let lines = (0..120_000).fold(String::new(), |mut lines, i| {
        writeln!(lines, "m v={i}i {}", 1_700_000_000 + i * 60).unwrap();
        lines
    });
    let setting = Setting::new("a.lp", lines);
    let keys = "precision = \"s\"";
    let config = setting.folder.path().join("config.toml");
    let text = format!(
        "bandwidth = \"500kB\"\nwindow = \"1w\"\n[[source]]\nname = \"lines\"\nurl = \"lp:a.lp\"\n{keys}\n"
    );
    fs::write(&config, text).unwrap();
    let root = setting.root();
    let began = std::time::Instant::now();
    let args = ["export", "--config", config.to_str().unwrap(), "--archive"];
    moveout(args.into_iter().chain([root.to_str().unwrap()])).expect(0);
    // What is under way when the last batch comes is not waited for.
    assert!(began.elapsed().as_secs_f64() > 1.5, "{:?}", began.elapsed());
    assert_eq!(setting.archive().rows("m").len(), 120_000);
}

#[test]
fn twenty_thousand_tables_take_little_memory() {
    let peak = |tables: i64| {
        let mut lines = String::new();
        for table in 0..tables {
            let time = 1_704_067_200_000_000_000 + table;
            writeln!(lines, "m{table},host=a value={table}.5 {time}").unwrap();
        }
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let (file, root) = (folder.path().join("d.lp"), folder.path().join("archive"));
        fs::write(&file, lines).unwrap();
        let source = format!("lp:{}", file.display());
        peak_memory(command(["export", "--source", &source, "--archive", root.to_str().unwrap()]))
    };
    let (few, many) = (peak(4_000), peak(20_000));
    eprintln!("{few:.0} MiB for 4,000 tables, {many:.0} MiB for 20,000");
    assert!(many < 300.0 && many - few < 220.0, "{few:.0} and {many:.0} MiB");
}
