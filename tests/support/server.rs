//! What the servers of other programs have in common that a test starts: a port, a process without root's
//! rights whose log says when it is ready, a client that is fed with SQL, and certificates.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use url::Url;

use super::program;

/// The administrator of a database server.
pub(crate) const USER: &str = "admin";
/// Its password, which a URL or a connection string cannot hold as it is.
pub(crate) const PASSWORD: &str = "adm1n/p@ss:w%rd '\"";

/// Of Debian's `nobody` and `nogroup`.
const NOBODY: u32 = 65534;

/// A running process, ended on drop.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    signal: &'static str,
}

impl Server {
    /// Starts it with its standard error in the file `log`, and waits until `ready` finds there what it
    /// looks for. `signal` is what ends it at once. An error is what it logged.
    pub(crate) fn start<T>(
        mut command: Command,
        log: &Path,
        signal: &'static str,
        ready: impl Fn(&str) -> Option<T>,
    ) -> Result<(Self, T), String> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(log).unwrap());
        let child = spawn(&mut command);
        let mut server = Self { child, signal };
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let text = String::from_utf8_lossy(&fs::read(log).unwrap()).into_owned();
            if let Some(found) = ready(&text) {
                return Ok((server, found));
            }
            let ended = server.child.try_wait().unwrap();
            if ended.is_some() || Instant::now() > deadline {
                return Err(format!("{command:?} does not answer ({ended:?}); its log:\n{text}"));
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Ends it at once, as a crash would.
    pub(crate) fn stop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            program::signal(&self.child, self.signal);
        }
        // Only fails where it was already waited for.
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Starts a server on a port that is free. The ports lie below those which the system gives to clients
/// and to port 0, so that one stays free while its server is down.
pub(crate) fn on_free_port<T>(mut start: impl FnMut(u16) -> Result<T, String>) -> (T, u16) {
    for _ in 0..50 {
        let port = fastrand::u16(10_000..30_000);
        match start(port) {
            Ok(server) => return (server, port),
            Err(log) if log.contains("Address already in use") => {}
            Err(log) => panic!("{log}"),
        }
    }
    panic!("no free port found");
}

/// The servers that `.ci/servers` installed: name and folder. Those that a user who is not root cannot
/// reach, since a folder above them is closed, are none.
pub(crate) fn installed() -> BTreeMap<String, PathBuf> {
    let folders = fs::read_dir(super::repository("target/servers")).into_iter().flatten();
    let folders = folders.filter_map(|entry| {
        let path = entry.ok()?.path();
        let name = path.file_name()?.to_str()?.to_owned();
        path.join("stamp").exists().then_some((name, path))
    });
    let home = folder("installed-");
    folders
        .filter(|(_, path)| {
            let mut test = unprivileged("test", &home);
            test.arg("-r").arg(path.join("stamp"));
            feed(test, "").is_ok()
        })
        .collect()
}

/// Says that a test passes although it did nothing, since its server is not installed. Not by a macro,
/// whose text is only shown where a test fails.
pub(crate) fn skipped<T>(server: &str) -> Option<T> {
    let test = thread::current();
    let test = test.name().unwrap_or_default();
    let _ = writeln!(std::io::stderr(), "{test} skipped: {server} is not installed here");
    None
}

/// A temporary folder that the programs of [`unprivileged`] may write to.
pub(crate) fn folder(prefix: &str) -> TempDir {
    let folder = TempDir::with_prefix(prefix).unwrap();
    hand_over(folder.path());
    folder
}

/// Makes a path one of whoever runs the programs of [`unprivileged`].
pub(crate) fn hand_over(path: &Path) {
    if am_root() {
        chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
}

/// A program that runs as `nobody` where the test runs as root, which database servers refuse to be.
pub(crate) fn unprivileged(program: impl Into<PathBuf>, folder: &TempDir) -> Command {
    let mut command = clean(program, folder);
    if am_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command.current_dir(folder.path());
    command
}

/// A program with a clean environment, at home in the folder.
pub(crate) fn clean(program: impl Into<PathBuf>, folder: &TempDir) -> Command {
    let mut command = Command::new(program.into());
    let path = std::env::var_os("PATH").unwrap_or_default();
    command.env_clear().env("PATH", path).env("HOME", folder.path()).env("LC_ALL", "C.UTF-8");
    command
}

/// Runs a program to its end; panics unless that is a good one.
#[track_caller]
pub(crate) fn run(command: Command) {
    if let Err(complaint) = feed(command, "") {
        panic!("{complaint}");
    }
}

/// Runs a program that reads `text`; returns what it printed, or its complaint.
pub(crate) fn feed(mut command: Command, text: &str) -> Result<String, String> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = spawn(&mut command);
    let mut stdin = child.stdin.take().unwrap();
    let output = thread::scope(|scope| {
        // A program that has failed does not read on.
        scope.spawn(move || stdin.write_all(text.as_bytes()));
        child.wait_with_output().unwrap()
    });
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() {
        return Err(format!("{complaint}({})", output.status));
    }
    let mut printed = String::from_utf8(output.stdout).unwrap();
    if printed.ends_with('\n') {
        printed.pop();
    }
    Ok(printed)
}

/// An address as a source, with the user and without the password; of the whole server for an empty
/// name of a database.
pub(crate) fn url(scheme: &str, port: u16, database: &str) -> String {
    let mut url = Url::parse(&format!("{scheme}://{USER}@127.0.0.1:{port}")).unwrap();
    if !database.is_empty() {
        url.path_segments_mut().unwrap().push(database);
    }
    url.into()
}

/// A certificate of a server, and who signed it, as PEM files.
#[derive(Debug)]
pub(crate) struct Certificate {
    pub(crate) authority: PathBuf,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

/// Makes one for these names, as in `IP:127.0.0.1,DNS:localhost`.
pub(crate) fn certificate(folder: &TempDir, names: &str) -> Certificate {
    let file = |name: &str| folder.path().join(name);
    let config = format!(
        "[req]
distinguished_name = name
[name]
[authority]
basicConstraints = critical, CA:TRUE
subjectKeyIdentifier = hash
[server]
basicConstraints = critical, CA:FALSE
subjectAltName = {names}
"
    );
    fs::write(file("openssl.cnf"), config).unwrap();
    run(openssl(folder, "authority", "authority of a test", "authority"));
    run(signed(folder, "server", "server of a test"));
    hand_over(&file("server.key"));
    Certificate {
        authority: file("authority.pem"),
        certificate: file("server.pem"),
        key: file("server.key"),
    }
}

/// Makes one of a client, signed by the authority that [`certificate`] made: its file and that of its key.
pub(crate) fn client_certificate(folder: &TempDir, name: &str) -> (PathBuf, PathBuf) {
    run(signed(folder, "client", name));
    (folder.path().join("client.pem"), folder.path().join("client.key"))
}

fn signed(folder: &TempDir, file: &str, name: &str) -> Command {
    let mut openssl = openssl(folder, file, name, "server");
    openssl.arg("-CA").arg(folder.path().join("authority.pem"));
    openssl.arg("-CAkey").arg(folder.path().join("authority.key"));
    openssl
}

fn openssl(folder: &TempDir, file: &str, name: &str, section: &str) -> Command {
    let path = |end: &str| folder.path().join(format!("{file}.{end}"));
    let mut openssl = clean("openssl", folder);
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]);
    openssl.args(["-noenc", "-days", "30", "-subj", &format!("/CN={name}")]);
    openssl.arg("-config").arg(folder.path().join("openssl.cnf")).args(["-extensions", section]);
    openssl.arg("-out").arg(path("pem")).arg("-keyout").arg(path("key"));
    openssl
}

fn am_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

fn spawn(command: &mut Command) -> Child {
    match command.spawn() {
        Ok(child) => child,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            panic!("{} is not installed: run .ci/setup", command.get_program().display())
        }
        Err(error) => panic!("{command:?}: {error}"),
    }
}
