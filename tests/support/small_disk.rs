//! A file system with little room, in memory.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::server;

/// The mounted file system, which goes on drop.
#[derive(Debug)]
pub(crate) struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    /// Mounts one on a folder, for the programs of [`server::unprivileged`]. Where that is not allowed, it is said, and
    /// the test shall pass.
    pub(crate) fn mount(path: &Path, mebibytes: u32) -> Option<Self> {
        let options = format!("size={mebibytes}m,mode=0700");
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(path).output();
        if !mount.is_ok_and(|output| output.status.success()) {
            return server::skipped("a small disk");
        }
        server::hand_over(path);
        Some(Self { path: path.to_owned() })
    }

    /// Makes room.
    pub(crate) fn grow(&self, mebibytes: u32) {
        let options = format!("remount,size={mebibytes}m");
        let mut mount = Command::new("mount");
        assert!(mount.args(["-o", &options]).arg(&self.path).status().unwrap().success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // The server may still have files open.
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}
