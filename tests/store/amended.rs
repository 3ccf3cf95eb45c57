//! What is put into a sealed archive afterwards: the verdict, the report, the signature. Whatever goes wrong at
//! whichever request, the archive stays sealed, whole and valid.

use std::sync::Arc;

use bytes::Bytes;
use moveout::archive::verdict::{Stale, VerdictRecord, archive_hash};
use moveout::archive::{Archive, LastVerdict, REPORT, Sign, TAG_MANIFEST, TAG_SIGNATURE, VERDICT};
use moveout::commands::export::export;
use moveout::commands::verify::{Depth, Options, Report, verify_against_source};
use moveout::config::Flags;
use moveout::error::{Error, Exit};
use moveout::model::Verdict;
use moveout::progress::Progress;
use moveout::retry::Interrupt;
use tokio::sync::watch;

use super::orders::both_in_order;
use super::support::Scripted;
use super::support::memory::{Ask, Memory, Wrong};
use super::support::scripted::numbers;
use super::{Begin, DAY, NEW_YEAR, begin, ended, place, rows, rows_of, run, two_tables, verified};

async fn open(store: &Arc<Memory>) -> Archive {
    Archive::open(&place(store)).await.unwrap()
}

/// A verdict on the archive as it is, told apart by what it says.
async fn verdict(archive: &Archive, says: &str) -> Bytes {
    let record = VerdictRecord {
        format: 2,
        moveout: "test".to_owned(),
        archive: archive_hash(&archive.state().await.unwrap().tags),
        verdict: Verdict::Safe,
        started: "2024-01-01T00:00:00Z".to_owned(),
        ended: "2024-01-01T00:00:01Z".to_owned(),
        depth: says.to_owned(),
        sources: Vec::new(),
        open: Vec::new(),
        compared: Vec::new(),
        stale: Vec::new(),
        excluded: Vec::new(),
        notes: Vec::new(),
    };
    serde_json::to_vec(&record).unwrap().into()
}

/// The signature in these tests is the hash of what is signed.
fn signed(manifest: &[u8]) -> Result<Bytes, Error> {
    Ok(moveout::hash::sha256(manifest).into_bytes().into())
}

const SIGN: Sign<'static> = &signed;

/// Puts a verdict, a report and a signature.
async fn amend(store: &Arc<Memory>, says: &str) -> Result<(), Error> {
    let archive = open(store).await;
    let tags = Arc::clone(&archive.state().await.unwrap().tags);
    let files = vec![
        (VERDICT, verdict(&archive, says).await),
        (REPORT, Bytes::from(format!("<html>{says}"))),
    ];
    archive.amend(&tags, files, Some(SIGN)).await
}

async fn last(store: &Arc<Memory>) -> LastVerdict {
    open(store).await.verdict().await.unwrap()
}

/// What the valid verdict says, where there is one. Report and signature say the same, or are not there.
async fn says(store: &Arc<Memory>, what: &str) -> Option<String> {
    assert_eq!(verified(store).await, Exit::Done, "{what}");
    let files = store.files().await;
    if let Some(signature) = files.get(TAG_SIGNATURE) {
        assert_eq!(*signature, signed(&files[TAG_MANIFEST]).unwrap(), "{what}");
    }
    let says = last(store).await.valid().map(|record| record.depth);
    let listed = String::from_utf8(files[TAG_MANIFEST].to_vec()).unwrap();
    if listed.contains(REPORT) {
        assert_eq!(files[REPORT], format!("<html>{}", says.clone().unwrap()), "{what}");
    }
    says
}

/// What a killed process leaves is of a process that is no more.
async fn bury(store: &Arc<Memory>) {
    let files = store.files().await;
    for (key, bytes) in files.iter().filter(|(key, _)| key.starts_with(".moveout/runs/")) {
        let mut beat: serde_json::Value = serde_json::from_slice(bytes).unwrap();
        beat["pid_started"] = 1.into();
        store.set(key, Some(beat.to_string().into())).await;
    }
}

fn is_at_work(files: &std::collections::BTreeMap<String, Bytes>) -> bool {
    files.keys().any(|key| key.starts_with(".moveout/"))
}

#[tokio::test]
async fn a_verdict_is_put_and_replaced_and_does_not_outlive_a_change_of_the_archive() {
    let (source, store) = begin(Begin::Extended).await;
    assert_eq!(last(&store).await, LastVerdict::default());
    for one in ["one", "two"] {
        amend(&store, one).await.unwrap();
        assert_eq!(says(&store, one).await.as_deref(), Some(one));
        let files = store.files().await;
        assert!(files.contains_key(TAG_SIGNATURE) && !is_at_work(&files), "{one}");
    }
    // A new verdict without report and signature: those of the old one say nothing any more.
    let archive = open(&store).await;
    let tags = Arc::clone(&archive.state().await.unwrap().tags);
    archive.amend(&tags, vec![(VERDICT, verdict(&archive, "three").await)], None).await.unwrap();
    let files = store.files().await;
    assert!(!files.contains_key(REPORT) && !files.contains_key(TAG_SIGNATURE));
    assert_eq!(says(&store, "three").await.as_deref(), Some("three"));
    amend(&store, "four").await.unwrap();
    // What was seen before is not what is there now.
    let error = archive.amend(&tags, vec![(REPORT, Bytes::new())], None).await.unwrap_err();
    assert_eq!(error.exit(), Exit::Incomplete, "{error}");
    assert_eq!(says(&store, "four").await.as_deref(), Some("four"));
    assert!(!is_at_work(&store.files().await));

    // The export adds rows, and the next one has nothing to do.
    let stale = Arc::clone(&archive.state().await.unwrap().tags);
    assert_eq!(run(&source, &store).await.unwrap().exit, Exit::Done);
    let files = store.files().await;
    assert!([VERDICT, REPORT, TAG_SIGNATURE].iter().all(|key| !files.contains_key(*key)));
    assert_eq!(says(&store, "extended").await, None);
    let file = vec![(VERDICT, verdict(&archive, "late").await)];
    let error = archive.amend(&stale, file, None).await.unwrap_err();
    assert!(error.to_string().contains("changed meanwhile"), "{error}");
    amend(&store, "five").await.unwrap();
    let before = store.files().await;
    assert_eq!(run(&source, &store).await.unwrap().exit, Exit::Done);
    assert_eq!(store.files().await, before, "a run with nothing to do changes nothing");
    assert_eq!(says(&store, "five").await.as_deref(), Some("five"));
}

#[tokio::test]
async fn a_signer_that_fails_changes_nothing() {
    let (_, store) = begin(Begin::Sealed).await;
    amend(&store, "one").await.unwrap();
    let before = store.files().await;
    let archive = open(&store).await;
    let tags = Arc::clone(&archive.state().await.unwrap().tags);
    let refuses: Sign<'_> = &|_| Err(Error::stop("wrong password"));
    let put = archive.amend(&tags, vec![(REPORT, Bytes::from_static(b"new"))], Some(refuses));
    assert_eq!(put.await.unwrap_err().to_string(), "wrong password");
    assert_eq!(store.files().await, before);
}

#[tokio::test]
async fn putting_a_verdict_may_be_killed_at_any_step() {
    let (source, whole) = begin(Begin::Sealed).await;
    amend(&whole, "old").await.unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for number in 0.. {
        let store = whole.copy().await;
        // The archive is open, and what it says is read.
        let archive = open(&store).await;
        let tags = Arc::clone(&archive.state().await.unwrap().tags);
        let file = vec![(VERDICT, verdict(&archive, "new").await), (REPORT, "<html>new".into())];
        store.play(move |at, _| (at >= number).then_some(Wrong::Failed));
        let done = archive.amend(&tags, file, Some(SIGN)).await.is_ok();
        bury(&store).await;
        let what = format!("killed at request {number}");
        let said = says(&store, &what).await;
        assert!(!done || said.as_deref() == Some("new"), "{what}");
        seen.insert(said);
        // Either of these cleans up.
        let other = store.copy().await;
        amend(&store, "next").await.unwrap();
        assert!(!is_at_work(&store.files().await), "{what}");
        assert_eq!(says(&store, &what).await.as_deref(), Some("next"));
        assert_eq!(run(&source, &other).await.unwrap().exit, Exit::Done, "{what}");
        assert!(!is_at_work(&other.files().await), "{what}");
        assert_eq!(verified(&other).await, Exit::Done, "{what}");
        assert_eq!(rows(&other).await, rows_of(&source), "{what}");
        if done {
            assert!(number > 20, "{number}");
            break;
        }
    }
    let expected = [None, Some("new".to_owned()), Some("old".to_owned())];
    assert_eq!(seen, expected.into());
}

#[tokio::test]
async fn putting_a_verdict_survives_any_request_that_goes_wrong() {
    let (source, whole) = begin(Begin::Sealed).await;
    amend(&whole, "old").await.unwrap();
    let mut puts = 0;
    for wrong in Wrong::ALL {
        for nth in 0.. {
            let store = whole.copy().await;
            let archive = open(&store).await;
            let tags = Arc::clone(&archive.state().await.unwrap().tags);
            let file = vec![(VERDICT, verdict(&archive, "new").await)];
            store.play(move |at, _| (at == nth).then_some(wrong));
            let put = archive.amend(&tags, file, Some(SIGN)).await;
            let asked = store.asked();
            let Some(request) = asked.get(nth) else { break };
            let what = format!("request {nth} ({request}) {wrong:?}: {put:?}");
            bury(&store).await;
            let files = store.files().await;
            if put.is_ok() {
                assert_eq!(says(&store, &what).await.as_deref(), Some("new"));
            } else if files.contains_key(TAG_MANIFEST) {
                says(&store, &what).await;
            }
            puts += 1;
            assert_eq!(run(&source, &store).await.unwrap().exit, Exit::Done, "{what}");
            assert_eq!(verified(&store).await, Exit::Done, "{what}");
            assert_eq!(rows(&store).await, rows_of(&source), "{what}");
        }
    }
    assert!(puts > 100, "{puts}");
}

#[tokio::test]
async fn a_broken_record_of_a_verdict_is_none() {
    let (_, store) = begin(Begin::Sealed).await;
    amend(&store, "one").await.unwrap();
    let whole = store.files().await[VERDICT].clone();
    for nonsense in [&b""[..], b"{", b"[]", b"null", b"\xff\xfe", b"{\"format\": 2}", &whole[1..]] {
        store.set(VERDICT, Some(Bytes::copy_from_slice(nonsense))).await;
        let last = last(&store).await;
        assert_eq!(last.record, None, "{nonsense:?}");
        assert!(last.invalid.unwrap().contains("cannot be read"), "{nonsense:?}");
        // It is listed, and so it is a fault of the archive.
        assert_eq!(verified(&store).await, Exit::Different, "{nonsense:?}");
    }
    let newer = String::from_utf8(whole.to_vec()).unwrap().replace("\"format\":2", "\"format\":99");
    store.set(VERDICT, Some(newer.into())).await;
    assert!(last(&store).await.invalid.unwrap().contains("has format 99"));
    // Another verdict than the one that is listed, well formed.
    let other = String::from_utf8(whole.to_vec()).unwrap().replace("one", "two");
    store.set(VERDICT, Some(other.into())).await;
    assert!(last(&store).await.invalid.is_some());
    store.set(VERDICT, None).await;
    assert_eq!(last(&store).await, LastVerdict::default());
    assert_eq!(verified(&store).await, Exit::Different, "it is listed and gone");
}

/// Exports a file and compares it; what is asked of the store while it is compared goes as the script says.
struct Compared {
    folder: tempfile::TempDir,
    store: Arc<Memory>,
}

impl Compared {
    async fn new() -> Self {
        let this = Self { folder: tempfile::TempDir::new().unwrap(), store: Memory::new() };
        this.write("m v=1 1000\n");
        let (_stop, stopped) = watch::channel(false);
        let mut job = moveout::config::load(this.flags()).unwrap();
        job.archive = Some(place(&this.store));
        let summary = export(&job, &Progress::silent(), stopped).await.unwrap();
        assert_eq!(summary.exit, Exit::Done);
        this
    }

    fn write(&self, lines: &str) {
        std::fs::write(self.folder.path().join("a.lp"), lines).unwrap();
    }

    fn flags(&self) -> Flags {
        let source = format!("lp:{}", self.folder.path().join("a.lp").display());
        Flags { sources: vec![source], ..Flags::default() }
    }

    /// Compares an archive with the file.
    async fn verify(&self, store: &Arc<Memory>) -> Result<Report, Error> {
        let (_stop, stopped) = watch::channel(false);
        let (depth, silent) = (Depth { read_again: 0.0 }, Progress::silent());
        let (options, stop) = (Options::default(), Interrupt::new(stopped));
        let place = place(store);
        verify_against_source(&place, options, depth, self.flags(), None, &silent, stop).await
    }
}

#[tokio::test]
async fn a_store_that_cannot_be_written_does_not_spoil_the_answer() {
    let compared = Compared::new().await;
    let before = compared.store.files().await;
    compared.store.play(|_, asked| (asked.ask == Ask::Put).then_some(Wrong::Failed));
    let report = compared.verify(&compared.store).await.unwrap();
    let against = report.against.unwrap();
    assert_eq!((report.exit, against.verdict), (Exit::Done, Verdict::Safe), "{against:?}");
    let note = against.notes.iter().find(|note| note.contains("was not recorded")).unwrap();
    assert!(note.contains("the test lets it fail"), "{note}");
    assert_eq!(compared.store.files().await, before);
    compared.store.play(|_, _| None);
    let report = compared.verify(&compared.store).await.unwrap();
    assert_eq!(report.against.unwrap().notes, [""; 0]);
    assert_eq!(last(&compared.store).await.valid().unwrap().verdict, Verdict::Safe);
}

#[tokio::test]
async fn an_archive_that_is_changed_while_it_is_compared_is_not_safe() {
    let compared = Compared::new().await;
    // Another run takes off the seal, or seals again, at any moment of it.
    for number in 0.. {
        let store = compared.store.copy().await;
        let text = String::from_utf8(store.files().await[TAG_MANIFEST].to_vec()).unwrap();
        let hash = text.split_once("  ").unwrap().0;
        let changed = Bytes::from(text.replacen(hash, &"0".repeat(64), 1));
        let seen = Arc::new(std::sync::Mutex::new(None));
        let told = Arc::clone(&seen);
        let to = Arc::clone(&store);
        store.play(move |at, asked| {
            if at == number {
                *told.lock().unwrap() = Some(asked.to_string());
                futures::executor::block_on(to.set(TAG_MANIFEST, Some(changed.clone())));
            }
            None
        });
        let report = compared.verify(&store).await;
        let Some(at) = seen.lock().unwrap().clone() else { break };
        let Ok(report) = report else { continue };
        let against = report.against.unwrap();
        let recorded = store.files().await.contains_key(VERDICT);
        // Once the record is put, the change comes after the verdict.
        assert!(against.verdict == Verdict::NotYet || recorded, "{at}: {against:?}");
    }
}

/// The table `one` with another value and a row less, or without any row.
fn changed(is_empty: bool) -> Arc<Scripted> {
    let source = two_tables();
    let rows = [(Some(NEW_YEAR), 0), (Some(NEW_YEAR + 2 * DAY), 7)];
    let (table, rows) = numbers("one", if is_empty { &[] } else { &rows });
    source.set(table, rows);
    source
}

#[tokio::test]
async fn a_run_that_reads_again_what_a_proof_found_may_be_killed_at_any_step() {
    let (_, whole) = begin(Begin::Sealed).await;
    let archive = open(&whole).await;
    let state = archive.state().await.unwrap();
    let mut record: VerdictRecord =
        serde_json::from_slice(&verdict(&archive, "one").await).unwrap();
    let stale = state.commits.iter().filter(|commit| commit.table == "one");
    record.stale = stale
        .map(|commit| {
            let (table, slice, run) = commit.key();
            Stale { table, slice, run, why: "a row went".to_owned() }
        })
        .collect();
    assert!(!record.stale.is_empty());
    let file = vec![(VERDICT, serde_json::to_vec(&record).unwrap().into())];
    archive.amend(&state.tags, file, None).await.unwrap();
    for is_empty in [false, true] {
        let source = changed(is_empty);
        let mut expected = rows_of(&source);
        expected.retain(|_, rows| !rows.is_empty());
        for number in 0.. {
            let store = whole.copy().await;
            store.play(move |at, _| (at >= number).then_some(Wrong::Failed));
            let _ = run(&source, &store).await;
            let is_over = store.asked().len() <= number;
            bury(&store).await;
            store.play(|_, _| None);
            let what = format!("killed at request {number}");
            let next = run(&source, &store).await.unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(next.exit, Exit::Done, "{what}: {:?}", next.error);
            assert_eq!(verified(&store).await, Exit::Done, "{what}");
            assert_eq!(rows(&store).await, expected, "{what}");
            assert_eq!(last(&store).await, LastVerdict::default(), "{what}");
            assert!(!is_at_work(&store.files().await), "{what}");
            if is_over {
                assert!(number > 50, "{number}");
                break;
            }
        }
    }
}

/// An export that has something to do, or nothing, and a verdict that is put meanwhile, in many orders.
#[tokio::test]
async fn a_verdict_and_an_export_at_once_do_no_harm() {
    let mut random = fastrand::Rng::with_seed(11);
    let mut seen = std::collections::BTreeMap::<(bool, bool), usize>::new();
    for begin_with in [Begin::Sealed, Begin::Extended] {
        let (source, whole) = begin(begin_with).await;
        amend(&whole, "old").await.unwrap();
        for _ in 0..60 {
            let switches: Vec<usize> = (0..4).map(|_| random.usize(1..40)).collect();
            let store = whole.copy().await;
            let work = async |number: usize, store: Arc<Memory>| match number {
                0 => ended(run(&source, &store).await),
                _ => match amend(&store, "new").await {
                    Ok(()) => (Exit::Done, String::new()),
                    Err(error) => (error.exit(), error.to_string()),
                },
            };
            let (exits, _) = both_in_order(&store, &switches, work).await;
            let what = format!("{begin_with:?} {switches:?}: {exits:?}");
            assert_eq!(exits[0].0, Exit::Done, "{what}");
            let files = store.files().await;
            assert!(!is_at_work(&files), "{what}: {:?}", files.keys());
            let said = says(&store, &what).await;
            assert_eq!(rows(&store).await, rows_of(&source), "{what}");
            let is_put = exits[1].0 == Exit::Done;
            // An export that changed the archive after it took the verdict away.
            assert!(is_put || said.as_deref() != Some("new"), "{what}");
            *seen.entry((matches!(begin_with, Begin::Sealed), is_put)).or_default() += 1;
        }
    }
    assert!(seen.contains_key(&(true, true)) && seen.contains_key(&(false, false)), "{seen:?}");
}
