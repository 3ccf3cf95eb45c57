//! Sources behind a tunnel: everything passes through it and nothing before it is ready, it is opened again when it is
//! lost, and no process and no port is left of it, however moveout ends. Against real servers, under names that lead
//! nowhere, so that nobody can come past the tunnel.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

mod support;

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value as Json;
use support::{
    Archive, Influxd, MariaDb, Postgres, Run, command, mariadb, moveout, postgres, repository, run,
    server,
};
use tempfile::TempDir;

/// More than it takes to end a tunnel that ignores it.
const PATIENCE: Duration = Duration::from_secs(15);
/// A name that no resolver knows.
const HOST: &str = "db.invalid";

/// A server behind a tunnel, with a folder for the tunnel's program and for archives.
struct Setting {
    folder: TempDir,
    url: String,
    port: u16,
    more: String,
}

impl Setting {
    /// `url` has `HOST` in place of the server's address.
    fn new(url: &str, port: u16) -> Self {
        let folder = TempDir::with_prefix("tunnel-").unwrap();
        Self { folder, url: url.to_owned(), port, more: String::new() }
    }

    fn postgres(server: &Postgres, database: &str) -> Self {
        Self::new(&format!("postgres://{}@{HOST}:5432/{database}", server::USER), server.port())
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("archive")
    }

    fn archive(&self) -> Archive {
        Archive::open(self.path())
    }

    /// A configuration with a tunnel whose program has these options, and more keys of the tunnel.
    fn config(&self, options: &[&str], keys: &str) -> PathBuf {
        let (folder, archive) = (self.folder.path(), self.path());
        let forwarder = repository("tests/support/forwarder.py");
        let options: Vec<_> = options.iter().map(|option| format!(", {option:?}")).collect();
        let text = format!(
            "archive = {archive:?}\n{}\n[[source]]\nname = \"behind\"\nurl = {:?}\n\
             tunnel = {{ command = [\"python3\", {forwarder:?}, {folder:?}, \"{{port}}\", \"127.0.0.1\", \"{}\", \
             \"to={{host}}:{{remote_port}}\"{}]{keys} }}\n",
            self.more,
            self.url,
            self.port,
            options.concat()
        );
        let path = folder.join("config.toml");
        fs::write(&path, text).unwrap();
        path
    }

    fn command(&self, args: &[&str], options: &[&str], keys: &str) -> Command {
        let mut command = command(args);
        command.arg("--config").arg(self.config(options, keys));
        command.env("PGPASSWORD", server::PASSWORD).env("MYSQL_PWD", server::PASSWORD);
        command
    }

    #[track_caller]
    fn export(&self, options: &[&str], keys: &str) -> Run {
        let run = run(self.command(&["export", "-v"], options, keys));
        self.leaves_nothing();
        run
    }

    fn noted(&self, name: &str) -> Vec<String> {
        let text = fs::read_to_string(self.folder.path().join(name)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// The local ports that the tunnel was started with.
    fn ports(&self) -> Vec<u16> {
        let starts = self.noted("starts");
        starts.iter().map(|start| start.split(' ').next().unwrap().parse().unwrap()).collect()
    }

    /// No process of any tunnel is left, and none of their ports is bound, soon.
    #[track_caller]
    fn leaves_nothing(&self) {
        let deadline = Instant::now() + PATIENCE;
        let lives = |pid: &String| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with('Z'))
        };
        loop {
            let left: Vec<_> = self.noted("pids").into_iter().filter(lives).collect();
            let listens = |port: &u16| TcpStream::connect(("127.0.0.1", *port)).is_ok();
            let bound: Vec<_> = self.ports().into_iter().filter(listens).collect();
            if left.is_empty() && bound.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "left behind: {left:?}, ports {bound:?}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    #[track_caller]
    fn wait_for(&self, what: &str, is_there: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !is_there() {
            assert!(Instant::now() < deadline, "{what} never came");
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[track_caller]
    fn verify(&self) {
        moveout(["verify", self.path().to_str().unwrap()]).expect(0);
    }

    fn rows(&self, table: &str) -> u64 {
        let tables: Vec<Json> = self.archive().catalog();
        let found = tables.iter().find(|entry| entry["table"] == table);
        found.unwrap_or_else(|| panic!("no {table}"))["rows"].as_u64().unwrap()
    }
}

fn large(server: &Postgres, table: &str, rows: u32) {
    let sql = format!(
        "CREATE TABLE {table} AS SELECT i AS id, md5(i::text) || md5((i + 1)::text) AS text FROM generate_series(1, {rows}) i"
    );
    server.sql("postgres", &sql);
}

#[test]
fn a_postgresql_is_exported_through_its_tunnel_alone() {
    let server = Postgres::start();
    large(&server, "big", 50_000);
    let setting = Setting::postgres(&server, "postgres");
    let run =
        setting.export(&["words", "delay=1"], ", ready = \"is ready on port\\\\s\"").expect(0);
    assert_eq!(setting.rows("big"), 50_000);
    setting.verify();
    // One start served everything, and its command has all that it needs to know.
    let starts = setting.noted("starts");
    assert!(starts.len() == 1 && starts[0].contains("to=db.invalid:5432"), "{starts:?}");
    // Where it is stays what the user says.
    let record = setting.archive().text("catalog/run.json");
    assert!(record.contains("db.invalid:5432") && !record.contains("127.0.0.1"), "{record}");
    assert!(!run.stderr.contains("geheim"), "{}", run.stderr);
    // The program that dumps the definitions has found its way, too.
    let archive = setting.archive();
    let ddl = archive.files().into_iter().find(|file| file.contains("_artifacts/ddl"));
    assert!(archive.text(&ddl.unwrap()).contains("by pg_dump (PostgreSQL)"));
    // A second run knows it again.
    let again = setting.export(&[], "").expect(0);
    assert!(again.stdout.contains("behind") || again.stderr.contains("behind"));
}

#[test]
fn a_mariadb_is_exported_through_its_tunnel_alone() {
    let server = MariaDb::start();
    server.sql("", "CREATE DATABASE shop");
    server.sql(
        "shop",
        "CREATE TABLE t (id INT PRIMARY KEY); INSERT INTO t SELECT seq FROM seq_1_to_5000",
    );
    let url = format!("mysql://{}@{HOST}/shop", server::USER);
    let setting = Setting::new(&url, server.port());
    setting.export(&["words=stdout"], ", ready = 'ready'").expect(0);
    assert_eq!(setting.rows("t"), 5000);
    assert!(setting.noted("starts")[0].contains("to=db.invalid:3306"));
    setting.verify();
}

#[test]
fn an_influxdb_is_exported_through_its_tunnel_alone() {
    let server = Influxd::start();
    server.query("CREATE DATABASE d");
    let lines: Vec<String> =
        (0..1000).map(|at| format!("m v={at}i {}", at * 1_000_000_000u64)).collect();
    server.write("d", "", &lines.join("\n"));
    for host in [&format!("{HOST}:8086"), "192.0.2.1:8086", HOST] {
        let setting = Setting::new(&format!("influxdb+http://{host}/d"), server.address().port());
        let mut command = setting.command(&["export"], &["delay=0.5"], "");
        // No proxy stands between moveout and the tunnel.
        command.env("HTTP_PROXY", "http://127.0.0.1:9").env("http_proxy", "http://127.0.0.1:9");
        run(command).expect(0);
        setting.leaves_nothing();
        assert_eq!(setting.rows("m"), 1000, "{host}");
        let record = setting.archive().text("catalog/run.json");
        assert!(record.contains(host) && !record.contains("server.invalid"), "{record}");
        setting.verify();
    }
}

#[test]
fn doctor_and_plan_go_through_it_too() {
    let server = Postgres::start();
    large(&server, "big", 1000);
    let setting = Setting::postgres(&server, "postgres");
    run(setting.command(&["doctor"], &[], "")).expect(0);
    let plan = run(setting.command(&["plan"], &[], "")).expect(0);
    assert!(plan.stdout.contains("big"), "{}", plan.stdout);
    setting.leaves_nothing();
    assert_eq!(setting.noted("starts").len(), 2);
}

#[test]
fn the_name_of_the_certificate_is_that_of_the_url() {
    let options = postgres::Options { tls: Some("DNS:db.invalid"), ..postgres::Options::default() };
    let server = Postgres::start_with(options);
    large(&server, "big", 1000);
    let authority = server.authority().unwrap().to_str().unwrap().to_owned();
    let url = |host: &str| {
        let user = server::USER;
        format!("postgres://{user}@{host}/postgres?sslmode=verify-full&sslrootcert={authority}")
    };
    Setting::new(&url(HOST), server.port()).export(&[], "").expect(0);
    let run = Setting::new(&url("other.invalid"), server.port()).export(&[], "").expect(1);
    assert!(run.stderr.contains("certificate is not accepted"), "{}", run.stderr);

    let options = mariadb::Options { tls: Some("DNS:db.invalid"), ..mariadb::Options::default() };
    let server = MariaDb::start_with(options);
    server.sql("", "CREATE DATABASE shop; CREATE TABLE shop.t (id INT)");
    let authority = server.authority().unwrap().to_str().unwrap();
    let user = server::USER;
    let url = format!("mysql://{user}@{HOST}/shop?sslmode=verify-full&sslrootcert={authority}");
    Setting::new(&url, server.port()).export(&[], "").expect(0);
}

#[test]
fn https_asks_for_the_certificate_of_the_urls_host() {
    let server = Influxd::start();
    server.query("CREATE DATABASE d");
    server.write("d", "", "m v=1i 1\nm v=2i 2");
    let folder = server::folder("certificates-");
    let certificate = server::certificate(&folder, "DNS:db.invalid");
    let tls = format!("tls={},{}", certificate.certificate.display(), certificate.key.display());
    for (host, status) in [(HOST, 0), ("other.invalid", 1)] {
        let url = format!("influxdb+https://{host}:8086/d");
        let setting = Setting::new(&url, server.address().port());
        let mut command = setting.command(&["export"], &[&tls], "");
        command.env("SSL_CERT_FILE", &certificate.authority);
        let run = run(command).expect(status);
        assert_eq!(run.stderr.contains("certificate"), status != 0, "{}", run.stderr);
        setting.leaves_nothing();
    }
}

#[test]
fn a_tunnel_that_dies_in_the_middle_costs_no_row() {
    let server = Postgres::start();
    for table in ["a", "b", "c"] {
        large(&server, table, 60_000);
    }
    let setting = Setting::postgres(&server, "postgres");
    let run = setting.export(&["words", "once-crash=6000000"], ", ready = 'ready'").expect(0);
    let ports = setting.ports();
    assert!(ports.len() == 2 && ports[0] == ports[1], "{ports:?} {}", run.stderr);
    assert!(run.stderr.contains("Tunnel crashed (255)"), "{}", run.stderr);
    for table in ["a", "b", "c"] {
        assert_eq!(setting.rows(table), 60_000);
    }
    setting.verify();
}

#[test]
fn a_mariadb_and_an_influxdb_outlive_their_tunnels_too() {
    let server = MariaDb::start();
    server.sql("", "CREATE DATABASE shop");
    let fill = "CREATE TABLE t (id INT PRIMARY KEY, text VARCHAR(100));
                INSERT INTO t SELECT seq, repeat(md5(seq), 3) FROM seq_1_to_60000";
    server.sql("shop", fill);
    let setting = Setting::new(&format!("mysql://{}@{HOST}/shop", server::USER), server.port());
    setting.export(&["once-crash=3000000"], "").expect(0);
    assert_eq!((setting.rows("t"), setting.noted("starts").len()), (60_000, 2));
    setting.verify();

    let server = Influxd::start();
    days(&server);
    let setting = Setting::new(&format!("influxdb+http://{HOST}/d"), server.address().port());
    setting.export(&["once-crash=1500000"], "").expect(0);
    assert_eq!((setting.rows("m"), setting.noted("starts").len()), (100_000, 2));
    setting.verify();
}

#[test]
fn a_tunnel_that_hangs_without_dying_is_opened_again() {
    let server = Postgres::start();
    for table in ["a", "b"] {
        large(&server, table, 60_000);
    }
    for option in ["once-hang=6000000", "once-shuts=6000000"] {
        let mut setting = Setting::postgres(&server, "postgres");
        setting.more = "idle_timeout = \"2s\"\nconcurrency = 1".to_owned();
        let run = setting.export(&[option], "").expect(0);
        assert!(run.stderr.contains("nothing arrives through them"), "{}", run.stderr);
        assert_eq!(setting.noted("starts").len(), 2);
        assert_eq!((setting.rows("a"), setting.rows("b")), (60_000, 60_000));
        setting.verify();
    }
}

#[test]
fn http_through_a_tunnel_that_hangs_is_opened_again_too() {
    let server = Influxd::start();
    days(&server);
    let mut setting = Setting::new(&format!("influxdb+http://{HOST}/d"), server.address().port());
    setting.more = "idle_timeout = \"2s\"\nconcurrency = 2".to_owned();
    let run = setting.export(&["once-hang=1500000"], "").expect(0);
    assert!(run.stderr.contains("nothing arrives through them"), "{}", run.stderr);
    assert_eq!((setting.rows("m"), setting.noted("starts").len()), (100_000, 2));
    setting.verify();
}

/// Fills a database with 20 days of 5,000 points each.
fn days(server: &Influxd) {
    server.query("CREATE DATABASE d");
    for day in 0..20u64 {
        let at = |row: u64| (day * 86_400 + row) * 1_000_000_000;
        let line = |row| format!("m v={},w=\"text {row}\" {}", row as f64 / 7.0, at(row));
        server.write("d", "", &(0..5000).map(line).collect::<Vec<_>>().join("\n"));
    }
}

#[test]
fn a_tunnel_that_dies_before_it_is_ready_says_why_at_once() {
    let setting = Setting::new(&format!("postgres://me@{HOST}/d"), 1);
    let began = Instant::now();
    let run = setting.export(&["dies-before=255"], ", ready = 'never said'").expect(1);
    assert!(began.elapsed() < Duration::from_secs(10));
    let said = "the tunnel to db.invalid:5432 ended before it was ready (exit status 255): connecting as \
                postgres://***@bastion/; bastion: Name or service not known";
    assert!(run.stderr.contains(said), "{}", run.stderr);
    assert_eq!(setting.noted("starts").len(), 1);
}

#[test]
fn a_tunnel_that_is_never_ready_is_given_up() {
    for (options, keys, said) in [
        (
            &["never"][..],
            ", ready = 'x', ready_timeout = '2s'",
            "was not ready after 2 s; its last output was: connecting as",
        ),
        (&["never"], ", ready_timeout = '2s'", "was not ready after 2 s"),
        // It listens, but does not say what it was to say.
        (&[], ", ready = 'x', ready_timeout = '2s'", "was not ready after 2 s"),
        (&["deaf", "words"], ", ready = 'is ready'", "but nothing listens on port"),
        (
            &["flood", "never", "ignore"],
            ", ready = 'y', ready_timeout = '2s'",
            "was not ready after 2 s",
        ),
    ] {
        let setting = Setting::new(&format!("postgres://me@{HOST}/d"), 1);
        let run = setting.export(options, keys).expect(1);
        assert!(run.stderr.contains(said), "{}", run.stderr);
        assert!(!run.stderr.contains("geheim") && !run.stderr.contains("KeyboardInterrupt"));
    }
}

#[test]
fn a_tunnel_that_ends_right_after_it_was_ready_ends_the_run_with_what_it_said() {
    let server = Postgres::start();
    let mut setting = Setting::postgres(&server, "postgres");
    setting.more = "attempts = 2\npatience = \"3s\"".to_owned();
    let run = setting.export(&["words", "dies-after=1"], ", ready = 'ready'");
    assert!(matches!(run.status, 1 | 3), "{}", run.stderr);
    assert!(run.stderr.contains("Tunnel timed out"), "{}", run.stderr);
    assert!(setting.noted("starts").len() > 1);
}

#[test]
fn a_program_that_is_not_there_is_named() {
    let setting = Setting::new(&format!("postgres://me@{HOST}/d"), 1);
    let path = setting.config(&[], "");
    let text = fs::read_to_string(&path).unwrap().replace("\"python3\"", "\"no-such-ssh\"");
    fs::write(&path, text).unwrap();
    let run = moveout(["export", "--config", path.to_str().unwrap()]).expect(1);
    assert!(run.stderr.contains("`no-such-ssh` cannot be run"), "{}", run.stderr);
}

#[test]
fn nobody_connects_to_a_stranger_at_the_port() {
    let server = Postgres::start();
    large(&server, "big", 1000);
    // The program sees that its port is taken and ends, or it stays although it has no port.
    for option in ["once-stays", "once-dies"] {
        let setting = Setting::postgres(&server, "postgres");
        let stranger = Stranger::at_first_port(&setting);
        let options = ["words", "delay=2", option];
        run(setting.command(&["export"], &options, ", ready = 'ready'")).expect(0);
        assert_eq!(stranger.leave(), 0, "somebody has connected to the stranger");
        setting.leaves_nothing();
        assert!(setting.noted("starts").len() == 2 && setting.ports()[0] != setting.ports()[1]);
        assert_eq!(setting.rows("big"), 1000);
    }
}

/// Takes the port of a tunnel's first start, before its program does, and counts who connects.
struct Stranger {
    thread: thread::JoinHandle<usize>,
    leaves: Arc<AtomicBool>,
}

impl Stranger {
    fn at_first_port(setting: &Setting) -> Self {
        let (starts, leaves) = (setting.folder.path().join("starts"), Arc::<AtomicBool>::default());
        let shared = Arc::clone(&leaves);
        let thread = thread::spawn(move || {
            let deadline = Instant::now() + PATIENCE;
            let port = loop {
                let text = fs::read_to_string(&starts).unwrap_or_default();
                if let Some((line, _)) = text.split_once('\n') {
                    break line.split(' ').next().unwrap().parse::<u16>().unwrap();
                }
                assert!(Instant::now() < deadline);
                thread::sleep(Duration::from_millis(5));
            };
            let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
            listener.set_nonblocking(true).unwrap();
            let mut met = 0;
            while !shared.load(Ordering::SeqCst) {
                met += usize::from(listener.accept().is_ok());
                thread::sleep(Duration::from_millis(5));
            }
            met
        });
        Self { thread, leaves }
    }

    fn leave(self) -> usize {
        self.leaves.store(true, Ordering::SeqCst);
        self.thread.join().unwrap()
    }
}

/// Starts an export that takes a while, and returns when rows come.
fn running(setting: &Setting, options: &[&str]) -> std::process::Child {
    let mut command = setting.command(&["export"], options, "");
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let has_rows = || setting.archive().files().iter().any(|file| file.starts_with("data/"));
    setting.wait_for("a data file", has_rows);
    child
}

#[test]
fn however_moveout_ends_nothing_is_left_and_the_next_run_completes() {
    let server = Postgres::start();
    for table in 0..20 {
        large(&server, &format!("t{table:02}"), 20_000);
    }
    let slow = "pace=8000000";
    let worst = &[slow, "grandchild", "ignore", "flood"][..];
    let all = [&[slow][..], &[slow, "ignore"], &[slow, "grandchild"], worst];
    for (ends, all) in
        [("KILL", &all[..]), ("INT", &all[2..]), ("TERM", &[worst]), ("ABRT", &[worst])]
    {
        for options in all {
            let setting = Setting::postgres(&server, "postgres");
            let mut child = running(&setting, options);
            assert!(support::program::signal(&child, ends));
            child.wait().unwrap();
            setting.leaves_nothing();
            setting.export(&[], "").expect(0);
            for table in 0..20 {
                assert_eq!(setting.rows(&format!("t{table:02}")), 20_000);
            }
            setting.verify();
        }
    }
}

#[test]
fn what_ends_moveout_before_it_is_ready_leaves_nothing() {
    for options in [&["never"][..], &["never", "grandchild"], &["never", "ignore"]] {
        for (ends, code) in [("INT", Some(130)), ("KILL", None)] {
            let setting = Setting::new(&format!("postgres://me@{HOST}/d"), 1);
            let mut command = setting.command(&["export"], options, "");
            let mut child = command.stderr(Stdio::null()).spawn().unwrap();
            setting.wait_for("the tunnel", || !setting.noted("pids").is_empty());
            assert!(support::program::signal(&child, ends));
            assert_eq!(child.wait().unwrap().code(), code);
            setting.leaves_nothing();
        }
    }
}

#[test]
fn a_run_in_the_background_of_a_script_ends_its_tunnel_gently_too() {
    // There a shell has SIGINT ignored, and every program inherits that.
    let setting = Setting::new(&format!("postgres://me@{HOST}/d"), 1);
    let moveout = setting.command(&["export"], &["never"], "");
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' INT; exec \"$@\"", "sh"]);
    shell.arg(moveout.get_program()).args(moveout.get_args()).stderr(Stdio::null());
    let mut child = shell.spawn().unwrap();
    setting.wait_for("the tunnel", || !setting.noted("pids").is_empty());
    child.kill().unwrap();
    child.wait().unwrap();
    let began = Instant::now();
    setting.leaves_nothing();
    assert!(began.elapsed() < Duration::from_secs(5), "it was killed");
}

#[test]
fn a_killed_supervisor_is_a_lost_tunnel() {
    let server = Postgres::start();
    for table in ["a", "b", "c"] {
        large(&server, table, 60_000);
    }
    let setting = Setting::postgres(&server, "postgres");
    let mut child = running(&setting, &["pace=8000000"]);
    let forwarder = setting.noted("pids")[0].clone();
    let stat = fs::read_to_string(format!("/proc/{forwarder}/stat")).unwrap();
    let supervisor = stat.rsplit_once(") ").unwrap().1.split(' ').nth(1).unwrap().to_owned();
    assert!(Command::new("kill").args(["-KILL", &supervisor]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    setting.leaves_nothing();
    assert_eq!(setting.noted("starts").len(), 2);
    setting.verify();
}

#[test]
fn a_tunnel_whose_listener_is_lost_is_opened_again() {
    // What listens is a process that the program has started, and it dies alone.
    let server = Postgres::start();
    for table in ["a", "b", "c"] {
        large(&server, table, 60_000);
    }
    let setting = Setting::postgres(&server, "postgres");
    let mut child = running(&setting, &["grandchild", "pace=8000000"]);
    let inner = setting.noted("pids")[1].clone();
    assert!(Command::new("kill").args(["-KILL", &inner]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    setting.leaves_nothing();
    setting.verify();
}

#[test]
fn what_is_wrong_with_its_keys_is_said() {
    let folder = TempDir::with_prefix("tunnel-").unwrap();
    let path = folder.path().join("config.toml");
    for (url, tunnel, said) in [
        ("postgres://h", "{ command = [\"ssh\", \"bastion\"] }", "does not contain {port}"),
        ("postgres://h", "{ command = [] }", "does not contain {port}"),
        ("postgres://h", "{ ready = \"x\" }", "needs the key `command`"),
        ("postgres://h", "{ comand = [] }", "did you mean `command`?"),
        (
            "postgres://h",
            "\"ssh\"",
            "must be a table with the keys `command`, `ready`, `ready_timeout`",
        ),
        (
            "postgres://h",
            "{ command = [\"{port}\"], ready = \"(\" }",
            "`ready` is not a regular expression",
        ),
        ("postgres://h", "{ command = [\"{port}\"], ready_timeout = \"soon\" }", "not a duration"),
        ("lp:x.lp", "{ command = [\"{port}\"] }", "not for a line-protocol file"),
        (
            "influxdb+https://192.0.2.1/d",
            "{ command = [\"{port}\"] }",
            "needs the name of the server",
        ),
    ] {
        let text = format!(
            "archive = \"a\"\n[[source]]\nname = \"s\"\nurl = {url:?}\ntunnel = {tunnel}\n"
        );
        fs::write(&path, text).unwrap();
        let run = moveout(["plan", "--config", path.to_str().unwrap()]).expect(2);
        assert!(run.stderr.contains(said), "{tunnel}: {}", run.stderr);
    }
}
