//! An archive holds one version of each table and of each file.

use std::sync::Arc;

use futures::FutureExt;
use moveout::error::Exit;
use moveout::model::Division;

use super::support::memory::{Ask, Memory, Wrong};
use super::support::scripted::numbers;
use super::support::{Question, Scripted};
use super::{DAY, NEW_YEAR, ended, run};

/// Tables of a file, or of a table divided so, with three rows each from a day on.
fn version(division: &Division, tables: &[&str], from: i64) -> Arc<Scripted> {
    let rows: Vec<_> = (from..from + 3).map(|day| (Some(NEW_YEAR + day * DAY), day)).collect();
    Scripted::new(tables.iter().map(|name| {
        let (mut table, rows) = numbers(name, &rows);
        table.identity.division = Some(division.clone());
        (table, rows)
    }))
}

/// The run over `two` ends with an error where one over `one` commits after it has planned.
async fn two_versions_stay_apart(one: &Arc<Scripted>, two: &Arc<Scripted>) {
    let other = Memory::new();
    other.play(|_, asked| {
        (asked.ask == Ask::Put && asked.key == "catalog/tables.json").then_some(Wrong::Failed)
    });
    assert_ne!(run(one, &other).await.unwrap().exit, Exit::Done);
    let committed = other.files().await;
    let store = Memory::new();
    let (shared, files) = (Arc::clone(&store), committed.clone());
    two.play(move |question| {
        if matches!(question, Question::Read(_)) {
            for (key, bytes) in &files {
                shared.set(key, Some(bytes.clone())).now_or_never().unwrap();
            }
        }
        None
    });
    let (exit, said) = ended(run(two, &store).await);
    assert_ne!(exit, Exit::Done);
    assert!(said.contains("in another version than it has now"), "{said}");
    let after = store.files().await;
    assert!(!after.contains_key("tagmanifest-sha256.txt"));
    let data = committed.iter().filter(|(key, _)| key.starts_with("data/"));
    assert!(data.into_iter().all(|(key, bytes)| after.get(key) == Some(bytes)));
}

#[tokio::test]
async fn a_chunk_that_was_taken_by_a_run_over_another_version_is_an_error() {
    let [one, two] = ["1", "2"].map(|hash| Division::File(hash.to_owned()));
    two_versions_stay_apart(&version(&one, &["a"], 0), &version(&two, &["a"], 0)).await;
}

#[tokio::test]
async fn tables_of_two_versions_of_a_file_are_not_sealed_together() {
    let [one, two] = ["1", "2"].map(|hash| Division::File(hash.to_owned()));
    two_versions_stay_apart(&version(&one, &["a"], 0), &version(&two, &["b"], 0)).await;
}

#[tokio::test]
async fn windows_of_two_versions_of_a_table_are_not_sealed_together() {
    let [one, two] = ["x", "y"].map(|column| Division::Windows(column.to_owned()));
    two_versions_stay_apart(&version(&one, &["a"], 0), &version(&two, &["a"], 9)).await;
}
