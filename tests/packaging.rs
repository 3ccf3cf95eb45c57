//! What is given away: the package for Debian, the image of a container, manual pages, completions, the version that is
//! printed, the licences of what the program is made of.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

mod support;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use spdx::{Expression, LicenseItem, ParseMode};
use support::{moveout, repository, run, server};
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_moveout");

/// A program that `.ci/setup` installs for the project, or that the system has.
fn tool(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = [repository("target/tools/bin")].into_iter().chain(std::env::split_paths(&path));
    let found = folders.map(|folder| folder.join(name)).find(|program| program.is_file());
    found.or_else(|| server::skipped(name))
}

fn skip(what: &str) {
    let _: Option<()> = server::skipped(what);
}

/// Whether the test may install, and change the root.
fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

/// Runs a program in the repository and returns what it printed. Panics unless it ends with 0.
fn output<S: AsRef<OsStr>>(
    program: impl AsRef<OsStr>,
    args: impl IntoIterator<Item = S>,
) -> String {
    let mut command = Command::new(program);
    command.args(args).current_dir(repository(""));
    let ended = command.output().unwrap();
    let text = String::from_utf8_lossy(&ended.stdout).into_owned();
    let errors = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{command:?}: {}\n{text}{errors}", ended.status);
    text
}

/// An export of the sample, checked, by a program that was installed somewhere.
fn export_with(program: &Path, folder: &Path) {
    let archive = TempDir::with_prefix("archive-").unwrap();
    let archive = archive.path().join("archive");
    let with = |args: &[&OsStr]| {
        let mut command = Command::new(program);
        command.args(args).current_dir(folder).env_clear();
        run(command).expect(0).stdout
    };
    let [config, place] = ["--config".as_ref(), "--archive".as_ref()];
    let file = "config.example.toml".as_ref();
    with(&["export".as_ref(), config, file, place, archive.as_os_str()]);
    let verified = with(&["verify".as_ref(), archive.as_os_str()]);
    assert!(verified.contains("5,779 rows") && verified.contains("no fault found"), "{verified}");
}

#[test]
fn the_package_for_debian_is_made_installed_run_and_removed() {
    let (Some(cargo_deb), Some(_)) = (tool("cargo-deb"), tool("dpkg-shlibdeps")) else { return };
    let folder = TempDir::with_prefix("package-").unwrap();
    let path = std::env::var("PATH").unwrap_or_default();
    let path = format!("{}:{path}", cargo_deb.parent().unwrap().display());
    let mut make = Command::new(repository("packaging/deb"));
    make.arg(folder.path()).arg(PROGRAM).env("PATH", path);
    run(make).expect(0);
    let mut made = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let (package, None) = (made.next().unwrap(), made.next()) else { panic!("two packages") };

    let fields = output("dpkg-deb", ["--field".as_ref(), package.as_os_str()]);
    assert!(fields.contains("\nDepends: libc6 (>= "), "{fields}");
    let version = concat!("\nVersion: ", env!("CARGO_PKG_VERSION"), "-1\n");
    assert!(fields.contains(version), "{fields}");

    // An installation beside the system's, which lends it the list of what is installed: so the dependencies are checked.
    let root = folder.path().join("root");
    let records = root.join("var/lib/dpkg");
    for name in ["info", "updates"] {
        fs::create_dir_all(records.join(name)).unwrap();
    }
    fs::copy("/var/lib/dpkg/status", records.join("status")).unwrap();
    let at = format!("--root={}", root.display());
    let dpkg = |args: &[&OsStr]| output("dpkg", [OsStr::new(&at)].iter().chain(args));
    if is_root() {
        dpkg(&["--install".as_ref(), package.as_os_str()]);
        let status = dpkg(&["--status".as_ref(), "moveout".as_ref()]);
        assert!(status.contains("Status: install ok installed"), "{status}");
        assert_eq!(dpkg(&["--verify".as_ref(), "moveout".as_ref()]), "");
    } else {
        skip("a user who may install");
        output("dpkg-deb", ["--extract".as_ref(), package.as_os_str(), root.as_os_str()]);
    }

    let share = root.join("usr/share");
    let installed = root.join("usr/bin/moveout");
    assert_eq!(output(&installed, ["--version"]), output(PROGRAM, ["--version"]));
    export_with(&installed, &share.join("doc/moveout/examples"));
    for name in [
        "bash-completion/completions/moveout",
        "zsh/vendor-completions/_moveout",
        "fish/vendor_completions.d/moveout.fish",
        "man/man1/moveout.1.gz",
        "man/man1/moveout-export.1.gz",
        "man/man1/moveout-verify.1.gz",
        "../lib/systemd/system/moveout.service",
        "../lib/systemd/system/moveout.timer",
        "doc/moveout/copyright",
        "doc/moveout/third-party-licences.txt",
        "doc/moveout/moveout.cdx.json",
        "doc/moveout/README.md",
        "doc/moveout/docs/archive-format.md",
        "doc/moveout/changelog.Debian.gz",
    ] {
        assert!(share.join(name).metadata().is_ok_and(|file| file.len() > 0), "{name} is missing");
    }
    if is_root() {
        dpkg(&["--purge".as_ref(), "moveout".as_ref()]);
        assert!(!installed.exists() && !share.join("doc/moveout").exists());
    }
}

#[test]
fn there_is_a_manual_page_for_each_verb() {
    let folder = TempDir::with_prefix("man-").unwrap();
    let pages = folder.path().join("man/man1");
    let written = moveout(["man".as_ref(), pages.as_os_str()]).expect(0).stdout;
    let help = moveout(["--help"]).expect(0).stdout;
    let commands = help.split("Commands:").nth(1).unwrap().split("Options:").next().unwrap();
    let verbs = commands.lines().filter_map(|line| line.split_whitespace().next());
    let verbs = verbs.filter(|verb| *verb != "help").map(|verb| format!("moveout-{verb}.1"));
    let names: Vec<String> = ["moveout.1".to_owned()].into_iter().chain(verbs).collect();
    assert_eq!(written.lines().collect::<Vec<_>>(), names);

    let page = fs::read_to_string(pages.join("moveout-export.1")).unwrap();
    for heading in ["NAME", "SYNOPSIS", "\"WHAT AND WHERE TO\"", "ENVIRONMENT", "\"EXIT STATUS\""] {
        assert!(page.contains(&format!("\n.SH {heading}\n")), "{heading} in {page}");
    }
    // A file in the way.
    let failed = moveout(["man".as_ref(), pages.join("moveout.1").as_os_str()]).expect(1).stderr;
    assert!(failed.contains("writing manual pages into"), "{failed}");

    let Some(mandoc) = tool("mandoc") else { return };
    let files = names.iter().map(|name| pages.join(name).into_os_string());
    let args = ["-T", "lint", "-W", "warning"].map(Into::into).into_iter().chain(files);
    let linted = Command::new(mandoc).args(args).output().unwrap();
    let found = String::from_utf8(linted.stdout).unwrap();
    // A build that is not for release has no date; clap puts an empty line before the values that are possible.
    let known = ["missing date", "skipping paragraph macro"];
    let faults: Vec<&str> =
        found.lines().filter(|line| !known.iter().any(|known| line.contains(known))).collect();
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn shells_complete_with_what_is_printed_for_them() {
    let folder = TempDir::with_prefix("completions-").unwrap();
    for (shell, check) in [
        (
            "bash",
            "source \"$0\" && complete -p moveout && COMP_WORDS=(moveout expo) COMP_CWORD=1 &&
             _moveout moveout expo moveout && [ \"${COMPREPLY[*]}\" = export ] &&
             COMP_WORDS=(moveout export --conf) COMP_CWORD=2 &&
             _moveout moveout --conf export && [ \"${COMPREPLY[*]}\" = --config ]",
        ),
        (
            "zsh",
            "autoload -U compinit && compinit -D && source \"$0\" && [ \"$_comps[moveout]\" = _moveout ]",
        ),
        ("fish", "source $argv[1]; and complete -C 'moveout expo' | string match -q 'export*'"),
    ] {
        let file = folder.path().join(shell);
        fs::write(&file, moveout(["completions", shell]).expect(0).stdout).unwrap();
        if let Some(program) = tool(shell) {
            let mut command = Command::new(program);
            command.args(["-c".as_ref(), check.as_ref(), file.as_os_str()]);
            command.env("HOME", folder.path());
            run(command).expect(0);
        }
    }
}

#[test]
fn a_container_has_what_the_program_needs_and_no_root() {
    let folder = TempDir::with_prefix("image-").unwrap();
    let root = folder.path().join("root");
    let args = [PROGRAM.as_ref(), root.as_os_str()];
    output(repository("packaging/container-root"), args);
    if !is_root() {
        return skip("a user who may change the root");
    }
    fs::copy(repository("tests/data/weather.lp"), root.join("tmp/weather.lp")).unwrap();
    let inside = |args: &[&str]| {
        let mut command = Command::new("chroot");
        command.arg("--userspec=65532:65532").arg(&root).arg("/usr/bin/moveout").args(args);
        run(command)
    };
    inside(&["export", "--source", "lp:/tmp/weather.lp", "--archive", "/tmp/archive"]).expect(0);
    inside(&["verify", "/tmp/archive"]).expect(0);
    assert_eq!(fs::metadata(root.join("tmp/archive/bagit.txt")).unwrap().uid(), 65532);
    let refused = ["export", "--source", "lp:/tmp/weather.lp", "--archive", "/archive"];
    let refused = inside(&refused).expect(1).stderr;
    assert!(refused.contains("ermission denied"), "{refused}");
}

#[test]
fn the_image_of_a_container_is_built_or_its_file_is_linted() {
    let file = fs::read_to_string(repository("Dockerfile")).unwrap();
    let stage = file.rsplit("\nFROM ").next().unwrap();
    assert!(stage.contains("\nUSER 65532:65532\nENTRYPOINT [\"/usr/bin/moveout\"]\n"), "{stage}");
    let version = format!("image.version=\"{}\"", env!("CARGO_PKG_VERSION"));
    assert!(stage.contains(&version), "the Dockerfile has another version than Cargo.toml");
    let compiler = fs::read_to_string(repository("Cargo.toml")).unwrap();
    let compiler = compiler.split("rust-version = \"").nth(1).unwrap().split('"').next().unwrap();
    assert!(file.contains(&format!("FROM rust:{compiler}-")), "another compiler than Cargo.toml's");

    if let Some(hadolint) = tool("hadolint") {
        output(hadolint, ["Dockerfile", "deploy/aws-batch/Dockerfile"]);
    }
    let engine = ["docker", "podman"].into_iter().find(|engine| {
        Command::new(engine).arg("info").output().is_ok_and(|info| info.status.success())
    });
    let Some(engine) = engine else {
        return skip("an engine for containers");
    };
    let image = "moveout-test:latest";
    output(engine, ["build", "--tag", image, "--build-arg", "COMMIT=0123abc", "."]);
    let version = output(engine, ["run", "--rm", image, "--version"]);
    assert!(version.contains("0123abc"), "{version}");
    let data = format!("{}:/data:ro", repository("tests/data").display());
    let export = "export --source lp:/data/weather.lp --archive /tmp/archive";
    let args = ["run", "--rm", "--volume", &data, image];
    let exported = output(engine, args.into_iter().chain(export.split(' ')));
    assert!(exported.contains("complete and sealed"), "{exported}");
}

#[test]
fn every_dependency_has_a_licence_that_is_allowed() {
    let rules: toml::Table = fs::read_to_string(repository("deny.toml")).unwrap().parse().unwrap();
    let allowed: BTreeSet<&str> =
        rules["licenses"]["allow"].as_array().unwrap().iter().filter_map(|l| l.as_str()).collect();
    let is_allowed = |licence: &str| {
        let parsed = Expression::parse_mode(licence, ParseMode::LAX).unwrap();
        parsed.evaluate(
            |one| matches!(&one.license, LicenseItem::Spdx { id, .. } if allowed.contains(id.name)),
        )
    };
    // Without what only tests need.
    let args = ["tree", "--locked", "--edges", "normal,build", "--prefix", "none"];
    let tree = output(env!("CARGO"), args.into_iter().chain(["--format", "{l}\t{p}"]));
    assert!(tree.lines().count() > 200);
    let refused: BTreeSet<&str> = tree
        .lines()
        .filter(|line| !line.split_once('\t').is_some_and(|(licence, _)| is_allowed(licence)))
        .collect();
    assert!(refused.is_empty(), "not in the list of deny.toml: {refused:#?}");
    assert!(is_allowed("GPL-3.0-only OR MIT") && is_allowed("MIT/Apache-2.0"));
    assert!(!is_allowed("GPL-3.0-only") && !is_allowed("MIT AND MPL-2.0"));
}

#[test]
fn cargo_deny_has_nothing_against_a_dependency() {
    let Some(cargo_deny) = tool("cargo-deny") else { return };
    // Advisories need the network: `.ci/test` asks for them.
    output(cargo_deny, ["--offline", "--locked", "check", "licenses", "bans", "sources"]);
}

#[test]
fn the_bill_of_materials_lists_what_is_built_in() {
    let folder = TempDir::with_prefix("materials-").unwrap();
    let make = |name: &str| {
        let folder = folder.path().join(name);
        output(repository("packaging/materials"), [&folder]);
        fs::read_to_string(folder.join("moveout.cdx.json")).unwrap()
    };
    let text = make("one");
    assert_eq!(text, make("two"), "the same sources give the same bill");
    let bill: Value = serde_json::from_str(&text).unwrap();
    let components = bill["components"].as_array().unwrap();
    let find = |name: &str| components.iter().find(|each| each["name"] == name);
    let lock: toml::Table = fs::read_to_string(repository("Cargo.lock")).unwrap().parse().unwrap();
    for (name, scope) in [("parquet", "required"), ("zstd-sys", "required"), ("cc", "excluded")] {
        let found = find(name).unwrap();
        assert_eq!(found["scope"], scope, "{name}");
        let locked = lock["package"].as_array().unwrap().iter().find(|each| {
            each["name"].as_str() == Some(name)
                && each["version"].as_str() == found["version"].as_str()
        });
        let checksum = locked.unwrap()["checksum"].as_str().unwrap();
        assert_eq!(found["hashes"][0]["content"], checksum, "{name}");
    }
    // Only tests need them.
    assert!(find("datafusion").is_none() && find("s3s").is_none());
    let known: BTreeSet<&str> =
        components.iter().filter_map(|component| component["bom-ref"].as_str()).collect();
    for needs in bill["dependencies"].as_array().unwrap() {
        for need in needs["dependsOn"].as_array().unwrap() {
            assert!(known.contains(need.as_str().unwrap()), "{need} is no component");
        }
    }
    let licences = fs::read_to_string(folder.path().join("one/third-party-licences.txt")).unwrap();
    for name in ["parquet", "ring", "zstd-sys", "tokio"] {
        assert!(licences.contains(&format!("\n{name} ")), "{name} has no licence");
    }

    let python = repository("target/tools/bin/python");
    if !python.exists() {
        return skip("the schema of CycloneDX");
    }
    const VALIDATE: &str = "
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
validator = JsonStrictValidator(SchemaVersion.V1_6)
text = open(sys.argv[1]).read()
assert validator.validate_str('{}') is not None, 'it validates'
sys.exit(str(validator.validate_str(text) or '') or None)";
    let file = folder.path().join("one/moveout.cdx.json");
    output(python, ["-I".as_ref(), "-c".as_ref(), VALIDATE.as_ref(), file.as_os_str()]);
}

#[test]
fn a_build_for_release_knows_its_commit_and_no_other() {
    let folder = TempDir::with_prefix("build-").unwrap();
    let script = folder.path().join("script");
    let compile = ["--edition", "2024", "--out-dir"].map(OsStr::new);
    let compile =
        compile.into_iter().chain([folder.path().as_os_str(), "--crate-name=script".as_ref()]);
    output("rustc", compile.chain([repository("build.rs").as_os_str()]));
    let says = |place: &Path, profile: &str, commit: Option<&str>| {
        let mut command = Command::new(&script);
        command.current_dir(place).env("PROFILE", profile).env_remove("MOVEOUT_COMMIT");
        if let Some(commit) = commit {
            command.env("MOVEOUT_COMMIT", commit);
        }
        let printed = run(command).expect(0).stdout;
        let given =
            printed.lines().filter_map(|line| line.strip_prefix("cargo:rustc-env=MOVEOUT_"));
        given.map(str::to_owned).collect::<Vec<_>>()
    };
    let nothing: [&str; 0] = [];
    let plain = folder.path().join("plain");
    fs::create_dir(&plain).unwrap();
    assert_eq!(says(&plain, "release", None), nothing);

    let top = folder.path().join("repository");
    let inner = top.join("unpacked");
    fs::create_dir_all(&inner).unwrap();
    fs::write(top.join("file"), "one").unwrap();
    let git = |args: &[&str]| {
        let who = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-C"];
        let args = who.into_iter().chain([top.to_str().unwrap()]).chain(args.iter().copied());
        output("git", args).trim().to_owned()
    };
    git(&["init", "--quiet"]);
    git(&["add", "file"]);
    git(&["commit", "--quiet", "--message=one", "--date=2020-01-01T00:00:00Z"]);
    let commit = git(&["rev-parse", "HEAD"])[..12].to_owned();
    let date = git(&["log", "-1", "--format=%cs"]);
    let expected = [format!("COMMIT={commit}"), format!("DATE={date}")];
    assert_eq!(says(&top, "release", None), expected);
    assert_eq!(says(&top, "debug", None), nothing, "a build for development is not made again");
    assert_eq!(says(&top, "release", Some("other")), nothing, "what is given is kept");
    assert_eq!(says(&inner, "release", None), nothing, "another project's repository");
    fs::write(top.join("file"), "two").unwrap();
    assert_eq!(says(&top, "release", None)[0], format!("COMMIT={commit}-modified"));

    let recorded = "{\"git\": {\"sha1\": \"0123456789abcdef0123456789abcdef01234567\"}}";
    fs::write(inner.join(".cargo_vcs_info.json"), recorded).unwrap();
    assert_eq!(says(&inner, "release", None), ["COMMIT=0123456789ab"]);
    fs::write(inner.join(".cargo_vcs_info.json"), "{\"git\": {\"sha1\": \"\"}}").unwrap();
    assert_eq!(says(&inner, "release", None), nothing);
}
