//! A program of others that is started under a supervisor: what it says, how it ended, and that nothing of it is left,
//! whoever dies first.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

use std::fs;
use std::io::{ErrorKind, Read};
use std::process::Command;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use moveout::source::child::{self, Child, Exit, Line, Output, Stream};

/// More than a supervisor takes to end what ignores it.
const PATIENCE: Duration = Duration::from_secs(15);

fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

fn start(command: &Command, output: Output) -> (Child, Receiver<Line>) {
    child::supervised_by(env!("CARGO_BIN_EXE_moveout"));
    let (sender, lines) = mpsc::channel();
    let child = Child::start(command, output, move |line| {
        let _ = sender.send(line);
    });
    (child.unwrap(), lines)
}

/// Waits for a line that begins so; returns the rest of it.
#[track_caller]
fn said(lines: &Receiver<Line>, begin: &str) -> String {
    loop {
        let line = lines.recv_timeout(PATIENCE).unwrap();
        if let Some(rest) = line.text.strip_prefix(begin) {
            return rest.trim().to_owned();
        }
    }
}

fn lives(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with('Z'))
}

#[track_caller]
fn is_gone(pid: &str, within: Duration) {
    let deadline = Instant::now() + within;
    while lives(pid) {
        assert!(Instant::now() < deadline, "process {pid} is left behind");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn both_streams_come_as_lines_and_the_status_at_the_end() {
    let (child, lines) =
        start(&shell("echo out; echo err >&2; printf last; exit 3"), Output::Lines);
    assert_eq!(child.wait(), Exit::Code(3));
    let mut found: Vec<_> = lines.iter().map(|line| (line.from, line.text)).collect();
    found.sort_by_key(|(from, _)| *from == Stream::Stderr);
    let line = |from, text: &str| (from, text.to_owned());
    let out = Stream::Stdout;
    assert_eq!(found, [line(out, "out"), line(out, "last"), line(Stream::Stderr, "err")]);
    assert!(child.stdout().is_none() && child.exit() == Some(Exit::Code(3)));
}

#[test]
fn raw_output_is_byte_for_byte_the_programs() {
    let script = "echo said >&2; head -c 3000000 /dev/zero; printf 'e\\377\\nc0\\n'";
    let (child, lines) = start(&shell(script), Output::Raw);
    let mut bytes = Vec::new();
    child.stdout().unwrap().read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes.len(), 3_000_000 + 6);
    assert!(bytes.ends_with(b"\0e\xff\nc0\n"));
    assert_eq!(child.wait(), Exit::Code(0));
    assert_eq!(lines.iter().map(|line| line.text).collect::<Vec<_>>(), ["said"]);
}

#[test]
fn a_program_that_is_not_there_is_said_at_once() {
    child::supervised_by(env!("CARGO_BIN_EXE_moveout"));
    let error = Child::start(&Command::new("no-such-program"), Output::Lines, |_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let error = Child::start(&Command::new("/etc/passwd"), Output::Lines, |_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
}

#[test]
fn a_signal_is_no_exit_status() {
    let (child, _lines) = start(&shell("kill -KILL $$"), Output::Lines);
    assert_eq!(child.wait(), Exit::Signal(9));
}

#[test]
fn environment_and_folder_are_the_commands() {
    let mut command =
        shell("echo $SECRET-${HOME-none} in $PWD; ls -l /proc/self/fd/0 | sed 's/.*-> //'");
    command.env("SECRET", "geheim").env_remove("HOME").current_dir("/usr");
    let (child, lines) = start(&command, Output::Lines);
    assert_eq!(child.wait(), Exit::Code(0));
    let lines: Vec<String> = lines.iter().map(|line| line.text).collect();
    assert_eq!(lines, ["geheim-none in /usr", "/dev/null"]);
}

#[test]
fn there_is_no_terminal_to_ask_for_a_password() {
    let (child, _lines) = start(&shell("exec < /dev/tty"), Output::Lines);
    assert!(matches!(child.wait(), Exit::Code(1..)));
}

#[test]
fn a_program_is_ended_as_by_ctrl_c_and_can_say_goodbye() {
    let script =
        "trap 'echo Closing tunnel >&2; exit 7' INT; echo up; while :; do sleep 0.05; done";
    let (child, lines) = start(&shell(script), Output::Lines);
    said(&lines, "up");
    let began = Instant::now();
    assert_eq!(child.stop(), Exit::Code(7));
    assert!(began.elapsed() < Duration::from_secs(5));
    said(&lines, "Closing tunnel");
}

/// So many processes that have said their number.
#[track_caller]
fn pids<const COUNT: usize>(lines: &Receiver<Line>) -> [String; COUNT] {
    std::array::from_fn(|_| said(lines, "pid"))
}

#[test]
fn who_ignores_it_is_killed_with_what_it_started() {
    let stubborn = "trap '' INT HUP; echo pid $$; while :; do sleep 0.1; done";
    let (child, lines) = start(&shell(&format!("({stubborn}) & {stubborn}")), Output::Lines);
    let pids = pids::<2>(&lines);
    let began = Instant::now();
    assert_eq!(child.stop(), Exit::Signal(9));
    assert!((Duration::from_secs(5)..PATIENCE).contains(&began.elapsed()));
    assert!(!pids.iter().any(|pid| lives(pid)));
}

#[test]
fn what_a_dead_program_leaves_behind_is_ended_before_its_end_is_told() {
    let (child, lines) = start(&shell("sleep 300 & echo pid $!; exit 5"), Output::Lines);
    let [sleep] = pids(&lines);
    assert_eq!(child.wait(), Exit::Code(5));
    assert!(!lives(&sleep));
}

#[test]
fn who_has_left_the_group_is_found_all_the_same() {
    // As `ssh -f` does: in the background, in a session of its own, and nobody waits for it.
    let script = "setsid sh -c 'echo pid $$; trap \"\" INT; while :; do sleep 0.1; done' & sleep 0.5; exit 0";
    let (child, lines) = start(&shell(script), Output::Lines);
    let [far] = pids(&lines);
    assert_eq!(child.wait(), Exit::Code(0));
    assert!(!lives(&far));
}

#[test]
fn nobody_needs_to_wait_for_the_end() {
    let (child, lines) = start(&shell("echo pid $$; sleep 300"), Output::Lines);
    let [shell] = pids(&lines);
    drop(child);
    is_gone(&shell, PATIENCE);
}

#[test]
fn a_panic_ends_it() {
    let (sender, pid) = mpsc::channel();
    let panicking = thread::spawn(move || {
        let (_child, lines) = start(&shell("echo pid $$; sleep 300"), Output::Lines);
        sender.send(pids::<1>(&lines)).unwrap();
        panic!("on purpose");
    });
    assert!(panicking.join().is_err());
    let [shell] = pid.recv().unwrap();
    is_gone(&shell, PATIENCE);
}

#[test]
fn a_killed_supervisor_leaves_nothing_and_its_program_did_not_end_well() {
    let (child, lines) = start(&shell("echo pid $PPID; echo pid $$; sleep 300"), Output::Lines);
    let [supervisor, shell] = pids(&lines);
    let kill = Command::new("kill").args(["-KILL", &supervisor]).status();
    assert!(kill.unwrap().success());
    assert_eq!(child.wait(), Exit::Lost);
    is_gone(&shell, Duration::from_secs(1));
}

#[test]
fn a_supervisor_that_is_asked_to_end_ends_all() {
    let (child, lines) = start(&shell("echo pid $PPID; echo pid $$; sleep 300"), Output::Lines);
    let [supervisor, shell] = pids(&lines);
    assert!(Command::new("kill").arg(supervisor).status().unwrap().success());
    assert_eq!(child.wait(), Exit::Signal(2));
    is_gone(&shell, Duration::from_secs(1));
}

#[test]
fn a_flood_holds_up_nobody() {
    let script =
        "head -c 20000000 /dev/zero >&2; echo >&2; yes flood | head -n 200000 >&2; echo done";
    let (child, lines) = start(&shell(script), Output::Raw);
    let mut bytes = Vec::new();
    child.stdout().unwrap().read_to_end(&mut bytes).unwrap();
    assert_eq!((bytes.as_slice(), child.wait()), (&b"done\n"[..], Exit::Code(0)));
    let flood = lines.iter().filter(|line| line.text == "flood").count();
    assert_eq!(flood, 200_000);
}

#[test]
fn a_reader_that_goes_away_ends_what_writes() {
    let (child, lines) = start(&shell("echo pid $$ >&2; exec yes"), Output::Raw);
    let [yes] = pids(&lines);
    drop(child.stdout());
    assert_eq!(child.wait(), Exit::Signal(13));
    assert!(!lives(&yes));
}

#[test]
fn what_a_terminal_obeys_is_not_shown() {
    let (child, lines) = start(&shell(r"printf '\033[2Jcleared\r\n'"), Output::Lines);
    child.wait();
    assert_eq!(lines.recv().unwrap().to_string(), "\\u{1b}[2Jcleared");
}

#[test]
fn who_listens_on_a_port_is_told_apart() {
    use moveout::source::child::Holder;
    let listen = "import socket, time
server = socket.socket(); server.bind(('127.0.0.1', 0)); server.listen()
print('port', server.getsockname()[1], flush=True); time.sleep(300)";
    let mut python = Command::new("python3");
    python.args(["-c", listen]);
    let ((ours, ours_says), (other, other_says)) =
        (start(&python, Output::Lines), start(&python, Output::Lines));
    let port = |lines| said(lines, "port").parse::<u16>().unwrap();
    let (own, others) = (port(&ours_says), port(&other_says));
    assert_eq!((ours.holder(own), ours.holder(others)), (Holder::Ours, Holder::Stranger));
    ours.stop();
    assert_eq!((ours.holder(own), other.holder(others)), (Holder::Nobody, Holder::Ours));
}
