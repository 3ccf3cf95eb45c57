//! A server in the process of a test: a thread of its own with a runtime, stopped on drop, and connections
//! with the means to reset them.

use std::net::TcpListener;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

/// The running server.
pub(crate) struct Background {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Background {
    pub(crate) fn start(
        runtime: Runtime,
        serve: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        let (stop, stopped) = oneshot::channel();
        let thread = thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = serve => {}
                    _ = stopped => {}
                }
            });
            // Drops the connections with whatever they were doing.
            runtime.shutdown_timeout(Duration::from_secs(5));
        });
        Self { stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Hands over each connection with its twin, for ever. Whoever serves it has the stream itself; options
/// that are set by the twin hold for both, and it only ends when both are gone.
pub(crate) async fn accept(listener: TcpListener, mut serve: impl FnMut(TcpStream, TcpSocket)) {
    listener.set_nonblocking(true).unwrap();
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        let Ok(client) = client.into_std() else { continue };
        let Ok(twin) = client.try_clone() else { continue };
        let Ok(client) = TcpStream::from_std(client) else { continue };
        let _ = client.set_nodelay(true);
        serve(client, TcpSocket::from_std_stream(twin));
    }
}
