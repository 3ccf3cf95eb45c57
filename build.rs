//! Tells a release build which commit it is made of, for `moveout --version`. `MOVEOUT_COMMIT` and `MOVEOUT_DATE` say so,
//! too, in every build; then nothing else is asked. A build for development has no commit, so that it need not be made
//! again after each one.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=MOVEOUT_COMMIT");
    let is_release = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    if !is_release || std::env::var_os("MOVEOUT_COMMIT").is_some() {
        return;
    }
    if let Some(commit) = of_package() {
        println!("cargo:rustc-env=MOVEOUT_COMMIT={commit}");
    } else if is_repository() {
        of_repository();
    }
}

/// The commit that a package from a registry was made of, as `cargo package` records it.
fn of_package() -> Option<String> {
    let text = std::fs::read_to_string(".cargo_vcs_info.json").ok()?;
    let (_, rest) = text.split_once("\"sha1\"")?;
    let commit = rest.split('"').nth(1)?;
    let is_commit = commit.len() >= SHORT && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_commit.then(|| commit[..SHORT].to_owned())
}

/// Whether this folder is the top of a repository. A source tree that was unpacked inside of another one is none.
fn is_repository() -> bool {
    let here = std::env::current_dir().and_then(|here| here.canonicalize());
    let top = git(&["rev-parse", "--show-toplevel"]);
    top.is_some_and(|top| here.is_ok_and(|here| Path::new(&top) == here))
}

fn of_repository() {
    // The log of HEAD grows with each commit and each change of the branch.
    for name in ["HEAD", "logs/HEAD"] {
        let path = git(&["rev-parse", "--git-path", name]);
        if let Some(path) = path.filter(|path| Path::new(path).exists()) {
            println!("cargo:rerun-if-changed={path}");
        }
    }
    for path in ["src", "Cargo.toml", "Cargo.lock"] {
        println!("cargo:rerun-if-changed={path}");
    }
    let Some(commit) = git(&["rev-parse", "HEAD"]) else { return };
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]);
    let state = if changed.is_none_or(|files| files.is_empty()) { "" } else { "-modified" };
    println!("cargo:rustc-env=MOVEOUT_COMMIT={}{state}", &commit[..SHORT.min(commit.len())]);
    if let Some(date) = git(&["log", "-1", "--format=%cs"]) {
        println!("cargo:rustc-env=MOVEOUT_DATE={date}");
    }
}

/// How much of a commit's hash is shown.
const SHORT: usize = 12;

/// What git prints, if it is there and succeeds.
fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
