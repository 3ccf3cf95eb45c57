//! PostgreSQL into an archive: every value as the server has it, one consistent moment or an honest word
//! about several, and nothing that cannot be read left out in silence. Against a real server, through a
//! tunnel that breaks.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::metadata::RowGroupMetaData;
use serde_json::Value as Json;
use support::tunnel::Tunnel;
use support::{
    Archive, Postgres, Run, command, moveout, postgres, python, repository, run, server,
};
use tempfile::TempDir;

/// A server, perhaps behind a tunnel, and a folder for archives.
struct Setting {
    server: Postgres,
    tunnel: Tunnel,
    folder: TempDir,
}

impl Setting {
    fn new() -> Self {
        Self::with(postgres::Options::default())
    }

    fn with(options: postgres::Options) -> Self {
        let server = Postgres::start_with(options);
        let tunnel = Tunnel::to(server.port());
        Self { server, tunnel, folder: TempDir::with_prefix("archive-").unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("a")
    }

    fn archive(&self) -> Archive {
        Archive::open(self.path())
    }

    /// A configuration for one database, through the tunnel.
    fn config(&self, database: &str, more: &str) -> PathBuf {
        let path = self.folder.path().join("config.toml");
        let (port, archive) = (self.tunnel.port(), self.path());
        let text = format!(
            "archive = {archive:?}\n[[source]]\nname = \"pg\"\nurl = \"postgres://{}@127.0.0.1:{port}/{database}\"\n\
             password = {{ env = \"THE_PASSWORD\" }}\n{more}\n",
            server::USER
        );
        fs::write(&path, text).unwrap();
        path
    }

    fn command(&self, database: &str, more: &str, args: &[&str]) -> Command {
        let mut command = command(args);
        command.arg("--config").arg(self.config(database, more));
        command.env("THE_PASSWORD", self.server.password());
        command
    }

    fn export(&self, database: &str, args: &[&str]) -> Run {
        run(self.command(database, "", &[&["export"], args].concat()))
    }

    /// Starts an export, does something once the server has sent some bytes, and waits for the end.
    fn export_while(&self, database: &str, args: &[&str], bytes: u64, then: impl FnOnce()) -> Run {
        let command = self.command(database, "", &[&["export"], args].concat());
        let running = thread::spawn(move || run(command));
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.tunnel.served() < bytes {
            assert!(Instant::now() < deadline && !running.is_finished(), "it is over already");
            thread::sleep(Duration::from_millis(2));
        }
        then();
        self.tunnel.pace(0);
        running.join().unwrap()
    }

    /// Every value of the archive is the server's.
    #[track_caller]
    fn assert_values(&self, database: &str) {
        let archive = self.path();
        let (code, port) = (repository("tests/support/postgres_values.py"), self.server.port());
        let psql =
            ["psql", "-XqAt", "-h", "127.0.0.1", "-p", &port.to_string(), "-U", server::USER]
                .map(str::to_owned);
        let connection = format!(
            "import os; os.environ['PGPASSWORD'] = open({:?}).read(); \
             os.environ['PGOPTIONS'] = '-c search_path=pg_catalog'\n",
            self.password_file()
        );
        let code = connection + &fs::read_to_string(code).unwrap();
        let mut args = vec![archive.to_str().unwrap(), database];
        args.extend(psql.iter().map(String::as_str));
        args.extend(["-d", database]);
        python(&code, &args);
    }

    fn password_file(&self) -> PathBuf {
        let path = self.folder.path().join("password");
        fs::write(&path, self.server.password()).unwrap();
        path
    }

    fn load(&self, database: &str) {
        self.server.sql("postgres", &format!("CREATE DATABASE {database}"));
        let script = repository("tests/data").join(format!("{database}_postgres.sql"));
        self.server.sql(database, &fs::read_to_string(script).unwrap());
    }

    /// A table that takes a while: so many rows of some 120 bytes.
    fn large(&self, table: &str, rows: u32) {
        self.server.sql(
            "postgres",
            &format!(
                "CREATE TABLE {table} AS SELECT i AS id, md5(i::text) || md5((i + 1)::text) AS text, i * 0.5::float8 AS f,
                 CASE WHEN i % 3 > 0 THEN i END AS n FROM generate_series(1, {rows}) AS i"
            ),
        );
    }

    fn snapshots(&self) -> usize {
        let code = "import sys, pyarrow.parquet as pq\n\
                    t = pq.read_table(sys.argv[1] + '/catalog/chunks.parquet')\n\
                    print(len(set(t['snapshot'].to_pylist())))";
        python(code, &[self.path().to_str().unwrap()]).trim().parse().unwrap()
    }

    fn rows(&self, table: &str) -> u64 {
        let tables: Vec<Json> = self.archive().catalog();
        let found = tables.iter().find(|entry| entry["table"] == table);
        found.unwrap_or_else(|| panic!("no {table}"))["rows"].as_u64().unwrap()
    }
}

fn warned(run: &Run, what: &str) -> bool {
    run.stdout.contains(what)
}

#[test]
fn every_value_is_the_servers_own() {
    let setting = Setting::new();
    setting.load("odd");
    let exported = setting.export("odd", &[]).expect(0);
    assert!(!warned(&exported, "moments"), "{}", exported.stdout);
    setting.assert_values("odd");
    setting.archive().validate_as_bag();
    moveout(["verify", setting.path().to_str().unwrap()]).expect(0);
    assert_eq!(setting.snapshots(), 1);
}

#[test]
fn every_kind_of_object_is_exported_or_named() {
    let setting = Setting::new();
    setting.load("objects");
    let failed = setting.export("objects", &[]).expect(1);
    for name in ["foreign_table", "foreign_file", "partly_foreign_2023"] {
        assert!(failed.stdout.contains(name), "{}", failed.stdout);
    }
    assert!(!setting.archive().is_sealed());
    let more = "exclude = [\"foreign_*\", \"public.partly_foreign_2023\"]";
    let done = run(setting.command("objects", more, &["export"])).expect(0);
    for name in ["no_columns", "not_populated", "foreign_table"] {
        assert!(done.stdout.contains(name), "{}", done.stdout);
    }
    setting.assert_values("objects");
    let large = setting.rows("pg_largeobject");
    let pages = setting.server.sql("objects", "SELECT count(*) FROM pg_largeobject");
    assert_eq!(large.to_string(), pages);
    // A role that sees a part of the rows, or none, gets an error instead.
    let limited = setting.folder.path().join("limited.toml");
    let port = setting.server.port();
    let text = format!(
        "archive = {:?}\n[[source]]\nname = \"pg\"\nurl = \"postgres://limited@127.0.0.1:{port}/objects\"\n",
        setting.folder.path().join("l")
    );
    fs::write(&limited, text).unwrap();
    let mut limited = command(["export", "--config", limited.to_str().unwrap()]);
    limited.arg("--json").env("PGPASSWORD", "limited secret");
    let failed = run(limited).expect(1).json()["failed"].to_string();
    for name in ["forbidden", "secured", "forced", "some_columns", "locked.away"] {
        assert!(failed.contains(name), "{name}: {failed}");
    }
    assert!(failed.contains("row-level security"), "{failed}");
}

#[test]
fn windows_come_from_an_index_and_leave_no_row_out() {
    let setting = Setting::new();
    setting.server.sql(
        "postgres",
        "CREATE TABLE w (at timestamptz, v int);
         INSERT INTO w SELECT '2024-01-01 00:00+00'::timestamptz + i * interval '1 hour', i FROM generate_series(0, 2399) i;
         INSERT INTO w VALUES (NULL, -1), ('infinity', -2), ('-infinity', -3), ('4713-01-01 00:00+00 BC', -4);
         CREATE INDEX ON w (at);
         CREATE TABLE d (day date NOT NULL PRIMARY KEY, v int);
         INSERT INTO d SELECT '2024-01-01'::date + i, i FROM generate_series(0, 99) i;
         CREATE TABLE timeless (v int); INSERT INTO timeless VALUES (1), (2);",
    );
    let plan = run(setting.command("postgres", "", &["plan"])).expect(0);
    assert!(plan.stdout.contains(" by at") && plan.stdout.contains(" by day"), "{}", plan.stdout);
    setting.export("postgres", &["--window", "10d"]).expect(0);
    setting.assert_values("postgres");
    let files = setting.archive().files();
    let of =
        |name: &str| files.iter().filter(|f| f.contains(name) && f.ends_with(".parquet")).count();
    assert!(of("/w/") > 2 && of("null-time") == 1 && of("timeless/all") == 1, "{files:#?}");
    // A range bounds what has a time; what has none is taken all the same, and the rest is counted.
    let ranged = setting.folder.path().join("r");
    let more = [
        "export",
        "--archive",
        ranged.to_str().unwrap(),
        "--from",
        "2024-02-01",
        "--to",
        "2024-02-02",
    ];
    let more = [&more[..], &["--json"]].concat();
    let exported = run(setting.command("postgres", "", &more)).expect(0).json();
    let tables = Archive::open(&ranged).catalog();
    let rows: Vec<_> = tables
        .iter()
        .map(|t| (t["table"].as_str().unwrap(), t["rows"].as_u64().unwrap()))
        .collect();
    assert_eq!(rows, [("d", 1), ("timeless", 2), ("w", 24 + 1)]);
    let outside =
        exported["outside"].as_array().unwrap().iter().filter(|o| o["table"]["table"] == "w");
    let outside: u64 = outside.map(|o| o["count"]["rows"].as_u64().unwrap()).sum();
    assert_eq!(outside, 2400 - 24 + 3, "{exported}");
    let whole = exported["warnings"].to_string();
    assert!(whole.contains("read whole") && whole.contains("timeless"), "{whole}");
    moveout(["verify", ranged.to_str().unwrap()]).expect(0);
}

#[test]
fn a_large_table_is_read_by_blocks_in_one_snapshot() {
    let setting = Setting::new();
    setting.large("big", 600_000);
    setting.server.sql(
        "postgres",
        "DELETE FROM big WHERE id % 7 = 0; UPDATE big SET f = -f WHERE id % 11 = 0",
    );
    setting.export("postgres", &["--concurrency", "4"]).expect(0);
    assert_eq!(setting.snapshots(), 1);
    setting.assert_values("postgres");
}

#[test]
fn a_killed_backend_costs_an_attempt_and_no_row() {
    let setting = Setting::new();
    setting.large("big", 400_000);
    setting.tunnel.pace(30 << 20);
    let mut killed = 0;
    let run = setting.export_while("postgres", &[], 5 << 20, || {
        killed = setting.server.kill_connections();
    });
    run.expect(0);
    assert!(killed > 0);
    setting.assert_values("postgres");
}

#[test]
fn a_cut_connection_costs_an_attempt_and_no_row() {
    let setting = Setting::new();
    setting.large("big", 200_000);
    setting.large("other", 1_000);
    setting.tunnel.cut(3, 3 << 20);
    setting.export("postgres", &["--concurrency", "2"]).expect(0);
    assert_eq!(setting.tunnel.cuts_left(), 0);
    setting.assert_values("postgres");
}

#[test]
fn a_lost_tunnel_is_a_lost_snapshot_and_is_said() {
    let setting = Setting::new();
    for table in ["a", "b", "c"] {
        setting.large(table, 150_000);
    }
    setting.tunnel.pace(20 << 20);
    let run = setting.export_while("postgres", &["--concurrency", "1"], 25 << 20, || {
        setting.server.sql("postgres", "INSERT INTO c VALUES (0, 'written meanwhile', 0, 0)");
        setting.tunnel.drop_all();
    });
    let run = run.expect(0);
    assert!(warned(&run, "2 moments"), "{}", run.stdout);
    assert_eq!(setting.snapshots(), 2);
    setting.assert_values("postgres");
}

#[test]
fn a_lost_tunnel_does_no_harm_where_nobody_writes() {
    let setting = Setting::new();
    for table in ["a", "b", "c"] {
        setting.large(table, 150_000);
    }
    setting.tunnel.pace(20 << 20);
    let run = setting.export_while("postgres", &["--concurrency", "1"], 25 << 20, || {
        setting.tunnel.drop_all();
    });
    assert!(!warned(&run.expect(0), "moments"));
    assert_eq!(setting.snapshots(), 1, "the same transactions had ended");
    setting.assert_values("postgres");
}

#[test]
fn a_restarted_server_is_waited_for() {
    let mut setting = Setting::new();
    setting.large("big", 300_000);
    setting.tunnel.pace(20 << 20);
    let command = setting.command("postgres", "", &["export"]);
    let running = thread::spawn(move || run(command));
    while setting.tunnel.served() < 5 << 20 {
        thread::sleep(Duration::from_millis(2));
    }
    setting.server.restart();
    setting.tunnel.pace(0);
    running.join().unwrap().expect(0);
    setting.assert_values("postgres");
}

#[test]
fn what_was_committed_stays_after_a_kill() {
    let setting = Setting::new();
    for number in 0..30 {
        setting.large(&format!("t{number:02}"), 2_000);
    }
    setting.large("z", 300_000);
    setting.tunnel.pace(10 << 20);
    let mut child =
        setting.command("postgres", "", &["export", "--concurrency", "1"]).spawn().unwrap();
    while setting.tunnel.served() < 15 << 20 {
        thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    setting.tunnel.pace(0);
    let before = setting.tunnel.served();
    let exported = setting.export("postgres", &[]).expect(0);
    assert!(exported.stdout.contains("1 of 31 tables"), "{}", exported.stdout);
    assert!(setting.tunnel.served() - before < 60 << 20);
    setting.assert_values("postgres");
}

/// Tables are read in the order of their names: while the first is on its way, the second changes.
fn changed_meanwhile(change: &str) -> (Setting, Run) {
    let setting = Setting::new();
    setting.large("a", 150_000);
    setting.large("b", 1_000);
    setting.tunnel.pace(20 << 20);
    let run = setting.export_while("postgres", &["--concurrency", "1"], 5 << 20, || {
        setting.server.sql("postgres", change);
    });
    (setting, run)
}

#[test]
fn a_truncated_table_is_not_taken_for_an_empty_one() {
    let (setting, run) = changed_meanwhile(
        "TRUNCATE b; INSERT INTO b SELECT i, 'new', 0, 0 FROM generate_series(1, 500) i",
    );
    let run = run.expect(0);
    assert!(warned(&run, "2 moments"), "{}", run.stdout);
    assert_eq!(setting.rows("b"), 500);
    setting.assert_values("postgres");
}

#[test]
fn a_table_that_was_swapped_for_another_is_noticed() {
    let (setting, run) = changed_meanwhile(
        "CREATE TABLE b_new AS SELECT i AS id, 'new' AS text, 0::float8 AS f, 0 AS n FROM generate_series(1, 700) i;
         ALTER TABLE b RENAME TO b_old; ALTER TABLE b_new RENAME TO b",
    );
    run.expect(0);
    assert_eq!(setting.rows("b"), 700);
    setting.export("postgres", &[]).expect(0);
    setting.assert_values("postgres");
}

#[test]
fn a_table_that_would_be_read_another_way_is_refused() {
    let setting = Setting::new();
    setting.server.sql(
        "postgres",
        "CREATE TABLE w (at timestamptz NOT NULL, v int);
         INSERT INTO w SELECT '2024-01-01 00:00+00'::timestamptz + i * interval '1 hour', i FROM generate_series(0, 999) i;
         CREATE INDEX by_time ON w (at); CREATE TABLE empty (at timestamptz); CREATE INDEX ON empty (at)",
    );
    setting.export("postgres", &["--to", "2024-01-20"]).expect(0);
    setting
        .server
        .sql("postgres", "DROP INDEX by_time; INSERT INTO empty VALUES (NULL), ('2024-01-01')");
    let refused = setting.export("postgres", &[]).expect(1);
    assert!(refused.stderr.contains("time_columns"), "{}", refused.stderr);
    let named =
        "time_columns = { \"public.w\" = \"at\", \"*\" = \"nothing\", \"public.empty\" = \"at\" }";
    run(setting.command("postgres", named, &["export"])).expect(0);
    assert_eq!(setting.rows("w"), 1000);
    moveout(["verify", setting.path().to_str().unwrap()]).expect(0);
}

#[test]
fn many_tables_learn_at_once_and_each_has_one_schema() {
    let setting = Setting::new();
    for table in 0..6 {
        setting.server.sql(
            "postgres",
            &format!(
                "CREATE TABLE t{table} (at timestamptz NOT NULL, n numeric(10, 2), t time);
                 INSERT INTO t{table} SELECT '2024-01-01 00:00+00'::timestamptz + i * interval '1 hour', i, '12:00'
                 FROM generate_series(0, 959) i;
                 UPDATE t{table} SET n = 'NaN' WHERE extract(hour FROM at) = 5;
                 UPDATE t{table} SET t = '24:00' WHERE extract(day FROM at) = 20;
                 CREATE INDEX ON t{table} (at)"
            ),
        );
    }
    let exported = setting
        .export("postgres", &["--window", "1d", "--concurrency", "16", "--memory", "512MiB"])
        .expect(0);
    assert!(
        !warned(&exported, "moments"),
        "what was learned costs no snapshot: {}",
        exported.stdout
    );
    setting.assert_values("postgres");
    moveout(["verify", setting.path().to_str().unwrap()]).expect(0);
}

#[test]
fn a_table_that_cannot_be_looked_into_does_not_hide_the_others() {
    let setting = Setting::new();
    setting.server.sql(
        "postgres",
        "CREATE ROLE reader LOGIN PASSWORD 'reader'; CREATE TABLE t AS SELECT 1 AS a;
         CREATE TABLE secured (at timestamptz NOT NULL); INSERT INTO secured VALUES (now()); CREATE INDEX ON secured (at);
         ALTER TABLE secured ENABLE ROW LEVEL SECURITY; GRANT SELECT ON t, secured TO reader",
    );
    let tried = |more: &str| {
        let mut command = setting.command("postgres", more, &["export"]);
        let config = setting.folder.path().join("config.toml");
        let text = fs::read_to_string(&config).unwrap().replace("admin@", "reader@");
        fs::write(config, text).unwrap();
        command.env("THE_PASSWORD", "reader");
        run(command)
    };
    let failed = tried("").expect(1);
    assert!(
        failed.stdout.contains("public.secured") && failed.stdout.contains("1 row"),
        "{}",
        failed.stdout
    );
    tried("exclude = [\"secured\"]").expect(0);
}

#[test]
fn a_rewritten_table_is_read_as_it_is_now() {
    let (setting, run) = changed_meanwhile(
        "ALTER TABLE b ALTER COLUMN n TYPE text USING n::text || '!', ADD COLUMN more int DEFAULT 7",
    );
    run.expect(0);
    assert_eq!(setting.rows("b"), 1_000);
    setting.assert_values("postgres");
}

#[test]
fn a_dropped_column_leads_to_another_listing() {
    let (setting, run) = changed_meanwhile("ALTER TABLE b DROP COLUMN n");
    run.expect(0);
    assert_eq!(setting.rows("b"), 1_000);
    setting.assert_values("postgres");
}

#[test]
fn a_dropped_table_is_a_failure_with_its_name() {
    let (setting, run) = changed_meanwhile("DROP TABLE b");
    let run = run.expect(1);
    assert!(
        run.stdout.contains("postgres.public.b") && run.stdout.contains("does not exist"),
        "{}",
        run.stdout
    );
    assert!(!setting.archive().is_sealed());
    setting.export("postgres", &[]).expect(0);
    setting.assert_values("postgres");
}

#[test]
fn a_value_that_a_type_cannot_hold_makes_the_column_text_in_all_files() {
    let setting = Setting::new();
    setting.server.sql(
        "postgres",
        "CREATE TABLE w (at timestamptz NOT NULL, n numeric(10, 2), t time);
         INSERT INTO w SELECT '2024-01-01 00:00+00'::timestamptz + i * interval '1 hour', i, '12:00' FROM generate_series(0, 2399) i;
         UPDATE w SET n = 'NaN' WHERE at = '2024-04-01'; UPDATE w SET t = '24:00' WHERE at = '2024-02-01';
         CREATE INDEX ON w (at)",
    );
    let exported = setting.export("postgres", &["--window", "5d", "--concurrency", "3"]).expect(0);
    assert!(exported.stdout.contains("2,400 rows in 1 of 1 table"), "{}", exported.stdout);
    setting.assert_values("postgres");
    let kinds: Vec<String> =
        setting.archive().columns("w").iter().map(|column| format!("{column:?}")).collect();
    assert!(kinds[1].contains("Utf8") && kinds[2].contains("Utf8"), "{kinds:?}");
    moveout(["verify", setting.path().to_str().unwrap()]).expect(0);
}

#[test]
fn wide_empty_and_many_tables_are_nothing_special() {
    let setting = Setting::new();
    let columns: Vec<String> = (0..1000).map(|n| format!("c{n} int DEFAULT {n}")).collect();
    setting.server.sql(
        "postgres",
        &format!(
            "CREATE TABLE wide (id int, {}); INSERT INTO wide (id) SELECT generate_series(1, 2000);
             CREATE TABLE empty (id int); CREATE TABLE twice (id int); INSERT INTO twice VALUES (1), (1), (NULL), (NULL);
             DO $$ BEGIN FOR i IN 1..300 LOOP EXECUTE format('CREATE TABLE s%s AS SELECT %s AS i', i, i); END LOOP; END $$",
            columns.join(", ")
        ),
    );
    setting.export("postgres", &[]).expect(0);
    setting.assert_values("postgres");
    assert_eq!(
        (setting.rows("empty"), setting.rows("wide"), setting.archive().catalog().len()),
        (0, 2000, 303)
    );
}

#[test]
fn names_that_are_not_utf8_and_texts_that_are_not_are_bytes() {
    let setting = Setting::new();
    setting.server.sql(
        "postgres",
        "CREATE DATABASE ascii ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0",
    );
    setting.server.sql("ascii", "CREATE TABLE t (id int, t text); INSERT INTO t VALUES (1, 'plain'), (2, E'\\xff\\xfe'), (3, NULL)");
    setting.export("ascii", &[]).expect(0);
    let code = "import sys, glob, pyarrow.parquet as pq\n\
                t = pq.read_table(glob.glob(sys.argv[1] + '/data/pg/ascii/public/t/*.parquet')[0])\n\
                assert sorted(map(str, t['t'].to_pylist())) == sorted(map(str, [b'plain', b'\\xff\\xfe', None])), t";
    python(code, &[setting.path().to_str().unwrap()]);
}

#[test]
fn all_databases_of_a_server_go_into_one_archive() {
    let setting = Setting::new();
    setting.server.sql("postgres", "CREATE DATABASE other; CREATE TABLE t AS SELECT 1 AS a");
    setting.server.sql("other", "CREATE TABLE t AS SELECT 2 AS a");
    setting.export("", &[]).expect(0);
    let tables = setting.archive().catalog();
    let databases: Vec<_> = tables.iter().map(|t| t["database"].as_str().unwrap()).collect();
    assert_eq!(databases, ["other", "postgres"]);
    setting.assert_values("other");
    setting.assert_values("postgres");
}

#[test]
fn tls_is_as_its_mode_says() {
    let options = postgres::Options { tls: Some("DNS:localhost"), ..postgres::Options::default() };
    let setting = Setting::with(options);
    setting.server.sql("postgres", "CREATE TABLE t AS SELECT 1 AS a");
    let authority = setting.server.authority().unwrap().to_str().unwrap().to_owned();
    let (port, user) = (setting.server.port(), server::USER);
    let tried = |host: &str, query: &str| {
        let archive = setting.folder.path().join(format!("tls{}", fastrand::u32(..)));
        let source = format!("postgres://{user}@{host}:{port}/postgres{query}");
        let mut command =
            command(["export", "--source", &source, "--archive", archive.to_str().unwrap()]);
        command.env("PGPASSWORD", setting.server.password());
        run(command)
    };
    for query in ["", "?sslmode=prefer", "?sslmode=require"] {
        let run = tried("127.0.0.1", query).expect(0);
        assert!(!run.stdout.contains("without TLS"), "{}", run.stdout);
    }
    let refused = tried("127.0.0.1", "?sslmode=disable").expect(1);
    assert!(refused.stderr.contains("sslmode=require"), "{}", refused.stderr);
    let ca = |mode: &str| format!("?sslmode={mode}&sslrootcert={authority}");
    tried("127.0.0.1", &ca("verify-ca")).expect(0);
    tried("localhost", &ca("verify-full")).expect(0);
    let other_name = tried("127.0.0.1", &ca("verify-full")).expect(1);
    assert!(other_name.stderr.contains("certificate"), "{}", other_name.stderr);
    let unknown = tried("localhost", "?sslmode=verify-full").expect(1);
    assert!(unknown.stderr.contains("certificate"), "{}", unknown.stderr);
    tried("localhost", "?sslmode=maybe").expect(2);
}

#[test]
fn a_client_proves_who_it_is_by_a_certificate() {
    let options = postgres::Options {
        tls: Some("DNS:localhost"),
        hba: "hostssl all certified 127.0.0.1/32 cert\n",
        ..postgres::Options::default()
    };
    let setting = Setting::with(options);
    setting.server.sql(
        "postgres",
        "CREATE ROLE certified LOGIN; CREATE TABLE t AS SELECT 1 AS a; GRANT SELECT ON t TO certified",
    );
    let (certificate, key) = setting.server.client_certificate("certified");
    let port = setting.server.port();
    let tried = |query: &str| {
        let archive = setting.folder.path().join(format!("c{}", fastrand::u32(..)));
        let source =
            format!("postgres://certified@localhost:{port}/postgres?sslmode=require{query}");
        run(command(["export", "--source", &source, "--archive", archive.to_str().unwrap()]))
    };
    let (certificate, key) = (certificate.display(), key.display());
    tried(&format!("&sslcert={certificate}&sslkey={key}")).expect(0);
    assert!(tried("").expect(1).stderr.contains("certificate"), "the server asks for one");
    let half = tried(&format!("&sslcert={certificate}")).expect(2);
    assert!(half.stderr.contains("sslkey"), "{}", half.stderr);
    let none = tried(&format!("&sslcert={certificate}&sslkey=/nowhere.key"));
    assert!(none.stderr.contains("sslkey: /nowhere.key"), "{}", none.stderr);
}

#[test]
fn a_login_is_tied_to_the_connection_where_that_is_required() {
    let hba = "hostssl all plain 127.0.0.1/32 password\nhostssl all trusted 127.0.0.1/32 trust\n";
    let tls = Some("DNS:localhost");
    let bound = Setting::with(postgres::Options { tls, hba, ..postgres::Options::default() });
    let plain = Setting::new();
    for setting in [&bound, &plain] {
        setting.server.sql(
            "postgres",
            "CREATE TABLE t AS SELECT 1 AS a; CREATE ROLE plain LOGIN SUPERUSER PASSWORD 'plain secret';
             CREATE ROLE trusted LOGIN SUPERUSER",
        );
    }
    let tried = |setting: &Setting, user: &str, query: &str| {
        let archive = setting.folder.path().join(format!("b{}", fastrand::u32(..)));
        let port = setting.server.port();
        let source = format!("postgres://{user}@127.0.0.1:{port}/postgres{query}");
        let mut command =
            command(["export", "--source", &source, "--archive", archive.to_str().unwrap()]);
        let admin = setting.server.password();
        command.env("PGPASSWORD", if user == "plain" { "plain secret" } else { admin });
        run(command)
    };
    for way in ["disable", "prefer", "require"] {
        tried(&bound, server::USER, &format!("?channel_binding={way}")).expect(0);
    }
    for user in ["plain", "trusted"] {
        tried(&bound, user, "?channel_binding=prefer").expect(0);
        let refused = tried(&bound, user, "?channel_binding=require").expect(1);
        assert!(refused.stderr.contains("channel_binding"), "{user}: {}", refused.stderr);
    }
    let refused = tried(&plain, server::USER, "?channel_binding=require").expect(1);
    assert!(refused.stderr.contains("no TLS"), "{}", refused.stderr);
    tried(&plain, server::USER, "?channel_binding=maybe").expect(2);
}

#[test]
fn who_is_not_let_in_is_told_why() {
    let setting = Setting::new();
    let tried = |url: &str, password: Option<&str>| {
        let archive = setting.folder.path().join("x");
        let url = url.replace("PORT", &setting.server.port().to_string());
        let mut command =
            command(["export", "--source", &url, "--archive", archive.to_str().unwrap()]);
        command.envs(password.map(|password| ("PGPASSWORD", password)));
        let run = run(command).expect(1);
        assert!(!run.stderr.contains("geheim") && !Path::new(&archive).join("bagit.txt").exists());
        run.stderr
    };
    assert!(tried("postgres://admin@127.0.0.1:PORT/postgres", Some("geheim")).contains("password"));
    assert!(tried("postgres://admin@127.0.0.1:PORT/postgres", None).contains("PGPASSWORD"));
    assert!(tried("postgres://nobody@127.0.0.1:PORT/postgres", Some("geheim")).contains("nobody"));
    let right = setting.server.password();
    assert!(tried("postgres://admin@127.0.0.1:PORT/nowhere", Some(right)).contains("nowhere"));
}

#[test]
fn uuids_and_json_are_what_readers_know_them_as() {
    let setting = Setting::new();
    setting.server.sql(
        "postgres",
        "CREATE DOMAIN reference AS uuid;
         CREATE TABLE t (u uuid PRIMARY KEY, d reference, us uuid[], j json, b jsonb, js jsonb[], plain text, ns int[]);
         INSERT INTO t VALUES ('00112233-4455-6677-8899-aabbccddeeff', NULL, '{00112233-4455-6677-8899-aabbccddeeff,NULL}',
             '{\"a\":  [1]}', '\"x\"', '{\"1\",null}', '{}', '{1,NULL}');
         INSERT INTO t (u) VALUES ('ffffffff-0000-0000-0000-000000000000')",
    );
    setting.export("postgres", &[]).expect(0);
    setting.assert_values("postgres");
    let path = setting.path();
    moveout(["verify", path.to_str().unwrap()]).expect(0);
    let code = "import sys, glob, duckdb, pandas, pyarrow.parquet as pq, pyarrow as pa\n\
        file = glob.glob(sys.argv[1] + '/data/pg/postgres/public/t/*.parquet')[0]\n\
        t = duckdb.from_parquet(file)\n\
        print(', '.join(map(str, t.types)))\n\
        print(t.filter('j IS NOT NULL').project('u, us, j->>\\'a\\', b, js, ns').fetchall())\n\
        schema = pq.ParquetFile(file).schema\n\
        print([schema.column(i).path for i in range(len(schema)) if '.' in schema.column(i).path])\n\
        table = pq.read_table(file)\n\
        print(', '.join(str(field.type) for field in table.schema))\n\
        print(table['u'].to_pylist()[0], len(table.drop('us').to_pandas()), len(pandas.read_parquet(file, columns=['u', 'j', 'js'])))";
    let found = python(code, &[path.to_str().unwrap()]);
    insta::assert_snapshot!(found, @r#"
    UUID, UUID, UUID[], JSON, JSON, VARCHAR[], VARCHAR, INTEGER[]
    [(UUID('00112233-4455-6677-8899-aabbccddeeff'), [UUID('00112233-4455-6677-8899-aabbccddeeff'), None], '[1]', '"x"', ['1', None], [1, None])]
    ['us.list.element', 'js.list.element', 'ns.list.element']
    extension<arrow.uuid>, extension<arrow.uuid>, list<element: extension<arrow.uuid>>, extension<arrow.json>, extension<arrow.json>, list<element: string>, string, list<element: int32>
    00112233-4455-6677-8899-aabbccddeeff 2 2
    "#);
    let table = setting.archive().catalog().remove(0);
    assert_eq!(table["primary_key"], serde_json::json!(["u"]));
    let columns = table["columns"].as_array().unwrap();
    let told: Vec<String> = columns
        .iter()
        .map(|c| format!("{} {} {}", c["name"].as_str().unwrap(), c["parquet_type"], c["nullable"]))
        .collect();
    insta::assert_snapshot!(told.join("\n"), @r#"
    u "FIXED_LEN_BYTE_ARRAY(16) UUID" false
    d "FIXED_LEN_BYTE_ARRAY(16) UUID" true
    us "LIST<FIXED_LEN_BYTE_ARRAY(16) UUID>" true
    j "BYTE_ARRAY JSON" true
    b "BYTE_ARRAY JSON" true
    js "LIST<BYTE_ARRAY STRING>" true
    plain "BYTE_ARRAY STRING" true
    ns "LIST<INT32>" true
    "#);
}

/// By which columns the row groups of a file claim to be sorted.
fn sorted_by(file: &Path) -> Vec<Option<Vec<i32>>> {
    let file = fs::File::open(file).unwrap();
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
    let groups = builder.metadata().row_groups().iter();
    let columns = |group: &RowGroupMetaData| {
        Some(group.sorting_columns()?.iter().map(|column| column.column_idx).collect())
    };
    groups.map(columns).collect()
}

#[test]
fn files_that_are_in_order_of_time_say_so_and_others_do_not() {
    let setting = Setting::new();
    setting.server.sql(
        "postgres",
        "CREATE TABLE sorted (tags text[], points point, at timestamptz PRIMARY KEY);
         INSERT INTO sorted SELECT '{a,b}', NULL, '2024-01-01'::timestamptz + i * '1 h'::interval FROM generate_series(0, 999) i;
         CREATE TABLE mixed (at timestamptz PRIMARY KEY);
         INSERT INTO mixed SELECT '2024-01-01'::timestamptz + (i * 7 % 1000) * '1 h'::interval FROM generate_series(0, 999) i;
         CREATE TABLE dates (at date);
         CREATE INDEX ON dates (at);
         INSERT INTO dates VALUES ('2024-01-01'), (NULL), ('2024-01-02'), ('2024-01-02');
         CREATE TABLE timeless (at timestamptz); INSERT INTO timeless VALUES ('2024-01-01')",
    );
    setting.export("postgres", &["--window", "1000d"]).expect(0);
    moveout(["verify", setting.path().to_str().unwrap()]).expect(0);
    let files = |table: &str| {
        let paths = setting.archive().data_files_of("postgres", table).into_iter();
        let found = paths.map(|path| {
            let name = path.rsplit('/').next().unwrap().split('.').next().unwrap().to_owned();
            (name, sorted_by(&setting.path().join(&path)))
        });
        found.collect::<Vec<_>>()
    };
    let claims = |table: &str| files(table).into_iter().flat_map(|(_, of)| of).collect::<Vec<_>>();
    assert_eq!(claims("sorted"), [Some(vec![2])], "the third of the leaves");
    assert_eq!(claims("mixed"), [None]);
    assert_eq!(claims("timeless"), [None], "it has no column of windows");
    let dates = files("dates");
    let of = |name: &str| &dates.iter().find(|(found, _)| found.starts_with(name)).unwrap().1;
    assert_eq!((of("2024"), of("null-time")), (&vec![Some(vec![0])], &vec![None]));
}

#[test]
fn bounds_are_of_microseconds_whatever_their_column_becomes() {
    let setting = Setting::new();
    setting.server.sql(
        "postgres",
        "CREATE TABLE t (at timestamptz PRIMARY KEY);
         INSERT INTO t VALUES ('2024-01-01 00:00:00.5+00'), ('2024-01-01 12:00:00+00');
         CREATE TABLE days (at date PRIMARY KEY); INSERT INTO days VALUES ('2024-01-01')",
    );
    setting.export("postgres", &[]).expect(0);
    let names = |table: &str| -> Vec<String> {
        let paths = setting.archive().data_files_of("postgres", table).into_iter();
        let slice = |path: String| {
            let name = path.rsplit_once('/').unwrap().1;
            name.strip_suffix(".parquet").unwrap().rsplit_once('.').unwrap().0.to_owned()
        };
        paths.map(slice).collect()
    };
    assert_eq!(names("t"), ["20240101T000000.500000Z_20240101T120000.000001Z"]);
    // A date that becomes a timestamp may have rows within the day.
    assert_eq!(names("days"), ["20240101T000000Z_20240101T000000.000001Z"]);
    setting.server.sql(
        "postgres",
        "ALTER TABLE days ALTER at TYPE timestamptz;
         INSERT INTO days VALUES ('2024-01-01 00:00:00.000001+00'); INSERT INTO t VALUES ('2024-01-01 12:00:00.000001+00')",
    );
    let again = setting.export("postgres", &["--json"]).expect(0).json();
    assert_eq!(again["rows"], 2, "{again}");
    moveout(["verify", setting.path().to_str().unwrap()]).expect(0);
}

#[test]
fn the_first_window_is_as_wide_as_the_table_is_large() {
    let setting = Setting::new();
    setting.server.sql(
        "postgres",
        "CREATE TABLE t (at timestamptz PRIMARY KEY);
         INSERT INTO t SELECT '2024-01-01'::timestamptz + i * '1 h'::interval FROM generate_series(0, 9999) i;
         ANALYZE t",
    );
    setting.export("postgres", &[]).expect(0);
    assert_eq!(
        setting.archive().data_files_of("postgres", "t").len(),
        1,
        "a small table is one file"
    );
    let explicit = setting.folder.path().join("explicit");
    let args = ["--window", "1d", "--archive", explicit.to_str().unwrap()];
    setting.export("postgres", &args).expect(0);
    let files = Archive::open(explicit).data_files_of("postgres", "t");
    assert!(
        files.len() > 1 && files[0].contains("/20240101T000000Z_20240102T000000Z."),
        "{files:?}"
    );
}
