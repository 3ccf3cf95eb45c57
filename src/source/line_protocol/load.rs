//! Reads a file, once: its lines become sorted segments, its comments switch the database and the retention policy, and
//! at the end all tables and their contents are known.

use std::path::Path;
use std::sync::mpsc::sync_channel;

use crate::error::{Error, Result};
use crate::model::{Division, Excluded, Identity, ReadMode, Table};
use crate::source::line_protocol::header::Header;
use crate::source::line_protocol::input;
use crate::source::line_protocol::lines::{Commented, Lines};
use crate::source::line_protocol::merge;
use crate::source::line_protocol::merge::Survey;
use crate::source::line_protocol::options::Options;
use crate::source::line_protocol::parse;
use crate::source::line_protocol::parse::LineError;
use crate::source::line_protocol::schema::{Draft, Slot};
use crate::source::line_protocol::spool::{Segment, Spool};
use crate::source::line_protocol::text::Text;
use crate::window::Window;

/// A file that was read: its tables, and their points in a spool.
pub(super) struct Loaded {
    pub(super) tables: Vec<Ready>,
    pub(super) excluded: Vec<Excluded>,
    pub(super) warnings: Vec<String>,
    /// The statements of the header.
    pub(super) ddl: Vec<String>,
    pub(super) spool: Spool,
}

/// A table whose points can be read.
pub(super) struct Ready {
    pub(super) table: Table,
    pub(super) slots: Vec<Slot>,
    pub(super) segments: Vec<Segment>,
    pub(super) rows: u64,
    conflicts: u64,
}

impl Ready {
    /// `[first, last + 1 ns)`.
    pub(super) fn bounds(&self) -> Option<Window> {
        self.table.data_ranges.first().copied()
    }
}

// A longer line most likely has a quote that is never closed.
const LONGEST_LINE: usize = 64 << 20;

// In tests, small blocks split the text in many places.
const SMALLEST_BLOCK: usize = if cfg!(test) { 16 } else { 64 << 10 };

/// Reads a file.
pub(super) fn load(source: &str, file: &Path, options: &Options) -> Result<Loaded> {
    if options.precision_nanos < 1 {
        return Err(Error::usage("the precision of timestamps must be at least one nanosecond"));
    }
    let mut loader = Loader {
        source,
        file,
        memory_bytes: options.memory_bytes,
        lines: Lines::new(source, Header::new(file, options), options),
        spool: None,
    };
    let (hash, unterminated) = loader.read()?;
    loader.finish(&hash, unterminated)
}

struct Loader<'a> {
    source: &'a str,
    file: &'a Path,
    memory_bytes: usize,
    lines: Lines<'a>,
    /// `None` as long as all lines fit into memory.
    spool: Option<Spool>,
}

impl Loader<'_> {
    /// Reads all lines. Returns the hash of the file and whether its last newline is missing.
    fn read(&mut self) -> Result<(String, bool)> {
        let block = (self.memory_bytes / 32).clamp(SMALLEST_BLOCK, 1 << 20);
        let (sender, receiver) = sync_channel(2);
        let file = self.file;
        std::thread::scope(|scope| {
            let reader = scope.spawn(move || input::read(file, block, &sender));
            let mut text = Text::new(receiver);
            let read = self.read_lines(&mut text);
            let unterminated = text.unterminated;
            // The reader ends when nobody receives its blocks.
            drop(text);
            let ended = reader.join().unwrap_or_else(|_| {
                Err(Error::stop(format!("reading {}: the reading thread failed", file.display())))
            });
            // If the text ended too early, the last line is wrong as well, but the reader knows the cause.
            let hash = ended?;
            read.map(|()| (hash, unterminated))
        })
    }

    fn read_lines(&mut self, text: &mut Text) -> Result<()> {
        loop {
            match self.lines.take(text.rest(), text.line) {
                Ok(length) => {
                    text.pass(length);
                    if self.lines.buffer.size_bytes() > self.memory_bytes / 4 * 3 {
                        self.spill()?;
                    }
                }
                Err(LineError::Bad(why)) => return Err(self.wrong(text, &why)),
                Err(LineError::More) if text.rest().len() > LONGEST_LINE => {
                    return Err(
                        self.wrong(text, "a line of more than 64 MiB; is a quote not closed?")
                    );
                }
                Err(LineError::More) if text.more() => {}
                Err(LineError::More) if text.rest().is_empty() => break,
                Err(LineError::More) => {
                    return Err(self.wrong(text, "a quote is not closed, or the file was cut"));
                }
            }
        }
        if text.unterminated && self.lines.last_time_is_short() { Err(self.cut()) } else { Ok(()) }
    }

    fn wrong(&self, text: &Text, why: &str) -> Error {
        let line = text.rest().split(|byte| *byte == b'\n').next().unwrap_or_default();
        let error = Error::stop(format!(
            "reading line protocol from {}, line {}: {why}, in `{}`",
            self.file.display(),
            text.line,
            parse::show(line),
        ));
        if line.starts_with(b"skipped missing file") {
            error.hint("the export itself left out a file: stop the database and export again")
        } else {
            error.hint("correct or remove this line, or export again, then run again")
        }
    }

    fn cut(&self) -> Error {
        Error::stop(format!(
            "reading line protocol from {}: the last line has no newline, and its timestamp is \
             shorter than the others: the file is truncated",
            self.file.display(),
        ))
        .hint("export or copy it again; if it is complete, add a newline at the end")
    }

    fn spill(&mut self) -> Result<()> {
        let spool = match self.spool.take() {
            Some(spool) => spool,
            None => Spool::on_disk()?,
        };
        self.lines.spill(self.spool.insert(spool))
    }

    /// Sorts the remaining lines and finishes each table.
    fn finish(mut self, hash: &str, unterminated: bool) -> Result<Loaded> {
        if self.spool.is_none() && self.lines.buffer.size_bytes() <= self.memory_bytes / 8 * 3 {
            self.spool = Some(Spool::in_memory());
        }
        self.spill()?;
        let Self { source, file, memory_bytes, lines, spool } = self;
        let spool = spool.unwrap_or_else(Spool::in_memory);
        let Lines { header, tables: drafts, commented, buffer, .. } = lines;
        drop(buffer);
        let (mut tables, mut excluded) = (Vec::new(), Vec::new());
        for draft in drafts.into_iter().filter(|draft| draft.lines > 0) {
            if draft.selected {
                tables.push(ready(draft, &spool, memory_bytes / 2, hash)?)
            } else {
                excluded.push(left_out(source, file, &draft))
            }
        }
        tables.sort_by(|a, b| a.table.id.cmp(&b.table.id));
        excluded.sort_by(|a, b| a.what.cmp(&b.what));
        let conflicts = tables.iter().map(|table| table.conflicts).sum();
        let empty = tables.is_empty() && excluded.is_empty();
        let warnings = warnings(file, conflicts, commented, unterminated, empty);
        Ok(Loaded { tables, excluded, warnings, ddl: header.ddl, spool })
    }
}

fn ready(draft: Draft, spool: &Spool, memory_bytes: usize, hash: &str) -> Result<Ready> {
    let columns = draft.columns();
    let data_ranges = Window::new(draft.first, draft.last.saturating_add(1));
    let segments = merge::reduce(spool, draft.segments, memory_bytes)?;
    let (rows, conflicts) = match segments.as_slice() {
        [only] => (only.rows, only.conflicts),
        several => {
            let survey = Survey::of(Window::ALL, spool, several, memory_bytes)?;
            (survey.rows, survey.conflicts)
        }
    };
    let table = Table {
        data_ranges: data_ranges.into_iter().collect(),
        read_mode: ReadMode::OnePass,
        identity: Identity { division: Some(Division::File(hash.to_owned())), object: None },
        ..Table::new(draft.id, columns)
    };
    Ok(Ready { table, slots: draft.fields.slots, segments, rows, conflicts })
}

fn left_out(source: &str, file: &Path, draft: &Draft) -> Excluded {
    Excluded {
        source: source.to_owned(),
        what: draft.id.to_string(),
        why: format!("not selected; {} lines of {}", draft.lines, file.display()),
    }
}

fn warnings(
    file: &Path,
    conflicts: u64,
    commented: Option<Commented>,
    unterminated: bool,
    empty: bool,
) -> Vec<String> {
    let file = file.display();
    let mut warnings = Vec::new();
    if empty {
        warnings.push(format!("{file} has no points"));
    }
    if conflicts > 0 {
        warnings.push(format!(
            "{conflicts} values were written twice in {file}; the last one is kept, as InfluxDB does"
        ));
    }
    if let Some(Commented { first_line, count }) = commented {
        warnings.push(format!(
            "{count} lines of {file} would be points without the # that they begin with (the first is line \
             {first_line}); they are left out as comments, even if the # belongs to the name of a measurement"
        ));
    }
    if unterminated {
        warnings.push(format!("{file} does not end with a newline; make sure that it is complete"));
    }
    warnings
}
