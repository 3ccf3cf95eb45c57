//! What a folder on a disk needs besides an object store: it finds half-written files and anything that is not a plain
//! file, and removes empty folders.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{MAIN_SEPARATOR, Path, PathBuf};
use std::time::SystemTime;

use crate::store::Entry;

/// The path that an archive's URL means; `None` if it does not mean a folder.
pub(super) fn path_of(url: &str) -> Option<PathBuf> {
    match url.split_once("://") {
        None | Some(("file", _)) => Some(PathBuf::from(url.strip_prefix("file://").unwrap_or(url))),
        Some(_) => None,
    }
}

/// The free space on a folder's disk for this user; `None` if it is unknown.
pub(super) fn free_bytes(root: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(root).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// The entries of a folder. Links are not followed: an archive is a tree of plain files, and the target of a link belongs
/// to somebody else.
#[derive(Debug, Default)]
pub(super) struct Entries {
    /// Plain files.
    pub(super) files: Vec<Entry>,
    /// Files that a killed process left half-written, with the keys for which they were meant.
    pub(super) staged: Vec<(String, PathBuf)>,
    /// Everything else except folders: the key, and what it is.
    pub(super) irregular: Vec<(String, &'static str)>,
}

impl Entries {
    fn len(&self) -> usize {
        self.files.len() + self.staged.len() + self.irregular.len()
    }
}

/// About `most` entries below a folder of the root, or none if there is no such folder.
pub(super) fn entries(root: &Path, prefix: &str, most: usize) -> io::Result<Entries> {
    let mut entries = Entries::default();
    let mut folders = vec![match prefix {
        "" => root.to_owned(),
        prefix => root.join(prefix),
    }];
    if not_plain(root, prefix)?.is_some_and(|what| what != FOLDER) {
        return Ok(entries); // the entry is reported when its parent is listed
    }
    while let Some(folder) = folders.pop().filter(|_| entries.len() < most) {
        let inside = match fs::read_dir(&folder) {
            Ok(inside) => inside,
            // Another run may have removed the folder meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        for entry in inside {
            let path = entry?.path();
            let metadata = match fs::symlink_metadata(&path) {
                Ok(metadata) => metadata,
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let relative = path.strip_prefix(root).unwrap_or(&path);
            let key = relative.to_string_lossy().replace(MAIN_SEPARATOR, "/");
            match what_is(&metadata) {
                Some(FOLDER) => folders.push(path),
                Some(what) => entries.irregular.push((key, what)),
                None if relative.to_str().is_none() || key.chars().any(char::is_control) => {
                    entries.irregular.push((key, "a file whose name is not a key"));
                }
                None => match staged_key(&key) {
                    Some(key) => entries.staged.push((key.to_owned(), path)),
                    None => entries.files.push(object(key, &metadata)),
                },
            }
        }
    }
    entries.files.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    entries.irregular.sort_unstable();
    Ok(entries)
}

// The version is the same as object_store's ETag, so that the two can be compared.
fn object(key: String, metadata: &fs::Metadata) -> Entry {
    let modified = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
    let micros = modified.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_micros();
    Entry {
        key,
        size_bytes: metadata.len(),
        modified: modified.into(),
        version: format!("{:x}-{micros:x}-{:x}", metadata.ino(), metadata.len()),
    }
}

const FOLDER: &str = "a folder";

/// What an entry is if it is not a plain file.
fn what_is(metadata: &fs::Metadata) -> Option<&'static str> {
    let kind = metadata.file_type();
    match () {
        () if kind.is_symlink() => Some("a link"),
        () if kind.is_dir() => Some(FOLDER),
        () if kind.is_file() => None,
        () => Some("not a plain file (a pipe, a socket or a device)"),
    }
}

/// What is at the place of a key, or of a folder above it, if that is not a plain file or a folder. Opening a pipe would
/// wait forever, and the target of a link belongs to somebody else.
pub(super) fn not_plain(root: &Path, key: &str) -> io::Result<Option<&'static str>> {
    let mut path = root.to_owned();
    let mut found = None;
    for part in key.split('/').filter(|part| !part.is_empty()) {
        path.push(part);
        match fs::symlink_metadata(&path) {
            Ok(metadata) => found = what_is(&metadata),
            // If a plain file is at the place of a folder, there is nothing below it.
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error),
        }
        if found.is_some_and(|what| what != FOLDER) {
            break;
        }
    }
    Ok(found)
}

// object_store writes to `NAME#1` and renames the file at the end.
fn staged_key(key: &str) -> Option<&str> {
    let (key, number) = key.rsplit_once('#')?;
    let staged = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    staged.then_some(key)
}

/// Removes empty folders below a folder, and the folder itself.
pub(super) fn remove_empty(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        // `Path::is_dir` would follow links.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_empty(&entry.path());
        }
    }
    let _ = fs::remove_dir(folder); // it fails, rightly, if the folder is not empty
}
