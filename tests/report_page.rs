//! The page of a report, made of facts by hand: what it says, how large it is, and that nothing in it is taken for markup.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

mod support;

use std::fs;
use std::sync::Arc;

use moveout::archive::commit::{Commit, FileRecord};
use moveout::archive::run_json::{Outside, Requested, RunEntry};
use moveout::archive::verdict::{Compared, Stale, VerdictRecord};
use moveout::model::{
    ArtifactOutcome, ArtifactStatus, Excluded, Level, Open, OpenKind, RowCount, SourceInfo,
    TableId, Verdict,
};
use moveout::range::RangeText;
use moveout::report::{Facts, Report};
use moveout::window::{Slice, Window};
use support::View;
use tempfile::TempDir;

const DAY: i64 = 86_400_000_000_000;
/// 2024-01-01.
const NEW_YEAR: i64 = 1_704_067_200_000_000_000;

/// An archive by hand.
struct Made {
    run: RunEntry,
    commits: Vec<Arc<Commit>>,
    record: Option<VerdictRecord>,
    invalid: Option<&'static str>,
    sealed: bool,
}

fn id(source: &str, database: &str, table: &str) -> TableId {
    TableId {
        source: source.to_owned(),
        database: database.to_owned(),
        schema: "autogen".to_owned(),
        table: table.to_owned(),
    }
}

fn days(from: i64, to: i64) -> Window {
    Window { from: NEW_YEAR + from * DAY, to: NEW_YEAR + to * DAY }
}

fn commit(id: &TableId, slice: Slice, rows: u64) -> Arc<Commit> {
    let file =
        FileRecord { key: "data/f".to_owned(), bytes: rows * 11, sha256: String::new(), rows };
    Arc::new(Commit {
        source: id.source.clone(),
        database: id.database.clone(),
        schema: id.schema.clone(),
        table: id.table.clone(),
        path: "data/t".to_owned(),
        slice,
        rows,
        files: if rows > 0 { vec![file] } else { Vec::new() },
        columns: Vec::new(),
        run: "run1".to_owned(),
        started: "2024-06-01T00:00:00Z".to_owned(),
        elapsed_ms: 1,
        committed: "2024-06-01T00:00:01Z".to_owned(),
        verified: String::new(),
        state: None,
        snapshot: None,
        replaces: Vec::new(),
        dump: None,
    })
}

fn source(name: &str, address: &str, version: &str) -> SourceInfo {
    let (name, address, version) = (name.to_owned(), address.to_owned(), version.to_owned());
    SourceInfo { name, address, version, identity: None }
}

impl Made {
    fn of(sources: Vec<SourceInfo>, tables: &[TableId], chunks: i64) -> Self {
        let windows = || (0..chunks).map(|at| days(at * 7, (at + 1) * 7));
        let commits = tables.iter().enumerate().flat_map(|(number, id)| {
            windows().enumerate().map(move |(at, window)| {
                let rows = if (at + number) % 9 == 4 { 0 } else { (number + 1) as u64 * 700 };
                commit(id, Slice::Window(window), rows + at as u64 * u64::from(rows > 0))
            })
        });
        let requested = tables
            .iter()
            .map(|id| Requested { table: id.clone(), windows: vec![days(0, chunks * 7)] });
        Self {
            run: RunEntry {
                format: 2,
                moveout: "0.1.0".to_owned(),
                run: "run1".to_owned(),
                range: RangeText { from: "min".to_owned(), to: "max".to_owned() },
                sources,
                started: "2024-06-01T00:00:00Z".to_owned(),
                ended: "2024-06-01T01:00:00.5Z".to_owned(),
                excluded: Vec::new(),
                outside: Vec::new(),
                artifacts: Vec::new(),
                artifact_files: None,
                kept: Vec::new(),
                warnings: Vec::new(),
                requested: requested.collect(),
                earlier: Vec::new(),
            },
            commits: commits.collect(),
            record: None,
            invalid: None,
            sealed: true,
        }
    }

    /// With a comparison of all chunks in which nothing is different.
    fn proved(mut self, level: Level) -> Self {
        let tables = self.run.requested.iter();
        let compared = tables.map(|requested| Compared {
            chunks: self.commits.iter().filter(|commit| commit.id() == requested.table).count()
                as u64,
            table: requested.table.clone(),
            level,
            different: 0,
            equal: requested.windows.clone(),
        });
        self.record = Some(VerdictRecord {
            format: 2,
            moveout: "0.1.0".to_owned(),
            archive: "ab".repeat(32),
            verdict: Verdict::Safe,
            started: "2024-06-02T09:00:00Z".to_owned(),
            ended: "2024-06-02T09:41:07Z".to_owned(),
            depth: "statistics".to_owned(),
            sources: self.run.sources.clone(),
            open: Vec::new(),
            compared: compared.collect(),
            stale: Vec::new(),
            excluded: Vec::new(),
            notes: Vec::new(),
        });
        self
    }

    fn page(&self) -> String {
        let facts = Facts {
            sealed: self.sealed,
            record: self.record.as_ref(),
            invalid: self.invalid,
            run: Some(&self.run),
            plans: &[],
            commits: &self.commits,
        };
        Report::of(facts).page().unwrap()
    }
}

/// Two sources, of which one has changed.
fn not_yet() -> Made {
    let sources = vec![
        source(
            "metrics",
            "https://eu-central-1-1.aws.cloud2.influxdata.com",
            "InfluxDB Cloud Serverless over Flight",
        ),
        source("production.shop", "aptible:production/shop", "PostgreSQL 16.4, TLS"),
    ];
    let mut tables: Vec<TableId> = ["cpu", "disk", "mem", "net", "processes", "swap", "system"]
        .map(|table| id("metrics", "telegraf", table))
        .to_vec();
    tables.extend(
        ["customers", "events", "orders"].map(|table| id("production.shop", "shop", table)),
    );
    let mut made = Made::of(sources, &tables, 40).proved(Level::Statistics);
    made.commits.push(commit(&id("production.shop", "shop", "settings"), Slice::All, 12));
    made.commits.push(commit(&id("production.shop", "shop", "orders"), Slice::NullTime, 3));
    made.run.requested[2].windows = vec![days(0, 300)];
    made.run.outside.push(Outside {
        table: id("metrics", "telegraf", "cpu"),
        window: days(280, 300),
        count: RowCount { rows: 41_200, exact: false },
    });
    let status = |source: &str, kind: &str, status| ArtifactStatus {
        source: source.to_owned(),
        kind: kind.to_owned(),
        status,
    };
    made.run.artifacts = vec![
        status("metrics", "telegrafs", ArtifactOutcome::Saved("3 configurations".to_owned())),
        status(
            "metrics",
            "dashboards",
            ArtifactOutcome::NotAvailable("the token may not see them".to_owned()),
        ),
        status(
            "production.shop",
            "ddl of shop",
            ArtifactOutcome::Saved("by pg_dump 17.2".to_owned()),
        ),
    ];
    made.run.excluded.push(Excluded {
        source: "production.shop".to_owned(),
        what: "table shop.autogen.sessions".to_owned(),
        why: "left out by `exclude`".to_owned(),
    });
    made.run.warnings.push("the chunks of production.shop are of 2 snapshots".to_owned());
    let record = made.record.as_mut().unwrap();
    record.verdict = Verdict::NotYet;
    record.compared[8].different = 1;
    record.compared[8].equal = vec![days(0, 105), days(112, 280)];
    record.stale.push(Stale {
        table: id("production.shop", "shop", "events"),
        slice: Slice::Window(days(105, 112)),
        run: "run1".to_owned(),
        why: "1,415 rows, the archive has 1,414".to_owned(),
    });
    record.open = vec![
        Open {
            source: "production.shop".to_owned(),
            what: "shop.autogen.events 2024-04-15T00:00:00Z..2024-04-22T00:00:00Z".to_owned(),
            why: "1,415 rows, the archive has 1,414".to_owned(),
            todo: "run the same `moveout export` again, then this proof".to_owned(),
            kind: OpenKind::Different,
        },
        Open {
            source: "metrics".to_owned(),
            what: "definitions: dashboards".to_owned(),
            why: "the token may not see them".to_owned(),
            todo: "give the token the right to read them, or leave them out".to_owned(),
            kind: OpenKind::Failed,
        },
    ];
    record.excluded =
        vec!["table shop.autogen.sessions of production.shop: left out by `exclude`".to_owned()];
    record
        .notes
        .push("the marker of production.shop has moved while all rows are equal".to_owned());
    made
}

fn safe() -> Made {
    let sources = vec![source("weather.lp", "lp:weather.lp", "line protocol")];
    let tables = [
        id("weather.lp", "weather", "daily_weather"),
        id("weather.lp", "weather", "hourly_normals"),
    ];
    Made::of(sources, &tables, 52).proved(Level::Rows)
}

/// The width of a telephone, of a tablet, and of a desk.
const WIDTHS: [u32; 3] = [400, 800, 1280];

#[test]
fn the_page_fits_into_windows_of_any_width() {
    let mut long = not_yet();
    long.run.sources[0].address = format!("https://{}", "a".repeat(300));
    long.run.warnings.push("w".repeat(500));
    for page in [safe().page(), not_yet().page(), long.page()] {
        for width in WIDTHS {
            let view = View { width, dark: false };
            let script =
                "[innerWidth, document.documentElement.scrollWidth, document.scripts.length]";
            let told = view.ask(&page, "", script);
            assert_eq!(
                told,
                serde_json::json!([width, width, 2]),
                "two scripts are the test's own"
            );
        }
    }
}

#[test]
fn the_page_can_be_seen_in_light_and_dark() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("report.html");
    fs::write(&file, not_yet().page()).unwrap();
    for dark in [false, true] {
        let colours = View { width: 800, dark }.colours(&file);
        assert!(colours > 60, "{colours} different bytes in the picture");
    }
}

#[test]
fn the_page_is_accessible() {
    let mut unsealed = not_yet();
    unsealed.sealed = false;
    for page in [safe().page(), not_yet().page(), unsealed.page()] {
        for dark in [false, true] {
            let Some(found) = (View { width: 1280, dark }).violations(&page) else { return };
            assert!(found.is_empty(), "dark: {dark}\n{}", found.join("\n"));
        }
    }
    // What is wrong is found.
    let pale = safe().page().replacen("--soft: #585e64", "--soft: #c8c8c8", 1);
    let found = View { width: 1280, dark: false }.violations(&pale).unwrap();
    assert!(found.iter().any(|found| found.contains("color-contrast")), "{found:?}");
}

/// What a person would look at.
#[test]
fn samples() {
    let Some(folder) = std::env::var_os("MOVEOUT_SAMPLES") else { return };
    let folder = std::path::PathBuf::from(folder);
    let mut outdated = safe();
    outdated.invalid = Some("the archive was changed after it");
    let mut unsealed = not_yet();
    unsealed.sealed = false;
    let many: Vec<TableId> = (0..1_000)
        .map(|n| id("metrics", &format!("db{}", n % 7), &format!("table_{n:04}")))
        .collect();
    let source = vec![source("metrics", "https://h:8086", "InfluxDB 1.8.10 OSS")];
    let many = Made::of(source.clone(), &many, 4).proved(Level::Counts);
    let most: Vec<TableId> = (0..20_000)
        .map(|n| id("metrics", &format!("db{}", n % 70), &format!("table_{n:05}")))
        .collect();
    let most = Made::of(source, &most, 1);
    for (name, made) in [
        ("safe", safe()),
        ("not-yet", not_yet()),
        ("outdated", outdated),
        ("unsealed", unsealed),
        ("many", many),
        ("most", most),
    ] {
        std::fs::write(folder.join(format!("{name}.html")), made.page()).unwrap();
    }
}
