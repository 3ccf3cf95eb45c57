//! PostgreSQL, MySQL and MariaDB, of each version that is installed.

use std::fmt::Write as _;
use std::sync::OnceLock;

use crate::subject::{
    Ability, Address, Change, Login, NewTable, Record, Subject, Time, other, text,
};
use crate::support::mariadb::Flavour;
use crate::support::{Kind, Relational, server};
use chrono::DateTime;

/// The password of those who may not read everything.
const LIMITED: &str = "limited secret";

pub(crate) struct Server {
    kind: Kind,
    server: OnceLock<Relational>,
}

impl Server {
    pub(crate) fn new(kind: Kind) -> Self {
        Self { kind, server: OnceLock::new() }
    }

    fn running(&self) -> &Relational {
        self.server.get_or_init(|| self.kind.start().expect("it is installed"))
    }

    fn is_postgres(&self) -> bool {
        matches!(self.kind, Kind::Postgres(_))
    }

    fn sql(&self, database: &str, text: &str) -> String {
        self.running().sql(database, text)
    }

    fn quoted(&self, name: &str) -> String {
        match self.is_postgres() {
            true => format!("\"{}\"", name.replace('"', "\"\"")),
            false => format!("`{}`", name.replace('`', "``")),
        }
    }

    fn extreme_times(&self) -> &'static [&'static str] {
        match self.is_postgres() {
            true => &[
                "-infinity",
                "4713-01-01 00:00:00+00 BC",
                "294276-12-31 23:59:59.999999+00",
                "infinity",
            ],
            false => &["1000-01-01 00:00:00", "9999-12-31 23:59:59.999999"],
        }
    }

    fn time(&self, time: Time) -> String {
        match time {
            Time::Null => "NULL".to_owned(),
            Time::Extreme(number) => format!("'{}'", self.extreme_times()[number]),
            Time::At(time) => {
                let zone = if self.is_postgres() { "+00" } else { "" };
                let time = DateTime::from_timestamp_nanos(time).format("%Y-%m-%d %H:%M:%S%.6f");
                format!("'{time}{zone}'")
            }
        }
    }

    fn insert(&self, table: &NewTable<'_>, records: &[Record]) -> String {
        let mut sql = format!("INSERT INTO {} VALUES ", self.quoted(table.name));
        for (number, record) in records.iter().enumerate() {
            let comma = if number > 0 { ", " } else { "" };
            let (id, time) = (record.id, self.time(record.time));
            write!(sql, "{comma}({time}, {id}, '{}', '{}')", text(id), other(id)).unwrap();
        }
        sql + ";"
    }

    fn time_type(&self) -> &'static str {
        if self.is_postgres() { "timestamptz" } else { "DATETIME(6)" }
    }

    fn url_as(&self, user: &str, port: u16, database: &str) -> String {
        let scheme = if self.is_postgres() { "postgres" } else { "mysql" };
        format!("{scheme}://{user}@127.0.0.1:{port}/{database}")
    }

    fn address_as(&self, user: &str, secret: &str, port: u16, database: &str) -> Address {
        // PostgreSQL finds the index by itself.
        let more = if self.is_postgres() { "" } else { "time_columns = { \"*\" = \"at\" }" };
        let secret = |name| (name, secret.to_owned());
        Address {
            url: self.url_as(user, port, database),
            more: more.to_owned(),
            variables: vec![secret("PGPASSWORD"), secret("MYSQL_PWD")],
        }
    }
}

impl Subject for Server {
    fn name(&self) -> String {
        self.kind.name()
    }

    fn abilities(&self) -> &'static [Ability] {
        use Ability::{Bulk, Ddl, Grows, Network, NullTime, Rights};
        &[Network, NullTime, Grows, Ddl, Rights, Bulk]
    }

    fn precision(&self) -> i64 {
        1000
    }

    fn extremes(&self) -> usize {
        self.extreme_times().len()
    }

    fn port(&self) -> Option<u16> {
        Some(self.running().port())
    }

    fn create(&self, database: &str) {
        self.sql("", &format!("CREATE DATABASE {}", self.quoted(database)));
    }

    fn load(&self, database: &str, table: NewTable<'_>) {
        let (name, text) = (self.quoted(table.name), self.quoted(table.text));
        let time = self.time_type();
        let mut sql = format!(
            "CREATE TABLE {name} (at {time} NULL, id bigint, {text} text, other text);
             CREATE INDEX by_time{} ON {name} (at);",
            fastrand::u32(..)
        );
        for records in table.records.chunks(500) {
            sql += &self.insert(&table, records);
        }
        self.sql(database, &sql);
    }

    fn count(&self, database: &str, table: &str) -> Option<u64> {
        let sql = format!("SELECT count(*) FROM {}", self.quoted(table));
        self.sql(database, &sql).parse().ok()
    }

    fn address(&self, database: &str, port: Option<u16>) -> Address {
        let port = port.unwrap_or_else(|| self.running().port());
        self.address_as(server::USER, server::PASSWORD, port, database)
    }

    fn takes_name(&self, name: &str) -> bool {
        match self.kind {
            Kind::Postgres(_) => name.len() <= 63,
            Kind::MySql(_) => {
                name.chars().count() <= 64
                    && name.chars().all(|c| c <= '\u{ffff}')
                    && !name.ends_with(char::is_whitespace)
            }
        }
    }

    fn change(&self, database: &str, table: &str, change: Change) {
        let alter = |what: &str| format!("ALTER TABLE {table} {what}");
        let sql = match change {
            Change::AddColumn => alter("ADD COLUMN extra bigint DEFAULT 7"),
            Change::DropColumn => alter("DROP COLUMN other"),
            Change::RenameColumn => alter("RENAME COLUMN text TO old"),
            Change::GiveNameToAnother => format!(
                "BEGIN; {}; {}; COMMIT",
                alter("RENAME COLUMN text TO old"),
                alter("ADD COLUMN text text DEFAULT ('fresh')"),
            ),
            Change::SwapColumns if self.is_postgres() => format!(
                "BEGIN; {}; {}; {}; COMMIT",
                alter("RENAME COLUMN text TO between"),
                alter("RENAME COLUMN other TO text"),
                alter("RENAME COLUMN between TO other"),
            ),
            Change::SwapColumns => {
                alter("RENAME COLUMN text TO other, RENAME COLUMN other TO text")
            }
            Change::SwapTable if self.is_postgres() => format!(
                "BEGIN; ALTER TABLE {table} RENAME TO {table}_old;
                 ALTER TABLE {table}_shadow RENAME TO {table}; COMMIT"
            ),
            Change::SwapTable => {
                format!("RENAME TABLE {table} TO {table}_old, {table}_shadow TO {table}")
            }
            Change::Truncate => format!("TRUNCATE TABLE {table}"),
            Change::Drop => format!("DROP TABLE {table}"),
        };
        self.sql(database, &sql);
    }

    fn logins(&self, database: &str) -> Vec<Login> {
        let users = match self.kind {
            Kind::Postgres(_) => self.postgres_users(database),
            Kind::MySql(flavour) => self.mysql_users(database, flavour),
        };
        let port = self.running().port();
        users
            .into_iter()
            .map(|(user, what)| Login {
                what,
                address: self.address_as(user, LIMITED, port, database),
                // Such a user is not told which tables there are.
                warning: (!self.is_postgres()).then_some("nothing shows that they exist"),
            })
            .collect()
    }

    fn bulk(&self, database: &str, table: &str, rows: u32) {
        let sql = match self.kind {
            Kind::Postgres(_) => format!(
                "CREATE TABLE {table} AS SELECT '2024-01-01+00'::timestamptz + i * interval '1 second' AS at, i::bigint AS id,
                 'row ' || i AS text, repeat(md5(i::text), 5) AS other FROM generate_series(1, {rows}) i;
                 CREATE INDEX ON {table} (at)"
            ),
            Kind::MySql(_) => format!(
                "CREATE TABLE digits (d int); INSERT INTO digits VALUES (0), (1), (2), (3), (4), (5), (6), (7), (8), (9);
                 CREATE TABLE {table} (at datetime(6), id bigint, text text, other text, KEY (at));
                 INSERT INTO {table} SELECT '2024-01-01' + INTERVAL i SECOND, i, CONCAT('row ', i), REPEAT(SHA2(i, 256), 3)
                 FROM (SELECT 1 + a.d + 10 * b.d + 100 * c.d + 1000 * d.d + 10000 * e.d + 100000 * f.d AS i
                       FROM digits a, digits b, digits c, digits d, digits e, digits f) AS n WHERE i <= {rows};
                 DROP TABLE digits"
            ),
        };
        self.sql(database, &sql);
    }
}

impl Server {
    fn postgres_users(&self, database: &str) -> Vec<(&'static str, &'static str)> {
        let users = [
            ("p_table", "SELECT on the table"),
            ("p_schema", "USAGE on its schema"),
            ("p_column", "SELECT on one of its columns"),
            ("p_rows", "rows, by row-level security"),
            ("p_role", "SELECT, which a role has that is not inherited"),
        ];
        let mut sql = String::new();
        for (user, _) in users {
            write!(
                sql,
                "CREATE ROLE {user} LOGIN PASSWORD '{LIMITED}'; GRANT SELECT ON open TO {user};"
            )
            .unwrap();
        }
        sql += "GRANT SELECT (at, id, text) ON closed TO p_column;
                GRANT SELECT ON closed TO p_rows; ALTER TABLE closed ENABLE ROW LEVEL SECURITY;
                CREATE ROLE p_group; GRANT SELECT ON closed TO p_group; ALTER ROLE p_role NOINHERIT; GRANT p_group TO p_role;
                CREATE SCHEMA apart; ALTER TABLE closed SET SCHEMA apart; GRANT SELECT ON apart.closed TO p_schema;
                GRANT USAGE ON SCHEMA apart TO p_table, p_column, p_rows, p_role";
        self.sql(database, &sql);
        users.to_vec()
    }

    fn mysql_users(&self, database: &str, flavour: Flavour) -> Vec<(&'static str, &'static str)> {
        let mut users = vec![
            ("m_table", "SELECT on the table"),
            ("m_column", "SELECT on one of its columns"),
            ("m_role", "SELECT on one of its columns, by a role"),
        ];
        let all = format!("'@'127.0.0.1' IDENTIFIED BY '{LIMITED}'");
        let mut sql = String::new();
        for (user, _) in &users {
            write!(
                sql,
                "CREATE USER '{user}{all}; GRANT SELECT ON {database}.open TO {user}@'127.0.0.1';"
            )
            .unwrap();
        }
        write!(
            sql,
            "GRANT SELECT (at, id, text) ON {database}.closed TO m_column@'127.0.0.1';
             CREATE ROLE columns_of_closed; GRANT SELECT (at, id, text) ON {database}.closed TO columns_of_closed;
             GRANT columns_of_closed TO m_role@'127.0.0.1';"
        )
        .unwrap();
        sql += match flavour {
            Flavour::MySql => "SET DEFAULT ROLE ALL TO m_role@'127.0.0.1';",
            _ => "SET DEFAULT ROLE columns_of_closed FOR m_role@'127.0.0.1';",
        };
        if flavour == Flavour::MySql {
            // Not for others that are at work: the setting changes what REVOKE means, no rights.
            users.push(("m_revoked", "SELECT on the database, by a partial revoke"));
            write!(
                sql,
                "SET GLOBAL partial_revokes = ON; CREATE USER 'm_revoked{all}; GRANT SELECT ON *.* TO m_revoked@'127.0.0.1';
                 REVOKE SELECT ON {database}.* FROM m_revoked@'127.0.0.1'; GRANT SELECT ON {database}.open TO m_revoked@'127.0.0.1';"
            )
            .unwrap();
        }
        self.sql("", &sql);
        users
    }
}
