//! The answer: whether the sources may be cancelled, and the open points.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::commands::plan::QuotaPreview;
use crate::config::{Job, SourceKind, SourceSpec, matches};
use crate::error::Exit;
use crate::model::{LEFT_OUT, Level, Open, OpenKind as Kind, Verdict};
use crate::source::aptible::{Inventory, Orphan};
use crate::text::several;

/// How the sources are asked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Depth {
    /// The part of the chunks that is read again, from 0 to 1. For the others the source computes statistics.
    pub read_again: f64,
}

impl fmt::Display for Depth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.read_again {
            none if none <= 0.0 => f.write_str("statistics"),
            all if all >= 1.0 => f.write_str("deep"),
            part => write!(f, "sample {}%", part * 100.0),
        }
    }
}

/// The result of the comparison.
#[derive(Debug, Serialize)]
pub struct Against {
    /// Whether the source may be cancelled.
    pub verdict: Verdict,
    /// The open points, with what to do about each.
    pub open: Vec<Open>,
    /// How many chunks were compared by each level.
    pub compared: BTreeMap<Level, u64>,
    /// What the user left out, as the archive records it.
    pub excluded: Vec<String>,
    /// Notes on what was not compared and is not an open point.
    pub notes: Vec<String>,
    /// What the comparison takes, by estimate, of sources whose reading is limited or billed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub quotas: Vec<QuotaPreview>,
    /// How the process ends because of it.
    #[serde(skip)]
    pub exit: Exit,
}

pub(super) const EXPORT_AGAIN: &str = "run the same `moveout export` again, then this proof";
pub(super) const ASK_AGAIN: &str = "see to the cause, then run this proof again";

impl Against {
    /// Adds open points, which decide the verdict.
    pub(super) fn add(&mut self, open: impl IntoIterator<Item = Open>) {
        self.open.extend(open);
        self.verdict = if self.open.is_empty() { Verdict::Safe } else { Verdict::NotYet };
        self.exit = match self.open.iter().map(|open| open.kind).min() {
            None => Exit::Done,
            Some(Kind::Different) => Exit::Different,
            Some(Kind::Unfinished) => Exit::Incomplete,
            Some(Kind::Failed) => Exit::Failed,
        };
    }

    /// Says that another run changed the archive while its sources were asked.
    pub(super) fn changed_meanwhile(&mut self, archive: &str) {
        let why = "it was changed by another run while the sources were asked".to_owned();
        let (source, what, todo) = (String::new(), archive.to_owned(), ASK_AGAIN.to_owned());
        self.add([Open { source, what, why, todo, kind: Kind::Unfinished }]);
    }

    /// Says that not all files of the archive could be decoded.
    pub fn unchecked(&mut self, archive: &str, files: usize) {
        let why =
            format!("{} of it could not be decoded within --memory", several(files as u64, "file"));
        let todo = "give it more, such as --memory 4GiB".to_owned();
        let (source, what) = (String::new(), archive.to_owned());
        self.add([Open { source, what, why, todo, kind: Kind::Unfinished }]);
    }

    /// Backups on Aptible of databases that are gone: no export reads them, and nobody else has them.
    pub fn orphaned(&mut self, job: &Job, inventory: &Inventory) {
        let of_aptible = |spec: &&SourceSpec| matches!(spec.kind, SourceKind::Aptible(_));
        let exclude: Vec<&String> =
            job.sources.iter().filter(of_aptible).flat_map(|spec| &spec.select.exclude).collect();
        let mut backups = BTreeMap::<(&str, &str), Vec<&Orphan>>::new();
        for orphan in &inventory.orphaned {
            let environment = orphan.environment.as_deref().unwrap_or_default();
            backups.entry((environment, &orphan.handle)).or_default().push(orphan);
        }
        let mut open = Vec::new();
        for ((environment, handle), backups) in backups {
            let name = format!("{environment}.{handle}");
            let what = several(backups.len() as u64, "backup");
            if exclude.iter().any(|pattern| matches(pattern, &name) || matches(pattern, handle)) {
                self.excluded
                    .push(format!("{what} of {name}, which was deprovisioned: {LEFT_OUT}"));
                continue;
            }
            let restore = backups.last().map(|orphan| orphan.restore.as_str()).unwrap_or_default();
            let why = "it was deprovisioned, no export reads its backups, and nobody else has them"
                .to_owned();
            let todo = format!(
                "restore it (`{restore}`, billed) and export it, delete its backups, or leave it out by `exclude`"
            );
            open.push(Open { source: name, what, why, todo, kind: Kind::Failed });
        }
        for why in &inventory.unknown {
            let (source, what) = (String::new(), "backups of deprovisioned databases".to_owned());
            let (why, todo) = (why.clone(), ASK_AGAIN.to_owned());
            open.push(Open { source, what, why, todo, kind: Kind::Unfinished });
        }
        self.add(open);
    }

    /// The answer for an archive with faults or without a seal, which is not compared.
    pub fn of_archive(archive: &str, faults: usize, exit: Exit) -> Self {
        let (kind, why, todo) = if faults == 0 {
            (Kind::Unfinished, "it is not sealed".to_owned(), EXPORT_AGAIN)
        } else {
            let why =
                format!("{} found in it; no source was asked", several(faults as u64, "fault"));
            (Kind::Different, why, "see to the faults first")
        };
        let (source, what, todo) = (String::new(), archive.to_owned(), todo.to_owned());
        Self {
            verdict: Verdict::NotYet,
            open: vec![Open { source, what, why, todo, kind }],
            compared: BTreeMap::new(),
            excluded: Vec::new(),
            notes: Vec::new(),
            quotas: Vec::new(),
            exit,
        }
    }
}
