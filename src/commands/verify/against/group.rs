//! Chunks of a table that are compared by one request, where a request for each of them costs more. If the source refuses,
//! fewer of them are compared at once, down to each by itself: which of them differs is always known.

use std::sync::Arc;

use crate::archive::commit::Commit;
use crate::column_stats::Recorded;
use crate::commands::verify::against::chunk::One;
use crate::error::{Class, Error, Result};
use crate::model::Proof;
use crate::source::Source;
use crate::store::Store;
use crate::window::Window;

/// A chunk to be compared.
pub(super) struct Asked<'a> {
    pub(super) one: One<'a>,
    /// Whether its rows are read again.
    pub(super) reads: bool,
    /// Whether its rows are read again if statistics show no difference.
    pub(super) doubts: bool,
}

/// Chunks that are compared by one request: one chunk, or windows each of which begins where the one before it ends.
pub(super) struct Group<'a> {
    asked: Vec<Asked<'a>>,
    /// The widest parts, in nanoseconds, of which all windows consist.
    width: i64,
    /// How many values they have.
    values: u64,
}

/// Values of a group at most, so that no request takes long: an InfluxDB 1.x counts about 7 million in a second.
const MOST_VALUES: u64 = 50_000_000;

impl Asked<'_> {
    fn window(&self) -> Option<Window> {
        self.one.commit.slice.window().filter(|_| !self.reads)
    }

    fn values(&self) -> u64 {
        self.one.commit.columns.iter().map(|column| column.count).sum()
    }
}

impl<'a> Group<'a> {
    /// The source that is asked.
    pub(super) fn source(&self) -> Option<&'a dyn Source> {
        self.asked.first().map(|asked| asked.one.source.as_ref())
    }

    /// Its chunks.
    pub(super) fn chunks(&self) -> &[Asked<'a>] {
        &self.asked
    }

    fn of(asked: Asked<'a>) -> Self {
        let width = asked.window().map_or(0, |window| window.width());
        Self { width, values: asked.values(), asked: vec![asked] }
    }

    /// Takes in the next chunk, or gives it back if the request would become too large.
    fn take(&mut self, next: Asked<'a>, most_parts: usize) -> Option<Asked<'a>> {
        let ends = self.asked.first().zip(self.asked.last());
        let ends = ends.and_then(|(first, last)| Some((last, first.window()?, last.window()?)));
        let Some(((last, first, before), window)) = ends.zip(next.window()) else {
            return Some(next);
        };
        let width = greatest_common_divisor(self.width, window.width());
        let parts = window.to.saturating_sub(first.from) / width.max(1);
        let values = self.values.saturating_add(next.values());
        let fits = Arc::ptr_eq(&last.one.table, &next.one.table)
            && before.to == window.from
            && usize::try_from(parts).is_ok_and(|parts| parts <= most_parts)
            && values <= MOST_VALUES;
        if !fits {
            return Some(next);
        }
        (self.width, self.values) = (width, values);
        self.asked.push(next);
        None
    }
}

fn greatest_common_divisor(mut one: i64, mut other: i64) -> i64 {
    while other != 0 {
        (one, other) = (other, one % other);
    }
    one
}

/// The chunks in groups, in their order.
pub(super) fn groups(all: Vec<Asked<'_>>) -> Vec<Group<'_>> {
    let (mut groups, mut most_parts) = (Vec::<Group<'_>>::new(), 1);
    for asked in all {
        let left = match groups.last_mut() {
            Some(group) if most_parts > 1 => group.take(asked, most_parts),
            _ => Some(asked),
        };
        if let Some(asked) = left {
            most_parts = asked.one.source.parts_at_once(&asked.one.table);
            groups.push(Group::of(asked));
        }
    }
    groups
}

/// Compares the chunks of a group.
pub(super) async fn compare<'a>(
    group: &Group<'a>,
    store: &Store,
    share: usize,
) -> Vec<(&'a Commit, Result<Proof>)> {
    let mut compared = Vec::with_capacity(group.asked.len());
    let mut todo = vec![&*group.asked];
    while let Some(asked) = todo.pop() {
        let proofs = match at_once(asked, group.width).await {
            Ok(proofs) => proofs,
            // What is too much at once may be little enough in parts.
            Err(error) if error.class() == Class::Split && asked.len() > 2 => {
                tracing::info!("{} windows were too many: {error}", asked.len());
                let (first, second) = asked.split_at(asked.len() / 2);
                todo.extend([second, first]);
                continue;
            }
            // Whatever it is: each by itself is asked for again, as often as that takes.
            Err(error) => {
                tracing::info!("{} windows cannot be compared at once: {error}", asked.len());
                Vec::new()
            }
        };
        let mut proofs = proofs.into_iter();
        for asked in asked {
            let proof = match proofs.next() {
                Some(Some(proof)) if proof.differences.is_empty() => Ok(proof),
                // A difference is told only after the chunk was compared by itself, too.
                Some(Some(_)) => asked.one.by_statistics(store, share).await,
                Some(None) => asked.one.by_rows(store, share).await,
                None if asked.reads => asked.one.by_rows(store, share).await,
                None => asked.one.by_statistics(store, share).await,
            };
            let proof = match proof {
                Ok(proof) if asked.doubts && proof.differences.is_empty() => {
                    asked.one.by_rows(store, share).await
                }
                proof => proof,
            };
            compared.push((asked.one.commit, proof));
        }
    }
    compared
}

/// Compares several windows by one request; the answer is empty if the source cannot.
async fn at_once(group: &[Asked<'_>], width: i64) -> Result<Vec<Option<Proof>>> {
    let [first, _, ..] = group else { return Ok(Vec::new()) };
    let windows: Vec<(Window, Recorded<'_>)> = group
        .iter()
        .filter_map(|asked| {
            let commit = asked.one.commit;
            let recorded = Recorded { rows: commit.rows, columns: &commit.columns };
            Some((asked.window()?, recorded))
        })
        .collect();
    let (source, retry) = (first.one.source, first.one.retry);
    retry.wait_for_quota(source.name()).await?;
    let asked = retry.interrupt().or(source.prove_windows(&first.one.table, width, &windows));
    match asked.await? {
        Some(proofs) if proofs.len() == group.len() => Ok(proofs),
        Some(proofs) => Err(Error::of(
            Class::Retry,
            format!("an answer for {} of {} windows", proofs.len(), group.len()),
        )),
        None => Ok(Vec::new()),
    }
}
