//! Runs at work on an archive: a heartbeat each, so that nobody removes what a living run owns.
//! Not a lock: no run is kept from working, and a killed run blocks nobody.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::catalog::RangeText;
use crate::error::{Error, Result};
use crate::source::{SourceInfo, TableId};
use crate::store::Store;
use crate::window::{Window, now, parse_time, rfc3339};

/// How often a run shows that it lives.
const BEAT: Duration = Duration::from_secs(10);
/// After how long without a beat a run on another machine counts as dead.
const DEAD_AFTER_NANOS: i64 = 120 * 1_000_000_000;

/// `.moveout/runs/RUN.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Short id; ids sort by the time at which their runs began.
    pub run: String,
    /// When the run began, RFC 3339.
    pub started: String,
    /// Its last sign of life.
    pub beat: String,
    /// Machine, boot and process namespace …
    pub host: String,
    /// … and the process there, …
    pub pid: u32,
    /// … with the time it began in clock ticks, since numbers are used again.
    pub pid_started: Option<u64>,
    /// Whether it is at work, as far as can be told.
    #[serde(skip)]
    pub alive: bool,
}

/// `.moveout/plans/RUN.json`: what a run set out to do, for `status`.
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
    /// What it exports from: the archive of a run that did not end has no other record of it.
    #[serde(default)]
    pub sources: Vec<SourceInfo>,
    /// Each table with its folder and the time asked for; `None` where the table is empty.
    pub tables: Vec<PlannedTable>,
}

/// A table in a run's plan.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PlannedTable {
    /// Its name.
    pub id: TableId,
    /// Its folder.
    pub path: String,
    /// The time to be covered.
    pub asked: Option<Window>,
}

/// Where heartbeats lie.
pub(super) const HEARTBEATS: &str = ".moveout/runs/";

/// Key of a run's heartbeat.
pub fn heartbeat_key(run: &str) -> String {
    format!("{HEARTBEATS}{run}.json")
}

/// Key of a run's plan.
pub fn plan_key(run: &str) -> String {
    format!(".moveout/plans/{run}.json")
}

/// A new id: eight letters and digits that sort by time, and three by chance.
pub fn new_run_id() -> String {
    let mut hundredths = (now() / 10_000_000).max(0) as u64;
    let mut id = [b'0'; 8];
    for place in id.iter_mut().rev() {
        *place = char::from_digit((hundredths % 36) as u32, 36).unwrap_or('0') as u8;
        hundredths /= 36;
    }
    let time: String = id.iter().map(|byte| char::from(*byte)).collect();
    let chance: String =
        (0..3).map(|_| char::from_digit(fastrand::u32(0..36), 36).unwrap_or('0')).collect();
    format!("{time}{chance}")
}

impl Heartbeat {
    /// The first beat of this process.
    pub fn new(run: &str) -> Self {
        let pid = std::process::id();
        Self {
            run: run.to_owned(),
            started: rfc3339(now()),
            beat: rfc3339(now()),
            host: this_host(),
            pid,
            pid_started: process_started(pid),
            alive: true,
        }
    }

    /// Whether the run may still be at work. On its own machine the process is looked for;
    /// elsewhere its last beat decides.
    pub fn is_alive(&self) -> bool {
        if self.host == this_host() && self.pid_started.is_some() {
            return process_started(self.pid) == self.pid_started;
        }
        let beat = parse_time(&self.beat).unwrap_or(i64::MIN);
        now().saturating_sub(beat) < DEAD_AFTER_NANOS
    }

    async fn store(&self, store: &Store) -> Result<()> {
        let json = serde_json::to_vec(self)
            .map_err(|error| Error::stop(format!("writing a heartbeat: {error}")))?;
        store.put(&heartbeat_key(&self.run), json).await
    }
}

/// Beats until it is stopped.
#[derive(Debug)]
pub struct Beating {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Beating {
    /// Writes the first beat, then one every ten seconds.
    pub async fn start(store: &Store, mut heartbeat: Heartbeat) -> Result<Self> {
        heartbeat.store(store).await?;
        let store = store.clone();
        let (stop, mut stopped) = watch::channel(false);
        let task = tokio::spawn(async move {
            while tokio::time::timeout(BEAT, stopped.wait_for(|stop| *stop)).await.is_err() {
                heartbeat.beat = rfc3339(now());
                if let Err(error) = heartbeat.store(&store).await {
                    tracing::warn!("cannot write a heartbeat: {error}");
                }
            }
        });
        Ok(Self { stop, task })
    }

    /// Stops; when this returns no beat is on its way any more.
    pub async fn stop(self) {
        let _ = self.stop.send(true); // the task may have ended
        let _ = self.task.await;
    }
}

fn this_host() -> String {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let namespace = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    format!(
        "{} {} {}",
        read("/proc/sys/kernel/hostname"),
        read("/proc/sys/kernel/random/boot_id"),
        namespace.display()
    )
}

// The 22nd field of /proc/PID/stat; the second is a name in parentheses that may hold anything. A
// zombie has been killed and does nothing any more.
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
        let (one, two) = (new_run_id(), new_run_id());
        assert_eq!(one.len(), 11);
        assert!(one[..8] <= two[..8]);
        assert_ne!(one, two);
    }

    #[test]
    fn a_run_lives_as_long_as_its_process() {
        let mine = Heartbeat::new("r");
        assert!(mine.is_alive());
        let gone = Heartbeat { pid_started: Some(1), ..mine.clone() };
        assert!(!gone.is_alive(), "the number of the process was used again");
        let elsewhere = Heartbeat { host: "elsewhere".into(), ..mine };
        assert!(elsewhere.is_alive());
        let silent = Heartbeat { beat: rfc3339(now() - 2 * DEAD_AFTER_NANOS), ..elsewhere };
        assert!(!silent.is_alive());
    }
}
