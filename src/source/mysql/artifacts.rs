//! What a database has besides rows: the statements that create it, as a script for the `mysql` client; the accounts and
//! their rights, without secrets; and the settings that decide what values mean.

use std::collections::HashSet;
use std::fmt::Write;

use serde_json::{Map, Value};

use crate::config::Select;
use crate::model::{ArtifactOutcome, Artifacts};
use crate::source::mysql::catalog::databases;
use crate::source::mysql::client::{Client, TextRow};
use crate::source::mysql::errors::CommandError;
use crate::source::mysql::select::{literal, quoted};
use crate::text::escaped;

/// A kind of object of a database.
struct ArtifactKind {
    /// Its name in the outcome.
    name: &'static str,
    /// The word that follows `SHOW CREATE`.
    word: &'static str,
    /// The query that lists their names, without its SELECT; a comparison with the database's name completes it.
    list: &'static str,
    /// Whether its statement contains others, each of which ends with a semicolon.
    is_program: bool,
    mariadb_only: bool,
}

impl ArtifactKind {
    const fn new(name: &'static str, word: &'static str, list: &'static str) -> Self {
        Self { name, word, list, is_program: false, mariadb_only: false }
    }

    const fn program(self) -> Self {
        Self { is_program: true, ..self }
    }

    const fn mariadb_only(self) -> Self {
        Self { mariadb_only: true, ..self }
    }
}

/// In the order in which they can be created again: an object comes after those that it depends on.
const KINDS: [ArtifactKind; 9] = [
    ArtifactKind::new(
        "sequences",
        "SEQUENCE",
        "TABLE_NAME FROM information_schema.TABLES WHERE TABLE_TYPE = 'SEQUENCE' AND TABLE_SCHEMA",
    )
    .mariadb_only(),
    ArtifactKind::new(
        "tables",
        "TABLE",
        "TABLE_NAME FROM information_schema.TABLES
         WHERE TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED') AND TABLE_SCHEMA",
    ),
    ArtifactKind::new(
        "functions",
        "FUNCTION",
        "ROUTINE_NAME FROM information_schema.ROUTINES
         WHERE ROUTINE_TYPE = 'FUNCTION' AND ROUTINE_SCHEMA",
    )
    .program(),
    ArtifactKind::new(
        "procedures",
        "PROCEDURE",
        "ROUTINE_NAME FROM information_schema.ROUTINES
         WHERE ROUTINE_TYPE = 'PROCEDURE' AND ROUTINE_SCHEMA",
    )
    .program(),
    ArtifactKind::new(
        "packages",
        "PACKAGE",
        "ROUTINE_NAME FROM information_schema.ROUTINES
         WHERE ROUTINE_TYPE = 'PACKAGE' AND ROUTINE_SCHEMA",
    )
    .program()
    .mariadb_only(),
    ArtifactKind::new(
        "package-bodies",
        "PACKAGE BODY",
        "ROUTINE_NAME FROM information_schema.ROUTINES
         WHERE ROUTINE_TYPE = 'PACKAGE BODY' AND ROUTINE_SCHEMA",
    )
    .program()
    .mariadb_only(),
    ArtifactKind::new(
        "views",
        "VIEW",
        "TABLE_NAME FROM information_schema.TABLES WHERE TABLE_TYPE = 'VIEW' AND TABLE_SCHEMA",
    ),
    ArtifactKind::new(
        "triggers",
        "TRIGGER",
        "TRIGGER_NAME FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA",
    )
    .program(),
    ArtifactKind::new(
        "events",
        "EVENT",
        "EVENT_NAME FROM information_schema.EVENTS WHERE EVENT_SCHEMA",
    )
    .program(),
];

/// How many objects of a kind were saved, and which were not.
#[derive(Default)]
struct Tally {
    saved: usize,
    failed: Vec<String>,
}

impl Tally {
    fn outcome(&self) -> ArtifactOutcome {
        match (self.saved, self.failed.as_slice()) {
            (0, []) => ArtifactOutcome::None,
            (_, []) => ArtifactOutcome::Saved(String::new()),
            (_, failed) => ArtifactOutcome::Failed(failed.join("; ")),
        }
    }
}

/// Asks for the objects of each kind. What the server does not show is reported, and does not end the collection.
pub(super) fn collect(
    client: &mut Client,
    source: &str,
    select: &Select,
) -> Result<Artifacts, CommandError> {
    let catalog = databases(client, select)?;
    let kinds: Vec<&ArtifactKind> =
        KINDS.iter().filter(|kind| client.is_mariadb || !kind.mariadb_only).collect();
    let mut tallies: Vec<Tally> = kinds.iter().map(|_| Tally::default()).collect();
    let mut artifacts = Artifacts::of(source);
    for database in &catalog.databases {
        let mut script = String::from(
            "-- Written by moveout for the `mysql` client. Load it with a user that may create all of this.\n\
             SET NAMES utf8mb4;\nSET time_zone = '+00:00';\nSET foreign_key_checks = 0;\n\n",
        );
        let create = format!("SHOW CREATE DATABASE IF NOT EXISTS {}", quoted(database));
        for Statement { sql, .. } in show(client, &[create])?.into_iter().flatten() {
            let _ = writeln!(script, "{sql};"); // writing to memory cannot fail
        }
        let in_database = format!("USE {}", quoted(database));
        // Within its database, the names in a view have none before them, so that it can be made in another one, too.
        client.query(&in_database)?;
        let _ = writeln!(script, "{in_database};\n");
        for (kind, tally) in kinds.iter().zip(&mut tallies) {
            of_kind(client, database, kind, tally, &mut script)?;
        }
        artifacts.file("ddl", database, "sql", script);
    }
    for (kind, tally) in kinds.iter().zip(&tallies) {
        artifacts.ended(kind.name, tally.outcome());
    }
    let mut add = |kind: &str, extension, content: Result<String, String>| {
        let outcome = match content {
            Ok(content) => {
                artifacts.file("", kind, extension, content);
                ArtifactOutcome::Saved(String::new())
            }
            Err(why) => ArtifactOutcome::NotAvailable(why),
        };
        artifacts.ended(kind, outcome);
    };
    add("users", "sql", Ok(users(client)?));
    add("variables", "json", variables(client)?);
    Ok(artifacts)
}

/// Masks the passwords in the addresses of FEDERATED tables: `mysql://USER:PASSWORD@HOST/…`.
fn without_passwords(sql: &str) -> String {
    let mut safe = String::new();
    let mut rest = sql;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        safe.push_str(before);
        rest = after;
        let end = after.find(['\'', '"', ' ', '\n']).unwrap_or(after.len());
        if let Some(host) = after[..end].rfind('@')
            && let Some(colon) = after[..host].find(':')
        {
            safe.push_str(&after[..=colon]);
            safe.push_str("***");
            rest = &after[host..];
        }
    }
    safe + rest
}

fn of_kind(
    client: &mut Client,
    database: &str,
    kind: &ArtifactKind,
    tally: &mut Tally,
    script: &mut String,
) -> Result<(), CommandError> {
    let list = format!("SELECT {} = BINARY {} ORDER BY 1", kind.list, literal(database));
    let names = match client.query(&list) {
        Ok(names) => names.into_iter().flatten().flatten().collect::<Vec<_>>(),
        Err(CommandError::Server(error)) => {
            tally.failed.push(format!("{}: {error}", escaped(database)));
            return Ok(());
        }
        Err(broken) => return Err(broken),
    };
    let whole = match kind.word {
        "VIEW" => stand_ins(client, database, script)?,
        _ => HashSet::new(),
    };
    let full = |name: &String| format!("{}.{}", quoted(database), quoted(name));
    let asked: Vec<String> =
        names.iter().map(|name| format!("SHOW CREATE {} {}", kind.word, full(name))).collect();
    for (name, shown) in names.iter().zip(show(client, &asked)?) {
        let Statement { mode, zone, sql } = match shown {
            Ok(shown) => shown,
            Err(why) => {
                let why = why.replace('\n', " ");
                let _ =
                    writeln!(script, "-- {} {} cannot be shown: {why}\n", kind.word, full(name));
                let name = format!("{database}.{name}");
                tally.failed.push(format!("{}: {why}", escaped(&name)));
                continue;
            }
        };
        tally.saved += 1;
        let sql = without_passwords(&sql);
        let sql = match kind.word {
            "VIEW" if !whole.contains(name) => {
                let sql = sql.replace('\n', "\n-- ");
                let _ = writeln!(script, "-- What this view reads does not exist:\n-- {sql};\n");
                continue;
            }
            "VIEW" => sql.replacen("CREATE ", "CREATE OR REPLACE ", 1),
            _ => sql,
        };
        // The meaning of a program depends on the SQL mode in which it was created.
        let _ = writeln!(script, "SET sql_mode = {};", literal(&mode));
        // An event's times are those of its own zone.
        if let Some(zone) = &zone {
            let _ = writeln!(script, "SET time_zone = {};", literal(zone));
        }
        let _ = if kind.is_program {
            writeln!(script, "DELIMITER ;;\n{sql};;\nDELIMITER ;\n")
        } else {
            writeln!(script, "{sql};\n")
        };
        if kind.word == "SEQUENCE" {
            let next = format!("SELECT next_not_cached_value FROM {}", full(name));
            if let Some(next) = client.value(&next)? {
                let _ = writeln!(script, "DO SETVAL({}, {next}, 0);\n", quoted(name));
            }
        }
    }
    Ok(())
}

/// Writes a stand-in with the same columns for each view, since a view may read another that is created after it.
/// Returns the names of the views that have columns: a view that has lost its table has none.
fn stand_ins(
    client: &mut Client,
    database: &str,
    script: &mut String,
) -> Result<HashSet<String>, CommandError> {
    let mut whole = HashSet::new();
    let columns = client.query(&format!(
        "SELECT TABLE_NAME, COLUMN_NAME FROM information_schema.VIEWS
         JOIN information_schema.COLUMNS USING (TABLE_SCHEMA, TABLE_NAME)
         WHERE TABLE_SCHEMA = BINARY {} ORDER BY TABLE_NAME, ORDINAL_POSITION",
        literal(database)
    ))?;
    let of_view = |a: &TextRow, b: &TextRow| a.first() == b.first();
    for columns in columns.chunk_by(of_view) {
        let name = columns.first().and_then(|row| row.first()?.as_ref());
        let names = columns.iter().filter_map(|row| row.get(1)?.as_ref());
        let names: Vec<String> = names.map(|name| format!("1 AS {}", quoted(name))).collect();
        if let Some(name) = name {
            let _ =
                writeln!(script, "CREATE VIEW {} AS SELECT {};", quoted(name), names.join(", "));
            whole.insert(name.clone());
        }
    }
    Ok(whole)
}

/// What `SHOW CREATE …` gives.
struct Statement {
    mode: String,
    /// Events alone have one.
    zone: Option<String>,
    sql: String,
}

/// The same, or the server's error.
type Shown = Result<Statement, String>;

/// Sends many statements at once, since each round trip may take long.
fn show(client: &mut Client, statements: &[String]) -> Result<Vec<Shown>, CommandError> {
    const AT_ONCE: usize = 100;
    let mut shown = Vec::with_capacity(statements.len());
    while shown.len() < statements.len() {
        let left = &statements[shown.len()..];
        let outcome = client.query_each(&left[..left.len().min(AT_ONCE)].join(";"), |row| {
            let text =
                |value: &Option<&[u8]>| value.map(|v| String::from_utf8_lossy(v).into_owned());
            shown.push(statement(row.iter().map(text).collect()));
        });
        match outcome {
            Ok(()) => {}
            // The statements before the refused one have been answered; those after it have not been run.
            Err(CommandError::Server(error)) => shown.push(Err(error.to_string())),
            Err(broken) => return Err(broken),
        }
    }
    Ok(shown)
}

/// A row has the name and the statement; between them, a program has its SQL mode, and an event its time zone as well.
fn statement(row: TextRow) -> Shown {
    let values = row.into_iter().skip(1).take(3).map(Option::unwrap_or_default);
    let mut values: Vec<String> = values.collect();
    match values.iter().position(|text| text.starts_with("CREATE ")) {
        Some(at) => {
            let sql = values.swap_remove(at);
            values.truncate(at);
            let mut before = values.into_iter();
            Ok(Statement { mode: before.next().unwrap_or_default(), zone: before.next(), sql })
        }
        None => Err("the user has no right to see its statement".to_owned()),
    }
}

/// Accounts and their rights, without passwords.
fn users(client: &mut Client) -> Result<String, CommandError> {
    let mut script = String::from("-- Users and their rights, without passwords.\n");
    let all = client.query("SELECT User, Host FROM mysql.user ORDER BY User, Host");
    let (accounts, whole) = match all {
        Ok(rows) => (rows, true),
        Err(CommandError::Server(_)) => (vec![vec![None, None]], false),
        Err(broken) => return Err(broken),
    };
    if !whole {
        script.push_str(
            "-- Only those of the user that moveout ran as: it may not see the others.\n",
        );
    }
    for account in accounts {
        let sql = match account.as_slice() {
            // A role has no host.
            [Some(role), Some(host)] if host.is_empty() => {
                format!("SHOW GRANTS FOR {}", quoted(role))
            }
            [Some(user), Some(host)] => {
                format!("SHOW GRANTS FOR {}@{}", literal(user), literal(host))
            }
            _ => "SHOW GRANTS".to_owned(),
        };
        let _ = match client.query(&sql) {
            Ok(grants) => grants
                .into_iter()
                .flatten()
                .flatten()
                .try_for_each(|grant| writeln!(script, "{};", without_secrets(&grant))),
            Err(CommandError::Server(error)) => writeln!(script, "-- {sql}: {error}"),
            Err(broken) => return Err(broken),
        };
    }
    Ok(script)
}

/// Removes `IDENTIFIED …` from a grant, up to the next clause.
fn without_secrets(grant: &str) -> String {
    let Some(start) = grant.find(" IDENTIFIED ") else { return grant.to_owned() };
    // From there on, quotes enclose only passwords and the names of certificates.
    let ends = [" REQUIRE ", " WITH ", " PASSWORD EXPIRE", " ACCOUNT "];
    let mut in_quotes = false;
    let end = grant.char_indices().skip_while(|(at, _)| *at < start).find(|(at, char)| {
        if *char == '\'' {
            in_quotes = !in_quotes;
        }
        !in_quotes && *at > start && ends.iter().any(|end| grant[*at..].starts_with(end))
    });
    let rest = end.map_or("", |(at, _)| &grant[at..]);
    format!("{}{rest}", &grant[..start])
}

/// The settings that decide what values mean, or the error of a server that does not show them.
fn variables(client: &mut Client) -> Result<Result<String, String>, CommandError> {
    let names = [
        "version",
        "version_comment",
        "sql_mode",
        "character_set_server",
        "character_set_database",
        "collation_server",
        "collation_database",
        "time_zone",
        "system_time_zone",
        "lower_case_table_names",
        "explicit_defaults_for_timestamp",
        "default_storage_engine",
        "innodb_file_format",
        "innodb_page_size",
        "max_allowed_packet",
        "event_scheduler",
    ];
    let names: Vec<String> = names.iter().map(|name| literal(name)).collect();
    let sql = format!("SHOW GLOBAL VARIABLES WHERE Variable_name IN ({})", names.join(","));
    let rows: Vec<TextRow> = match client.query(&sql) {
        Ok(rows) => rows,
        Err(CommandError::Server(error)) => return Ok(Err(error.to_string())),
        Err(broken) => return Err(broken),
    };
    let pair = |row: TextRow| {
        let [name, value] = <[_; 2]>::try_from(row).ok()?;
        Some((name?, value.map_or(Value::Null, Value::String)))
    };
    let all: Map<String, Value> = rows.into_iter().filter_map(pair).collect();
    Ok(serde_json::to_string_pretty(&all).map_err(|error| error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_lose_their_passwords() {
        for (grant, expected) in [
            ("GRANT SELECT ON `a`.* TO `b`@`%`", "GRANT SELECT ON `a`.* TO `b`@`%`"),
            (
                "GRANT USAGE ON *.* TO `b`@`%` IDENTIFIED BY PASSWORD '*0123' REQUIRE SSL WITH GRANT OPTION",
                "GRANT USAGE ON *.* TO `b`@`%` REQUIRE SSL WITH GRANT OPTION",
            ),
            (
                "GRANT USAGE ON *.* TO 'b'@'%' IDENTIFIED VIA ed25519 USING ' WITH x' OR unix_socket WITH GRANT OPTION",
                "GRANT USAGE ON *.* TO 'b'@'%' WITH GRANT OPTION",
            ),
            (
                "GRANT USAGE ON *.* TO 'b'@'%' IDENTIFIED BY '<secret>'",
                "GRANT USAGE ON *.* TO 'b'@'%'",
            ),
        ] {
            assert_eq!(without_secrets(grant), expected);
        }
    }

    #[test]
    fn an_address_keeps_all_but_its_password() {
        let sql = "CONNECTION='mysql://me:s:e@cret@h:3306/d/t' COMMENT='see http://x/y and z@w'";
        let safe = "CONNECTION='mysql://me:***@h:3306/d/t' COMMENT='see http://x/y and z@w'";
        assert_eq!(without_passwords(sql), safe);
    }
}
