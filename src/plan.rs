//! PURE: tables and what is left of them become chunks, oldest first, in windows whose width is
//! learned. Knows no source and no archive.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::coverage::Coverage;
use crate::error::{Error, Result};
use crate::source::{Chunk, Division, Reading, Table};
use crate::window::{Bound, DAY, SECOND, Slice, Window};

/// No window is halved below twice this width.
pub const MIN_WIDTH: i64 = SECOND;
/// What a chunk should take: long enough that what it costs besides its rows does not matter, short
/// enough that a stop loses little.
const TARGET_ELAPSED: Duration = Duration::from_secs(5);
const TARGET_ROWS: u64 = 2_000_000;
/// So many rows tell how fast a width is.
const TELLING_ROWS: u64 = 10_000;
/// A width that is slower than this part of another's speed is not worth it.
const SLOWER: f64 = 0.85;
/// How much wider the next window is at most, once rows tell.
const STRIDE: i64 = 4;
/// A window that takes so long is worth the question whether half of it would be faster.
const SLOW: Duration = Duration::from_secs(3);
/// How many windows must pass before one wider than what was once too much is tried: at first, and
/// at most, where that keeps failing.
const FIRST_PATIENCE: u32 = 2;
const LAST_PATIENCE: u32 = 64;
/// Growth from one window to the next at most.
const MAX_GROWTH: f64 = 64.0;

/// The range asked for of one table, given its true bounds; `None` where that is nothing.
pub fn asked(
    table: &Table,
    bounds: Option<Window>,
    from: Bound,
    to: Bound,
    now: i64,
) -> Option<Window> {
    match table.reading {
        Reading::Whole => return Some(Window::ALL),
        Reading::OnePass if (from, to) == (Bound::Min, Bound::Max) => {
            return bounds.map(|_| Window::ALL);
        }
        _ => {}
    }
    let one_pass = table.reading.is_one_pass();
    let from = match from {
        Bound::At(time) => time,
        _ => bounds?.from,
    };
    let to = match to {
        // What has not been yet cannot be covered: a later run must find it missing.
        Bound::At(time) if !one_pass => time.min(bounds.map_or(now, |bounds| bounds.to.max(now))),
        Bound::At(time) => time,
        _ => bounds?.to,
    };
    Window::new(from, to)
}

/// The parts of a table's bounds before and after the asked range.
pub fn outside(bounds: Window, asked: Option<Window>) -> Vec<Window> {
    let Some(asked) = asked else { return vec![bounds] };
    let before = Window::new(bounds.from, bounds.to.min(asked.from));
    let after = Window::new(bounds.from.max(asked.to), bounds.to);
    before.into_iter().chain(after).collect()
}

/// What is left to do, over all tables.
#[derive(Debug, Default)]
pub struct Queue {
    tables: Vec<TableQueue>,
    oldest: BinaryHeap<Reverse<(i64, usize)>>,
}

#[derive(Debug)]
struct TableQueue {
    table: Arc<Table>,
    null_time: bool,
    todo: VecDeque<Window>,
    occupied: Vec<Window>,
    width: i64,
    /// What was too much halves it; windows that pass raise it again, since a server that was slow
    /// for a minute must not make the rest of a run slow.
    ceiling: i64,
    passed: u32,
    patience: u32,
    probing: bool,
    /// Rows per second, by the binary logarithm of the width. A server that merges all files of a query
    /// may be 25 times as fast by the day as by the month.
    speeds: HashMap<u32, f64>,
}

impl Queue {
    /// Adds a table with what is left of it: windows, and the rows without a time or not. Returns its
    /// number here.
    pub fn add(
        &mut self,
        table: Arc<Table>,
        bounds: Option<Window>,
        todo: Vec<Window>,
        null_time: bool,
        width: i64,
    ) -> usize {
        let occupied: Coverage =
            table.occupied.iter().filter_map(|window| window.intersect(&bounds?)).collect();
        let at = self.tables.len();
        self.tables.push(TableQueue {
            table,
            null_time,
            todo: todo.into(),
            occupied: occupied.windows().to_vec(),
            width,
            ceiling: i64::MAX,
            passed: 0,
            patience: FIRST_PATIENCE,
            probing: false,
            speeds: HashMap::new(),
        });
        self.oldest.extend(self.tables[at].oldest(at));
        at
    }

    /// The oldest chunk that is left, with the number of its table.
    pub fn take(&mut self) -> Option<(usize, Chunk)> {
        let Reverse((_, at)) = self.oldest.pop()?;
        let table = self.tables.get_mut(at)?;
        let slice = match std::mem::take(&mut table.null_time) {
            true => Slice::NullTime,
            false => {
                let left = table.todo.pop_front()?;
                let end = table.end(left);
                if let Some(rest) = Window::new(end, left.to) {
                    table.todo.push_front(rest);
                }
                Slice::from(Window { from: left.from, to: end })
            }
        };
        let chunk = Chunk { table: Arc::clone(&table.table), slice };
        self.oldest.extend(table.oldest(at));
        Some((at, chunk))
    }

    /// Gives slices back to be done again.
    pub fn give_back(&mut self, at: usize, slices: &[Slice]) {
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
        // Entries of the heap that are no longer the front's are stale, not wrong: the front is
        // what gets done.
        let mut others: Vec<_> =
            self.oldest.drain().filter(|Reverse((_, other))| *other != at).collect();
        others.extend(table.oldest(at));
        self.oldest = others.into();
    }

    /// Forgets what was left of a table; this is left of it now.
    pub fn restart(&mut self, at: usize, todo: Vec<Window>, null_time: bool) {
        (self.tables[at].todo, self.tables[at].null_time) = (todo.into(), null_time);
        self.give_back(at, &[]);
    }

    /// Halves a chunk that was too much, and remembers the width. `false` when it is too narrow.
    pub fn split(&mut self, at: usize, chunk: &Chunk) -> bool {
        let Slice::Window(window) = chunk.slice else { return false };
        if chunk.table.reading.is_one_pass() {
            return false;
        }
        let table = &mut self.tables[at];
        let core = table.core(window);
        let Some((left, _)) = core.halves(MIN_WIDTH) else { return false };
        table.ceiling = table.ceiling.min(core.width() / 2).max(MIN_WIDTH);
        if table.probing {
            table.patience = (2 * table.patience).min(LAST_PATIENCE);
        }
        (table.passed, table.probing) = (0, false);
        table.width = table.width.min(table.ceiling);
        let halves =
            [Window { from: window.from, to: left.to }, Window { from: left.to, to: window.to }];
        self.give_back(at, &halves.map(Slice::from));
        true
    }

    /// Whether `split` could halve a chunk.
    pub fn can_split(&self, at: usize, chunk: &Chunk) -> bool {
        let Slice::Window(window) = chunk.slice else { return false };
        !chunk.table.reading.is_one_pass()
            && self.tables[at].core(window).halves(MIN_WIDTH).is_some()
    }

    /// Learns from a chunk that is done. `most_rows` is what a chunk should have at most, where there is a
    /// quota.
    pub fn learn(
        &mut self,
        at: usize,
        window: Window,
        rows: u64,
        elapsed: Duration,
        most_rows: Option<u64>,
    ) {
        let table = &mut self.tables[at];
        let first = table.occupied.first().map_or(window.from, |w| w.from);
        let last = table.occupied.last().map_or(window.to, |w| w.to);
        let core = window.intersect(&Window { from: first, to: last });
        let used = core.map_or(table.width, |core| core.width()).max(1);
        let wide = used.max(table.width.min(window.width()));
        let target = learned_width(wide, rows, elapsed, most_rows);
        let target = table.faster(used, target, rows, elapsed);
        if used > table.ceiling / 2 && target > used {
            table.passed += 1;
            if std::mem::take(&mut table.probing) {
                table.patience = FIRST_PATIENCE;
            }
            if table.passed >= table.patience {
                table.ceiling = table.ceiling.saturating_mul(2);
                (table.passed, table.probing) = (0, true);
            }
        }
        table.width = match target > used {
            true => table.width.max(target),
            false => table.width.min(target),
        }
        .clamp(MIN_WIDTH, table.ceiling.max(MIN_WIDTH));
    }

    /// How many tables there are.
    pub fn len(&self) -> usize {
        self.tables.len()
    }

    /// A table as it is read now.
    pub fn table(&self, at: usize) -> &Arc<Table> {
        &self.tables[at].table
    }

    /// Replaces the tables by newly listed ones, where columns were added meanwhile.
    pub fn relisted(&mut self, listed: &[Arc<Table>]) {
        let listed: HashMap<_, _> = listed.iter().map(|table| (&table.id, table)).collect();
        for queue in &mut self.tables {
            if let Some(table) = listed.get(&queue.table.id) {
                queue.table = Arc::clone(table);
                // There may be rows where there were none.
                queue.occupied.clone_from(&table.occupied);
            }
        }
    }

    /// About how many chunks are left at the widths learned so far.
    pub fn chunks_left(&self) -> u64 {
        self.tables.iter().map(TableQueue::chunks_left).sum()
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.oldest.is_empty()
    }
}

impl TableQueue {
    /// Its place among the others; `None` when nothing is left.
    fn oldest(&self, at: usize) -> Option<Reverse<(i64, usize)>> {
        match (self.null_time, self.todo.front()) {
            (true, _) => Some(Reverse((i64::MIN, at))),
            (false, first) => first.map(|window| Reverse((window.from, at))),
        }
    }

    /// The width to take instead of a target, by the speed of those that were tried.
    fn faster(&mut self, used: i64, target: i64, rows: u64, elapsed: Duration) -> i64 {
        if rows < TELLING_ROWS {
            return target;
        }
        let step = used.ilog2();
        let speed = rows as f64 / elapsed.as_secs_f64().max(1e-3);
        let known = self.speeds.entry(step).or_insert(speed);
        *known = (*known + speed) / 2.0;
        let speed = *known;
        let best = |known: &dyn Fn(&u32) -> bool| {
            let speeds =
                self.speeds.iter().filter(|(step, _)| known(step)).map(|(_, speed)| *speed);
            speeds.reduce(f64::max)
        };
        let narrower = best(&|other| *other < step);
        if narrower.is_some_and(|narrower| speed < SLOWER * narrower) {
            return target.min(used / 2);
        }
        let half_is_known = step.checked_sub(1).is_some_and(|half| self.speeds.contains_key(&half));
        if !half_is_known && narrower.is_none() && elapsed >= SLOW {
            return target.min(used / 2);
        }
        // Of those that are wider, the nearest that was tried.
        let wider =
            self.speeds.iter().filter(|(other, _)| **other > step).min_by_key(|(other, _)| **other);
        let most = match wider.map(|(wider, there)| (*wider - step, *there < SLOWER * speed)) {
            // Step by step: what is far beyond the best width takes minutes to find out.
            None => used.saturating_mul(STRIDE),
            Some((doublings, false)) => used.saturating_mul(1 << doublings.min(8)),
            // Between this and one that is too wide there may be a better one.
            Some((2.., true)) => used.saturating_mul(2),
            // The width matters here: half of it may be better still.
            Some((_, true)) if !half_is_known => used / 2,
            Some((_, true)) => used,
        };
        target.min(most)
    }

    /// The part of a window that can hold rows, which alone matters for its width.
    fn core(&self, window: Window) -> Window {
        let first = self.occupied.first().map_or(window.from, |w| w.from);
        let last = self.occupied.last().map_or(window.to, |w| w.to);
        Window::new(first, last).and_then(|all| window.intersect(&all)).unwrap_or(window)
    }

    /// Where the window that begins what is left should end. Time without rows costs no window of
    /// its own: it is read together with the rows after it, or with the last ones.
    fn end(&self, left: Window) -> i64 {
        if self.table.reading.is_one_pass() {
            return left.to;
        }
        let first_from = |time: i64| {
            let next = self.occupied.partition_point(|window| window.to <= time);
            self.occupied.get(next).map(|window| window.from.max(time))
        };
        let Some(first) = first_from(left.from).filter(|first| *first < left.to) else {
            return left.to;
        };
        // Aligned to midnight whatever the width; widths below a day that divide it are aligned to
        // their own multiples as well.
        let unit = i128::from(self.width.min(DAY));
        let end = i128::from(first).div_euclid(unit) * unit + i128::from(self.width);
        let mut end = i64::try_from(end).map_or(left.to, |end| end.min(left.to));
        if let Some(cut) = self.table.cuts.next(first) {
            end = end.min(cut);
        }
        match first_from(end) {
            Some(next) if next < left.to => end,
            _ => left.to,
        }
    }

    fn chunks_left(&self) -> u64 {
        let of_window = |left: &Window| {
            let spans = self.occupied.iter().filter_map(|window| window.intersect(left));
            let span: u64 =
                spans.map(|window| window.width().unsigned_abs()).fold(0, u64::saturating_add);
            span.div_ceil(self.width.unsigned_abs().max(1)).max(1)
        };
        let windows: u64 = match self.table.reading.is_one_pass() {
            true => self.todo.len() as u64,
            false => self.todo.iter().map(of_window).sum(),
        };
        windows + u64::from(self.null_time)
    }
}

/// The width that would have taken the target, from one that took `elapsed` for `rows`; a power of
/// two times the old one, so that edges stay on days.
pub fn learned_width(width: i64, rows: u64, elapsed: Duration, most_rows: Option<u64>) -> i64 {
    let by_time = TARGET_ELAPSED.as_secs_f64() / elapsed.as_secs_f64().max(1e-3);
    let target_rows = most_rows.map_or(TARGET_ROWS, |most| most.min(TARGET_ROWS));
    let by_rows = target_rows as f64 / rows.max(1) as f64;
    let factor = by_time.min(by_rows).clamp(0.25, MAX_GROWTH);
    let doublings = factor.log2().floor() as i32;
    match doublings {
        0.. => width.saturating_mul(1 << doublings).min(i64::MAX / 4),
        -1 => width, // between half and the whole of the target is good enough
        _ => (width / 2).max(MIN_WIDTH),
    }
}

/// Checks that a table means the same by its slices as the commits do. `committed` is what one of them says.
pub fn same_division(table: &Table, committed: Option<&str>) -> Result<()> {
    let then =
        committed.map(|text| text.parse::<Division>().unwrap_or_else(|never| match never {}));
    let (Some(now), Some(then)) = (&table.identity.division, then) else { return Ok(()) };
    if *now == then {
        return Ok(());
    }
    Err(match now {
        Division::File(_) => Error::stop(format!(
            "the file behind {} has changed since it was exported into this archive",
            table.id
        ))
        .hint("export it into a new archive"),
        // An index came or went. What one way calls a window the other does not.
        _ => Error::stop(format!(
            "{} was exported {} and would now be read {}: rows could come twice, or not at all",
            table.id,
            said(&then),
            said(now)
        ))
        .hint(
            "name the column of before in `time_columns` of the configuration (\"\" reads a table whole), or export \
             into a new archive",
        ),
    })
}

fn said(division: &Division) -> String {
    match division {
        Division::Windows(column) => format!("in windows of `{column}`"),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{Cuts, Identity, TableId};
    use proptest::prelude::*;

    fn table(occupied: Vec<Window>, cuts: Cuts) -> Arc<Table> {
        let id = TableId {
            source: "s".into(),
            database: "d".into(),
            schema: "r".into(),
            table: "t".into(),
        };
        Arc::new(Table {
            id,
            columns: vec![],
            occupied,
            cuts,
            time_column: None,
            reading: Reading::Windows,
            identity: Identity::default(),
        })
    }

    fn window(from: i64, to: i64) -> Window {
        Window { from, to }
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
        queue.add(table(shards, Cuts::None), Some(bounds), vec![bounds], false, 30 * DAY);
        let windows = drain(&mut queue);
        assert_eq!(windows.len(), 2, "{windows:?}");
    }

    #[test]
    fn the_oldest_of_all_tables_comes_first() {
        let mut queue = Queue::default();
        for from in [5, 3, 4] {
            let all = window(from * DAY, 10 * DAY);
            queue.add(table(vec![Window::ALL], Cuts::None), Some(all), vec![all], false, 20 * DAY);
        }
        let order: Vec<i64> = drain(&mut queue).iter().map(|w| w.from / DAY).collect();
        assert_eq!(order, [3, 4, 5]);
    }

    #[test]
    fn what_is_not_yet_is_not_covered() {
        let table = table(vec![Window::ALL], Cuts::None);
        let to = Bound::At(100 * DAY);
        let at = |bounds| asked(&table, bounds, Bound::At(0), to, 50 * DAY);
        assert_eq!(at(Some(window(1, 7 * DAY))), Some(window(0, 50 * DAY)));
        assert_eq!(at(Some(window(1, 70 * DAY))), Some(window(0, 70 * DAY)));
        assert_eq!(at(Some(window(1, 700 * DAY))), Some(window(0, 100 * DAY)));
    }

    #[test]
    fn widths_grow_for_tiny_tables_and_shrink_for_slow_ones() {
        assert_eq!(learned_width(DAY, 0, Duration::from_millis(1), None), 64 * DAY);
        assert_eq!(learned_width(DAY, 1_000_000, Duration::from_secs(3), None), DAY);
        assert_eq!(learned_width(DAY, 100, Duration::from_secs(60), None), DAY / 2);
        assert_eq!(learned_width(DAY, 50_000_000, Duration::from_secs(4), None), DAY / 2);
    }

    /// A server whose cost grows with the square of the rows of a query.
    #[test]
    fn the_width_seeks_the_best_speed() {
        let all = window(0, 4096 * DAY);
        let speed = |width: i64| {
            let (mut queue, mut elapsed) = (Queue::default(), Duration::ZERO);
            queue.add(table(vec![Window::ALL], Cuts::None), Some(all), vec![all], false, width);
            while let Some((at, chunk)) = queue.take() {
                let window = chunk.slice.window().unwrap();
                let days = window.width() as f64 / DAY as f64;
                let took = Duration::from_secs_f64(0.01 + 0.06 * days + 0.01 * days * days);
                elapsed += took;
                queue.learn(at, window, (66_700.0 * days) as u64, took, None);
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
        fn chunks_cover_what_is_left_exactly_once(
            todo in windows(1000),
            occupied in windows(1000),
            cuts in prop::collection::btree_set(0i64..1000, 0..5),
            width in 1i64..300,
            splits in prop::collection::vec(any::<bool>(), 0..40),
        ) {
            // One unit is a second here, so that windows are wide enough to be halved.
            let scale = |w: &Window| window(w.from * SECOND, w.to * SECOND);
            let todo: Vec<Window> = todo.iter().map(scale).collect();
            let occupied: Vec<Window> = occupied.iter().map(scale).collect();
            let cuts: Vec<i64> = cuts.into_iter().map(|cut| cut * SECOND).collect();
            let bounds = window(0, 2000 * SECOND);
            let mut queue = Queue::default();
            queue.add(table(occupied.clone(), Cuts::At(cuts.clone())), Some(bounds), todo.clone(), false, width * SECOND);
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
                    let rows = |side: Window| occupied.iter().any(|o| o.overlaps(&side));
                    let both = crosses && rows(window(found.from, *cut)) && rows(window(*cut, found.to));
                    prop_assert!(!both, "rows on both sides of a cut in one window");
                }
                done.push(found);
                queue.learn(at, found, 1000, Duration::from_secs(5), None);
            }
            done.sort_unstable();
            prop_assert!(done.windows(2).all(|pair| pair[0].to <= pair[1].from), "twice");
            let covered: Coverage = done.into_iter().collect();
            prop_assert_eq!(covered, todo.into_iter().collect());
        }
    }
}
