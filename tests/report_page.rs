//! The page of a report, made of facts by hand: what it says, how large it is, and that nothing in it is taken for markup.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

mod support;

use std::fs;

use moveout::archive::run_json::{Outside, Requested};
use moveout::archive::verdict::Stale;
use moveout::column_stats::ColumnStats;
use moveout::model::{
    ArtifactOutcome, ArtifactStatus, Excluded, Level, Open, OpenKind, Role, RowCount, TableId,
    Verdict,
};
use moveout::window::Slice;
use support::made::{Made, commit, days, id, source};
use support::{View, command, peak_memory};
use tempfile::TempDir;

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

/// Names that are markup, or hide what they are, everywhere where others may put them.
#[test]
fn names_are_never_markup() {
    const NAMES: [&str; 6] = [
        "<script>alert(1)</script>",
        "\"><img src=x onerror=alert(1)>",
        "'><svg onload=alert(1)>",
        "{{ 7 * 7 }}{% raw %}",
        "a\nb\r\u{1b}[2J\0",
        "\u{202e}txt.exe\u{2066}",
    ];
    let made = |name: &str| {
        let text = || name.to_owned();
        let mut made = Made::of(vec![source(name, name, name)], &[id(name, name, name)], 3)
            .proved(Level::Rows);
        made.run.run = text();
        made.run.moveout = text();
        made.run.started = text();
        made.run.ended = text();
        made.run.range.from = text();
        made.run.warnings = vec![text()];
        made.run.excluded = vec![Excluded { source: text(), what: text(), why: text() }];
        made.run.outside = vec![Outside {
            table: id(name, name, name),
            window: days(5, 6),
            count: RowCount { rows: 1, exact: true },
        }];
        let status = ArtifactOutcome::Failed(text());
        made.run.artifacts = vec![ArtifactStatus { source: text(), kind: text(), status }];
        let record = made.record.as_mut().unwrap();
        record.verdict = Verdict::NotYet;
        (record.started, record.ended, record.depth, record.archive) =
            (text(), text(), text(), text());
        record.moveout = text();
        (record.notes, record.excluded) = (vec![text()], vec![text()]);
        let kind = OpenKind::Different;
        record.open = vec![Open { source: text(), what: text(), why: text(), todo: text(), kind }];
        made.page()
    };
    let elements = "[...document.querySelectorAll('*')].map(e => e.localName + [...e.attributes].map(a => a.name).join())";
    let view = View { width: 800, dark: false };
    // The same page with a harmless name has the same elements with the same attributes.
    let harmless = view.ask(&made("harmless"), "", elements);
    for name in NAMES {
        let page = made(name);
        assert_eq!(view.ask(&page, "", elements), harmless, "{name:?}");
        let is_visible =
            |c: char| c == '\n' || !c.is_control() && !matches!(c, '\u{202e}' | '\u{2066}');
        assert!(page.chars().all(is_visible), "{name:?}");
    }
    let lines = made("a\nb").lines().count();
    assert_eq!(lines, made("harmless").lines().count(), "a line break is shown, and is none");
}

/// Of many tables those are shown that somebody has to look at, and then the largest.
#[test]
fn of_many_tables_the_gravest_are_shown_first() {
    let tables: Vec<TableId> =
        (0..20_000).map(|n| id("s", "d", &format!("table_{n:05}"))).collect();
    let mut made =
        Made::of(vec![source("s", "https://h", "InfluxDB 1.8")], &tables, 1).proved(Level::Counts);
    let record = made.record.as_mut().unwrap();
    record.verdict = Verdict::NotYet;
    // A small one is different, another was not compared, and a third is not in the archive.
    (record.compared[3].different, record.compared[3].equal) = (1, Vec::new());
    (record.compared[5].chunks, record.compared[5].equal) = (0, Vec::new());
    let missing = id("s", "d", "missing");
    made.run.requested.push(Requested { table: missing, windows: vec![days(0, 7)] });
    let page = made.page();
    let place = |name: &str| {
        page.find(&format!("row\">{name} ")).unwrap_or_else(|| panic!("{name} is not shown"))
    };
    assert!(place("table_00003") < place("missing"));
    assert!(place("missing") < place("table_00005"));
    assert!(place("table_00005") < place("table_19999"));
    assert!(place("table_19999") < place("table_19998"));
    assert!(!page.contains("table_00006"), "one of the smallest");
    assert!(page.contains("18,001 more tables"), "20,001 without 2,000");
    assert_eq!(page.matches("class=\"tag\"").count(), 2);
}

/// A verdict that was reached without the rows says so.
#[test]
fn safe_is_not_more_than_was_compared() {
    for (level, says_so) in [(Level::Counts, true), (Level::Statistics, true), (Level::Rows, false)]
    {
        let made =
            Made::of(vec![source("s", "https://h", "InfluxDB 1.8")], &[id("s", "d", "t")], 3);
        let page = made.proved(level).page();
        assert!(page.contains("SAFE TO CANCEL"));
        assert_eq!(page.contains("<code>--deep</code> compares every row"), says_so, "{level:?}");
    }
}

/// What a strip shows is also said in words.
#[test]
fn coverage_is_told_in_words() {
    let page = not_yet().page();
    for words in [
        "2023-12-28 to 2024-10-03: equal to the source; 2024-10-03 to 2024-10-31: missing",
        "different from the source",
        "what has no time: exported, not compared",
        "rows that were not requested",
        "40 chunks by statistics, 1 different",
        "40 of 41 chunks by statistics",
        "at least 41,200",
    ] {
        assert!(page.contains(words), "{words}");
    }
    let mut unsealed = not_yet();
    unsealed.sealed = false;
    let page = unsealed.page();
    assert!(!page.contains("equal to the source"), "without a seal nothing is proved");
    assert!(page.contains("no proof"));
}

#[test]
fn the_steps_of_each_provider_are_told() {
    let page = not_yet().page();
    for step in [
        "Cancel Service",
        "Save the Telegraf configurations <span class=\"state\">· done",
        "Deprovision the databases <span class=\"state\">· yours to do in the console",
        "Compare the archive with the source <span class=\"state\">· open",
    ] {
        assert!(page.contains(step), "{step}");
    }
    let mut unsaved = not_yet();
    unsaved.run.artifacts.remove(0);
    assert!(unsaved.page().contains("Telegraf configurations <span class=\"state\">· open"));
}

#[test]
fn the_same_facts_make_the_same_page() {
    assert_eq!(not_yet().page(), not_yet().page());
}

/// Many tables, or many chunks of each, with a few columns.
fn many(tables: i64, chunks: i64) -> Made {
    let tables: Vec<TableId> = (0..tables)
        .map(|n| id("metrics", &format!("db{}", n % 70), &format!("table_{n:05}")))
        .collect();
    let sources = vec![source("metrics", "https://h:8086", "InfluxDB 1.8.10 OSS")];
    let mut made = Made::of(sources, &tables, chunks);
    for commit in &mut made.commits {
        let commit = std::sync::Arc::get_mut(commit).unwrap();
        commit.columns = (0..4)
            .map(|n| ColumnStats {
                column: std::sync::Arc::new(moveout::column_stats::ColumnInfo {
                    name: format!("column_{n}"),
                    key: format!("column_{n}"),
                    role: Role::Field,
                    source_type: "float".to_owned(),
                    parquet_type: Some("DOUBLE".to_owned().into()),
                    nullable: None,
                    key_part: None,
                }),
                count: commit.rows,
                min: Some("0.25".into()),
                max: Some("1234.5".into()),
                sum: Some("123456789.5".into()),
            })
            .collect();
    }
    made.proved(Level::Counts)
}

/// What it takes to make a report grows no faster than the archive, and is bounded for the largest that are promised.
#[test]
fn large_archives_take_little() {
    const MIB: u64 = 1 << 20;
    for [small, large] in [[(5_000, 1), (20_000, 1)], [(10, 2_500), (10, 10_000)]] {
        let mut peaks = Vec::new();
        for (tables, chunks) in [(10, 1), small, large] {
            let folder = TempDir::new().unwrap();
            let (archive, page) = (folder.path().join("archive"), folder.path().join("page.html"));
            many(tables, chunks).write(&archive);
            let arguments =
                ["report".as_ref(), archive.as_os_str(), "--output".as_ref(), page.as_os_str()];
            peaks.push(peak_memory(command(arguments)));
            let size = fs::metadata(&page).unwrap().len();
            assert!(size < 5 * MIB, "{tables} tables of {chunks} chunks: a page of {size} bytes");
        }
        assert!(peaks[2] < 400.0, "{large:?}: {peaks:?} MiB");
        let (small_growth, large_growth) = (peaks[1] - peaks[0], peaks[2] - peaks[0]);
        assert!(large_growth < 5.0 * small_growth.max(4.0), "{large:?}: {peaks:?} MiB");
    }
}
