//! Snapshots of one moment on several connections. One moment is claimed only if the server shows something that is tied
//! to what a snapshot sees (the position in MariaDB's binary log, or InnoDB's list of transactions), or if a lock kept
//! all writers out. MySQL's binary log proves nothing, even if it stands still: a transaction is in the log before others
//! see it. Snapshots about which nothing is known get a name each.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::source::mysql::client::Client;
use crate::source::mysql::errors::CommandError;
use crate::window::{now, rfc3339};

/// How long to try for one moment while the server is being written to.
const PATIENCE: Duration = Duration::from_secs(3);
/// The seconds for which the lock is waited for before it is given up, since writers wait behind it.
const LOCK_WAIT: u32 = 10;
/// The seconds that `session` sets for all other statements.
pub(super) const USUAL_WAIT: u32 = 45;

/// What is known about snapshots that were taken together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proof {
    /// They see one moment.
    One,
    /// Nothing shows that they are: the server is being written to.
    Written,
    /// They belong to several servers behind one address.
    Servers,
    /// The user may not see what would prove it.
    Unseen,
}

/// Begins a transaction with a snapshot on each connection, and returns the snapshots' names. With `lock`, all writers
/// are kept out of the server meanwhile.
pub(super) fn take(
    clients: &mut [Client],
    lock: bool,
) -> Result<(Vec<String>, Proof), CommandError> {
    let servers = clients.iter_mut().map(server).collect::<Result<Vec<_>, _>>()?;
    let (names, proof) = if servers.windows(2).any(|pair| pair[0] != pair[1]) {
        begin(clients)?;
        (unproven(clients), Proof::Servers)
    } else if lock {
        locked(clients)?
    } else {
        let until = Instant::now() + PATIENCE;
        loop {
            let attempt = attempt(clients)?;
            if attempt.1 != Proof::Written || Instant::now() > until {
                break attempt;
            }
            // The pause is random, so that a writer at regular intervals does not spoil every attempt.
            thread::sleep(Duration::from_millis(fastrand::u64(2..30)));
        }
    };
    let names = servers.iter().zip(names).map(|(server, name)| format!("{server} {name}"));
    Ok((names.collect(), proof))
}

/// Takes the snapshots while nobody can commit.
fn locked(clients: &mut [Client]) -> Result<(Vec<String>, Proof), CommandError> {
    let Some(first) = clients.first_mut() else { return Ok((Vec::new(), Proof::One)) };
    // The wait is short: everybody who wants to write waits behind this lock.
    let lock = format!("SET SESSION lock_wait_timeout = {LOCK_WAIT}; FLUSH TABLES WITH READ LOCK");
    first.query(&lock).map_err(|fault| {
        // The connection may hold the lock in part, so it must not be used again.
        let error = Error::from(fault).context("keeping writers out for a moment (`lock = true`)");
        CommandError::Broken(error.hint(
            "the lock needs the privilege RELOAD, and waits for long-running statements: run again later, \
             or without `lock`",
        ))
    })?;
    let outcome = attempt(clients);
    let unlock = format!("UNLOCK TABLES; SET SESSION lock_wait_timeout = {USUAL_WAIT}");
    clients[0].query(&unlock)?;
    let (names, proof) = outcome?;
    Ok(match proof {
        Proof::One => (names, proof),
        _ => (vec![format!("locked {}", unique()); clients.len()], Proof::One),
    })
}

fn attempt(clients: &mut [Client]) -> Result<(Vec<String>, Proof), CommandError> {
    let count = clients.len();
    let Some(first) = clients.first_mut() else { return Ok((Vec::new(), Proof::One)) };
    let logs_all = first.is_mariadb && logs_all(first)?;
    let before = if logs_all { None } else { transactions(first)? };
    begin(clients)?;
    if logs_all {
        let places = clients.iter_mut().map(place).collect::<Result<Option<Vec<_>>, _>>()?;
        if let Some(places) = places {
            let one = places.windows(2).all(|pair| pair[0] == pair[1]);
            return Ok((places, if one { Proof::One } else { Proof::Written }));
        }
    }
    let Some(before) = before else {
        let proof = if count == 1 { Proof::One } else { Proof::Unseen };
        return Ok((unproven(clients), proof));
    };
    let first = &mut clients[0];
    let is_mariadb = first.is_mariadb;
    match transactions(first)?.filter(|after| before.proves(after, is_mariadb)) {
        Some(after) => Ok((vec![after.name(started(first)?); count], Proof::One)),
        None if count == 1 => Ok((unproven(clients), Proof::One)),
        None => Ok((unproven(clients), Proof::Written)),
    }
}

/// Begins all transactions at once, so that little can be written between the first and the last. Each has a savepoint,
/// since a return to it lets others alter the tables that have been read.
fn begin(clients: &mut [Client]) -> Result<(), CommandError> {
    for client in &mut *clients {
        // The server sends text as it is stored, without a conversion that could lose a byte.
        client.query(
            "SET character_set_results = NULL; SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",
        )?;
    }
    for client in &mut *clients {
        client.ask("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY; SAVEPOINT moveout")?;
    }
    // Every answer must be taken, even if another one is an error.
    let begun: Vec<_> = clients.iter_mut().map(|client| client.answer(|_| ())).collect();
    begun.into_iter().collect()
}

/// A name that no other snapshot has.
fn unique() -> String {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    format!("at {} ({})", rfc3339(now()), NUMBER.fetch_add(1, Ordering::Relaxed))
}

fn unproven(clients: &[Client]) -> Vec<String> {
    let name = |client: &Client| format!("not proven: connection {} {}", client.id, unique());
    clients.iter().map(name).collect()
}

/// The first row of the first of these statements that the server accepts and has a row for.
fn first_of(
    client: &mut Client,
    statements: &[&str],
) -> Result<Option<Vec<Option<String>>>, CommandError> {
    for sql in statements {
        match client.query(sql) {
            Ok(rows) if rows.is_empty() => {}
            Ok(rows) => return Ok(rows.into_iter().next()),
            Err(CommandError::Server(_)) => {} // no such statement, or no right to it
            Err(broken) => return Err(broken),
        }
    }
    Ok(None)
}

/// The id of this server, since an address may lead to several.
fn server(client: &mut Client) -> Result<String, CommandError> {
    let ways =
        ["SELECT @@server_uuid", "SELECT @@server_uid", "SELECT CONCAT(@@hostname, ':', @@port)"];
    let row = first_of(client, &ways)?;
    Ok(row.into_iter().flatten().flatten().next().unwrap_or_default())
}

/// When the server was started. It is part of a snapshot's name, since numbers of transactions may recur after a crash.
fn started(client: &mut Client) -> Result<String, CommandError> {
    let ways = ["performance_schema", "information_schema"].map(|schema| {
        format!(
            "SELECT UNIX_TIMESTAMP() - VARIABLE_VALUE FROM {schema}.GLOBAL_STATUS WHERE VARIABLE_NAME = 'Uptime'"
        )
    });
    // Both numbers are of the second in which the statement began, so that their difference is always the same. The first
    // table is empty where `performance_schema` is off, which is usual for MariaDB. MySQL's table names can be case-sensitive.
    let lower = ways[0].replace("GLOBAL_STATUS", "global_status");
    let row = first_of(client, &[&lower, &ways[1]])?;
    Ok(row.into_iter().flatten().flatten().next().unwrap_or_else(unique))
}

/// What InnoDB says about the transactions that write.
#[derive(Debug, PartialEq, Eq)]
struct Transactions {
    /// The number that the next transaction gets.
    next: String,
    /// The numbers of the transactions that have not ended.
    active: Vec<String>,
}

impl Transactions {
    /// Whether snapshots saw the same from `self` to `after`: no transaction got a number, so that none began, and those
    /// that were active still are. MySQL removes a transaction from the list in the same step in which others begin to
    /// see it. MariaDB removes it later, so that there none may have been active.
    fn proves(&self, after: &Self, is_mariadb: bool) -> bool {
        self == after && (self.active.is_empty() || !is_mariadb)
    }

    fn name(&self, started: String) -> String {
        let without = match self.active.as_slice() {
            [] => String::new(),
            active => format!(" without {}", active.join(",")),
        };
        format!("since {started} to transaction {}{without}", self.next)
    }

    /// Reads the text of `SHOW ENGINE INNODB STATUS`; `None` if the server has truncated it.
    fn read(status: &str) -> Option<Self> {
        let mut next = None;
        let mut active = Vec::new();
        for line in status.lines() {
            if line.contains("truncated...") {
                return None;
            } else if let Some(rest) = line.strip_prefix("Trx id counter ") {
                next = rest.split_whitespace().next().map(str::to_owned);
            } else if let Some(rest) = line.strip_prefix("---TRANSACTION ") {
                // A transaction that has not written shows an address in parentheses instead of a number.
                let (number, state) = rest.split_once(',')?;
                if !number.starts_with('(') && state.trim() != "not started" {
                    active.push(number.to_owned());
                }
            }
        }
        active.sort_unstable();
        Some(Self { next: next?, active })
    }
}

fn transactions(client: &mut Client) -> Result<Option<Transactions>, CommandError> {
    let row = first_of(client, &["SHOW ENGINE INNODB STATUS"])?;
    let status = row.and_then(|row| row.into_iter().nth(2).flatten());
    Ok(status.and_then(|status| Transactions::read(&status)))
}

/// Whether everything that is written to a MariaDB is in its binary log. Filters may keep databases out of it, and a
/// replica or a node of a cluster may not log what it gets from others. If the user may not ask, the answer is no.
fn logs_all(client: &mut Client) -> Result<bool, CommandError> {
    let Some(log) = first_of(client, &["SHOW MASTER STATUS"])? else { return Ok(false) };
    let text = |at: usize| log.get(at).cloned().flatten().unwrap_or_default();
    if text(0).is_empty() || !text(2).is_empty() || !text(3).is_empty() {
        return Ok(false);
    }
    if first_of(client, &["SELECT @@log_slave_updates"])? == Some(vec![Some("1".to_owned())]) {
        return Ok(true);
    }
    let others = client.query(
        "SHOW GLOBAL STATUS WHERE Variable_name IN ('Slaves_running', 'wsrep_cluster_size')",
    )?;
    let none = |row: &Vec<Option<String>>| matches!(row.last(), Some(Some(value)) if value == "0");
    // An answer without both values is not a "no".
    Ok(others.len() == 2 && others.iter().all(none))
}

/// The position of MariaDB's snapshot in its binary log, which MariaDB takes in one step.
fn place(client: &mut Client) -> Result<Option<String>, CommandError> {
    let rows = client.query(
        "SHOW STATUS WHERE Variable_name IN ('Binlog_snapshot_file', 'Binlog_snapshot_position')",
    )?;
    let values: Option<Vec<_>> =
        rows.into_iter().map(|row| row.into_iter().nth(1).flatten()).collect();
    let values = values.unwrap_or_default();
    let known = values.len() == 2 && values.iter().all(|value| !value.is_empty());
    Ok(known.then(|| values.join(":")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "\n=====\nTRANSACTIONS\n------------\nTrx id counter 2767\n\
        Purge done for trx's n:o < 2760 undo n:o < 0 state: running but idle\n\
        LIST OF TRANSACTIONS FOR EACH SESSION:\n\
        ---TRANSACTION 375300535160816, not started\n0 lock struct(s), heap size 1128, 0 row lock(s)\n\
        ---TRANSACTION (0x7f2d1c0016d8), ACTIVE 0 sec\n0 lock struct(s)\n\
        ---TRANSACTION 2766, ACTIVE (PREPARED) 0 sec\n2 lock struct(s)\n--------\nFILE I/O\n";

    #[test]
    fn only_the_same_transactions_prove_one_moment() {
        let read = |text: &str| Transactions::read(text).unwrap();
        let before = read(STATUS);
        assert_eq!(before, Transactions { next: "2767".into(), active: vec!["2766".into()] });
        assert!(before.proves(&read(STATUS), false));
        assert!(!before.proves(&read(STATUS), true));
        let idle = read(&STATUS.replace("2766, ACTIVE (PREPARED) 0 sec", "2766, not started"));
        assert!(!before.proves(&idle, false) && idle.proves(&idle, true));
        assert!(!before.proves(&read(&STATUS.replace("2767", "2768")), false));
        assert_eq!(Transactions::read(&STATUS.replace("FILE I/O", "... truncated...\n")), None);
        assert_eq!(Transactions::read("no such thing"), None);
    }
}
