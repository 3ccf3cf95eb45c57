//! PURE: divides what remains of the tables into chunks, oldest first, in windows whose width is learned.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::coverage::Coverage;
use crate::export::controller::widths::{Learned, Passed, TARGET_ROWS, Widths};
use crate::export::controller::{Abandoned, Patience};
use crate::model::{Chunk, Table};
use crate::window::{DAY, MIN_WIDTH, Slice, Window};

/// How a chunk was read.
#[derive(Debug, Clone, Copy)]
pub struct Read {
    /// Its rows.
    pub rows: u64,
    /// How long its stream took.
    pub elapsed: Duration,
    /// The most rows that a chunk should have under a quota.
    pub most_rows: Option<u64>,
    /// How many streams the server had.
    pub streams: usize,
    /// Whether it was tried whether this number of streams is better than another.
    pub is_trial: bool,
    /// When it ended, since the run began.
    pub now: Duration,
}

/// The remaining work, for all tables.
#[derive(Debug, Default)]
pub struct Queue {
    tables: Vec<TableQueue>,
    /// For each source, its tables with remaining work, the oldest first.
    oldest: BTreeMap<String, BinaryHeap<Reverse<(i64, usize)>>>,
    /// For each source, what its last windows led to.
    learned: BTreeMap<String, VecDeque<Learned>>,
}

/// Of how many windows of a source this is kept.
const LAST_WIDTHS: usize = 8;

#[derive(Debug)]
struct TableQueue {
    table: Arc<Table>,
    null_time: bool,
    todo: VecDeque<Window>,
    data_ranges: Vec<Window>,
    widths: Widths,
    /// Whether nothing is known about the width of its first window.
    is_guess: bool,
    /// The rows and the width of its windows that were read.
    seen: (u64, u64),
}

impl Queue {
    /// Adds a table with what remains of it: windows, and perhaps the rows without a time. Returns its number in the queue.
    /// If the width of its first window is unknown, the tables of the same server that were read before give it.
    pub fn add(
        &mut self,
        table: Arc<Table>,
        bounds: Option<Window>,
        todo: Vec<Window>,
        null_time: bool,
        width: Option<i64>,
    ) -> usize {
        let data_ranges: Coverage =
            table.data_ranges.iter().filter_map(|window| window.intersect(&bounds?)).collect();
        let at = self.tables.len();
        self.tables.push(TableQueue {
            table,
            null_time,
            todo: todo.into(),
            data_ranges: data_ranges.windows().to_vec(),
            widths: Widths::new(width.unwrap_or(DAY)),
            is_guess: width.is_none(),
            seen: (0, 0),
        });
        let of_source = &self.tables[at].table.id.source;
        let oldest = self.oldest.entry(of_source.clone()).or_default();
        oldest.extend(self.tables[at].oldest(at));
        at
    }

    /// Takes the oldest remaining chunk of all sources. Returns it with the number of its table.
    pub fn take(&mut self) -> Option<(usize, Chunk)> {
        // The greatest entry of a heap is at its front, and is the oldest.
        let fronts = self.oldest.iter().filter_map(|(source, heap)| Some((heap.peek()?, source)));
        let source = fronts.max()?.1.clone();
        self.take_of(&source)
    }

    /// Takes the oldest remaining chunk of a source. Returns it with the number of its table.
    pub fn take_of(&mut self, source: &str) -> Option<(usize, Chunk)> {
        let heap = self.oldest.get_mut(source)?;
        let Reverse((_, at)) = heap.pop()?;
        let table = self.tables.get_mut(at)?;
        if let Some(learned) = self.learned.get(source).filter(|learned| !learned.is_empty()) {
            let mut learned: Vec<Learned> = learned.iter().copied().collect();
            learned.sort_unstable();
            let learned = learned[learned.len() / 2];
            if std::mem::take(&mut table.is_guess) {
                table.widths = Widths::after(learned);
            }
            table.widths.follow(learned, table.widest());
        }
        let slice = if std::mem::take(&mut table.null_time) {
            Slice::NullTime
        } else {
            let left = table.todo.pop_front()?;
            let end = table.end(left);
            if let Some(rest) = Window::new(end, left.to) {
                table.todo.push_front(rest);
            }
            Slice::from(Window { from: left.from, to: end })
        };
        let chunk = Chunk { table: Arc::clone(&table.table), slice };
        heap.extend(table.oldest(at));
        if table.todo.is_empty() {
            table.todo.shrink_to_fit(); // there may be very many tables
        }
        Some((at, chunk))
    }

    /// The sources with remaining work.
    pub fn sources(&self) -> impl Iterator<Item = &str> {
        let left = self.oldest.iter().filter(|(_, heap)| !heap.is_empty());
        left.map(|(source, _)| source.as_str())
    }

    /// Forgets the remaining work of a source.
    pub fn drop_source(&mut self, source: &str) {
        self.oldest.remove(source);
        for table in self.tables.iter_mut().filter(|table| table.table.id.source == source) {
            table.todo.clear();
            table.null_time = false;
        }
    }

    /// Puts slices of a table back into the queue.
    pub fn requeue(&mut self, at: usize, slices: &[Slice]) {
        let table = &mut self.tables[at];
        for slice in slices {
            match slice.window() {
                None => table.null_time = true,
                Some(window) => {
                    let place = table.todo.partition_point(|left| left.from < window.from);
                    table.todo.insert(place, window);
                }
            }
        }
        // The table may have an entry with its former oldest window, which is replaced.
        let heap = self.oldest.entry(table.table.id.source.clone()).or_default();
        heap.retain(|Reverse((_, other))| *other != at);
        heap.extend(table.oldest(at));
    }

    /// Replaces the remaining work of a table.
    pub fn restart(&mut self, at: usize, todo: Vec<Window>, null_time: bool) {
        (self.tables[at].todo, self.tables[at].null_time) = (todo.into(), null_time);
        self.requeue(at, &[]);
    }

    /// Halves a chunk that was too much and learns from its width. Returns `false` if it is too narrow.
    pub fn split(&mut self, at: usize, chunk: &Chunk) -> bool {
        let Slice::Window(window) = chunk.slice else { return false };
        if chunk.table.read_mode.is_one_pass() {
            return false;
        }
        let table = &mut self.tables[at];
        let core = table.core(window).unwrap_or(window);
        let Some((left, _)) = core.halves(MIN_WIDTH) else { return false };
        table.widths.was_too_much(core.width());
        let halves =
            [Window { from: window.from, to: left.to }, Window { from: left.to, to: window.to }];
        self.requeue(at, &halves.map(Slice::from));
        true
    }

    /// Whether `split` could halve a chunk.
    pub fn can_split(&self, at: usize, chunk: &Chunk) -> bool {
        let Slice::Window(window) = chunk.slice else { return false };
        !chunk.table.read_mode.is_one_pass()
            && self.tables[at].core(window).unwrap_or(window).halves(MIN_WIDTH).is_some()
    }

    /// How long the stream of a chunk may take; `None` if it is waited for, however long it takes.
    pub fn patience(&self, at: usize, chunk: &Chunk) -> Option<Patience> {
        let window = chunk.slice.window().filter(|_| self.can_split(at, chunk))?;
        let table = &self.tables[at];
        table.widths.patience(table.core(window)?.width())
    }

    /// Puts back a chunk that was abandoned, to be read in narrower windows.
    pub fn abandoned(&mut self, at: usize, chunk: &Chunk, why: Abandoned) {
        let table = &mut self.tables[at];
        if let Some(core) = chunk.slice.window().and_then(|window| table.core(window)) {
            table.widths.was_abandoned(core.width(), why);
        }
        self.requeue(at, &[chunk.slice]);
    }

    /// Learns from a chunk that is done.
    pub fn learn(&mut self, at: usize, window: Window, read: Read) {
        let table = &mut self.tables[at];
        let core_width = table.core(window).map(|core| core.width());
        let (seen_rows, seen_width) = table.seen;
        let width = core_width.unwrap_or_default().unsigned_abs();
        table.seen = (seen_rows.saturating_add(read.rows), seen_width.saturating_add(width));
        let Read { rows, elapsed, most_rows, streams, is_trial, now } = read;
        let width = window.width();
        let passed = Passed { core_width, width, rows, elapsed, most_rows, streams, is_trial, now };
        let last = self.learned.entry(table.table.id.source.clone()).or_default();
        table.widths.learn(passed);
        if rows > 0 {
            last.push_front(table.widths.learned());
            last.truncate(LAST_WIDTHS);
        }
    }

    /// How many tables there are.
    pub fn len(&self) -> usize {
        self.tables.len()
    }

    /// A table as it is read now.
    pub fn table(&self, at: usize) -> &Arc<Table> {
        &self.tables[at].table
    }

    /// Replaces the tables by those of a new listing.
    pub fn relisted(&mut self, listed: &[Arc<Table>]) {
        let listed: HashMap<_, _> = listed.iter().map(|table| (&table.id, table)).collect();
        for queue in &mut self.tables {
            if let Some(table) = listed.get(&queue.table.id) {
                queue.table = Arc::clone(table);
                // There may be rows in ranges that had none.
                queue.data_ranges.clone_from(&table.data_ranges);
            }
        }
    }

    /// The estimated number of remaining chunks, at the widths learned so far.
    pub fn chunks_left(&self) -> u64 {
        self.tables.iter().map(TableQueue::chunks_left).sum()
    }

    /// The estimated number of remaining chunks for each source.
    pub fn chunks_left_by_source(&self) -> BTreeMap<&str, u64> {
        let mut left = BTreeMap::new();
        for table in &self.tables {
            *left.entry(table.table.id.source.as_str()).or_default() += table.chunks_left();
        }
        left
    }

    /// The estimated number of remaining rows of the tables that have been read in part, if these are evenly dense.
    pub fn rows_left(&self) -> Option<u64> {
        let of_table = |table: &TableQueue| {
            let (rows, width) = table.seen;
            let left: u64 = table.todo.iter().map(|left| table.width_of_rows(left)).sum();
            (width > 0).then(|| (rows as f64 / width as f64 * left as f64) as u64)
        };
        self.tables.iter().filter_map(of_table).reduce(u64::saturating_add)
    }

    /// Whether no work remains.
    pub fn is_empty(&self) -> bool {
        self.oldest.values().all(BinaryHeap::is_empty)
    }
}

impl TableQueue {
    /// Its entry in the heap; `None` if nothing remains of it.
    fn oldest(&self, at: usize) -> Option<Reverse<(i64, usize)>> {
        match (self.null_time, self.todo.front()) {
            (true, _) => Some(Reverse((i64::MIN, at))),
            (false, first) => first.map(|window| Reverse((window.from, at))),
        }
    }

    /// The width that would have a fourth of the rows that a chunk should have, if all of it is as dense as what was read.
    fn widest(&self) -> i64 {
        let (rows, width) = self.seen;
        let of_rows = |rows| (TARGET_ROWS / 4) as f64 / rows as f64 * width as f64;
        if rows == 0 { i64::MAX } else { of_rows(rows) as i64 }
    }

    /// The part of a window that can have rows. Only this part matters for the width.
    fn core(&self, window: Window) -> Option<Window> {
        let first = self.data_ranges.first().map_or(window.from, |w| w.from);
        let last = self.data_ranges.last().map_or(window.to, |w| w.to);
        window.intersect(&Window { from: first, to: last })
    }

    /// Where the next window should end, given the remaining time. Time without rows gets no window of its own: it is read
    /// together with the rows after it, or with the last ones.
    fn end(&self, left: Window) -> i64 {
        if self.table.read_mode.is_one_pass() {
            return left.to;
        }
        let first_from = |time: i64| {
            let next = self.data_ranges.partition_point(|window| window.to <= time);
            self.data_ranges.get(next).map(|window| window.from.max(time))
        };
        let Some(first) = first_from(left.from).filter(|first| *first < left.to) else {
            return left.to;
        };
        // Windows are aligned to midnight. If their width divides a day, they are aligned to its multiples.
        let unit = i128::from(self.widths.width().min(DAY));
        let end = i128::from(first).div_euclid(unit) * unit + i128::from(self.widths.width());
        let mut end = i64::try_from(end).map_or(left.to, |end| end.min(left.to));
        if let Some(cut) = self.table.split_points.next(first) {
            end = end.min(cut);
        }
        match first_from(end) {
            Some(next) if next < left.to => end,
            _ => left.to,
        }
    }

    /// How much of a window can have rows.
    fn width_of_rows(&self, window: &Window) -> u64 {
        let ranges = self.data_ranges.iter().filter_map(|range| range.intersect(window));
        ranges.map(|range| range.width().unsigned_abs()).fold(0, u64::saturating_add)
    }

    fn chunks_left(&self) -> u64 {
        let of_window = |left: &Window| {
            self.width_of_rows(left).div_ceil(self.widths.width().unsigned_abs().max(1)).max(1)
        };
        let windows: u64 = if self.table.read_mode.is_one_pass() {
            self.todo.len() as u64
        } else {
            self.todo.iter().map(of_window).sum()
        };
        windows + u64::from(self.null_time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{SplitPoints, TableId};
    use crate::window::SECOND;
    use proptest::prelude::*;

    fn table(data_ranges: Vec<Window>, split_points: SplitPoints) -> Arc<Table> {
        let id = TableId {
            source: "s".into(),
            database: "d".into(),
            schema: "r".into(),
            table: "t".into(),
        };
        Arc::new(Table { data_ranges, split_points, ..Table::new(id, vec![]) })
    }

    fn window(from: i64, to: i64) -> Window {
        Window { from, to }
    }

    fn read(rows: u64, elapsed: Duration) -> Read {
        Read { rows, elapsed, most_rows: None, streams: 1, is_trial: false, now: Duration::ZERO }
    }

    fn drain(queue: &mut Queue) -> Vec<Window> {
        let mut windows = Vec::new();
        while let Some((_, chunk)) = queue.take() {
            windows.push(chunk.slice.window().unwrap());
            assert!(windows.len() < 10_000, "the queue does not end");
        }
        windows
    }

    #[test]
    fn two_points_centuries_apart_are_two_windows() {
        let bounds = window(-200 * 365 * DAY, 200 * 365 * DAY + 1);
        let shards = vec![
            window(bounds.from - DAY, bounds.from + 6 * DAY),
            window(bounds.to - 1, bounds.to + 7 * DAY),
        ];
        let mut queue = Queue::default();
        queue.add(
            table(shards, SplitPoints::None),
            Some(bounds),
            vec![bounds],
            false,
            Some(30 * DAY),
        );
        let windows = drain(&mut queue);
        assert_eq!(windows.len(), 2, "{windows:?}");
    }

    #[test]
    fn the_oldest_of_all_tables_comes_first() {
        let mut queue = Queue::default();
        for from in [5, 3, 4] {
            let all = window(from * DAY, 10 * DAY);
            queue.add(
                table(vec![Window::ALL], SplitPoints::None),
                Some(all),
                vec![all],
                false,
                Some(20 * DAY),
            );
        }
        let order: Vec<i64> = drain(&mut queue).iter().map(|w| w.from / DAY).collect();
        assert_eq!(order, [3, 4, 5]);
    }

    /// A server whose cost grows with the square of the rows of a query.
    #[test]
    fn the_width_seeks_the_best_speed() {
        let all = window(0, 4096 * DAY);
        let speed = |width: i64| {
            let (mut queue, mut elapsed) = (Queue::default(), Duration::ZERO);
            queue.add(
                table(vec![Window::ALL], SplitPoints::None),
                Some(all),
                vec![all],
                false,
                Some(width),
            );
            while let Some((at, chunk)) = queue.take() {
                let window = chunk.slice.window().unwrap();
                let days = window.width() as f64 / DAY as f64;
                let took = Duration::from_secs_f64(0.01 + 0.06 * days + 0.01 * days * days);
                elapsed += took;
                let read = Read { now: elapsed, ..read((66_700.0 * days) as u64, took) };
                queue.learn(at, window, read);
            }
            4096.0 / elapsed.as_secs_f64()
        };
        let best = 1.0 / (0.01 + 0.06 + 0.01);
        for start in [DAY / 24, DAY, 32 * DAY] {
            assert!(speed(start) > 0.75 * best, "{} from {start}", speed(start) / best);
        }
    }

    fn windows(max: i64) -> impl Strategy<Value = Vec<Window>> {
        prop::collection::vec((0..max, 1..max / 4), 0..6).prop_map(|pairs| {
            let coverage: Coverage =
                pairs.into_iter().map(|(from, width)| window(from, from + width)).collect();
            coverage.windows().to_vec()
        })
    }

    proptest! {
        #[test]
        fn chunks_cover_the_remaining_time_exactly_once(
            todo in windows(1000),
            data_ranges in windows(1000),
            cuts in prop::collection::btree_set(0i64..1000, 0..5),
            width in 1i64..300,
            splits in prop::collection::vec(any::<bool>(), 0..40),
        ) {
            // In this test one unit is a second, so that windows are wide enough to be halved.
            let scale = |w: &Window| window(w.from * SECOND, w.to * SECOND);
            let todo: Vec<Window> = todo.iter().map(scale).collect();
            let data_ranges: Vec<Window> = data_ranges.iter().map(scale).collect();
            let cuts: Vec<i64> = cuts.into_iter().map(|cut| cut * SECOND).collect();
            let bounds = window(0, 2000 * SECOND);
            let mut queue = Queue::default();
            queue.add(table(data_ranges.clone(), SplitPoints::At(cuts.clone())), Some(bounds), todo.clone(), false, Some(width * SECOND));
            let mut done = Vec::new();
            let mut splits = splits.into_iter();
            while let Some((at, chunk)) = queue.take() {
                prop_assert!(done.len() < 10_000);
                if splits.next().unwrap_or(false) && queue.split(at, &chunk) {
                    continue;
                }
                let found = chunk.slice.window().unwrap();
                for cut in &cuts {
                    let crosses = found.from < *cut && *cut < found.to;
                    let rows = |side: Window| data_ranges.iter().any(|o| o.overlaps(&side));
                    let both = crosses && rows(window(found.from, *cut)) && rows(window(*cut, found.to));
                    prop_assert!(!both, "rows on both sides of a cut in one window");
                }
                done.push(found);
                queue.learn(at, found, read(1000, Duration::from_secs(5)));
            }
            done.sort_unstable();
            prop_assert!(done.windows(2).all(|pair| pair[0].to <= pair[1].from), "twice");
            let covered: Coverage = done.into_iter().collect();
            prop_assert_eq!(covered, todo.into_iter().collect());
        }
    }
}
