//! One moment for several connections. It is claimed only where the server ties what a snapshot sees to something that
//! it shows: the place in MariaDB's binary log, or InnoDB's own list of transactions; or where a lock kept all writers
//! out. That MySQL's binary log stands still proves nothing: a transaction is in the log before others see it. A moment
//! of which nothing is known gets a name of its own.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::source::mysql::client::Client;
use crate::source::mysql::errors::Fault;
use crate::window::{now, rfc3339};

/// For how long to try for one moment, where the server is being written to.
const PATIENCE: Duration = Duration::from_secs(3);
/// For how many seconds writers may have to wait for the lock, before it is given up.
const LOCK_WAIT: u32 = 10;
/// What `session` sets, in seconds.
pub(super) const USUAL_WAIT: u32 = 45;

/// What is known of the snapshots that were taken together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proof {
    /// They are of one moment.
    One,
    /// Nothing shows that they are: the server is being written to.
    Written,
    /// They are of several servers behind one address.
    Servers,
    /// The user may not see what would prove it.
    Unseen,
}

/// Begins a transaction with a snapshot on each connection. Returns the name of what each sees. `lock` keeps
/// all writers of the server out meanwhile.
pub(super) fn take(clients: &mut [Client], lock: bool) -> Result<(Vec<String>, Proof), Fault> {
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
            // A writer that comes at equal intervals shall not be met each time.
            thread::sleep(Duration::from_millis(fastrand::u64(2..30)));
        }
    };
    let names = servers.iter().zip(names).map(|(server, name)| format!("{server} {name}"));
    Ok((names.collect(), proof))
}

/// While nobody can commit.
fn locked(clients: &mut [Client]) -> Result<(Vec<String>, Proof), Fault> {
    let Some(first) = clients.first_mut() else { return Ok((Vec::new(), Proof::One)) };
    // Not for long: whoever wants to write waits behind this.
    let lock = format!("SET SESSION lock_wait_timeout = {LOCK_WAIT}; FLUSH TABLES WITH READ LOCK");
    first.query(&lock).map_err(|fault| {
        // The connection may have a part of it.
        let error = Error::from(fault).context("keeping writers out for one moment (`lock = true`)");
        Fault::Broken(error.hint(
            "the lock needs the right RELOAD, and waits for statements that run for long: run again later, \
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

fn attempt(clients: &mut [Client]) -> Result<(Vec<String>, Proof), Fault> {
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

/// All at once, so that as little as can be is written between the first and the last. Tables that are done
/// with can be altered by others after a return to the savepoint.
fn begin(clients: &mut [Client]) -> Result<(), Fault> {
    for client in &mut *clients {
        // Results as they are stored, with no conversion that could lose a byte.
        client.query(
            "SET character_set_results = NULL; SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",
        )?;
    }
    for client in &mut *clients {
        client.ask("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY; SAVEPOINT moveout")?;
    }
    // Each answer must be taken, also where another is an error.
    let begun: Vec<_> = clients.iter_mut().map(|client| client.answer(|_| ())).collect();
    begun.into_iter().collect()
}

/// A name that no other moment has.
fn unique() -> String {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    format!("at {} ({})", rfc3339(now()), NUMBER.fetch_add(1, Ordering::Relaxed))
}

fn unproven(clients: &[Client]) -> Vec<String> {
    let name = |client: &Client| format!("not proven: connection {} {}", client.id, unique());
    clients.iter().map(name).collect()
}

/// The first of these statements that the server takes.
fn first_of(
    client: &mut Client,
    statements: &[&str],
) -> Result<Option<Vec<Option<String>>>, Fault> {
    for sql in statements {
        match client.query(sql) {
            Ok(rows) => return Ok(rows.into_iter().next()),
            Err(Fault::Server(_)) => {} // no such statement, or no right to it
            Err(broken) => return Err(broken),
        }
    }
    Ok(None)
}

/// Which server this is: an address may lead to several.
fn server(client: &mut Client) -> Result<String, Fault> {
    let ways =
        ["SELECT @@server_uuid", "SELECT @@server_uid", "SELECT CONCAT(@@hostname, ':', @@port)"];
    let row = first_of(client, &ways)?;
    Ok(row.into_iter().flatten().flatten().next().unwrap_or_default())
}

/// When the server was started: after a crash it may count from an earlier number on.
fn started(client: &mut Client) -> Result<String, Fault> {
    let ways = ["performance_schema", "information_schema"].map(|schema| {
        format!(
            "SELECT UNIX_TIMESTAMP() - VARIABLE_VALUE FROM {schema}.GLOBAL_STATUS WHERE VARIABLE_NAME = 'Uptime'"
        )
    });
    // MySQL's names of tables can be case sensitive.
    let lower = ways[0].replace("GLOBAL_STATUS", "global_status");
    let row = first_of(client, &[&lower, &ways[1]])?;
    Ok(row.into_iter().flatten().flatten().next().unwrap_or_else(unique))
}

/// What InnoDB says of the transactions that write.
#[derive(Debug, PartialEq, Eq)]
struct Transactions {
    /// The number that the next one gets.
    next: String,
    /// Those that have one and are not done.
    active: Vec<String>,
}

impl Transactions {
    /// Whether what snapshots see was the same from `self` to `after`: none got a number, so that none began,
    /// and those that were active still are. MySQL takes a transaction from the list in the same step in which
    /// others begin to see it; MariaDB later, so that there must be none.
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

    /// From the text of `SHOW ENGINE INNODB STATUS`; `None` where it is not all there.
    fn read(status: &str) -> Option<Self> {
        let mut next = None;
        let mut active = Vec::new();
        for line in status.lines() {
            if line.contains("truncated...") {
                return None;
            } else if let Some(rest) = line.strip_prefix("Trx id counter ") {
                next = rest.split_whitespace().next().map(str::to_owned);
            } else if let Some(rest) = line.strip_prefix("---TRANSACTION ") {
                // What has not written has the address of something for a number.
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

fn transactions(client: &mut Client) -> Result<Option<Transactions>, Fault> {
    let row = first_of(client, &["SHOW ENGINE INNODB STATUS"])?;
    let status = row.and_then(|row| row.into_iter().nth(2).flatten());
    Ok(status.and_then(|status| Transactions::read(&status)))
}

/// Whether all that is written to a MariaDB stands in its binary log: what a replica or a node of a cluster
/// gets from others may not, and filters may keep some databases out. Who may not ask cannot tell.
fn logs_all(client: &mut Client) -> Result<bool, Fault> {
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
    // An empty answer is not a "no".
    Ok(others.len() == 2 && others.iter().all(none))
}

/// Where in its binary log MariaDB's snapshot is: it takes the two in one step.
fn place(client: &mut Client) -> Result<Option<String>, Fault> {
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
