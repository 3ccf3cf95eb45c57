//! What files and other programs say.

use std::path::Path;
use std::sync::Arc;

use crate::config;
use crate::fuzzing::input::{assert_sound, block_on, choice, pieces, text};
use crate::model::{Chunk, DumpFormat};
use crate::source::Source;
use crate::source::aptible::account::{Backup, Environment, Listed};
use crate::source::aptible::by_hand::{by_hand, not_there};
use crate::source::aptible::inventory::{Entry, Orphan};
use crate::source::aptible::printed::Output;
use crate::source::channel::BatchSender;
use crate::source::child::frames::{Frame, each_line};
use crate::source::child::{Line, Stream};
use crate::source::dump::format::DumpParser;
use crate::source::line_protocol::{LineProtocolSource, Options};
use crate::source::postgres::names::{bytes_of, text_of};
use crate::source::tunnel::{Plain, Program};
use crate::store::s3::errors::explain;
use crate::store::s3::page;
use crate::target::{mysql, postgres};
use crate::window::Slice;

/// A file of line protocol, plain or compressed.
pub(super) fn line_protocol(bytes: &[u8]) {
    let (choice, content) = choice(bytes);
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), content).expect("a file");
    let precision_nanos = [1, 1_000_000_000][choice % 2];
    let options = Options { memory_bytes: 1 << 20, precision_nanos, ..Options::default() };
    let source = LineProtocolSource::new("s".to_owned(), file.path().to_owned(), options);
    block_on(async {
        let Ok(listing) = source.list().await else { return };
        for table in listing.tables {
            let chunk = Chunk { table: Arc::new(table), slice: Slice::All };
            let (sender, mut received) = BatchSender::channel(1);
            let receive = async {
                let mut rows = 0;
                while let Some(batch) = received.recv().await {
                    assert_sound(&batch);
                    rows += batch.num_rows() as u64;
                }
                rows
            };
            let (read, rows) = tokio::join!(source.read(&chunk, sender), receive);
            read.expect("what was listed can be read");
            let window = crate::window::Window::ALL;
            let counted = source.count(&chunk.table, window).await.expect("as it can be counted");
            assert_eq!(counted.rows, rows);
        }
    });
}

/// The output of a native dump program. What comes of it must not depend on where its pieces end.
pub(super) fn dump(bytes: &[u8]) {
    let (choice, dump) = choice(bytes);
    let formats = [
        DumpFormat::PgDump,
        DumpFormat::MysqlDump,
        DumpFormat::Rdb,
        DumpFormat::MongodumpArchive,
        DumpFormat::EndsWith("-- done".to_owned()),
    ];
    let format = &formats[choice % formats.len()];
    let read = |size: usize| {
        let mut parser = DumpParser::of(format);
        pieces(dump, size).try_for_each(|piece| parser.take(piece))?;
        parser.end()
    };
    assert_eq!(read(0), read(choice / formats.len()));
}

/// What a supervisor reports of a program, and a tunnel's output, of which no password is shown.
pub(super) fn tunnel(bytes: &[u8]) {
    let (aptible, plain) = (Output::default(), Plain { ready: regex::Regex::new("ready").ok() });
    each_line(bytes, |line| {
        let frame = Frame::parse(line);
        if !line.contains(&b'\n') {
            let written = frame.line();
            let again = Frame::parse(written.strip_suffix(b"\n").unwrap_or(&written));
            assert_eq!(again, frame);
        }
        let line = Line { from: Stream::Stderr, text: text(line).into_owned() };
        let _ = (aptible.is_ready(&line), plain.is_ready(&line), plain.shown(&line));
        let password = aptible.printed().map(|printed| printed.password.expose().to_owned());
        if let (Some(shown), Some(password)) = (aptible.shown(&line), password) {
            assert!(password.is_empty() || !shown.contains(&password), "{shown}");
        }
    });
}

/// What Aptible's CLI answers.
pub(super) fn aptible(bytes: &[u8]) {
    let _ = serde_json::from_slice::<Vec<Environment>>(bytes);
    for listed in serde_json::from_slice::<Vec<Listed>>(bytes).into_iter().flatten() {
        let _ = (by_hand(&listed), not_there(&listed), listed.product(), Entry::of(&listed));
    }
    let backups = serde_json::from_slice::<Vec<Backup>>(bytes);
    backups.into_iter().flatten().for_each(|backup| drop(Orphan::of(backup)));
}

pub(super) fn configuration(bytes: &[u8]) {
    let text = text(bytes);
    let _ = config::file::parse(Path::new("f"), &text);
    let _ = config::memory(&text);
}

/// What an S3 service answers.
pub(super) fn s3(bytes: &[u8]) {
    let _ = (page(&text(bytes)), explain(&text(bytes)));
}

/// The scripts of an archive, which a restore runs, and the names of an encoding that nobody knows.
pub(super) fn script(bytes: &[u8]) {
    assert_eq!(bytes_of(&text_of(bytes)), bytes);
    let script = text(bytes);
    for statement in postgres::script::statements(&script) {
        assert!(script.contains(&statement.sql));
        let _ = (statement.when(), statement.extension(), statement.roles());
    }
    for statement in mysql::script::statements(&script) {
        let _ = (statement.without_definer(), statement.database_as("d"), statement.names("d"));
    }
}
