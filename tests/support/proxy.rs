//! A proxy that breaks things: an HTTP/1.1 forwarder on a free loopback port which does to chosen
//! requests what networks, gateways and failing servers do, and counts what it was asked.
//!
//! Every answer is forwarded chunked and ends its connection. Requests go to the server without
//! `Accept-Encoding`, so that the bytes counted here are those of the answer itself. On a thread
//! for each connection, with std alone; stopped on drop.

use std::collections::HashMap;
use std::io::{self, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use super::http::{Body, Head, has_body};
use super::influxd::Influxd;

/// What to do to a request. Numbers of bytes are of the body, without HTTP's framing.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// Closes the connection before any byte of an answer; the server is not asked.
    Close,
    /// Resets the connection (RST) after so many bytes, at the latest before the end is marked.
    Reset { after: u64 },
    /// Closes the connection (FIN) after so many bytes, at the latest before the end is marked.
    Cut { after: u64 },
    /// Ends the answer after so many bytes as if it were all: HTTP cannot tell.
    Truncate { after: u64 },
    /// Ends the answer as if it were all after so many whole objects (msgpack, or lines of JSON).
    KeepObjects(usize),
    /// Says nothing for a while after so many bytes, then goes on.
    Stall { after: u64, pause: Duration },
    /// Answers so; the server is not asked.
    Status { code: u16, headers: Vec<(String, String)>, body: String },
    /// Forwards all of the answer, then one more object with this error, as a server adds it.
    AppendError(String),
    /// Forwards so many objects, then one with this error, as a query that is killed ends.
    ErrorAfter { objects: usize, text: String },
    /// The server is asked for JSON, whatever the client accepts.
    RefuseMsgpack,
}

impl Fault {
    /// [`Fault::Status`] with a `Retry-After` of so many seconds.
    pub(crate) fn busy(code: u16, retry_after: u32) -> Self {
        let headers = vec![("Retry-After".to_owned(), retry_after.to_string())];
        Self::Status { code, headers, body: r#"{"error":"too busy"}"#.to_owned() }
    }
}

type Predicate = Box<dyn Fn(&str) -> bool + Send>;

/// What a test does at a request, with how many more times it does.
struct Action {
    matches: Predicate,
    times: usize,
    act: Arc<dyn Fn() + Send + Sync>,
}

struct Rule {
    matches: Predicate,
    times: usize,
    fault: Fault,
}

#[derive(Default)]
struct State {
    rules: Mutex<Vec<Rule>>,
    actions: Mutex<Vec<Action>>,
    requests: Mutex<Vec<Request>>,
    open: Mutex<HashMap<usize, TcpStream>>,
    fired: AtomicUsize,
    stopping: AtomicBool,
}

/// What the proxy was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    /// `POST /query`: without the query of the URL.
    pub(crate) line: String,
    /// The parameter `q`, decoded, from the URL or a form.
    pub(crate) query: Option<String>,
}

impl Request {
    /// What predicates see: the query where there is one, else the line.
    fn text(&self) -> &str {
        self.query.as_deref().unwrap_or(&self.line)
    }
}

/// The running proxy.
pub(crate) struct Proxy {
    address: SocketAddr,
    state: Arc<State>,
    listener: Option<thread::JoinHandle<()>>,
}

impl Proxy {
    /// In front of this server. It finds it again after a restart.
    pub(crate) fn before(server: &Influxd) -> Self {
        Self::to(server.address())
    }

    pub(crate) fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        let listener = thread::spawn(move || {
            for (id, client) in listener.incoming().enumerate() {
                if shared.stopping.load(Ordering::SeqCst) {
                    return;
                }
                let (Ok(client), shared) = (client, Arc::clone(&shared)) else { continue };
                let Ok(twin) = client.try_clone() else { continue };
                lock(&shared.open).insert(id, twin);
                thread::spawn(move || {
                    // Whoever hangs up breaks the forwarding, which is no fault of the test.
                    let _ = serve(&client, server, &shared);
                    lock(&shared.open).remove(&id);
                });
            }
        });
        Self { address, state, listener: Some(listener) }
    }

    /// Does this to the next `times` requests that match; `usize::MAX` for all. The predicate sees
    /// the text of the query, or `POST /write`, `GET /ping` where there is none. The first rule that
    /// matches and has some times left is used.
    pub(crate) fn fault(
        &self,
        matches: impl Fn(&str) -> bool + Send + 'static,
        times: usize,
        fault: Fault,
    ) {
        lock(&self.state.rules).push(Rule { matches: Box::new(matches), times, fault });
    }

    /// Does something of the test's own at the next `times` requests that match, before the server sees them.
    pub(crate) fn before_each(
        &self,
        matches: impl Fn(&str) -> bool + Send + 'static,
        times: usize,
        act: impl Fn() + Send + Sync + 'static,
    ) {
        let action = Action { matches: Box::new(matches), times, act: Arc::new(act) };
        lock(&self.state.actions).push(action);
    }

    /// Forgets all faults that are left.
    pub(crate) fn heal(&self) {
        lock(&self.state.rules).clear();
    }

    /// How many requests have got a fault that changed something. A test that relies on a fault
    /// should assert this: one that came after the end of an answer does not count.
    pub(crate) fn fired(&self) -> usize {
        self.state.fired.load(Ordering::SeqCst)
    }

    /// The text of every query so far, in order.
    pub(crate) fn queries(&self) -> Vec<String> {
        self.requests().into_iter().filter_map(|request| request.query).collect()
    }

    /// Everything that was asked so far, in order.
    pub(crate) fn requests(&self) -> Vec<Request> {
        lock(&self.state.requests).clone()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its address as a source.
    pub(crate) fn url(&self) -> String {
        format!("influxdb+http://{}", self.address)
    }

    /// Its address as HTTP.
    pub(crate) fn http(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.state.stopping.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address); // wakes the listener
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
        for client in lock(&self.state.open).values() {
            let _ = client.shutdown(Shutdown::Both);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Serves one connection with one request.
///
/// The last byte of the request stays unread until the answer has ended well: a socket that is closed
/// with unread bytes resets its connection, which is the only way to send a RST with std.
fn serve(mut client: &TcpStream, server: SocketAddr, state: &State) -> io::Result<()> {
    client.set_nodelay(true)?;
    let Some(mut head) = Head::read(&mut client)? else { return Ok(()) };
    let body = read_request_body(client, &head)?;
    let request = describe(&head, &body);
    let fault = take_fault(state, request.text());
    if let Some(act) = take_action(state, request.text()) {
        act();
    }
    lock(&state.requests).push(request);
    let count = || state.fired.fetch_add(1, Ordering::SeqCst);

    match &fault {
        Some(Fault::Close) => {
            count();
            return close(client);
        }
        Some(Fault::Status { code, headers, body }) => {
            count();
            let first_line = format!("HTTP/1.1 {code} Injected");
            let mut head = Head { first_line, headers: headers.clone() };
            head.push("Content-Length", body.len());
            head.push("Connection", "close");
            client.write_all(&[&head.to_bytes(), body.as_bytes()].concat())?;
            return close(client);
        }
        Some(Fault::RefuseMsgpack) => {
            count();
            head.remove(&["Accept"]);
            head.push("Accept", "application/json");
        }
        _ => {}
    }

    let Ok((mut answer, mut reader)) = ask(&mut head, &body, server) else { return close(client) };
    let with_body = has_body(&answer, &head.first_line);
    let mut content = Body::of_answer(&answer, &head.first_line, &mut reader);
    answer.remove(&["Content-Length", "Transfer-Encoding", "Connection", "Keep-Alive"]);
    answer.push("Connection", "close");
    if with_body {
        answer.push("Transfer-Encoding", "chunked");
    }
    client.write_all(&answer.to_bytes())?;
    if !with_body {
        return close(client);
    }

    let json = answer.get("content-type").is_some_and(|kind| kind.contains("json"));
    let edited = match &fault {
        Some(Fault::KeepObjects(keep)) => Some((*keep, None)),
        Some(Fault::AppendError(text)) => Some((usize::MAX, Some(text))),
        Some(Fault::ErrorAfter { objects, text }) => Some((*objects, Some(text))),
        _ => None,
    };
    if let Some((keep, error)) = edited {
        let (all, end) = content.all();
        end?;
        let objects = objects(&all, json);
        let kept = objects.get(keep).map_or(all.len(), |next| next.start);
        let mut bytes = all[..kept].to_vec();
        bytes.extend(error.map(|text| error_object(text, json)).unwrap_or_default());
        if bytes != all {
            count();
        }
        send_chunk(client, &bytes)?;
        return end_of_chunks(client);
    }

    let mut budget = match &fault {
        Some(
            Fault::Reset { after }
            | Fault::Cut { after }
            | Fault::Truncate { after }
            | Fault::Stall { after, .. },
        ) => Some(*after),
        _ => None,
    };
    let mut buffer = vec![0; 1 << 16];
    loop {
        let read = content.next(&mut buffer)?;
        let now = budget.map_or(read, |left| read.min(usize::try_from(left).unwrap_or(read)));
        send_chunk(client, &buffer[..now])?;
        if let Some(left) = &mut budget {
            *left -= now as u64;
        }
        let ended = read == 0;
        match &fault {
            Some(Fault::Reset { .. }) if ended || now < read => {
                count();
                // What was sent shall arrive first: a reset throws away what is still under way.
                thread::sleep(Duration::from_millis(50));
                return Ok(());
            }
            Some(Fault::Cut { .. }) if ended || now < read => {
                count();
                return close(client);
            }
            Some(Fault::Truncate { .. }) if now < read => {
                count();
                return end_of_chunks(client);
            }
            Some(Fault::Stall { pause, .. }) if now < read => {
                count();
                let until = Instant::now() + *pause;
                while Instant::now() < until && !state.stopping.load(Ordering::SeqCst) {
                    thread::sleep(Duration::from_millis(10));
                }
                send_chunk(client, &buffer[now..read])?;
                budget = None;
            }
            _ if ended => return end_of_chunks(client),
            _ => {}
        }
    }
}

/// All of the request's body; its last byte, or else that of the head, is only peeked at.
fn read_request_body(mut client: &TcpStream, head: &Head) -> io::Result<Vec<u8>> {
    let length = head.get("content-length").map_or(Ok(0), str::parse).map_err(io::Error::other)?;
    if head.get("transfer-encoding").is_some() {
        client.read_exact(&mut [0])?;
        let (body, end) = Body::chunked(&mut client).all();
        return end.map(|()| body); // nothing is left unread: `Fault::Reset` is a cut here
    }
    if length == 0 {
        return Ok(Vec::new());
    }
    client.read_exact(&mut [0])?;
    let mut body = vec![0; length];
    client.read_exact(&mut body[..length - 1])?;
    match client.peek(&mut body[length - 1..])? {
        0 => Err(ErrorKind::UnexpectedEof.into()),
        _ => Ok(body),
    }
}

/// Reads the last byte of the request, and closes in the orderly way.
fn close(mut client: &TcpStream) -> io::Result<()> {
    // The byte is there already, but for a request with a chunked body.
    client.set_read_timeout(Some(Duration::from_millis(200)))?;
    let _ = client.read(&mut [0]);
    client.shutdown(Shutdown::Write)
}

fn describe(head: &Head, body: &[u8]) -> Request {
    let mut words = head.first_line.split(' ');
    let method = words.next().unwrap_or_default();
    let target = words.next().unwrap_or_default();
    let (path, url_query) = target.split_once('?').unwrap_or((target, ""));
    let is_form = head.get("content-type").is_some_and(|kind| kind.contains("form-urlencoded"));
    let form: &[u8] = if is_form { body } else { b"" };
    let query = [url_query.as_bytes(), form].into_iter().find_map(|pairs| {
        let mut pairs = url::form_urlencoded::parse(pairs);
        pairs.find(|pair| pair.0 == "q").map(|pair| pair.1.into_owned())
    });
    Request { line: format!("{method} {path}"), query }
}

fn take_fault(state: &State, text: &str) -> Option<Fault> {
    let mut rules = lock(&state.rules);
    let rule = rules.iter_mut().find(|rule| rule.times > 0 && (rule.matches)(text))?;
    rule.times -= 1;
    Some(rule.fault.clone())
}

fn take_action(state: &State, text: &str) -> Option<Arc<dyn Fn() + Send + Sync>> {
    let mut actions = lock(&state.actions);
    let action = actions.iter_mut().find(|action| action.times > 0 && (action.matches)(text))?;
    action.times -= 1;
    Some(Arc::clone(&action.act))
}

/// Asks the server; returns the head of its answer, and where its body is to be read.
fn ask(
    head: &mut Head,
    body: &[u8],
    server: SocketAddr,
) -> io::Result<(Head, BufReader<TcpStream>)> {
    head.remove(&["Connection", "Keep-Alive", "Content-Length", "Transfer-Encoding"]);
    head.remove(&["Accept-Encoding", "Expect"]);
    head.push("Connection", "close");
    head.push("Content-Length", body.len());
    let mut stream = TcpStream::connect(server)?;
    stream.write_all(&[&head.to_bytes(), body].concat())?;
    let mut reader = BufReader::with_capacity(1 << 16, stream);
    let answer = Head::read(&mut reader)?.ok_or(ErrorKind::UnexpectedEof)?;
    reader.read_exact(&mut [0])?;
    Ok((answer, reader))
}

fn send_chunk(mut client: &TcpStream, bytes: &[u8]) -> io::Result<()> {
    if bytes.is_empty() {
        return Ok(()); // an empty chunk would be the end
    }
    client.write_all(&[format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat())
}

fn end_of_chunks(mut client: &TcpStream) -> io::Result<()> {
    client.write_all(b"0\r\n\r\n")?;
    close(client)
}

/// An error as InfluxDB 1.x ends an answer with it: without an id in msgpack, with one in JSON.
fn error_object(text: &str, json: bool) -> Vec<u8> {
    if json {
        let text = serde_json::to_string(text).unwrap();
        let line = format!("{{\"results\":[{{\"statement_id\":0,\"error\":{text}}}]}}\n");
        return line.into_bytes();
    }
    let length = u16::try_from(text.len()).unwrap().to_be_bytes();
    [b"\x81\xa7results\x91\x81\xa5error\xda", &length[..], text.as_bytes()].concat()
}

/// Where the objects of an answer lie in it.
pub(crate) fn objects(bytes: &[u8], json: bool) -> Vec<std::ops::Range<usize>> {
    let mut objects = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let end = match json {
            true => bytes[at..].iter().position(|b| *b == b'\n').map(|newline| at + newline + 1),
            false => skip(bytes, at),
        };
        let end = end.unwrap_or(bytes.len());
        objects.push(at..end);
        at = end;
    }
    objects
}

/// The end of the msgpack value at `at`; `None` where the bytes end before it.
fn skip(bytes: &[u8], at: usize) -> Option<usize> {
    let number = |width: usize| -> Option<usize> {
        let digits = bytes.get(at + 1..at + 1 + width)?;
        Some(digits.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    };
    let (start, values) = match *bytes.get(at)? {
        b @ 0x80..=0x8f => (at + 1, 2 * usize::from(b & 15)),
        b @ 0x90..=0x9f => (at + 1, usize::from(b & 15)),
        b @ 0xa0..=0xbf => (at + 1 + usize::from(b & 31), 0),
        b @ (0xc4..=0xc6 | 0xd9..=0xdb) => {
            let width = 1 << (if b < 0xd0 { b - 0xc4 } else { b - 0xd9 });
            (at + 1 + width + number(width)?, 0)
        }
        b @ 0xc7..=0xc9 => {
            let width = 1 << (b - 0xc7);
            (at + 2 + width + number(width)?, 0)
        }
        0xca | 0xce | 0xd2 => (at + 5, 0),
        0xcb | 0xcf | 0xd3 => (at + 9, 0),
        0xcc | 0xd0 => (at + 2, 0),
        0xcd | 0xd1 => (at + 3, 0),
        b @ 0xd4..=0xd8 => (at + 2 + (1 << (b - 0xd4)), 0),
        b @ (0xdc | 0xdd) => (at + if b == 0xdc { 3 } else { 5 }, number(2 << (b - 0xdc))?),
        b @ (0xde | 0xdf) => (at + if b == 0xde { 3 } else { 5 }, 2 * number(2 << (b - 0xde))?),
        _ => (at + 1, 0),
    };
    let end = (0..values).try_fold(start, |at, _| skip(bytes, at))?;
    (end <= bytes.len()).then_some(end)
}
