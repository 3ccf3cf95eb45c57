//! PURE: what each of several sources does, for their lines in the progress.

use std::collections::BTreeMap;

use indicatif::HumanCount;
use serde_json::{Value, json};

use crate::text::several;

/// The number of sources with a line; the others are only counted.
const SHOWN: usize = 12;

/// The sources of a run by name; empty if there is only one.
#[derive(Debug, Default)]
pub(super) struct Sources(BTreeMap<String, Tally>);

/// What a source has done.
#[derive(Debug, Default)]
struct Tally {
    phase: Phase,
    done: u64,
    left: u64,
    rows: u64,
}

#[derive(Debug, Default)]
enum Phase {
    /// Its turn has not come.
    #[default]
    Waiting,
    /// It is being asked this.
    Asking(String),
    Reading,
    Lost,
}

impl Sources {
    pub(super) fn new<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        Self(names.map(|name| (name.to_owned(), Tally::default())).collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn asking(&mut self, source: &str, what: &str) {
        self.with(source, |tally| tally.phase = Phase::Asking(what.to_owned()));
    }

    pub(super) fn asked(&mut self, source: &str) {
        self.with(source, |tally| tally.phase = Phase::Reading);
    }

    pub(super) fn lost(&mut self, source: &str) {
        self.with(source, |tally| tally.phase = Phase::Lost);
    }

    pub(super) fn left(&mut self, left: &BTreeMap<&str, u64>) {
        for (source, tally) in &mut self.0 {
            tally.left = left.get(source.as_str()).copied().unwrap_or_default();
        }
    }

    pub(super) fn chunk_done(&mut self, source: &str, rows: u64) {
        self.with(source, |tally| {
            tally.done += 1;
            tally.rows += rows;
        });
    }

    fn with(&mut self, source: &str, act: impl FnOnce(&mut Tally)) {
        if self.0.is_empty() {
            return;
        }
        act(self.0.entry(source.to_owned()).or_default());
    }

    /// A line for each source that is being asked or read, and one for the number of the others. `reading` holds the
    /// sources of the chunks in flight with their tables, in the order in which the chunks were begun.
    pub(super) fn lines<'a>(
        &self,
        reading: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Vec<String> {
        let mut first = BTreeMap::new();
        for (source, table) in reading {
            first.entry(source).or_insert(table);
        }
        let mut lines = Vec::new();
        let mut more = 0u64;
        for (name, tally) in &self.0 {
            let line = match (&tally.phase, first.get(name.as_str())) {
                (Phase::Asking(what), _) => what.clone(),
                (_, Some(table)) => format!(
                    "{} of about {}, {}, {table}",
                    HumanCount(tally.done),
                    several(tally.done + tally.left.max(1), "window"),
                    several(tally.rows, "row"),
                ),
                _ => continue,
            };
            if lines.len() < SHOWN { lines.push(format!("  {name}: {line}")) } else { more += 1 }
        }
        if more > 0 {
            lines.push(format!("  … and {} more", several(more, "source")));
        }
        lines
    }

    /// All of them for programs; null if there is only one.
    pub(super) fn object(&self) -> Value {
        if self.0.is_empty() {
            return Value::Null;
        }
        let one = |(name, tally): (&String, &Tally)| {
            let state = match tally.phase {
                Phase::Waiting => "waiting",
                Phase::Asking(_) => "asking",
                Phase::Reading => "reading",
                Phase::Lost => "failed",
            };
            json!({
                "source": name,
                "state": state,
                "rows": tally.rows,
                "chunks_done": tally.done,
                "chunks_left": tally.left,
            })
        };
        Value::Array(self.0.iter().map(one).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_source_at_work_has_a_line() {
        let mut sources = Sources::new(["a", "b", "c"].into_iter());
        sources.asking("a", "asking a what it has");
        sources.asked("b");
        sources.chunk_done("b", 1200);
        sources.left(&BTreeMap::from([("b", 3)]));
        sources.lost("c");
        let lines = sources.lines([("b", "d.s.t"), ("b", "d.s.u")].into_iter());
        assert_eq!(
            lines,
            ["  a: asking a what it has", "  b: 1 of about 4 windows, 1,200 rows, d.s.t"]
        );
        assert_eq!(sources.object()[2]["state"], "failed");
    }

    #[test]
    fn one_source_has_no_line_of_its_own() {
        let mut sources = Sources::default();
        sources.asking("a", "asking a what it has");
        sources.chunk_done("a", 1);
        assert!(sources.lines(std::iter::empty()).is_empty());
        assert!(sources.object().is_null());
    }
}
