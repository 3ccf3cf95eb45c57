//! The processes of the system: their groups, their descendants, and which of them listens on a port. Without `/proc`, only
//! groups are known.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process, kill_process_group, test_kill_process_group};

/// How long programs may take to end after SIGINT. Some wait 5 s themselves for what they started.
const GENTLE: Duration = Duration::from_secs(6);
/// How long the system may take to end programs after SIGKILL.
const FORCED: Duration = Duration::from_secs(3);
/// The pause between two checks.
const LOOK: Duration = Duration::from_millis(10);
/// How often a port that a stranger seems to have is checked.
const LOOKS: u32 = 10;
/// The state of a socket that listens, in `/proc/net/tcp`.
const LISTENS: &str = "0A";

/// Whether no process is left in a group.
pub(super) fn is_empty(group: Pid) -> bool {
    test_kill_process_group(group) == Err(Errno::SRCH)
}

/// Ends a group, and the descendants of `root` outside of it: first as Ctrl-C does, later by force.
pub(super) fn end(group: Pid, root: Option<Pid>, mut is_gone: impl FnMut() -> bool) {
    if is_gone() {
        return;
    }
    let mut wait = |signal: Signal, patience: Duration, again: bool| {
        let deadline = Instant::now() + patience;
        send(signal, group, root);
        while Instant::now() < deadline {
            if is_gone() {
                return true;
            }
            thread::sleep(LOOK);
            if again {
                send(signal, group, root);
            }
        }
        is_gone()
    };
    // Killed processes cannot start others, but those that they had started may become visible only later.
    let _ = wait(Signal::INT, GENTLE, false) || wait(Signal::KILL, FORCED, true);
}

/// Sends a signal, whose failure only means that a process is gone already.
fn send(signal: Signal, group: Pid, root: Option<Pid>) {
    let _ = kill_process_group(group, signal);
    let others = root.map(descendants).unwrap_or_default();
    for process in others.iter().filter(|process| process.group != group.as_raw_pid()) {
        if let Some(pid) = Pid::from_raw(process.pid) {
            let _ = kill_process(pid, signal);
        }
    }
}

struct Process {
    pid: i32,
    parent: i32,
    group: i32,
}

/// All descendants of a process.
fn descendants(root: Pid) -> Vec<Process> {
    let mut children = HashMap::<i32, Vec<Process>>::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        if let Some(process) = process(&entry.path()) {
            children.entry(process.parent).or_default().push(process);
        }
    }
    let (mut found, mut open) = (Vec::new(), vec![root.as_raw_pid()]);
    while let Some(parent) = open.pop() {
        let of = children.remove(&parent).unwrap_or_default();
        open.extend(of.iter().map(|process| process.pid));
        found.extend(of);
    }
    found
}

fn process(path: &std::path::Path) -> Option<Process> {
    let pid = path.file_name()?.to_str()?.parse().ok()?;
    let stat = fs::read(path.join("stat")).ok()?;
    let stat = String::from_utf8_lossy(&stat);
    // The name of the program, in parentheses, may contain anything.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(1);
    let mut number = || fields.next()?.parse().ok();
    Some(Process { pid, parent: number()?, group: number()? })
}

/// Who listens on a local port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// Nobody.
    Nobody,
    /// The program, or something that it started.
    Ours,
    /// Another process.
    Stranger,
    /// Somebody, but the system or the rights of a process hide who.
    Unknown,
}

/// Who listens on a port for connections to 127.0.0.1, from the point of view of a program's supervisor. For a moment, a
/// process that is ending still has its sockets but does not show them, so a stranger is checked several times.
pub(super) fn holder(port: u16, supervisor: Pid) -> Holder {
    for _ in 0..LOOKS {
        match seen(port, supervisor) {
            Holder::Stranger => thread::sleep(LOOK),
            known => return known,
        }
    }
    Holder::Stranger
}

fn seen(port: u16, supervisor: Pid) -> Holder {
    let Some(sockets) = listeners(port) else {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let connected = TcpStream::connect_timeout(&address, Duration::from_secs(1));
        return if connected.is_ok() { Holder::Unknown } else { Holder::Nobody };
    };
    if sockets.is_empty() {
        return Holder::Nobody;
    }
    let (mut ours, mut is_hidden) = (HashSet::new(), false);
    for process in descendants(supervisor) {
        match fs::read_dir(PathBuf::from(format!("/proc/{}/fd", process.pid))) {
            Ok(files) => {
                let targets = files.flatten().filter_map(|file| fs::read_link(file.path()).ok());
                ours.extend(targets.filter_map(|target| {
                    let socket = target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
                    socket.parse::<u64>().ok()
                }));
            }
            Err(error) => is_hidden |= error.kind() == std::io::ErrorKind::PermissionDenied,
        }
    }
    match (sockets.iter().all(|socket| ours.contains(socket)), is_hidden) {
        (true, _) => Holder::Ours,
        (false, true) => Holder::Unknown,
        (false, false) => Holder::Stranger,
    }
}

/// The sockets that accept connections to a port of 127.0.0.1; `None` if the system does not show them.
fn listeners(port: u16) -> Option<Vec<u64>> {
    let old = fs::read_to_string("/proc/net/tcp").ok()?;
    let new = fs::read_to_string("/proc/net/tcp6").unwrap_or_default(); // there may be no IPv6
    let mut found: Vec<(bool, u64)> =
        old.lines().chain(new.lines()).filter_map(|line| listener(line, port)).collect();
    // The system prefers a socket that listens on this very address.
    if found.iter().any(|(is_exact, _)| *is_exact) {
        found.retain(|(is_exact, _)| *is_exact);
    }
    Some(found.into_iter().map(|(_, socket)| socket).collect())
}

/// A listening socket, and whether it listens on 127.0.0.1 and not on all addresses.
fn listener(line: &str, port: u16) -> Option<(bool, u64)> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let (address, at) = fields.get(1)?.split_once(':')?;
    if fields.get(3) != Some(&LISTENS) || u16::from_str_radix(at, 16) != Ok(port) {
        return None;
    }
    // Each word is written in the byte order of the machine.
    let word = |at: usize| u32::from_str_radix(address.get(at..at + 8)?, 16).ok();
    let words = (0..address.len()).step_by(8).map(word).collect::<Option<Vec<u32>>>()?;
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let address = match <[u8; 16]>::try_from(bytes.as_slice()) {
        Ok(bytes) if Ipv6Addr::from(bytes).is_unspecified() => Ipv4Addr::UNSPECIFIED,
        Ok(bytes) => Ipv6Addr::from(bytes).to_ipv4_mapped()?,
        Err(_) => Ipv4Addr::from(<[u8; 4]>::try_from(bytes.as_slice()).ok()?),
    };
    let is_exact = address == Ipv4Addr::LOCALHOST;
    (is_exact || address.is_unspecified())
        .then(|| Some((is_exact, fields.get(9)?.parse().ok()?)))?
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use rustix::process::getpid;

    use super::*;

    #[test]
    fn the_holder_of_a_port_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        // This process listens, and is not its own descendant.
        assert_eq!(holder(port, getpid()), Holder::Stranger);
        drop(listener);
        assert_eq!(holder(port, getpid()), Holder::Nobody);
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn only_sockets_that_accept_local_connections_count() {
        let line = |address: &str, state: &str| {
            let tail =
                "00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0";
            format!("   0: {address}:1F90 00000000:0000 {state} {tail}")
        };
        let old = |address: &str, state| listener(&line(address, state), 8080);
        assert_eq!(old("0100007F", "0A"), Some((true, 4711)));
        assert_eq!(old("00000000", "0A"), Some((false, 4711)));
        assert_eq!(old("0100007F", "01"), None);
        assert_eq!(old("0101A8C0", "0A"), None);
        assert_eq!(old(&"0".repeat(32), "0A"), Some((false, 4711)));
        assert_eq!(old("0000000000000000FFFF00000100007F", "0A"), Some((true, 4711)));
        assert_eq!(old("00000000000000000000000001000000", "0A"), None);
        assert_eq!(listener(&line("0100007F", "0A"), 8081), None);
        assert_eq!(listener("  sl  local_address rem_address   st", 8080), None);
    }
}
