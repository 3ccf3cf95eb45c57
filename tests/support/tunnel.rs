//! Forwards TCP connections to a server, as `aptible db:tunnel` does: slowly if so told, and cut when a test
//! wants it.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
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
    open: Mutex<Vec<TcpStream>>,
}

impl Tunnel {
    pub(crate) fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::<State>::default();
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { continue };
                forward(&client, &server, &shared);
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

    /// Ends all connections at once.
    pub(crate) fn drop_all(&self) {
        for stream in self.state.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Bytes that the server has sent.
    pub(crate) fn served(&self) -> u64 {
        self.state.served.load(Ordering::SeqCst)
    }
}

fn forward(client: &TcpStream, server: &TcpStream, state: &Arc<State>) {
    let pair = || (client.try_clone().unwrap(), server.try_clone().unwrap());
    state.open.lock().unwrap().extend([pair().0, pair().1]);
    let (mut from, mut to) = pair();
    thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
    let (mut to, mut from) = pair();
    let state = Arc::clone(state);
    thread::spawn(move || {
        let (mut buffer, mut sent) = (vec![0; 64 * 1024], 0);
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            sent += count as u64;
            let cut = |left: usize| left.checked_sub(1);
            if state.cuts.load(Ordering::SeqCst) > 0
                && sent > state.cut_after.load(Ordering::SeqCst)
                && state.cuts.fetch_update(Ordering::SeqCst, Ordering::SeqCst, cut).is_ok()
            {
                let _ = to.write_all(&buffer[..count / 2]);
                break;
            }
            let pace = state.pace.load(Ordering::SeqCst);
            if pace > 0 {
                thread::sleep(Duration::from_secs_f64(count as f64 / pace as f64));
            }
            state.served.fetch_add(count as u64, Ordering::SeqCst);
            if to.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
        let _ = from.shutdown(Shutdown::Both);
    });
}
