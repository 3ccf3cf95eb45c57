//! The same InfluxDB 3 by `/query`, where gRPC does not pass.

use influxdb3::Grpc;
use serde_json::json;

use super::*;

fn is_fallback_read(text: &str) -> bool {
    text.starts_with("SELECT *::field") && text.ends_with("GROUP BY *")
}

fn is_count(text: &str) -> bool {
    text.starts_with("SELECT count(*)")
}

/// A server to which gRPC does not pass, with a mapping for each bucket.
fn blocked(product: Product, change: impl FnOnce(&mut Options)) -> Setting {
    let setting = Setting::with(product, |options| {
        options.grpc = Grpc::Http1;
        change(options);
    });
    if product == Product::Serverless {
        setting.server.create("d");
        setting.server.create("d/autogen");
        map(&setting, &["d", "d/autogen"]);
    }
    if product == Product::Dedicated {
        setting.configure("", "databases = [\"d\", \"d/autogen\"]");
    }
    setting
}

/// The name of the mapping is another than the bucket's.
fn map(setting: &Setting, buckets: &[&str]) {
    let mappings = buckets.iter().map(|bucket| {
        json!({
            "id": "0a", "orgID": influxdb3::ORG, "bucketID": setting.server.bucket_id(bucket),
            "database": format!("as {bucket}"), "retention_policy": "weeks", "default": true,
        })
    });
    setting.server.set_artifacts("dbrps", mappings.collect());
}

/// Later servers than Core 3.6 write -0 as 0, which is said in a warning.
fn written(model: &mut Model, options: &Options) {
    for value in model.points.iter_mut().flat_map(|point| point.fields.values_mut()) {
        if options.partial.is_some() && *value == Value::Float(-0.0) {
            *value = Value::Float(0.0);
        }
    }
}

fn small(product: Product, change: impl FnOnce(&mut Options)) -> (Setting, Model) {
    let mut options = Options { grpc: Grpc::Http1, ..Options::of(product) };
    change(&mut options);
    let given = options.clone();
    let setting = blocked(product, |options| *options = given);
    let mut model = model(&Shape::default());
    setting.server.write("d", &lines(&model));
    written(&mut model, &options);
    if product == Product::Dedicated {
        setting.configure("", "databases = [\"d\"]");
    }
    (setting, model)
}

#[test]
fn everything_comes_out_exactly_without_grpc() {
    for product in [Product::Serverless, Product::Dedicated, Product::Core] {
        let setting = blocked(product, |_| {});
        let mut edges = model(&Shape { edges: true, points: 40, ..Shape::default() });
        let mut other = model(&Shape { points: 500, series: 5, ..Shape::default() });
        setting.server.write("d", &lines(&edges));
        setting.server.write("d/autogen", &lines(&other));
        written(&mut edges, &Options::of(product));
        written(&mut other, &Options::of(product));
        let run = setting.export(&["--json"]).expect(0).json();
        assert_eq!(run["status"], "complete", "{run}");
        let warning = run["warnings"][0].as_str().unwrap();
        assert!(warning.contains("gRPC does not pass") && warning.contains("/query"), "{warning}");
        setting.assert_complete("d", &edges);
        setting.assert_complete("d/autogen", &other);
        assert!(!setting.server.queries().iter().any(|query| is_read(&query.sql)));
        // Nothing is left to be done, and nothing is read again.
        let before = reads_by_query(&setting);
        assert!(before > 0);
        setting.export(&[]).expect(0);
        assert_eq!(reads_by_query(&setting), before);
    }
}

fn reads_by_query(setting: &Setting) -> usize {
    let queries = setting.server.queries();
    queries.iter().filter(|query| is_fallback_read(&query.sql)).count()
}

#[test]
fn it_is_said_which_way_is_used() {
    let page = |status| Grpc::Answered(Fault::edge(status));
    for (grpc, way, why) in [
        (Grpc::Passes, "over Flight", None),
        (Grpc::Http1, "over /query", Some("")),
        (page(464), "over /query", Some("HTTP status 464")),
        (page(200), "over /query", Some("HTTP status 200")),
        (Grpc::Answered(Fault::bare(405)), "over /query", Some("HTTP status 405")),
        (Grpc::Answered(Fault::BreakAtOnce(Break::Reset)), "over /query", Some("")),
    ] {
        let (setting, _) = small(Product::Core, |options| options.grpc = grpc.clone());
        let plan = setting.on("plan", &[]).expect(0);
        assert!(plan.stdout.contains(way), "{grpc:?}: {}", plan.stdout);
        let said = plan.stdout.contains("gRPC does not pass");
        assert_eq!(said, why.is_some(), "{grpc:?}: {}", plan.stdout);
        assert!(plan.stdout.contains(why.unwrap_or_default()), "{grpc:?}: {}", plan.stdout);
        let doctor = setting.on("doctor", &[]).expect(0);
        assert!(doctor.stdout.contains(way), "{grpc:?}: {}", doctor.stdout);
    }
}

/// Credentials, a quota and what may be over soon prove nothing of gRPC.
#[test]
fn what_may_pass_is_no_reason_to_leave_flight() {
    for (status, ends) in [(401, 1), (403, 1), (502, 3), (503, 3)] {
        let (setting, _) = small(Product::Core, |options| {
            options.grpc = Grpc::Answered(Fault::edge(status));
        });
        setting.configure("attempts = 2\npatience = \"1s\"", "");
        let run = setting.export(&[]).expect(ends);
        assert!(!run.stderr.contains("gRPC does not pass"), "{status}: {}", run.stderr);
        assert_eq!(reads_by_query(&setting), 0, "{status}");
    }
}

#[test]
fn a_run_goes_on_by_the_other_way() {
    for first_by_flight in [true, false] {
        let (setting, model) = small(Product::Serverless, |options| options.partial = None);
        let pass = |passes: bool| {
            let grpc = if passes { Grpc::Passes } else { Grpc::Http1 };
            setting.server.configure(|options| options.grpc = grpc);
        };
        pass(first_by_flight);
        setting.export(&["--window", "1d", "--to", "2024-01-02T12:00:00Z"]).expect(0);
        let (by_flight, by_query) = (reads(&setting.server), reads_by_query(&setting));
        assert_eq!((by_flight > 0, by_query > 0), (first_by_flight, !first_by_flight));
        pass(!first_by_flight);
        setting.export(&["--window", "1d"]).expect(0);
        assert!(reads(&setting.server) > 0 && reads_by_query(&setting) > 0);
        setting.assert_complete("d", &model);
    }
}

/// What happened once, or a few times, and is over: the rows are exact.
#[test]
fn faults_of_query_that_pass_cost_nothing() {
    let cut = |batches, how| Fault::Break { batches, how };
    let text = |status, text: &str| {
        let (headers, body) = (Vec::new(), text.to_owned());
        Fault::Http { status, headers, body }
    };
    let limit = "query error: error while planning query: External error: Query would exceed file limit \
                 of 432 parquet files. Please specify a smaller time range for your query.";
    let faults: Vec<(&str, Fault, usize)> = vec![
        ("no object at all", cut(0, Break::NoTrailers), 1),
        ("cut between two objects", cut(1, Break::NoTrailers), 2),
        ("closed after an object", cut(1, Break::Close), 2),
        ("reset after an object", cut(1, Break::Reset), 1),
        ("closed after all objects", cut(usize::MAX, Break::Close), 1),
        ("closed at once", Fault::BreakAtOnce(Break::Close), 1),
        ("too many files", text(500, limit), 3),
        ("too many files, as a wrong request", text(400, limit), 1),
        ("an error of the server", text(500, "datafusion error: Object Store error"), 1),
        ("502", Fault::edge(502), 1),
        ("a page with the status 200", Fault::edge(200), 1),
        ("429 that says when", Fault::too_many_requests(Some(1)), 2),
    ];
    for partial in [None, Some(true)] {
        for (name, fault, times) in faults.clone() {
            let (setting, model) = small(Product::Core, |options| options.partial = partial);
            setting.server.fault(is_fallback_read, times, fault);
            let run = setting.export(&["--concurrency", "2", "--window", "1w"]);
            assert_eq!(run.status, 0, "{name}\n{}{}", run.stdout, run.stderr);
            assert_eq!(setting.server.fired(), times, "{name}");
            setting.assert_complete("d", &model);
        }
    }
}

#[test]
fn what_stays_ends_the_run_without_grpc() {
    let cut = Fault::Break { batches: 1, how: Break::NoTrailers };
    let gone = Fault::json(404, "", "query error: database not found: d");
    for (name, fault, status, said) in [
        ("credentials", Fault::bare(401), 1, "hint: check the credentials"),
        ("gone", gone, 1, "database not found"),
        ("always cut", cut, 3, "the answer is not complete"),
        ("always closed", Fault::BreakAtOnce(Break::Close), 3, "run the same command again"),
    ] {
        let (setting, model) = small(Product::Core, |_| {});
        setting.configure("attempts = 1", "");
        setting.server.fault(is_fallback_read, usize::MAX, fault);
        let run = setting.export(&["--to", "2024-01-02T00:00:00Z"]);
        assert_eq!(run.status, status, "{name}\n{}{}", run.stdout, run.stderr);
        assert!(format!("{}{}", run.stdout, run.stderr).contains(said), "{name}: {}", run.stderr);
        assert!(!Archive::open(setting.archive()).is_sealed(), "{name}");
        setting.server.heal();
        setting.export(&[]).expect(0);
        setting.assert_complete("d", &model);
    }
}

/// Where the server says that more follows, nothing has to be counted.
#[test]
fn objects_that_say_that_more_follows_are_proof() {
    let (setting, model) = small(Product::Core, |options| options.partial = Some(true));
    setting.export(&["--window", "4w"]).expect(0);
    setting.assert_complete("d", &model);
    let queries = setting.server.queries();
    let answers = |is: fn(&str) -> bool| queries.iter().filter(|query| is(&query.sql)).count();
    assert!(answers(is_count) < answers(is_fallback_read), "{queries:#?}");
}

#[test]
fn limits_and_bounds_without_grpc() {
    for product in [Product::Core, Product::Dedicated] {
        let (setting, mut model) = small(product, |options| {
            options.parquet_files = Some(if product == Product::Core { 50 } else { 3 });
            // Anything wider than two days takes longer than anybody waits.
            options.cost = Arc::new(|scan| match i128::from(scan.to) - i128::from(scan.from) {
                wide if wide > i128::from(2 * DAY) && !scan.sql.starts_with("EXPLAIN") => {
                    Duration::from_secs(if scan.rows > 100 { 30 } else { 0 })
                }
                _ => Duration::ZERO,
            });
        });
        let far = model.points[0].time + 40 * 365 * DAY + 7;
        let point =
            Point::new("cpu", far).tag("host", "h0").field("far", Value::Unsigned(u64::MAX));
        setting.server.write("d", &(point.line() + "\n"));
        model.push(point);
        setting.export(&["--to", "2100-01-01"]).expect(0);
        setting.assert_complete("d", &model);
    }
}

#[test]
fn a_bucket_without_a_mapping_is_named() {
    let (setting, model) = small(Product::Serverless, |_| {});
    setting.server.write("other bucket", "m f=1 1\n");
    map(&setting, &["d", "d/autogen"]);
    let run = setting.export(&[]).expect(1);
    let said = "DBRP mapping, which is missing for other bucket";
    assert!(run.stderr.contains(said), "{}", run.stderr);
    assert!(run.stderr.contains("hint: let HTTP/2 pass"), "{}", run.stderr);
    assert_eq!(reads_by_query(&setting), 0);
    assert!(!setting.server.requests().iter().any(|request| request.starts_with("POST /api/v2")));
    // Those that are named can be had all the same.
    setting.configure("", "databases = [\"d\"]");
    setting.export(&[]).expect(0);
    setting.assert_complete("d", &model);
}

#[test]
fn a_wrong_token_stops_without_grpc() {
    for product in [Product::Serverless, Product::Core] {
        let (setting, _) = small(product, |options| options.auth = true);
        let source = format!("influxdb+{}", setting.server.url());
        let mut command = command(["plan", "--source", &source]);
        command.env("INFLUX_TOKEN", "wrong-token");
        let refused = run(command).expect(1);
        assert!(refused.stderr.contains("hint: check the credentials"), "{}", refused.stderr);
        assert!(!refused.stderr.contains("wrong-token"));
    }
}

/// HTTP goes by a proxy, which gRPC does not know of.
#[test]
fn a_proxy_leads_out_alone() {
    let (setting, model) = small(Product::Core, |_| {});
    let archive = setting.archive();
    let source = "influxdb+http://influx.invalid:8181";
    let mut export = command(["export", "--source", source, "--archive"]);
    export.arg(&archive).env("INFLUX_TOKEN", TOKEN).env("http_proxy", setting.server.url());
    let export = run(export).expect(0);
    assert!(export.stdout.contains("gRPC does not pass"), "{}", export.stdout);
    setting.assert_complete("d", &model);
}

#[test]
fn a_quota_holds_without_grpc() {
    const QUOTA: u64 = 1_000_000;
    let setting = blocked(Product::Serverless, |options| {
        let window = Duration::from_secs(2);
        options.quota = Some(Quota { bytes: QUOTA, window, ..Quota::default() });
    });
    let what = Generate { rows: 30_000, step: 10_000_000_000, floats: 4, ..Generate::default() };
    setting.server.generate("d", "cpu", &what);
    setting.configure("window = \"1h\"", "quota = \"1MB\"\nquota_window = \"2s\"");
    setting.export(&[]).expect(0);
    assert_eq!(setting.server.refusals(), 0, "{:?}", setting.server.served());
    assert!(setting.server.served().len() > 1, "{:?}", setting.server.served());
    assert_eq!(setting.count_rows("d.cpu"), 30_000);
}

#[test]
fn a_new_column_is_no_fault_without_grpc() {
    let (setting, mut model) = small(Product::Core, |_| {});
    let new = Point::new("cpu", model.points[0].time + 7).tag("zone", "z");
    let new = new.field("new", Value::Integer(i64::MIN + 1));
    setting.server.fault(is_fallback_read, 1, Fault::Write(new.line() + "\n"));
    model.push(new);
    setting.export(&["--concurrency", "1"]).expect(0);
    let rows = Archive::open(setting.archive()).rows("d.cpu");
    let expected = model.rows("cpu");
    // The point itself may lie in a window that was read before.
    assert!(rows.len() == expected.len() || rows.len() + 1 == expected.len());
    assert!(Archive::open(setting.archive()).columns("d.cpu").iter().any(|c| c.key == "new"));
}
