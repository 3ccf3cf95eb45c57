//! Forwards TCP connections to a server, as `aptible db:tunnel` does: slowly if so told, and cut or held at
//! the answer that a test wants.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::thread;
use std::time::Duration;

/// A port that leads to another.
pub(crate) struct Tunnel {
    address: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    /// Bytes a second from the server, over one connection; 0 for as many as come.
    pace: AtomicU64,
    /// How often a connection is still to be cut, and after how many bytes of its answers.
    cuts: AtomicUsize,
    cut_after: AtomicU64,
    served: AtomicU64,
    /// Both ends of each connection, for as long as it lasts.
    open: Mutex<Vec<Weak<TcpStream>>>,
    /// Nobody will connect any more.
    closed: AtomicBool,
    /// Answers so far: whatever the server says at a stretch after the client said something.
    answers: AtomicUsize,
    stop: Mutex<Option<(usize, Stop)>>,
    held: Mutex<bool>,
    released: Condvar,
}

/// What is done to an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Its connection ends after a part of it.
    Cut,
    /// Nothing of it passes until [`Tunnel::release`].
    Hold,
}

impl Tunnel {
    pub(crate) fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::<State>::default();
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if shared.closed.load(Ordering::SeqCst) {
                    break;
                }
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { continue };
                forward(client, server, &shared);
            }
        });
        Self { address, state }
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// From now on, so many bytes a second; 0 for as many as come.
    pub(crate) fn pace(&self, bytes: u64) {
        self.state.pace.store(bytes, Ordering::SeqCst);
    }

    /// Cuts so many connections, each after so many bytes that the server has sent on it.
    pub(crate) fn cut(&self, times: usize, after: u64) {
        self.state.cut_after.store(after, Ordering::SeqCst);
        self.state.cuts.store(times, Ordering::SeqCst);
    }

    /// Connections that are still to be cut.
    pub(crate) fn cuts_left(&self) -> usize {
        self.state.cuts.load(Ordering::SeqCst)
    }

    /// Counts the answers from now on, and does this to one of them; the first is 1.
    pub(crate) fn stop_at(&self, answer: usize, stop: Stop) {
        *self.state.stop.lock().unwrap() = Some((answer, stop));
        self.state.answers.store(0, Ordering::SeqCst);
    }

    /// Counts the answers from now on, and does nothing to them.
    pub(crate) fn count_answers(&self) {
        *self.state.stop.lock().unwrap() = None;
        self.state.answers.store(0, Ordering::SeqCst);
    }

    pub(crate) fn answers(&self) -> usize {
        self.state.answers.load(Ordering::SeqCst)
    }

    /// Whether what was to happen has happened, or is happening.
    pub(crate) fn has_stopped(&self) -> bool {
        self.state.stop.lock().unwrap().is_none()
    }

    /// Lets the answer pass that is held.
    pub(crate) fn release(&self) {
        *self.state.held.lock().unwrap() = false;
        self.state.released.notify_all();
    }

    /// Ends all connections at once.
    pub(crate) fn drop_all(&self) {
        for stream in self.state.open.lock().unwrap().drain(..).filter_map(|open| open.upgrade()) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Bytes that the server has sent.
    pub(crate) fn served(&self) -> u64 {
        self.state.served.load(Ordering::SeqCst)
    }
}

/// A suite makes many tunnels, and may have only so many open files.
impl Drop for Tunnel {
    fn drop(&mut self) {
        self.state.closed.store(true, Ordering::SeqCst);
        self.release();
        self.drop_all();
        let _ = TcpStream::connect(self.address); // wakes up who waits for connections
    }
}

fn forward(client: TcpStream, server: TcpStream, state: &Arc<State>) {
    let (client, server) = (Arc::new(client), Arc::new(server));
    let pair = || (Arc::clone(&client), Arc::clone(&server));
    let mut open = state.open.lock().unwrap();
    open.retain(|open| open.strong_count() > 0);
    open.extend([Arc::downgrade(&client), Arc::downgrade(&server)]);
    drop(open);
    // Some servers speak first.
    let asked = Arc::new(AtomicBool::new(true));
    let (from, to) = pair();
    let asking = Arc::clone(&asked);
    thread::spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = (&*from).read(&mut buffer) {
            asking.store(true, Ordering::SeqCst);
            if (&*to).write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Write);
    });
    let (to, from) = pair();
    let state = Arc::clone(state);
    thread::spawn(move || {
        let (mut buffer, mut sent) = (vec![0; 64 * 1024], 0);
        while let Ok(count @ 1..) = (&*from).read(&mut buffer) {
            sent += count as u64;
            let cut = |left: usize| left.checked_sub(1);
            let is_cut = state.cuts.load(Ordering::SeqCst) > 0
                && sent > state.cut_after.load(Ordering::SeqCst)
                && state.cuts.fetch_update(Ordering::SeqCst, Ordering::SeqCst, cut).is_ok();
            let stop = asked.swap(false, Ordering::SeqCst).then(|| state.answer()).flatten();
            if is_cut || stop == Some(Stop::Cut) {
                let _ = (&*to).write_all(&buffer[..count / 2]);
                break;
            }
            if stop == Some(Stop::Hold) {
                let held = state.held.lock().unwrap();
                drop(state.released.wait_while(held, |held| *held).unwrap());
            }
            let pace = state.pace.load(Ordering::SeqCst);
            if pace > 0 {
                thread::sleep(Duration::from_secs_f64(count as f64 / pace as f64));
            }
            state.served.fetch_add(count as u64, Ordering::SeqCst);
            if (&*to).write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
        let _ = from.shutdown(Shutdown::Both);
    });
}

impl State {
    /// Counts an answer; returns what is to be done to it.
    fn answer(&self) -> Option<Stop> {
        let number = self.answers.fetch_add(1, Ordering::SeqCst) + 1;
        let mut wanted = self.stop.lock().unwrap();
        let (_, stop) = wanted.take_if(|(answer, _)| *answer == number)?;
        if stop == Stop::Hold {
            *self.held.lock().unwrap() = true;
        }
        Some(stop)
    }
}
