//! PURE: what a report says first: whether it is safe to cancel, and if not, why and what to do.

use serde::Serialize;

use crate::error::Exit;
use crate::model::{Level, Open, OpenKind, Verdict};
use crate::report::facts::Facts;
use crate::text::{escaped, several};

/// The answer of a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// Whether the sources may be cancelled.
    pub verdict: Verdict,
    /// In a sentence, what that is founded on, or what is missing.
    pub why: String,
    /// What to do, where there is no valid proof: a command, where there is one.
    pub todo: Option<Todo>,
    /// When the sources had answered, RFC 3339; absent without a valid proof.
    pub proved: Option<String>,
    /// What stands in the way.
    pub open: Vec<Open>,
    /// How the process ends because of it.
    #[serde(skip)]
    pub exit: Exit,
}

/// What to do where an archive has no valid proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Todo {
    /// Run the same export again.
    Export,
    /// Compare the archive with its sources.
    Prove,
}

impl Todo {
    /// The command.
    pub fn command(self, archive: &str) -> String {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-:+@%=".contains(c);
        let archive = if !archive.is_empty() && archive.chars().all(is_plain) {
            archive.to_owned()
        } else {
            format!("'{}'", archive.replace('\'', r"'\''"))
        };
        match self {
            Self::Export => format!("moveout export --archive {archive} …"),
            Self::Prove => format!("moveout verify {archive} --against-source"),
        }
    }
}

impl Answer {
    pub(super) fn of(facts: &Facts<'_>) -> Self {
        let not_yet = |why: String, todo| Self {
            verdict: Verdict::NotYet,
            why,
            todo: Some(todo),
            proved: None,
            open: Vec::new(),
            exit: Exit::Incomplete,
        };
        if !facts.sealed {
            let why = "The archive is not sealed: its export has not ended. The same export goes on where it stopped.";
            return not_yet(why.to_owned(), Todo::Export);
        }
        let Some(record) = facts.valid() else {
            let why = match (facts.record, facts.invalid) {
                (Some(record), Some(why)) => format!(
                    "The archive was compared with its sources until {}, but that says nothing now: {why}.",
                    escaped(&record.ended)
                ),
                (None, Some(why)) => format!("There is no proof that can be used: {why}."),
                (_, None) => "The archive was never compared with its sources.".to_owned(),
            };
            return not_yet(why, Todo::Prove);
        };
        // What stands in the way does so whatever the record makes of it.
        let verdict = if record.open.is_empty() { record.verdict } else { Verdict::NotYet };
        let why = match verdict {
            Verdict::Safe => {
                let by_rows = record.compared.iter().all(|compared| compared.level == Level::Rows);
                let as_far = if by_rows {
                    ""
                } else {
                    ", as far as the levels of the comparison tell: `--deep` compares every row"
                };
                format!(
                    "Every table of the sources was compared with the archive, and nothing is different{as_far}."
                )
            }
            Verdict::NotYet => format!(
                "The archive was compared with its sources, and {} in the way.",
                match record.open.len() {
                    1 => "1 open point stands".to_owned(),
                    points => format!("{} stand", several(points as u64, "open point")),
                }
            ),
        };
        let exit = match verdict {
            Verdict::Safe => Exit::Done,
            Verdict::NotYet if record.open.iter().any(|open| open.kind == OpenKind::Different) => {
                Exit::Different
            }
            Verdict::NotYet => Exit::Incomplete,
        };
        Self {
            verdict,
            why,
            todo: None,
            proved: Some(record.ended.clone()),
            open: record.open.iter().map(shown).collect(),
            exit,
        }
    }
}

/// The record is a file of others: what is in it cannot hide what it is.
fn shown(open: &Open) -> Open {
    let shown = |text: &str| escaped(text).to_string();
    Open {
        source: shown(&open.source),
        what: shown(&open.what),
        why: shown(&open.why),
        todo: shown(&open.todo),
        kind: open.kind,
    }
}
