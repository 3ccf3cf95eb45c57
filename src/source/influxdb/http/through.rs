//! HTTP through a tunnel: the client takes each name for that of the tunnel's local end, and keeps the server's own in
//! TLS and in the header `Host`.

use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::HOST;
use reqwest::redirect::Policy;
use reqwest::{ClientBuilder, RequestBuilder, Response};
use url::{Host, Url};

use crate::error::Result;
use crate::source::tunnel::Tunnel;

/// An address has no name that could be taken for another; no server has this one.
const NAMELESS: &str = "server.invalid";

/// The way to a server through a tunnel.
#[derive(Debug, Clone)]
pub(super) struct Through {
    tunnel: Arc<Tunnel>,
    /// The URL that the client is given: a port in it would be taken for one of this machine.
    pub(super) base: Url,
    /// As the user wrote it.
    host: String,
}

impl Through {
    pub(super) fn new(server: &Url, tunnel: Arc<Tunnel>) -> Self {
        let mut base = server.clone();
        let _ = base.set_port(None); // neither fails for HTTP
        if !matches!(server.host(), Some(Host::Domain(_))) {
            let _ = base.set_host(Some(NAMELESS));
        }
        let host = server.host_str().unwrap_or_default();
        let host = server.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        Self { tunnel, base, host }
    }

    /// No proxy is on the way, and an answer that leads to another server leads past the tunnel.
    pub(super) fn set_up(&self, client: ClientBuilder) -> ClientBuilder {
        let resolver = Arc::new(LocalEnd(Arc::clone(&self.tunnel)));
        client.no_proxy().redirect(Policy::none()).dns_resolver(resolver)
    }

    /// A piece of an answer has come.
    pub(super) fn heard(&self) {
        self.tunnel.heard();
    }

    /// Sends a request once the tunnel is ready, so that its opening takes no time of the request's.
    pub(super) async fn send(&self, request: RequestBuilder) -> Result<reqwest::Result<Response>> {
        let passage = self.tunnel.ready().await?;
        let sent = request.header(HOST, &self.host).send().await;
        match &sent {
            Ok(_) => self.heard(),
            Err(_) => self.tunnel.was_silent(passage),
        }
        Ok(sent)
    }
}

struct LocalEnd(Arc<Tunnel>);

impl Resolve for LocalEnd {
    fn resolve(&self, _name: Name) -> Resolving {
        let tunnel = Arc::clone(&self.0);
        Box::pin(async move {
            let address = tunnel.ready().await?.address();
            Ok(Box::new(std::iter::once(address)) as Addrs)
        })
    }
}
