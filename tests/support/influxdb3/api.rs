//! The port of the stand-in: what is gRPC and what HTTP, how an answer breaks, and what all products
//! answer over HTTP.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow_flight::flight_service_server::FlightServiceServer;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::{Request, Response};
use serde_json::{Value as Json, json};
use tonic::codegen::Service;

use super::flight::{Exchange, Flight, authorized};
use super::sql::{self, Refusal};
use super::{
    Body, BoxError, Break, Connection, Cut, Fault, Grpc, Product, Query, State, cloud, influxql,
    lock,
};

/// Hyper sends what it has when nothing more comes for a while; an h2 stream that is reset loses
/// what was not sent yet.
const FLUSH: Duration = Duration::from_millis(50);

/// An answer over HTTP.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    /// Breaks after so many bytes of the body; without trailers it ends there as if it were all.
    pub(super) cut: Option<(usize, Break)>,
}

impl Answer {
    pub(super) fn text(status: u16, text: &str) -> Self {
        Self { status, headers: Vec::new(), body: text.as_bytes().to_vec(), cut: None }
    }

    pub(super) fn of(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        let headers = vec![("content-type".to_owned(), content_type.to_owned())];
        Self { status, headers, body: body.into(), cut: None }
    }

    pub(super) fn json(status: u16, json: &Json) -> Self {
        Self::of(status, "application/json", json.to_string())
    }

    pub(super) fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }

    fn response(mut self, connection: &Arc<Connection>) -> Response<Body> {
        let mut response = Response::builder().status(self.status);
        for (name, value) in self.headers {
            response = response.header(name, value);
        }
        if let Some((kept, how)) = self.cut {
            self.body.truncate(kept);
            let (body, connection) = (Bytes::from(self.body), Arc::clone(connection));
            let first = stream::iter([Ok::<_, BoxError>(Frame::data(body))]);
            let rest = stream::once(async move {
                match how {
                    Break::NoTrailers => None,
                    how => Some(Err(break_off(how, &connection).await)),
                }
            });
            let body = StreamBody::new(first.chain(rest.filter_map(|end| async { end })));
            return response.body(body.boxed_unsync()).unwrap();
        }
        let body = Full::new(Bytes::from(self.body)).map_err(|never| match never {});
        response.body(body.boxed_unsync()).unwrap()
    }
}

/// A request over HTTP, read to its end.
pub(super) struct Call {
    pub(super) method: String,
    pub(super) path: String,
    /// Of the URL, decoded.
    pub(super) query: HashMap<String, String>,
    pub(super) accept: String,
    pub(super) body: Bytes,
    authorization: Option<Vec<u8>>,
}

impl Call {
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.query.get(name).map(String::as_str)
    }
}

/// Answers any request of a connection.
pub(super) async fn answer(
    request: Request<Incoming>,
    state: Arc<State>,
    connection: Arc<Connection>,
) -> Result<Response<Body>, BoxError> {
    let content_type = request.headers().get("content-type").map(|value| value.as_bytes());
    if content_type.is_some_and(|value| value.starts_with(b"application/grpc")) {
        return match state.options().grpc {
            Grpc::Answered(fault) => stand_in(fault, &connection).await,
            _ => flight(request, state, connection).await,
        };
    }

    let (head, body) = request.into_parts();
    let path = head.uri.path().to_owned();
    let pairs = url::form_urlencoded::parse(head.uri.query().unwrap_or_default().as_bytes());
    let query: HashMap<String, String> = pairs.into_owned().collect();
    // The order of an URL is kept, but for what must not be seen.
    let shown = url::form_urlencoded::parse(head.uri.query().unwrap_or_default().as_bytes());
    let shown = shown.filter(|(name, _)| !["p", "u", "token"].contains(&name.as_ref()));
    let shown = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(shown).finish();
    let mark = if shown.is_empty() { "" } else { "?" };
    lock(&state.requests).push(format!("{} {path}{mark}{shown}", head.method));

    let header = |name| head.headers.get(name).map(|value| value.as_bytes().to_vec());
    let accept = String::from_utf8_lossy(&header("accept").unwrap_or_default()).into_owned();
    let authorization = header("authorization");
    let method = head.method.to_string();
    let body = body.collect().await?.to_bytes();
    let call = Call { method, path, query, accept, body, authorization };
    match state.fault(&format!("{} {}", call.method, call.path)) {
        Some(fault @ (Fault::Http { .. } | Fault::BreakAtOnce(_))) => {
            return stand_in(fault, &connection).await;
        }
        Some(Fault::SlowPlan(pause) | Fault::Stall { pause, .. }) => {
            tokio::time::sleep(pause).await;
        }
        _ => {}
    }
    match route(&call, &state).await {
        Some(answer) => Ok(answer.response(&connection)),
        None => stand_in(Fault::BreakAtOnce(Break::Close), &connection).await,
    }
}

/// The answer of something that is not the server.
async fn stand_in(fault: Fault, connection: &Arc<Connection>) -> Result<Response<Body>, BoxError> {
    match fault {
        Fault::Http { status, headers, body } => {
            let answer = Answer { headers, ..Answer::of(status, "", body) };
            Ok(answer.response(connection))
        }
        Fault::BreakAtOnce(how) => Err(break_off(how, connection).await),
        other => unreachable!("{other:?} is no answer"),
    }
}

/// Breaks the connection, or says how to break the stream.
async fn break_off(how: Break, connection: &Connection) -> BoxError {
    tokio::time::sleep(FLUSH).await;
    match how {
        // An answer that has not begun cannot end without trailers.
        Break::Rst(code) => return h2::Error::from(h2::Reason::from(code)).into(),
        Break::NoTrailers => return h2::Error::from(h2::Reason::NO_ERROR).into(),
        Break::Close => connection.kill(false),
        Break::Reset => connection.kill(true),
    }
    // The connection ends meanwhile; an error would first end the stream.
    tokio::time::sleep(Duration::from_secs(1)).await;
    Cut.into()
}

async fn flight(
    mut request: Request<Incoming>,
    state: Arc<State>,
    connection: Arc<Connection>,
) -> Result<Response<Body>, BoxError> {
    lock(&state.requests).push(request.uri().path().to_owned());
    let exchange = Arc::new(Exchange::default());
    request.extensions_mut().insert(Arc::clone(&exchange));
    let mut service = FlightServiceServer::new(Flight(state));
    let response = match service.call(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    let instead = lock(&exchange.instead).take();
    if let Some(fault) = instead {
        return stand_in(fault, &connection).await;
    }
    Ok(response.map(|body| {
        let frames = stream::unfold(Some(body), move |body| {
            let (exchange, connection) = (Arc::clone(&exchange), Arc::clone(&connection));
            async move {
                let mut body = body?;
                let mut frame = body.frame().await?.map_err(BoxError::from);
                let Some(trailers) = frame.as_mut().ok().and_then(Frame::trailers_mut) else {
                    return Some((frame, Some(body)));
                };
                let broken = lock(&exchange.broken).take();
                match broken {
                    None => {
                        trailers.extend(lock(&exchange.trailers).drain());
                        Some((frame, None))
                    }
                    Some(Break::NoTrailers) => None,
                    Some(how) => Some((Err(break_off(how, &connection).await), None)),
                }
            }
        });
        StreamBody::new(frames).boxed_unsync()
    }))
}

/// `None` closes the connection.
async fn route(call: &Call, state: &Arc<State>) -> Option<Answer> {
    let options = state.options();
    let allowed = !options.auth || authorized(call.authorization.as_deref());
    let (method, path) = (call.method.as_str(), call.path.as_str());
    let core = state.product == Product::Core;
    if core && !allowed {
        return Some(Answer::text(401, ""));
    }
    Some(match (method, path) {
        ("GET", "/ping") if core => {
            let (id, version) = ("4ad8b1c2-0000-4000-8000-000000000000", "3.6.0");
            let body = json!({ "version": version, "revision": "7e07b134f4", "process_id": id });
            Answer::json(200, &body)
                .with("request-id", id)
                .with("x-request-id", id)
                .with("x-influxdb-build", "Core")
                .with("x-influxdb-version", version)
        }
        // Assumed: the build. InfluxDB Cloud has no version.
        ("GET" | "HEAD", "/ping") => Answer::text(204, "").with("x-influxdb-build", "cloud2"),
        ("GET", "/health" | "/api/v1/health") if core => Answer::text(200, "OK"),
        ("GET", "/health") => {
            Answer::json(200, &json!({ "name": "influxdb", "message": "ready", "status": "pass" }))
        }
        _ if !allowed => {
            let body = json!({ "code": "unauthorized", "message": "unauthorized access" });
            Answer::json(401, &body)
        }
        ("GET", "/api/v3/configure/database") if core => databases(call, state),
        ("POST", "/api/v3/configure/database") if core => create_database(call, state),
        ("POST", "/api/v3/configure/table") if core => create_table(call, state),
        ("POST", "/api/v3/write_lp") if core => write(call, state),
        ("GET" | "POST", "/api/v3/query_sql") if core => query_sql(call, state).await,
        ("GET" | "POST", "/query") => return influxql::answer(call, state).await,
        _ if state.product == Product::Serverless => cloud::answer(call, state),
        _ => Answer::text(404, "not found"),
    })
}

fn databases(call: &Call, state: &State) -> Answer {
    if call.get("format") != Some("json") {
        return Answer::text(400, "serde error: missing field `format`");
    }
    let names = lock(&state.databases).keys().cloned().collect::<Vec<_>>();
    let names = std::iter::once("_internal".to_owned()).chain(names);
    let deleted = call.get("show_deleted") == Some("true");
    let rows = names.map(|name| match deleted {
        true => json!({ "iox::database": name, "deleted": false }),
        false => json!({ "iox::database": name }),
    });
    Answer::json(200, &rows.collect())
}

/// Assumed: the status of one that exists.
fn create_database(call: &Call, state: &State) -> Answer {
    let body: Json = serde_json::from_slice(&call.body).unwrap_or_default();
    let Some(name) = body["db"].as_str() else { return Answer::text(400, "missing field `db`") };
    let mut databases = lock(&state.databases);
    if databases.contains_key(name) {
        return Answer::text(409, "attempted to create a resource that already exists");
    }
    if databases.len() >= 5 {
        let error = "Adding a new database would exceed limit of 5 databases";
        return Answer::json(422, &json!({ "error": error }));
    }
    super::create(&mut databases, name);
    Answer::text(200, "")
}

/// Assumed: the status of one that exists. The order of tags is that of names here, whatever is asked for.
fn create_table(call: &Call, state: &State) -> Answer {
    let body: Json = serde_json::from_slice(&call.body).unwrap_or_default();
    let (Some(database), Some(name)) = (body["db"].as_str(), body["table"].as_str()) else {
        return Answer::text(400, "missing field");
    };
    let mut databases = lock(&state.databases);
    let of_all: usize = databases.values().map(|database| database.tables.len()).sum();
    let Some(database) = databases.get_mut(database) else { return Answer::text(404, "not found") };
    if database.tables.contains_key(name) {
        return Answer::text(409, "attempted to create a resource that already exists");
    }
    if of_all >= 2_000 {
        let error = "Update to schema would exceed number of tables limit of 2000 tables";
        return Answer::json(422, &json!({ "error": error }));
    }
    let table = database.tables.entry(name.to_owned()).or_default();
    let tags = body["tags"].as_array().cloned().unwrap_or_default();
    tags.iter().filter_map(Json::as_str).for_each(|tag| table.tag(tag));
    Answer::text(200, "")
}

/// With `accept_partial=true`: the good lines are taken, and each bad one is named with its number.
fn write(call: &Call, state: &State) -> Answer {
    let (Some(database), Ok(text)) = (call.get("db"), std::str::from_utf8(&call.body)) else {
        return Answer::text(400, "missing query parameter 'db'");
    };
    assert_eq!(call.get("precision"), Some("nanosecond"), "the stand-in has no other");
    assert_eq!(call.get("accept_partial"), Some("true"), "the stand-in has no other");
    if text.len() > 10 << 20 {
        return Answer::text(500, "max request size (10485760 bytes) exceeded");
    }
    let text = text.to_owned();
    let Ok(points) = std::panic::catch_unwind(|| super::lines::parse(&text)) else {
        return Answer::text(400, "the stand-in does not find the line that it cannot read");
    };
    let mut databases = lock(&state.databases);
    let tables = &mut super::create(&mut databases, database).tables;
    let mut bad = Vec::new();
    for (at, point) in points.into_iter().enumerate() {
        let table = tables.entry(point.measurement.clone()).or_default();
        match table.refuses(&point) {
            Some(error) => bad.push(json!({
                "error_message": error,
                "line_number": at + 1,
                "original_line": point.line().chars().take(20).collect::<String>(),
            })),
            None => table.write(point, true),
        }
    }
    if bad.is_empty() {
        return Answer::text(204, "");
    }
    let error = "partial write of line protocol occurred";
    Answer::json(400, &json!({ "error": error, "data": bad }))
}

async fn query_sql(call: &Call, state: &Arc<State>) -> Answer {
    let body: Json = serde_json::from_slice(&call.body).unwrap_or_default();
    let parameter = |name: &str| {
        let text = call.get(name).or_else(|| body.get(name)?.as_str());
        text.map(str::to_owned)
    };
    let (Some(database), Some(sql)) = (parameter("db"), parameter("q")) else {
        return Answer::text(400, "missing query parameters 'db' and 'q'");
    };
    lock(&state.queries).push(Query { database: database.clone(), sql: sql.clone() });
    let format = parameter("format").unwrap_or_else(|| "json".to_owned());
    if !["json", "jsonl", "json_lines"].contains(&format.as_str()) {
        return Answer::text(400, "serde error: a format that the stand-in does not have");
    }
    let planned = match sql::plan(state, &state.options(), &database, &sql).await {
        Ok(planned) => planned,
        Err(Refusal::NoDatabase) => {
            let error = format!("query error: database not found: {database}");
            return Answer::json(404, &json!({ "error": error }));
        }
        Err(Refusal::Limit(text)) => {
            let text = text.replace("Error while planning", "query error: error while planning");
            return Answer::text(500, &text);
        }
        Err(Refusal::Plan(error)) => {
            let text = sql::text(&error);
            return Answer::text(500, &format!("query error: error while planning query: {text}"));
        }
    };
    let batches: Vec<RecordBatch> = match planned.batches.try_collect().await {
        Ok(batches) => batches,
        Err(error) => return Answer::text(500, &format!("datafusion error: {error}")),
    };
    let batches: Vec<_> = batches.iter().collect();
    let body = if format == "json" {
        let mut writer = arrow::json::ArrayWriter::new(Vec::new());
        writer.write_batches(&batches).and_then(|()| writer.finish()).unwrap();
        let body = writer.into_inner();
        if body.is_empty() { b"[]".to_vec() } else { body }
    } else {
        let mut writer = arrow::json::LineDelimitedWriter::new(Vec::new());
        writer.write_batches(&batches).and_then(|()| writer.finish()).unwrap();
        writer.into_inner()
    };
    state.count(body.len());
    let jsonl = if format == "json" { "application/json" } else { "application/jsonl" };
    Answer::of(200, jsonl, body).with("access-control-allow-origin", "*")
}
