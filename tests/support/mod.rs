//! What the integration tests share: real servers, faults between them and the program, the program
//! itself, a reader of archives that shares no code with it, and a model of what must come out.

#![allow(dead_code, unused_imports, reason = "each test binary uses a part of this")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

pub(crate) mod archive;
pub(crate) mod background;
pub(crate) mod browser;
pub(crate) mod http;
pub(crate) mod influxd;
pub(crate) mod made;
pub(crate) mod mariadb;
pub(crate) mod meanwhile;
pub(crate) mod memory;
pub(crate) mod model;
pub(crate) mod postgres;
pub(crate) mod program;
pub(crate) mod proxy;
pub(crate) mod redis;
pub(crate) mod relational;
pub(crate) mod restoring;
pub(crate) mod row;
pub(crate) mod s3;
pub(crate) mod scripted;
pub(crate) mod server;
pub(crate) mod small_disk;
pub(crate) mod tunnel;

use std::path::PathBuf;
use std::process::Command;

pub(crate) use archive::{Archive, files};
pub(crate) use browser::View;
pub(crate) use influxd::{Influxd, Options};
pub(crate) use mariadb::{MariaDb, MySql};
pub(crate) use model::{Model, Point, Shape, Value};
pub(crate) use postgres::Postgres;
pub(crate) use program::{Run, command, interrupt, json, moveout, peak_memory, run, spawn};
pub(crate) use proxy::{Fault, Proxy};
pub(crate) use redis::Redis;
pub(crate) use relational::{Kind, Relational};
pub(crate) use restoring::Restoring;
pub(crate) use row::{Column, Row, assert_rows};
pub(crate) use s3::S3;
pub(crate) use scripted::{Play, Question, Scripted};

/// A file or folder of the repository.
pub(crate) fn repository(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Real weather as line protocol, without the DDL, so that it can be written to a server. By default
/// it becomes 220 shards, which takes seconds: `SHARD DURATION 520w` makes that two.
pub(crate) fn weather() -> String {
    let file = std::fs::read_to_string(repository("tests/data/weather.lp")).unwrap();
    file[file.find("# DML").unwrap()..].to_owned()
}

/// Runs Python code with the libraries that check an archive independently (bagit, duckdb, pandas,
/// pyarrow), and returns what it printed. Panics unless it ends with 0.
pub(crate) fn python(code: &str, args: &[&str]) -> String {
    let python = repository("target/venv/bin/python");
    assert!(python.exists(), "{} is missing: run .ci/setup", python.display());
    let output = Command::new(python).args(["-I", "-c", code]).args(args).output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "python failed: {stdout}{stderr}");
    stdout
}
