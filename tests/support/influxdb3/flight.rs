//! Flight of the stand-in: `DoGet` with a ticket of JSON; all other methods say as little as Core's.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow_flight::encode::{FlightDataEncoder, FlightDataEncoderBuilder};
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_server::FlightService;
use arrow_flight::utils::batches_to_flight_data;
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo,
    HandshakeRequest, HandshakeResponse, PollInfo, PutResult, SchemaResult, Ticket,
};
use async_trait::async_trait;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value as Json;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Response, Status, Streaming};

use super::sql::{self, Planned, Refusal};
use super::{
    Break, Fault, Options, Product, Query, QuotaAnswer, Scan, State, TOKEN, bucket_id, lock,
    quota_text, unauthorized,
};

/// What the Flight service tells the HTTP below it about one call.
#[derive(Default)]
pub(super) struct Exchange {
    /// The call is answered with this fault instead.
    pub(super) instead: Mutex<Option<Fault>>,
    /// The body breaks so where its trailers would be.
    pub(super) broken: Mutex<Option<Break>>,
    /// To be added to the trailers.
    pub(super) trailers: Mutex<HeaderMap>,
}

pub(super) struct Flight(pub(super) Arc<State>);

/// Says nothing to a client, since something else is answered.
fn instead(exchange: &Exchange, fault: Fault) -> Status {
    *lock(&exchange.instead) = Some(fault);
    Status::internal("answered below")
}

fn ticket(bytes: &[u8]) -> Option<Query> {
    let json: Json = serde_json::from_slice(bytes).ok()?;
    let text = |key| json.get(key).and_then(Json::as_str).map(str::to_owned);
    let databases = ["database", "bucket", "bucket-name", "namespace_name"];
    let database = databases.into_iter().find_map(text)?;
    let language = json.get("query_type").map_or(Some("sql"), Json::as_str)?;
    // InfluxQL is a good ticket of real servers.
    (language == "sql").then_some(Query { database, sql: text("sql_query")? })
}

/// `Bearer TOKEN` or `Token TOKEN`.
pub(super) fn authorized(header: Option<&[u8]>) -> bool {
    let header = header.and_then(|header| std::str::from_utf8(header).ok());
    header.and_then(|header| header.split_once(' ')).is_some_and(|(scheme, token)| {
        ["bearer", "token"].contains(&scheme.to_ascii_lowercase().as_str()) && token == TOKEN
    })
}

/// What the client gives the query, as in `90S`.
fn grpc_timeout(metadata: &MetadataMap) -> Option<Duration> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (number, unit) = text.split_at(text.len().checked_sub(1)?);
    let number: u64 = number.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(3600 * number),
        "M" => Duration::from_secs(60 * number),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

impl Flight {
    async fn query(
        &self,
        request: Request<Ticket>,
    ) -> Result<BoxStream<'static, Result<FlightData, Status>>, Status> {
        let state = &self.0;
        let (metadata, extensions, ticket_bytes) = request.into_parts();
        let exchange = extensions.get::<Arc<Exchange>>().cloned().unwrap_or_default();
        let mut options = state.options();
        let authorization = metadata.get("authorization").map(|value| value.as_bytes());
        if options.auth && !authorized(authorization) {
            return Err(Status::unauthenticated("Unauthenticated"));
        }
        let invalid = || Status::invalid_argument("Invalid ticket. Error: Invalid ticket");
        let query = ticket(&ticket_bytes.ticket).ok_or_else(invalid)?;
        lock(&state.queries).push(query.clone());

        // The client can only lower the limits.
        let header = |name| metadata.get(name)?.to_str().ok()?.parse::<usize>().ok();
        let lower =
            |limit: Option<usize>, asked: Option<usize>| limit.into_iter().chain(asked).min();
        options.partitions = lower(options.partitions, header("x-influxdata-partition-limit"));
        let files = header("x-influxdata-parquet-file-limit");
        options.parquet_files = lower(options.parquet_files, files);
        let deadline = grpc_timeout(&metadata)
            .map(|left| (left, Status::resource_exhausted("grpc-timeout elapsed")));
        let own = options.query_time.map(|left| {
            // Assumed: the text.
            (left, Status::deadline_exceeded("query time limit exceeded"))
        });
        let deadline = deadline.into_iter().chain(own).min_by_key(|(left, _)| *left);
        let deadline = deadline.map(|(left, status)| (Instant::now() + left, status));

        let fault = state.fault(&query.sql);
        match &fault {
            Some(Fault::Status(code, text)) => return Err(Status::new(*code, text)),
            Some(fault @ (Fault::Http { .. } | Fault::BreakAtOnce(_))) => {
                return Err(instead(&exchange, fault.clone()));
            }
            Some(Fault::SlowPlan(pause)) => sleep(*pause).await,
            Some(Fault::Write(lines)) => state.write(&query.database, lines, true),
            _ => {}
        }
        if let Err(seconds) = state.admit() {
            return Err(over_quota(&options, &exchange, seconds));
        }
        if options.forbidden.contains(&query.database) {
            let id = lock(&state.databases).get(&query.database).map(bucket_id);
            return Err(Status::unauthenticated(unauthorized(&id.unwrap_or_default())));
        }
        let planned = sql::plan(state, &options, &query.database, &query.sql).await;
        let planned = planned.map_err(|refusal| refused(state.product, &query, refusal))?;

        let (sender, receiver) = mpsc::channel(1);
        let state = Arc::clone(state);
        let mut run = Run { state, options, exchange, fault, deadline, sender };
        tokio::spawn(async move {
            let started = Instant::now();
            let scan = planned.scan.clone();
            let end = run.produce(planned).await;
            run.trailers(&scan, started.elapsed());
            if let Err(Some(status)) = end {
                let _ = run.sender.send(Err(status)).await;
            }
        });
        let next =
            |mut receiver: mpsc::Receiver<_>| async { Some((receiver.recv().await?, receiver)) };
        Ok(stream::unfold(receiver, next).boxed())
    }
}

fn over_quota(options: &Options, exchange: &Exchange, seconds: u64) -> Status {
    let quota = options.quota.clone().unwrap_or_default();
    match quota.answer {
        QuotaAnswer::Grpc => {
            let mut status = Status::resource_exhausted(quota_text());
            if quota.retry_after {
                status.metadata_mut().insert("retry-after", seconds.into());
            }
            status
        }
        QuotaAnswer::Http { body } => {
            let retry_after = quota.retry_after.then_some(seconds as u32);
            let mut fault = Fault::too_many_requests(retry_after);
            if let Fault::Http { body: text, headers, .. } = &mut fault
                && !body
            {
                text.clear();
                headers.retain(|header| header.0 != "content-type");
            }
            instead(exchange, fault)
        }
    }
}

fn refused(product: Product, query: &Query, refusal: Refusal) -> Status {
    match refusal {
        Refusal::NoDatabase if product == Product::Core => Status::internal(format!(
            "Cannot retrieve database: External error: database not found: {}",
            query.database
        )),
        Refusal::NoDatabase => {
            Status::invalid_argument(format!("bucket \"{}\" not found", query.database))
        }
        Refusal::Limit(text) if product == Product::Core => Status::internal(text),
        Refusal::Limit(text) => Status::resource_exhausted(text),
        Refusal::Plan(error) => {
            Status::invalid_argument(format!("Error while planning query: {}", sql::text(&error)))
        }
    }
}

/// One stream that is being sent.
struct Run {
    state: Arc<State>,
    options: Options,
    exchange: Arc<Exchange>,
    fault: Option<Fault>,
    deadline: Option<(Instant, Status)>,
    sender: mpsc::Sender<Result<FlightData, Status>>,
}

impl Run {
    /// Ends with a status for the client, or with none where something else ends the answer.
    async fn produce(&mut self, planned: Planned) -> Result<(), Option<Status>> {
        let mut wait = (self.options.cost)(&planned.scan) + self.options.queue;
        if let Some(Fault::Slow(pause)) = &self.fault {
            wait += *pause;
        }
        let empty = keep_alive(&planned.schema);
        let mut messages = encode(planned, wait);
        // The first message is the schema.
        let (mut schema_sent, mut batches) = (false, 0);
        loop {
            if schema_sent {
                self.inject(batches, false).await?;
            }
            let mut patience = self.options.keep_alive;
            if let Some((deadline, status)) = &self.deadline {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Err(Some(status.clone()));
                }
                patience = patience.min(left);
            }
            let message = match timeout(patience, messages.next()).await {
                // A deadline ends the next round.
                Err(_) if patience < self.options.keep_alive => continue,
                Err(_) => empty.clone(),
                Ok(Some(Ok(message))) => {
                    batches += usize::from(schema_sent);
                    schema_sent = true;
                    message
                }
                Ok(Some(Err(error))) => {
                    let text = format!("Error while execution Flight SQL stream: {error}");
                    return Err(Some(Status::invalid_argument(text)));
                }
                Ok(None) => break,
            };
            let bytes = 5 + message.data_header.len() + message.data_body.len();
            self.sender.send(Ok(message)).await.map_err(|_| None)?;
            let left = self.state.count(bytes);
            let cuts = self.options.quota.as_ref().is_some_and(|quota| quota.cut);
            if !left && cuts {
                lock(&self.state.meter).refusals += 1;
                return Err(Some(Status::resource_exhausted(quota_text())));
            }
        }
        self.inject(batches, true).await
    }

    /// Does what the fault says after so many batches.
    async fn inject(&mut self, sent: usize, all: bool) -> Result<(), Option<Status>> {
        let due = |batches: usize| all || sent >= batches;
        match &self.fault {
            Some(Fault::StatusAfter { batches, code, text }) if due(*batches) => {
                Err(Some(Status::new(*code, text)))
            }
            Some(Fault::Break { batches, how }) if due(*batches) => {
                *lock(&self.exchange.broken) = Some(*how);
                Err(None)
            }
            Some(Fault::Stall { batches, pause }) if due(*batches) => {
                let pause = *pause;
                self.fault = None;
                sleep(pause).await;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn trailers(&self, scan: &Scan, took: Duration) {
        if !self.options.trailers {
            return;
        }
        let seconds = took.as_secs_f64().to_string();
        let trailers = [
            ("x-influxdata-partitions", scan.partitions.to_string()),
            ("x-influxdata-parquet-files", scan.files.to_string()),
            ("x-influxdata-execution-duration-seconds", seconds),
            ("x-influxdata-queue-duration-seconds", self.options.queue.as_secs_f64().to_string()),
            // Only its presence means something here.
            ("x-influxdata-max-memory-bytes", (scan.rows * 64).to_string()),
        ];
        let mut map = lock(&self.exchange.trailers);
        for (name, value) in trailers {
            if let Ok(value) = HeaderValue::from_str(&value) {
                map.insert(HeaderName::from_static(name), value);
            }
        }
    }
}

/// The schema, and after a while the batches; tags become plain text.
fn encode(planned: Planned, wait: Duration) -> FlightDataEncoder {
    let Planned { schema, batches, .. } = planned;
    let pause = stream::once(sleep(wait)).filter_map(|()| async { None });
    let batches = batches.map_err(|error| FlightError::ExternalError(Box::new(error)));
    // A batch without rows is not sent, other than a keep-alive.
    FlightDataEncoderBuilder::new().with_schema(schema).build(pause.chain(batches))
}

/// A batch without rows.
fn keep_alive(schema: &SchemaRef) -> FlightData {
    let fields = schema.fields().iter().map(|field| match field.data_type() {
        DataType::Dictionary(_, values) => {
            let field = Field::clone(field).with_data_type(DataType::clone(values));
            Arc::new(field)
        }
        _ => Arc::clone(field),
    });
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let empty = RecordBatch::new_empty(Arc::clone(&schema));
    let mut messages = batches_to_flight_data(&schema, vec![empty]).unwrap();
    messages.pop().expect("a batch after the schema")
}

type Answers<T> = BoxStream<'static, Result<T, Status>>;

fn unimplemented<T>() -> Result<Response<T>, Status> {
    Err(Status::new(Code::Unimplemented, "Not yet implemented"))
}

#[async_trait]
impl FlightService for Flight {
    type HandshakeStream = Answers<HandshakeResponse>;
    type ListFlightsStream = Answers<FlightInfo>;
    type DoGetStream = Answers<FlightData>;
    type DoPutStream = Answers<PutResult>;
    type DoExchangeStream = Answers<FlightData>;
    type DoActionStream = Answers<arrow_flight::Result>;
    type ListActionsStream = Answers<ActionType>;

    async fn do_get(
        &self,
        request: Request<Ticket>,
    ) -> Result<Response<Self::DoGetStream>, Status> {
        self.query(request).await.map(Response::new)
    }

    async fn handshake(
        &self,
        _: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Self::HandshakeStream>, Status> {
        Err(Status::invalid_argument("Invalid handshake. No payload provided"))
    }

    async fn list_flights(
        &self,
        _: Request<Criteria>,
    ) -> Result<Response<Self::ListFlightsStream>, Status> {
        unimplemented()
    }

    async fn get_flight_info(
        &self,
        _: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        unimplemented()
    }

    async fn poll_flight_info(
        &self,
        _: Request<FlightDescriptor>,
    ) -> Result<Response<PollInfo>, Status> {
        unimplemented()
    }

    async fn get_schema(
        &self,
        _: Request<FlightDescriptor>,
    ) -> Result<Response<SchemaResult>, Status> {
        unimplemented()
    }

    async fn do_put(
        &self,
        _: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoPutStream>, Status> {
        unimplemented()
    }

    async fn do_exchange(
        &self,
        _: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoExchangeStream>, Status> {
        unimplemented()
    }

    async fn do_action(
        &self,
        _: Request<Action>,
    ) -> Result<Response<Self::DoActionStream>, Status> {
        unimplemented()
    }

    async fn list_actions(
        &self,
        _: Request<Empty>,
    ) -> Result<Response<Self::ListActionsStream>, Status> {
        unimplemented()
    }
}
