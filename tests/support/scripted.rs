//! A source without a server: it has the tables that a test gives it, and answers as the test's script
//! says. Everything about it is determined, so that a test can let it fail at its n-th question.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::{
    ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, TimestampNanosecondArray,
};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Int64Type, TimeUnit};
use async_trait::async_trait;
use moveout::config::{Job, Limits, Location, Select, SourceKind, SourceSpec};
use moveout::error::{Error, Result};
use moveout::model::{
    Artifacts, Chunk, Column, Identity, Listing, Metering, Prices, ReadMode, ReadSummary, Role,
    RowCount, SourceInfo, SplitPoints, Table, TableId,
};
use moveout::source::Source;
use moveout::source::channel::BatchSender;
use moveout::window::{Bound, Slice, Window};

/// What a source can be asked. `Display` is how it stands in the record of what was asked.
#[derive(Debug, Clone)]
pub(crate) enum Question {
    Describe,
    List,
    Bounds(Vec<String>),
    Count(String, Window),
    Read(Chunk),
    Artifacts,
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Describe => f.write_str("describe"),
            Self::List => f.write_str("list"),
            Self::Bounds(tables) => write!(f, "bounds {}", tables.join(" ")),
            Self::Count(table, window) => write!(f, "count {table} {window}"),
            Self::Read(chunk) => write!(f, "read {chunk}"),
            Self::Artifacts => f.write_str("artifacts"),
        }
    }
}

/// What a script makes of a question; without any of these it is answered.
pub(crate) enum Play {
    /// Fails.
    Fail(Error),
    /// Answers a read with so many of its rows, and fails then; any other question fails.
    FailAfter(usize, Error),
    /// Never answers.
    Hang,
    /// Answers a read with so many of its rows, and never ends it.
    HangAfter(usize),
    /// Answers after a while.
    Wait(Duration),
}

type Script = Box<dyn FnMut(&Question) -> Option<Play> + Send>;

/// A source that a test has written. Share it by `Arc`: what it has can be changed while a run is at work.
pub(crate) struct Scripted {
    name: String,
    tables: Mutex<Vec<(Table, RecordBatch)>>,
    listing: Mutex<Listing>,
    artifacts: Mutex<Artifacts>,
    script: Mutex<Script>,
    asked: Mutex<Vec<String>>,
    /// Whether its reads may be abandoned.
    pub(crate) can_abandon: AtomicBool,
    /// Whether what is read from it costs money.
    pub(crate) is_billed: AtomicBool,
}

impl Scripted {
    /// A source with these tables, which answers everything.
    pub(crate) fn new(tables: impl IntoIterator<Item = (Table, RecordBatch)>) -> Arc<Self> {
        Self::named("scripted", tables)
    }

    /// The same under a name of its own.
    pub(crate) fn named(
        name: &str,
        tables: impl IntoIterator<Item = (Table, RecordBatch)>,
    ) -> Arc<Self> {
        let tables = tables.into_iter().map(|(mut table, rows)| {
            name.clone_into(&mut table.id.source);
            (table, rows)
        });
        Arc::new(Self {
            name: name.to_owned(),
            tables: Mutex::new(tables.collect()),
            listing: Mutex::default(),
            artifacts: Mutex::new(Artifacts::of("s")),
            script: Mutex::new(Box::new(|_| None)),
            asked: Mutex::default(),
            can_abandon: AtomicBool::new(false),
            is_billed: AtomicBool::new(false),
        })
    }

    /// From now on this decides what becomes of each question.
    pub(crate) fn play(&self, script: impl FnMut(&Question) -> Option<Play> + Send + 'static) {
        *self.script.lock().unwrap() = Box::new(script);
    }

    /// Gives a table another content, or adds it.
    pub(crate) fn set(&self, table: Table, rows: RecordBatch) {
        let mut tables = self.tables.lock().unwrap();
        tables.retain(|(other, _)| other.id != table.id);
        tables.push((table, rows));
    }

    /// What a listing says besides its tables.
    pub(crate) fn list_also(&self, also: Listing) {
        *self.listing.lock().unwrap() = also;
    }

    /// What it has besides rows.
    pub(crate) fn keep(&self, artifacts: Artifacts) {
        *self.artifacts.lock().unwrap() = artifacts;
    }

    /// Everything it was asked, in order.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    /// What was asked since the last call.
    pub(crate) fn take_asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }

    /// The times and values of all of its rows that have a time, by table, sorted.
    pub(crate) fn all_rows(&self) -> BTreeMap<String, Vec<(i64, i64)>> {
        let tables = self.tables.lock().unwrap();
        let rows = tables.iter().map(|(table, rows)| {
            let values = rows.column(1).as_primitive::<Int64Type>().clone();
            let times = times(rows);
            let known = times.iter().zip(values.iter());
            let mut known: Vec<_> = known.filter_map(|(t, v)| Some((t?, v?))).collect();
            known.sort_unstable();
            (table.id.table.clone(), known)
        });
        rows.collect()
    }

    /// Plays the script; returns how many rows may be answered before an error or a silence, where one is due.
    async fn question(&self, question: Question) -> Result<Option<(usize, Option<Error>)>> {
        self.asked.lock().unwrap().push(question.to_string());
        let play = (self.script.lock().unwrap())(&question);
        match play {
            None => Ok(None),
            Some(Play::Fail(error)) => Err(error),
            Some(Play::FailAfter(rows, error)) => match question {
                Question::Read(_) => Ok(Some((rows, Some(error)))),
                _ => Err(error),
            },
            Some(Play::Hang) => std::future::pending().await,
            Some(Play::HangAfter(rows)) => Ok(Some((rows, None))),
            Some(Play::Wait(pause)) => {
                tokio::time::sleep(pause).await;
                Ok(None)
            }
        }
    }

    fn rows(&self, id: &TableId) -> Result<RecordBatch> {
        let tables = self.tables.lock().unwrap();
        let found = tables.iter().find(|(table, _)| table.id == *id);
        found.map(|(_, rows)| rows.clone()).ok_or_else(|| Error::fail(format!("{id} is gone")))
    }
}

/// The rows of a slice.
fn of_slice(rows: &RecordBatch, slice: Slice) -> RecordBatch {
    let times = times(rows);
    let chosen: BooleanArray = (times.iter())
        .map(|time| match (slice, time) {
            (Slice::All, _) => Some(true),
            (Slice::NullTime, time) => Some(time.is_none()),
            (Slice::Window(window), Some(time)) => Some(window.from <= time && time < window.to),
            (Slice::Window(_), None) => Some(false),
        })
        .collect();
    filter_record_batch(rows, &chosen).unwrap()
}

fn times(rows: &RecordBatch) -> TimestampNanosecondArray {
    rows.column(0).as_any().downcast_ref::<TimestampNanosecondArray>().unwrap().clone()
}

fn bounds_of(rows: &RecordBatch) -> Option<Window> {
    let times = times(rows);
    let known = || times.iter().flatten();
    Some(Window { from: known().min()?, to: known().max()?.saturating_add(1) })
}

#[async_trait]
impl Source for Scripted {
    fn name(&self) -> &str {
        &self.name
    }

    async fn describe(&self) -> Result<SourceInfo> {
        self.question(Question::Describe).await?;
        Ok(SourceInfo {
            name: self.name.clone(),
            address: "nowhere".to_owned(),
            version: "a script".to_owned(),
            identity: None,
        })
    }

    async fn list(&self) -> Result<Listing> {
        self.question(Question::List).await?;
        let also = self.listing.lock().unwrap();
        Ok(Listing {
            tables: self.tables.lock().unwrap().iter().map(|(table, _)| table.clone()).collect(),
            excluded: also.excluded.clone(),
            unreadable: also.unreadable.clone(),
            warnings: also.warnings.clone(),
        })
    }

    async fn bounds(&self, tables: &[Table]) -> Result<Vec<Option<Window>>> {
        let names = tables.iter().map(|table| table.id.table.clone()).collect();
        self.question(Question::Bounds(names)).await?;
        tables.iter().map(|table| Ok(bounds_of(&self.rows(&table.id)?))).collect()
    }

    async fn count(&self, table: &Table, window: Window) -> Result<RowCount> {
        self.question(Question::Count(table.id.table.clone(), window)).await?;
        let rows = of_slice(&self.rows(&table.id)?, Slice::from(window)).num_rows() as u64;
        Ok(RowCount { rows, exact: true })
    }

    async fn read(&self, chunk: &Chunk, batches: BatchSender) -> Result<ReadSummary> {
        let end = self.question(Question::Read(chunk.clone())).await?;
        let rows = of_slice(&self.rows(&chunk.table.id)?, chunk.slice);
        let most = end.as_ref().map_or(usize::MAX, |(rows, _)| *rows);
        for from in (0..rows.num_rows().min(most)).step_by(100) {
            batches.send(rows.slice(from, 100.min(rows.num_rows().min(most) - from))).await?;
        }
        match end {
            None => Ok(ReadSummary::default()),
            Some((_, Some(error))) => Err(error),
            Some((_, None)) => std::future::pending().await,
        }
    }

    fn can_abandon(&self) -> bool {
        self.can_abandon.load(Ordering::Relaxed)
    }

    fn metering(&self) -> Option<Metering> {
        let is_billed = self.is_billed.load(Ordering::Relaxed);
        is_billed.then(|| Metering { quota: None, prices: Prices::default() })
    }

    async fn artifacts(&self) -> Result<Artifacts> {
        self.question(Question::Artifacts).await?;
        Ok(self.artifacts.lock().unwrap().clone())
    }
}

/// A table of a time and a number, with its rows; a row without a time makes it one with `null-time`.
pub(crate) fn numbers(name: &str, rows: &[(Option<i64>, i64)]) -> (Table, RecordBatch) {
    let time = DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()));
    let column = |name: &str, source_type: &str, data_type: &DataType| {
        Column::new(name, name, Role::Column, source_type, data_type.clone())
    };
    let null_times = rows.iter().any(|(time, _)| time.is_none());
    let mut table = Table {
        id: TableId {
            source: "scripted".to_owned(),
            database: "d".to_owned(),
            schema: "s".to_owned(),
            table: name.to_owned(),
        },
        columns: vec![column("at", "timestamp", &time), column("v", "bigint", &DataType::Int64)],
        data_ranges: Vec::new(),
        time_column: Some("at".to_owned()),
        resolution_nanos: 1,
        split_points: SplitPoints::None,
        read_mode: if null_times { ReadMode::WindowsAndNullTime } else { ReadMode::Windows },
        identity: Identity::default(),
    };
    let times: TimestampNanosecondArray = rows.iter().map(|(time, _)| *time).collect();
    let values: Int64Array = rows.iter().map(|(_, value)| Some(*value)).collect();
    let columns: Vec<ArrayRef> = vec![Arc::new(times.with_timezone("UTC")), Arc::new(values)];
    let batch = RecordBatch::try_new(table.arrow_schema(), columns).unwrap();
    table.data_ranges.extend(bounds_of(&batch));
    (table, batch)
}

/// A job that exports this source, all of it, to that archive.
pub(crate) fn job(source: &Arc<Scripted>, archive: impl Into<Location>) -> Job {
    job_of(std::slice::from_ref(source), archive)
}

/// A job that exports these sources, all of them, to that archive.
pub(crate) fn job_of(sources: &[Arc<Scripted>], archive: impl Into<Location>) -> Job {
    let spec = |source: &Arc<Scripted>| SourceSpec {
        name: source.name.clone(),
        named: true,
        kind: SourceKind::Given(Arc::clone(source) as Arc<dyn Source>),
        select: Select::default(),
    };
    Job {
        sources: sources.iter().map(spec).collect(),
        archive: Some(archive.into()),
        from: Bound::Min,
        to: Bound::Max,
        range: ("min".to_owned(), "max".to_owned()),
        shard: None,
        keep: false,
        limits: Limits { first_pause: Duration::from_millis(1), ..Limits::default() },
        excluded: Vec::new(),
        warnings: Vec::new(),
    }
}
