//! One moment for several connections, without a lock: where the log of the server says that nothing was
//! written between the first snapshot and the last, they are of one moment. The name of a moment is what the
//! log says of it; a moment that nothing is known of has a name that no other has.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use super::client::Client;
use super::status::Fault;
use crate::window::{now, rfc3339};

/// How often to try for one moment, where the server is being written to.
const TRIES: u32 = 10;
/// A commit stands in the log before others see it; after this they do.
const SETTLED: Duration = Duration::from_millis(50);

/// What is known of the snapshots that were taken together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proof {
    /// They are of one moment.
    One,
    /// They are not: the server is being written to.
    Written,
    /// They are of several servers behind one address.
    Servers,
    /// The user may not see the log, or there is none.
    None,
}

/// Begins a transaction with a snapshot on each connection. Returns the name of what each sees.
pub(super) fn take(clients: &mut [Client]) -> Result<(Vec<String>, Proof), Fault> {
    let servers = clients.iter_mut().map(server).collect::<Result<Vec<_>, _>>()?;
    let one_server = servers.windows(2).all(|pair| pair[0] == pair[1]);
    let mut proof = Proof::None;
    let mut names = Vec::new();
    for _ in 0..TRIES {
        (names, proof) = match one_server {
            true => attempt(clients)?,
            false => {
                clients.iter_mut().try_for_each(begin)?;
                (clients.iter().map(unproven).collect(), Proof::Servers)
            }
        };
        if proof != Proof::Written {
            break;
        }
    }
    let names = servers.iter().zip(names).map(|(server, name)| format!("{server} {name}"));
    Ok((names.collect(), proof))
}

fn attempt(clients: &mut [Client]) -> Result<(Vec<String>, Proof), Fault> {
    let Some(first) = clients.first_mut() else { return Ok((Vec::new(), Proof::One)) };
    let logs_all = logs_all(first)?;
    let before = position(first, logs_all)?;
    thread::sleep(SETTLED);
    clients.iter_mut().try_for_each(begin)?;
    // MariaDB says of each snapshot where in the log it is.
    // Not where filters keep some databases out of the log, or may: then InnoDB's own must say it.
    let is_of_log = before.as_ref().is_some_and(|before| !before.starts_with("LSN"));
    if logs_all && is_of_log {
        let places = clients.iter_mut().map(place).collect::<Result<Option<Vec<_>>, _>>()?;
        if let Some(places) = places {
            let one = places.windows(2).all(|pair| pair[0] == pair[1]);
            return Ok((places, if one { Proof::One } else { Proof::Written }));
        }
    }
    let after = position(&mut clients[0], logs_all)?;
    Ok(match (before, after) {
        (Some(before), Some(after)) if before == after => (vec![before; clients.len()], Proof::One),
        (Some(_), Some(_)) => (clients.iter().map(unproven).collect(), Proof::Written),
        _ => (clients.iter().map(unproven).collect(), Proof::None),
    })
}

/// Tables that are done with can be altered by others after a return to the savepoint.
fn begin(client: &mut Client) -> Result<(), Fault> {
    // Results as they are stored, with no conversion that could lose a byte.
    let sql = "SET character_set_results = NULL; \
               SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ; \
               START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY; SAVEPOINT moveout";
    client.query(sql).map(drop)
}

fn unproven(client: &Client) -> String {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    format!("at {} on connection {} ({number})", rfc3339(now()), client.id)
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

/// Whether all that is written stands in the binary log: what a replica or a node of a cluster gets from
/// others may not.
fn logs_all(client: &mut Client) -> Result<bool, Fault> {
    let ways = ["SELECT @@log_replica_updates", "SELECT @@log_slave_updates"];
    if first_of(client, &ways)?.is_some_and(|row| row == [Some("1".to_owned())]) {
        return Ok(true);
    }
    let others = client.query(
        "SHOW GLOBAL STATUS WHERE Variable_name IN ('Slave_running', 'Slaves_running', 'wsrep_cluster_size')",
    )?;
    if others.is_empty() {
        // MySQL 8 has no such status. Who may not ask cannot tell.
        for sql in ["SHOW REPLICA STATUS", "SHOW SLAVE STATUS"] {
            match client.query(sql) {
                Ok(sources) => return Ok(sources.is_empty()),
                Err(Fault::Server(_)) => {}
                Err(broken) => return Err(broken),
            }
        }
        return Ok(false);
    }
    Ok(others
        .iter()
        .all(|row| matches!(row.last(), Some(Some(value)) if value == "0" || value == "OFF")))
}

/// Where in its binary log MariaDB's snapshot is.
fn place(client: &mut Client) -> Result<Option<String>, Fault> {
    if !client.is_mariadb {
        return Ok(None);
    }
    let rows = client.query(
        "SHOW STATUS WHERE Variable_name IN ('Binlog_snapshot_file', 'Binlog_snapshot_position')",
    )?;
    let values: Option<Vec<_>> =
        rows.into_iter().map(|row| row.into_iter().nth(1).flatten()).collect();
    let values = values.unwrap_or_default();
    let known = values.len() == 2 && values.iter().all(|value| !value.is_empty());
    Ok(known.then(|| values.join(":")))
}

/// Where the server's log is now: the binary log, or else InnoDB's own, which moves with every change, and
/// which everybody may see.
fn position(client: &mut Client, logs_all: bool) -> Result<Option<String>, Fault> {
    let ways = ["SHOW BINARY LOG STATUS", "SHOW MASTER STATUS"];
    if logs_all && let Some(row) = first_of(client, &ways)? {
        let text = |at: usize| row.get(at).cloned().flatten().unwrap_or_default();
        // Filters, by which some databases are not logged.
        let filtered = !text(2).is_empty() || !text(3).is_empty();
        if !text(0).is_empty() && !filtered {
            let gtids = text(4).replace('\n', "");
            return Ok(Some(format!("{}:{} {gtids}", text(0), text(1)).trim_end().to_owned()));
        }
    }
    let rows = client.query(
        "SHOW GLOBAL STATUS WHERE Variable_name IN ('Innodb_lsn_current', 'Innodb_redo_log_current_lsn')",
    )?;
    let lsn = rows.into_iter().next().and_then(|row| row.into_iter().nth(1).flatten());
    Ok(lsn.map(|lsn| format!("LSN {lsn}")))
}
