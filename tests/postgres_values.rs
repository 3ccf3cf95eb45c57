//! PostgreSQL where its users have made it say something else than usual: casts, settings of roles, encodings,
//! names, time-outs, locks. What the archive holds is what the server stores, or a named failure.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

mod support;

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value as Json;
use support::tunnel::Tunnel;
use support::{Archive, Postgres, Run, command, peak_memory, python, run};
use tempfile::TempDir;

struct Setting {
    server: Postgres,
    folder: TempDir,
}

impl Setting {
    fn new() -> Self {
        Self::of(Postgres::start())
    }

    fn of(server: Postgres) -> Self {
        Self { server, folder: TempDir::with_prefix("archive-").unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, url: &str, archive: &str) -> Command {
        let mut export = command(["export", "--source", url, "--archive"]);
        export.arg(self.path(archive)).env("PGPASSWORD", self.server.password());
        export
    }

    fn export(&self, database: &str, archive: &str) -> Run {
        run(self.command(&self.server.url(database), archive))
    }

    /// What Python's code finds in the files of a table; `t` is the table.
    fn table(&self, archive: &str, table: &str, code: &str) -> String {
        let tables: Vec<Json> = Archive::open(self.path(archive)).catalog();
        let found = tables.iter().find(|entry| entry["table"] == table);
        let found =
            found.unwrap_or_else(|| panic!("no {table}"))["path"].as_str().unwrap().to_owned();
        let code = format!(
            "import sys, glob, pyarrow as pa, pyarrow.parquet as pq\n\
             t = pa.concat_tables([pq.read_table(f) for f in sorted(glob.glob(sys.argv[1] + '/*.parquet'))])\n{code}"
        );
        python(&code, &[self.path(archive).join(found).to_str().unwrap()]).trim().to_owned()
    }

    fn snapshots(&self, archive: &str) -> String {
        let code = "import sys, pyarrow.parquet as pq\n\
                    t = pq.read_table(sys.argv[1] + '/catalog/chunks.parquet')\n\
                    print(sorted(set(t['snapshot'].to_pylist())))";
        python(code, &[self.path(archive).to_str().unwrap()]).trim().to_owned()
    }
}

#[test]
fn a_cast_of_somebodys_own_replaces_no_value() {
    let setting = Setting::new();
    setting.server.sql(
        "postgres",
        "CREATE FUNCTION lie(int[]) RETURNS text LANGUAGE sql IMMUTABLE AS $$SELECT 'a lie'::text$$;
         CREATE CAST (int[] AS text) WITH FUNCTION lie(int[]);
         CREATE FUNCTION lie(int) RETURNS text LANGUAGE sql IMMUTABLE AS $$SELECT 'a lie'::text$$;
         CREATE CAST (int AS text) WITH FUNCTION lie(int) AS IMPLICIT;
         CREATE FUNCTION lie(inet[]) RETURNS text[] LANGUAGE sql IMMUTABLE AS $$SELECT '{lies}'::text[]$$;
         CREATE CAST (inet[] AS text[]) WITH FUNCTION lie(inet[]);
         CREATE FUNCTION lie(numeric) RETURNS text LANGUAGE sql IMMUTABLE AS $$SELECT 'a lie'::text$$;
         CREATE CAST (numeric AS text) WITH FUNCTION lie(numeric);
         CREATE CAST (jsonb AS text) WITHOUT FUNCTION;
         CREATE DOMAIN numbers AS int[];
         CREATE TABLE t (id int, flat int[], deep int[], domained numbers, nets inet[], amount numeric(5, 1), amounts numeric, j jsonb);
         INSERT INTO t VALUES (7, '{1,2}', '{{1,2},{3,4}}', '[2:3]={7,8}', '{10.0.0.1,10.0.0.0/8}', 'NaN', 1.50, '{\"a\": 1}')",
    );
    setting.export("postgres", "a").expect(0);
    let found = setting.table("a", "t", "print(t.to_pylist()[0])");
    assert_eq!(
        found,
        "{'id': 7, 'flat': [1, 2], 'deep': '{{1,2},{3,4}}', 'domained': '[2:3]={7,8}', \
         'nets': '{10.0.0.1,10.0.0.0/8}', 'amount': 'NaN', 'amounts': '1.50', 'j': '{\"a\": 1}'}"
    );
}

#[test]
fn a_moment_before_a_crash_is_not_one_after_it() {
    let setting = Setting::new();
    setting.server.sql("postgres", "CREATE TABLE t AS SELECT 1 AS a");
    setting.export("postgres", "before").expect(0);
    setting.export("postgres", "again").expect(0);
    assert_eq!(setting.snapshots("before"), setting.snapshots("again"), "nobody has written");
    // The server begins anew from its log, and its postmaster stays.
    let killed = setting.server.try_sql("postgres", "COPY (SELECT 1) TO PROGRAM 'kill -9 $PPID'");
    assert!(killed.is_err());
    let deadline = Instant::now() + Duration::from_secs(30);
    while setting.server.try_sql("postgres", "SELECT 1").is_err() {
        assert!(Instant::now() < deadline, "the server does not come back");
        thread::sleep(Duration::from_millis(50));
    }
    setting.export("postgres", "after").expect(0);
    assert_ne!(setting.snapshots("before"), setting.snapshots("after"));
}

/// Names that end what they stand in, where somebody lets them.
const NAMES: [&str; 9] = [
    r"back\slash",
    r"\'); SELECT pg_terminate_backend(pg_backend_pid()); --",
    r"'); SELECT pg_terminate_backend(pg_backend_pid()); --",
    r#"" FROM pg_class) TO STDOUT; SELECT 1/0; --"#,
    "$1 %s %I {0} $$",
    "line\nfeed\r\ttab",
    "größer 🦀 \u{202e}txt",
    "sixty-three bytes sixty-three bytes sixty-three bytes sixty-thr",
    "/* E'\\\\' U&\"\\0041\"",
];

#[test]
fn names_and_settings_of_users_run_nothing_and_change_nothing() {
    let setting = Setting::new();
    for name in NAMES {
        let (name, text) = (name.replace('"', "\"\""), name.replace('\'', "''"));
        setting.server.sql(
            "postgres",
            &format!(
                "CREATE SCHEMA \"{name}\"; CREATE TABLE \"{name}\".\"{name}\" (\"{name}\" text, at timestamptz);
                 INSERT INTO \"{name}\".\"{name}\" VALUES ('{text}', '2024-02-03 04:05:06+00');
                 CREATE INDEX ON \"{name}\".\"{name}\" (at)"
            ),
        );
    }
    setting.server.sql(
        "postgres",
        "CREATE TABLE v AS SELECT '1 day 02:03:04'::interval AS i, '\\x00ff'::bytea AS b, ARRAY['\\x00ff'::bytea] AS bs,
         0.1::float8 AS f, ARRAY[[0.1::float8]] AS fs, xml '<a/>' AS x, 'infinity'::timestamp AS t, '{[2024-02-03,)}'::datemultirange::text AS r,
         tstzrange('2024-02-03 04:05:06+00', NULL) AS z",
    );
    let settings = [
        "standard_conforming_strings = off",
        "quote_all_identifiers = on",
        "search_path = \"back\\slash\", public",
        "client_encoding = 'LATIN1'",
        "DateStyle = 'SQL, DMY'",
        "IntervalStyle = 'sql_standard'",
        "bytea_output = 'escape'",
        "extra_float_digits = -15",
        "xmloption = 'document'",
        "TimeZone = 'Asia/Kathmandu'",
        "transform_null_equals = on",
        "row_security = off",
        "default_transaction_isolation = 'serializable'",
        "default_transaction_deferrable = on",
        "backslash_quote = on",
        "idle_in_transaction_session_timeout = '2s'",
    ];
    let mut seen = Vec::new();
    for whose in ["ROLE admin", "DATABASE postgres"] {
        let set = |way: &str| {
            let alter: Vec<_> = settings
                .iter()
                .map(|one| {
                    format!(
                        "SET LOCAL standard_conforming_strings = on; ALTER {whose} {way} {one};"
                    )
                })
                .collect();
            format!("BEGIN; {} COMMIT", alter.concat())
        };
        let name = whose.replace(' ', "-");
        setting.server.sql("postgres", &set("SET"));
        setting.export("postgres", &name).expect(0);
        let exported = Archive::open(setting.path(&name));
        assert_eq!(exported.catalog().len(), NAMES.len() + 1);
        for table in NAMES {
            let found = setting.table(
                &name,
                table,
                "print(len(t), t.column(0)[0].as_py() == t.schema.names[0])",
            );
            assert_eq!(found, "1 True", "{table}");
        }
        let values = setting.table(&name, "v", "print(t.to_pylist())");
        assert!(values.contains("0.1") && values.contains("{{0.1}}"), "{values}");
        assert!(values.contains("2024-02-03 04:05:06+00"), "{values}");
        seen.push(values);
        let about = exported.text("catalog/run.json");
        assert!(!about.contains("failed"), "{about}");
        setting.server.sql(
            "postgres",
            &format!("SET standard_conforming_strings = on; ALTER {whose} RESET ALL"),
        );
    }
    setting.export("postgres", "plain").expect(0);
    seen.push(setting.table("plain", "v", "print(t.to_pylist())"));
    assert!(seen.iter().all(|values| *values == seen[0]), "{seen:#?}");
}

#[test]
fn text_that_utf8_has_not_is_bytes_and_the_rest_stays_text() {
    let setting = Setting::new();
    setting
        .server
        .sql("postgres", "CREATE DATABASE w ENCODING 'WIN1252' LOCALE 'C' TEMPLATE template0");
    setting.server.sql(
        "w",
        "CREATE TABLE t (id int, plain text, odd text, list text[], padded char(4));
         INSERT INTO t VALUES (1, convert_from('\\xe9', 'WIN1252'), convert_from('\\x6181', 'WIN1252'),
         ARRAY[convert_from('\\x9d', 'WIN1252')], 'x'), (2, 'b', NULL, '{a}', NULL)",
    );
    setting.export("w", "a").expect(0);
    let found = setting.table("a", "t", "print(t.sort_by('id').to_pydict())");
    assert_eq!(
        found,
        r"{'id': [1, 2], 'plain': ['é', 'b'], 'odd': [b'a\x81', None], 'list': [b'{\x9d}', b'{a}'], 'padded': ['x', None]}"
    );
}

#[test]
fn names_of_any_bytes_are_kept() {
    let setting = Setting::new();
    setting.server.sql(
        "postgres",
        "CREATE DATABASE ascii ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0",
    );
    setting.server.sql(
        "ascii",
        "DO $$ BEGIN EXECUTE format('CREATE TABLE %I (%I int)', E'caf\\351', E'gr\\374n');
         EXECUTE format('INSERT INTO %I VALUES (5)', E'caf\\351'); END $$",
    );
    setting.export("ascii", "a").expect(0);
    let found = setting.table("a", "caf\u{f7e9}", "print(t.to_pydict())");
    assert_eq!(found, r"{'gr\uf7fcn': [5]}");
}

#[test]
fn a_transaction_lasts_as_long_as_it_must() {
    let Some(server) = Postgres::start_version(17) else { return };
    let setting = Setting::of(server);
    setting.server.sql(
        "postgres",
        "CREATE TABLE t AS SELECT i, md5(i::text) || repeat('x', 100) AS x FROM generate_series(1, 60000) i;
         ALTER ROLE admin SET transaction_timeout = '1s'",
    );
    let tunnel = Tunnel::to(setting.server.port());
    tunnel.pace(5 << 20);
    let url = setting
        .server
        .url("postgres")
        .replace(&setting.server.port().to_string(), &tunnel.port().to_string());
    let exported = run(setting.command(&url, "a")).expect(0);
    assert!(!exported.stdout.contains("moments"), "{}", exported.stdout);
}

#[test]
fn one_invalid_database_does_not_stop_the_others() {
    let setting = Setting::new();
    setting.server.sql(
        "postgres",
        "CREATE TABLE t AS SELECT 1 AS a; CREATE DATABASE broken;
         UPDATE pg_database SET datconnlimit = -2 WHERE datname = 'broken'",
    );
    for database in ["", "broken"] {
        let failed = setting.export(database, &format!("a{database}")).expect(1);
        let said = format!("{}{}", failed.stdout, failed.stderr);
        assert!(said.contains("broken") && said.contains("invalid"), "{said}");
    }
    assert!(has_file(&setting, "/t/"));
}

fn has_file(setting: &Setting, of: &str) -> bool {
    let files = Archive::open(setting.path("a")).files();
    files.iter().any(|file| file.contains(of) && file.ends_with(".parquet"))
}

/// A session that holds a lock for as long as it lives.
fn holding(server: &Postgres, lock: &str) -> Child {
    let mut psql = server.client("postgres");
    psql.args(["-c", lock, "-c", "SELECT pg_sleep(120)"]).stdin(Stdio::null());
    let child = psql.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let held = "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND relation = 'kept'::regclass";
    while server.sql("postgres", held) != "1" {
        thread::sleep(Duration::from_millis(10));
    }
    child
}

#[test]
fn a_table_that_somebody_keeps_for_himself_does_not_hide_the_others() {
    let setting = Setting::new();
    setting.server.sql(
        "postgres",
        "CREATE TABLE kept (at timestamptz); INSERT INTO kept VALUES (now()); CREATE INDEX ON kept (at);
         CREATE TABLE other AS SELECT 1 AS a",
    );
    let mut holder = holding(&setting.server, "BEGIN; LOCK TABLE kept IN ACCESS EXCLUSIVE MODE");
    let began = Instant::now();
    let failed = setting.export("postgres", "a").expect(1);
    assert!(began.elapsed() < Duration::from_secs(60));
    assert!(
        failed.stdout.contains("public.kept") && failed.stdout.contains("lock"),
        "{}",
        failed.stdout
    );
    assert!(has_file(&setting, "/other/"));
    holder.kill().unwrap();
    holder.wait().unwrap();
    setting.server.kill_connections();
    setting.export("postgres", "a").expect(0);
}

#[test]
fn a_large_value_costs_three_times_its_size_at_most() {
    let setting = Setting::new();
    for (database, mebibytes) in [("small", 1), ("large", 201)] {
        setting.server.sql("postgres", &format!("CREATE DATABASE {database}"));
        setting.server.sql(
            database,
            &format!(
                "CREATE TABLE t (id int, v text); ALTER TABLE t ALTER v SET STORAGE EXTERNAL;
                 INSERT INTO t SELECT i, 'short' FROM generate_series(1, 1000) i;
                 INSERT INTO t SELECT 0, repeat(string_agg(md5(i::text), ''), {mebibytes})
                 FROM generate_series(1, 32768) i"
            ),
        );
    }
    let [small, large] = ["small", "large"]
        .map(|database| peak_memory(setting.command(&setting.server.url(database), database)));
    assert!(
        (large - small) / 200.0 < 3.1,
        "{small:.0} MiB with 1 MiB, {large:.0} MiB with 201 MiB"
    );
    let found = setting.table("large", "t", "print(max(len(v.as_py()) for v in t['v']), len(t))");
    assert_eq!(found, format!("{} 1001", 201 << 20));
}
