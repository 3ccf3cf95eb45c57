//! Connects gRPC to the local end of a tunnel. TLS still uses the server's own name.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tonic::codegen::{Service, StdError};

use crate::source::tunnel::Tunnel;

/// Connects to a tunnel, whatever server is requested.
pub(super) struct LocalEnd(pub(super) Arc<Tunnel>);

type Connecting = Pin<Box<dyn Future<Output = Result<TokioIo<TcpStream>, StdError>> + Send>>;

impl Service<Uri> for LocalEnd {
    type Response = TokioIo<TcpStream>;
    type Error = StdError;
    type Future = Connecting;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), StdError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _server: Uri) -> Connecting {
        let tunnel = Arc::clone(&self.0);
        Box::pin(async move {
            let stream = TcpStream::connect(tunnel.ready().await?.address()).await?;
            stream.set_nodelay(true)?;
            Ok(TokioIo::new(stream))
        })
    }
}
