//! What a folder on a disk needs besides being an object store: half-written files that no store lists,
//! and folders that are empty. Knows paths.

use std::fs;
use std::path::{MAIN_SEPARATOR, Path, PathBuf};

/// The path that an archive's URL means; `None` where it means no folder.
pub(super) fn path_of(url: &str) -> Option<PathBuf> {
    match url.split_once("://") {
        None | Some(("file", _)) => Some(PathBuf::from(url.strip_prefix("file://").unwrap_or(url))),
        Some(_) => None,
    }
}

/// Room on a folder's disk for whoever runs this; `None` where that cannot be told.
pub(super) fn free_bytes(root: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(root).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// Files that a killed process left half written, by the key they were meant for.
pub(super) fn staged(root: &Path) -> Vec<(String, PathBuf)> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if let Some(key) = staged_key(root, &path) {
                found.push((key, path));
            }
        }
    }
    found
}

// object_store writes to `NAME#1` and renames.
fn staged_key(root: &Path, path: &Path) -> Option<String> {
    let relative = path.strip_prefix(root).ok()?.to_str()?;
    let (key, number) = relative.rsplit_once('#')?;
    let staged = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    staged.then(|| key.replace(MAIN_SEPARATOR, "/"))
}

/// Removes empty folders below a folder, and the folder itself.
pub(super) fn remove_empty(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove_empty(&entry.path());
        }
    }
    let _ = fs::remove_dir(folder); // fails, rightly, where something is inside
}
