//! Turns the batches of a chunk into requests, on a thread that may block, so that each request touches few shards of the
//! server. A server writes to its log, and waits for its disk, once for each shard of a request: lines of 730 shards in one
//! request were measured to take 15 times as long as the same lines shard by shard.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use tokio::sync::mpsc;

use super::lines::{Body, Layout, Rows, Unsayable, shown};
use crate::error::Result;
use crate::model::Column;
use crate::target::Reject;
use crate::window::Slice;

/// From the zero time of Go, which is where a server begins to count shards, to 1970, in nanoseconds.
const GO_ZERO: i128 = 719_162 * 86_400 * 1_000_000_000;

/// How large requests become.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    /// The most lines of a request.
    pub(super) lines: usize,
    /// How many bytes make a request full.
    pub(super) bytes: usize,
    /// The bytes of lines that may wait for others of the same shard.
    pub(super) waiting: usize,
}

/// The shard that has an instant, as the number of the shards before it.
fn shard_of(time: i64, width: i64) -> i128 {
    (i128::from(time) + GO_ZERO).div_euclid(i128::from(width.max(1)))
}

/// The width of a shard if a slice may lie in several of them.
pub(super) fn width_to_cut(slice: Slice, shard: Option<i64>) -> Option<i64> {
    let width = shard?;
    let lies_in_one = slice
        .window()
        .is_some_and(|window| shard_of(window.from, width) == shard_of(window.to - 1, width));
    (!lies_in_one).then_some(width)
}

/// The lines that wait for others, by the number of their shard.
struct Gathered<'a> {
    size: Size,
    waiting: BTreeMap<i128, Body>,
    bytes: usize,
    bodies: &'a mpsc::Sender<Body>,
}

/// Whoever sends the bodies has failed, and says why.
struct Gone;

impl Gathered<'_> {
    fn is_full(&self, body: &Body) -> bool {
        body.ends.len() >= self.size.lines || body.bytes.len() >= self.size.bytes
    }

    fn send(&self, body: Body) -> std::result::Result<(), Gone> {
        self.bodies.blocking_send(body).map_err(|_| Gone)
    }

    /// Adds rows that lie in one shard. Returns the row to go on with.
    fn add(
        &mut self,
        shard: i128,
        rows: (&Layout, &Rows, std::ops::Range<usize>),
        unsayable: &mut Vec<Unsayable>,
    ) -> std::result::Result<usize, Gone> {
        let (layout, values, range) = rows;
        let body = self.waiting.entry(shard).or_default();
        let before = body.bytes.len();
        let next = layout.write(values, range, (self.size.lines, self.size.bytes), body, unsayable);
        self.bytes += body.bytes.len() - before;
        if body.ends.len() >= self.size.lines || body.bytes.len() >= self.size.bytes {
            let full = std::mem::take(body);
            self.waiting.remove(&shard);
            self.bytes -= full.bytes.len();
            self.send(full)?;
        } else if self.bytes > self.size.waiting {
            self.send_all()?;
        }
        Ok(next)
    }

    /// Sends everything that waits, the oldest shard first. A request may have the lines of neighbouring shards.
    fn send_all(&mut self) -> std::result::Result<(), Gone> {
        self.bytes = 0;
        let mut together = Body::default();
        for body in std::mem::take(&mut self.waiting).into_values() {
            for line in 0..body.ends.len() {
                together.push(body.lines(line..line + 1));
                if self.is_full(&together) {
                    self.send(std::mem::take(&mut together))?;
                }
            }
        }
        if together.ends.is_empty() { Ok(()) } else { self.send(together) }
    }
}

/// Turns batches into bodies. `cut` is the width of a shard if the batches may have rows of several. Returns the number of
/// rows that no line can say.
pub(super) fn encode(
    layout: &Layout,
    columns: &[Column],
    mut rows: mpsc::Receiver<RecordBatch>,
    (size, cut): (Size, Option<i64>),
    bodies: &mpsc::Sender<Body>,
    rejects: &mpsc::UnboundedSender<Reject>,
) -> Result<u64> {
    let mut gathered = Gathered { size, waiting: BTreeMap::new(), bytes: 0, bodies };
    let mut rejected = 0;
    while let Some(batch) = rows.blocking_recv() {
        let values = Rows::new(columns, &batch)?;
        let (mut from, mut unsayable) = (0, Vec::<Unsayable>::new());
        while from < batch.num_rows() {
            let (shard, end) = match cut {
                None => (0, batch.num_rows()),
                Some(width) => run(layout, &values, from..batch.num_rows(), width),
            };
            match gathered.add(shard, (layout, &values, from..end), &mut unsayable) {
                Ok(next) => from = next,
                Err(Gone) => return Ok(rejected),
            }
        }
        rejected += unsayable.len() as u64;
        for Unsayable { row, why } in unsayable {
            let row = shown(columns, &batch, row);
            let _ = rejects.send(Reject { row, why });
        }
    }
    let _ = gathered.send_all();
    Ok(rejected)
}

/// The shard of the first of some rows, and the first row after it that lies in another.
fn run(layout: &Layout, rows: &Rows, range: std::ops::Range<usize>, width: i64) -> (i128, usize) {
    let shard = shard_of(layout.time(rows, range.start), width);
    let begin = shard * i128::from(width) - GO_ZERO;
    let is_inside = |row: &usize| {
        let time = i128::from(layout.time(rows, *row));
        (begin..begin + i128::from(width)).contains(&time)
    };
    let others = range.clone().skip(1).take_while(is_inside).count();
    (shard, (range.start + 1 + others).min(range.end))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use arrow::array::{Float64Array, StringArray, TimestampNanosecondArray};
    use arrow::datatypes::{DataType, Field, Schema, TimeUnit};

    use super::super::lines::Dialect;
    use super::*;
    use crate::model::Role;
    use crate::window::{DAY, Window};

    /// Rows of each series after the other, as a file of an archive has them.
    fn by_series(series: usize, points: usize, step: i64) -> (Vec<Column>, RecordBatch) {
        let time = DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()));
        let columns = vec![
            Column::new("time", "time", Role::Time, "", time.clone()),
            Column::new("host", "host", Role::Tag, "", DataType::Utf8),
            Column::new("v", "v", Role::Field, "float", DataType::Float64),
        ];
        let pairs = (0..series).flat_map(|s| (0..points).map(move |p| (s, p as i64)));
        let times: Vec<i64> = pairs.clone().map(|(s, p)| p * step + s as i64).collect();
        let hosts: Vec<String> = pairs.clone().map(|(s, _)| format!("h{s}")).collect();
        let values: Vec<f64> = pairs.map(|(_, p)| p as f64).collect();
        let schema = Schema::new(vec![
            Field::new("time", time, false),
            Field::new("host", DataType::Utf8, true),
            Field::new("v", DataType::Float64, true),
        ]);
        let batch = RecordBatch::try_new(
            Arc::new(schema),
            vec![
                Arc::new(TimestampNanosecondArray::from(times).with_timezone("UTC")),
                Arc::new(StringArray::from(hosts)),
                Arc::new(Float64Array::from(values)),
            ],
        );
        (columns, batch.unwrap())
    }

    /// The shards of each request, and all lines.
    fn requests(
        input: (Vec<Column>, RecordBatch),
        size: Size,
        cut: Option<i64>,
        width: i64,
    ) -> (Vec<BTreeSet<i128>>, Vec<String>) {
        let (columns, batch) = input;
        let layout = Layout::new(Dialect::Go, "m", &columns).unwrap();
        let (rows, receiver) = mpsc::channel(9);
        let (sender, mut bodies) = mpsc::channel(10_000);
        let (rejects, _refused) = mpsc::unbounded_channel();
        for at in (0..batch.num_rows()).step_by(1000) {
            let part = batch.slice(at, 1000.min(batch.num_rows() - at));
            rows.try_send(part).unwrap();
        }
        drop(rows);
        assert_eq!(encode(&layout, &columns, receiver, (size, cut), &sender, &rejects).unwrap(), 0);
        drop(sender);
        let (mut shards, mut lines) = (Vec::new(), Vec::new());
        while let Ok(body) = bodies.try_recv() {
            assert!(body.ends.len() <= size.lines && !body.ends.is_empty());
            let text = String::from_utf8(body.bytes).unwrap();
            let time = |line: &str| line.rsplit(' ').next().unwrap().parse::<i64>().unwrap();
            shards.push(text.lines().map(|line| shard_of(time(line), width)).collect());
            lines.extend(text.lines().map(str::to_owned));
        }
        lines.sort_unstable();
        (shards, lines)
    }

    #[test]
    fn a_request_touches_few_shards_whatever_the_order_of_the_rows() {
        // 40 series over 50 days, hour by hour a point.
        let input = || by_series(6, 1200, DAY / 24);
        let plenty = Size { lines: 500, bytes: 1 << 20, waiting: 1 << 20 };
        let touched = |shards: &[BTreeSet<i128>]| shards.iter().map(BTreeSet::len).sum::<usize>();
        let (before, lines) = requests(input(), plenty, None, DAY);
        let (after, same) = requests(input(), plenty, Some(DAY), DAY);
        assert_eq!(lines, same, "each line once");
        assert!(touched(&before) > 300, "{}", touched(&before));
        // Each shard once, and once more where a request ends within it.
        assert!(touched(&after) <= 50 + after.len(), "{} in {}", touched(&after), after.len());
        assert!(after.len() <= before.len() + 1);

        // Little memory costs more requests, and no line.
        let little = Size { waiting: 20_000, ..plenty };
        let (shards, same) = requests(input(), little, Some(DAY), DAY);
        assert_eq!(lines, same);
        assert!(touched(&shards) > touched(&after));

        // A shard that fills requests is sent in full ones.
        let (shards, same) = requests(input(), plenty, Some(25 * DAY), 25 * DAY);
        assert_eq!(lines, same);
        assert!(touched(&shards) <= 3 + shards.len(), "{shards:?}");
    }

    #[test]
    fn only_a_slice_of_several_shards_is_cut() {
        let monday = 4 * DAY; // 1970-01-05
        let week = Slice::from(Window { from: monday, to: monday + 7 * DAY });
        assert_eq!(width_to_cut(week, Some(7 * DAY)), None);
        assert_eq!(width_to_cut(week, Some(DAY)), Some(DAY));
        assert_eq!(width_to_cut(week, None), None);
        let other = Slice::from(Window { from: monday + DAY, to: monday + 8 * DAY });
        assert_eq!(width_to_cut(other, Some(7 * DAY)), Some(7 * DAY));
        assert_eq!(width_to_cut(Slice::All, Some(7 * DAY)), Some(7 * DAY));
    }
}
