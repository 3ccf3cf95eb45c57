//! Tables that change while a run is at work: in the archive each is as it was at one moment, or the run says
//! that it is not.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use crate::place::{Attempt, Place, Row};
use crate::rows::{DAY, HOUR, every};
use crate::subject::{Change, Record, Subject, other, text};
use crate::support::tunnel::Stop;

const ARGS: [&str; 4] = ["--window", "6h", "--concurrency", "1"];
/// Where a run is changed under: these tenths of its answers.
const PLACES: [usize; 3] = [3, 6, 9];

/// What a row of a table is before and after a change; `None` where it has no rows.
fn row(change: Option<Change>, id: i64) -> Option<BTreeMap<String, String>> {
    let (one, two) = (format!("{:?}", text(id)), format!("{:?}", other(id)));
    let id = format!("{id}i");
    let columns = |columns: &[(&str, &str)]| {
        let mut all = BTreeMap::from([("id".to_owned(), id.clone())]);
        all.extend(columns.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        Some(all)
    };
    let (one, two) = (one.as_str(), two.as_str());
    match change {
        None | Some(Change::SwapTable) => columns(&[("text", one), ("other", two)]),
        Some(Change::AddColumn) => columns(&[("text", one), ("other", two), ("extra", "7i")]),
        Some(Change::DropColumn) => columns(&[("text", one)]),
        Some(Change::RenameColumn) => columns(&[("old", one), ("other", two)]),
        Some(Change::GiveNameToAnother) => {
            columns(&[("old", one), ("text", "\"fresh\""), ("other", two)])
        }
        Some(Change::SwapColumns) => columns(&[("other", one), ("text", two)]),
        Some(Change::Truncate | Change::Drop) => None,
    }
}

const BEFORE: i64 = 1;
/// Of the table that takes another's place.
const SHADOW: i64 = 100_000;
const ROWS: i64 = 60;

fn rows(change: Option<Change>) -> Vec<BTreeMap<String, String>> {
    let first = if change == Some(Change::SwapTable) { SHADOW } else { BEFORE };
    (first..first + ROWS).filter_map(|id| row(change, id)).collect()
}

/// In the archive a table is as it was before, or as it is now, and not some of each.
#[track_caller]
fn assert_one_state(archive: &Attempt<'_>, change: Change, what: &str) {
    let mut found: Vec<Row> = archive.rows(&table(change));
    found.sort_by_key(|row| row.id);
    let found: Vec<_> = found.into_iter().map(|row| row.values).collect();
    let (before, after) = (rows(None), rows(Some(change)));
    if found != before && found != after {
        let number = |rows: &[BTreeMap<String, String>]| {
            found.iter().filter(|row| rows.contains(row)).count()
        };
        panic!(
            "{what}: {change:?}: of {} rows {} are as before and {} as after; first {:?}",
            found.len(),
            number(&before),
            number(&after),
            found.first(),
        );
    }
}

fn table(change: Change) -> String {
    format!("t_{change:?}").to_lowercase()
}

pub(crate) fn changed(subject: &dyn Subject) {
    let offset: usize = subject.name().bytes().map(usize::from).sum();
    for (number, change) in Change::ALL.into_iter().enumerate() {
        let place = Place::new(subject, &format!("changed_{}", table(change)));
        place.load(&table(change), &every(HOUR, ROWS, BEFORE));
        if change == Change::SwapTable {
            place.load(&format!("{}_shadow", table(change)), &every(HOUR, ROWS, SHADOW));
        }
        place.tunnel().count_answers();
        place.archive().export(&ARGS).expect(0);
        let answers = place.tunnel().answers();
        // The rows come in the second half of the answers. Other sources are disturbed at other places.
        let tenths = 5 + (offset + number) % 5;
        changed_at(&place, change, answers * tenths / 10);
    }
}

fn changed_at(place: &Place<'_>, change: Change, answer: usize) {
    let table = table(change);
    let archive = place.archive();
    place.tunnel().stop_at(answer, Stop::Hold);
    let first = thread::scope(|scope| {
        archive.export_and(&ARGS, || {
            let changing = scope.spawn(|| place.subject.change(&place.database, &table, change));
            // It waits for the run where that has locked the table.
            let deadline = Instant::now() + Duration::from_secs(3);
            while !changing.is_finished() && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(5));
            }
        })
    });
    if first.status == 0 {
        assert_one_state(&archive, change, &format!("at answer {answer}: {}", first.stdout));
    } else {
        // It is said what could not be had.
        let named = first.stdout.contains(&table) || first.stderr.contains(&table);
        assert!(named, "at answer {answer}: {first:?}");
    }
    let last = archive.complete(&ARGS);
    archive.changed();
    let left = archive.rows(&table);
    if change == Change::Drop && last.stdout.contains(&format!("{table} is not there any more")) {
        // Nobody else has what was read of it.
        assert!(left.iter().all(|row| rows(None).contains(&row.values)), "at answer {answer}");
        return;
    }
    assert_one_state(&archive, change, &format!("at answer {answer}, completed: {}", last.stdout));
}

/// Rows and tables that come while a run is at work are in the archive, or are not; nothing else is lost.
pub(crate) fn grown(subject: &dyn Subject) {
    for tenths in PLACES {
        let place = Place::new(subject, &format!("grown_{tenths}"));
        let tables = ["a", "b", "c"];
        for table in tables {
            place.load(table, &every(HOUR, ROWS, BEFORE));
        }
        place.tunnel().count_answers();
        place.archive().export(&ARGS).expect(0);
        let answers = place.tunnel().answers();
        let archive = place.archive();
        place.tunnel().stop_at(answers * tenths / 10, Stop::Hold);
        let late: Vec<Record> = every(DAY, 10, SHADOW);
        archive.export_and(&ARGS, || place.load("late", &late)).expect(0);
        for table in tables {
            archive.assert_holds(table, &every(HOUR, ROWS, BEFORE));
        }
        archive.export(&ARGS).expect(0);
        archive.changed();
        archive.assert_holds("late", &late);
    }
}
