//! pg_dump: which servers it can dump, and its command line. The password is passed in its environment.

use std::env;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::config::{Binding, ClientCertificate, Database, TlsMode};
use crate::source::tunnel::Passage;
use crate::text::printable;

const PROGRAM: &str = "pg_dump";
/// How long a program may take to print its version.
const SHORT: Duration = Duration::from_secs(20);

/// Where systems keep the certificate authorities that they trust. libpq does not look there by itself.
const AUTHORITIES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// The output of `pg_dump --version` if it can dump a server of this version, or else why it cannot.
pub(super) fn version(server: u32) -> Result<String, String> {
    let mut command = Command::new(PROGRAM);
    command.arg("--version");
    let printed = match run(command, SHORT) {
        Err(Trouble::Start(error)) if error.kind() == io::ErrorKind::NotFound => {
            return Err("there is no pg_dump on PATH".to_owned());
        }
        printed => printed.map_err(|trouble| trouble.to_string())?,
    };
    let program = printable(String::from_utf8_lossy(&printed).trim());
    let digits =
        program.split(' ').find_map(|word| word.split(['.', 'd', 'b', 'r']).next()?.parse().ok());
    let Some(major): Option<u32> = digits else {
        return Err(format!("`pg_dump --version` printed `{program}`, which is not a version"));
    };
    // pg_dump refuses a server that is newer than itself.
    if major >= server / 10_000 {
        Ok(program)
    } else {
        Err(format!("{program} is older than the server"))
    }
}

/// The command for a database, without what differs between a dump of the definition and one of everything.
pub(super) fn command(server: &Database, database: &str, passage: Option<Passage>) -> Command {
    let mut command = Command::new(PROGRAM);
    // The wait for a lock is bounded, since its holder may wait for moveout. Subscriptions contain passwords. Tablespaces
    // name places on the disks of the server that is left.
    command.args(["--format=plain", "--no-password", "--no-subscriptions", "--no-tablespaces"]);
    command.args(["--encoding=UTF8", "--lock-wait-timeout=30000"]);
    // A bare name could be mistaken for a connection string.
    let quoted = database.replace('\\', "\\\\").replace('\'', "\\'");
    command.arg(format!("--dbname=dbname='{quoted}'"));
    // The configuration decides, whatever the environment says.
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PG")) {
        command.env_remove(name);
    }
    command.env("PGHOST", &server.host).env("PGPORT", server.port.to_string());
    // With a tunnel, PGHOST stays the name that the certificate is for.
    if let Some(passage) = passage {
        let address = passage.address();
        command.env("PGHOSTADDR", address.ip().to_string());
        command.env("PGPORT", address.port().to_string());
    }
    command.env("PGUSER", &server.user).env("PGAPPNAME", "moveout").env("PGGSSENCMODE", "disable");
    command.env("PGCONNECT_TIMEOUT", "30").env("LC_ALL", "C");
    if let Some(password) = &server.password {
        command.env("PGPASSWORD", password.expose());
    }
    let (mode, verifies) = match server.tls.mode {
        TlsMode::Disable => ("disable", false),
        TlsMode::Prefer => ("prefer", false),
        TlsMode::Require => ("require", false),
        TlsMode::VerifyCa => ("verify-ca", true),
        TlsMode::VerifyFull => ("verify-full", true),
    };
    command.env("PGSSLMODE", mode);
    let system = || AUTHORITIES.map(Path::new).into_iter().find(|path| path.exists());
    let authorities = match &server.tls.ca {
        _ if !verifies => None,
        Some(ca) => Some(ca.clone()),
        None => system().map(PathBuf::from),
    };
    if let Some(authorities) = authorities {
        command.env("PGSSLROOTCERT", authorities);
    }
    if let Some(ClientCertificate { certificate, key }) = &server.tls.client {
        command.env("PGSSLCERT", certificate).env("PGSSLKEY", key);
    }
    let binding = match server.tls.binding {
        Binding::Disable => "disable",
        Binding::Prefer => "prefer",
        Binding::Require => "require",
    };
    command.env("PGCHANNELBINDING", binding);
    command
}

/// Why a program gave no output.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    #[error("pg_dump cannot be run: {0}")]
    Start(io::Error),
    #[error("pg_dump did not end within {} s", .0.as_secs())]
    Late(Duration),
    #[error("pg_dump failed: {0}")]
    Failed(String),
}

/// Runs a program to its end and returns its output.
pub(super) fn run(mut command: Command, limit: Duration) -> Result<Vec<u8>, Trouble> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(Trouble::Start)?;
    let (stdout, stderr) = (collect(child.stdout.take()), collect(child.stderr.take()));
    let ended = wait(&mut child, limit).map_err(Trouble::Start)?;
    let Some(success) = ended else {
        // It may just have ended by itself.
        let _ = child.kill();
        let _ = child.wait();
        return Err(Trouble::Late(limit));
    };
    let lost = |_| Trouble::Failed("its output was lost".to_owned());
    let (stdout, stderr) = (stdout.join().map_err(lost)?, stderr.join().map_err(lost)?);
    match (success, stdout) {
        (true, Ok(stdout)) => Ok(stdout),
        (true, Err(error)) => Err(Trouble::Start(error)),
        (false, _) => {
            let stderr = stderr.unwrap_or_default();
            let stderr: String =
                String::from_utf8_lossy(&stderr).trim().chars().take(600).collect();
            Err(Trouble::Failed(printable(&stderr)))
        }
    }
}

fn wait(child: &mut Child, limit: Duration) -> io::Result<Option<bool>> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status.success()));
        }
        if Instant::now() > deadline {
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(10));
    }
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<io::Result<Vec<u8>>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            pipe.read_to_end(&mut bytes)?;
        }
        Ok(bytes)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_does_not_end_is_killed() {
        let mut sleep = Command::new("sleep");
        sleep.arg("60");
        assert!(matches!(run(sleep, Duration::from_millis(50)), Err(Trouble::Late(_))));
        let mut shell = Command::new("sh");
        shell.args(["-c", "echo complaint >&2; exit 3"]);
        let error = run(shell, SHORT).unwrap_err().to_string();
        assert_eq!(error, "pg_dump failed: complaint");
    }
}
