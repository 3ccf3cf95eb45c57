//! The write half of the streaming path on rows that are made in memory: what `compare_encode.py` runs
//! beside other Parquet writers, and by hand:
//!
//!   cargo bench --bench pipeline -- encode gauges 2000000 5 [FILE]     batches in memory to Parquet in memory
//!
//! A row is a time, 3 tags and 8 floats. `gauges` are rounded to two decimals and walk; `entropy` uses
//! all digits; `mixed` has four of each. Rows come series by series, as `GROUP BY *` and line protocol
//! bring them; `-by-time` turns that into one row of each series after the other, as InfluxDB 3 does.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, reason = "a bench shall panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::RecordBatch;
use moveout::encode::{Cores, EncodeOptions, Encoder, Output};
use moveout::source::points::{FieldType, FieldValue, PointBuilder, columns};
use moveout::source::{Cuts, Table, TableId};
use tokio::sync::mpsc;

const SERIES: usize = 100;
const BATCH: usize = 16 * 1024;
const FIELDS: [&str; 8] = ["guest", "idle", "iowait", "irq", "nice", "softirq", "system", "user"];

fn table() -> Arc<Table> {
    let tags: BTreeSet<String> = ["host", "region", "rack"].map(str::to_owned).into();
    let fields: BTreeMap<_, _> =
        FIELDS.iter().map(|f| ((*f).to_owned(), BTreeSet::from([FieldType::Float]))).collect();
    let [source, database, schema, table] = ["s", "db", "autogen", "cpu"].map(str::to_owned);
    Arc::new(Table {
        id: TableId { source, database, schema, table },
        columns: columns(&tags, &fields),
        occupied: vec![],
        cuts: Cuts::None,
        single_pass: false,
        state: None,
    })
}

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

fn encode(kind: &str, rows: usize, runs: usize, file: Option<&str>) {
    let table = table();
    let batches: Vec<RecordBatch> = Rows::new(kind, rows).collect();
    for run in 0..runs {
        let (output, mut parts) = mpsc::channel(1);
        let mut file = file.filter(|_| run == 0).map(|path| std::fs::File::create(path).unwrap());
        let (began, cpu) = (Instant::now(), cpu_seconds());
        let drain = std::thread::spawn(move || {
            let mut bytes = 0;
            while let Some(output) = parts.blocking_recv() {
                if let Output::Part(part) = output {
                    bytes += part.len();
                    if let Some(file) = &mut file {
                        file.write_all(&part).unwrap();
                    }
                }
            }
            bytes
        });
        let cores = match std::env::var("CORES") {
            Ok(count) => Cores::new(count.parse().unwrap()),
            Err(_) => Cores::default(),
        };
        let (row_group_bytes, part_bytes, file_bytes) = (32 << 20, 5 << 20, 1 << 40);
        let options = EncodeOptions { row_group_bytes, part_bytes, file_bytes, cores };
        let mut encoder = Encoder::new(&table, vec![], options, output);
        batches.iter().for_each(|batch| encoder.write(batch.clone()).unwrap());
        let encoded = encoder.finish().unwrap();
        assert_eq!(encoded.rows as usize, rows);
        let bytes = drain.join().unwrap();
        let wall = began.elapsed().as_secs_f64();
        let cpu = cpu_seconds() - cpu;
        println!(
            "{{\"kind\":\"{kind}\",\"rows\":{rows},\"wall\":{wall:.3},\"cpu\":{cpu:.2},\"bytes\":{bytes}}}"
        );
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["encode", kind, rows, runs, rest @ ..] => {
            encode(kind, rows.parse().unwrap(), runs.parse().unwrap(), rest.first().copied());
        }
        _ => {} // `cargo test` and `cargo bench` without a choice: nothing to do
    }
}
