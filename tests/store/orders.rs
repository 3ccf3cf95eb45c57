//! Two runs at once, whose requests are answered one at a time: each order with up to two preemptions, and
//! some with more. At no request may anything be lost that was committed or sealed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use moveout::archive::chunks::read_chunks;
use moveout::archive::commit::Commit;
use moveout::archive::is_artifact;
use moveout::coverage::Coverage;
use moveout::error::Exit;
use moveout::hash::sha256;
use moveout::model::{Artifacts, TableId};
use tokio::sync::{Notify, oneshot};

use super::support::Scripted;
use super::support::memory::{Ask, Gate, Memory, Request};
use super::support::scripted::numbers;
use super::{Begin, DAY, NEW_YEAR, begun, ended, rows, rows_of, run, uncatalogued, verified};

/// After so many looks at the archive with nothing between them a run waits for the other.
const LOOKS: usize = 3;
/// Answers after which two runs are taken to wait for each other.
const MOST: usize = 3_000;

type Waiting = (Request, oneshot::Sender<Box<dyn Send>>);

/// Two runs whose requests wait for their turn.
#[derive(Default)]
struct Turns {
    waiting: Mutex<[VecDeque<Waiting>; 2]>,
    ended: Mutex<[Option<(Exit, String)>; 2]>,
    is_answered: AtomicBool,
    changed: Notify,
}

/// Held by the request that is answered.
struct Answering(Arc<Turns>);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.is_answered.store(true, Ordering::SeqCst);
        self.0.changed.notify_one();
    }
}

impl Turns {
    fn gate(self: &Arc<Self>, of: usize) -> Gate {
        let turns = Arc::clone(self);
        Arc::new(move |request| {
            let (turn, granted) = oneshot::channel();
            turns.waiting.lock().unwrap()[of].push_back((request.clone(), turn));
            turns.changed.notify_one();
            Box::pin(async move { granted.await.unwrap() })
        })
    }

    /// Waits until the last answer is given and each run that has not ended asks for something; the runs that do.
    async fn asking(&self) -> Vec<usize> {
        loop {
            let ended = self.ended.lock().unwrap().each_ref().map(Option::is_some);
            let asking = self.waiting.lock().unwrap().each_ref().map(|asked| !asked.is_empty());
            let is_answered = self.is_answered.load(Ordering::SeqCst);
            if is_answered && (0..2).all(|run| ended[run] || asking[run]) {
                return (0..2).filter(|run| asking[*run]).collect();
            }
            self.changed.notified().await;
        }
    }

    fn grant(self: &Arc<Self>, run: usize) -> Request {
        let (request, turn) = self.waiting.lock().unwrap()[run].pop_front().unwrap();
        self.is_answered.store(false, Ordering::SeqCst);
        let _ = turn.send(Box::new(Answering(Arc::clone(self)))); // dropped where nobody waits any more
        request
    }
}

/// Whose turn it is: run 0 begins, and after so many answers the other goes on, and so on. One that only waits
/// for the other gives way, too.
struct Order<'a> {
    at_work: usize,
    switches: std::slice::Iter<'a, usize>,
    left: Option<usize>,
    looks: [usize; 2],
}

impl<'a> Order<'a> {
    fn new(switches: &'a [usize]) -> Self {
        let mut switches = switches.iter();
        let left = switches.next().copied();
        Self { at_work: 0, switches, left, looks: [0; 2] }
    }

    fn next(&mut self, asking: &[usize]) -> usize {
        if let [one] = asking {
            self.at_work = *one;
        } else if self.left == Some(0) {
            self.left = self.switches.next().copied();
            self.at_work = 1 - self.at_work;
        } else if self.looks[self.at_work] > LOOKS {
            self.at_work = 1 - self.at_work;
            self.looks = [0; 2];
        }
        self.left = self.left.map(|left| left.saturating_sub(1));
        self.at_work
    }

    fn answered(&mut self, request: &Request) {
        let looks = &mut self.looks[self.at_work];
        match (request.ask, request.key.as_str()) {
            (Ask::List, ".moveout" | ".moveout/runs") => *looks += 1,
            (Ask::Get | Ask::Head, _) => {}
            _ => *looks = 0,
        }
    }
}

/// What the archive vouches for, which may grow and never shrinks.
#[derive(Default)]
struct Vouched {
    catalog: (Bytes, Vec<Commit>),
    covered: BTreeMap<TableId, Coverage>,
    artifacts: BTreeSet<String>,
}

impl Vouched {
    /// Looks again; what is not vouched for any more.
    async fn look(&mut self, store: &Memory) -> Option<String> {
        let files = store.files().await;
        let chunks = files.get("catalog/chunks.parquet").cloned().unwrap_or_default();
        if self.catalog.0 != chunks {
            self.catalog = (chunks.clone(), read_chunks(chunks).unwrap());
        }
        let loose = uncatalogued(&files);
        let mut covered = BTreeMap::<TableId, Coverage>::new();
        for commit in self.catalog.1.iter().chain(&loose) {
            let is_whole = |file: &moveout::archive::commit::FileRecord| {
                files.get(&file.key).is_some_and(|bytes| sha256(bytes) == file.sha256)
            };
            if commit.files.iter().all(is_whole) {
                covered.entry(commit.id()).or_default().insert_slice(commit.slice);
            }
        }
        let now = |id: &TableId| covered.get(id).cloned().unwrap_or_default();
        let lost = self.covered.iter().find_map(|(id, before)| {
            let lost = before.windows().iter().flat_map(|window| now(id).missing(*window));
            Some(format!("{id} {}", lost.into_iter().next()?))
        });
        let gone = self.artifacts.iter().find(|key| !files.contains_key(*key)).cloned();
        self.artifacts.extend(files.into_keys().filter(|key| is_artifact(key)));
        self.covered = covered;
        lost.or(gone)
    }
}

fn is_of_run(key: &str) -> bool {
    key.starts_with(".moveout/runs/") || key.starts_with(".moveout/plans/")
}

/// Runs two exports at once in that order; how they ended. Panics at the first request that loses something.
async fn in_order(
    sources: &[Arc<Scripted>; 2],
    store: &Arc<Memory>,
    switches: &[usize],
) -> ([(Exit, String); 2], Vec<(usize, Request)>) {
    let export = async |number: usize, store| ended(run(&sources[number], &store).await);
    both_in_order(store, switches, export).await
}

/// The same of any two runs, each by its number.
pub(super) async fn both_in_order(
    store: &Arc<Memory>,
    switches: &[usize],
    work: impl AsyncFn(usize, Arc<Memory>) -> (Exit, String),
) -> ([(Exit, String); 2], Vec<(usize, Request)>) {
    let turns = Arc::new(Turns::default());
    let one = async |number: usize| {
        let store = store.gated(turns.gate(number));
        let ended = work(number, store).await;
        turns.ended.lock().unwrap()[number] = Some(ended);
        turns.changed.notify_one();
    };
    let answering = async {
        turns.is_answered.store(true, Ordering::SeqCst);
        let (mut order, mut vouched) = (Order::new(switches), Vouched::default());
        vouched.look(store).await;
        let (mut trace, mut unknown) = (Vec::<(usize, Request)>::new(), [false; 2]);
        loop {
            let asking = turns.asking().await;
            if let Some((run, Request { ask, key })) = trace.last()
                && matches!(ask, Ask::Put | Ask::Complete | Ask::Delete)
                && let Some(lost) = vouched.look(store).await
            {
                panic!("{switches:?}: {ask:?} {key} of run {run} loses {lost}");
            }
            if asking.is_empty() {
                return trace;
            }
            assert!(trace.len() < MOST, "{switches:?}: they wait for each other: {trace:?}");
            let run = order.next(&asking);
            let request = turns.grant(run);
            let Request { ask, key } = &request;
            let is_of_other = |(by, asked): &(usize, Request)| {
                *by != run && asked.ask == Ask::Put && asked.key == *key
            };
            if *ask == Ask::Delete && is_of_run(key) && trace.iter().any(is_of_other) {
                unknown[1 - run] = true; // which it may be if it has nothing more to do
            }
            assert!(
                !(*ask == Ask::Put && unknown[run]),
                "{switches:?}: run {run} works on, and the other has removed what says that it lives: {trace:?}"
            );
            order.answered(&request);
            trace.push((run, request));
        }
    };
    let ((), (), trace) = futures::future::join3(one(0), one(1), answering).await;
    let ended = turns.ended.lock().unwrap().clone();
    (ended.map(Option::unwrap), trace)
}

/// A table with a row a day, and something that is not rows.
pub(super) fn days(number: i64) -> Arc<Scripted> {
    let rows: Vec<_> = (0..number).map(|day| (Some(NEW_YEAR + day * DAY), day)).collect();
    let source = Scripted::new([numbers("one", &rows)]);
    let mut artifacts = Artifacts::of("s");
    artifacts.file("", "schema", "sql", "CREATE TABLE one ();");
    source.keep(artifacts);
    source
}

/// Whether two requests of different runs may change places without a difference to anybody.
fn commute(one: &Request, other: &Request) -> bool {
    let writes = |asked: &Request| !matches!(asked.ask, Ask::Get | Ask::Head | Ask::List);
    let concerns = |one: &Request, other: &Request| match one.ask {
        Ask::List => other.key.starts_with(&one.key),
        _ => one.key == other.key,
    };
    !(writes(one) || writes(other)) || !(concerns(one, other) || concerns(other, one))
}

/// Orders with two preemptions: the one run is answered so often, then the other so often, then the one again.
/// What differs only in requests that commute is done once.
struct Orders {
    /// Requests of one run alone.
    requests: usize,
    /// Answers that run 0 gets before all: none, or those until it has its name, so that it is the older one although
    /// it is seen later.
    before: Vec<usize>,
    left: BTreeSet<(usize, usize)>,
    random: fastrand::Rng,
}

impl Orders {
    fn new(requests: usize, before: Option<usize>) -> Self {
        let left = (0..=requests).flat_map(|one| (1..=requests).map(move |other| (one, other)));
        let (before, left) = (before.into_iter().collect(), left.collect());
        Self { requests, before, left, random: fastrand::Rng::with_seed(7) }
    }

    fn next(&mut self) -> Option<(Vec<usize>, (usize, usize))> {
        let from = (self.random.usize(..=self.requests), self.random.usize(1..=self.requests));
        let at = self.left.range(from..).next().or_else(|| self.left.first()).copied()?;
        self.left.remove(&at);
        Some((self.before.iter().copied().chain([at.0, at.1]).collect(), at))
    }

    /// Takes out what would come to the same as this.
    fn done(&mut self, (one, other): (usize, usize), trace: &[(usize, Request)]) {
        let start: usize = self.before.iter().sum();
        let trace = trace.get(start..).unwrap_or_default();
        let Some(first) = trace.first().map(|(run, _)| *run) else { return };
        let is_of = |asked: &[(usize, Request)], of: bool| {
            asked.iter().all(|(run, _)| (*run == first) == of)
        };
        let Some((head, rest)) = trace.split_at_checked(one) else { return };
        let Some((block, tail)) = rest.split_at_checked(other) else {
            // It ended before: more answers change nothing.
            if is_of(head, true) && is_of(rest, false) {
                (rest.len()..=self.requests).for_each(|other| {
                    self.left.remove(&(one, other));
                });
            }
            return;
        };
        if !is_of(head, true) || !is_of(block, false) {
            return;
        }
        let passes = |asked: &(usize, Request)| {
            asked.0 == first && block.iter().all(|(_, other)| commute(&asked.1, other))
        };
        let later = tail.iter().take_while(|asked| passes(asked)).count();
        let sooner = head.iter().rev().take_while(|asked| passes(asked)).count();
        for same in one - sooner..=one + later {
            self.left.remove(&(same, other));
        }
    }
}

/// Whatever the order: the archive is exact and verifies, or a run says that it is not; and the next run makes
/// it so.
async fn no_order_costs_a_row(
    begin_with: Begin,
    sources: [Arc<Scripted>; 2],
    before: &Arc<Scripted>,
) {
    no_order_costs_a_row_of(begin_with, begun(begin_with, before).await, sources).await;
}

/// The same over what is in a store.
pub(super) async fn no_order_costs_a_row_of(
    begin_with: Begin,
    whole: Arc<Memory>,
    sources: [Arc<Scripted>; 2],
) {
    let alone = whole.copy().await;
    assert_eq!(run(&sources[0], &alone).await.unwrap().exit, Exit::Done);
    let alone = alone.asked();
    let named = alone.iter().position(|asked| asked.key.starts_with(".moveout/runs/")).unwrap();
    let most = std::env::var("MOVEOUT_ORDERS").map_or(250, |most| most.parse().unwrap());
    let (mut number, mut both, all) = (0, 0, rows_of(&sources[1]));
    for before in [None, Some(named)] {
        let mut orders = Orders::new(alone.len(), before);
        let mut random = fastrand::Rng::with_seed(8);
        for nth in 0..most {
            let Some((mut switches, at)) = orders.next() else { break };
            // Some with more preemptions.
            let more = if nth % 5 == 0 { random.usize(1..5) } else { 0 };
            switches.extend((0..more).map(|_| random.usize(1..alone.len() / 2)));
            let store = whole.copy().await;
            let (exits, trace) = in_order(&sources, &store, &switches).await;
            let what = format!("{begin_with:?}, {switches:?}: {exits:?}");
            let is_done = |run: usize| exits[run].0 == Exit::Done;
            assert!(is_done(0) || is_done(1), "{what}");
            (number, both) = (number + 1, both + usize::from(is_done(0) && is_done(1)));
            if !is_done(0) || !is_done(1) {
                eprintln!("{what}");
                let next = run(&sources[1], &store).await;
                let next = next.unwrap_or_else(|error| panic!("{what}, then {error}"));
                assert_eq!(next.exit, Exit::Done, "{what}, then {:?}", next.error);
            }
            assert_eq!(verified(&store).await, Exit::Done, "{what}");
            assert_eq!(rows(&store).await, all, "{what}");
            match more {
                0 => orders.done(at, &trace),
                _ => drop(orders.left.insert(at)),
            }
        }
    }
    eprintln!("{begin_with:?}: {number} orders, in {both} of them both were done");
}

#[tokio::test]
async fn two_runs_into_an_empty_archive_in_any_order_do_no_harm() {
    no_order_costs_a_row(Begin::Empty, [days(1), days(1)], &days(1)).await;
}

#[tokio::test]
async fn two_runs_of_a_source_that_grows_between_them_in_any_order_do_no_harm() {
    no_order_costs_a_row(Begin::Empty, [days(1), days(2)], &days(1)).await;
}

#[tokio::test]
async fn two_runs_that_extend_a_sealed_archive_in_any_order_do_no_harm() {
    no_order_costs_a_row(Begin::Extended, [days(2), days(2)], &days(1)).await;
}

#[tokio::test]
async fn two_runs_after_a_kill_in_any_order_do_no_harm() {
    no_order_costs_a_row(Begin::Unsealed, [days(1), days(1)], &days(1)).await;
}
