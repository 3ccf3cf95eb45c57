//! A real Slurm of its own for a test: two nodes that are this machine, free loopback ports, a temporary folder, gone on
//! drop with all of its jobs. It needs no root and no systemd; whoever runs the test runs the jobs.

use std::fs::{self, File};
use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::support::{program, server};

/// What the daemons may take to be ready, and jobs to go.
const PATIENCE: Duration = Duration::from_secs(30);
const NODES: [&str; 2] = ["n1", "n2"];

/// The running daemons.
pub(crate) struct Slurm {
    folder: TempDir,
    daemons: Vec<Child>,
}

impl Slurm {
    /// Starts it with these settings besides the usual ones. `None` if it is not installed, which is said.
    pub(crate) fn start(settings: &str) -> Option<Self> {
        if !["slurmctld", "slurmd", "munged"].iter().all(|name| daemon(name).exists()) {
            return server::skipped("Slurm");
        }
        for _ in 0..5 {
            let slurm = Self::launch(settings);
            if slurm.is_ready() {
                return Some(slurm);
            }
            // A port was taken; or else the next one fails, too.
            let _ = std::io::stderr().write_all(slurm.log().as_bytes());
        }
        panic!("Slurm does not start");
    }

    fn launch(settings: &str) -> Self {
        let folder = TempDir::with_prefix("slurm-").unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in ["munge", "state", "spool", "log"] {
            fs::create_dir(path(name)).unwrap();
        }
        fs::set_permissions(path("munge"), fs::Permissions::from_mode(0o755)).unwrap();
        let key: Vec<u8> = (0..128).map(|_| fastrand::u8(..)).collect();
        fs::write(path("munge/key"), key).unwrap();
        fs::set_permissions(path("munge/key"), fs::Permissions::from_mode(0o400)).unwrap();
        fs::write(path("slurm.conf"), configuration(folder.path(), settings)).unwrap();

        let mut slurm = Self { folder, daemons: Vec::new() };
        let file = |name: &str| format!("{}/munge/{name}", slurm.folder.path().display());
        let munge = [
            "--foreground".to_owned(),
            "--force".to_owned(),
            format!("--key-file={}", file("key")),
            format!("--socket={}", file("socket")),
            format!("--pid-file={}", file("pid")),
            format!("--log-file={}", file("log")),
            format!("--seed-file={}", file("seed")),
        ];
        slurm.daemon("munged", &munge);
        wait("munged", || slurm.folder.path().join("munge/socket").exists());
        slurm.daemon("slurmctld", &["-D".to_owned()]);
        for node in NODES {
            slurm.daemon("slurmd", &["-D".to_owned(), "-N".to_owned(), node.to_owned()]);
        }
        slurm
    }

    fn daemon(&mut self, name: &str, args: &[String]) {
        let log = File::create(self.folder.path().join(format!("log/{name}.stderr"))).unwrap();
        let mut command = self.command(daemon(name));
        command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.daemons.push(command.spawn().unwrap());
    }

    fn is_ready(&self) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let states = self.try_ask("sinfo", &["-h", "-N", "-o", "%T"]);
            if states.is_ok_and(|states| {
                states.lines().filter(|state| *state == "idle").count() == NODES.len()
            }) {
                return true;
            }
            thread::sleep(Duration::from_millis(100));
        }
        false
    }

    /// A program that knows this Slurm.
    pub(crate) fn command(&self, name: impl Into<PathBuf>) -> Command {
        let mut command = server::clean(name, &self.folder);
        command.env("SLURM_CONF", self.folder.path().join("slurm.conf"));
        command
    }

    /// What one of Slurm's programs prints.
    #[track_caller]
    pub(crate) fn ask(&self, name: &str, args: &[&str]) -> String {
        self.try_ask(name, args)
            .unwrap_or_else(|error| panic!("{name} {args:?}: {error}\n{}", self.log()))
    }

    fn try_ask(&self, name: &str, args: &[&str]) -> Result<String, String> {
        let mut command = self.command(name);
        command.args(args);
        server::feed(command, "")
    }

    /// The state and the exit status of a job, or of a task of an array (`12_3`).
    pub(crate) fn job(&self, id: &str) -> (String, String) {
        let shown = self.ask("scontrol", &["--oneliner", "show", "job", id]);
        let value = |key: &str| {
            let found = shown.split_whitespace().find_map(|word| word.strip_prefix(key));
            found.unwrap_or_else(|| panic!("no {key} in {shown}")).to_owned()
        };
        (value("JobState="), value("ExitCode="))
    }

    /// What the controller and the nodes have logged.
    pub(crate) fn log(&self) -> String {
        let logs = fs::read_dir(self.folder.path().join("log")).into_iter().flatten().flatten();
        logs.map(|log| fs::read_to_string(log.path()).unwrap_or_default()).collect()
    }
}

impl Drop for Slurm {
    fn drop(&mut self) {
        // The supervisors of jobs are no children of the nodes, and end with their jobs.
        let user = said("id", &["-un"]);
        let _ = self.try_ask("scancel", &["--user", &user]);
        let _ = self.try_ask("scancel", &["--signal=KILL", "--full", "--user", &user]);
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline
            && self.try_ask("squeue", &["-h"]).is_ok_and(|jobs| !jobs.is_empty())
        {
            thread::sleep(Duration::from_millis(100));
        }
        // A controller that is killed leaves a child behind.
        for daemon in &self.daemons {
            program::signal(daemon, "TERM");
        }
        let deadline = Instant::now() + PATIENCE;
        for daemon in &mut self.daemons {
            while daemon.try_wait().is_ok_and(|ended| ended.is_none()) && Instant::now() < deadline
            {
                thread::sleep(Duration::from_millis(20));
            }
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

/// A daemon, which may lie where only root looks.
fn daemon(name: &str) -> PathBuf {
    Path::new("/usr/sbin").join(name)
}

fn configuration(folder: &Path, settings: &str) -> String {
    let (host, user) = (said("hostname", &["-s"]), said("id", &["-un"]));
    let [controller, first, second] = free_ports();
    let [one, two] = NODES;
    let folder = folder.display();
    format!(
        "ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/log/slurmctld
SlurmdLogFile={folder}/log/slurmd.%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
KillWait=5
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SchedulerParameters=sched_interval=1,sched_min_interval=0,batch_sched_delay=0
SlurmdParameters=config_overrides
NodeName={one} NodeHostname={host} NodeAddr=127.0.0.1 Port={first} CPUs=4 RealMemory=4096 State=UNKNOWN
NodeName={two} NodeHostname={host} NodeAddr=127.0.0.1 Port={second} CPUs=4 RealMemory=4096 State=UNKNOWN
PartitionName=main Nodes={one},{two} Default=YES MaxTime=INFINITE State=UP
{settings}
"
    )
}

/// What a program of the system prints.
fn said(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Ports below those which the system gives to clients.
fn free_ports<const N: usize>() -> [u16; N] {
    let mut held: Vec<TcpListener> = Vec::new();
    while held.len() < N {
        held.extend(TcpListener::bind((Ipv4Addr::LOCALHOST, fastrand::u16(10_000..30_000))));
    }
    let ports: Vec<u16> = held.iter().map(|port| port.local_addr().unwrap().port()).collect();
    ports.try_into().unwrap()
}

fn wait(what: &str, is_there: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_there() {
        assert!(Instant::now() < deadline, "{what} does not start");
        thread::sleep(Duration::from_millis(20));
    }
}
