//! Proves that what the other tests stand on works: the server, the faults, the reader, the model.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

mod support;

use std::collections::HashMap;
use std::fs::{self, File};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{
    ArrayRef, Float64Array, RecordBatch, StringDictionaryBuilder, TimestampNanosecondArray,
};
use arrow::datatypes::{Field, Int32Type, Schema};
use parquet::arrow::ArrowWriter;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use serde_json::{Value as Json, json};
use support::http::{self, Ended, Response};
use support::influxd::READER;
use support::{
    Archive, Fault, Influxd, Model, Options, Point, Proxy, Row, Shape, Value, assert_rows, row,
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
