//! What a folder on a disk needs besides an object store: it finds half-written files and anything that is not a plain
//! file, and removes empty folders.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, ErrorKind, Read, Write};
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
            let entry = entry?;
            let path = entry.path();
            // The listing says what is a folder, which saves a question to the disk for each of very many.
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(path);
                continue;
            }
            // It does not follow links.
            let metadata = match entry.metadata() {
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

// A file is written as `NAME#1` and renamed at the end, by object_store as well.
fn staged_key(key: &str) -> Option<&str> {
    let (key, number) = key.rsplit_once('#')?;
    let staged = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    staged.then_some(key)
}

/// A whole file, with what the disk says about it; `None` if there is none.
pub(super) fn get(root: &Path, key: &str) -> io::Result<Option<(Vec<u8>, Entry)>> {
    let mut file = match fs::File::open(root.join(key)) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let entry = object(key.to_owned(), &file.metadata()?);
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(Some((bytes, entry)))
}

/// Writes a small file, which is durable when this returns. `false` if it shall be new and there is one already. Each new
/// folder is made durable in the one above it, and the file's own folder only once, when the file is in it: object_store
/// does that before as well, which is a fourth wait for the disk of three that a small file in a new folder needs.
pub(super) fn put(root: &Path, key: &str, bytes: &[u8], is_new: bool) -> io::Result<bool> {
    let path = root.join(key);
    let folder = path.parent().unwrap_or(root);
    let changed: Vec<&Path> = match folder.is_dir() {
        true => Vec::new(),
        false => folder.ancestors().skip(1).take_while(|above| above.starts_with(root)).collect(),
    };
    let first = changed.iter().position(|above| above.is_dir()).unwrap_or_default();
    fs::create_dir_all(folder)?;
    let (staged, mut file) = stage(&path)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    drop(file);
    let placed = written.and_then(|()| match is_new {
        true => fs::hard_link(&staged, &path),
        false => fs::rename(&staged, &path),
    });
    if is_new || placed.is_err() {
        let _ = fs::remove_file(&staged); // a sweep finds it otherwise
    }
    match placed {
        Err(error) if is_new && error.kind() == ErrorKind::AlreadyExists => return Ok(false),
        placed => placed?,
    }
    sync(folder)?;
    changed.into_iter().take(first + 1).try_for_each(sync)?;
    Ok(true)
}

/// Creates the file as which another one is written before it gets its name: `NAME#1`, as object_store names it.
fn stage(path: &Path) -> io::Result<(PathBuf, fs::File)> {
    for number in 1_u32.. {
        let mut staged = path.as_os_str().to_owned();
        staged.push(format!("#{number}"));
        match fs::File::create_new(&staged) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            file => return file.map(|file| (staged.into(), file)),
        }
    }
    Err(ErrorKind::AlreadyExists.into())
}

/// Makes the entries of a folder durable.
fn sync(folder: &Path) -> io::Result<()> {
    fs::File::open(folder).and_then(|folder| folder.sync_all())
}

/// Removes files, then the folders that have become empty, except those at the top, and makes that durable. It asks the
/// disk once for each folder that stays, not once for each file.
pub(super) fn remove_all(root: &Path, keys: &[String]) -> io::Result<()> {
    let mut folders = BTreeSet::new();
    for key in keys {
        let path = root.join(key);
        match fs::remove_file(&path) {
            Ok(()) => folders.extend(path.parent().map(Path::to_owned)),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    // A folder sorts before everything in it.
    while let Some(folder) = folders.pop_last() {
        let above = folder.parent().filter(|above| *above != root && folder != root);
        match above {
            // It fails, rightly, if the folder is not empty.
            Some(above) if fs::remove_dir(&folder).is_ok() => {
                folders.insert(above.to_owned());
            }
            _ => match sync(&folder) {
                // Another run may have removed it meanwhile.
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            },
        }
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(root: &Path) -> Vec<String> {
        entries(root, "", usize::MAX).unwrap().files.into_iter().map(|file| file.key).collect()
    }

    #[test]
    fn a_file_is_put_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        assert!(put(root, "data/a/b/1", b"one", true).unwrap());
        assert!(!put(root, "data/a/b/1", b"two", true).unwrap(), "there is one already");
        assert_eq!(fs::read(root.join("data/a/b/1")).unwrap(), b"one");
        assert!(put(root, "data/a/b/1", b"three", false).unwrap());
        assert_eq!(fs::read(root.join("data/a/b/1")).unwrap(), b"three");
        assert!(put(root, "top", b"x", true).unwrap());
        // Another process is at it, or was killed.
        fs::write(root.join("data/a/b/2#1"), "half").unwrap();
        assert!(put(root, "data/a/b/2", b"four", true).unwrap());
        // A folder is in its place.
        assert!(put(root, "data/a", b"x", false).is_err());
        let found = entries(root, "", usize::MAX).unwrap();
        let staged: Vec<&str> = found.staged.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(staged, ["data/a/b/2"], "nothing else is left half-written");
        assert_eq!(keys(root), ["data/a/b/1", "data/a/b/2", "top"]);
    }

    #[test]
    fn removed_files_take_their_empty_folders_with_them_but_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        for key in ["data/a/b/1", "data/a/b/2", "data/a/c/3", "data/d/4", "top"] {
            let path = root.join(key);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }
        let gone = ["data/a/b/1", "data/a/b/2", "data/a/c/3", "data/a/c/never", "top"];
        remove_all(root, &gone.map(str::to_owned)).unwrap();
        assert_eq!(keys(root), ["data/d/4"]);
        assert!(!root.join("data/a").exists(), "nothing is left in it");
        remove_all(root, &["data/d/4".to_owned()]).unwrap();
        assert!(root.join("data").is_dir(), "a folder at the top stays, even an empty one");
    }

    #[test]
    fn what_a_listing_shows_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir_all(root.join("data/a")).unwrap();
        fs::write(root.join("data/a/1"), "x").unwrap();
        std::os::unix::fs::symlink(root.join("data/a"), root.join("data/folder")).unwrap();
        std::os::unix::fs::symlink(root.join("data/a/1"), root.join("data/file")).unwrap();
        let found = entries(root, "", usize::MAX).unwrap();
        let files: Vec<&str> = found.files.iter().map(|file| file.key.as_str()).collect();
        assert_eq!(files, ["data/a/1"]);
        let links = [("data/file".to_owned(), "a link"), ("data/folder".to_owned(), "a link")];
        assert_eq!(found.irregular, links);
    }
}
