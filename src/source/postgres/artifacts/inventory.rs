//! What a server has, as lists of JSON with one object a line, which the server makes and which are gathered over its
//! databases; and its roles and databases as SQL, since the dump of a single database lacks them.

use crate::error::{Class, Error, Result};
use crate::model::{ArtifactOutcome, Artifacts};
use crate::source::postgres::artifacts::script::{is_final, one_line};
use crate::source::postgres::artifacts::secrets;
use crate::source::postgres::catalog::text;
use crate::source::postgres::connection::{Connection, Row};
use crate::source::postgres::server::Inner;
use crate::source::postgres::snapshot::set_up;

const USER: &str = "n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'";

/// The extension that a relation belongs to.
const OF_EXTENSION: &str = "(SELECT e.extname FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid \
    WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')";

const EXTENSIONS: &str = "SELECT current_database() AS database, e.extname AS name, e.extversion AS version, \
    n.nspname AS schema, e.extrelocatable AS relocatable, \
    (SELECT array_agg(t::regclass::text) FROM unnest(e.extconfig) t) AS tables_with_data_of_users \
    FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace ORDER BY e.extname COLLATE \"C\"";

const SUBSCRIPTIONS: &str = "SELECT current_database() AS database, s.subname AS name, \
    pg_get_userbyid(s.subowner) AS owner, s.subenabled AS enabled, s.subslotname AS slot, \
    s.subpublications AS publications FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid \
    WHERE d.datname = current_database() ORDER BY s.subname COLLATE \"C\"";

const LARGE_OBJECTS: &str = "SELECT current_database() AS database, m.oid::bigint AS oid, \
    pg_get_userbyid(m.lomowner) AS owner, m.lomacl::text[] AS acl, \
    obj_description(m.oid, 'pg_largeobject') AS comment FROM pg_largeobject_metadata m ORDER BY m.oid";

const ROLES: &str = "SELECT rolname AS name, rolsuper AS superuser, rolinherit AS inherit, rolcreaterole AS createrole, \
    rolcreatedb AS createdb, rolcanlogin AS login, rolreplication AS replication, rolbypassrls AS bypassrls, \
    rolconnlimit AS connection_limit, rolvaliduntil AS valid_until, shobj_description(oid, 'pg_authid') AS comment, \
    (SELECT json_agg(json_build_object('role', pg_get_userbyid(m.roleid), 'admin', m.admin_option, \
    'inherit', to_jsonb(m)->'inherit_option', 'set', to_jsonb(m)->'set_option') ORDER BY m.roleid) \
    FROM pg_auth_members m WHERE m.member = r.oid) AS member_of \
    FROM pg_roles r WHERE rolname !~ '^pg_' ORDER BY rolname COLLATE \"C\"";

const DATABASES: &str = "SELECT datname AS name, pg_get_userbyid(datdba) AS owner, \
    pg_encoding_to_char(encoding) AS encoding, datcollate AS collate, datctype AS ctype, \
    to_jsonb(d)->>'datlocprovider' AS locale_provider, \
    coalesce(to_jsonb(d)->>'datlocale', to_jsonb(d)->>'daticulocale') AS locale, \
    to_jsonb(d)->>'datcollversion' AS collation_version, datistemplate AS is_template, \
    datallowconn AS allows_connections, datconnlimit AS connection_limit, datacl::text[] AS acl, \
    shobj_description(oid, 'pg_database') AS comment FROM pg_database d ORDER BY datname COLLATE \"C\"";

/// The values that a new session in this database gets, not those of moveout's session.
const SERVER: &str = "SELECT current_database() AS database, name, reset_val AS value, unit, \
    nullif(source, 'session') AS source FROM pg_settings WHERE lower(name) IN ( \
    'server_version', 'server_version_num', 'server_encoding', 'timezone', 'datestyle', 'intervalstyle', \
    'default_text_search_config', 'lc_collate', 'lc_ctype', 'lc_messages', 'lc_monetary', 'lc_numeric', 'lc_time', \
    'standard_conforming_strings', 'backslash_quote', 'array_nulls', 'bytea_output', 'xmlbinary', 'xmloption', \
    'extra_float_digits', 'transform_null_equals', 'search_path', 'default_transaction_isolation', \
    'default_transaction_read_only', 'default_tablespace', 'default_table_access_method', \
    'default_toast_compression', 'default_with_oids', 'row_security', 'session_replication_role', \
    'shared_preload_libraries', 'session_preload_libraries', 'wal_level', 'max_connections', \
    'max_prepared_transactions', 'block_size', 'segment_size', 'data_checksums', 'integer_datetimes', \
    'max_identifier_length', 'max_index_keys', 'icu_validation_level') ORDER BY name COLLATE \"C\"";

const TABLESPACES: &str = "SELECT spcname AS name, pg_get_userbyid(spcowner) AS owner, \
    pg_tablespace_location(oid) AS location, spcoptions AS options FROM pg_tablespace \
    WHERE spcname !~ '^pg_' ORDER BY spcname COLLATE \"C\"";

fn tables() -> String {
    format!(
        "SELECT current_database() AS database, n.nspname AS schema, c.relname AS name, \
         CASE c.relkind WHEN 'r' THEN 'table' WHEN 'p' THEN 'partitioned table' WHEN 'v' THEN 'view' \
         WHEN 'm' THEN 'materialized view' ELSE 'foreign table' END AS kind, \
         CASE c.relpersistence WHEN 'u' THEN 'unlogged' WHEN 't' THEN 'temporary' ELSE 'permanent' END AS persistence, \
         pg_get_userbyid(c.relowner) AS owner, nullif(c.reltuples, -1)::bigint AS row_estimate, c.relpages AS pages, \
         c.relispopulated AS is_populated, c.relrowsecurity AS has_row_security, \
         has_table_privilege(c.oid, 'SELECT') AND has_schema_privilege(n.oid, 'USAGE') AS may_read, \
         (SELECT json_agg(json_build_object('schema', m.nspname, 'name', p.relname) ORDER BY i.inhseqno) \
         FROM pg_inherits i JOIN pg_class p ON p.oid = i.inhparent JOIN pg_namespace m ON m.oid = p.relnamespace \
         WHERE i.inhrelid = c.oid) AS parents, \
         c.relispartition AS is_partition, pg_get_expr(c.relpartbound, c.oid) AS partition_bound, \
         CASE c.relkind WHEN 'p' THEN pg_get_partkeydef(c.oid) END AS partition_key, \
         (SELECT s.srvname FROM pg_foreign_table f JOIN pg_foreign_server s ON s.oid = f.ftserver \
         WHERE f.ftrelid = c.oid) AS server, \
         (SELECT spcname FROM pg_tablespace WHERE oid = c.reltablespace) AS tablespace, \
         {OF_EXTENSION} AS extension \
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND {USER} \
         ORDER BY n.nspname COLLATE \"C\", c.relname COLLATE \"C\""
    )
}

/// The settings of databases, of roles and of both, one a row.
fn role_settings() -> String {
    let name = "split_part(line, '=', 1)";
    let value = "substr(line, strpos(line, '=') + 1)";
    format!(
        "SELECT (SELECT datname FROM pg_database d WHERE d.oid = s.setdatabase) AS database, \
         CASE WHEN s.setrole <> 0 THEN pg_get_userbyid(s.setrole) END AS role, {name} AS name, {} AS value \
         FROM pg_db_role_setting s, unnest(s.setconfig) line ORDER BY 1 NULLS FIRST, 2 NULLS FIRST, 3",
        secrets::visible(name, value)
    )
}

/// The memberships of roles before version 16.
const OLD_MEMBERSHIPS: &str = "SELECT DISTINCT format('GRANT %I TO %I%s;', pg_get_userbyid(m.roleid), \
    pg_get_userbyid(m.member), CASE WHEN m.admin_option THEN ' WITH ADMIN OPTION' END) FROM pg_auth_members m \
    WHERE pg_get_userbyid(m.member) !~ '^pg_' ORDER BY 1";

/// The memberships of roles since version 16. There is one for each grantor, and the grantor's own right must be granted
/// before it. The first superuser, whose name may differ elsewhere, has the right from the beginning.
const MEMBERSHIPS: &str = "WITH RECURSIVE granted AS ( \
    SELECT m.*, 0 AS step FROM pg_auth_members m WHERE m.grantor = 10 \
    UNION ALL SELECT m.*, g.step + 1 FROM pg_auth_members m JOIN granted g \
    ON g.roleid = m.roleid AND g.member = m.grantor AND g.admin_option WHERE g.step < 100 \
    ) SELECT format('GRANT %I TO %I WITH ADMIN %s, INHERIT %s, SET %s%s;', pg_get_userbyid(roleid), \
    pg_get_userbyid(member), upper(admin_option::text), upper(inherit_option::text), upper(set_option::text), \
    CASE WHEN grantor <> 10 THEN ' GRANTED BY ' || quote_ident(pg_get_userbyid(grantor)) END) \
    FROM (SELECT DISTINCT ON (oid) * FROM granted ORDER BY oid, step) AS granted \
    WHERE pg_get_userbyid(member) !~ '^pg_' ORDER BY step, 1";

/// The rights to set parameters, which exist since version 15.
const PARAMETERS: &str = "SELECT format('GRANT %s ON PARAMETER %s TO %s%s;', \
    string_agg(a.privilege_type, ', ' ORDER BY a.privilege_type), \
    (SELECT string_agg(quote_ident(part), '.') FROM unnest(string_to_array(p.parname, '.')) part), \
    CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END, \
    CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' END) \
    FROM pg_parameter_acl p, aclexplode(p.paracl) a WHERE a.grantee <> 10 \
    GROUP BY p.parname, a.grantee, a.is_grantable ORDER BY 1";

/// A question to a server, which may take several statements.
type Ask<'a, T> = &'a dyn Fn(&mut Connection) -> Result<T>;

/// Collects the lists over all databases, and what belongs to the server as a whole.
pub(super) fn collect(inner: &Inner, databases: &[String], kept: &mut Artifacts) -> Result<()> {
    let listed: [(&str, Ask<'_, Vec<String>>); 5] = [
        ("tables", &|connection| objects(connection, &tables())),
        ("sequences", &sequences),
        ("extensions", &|connection| objects(connection, EXTENSIONS)),
        ("subscriptions", &|connection| objects(connection, SUBSCRIPTIONS)),
        ("large-objects", &|connection| objects(connection, LARGE_OBJECTS)),
    ];
    for (kind, ask) in listed {
        let mut rows = Vec::new();
        let mut troubles = Vec::new();
        for database in databases {
            match patient(inner, database, ask)? {
                Ok(found) => rows.extend(found),
                Err(why) => troubles.push(format!("{}: {why}", one_line(database))),
            }
        }
        keep(kept, kind, rows, &troubles);
    }
    // Every database shows what belongs to the server; only the settings may differ between databases.
    let usual = databases.iter().find(|database| *database == "postgres");
    let Some(database) = usual.or(databases.first()) else { return Ok(()) };
    match patient(inner, database, &|connection| objects(connection, ROLES))? {
        Ok(rows) => keep(kept, "roles", rows, &[]),
        Err(why) => kept.ended("roles", ArtifactOutcome::Failed(why)),
    }
    for (kind, name, extension, ask) in [
        ("roles.sql", "roles", "sql", &roles_sql as Ask<'_, String>),
        ("databases.sql", "databases", "sql", &databases_sql),
        ("settings", "settings", "json", &settings),
    ] {
        let outcome = match patient(inner, database, ask)? {
            Ok(content) => {
                kept.file("", name, extension, content);
                ArtifactOutcome::Saved(String::new())
            }
            Err(why) => ArtifactOutcome::Failed(why),
        };
        kept.ended(kind, outcome);
    }
    Ok(())
}

fn keep(kept: &mut Artifacts, kind: &str, rows: Vec<String>, troubles: &[String]) {
    let outcome = match (rows.is_empty(), troubles.is_empty()) {
        (true, true) => ArtifactOutcome::None,
        (false, true) => ArtifactOutcome::Saved(String::new()),
        (_, false) => ArtifactOutcome::Failed(troubles.join("; ")),
    };
    if !rows.is_empty() {
        kept.file("", kind, "json", list(&rows) + "\n");
    }
    kept.ended(kind, outcome);
}

/// Asks on a new connection, and on another one if that breaks. The inner `Err` says why there is no answer.
fn patient<T>(inner: &Inner, database: &str, ask: Ask<'_, T>) -> Result<Result<T, String>> {
    let mut failed = None;
    for _ in 0..2 {
        match ask(&mut connect(inner, database)?) {
            Ok(found) => return Ok(Ok(found)),
            Err(error) if is_final(&error) => return Err(error),
            Err(error) => {
                let repeated = error.class() == Class::Fail;
                failed = Some(error.to_string());
                if repeated {
                    break;
                }
            }
        }
    }
    Ok(Err(failed.unwrap_or_default()))
}

/// A connection outside of the snapshot, which sees the present state.
fn connect(inner: &Inner, database: &str) -> Result<Connection> {
    let mut connection = Connection::open(&inner.server, database, inner.limits.idle_timeout)?;
    set_up(&mut connection, "SESSION")?;
    connection.query("SET lock_timeout = '30s'")?;
    Ok(connection)
}

/// The rows of a query as JSON objects.
fn objects(connection: &mut Connection, query: &str) -> Result<Vec<String>> {
    let rows = connection.query(&format!("SELECT to_json(r) FROM ({query}) AS r"))?;
    Ok(rows.iter().map(|row| text(row, 0)).collect())
}

fn list(rows: &[String]) -> String {
    if rows.is_empty() { "[]".to_owned() } else { format!("[\n{}\n]", rows.join(",\n")) }
}

fn sequences(connection: &mut Connection) -> Result<Vec<String>> {
    // The function fails for anything but a sequence.
    let readable = "CASE WHEN c.relkind = 'S' THEN has_sequence_privilege(c.oid, 'SELECT') \
        AND has_schema_privilege(n.oid, 'USAGE') END";
    let reads = connection.query(&format!(
        "SELECT string_agg(format('SELECT %s::oid, last_value, is_called FROM %I.%I', oid, nspname, relname), \
         ' UNION ALL ') FROM (SELECT row_number() OVER (ORDER BY c.oid) AS number, c.oid, n.nspname, c.relname \
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {readable} \
         AND {USER}) AS s GROUP BY (number - 1) / 100 ORDER BY 1"
    ))?;
    let mut values = Vec::new();
    for read in &reads {
        values.extend(connection.query(&text(read, 0))?);
    }
    let value =
        |row: &Row| format!("({}, {}, {})", text(row, 0), text(row, 1), truth(&text(row, 2)));
    let values: Vec<_> = values.iter().map(value).collect();
    let values = if values.is_empty() {
        "(NULL::oid, NULL::bigint, NULL::boolean)".to_owned()
    } else {
        values.join(", ")
    };
    objects(
        connection,
        &format!(
            "SELECT current_database() AS database, n.nspname AS schema, c.relname AS name, v.last_value, v.is_called, \
             {readable} AS may_read, format_type(s.seqtypid, NULL) AS type, s.seqstart AS start, \
             s.seqincrement AS increment, s.seqmin AS min, s.seqmax AS max, s.seqcache AS cache, s.seqcycle AS cycle, \
             pg_get_userbyid(c.relowner) AS owner, \
             (SELECT json_build_object('schema', m.nspname, 'table', t.relname, 'column', a.attname, \
             'identity', d.deptype = 'i') FROM pg_depend d JOIN pg_class t ON t.oid = d.refobjid \
             JOIN pg_namespace m ON m.oid = t.relnamespace \
             JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = d.refobjsubid \
             WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.refclassid = 'pg_class'::regclass \
             AND d.deptype IN ('a', 'i')) AS owned_by, {OF_EXTENSION} AS extension \
             FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_sequence s ON s.seqrelid = c.oid \
             LEFT JOIN (VALUES {values}) AS v (oid, last_value, is_called) ON v.oid = c.oid \
             WHERE {USER} ORDER BY n.nspname COLLATE \"C\", c.relname COLLATE \"C\""
        ),
    )
}

fn truth(text: &str) -> &'static str {
    if text == "t" { "true" } else { "false" }
}

fn settings(connection: &mut Connection) -> Result<String> {
    let mut parts = Vec::new();
    let of_roles = role_settings();
    for (name, query) in [
        ("server", SERVER),
        ("databases", DATABASES),
        ("of_databases_and_roles", &of_roles),
        ("tablespaces", TABLESPACES),
    ] {
        parts.push(format!("\"{name}\": {}", list(&objects(connection, query)?)));
    }
    let text = format!("{{\n{}\n}}\n", parts.join(",\n"));
    // The parts come from the server, which may not be trusted to write JSON.
    match serde_json::from_str::<serde_json::Value>(&text) {
        Ok(_) => Ok(text),
        Err(error) => Err(Error::fail(format!("the server's answer is not valid JSON: {error}"))),
    }
}

/// Statements that create the roles, without passwords. The system's own roles exist everywhere.
fn roles_sql(connection: &mut Connection) -> Result<String> {
    let version = connection.query("SHOW server_version_num")?;
    let version: u32 = version.first().and_then(|row| text(row, 0).parse().ok()).unwrap_or(0);
    let memberships = if version >= 160_000 { MEMBERSHIPS } else { OLD_MEMBERSHIPS };
    let parameters = if version >= 150_000 { PARAMETERS } else { "SELECT NULL WHERE false" };
    let on = |column: &str, word: &str| {
        format!("CASE WHEN {column} THEN ' {word}' ELSE ' NO{word}' END")
    };
    let attributes = [
        on("rolsuper", "SUPERUSER"),
        on("rolinherit", "INHERIT"),
        on("rolcreaterole", "CREATEROLE"),
        on("rolcreatedb", "CREATEDB"),
        on("rolcanlogin", "LOGIN"),
        on("rolreplication", "REPLICATION"),
        on("rolbypassrls", "BYPASSRLS"),
    ];
    let queries = [
        "SELECT format('CREATE ROLE %I;', rolname) FROM pg_roles WHERE rolname !~ '^pg_' \
         ORDER BY rolname COLLATE \"C\""
            .to_owned(),
        format!(
            "SELECT format('ALTER ROLE %I WITH%s CONNECTION LIMIT %s%s;', rolname, {}, rolconnlimit, \
             ' VALID UNTIL ' || quote_literal(rolvaliduntil)) FROM pg_roles WHERE rolname !~ '^pg_' \
             ORDER BY rolname COLLATE \"C\"",
            attributes.join(" || ")
        ),
        "SELECT format('COMMENT ON ROLE %I IS %L;', rolname, shobj_description(oid, 'pg_authid')) FROM pg_roles \
         WHERE rolname !~ '^pg_' AND shobj_description(oid, 'pg_authid') IS NOT NULL ORDER BY rolname COLLATE \"C\""
            .to_owned(),
        memberships.to_owned(),
        parameters.to_owned(),
        assignments("s.setrole <> 0 AND s.setdatabase = 0"),
    ];
    script(
        connection,
        "Roles, without their passwords. Where one exists already, ignore the error.",
        &queries,
    )
}

/// Statements that create the databases. The owners must exist before.
fn databases_sql(connection: &mut Connection) -> Result<String> {
    let own = "datname NOT IN ('template0', 'template1') AND datconnlimit <> -2";
    let queries = [
        format!(
            "SELECT format('CREATE DATABASE %I WITH TEMPLATE = template0 OWNER = %I ENCODING = %L LC_COLLATE = %L \
             LC_CTYPE = %L%s;', datname, pg_get_userbyid(datdba), pg_encoding_to_char(encoding), datcollate, datctype, \
             CASE to_jsonb(d)->>'datlocprovider' WHEN 'c' THEN ' LOCALE_PROVIDER = libc' \
             WHEN 'i' THEN ' LOCALE_PROVIDER = icu ICU_LOCALE = ' || \
             quote_literal(coalesce(to_jsonb(d)->>'datlocale', to_jsonb(d)->>'daticulocale')) || \
             coalesce(' ICU_RULES = ' || quote_literal(to_jsonb(d)->>'daticurules'), '') \
             WHEN 'b' THEN ' LOCALE_PROVIDER = builtin BUILTIN_LOCALE = ' || quote_literal(to_jsonb(d)->>'datlocale') END) \
             FROM pg_database d WHERE {own} AND datname <> 'postgres' ORDER BY datname COLLATE \"C\""
        ),
        format!(
            "SELECT format('COMMENT ON DATABASE %I IS %L;', datname, shobj_description(oid, 'pg_database')) \
             FROM pg_database WHERE {own} AND shobj_description(oid, 'pg_database') IS NOT NULL ORDER BY 1"
        ),
        format!(
            "SELECT format('REVOKE ALL ON DATABASE %I FROM PUBLIC;', datname) FROM pg_database \
             WHERE {own} AND datacl IS NOT NULL ORDER BY 1"
        ),
        format!(
            "SELECT format('GRANT %s ON DATABASE %I TO %s%s;', string_agg(a.privilege_type, ', '), datname, \
             CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END, \
             CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' END) FROM pg_database d, aclexplode(d.datacl) a \
             WHERE {own} AND a.grantee <> datdba GROUP BY datname, a.grantee, a.is_grantable ORDER BY 1"
        ),
        assignments("s.setdatabase <> 0"),
        format!(
            "SELECT format('ALTER DATABASE %I WITH%s%s CONNECTION LIMIT %s;', datname, \
             CASE WHEN datistemplate THEN ' IS_TEMPLATE true' END, \
             CASE WHEN NOT datallowconn THEN ' ALLOW_CONNECTIONS false' END, datconnlimit) FROM pg_database \
             WHERE {own} AND (datistemplate OR NOT datallowconn OR datconnlimit <> -1) ORDER BY 1"
        ),
    ];
    script(
        connection,
        "Databases, empty: the content of each is in ddl/. Load roles.sql first.",
        &queries,
    )
}

/// `ALTER … SET` for the settings in `pg_db_role_setting`. Lists of names are quoted name by name.
fn assignments(which: &str) -> String {
    let visible = secrets::visible("name", "value");
    format!(
        "SELECT CASE WHEN {visible} <> value \
         THEN translate(format('-- A secret is left out: ALTER %s SET %s', whose, name), E'\\r\\n', '  ') \
         ELSE format('ALTER %s SET %s TO %s;', whose, \
         (SELECT string_agg(quote_ident(part), '.') FROM unnest(string_to_array(name, '.')) part), \
         CASE WHEN name IN ('search_path', 'temp_tablespaces', 'local_preload_libraries', \
         'session_preload_libraries', 'shared_preload_libraries', 'unix_socket_directories') \
         THEN coalesce((SELECT string_agg(quote_literal(coalesce(replace(m[1], '\"\"', '\"'), m[2])), ', ') \
         FROM regexp_matches(value, '\"((?:[^\"]|\"\")*)\"|([^,\"\\s]+)', 'g') m), '''''') \
         ELSE quote_literal(value) END) END \
         FROM (SELECT split_part(line, '=', 1) AS name, substr(line, strpos(line, '=') + 1) AS value, \
         concat_ws(' IN ', 'ROLE ' || CASE WHEN s.setrole <> 0 THEN quote_ident(pg_get_userbyid(s.setrole)) END, \
         'DATABASE ' || quote_ident(d.datname)) AS whose FROM pg_db_role_setting s \
         LEFT JOIN pg_database d ON d.oid = s.setdatabase, unnest(s.setconfig) line WHERE {which} \
         AND (s.setdatabase = 0 OR d.oid IS NOT NULL)) AS settings ORDER BY whose, name"
    )
}

fn script(connection: &mut Connection, head: &str, queries: &[String]) -> Result<String> {
    let mut sql = format!(
        "-- {head}\n\nSET client_encoding = 'UTF8';\nSET standard_conforming_strings = on;\n"
    );
    for query in queries {
        sql.push('\n');
        for row in &connection.query(query)? {
            sql.push_str(&text(row, 0));
            sql.push('\n');
        }
    }
    Ok(sql)
}
