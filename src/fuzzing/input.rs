//! What the targets share: how bytes become a choice and pieces, and a server that says them.

use std::borrow::Cow;
use std::cell::RefCell;
use std::io::Write;
use std::net::{Ipv4Addr, Shutdown, TcpListener};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::DataType;
use rustix::net::sockopt;
use tokio::runtime::{Builder, Runtime};

/// The first byte, which chooses, and the rest.
pub(super) fn choice(bytes: &[u8]) -> (usize, &[u8]) {
    bytes.split_first().map_or((0, bytes), |(first, rest)| (usize::from(*first), rest))
}

/// The bytes in pieces of this size; 0 stands for all of them in one piece.
pub(super) fn pieces(bytes: &[u8], size: usize) -> impl ExactSizeIterator<Item = &[u8]> {
    bytes.chunks(if size == 0 { bytes.len().max(1) } else { size })
}

/// The bytes as text.
pub(super) fn text(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// Waits for a future.
pub(super) fn block_on<T>(future: impl Future<Output = T>) -> T {
    thread_local! {
        static RUNTIME: RefCell<Runtime> =
            RefCell::new(Builder::new_current_thread().enable_all().build().expect("a runtime"));
    }
    RUNTIME.with(|runtime| runtime.borrow().block_on(future))
}

/// Asserts that a batch is what readers rely on.
pub(super) fn assert_sound(batch: &RecordBatch) {
    for column in batch.columns() {
        let sound = column.to_data().validate_full();
        assert!(sound.is_ok(), "{sound:?}");
        if let DataType::Decimal128(precision, _) = column.data_type() {
            let decimals = column.as_primitive::<arrow::datatypes::Decimal128Type>();
            assert!(decimals.validate_decimal_precision(*precision).is_ok(), "{column:?}");
        }
    }
}

/// Calls `ask` with the port of a server that says these bytes to the first who connects, and nothing more.
pub(super) fn served<T>(bytes: &[u8], ask: impl FnOnce(u16) -> T) -> T {
    thread_local! {
        static SERVER: (Sender<Vec<u8>>, u16) = server();
    }
    SERVER.with(|(says, port)| {
        says.send(bytes.to_vec()).expect("the server lives as long as this thread");
        ask(*port)
    })
}

fn server() -> (Sender<Vec<u8>>, u16) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let (says, said) = channel::<Vec<u8>>();
    std::thread::spawn(move || {
        // A connection stays open until the next one, because what is unread is lost with its end.
        let mut last = None;
        for bytes in said {
            let Ok((mut socket, _)) = listener.accept() else { return };
            // No port stays taken after a connection.
            let _ = sockopt::set_socket_linger(&socket, Some(Duration::ZERO));
            let _ = socket.write_all(&bytes).and_then(|()| socket.shutdown(Shutdown::Write));
            last.replace(socket);
        }
    });
    (says, port)
}
