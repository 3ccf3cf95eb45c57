//! The answers of InfluxDB.

use std::collections::{BTreeMap, BTreeSet};
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use arrow_flight::Ticket;
use arrow_flight::flight_service_client::FlightServiceClient;
use bytes::Bytes;
use http::{Request, Response};
use tokio::sync::mpsc;
use tonic::body::Body;
use tonic::codegen::Service;

use crate::error::Result;
use crate::fuzzing::input::{assert_sound, block_on, choice, pieces, text};
use crate::model::{Table, TableId};
use crate::source::channel::BatchSender;
use crate::source::influxdb::errors::{Refusal, parse_retry_after, server_error};
use crate::source::influxdb::flight::batches::{Shape, within};
use crate::source::influxdb::flight::client::{Answer, MESSAGE_BYTES};
use crate::source::influxdb::influxql::answer::{BodyReader, RowWriter};
use crate::source::influxdb::influxql::{json, msgpack};
use crate::source::influxdb::metadata;
use crate::source::influxdb::points::{FieldType, columns};
use crate::window::Window;

/// More batches than an input can hold.
const MANY: usize = 1024;

/// A measurement with a field of each type and, where a field can have several, one of all types.
fn table(has_several: bool) -> Arc<Table> {
    use FieldType::{Boolean, Float, Integer, String, Unsigned};
    let kinds = [Float, Integer, Unsigned, String, Boolean];
    let mut fields: BTreeMap<_, _> =
        kinds.iter().map(|kind| (kind.as_str()[..1].to_owned(), BTreeSet::from([*kind]))).collect();
    if has_several {
        fields.insert("m".to_owned(), kinds.into());
    }
    let [source, database, schema, table] = ["s", "d", "p", "t"].map(str::to_owned);
    let tags = ["host", "zone"].map(str::to_owned);
    let id = TableId { source, database, schema, table };
    Arc::new(Table::new(id, columns(&tags.into(), &fields)))
}

pub(super) fn influxql_msgpack(bytes: &[u8]) {
    read_in_pieces(bytes, |feed, rows| {
        msgpack::decode(feed, rows, |error| server_error("h", error))
    });
}

pub(super) fn influxql_json(bytes: &[u8]) {
    read_in_pieces(bytes, |feed, mut rows| {
        json::decode(feed, &mut rows, |error| server_error("h", error))?;
        rows.end().map(drop)
    });
}

/// What comes of an answer must not depend on where its pieces end.
fn read_in_pieces(bytes: &[u8], decode: impl Fn(BodyReader, RowWriter) -> Result<()>) {
    let (choice, body) = choice(bytes);
    let read = |size: usize| {
        let parts = pieces(body, size);
        let (sender, receiver) = mpsc::channel(parts.len().max(1));
        for part in parts {
            sender.try_send(Ok(Bytes::copy_from_slice(part))).expect("there is room");
        }
        drop(sender);
        let (batches, mut received) = BatchSender::channel(MANY);
        let rows = RowWriter::new(&table(true), batches, choice & 0x80 != 0);
        let read = decode(BodyReader::new(receiver), rows);
        let mut batches = Vec::new();
        while let Some(batch) = received.blocking_recv() {
            assert_sound(&batch);
            batches.push(batch);
        }
        (read.map_err(|error| error.to_string()), batches)
    };
    assert_eq!(read(0), read(choice & 0x7f));
}

pub(super) fn influxdb_metadata(bytes: &[u8]) {
    let (choice, body) = choice(bytes);
    let _ = metadata::statements("h", body, choice % 4);
    let retry_after = parse_retry_after(&text(body));
    let refusal = Refusal { status: choice as u16 * 4, retry_after, text: text(body).into_owned() };
    let shown = refusal.into_error("h", choice % 2 == 0).to_string();
    assert!(!shown.chars().any(char::is_control), "{shown:?}");
}

pub(super) fn flight(bytes: &[u8]) {
    block_on(async {
        let client = FlightServiceClient::new(Canned(bytes.to_vec()));
        let mut client = client.max_decoding_message_size(MESSAGE_BYTES);
        let Ok(answered) = client.do_get(Ticket::default()).await else { return };
        let idle = Duration::from_secs(60);
        let mut answer = Answer::of("h", idle, Arc::default(), answered.into_inner());
        let table = table(false);
        while let Ok(Some(batch)) = answer.next().await {
            let arranged = Shape::new(&table, &batch.schema()).and_then(|s| s.arrange(&batch));
            if let Ok(arranged) = arranged {
                assert_sound(&arranged);
                let _ = within(&arranged, Window { from: 0, to: i64::MAX });
            }
        }
    });
}

/// A server whose answer to every request has this body.
struct Canned(Vec<u8>);

impl Service<Request<Body>> for Canned {
    type Response = Response<reqwest::Body>;
    type Error = std::convert::Infallible;
    type Future = Ready<Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        let mut answer = Response::new(std::mem::take(&mut self.0).into());
        let kind = http::HeaderValue::from_static("application/grpc");
        answer.headers_mut().insert(http::header::CONTENT_TYPE, kind);
        ready(Ok(answer))
    }
}
