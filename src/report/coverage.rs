//! PURE: what the archive has of each table over time, and what the source says of it: one strip of cells a table, and
//! one for each schema with the gravest cell of its tables. Few tables are shown one by one; of many, those first that
//! somebody has to look at, and then the largest.

use std::collections::{BTreeMap, HashSet};

use serde::Serialize;

use crate::archive::commit::Commit;
use crate::compact::Text;
use crate::coverage::Coverage;
use crate::model::{Level, Role, TableId};
use crate::report::axis::{Axis, Tick, WIDTH, is_bounded};
use crate::report::facts::Facts;
use crate::report::words::{bytes, count, days, level, short};
use crate::text::several;
use crate::window::{Slice, Window};

/// Tables that a report names one by one.
const MOST_TABLES: usize = 2_000;
/// Tables of one schema that it names at least, as long as there is room.
const LEAST_OF_GROUP: usize = 5;
/// Schemas with a line of their own.
const MOST_GROUPS: usize = 500;
/// Stretches of time that the text of a strip names.
const MOST_STRETCHES: usize = 6;

/// What there is to say of a stretch of time, from what needs no attention to what needs most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Cell {
    /// Nothing was requested, and nothing is known to be there.
    Nothing,
    /// Rows are there, and the user did not request them.
    Outside,
    /// The source had no rows there.
    Empty,
    /// Exported, and the source has the same.
    Equal,
    /// Exported, and not compared.
    Exported,
    /// Requested, and not exported.
    Missing,
    /// The source has it otherwise.
    Different,
}

impl Cell {
    fn words(self) -> &'static str {
        match self {
            Self::Nothing => "nothing requested",
            Self::Outside => "rows that were not requested",
            Self::Empty => "no rows",
            Self::Equal => "equal to the source",
            Self::Exported => "exported, not compared",
            Self::Missing => "missing",
            Self::Different => "different from the source",
        }
    }
}

/// The picture of all tables.
#[derive(Debug, Serialize)]
pub(super) struct Picture {
    /// How long a cell is; absent where no table has a time.
    pub unit: Option<String>,
    /// Below the strips.
    pub ticks: Vec<Tick>,
    /// One for each schema.
    pub groups: Vec<Group>,
    /// Schemas that have no line.
    pub more_groups: Option<String>,
    /// What occurs in it, gravest first: name and words.
    pub legend: Vec<(Cell, &'static str)>,
}

/// All tables of one schema.
#[derive(Debug, Serialize)]
pub(super) struct Group {
    title: String,
    source: String,
    tables: String,
    rows: String,
    bytes: String,
    strip: Strip,
    shown: Vec<Row>,
    more: Option<String>,
    is_open: bool,
}

/// One table.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    name: String,
    rows: String,
    bytes: String,
    covered: String,
    compared: String,
    worst: Cell,
    strip: Strip,
}

/// Cells of one kind side by side, and the same in words.
#[derive(Debug, Serialize)]
pub(super) struct Strip {
    runs: BTreeMap<Cell, Vec<(u64, u64)>>,
    words: String,
}

/// What is known of a table.
#[derive(Debug)]
pub(super) struct TableFacts {
    id: TableId,
    rows: u64,
    null_rows: u64,
    bytes: u64,
    chunks: u64,
    cells: Vec<Cell>,
    /// The same of what has no time.
    whole: Cell,
    covered: Option<Window>,
    compared: BTreeMap<Level, (u64, u64)>,
    is_incomplete: bool,
}

impl TableFacts {
    /// Its source.
    pub(super) fn source(&self) -> &str {
        &self.id.source
    }

    /// Whether the archive lacks time that was requested.
    pub(super) fn is_incomplete(&self) -> bool {
        self.is_incomplete
    }

    fn worst(&self) -> Cell {
        self.cells.iter().copied().fold(self.whole, Cell::max)
    }

    /// The same, where all that needs no attention is one.
    fn gravity(&self) -> Cell {
        self.worst().max(Cell::Equal)
    }
}

/// The time in which the rows of a commit lie, as far as is known.
pub(super) fn time_of(commit: &Commit) -> Option<Window> {
    match commit.slice {
        Slice::Window(window) => Some(window),
        Slice::NullTime => None,
        Slice::All => {
            let time = commit.columns.iter().find(|column| column.role == Role::Time)?;
            let end = |text: &Option<Text>| text.as_ref()?.parse::<i64>().ok();
            Window::new(end(&time.min)?, end(&time.max)?.saturating_add(1))
        }
    }
}

/// The axis of a report, and every table of the archive with its cells.
pub(super) fn tables(facts: &Facts<'_>) -> (Option<Axis>, Vec<TableFacts>) {
    let mut by_table = BTreeMap::<TableId, Known<'_>>::new();
    for commit in facts.commits.iter().filter(|commit| commit.dump.is_none()) {
        by_table.entry(commit.id()).or_default().commits.push(commit);
    }
    for (id, window) in facts.requested().filter(|(id, _)| !id.is_dump()) {
        by_table.entry(id.clone()).or_default().requested.push(window);
    }
    for outside in facts.run.iter().flat_map(|run| &run.outside) {
        by_table.entry(outside.table.clone()).or_default().outside.push(outside.window);
    }
    if let Some(record) = facts.valid() {
        for compared in &record.compared {
            let Some(known) = by_table.get_mut(&compared.table) else { continue };
            let (chunks, different) = known.compared.entry(compared.level).or_default();
            *chunks += compared.chunks;
            *different += compared.different;
            known.equal.extend(&compared.equal);
        }
        for stale in &record.stale {
            if let Some(known) = by_table.get_mut(&stale.table) {
                known.stale.insert((stale.slice, &stale.run));
            }
        }
    }
    let windows = by_table.values().flat_map(|known| {
        let commits = known.commits.iter().filter_map(|commit| time_of(commit));
        commits.chain(known.requested.iter().copied())
    });
    let axis = Axis::over(windows);
    let tables = by_table.into_iter().map(|(id, known)| known.facts(id, axis.as_ref())).collect();
    (axis, tables)
}

/// All that is recorded of a table.
#[derive(Default)]
struct Known<'a> {
    commits: Vec<&'a Commit>,
    requested: Vec<Window>,
    outside: Vec<Window>,
    equal: Vec<Window>,
    stale: HashSet<(Slice, &'a str)>,
    compared: BTreeMap<Level, (u64, u64)>,
}

impl Known<'_> {
    fn facts(self, id: TableId, axis: Option<&Axis>) -> TableFacts {
        let mut cells = vec![Cell::Nothing; axis.map_or(1, Axis::cells)];
        let mut whole = Cell::Nothing;
        let mut paint = |window: Option<Window>, cell: Cell| match window.zip(axis) {
            Some((window, axis)) => {
                for at in &mut cells[axis.cells_of(window)] {
                    *at = cell.max(*at);
                }
            }
            None => whole = cell.max(whole),
        };
        let covered: Coverage = self.commits.iter().map(|commit| commit.slice).collect();
        for window in &self.outside {
            paint(Some(*window).filter(|_| axis.is_some()), Cell::Outside);
        }
        let missing = self.requested.iter().flat_map(|window| covered.missing(*window));
        let missing: Vec<Window> = missing.collect();
        missing.iter().for_each(|window| paint(Some(*window), Cell::Missing));
        let chunks = self.commits.len() as u64;
        let compared: u64 = self.compared.values().map(|(chunks, _)| chunks).sum();
        let different: u64 = self.compared.values().map(|(_, different)| different).sum();
        let equal: Coverage = self.equal.iter().copied().collect();
        let mut ends: Option<Window> = None;
        for commit in &self.commits {
            let time = time_of(commit);
            let is_equal = compared >= chunks && different == 0
                || commit.slice.window().is_some_and(|window| contains(&equal, window));
            let cell = match commit.rows {
                _ if self.stale.contains(&(commit.slice, commit.run.as_str())) => Cell::Different,
                // All were compared, and this one is not among those that are equal.
                _ if compared >= chunks && !is_equal && commit.slice.window().is_some() => {
                    Cell::Different
                }
                0 => Cell::Empty,
                _ if is_equal => Cell::Equal,
                _ => Cell::Exported,
            };
            paint(time, cell);
            if let Some(time) = time.filter(is_bounded) {
                let before = ends.unwrap_or(time);
                let (from, to) = (before.from.min(time.from), before.to.max(time.to));
                ends = Some(Window { from, to });
            }
        }
        let null_time = self.commits.iter().filter(|commit| commit.slice == Slice::NullTime);
        let files = self.commits.iter().flat_map(|commit| &commit.files);
        TableFacts {
            id,
            rows: self.commits.iter().map(|commit| commit.rows).sum(),
            null_rows: null_time.map(|commit| commit.rows).sum(),
            bytes: files.map(|file| file.bytes).sum(),
            chunks,
            cells,
            whole,
            covered: ends,
            compared: self.compared,
            is_incomplete: !missing.is_empty(),
        }
    }
}

/// What a line of the picture is of.
fn schema(table: &TableFacts) -> (&str, &str, &str) {
    let TableId { source, database, schema, .. } = &table.id;
    (source, database, schema)
}

/// Whether all of a window is in the set; quick also where the set has many windows.
fn contains(set: &Coverage, window: Window) -> bool {
    let next = set.windows().partition_point(|one| one.to < window.to);
    set.windows().get(next).is_some_and(|one| one.from <= window.from)
}

/// The picture of tables that are sorted by name.
pub(super) fn picture(axis: Option<&Axis>, tables: &[TableFacts], is_proved: bool) -> Picture {
    let mut legend: Vec<Cell> = tables.iter().flat_map(|t| t.cells.iter().copied()).collect();
    legend.extend(tables.iter().map(|table| table.whole));
    legend.sort_unstable();
    legend.dedup();
    let legend = legend.into_iter().rev().filter(|cell| *cell != Cell::Nothing);
    let mut groups: Vec<&[TableFacts]> =
        tables.chunk_by(|one, other| schema(one) == schema(other)).collect();
    let mut left = MOST_TABLES;
    let share = if tables.len() <= MOST_TABLES {
        MOST_TABLES
    } else {
        (MOST_TABLES / groups.len()).max(LEAST_OF_GROUP)
    };
    if groups.len() > MOST_GROUPS {
        let worst = |tables: &[TableFacts]| tables.iter().map(TableFacts::gravity).max();
        groups.sort_by_key(|tables| std::cmp::Reverse(worst(tables)));
    }
    let is_open = tables.len() <= 40;
    let shown = groups.iter().take(MOST_GROUPS).map(|tables| {
        let group = Group::of(axis, tables, left.min(share), is_open, is_proved);
        left -= group.shown.len();
        group
    });
    let shown = shown.collect();
    let more = groups.len().saturating_sub(MOST_GROUPS) as u64;
    Picture {
        unit: axis.map(|axis| axis.unit().to_owned()),
        ticks: axis.map(Axis::ticks).unwrap_or_default(),
        groups: shown,
        more_groups: (more > 0).then(|| several(more, "schema")),
        legend: legend.map(|cell| (cell, cell.words())).collect(),
    }
}

impl Group {
    fn of(
        axis: Option<&Axis>,
        tables: &[TableFacts],
        most: usize,
        is_open: bool,
        is_proved: bool,
    ) -> Self {
        let id = &tables[0].id;
        let mut cells = vec![Cell::Nothing; tables[0].cells.len()];
        for table in tables {
            for (cell, other) in cells.iter_mut().zip(&table.cells) {
                *cell = (*cell).max(*other);
            }
        }
        let whole = tables.iter().map(|table| table.whole).fold(Cell::Nothing, Cell::max);
        let mut order: Vec<&TableFacts> = tables.iter().collect();
        order.sort_by_key(|table| {
            (std::cmp::Reverse((table.gravity(), table.rows)), &table.id.table)
        });
        let shown = order.iter().take(most).map(|table| Row::of(axis, table, is_proved));
        let more = tables.len().saturating_sub(most) as u64;
        let title = match id.schema.as_str() {
            "" => id.database.clone(),
            schema => format!("{}.{schema}", id.database),
        };
        Self {
            title: short(&title),
            source: short(&id.source),
            tables: several(tables.len() as u64, "table"),
            rows: several(tables.iter().map(|table| table.rows).sum(), "row"),
            bytes: bytes(tables.iter().map(|table| table.bytes).sum()),
            strip: Strip::of(axis, &cells, whole),
            shown: shown.collect(),
            more: (more > 0).then(|| several(more, "more table")),
            is_open,
        }
    }
}

impl Row {
    fn of(axis: Option<&Axis>, table: &TableFacts, is_proved: bool) -> Self {
        let covered = match (table.covered, table.chunks) {
            (_, 0) => "nothing of it".to_owned(),
            (Some(window), _) => days(window),
            (None, _) => "the whole table".to_owned(),
        };
        let null = match table.null_rows {
            0 => String::new(),
            rows => format!(", and {} without a time", several(rows, "row")),
        };
        let compared = table.compared.iter().map(|(of, (chunks, different))| {
            let all = if *chunks == table.chunks {
                several(*chunks, "chunk")
            } else {
                format!("{} of {}", count(*chunks), several(table.chunks, "chunk"))
            };
            let different = match different {
                0 => String::new(),
                some => format!(", {} different", count(*some)),
            };
            format!("{all} by {}{different}", level(*of))
        });
        let compared: Vec<String> = compared.collect();
        let compared = match (compared.is_empty(), is_proved) {
            (false, _) => compared.join("; "),
            (true, true) => "not compared".to_owned(),
            (true, false) => "no proof".to_owned(),
        };
        Self {
            name: short(&table.id.table),
            rows: several(table.rows, "row"),
            bytes: bytes(table.bytes),
            covered: covered + &null,
            compared,
            worst: table.worst(),
            strip: Strip::of(axis, &table.cells, table.whole),
        }
    }
}

impl Strip {
    fn of(axis: Option<&Axis>, cells: &[Cell], whole: Cell) -> Self {
        let mut runs = BTreeMap::<Cell, Vec<(u64, u64)>>::new();
        let mut words = Vec::new();
        let timed = axis.filter(|_| cells.iter().any(|cell| *cell != Cell::Nothing));
        let mut at = 0;
        if let Some(axis) = timed {
            for run in cells.chunk_by(|one, other| one == other) {
                let (first, last) = (at, at + run.len());
                at = last;
                if run[0] == Cell::Nothing {
                    continue;
                }
                let (from, to) = (axis.x(first), axis.x(last));
                runs.entry(run[0]).or_default().push((from, to - from));
                words.push(format!(
                    "{} to {}: {}",
                    axis.begin(first),
                    axis.begin(last),
                    run[0].words()
                ));
            }
        } else if whole != Cell::Nothing {
            runs.insert(whole, vec![(0, WIDTH)]);
        }
        if words.len() > MOST_STRETCHES {
            words.truncate(MOST_STRETCHES);
            words.push("and so on".to_owned());
        }
        if whole != Cell::Nothing {
            words.push(format!("what has no time: {}", whole.words()));
        }
        if words.is_empty() {
            words.push("nothing".to_owned());
        }
        Self { runs, words: words.join("; ") }
    }
}
