//! The threads that read, hash and decode the files of an archive on all cores, each one chunk after the other.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::vec;

use tokio::runtime::Handle;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use crate::archive::commit::Commit;
use crate::commands::verify::dump::check_dump;
use crate::commands::verify::file::{Checked, Means, check_chunk, size_fault};
use crate::encode::Cores;
use crate::error::Result;
use crate::store::Store;

/// The number of checked chunks that may wait to be reported.
const WAITING: usize = 64;

/// How an archive is verified.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Compare sizes and manifests only.
    pub quick: bool,
    /// Hash every byte, but decode nothing.
    pub hash_only: bool,
    /// How much memory decoding may take, in bytes.
    pub memory_bytes: usize,
}

impl Default for Options {
    /// Checks everything with a gigabyte of memory, because a single value of PostgreSQL may be that large.
    fn default() -> Self {
        Self { quick: false, hash_only: false, memory_bytes: 1 << 30 }
    }
}

/// What all threads share.
pub(super) struct Work {
    pub(super) store: Store,
    pub(super) options: Options,
    /// The files of the archive, with their sizes.
    pub(super) present: Arc<BTreeMap<String, u64>>,
}

impl Work {
    /// Starts to check chunks. The results are received in no particular order. The threads end with the last chunk, or
    /// when the receiver is dropped.
    pub(super) fn start(self, commits: Vec<Commit>) -> Receiver<Result<Checked>> {
        let (done, checked) = channel(WAITING);
        let threads = self.store.readers().min(commits.len());
        let shared = Arc::new(Shared {
            // A chunk that does not fit into its share gets the other half of the memory, which only one chunk can have at a time.
            share: self.options.memory_bytes / 2 / threads.max(1),
            work: self,
            commits: Mutex::new(commits.into_iter()),
            cores: Cores::default(),
            large: Mutex::new(()),
        });
        for _ in 0..threads {
            let (shared, done) = (Arc::clone(&shared), done.clone());
            tokio::task::spawn_blocking(move || shared.run(&done));
        }
        checked
    }
}

struct Shared {
    work: Work,
    commits: Mutex<vec::IntoIter<Commit>>,
    cores: Cores,
    /// Bytes of memory for each thread.
    share: usize,
    /// The lock of the thread that uses the other half of the memory.
    large: Mutex<()>,
}

impl Shared {
    fn run(&self, done: &Sender<Result<Checked>>) {
        let own = self.cores.take(1);
        loop {
            // The lock is released before the work.
            let next = self.commits.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(commit) = next else { return };
            // A file that makes its reader panic must not end the check of the others.
            let checked = catch_unwind(AssertUnwindSafe(|| self.check(&commit, own.count)));
            let checked = checked.unwrap_or_else(|_| Ok(broken(&commit)));
            if done.blocking_send(checked).is_err() {
                return;
            }
        }
    }

    fn check(&self, commit: &Commit, held: usize) -> Result<Checked> {
        let Work { store, options, present } = &self.work;
        let sizes: Vec<Option<u64>> =
            commit.files.iter().map(|file| present.get(&file.key).copied()).collect();
        if let (Some(dump), [file], [size]) = (&commit.dump, &*commit.files, &*sizes) {
            let mut checked = Checked::default();
            let check = check_dump(store, file, dump, *size, options.quick, &mut checked);
            return Handle::current().block_on(check).map(|()| checked);
        }
        if options.quick {
            return Ok(looked_at(commit, &sizes));
        }
        let means = |share| Means { share, cores: &self.cores, held };
        let means = |share| (!options.hash_only).then(|| means(share));
        let checked = check_chunk(store, commit, &sizes, means(self.share))?;
        if checked.unchecked.is_empty() {
            return Ok(checked);
        }
        let _alone = self.large.lock().unwrap_or_else(PoisonError::into_inner);
        check_chunk(store, commit, &sizes, means(options.memory_bytes / 2))
    }
}

/// Checks only the sizes of the files of a chunk.
fn looked_at(commit: &Commit, sizes: &[Option<u64>]) -> Checked {
    let mut checked = Checked { rows: commit.rows, ..Checked::default() };
    for (file, size) in commit.files.iter().zip(sizes) {
        match size_fault(file, *size) {
            Some(fault) => checked.faults.push((file.key.clone(), fault)),
            None => {
                checked.files += 1;
                checked.bytes += file.bytes;
            }
        }
    }
    checked
}

fn broken(commit: &Commit) -> Checked {
    let place = format!("{}/{}", commit.path, commit.slice);
    let fault = (place, "its files cannot be decoded".to_owned());
    Checked { faults: vec![fault], ..Checked::default() }
}
