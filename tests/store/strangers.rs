//! What is in an archive and does not belong there, or is not there any more.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use moveout::archive::Archive;
use moveout::archive::runs::{Heartbeat, new_run_id};
use moveout::error::Exit;
use moveout::shards::Division;

use super::support::memory::{Ask, Memory, Request};
use super::support::{Question, moveout};
use super::{
    Begin, begin, ended, export_to, extended, place, rows, rows_of, run, two_tables, verified,
    vouched_for,
};

/// An older `catalog/` put back, one bit of it flipped, a tag file gone: nothing is changed, and 4 is said.
#[tokio::test]
async fn a_catalog_that_is_not_the_sealed_one_stops_the_run_before_anything_is_changed() {
    let (source, store) = begin(Begin::Extended).await;
    let old = store.files().await;
    assert_eq!(run(&source, &store).await.unwrap().exit, Exit::Done);
    let whole = store.files().await;
    let mut damaged = Vec::new();
    let mut older = whole.clone();
    older.extend(old.into_iter().filter(|(key, _)| key.starts_with("catalog/")));
    damaged.push(("an older catalog".to_owned(), older));
    for key in
        whole.keys().filter(|key| !key.starts_with("data/") && *key != "tagmanifest-sha256.txt")
    {
        let mut gone = whole.clone();
        gone.remove(key);
        damaged.push((format!("{key} is gone"), gone));
        for at in (0..whole[key].len()).step_by(1 + whole[key].len() / 12) {
            let mut flipped = whole.clone();
            let mut bytes = whole[key].to_vec();
            bytes[at] ^= 4;
            flipped.insert(key.clone(), bytes.into());
            damaged.push((format!("a bit of byte {at} of {key}"), flipped));
        }
    }
    for (what, files) in damaged {
        for source in [&source, &two_tables()] {
            let store = Memory::new();
            for (key, bytes) in &files {
                store.set(key, Some(bytes.clone())).await;
            }
            let exit = ended(run(source, &store).await).0;
            let left = store.files().await;
            let lost = files.iter().find(|(key, bytes)| left.get(*key) != Some(bytes));
            // An archive whose manifest is gone is one whose seal is off: it is sealed anew.
            if what != "manifest-sha256.txt is gone" {
                assert_eq!((exit, lost), (Exit::Different, None), "{what}");
            }
            let data = whole.iter().filter(|(key, _)| key.starts_with("data/"));
            assert!(data.into_iter().all(|(key, bytes)| left.get(key) == Some(bytes)), "{what}");
        }
    }
}

#[tokio::test]
async fn a_file_that_is_gone_or_has_another_size_is_read_again_and_told() {
    for change in [None, Some(Bytes::from_static(b"PAR1"))] {
        let (source, store) = begin(Begin::Sealed).await;
        let files = store.files().await;
        let key = files.keys().find(|key| key.contains("/one/")).unwrap();
        store.set(key, change).await;
        let summary = run(&source, &store).await.unwrap();
        assert_eq!((summary.exit, summary.chunks), (Exit::Done, 1));
        let told = summary.warnings.iter().any(|warning| {
            warning.contains("was read again")
                && warning.contains("had 1 rows, and the source now gave 1")
        });
        assert!(told, "{:?}", summary.warnings);
        assert_eq!(verified(&store).await, Exit::Done);
        assert_eq!(rows(&store).await, rows_of(&source));
        assert!(!store.files().await.contains_key(key));
        let idle = run(&source, &store).await.unwrap();
        assert_eq!((idle.exit, idle.chunks), (Exit::Done, 0));
    }
}

#[tokio::test]
async fn what_strangers_put_there_stays_and_is_named() {
    for (key, begin_with) in [
        ("data/scripted/d/s/one/all.r1.parquet", Begin::Sealed),
        ("data/scripted/d/s/one/all.r1.parquet", Begin::Extended),
        ("data/other/d/s/t/all.01abcdefghi.parquet", Begin::Extended),
        ("data/other/d/s/t/all.01abcdefghi.parquet", Begin::Unsealed),
        ("data/notes.txt", Begin::Sealed),
        ("data/notes.txt", Begin::Unsealed),
        ("notes.txt", Begin::Extended),
    ] {
        let (source, store) = begin(begin_with).await;
        let before = vouched_for(&store).await;
        store.set(key, Some("a stranger's".into())).await;
        let (exit, said) = ended(run(&source, &store).await);
        assert_eq!(exit, Exit::Different, "{key} {begin_with:?}");
        assert!(said.contains(key), "{said}");
        let after = store.files().await;
        assert_eq!(after.get(key), Some(&Bytes::from("a stranger's")));
        assert!(before.iter().all(|(key, bytes)| after.get(key) == Some(bytes)));
        store.set(key, None).await;
        let next = run(&source, &store).await.unwrap();
        assert_eq!(next.exit, Exit::Done, "{key} {begin_with:?}: {:?}", next.error);
        assert_eq!(verified(&store).await, Exit::Done);
    }
}

/// A shard begins while another run seals, and records how the rest of the work is divided.
#[tokio::test]
async fn the_record_of_a_division_that_comes_during_the_seal_stops_nothing() {
    let (source, store) = begin(Begin::Unsealed).await;
    let shard = Archive::create(&place(&store)).await.unwrap();
    // The run that seals would wait for an older one.
    let youngest = "z".repeat(new_run_id().len());
    let beating = shard.beat(Heartbeat::new(&youngest)).await.unwrap();
    let gate = {
        let shard = shard.clone();
        move |request: &Request| {
            let lists_all = request.ask == Ask::List && request.key.is_empty();
            let shard = shard.clone();
            async move {
                if lists_all {
                    shard.agree_on("job", Division::new(&[], 2)).await.unwrap();
                }
                Box::new(()) as Box<dyn Send>
            }
            .boxed()
        }
    };
    let seals = run(&source, &store.gated(Arc::new(gate))).await.unwrap();
    assert_eq!(seals.exit, Exit::Done, "{:?}", seals.error);
    let left = |store: BTreeMap<String, Bytes>| -> Vec<String> {
        store.into_keys().filter(|key| key.starts_with(".moveout/shards/")).collect()
    };
    assert_eq!(left(store.files().await).len(), 1, "the shard may still need it");
    assert_eq!(verified(&store).await, Exit::Done);
    shard.forget_heartbeat(beating.run()).await.unwrap();
    assert_eq!(run(&source, &store).await.unwrap().exit, Exit::Done);
    assert_eq!(left(store.files().await), Vec::<String>::new());
}

/// `object_store` gives such names to what it has not finished; a user may give them, too.
#[tokio::test]
async fn a_users_file_with_a_number_sign_stays_and_stops_the_seal_by_name() {
    for (name, late) in
        [("data/notes#1", false), ("data/notes#1", true), ("notes#1", false), ("notes#1", true)]
    {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("a");
        assert_eq!(export_to(&two_tables(), &root).await.0, Exit::Done);
        let (path, source) = (root.join(name), extended());
        let write = move || std::fs::write(&path, "a user's").unwrap();
        match late {
            false => write(),
            // After the run has looked what there is.
            true => source.play(move |asked| {
                if matches!(asked, Question::Read(_)) {
                    write();
                }
                None
            }),
        }
        let (exit, said) = export_to(&source, &root).await;
        assert_eq!(exit, Exit::Different, "{name}: {said}");
        assert!(said.contains(name), "{said}");
        assert_eq!(std::fs::read(root.join(name)).unwrap(), b"a user's");
        if !late {
            let verified = moveout(["verify", root.to_str().unwrap()]).expect(4);
            let named = format!("{name}: it does not belong to the archive");
            assert!(verified.stdout.contains(&named), "{}", verified.stdout);
        }
        std::fs::remove_file(root.join(name)).unwrap();
        assert_eq!(export_to(&extended(), &root).await.0, Exit::Done);
    }
}

// The parser of URLs takes them for another prefix.
#[test]
fn a_prefix_that_goes_up_is_a_usage_error() {
    for place in ["s3://b/x/../y", "s3://b/x/%2e%2E/y", "s3://b/./y", "s3://b/.."] {
        let export = ["export", "--source", "lp:none.lp", "--archive", place];
        for command in [&["status", place][..], &["verify", place], &export] {
            let run = moveout(command).expect(2);
            assert!(run.stderr.contains("must not have a part `.` or `..`"), "{}", run.stderr);
        }
    }
}

#[tokio::test]
async fn links_and_pipes_in_a_folder_are_named_and_neither_followed_nor_waited_for() {
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("all.01abcdefghi.parquet"), "somebody's").unwrap();
    std::fs::create_dir(outside.path().join("empty")).unwrap();
    for place in
        ["data/link", "data/scripted/d/s/one/link", ".moveout", "data/pipe", "manifest-sha256.txt"]
    {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("a");
        assert_eq!(export_to(&two_tables(), &root).await.0, Exit::Done);
        let path = root.join(place);
        let _ = std::fs::remove_file(&path);
        match place.contains("pipe") || place.contains("manifest") {
            true => {
                assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success())
            }
            false => std::os::unix::fs::symlink(outside.path(), &path).unwrap(),
        }
        let (exit, said) = export_to(&extended(), &root).await;
        assert_eq!(exit, Exit::Different, "{place}: {said}");
        assert!(said.contains(place), "{said}");
        assert!(outside.path().join("all.01abcdefghi.parquet").exists());
        assert!(outside.path().join("empty").exists());
    }
}
