//! A folder or a bucket as an object store, with moveout's durability and error classes. It knows only bytes and keys. Keys
//! consist of safe characters (`archive::keys`), so that no store rewrites them.

mod errors;
mod folder;
pub mod reading;
pub(crate) mod s3;
pub mod upload;
mod write;

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};

pub use self::errors::io_error;
use self::errors::{is_absent, list_error, store_error};
use self::s3::Bucket;

use crate::config::Location;
use crate::error::{Error, Result};

/// How many bytes of a file are read at once.
const PIECE_BYTES: u64 = 1 << 20;

/// The bytes of an object as they arrive.
pub type Pieces = BoxStream<'static, Result<Bytes>>;

/// Where an archive lives.
#[derive(Debug, Clone)]
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    backend: Backend,
    /// The folders that were created for it, the innermost first.
    made: Arc<[PathBuf]>,
}

#[derive(Debug, Clone)]
enum Backend {
    Folder(PathBuf),
    Bucket(Arc<Bucket>),
    Given,
}

/// What the store says about an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its key.
    pub key: String,
    /// Its length.
    pub size_bytes: u64,
    /// When it was written, according to the store's clock.
    pub modified: DateTime<Utc>,
    /// A version that changes whenever the object is written.
    pub version: String,
}

impl From<&ObjectMeta> for Entry {
    fn from(meta: &ObjectMeta) -> Self {
        Self {
            key: meta.location.to_string(),
            size_bytes: meta.size,
            modified: meta.last_modified,
            version: match &meta.e_tag {
                Some(tag) => tag.trim_start_matches("W/").trim_matches('"').to_owned(),
                None => format!("{} {}", meta.size, meta.last_modified.timestamp()),
            },
        }
    }
}

/// What a location holds.
#[derive(Debug, Default)]
pub struct Inventory {
    /// The objects, sorted by key.
    pub objects: Vec<Entry>,
    /// What killed processes left half-written, which the store does not list among its objects.
    pub staged: Vec<Staged>,
    /// The entries of a folder that are neither plain files nor folders, or whose names are not keys: the name and what it
    /// is. A bucket has no such entries.
    pub irregular: Vec<(String, &'static str)>,
}

/// An object that a process, which may be dead, has begun to write: a half-written file or an unfinished upload.
#[derive(Debug)]
pub struct Staged {
    /// The key for which it is meant.
    pub key: String,
    what: StagedAs,
}

impl Staged {
    fn file((key, path): (String, PathBuf)) -> Self {
        Self { key, what: StagedAs::File(path) }
    }

    /// Its name in the folder, or the key for which an upload is meant.
    pub fn name(&self) -> &str {
        match &self.what {
            StagedAs::File(path) => path
                .to_str()
                .and_then(|path| Some(&path[path.rfind(&self.key)?..]))
                .unwrap_or(&self.key),
            StagedAs::Upload(_) => &self.key,
        }
    }
}

#[derive(Debug)]
enum StagedAs {
    File(PathBuf),
    Upload(s3::Unfinished),
}

/// A location that is tested.
#[derive(Debug)]
pub struct Probe {
    /// The store.
    pub store: Store,
    /// What kind of location it is.
    pub description: String,
    /// The free space on the disk, if it is known.
    pub free_bytes: Option<u64>,
}

impl Probe {
    /// Removes the folders that were created for the test.
    pub fn tidy(&self, prefix: &str) {
        self.store.remove_empty_folders(prefix);
        if let Backend::Folder(root) = &self.store.backend {
            let _ = std::fs::remove_dir(root.join(".moveout")); // it fails if a run is at work
        }
        self.store.remove_made();
    }
}

impl Store {
    /// Opens a location for reading. It is an error if there is no such folder.
    pub fn open(place: &Location) -> Result<Self> {
        let made: Arc<[PathBuf]> = Arc::default();
        if let Some(objects) = &place.given {
            return Ok(Self { objects: Arc::clone(objects), backend: Backend::Given, made });
        }
        if place.is_bucket() {
            let bucket = Bucket::open(&place.url, &place.s3)?;
            let objects = bucket.objects();
            return Ok(Self { objects, backend: Backend::Bucket(Arc::new(bucket)), made });
        }
        let root = folder::path_of(&place.url).ok_or_else(|| {
            Error::usage(format!("`{place}` is not a location for an archive"))
                .hint("give a path, such as --archive ./archive, or s3://BUCKET/PREFIX")
        })?;
        if !root.is_dir() {
            return Err(Error::stop(format!("there is no archive at {place}: no such folder")));
        }
        let objects = LocalFileSystem::new_with_prefix(&root)
            .map_err(|error| store_error(error, &format!("opening {place}")))?
            .with_fsync(true); // off by default; a commit must not outlive its data in a power cut
        Ok(Self { objects: Arc::new(objects), backend: Backend::Folder(root), made })
    }

    /// Opens a location for writing. A missing folder is created, but a missing bucket is not.
    pub fn create(place: &Location) -> Result<Self> {
        let mut made = Vec::new();
        if let Some(root) = folder::path_of(&place.url).filter(|_| place.given.is_none()) {
            let is_missing =
                |folder: &&std::path::Path| !folder.as_os_str().is_empty() && !folder.exists();
            let missing = root.ancestors().take_while(is_missing);
            made.extend(missing.map(PathBuf::from));
            std::fs::create_dir_all(&root)
                .map_err(|error| io_error(&error, &format!("creating the folder {place}")))?;
        }
        Ok(Self { made: made.into(), ..Self::open(place)? })
    }

    /// Removes the folders that were created for it, as far as they are empty.
    pub fn remove_made(&self) {
        for folder in self.made.iter() {
            let _ = std::fs::remove_dir(folder); // it fails, rightly, if the folder is not empty
        }
    }

    /// Opens a location for a test.
    pub fn probe(place: &Location) -> Result<Probe> {
        let root = folder::path_of(&place.url).filter(|_| place.given.is_none());
        let store = Self::create(place)?;
        let description = match &store.backend {
            Backend::Folder(_) => "a folder".to_owned(),
            Backend::Bucket(bucket) => format!("a bucket (preset {:?})", bucket.preset),
            Backend::Given => "a store that the caller provides".to_owned(),
        };
        let free_bytes = root.as_deref().and_then(folder::free_bytes);
        Ok(Probe { store, description, free_bytes })
    }

    /// Whether the store can list what killed processes left half-written.
    pub async fn lists_staged(&self) -> Result<bool> {
        match &self.backend {
            Backend::Folder(_) | Backend::Given => Ok(true),
            Backend::Bucket(bucket) => Ok(bucket.unfinished().await?.is_some()),
        }
    }

    /// The time by the clock that dates the objects; `None` if it is unknown.
    pub async fn now(&self) -> Option<DateTime<Utc>> {
        match &self.backend {
            Backend::Bucket(bucket) => bucket.now().await,
            Backend::Folder(_) | Backend::Given => Some(Utc::now()),
        }
    }

    /// How long to wait between two checks of what other runs do.
    pub fn pause(&self) -> Duration {
        match self.backend {
            Backend::Folder(_) => Duration::from_millis(250),
            Backend::Bucket(_) => Duration::from_secs(1), // each request is billed
            Backend::Given => Duration::ZERO,             // it is in this process
        }
    }

    /// Waits for the time of `pause`.
    pub async fn wait(&self) {
        match self.pause() {
            Duration::ZERO => tokio::task::yield_now().await,
            pause => tokio::time::sleep(pause).await,
        }
    }

    /// How many threads should read objects: one for each core, or more if they wait for responses.
    pub fn readers(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        if matches!(self.backend, Backend::Bucket(_)) { cores.max(8) } else { cores }
    }

    /// How many small objects are read or removed at once. A bucket is waited for, while a disk is kept busy by a few.
    pub fn requests(&self) -> usize {
        match self.backend {
            Backend::Folder(_) => 16,
            Backend::Bucket(_) | Backend::Given => 64,
        }
    }

    /// The bytes of a part of an upload.
    pub fn part_bytes(&self) -> usize {
        match self.backend {
            Backend::Folder(_) => 1024 * 1024,
            Backend::Bucket(_) => s3::PART_BYTES,
            Backend::Given => 64 * 1024,
        }
    }

    /// Fails if a link, a pipe or a folder is at the place of the key.
    fn check_plain(&self, key: &str) -> Result<()> {
        let Backend::Folder(root) = &self.backend else { return Ok(()) };
        let found = folder::not_plain(root, key)
            .map_err(|error| io_error(&error, &format!("looking at {key}")))?;
        match found {
            None => Ok(()),
            Some(what) => Err(Error::different(format!(
                "{key} is {what}, or is behind one: an archive contains only plain files"
            ))
            .hint("move it away; `moveout verify` shows what belongs in its place")),
        }
    }

    /// The whole object; `None` if it does not exist.
    pub async fn get(&self, key: &str) -> Result<Option<Bytes>> {
        Ok(self.get_version(key).await?.map(|(bytes, _)| bytes))
    }

    /// The whole object and its version; `None` if it does not exist.
    pub async fn get_version(&self, key: &str) -> Result<Option<(Bytes, String)>> {
        if let Backend::Folder(root) = &self.backend {
            let (root, of_thread) = (root.clone(), key.to_owned());
            let doing = format!("reading {key}");
            let read = self.on_thread(&doing, move |store| {
                store.check_plain(&of_thread)?;
                let read = folder::get(&root, &of_thread);
                read.map_err(|error| io_error(&error, &format!("reading {of_thread}")))
            });
            return Ok(read.await?.map(|(bytes, entry)| (bytes.into(), entry.version)));
        }
        let read = match self.objects.get(&Path::from(key)).await {
            Ok(object) => {
                let version = Entry::from(&object.meta).version;
                object.bytes().await.map(|bytes| (bytes, version))
            }
            Err(error) => Err(error),
        };
        match read {
            Ok(read) => Ok(Some(read)),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(store_error(error, &format!("reading {key}"))),
        }
    }

    /// Does something on a thread that may block.
    async fn on_thread<T: Send + 'static>(
        &self,
        doing: &str,
        act: impl FnOnce(&Self) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let store = self.clone();
        let done = tokio::task::spawn_blocking(move || act(&store)).await;
        done.map_err(|error| Error::stop(format!("{doing}: {error}")))?
    }

    /// What the store says about one object; `None` if it does not exist.
    pub async fn look(&self, key: &str) -> Result<Option<Entry>> {
        self.check_plain(key)?;
        match self.objects.head(&Path::from(key)).await {
            Ok(meta) => Ok(Some(Entry::from(&meta))),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(store_error(error, &format!("looking at {key}"))),
        }
    }

    /// The object's bytes as they arrive; `None` if it does not exist.
    pub async fn stream(&self, key: &str) -> Result<Option<Pieces>> {
        Ok(self.stream_version(key).await?.map(|(_, pieces)| pieces))
    }

    async fn stream_version(&self, key: &str) -> Result<Option<(String, Pieces)>> {
        self.check_plain(key)?;
        let doing = format!("reading {key}");
        let object = match self.objects.get(&Path::from(key)).await {
            Ok(object) => object,
            Err(error) if is_absent(&error) => return Ok(None),
            Err(error) => return Err(store_error(error, &doing)),
        };
        let version = Entry::from(&object.meta).version;
        if !matches!(self.backend, Backend::Folder(_)) {
            let pieces = object.into_stream().map(move |b| b.map_err(|e| store_error(e, &doing)));
            return Ok(Some((version, pieces.boxed())));
        }
        // A file's stream has pieces of 8 KiB, each of which is read on another thread.
        let (objects, path, size) = (Arc::clone(&self.objects), Path::from(key), object.meta.size);
        let pieces = futures::stream::iter((0..size).step_by(PIECE_BYTES as usize));
        let pieces = pieces.then(move |at| {
            let (objects, path, doing) = (Arc::clone(&objects), path.clone(), doing.clone());
            async move {
                let read = objects.get_range(&path, at..size.min(at + PIECE_BYTES)).await;
                read.map_err(|error| store_error(error, &doing))
            }
        });
        Ok(Some((version, pieces.boxed())))
    }

    /// Some bytes of an object.
    pub async fn range(&self, key: &str, range: Range<u64>) -> Result<Bytes> {
        self.check_plain(key)?;
        let read = self.objects.get_range(&Path::from(key), range).await;
        read.map_err(|error| store_error(error, &format!("reading {key}")))
    }

    /// The keys and sizes of all objects below a prefix (of whole path segments), sorted by key. On a disk, only plain
    /// files are objects; see [`Inventory::irregular`].
    pub async fn list(&self, prefix: &str) -> Result<Vec<(String, u64)>> {
        let objects = self.objects(prefix).await?;
        Ok(objects.into_iter().map(|object| (object.key, object.size_bytes)).collect())
    }

    /// Like `list`, with everything that the store says about each object.
    pub async fn objects(&self, prefix: &str) -> Result<Vec<Entry>> {
        if matches!(self.backend, Backend::Folder(_)) {
            return Ok(self.entries(prefix, usize::MAX).await?.files);
        }
        let prefix = (!prefix.is_empty()).then(|| Path::from(prefix));
        let objects = self.objects.list(prefix.as_ref());
        let objects = objects.map(|meta| meta.map(|meta| Entry::from(&meta)).map_err(list_error));
        let mut objects: Vec<Entry> = objects.try_collect().await?;
        objects.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        Ok(objects)
    }

    /// What of the archive's folder is neither an object nor a folder: the name and what it is.
    pub async fn irregular(&self) -> Result<Vec<(String, &'static str)>> {
        Ok(self.entries("", usize::MAX).await?.irregular)
    }

    /// Everything, but only the objects below a prefix. A folder is listed only once for that.
    pub async fn inventory(&self, prefix: &str) -> Result<Inventory> {
        if !matches!(self.backend, Backend::Folder(_)) {
            let staged = self.staged().await?;
            let objects = self.objects(prefix).await?;
            return Ok(Inventory { objects, staged, irregular: Vec::new() });
        }
        let folder::Entries { mut files, staged, irregular } = self.entries("", usize::MAX).await?;
        if !prefix.is_empty() {
            let below =
                |key: &str| key.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'));
            files.retain(|file| below(&file.key));
        }
        let staged = staged.into_iter().map(Staged::file).collect();
        Ok(Inventory { objects: files, staged, irregular })
    }

    /// The entries of a folder on a disk. A bucket has only objects.
    async fn entries(&self, prefix: &str, most: usize) -> Result<folder::Entries> {
        let Backend::Folder(root) = &self.backend else { return Ok(folder::Entries::default()) };
        let (root, prefix) = (root.clone(), prefix.to_owned());
        self.on_thread("listing the archive", move |_| {
            let walked = folder::entries(&root, &prefix, most);
            walked.map_err(|error| io_error(&error, "listing the archive"))
        })
        .await
    }

    /// A few keys, or none if there is no object at all.
    pub async fn some_keys(&self) -> Result<Vec<String>> {
        if matches!(self.backend, Backend::Folder(_)) {
            let entries = self.entries("", 10).await?;
            let keys = entries.files.into_iter().map(|entry| entry.key);
            return Ok(keys.chain(entries.irregular.into_iter().map(|(key, _)| key)).collect());
        }
        let objects = self.objects.list(None).take(10).map(|object| object.map_err(list_error));
        objects.map_ok(|object| object.location.to_string()).try_collect().await
    }

    /// What killed processes left half-written, which the store does not list among its objects.
    pub async fn staged(&self) -> Result<Vec<Staged>> {
        Ok(match &self.backend {
            Backend::Folder(_) => {
                self.entries("", usize::MAX).await?.staged.into_iter().map(Staged::file).collect()
            }
            Backend::Bucket(bucket) => {
                let uploads = bucket.unfinished().await?.unwrap_or_default().into_iter();
                let staged = |upload: s3::Unfinished| Staged {
                    key: upload.key.clone(),
                    what: StagedAs::Upload(upload),
                };
                uploads.map(staged).collect()
            }
            Backend::Given => Vec::new(),
        })
    }

    /// Removes a half-written object and returns whether that worked.
    pub async fn discard(&self, staged: &Staged) -> bool {
        match (&staged.what, &self.backend) {
            (StagedAs::File(path), _) => std::fs::remove_file(path).is_ok(),
            (StagedAs::Upload(upload), Backend::Bucket(bucket)) => {
                bucket.abort(upload).await.is_ok()
            }
            (StagedAs::Upload(_), _) => false,
        }
    }

    /// Removes empty folders below a prefix, and the prefix itself. A bucket has none.
    pub fn remove_empty_folders(&self, prefix: &str) {
        if let Backend::Folder(root) = &self.backend {
            folder::remove_empty(&root.join(prefix));
        }
    }

    /// Creates an empty folder. A bucket needs none.
    pub fn make_folder(&self, prefix: &str) -> Result<()> {
        match &self.backend {
            Backend::Folder(root) => std::fs::create_dir_all(root.join(prefix))
                .map_err(|error| io_error(&error, &format!("creating the folder {prefix}"))),
            Backend::Bucket(_) | Backend::Given => Ok(()),
        }
    }
}
