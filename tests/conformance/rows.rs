//! Each row once: whatever the width of the windows, the range, and what came later.

use chrono::{DateTime, SecondsFormat};

use crate::place::Place;
use crate::subject::{Ability, NewTable, Record, Subject, Time};

pub(crate) const HOUR: i64 = 3_600_000_000_000;
pub(crate) const DAY: i64 = 24 * HOUR;
/// 2024-01-01.
pub(crate) const NEW_YEAR: i64 = 1_704_067_200_000_000_000;

/// So many rows, so far apart, numbered from `first` on.
pub(crate) fn every(step: i64, count: i64, first: i64) -> Vec<Record> {
    let record = |n| Record { id: first + n, time: Time::At(NEW_YEAR + n * step) };
    (0..count).map(record).collect()
}

/// Rows on the boundaries of windows, one step before and after them, several at one time, far away, without
/// a time and at all ends of time.
pub(crate) fn difficult(subject: &dyn Subject) -> Vec<Record> {
    let step = subject.precision();
    let mut times: Vec<Time> = Vec::new();
    for day in 0..6 {
        let midnight = NEW_YEAR + day * DAY;
        let around = [-step, 0, 0, step, HOUR - step, HOUR, 7 * HOUR + 12_345_000];
        times.extend(around.map(|offset| Time::At(midnight + offset)));
    }
    times.extend([-DAY, -step, 0, step].map(Time::At));
    times.extend((0..subject.extremes()).flat_map(|number| [Time::Extreme(number); 2]));
    if subject.abilities().contains(&Ability::NullTime) {
        times.extend([Time::Null; 3]);
    }
    let record = |(id, time)| Record { id, time };
    (1..).zip(times).map(record).collect()
}

pub(crate) fn each_row_once(subject: &dyn Subject) {
    let place = Place::new(subject, "each_row_once");
    let all = difficult(subject);
    // Both ends of time and rows without one, and nothing between them.
    let ends: Vec<Record> =
        all.iter().filter(|record| !matches!(record.time, Time::At(_))).copied().collect();
    let tables = [("all", all.as_slice()), ("ends", &ends), ("plain", &every(HOUR, 50, 1))];
    let tables = tables.map(|(name, records)| (name, records.to_vec()));
    let tables: Vec<_> = tables.into_iter().filter(|(_, records)| !records.is_empty()).collect();
    for (name, records) in &tables {
        place.load(name, records);
        if let Some(count) = subject.count(&place.database, name) {
            assert_eq!(count, records.len() as u64, "{name}");
        }
    }
    for (width, concurrency) in [("1h", "1"), ("1d", "4"), ("1000d", "2")] {
        let archive = place.archive();
        archive.export(&["--window", width, "--concurrency", concurrency]).expect(0);
        for (name, records) in &tables {
            archive.assert_holds(name, records);
        }
        // Once more is no more.
        archive.export(&["--window", "3h"]).expect(0);
        archive.changed();
        for (name, records) in &tables {
            archive.assert_holds(name, records);
        }
    }
}

fn rfc3339(time: i64) -> String {
    DateTime::from_timestamp_nanos(time).to_rfc3339_opts(SecondsFormat::Nanos, true)
}

pub(crate) fn ranges(subject: &dyn Subject) {
    let place = Place::new(subject, "ranges");
    let all = difficult(subject);
    place.load("all", &all);
    let step = subject.precision();
    let archive = place.archive();
    let ranges = [
        (Some(NEW_YEAR + 2 * DAY), Some(NEW_YEAR + 3 * DAY)),
        (Some(NEW_YEAR + DAY + step), Some(NEW_YEAR + 3 * DAY + HOUR)),
        (None, Some(NEW_YEAR + 3 * DAY + HOUR + step)),
        (None, None),
    ];
    for (from, to) in ranges {
        let inside = |record: &&Record| match record.time {
            Time::At(time) => from.is_none_or(|from| from <= time) && to.is_none_or(|to| time < to),
            Time::Null => true,
            // The even ones are at the beginning of time, the others at its end.
            Time::Extreme(number) if number < subject.extremes() / 2 => from.is_none(),
            Time::Extreme(_) => to.is_none(),
        };
        let inside: Vec<Record> = all.iter().filter(inside).copied().collect();
        let mut args = vec!["--json".to_owned(), "--window".to_owned(), "6h".to_owned()];
        for (flag, time) in [("--from", from), ("--to", to)] {
            args.extend(time.into_iter().flat_map(|time| [flag.to_owned(), rfc3339(time)]));
        }
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let summary = archive.export(&args).expect(0).json();
        archive.changed();
        archive.assert_holds("all", &inside);
        let outside: u64 = summary["outside"]
            .as_array()
            .unwrap()
            .iter()
            .map(|outside| outside["count"]["rows"].as_u64().unwrap())
            .sum();
        let counted = (inside.len() as u64) + outside;
        assert_eq!(counted, all.len() as u64, "{from:?} to {to:?}: {}", summary["outside"]);
    }
}

/// Data that came after a run: later rows, another table.
pub(crate) fn listed_again(subject: &dyn Subject) {
    let place = Place::new(subject, "listed_again");
    let old = every(HOUR, 40, 1);
    place.load("old", &old);
    let archive = place.archive();
    archive.export(&[]).expect(0);
    archive.assert_holds("old", &old);
    let new = every(HOUR, 30, 1000);
    place.load("new", &new);
    place.load("Newer", &new);
    archive.export(&[]).expect(0);
    archive.changed();
    archive.assert_holds("old", &old);
    archive.assert_holds("new", &new);
    archive.assert_holds("Newer", &new);
    subject.load(&place.database, NewTable { name: "other text", text: "more", records: &new });
    archive.export(&[]).expect(0);
    archive.changed();
    archive.assert_holds("old", &old);
    archive.assert_holds_named("other text", "more", &new);
}
