//! The connections that read, each of which holds a snapshot. A lost connection takes its snapshot with it; the one that
//! replaces it has another snapshot with another name.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::{Database, Limits};
use crate::error::{Error, Result};
use crate::source::mysql::charset::Charsets;
use crate::source::mysql::client::Client;
use crate::source::mysql::errors::CommandError;
use crate::source::mysql::snapshot;
use crate::source::mysql::snapshot::Proof;
use crate::source::relational::broken::may_be_repeated;
use crate::source::relational::cancel::CancelToken;
use crate::source::relational::outside::{Connected, Outside};

/// How the server is reached, and how long it may be silent.
#[derive(Clone)]
pub(crate) struct Address {
    pub(crate) database: Database,
    pub(crate) idle: Duration,
}

impl Address {
    /// A connection without a snapshot.
    pub(crate) fn connect(&self, cancel: &CancelToken) -> Result<Client> {
        let client = Client::connect(&self.database, self.idle, &|wire| {
            cancel.watch(wire);
        })?;
        set_up(client).map_err(|fault| Error::from(fault).context("setting up a connection"))
    }

    pub(crate) fn host(&self) -> String {
        format!("{}:{}", self.database.host, self.database.port)
    }

    pub(crate) fn user(&self) -> &str {
        &self.database.user
    }
}

/// Sets how values look, how long the server waits for a slow destination, and how long a statement waits while somebody
/// alters a table. It also lifts the limits of rows: one that the server sets for all sessions would cut every answer
/// short, and the server would count only the rows that it sent.
fn set_up(mut client: Client) -> Result<Client, CommandError> {
    client.query(
        "SET NAMES utf8mb4; SET SESSION time_zone = '+00:00', sql_mode = '', wait_timeout = 604800, \
         net_read_timeout = 86400, net_write_timeout = 86400, lock_wait_timeout = 45, \
         sql_select_limit = 18446744073709551615, max_join_size = 18446744073709551615, sql_big_selects = 1",
    )?;
    // Not all servers have these settings: limits on the duration of statements and transactions, and the one that hides
    // primary keys that the server generated.
    let settings = if client.is_mariadb {
        &[
            "max_statement_time = 0",
            "idle_transaction_timeout = 0",
            "idle_readonly_transaction_timeout = 0",
        ][..]
    } else {
        &["max_execution_time = 0", "show_gipk_in_create_table_and_information_schema = ON"]
    };
    for setting in settings {
        match client.query(&format!("SET SESSION {setting}")) {
            Ok(_) | Err(CommandError::Server(_)) => {}
            Err(broken) => return Err(broken),
        }
    }
    Ok(client)
}

/// A connection with a snapshot.
pub(super) struct Session {
    pub(super) client: Client,
    /// The name of the snapshot.
    pub(super) snapshot_id: String,
    /// When the snapshot was taken, in the pool's own time.
    pub(super) taken: u64,
    pub(super) charsets: Arc<Charsets>,
}

/// The sessions of a source.
pub(super) struct Pool {
    pub(super) address: Address,
    /// How many sessions there are at most.
    pub(super) size: usize,
    permits: Arc<Semaphore>,
    sessions: Mutex<Sessions>,
    /// Held while sessions are opened.
    opening: Mutex<()>,
    clock: AtomicU64,
    /// A connection outside of any snapshot.
    outside: Outside<Client>,
}

#[derive(Default)]
struct Sessions {
    idle: Vec<Session>,
    /// How many are open.
    open: usize,
    proof: Option<Proof>,
    charsets: Option<Arc<Charsets>>,
}

impl Pool {
    pub(super) fn new(database: &Database, limits: &Limits) -> Self {
        let address = Address { database: database.clone(), idle: limits.idle_timeout };
        Self {
            address,
            size: limits.concurrency,
            permits: Arc::new(Semaphore::new(limits.concurrency)),
            sessions: Mutex::default(),
            opening: Mutex::default(),
            clock: AtomicU64::new(0),
            outside: Outside::default(),
        }
    }

    /// Waits for the right to use a session.
    pub(super) async fn lease(self: &Arc<Self>) -> Result<Lease> {
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        let permit = permit.map_err(|_| Error::stop("the sessions are closed"))?; // nobody closes them
        Ok(Lease { pool: Arc::clone(self), session: None, _permit: permit })
    }

    /// The right to use an idle session with this snapshot, if nobody waits for one.
    pub(super) fn try_lease(self: &Arc<Self>, snapshot_id: &str) -> Option<Lease> {
        let permit = Arc::clone(&self.permits).try_acquire_owned().ok()?;
        let mut sessions = self.lock();
        let at = sessions.idle.iter().position(|session| session.snapshot_id == snapshot_id)?;
        let session = Some(sessions.idle.swap_remove(at));
        drop(sessions);
        Some(Lease { pool: Arc::clone(self), session, _permit: permit })
    }

    /// Asks outside of any snapshot. The connection stays open, since a server may limit a user's connections.
    pub(super) fn outside<T>(
        &self,
        cancel: &CancelToken,
        mut ask: impl FnMut(&mut Client) -> Result<T, CommandError>,
    ) -> Result<T> {
        let open = || self.address.connect(cancel);
        self.outside.ask(cancel, open, |client| ask(client).map_err(Error::from))
    }

    /// The next instant of the pool's own time.
    pub(super) fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::Relaxed)
    }

    /// What is known about whether the sessions that were opened together see one moment.
    pub(super) fn proof(&self) -> Option<Proof> {
        self.lock().proof
    }

    fn lock(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn idle(&self) -> Option<Session> {
        self.lock().idle.pop()
    }

    /// Opens all sessions that are missing, as of one moment if possible. Returns one of them.
    fn open(&self, cancel: &CancelToken) -> Result<Session> {
        let _opening = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(session) = self.idle() {
            return Ok(session);
        }
        let missing = self.size.saturating_sub(self.lock().open).max(1);
        let mut clients = match self.address.connect(cancel) {
            Ok(client) => vec![client],
            // The server grants no further connection, so this work waits for one of the open ones.
            Err(error) if may_be_repeated(&error) => return self.wait().ok_or(error),
            Err(error) => return Err(error),
        };
        for _ in 1..missing {
            match self.address.connect(cancel) {
                Ok(client) => clients.push(client),
                // The server grants no further connection, so fewer have to do.
                Err(error) if may_be_repeated(&error) => break,
                Err(error) => return Err(error),
            }
        }
        let taken = self.tick();
        let charsets = self.charsets(&mut clients[0])?;
        let (ids, proof) = snapshot::take(&mut clients, self.address.database.lock)
            .map_err(|fault| Error::from(fault).context("taking a snapshot"))?;
        let session = |(client, snapshot_id)| Session {
            client,
            snapshot_id,
            taken,
            charsets: Arc::clone(&charsets),
        };
        let mut opened: Vec<Session> = clients.into_iter().zip(ids).map(session).collect();
        let mut sessions = self.lock();
        sessions.open += opened.len();
        sessions.proof = Some(proof);
        let one = opened.pop().ok_or_else(|| Error::stop("no session was opened"))?;
        sessions.idle.append(&mut opened);
        Ok(one)
    }

    /// Waits until a session is idle; `None` if none is open any more.
    fn wait(&self) -> Option<Session> {
        while self.lock().open > 0 {
            if let Some(session) = self.idle() {
                return Some(session);
            }
            thread::sleep(Duration::from_millis(5));
        }
        None
    }

    fn charsets(&self, client: &mut Client) -> Result<Arc<Charsets>> {
        if let Some(charsets) = &self.lock().charsets {
            return Ok(Arc::clone(charsets));
        }
        let charsets = Charsets::ask(client).map_err(Error::from)?;
        Ok(Arc::clone(self.lock().charsets.insert(Arc::new(charsets))))
    }
}

/// The right to use one session.
pub(super) struct Lease {
    pool: Arc<Pool>,
    session: Option<Session>,
    _permit: OwnedSemaphorePermit,
}

impl Lease {
    /// Works with the session, which is opened if necessary, and closed if its connection breaks.
    pub(super) fn work<T>(
        &mut self,
        cancel: &CancelToken,
        work: impl FnOnce(&mut Session) -> Result<T, CommandError>,
    ) -> Result<T> {
        let (mut session, worked);
        match self.session.take().or_else(|| self.pool.idle()) {
            None => {
                session = self.pool.open(cancel)?;
                worked = work(&mut session);
            }
            Some(idle) => {
                session = idle;
                worked = match session.client.closer() {
                    Ok(wire) => cancel.watching(wire, || work(&mut session)),
                    Err(error) => Err(error.into()),
                };
            }
        }
        match worked {
            Err(CommandError::Broken(error)) => {
                self.pool.lock().open -= 1;
                Err(error)
            }
            outcome => {
                self.session = Some(session);
                outcome.map_err(Error::from)
            }
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            self.pool.lock().idle.push(session);
        }
    }
}

impl Session {
    /// Takes a new snapshot in place of the old one. If that fails halfway, the session is closed, since nobody knows
    /// what it sees.
    pub(super) fn renew(&mut self, now: u64) -> Result<(), CommandError> {
        let taken = snapshot::take(std::slice::from_mut(&mut self.client), false);
        let (mut ids, _) = taken.map_err(|fault| {
            CommandError::Broken(Error::from(fault).context("taking a new snapshot"))
        })?;
        self.snapshot_id = ids.pop().unwrap_or_default(); // one for each client
        self.taken = now;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::config::{Binding, Tls, TlsMode};

    fn send(to: &mut TcpStream, sequence: u8, payload: &[u8]) {
        let packet = [&[payload.len() as u8, 0, 0, sequence], payload].concat();
        to.write_all(&packet).unwrap();
    }

    fn receive(from: &mut TcpStream) -> Option<Vec<u8>> {
        let mut header = [0; 4];
        from.read_exact(&mut header).ok()?;
        let mut payload = vec![0; usize::from(header[0]) | usize::from(header[1]) << 8];
        from.read_exact(&mut payload).ok()?;
        Some(payload)
    }

    /// A server that begins a transaction and refuses the savepoint in it. It has no answer to questions.
    fn begins_half_way() -> u16 {
        const REFUSED: &[u8] = b"\xff\x65\x06#HY000no";
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            let (mut client, _) = listener.accept().unwrap();
            let more = [
                &b"\x0a8.0.0\0\x01\0\0\0abcdefgh\0\xff\xf7\x2d\x02\0\xff\x00\x15"[..],
                &[0; 10],
                b"abcdefghijkl\0mysql_native_password\0",
            ];
            send(&mut client, 0, &more.concat());
            receive(&mut client);
            send(&mut client, 2, b"\0\0\0\x02\0\0\0");
            while let Some(command) = receive(&mut client) {
                if command[1..].starts_with(b"START TRANSACTION") {
                    send(&mut client, 1, b"\0\0\0\x0a\0\0\0"); // another answer follows
                    send(&mut client, 2, REFUSED);
                } else if command[1..].starts_with(b"SET") {
                    send(&mut client, 1, b"\0\0\0\x02\0\0\0");
                } else {
                    send(&mut client, 1, REFUSED);
                }
            }
        });
        port
    }

    #[test]
    fn a_session_whose_new_snapshot_failed_halfway_is_closed() {
        let tls = Tls { mode: TlsMode::Disable, ca: None, client: None, binding: Binding::Disable };
        let database = Database {
            host: "127.0.0.1".to_owned(),
            port: begins_half_way(),
            user: "u".to_owned(),
            password: None,
            tls,
            time_columns: Default::default(),
            lock: false,
            dump: false,
            server_key: None,
            tunnel: None,
        };
        let address = Address { database, idle: Duration::from_secs(60) };
        let client = Client::connect(&address.database, address.idle, &|_| ()).unwrap();
        let session =
            Session { client, snapshot_id: "old".into(), taken: 0, charsets: Arc::default() };
        let sessions = Sessions { idle: vec![session], open: 1, ..Sessions::default() };
        let pool = Arc::new(Pool {
            address,
            size: 1,
            permits: Arc::new(Semaphore::new(1)),
            sessions: Mutex::new(sessions),
            opening: Mutex::default(),
            clock: AtomicU64::new(0),
            outside: Outside::default(),
        });
        let mut lease = pool.try_lease("old").unwrap();
        let error = lease.work(&CancelToken::default(), |session| session.renew(1)).unwrap_err();
        assert!(error.to_string().contains("taking a new snapshot: no"), "{error}");
        drop(lease);
        assert!(pool.try_lease("old").is_none());
        assert_eq!(pool.lock().open, 0);
    }
}
