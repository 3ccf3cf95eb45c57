//! Proves that what an archive has of a PostgreSQL besides rows brings everything back but the rows, whether
//! pg_dump is at hand or not, and has no secret in it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde_json::Value;
use support::{Archive, Postgres, command, postgres, repository, run};
use tempfile::TempDir;

const SECRETS: [&str; 6] = [
    "secret of a role",
    "limited secret",
    "secret of a mapping",
    "secret of a subscription",
    "secret of a server",
    "secret of a setting",
];

/// One server with all kinds of objects in the databases `odd`, `objects` and others.
fn full_server(options: postgres::Options) -> Postgres {
    filled(Postgres::start_with(options))
}

fn filled(server: Postgres) -> Postgres {
    for name in ["odd", "objects"] {
        server.sql("postgres", &format!("CREATE DATABASE {name}"));
        let script = repository("tests/data").join(format!("{name}_postgres.sql"));
        server.sql(name, &fs::read_to_string(script).unwrap());
    }
    server
        .sql("odd", "CREATE ROLE known LOGIN PASSWORD 'secret of a role' VALID UNTIL '2100-01-01'");
    server.sql("odd", "ALTER ROLE known SET \"app.jwt_secret\" = 'secret of a setting'");
    server.sql("odd", "ALTER ROLE known SET search_path = \"$user\", \"we ird\"");
    server.sql("odd", "ALTER DATABASE odd SET \"app.url\" = 'https://u:secret%20of@h/x'");
    server.sql(
        "odd",
        "CREATE SUBSCRIPTION from_elsewhere CONNECTION 'host=nowhere password=''secret of a subscription'''
         PUBLICATION theirs WITH (connect = false)",
    );
    // A wrapper without a validator takes any option.
    server.sql(
        "odd",
        "CREATE FOREIGN DATA WRAPPER mine;
         CREATE SERVER theirs FOREIGN DATA WRAPPER mine OPTIONS (host 'h', api_key 'secret of a server',
         url 'https://u:secret%20of@h/x');
         CREATE USER MAPPING FOR PUBLIC SERVER theirs OPTIONS (anything 'secret of a mapping')",
    );
    server
}

/// Runs an export of some tables, so that nothing fails which is not about artifacts, by a user and with a
/// `PATH`, if it shall not be the usual; returns the archive, and each kind's status.
fn export(
    server: &Postgres,
    folder: &Path,
    user: Option<(&str, &str)>,
    path: Option<&Path>,
) -> (Archive, BTreeMap<String, String>) {
    let archive = folder.join("archive");
    let (name, password) = user.unwrap_or((support::server::USER, server.password()));
    let url = server.url("").replace(support::server::USER, name);
    let config = format!(
        "[[source]]\nname = 's'\nurl = '{url}'\n\
         databases = ['odd', 'objects', 'Second \"Database\"', 'postgres']\n\
         tables = ['of_second', 'by_btree', 'odd_times']\nschemas = ['public']\n"
    );
    let file = folder.join("moveout.toml");
    fs::write(&file, config).unwrap();
    let mut program = command(["export", "--from", "min", "--to", "max", "--config"]);
    program.arg(&file).arg("--archive").arg(&archive).env("PGPASSWORD", password);
    if let Some(path) = path {
        program.env("PATH", path);
    }
    if let Some(authority) = server.authority() {
        program.env("PGSSLMODE", "verify-full").env("PGSSLROOTCERT", authority);
    }
    run(program).expect(0);
    let archive = Archive::open(archive);
    let about: Value = serde_json::from_str(&archive.text("catalog/run.json")).unwrap();
    let statuses = about["artifacts"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let statuses = statuses.map(|one| (text(&one["kind"]), text(&one["status"]))).collect();
    (archive, statuses)
}

fn artifact(archive: &Archive, name: &str) -> String {
    let files = archive.files();
    let found = files.iter().find(|path| path.contains("/_artifacts/") && path.ends_with(name));
    archive.text(found.unwrap_or_else(|| panic!("no {name} in {files:#?}")))
}

fn rows(archive: &Archive, name: &str) -> Vec<Value> {
    serde_json::from_str(&artifact(archive, name)).unwrap()
}

/// What a database is made of, by words that do not depend on how it was made.
fn objects(server: &Postgres, database: &str) -> BTreeSet<String> {
    let user = "n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'";
    let queries = [
        format!(
            "SELECT concat_ws(' ', c.relkind, n.nspname, c.relname, c.relpersistence, c.reloptions, c.relreplident,
             c.relrowsecurity, c.relforcerowsecurity, c.relispartition, pg_get_expr(c.relpartbound, c.oid),
             pg_get_userbyid(c.relowner), c.reloftype::regtype,
             (SELECT string_agg(a::text, ',' ORDER BY a::text) FROM unnest(c.relacl) a
              WHERE split_part(a::text, '=', 1) <> pg_get_userbyid(c.relowner)))
             FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {user}"
        ),
        format!(
            "SELECT concat_ws(' ', 'column', n.nspname, c.relname, a.attname,
             format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity, a.attgenerated, a.attstorage,
             to_jsonb(a)->>'attcompression', nullif(a.attstattarget, -1), a.attoptions,
             a.attcollation::regcollation, pg_get_expr(d.adbin, d.adrelid), a.attinhcount, a.attacl)
             FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
             LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
             WHERE a.attnum > 0 AND NOT a.attisdropped AND {user}"
        ),
        "SELECT concat_ws(' ', 'constraint', connamespace::regnamespace, conrelid::regclass, contypid::regtype,
         conname, coninhcount, pg_get_constraintdef(oid)) FROM pg_constraint"
            .to_owned(),
        "SELECT concat_ws(' ', 'index', indexrelid::regclass, indisvalid, indisclustered, pg_get_indexdef(indexrelid))
         FROM pg_index WHERE indexrelid >= 16384 AND indrelid >= 16384 AND indrelid::regclass::text !~ '^pg_toast'"
            .to_owned(),
        format!(
            "SELECT concat_ws(' ', 'function', CASE WHEN p.prokind = 'a' THEN concat(to_jsonb(g) - 'aggfnoid' - 'aggsortop' - 'aggtranstype' - 'aggmtranstype',
             g.aggtranstype::regtype)
             ELSE pg_get_functiondef(p.oid) END, p.oid::regprocedure, p.proacl IS NULL, obj_description(p.oid))
             FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
             LEFT JOIN pg_aggregate g ON g.aggfnoid = p.oid WHERE {user}"
        ),
        format!(
            "SELECT concat_ws(' ', 'type', t.typtype, n.nspname, t.typname, t.typnotnull,
             pg_get_expr(t.typdefaultbin, 'pg_type'::regclass),
             (SELECT string_agg(enumlabel, ',' ORDER BY enumsortorder) FROM pg_enum WHERE enumtypid = t.oid))
             FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace WHERE {user}"
        ),
        "SELECT concat_ws(' ', 'view', c.oid::regclass, pg_get_viewdef(c.oid)) FROM pg_class c
         WHERE relkind IN ('v', 'm') AND oid >= 16384"
            .to_owned(),
        "SELECT concat_ws(' ', 'trigger', pg_get_triggerdef(oid), tgenabled) FROM pg_trigger WHERE NOT tgisinternal"
            .to_owned(),
        "SELECT concat_ws(' ', 'rule', pg_get_ruledef(oid)) FROM pg_rewrite WHERE oid >= 16384 AND rulename <> '_RETURN'"
            .to_owned(),
        "SELECT concat_ws(' ', 'policy', schemaname, tablename, policyname, permissive, roles, cmd, qual, with_check)
         FROM pg_policies"
            .to_owned(),
        "SELECT concat_ws(' ', 'sequence', schemaname, sequencename, data_type, start_value, min_value, max_value,
         increment_by, cycle, cache_size) FROM pg_sequences"
            .to_owned(),
        "SELECT concat_ws(' ', 'comment', o.type, o.identity, d.description) FROM pg_description d,
         pg_identify_object(d.classoid, d.objoid, d.objsubid) o
         WHERE d.objoid >= 16384 AND o.type <> 'large object'"
            .to_owned(),
        "SELECT concat_ws(' ', 'depends', a.type, a.identity, d.deptype, b.identity) FROM pg_depend d,
         pg_identify_object(d.classid, d.objid, d.objsubid) a,
         pg_identify_object(d.refclassid, d.refobjid, d.refobjsubid) b
         WHERE d.deptype IN ('a', 'e', 'i') AND d.objid >= 16384 AND a.type <> 'trigger'
         AND a.identity !~ 'pg_toast' AND a.type NOT LIKE 'toast%' AND b.type <> 'subscription'"
            .to_owned(),
        "SELECT concat_ws(' ', 'right', what, pg_get_userbyid(a.grantee), a.privilege_type, a.is_grantable) FROM (
         SELECT 'schema ' || nspname, nspacl, nspowner FROM pg_namespace
         UNION ALL SELECT 'type ' || oid::regtype, typacl, typowner FROM pg_type WHERE oid >= 16384
         UNION ALL SELECT 'routine ' || oid::regprocedure, proacl, proowner FROM pg_proc WHERE oid >= 16384
         ) AS o (what, acl, owner), aclexplode(o.acl) a WHERE a.grantee <> o.owner"
            .to_owned(),
        "SELECT concat_ws(' ', 'operator', oid::regoperator, oprcode, oprcom::regoperator, oprnegate::regoperator,
         oprrest, oprjoin, oprcanhash, oprcanmerge) FROM pg_operator WHERE oid >= 16384"
            .to_owned(),
        "SELECT concat_ws(' ', 'collation', collname, collprovider, collisdeterministic, collcollate, collctype,
         to_jsonb(o)->>'colliculocale', to_jsonb(o)->>'colllocale') FROM pg_collation o WHERE oid >= 16384"
            .to_owned(),
        "SELECT concat_ws(' ', 'dictionary', dictname, dictinitoption) FROM pg_ts_dict WHERE oid >= 16384"
            .to_owned(),
        "SELECT concat_ws(' ', 'default rights', pg_get_userbyid(defaclrole), defaclnamespace::regnamespace,
         defaclobjtype) FROM pg_default_acl"
            .to_owned(),
        "SELECT concat_ws(' ', 'publication', t) FROM pg_publication_tables t".to_owned(),
        "SELECT concat_ws(' ', 'event trigger', evtname, evtevent, evtfoid::regproc, evtenabled, evttags) FROM pg_event_trigger".to_owned(),
        "SELECT concat_ws(' ', 'server', srvname, srvtype, cardinality(srvoptions)) FROM pg_foreign_server".to_owned(),
        "SELECT concat_ws(' ', 'statistics', pg_get_statisticsobjdef(oid)) FROM pg_statistic_ext".to_owned(),
        "SELECT concat_ws(' ', 'text search', cfgname, cfgparser, (SELECT count(*) FROM pg_ts_config_map
         WHERE mapcfg = oid)) FROM pg_ts_config WHERE oid >= 16384".to_owned(),
        "SELECT concat_ws(' ', 'cast', castsource::regtype, casttarget::regtype, castcontext, castmethod)
         FROM pg_cast WHERE oid >= 16384".to_owned(),
        "SELECT concat_ws(' ', 'schema', nspname, pg_get_userbyid(nspowner)) FROM pg_namespace".to_owned(),
    ];
    let mut found = BTreeSet::new();
    for query in queries {
        // One object may have several lines.
        let query =
            format!("SET timezone = 'UTC'; SELECT replace(x, E'\\n', ' ') FROM ({query}) AS q (x)");
        let answer = server.sql(database, &query);
        // Toast tables are named by the number of their table.
        found.extend(answer.lines().filter(|line| !line.contains("pg_t")).map(str::to_owned));
    }
    found
}

#[track_caller]
fn assert_loads(server: &Postgres, archive: &Archive, database: &str, file: &str) {
    server.sql("postgres", "CREATE DATABASE loaded TEMPLATE template0");
    server.sql("loaded", &artifact(archive, file));
    let (expected, loaded) = (objects(server, database), objects(server, "loaded"));
    let lost: Vec<_> = expected.difference(&loaded).collect();
    let new: Vec<_> = loaded.difference(&expected).collect();
    let version = server.sql("postgres", "SHOW server_version");
    assert!(lost.is_empty() && new.is_empty(), "{version}, {file}: lost {lost:#?}, new {new:#?}");
    server.sql("postgres", "DROP DATABASE loaded");
}

#[track_caller]
fn assert_no_secret(archive: &Archive) {
    let password = support::server::PASSWORD;
    for path in archive.files() {
        let bytes = fs::read(archive.root.join(&path)).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        for secret in SECRETS.into_iter().chain([password, "secret%20of", "SCRAM-SHA-256$"]) {
            assert!(!text.contains(secret), "{path} has `{secret}`");
        }
    }
}

#[test]
fn a_dump_of_pg_dump_loads_and_has_no_secret() {
    let server = full_server(postgres::Options {
        tls: Some("IP:127.0.0.1"),
        ..postgres::Options::default()
    });
    // pg_dump then writes the names of options in another way, and their values are secrets all the same.
    server.sql("postgres", "ALTER ROLE admin SET quote_all_identifiers = on");
    let folder = TempDir::new().unwrap();
    let (archive, statuses) = export(&server, folder.path(), None, None);
    assert_no_secret(&archive);
    server.sql("postgres", "ALTER ROLE admin RESET ALL");
    for database in ["odd", "objects", "Second \"Database\"", "postgres"] {
        let status = &statuses[&format!("ddl of {database}")];
        assert!(status.starts_with("saved: by pg_dump (PostgreSQL) "), "{status}");
    }
    for kind in [
        "tables",
        "sequences",
        "extensions",
        "subscriptions",
        "large-objects",
        "roles",
        "roles.sql",
    ]
    .into_iter()
    .chain(["databases.sql", "settings"])
    {
        assert_eq!(statuses[kind], "saved", "{kind}");
    }
    assert_loads(&server, &archive, "odd", "ddl/odd.sql");
    assert_loads(&server, &archive, "objects", "ddl/objects.sql");
    assert_loads(&server, &archive, "Second \"Database\"", "ddl/Second_x20_x22Database_x22.sql");
    // Roles and databases by other servers' standards: into a server that has none of them.
    let other = Postgres::start();
    let roles = artifact(&archive, "roles.sql").replace("CREATE ROLE admin;", "");
    other.sql("postgres", &roles);
    other.sql("postgres", "ALTER ROLE admin RESET ALL");
    other.sql("postgres", &artifact(&archive, "databases.sql"));
    other.sql("objects", &artifact(&archive, "ddl/objects.sql"));
    let settings = "SELECT r.rolname, d.datname, s.setconfig FROM pg_db_role_setting s
        LEFT JOIN pg_roles r ON r.oid = s.setrole LEFT JOIN pg_database d ON d.oid = s.setdatabase
        WHERE d.datname IS DISTINCT FROM 'odd' AND r.rolname IS DISTINCT FROM 'known' ORDER BY 1, 2";
    let roles =
        "SELECT to_jsonb(r) - 'oid' FROM pg_roles r WHERE rolname <> 'known' ORDER BY rolname";
    let databases = "SELECT datname, datallowconn, datistemplate, pg_encoding_to_char(encoding) FROM pg_database ORDER BY 1";
    for query in [settings, roles, databases] {
        assert_eq!(other.sql("postgres", query), server.sql("postgres", query), "{query}");
    }
    let of_known = "SELECT rolconfig FROM pg_roles WHERE rolname = 'known'";
    assert_eq!(other.sql("postgres", of_known), r#"{"search_path=\"$user\", \"we ird\""}"#);
}

#[test]
fn without_pg_dump_the_catalogs_bring_all_back() {
    let server = full_server(postgres::Options::default());
    let folder = TempDir::new().unwrap();
    let empty = folder.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let (archive, statuses) = export(&server, folder.path(), None, Some(&empty));
    assert_no_secret(&archive);
    for database in ["odd", "objects", "Second \"Database\"", "postgres"] {
        let status = &statuses[&format!("ddl of {database}")];
        assert_eq!(status, "saved: by the catalogs, as there is no pg_dump on PATH");
    }
    assert_loads(&server, &archive, "odd", "ddl/odd.sql");
    assert_loads(&server, &archive, "objects", "ddl/objects.sql");
    assert_loads(&server, &archive, "Second \"Database\"", "ddl/Second_x20_x22Database_x22.sql");
    assert_inventory(&archive);
}

fn assert_inventory(archive: &Archive) {
    let tables = rows(archive, "tables.json");
    let find = |rows: &[Value], name: &str| {
        let mut found =
            rows.iter().filter(|row| row["name"] == name && row["database"] == "objects");
        found.next().unwrap_or_else(|| panic!("{name} is not there")).clone()
    };
    assert_eq!(find(&tables, "hashed")["kind"], "partitioned table");
    assert_eq!(find(&tables, "hashed_0")["parents"][0]["name"], "hashed");
    assert_eq!(find(&tables, "unlogged")["persistence"], "unlogged");
    assert_eq!(find(&tables, "foreign_file")["server"], "files");
    assert_eq!(find(&tables, "not_populated")["is_populated"], false);
    assert_eq!(find(&tables, "plain_view")["kind"], "view");
    let sequences = rows(archive, "sequences.json");
    let used = find(&sequences, "used");
    assert_eq!((used["last_value"].as_i64(), used["is_called"].as_bool()), (Some(42), Some(true)));
    let unused = find(&sequences, "unused");
    assert_eq!(
        (unused["last_value"].as_i64(), unused["is_called"].as_bool()),
        (Some(1), Some(false))
    );
    assert_eq!(find(&sequences, "descending")["increment"], -5);
    assert_eq!(find(&sequences, "with_sequences_ident_seq")["owned_by"]["identity"], true);
    assert_eq!(find(&rows(archive, "extensions.json"), "hstore")["schema"], "archive");
    let large: Vec<_> = rows(archive, "large-objects.json")
        .iter()
        .map(|row| row["oid"].as_i64().unwrap())
        .collect();
    assert_eq!(large, [1000001, 1000002, 1000003]);
    let subscriptions = rows(archive, "subscriptions.json");
    assert_eq!(subscriptions[0]["name"], "from_elsewhere");
    let limited =
        rows(archive, "roles.json").into_iter().find(|row| row["name"] == "limited").unwrap();
    assert_eq!(
        (&limited["login"], &limited["member_of"][0]["admin"]),
        (&true.into(), &true.into())
    );
    let settings: Value = serde_json::from_str(&artifact(archive, "settings.json")).unwrap();
    let zone = settings["server"].as_array().unwrap().iter().find(|row| row["name"] == "TimeZone");
    assert_eq!(zone.unwrap()["value"], "UTC");
    let of = settings["of_databases_and_roles"].as_array().unwrap().iter();
    let kathmandu = of.filter(|row| row["value"] == "Asia/Kathmandu").count();
    assert_eq!(kathmandu, 1);
}

#[test]
fn who_may_not_read_tables_gets_their_definitions() {
    let server = full_server(postgres::Options::default());
    let folder = TempDir::new().unwrap();
    server.sql("odd", "GRANT SELECT ON odd_times TO limited");
    server.sql("Second \"Database\"", "GRANT SELECT ON of_second TO limited");
    let user = Some(("limited", "limited secret"));
    let (archive, statuses) = export(&server, folder.path(), user, None);
    assert_no_secret(&archive);
    assert_eq!(statuses["sequences"], "saved");
    let ddl = artifact(&archive, "ddl/objects.sql");
    assert!(ddl.contains("by the catalogs, as pg_dump failed: "), "{ddl:.600}");
    assert_loads(&server, &archive, "objects", "ddl/objects.sql");
    let sequences = rows(&archive, "sequences.json");
    let used = sequences.iter().find(|row| row["name"] == "used").unwrap();
    assert_eq!((&used["may_read"], &used["last_value"]), (&false.into(), &Value::Null));
}

/// What only some versions have, or have in a way of their own.
fn of_version(version: u32) -> String {
    let mut sql = String::from(
        "CREATE ROLE boss; CREATE ROLE middle; CREATE ROLE worker; GRANT boss TO middle WITH ADMIN OPTION;
         GRANT boss TO worker;
         CREATE DOMAIN positive AS int CONSTRAINT \"never null\" NOT NULL CONSTRAINT \"above 0\" CHECK (VALUE > 0);
         CREATE TABLE parent (id int GENERATED ALWAYS AS IDENTITY, a int NOT NULL, t text, u text,
         g int GENERATED ALWAYS AS (a * 2) STORED);
         CREATE TABLE child (c int NOT NULL) INHERITS (parent);
         CREATE TABLE parts (a int NOT NULL, at date NOT NULL, PRIMARY KEY (a, at)) PARTITION BY RANGE (at);
         CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
         CREATE TABLE parts_2 (a int NOT NULL, at date NOT NULL);
         ALTER TABLE parts ATTACH PARTITION parts_2 FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
         CREATE STATISTICS of_parent (dependencies) ON a, t FROM parent; ALTER STATISTICS of_parent SET STATISTICS 500;",
    );
    if version >= 15 {
        sql += "GRANT SET ON PARAMETER work_mem TO worker WITH GRANT OPTION;";
    }
    if version >= 16 {
        sql += "GRANT boss TO worker WITH INHERIT FALSE, SET FALSE;
                SET ROLE middle; GRANT boss TO worker WITH INHERIT TRUE; RESET ROLE;
                GRANT middle TO worker WITH ADMIN TRUE, SET FALSE;";
    }
    if version >= 17 {
        sql += "GRANT MAINTAIN ON parent TO worker;";
    }
    if version >= 18 {
        sql += "CREATE TABLE named (a int CONSTRAINT a_is_there NOT NULL, b int CONSTRAINT own NOT NULL NO INHERIT,
                c int, v int GENERATED ALWAYS AS (a + 1) VIRTUAL, CONSTRAINT the_key PRIMARY KEY (a));
                COMMENT ON CONSTRAINT own ON named IS 'its own';
                INSERT INTO named (a, b) VALUES (1, 1); ALTER TABLE named ADD CONSTRAINT later NOT NULL c NOT VALID;
                CREATE TABLE heir (CONSTRAINT heirs_own NOT NULL t) INHERITS (parent);
                CREATE TABLE heir_by_name (CONSTRAINT other NOT NULL a, x int CONSTRAINT x_there NOT NULL) INHERITS (parent);
                CREATE TABLE not_enforced (a int, CONSTRAINT loose CHECK (a > 0) NOT ENFORCED);
                CREATE TABLE periods (id int4range, during daterange, PRIMARY KEY (id, during WITHOUT OVERLAPS));
                CREATE PUBLICATION generated FOR TABLE parent WITH (publish_generated_columns = stored);";
    }
    sql
}

#[test]
fn what_the_catalogs_write_loads_into_the_same_version() {
    for version in postgres::versions().into_keys() {
        let start = || Postgres::start_version(version).unwrap();
        let server = start();
        server.sql("postgres", &of_version(version));
        let folder = TempDir::new().unwrap();
        let archive = folder.path().join("archive");
        let mut program = command(["export", "--source", &server.url("postgres"), "--archive"]);
        // Without pg_dump.
        program.arg(&archive).env("PGPASSWORD", server.password()).env("PATH", folder.path());
        run(program).expect(0);
        let archive = Archive::open(archive);
        let about = archive.text("catalog/run.json");
        assert!(
            about.contains("by the catalogs") && !about.contains("failed"),
            "{version}: {about}"
        );
        assert_loads(&server, &archive, "postgres", "ddl/postgres.sql");
        let other = start();
        other.sql("postgres", &artifact(&archive, "roles.sql").replace("CREATE ROLE admin;", ""));
        other.sql("postgres", &artifact(&archive, "databases.sql"));
        let members = "SELECT m.roleid::regrole, m.member::regrole, m.grantor::regrole, to_jsonb(m) - 'oid' - 'roleid' - 'member' - 'grantor'
                       FROM pg_auth_members m WHERE m.member::regrole::text !~ '^pg_' ORDER BY 1, 2, 3";
        let parameters =
            if version >= 15 { "SELECT parname, paracl FROM pg_parameter_acl" } else { "SELECT 1" };
        for query in [members, parameters] {
            assert_eq!(
                other.sql("postgres", query),
                server.sql("postgres", query),
                "{version}: {query}"
            );
        }
    }
}
