//! Sends lines, and finds out which of them the server refuses. It says how many and why, but not which, so that a request
//! is halved until the bad lines are alone. InfluxDB 3 names them. Sending a line once more changes nothing, because its
//! values are the same.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;

use super::lines::Body;
use crate::error::{Class, Error, Result};
use crate::retry::Retry;
use crate::source::influxdb::http::{Reply, Server};
use crate::target::Reject;

/// Where lines go: the path and the parameters of the request.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) path: &'static str,
    pub(super) query: Vec<(&'static str, String)>,
}

/// The words of an answer that name a limit of the server, each with what to do. Such a limit would refuse one line after
/// the other, so that the run ends instead.
const LIMITS: [(&str, &str); 4] = [
    ("would exceed", "restore fewer tables by `--table`, or into a server with other limits"),
    (
        "max-series-per-database",
        "raise `max-series-per-database` of the target (0 is no limit), or use `index-version = \"tsi1\"`",
    ),
    ("max-values-per-tag", "raise `max-values-per-tag` of the target (0 is no limit)"),
    (
        "points beyond retention policy",
        "give the target's retention policy DURATION INF while it is restored",
    ),
];

/// What a server says about lines.
enum Answer {
    /// It has taken all of them.
    Taken,
    /// It refuses these lines, each for a reason, and has taken the others.
    Without(Vec<(usize, String)>),
    /// It refuses some or all of them for this reason, and does not say which.
    Refused(String),
    /// They are too much for one request, for this reason.
    TooLarge(String),
}

/// Sends all lines of a body. Returns those that the server refuses, each with the reason.
pub(super) async fn send(
    server: &Server,
    retry: &Retry,
    place: &Place,
    mut body: Body,
) -> Result<Vec<Reject>> {
    let mut rejects = Vec::new();
    let mut reject = |body: &Body, line: usize, why: String| {
        let row = String::from_utf8_lossy(body.lines(line..line + 1));
        rejects.push(Reject { row: row.trim_end_matches('\n').to_owned(), why });
    };
    let mut todo = Vec::<Range<usize>>::new();
    todo.push(0..body.ends.len());
    while let Some(lines) = todo.pop() {
        if lines.is_empty() {
            continue;
        }
        let bytes = Bytes::copy_from_slice(body.lines(lines.clone()));
        match send_once(server, retry, place, bytes).await? {
            Answer::Taken => {}
            // The list may be cut, so that the others are sent once more. Only a request that is taken as a whole is known
            // to be taken.
            Answer::Without(bad) if bad.iter().all(|(line, _)| *line < lines.len()) => {
                let bad: BTreeMap<usize, String> = bad.into_iter().collect();
                let mut rest = Body::default();
                for (at, line) in lines.enumerate() {
                    match bad.get(&at) {
                        Some(why) => reject(&body, line, why.clone()),
                        None => rest.push(body.lines(line..line + 1)),
                    }
                }
                let known: Vec<Range<usize>> = std::mem::take(&mut todo);
                let begin = rest.ends.len();
                known.into_iter().flatten().for_each(|line| rest.push(body.lines(line..line + 1)));
                todo.extend([begin..rest.ends.len(), 0..begin]);
                body = rest;
            }
            Answer::Refused(why) | Answer::TooLarge(why) if lines.len() == 1 => {
                reject(&body, lines.start, why);
            }
            Answer::Without(_) | Answer::Refused(_) | Answer::TooLarge(_) if lines.len() == 1 => {
                reject(&body, lines.start, "the server refuses it".to_owned());
            }
            Answer::Without(_) | Answer::Refused(_) | Answer::TooLarge(_) => {
                let middle = lines.start + lines.len() / 2;
                todo.extend([middle..lines.end, lines.start..middle]);
            }
        }
    }
    Ok(rejects)
}

/// The lines that an InfluxDB 3 names in its answer, counted from 0, each with the reason. The answer has the form
/// `{"data": [{"line_number", "error_message"}]}`. `None` if it names no line.
fn named(reply: &Reply) -> Option<Vec<(usize, String)>> {
    let json = serde_json::from_str::<serde_json::Value>(&reply.text).ok()?;
    let lines = json["data"].as_array()?.iter().map(|line| {
        let number = usize::try_from(line["line_number"].as_u64()?).ok()?.checked_sub(1)?;
        Some((number, shortened(line["error_message"].as_str()?)))
    });
    lines.collect::<Option<Vec<_>>>().filter(|lines| !lines.is_empty())
}

async fn send_once(server: &Server, retry: &Retry, place: &Place, lines: Bytes) -> Result<Answer> {
    let query: Vec<(&str, &str)> =
        place.query.iter().map(|(key, value)| (*key, value.as_str())).collect();
    let many = lines.len() > 1 << 16;
    let address = server.address();
    let sent = retry.with_retry(&address, || async {
        match server.write(place.path, &query, lines.clone()).await {
            // It may have been too much, so that the caller sends less.
            Err(error) if many && error.class() == Class::Split => Ok(Err(error.to_string())),
            reply => reply.map(Ok),
        }
    });
    let reply = match sent.await? {
        Ok(reply) => reply,
        Err(why) => return Ok(Answer::TooLarge(why)),
    };
    match reply.status {
        200..=299 => Ok(Answer::Taken),
        413 => Ok(Answer::TooLarge(reason(&reply))),
        400 | 422 => {
            let why = reason(&reply);
            match LIMITS.iter().find(|(text, _)| why.contains(text)) {
                Some((_, todo)) => {
                    Err(Error::stop(format!("{}: {why}", server.address())).hint(todo))
                }
                None => Ok(named(&reply).map_or(Answer::Refused(why), Answer::Without)),
            }
        }
        _ => Err(reply.into_success(server).err().unwrap_or_else(|| {
            Error::stop(format!("{}: this is no answer to lines", server.address()))
        })),
    }
}

/// The longest reason that is kept, because a server repeats the whole line in it.
const LONGEST_REASON: usize = 500;

/// The reason that the server gives, as text.
fn reason(reply: &Reply) -> String {
    let json = serde_json::from_str::<serde_json::Value>(&reply.text).ok();
    let text = json.as_ref().and_then(|json| {
        let first = &json["data"][0]["error_message"];
        [first, &json["data"]["error_message"], &json["error"], &json["message"]]
            .into_iter()
            .find_map(|text| text.as_str())
    });
    shortened(text.unwrap_or(reply.text.trim()))
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(LONGEST_REASON) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
