//! The report of an archive: what its catalog and the last verdict on it say, as one page for people. PURE: it reads no
//! archive and asks no source, and of the same facts it makes the same page.

mod amounts;
mod answer;
mod axis;
mod coverage;
mod facts;
mod sources;
mod steps;
mod words;

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, ValueKind};
use minijinja::{Environment, Value};
use serde::Serialize;

use self::amounts::Amounts;
pub use self::answer::{Answer, Todo};
pub use self::facts::Facts;
pub use self::sources::{LevelCount, OutsideOf, RunOf, SourceReport};
use crate::archive::run_json::Gone;
use crate::archive::verdict::VerdictRecord;
use crate::coverage::named;
use crate::error::{Error, Result};
use crate::model::Verdict;
use crate::text::escaped;

/// Items of a list that a page shows; what is more is only counted.
const MOST_ITEMS: usize = 300;
/// The longest text of others, in characters.
const LONGEST_TEXT: usize = 2_000;

/// What a report says.
#[derive(Debug)]
pub struct Report<'a> {
    facts: Facts<'a>,
    /// The verdict, and what stands in the way.
    pub answer: Answer,
    /// What the archive has of each source.
    pub sources: Vec<SourceReport>,
    /// What the sources have and the archive has not, and why.
    pub excluded: Vec<String>,
    /// What the runs want known.
    pub warnings: Vec<String>,
    /// What was not compared and does not stand in the way.
    pub notes: Vec<String>,
}

impl<'a> Report<'a> {
    /// The report of an archive.
    pub fn of(facts: Facts<'a>) -> Self {
        let warnings = facts.run.iter().flat_map(|run| run.runs()).flat_map(|run| &run.warnings);
        let warnings: BTreeSet<&String> = warnings.collect();
        let notes = match facts.valid() {
            Some(record) => record.notes.clone(),
            None => facts.run.iter().flat_map(|run| &run.gone).map(gone).collect(),
        };
        let shown = |text: &String| escaped(text).to_string();
        let excluded = match facts.valid() {
            Some(record) => record.excluded.iter().map(shown).collect(),
            None => {
                let excluded = facts.run.iter().flat_map(|run| &run.excluded);
                let excluded =
                    excluded.map(|one| format!("{} of {}: {}", one.what, one.source, one.why));
                excluded.map(|one| shown(&one)).collect()
            }
        };
        Self {
            answer: Answer::of(&facts),
            excluded,
            sources: sources::sources(&facts),
            warnings: warnings.into_iter().map(shown).collect(),
            notes: notes.iter().map(shown).collect(),
            facts,
        }
    }

    /// The page, complete in itself.
    pub fn page(&self) -> Result<String> {
        let (axis, tables) = coverage::tables(&self.facts);
        let incomplete: HashSet<&str> = tables
            .iter()
            .filter(|table| table.is_incomplete())
            .map(|table| table.source())
            .collect();
        let is_exported = |source: &SourceReport| {
            let has_any = source.tables > 0 || !source.dumps.is_empty();
            self.facts.sealed && has_any && !incomplete.contains(source.info.name.as_str())
        };
        let commits = || self.facts.commits.iter().filter(|commit| commit.dump.is_none());
        let amounts = axis.as_ref().map(|axis| Amounts::of(axis, commits().map(Arc::as_ref)));
        let run = self.facts.run;
        let record = self.facts.valid();
        let page = Page {
            style: include_str!("report/style.css"),
            answer: &self.answer,
            is_safe: self.answer.verdict == Verdict::Safe,
            command: self.answer.todo.map(|todo| todo.command("ARCHIVE")),
            proof: record.map(Proof::of),
            seal: run.map(|run| Sealed { run: &run.run, ended: &run.ended, format: run.format }),
            is_outdated: self.facts.record.is_some(),
            sources: &self.sources,
            tables: tables.len(),
            chunks: commits().count(),
            rows: commits().map(|commit| commit.rows).sum(),
            bytes: self.sources.iter().map(|source| source.bytes).sum(),
            dumps: self.sources.iter().map(|source| source.dumps.len()).sum(),
            picture: coverage::picture(axis.as_ref(), &tables, record.is_some()),
            amounts,
            picture_size: amounts::PICTURE,
            checklists: steps::checklists(&self.answer, &self.sources, is_exported),
            excluded: &self.excluded,
            warnings: &self.warnings,
            notes: &self.notes,
            most: MOST_ITEMS,
        };
        render(Value::from(Serde(page)))
            .map_err(|error| Error::stop(format!("writing the report: {error}")))
    }
}

fn gone(gone: &Gone) -> String {
    let Gone { table, since, missing } = gone;
    let lacks = match missing.as_slice() {
        [] => String::new(),
        missing => format!(", but {} had not been exported", named(missing)),
    };
    format!(
        "table {table}: the source did not list it any more at {since}; its rows stay in the archive{lacks}"
    )
}

/// What the template reads.
#[derive(Serialize)]
struct Page<'a> {
    style: &'static str,
    answer: &'a Answer,
    is_safe: bool,
    command: Option<String>,
    proof: Option<Proof<'a>>,
    seal: Option<Sealed<'a>>,
    /// Whether there is a proof, if only of what the archive was.
    is_outdated: bool,
    sources: &'a [SourceReport],
    tables: usize,
    chunks: usize,
    rows: u64,
    bytes: u64,
    dumps: usize,
    picture: coverage::Picture,
    amounts: Option<Amounts>,
    picture_size: (u64, u64),
    checklists: Vec<steps::Checklist>,
    excluded: &'a [String],
    warnings: &'a [String],
    notes: &'a [String],
    /// Items that a list shows.
    most: usize,
}

#[derive(Serialize)]
struct Proof<'a> {
    started: &'a str,
    ended: &'a str,
    depth: &'a str,
    moveout: &'a str,
    archive: &'a str,
}

impl<'a> Proof<'a> {
    fn of(record: &'a VerdictRecord) -> Self {
        let VerdictRecord { started, ended, depth, moveout, archive, .. } = record;
        Self { started, ended, depth, moveout, archive }
    }
}

#[derive(Serialize)]
struct Sealed<'a> {
    run: &'a str,
    ended: &'a str,
    format: u32,
}

fn render(values: Value) -> std::result::Result<String, minijinja::Error> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?;
    environment.set_syntax(syntax);
    environment.add_filter("count", words::count);
    environment.add_filter("bytes", words::bytes);
    environment.add_filter("moment", |text: &str| words::moment(text));
    environment.add_filter("short", |text: &str| words::short(text));
    environment.add_filter("several", |count: u64, what: &str| crate::text::several(count, what));
    // Text of others cannot hide what it is: one place for all of it, before the escapes of HTML.
    environment.set_formatter(|out, state, value| {
        if value.kind() != ValueKind::String || value.is_safe() {
            return minijinja::escape_formatter(out, state, value);
        }
        let text = value.as_str().unwrap_or_default();
        let cut = text.char_indices().nth(LONGEST_TEXT).map(|(at, _)| &text[..at]);
        let shown = match cut {
            Some(cut) => format!("{}…", escaped(cut)),
            None => escaped(text).to_string(),
        };
        minijinja::escape_formatter(out, state, &Value::from(shown))
    });
    environment.add_template("report.html", include_str!("report/report.html"))?;
    environment.get_template("report.html")?.render(values)
}
