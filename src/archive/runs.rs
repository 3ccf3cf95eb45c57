//! The runs at work on an archive. Each has a heartbeat, so that no other run removes its files. A heartbeat is not a
//! lock: it keeps no other run from working, and a killed run blocks nobody.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;

use crate::error::{Error, Result};
use crate::model::{SourceInfo, TableId};
use crate::range::RangeText;
use crate::store::Store;
use crate::window::{Window, now, rfc3339};

/// How often a run writes its heartbeat.
const BEAT: Duration = Duration::from_secs(30);
/// The time without a heartbeat after which a run on another machine counts as dead.
const DEAD_AFTER: TimeDelta = TimeDelta::seconds(120);

/// Runs of this process that are at work.
static HERE: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// `.moveout/runs/RUN.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Short id; ids sort by the time at which their runs began.
    pub run: String,
    /// When the run began, RFC 3339.
    pub started: String,
    /// The time of its last heartbeat.
    pub beat: String,
    /// Machine, boot and process namespace …
    pub host: String,
    /// … and the process there, …
    pub pid: u32,
    /// … with the time when it began in clock ticks, because process numbers are reused.
    pub pid_started: Option<u64>,
    /// The shard that it exports, if it is not all of the work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard: Option<String>,
    /// Whether it is about to remove or write the seal, which only one run at a time may do.
    #[serde(default)]
    pub sealing: bool,
    /// Whether it only puts tag files into a sealed archive, which is complete without them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub amends: bool,
    /// Whether it is at work, as far as that is known.
    #[serde(skip)]
    pub alive: bool,
}

/// `.moveout/plans/RUN.json`: what a run is to do, for `status`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunPlan {
    /// The run.
    pub run: String,
    /// When it began, RFC 3339.
    #[serde(default)]
    pub started: String,
    /// Its range in the user's words.
    #[serde(default)]
    pub range: Option<RangeText>,
    /// Its sources. The archive of a run that did not end has no other record of them.
    #[serde(default)]
    pub sources: Vec<SourceInfo>,
    /// Each table with its folder and the requested window, which is `None` if the table is empty.
    pub tables: Vec<PlannedTable>,
    /// The sources that failed, without which it goes on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lost: Vec<PlannedLoss>,
}

/// A source that failed, without which a run goes on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PlannedLoss {
    /// Its name.
    pub source: String,
    /// Why.
    pub why: String,
}

/// A table in a run's plan.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PlannedTable {
    /// Its name.
    pub id: TableId,
    /// Its folder.
    pub path: String,
    /// The requested window.
    #[serde(alias = "asked")]
    pub requested: Option<Window>,
}

/// The other runs that are at work.
pub fn living<'a>(runs: &'a [Heartbeat], me: &'a str) -> impl Iterator<Item = &'a Heartbeat> {
    runs.iter().filter(move |run| run.run != me && run.alive)
}

/// The folder of the heartbeats.
pub(super) const HEARTBEATS: &str = ".moveout/runs/";

/// The folder of the plans.
pub(super) const PLANS: &str = ".moveout/plans/";

/// The run to which a heartbeat or a plan belongs.
pub(super) fn of_key(key: &str) -> Option<&str> {
    let name = key.strip_prefix(HEARTBEATS).or_else(|| key.strip_prefix(PLANS))?;
    name.strip_suffix(".json").filter(|run| !run.is_empty())
}

/// Key of a run's heartbeat.
pub fn heartbeat_key(run: &str) -> String {
    format!("{HEARTBEATS}{run}.json")
}

/// Key of a run's plan.
pub fn plan_key(run: &str) -> String {
    format!("{PLANS}{run}.json")
}

/// A new id: eight letters and digits that sort by time, and thirteen random ones, which are more than 64 bits, so that any
/// number of runs that start at once on many machines get different ids. The ids of one process sort in the order in which
/// they were made. Earlier versions made shorter ids; nothing may depend on the length.
pub fn new_run_id() -> String {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let time = (now() / 10_000_000).max(0) as u64;
    let last = LAST.fetch_update(Relaxed, Relaxed, |last| Some(time.max(last + 1)));
    let mut hundredths = time.max(last.unwrap_or_default() + 1);
    let mut id = [b'0'; 8];
    for place in id.iter_mut().rev() {
        *place = char::from_digit((hundredths % 36) as u32, 36).unwrap_or('0') as u8;
        hundredths /= 36;
    }
    let time: String = id.iter().map(|byte| char::from(*byte)).collect();
    // The system's own chance: a generator that is seeded by the clock gives processes that start together the same.
    let mut seed = [0; 16];
    let seeded = getrandom::fill(&mut seed);
    let mut chance = seeded.map_or_else(|_| fastrand::u128(..), |()| u128::from_le_bytes(seed));
    let mut id = time;
    for _ in 0..13 {
        id.push(char::from_digit((chance % 36) as u32, 36).unwrap_or('0'));
        chance /= 36;
    }
    id
}

impl Heartbeat {
    /// The first heartbeat of this process.
    pub fn new(run: &str) -> Self {
        let pid = std::process::id();
        Self {
            run: run.to_owned(),
            started: rfc3339(now()),
            beat: rfc3339(now()),
            host: this_host().to_owned(),
            pid,
            pid_started: process_started(pid),
            shard: None,
            sealing: false,
            amends: false,
            alive: true,
        }
    }

    /// The same for a run that only puts tag files into a sealed archive.
    pub(super) fn of_amendment(run: &str) -> Self {
        Self { amends: true, ..Self::new(run) }
    }

    /// The heartbeat of a run of which nothing else is known.
    pub(super) fn unknown(run: &str) -> Self {
        let text = String::new;
        Self {
            run: run.to_owned(),
            started: text(),
            beat: text(),
            host: text(),
            pid: 0,
            pid_started: None,
            shard: None,
            sealing: false,
            amends: false,
            alive: false,
        }
    }

    /// Whether the run may still be at work. On its own machine the process is looked up. Elsewhere the time since its last
    /// heartbeat decides, by the clock of the store. If that time is unknown, the run counts as alive.
    pub(super) fn is_alive(&self, since_beat: Option<TimeDelta>) -> bool {
        if self.is_here() {
            let same = process_started(self.pid) == self.pid_started;
            let here = || HERE.lock().unwrap_or_else(PoisonError::into_inner).contains(&self.run);
            return same && (self.pid != std::process::id() || here());
        }
        since_beat.is_none_or(|since| since < DEAD_AFTER)
    }

    /// Whether its process can be looked up on this machine.
    pub(super) fn is_here(&self) -> bool {
        self.host == this_host() && self.pid_started.is_some()
    }

    async fn store(&mut self, store: &Store) -> Result<()> {
        self.beat = rfc3339(now());
        let json = serde_json::to_vec(self)
            .map_err(|error| Error::stop(format!("writing a heartbeat: {error}")))?;
        store.put_checked(&heartbeat_key(&self.run), json).await.map(|_| ())
    }
}

/// A heartbeat that is written again and again until this value is stopped or dropped.
#[derive(Debug)]
pub struct Beating {
    store: Store,
    heartbeat: Arc<tokio::sync::Mutex<Heartbeat>>,
    run: String,
    task: JoinHandle<()>,
}

impl Beating {
    /// Writes the first heartbeat, and then one every thirty seconds.
    pub(super) async fn start(store: &Store, mut heartbeat: Heartbeat) -> Result<Self> {
        let run = heartbeat.run.clone();
        HERE.lock().unwrap_or_else(PoisonError::into_inner).insert(run.clone());
        let first = heartbeat.store(store).await;
        let heartbeat = Arc::new(tokio::sync::Mutex::new(heartbeat));
        let task = tokio::spawn({
            let (store, heartbeat) = (store.clone(), Arc::clone(&heartbeat));
            async move {
                loop {
                    tokio::time::sleep(BEAT).await;
                    if let Err(error) = heartbeat.lock().await.store(&store).await {
                        tracing::warn!("cannot write a heartbeat: {error}");
                    }
                }
            }
        });
        let beating = Self { store: store.clone(), heartbeat, run, task };
        first.map(|()| beating)
    }

    /// Announces whether this run is about to remove or write the seal.
    pub(super) async fn say_sealing(&self, sealing: bool) -> Result<()> {
        let mut heartbeat = self.heartbeat.lock().await;
        heartbeat.sealing = sealing;
        heartbeat.store(&self.store).await
    }

    /// The run of this heartbeat.
    pub fn run(&self) -> &str {
        &self.run
    }

    /// Stops the heartbeat. When this returns, none is being written any more.
    pub async fn stop(self) {
        let _last = self.heartbeat.lock().await; // none is being written
        self.task.abort();
    }
}

impl Drop for Beating {
    fn drop(&mut self) {
        self.task.abort();
        HERE.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.run);
    }
}

fn this_host() -> &'static str {
    static HOST: LazyLock<String> = LazyLock::new(|| {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let namespace = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
        format!(
            "{} {} {}",
            read("/proc/sys/kernel/hostname"),
            read("/proc/sys/kernel/random/boot_id"),
            namespace.display()
        )
    });
    &HOST
}

// The start time is the 22nd field of /proc/PID/stat. The second field is a name in parentheses, which may contain
// anything. A zombie was killed and does nothing any more.
fn process_started(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_ids_sort_by_time_and_differ() {
        let ids: BTreeSet<String> = (0..2000).map(|_| new_run_id()).collect();
        assert_eq!(ids.len(), 2000);
        let (one, two) = (new_run_id(), new_run_id());
        assert_eq!(one.len(), 21);
        assert!(one.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase()), "{one}");
        // The first versions made ids of eleven and of fourteen.
        assert!("01abcdefghi" < one.as_str() && "0zzzzzzz000000" < one.as_str());
        assert!(one[..8] < two[..8]);
    }

    #[test]
    fn a_run_lives_as_long_as_its_process_or_beats_by_the_clock_of_the_store() {
        let mine = Heartbeat::new("r");
        assert!(!mine.is_alive(None), "this process has no such run");
        HERE.lock().unwrap().insert("r".to_owned());
        assert!(mine.is_alive(None));
        let gone = Heartbeat { pid_started: Some(1), ..mine.clone() };
        assert!(!gone.is_alive(None), "the number of the process was used again");
        // The clock of the other machine does not matter.
        let beat = "1999-01-01T00:00:00Z".to_owned();
        let elsewhere = Heartbeat { host: "elsewhere".into(), beat, ..mine };
        assert!(elsewhere.is_alive(Some(TimeDelta::seconds(119))));
        assert!(!elsewhere.is_alive(Some(TimeDelta::seconds(121))));
        assert!(elsewhere.is_alive(None));
    }
}
