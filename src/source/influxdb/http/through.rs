//! HTTP through a tunnel: the client resolves every name to the tunnel's local end, and still uses the server's own name
//! for TLS and in the header `Host`.

use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::HOST;
use reqwest::redirect::Policy;
use reqwest::{ClientBuilder, RequestBuilder, Response};
use url::{Host, Url};

use crate::error::Result;
use crate::source::tunnel::Tunnel;

/// The name in place of an IP address, which would not be resolved. No server has this name.
const NAMELESS: &str = "server.invalid";

/// The way to a server through a tunnel.
#[derive(Debug, Clone)]
pub(super) struct Through {
    tunnel: Arc<Tunnel>,
    /// The URL for the client. It has no port, since that would override the port of the tunnel's local end.
    pub(super) base: Url,
    /// The host and the port as the user wrote them.
    host: String,
}

impl Through {
    pub(super) fn new(server: &Url, tunnel: Arc<Tunnel>) -> Self {
        let mut base = server.clone();
        let _ = base.set_port(None); // neither this nor the next can fail for HTTP
        if !matches!(server.host(), Some(Host::Domain(_))) {
            let _ = base.set_host(Some(NAMELESS));
        }
        let host = server.host_str().unwrap_or_default();
        let host = server.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        Self { tunnel, base, host }
    }

    /// Uses no proxy and follows no redirect, since that would lead past the tunnel.
    pub(super) fn set_up(&self, client: ClientBuilder) -> ClientBuilder {
        let resolver = Arc::new(LocalEnd(Arc::clone(&self.tunnel)));
        client.no_proxy().redirect(Policy::none()).dns_resolver(resolver)
    }

    /// Notes that a part of a response has arrived.
    pub(super) fn heard(&self) {
        self.tunnel.heard();
    }

    /// Sends a request when the tunnel is ready, so that the request's time-outs do not include its opening.
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
