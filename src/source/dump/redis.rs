//! Dumps a Redis by redis-cli, which asks the server for its file as a replica does.

use std::process::Command;

use crate::config::{ClientCertificate, DumpServer};
use crate::error::{Class, Error, Result};
use crate::model::{DumpFormat, DumpPlan, Dumped, Size};
use crate::source::channel::{DumpSender, dump_channel};
use crate::source::dump::format::Untrimmed;
use crate::source::dump::program::{self, Terms, passage};
use crate::source::tunnel::Passage;

const PROGRAM: &str = "redis-cli";
/// Texts of a server's errors that another attempt would only repeat.
const REFUSED: [&str; 4] = ["NOAUTH", "WRONGPASS", "NOPERM", "invalid username-password"];

/// What a server says about itself.
pub(super) struct Server {
    pub(super) version: String,
    pub(super) size: Size,
    /// What the user should know about it.
    pub(super) warnings: Vec<String>,
}

pub(super) async fn describe(server: &DumpServer, terms: Terms<'_>) -> Result<Server> {
    let mut info = command(server, passage(server.tunnel.as_ref()).await?);
    info.arg("INFO");
    let answer = program::answer(info, terms).await?;
    let value = |key: &str| {
        let line = answer.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        line.map(|value| value.trim().to_owned())
    };
    let is = |key: &str, expected: &str| value(key).is_some_and(|value| value == expected);
    let findings = [
        (
            is("cluster_enabled", "1"),
            "it is one node of a cluster, and its dump has only the keys of this node: name each master as a source",
        ),
        (
            is("role", "slave") && !is("master_link_status", "up"),
            "it is a replica that has lost its master: its dump may lack what was written after that",
        ),
    ];
    let found = findings.into_iter().filter(|(is_so, _)| *is_so);
    let warnings =
        found.map(|(_, what)| format!("{}:{}: {what}", server.host, server.port)).collect();
    match value("redis_version") {
        Some(version) => Ok(Server {
            warnings,
            version: format!("Redis {version}"),
            size: Size {
                rows: None,
                bytes: value("used_memory_dataset").and_then(|bytes| bytes.parse().ok()),
            },
        }),
        // A user may be allowed to dump but not to ask for INFO.
        None if answer.contains("NOPERM") => {
            Ok(Server { version: "Redis".to_owned(), size: Size::default(), warnings })
        }
        None if REFUSED.iter().any(|words| answer.contains(words)) => {
            Err(Error::stop(format!("the server refuses the login: {answer}")).hint(
                "set REDISCLI_AUTH, or `username` and `password` in the configuration; the user needs +psync and \
                 +sync",
            ))
        }
        None => Err(Error::of(Class::Retry, format!("the server does not show its version: {answer}"))),
    }
}

pub(super) async fn plan() -> Result<DumpPlan> {
    Ok(DumpPlan { program: program::version(PROGRAM).await?, format: DumpFormat::Rdb })
}

pub(super) async fn dump(
    server: &DumpServer,
    output: DumpSender,
    terms: Terms<'_>,
) -> Result<Dumped> {
    let mut rdb = command(server, passage(server.tunnel.as_ref()).await?);
    rdb.args(["--rdb", "-"]);
    let (printed, mut pieces) = dump_channel();
    let trimmed = async {
        let mut untrimmed = Untrimmed::default();
        while let Some(piece) = pieces.recv().await {
            let sure = untrimmed.take(&piece);
            // A receiver that takes no more reports its own error.
            if !sure.is_empty() && output.send(sure.into()).await.is_err() {
                return;
            }
        }
        let last = untrimmed.end();
        if !last.is_empty() {
            let _ = output.send(last.into()).await; // as above
        }
    };
    let run = async {
        let ended = program::run(rdb, &printed, terms).await;
        drop(printed);
        ended
    };
    let (ended, ()) = tokio::join!(run, trimmed);
    ended.map_err(|error| error.hint("the user needs +psync and +sync"))?;
    Ok(Dumped::default())
}

/// Texts of errors that another attempt would only repeat.
pub(super) const PERMANENT: &[&str] = &REFUSED;

fn command(server: &DumpServer, passage: Option<Passage>) -> Command {
    let mut command = Command::new(PROGRAM);
    let through = passage.map(Passage::address);
    let host = through.map_or_else(|| server.host.clone(), |address| address.ip().to_string());
    let port = through.map_or(server.port, |address| address.port());
    command.arg("-h").arg(host).arg("-p").arg(port.to_string());
    command.arg("--no-auth-warning");
    if let Some(user) = &server.user {
        command.arg("--user").arg(user);
    }
    command.env_remove("REDISCLI_AUTH").env("LC_ALL", "C");
    if let Some(password) = &server.password {
        command.env("REDISCLI_AUTH", password.expose());
    }
    if let Some(tls) = &server.tls {
        command.arg("--tls").arg("--sni").arg(tls.name.as_ref().unwrap_or(&server.host));
        if !tls.verify {
            command.arg("--insecure");
        }
        if let Some(ca) = &tls.ca {
            command.arg("--cacert").arg(ca);
        }
        if let Some(ClientCertificate { certificate, key }) = &tls.client {
            command.arg("--cert").arg(certificate).arg("--key").arg(key);
        }
    }
    command
}
