//! Proves that the stand-in for InfluxDB 3 says what is known of the real ones, and that its faults
//! reach a client.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

#[path = "support/influxdb3.rs"]
mod influxdb3;
mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, TimestampNanosecondArray};
use arrow::datatypes::{DataType, Float64Type, Int64Type, SchemaRef, TimeUnit};
use arrow::util::display::array_value_to_string;
use arrow_flight::Ticket;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::utils::flight_data_to_batches;
use influxdb3::cloud::{SECRET_TOKEN, TELEGRAF};
use influxdb3::{
    Break, Fault, Generate, InfluxDb3, ORG, Options, Product, Query, Quota, QuotaAnswer, TOKEN,
};
use reqwest::header::HeaderMap;
use serde_json::{Value as Json, json};
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

/// 2026-01-01.
const NEW_YEAR: i64 = 1_767_225_600_000_000_000;
const DAY: i64 = 86_400_000_000_000;

const WEATHER: &str = "\
weather,city=Ulm,station=a temp=1.5,count=1i,seq=18446744073709551615u,ok=t,note=\"a \\\"b\\\" \\\\\" \
1767225600000000001
weather,city=Bern temp=2.5,ok=f 1767225601000000000
weather,city=Bern count=7i 1767225601000000000
weather,city=Bern temp=3.5 1767225601000000000
";

#[derive(Debug)]
struct Answer {
    schema: Option<SchemaRef>,
    /// With those that have no rows, which come from keep-alives.
    batches: Vec<RecordBatch>,
    largest: usize,
    trailers: MetadataMap,
    end: Result<(), Status>,
}

impl Answer {
    fn rows(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }

    /// All values as text, by row, in the order of the text.
    fn values(&self) -> Vec<Vec<String>> {
        let mut rows = Vec::new();
        for batch in &self.batches {
            for row in 0..batch.num_rows() {
                let text = |column: &ArrayRef| array_value_to_string(column, row).unwrap();
                rows.push(batch.columns().iter().map(text).collect::<Vec<_>>());
            }
        }
        rows.sort();
        rows
    }

    fn status(&self) -> &Status {
        self.end.as_ref().unwrap_err()
    }

    #[track_caller]
    fn fails(&self, code: Code, text: &str) {
        let status = self.status();
        assert_eq!(status.code(), code, "{status:?}");
        assert!(status.message().contains(text), "{status:?}");
    }
}

async fn send(server: &InfluxDb3, ticket: Vec<u8>, headers: &[(&'static str, &str)]) -> Answer {
    let channel = Channel::from_shared(server.url()).unwrap().connect().await.unwrap();
    let mut client = FlightServiceClient::new(channel).max_decoding_message_size(64 << 20);
    let mut request = Request::new(Ticket { ticket: ticket.into() });
    request.metadata_mut().insert("authorization", format!("Bearer {TOKEN}").parse().unwrap());
    for (name, value) in headers {
        request.metadata_mut().insert(*name, value.parse().unwrap());
    }
    let mut answer = Answer {
        schema: None,
        batches: Vec::new(),
        largest: 0,
        trailers: MetadataMap::new(),
        end: Ok(()),
    };
    let mut stream = match client.do_get(request).await {
        Ok(stream) => stream.into_inner(),
        Err(status) => return Answer { end: Err(status), ..answer },
    };
    let mut messages = Vec::new();
    loop {
        match stream.message().await {
            Ok(Some(message)) => {
                answer.largest = answer.largest.max(message.data_body.len());
                messages.push(message);
            }
            Ok(None) => break,
            Err(status) => {
                answer.end = Err(status);
                break;
            }
        }
    }
    if !messages.is_empty() {
        let schema = arrow::datatypes::Schema::try_from(&messages[0]).unwrap();
        answer.schema = Some(Arc::new(schema));
        answer.batches = flight_data_to_batches(&messages).unwrap();
    }
    if answer.end.is_ok() {
        answer.trailers = stream.trailers().await.unwrap().unwrap_or_default();
    }
    answer
}

fn ticket(database: &str, sql: &str) -> Vec<u8> {
    json!({ "database": database, "sql_query": sql, "query_type": "sql" }).to_string().into_bytes()
}

async fn ask(server: &InfluxDb3, sql: &str) -> Answer {
    send(server, ticket("d", sql), &[]).await
}

async fn count(server: &InfluxDb3, sql: &str) -> i64 {
    let answer = ask(server, sql).await;
    answer.end.unwrap();
    answer
        .batches
        .iter()
        .find(|b| b.num_rows() > 0)
        .unwrap()
        .column(0)
        .as_primitive::<Int64Type>()
        .value(0)
}

fn client() -> reqwest::Client {
    // Only the first of the tests installs it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::new()
}

async fn get(server: &InfluxDb3, path: &str) -> (u16, HeaderMap, String) {
    let client = client();
    let request = client.get(format!("{}{path}", server.url()));
    let answer = request.header("authorization", format!("Token {TOKEN}")).send().await.unwrap();
    (answer.status().as_u16(), answer.headers().clone(), answer.text().await.unwrap())
}

async fn get_json(server: &InfluxDb3, path: &str) -> Json {
    let (status, _, body) = get(server, path).await;
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

#[tokio::test]
async fn flight_answers_have_the_types_and_the_metadata_of_the_real_ones() {
    let server = InfluxDb3::start(Product::Core);
    server.write("d", WEATHER);
    let answer = ask(&server, "SELECT * FROM iox.\"weather\"").await;
    answer.end.as_ref().unwrap();
    let schema = answer.schema.clone().unwrap();
    let columns: Vec<_> = schema
        .fields()
        .iter()
        .map(|field| {
            let kind =
                field.metadata()["iox::column::type"].strip_prefix("iox::column_type::").unwrap();
            (field.name().as_str(), field.data_type().clone(), field.is_nullable(), kind)
        })
        .collect();
    let time = DataType::Timestamp(TimeUnit::Nanosecond, None);
    assert_eq!(
        columns,
        [
            ("city", DataType::Utf8, true, "tag"),
            ("count", DataType::Int64, true, "field::integer"),
            ("note", DataType::Utf8, true, "field::string"),
            ("ok", DataType::Boolean, true, "field::boolean"),
            ("seq", DataType::UInt64, true, "field::uinteger"),
            ("station", DataType::Utf8, true, "tag"),
            ("temp", DataType::Float64, true, "field::float"),
            ("time", time, false, "timestamp"),
        ]
    );
    assert!(schema.metadata().is_empty());
    // Points with the same tags and time are one row; the last value of each field is kept.
    assert_eq!(
        answer.values(),
        [
            ["Bern", "7", "", "false", "", "", "3.5", "2026-01-01T00:00:01"],
            [
                "Ulm",
                "1",
                "a \"b\" \\",
                "true",
                "18446744073709551615",
                "a",
                "1.5",
                "2026-01-01T00:00:00.000000001"
            ],
        ]
    );
    let ulm = answer.batches[0].column(5).as_string::<i32>();
    assert_eq!(ulm.null_count(), 1);
    assert!(!answer.trailers.keys().any(|key| format!("{key:?}").contains("x-influxdata")));

    let none = ask(&server, "SELECT * FROM weather WHERE time < '2000-01-01T00:00:00Z'").await;
    assert_eq!((none.end.is_ok(), none.rows()), (true, 0));
    assert_eq!(none.schema, answer.schema);

    let computed = "SELECT city, max(time) AS last, max(temp), count(*), temp::text AS t FROM weather \
        GROUP BY city, temp::text";
    let schema = ask(&server, computed).await.schema.unwrap();
    let marked: Vec<_> =
        schema.fields().iter().filter(|field| !field.metadata().is_empty()).collect();
    assert_eq!(marked.iter().map(|field| field.name().as_str()).collect::<Vec<_>>(), ["city"]);
    let bounds = ask(&server, "SELECT min(time), max(time) FROM weather").await;
    assert_eq!(bounds.values(), [["2026-01-01T00:00:00.000000001", "2026-01-01T00:00:01"]]);
    assert_eq!(count(&server, "SELECT count(*) FROM weather WHERE city = 'Ulm'").await, 1);

    // A later column is in the answers for earlier rows.
    server.write("d", "weather,zone=x humidity=1 1767312000000000000\n");
    let wider = ask(&server, "SELECT * FROM weather WHERE time < '2026-01-02T00:00:00Z'").await;
    assert_eq!((wider.rows(), wider.schema.unwrap().fields().len()), (2, 10));
    assert_eq!(
        server.queries()[0],
        Query { database: "d".to_owned(), sql: "SELECT * FROM iox.\"weather\"".to_owned() }
    );
}

#[tokio::test]
async fn the_catalog_names_types_as_the_real_one_does() {
    let server = InfluxDb3::start(Product::Core);
    server.write("d", WEATHER);
    server.write("d", "Weather f=1 1\n\"odd\\ 'na\\,me f=1 1\n");
    let sql = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'iox'";
    let tables = ask(&server, sql).await;
    assert_eq!(tables.values(), [["\"odd 'na,me"], ["Weather"], ["weather"]]);
    let shown = ask(&server, "SHOW TABLES").await;
    assert!(shown.values().iter().any(|row| row[1] == "iox" && row[3] == "BASE TABLE"));
    let sql = "SELECT column_name, ordinal_position, is_nullable, data_type \
        FROM information_schema.columns WHERE table_name = 'weather' AND table_schema = 'iox'";
    let columns = ask(&server, sql).await.values();
    assert_eq!(columns[0], ["city", "0", "YES", "Dictionary(Int32, Utf8)"]);
    assert_eq!(columns[7], ["time", "7", "NO", "Timestamp(Nanosecond, None)"]);
    let odd = ask(&server, "SELECT f FROM public.iox.\"\"\"odd 'na,me\"").await;
    assert_eq!(odd.rows(), 1);
    assert_eq!(ask(&server, "SELECT f FROM \"Weather\"").await.rows(), 1);

    // The plan says at once whether a range holds anything.
    let explain = "EXPLAIN SELECT * FROM weather WHERE time >= ";
    let empty = ask(&server, &format!("{explain}'2027-01-01T00:00:00Z'")).await.values();
    let some = ask(&server, &format!("{explain}'2026-01-01T00:00:00Z'")).await.values();
    let plan = |rows: &[Vec<String>]| rows.concat().concat();
    assert!(plan(&empty).contains("EmptyExec"), "{empty:?}");
    assert!(!plan(&some).contains("EmptyExec"), "{some:?}");
}

#[tokio::test]
async fn mistakes_get_the_texts_of_the_real_ones() {
    let server = InfluxDb3::start(Product::Core);
    server.write("d", "cpu,host=a cnt=1i 1\n");
    let fails =
        async |sql: &str, text: &str| ask(&server, sql).await.fails(Code::InvalidArgument, text);
    let planning = "Error while planning query: ";
    let text = format!("{planning}Error during planning: table 'public.iox.nope' not found");
    fails("SELECT * FROM nope", &text).await;
    let text = "Schema error: No field named zz. Valid fields are cpu.cnt, cpu.host, cpu.time.";
    fails("SELECT zz FROM cpu", &format!("{planning}{text}")).await;
    let text = "SQL error: ParserError(\"Expected: an SQL statement, found: selec at Line: 1, Column: 1\")";
    fails("selec", &format!("{planning}{text}")).await;
    let text = "This feature is not implemented: The context currently only supports a single SQL statement";
    fails("SELECT 1; SELECT 2", &format!("{planning}{text}")).await;
    let text = "Error during planning: DDL not supported: CreateMemoryTable";
    fails("CREATE TABLE t AS SELECT 1", &format!("{planning}{text}")).await;
    fails("SELECT cnt / (cnt - cnt) FROM cpu", "Error while execution Flight SQL stream: ").await;
    fails("SELECT * FROM Cpu2", "table 'public.iox.cpu2' not found").await;

    let nowhere = send(&server, ticket("nowhere", "SELECT 1"), &[]).await;
    let text = "Cannot retrieve database: External error: database not found: nowhere";
    nowhere.fails(Code::Internal, text);
    let junk = send(&server, b"junk".to_vec(), &[]).await;
    junk.fails(Code::InvalidArgument, "Invalid ticket. Error: Invalid ticket");
    let bucket = json!({ "bucket": "d", "sql_query": "SELECT 1" }).to_string();
    assert_eq!(send(&server, bucket.into_bytes(), &[]).await.rows(), 1);
    let long = format!("SELECT '{}'", "x".repeat(5 << 20));
    ask(&server, &long).await.fails(Code::OutOfRange, "decoded message length too large");

    let serverless = InfluxDb3::start(Product::Serverless);
    serverless.create("d");
    let nowhere = send(&serverless, ticket("nowhere", "SELECT 1"), &[]).await;
    nowhere.fails(Code::InvalidArgument, "not found");
    let wrong = send(&serverless, ticket("d", "SELECT 1"), &[("authorization", "Bearer no")]).await;
    wrong.fails(Code::Unauthenticated, "Unauthenticated");
    serverless.configure(|options| options.forbidden.push("d".to_owned()));
    ask(&serverless, "SELECT 1").await.fails(Code::Unauthenticated, "is unauthorized");
}

#[tokio::test]
async fn limits_are_decided_when_a_query_is_planned() {
    let server = InfluxDb3::start(Product::Serverless);
    server.generate("d", "cpu", &Generate { rows: 240, step: DAY / 24, ..Generate::default() });
    server.configure(|options| options.partitions = Some(4));
    let days = |days: i64| {
        let end = NEW_YEAR + days * DAY;
        format!(
            "SELECT * FROM iox.cpu WHERE time >= {NEW_YEAR}::TIMESTAMP AND time < to_timestamp_nanos({end})"
        )
    };
    let days = |n| days(n).replace(&format!("{NEW_YEAR}::TIMESTAMP"), "'2026-01-01T00:00:00Z'");
    let four = ask(&server, &days(4)).await;
    assert_eq!(four.rows(), 4 * 24);
    assert_eq!(four.trailers.get("x-influxdata-partitions").unwrap(), "4");
    assert_eq!(four.trailers.get("x-influxdata-parquet-files").unwrap(), "4");
    assert!(four.trailers.get("x-influxdata-execution-duration-seconds").is_some());
    for sql in [days(5), format!("EXPLAIN {}", days(5)), "SELECT count(*) FROM cpu".to_owned()] {
        let text = "Query would process more than 4 partitions";
        ask(&server, &sql).await.fails(Code::ResourceExhausted, text);
    }
    let lower = [("x-influxdata-partition-limit", "2")];
    let refused = send(&server, ticket("d", &days(3)), &lower).await;
    refused.fails(Code::ResourceExhausted, "more than 2 partitions");
    let higher = [("x-influxdata-partition-limit", "20")];
    let refused = send(&server, ticket("d", &days(5)), &higher).await;
    refused.fails(Code::ResourceExhausted, "more than 4 partitions");
    server.configure(|options| options.files_per_day = 300);
    ask(&server, &days(4)).await.fails(Code::ResourceExhausted, "more than 1000 parquet files");

    let core = InfluxDb3::start(Product::Core);
    core.configure(|options| options.parquet_files = Some(2));
    core.write("d", "m f=1 0\nm f=1 1\nm f=1 600000000000\nm f=1 1200000000000\n");
    core.write_unpersisted("d", "m f=1 3000000000000\n");
    let text = "Error while planning query: External error: Query would exceed file limit of 2 parquet files. ";
    ask(&core, "SELECT * FROM m").await.fails(Code::Internal, text);
    ask(&core, "EXPLAIN SELECT * FROM m ORDER BY time LIMIT 1").await.fails(Code::Internal, text);
    let late = "SELECT * FROM m WHERE time >= '1970-01-01T00:15:00Z'";
    assert_eq!(ask(&core, late).await.rows(), 2);
    let files = "SELECT table_name, row_count, min_time, max_time FROM system.parquet_files";
    let files = ask(&core, files).await.values();
    assert_eq!(files.len(), 3);
    assert_eq!(files[0], ["m", "1", "1200000000000", "1200000000000"]);
    assert_eq!(files[2], ["m", "2", "0", "1"]);
    core.persist();
    assert_eq!(ask(&core, "SELECT * FROM system.parquet_files").await.rows(), 4);
}

#[tokio::test]
async fn slow_queries_send_keep_alives_and_end_at_their_time() {
    let options =
        Options { keep_alive: Duration::from_millis(40), ..Options::of(Product::Serverless) };
    let server = InfluxDb3::start_with(Product::Serverless, options);
    server.generate("d", "cpu", &Generate { rows: 20_000, ..Generate::default() });
    server.configure(|options| {
        options.cost =
            Arc::new(|scan| Duration::from_millis(if scan.rows > 10_000 { 300 } else { 0 }));
    });
    let slow = ask(&server, "SELECT * FROM cpu").await;
    let empty = slow.batches.iter().take_while(|batch| batch.num_rows() == 0).count();
    assert!((3..10).contains(&empty), "{empty}");
    assert_eq!(slow.rows(), 20_000);
    let most = slow.batches.iter().map(RecordBatch::num_rows).max();
    assert_eq!(most, Some(8192));
    let quick = ask(&server, "SELECT * FROM cpu WHERE time < '2026-01-01T00:10:00Z'").await;
    assert_eq!((quick.rows(), quick.batches.len()), (600, 1));

    let timeout = [("grpc-timeout", "100m")];
    let late = send(&server, ticket("d", "SELECT * FROM cpu"), &timeout).await;
    late.fails(Code::ResourceExhausted, "grpc-timeout elapsed");
    server.configure(|options| options.query_time = Some(Duration::from_millis(50)));
    ask(&server, "SELECT * FROM cpu").await.fails(Code::DeadlineExceeded, "");
}

#[tokio::test]
async fn a_spent_quota_refuses_until_its_window_ends() {
    let quota = Quota { bytes: 30_000, window: Duration::from_millis(1500), ..Quota::default() };
    let options = Options { quota: Some(quota), ..Options::of(Product::Serverless) };
    let server = InfluxDb3::start_with(Product::Serverless, options);
    server.generate("d", "cpu", &Generate { rows: 2000, ..Generate::default() });
    let began = Instant::now();
    assert_eq!(ask(&server, "SELECT * FROM cpu").await.rows(), 2000);
    let refused = ask(&server, "SELECT * FROM cpu").await;
    refused.fails(Code::ResourceExhausted, "has exceeded limited_query plan limit");
    let seconds = refused.status().metadata().get("retry-after").unwrap().to_str().unwrap();
    assert!((1..=2).contains(&seconds.parse::<u32>().unwrap()), "{seconds}");
    assert!(server.served()[0] > 30_000, "{:?}", server.served());

    server.configure(|options| {
        let quota = options.quota.as_mut().unwrap();
        (quota.answer, quota.retry_after) = (QuotaAnswer::Http { body: true }, false);
    });
    // As the edge would say it: what a client makes of it is another code.
    let refused = ask(&server, "SELECT * FROM cpu").await;
    refused.fails(Code::Internal, "status: 429");
    server.configure(|options| {
        options.quota.as_mut().unwrap().answer = QuotaAnswer::Http { body: false };
    });
    let refused = ask(&server, "SELECT * FROM cpu").await;
    refused.fails(Code::Unavailable, "429");
    assert_eq!(server.refusals(), 3);
    let (status, headers, body) = get(&server, "/query?db=d&q=SHOW+MEASUREMENTS").await;
    assert_eq!(status, 429, "{body}");
    assert!(headers.contains_key("retry-after"));

    tokio::time::sleep(Duration::from_millis(1600).saturating_sub(began.elapsed())).await;
    assert_eq!(ask(&server, "SELECT * FROM cpu").await.rows(), 2000);
    assert_eq!(server.served().len(), 2);

    // A stream that is under way may be ended, too.
    let spent = server.served()[0];
    server.configure(|options| {
        let quota = options.quota.as_mut().unwrap();
        (quota.cut, quota.window) = (true, Duration::from_secs(3600));
        (quota.answer, quota.bytes) = (QuotaAnswer::Grpc, spent + 2000);
    });
    let cut = ask(&server, "SELECT * FROM cpu").await;
    assert_eq!(cut.rows(), 2000);
    cut.fails(Code::ResourceExhausted, "limited_query");
}

#[tokio::test]
async fn faults_reach_the_client() {
    let server = InfluxDb3::start(Product::Dedicated);
    server.generate("d", "cpu", &Generate { rows: 30_000, ..Generate::default() });
    let sql = "SELECT * FROM cpu";
    let with = async |fault: Fault| {
        server.fault(|text| text.contains("cpu"), 1, fault);
        ask(&server, sql).await
    };
    let all = ask(&server, sql).await;
    let whole = (all.rows(), all.batches.len());
    assert_eq!(whole.0, 30_000);
    assert!(whole.1 > 2);

    for how in [Break::NoTrailers, Break::Rst(0)] {
        let cut = with(Fault::Break { batches: 2, how }).await;
        assert_eq!(cut.batches.len(), 2, "{how:?}");
        cut.fails(Code::Unknown, "missing grpc-status trailer");
    }
    let end = with(Fault::Break { batches: usize::MAX, how: Break::NoTrailers }).await;
    assert_eq!((end.rows(), end.end.is_err()), (30_000, true));
    let reset = with(Fault::Break { batches: 1, how: Break::Rst(2) }).await;
    assert_eq!(reset.batches.len(), 1);
    reset.fails(Code::Internal, "");
    for how in [Break::Reset, Break::Close] {
        let broken = with(Fault::Break { batches: 1, how }).await;
        assert_eq!(broken.batches.len(), 1, "{how:?}");
        assert_ne!(broken.status().code(), Code::Ok);
        let broken = with(Fault::BreakAtOnce(how)).await;
        assert!(broken.end.is_err() && broken.schema.is_none(), "{how:?}");
    }
    with(Fault::BreakAtOnce(Break::Rst(2))).await.fails(Code::Internal, "");

    let text = "gone".to_owned();
    let late = Fault::StatusAfter { batches: usize::MAX, code: Code::Unavailable, text };
    let late = with(late).await;
    assert_eq!(late.rows(), 30_000);
    late.fails(Code::Unavailable, "gone");
    with(Fault::memory()).await.fails(Code::ResourceExhausted, "Additional allocation failed");
    with(Fault::unavailable()).await.fails(Code::Unavailable, "");
    with(Fault::too_many_requests(Some(7))).await.fails(Code::Internal, "status: 429");
    with(Fault::edge(503)).await.fails(Code::Internal, "invalid compression flag: 60");
    with(Fault::bare(405)).await.fails(Code::Unknown, "405");
    with(Fault::bare(504)).await.fails(Code::Unavailable, "504");

    let began = Instant::now();
    let pause = Duration::from_millis(200);
    assert_eq!(with(Fault::Stall { batches: 1, pause }).await.rows(), 30_000);
    assert_eq!(with(Fault::SlowPlan(pause)).await.rows(), 30_000);
    assert_eq!(with(Fault::Slow(pause)).await.rows(), 30_000);
    assert!(began.elapsed() >= 3 * pause);

    // Somebody still writes: one more row, and a column that was not listed.
    let later = with(Fault::Write("cpu,host=new extra=1 1767225600000000000\n".to_owned())).await;
    assert_eq!(later.rows(), 30_001);
    assert!(later.schema.unwrap().field_with_name("extra").is_ok());
    assert_eq!(server.fired(), 20);
    server.fault(|_| true, 1, Fault::unavailable());
    server.heal();
    assert_eq!(ask(&server, sql).await.rows(), 30_001);
}

#[tokio::test]
async fn line_protocol_is_read_as_version_3_does() {
    let server = InfluxDb3::start(Product::Core);
    let lines = "# a comment\n\nm\\,\\ n,k\\=1=C:\\\\dir\\=x,\u{e9}=\u{1f600} \
        s=\"line\nbreak, \\\"quoted\\\" \\n\",i=-9223372036854775808i,f=-0,b=T -7\n";
    server.write("d", lines);
    let answer = ask(&server, "SELECT * FROM \"m, n\"").await;
    let names = answer.schema.as_ref().unwrap().fields().iter().map(|field| field.name().clone());
    assert_eq!(names.collect::<Vec<_>>(), ["b", "f", "i", "k=1", "s", "time", "\u{e9}"]);
    let row = [
        "true",
        "-0.0",
        "-9223372036854775808",
        "C:\\dir=x",
        "line\nbreak, \"quoted\" \\n",
        "1969-12-31T23:59:59.999999993",
        "\u{1f600}",
    ];
    assert_eq!(answer.values(), [row]);
}

#[tokio::test]
async fn one_row_may_be_a_message_that_is_larger_than_clients_expect() {
    let server = InfluxDb3::start(Product::Core);
    server.write("d", &format!("m s=\"{}\" 1\n", "x".repeat(9 << 20)));
    let answer = ask(&server, "SELECT * FROM m").await;
    assert!(answer.largest > 9 << 20);
    assert_eq!(answer.rows(), 1);
}

#[tokio::test]
async fn core_answers_over_http() {
    let server = InfluxDb3::start(Product::Core);
    server.write("probe", WEATHER);
    let (status, headers, body) = get(&server, "/ping").await;
    assert_eq!((status, &headers["x-influxdb-build"]), (200, &"Core".parse().unwrap()));
    assert!(body.contains("\"version\":\"3.6.0\""), "{body}");
    assert_eq!(get(&server, "/health").await.2, "OK");
    let databases = get_json(&server, "/api/v3/configure/database?format=json").await;
    assert_eq!(databases, json!([{ "iox::database": "_internal" }, { "iox::database": "probe" }]));
    assert_eq!(get(&server, "/api/v3/configure/database").await.0, 400);
    assert_eq!(get(&server, "/api/v2/buckets").await.0, 404);
    let sql = "select+temp,time+from+weather+where+ok+order+by+time";
    let rows = get_json(&server, &format!("/api/v3/query_sql?db=probe&q={sql}")).await;
    assert_eq!(rows[0]["temp"], 1.5);
    let (status, _, body) = get(&server, "/api/v3/query_sql?db=no&q=select+1").await;
    assert_eq!(
        (status, body.as_str()),
        (404, r#"{"error":"query error: database not found: no"}"#)
    );
    let client = client();
    let url = format!("{}/query?db=probe&q=SHOW+DATABASES", server.url());
    assert!(client.get(url).send().await.is_err());

    server.configure(|options| options.auth = true);
    let answer = client.get(format!("{}/ping", server.url())).send().await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.text().await.unwrap().as_str()), (401, ""));
    assert_eq!(get(&server, "/ping").await.0, 200);
}

#[tokio::test]
async fn serverless_has_buckets_limits_and_artifacts() {
    let server = InfluxDb3::start(Product::Serverless);
    for number in 0..45 {
        server.create(&format!("bucket{number}"));
    }
    server.create_with_retention("short", Duration::from_secs(3600));
    let orgs = get_json(&server, "/api/v2/orgs").await;
    assert_eq!(
        (&orgs["orgs"][0]["id"], &orgs["orgs"][0]["defaultStorageType"]),
        (&json!(ORG), &json!("iox"))
    );
    let limits = get_json(&server, &format!("/api/v2/orgs/{ORG}/limits")).await;
    assert_eq!(limits["limits"]["rate"]["readKBs"], 1000);
    assert_eq!(limits["limits"]["ioxQuery"], json!({ "partitions": 500, "parquetFiles": 1000 }));

    let page = get_json(&server, "/api/v2/buckets").await;
    assert_eq!(page["buckets"].as_array().unwrap().len(), 20);
    let (mut names, mut path) = (Vec::new(), "/api/v2/buckets?limit=20".to_owned());
    loop {
        let page = get_json(&server, &path).await;
        let buckets = page["buckets"].as_array().unwrap();
        names.extend(buckets.iter().map(|bucket| bucket["name"].as_str().unwrap().to_owned()));
        let Some(last) = buckets.last() else { break };
        path = format!("/api/v2/buckets?limit=20&after={}", last["id"].as_str().unwrap());
    }
    assert_eq!(names.len(), 48);
    assert_eq!(names[45..], ["short", "_monitoring", "_tasks"]);
    let short = get_json(&server, "/api/v2/buckets?name=short").await;
    assert_eq!(short["buckets"][0]["retentionRules"][0]["everySeconds"], 3600);
    assert_eq!(short["buckets"][0]["id"], server.bucket_id("short"));

    let telegrafs = get_json(&server, &format!("/api/v2/telegrafs?orgID={ORG}")).await;
    assert_eq!(telegrafs["configurations"][0]["config"], TELEGRAF);
    let path =
        format!("/api/v2/telegrafs/{}", telegrafs["configurations"][0]["id"].as_str().unwrap());
    assert_eq!(get(&server, &path).await.2, TELEGRAF);
    let list = get_json(&server, "/api/v2/dashboards").await;
    assert!(list["dashboards"][0]["cells"][0].get("properties").is_none());
    let path = format!("/api/v2/dashboards/{}", list["dashboards"][0]["id"].as_str().unwrap());
    assert!(get_json(&server, &path).await["cells"][0].get("properties").is_none());
    let whole = get_json(&server, &format!("{path}?include=properties")).await;
    assert_eq!(whole["cells"][0]["properties"]["type"], "xy");
    assert_eq!(get(&server, "/api/v2/checks").await.0, 400);
    for kind in
        ["checks", "notificationRules", "notificationEndpoints", "scripts", "tasks", "labels"]
    {
        let list = get_json(&server, &format!("/api/v2/{kind}?orgID={ORG}")).await;
        assert_eq!(list[kind].as_array().unwrap().len(), 1, "{kind}");
    }
    assert!(get(&server, "/api/v2/authorizations").await.2.contains(SECRET_TOKEN));
    let secrets = get_json(&server, &format!("/api/v2/orgs/{ORG}/secrets")).await;
    assert_eq!(secrets["secrets"], json!(["PAGERDUTY_KEY", "SLACK_URL"]));
    server.set_artifacts("labels", json!([]));
    assert_eq!(get_json(&server, "/api/v2/labels").await["labels"], json!([]));
    let fault = Fault::json(405, "method not allowed", "no");
    server.fault(|text| text == "GET /api/v2/tasks", usize::MAX, fault);
    assert_eq!(get(&server, "/api/v2/tasks?limit=500").await.0, 405);

    let client = client();
    let answer =
        client.get(format!("{}/api/v2/orgs?token=abc", server.url())).send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 401);
    assert_eq!(client.get(format!("{}/ping", server.url())).send().await.unwrap().status(), 204);
    assert!(server.requests().contains(&"GET /api/v2/tasks?limit=500".to_owned()));
    assert!(!server.requests().concat().contains("abc"));
}

#[tokio::test]
async fn rows_that_are_older_than_the_retention_cannot_be_read() {
    let server = InfluxDb3::start(Product::Serverless);
    server.create_with_retention("d", Duration::from_secs(3600));
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as i64;
    let ago = |seconds: i64| now - seconds * 1_000_000_000;
    server.write("d", &format!("m f=1 {}\nm f=2 {}\nm f=3 {}\n", ago(9999), ago(3700), ago(60)));
    assert_eq!(ask(&server, "SELECT f FROM m").await.values(), [["3.0"]]);
}

#[tokio::test]
async fn a_million_rows_are_quick() {
    let server = InfluxDb3::start(Product::Core);
    let step = 30 * DAY / 1_000_000;
    let tags = vec![("host", 100), ("region", 3)];
    let what = Generate { rows: 1_000_000, step, tags, floats: 8, ..Generate::default() };
    server.generate("d", "cpu", &what);
    server.configure(|options| options.parquet_files = None);
    assert_eq!(count(&server, "SELECT count(*) FROM cpu").await, 1_000_000);
    let sql =
        "SELECT * FROM cpu WHERE time >= '2026-01-05T00:00:00Z' AND time < '2026-01-06T00:00:00Z'";
    let day = ask(&server, sql).await;
    assert_eq!(day.rows(), 33_333);
    let mut hosts = BTreeMap::new();
    for batch in &day.batches {
        let times: &TimestampNanosecondArray = batch["time"].as_primitive();
        assert!(times.values().iter().all(|time| (time - NEW_YEAR).div_euclid(DAY) == 4));
        assert!(batch["f7"].as_primitive::<Float64Type>().values().iter().all(|f| *f < 100.0));
        batch["host"]
            .as_string::<i32>()
            .iter()
            .for_each(|host| *hosts.entry(host).or_insert(0) += 1);
    }
    assert_eq!(hosts.len(), 100);
}
