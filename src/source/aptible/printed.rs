//! PURE: reads what `aptible db:tunnel` prints: where the tunnel leads, and when it is ready. It prints the password twice,
//! and no line with it is shown.

use std::sync::{Mutex, PoisonError};

use percent_encoding::percent_decode_str;
use url::Url;

use crate::config::Secret;
use crate::error::Error;
use crate::source::aptible::failures::{explained, shown};
use crate::source::child::Line;
use crate::source::tunnel::Program;

/// The address that a tunnel printed. It lacks the part of the credential after the `?`.
#[derive(Debug, Clone)]
pub(crate) struct Printed {
    /// For Redis, it says whether there is TLS.
    pub(super) scheme: String,
    /// A name for this machine, which may be the name in the certificate.
    pub(super) host: String,
    /// The port of the tunnel's local end.
    pub(super) port: u16,
    /// Empty if the server knows no users.
    pub(super) user: String,
    pub(crate) password: Secret,
}

/// Interprets the output of a tunnel.
#[derive(Debug, Default)]
pub(crate) struct Output(Mutex<Option<Printed>>);

impl Output {
    /// The address that was printed last.
    pub(crate) fn printed(&self) -> Option<Printed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Program for Output {
    fn says_when_ready(&self) -> bool {
        true
    }

    fn is_ready(&self, line: &Line) -> bool {
        let text = line.text.trim();
        if let Some(found) = text.strip_prefix("Connect at ").and_then(printed) {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
        }
        text.starts_with("Connected.")
    }

    fn shown(&self, line: &Line) -> Option<String> {
        let quotes = |printed: Printed| {
            let password = printed.password.expose();
            !password.is_empty() && line.text.contains(password)
        };
        if self.printed().is_some_and(quotes) { None } else { shown(line) }
    }

    fn explained(&self, error: Error) -> Error {
        explained(error)
    }
}

fn printed(text: &str) -> Option<Printed> {
    let url = Url::parse(text.split_whitespace().next()?).ok()?;
    let decoded = |text: &str| Some(percent_decode_str(text).decode_utf8().ok()?.into_owned());
    Some(Printed {
        scheme: url.scheme().to_owned(),
        host: url.host_str()?.to_owned(),
        port: url.port()?,
        user: decoded(url.username())?,
        password: Secret::new(decoded(url.password().unwrap_or_default())?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::child::Stream;

    const LINES: &str = "\
Creating postgresql tunnel to main...
Use --type TYPE to specify a tunnel type
Valid types for main: postgresql
Connect at postgresql://aptible:s3cr%2Ft@localhost.aptible.in:4242/db
Or, use the following arguments:
* Host: localhost.aptible.in
* Port: 4242
* Username: aptible
* Password: s3cr/t
* Database: db
Connected. Ctrl-C to close connection.";

    #[test]
    fn the_output_of_a_tunnel_is_understood_and_no_secret_is_shown() {
        let output = Output::default();
        let line = |text: &str| Line { from: Stream::Stderr, text: text.to_owned() };
        let mut shown = Vec::new();
        for (number, text) in LINES.lines().enumerate() {
            assert_eq!(output.is_ready(&line(text)), number == 10, "{text}");
            shown.extend(output.shown(&line(text)));
        }
        let printed = output.printed().unwrap();
        assert_eq!(
            (&*printed.host, printed.port, &*printed.user),
            ("localhost.aptible.in", 4242, "aptible")
        );
        assert_eq!(printed.password.expose(), "s3cr/t");
        assert_eq!(shown.len(), 9);
        assert!(!shown.join("\n").contains("s3cr"));
        assert_eq!(output.shown(&line("FATAL: s3cr/t is wrong")), None);
    }

    #[test]
    fn an_old_redis_has_no_user() {
        let printed = printed("redis://:pw@localhost.aptible.in:1/ ").unwrap();
        assert_eq!((&*printed.user, printed.password.expose()), ("", "pw"));
    }
}
