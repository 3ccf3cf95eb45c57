//! The verb `doctor`: tries every source and the destination, and says what would fail. It removes everything that it
//! writes.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{StreamExt, stream};
use indicatif::HumanBytes;
use serde::Serialize;
use tokio::sync::watch;

use crate::archive::runs::new_run_id;
use crate::commands::plan::bytes_per_row;
use crate::config::{Job, Limits, Location, SourceSpec};
use crate::error::{Error, Exit, Result};
use crate::export::summary::UNREADABLE;
use crate::hash::sha256;
use crate::model::Table;
use crate::progress::Progress;
use crate::retry::{Interrupt, Retry};
use crate::source::Source;
use crate::source::aptible::expand;
use crate::source::contact::contact;
use crate::store::Store;
use crate::store::upload::Upload;
use crate::survey::{AT_ONCE, list};
use crate::text::several;

/// For how long a failed request is repeated.
const PATIENCE: Duration = Duration::from_secs(10);
/// For how long tables are asked, and how many at once.
const READING: Duration = Duration::from_secs(20);
const TABLES_AT_ONCE: usize = 50;

/// If the clocks differ by more than this, signatures fail and `now` means another time.
const CLOCK_SECONDS: i64 = 5;

/// What was tried.
#[derive(Debug, Serialize)]
pub struct Diagnosis {
    /// `doctor`.
    pub command: &'static str,
    /// `ok` or `failed`.
    pub status: CheckStatus,
    /// Everything that was tried, in order.
    pub checks: Vec<Check>,
    /// How the process ends.
    #[serde(skip)]
    pub exit: Exit,
}

/// The result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckStatus {
    /// The check succeeded.
    Ok,
    /// The check found something, but an export works all the same.
    Warning,
    /// An export would fail.
    Failed,
}

/// One thing that was tried.
#[derive(Debug, Serialize)]
pub struct Check {
    /// Name of the source, or the archive.
    pub of: String,
    /// What was tried.
    pub what: &'static str,
    /// How it ended.
    pub status: CheckStatus,
    /// The result in words.
    pub found: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// How long it took.
    pub elapsed_ms: u64,
}

/// Tries everything that an export with the same options would use.
pub async fn doctor(
    job: &Job,
    progress: &Progress,
    interrupted: watch::Receiver<bool>,
) -> Result<Diagnosis> {
    let interrupt = Interrupt::new(interrupted);
    let limits = Limits { patience: job.limits.patience.min(PATIENCE), ..job.limits.clone() };
    let retry = Retry::new(&limits, progress, interrupt.clone());
    let expanded = expand(job, progress, &retry).await?;
    interrupt.or(async { Ok(examine(&expanded.job, progress, &retry).await) }).await
}

async fn examine(job: &Job, progress: &Progress, retry: &Retry) -> Diagnosis {
    let limits = job.limits.shared_by(job.sources.len());
    if let several @ [_, _, ..] = job.sources.as_slice() {
        progress.sources(several.iter().map(|spec| spec.name.as_str()));
    }
    // The sources are tried at the same time, as in an export, and reported in the order of the job.
    let (limits, job_sources) = (&limits, job.sources.iter().enumerate());
    let tried = stream::iter(job_sources)
        .map(|(place, spec)| async move {
            progress.asking(&spec.name, &format!("trying {}", spec.name));
            let mut checks = Vec::new();
            let mut of = Checks { of: spec.name.clone(), checks: &mut checks };
            let reached = of.step("reach", contact(spec, limits, retry), |(_, info)| {
                format!("{}, {}", info.version, info.address)
            });
            let bytes = match reached.await {
                Some((source, _)) => try_source(spec, source.as_ref(), retry, &mut of).await,
                None => None,
            };
            progress.asked(&spec.name);
            (place, checks, bytes)
        })
        .buffer_unordered(AT_ONCE);
    let mut tried: Vec<_> = tried.collect().await;
    tried.sort_by_key(|(place, ..)| *place);
    let (mut checks, mut needed) = (Vec::new(), Some(0u64));
    for (_, of_source, bytes) in tried {
        checks.extend(of_source);
        needed = needed.zip(bytes).map(|(needed, bytes)| needed.saturating_add(bytes));
    }
    if let Some(place) = &job.archive {
        progress.doing(&format!("trying {place}"));
        let mut of = Checks { of: place.url.clone(), checks: &mut checks };
        try_store(place, needed, &mut of).await;
    }
    progress.end();
    let failed = checks.iter().any(|check| check.status == CheckStatus::Failed);
    let (status, exit) =
        if failed { (CheckStatus::Failed, Exit::Failed) } else { (CheckStatus::Ok, Exit::Done) };
    Diagnosis { command: "doctor", status, checks, exit }
}

struct Checks<'a> {
    of: String,
    checks: &'a mut Vec<Check>,
}

impl Checks<'_> {
    fn add(&mut self, what: &'static str, began: Instant, status: CheckStatus, found: String) {
        self.checks.push(Check {
            of: self.of.clone(),
            what,
            status,
            found,
            hint: None,
            elapsed_ms: began.elapsed().as_millis() as u64,
        });
    }

    fn failed(&mut self, what: &'static str, began: Instant, error: &Error) {
        self.add(what, began, CheckStatus::Failed, error.to_string());
        if let Some(check) = self.checks.last_mut() {
            check.hint = error.hint_text().map(str::to_owned);
        }
    }

    /// Runs a step. `None` if it failed, so that the steps which depend on it are skipped.
    async fn step<T>(
        &mut self,
        what: &'static str,
        work: impl Future<Output = Result<T>>,
        found: impl FnOnce(&T) -> String,
    ) -> Option<T> {
        let began = Instant::now();
        match work.await {
            Ok(done) => {
                self.add(what, began, CheckStatus::Ok, found(&done));
                Some(done)
            }
            Err(error) => {
                self.failed(what, began, &error);
                None
            }
        }
    }
}

/// Tries a source. Returns the estimated number of bytes of its export, if the source knows it without reading.
async fn try_source(
    spec: &SourceSpec,
    source: &dyn Source,
    retry: &Retry,
    of: &mut Checks<'_>,
) -> Option<u64> {
    let began = Instant::now();
    match source.clock_ahead().await {
        Ok(None) => {}
        Ok(Some(seconds)) if seconds.abs() <= CLOCK_SECONDS => {
            of.add("clock", began, CheckStatus::Ok, "as here".to_owned());
        }
        Ok(Some(seconds)) => of.add(
            "clock",
            began,
            CheckStatus::Warning,
            format!(
                "{} s {} this one",
                seconds.abs(),
                if seconds > 0 { "ahead of" } else { "behind" }
            ),
        ),
        Err(error) => of.failed("clock", began, &error),
    }
    // The list is made as in an export, so that both fail for the same tables.
    let listed = of.step("list", list(spec, source, retry), |listing| {
        let dumps = listing.tables.iter().filter(|table| table.is_dump()).count();
        let mut found = several((listing.tables.len() - dumps) as u64, "table");
        if dumps > 0 {
            found.push_str(&format!(", {}", several(dumps as u64, "dump")));
        }
        if !listing.excluded.is_empty() {
            let excluded = several(listing.excluded.len() as u64, "thing");
            found.push_str(&format!(", {excluded} left out"));
        }
        found
    });
    let listing = listed.await?;
    for warning in listing.warnings {
        of.add("list", Instant::now(), CheckStatus::Warning, warning);
    }
    for (table, why) in &listing.unreadable {
        let error = if table.is_dump() {
            Error::fail(format!("the {table} cannot be taken: {why}"))
        } else {
            Error::fail(format!("{table} cannot be read: {why}")).hint(UNREADABLE)
        };
        of.failed(if table.is_dump() { "dump" } else { "list" }, Instant::now(), &error);
    }
    for table in listing.tables.iter().filter(|table| table.is_dump()) {
        let Some(plan) = source.dump(&table.id) else { continue };
        let found =
            format!("{}: by {}; not checked: what the user may dump", table.id, plan.program);
        of.add("dump", Instant::now(), CheckStatus::Ok, found);
    }
    let tables: Vec<Table> = listing.tables.into_iter().filter(|table| !table.is_dump()).collect();
    try_tables(source, &tables, retry, of).await;
    let bytes = tables
        .iter()
        .map(|table| Some((source.size(&table.id).rows? as f64 * bytes_per_row(table)) as u64));
    bytes.sum()
}

/// Asks as many tables as time allows for their first and last row, which is what an export does next.
async fn try_tables(source: &dyn Source, tables: &[Table], retry: &Retry, of: &mut Checks<'_>) {
    if tables.is_empty() {
        return;
    }
    let began = Instant::now();
    let mut asked = 0;
    for some in tables.chunks(TABLES_AT_ONCE) {
        // Where reading is billed, one table stands for all.
        let some = if source.metering().is_some() { &some[..1] } else { some };
        if let Err(error) = retry.with_retry(source.name(), || source.bounds(some)).await {
            return of.failed("read", began, &error);
        }
        asked += some.len();
        if began.elapsed() > READING || source.metering().is_some() {
            break;
        }
    }
    let all = several(tables.len() as u64, "table");
    let mut found = if asked == tables.len() {
        format!("all {all} can be listed and asked for their first and last row")
    } else {
        format!("{all} can be listed, and {asked} of them were asked for both ends")
    };
    found.push_str("; not checked: every row, and the definitions beside them");
    of.add("read", began, CheckStatus::Ok, found);
}

async fn try_store(place: &Location, needed: Option<u64>, of: &mut Checks<'_>) {
    let Some(probe) =
        of.step("open", async { Store::probe(place) }, |probe| probe.description.clone()).await
    else {
        return;
    };
    let store = &probe.store;
    if let Some(free) = probe.free_bytes {
        let (status, needed) = match needed {
            Some(needed) if needed > free => (CheckStatus::Warning, Some(needed)),
            needed => (CheckStatus::Ok, needed),
        };
        let needed = match needed {
            Some(needed) => format!("an export takes about {}", HumanBytes(needed)),
            None => "`moveout plan` says how much an export takes".to_owned(),
        };
        of.add("space", Instant::now(), status, format!("{} free; {needed}", HumanBytes(free)));
    }
    // A disk has files that are written and read. A bucket has objects and requests of its own.
    let says =
        |bucket: &'static str, disk: &'static str| if place.is_bucket() { bucket } else { disk };
    let objects = says("object", "file");
    let folder = format!(".moveout/doctor-{}", new_run_id());
    let key = format!("{folder}/small");
    let text = || Bytes::from_static(b"moveout was here");
    let nothing = |(): &()| String::new();
    if of.step(says("put", "write"), store.put(&key, text()), nothing).await.is_some() {
        let same = |found: Option<Bytes>| match found {
            Some(bytes) if bytes == text() => Ok(()),
            Some(_) => {
                Err(Error::stop("the file that was written is read back with other content"))
            }
            None => Err(Error::stop("the file that was written is missing")),
        };
        of.step(says("get", "read"), async { same(store.get(&key).await?) }, nothing).await;
        let range = async {
            match store.range(&key, 8..11).await? {
                bytes if bytes.as_ref() == b"was" => Ok(()),
                bytes => Err(Error::stop(format!(
                    "the store returned {} bytes that are not the requested ones",
                    bytes.len()
                ))),
            }
        };
        of.step(says("get a range", "read a part"), range, nothing).await;
        let began = Instant::now();
        match store.put_if_absent(&key, Bytes::from_static(b"overwritten")).await {
            Ok(false) => of.add(
                says("put if absent", "create if absent"),
                began,
                CheckStatus::Ok,
                String::new(),
            ),
            // Nothing depends on it.
            Ok(true) => of.add(
                says("put if absent", "create if absent"),
                began,
                CheckStatus::Ok,
                "the store ignores it; not needed".to_owned(),
            ),
            Err(error) => of.failed(says("put if absent", "create if absent"), began, &error),
        }
        of.step(
            says("upload in parts", "write in parts"),
            upload(store, &format!("{folder}/parts")),
            nothing,
        )
        .await;
        let list = async {
            match store.list(&folder).await?.len() {
                2 => Ok(()),
                found => Err(Error::stop(format!("{found} of 2 {objects}s are listed"))),
            }
        };
        of.step("list", list, nothing).await;
        let began = Instant::now();
        match store.lists_staged().await {
            Ok(true) => of.add(
                says("list unfinished uploads", "list unfinished files"),
                began,
                CheckStatus::Ok,
                String::new(),
            ),
            Ok(false) => {
                of.add(
                    says("list unfinished uploads", "list unfinished files"),
                    began,
                    CheckStatus::Warning,
                    "the store does not".to_owned(),
                );
                if let Some(check) = of.checks.last_mut() {
                    check.hint = Some(
                        "let a lifecycle rule of the bucket remove uploads that a killed run left"
                            .to_owned(),
                    );
                }
            }
            Err(error) => {
                of.failed(says("list unfinished uploads", "list unfinished files"), began, &error)
            }
        }
    }
    let delete = async {
        for (key, _) in store.list(&folder).await? {
            store.delete(&key).await?;
        }
        match store.list(&folder).await?.len() {
            0 => Ok(()),
            left => Err(Error::stop(format!("{} left behind", several(left as u64, objects)))),
        }
    };
    of.step("delete", delete, nothing).await;
    probe.tidy(&folder);
}

/// Uploads two parts, of which the second is short, and reads the bytes back.
async fn upload(store: &Store, key: &str) -> Result<()> {
    let bytes: Vec<u8> = (0..store.part_bytes() + 1000).map(|at| (at % 251) as u8).collect();
    let hash = sha256(&bytes);
    let bytes = Bytes::from(bytes);
    let mut upload = Upload::new(store.clone(), key);
    for part in [bytes.slice(..store.part_bytes()), bytes.slice(store.part_bytes()..)] {
        if let Err(error) = upload.write(part).await {
            upload.abort().await;
            return Err(error);
        }
    }
    upload.complete().await?;
    match crate::store::reading::hash_object(store, key).await? {
        Some((found, _)) if found == hash => Ok(()),
        Some(_) => Err(Error::stop("the upload is read back with other content")),
        None => Err(Error::stop("the upload is missing")),
    }
}
