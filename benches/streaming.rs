//! The streaming path piece by piece, from memory: an InfluxDB's MessagePack answer into batches, and
//! batches into Parquet. A row is a time, 3 tags and 8 floats.

#![allow(clippy::unwrap_used, missing_docs, reason = "a bench that cannot go on shall panic")]

mod cpu;

use std::hint::black_box;
use std::io::Write;
use std::sync::Arc;

use arrow::array::RecordBatch;
use bytes::Bytes;
use cpu::{FIELDS, table};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use moveout::encode::{Cores, EncodeOptions, Encoder};
use moveout::error::Error;
use moveout::model::Table;
use moveout::source::Source;
use moveout::source::channel::BatchSender;
use moveout::source::influxdb::influxql::decode_msgpack;
use moveout::source::line_protocol::{LineProtocolSource, Options};
use tokio::sync::mpsc;

const SERIES: usize = 20;
const ROWS_A_SERIES: usize = 10_000;

fn text(out: &mut Vec<u8>, text: &str) {
    out.push(0xa0 | text.len() as u8);
    out.extend_from_slice(text.as_bytes());
}

/// What a 1.x server sends: one object for each series, all but the last `partial`.
fn answer() -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(1);
    let mut out = Vec::new();
    for series in 0..SERIES {
        let partial = series + 1 < SERIES;
        out.push(0x81);
        text(&mut out, "results");
        out.extend([0x91, if partial { 0x83 } else { 0x82 }]);
        text(&mut out, "statement_id");
        out.push(0);
        text(&mut out, "series");
        out.extend([0x91, 0x84]);
        text(&mut out, "name");
        text(&mut out, "cpu");
        text(&mut out, "tags");
        out.push(0x83);
        for (key, value) in [
            ("host", format!("h{series}")),
            ("region", "eu".into()),
            ("rack", format!("r{}", series % 4)),
        ] {
            text(&mut out, key);
            text(&mut out, &value);
        }
        text(&mut out, "columns");
        out.push(0x99);
        text(&mut out, "time");
        FIELDS.iter().for_each(|field| text(&mut out, field));
        text(&mut out, "values");
        out.push(0xdc);
        out.extend((ROWS_A_SERIES as u16).to_be_bytes());
        for row in 0..ROWS_A_SERIES {
            out.extend([0x99, 0xd3]);
            out.extend((1_700_000_000_000_000_000 + row as i64 * 10_000_000_000).to_be_bytes());
            for field in 0..FIELDS.len() {
                let value = random.f64() * 100.0;
                let value = if field < 4 { (value * 100.0).round() / 100.0 } else { value };
                out.push(0xcb);
                out.extend(value.to_be_bytes());
            }
        }
        if partial {
            text(&mut out, "partial");
            out.push(0xc3);
        }
    }
    out
}

fn decode(table: &Arc<Table>, parts: &[Bytes]) -> Vec<RecordBatch> {
    let (sender, body) = mpsc::channel(parts.len());
    parts.iter().for_each(|part| sender.try_send(Ok(part.clone())).unwrap());
    drop(sender);
    let (batches, mut received) = BatchSender::channel(8);
    std::thread::scope(|scope| {
        let taken = scope.spawn(|| std::iter::from_fn(|| received.blocking_recv()).collect());
        decode_msgpack(body, table, batches, false, |text| Error::stop(text)).unwrap();
        taken.join().unwrap()
    })
}

fn streaming(criterion: &mut Criterion) {
    let table = table();
    let body = Bytes::from(answer());
    let parts: Vec<Bytes> = (0..body.len())
        .step_by(64 * 1024)
        .map(|at| body.slice(at..body.len().min(at + 64 * 1024)))
        .collect();
    let batches = decode(&table, &parts);
    let rows = (SERIES * ROWS_A_SERIES) as u64;
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>() as u64, rows);

    let mut group = criterion.benchmark_group("streaming");
    group.sample_size(20).throughput(Throughput::Elements(rows));
    group.bench_function("decode msgpack", |bencher| {
        bencher.iter(|| black_box(decode(&table, &parts)));
    });
    group.bench_function("encode parquet", |bencher| {
        bencher.iter(|| {
            let (output, mut files) = mpsc::channel(4096);
            let options = EncodeOptions {
                row_group_bytes: 32 << 20,
                part_bytes: 1 << 20,
                file_bytes: 1 << 40,
                cores: Cores::default(),
            };
            let mut encoder = Encoder::new(&table, vec![], options, output).unwrap();
            batches.iter().for_each(|batch| encoder.write(batch.clone()).unwrap());
            black_box(encoder.finish().unwrap());
            std::iter::from_fn(|| files.try_recv().ok()).count()
        });
    });
    group.finish();
}

/// A file of 8 fields a line, read, sorted and merged; as much as fits waits in 64 MiB of memory.
fn line_protocol(criterion: &mut Criterion) {
    const LINES: u64 = 200_000;
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let mut random = fastrand::Rng::with_seed(1);
    let mut text = String::new();
    for line in 0..LINES {
        text.push_str(&format!("cpu,host=h{},region=eu,rack=r{} ", line % 100, line % 7));
        for (at, field) in FIELDS.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            text.push_str(&format!("{comma}{field}={}", random.f64() * 100.0));
        }
        text.push_str(&format!(" {}\n", 1_700_000_000_000_000_000 + line / 100 * 10_000_000_000));
    }
    file.write_all(text.as_bytes()).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut group = criterion.benchmark_group("line protocol");
    group.sample_size(10).throughput(Throughput::Elements(LINES));
    group.bench_function("read a file", |bencher| {
        bencher.iter(|| {
            let options = Options { memory_bytes: 64 << 20, ..Options::default() };
            let source = LineProtocolSource::new("s".into(), file.path().to_owned(), options);
            black_box(runtime.block_on(source.list()).unwrap())
        });
    });
    group.finish();
}

criterion_group!(benches, streaming, line_protocol);
criterion_main!(benches);
