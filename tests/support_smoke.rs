//! Proves that what the other tests stand on works: the server, the faults, the reader, the model.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

mod support;

use std::collections::HashMap;
use std::fs::{self, File};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::http::Method;
use arrow::array::{
    ArrayRef, Float64Array, RecordBatch, StringDictionaryBuilder, TimestampNanosecondArray,
};
use arrow::datatypes::{Field, Int32Type, Schema};
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path as Key;
use object_store::signer::{SignedUrlOptions, Signer};
use object_store::{
    Error, MultipartUpload, ObjectStore, ObjectStoreExt, PutMode, PutResult, RetryConfig,
};
use parquet::arrow::ArrowWriter;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use serde_json::{Value as Json, json};
use support::http::{self, Ended, Response};
use support::influxd::READER;
use support::{
    Archive, Fault, Influxd, Model, Options, Point, Proxy, Row, S3, Shape, Value, assert_rows, row,
    s3,
};

#[test]
fn influxd_takes_writes_answers_and_keeps_them_over_a_restart() {
    let mut server = Influxd::start();
    server.query("CREATE DATABASE d; CREATE RETENTION POLICY rp ON d DURATION INF REPLICATION 1");
    server.write("d", "", "m a=1i 1\nm a=2i 2\n");
    server.write("d", "rp", "other b=\"x\" 3\n");
    let address = server.address();
    server.restart();
    assert_eq!(server.address(), address);
    let series = |q| server.query(q)["results"][0]["series"][0].clone();
    assert_eq!(series("SELECT * FROM d..m")["values"], json!([[1, 1], [2, 2]]));
    assert_eq!(series("SELECT * FROM d.rp.other")["values"], json!([[3, "x"]]));

    let panics = |what: &dyn Fn()| catch_unwind(AssertUnwindSafe(what)).is_err();
    assert!(panics(&|| server.write("d", "", "no line protocol")));
    assert!(panics(&|| server.write("nowhere", "", "m a=1 1")));
    assert!(panics(&|| drop(server.query("SELECT * FROM nowhere..m"))));
    assert!(panics(&|| drop(server.query("SELECT"))));
}

#[test]
fn influxd_with_authentication_has_an_administrator_and_a_reader() {
    let server = Influxd::start_with(Options { auth: true, ..Options::default() });
    server.query("CREATE DATABASE d; CREATE DATABASE other");
    server.write("d", "", "m a=1i 1");
    server.grant_reader("d");
    let ask = |q: &str, headers: &[(&str, &str)]| {
        let path = format!("GET /query?{}", http::form(&[("q", q)]));
        http::request(server.address(), &path, headers, b"").unwrap()
    };
    assert_eq!(ask("SHOW DATABASES", &[]).status, 401);
    let reader = http::basic(READER.0, READER.1);
    let answer = ask("SELECT * FROM d..m", &[("Authorization", &reader)]);
    assert!(answer.text().contains("\"values\""), "{}", answer.text());
    let answer = ask("SELECT * FROM other..m", &[("Authorization", &reader)]);
    assert!(answer.text().contains("not authorized"), "{}", answer.text());
}

#[test]
fn influxd_takes_settings() {
    let settings = vec![("INFLUXDB_HTTP_MAX_ROW_LIMIT", "1")];
    let server = Influxd::start_with(Options { settings, ..Options::default() });
    server.query("CREATE DATABASE d");
    server.write("d", "", "m a=1i 1\nm a=2i 2\n");
    let path = format!("GET /query?{}", http::form(&[("q", "SELECT * FROM d..m")]));
    let answer = http::request(server.address(), &path, &[], b"").unwrap();
    assert!(answer.text().contains("\"partial\":true"), "{}", answer.text());
}

#[test]
fn the_sample_is_line_protocol_with_the_rows_that_its_readme_says() {
    let server = Influxd::start();
    server.query("CREATE DATABASE weather WITH DURATION INF SHARD DURATION 520w NAME autogen");
    server.write("weather", "autogen", &support::weather());
    let count = |q: &str| server.query(q)["results"][0]["series"][0]["values"][0][1].clone();
    assert_eq!(count("SELECT count(weather) FROM weather..daily_weather"), json!(1461));
    assert_eq!(count("SELECT count(temp_f) FROM weather..hourly_normals"), json!(2 * 2159));
}

// The model's escape rules, its merging and its rendering are right if a server that got its lines
// holds its rows.
#[test]
fn a_server_holds_what_the_model_says() {
    let shape = Shape { edges: true, ..Shape::default() };
    let model = Model::generate(7, &shape);
    assert_eq!(model.points, Model::generate(7, &shape).points);
    let server = Influxd::start();
    server.query("CREATE DATABASE whole; CREATE DATABASE by_field");
    server.write("whole", "", &model.lines());
    server.write("by_field", "", &model.lines_by_field());
    for measurement in model.measurements() {
        let expected = model.rows(&measurement);
        assert!(expected.len() > 300 && expected.len() < model.points.len());
        assert_rows(&held(&server, "whole", &measurement), &expected);
        assert_rows(&held(&server, "by_field", &measurement), &expected);
    }
    let middle = shape.from + 50 * shape.step;
    let early = model.rows_between("cpu", i64::MIN, middle);
    let late = model.rows_between("cpu", middle, i64::MAX);
    assert!(early.len() > 100 && late.len() > 100);
    assert_eq!(early.len() + late.len(), model.rows("cpu").len());
}

#[test]
fn a_mixed_field_has_every_type_in_its_server_and_in_the_model() {
    let step = 86_400_000_000_000;
    let shape = Shape { mixed: true, points: 40, step, ..Shape::default() };
    let model = Model::generate(1, &shape);
    let server = Influxd::start();
    server.query("CREATE DATABASE d");
    server.write("d", "", &model.lines());
    let keys = server.query("SHOW FIELD KEYS ON d FROM cpu");
    let keys = keys["results"][0]["series"][0]["values"].as_array().unwrap();
    let found = keys.iter().filter(|key| key[0] == "mixed").count();
    let columns = model.columns("cpu");
    let names: Vec<_> = columns.iter().map(|column| column.name.as_str()).collect();
    let expected = names.iter().filter(|name| name.starts_with("mixed_")).count();
    assert_eq!((found, expected), (4, 4), "{keys:?}");
    assert_eq!(names[0], "time");
    assert!(names.contains(&"unit_tag") && names.contains(&"unit"), "{names:?}");
}

#[test]
fn a_name_that_is_taken_gets_a_number() {
    let mut model = Model::default();
    let point = Point::new("m", 1).tag("Host", "a").tag("host", "b");
    model.push(point.field("HOST", Value::Unsigned(1)).field("time_", Value::Float(-0.0)));
    let row = [
        ("time", "1"),
        ("Host", "\"a\""),
        ("host_2", "\"b\""),
        ("HOST_3", "1u"),
        ("time_", "-0.0 (8000000000000000)"),
    ];
    let row: Row = row.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    assert_rows(&model.rows("m"), std::slice::from_ref(&row));
    assert!(catch_unwind(|| assert_rows(&model.rows("m"), &[row.clone(), row])).is_err());
}

/// What the server says that a measurement holds, in the model's form. The archive's names of the
/// columns are those of the measurement, but for a tag `unit` beside a field.
fn held(server: &Influxd, db: &str, measurement: &str) -> Vec<Row> {
    let quoted = measurement.replace('\\', "\\\\").replace('"', "\\\"");
    let kinds = server.query(&format!("SHOW FIELD KEYS ON {db} FROM \"{quoted}\""));
    let kinds = kinds["results"][0]["series"][0]["values"].as_array().unwrap().clone();
    let kinds: HashMap<_, _> = kinds.iter().map(|pair| (&pair[0], pair[1].as_str())).collect();
    // Without an upper bound, InfluxDB leaves out the future; without a lower one, the distant past.
    let answer = server.query(&format!(
        "SELECT *::field FROM {db}..\"{quoted}\" WHERE time >= {} AND time <= {} GROUP BY *",
        i64::MIN + 2,
        i64::MAX - 1
    ));
    let mut rows = Vec::new();
    for series in answer["results"][0]["series"].as_array().unwrap() {
        let tags = series["tags"].as_object().unwrap().iter();
        let tags = tags.filter(|(_, value)| *value != "").map(|(key, value)| {
            let name = if key == "unit" { "unit_tag" } else { key.as_str() };
            (name.to_owned(), row::text(value.as_str().unwrap()))
        });
        let tags: Row = tags.collect();
        for values in series["values"].as_array().unwrap() {
            let mut row = tags.clone();
            let cells =
                series["columns"].as_array().unwrap().iter().zip(values.as_array().unwrap());
            for (name, value) in cells.filter(|cell| !cell.1.is_null()) {
                let text = match (kinds.get(name), value) {
                    (None, time) => time.to_string(),
                    (Some(Some("float")), value) => row::float(value.as_f64().unwrap()),
                    (Some(Some("integer")), value) => format!("{}i", value.as_i64().unwrap()),
                    (_, Json::String(value)) => row::text(value),
                    (_, other) => other.to_string(),
                };
                row.insert(name.as_str().unwrap().to_owned(), text);
            }
            rows.push(row);
        }
    }
    rows.sort();
    rows
}

const QUERY: &str = "SELECT * FROM d..m WHERE time >= 0";
const MSGPACK: &str = "application/x-msgpack";

struct Setting {
    server: Influxd,
    proxy: Proxy,
}

impl Setting {
    /// A thousand rows, of which a query gets ten objects.
    fn new() -> Self {
        let server = Influxd::start();
        server.query("CREATE DATABASE d");
        let lines = (0..1000).map(|i| format!("m a={i}i,s=\"text of row {i}\" {i}\n"));
        server.write("d", "", &lines.collect::<String>());
        let proxy = Proxy::before(&server);
        Self { server, proxy }
    }

    fn ask(&self, address: std::net::SocketAddr, accept: &str) -> std::io::Result<Response> {
        let pairs = [("q", QUERY), ("epoch", "ns"), ("chunked", "true"), ("chunk_size", "100")];
        let form = "application/x-www-form-urlencoded";
        let mut headers = vec![("Content-Type", form), ("Accept", accept)];
        // The proxy does not hand this on.
        headers.extend((address == self.proxy.address()).then_some(("Accept-Encoding", "gzip")));
        http::request(address, "POST /query", &headers, http::form(&pairs).as_bytes())
    }

    fn good(&self, accept: &str) -> Vec<u8> {
        self.ask(self.server.address(), accept).unwrap_or_else(|e| panic!("{e}")).body
    }

    fn faulty(&self, accept: &str, fault: Fault) -> std::io::Result<Response> {
        self.proxy.fault(|q| q.starts_with("SELECT * FROM d"), 1, fault);
        let before = self.proxy.fired();
        let answer = self.ask(self.proxy.address(), accept);
        assert_eq!(self.proxy.fired(), before + 1);
        answer
    }
}

#[test]
fn the_proxy_forwards_what_has_no_fault_and_remembers_it() {
    let Setting { server, proxy } = Setting::new();
    let ask = |line: &str, headers: &[(&str, &str)], body: &[u8]| {
        http::request(proxy.address(), line, headers, body).unwrap()
    };
    proxy.fault(|q| q == "SHOW DATABASES", 1, Fault::busy(429, 7));
    let ping = ask("GET /ping", &[], b"");
    assert_eq!((ping.status, ping.ended), (204, Ended::Properly));
    assert!(ping.head.get("x-influxdb-version").is_some());
    assert_eq!(ask("HEAD /ping", &[], b"").ended, Ended::Properly);
    assert_eq!(ask("POST /write?db=d&precision=ns", &[], b"n b=1 1").status, 204);
    let chunked = [("Transfer-Encoding", "chunked")];
    let body = b"b\r\nn b=2 2\nn b\r\n4\r\n=3 3\r\n0\r\n\r\n";
    // The client sends a length as well, which the proxy must ignore.
    assert_eq!(ask("POST /write?db=d&precision=ns", &chunked, body).status, 204);
    let path = format!("GET /query?{}", http::form(&[("q", "SELECT count(b) FROM d..n")]));
    assert!(ask(&path, &[], b"").text().contains(",3]"));
    assert_eq!(proxy.queries(), ["SELECT count(b) FROM d..n"]);
    assert_eq!(proxy.requests().len(), 5);
    assert_eq!(proxy.requests()[0].line, "GET /ping");
    assert_eq!(proxy.fired(), 0);
    assert_ne!(proxy.url(), server.url());
}

#[test]
fn the_proxy_cuts() {
    let setting = Setting::new();
    let good = setting.good(MSGPACK);
    let objects = support::proxy::objects(&good, false);
    assert_eq!(objects.len(), 10);
    assert!(setting.ask(setting.proxy.address(), MSGPACK).unwrap().body == good);

    let error = setting.faulty(MSGPACK, Fault::Close).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
    for (after, length) in [(0, 0), (5000, 5000), (u64::MAX, good.len())] {
        let cut = setting.faulty(MSGPACK, Fault::Cut { after }).unwrap();
        assert!(cut.ended == Ended::Early && cut.body == good[..length]);
        let reset = setting.faulty(MSGPACK, Fault::Reset { after }).unwrap();
        assert!(reset.ended == Ended::Reset && reset.body == good[..length]);
    }
    let cut = setting.faulty(MSGPACK, Fault::Truncate { after: 5001 }).unwrap();
    assert!(cut.ended == Ended::Properly && cut.body == good[..5001]);
    let cut = setting.faulty(MSGPACK, Fault::KeepObjects(3)).unwrap();
    assert!(cut.ended == Ended::Properly && cut.body == good[..objects[2].end]);
    let cut = setting.faulty("application/json", Fault::KeepObjects(3)).unwrap();
    assert_eq!(cut.text().lines().filter(|line| line.contains("\"partial\":true")).count(), 3);

    let started = Instant::now();
    let pause = Duration::from_millis(300);
    let whole = setting.faulty(MSGPACK, Fault::Stall { after: 5000, pause }).unwrap();
    assert!(whole.ended == Ended::Properly && whole.body == good && started.elapsed() >= pause);
}

#[test]
fn the_proxy_answers_with_errors() {
    let setting = Setting::new();
    let busy = setting.faulty(MSGPACK, Fault::busy(503, 2)).unwrap();
    assert_eq!((busy.status, busy.head.get("retry-after")), (503, Some("2")));
    assert_eq!(busy.text(), r#"{"error":"too busy"}"#);

    let text = "query timeout reached".to_owned();
    let all = setting.faulty(MSGPACK, Fault::AppendError(text.clone())).unwrap();
    let good = setting.good(MSGPACK);
    assert!(all.body.starts_with(&good) && all.ended == Ended::Properly);
    assert!(all.body.ends_with(text.as_bytes()));
    assert_eq!(support::proxy::objects(&all.body, false).len(), 11);
    let some = setting.faulty(MSGPACK, Fault::ErrorAfter { objects: 2, text: text.clone() });
    assert_eq!(support::proxy::objects(&some.unwrap().body, false).len(), 3);
    let lines = setting.faulty("application/json", Fault::AppendError(text.clone())).unwrap();
    let last: Json = serde_json::from_str(lines.text().lines().last().unwrap()).unwrap();
    assert_eq!(last["results"][0]["error"], *text);

    let refused = setting.faulty(MSGPACK, Fault::RefuseMsgpack).unwrap();
    assert_eq!(refused.head.get("content-type"), Some("application/json"));
    assert!(refused.body == setting.good("application/json"));

    setting.proxy.fault(|_| true, usize::MAX, Fault::Close);
    assert!(setting.ask(setting.proxy.address(), MSGPACK).is_err());
    assert!(setting.ask(setting.proxy.address(), MSGPACK).is_err());
    setting.proxy.heal();
    assert!(setting.ask(setting.proxy.address(), MSGPACK).unwrap().body == good);
}

// As a real error of the server looks, which the one that the proxy adds must resemble.
#[test]
fn an_added_error_has_the_form_of_a_real_one() {
    let setting = Setting::new();
    let path = format!("GET /query?{}", http::form(&[("q", "SELECT * FROM nowhere..m")]));
    for accept in [MSGPACK, "application/json"] {
        let headers = [("Accept", accept)];
        let real = http::request(setting.server.address(), &path, &headers, b"").unwrap();
        let text = "database not found: nowhere".to_owned();
        let made = setting.faulty(accept, Fault::ErrorAfter { objects: 0, text }).unwrap();
        // Short texts have a shorter length in msgpack: the parts around it must be the same.
        let parts = |body: &[u8]| {
            let text = String::from_utf8_lossy(body).into_owned();
            let (before, after) = text.split_once("database").unwrap();
            (before.trim_end_matches(|c: char| c != 'r').to_owned(), after.to_owned())
        };
        assert_eq!(parts(&made.body), parts(&real.body));
    }
}

#[test]
fn the_proxy_stops_when_it_is_dropped() {
    let Setting { server, proxy } = Setting::new();
    let address = proxy.address();
    proxy.fault(|_| true, 1, Fault::Stall { after: 10, pause: Duration::from_secs(60) });
    let path = format!("GET /query?{}", http::form(&[("q", QUERY)]));
    let asking = std::thread::spawn(move || http::request(address, &path, &[], b""));
    while proxy.fired() == 0 {
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(proxy);
    assert_ne!(asking.join().unwrap().map(|answer| answer.ended).ok(), Some(Ended::Properly));
    assert!(http::request(address, "GET /ping", &[], b"").is_err());
    drop(server);
}

/// A client that tries everything once.
struct Client {
    store: AmazonS3,
    runtime: tokio::runtime::Runtime,
}

impl Client {
    fn of(server: &S3) -> Self {
        Self::with_secret(server, s3::SECRET_KEY)
    }

    fn with_secret(server: &S3, secret: &str) -> Self {
        // A test before this one may have done it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let retry = RetryConfig { max_retries: 0, ..RetryConfig::default() };
        let mut builder = AmazonS3Builder::new().with_allow_http(true).with_retry(retry);
        for (name, value) in server.env() {
            builder = builder.with_config(name.to_lowercase().parse().unwrap(), value);
        }
        let builder = builder.with_bucket_name(s3::BUCKET).with_secret_access_key(secret);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { store: builder.build().unwrap(), runtime }
    }

    fn put(&self, key: &str, bytes: &[u8], mode: PutMode) -> Result<PutResult, Error> {
        let bytes = bytes.to_vec().into();
        self.runtime.block_on(self.store.put_opts(&Key::from(key), bytes, mode.into()))
    }

    fn get(&self, key: &str) -> Result<Bytes, Error> {
        let key = Key::from(key);
        self.runtime.block_on(async { self.store.get(&key).await?.bytes().await })
    }

    fn list(&self, prefix: &str) -> Result<Vec<String>, Error> {
        let list = self.store.list(Some(&Key::from(prefix)));
        let keys = list.map_ok(|object| object.location.to_string());
        self.runtime.block_on(keys.try_collect())
    }

    fn start(&self, key: &str) -> Result<Box<dyn MultipartUpload>, Error> {
        self.runtime.block_on(self.store.put_multipart(&Key::from(key)))
    }

    fn delete(&self, key: &str) -> Result<(), Error> {
        self.runtime.block_on(self.store.delete(&Key::from(key)))
    }

    /// The list of uploads as XML.
    fn uploads(&self, server: &S3, parameters: &[(&str, &str)]) -> String {
        let parameters = [("uploads", "")].iter().chain(parameters).copied();
        let options = SignedUrlOptions::new().with_query(parameters);
        let (bucket, minute) = (Key::default(), Duration::from_secs(60));
        let url = self.store.signed_url_opts(Method::GET, &bucket, minute, &options);
        let url = self.runtime.block_on(url).unwrap();
        let line = format!("GET {}?{}", url.path(), url.query().unwrap());
        let address = server.url().trim_start_matches("http://").parse().unwrap();
        let answer = http::request(address, &line, &[], b"").unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.text().to_string()
    }
}

fn is_get(request: &s3::Request) -> bool {
    request.method == "GET"
}

fn is_put(request: &s3::Request) -> bool {
    request.method == "PUT"
}

#[test]
fn s3_keeps_objects() {
    let server = S3::start();
    let client = Client::of(&server);
    let key = "a/b=1/c+d e&.parquet";
    client.put(key, b"content", PutMode::Overwrite).unwrap();
    client.put("ab", b"", PutMode::Overwrite).unwrap();
    assert_eq!(client.get(key).unwrap(), "content");
    let part = client.runtime.block_on(client.store.get_range(&Key::from(key), 1..4)).unwrap();
    assert_eq!(part, "ont");
    assert_eq!(client.list("a").unwrap(), [key]);
    assert!(matches!(client.get("a/none"), Err(Error::NotFound { .. })));

    let objects = server.objects("a/");
    assert_eq!(objects.into_iter().collect::<Vec<_>>(), [(key.to_owned(), b"content".to_vec())]);
    assert_eq!(server.objects("").len(), 2);
    let folder = tempfile::tempdir().unwrap();
    server.download("a", folder.path());
    assert_eq!(support::files(folder.path()), [key.trim_start_matches("a/")]);

    let tag = client.runtime.block_on(client.store.head(&Key::from("ab"))).unwrap().e_tag;
    server.put("ab", "x");
    server.put("new/one", [1, 2]);
    assert_eq!(client.get("ab").unwrap(), "x");
    assert_ne!(client.runtime.block_on(client.store.head(&Key::from("ab"))).unwrap().e_tag, tag);
    server.remove("new/one");
    client.delete("ab").unwrap();
    assert_eq!(client.list("").unwrap(), [key]);
    assert!(catch_unwind(AssertUnwindSafe(|| server.remove("ab"))).is_err());

    let first = &server.requests()[0];
    assert_eq!((first.method.as_str(), first.key()), ("PUT", Some(key)));
    assert_eq!(first.path, format!("/bucket/{key}"));
    let requests = server.requests();
    let list = requests.iter().find(|request| request.key().is_none() && is_get(request)).unwrap();
    assert_eq!(list.parameter("prefix").as_deref(), Some("a/"));
    assert_eq!(server.fired(), 0);
}

#[test]
fn s3_refuses_a_wrong_secret() {
    let server = S3::start();
    let client = Client::with_secret(&server, "wrong");
    let error = client.put("a", b"content", PutMode::Overwrite).unwrap_err();
    assert!(error.to_string().contains("SignatureDoesNotMatch"), "{error}");
    assert!(client.get("a").is_err() && client.list("").is_err() && client.start("a").is_err());
    let address = server.url().trim_start_matches("http://").parse().unwrap();
    assert_eq!(http::request(address, "GET /bucket/a", &[], b"").unwrap().status, 403);
    assert!(server.objects("").is_empty() && server.uploads().is_empty());
}

#[test]
fn s3_writes_only_once_where_that_is_the_condition() {
    let server = S3::start();
    let client = Client::of(&server);
    client.put("a", b"first", PutMode::Create).unwrap();
    assert!(server.requests()[0].conditional);
    let second = client.put("a", b"second", PutMode::Create);
    assert!(matches!(second, Err(Error::AlreadyExists { .. })), "{second:?}");

    let clients: Vec<_> = (0..8).map(|_| Client::of(&server)).collect();
    let create = |client: Client| client.put("b", &[0; 100_000], PutMode::Create).is_ok();
    let won = std::thread::scope(|scope| {
        let threads = clients.into_iter().map(|client| scope.spawn(|| create(client)));
        let threads: Vec<_> = threads.collect();
        threads.into_iter().filter_map(|thread| thread.join().unwrap().then_some(())).count()
    });
    assert_eq!(won, 1);

    server.ignore_conditions();
    client.put("a", b"second", PutMode::Create).unwrap();
    assert_eq!(client.get("a").unwrap(), "second");
    server.refuse_conditions();
    let refused = client.put("new", b"", PutMode::Create).unwrap_err();
    assert!(
        matches!(&refused, Error::NotImplemented { .. }) || refused.to_string().contains("501")
    );
    client.put("new", b"", PutMode::Overwrite).unwrap();
}

#[test]
fn s3_lists_uploads_until_they_end() {
    let server = S3::start();
    let client = Client::of(&server);
    let mut upload = client.start("a/1").unwrap();
    let mut other = client.start("a/2").unwrap();
    client.start("b").unwrap();
    let uploads = server.uploads();
    let keys: Vec<_> = uploads.iter().map(|upload| upload.0.as_str()).collect();
    assert_eq!(keys, ["a/1", "a/2", "b"]);

    let all = client.uploads(&server, &[]);
    assert!(all.contains("<ListMultipartUploadsResult"), "{all}");
    assert!(
        uploads.iter().all(|upload| all.contains(&format!("<UploadId>{}<", upload.1))),
        "{all}"
    );
    assert!(all.contains("<Key>a/1</Key>") && all.contains("<Initiated>"), "{all}");
    let some = client.uploads(&server, &[("prefix", "a/"), ("max-uploads", "1")]);
    assert!(some.contains("<NextKeyMarker>a/1</NextKeyMarker>"), "{some}");
    assert!(!some.contains("<Key>a/2</Key>") && some.contains("<IsTruncated>true<"), "{some}");
    let marker = [("prefix", "a/"), ("key-marker", "a/1"), ("upload-id-marker", &uploads[0].1)];
    let rest = client.uploads(&server, &marker);
    assert!(rest.contains("<Key>a/2</Key>") && !rest.contains("<Key>a/1</Key>"), "{rest}");
    assert!(!rest.contains("<Key>b</Key>") && rest.contains("<IsTruncated>false<"), "{rest}");

    let first = vec![7; 5 << 20];
    client.runtime.block_on(upload.put_part(first.clone().into())).unwrap();
    client.runtime.block_on(upload.put_part("end".into())).unwrap();
    assert!(server.objects("").is_empty());
    client.runtime.block_on(upload.complete()).unwrap();
    assert!(server.objects("")["a/1"] == [first, b"end".to_vec()].concat());
    client.runtime.block_on(other.abort()).unwrap();
    assert!(client.runtime.block_on(other.put_part("x".into())).is_err());
    assert_eq!(server.uploads(), uploads[2..]);
    assert_eq!(server.objects("").len(), 1);
}

#[test]
fn s3_loses_the_answer_of_a_completion() {
    let server = S3::start();
    let client = Client::of(&server);
    let mut upload = client.start("a").unwrap();
    client.runtime.block_on(upload.put_part("x".into())).unwrap();
    let completion = |request: &s3::Request| request.method == "POST";
    server.fault(completion, 1, s3::Fault::LostAnswer);
    client.runtime.block_on(upload.complete()).unwrap_err();
    assert_eq!(server.objects("")["a"], b"x");
    assert!(server.uploads().is_empty());
}

#[test]
fn s3_has_faults() {
    let server = S3::start();
    let client = Client::of(&server);
    let content = vec![b'x'; 3_000_000];
    let put = |fault| {
        let fired = server.fired();
        server.fault(is_put, 1, fault);
        let answer = client.put("new", &content, PutMode::Overwrite);
        assert_eq!(server.fired(), fired + 1);
        let written = !server.objects("new").is_empty();
        server.objects("new").keys().for_each(|key| server.remove(key));
        (answer, written)
    };
    let codes = [
        (500, "InternalError"),
        (503, "SlowDown"),
        (403, "AccessDenied"),
        (400, "PublicEndpointForbidden"),
        (501, "NotImplemented"),
    ];
    for (status, code) in codes {
        let (answer, written) = put(s3::Fault::Status(status, code));
        let error = format!("{:?}", answer.unwrap_err());
        assert!(error.contains(&status.to_string()) && error.contains(code), "{error}");
        assert!(!written);
    }
    let (reset, written) = put(s3::Fault::Reset);
    assert!(reset.is_err() && !written);
    let (lost, written) = put(s3::Fault::LostAnswer);
    assert!(lost.is_err() && written);
    let started = Instant::now();
    let pause = Duration::from_millis(300);
    let (slow, written) = put(s3::Fault::Slow(pause));
    assert!(slow.is_ok() && written && started.elapsed() >= pause);

    server.put("a", content.clone());
    server.fault(is_get, 1, s3::Fault::WrongByte);
    let wrong = client.get("a").unwrap();
    let differ: Vec<_> = (0..content.len()).filter(|i| wrong[*i] != content[*i]).collect();
    assert_eq!((wrong.len(), differ), (content.len(), vec![content.len() / 2]));
    server.fault(is_get, 1, s3::Fault::Truncate);
    assert!(client.get("a").is_err());
    server.fault(is_get, usize::MAX, s3::Fault::Reset);
    assert!(client.get("a").is_err() && client.get("a").is_err() && client.list("").is_err());
    server.heal();
    assert!(client.get("a").unwrap() == content);
}

#[test]
fn s3_ends_connections_as_it_says() {
    let server = S3::start();
    let client = Client::of(&server);
    server.put("a", vec![b'x'; 100_000]);
    let address = server.url().trim_start_matches("http://").parse().unwrap();
    let (key, minute) = (Key::from("a"), Duration::from_secs(60));
    let url = client.store.signed_url(Method::GET, &key, minute);
    let url = client.runtime.block_on(url).unwrap();
    let line = format!("GET {}?{}", url.path(), url.query().unwrap());
    let get = |fault| {
        server.fault(is_get, 1, fault);
        http::request(address, &line, &[], b"")
    };
    let half = get(s3::Fault::Truncate).unwrap();
    assert_eq!((half.status, half.body.len(), half.ended), (200, 50_000, Ended::Early));
    let kind = |answer: std::io::Result<Response>| answer.unwrap_err().kind();
    assert_eq!(kind(get(s3::Fault::Reset)), std::io::ErrorKind::ConnectionReset);
    assert_eq!(kind(get(s3::Fault::LostAnswer)), std::io::ErrorKind::UnexpectedEof);
    assert_eq!(server.fired(), 3);

    server.fault(is_get, 1, s3::Fault::Slow(minute));
    let asking = std::thread::spawn(move || http::request(address, &line, &[], b""));
    while server.fired() < 4 {
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(server);
    assert!(asking.join().unwrap().is_err());
    assert!(http::request(address, "GET /", &[], b"").is_err());
}

#[test]
fn s3_fails_half_of_the_time() {
    let server = S3::start();
    let client = Client::of(&server);
    server.half(1, is_put);
    let tries = 100;
    let failed = (0..tries).filter(|i| {
        let put = client.put(&format!("a/{i}"), b"content", PutMode::Overwrite);
        assert!(client.list("").is_ok());
        put.is_err()
    });
    let failed = failed.count();
    assert_eq!(server.fired(), failed);
    assert!((30..70).contains(&failed), "{failed}");
    // Some of those that failed were carried out.
    let written = server.objects("a/").len();
    assert!(written > tries - failed && written < tries, "{written} of {tries}, {failed} failed");
    server.heal();
    (0..tries).for_each(|_| drop(client.put("b", b"", PutMode::Overwrite).unwrap()));
}

#[test]
fn the_archive_reader_reads_rows_and_columns() {
    let folder = tempfile::tempdir().unwrap();
    let mut model = Model::default();
    for (time, host, load) in
        [(2, Some("a"), Some(-0.0)), (1, None, Some(5e-324)), (3, Some("b"), None)]
    {
        let mut point = Point::new("cpu", time);
        point = host.map_or(point.clone(), |host| point.tag("host", host));
        model.push(load.map_or(point.clone(), |load| point.field("load", Value::Float(load))));
    }
    let mut hosts = StringDictionaryBuilder::<Int32Type>::new();
    hosts.append_option(Some("a"));
    hosts.append_null();
    hosts.append_option(Some("b"));
    let columns: [(&str, &str, ArrayRef); 3] = [
        (
            "time",
            "time",
            Arc::new(TimestampNanosecondArray::from(vec![2, 1, 3]).with_timezone("UTC")),
        ),
        ("host", "tag", Arc::new(hosts.finish())),
        ("load", "field", Arc::new(Float64Array::from(vec![Some(-0.0), Some(5e-324), None]))),
    ];
    let fields = columns.iter().map(|(name, role, array)| {
        let metadata = [("moveout.role", role), ("moveout.key", name)];
        let metadata = metadata.map(|(key, value)| (key.to_owned(), (*value).to_owned()));
        Field::new(*name, array.data_type().clone(), *name != "time").with_metadata(metadata.into())
    });
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let arrays = columns.iter().map(|(_, _, array)| Arc::clone(array)).collect();
    let batch = RecordBatch::try_new(schema, arrays).unwrap();
    let pairs = [("database", "d"), ("schema", "autogen"), ("table", "cpu")];
    let pairs = pairs.map(|(key, value)| KeyValue::new(format!("moveout.{key}"), value.to_owned()));
    let properties =
        WriterProperties::builder().set_key_value_metadata(Some(pairs.to_vec())).build();
    let path = folder.path().join("data/s/d/autogen/cpu");
    fs::create_dir_all(&path).unwrap();
    let file = File::create(path.join("all.1.parquet")).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();

    let archive = Archive::open(folder.path());
    assert_eq!(archive.files(), ["data/s/d/autogen/cpu/all.1.parquet"]);
    for name in ["cpu", "d.cpu", "d.autogen.cpu"] {
        assert_rows(&archive.rows(name), &model.rows("cpu"));
    }
    assert_eq!(archive.columns("cpu"), model.columns("cpu"));
    assert!(archive.rows("mem").is_empty() && !archive.is_sealed());

    let catalog = |path: &str| {
        let entry = json!([{"database": "d", "schema": "autogen", "table": "cpu", "path": path}]);
        fs::create_dir_all(folder.path().join("catalog")).unwrap();
        fs::write(folder.path().join("catalog/tables.json"), entry.to_string()).unwrap();
    };
    catalog("data/s/d/autogen/cpu");
    assert_eq!(archive.rows("cpu").len(), 3);
    catalog("data/s/d/autogen/other");
    assert!(catch_unwind(|| archive.rows("cpu")).is_err());
}

#[test]
fn python_has_what_checks_an_archive() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("bag");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("a"), "content").unwrap();
    let code = "import bagit, duckdb, pandas, pyarrow, sys
bagit.make_bag(sys.argv[1], checksums=['sha256'])
print(duckdb.sql('SELECT 6 * 7').fetchall()[0][0])";
    assert_eq!(support::python(code, &[root.to_str().unwrap()]), "42\n");
    let archive = Archive::open(&root);
    archive.validate_as_bag();
    fs::write(root.join("data/a"), "changed").unwrap();
    assert!(catch_unwind(|| archive.validate_as_bag()).is_err());
}

#[test]
fn the_program_runs_in_a_clean_environment() {
    support::moveout(["--version"]).expect(0);
    let mut command = support::command(["--version"]);
    command.env("INFLUX_TOKEN", "x");
    let set: HashMap<_, _> = command.get_envs().collect();
    assert_eq!(set["NO_COLOR".as_ref() as &std::ffi::OsStr], Some("1".as_ref()));
    let mut child = support::spawn(["--version"]);
    assert!(child.wait().is_ok());
}
