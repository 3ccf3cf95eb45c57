//! A real Redis of its own for a test: a free loopback port, a temporary folder, gone on drop. Its default user has
//! the [`PASSWORD`]; it saves nothing by itself.

use std::fs;

use tempfile::TempDir;

use super::server::{self, PASSWORD, Server};

/// The running server.
#[derive(Debug)]
pub(crate) struct Redis {
    // Ended before its folder goes.
    server: Server,
    folder: TempDir,
    port: u16,
}

impl Redis {
    /// Starts an empty one; `settings` are lines of its configuration.
    pub(crate) fn start(settings: &str) -> Self {
        Self::start_in(server::folder("redis-"), settings)
    }

    /// Starts one that loads this file.
    pub(crate) fn load(file: &[u8]) -> Self {
        let folder = server::folder("redis-");
        let path = folder.path().join("dump.rdb");
        fs::write(&path, file).unwrap();
        server::hand_over(&path);
        Self::start_in(folder, "")
    }

    fn start_in(folder: TempDir, settings: &str) -> Self {
        let (server, port) = server::on_free_port(|port| launch(&folder, settings, port));
        Self { server, folder, port }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn password(&self) -> &'static str {
        PASSWORD
    }

    /// Runs commands, one a line; returns the answers.
    #[track_caller]
    pub(crate) fn ask(&self, commands: &str) -> String {
        let mut client = server::clean("redis-cli", &self.folder);
        client.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "--no-auth-warning"]);
        client.env("REDISCLI_AUTH", PASSWORD);
        server::feed(client, commands).unwrap()
    }

    /// A digest of all keys and values, and of what expires when.
    pub(crate) fn digest(&self) -> String {
        self.ask("DEBUG DIGEST\nSELECT 3\nDBSIZE\nSELECT 0\nDBSIZE\nPEXPIRETIME expires")
    }
}

fn launch(folder: &TempDir, settings: &str, port: u16) -> Result<Server, String> {
    let log = folder.path().join("log");
    let config = folder.path().join("redis.conf");
    let password = PASSWORD.replace('"', "\\\"");
    let text = format!(
        "port {port}\nbind 127.0.0.1\ndir {}\nlogfile {}\nsave \"\"\nenable-debug-command yes\n\
         requirepass \"{password}\"\n{settings}\n",
        folder.path().display(),
        log.display()
    );
    fs::write(&config, text).unwrap();
    server::hand_over(&config);
    fs::write(&log, "").unwrap();
    server::hand_over(&log);
    let mut redis = server::unprivileged("redis-server", folder);
    redis.arg(&config);
    let ready = |text: &str| text.contains("Ready to accept connections").then_some(());
    let (server, ()) = Server::start(redis, &log, "KILL", ready)?;
    Ok(server)
}
