//! Servers that take line protocol and are no InfluxDB: they keep something else than what a line says.

use super::*;

fn header(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

#[test]
fn questdb_is_refused_though_it_calls_itself_an_influxdb() {
    let setting = Setting::small();
    let nothing = Influxd::start();
    let proxy = Proxy::before(&nothing);
    let headers = vec![header("Server", "questDB/1.0"), header("X-Influxdb-Version", "v2.7.4")];
    let ping = Fault::Status { code: 204, headers, body: String::new() };
    proxy.fault(|request| request == "GET /ping", usize::MAX, ping);
    let run = setting.restore(&proxy.url(), &[]).expect(1);
    assert!(run.stderr.contains("is QuestDB"), "{}", run.stderr);
    assert!(run.stderr.contains("nothing was changed"), "{}", run.stderr);
    assert!(databases(&nothing).is_empty());
}

#[test]
fn a_server_that_answers_any_statement_is_refused() {
    // As VictoriaMetrics does, whatever is asked.
    let setting = Setting::small();
    let nothing = Influxd::start();
    let proxy = Proxy::before(&nothing);
    let headers = vec![header("Content-Type", "application/json")];
    let body = r#"{"results":[{"name":"databases","series":[{"values":[["db"]]}]}]}"#.to_owned();
    let any = Fault::Status { code: 200, headers, body };
    proxy.fault(|request| !request.starts_with("GET /ping"), usize::MAX, any);
    let no_version = Fault::Status { code: 204, headers: Vec::new(), body: String::new() };
    proxy.fault(|request| request == "GET /ping", usize::MAX, no_version);
    let url = proxy.url().replace("influxdb+", "influxdb1+");
    let run = setting.restore(&url, &[]).expect(1);
    assert!(run.stderr.contains("perhaps VictoriaMetrics"), "{}", run.stderr);
    assert!(databases(&nothing).is_empty());
}
