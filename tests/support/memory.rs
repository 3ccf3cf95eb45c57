//! An object store in memory that counts what it is asked, and misbehaves where a test wants it.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult,
    Result, UploadPart,
};

/// What a store is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Ask {
    List,
    Head,
    Get,
    Put,
    /// Begins an upload in parts.
    Create,
    Part,
    Complete,
    Abort,
    Delete,
}

/// One request. `Display` is how a test names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) ask: Ask,
    pub(crate) key: String,
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}", self.ask, self.key)
    }
}

/// How a request goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// It is acknowledged and not done; what is read is not there.
    Dropped,
    /// It fails, and nothing is done.
    Failed,
    /// It is done, and the answer says that it failed.
    DoneThoughFailed,
    /// The answer says that it failed, and a few requests later it is done.
    Late,
    /// It is done twice.
    Repeated,
    /// One bit of the bytes is another, of what is written or of what is read.
    Changed,
    /// The answer is that of before the last change; a listing leaves out the last object.
    Stale,
}

impl Wrong {
    pub(crate) const ALL: [Self; 7] = [
        Self::Dropped,
        Self::Failed,
        Self::DoneThoughFailed,
        Self::Late,
        Self::Repeated,
        Self::Changed,
        Self::Stale,
    ];
}

/// A turn that a request waits for. What it gets then is dropped when the request is done.
pub(crate) type Gate =
    Arc<dyn Fn(&Request) -> futures::future::BoxFuture<'static, Box<dyn Send>> + Send + Sync>;
type Script = Box<dyn FnMut(usize, &Request) -> Option<Wrong> + Send>;

/// A request whose turn it is.
struct Turn {
    number: usize,
    wrong: Option<Wrong>,
    _done: Option<Box<dyn Send>>,
}

/// So many requests later is late.
const LATE: usize = 4;

/// What is done later, and before which request: bytes under a key, or none any more.
struct Later {
    due: usize,
    key: Path,
    bytes: Option<(Bytes, PutMode)>,
}

/// A store in memory. Clones share what is in it, each has its own record and script.
pub(crate) struct Memory {
    objects: Arc<InMemory>,
    before: Arc<Mutex<HashMap<Path, Option<Bytes>>>>,
    late: Mutex<Vec<Later>>,
    asked: Mutex<Vec<Request>>,
    script: Mutex<Script>,
    gate: Option<Gate>,
    /// How many commits the runs over it fold into a segment.
    pub(crate) fold_commits: AtomicUsize,
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Memory")
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("memory")
    }
}

fn failed() -> object_store::Error {
    object_store::Error::Generic { store: "memory", source: "the test lets it fail".into() }
}

fn absent(key: &Path) -> object_store::Error {
    object_store::Error::NotFound { path: key.to_string(), source: "the test hides it".into() }
}

fn whole(payload: PutPayload) -> Bytes {
    payload.iter().flatten().copied().collect()
}

fn changed(bytes: &Bytes, at: usize) -> Bytes {
    let mut bytes = bytes.to_vec();
    match bytes.len() {
        0 => bytes.push(b'0'),
        length => bytes[at % length] ^= 1,
    }
    bytes.into()
}

impl Memory {
    pub(crate) fn new() -> Arc<Self> {
        Self::over(Arc::new(InMemory::new()), None)
    }

    /// Another way to the same objects, whose requests wait for their turn.
    pub(crate) fn gated(&self, gate: Gate) -> Arc<Self> {
        self.folding_alike(Self::over(Arc::clone(&self.objects), Some(gate)))
    }

    fn folding_alike(&self, other: Arc<Self>) -> Arc<Self> {
        other.fold_commits.store(self.fold_commits.load(Ordering::SeqCst), Ordering::SeqCst);
        other
    }

    fn over(objects: Arc<InMemory>, gate: Option<Gate>) -> Arc<Self> {
        Arc::new(Self {
            objects,
            before: Arc::default(),
            late: Mutex::default(),
            asked: Mutex::default(),
            script: Mutex::new(Box::new(|_, _| None)),
            gate,
            fold_commits: AtomicUsize::new(1000),
        })
    }

    /// A copy of what is in it, with a record of its own.
    pub(crate) async fn copy(&self) -> Arc<Self> {
        let copy = self.folding_alike(Self::new());
        for (key, bytes) in self.files().await {
            copy.objects.put(&Path::from(key), bytes.into()).await.unwrap();
        }
        copy
    }

    /// From now on this decides what becomes of each request; the first has number 0.
    pub(crate) fn play(
        &self,
        script: impl FnMut(usize, &Request) -> Option<Wrong> + Send + 'static,
    ) {
        self.asked.lock().unwrap().clear();
        self.late.lock().unwrap().iter_mut().for_each(|later| later.due = 0);
        *self.script.lock().unwrap() = Box::new(script);
    }

    /// Everything that was asked since the script began.
    pub(crate) fn asked(&self) -> Vec<Request> {
        self.asked.lock().unwrap().clone()
    }

    /// How often each kind of request was made.
    pub(crate) fn counts(&self) -> BTreeMap<Ask, usize> {
        let mut counts = BTreeMap::new();
        for request in self.asked.lock().unwrap().iter() {
            *counts.entry(request.ask).or_default() += 1;
        }
        counts
    }

    /// All objects, past record and script.
    pub(crate) async fn files(&self) -> BTreeMap<String, Bytes> {
        let metas: Vec<ObjectMeta> = self.objects.list(None).try_collect().await.unwrap();
        let mut files = BTreeMap::new();
        for meta in metas {
            let bytes = self.objects.get(&meta.location).await.unwrap().bytes().await.unwrap();
            files.insert(meta.location.to_string(), bytes);
        }
        files
    }

    /// Puts an object there, past record and script; `None` removes it.
    pub(crate) async fn set(&self, key: &str, bytes: Option<Bytes>) {
        match bytes {
            Some(bytes) => drop(self.objects.put(&Path::from(key), bytes.into()).await.unwrap()),
            None => self.objects.delete(&Path::from(key)).await.unwrap(),
        }
    }

    async fn turn(&self, ask: Ask, key: &Path) -> Turn {
        let request = Request { ask, key: key.to_string() };
        let _done = match &self.gate {
            Some(gate) => Some(gate(&request).await),
            None => None,
        };
        let number = self.asked.lock().unwrap().len();
        for Later { key, bytes, .. } in self.due(number) {
            self.remember(&key).await;
            let _ = match bytes {
                Some((bytes, mode)) => {
                    self.objects.put_opts(&key, bytes.into(), mode.into()).await.map(|_| ())
                }
                None => self.objects.delete(&key).await,
            };
        }
        let wrong = (self.script.lock().unwrap())(number, &request);
        self.asked.lock().unwrap().push(request);
        Turn { number, wrong, _done }
    }

    fn due(&self, number: usize) -> Vec<Later> {
        self.late.lock().unwrap().extract_if(.., |later| later.due <= number).collect()
    }

    fn later(&self, number: usize, key: &Path, bytes: Option<(Bytes, PutMode)>) {
        let later = Later { due: number + LATE, key: key.clone(), bytes };
        self.late.lock().unwrap().push(later);
    }

    /// Puts bytes under a key, or does what is wrong with that.
    async fn write(
        &self,
        Turn { number, wrong, _done }: Turn,
        key: &Path,
        bytes: Bytes,
        mode: PutMode,
    ) -> Result<PutResult> {
        let result = PutResult { e_tag: None, version: None, extensions: Default::default() };
        let bytes = match wrong {
            Some(Wrong::Dropped | Wrong::Stale) => return Ok(result),
            Some(Wrong::Failed) => return Err(failed()),
            Some(Wrong::Late) => {
                self.later(number, key, Some((bytes, mode)));
                return Err(failed());
            }
            Some(Wrong::Changed) => changed(&bytes, number * 7),
            _ => bytes,
        };
        self.remember(key).await;
        if wrong == Some(Wrong::Repeated) {
            let _ = self.objects.put_opts(key, bytes.clone().into(), mode.clone().into()).await;
        }
        let done = self.objects.put_opts(key, bytes.into(), mode.into()).await;
        match wrong {
            Some(Wrong::DoneThoughFailed) => Err(failed()),
            _ => done,
        }
    }

    async fn remember(&self, key: &Path) {
        let bytes = match self.objects.get(key).await {
            Ok(object) => Some(object.bytes().await.unwrap()),
            Err(_) => None,
        };
        self.before.lock().unwrap().insert(key.clone(), bytes);
    }

    async fn delete_one(self: Arc<Self>, key: Path) -> Result<Path> {
        let Turn { number, wrong, _done } = self.turn(Ask::Delete, &key).await;
        match wrong {
            Some(Wrong::Dropped | Wrong::Stale | Wrong::Changed) => return Ok(key),
            Some(Wrong::Failed) => return Err(failed()),
            Some(Wrong::Late) => {
                self.later(number, &key, None);
                return Err(failed());
            }
            _ => {}
        }
        self.remember(&key).await;
        let done = self.objects.delete(&key).await;
        match wrong {
            Some(Wrong::DoneThoughFailed) => return Err(failed()),
            Some(Wrong::Repeated) => self.objects.delete(&key).await.ok(),
            _ => done.ok(),
        };
        Ok(key)
    }
}

/// What is handed to the program: a `Memory` as an `ObjectStore`.
#[derive(Debug, Clone)]
pub(crate) struct Handle(pub(crate) Arc<Memory>);

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("memory")
    }
}

#[async_trait]
impl ObjectStore for Handle {
    async fn put_opts(
        &self,
        key: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        let turn = self.0.turn(Ask::Put, key).await;
        self.0.write(turn, key, whole(payload), opts.mode).await
    }

    async fn put_multipart_opts(
        &self,
        key: &Path,
        _: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let Turn { wrong, _done, .. } = self.0.turn(Ask::Create, key).await;
        if matches!(wrong, Some(Wrong::Failed | Wrong::DoneThoughFailed | Wrong::Late)) {
            return Err(failed());
        }
        // One that was not begun, although it seemed so.
        let parts = (wrong != Some(Wrong::Dropped)).then(Arc::default);
        Ok(Box::new(Parts { of: Arc::clone(&self.0), key: key.clone(), next: 0, parts }))
    }

    async fn get_opts(&self, key: &Path, options: GetOptions) -> Result<GetResult> {
        let head = options.head;
        let ask = if head { Ask::Head } else { Ask::Get };
        let Turn { number, wrong, _done } = self.0.turn(ask, key).await;
        match wrong {
            Some(Wrong::Failed | Wrong::DoneThoughFailed | Wrong::Late) => return Err(failed()),
            Some(Wrong::Dropped) => return Err(absent(key)),
            _ => {}
        }
        if wrong == Some(Wrong::Stale) {
            let before = self.0.before.lock().unwrap().get(key).cloned();
            match before {
                Some(None) => return Err(absent(key)),
                Some(Some(bytes)) => {
                    // As it was: a store of its own has the object in that version.
                    let old = InMemory::new();
                    old.put(key, bytes.into()).await?;
                    return old
                        .get_opts(
                            key,
                            GetOptions { range: options.range, head, ..Default::default() },
                        )
                        .await;
                }
                None => {}
            }
        }
        let result = self.0.objects.get_opts(key, options).await?;
        if wrong != Some(Wrong::Changed) || head {
            return Ok(result);
        }
        let (meta, range, attributes) =
            (result.meta.clone(), result.range.clone(), result.attributes.clone());
        let extensions = result.extensions.clone();
        let bytes = changed(&result.bytes().await?, number * 7);
        let payload = GetResultPayload::Stream(stream::once(async { Ok(bytes) }).boxed());
        Ok(GetResult { payload, meta, range, attributes, extensions })
    }

    async fn get_ranges(&self, key: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let mut all = Vec::new();
        for range in ranges {
            all.push(self.get_range(key, range.clone()).await?);
        }
        Ok(all)
    }

    fn delete_stream(
        &self,
        keys: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let of = Arc::clone(&self.0);
        keys.and_then(move |key| Arc::clone(&of).delete_one(key)).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (of, prefix) = (Arc::clone(&self.0), prefix.cloned());
        let list = async move {
            let Turn { number, wrong, _done } =
                of.turn(Ask::List, &prefix.clone().unwrap_or_default()).await;
            if matches!(wrong, Some(Wrong::Failed | Wrong::DoneThoughFailed | Wrong::Late)) {
                return stream::iter(vec![Err(failed())]);
            }
            let listed = of.objects.list(prefix.as_ref()).try_collect().await;
            let mut metas: Vec<ObjectMeta> = listed.unwrap();
            metas.sort_by(|a, b| a.location.cmp(&b.location));
            match wrong {
                Some(Wrong::Dropped) => metas.clear(),
                Some(Wrong::Stale) => drop(metas.pop()),
                Some(Wrong::Changed) if !metas.is_empty() => {
                    drop(metas.remove(number % metas.len()));
                }
                Some(Wrong::Repeated) => metas.extend(metas.clone()),
                _ => {}
            }
            stream::iter(metas.into_iter().map(Ok).collect::<Vec<_>>())
        };
        list.flatten_stream().boxed()
    }

    async fn list_with_delimiter(&self, _: Option<&Path>) -> Result<ListResult> {
        Err(failed()) // nobody asks
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(failed()) // nobody asks
    }
}

/// An upload in parts, by their numbers: one that is written twice is there once.
#[derive(Debug)]
struct Parts {
    of: Arc<Memory>,
    key: Path,
    next: usize,
    /// `None` where the store knows no such upload.
    parts: Option<Arc<Mutex<BTreeMap<usize, Bytes>>>>,
}

#[async_trait]
impl MultipartUpload for Parts {
    fn put_part(&mut self, payload: PutPayload) -> UploadPart {
        // The place of a part is given when it is begun.
        let place = self.next;
        self.next += 1;
        let (of, key, parts) = (Arc::clone(&self.of), self.key.clone(), self.parts.clone());
        async move {
            let Turn { number, wrong, _done } = of.turn(Ask::Part, &key).await;
            let mut bytes = whole(payload);
            match wrong {
                Some(Wrong::Failed | Wrong::Late) => return Err(failed()),
                Some(Wrong::Dropped | Wrong::Stale) => return Ok(()),
                Some(Wrong::Changed) => bytes = changed(&bytes, number * 7),
                _ => {}
            }
            let parts = parts.ok_or_else(|| absent(&key))?;
            parts.lock().unwrap().insert(place, bytes);
            if wrong == Some(Wrong::DoneThoughFailed) { Err(failed()) } else { Ok(()) }
        }
        .boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let turn = self.of.turn(Ask::Complete, &self.key).await;
        let parts = self.parts.clone().ok_or_else(|| absent(&self.key))?;
        let parts: Vec<Bytes> = parts.lock().unwrap().values().cloned().collect();
        self.of.write(turn, &self.key, parts.concat().into(), PutMode::Overwrite).await
    }

    async fn abort(&mut self) -> Result<()> {
        let Turn { wrong, _done, .. } = self.of.turn(Ask::Abort, &self.key).await;
        match wrong {
            Some(Wrong::Failed | Wrong::DoneThoughFailed | Wrong::Late) => Err(failed()),
            _ => Ok(()),
        }
    }
}
