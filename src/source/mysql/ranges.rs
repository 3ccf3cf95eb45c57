//! Reads a large table by ranges of its primary key, on every session that nobody else needs. All of them see the same
//! snapshot, and the chunk is complete when every range is.

use std::ops::Range;
use std::thread;

use crate::error::{Class, Error};
use crate::source::mysql::errors::CommandError;
use crate::source::mysql::read;
use crate::source::mysql::read::{Aside, Sink};
use crate::source::mysql::select::{Part, quoted};
use crate::source::mysql::session::{Lease, Pool, Session};
use crate::source::relational::cancel::CancelToken;
use crate::source::relational::fan_out::Parts;

/// Tables of at least this many rows are read by ranges.
pub(super) const MANY_ROWS: u64 = 500_000;
/// How many ranges there are for each session. More than one, since keys are not spread evenly and a session can be
/// given to someone else only between two ranges.
const RANGES_A_SESSION: usize = 4;

/// What the sessions that read one table share.
struct Work<'a> {
    parts: Parts<Part<'a>, Error>,
    sink: &'a Sink<'a>,
    aside: Aside<'a>,
    snapshot_id: String,
}

/// Reads a part by ranges of an integer column that is never null.
pub(super) fn read(
    pool: &std::sync::Arc<Pool>,
    session: &mut Session,
    part: &Part<'_>,
    key: &str,
    sink: &Sink<'_>,
    aside: Aside<'_>,
    cancel: &CancelToken,
) -> Result<(), CommandError> {
    let key = quoted(key);
    let ends = part.select(&format!("MIN({key}), MAX({key})"));
    let ends = session.client.query(&format!("{ends}; {}", read::FREE))?;
    let end = |at: usize| ends.first()?.get(at)?.as_ref()?.parse().ok();
    let (Some(first), Some(last)) = (end(0), end(1)) else {
        return read::read(session, part, sink, aside);
    };
    let ranges = ranges(&key, first..last, pool.size * RANGES_A_SESSION);
    let parts = Parts::new(ranges.iter().map(|range| part.and(range)).collect());
    let work = Work { parts, sink, aside, snapshot_id: session.snapshot_id.clone() };
    thread::scope(|scope| {
        while let Some(part) = work.parts.take() {
            // A session that somebody else waits for is not taken.
            while work.parts.is_left()
                && let Some(lease) = pool.try_lease(&work.snapshot_id)
            {
                scope.spawn(|| work.help(pool, lease, cancel));
            }
            match work.read(session, part) {
                Ok(()) => {}
                Err(CommandError::Stopped(error)) => work.parts.fail(0, error),
                Err(fault) => {
                    let why = "another part of the table has failed";
                    work.parts.fail(0, Error::of(Class::Retry, why));
                    return Err(fault);
                }
            }
        }
        Ok(())
    })?;
    work.parts.failure().map_or(Ok(()), |error| Err(CommandError::Stopped(error)))
}

impl Work<'_> {
    fn read(&self, session: &mut Session, part: &Part<'_>) -> Result<(), CommandError> {
        let sink = Sink { is_over: &|| self.parts.is_over(), ..*self.sink };
        read::read(session, part, &sink, self.aside)
    }

    fn help(&self, pool: &std::sync::Arc<Pool>, lease: Lease, cancel: &CancelToken) {
        let mut lease = Some(lease);
        while let Some(mut held) = lease {
            let helped = held.work(cancel, |session| {
                if session.snapshot_id != self.snapshot_id {
                    return Ok(None); // it sees another snapshot
                }
                let Some(part) = self.parts.take() else { return Ok(None) };
                self.read(session, part).map(Some)
            });
            drop(held);
            match helped {
                Ok(Some(())) => {}
                Ok(None) => return,
                Err(error) => self.parts.fail(0, error),
            }
            lease = pool.try_lease(&self.snapshot_id).filter(|_| self.parts.is_left());
        }
    }
}

/// Conditions of which each value meets exactly one; the first and the last are open-ended.
fn ranges(key: &str, ends: Range<i128>, count: usize) -> Vec<String> {
    let span = ends.end - ends.start + 1;
    let count = (count as i128).clamp(1, span);
    let cut = |at: i128| ends.start + span * at / count;
    let condition = |at: i128| match (at, at + 1 == count) {
        (0, true) => format!("{key} IS NOT NULL"),
        (0, false) => format!("{key} < {}", cut(1)),
        (at, true) => format!("{key} >= {}", cut(at)),
        (at, false) => format!("{key} >= {} AND {key} < {}", cut(at), cut(at + 1)),
    };
    (0..count).map(condition).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_is_in_one_range() {
        assert_eq!(ranges("k", 5..5, 4), ["k IS NOT NULL"]);
        assert_eq!(ranges("k", 0..1, 4), ["k < 1", "k >= 1"]);
        assert_eq!(ranges("k", -10..19, 3), ["k < 0", "k >= 0 AND k < 10", "k >= 10"]);
        let all = ranges("k", 0..i128::from(u64::MAX), 2);
        assert_eq!(all, ["k < 9223372036854775808", "k >= 9223372036854775808"]);
    }
}
