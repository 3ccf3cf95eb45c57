//! Turns the entry of a tunnel in the file into a tunnel that is not open yet.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use regex::Regex;

use crate::config::file::FileSource;
use crate::config::units::duration;
use crate::error::{Error, Result};
use crate::source::tunnel::{PATIENCE, Plain, Settings, Tunnel};

/// The tunnel to the server of a source, if the file has one.
pub(super) fn tunnel(
    file: Option<&FileSource>,
    folder: &Path,
    host: &str,
    port: u16,
) -> Result<Option<Arc<Tunnel>>> {
    let Some(tunnel) = file.and_then(|file| file.tunnel.as_ref()) else { return Ok(None) };
    if !tunnel.command.iter().any(|part| part.contains("{port}")) {
        return Err(Error::usage("the command of `tunnel` does not contain {port}").hint(
            "moveout picks the local port: [\"ssh\", \"-N\", \"-L\", \"{port}:{host}:{remote_port}\", \"bastion\"]",
        ));
    }
    let mut command = tunnel.command.clone();
    // A path is relative to the configuration file, as everywhere in it; a bare name is searched on PATH.
    if command[0].contains('/') {
        command[0] = folder.join(PathBuf::from(&command[0])).to_string_lossy().into_owned();
    }
    let ready = tunnel.ready.as_deref().map(Regex::new).transpose();
    let ready = ready
        .map_err(|error| Error::usage(format!("`ready` is not a regular expression: {error}")))?;
    let usual = PATIENCE.as_nanos() as i64;
    let patience = duration("ready_timeout", tunnel.ready_timeout.clone(), usual)?;
    Ok(Some(Arc::new(Tunnel::new(Settings {
        command,
        env: Vec::new(),
        host: host.to_owned(),
        port,
        patience: Duration::from_nanos(patience.unsigned_abs()),
        program: Arc::new(Plain { ready }),
    }))))
}
