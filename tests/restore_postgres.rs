//! The way back into a PostgreSQL: definitions, rows, sequences and large objects are there again, each once, whatever
//! happened on the way.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

mod support;

use std::fs;
use std::process::Command;
use std::time::Duration;

use serde_json::Value as Json;
use support::tunnel::Tunnel;
use support::{Postgres, Restoring, command, repository, run};

/// A source whose database `shop` was made by this script, and an archive of it.
fn setting(sql: &str) -> (Postgres, Restoring) {
    let source = Postgres::start();
    source.sql("postgres", "CREATE DATABASE shop");
    source.sql("shop", sql);
    let setting = Restoring::new();
    setting.export(&source.url("shop"), &["--window", "1d"]);
    (source, setting)
}

/// The definitions of a database by pg_dump, without what differs from call to call.
fn definitions(server: &Postgres, database: &str) -> String {
    let mut dump = Command::new("pg_dump");
    dump.args(["--schema-only", "-h", "127.0.0.1", "-p", &server.port().to_string()]);
    dump.args(["-U", support::server::USER, "-d", database]).env("PGPASSWORD", server.password());
    let output = dump.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('\\') && !line.starts_with("--"));
    lines.collect::<Vec<_>>().join("\n")
}

const RELATIONS: &str = "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c \
    JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'm') AND c.relispopulated \
    AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' ORDER BY 1";

/// The rows of all tables, as the server writes them.
fn rows(server: &Postgres, database: &str) -> Vec<(String, String)> {
    let tables = server.sql(database, RELATIONS);
    let rows = |table: &str| {
        let sql = format!(
            "SET timezone = 'UTC'; SET extra_float_digits = 3; SELECT t::text FROM ONLY {table} t ORDER BY 1"
        );
        (table.to_owned(), server.sql(database, &sql))
    };
    tables.lines().map(rows).collect()
}

#[track_caller]
fn assert_same(source: &Postgres, database: &str, target: &Postgres, other: &str) {
    let (expected, found) = (rows(source, database), rows(target, other));
    assert_eq!(expected.len(), found.len());
    for (expected, found) in expected.iter().zip(&found) {
        assert_eq!(expected, found);
    }
    let (expected, found) = (definitions(source, database), definitions(target, other));
    let differs = expected.lines().zip(found.lines()).find(|(one, other)| one != other);
    assert!(expected == found, "{differs:#?}\n{} and {} bytes", expected.len(), found.len());
}

const SHOP: &str = "
    CREATE ROLE keeper; CREATE TYPE mood AS ENUM ('sad', 'ok', 'it''s; fine');
    CREATE DOMAIN percent AS int CHECK (VALUE BETWEEN 0 AND 100);
    CREATE TYPE pair AS (a int, b text);
    CREATE FUNCTION double(a int) RETURNS int LANGUAGE sql IMMUTABLE AS $$ SELECT a * 2; $$;
    CREATE TABLE customers (id serial PRIMARY KEY, name text NOT NULL UNIQUE, mood mood, share percent);
    CREATE TABLE orders (
        id bigint GENERATED ALWAYS AS IDENTITY (START 10 INCREMENT 5) PRIMARY KEY,
        customer int REFERENCES customers, at timestamptz NOT NULL, amount numeric(12, 2), note text,
        twice numeric GENERATED ALWAYS AS (amount * 2) STORED, tags text[], whole int4range, point pair, j jsonb,
        numbers int[], u uuid, raw bytea, took interval, day date, CHECK (amount > -1000)
    );
    CREATE INDEX ON orders (at); CREATE INDEX ON orders USING gin (tags);
    CREATE TABLE plain (id int, at timestamptz, x float8, d numeric(20, 6), t text, j jsonb, l int[], m mood, u uuid, i interval, b bytea);
    CREATE INDEX ON plain (at);
    INSERT INTO plain SELECT n, '2024-01-01'::timestamptz + n * interval '1 minute', n / 7.0::float8, n * 1000.000001,
        CASE n % 5 WHEN 0 THEN NULL ELSE 'text ' || n || E'\\t\\\\\\n' END, jsonb_build_object('n', n),
        CASE n % 3 WHEN 0 THEN '{}' WHEN 1 THEN ARRAY[n, NULL] END, 'ok', md5(n::text)::uuid,
        n * interval '1 month 2 days 3 seconds', decode(md5(n::text), 'hex') FROM generate_series(1, 6000) n;
    CREATE TABLE parts (at date NOT NULL, v int) PARTITION BY RANGE (at);
    CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
    CREATE TABLE parts_2 PARTITION OF parts DEFAULT;
    INSERT INTO parts SELECT '2024-06-01'::date + n * 100, n FROM generate_series(1, 9) n;
    CREATE TABLE log (what text);
    CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO log VALUES ('x'); RETURN NEW; END $$;
    INSERT INTO customers (name, mood, share) SELECT 'c' || n, 'it''s; fine', n % 100 FROM generate_series(1, 50) n;
    INSERT INTO orders (customer, at, amount, note, tags, whole, point, j, numbers, u, raw, took, day)
        SELECT 1 + n % 50, '2024-01-01'::timestamptz + n * interval '1 hour', n / 3.0, E'a\\tb\\\\c\\n\"', ARRAY['x', NULL, 'y,\"z'],
        int4range(n, n + 5), ROW(n, 'q')::pair, '{\"a\": 1}', ARRAY[1, NULL], md5(n::text)::uuid, '\\x00ff', '1 mon -2 days',
        CASE n WHEN 5 THEN 'infinity' WHEN 6 THEN '0044-03-15 BC' ELSE '2024-01-01' END::date FROM generate_series(1, 200) n;
    CREATE TRIGGER noted AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION note();
    CREATE VIEW grouped AS SELECT id, name FROM customers GROUP BY id;
    CREATE MATERIALIZED VIEW totals AS SELECT customer, sum(amount) FROM orders GROUP BY 1;
    CREATE MATERIALIZED VIEW of_totals AS SELECT count(*) FROM totals; CREATE UNIQUE INDEX ON totals (customer);
    COMMENT ON INDEX orders_at_idx IS 'by time'; COMMENT ON TABLE orders IS 'all; of them';
    CREATE POLICY own ON customers TO keeper USING (name = current_user); ALTER TABLE customers ENABLE ROW LEVEL SECURITY;
    CREATE STATISTICS both_of (dependencies) ON customer, amount FROM orders;
    ALTER TABLE log OWNER TO keeper; GRANT SELECT ON orders TO keeper;
    ALTER TABLE log ADD CONSTRAINT short CHECK (length(what) < 3) NOT VALID;
    SELECT setval('customers_id_seq', 77, false);
    SELECT lo_from_bytea(4711, decode(repeat('00ff', 5000), 'hex')), lo_create(4712);
    SELECT lo_put(4713, 100000, 'far') FROM lo_create(4713);
    COMMENT ON LARGE OBJECT 4711 IS 'a large one';
";

/// A target that has the roles of the shop.
fn target() -> Postgres {
    let target = Postgres::start();
    target.sql("postgres", "CREATE ROLE keeper");
    target
}

const LARGE: &str = "SELECT loid, pageno, md5(data) FROM pg_largeobject ORDER BY 1, 2; \
    SELECT oid, lomowner::regrole, obj_description(oid, 'pg_largeobject') FROM pg_largeobject_metadata ORDER BY 1";

#[test]
fn what_was_exported_is_there_again_with_its_definitions() {
    let (source, setting) = setting(SHOP);
    let target = target();
    let summary = setting.restore(&target.url(""), &[]).expect(0).json();
    assert_eq!(summary["status"], "complete", "{summary:#}");
    assert_eq!(summary["notes"], serde_json::json!([]), "{summary:#}");
    assert_same(&source, "shop", &target, "shop");
    assert_eq!(target.sql("shop", LARGE), source.sql("shop", LARGE));
    assert_eq!(target.sql("shop", "SELECT count(*) FROM log"), "0", "no trigger has fired");
    for next in [
        "INSERT INTO customers (name) VALUES ('next') RETURNING id",
        "INSERT INTO orders (at) VALUES ('2025-01-01') RETURNING id",
    ] {
        assert_eq!(target.sql("shop", next), source.sql("shop", next), "{next}");
    }
    let again = setting.restore(&target.url(""), &[]).expect(1);
    assert!(again.stderr.contains("the target has rows in"), "{}", again.stderr);
    assert!(again.stderr.contains("nothing was changed"), "{}", again.stderr);
}

#[test]
fn a_restore_that_is_killed_goes_on_and_no_row_is_there_twice() {
    let (source, setting) = setting(SHOP);
    let target = target();
    let after = [20, 30, 45, 60, 80, 100, 130, 160, 200, 260, 340, 450, 600, 900];
    setting.restore_with_kills(&target.url(""), &after);
    assert_same(&source, "shop", &target, "shop");
    assert_eq!(target.sql("shop", LARGE), source.sql("shop", LARGE));
}

#[test]
fn connections_that_are_cut_and_a_server_that_restarts_lose_and_repeat_nothing() {
    let (source, setting) = setting(SHOP);
    let mut target = target();
    let tunnel = Tunnel::to(target.port());
    tunnel.pace(400 << 10);
    let url = target.url("").replace(&target.port().to_string(), &tunnel.port().to_string());
    let restoring = setting.command(&url, &["--concurrency", "2"]);
    let running = std::thread::spawn(move || run(restoring));
    let restored = "SELECT count(*) FROM pg_database WHERE datname = 'shop'";
    while target.sql("postgres", restored) != "1" {
        std::thread::sleep(Duration::from_millis(10));
    }
    let mut cut = 0;
    for _ in 0..6 {
        std::thread::sleep(Duration::from_millis(150));
        cut += target.kill_connections();
    }
    target.restart();
    let run = running.join().unwrap();
    assert!(cut > 0);
    // Definitions are not tried again by themselves; the same command goes on.
    let done = if run.status == 0 { run } else { setting.restore(&target.url(""), &[]) };
    assert_eq!(done.status, 0, "{}{}", done.stdout, done.stderr);
    assert_same(&source, "shop", &target, "shop");
}

#[test]
fn the_values_that_exporters_lose_come_back() {
    let (source, setting) = (Postgres::start(), Restoring::new());
    for name in ["odd", "objects"] {
        source.sql("postgres", &format!("CREATE DATABASE {name}"));
        let script = repository("tests/data").join(format!("{name}_postgres.sql"));
        source.sql(name, &fs::read_to_string(script).unwrap());
    }
    let config = format!(
        "[[source]]\nname = 's'\nurl = '{}'\ndatabases = ['odd', 'objects']\n\
         exclude = ['foreign_table', 'foreign_file', 'partly_foreign_2023']\n",
        source.url("")
    );
    fs::write(setting.path("moveout.toml"), config).unwrap();
    let mut export = command(["export", "--from", "min", "--to", "max", "--config"]);
    export.arg(setting.path("moveout.toml")).args(["--archive", &setting.archive()]);
    run(setting.here(export)).expect(0);
    let target = Postgres::start();
    let roles = fs::read_to_string(setting.path("archive/data/s/_artifacts/roles.sql")).unwrap();
    target.sql("postgres", &roles.replace("CREATE ROLE admin;", ""));
    let run = setting.restore(&target.url(""), &[]);
    let summary: Json = run.json();
    assert_eq!(summary["status"], "complete", "{summary:#}{}", run.stderr);
    for database in ["odd", "objects"] {
        let (expected, found) = (rows(&source, database), rows(&target, database));
        for (expected, found) in expected.iter().zip(&found) {
            // No archive has rows without columns; the export says so.
            if expected.0 != "public.no_columns" {
                assert_eq!(expected, found);
            }
        }
        // What an option of a foreign server says is not archived, since it may be a secret.
        let [one, other] = [&source, &target].map(|server| {
            let text = definitions(server, database);
            let mut is_option = false;
            let lines = text.lines().filter(|line| {
                is_option = line.ends_with("OPTIONS (") || is_option && *line != ");";
                !is_option
            });
            lines.collect::<Vec<_>>().join("\n")
        });
        let differs = one.lines().zip(other.lines()).find(|(one, other)| one != other);
        assert!(one == other, "{database}: {differs:#?}");
    }
}

#[test]
fn every_version_takes_back_what_was_exported_from_it() {
    for version in support::postgres::versions().into_keys() {
        let start = || Postgres::start_version(version).unwrap();
        let (source, target, setting) = (start(), start(), Restoring::new());
        let odd = fs::read_to_string(repository("tests/data/odd_postgres.sql")).unwrap();
        // Before 15, a numeric has no negative scale.
        let databases =
            if version < 15 { vec![("shop", SHOP)] } else { vec![("shop", SHOP), ("odd", &odd)] };
        for (name, script) in &databases {
            source.sql("postgres", &format!("CREATE DATABASE {name}"));
            source.sql(name, script);
        }
        setting.export(&source.url(""), &["--name", "s", "--from", "min", "--to", "max"]);
        let roles =
            fs::read_to_string(setting.path("archive/data/s/_artifacts/roles.sql")).unwrap();
        target.sql("postgres", &roles.replace("CREATE ROLE admin;", ""));
        let summary = setting.restore(&target.url(""), &[]).expect(0).json();
        assert_eq!(summary["status"], "complete", "{version}: {summary:#}");
        for (name, _) in databases {
            let tables = rows(&source, name).into_iter().zip(rows(&target, name));
            tables.for_each(|(expected, found)| assert_eq!(expected, found, "{version}"));
            for what in [CONSTRAINTS, INDEXES] {
                assert_eq!(target.sql(name, what), source.sql(name, what), "{version}");
            }
        }
    }
}

/// The constraints that somebody else than the system has, and the indexes.
const CONSTRAINTS: &str =
    "SELECT conrelid::regclass, contypid::regtype, conname, pg_get_constraintdef(oid)
    FROM pg_constraint WHERE connamespace = 'public'::regnamespace ORDER BY conrelid::regclass::text, contypid::regtype::text, 3";
const INDEXES: &str = "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1";

#[test]
fn a_dry_run_changes_nothing_and_names_what_is_missing() {
    let (source, setting) = setting(SHOP);
    let target = Postgres::start();
    let before = target.sql("postgres", "SELECT datname FROM pg_database ORDER BY 1");
    let summary = setting.restore(&target.url(""), &["--dry-run"]).expect(0).json();
    assert_eq!(summary["status"], "planned");
    let text = summary.to_string();
    assert!(
        text.contains("the database shop") && text.contains("lacks the roles keeper"),
        "{text}"
    );
    assert_eq!(target.sql("postgres", "SELECT datname FROM pg_database ORDER BY 1"), before);
    // Without the role, all else is there.
    let summary = setting.restore(&target.url(""), &[]).expect(0).json();
    assert!(summary.to_string().contains("lacks the roles keeper"), "{summary}");
    assert_eq!(rows(&target, "shop"), rows(&source, "shop"));
}

#[test]
fn a_part_is_restored_under_another_name() {
    let (source, setting) = setting(SHOP);
    let target = target();
    let more = ["--table", "orders", "--table", "public.plain", "--map", "shop=again"];
    let run = setting.restore(&target.url(""), &more);
    let summary = run.json();
    assert_eq!(run.status, 0, "{summary:#}");
    let notes = summary["notes"].to_string();
    assert!(notes.contains("stay empty") && notes.contains("NOT VALID"), "{notes}");
    for (table, key) in [("orders", "id"), ("plain", "id")] {
        let sql = format!("SELECT t::text FROM {table} t ORDER BY {key}");
        assert_eq!(target.sql("again", &sql), source.sql("shop", &sql));
    }
    assert_eq!(target.sql("again", "SELECT count(*) FROM customers"), "0");

    let refused = setting.restore(&target.url(""), &["--map", "shop.public=other.elsewhere"]);
    assert_eq!(refused.status, 2, "{}", refused.stderr);
    assert!(
        refused.stderr.contains("does not change names within definitions"),
        "{}",
        refused.stderr
    );
    // Where the tables are there, only the rows go.
    target.sql("postgres", "CREATE DATABASE own");
    target.sql("own", "CREATE SCHEMA s; CREATE TABLE s.log (what text); CREATE TABLE s.customers (id int, name varchar(9), mood text, share int)");
    let more = ["--table", "customers", "--map", "shop.public=own.s"];
    let run = setting.restore(&target.url("own"), &more);
    assert_eq!(run.status, 0, "{}{}", run.stdout, run.stderr);
    assert!(run.stdout.contains("has no sequence"), "{}", run.stdout);
    let sql = "SELECT id, name, mood, share FROM";
    assert_eq!(
        target.sql("own", &format!("{sql} s.customers ORDER BY 1")),
        source.sql("shop", &format!("{sql} customers ORDER BY 1"))
    );
}

#[test]
fn what_the_target_refuses_ends_the_restore_with_its_words_and_can_be_mended() {
    let (_, setting) = setting(
        "CREATE TABLE t (id int, v text); INSERT INTO t VALUES (1, 'long enough'), (2, 'x')",
    );
    let target = Postgres::start();
    target.sql("postgres", "CREATE DATABASE shop");
    target.sql("shop", "CREATE TABLE t (id int, v varchar(3))");
    let failed = setting.restore(&target.url("shop"), &[]).expect(1);
    for words in [
        "shop.public.t",
        "value too long for type character varying(3)",
        "COPY t, line 1",
        "nothing of this chunk",
    ] {
        assert!(failed.stderr.contains(words), "{words}: {}", failed.stderr);
    }
    assert_eq!(target.sql("shop", "SELECT count(*) FROM t"), "0");
    target.sql("shop", "ALTER TABLE t ALTER v TYPE varchar(30)");
    let run = setting.restore(&target.url("shop"), &[]).expect(0);
    assert_eq!(target.sql("shop", "SELECT count(*) FROM t"), "2", "{}", run.stdout);

    target.sql("shop", "TRUNCATE t; INSERT INTO t VALUES (9, 'mine')");
    let refused = setting.restore(&target.url("shop"), &[]).expect(1);
    assert!(refused.stderr.contains("the target has rows in shop.public.t"), "{}", refused.stderr);
    assert_eq!(target.sql("shop", "SELECT id FROM t"), "9");
}

#[test]
fn archives_of_every_version_come_back() {
    for version in ["v1", "v2"] {
        let target = Postgres::start();
        let archive = repository("tests/data/archives").join(version).join("postgresql");
        let archive = archive.to_str().unwrap();
        run(Restoring::new().command_of(archive, &target.url(""), &[])).expect(0);
        let source = Postgres::start();
        let names = target.sql(
            "postgres",
            "SELECT datname FROM pg_database WHERE datname !~ '^template' ORDER BY 1",
        );
        let script = fs::read_to_string(repository("tests/data/archives/postgres.sql")).unwrap();
        let name = names.lines().find(|name| *name != "postgres").unwrap_or("postgres");
        if name != "postgres" {
            source.sql("postgres", &format!("CREATE DATABASE \"{name}\""));
        }
        source.sql(name, &script);
        source.sql(name, "DROP TABLE secrets"); // it is in the unsealed archive alone
        assert_eq!(rows(&target, name), rows(&source, name), "{version}");
    }
}

#[test]
fn a_restore_that_was_ended_while_its_records_went_only_removes_the_last() {
    let (_, setting) = setting("CREATE TABLE t AS SELECT 1 AS id");
    let target = Postgres::start();
    setting.restore(&target.url(""), &[]).expect(0);
    // As if the record of another database had gone, and this one not yet.
    target.sql(
        "shop",
        "CREATE SCHEMA moveout_restore;
         CREATE TABLE moveout_restore.record (of text, name text, rows bigint, PRIMARY KEY (of, name));
         INSERT INTO moveout_restore.record VALUES ('done', '', 0)",
    );
    let summary = setting.restore(&target.url(""), &[]).expect(0).json();
    assert_eq!(summary["status"], "complete", "{summary}");
    let schemas = "SELECT count(*) FROM pg_namespace WHERE nspname = 'moveout_restore'";
    assert_eq!(target.sql("shop", schemas), "0");
    assert_eq!(target.sql("shop", "SELECT count(*) FROM t"), "1");
}

#[test]
fn the_part_of_another_restore_is_not_gone_on_with() {
    let (_, setting) = setting("CREATE TABLE t AS SELECT 1 AS id");
    let target = Postgres::start();
    target.sql("postgres", "CREATE DATABASE shop");
    target.sql(
        "shop",
        "CREATE TABLE t (id int); CREATE SCHEMA moveout_restore;
         CREATE TABLE moveout_restore.record (of text, name text, rows bigint, PRIMARY KEY (of, name));
         INSERT INTO moveout_restore.record VALUES ('table', '\"public\".\"t\"', 0), ('chunk', 'of another archive', 1);
         INSERT INTO t VALUES (7)",
    );
    let refused = setting.restore(&target.url(""), &[]).expect(1);
    assert!(refused.stderr.contains("a part of another restore"), "{}", refused.stderr);
    assert_eq!(target.sql("shop", "SELECT id FROM t"), "7");
}
