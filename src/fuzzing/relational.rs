//! What PostgreSQL and MySQL send.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};

use crate::config::{Binding, Database, Secret, ServerKey, Tls, TlsMode};
use crate::fuzzing::input::{assert_sound, choice, pieces, served};
use crate::source::mysql::client::Client;
use crate::source::mysql::rows;
use crate::source::mysql::types::Decode;
use crate::source::postgres::connection::Connection;
use crate::source::postgres::copy_binary::{Copy, Malformed};
use crate::source::postgres::decode::Rows;
use crate::source::postgres::types::Kind;
use crate::source::tcp::end_point;

/// A server on this machine that is trusted with everything.
fn database(port: u16) -> Database {
    let tls = Tls { mode: TlsMode::Disable, ca: None, client: None, binding: Binding::Prefer };
    Database {
        host: "127.0.0.1".to_owned(),
        port,
        user: "me".to_owned(),
        password: Some(Secret::new("secret")),
        tls,
        time_columns: BTreeMap::new(),
        dump: false,
        lock: false,
        server_key: Some(ServerKey::Fetch),
        tunnel: None,
    }
}

const IDLE: Duration = Duration::from_secs(60);

/// A whole conversation: a login, a query, and a COPY.
pub(super) fn postgres_server(bytes: &[u8]) {
    served(bytes, |port| {
        let Ok(mut connection) = Connection::open(&database(port), "d", IDLE) else { return };
        let _ = connection.query_as_stored("SELECT");
        let mut copy = Copy::new(1);
        let _ = connection.copy_out("COPY", false, |data| {
            let _ = copy.feed(data, |_| Ok::<_, Malformed>(()));
            Ok(())
        });
    });
}

/// The kinds of columns. A table has three that follow each other.
fn kinds(from: usize) -> [Kind; 3] {
    let list = |kind| Kind::List(Box::new(kind));
    let all = [
        Kind::Int16,
        Kind::Decimal(10, 2),
        Kind::Text,
        Kind::Date,
        Kind::Jsonb,
        list(Kind::Int32),
        Kind::Interval,
        Kind::Padded,
        Kind::Bool,
        Kind::Timestamp { utc: true },
        Kind::Uuid,
        list(Kind::Text),
        Kind::Time,
        Kind::Float64,
        Kind::Bytes,
        Kind::Decimal(38, 30),
        list(Kind::Decimal(5, 0)),
        Kind::Oid,
    ];
    [0, 1, 2].map(|at| all[(from + at) % all.len()].clone())
}

/// What comes of a COPY must not depend on where its pieces end.
pub(super) fn postgres_copy(bytes: &[u8]) {
    let (kind, bytes) = choice(bytes);
    let (size, data) = choice(bytes);
    let kinds = kinds(kind);
    let read = |size: usize| -> (Result<(), String>, bool, Option<RecordBatch>) {
        let mut copy = Copy::new(kinds.len());
        let mut rows = Rows::new(schema(kinds.iter().map(Kind::data_type)), &kinds);
        let read = pieces(data, size).try_for_each(|piece| {
            copy.feed(piece, |row| rows.push(row).map_err(|why| format!("{why:?}")))
        });
        // A batch of which a row was refused is dropped.
        let batch = read.as_ref().ok().and_then(|()| rows.finish().ok());
        batch.iter().for_each(assert_sound);
        (read, copy.is_complete(), batch)
    };
    assert_eq!(read(0), read(size));
}

impl From<Malformed> for String {
    fn from(_: Malformed) -> Self {
        "malformed".to_owned()
    }
}

fn schema(types: impl Iterator<Item = DataType>) -> Arc<Schema> {
    Arc::new(Schema::new(types.map(|kind| Field::new("c", kind, true)).collect::<Vec<_>>()))
}

/// A whole conversation: a login, a query, and a prepared statement with its rows.
pub(super) fn mysql_server(bytes: &[u8]) {
    served(bytes, |port| {
        let Ok(mut client) = Client::connect(&database(port), IDLE, &|_| ()) else { return };
        let _ = client.query("SELECT");
        let Ok(statement) = client.prepare("SELECT") else { return };
        if client.execute(&statement).is_ok() {
            while let Ok(Some(_)) = client.row() {}
        }
    });
}

/// Rows with a column of each kind, after the length of each row in one byte.
pub(super) fn mysql_rows(bytes: &[u8]) {
    let micros = |zone| DataType::Timestamp(TimeUnit::Microsecond, zone);
    let columns = [
        (DataType::Int8, Decode::I8),
        (DataType::UInt64, Decode::U64),
        (DataType::Decimal128(10, 2), Decode::Decimal { precision: 10, scale: 2 }),
        (DataType::Date32, Decode::Date),
        (micros(None), Decode::DateTime),
        (micros(Some("UTC".into())), Decode::DateTime),
        (DataType::Utf8, Decode::DateText),
        (DataType::Utf8, Decode::DateTimeText { decimals: 3 }),
        (DataType::Utf8, Decode::TimeText { decimals: 6 }),
        (DataType::Binary, Decode::Bytes),
        (DataType::Utf8, Decode::Utf8),
        (DataType::Utf8, Decode::Latin1),
        (DataType::Float64, Decode::F64),
    ];
    let (types, decodes): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
    let mut rows = rows::Rows::new(schema(types.into_iter()), &decodes);
    let mut rest = bytes;
    while let Some((row, after)) =
        rest.split_first().and_then(|(length, rest)| rest.split_at_checked(usize::from(*length)))
    {
        rest = after;
        if rows.push(row).is_none() {
            return; // the read has failed
        }
    }
    if let Ok(batch) = rows.finish().expect("the types are those of the schema") {
        assert_sound(&batch);
    }
}

pub(super) fn certificate(bytes: &[u8]) {
    let _ = end_point::hash(bytes);
}
