//! Dumps a MongoDB by mongodump, whose archive names all collections and ends each with a checksum.

use std::fs::File;
use std::io::Write;
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rustix::fs::{MemfdFlags, memfd_create};

use crate::config::DumpServer;
use crate::error::{Class, Error, Result};
use crate::model::{DumpFormat, DumpPlan, Dumped};
use crate::source::channel::DumpSender;
use crate::source::dump::program::{self, Terms, passage};
use crate::source::tunnel::Passage;

const PROGRAM: &str = "mongodump";
const CONNECTING: Duration = Duration::from_secs(10);
/// Texts of errors that another attempt would only repeat.
pub(super) const PERMANENT: &[&str] = &["AuthenticationFailed", "Unauthorized", "not authorized"];

/// Checks only whether somebody listens. Everything else is left to mongodump.
pub(super) async fn reach(server: &DumpServer) -> Result<()> {
    let (host, port) = address(server, passage(server.tunnel.as_ref()).await?);
    let connect = move || {
        let failed =
            |error| Error::of(Class::Retry, format!("connecting to {host}:{port}: {error}"));
        let mut addresses = (host.as_str(), port).to_socket_addrs().map_err(failed)?;
        let connected = match addresses.next() {
            Some(address) => TcpStream::connect_timeout(&address, CONNECTING).map(drop),
            None => return Err(Error::stop(format!("{host} has no address"))),
        };
        connected.map_err(failed)
    };
    let failed = |error| Error::stop(format!("a worker thread failed: {error}"));
    tokio::task::spawn_blocking(connect).await.map_err(failed)?
}

pub(super) async fn plan() -> Result<DumpPlan> {
    let version = program::version(PROGRAM).await?;
    // The output is `mongodump version: 100.9.4`.
    let program = version.replace(" version:", "");
    Ok(DumpPlan { program, format: DumpFormat::MongodumpArchive })
}

pub(super) async fn dump(
    server: &DumpServer,
    output: &DumpSender,
    terms: Terms<'_>,
) -> Result<Dumped> {
    // The address contains the password. It goes into a file without a name, which vanishes with this process.
    let failed =
        |error: std::io::Error| Error::stop(format!("writing the address for {PROGRAM}: {error}"));
    let config = memfd_create("mongodump", MemfdFlags::CLOEXEC).map_err(|e| failed(e.into()))?;
    let mut config = File::from(config);
    let passage = passage(server.tunnel.as_ref()).await?;
    config.write_all(configuration(server, passage)?.as_bytes()).map_err(failed)?;
    let mut command = Command::new(PROGRAM);
    let path = format!("/proc/{}/fd/{}", std::process::id(), config.as_raw_fd());
    command.arg(format!("--config={path}")).arg("--archive").env("LC_ALL", "C");
    let ended = program::run(command, output, terms).await;
    drop(config);
    ended.map_err(|error| {
        error.hint("the user needs the role `backup`, or `read` of each database")
    })?;
    Ok(Dumped::default())
}

/// The configuration of mongodump. It is YAML, in which a JSON string is a valid text.
fn configuration(server: &DumpServer, passage: Option<Passage>) -> Result<String> {
    let uri = serde_json::to_string(&uri(server, passage))
        .map_err(|error| Error::stop(format!("writing an address: {error}")))?;
    Ok(format!("uri: {uri}\n"))
}

fn address(server: &DumpServer, passage: Option<Passage>) -> (String, u16) {
    match passage.map(Passage::address) {
        Some(address) => (address.ip().to_string(), address.port()),
        None => (server.host.clone(), server.port),
    }
}

fn uri(server: &DumpServer, passage: Option<Passage>) -> String {
    let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let (host, port) = address(server, passage);
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    let user = server.user.as_deref().map(|user| match &server.password {
        Some(password) => format!("{}:{}@", encoded(user), encoded(password.expose())),
        None => format!("{}@", encoded(user)),
    });
    let database = server.database.as_deref().map(encoded).unwrap_or_default();
    let has = |name: &str| server.options.iter().any(|(known, _)| known.eq_ignore_ascii_case(name));
    let mut options = server.options.clone();
    let mut add = |name: &str, value: &str| options.push((name.to_owned(), value.to_owned()));
    // The members of a replica set name hosts that only they can reach, so the connection stays with this one.
    if !has("directConnection") && !has("replicaSet") {
        add("directConnection", "true");
    }
    if let Some(tls) = &server.tls {
        add("tls", "true");
        // mongodump can compare the certificate only with the host that it connects to.
        match (tls.verify, tls.name.is_some() || passage.is_some()) {
            (false, _) => add("tlsInsecure", "true"),
            (true, true) => add("tlsAllowInvalidHostnames", "true"),
            (true, false) => {}
        }
        if let Some(ca) = &tls.ca {
            add("tlsCAFile", &ca.to_string_lossy());
        }
        if let Some(client) = &tls.client {
            add("tlsCertificateKeyFile", &client.certificate.to_string_lossy());
        }
    }
    let options: Vec<String> =
        options.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
    let user = user.unwrap_or_default();
    format!("mongodb://{user}{host}:{port}/{database}?{}", options.join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::DumpTls;

    #[test]
    fn an_address_is_direct_and_encoded() {
        let mut server = DumpServer {
            host: "h".into(),
            port: 27017,
            user: Some("me@x".into()),
            password: None,
            tls: None,
            database: Some("shop".into()),
            options: vec![("authSource".into(), "admin".into())],
            tunnel: None,
        };
        assert_eq!(
            configuration(&server, None).unwrap(),
            "uri: \"mongodb://me%40x@h:27017/shop?authSource=admin&directConnection=true\"\n"
        );
        server.tls = Some(DumpTls { verify: false, ca: None, client: None, name: None });
        server.options = vec![("replicaSet".into(), "rs0".into())];
        assert_eq!(
            uri(&server, None),
            "mongodb://me%40x@h:27017/shop?replicaSet=rs0&tls=true&tlsInsecure=true"
        );
    }
}
