//! PURE: numbers, times and names as a report writes them.

use indicatif::{HumanBytes, HumanCount};

use crate::model::Level;
use crate::window::{Window, parse_time, rfc3339};

/// The longest name, in characters.
const LONGEST: usize = 120;

/// A name that is not too long for a table.
pub(super) fn short(name: &str) -> String {
    match name.char_indices().nth(LONGEST) {
        Some((at, _)) => format!("{}…", &name[..at]),
        None => name.to_owned(),
    }
}

pub(super) fn bytes(count: u64) -> String {
    HumanBytes(count).to_string()
}

pub(super) fn count(count: u64) -> String {
    HumanCount(count).to_string()
}

/// `2024-01-01 to 2024-01-31`, both inclusive.
pub(super) fn days(window: Window) -> String {
    let day = |time| rfc3339(time).split('T').next().unwrap_or_default().to_owned();
    let (first, last) = (day(window.from), day(window.to.saturating_sub(1).max(window.from)));
    if first == last { first } else { format!("{first} to {last}") }
}

/// A recorded time as people write it, to the second.
pub(super) fn moment(text: &str) -> String {
    match parse_time(text) {
        Some(time) => {
            let time = rfc3339(time);
            let (day, clock) = time.split_once('T').unwrap_or((&time, ""));
            format!("{day} {} UTC", clock.get(..8).unwrap_or(clock))
        }
        None => text.to_owned(),
    }
}

/// How chunks were compared, after `by`.
pub(super) fn level(level: Level) -> &'static str {
    match level {
        Level::Counts => "counts",
        Level::Statistics => "statistics",
        Level::Rows => "rows",
    }
}
