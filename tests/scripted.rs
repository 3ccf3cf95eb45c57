//! Runs within this process, of a source and an archive that fail where a test wants it: what comes out is
//! determined, and no test waits for a clock.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

mod support;

use moveout::error::Exit;
use moveout::export::{Summary, export};
use moveout::progress::Progress;
use support::scripted::{job, numbers};
use support::{Archive, Scripted};
use tempfile::TempDir;
use tokio::sync::watch;

const HOUR: i64 = 3_600_000_000_000;
/// 2024-01-01.
const NEW_YEAR: i64 = 1_704_067_200_000_000_000;

#[tokio::test]
async fn a_source_that_the_caller_brings_is_exported() {
    let rows: Vec<_> = (0..250).map(|i| (Some(NEW_YEAR + i * HOUR), i)).collect();
    let source =
        Scripted::new([numbers("one", &rows), numbers("two", &[(Some(NEW_YEAR), 7), (None, 8)])]);
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a");
    let (_stop, stopped) = watch::channel(false);
    let job = job(&source, path.to_str().unwrap());
    let summary: Summary = export(&job, &Progress::silent(), stopped).await.unwrap();
    assert_eq!((summary.exit, summary.rows), (Exit::Done, 252));
    let archive = Archive::open(path);
    assert!(archive.is_sealed());
    assert_eq!(archive.rows("one").len(), 250);
    assert_eq!(source.asked()[..2], ["describe", "list"]);
}
