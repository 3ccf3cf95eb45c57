//! The write half of the streaming path on rows that are made in memory: what `compare_encode.py` runs
//! beside other Parquet writers, and by hand:
//!
//!   cargo bench --bench pipeline -- encode ROWS.parquet|KIND N RUNS [OUT]   from memory to nowhere, or OUT
//!   cargo bench --bench pipeline -- chunk KIND N FOLDER|s3://BUCKET/PREFIX  one chunk from a source that
//!                                                                           makes rows, written and read back
//!   cargo bench --bench pipeline -- serve-s3                                an S3 server, until stdin ends
//!   cargo bench --bench pipeline -- serve-influxdb3 N DAYS                  a stand-in with N rows over so
//!                                                                           many days, until stdin ends
//!   cargo bench --bench pipeline -- drain URL DAYS WIDTH                    its rows to nowhere, so many days
//!                                                                           a query: the floor of Flight
//!
//! Each prints a line of JSON a run. A row is a time, 3 tags and 8 floats. `gauges` are rounded to two decimals and walk; `entropy` uses
//! all digits; `mixed` has four of each. Rows come series by series, as `GROUP BY *` and line protocol
//! bring them; `-by-time` turns that into one row of each series after the other, as InfluxDB 3 does.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, reason = "a bench shall panic")]

mod cpu;
#[path = "../tests/support/influxdb3.rs"]
mod influxdb3;
#[path = "../tests/support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use cpu::table;
use moveout::config::Location;
use moveout::encode::{Cores, EncodeOptions, Encoder, Output};
use moveout::error::Result;
use moveout::export::chunk_writer::{ChunkWriter, Stream};
use moveout::model::{
    Artifacts, Chunk, Column, Listing, ReadSummary, Role, RowCount, SourceInfo, Table,
};
use moveout::progress::Progress;
use moveout::retry::Interrupt;
use moveout::source::Source;
use moveout::source::channel::BatchSender;
use moveout::source::influxdb::points::{FieldValue, PointBuilder};
use moveout::store::Store;
use moveout::window::{Slice, Window};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tokio::sync::{Semaphore, mpsc, watch};

const SERIES: usize = 100;
const BATCH: usize = 16 * 1024;

/// Makes the rows of a kind, batch by batch.
struct Rows {
    random: fastrand::Rng,
    builder: PointBuilder,
    rounded: [bool; 8],
    by_time: bool,
    walks: Vec<[f64; 8]>,
    names: Vec<[String; 3]>,
    next: usize,
    rows: usize,
}

impl Rows {
    fn new(kind: &str, rows: usize) -> Self {
        let (kind, by_time) = match kind.strip_suffix("-by-time") {
            Some(kind) => (kind, true),
            None => (kind, false),
        };
        let rounded = match kind {
            "gauges" => [true; 8],
            "entropy" => [false; 8],
            "mixed" => [true, true, true, true, false, false, false, false],
            _ => panic!("{kind}: not gauges, entropy or mixed"),
        };
        let names = (0..SERIES).map(|n| {
            [format!("host-{n:03}.example.com"), format!("r{:02}", n % 20), format!("eu-{}", n % 4)]
        });
        Self {
            random: fastrand::Rng::with_seed(1),
            builder: PointBuilder::new(table().arrow_schema()),
            rounded,
            by_time,
            walks: vec![[50.0; 8]; SERIES],
            names: names.collect(),
            next: 0,
            rows,
        }
    }
}

impl Iterator for Rows {
    type Item = RecordBatch;

    fn next(&mut self) -> Option<RecordBatch> {
        let end = self.rows.min(self.next + BATCH);
        if self.next == end {
            return None;
        }
        let points = self.rows.div_ceil(SERIES);
        for row in self.next..end {
            let (series, point) = match self.by_time {
                true => (row % SERIES, row / SERIES),
                false => (row / points, row % points),
            };
            self.builder.row(1_700_000_000_000_000_000 + point as i64 * 10_000_000_000);
            for (tag, name) in self.names[series].iter().enumerate() {
                self.builder.tag(tag + 1, name, 1).unwrap();
            }
            for field in 0..8 {
                let value = &mut self.walks[series][field];
                *value = (*value + self.random.f64() * 2.0 - 1.0).clamp(0.0, 100.0);
                let value =
                    if self.rounded[field] { (*value * 100.0).round() / 100.0 } else { *value };
                self.builder.field(field + 4, FieldValue::Float(value)).unwrap();
            }
        }
        self.next = end;
        Some(self.builder.finish().unwrap())
    }
}

/// User and system seconds of this process so far.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    fields[11..13].iter().map(|ticks| ticks.parse::<f64>().unwrap() / 100.0).sum()
}

/// Peak of this process's memory in MiB.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

fn options(part_bytes: usize) -> EncodeOptions {
    let cores = match std::env::var("CORES") {
        Ok(count) => Cores::new(count.parse().unwrap()),
        Err(_) => Cores::default(),
    };
    EncodeOptions { row_group_bytes: 32 << 20, part_bytes, file_bytes: 1 << 30, cores }
}

/// The rows of a Parquet file, in memory, as a source would hand them over.
fn load(path: &Path) -> (Arc<Table>, Vec<RecordBatch>) {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap();
    let columns = reader.schema().fields().iter().map(|field| {
        let role = if field.is_nullable() { Role::Column } else { Role::Time };
        Column::new(field.name(), field.name(), role, "", field.data_type().clone())
    });
    let table = Table { columns: columns.collect(), ..Table::clone(&table()) };
    let batches = reader.with_batch_size(BATCH).build().unwrap();
    (Arc::new(table), batches.map(std::result::Result::unwrap).collect())
}

fn encode(kind: &str, rows: usize, runs: usize, out: Option<&str>) {
    let (table, batches) = match Path::new(kind) {
        path if path.exists() => load(path),
        _ => (table(), Rows::new(kind, rows).collect()),
    };
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    for run in 0..runs {
        let (output, mut parts) = mpsc::channel(1);
        let mut out = out.filter(|_| run == 0).map(|path| File::create(path).unwrap());
        let (began, cpu) = (Instant::now(), cpu_seconds());
        let drain = std::thread::spawn(move || {
            let mut bytes = 0;
            while let Some(output) = parts.blocking_recv() {
                if let Output::Part(part) = output {
                    bytes += part.len();
                    if let Some(out) = &mut out {
                        out.write_all(&part).unwrap();
                    }
                }
            }
            bytes
        });
        let options = EncodeOptions { file_bytes: 1 << 40, ..options(5 << 20) };
        let mut encoder = Encoder::new(&table, vec![], options, output).unwrap();
        batches.iter().for_each(|batch| encoder.write(batch.clone()).unwrap());
        let encoded = encoder.finish().unwrap();
        assert_eq!(encoded.rows as usize, rows);
        let bytes = drain.join().unwrap();
        let (wall, cpu) = (began.elapsed().as_secs_f64(), cpu_seconds() - cpu);
        println!("{{\"rows\":{rows},\"wall\":{wall:.3},\"cpu\":{cpu:.2},\"bytes\":{bytes}}}");
    }
}

/// A source of as many rows as wanted: a few batches, again and again.
struct Endless {
    batches: Vec<RecordBatch>,
    rows: usize,
}

#[async_trait]
impl Source for Endless {
    fn name(&self) -> &str {
        "endless"
    }

    async fn read(&self, _: &Chunk, batches: BatchSender) -> Result<ReadSummary> {
        let (all, mut left) = (self.batches.clone(), self.rows);
        let send = move || {
            for batch in all.iter().cycle() {
                if left == 0 {
                    break;
                }
                let batch = batch.slice(0, left.min(batch.num_rows()));
                left -= batch.num_rows();
                batches.blocking_send(batch)?;
            }
            Ok(ReadSummary::default())
        };
        tokio::task::spawn_blocking(send).await.unwrap()
    }

    async fn describe(&self) -> Result<SourceInfo> {
        let [name, address, version] = ["endless", "memory", ""].map(str::to_owned);
        Ok(SourceInfo { name, address, version, identity: None })
    }

    async fn list(&self) -> Result<Listing> {
        Ok(Listing { tables: vec![Table::clone(&table())], ..Listing::default() })
    }

    async fn bounds(&self, tables: &[Table]) -> Result<Vec<Option<Window>>> {
        Ok(vec![Window::new(0, i64::MAX); tables.len()])
    }

    async fn count(&self, _: &Table, _: Window) -> Result<RowCount> {
        Ok(RowCount { rows: self.rows as u64, exact: true })
    }

    async fn artifacts(&self) -> Result<Artifacts> {
        Ok(Artifacts::of("bench"))
    }
}

fn chunk(kind: &str, rows: usize, place: &str) {
    let source = Endless { batches: Rows::new(kind, 8 * BATCH).collect(), rows };
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(1).enable_all().build().unwrap();
    let (_keep, interrupted) = watch::channel(false);
    let (began, cpu) = (Instant::now(), cpu_seconds());
    let commit = runtime.block_on(async {
        let store = Store::create(&Location::from(place)).unwrap();
        let writer = ChunkWriter {
            pace: None,
            options: options(store.part_bytes()),
            store,
            run: "bench".to_owned(),
            progress: Progress::silent(),
            interrupt: Interrupt::new(interrupted),
        };
        let permit = Arc::new(Semaphore::new(1)).acquire_owned().await.unwrap();
        let window = Window::new(0, i64::MAX).unwrap();
        let chunk = Chunk { table: table(), slice: Slice::Window(window) };
        writer
            .write(&source, &chunk, "data/s/db/cpu", permit, Stream::default())
            .await
            .unwrap()
            .commit
    });
    assert_eq!(commit.rows as usize, rows);
    let bytes: u64 = commit.files.iter().map(|file| file.bytes).sum();
    let (wall, cpu) = (began.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    let peak = peak_mib();
    println!(
        "{{\"rows\":{rows},\"wall\":{wall:.3},\"cpu\":{cpu:.2},\"bytes\":{bytes},\"peak_mib\":{peak}}}"
    );
}

/// Prints the environment of an S3 server, and serves until stdin ends.
fn serve_s3() {
    let server = support::S3::start();
    let env: BTreeMap<_, _> = server.env().into_iter().collect();
    println!(
        "{}",
        serde_json::json!({ "url": format!("s3://{}", support::s3::BUCKET), "env": env })
    );
    std::io::stdout().flush().unwrap();
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

/// 2026-01-01.
const FIRST: i64 = 1_767_225_600_000_000_000;
const DAY: i64 = 86_400_000_000_000;

fn serve_influxdb3(rows: usize, days: i64) {
    let mut options = influxdb3::Options::of(influxdb3::Product::Core);
    options.parquet_files = None;
    let server = influxdb3::InfluxDb3::start_with(influxdb3::Product::Core, options);
    let tags = vec![("host", 100), ("rack", 20), ("region", 4)];
    let step = days * DAY / rows as i64;
    let (from, floats, seed) = (FIRST, 8, 1);
    server.generate("d", "cpu", &influxdb3::Generate { rows, from, step, tags, floats, seed });
    println!("{}", server.url());
    std::io::stdout().flush().unwrap();
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

/// Messages as they come, not even decoded.
fn drain(url: &str, days: i64, width: i64) {
    let (began, cpu) = (Instant::now(), cpu_seconds());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (messages, bytes) = runtime.block_on(async {
        let endpoint = tonic::transport::Endpoint::from_shared(url.to_owned()).unwrap();
        let channel = endpoint.initial_stream_window_size(4 << 20).connect().await.unwrap();
        let mut client = arrow_flight::flight_service_client::FlightServiceClient::new(channel)
            .max_decoding_message_size(64 << 20);
        let (mut messages, mut bytes) = (0, 0);
        for day in (0..days).step_by(width as usize) {
            let time = |day: i64| {
                let time = chrono::DateTime::from_timestamp_nanos(FIRST + day.min(days) * DAY);
                time.to_rfc3339_opts(chrono::SecondsFormat::Nanos, true)
            };
            let sql = format!(
                "SELECT * FROM iox.cpu WHERE time >= '{}' AND time < '{}'",
                time(day),
                time(day + width)
            );
            let ticket = serde_json::json!({ "database": "d", "sql_query": sql }).to_string();
            let ticket = arrow_flight::Ticket { ticket: ticket.into() };
            let mut stream = client.do_get(ticket).await.unwrap().into_inner();
            while let Some(message) = stream.message().await.unwrap() {
                messages += 1;
                bytes += message.data_body.len();
            }
        }
        (messages, bytes)
    });
    let (wall, cpu) = (began.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    println!("{{\"messages\":{messages},\"wall\":{wall:.3},\"cpu\":{cpu:.2},\"bytes\":{bytes}}}");
}

fn main() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["encode", kind, rows, runs, rest @ ..] => {
            encode(kind, rows.parse().unwrap(), runs.parse().unwrap(), rest.first().copied());
        }
        ["chunk", kind, rows, place] => chunk(kind, rows.parse().unwrap(), place),
        ["serve-s3"] => serve_s3(),
        ["serve-influxdb3", rows, days] => {
            serve_influxdb3(rows.parse().unwrap(), days.parse().unwrap());
        }
        ["drain", url, days, width] => drain(url, days.parse().unwrap(), width.parse().unwrap()),
        _ => {} // `cargo test` and `cargo bench` without a choice: nothing to do
    }
}
