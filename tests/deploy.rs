//! What `deploy/` gives to the engines that run an export on several machines: Slurm's scripts are run by a real Slurm,
//! the rest is held to what its engine accepts, and all of it to what the pages say about exit statuses.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

#[path = "support/slurm.rs"]
mod slurm;
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value as Json;
use slurm::Slurm;
use support::{
    Archive, Fault, Influxd, Model, Point, Proxy, S3, Value, assert_rows, command, moveout, python,
    repository, run,
};
use tempfile::TempDir;

const DAY: i64 = 86_400_000_000_000;
/// 2024-01-01.
const NEW_YEAR: i64 = 1_704_067_200_000_000_000;
const PLACE: &str = "s3://bucket/some/place";

/// Many small tables in an InfluxDB that lets every query take a moment, and an archive in a bucket.
struct Setting {
    model: Model,
    s3: S3,
    /// With the configuration, the secrets and the program.
    folder: TempDir,
    // Each ends before the one below it.
    _proxy: Proxy,
    _server: Influxd,
}

impl Setting {
    fn new(pause: Duration) -> Self {
        let mut model = Model::default();
        for number in 0..40 {
            for i in 0..30 {
                let point = Point::new(&format!("m{number}"), NEW_YEAR + i * DAY / 3 + number);
                let point = point.tag("host", &format!("h{}", i % 3));
                model.push(point.field("v", Value::Integer(i)));
            }
        }
        let server = Influxd::start();
        server.query("CREATE DATABASE d");
        server.write("d", "", &model.lines());
        let proxy = Proxy::before(&server);
        proxy.fault(is_data, usize::MAX, Fault::Stall { after: 0, pause });

        let s3 = S3::start();
        let folder = TempDir::with_prefix("deploy-").unwrap();
        let file = |name: &str| folder.path().join(name);
        let secrets = s3.env().map(|(name, value)| format!("{name}='{value}'\n")).concat();
        fs::write(file("secrets.env"), secrets).unwrap();
        let configuration = format!(
            "archive = \"{PLACE}\"\nconcurrency = 2\nwindow = \"4d\"\n\n[[source]]\nname = \"metrics\"\nurl = \"{}\"\n",
            proxy.url()
        );
        fs::write(file("moveout.toml"), configuration).unwrap();
        fs::create_dir(file("bin")).unwrap();
        symlink(env!("CARGO_BIN_EXE_moveout"), file("bin/moveout")).unwrap();
        Self { model, s3, folder, _proxy: proxy, _server: server }
    }

    /// How many files are in the archive.
    fn files(&self) -> usize {
        self.s3.objects("some/place/data").len()
    }

    /// Sealed, exact and verified.
    #[track_caller]
    fn assert_complete(&self) {
        let mut verify = command(["verify", PLACE]);
        verify.envs(self.s3.env());
        run(verify).expect(0);
        let copy = TempDir::with_prefix("downloaded-").unwrap();
        self.s3.download("some/place", copy.path());
        let archive = Archive::open(copy.path());
        assert!(archive.is_sealed());
        for measurement in self.model.measurements() {
            assert_rows(&archive.rows(&measurement), &self.model.rows(&measurement));
        }
        moveout(["verify", copy.path().to_str().unwrap()]).expect(0);
    }
}

fn is_data(query: &str) -> bool {
    query.contains("SELECT *")
}

/// Waits for what the engine does by itself.
#[track_caller]
fn wait(what: &str, is_so: impl Fn() -> bool, explain: impl Fn() -> String) {
    let deadline = Instant::now() + Duration::from_secs(240);
    while !is_so() {
        assert!(Instant::now() < deadline, "not within 4 minutes: {what}\n{}", explain());
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn slurm_exports_in_an_array_and_seals_although_tasks_are_killed() {
    let Some(slurm) = Slurm::start("") else { return };
    let setting = Setting::new(Duration::from_millis(300));
    let mut submit = slurm.command(repository("deploy/slurm/submit.sh"));
    let programs = setting.folder.path().join("bin");
    submit.arg("4").current_dir(setting.folder.path()).env("PATH", path_with(&programs));
    let seal = support::server::feed(submit, "").unwrap();
    let array = (seal.parse::<u32>().unwrap() - 1).to_string();
    let explain = || {
        let files = fs::read_dir(setting.folder.path()).unwrap().flatten();
        let logs = files.filter(|file| file.path().extension().is_some_and(|end| end == "log"));
        let logs = logs.map(|log| {
            format!("== {}\n{}", log.path().display(), fs::read_to_string(log.path()).unwrap())
        });
        logs.chain([slurm.ask("squeue", &[]), slurm.log()]).collect::<Vec<_>>().join("\n")
    };

    let task = |number: u32| format!("{array}_{number}");
    let runs = |number| slurm.job(&task(number)).0 == "RUNNING";
    wait("four tasks run", || (0..4).all(&runs), explain);
    wait("there are files", || setting.files() >= 4, explain);
    // One is told to end, one is killed.
    slurm.ask("scancel", &[&task(1)]);
    slurm.ask("scancel", &["--signal=KILL", "--batch", &task(2)]);
    let ended = |id: &str| !["PENDING", "RUNNING", "COMPLETING"].contains(&&*slurm.job(id).0);
    wait("the seal has ended", || ended(&seal), explain);

    let state = |id: &str| slurm.job(id);
    let done = ("COMPLETED".to_owned(), "0:0".to_owned());
    assert_eq!([state(&task(0)), state(&task(3))], [done.clone(), done.clone()], "{}", explain());
    assert_eq!(state(&task(1)).0, "CANCELLED", "{}", explain());
    assert_eq!(state(&task(2)), ("FAILED".to_owned(), "0:9".to_owned()), "{}", explain());
    assert_eq!(state(&seal), done, "{}", explain());
    setting.assert_complete();
}

/// The statuses that the pages explain.
const STATUSES: [i32; 6] = [0, 1, 2, 3, 4, 130];

/// What the page about automation says that each engine does with a status: by its column.
fn said() -> BTreeMap<(String, i32), String> {
    let page = fs::read_to_string(repository("docs/automation.md")).unwrap();
    let rows: Vec<Vec<&str>> = page
        .lines()
        .skip_while(|line| !line.starts_with("| status | Kubernetes"))
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    let engines = &rows[0][1..];
    let mut said = BTreeMap::new();
    for row in &rows[2..] {
        let status: i32 = row[0].parse().unwrap();
        for (engine, cell) in engines.iter().zip(&row[1..]) {
            said.insert(((*engine).to_owned(), status), cell.replace('`', ""));
        }
    }
    assert_eq!(said.len(), engines.len() * STATUSES.len(), "docs/automation.md: {said:?}");
    said
}

#[track_caller]
fn assert_said(engine: &str, does: impl Fn(i32) -> String) {
    let said = said();
    for status in STATUSES {
        assert_eq!(does(status), said[&(engine.to_owned(), status)], "{engine} at {status}");
    }
}

/// The documents of a file in YAML.
fn yaml(path: &str) -> Vec<Json> {
    let code =
        "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))";
    let text = python(code, &[repository(path).to_str().unwrap()]);
    serde_json::from_str(&text).unwrap()
}

fn file(path: &str) -> String {
    fs::read_to_string(repository(path)).unwrap()
}

#[test]
fn kubernetes_accepts_the_manifests() {
    let code = "
import sys, yaml, kubernetes_validate
# The first version in which each of their parts is stable, and the newest that is known.
for version in '1.33', '1.37':
    for path in sys.argv[1:]:
        for resource in yaml.safe_load_all(open(path)):
            kubernetes_validate.validate(resource, version, strict=True)
    resource['spec']['mistyped'] = 1
    try:
        kubernetes_validate.validate(resource, version, strict=True)
        sys.exit('a mistyped key is not found')
    except kubernetes_validate.ValidationError:
        pass
";
    let paths = ["common", "export", "seal"];
    let paths = paths.map(|name| repository(&format!("deploy/kubernetes/{name}.yaml")));
    python(code, &paths.each_ref().map(|path| path.to_str().unwrap()));
}

#[test]
fn the_configuration_in_the_manifest_is_one() {
    let [_account, map] = yaml("deploy/kubernetes/common.yaml").try_into().unwrap();
    let folder = TempDir::with_prefix("map-").unwrap();
    let text = map["data"]["moveout.toml"].as_str().unwrap();
    // With neither a bucket nor a server, so that it is read, and then nothing is found.
    let text = text.replace("s3://backup/shop", "archive").replace("db.example.com", "127.0.0.1:1");
    fs::write(folder.path().join("moveout.toml"), text).unwrap();
    let mut plan = command(["plan", "--config"]);
    plan.arg(folder.path().join("moveout.toml")).env("SHOP_PASSWORD", "secret");
    let plan = run(plan).expect(1);
    assert!(plan.stderr.contains("nothing listens on port 1 "), "{}", plan.stderr);
}

/// What a Job does with a pod that ends so, by the first rule that fits.
fn kubernetes(job: &Json, status: i32) -> String {
    let rules = job["spec"]["podFailurePolicy"]["rules"].as_array().unwrap();
    let fits = |rule: &&Json| {
        let codes = &rule["onExitCodes"];
        assert!(codes.is_null() || codes["operator"] == "In");
        codes["values"].as_array().is_some_and(|values| values.contains(&status.into()))
    };
    match rules.iter().find(fits) {
        _ if status == 0 => "done".to_owned(),
        Some(rule) => rule["action"].as_str().unwrap().to_owned(),
        None => "Count".to_owned(),
    }
}

#[test]
fn kubernetes_does_with_each_status_what_the_page_says() {
    let [export] = yaml("deploy/kubernetes/export.yaml").try_into().unwrap();
    let [seal] = yaml("deploy/kubernetes/seal.yaml").try_into().unwrap();
    assert_said("Kubernetes, a shard", |status| kubernetes(&export, status));
    assert_said("Kubernetes, the seal", |status| kubernetes(&seal, status));

    // Both run the same, but for the shard.
    let pod = |job: &Json| {
        let mut pod = job["spec"]["template"]["spec"].clone();
        pod["topologySpreadConstraints"] = Json::Null;
        pod["containers"][0]["env"] = Json::Null;
        let args = pod["containers"][0]["args"].take();
        (pod, args.as_array().unwrap().clone())
    };
    let ((one, mut of_shard), (other, of_seal)) = (pod(&export), pod(&seal));
    assert_eq!(one, other);
    let shards = export["spec"]["completions"].as_u64().unwrap();
    let shard = Json::from(format!("--shard=$(JOB_COMPLETION_INDEX)/{shards}"));
    assert!(of_shard.contains(&shard), "{of_shard:?}");
    of_shard.retain(|arg| *arg != shard);
    assert_eq!(of_shard, of_seal);
    // Kubernetes only replaces variables that the container declares.
    let variable = &export["spec"]["template"]["spec"]["containers"][0]["env"][0];
    assert_eq!(variable["name"], "JOB_COMPLETION_INDEX");
}

#[test]
fn the_pods_of_kubernetes_export_and_seal_in_a_loop() {
    let setting = Setting::new(Duration::ZERO);
    let [export] = yaml("deploy/kubernetes/export.yaml").try_into().unwrap();
    let [seal] = yaml("deploy/kubernetes/seal.yaml").try_into().unwrap();
    let pod = |job: &Json, index: u64| {
        let args = job["spec"]["template"]["spec"]["containers"][0]["args"].as_array().unwrap();
        let args = args.iter().map(|arg| {
            let arg = arg.as_str().unwrap().replace("$(JOB_COMPLETION_INDEX)", &index.to_string());
            arg.replace("/etc/moveout", setting.folder.path().to_str().unwrap())
        });
        let mut pod = command(args);
        pod.envs(setting.s3.env());
        run(pod)
    };
    for index in 0..export["spec"]["completions"].as_u64().unwrap() {
        pod(&export, index).expect(0);
    }
    let mut status = command(["status", PLACE]);
    status.envs(setting.s3.env());
    assert!(!run(status).stdout.contains(": sealed"), "a shard has sealed");
    pod(&seal, 0).expect(0);
    setting.assert_complete();
}

/// What AWS Batch does with a job that ends so, by the first condition that fits.
fn aws_batch(definition: &Json, status: i32) -> String {
    let conditions = definition["retryStrategy"]["evaluateOnExit"].as_array().unwrap();
    // Batch takes no more.
    assert!(conditions.len() <= 5);
    let code = status.to_string();
    let fits = |condition: &&Json| condition["onExitCode"] == code.as_str();
    match conditions.iter().find(fits) {
        _ if status == 0 => "done".to_owned(),
        Some(condition) => condition["action"].as_str().unwrap().to_owned(),
        None => "RETRY".to_owned(),
    }
}

#[test]
fn aws_batch_runs_what_the_page_says() {
    let [export, seal] = ["export", "seal"]
        .map(|name| serde_json::from_str::<Json>(&file(&format!("deploy/aws-batch/{name}.json"))))
        .map(Result::unwrap);
    assert_said("AWS Batch", |status| aws_batch(&export, status));
    assert_said("AWS Batch", |status| aws_batch(&seal, status));
    for (definition, name) in [(&export, "moveout-export"), (&seal, "moveout-seal")] {
        assert_eq!(definition["jobDefinitionName"], name);
        assert_eq!(definition["type"], "container");
        let properties = &definition["containerProperties"];
        for key in ["image", "command", "resourceRequirements", "executionRoleArn", "jobRoleArn"] {
            assert!(!properties[key].is_null(), "{name} has no {key}");
        }
        for requirement in properties["resourceRequirements"].as_array().unwrap() {
            assert!(requirement["type"].is_string() && requirement["value"].is_string());
        }
        let attempts = definition["retryStrategy"]["attempts"].as_u64().unwrap();
        assert!((1..=10).contains(&attempts));
    }

    // What the shell makes of the command, and which number of shards is submitted.
    let folder = TempDir::with_prefix("batch-").unwrap();
    program(&folder, "moveout", "printf '%s\\n' \"$@\"");
    let started = |definition: &Json| {
        let words = definition["containerProperties"]["command"].as_array().unwrap();
        let words: Vec<&str> = words.iter().map(|word| word.as_str().unwrap()).collect();
        let mut shell = support::server::clean(words[0], &folder);
        shell.args(&words[1..]).env("PATH", path_with(folder.path()));
        shell.env("AWS_BATCH_JOB_ARRAY_INDEX", "5");
        let printed = run(shell).expect(0).stdout;
        printed.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let (of_shard, of_seal) = (started(&export), started(&seal));
    let submit = file("deploy/aws-batch/submit.sh");
    let shards = submit.lines().find_map(|line| line.strip_prefix("shards=")).unwrap();
    let wanted = [of_seal.as_slice(), &["--shard".to_owned(), format!("5/{shards}")]].concat();
    assert_eq!(of_shard, wanted);
    let help = moveout(["export", "--help"]).expect(0).stdout;
    for flag in of_shard.iter().filter(|word| word.starts_with("--")) {
        assert!(help.contains(&format!("{flag} ")), "export has no {flag}");
    }
}

#[test]
fn aws_batch_seals_after_the_array() {
    let folder = TempDir::with_prefix("batch-").unwrap();
    program(
        &folder,
        "aws",
        "echo \"$@\" >> \"$HOME/asked\"; case \"$*\" in *submit-job*) echo \"id-of-$4\";; esac",
    );
    let submit = |args: &[&str]| {
        let mut submit = support::server::clean(repository("deploy/aws-batch/submit.sh"), &folder);
        submit.args(args).env("PATH", path_with(folder.path()));
        let printed = run(submit).expect(0).stdout;
        let asked = fs::read_to_string(folder.path().join("asked")).unwrap();
        fs::remove_file(folder.path().join("asked")).unwrap();
        (printed, asked)
    };
    let (printed, asked) = submit(&["queue"]);
    let jobs: Vec<&str> = asked.lines().filter(|line| line.contains("submit-job")).collect();
    assert!(jobs[0].contains("--job-definition moveout-export"), "{asked}");
    assert!(jobs[0].contains("--array-properties size=8"), "{asked}");
    assert!(jobs[1].contains("--job-definition moveout-seal"), "{asked}");
    assert!(jobs[1].contains("--depends-on jobId=id-of-moveout-export"), "{asked}");
    assert_eq!(printed, "id-of-moveout-seal\n");
    let (_, asked) = submit(&["queue", "seal"]);
    assert!(!asked.contains("moveout-export") && !asked.contains("--depends-on"), "{asked}");
}

#[test]
fn the_scripts_of_slurm_pass_on_how_moveout_ends() {
    let folder = TempDir::with_prefix("slurm-scripts-").unwrap();
    program(&folder, "moveout", "echo \"$*\"; echo \"$SECRET\"; exit \"$ENDS_WITH\"");
    fs::write(folder.path().join("secrets.env"), "SECRET='a b'\n").unwrap();
    let script = |name: &str, status: i32, restarts: &str| {
        let mut bash = support::server::clean("bash", &folder);
        bash.arg(repository(&format!("deploy/slurm/{name}.sbatch"))).arg("4");
        bash.current_dir(folder.path()).env("PATH", path_with(folder.path()));
        bash.env("ENDS_WITH", status.to_string()).env("SLURM_RESTART_COUNT", restarts);
        bash.env("SLURM_ARRAY_TASK_ID", "2");
        run(bash)
    };
    let requeued = file("docs/slurm.md");
    assert!(requeued.contains("RequeueExit=3"));
    for name in ["export", "seal"] {
        assert_said("Slurm", |status| {
            let run = script(name, status, "10").expect(status);
            let shard = if name == "export" { " --shard 2/4" } else { "" };
            let started = format!("export --config moveout.toml --progress plain{shard}\na b\n");
            assert_eq!(run.stdout, started);
            match status {
                0 => "done".to_owned(),
                3 => "RequeueExit".to_owned(),
                _ => "ends".to_owned(),
            }
        });
        // What is requeued without a limit has one here.
        let given_up = script(name, 3, "11").expect(1);
        assert_eq!(given_up.stdout, "");
        assert!(given_up.stderr.contains("started again 10 times"), "{}", given_up.stderr);
    }
}

#[test]
fn systemd_accepts_the_units_and_does_what_the_page_says() {
    let service = file("deploy/systemd/moveout.service");
    let values = |key: &str| {
        let lines = service.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        let values = lines.flat_map(str::split_whitespace).map(str::to_owned);
        values.collect::<Vec<_>>()
    };
    let (never, good) = (values("RestartPreventExitStatus"), values("SuccessExitStatus"));
    assert_eq!(values("Restart"), ["on-failure"]);
    assert_said("systemd", |status| {
        let is_in = |list: &[String]| list.contains(&status.to_string());
        match status {
            0 => "done",
            _ if is_in(&good) => "ends",
            _ if is_in(&never) => "fails",
            _ => "restarts",
        }
        .to_owned()
    });

    let folder = TempDir::with_prefix("units-").unwrap();
    // The program of the unit is not installed here.
    let service = service.replace("/usr/bin/moveout", "/bin/true");
    fs::write(folder.path().join("moveout.service"), service).unwrap();
    let timer = file("deploy/systemd/moveout.timer");
    fs::write(folder.path().join("moveout.timer"), timer).unwrap();
    let mut verify = support::server::clean("systemd-analyze", &folder);
    verify.args(["verify", "--man=no", "moveout.service", "moveout.timer"]);
    verify.current_dir(folder.path());
    if let Some(verified) = if_there(verify, "systemd-analyze") {
        // What it does not know is a warning alone.
        assert_eq!(verified.expect(0).stderr, "");
    }
}

#[test]
fn the_scripts_have_no_fault_that_a_checker_knows() {
    let mut check = Command::new("shellcheck");
    for engine in ["kubernetes", "slurm", "aws-batch"] {
        for entry in fs::read_dir(repository(&format!("deploy/{engine}"))).unwrap() {
            let path = entry.unwrap().path();
            let is_script = path.extension().is_some_and(|end| end == "sh" || end == "sbatch");
            if is_script {
                check.arg(path);
            }
        }
    }
    if let Some(checked) = if_there(check, "shellcheck") {
        checked.expect(0);
    }
}

#[test]
fn kubernetes_seals_after_the_export_whichever_way_that_ended() {
    // In place of a cluster: the conditions of each Job, the first time that they are asked for and later.
    let kubectl = r#"
echo "$*" >> "$HOME/asked"
case "$*" in
*reason*) echo "$REASON" ;;
*"get job moveout-export"*) echo "$EXPORT" ;;
*"get job moveout-seal"*) echo "$SEAL" ;;
esac
"#;
    let runs = |export: &str, reason: &str, seal: &str| {
        let folder = TempDir::with_prefix("cluster-").unwrap();
        program(&folder, "kubectl", kubectl);
        let mut script = support::server::clean(repository("deploy/kubernetes/run.sh"), &folder);
        script.env("PATH", path_with(folder.path()));
        script.env("EXPORT", export).env("REASON", reason).env("SEAL", seal);
        let status = run(script).status;
        let asked = fs::read_to_string(folder.path().join("asked")).unwrap();
        (status, asked.contains("apply -f seal.yaml"))
    };
    let complete = "SuccessCriteriaMet Complete";
    assert_eq!(runs(complete, "", complete), (0, true));
    assert_eq!(runs("FailureTarget Failed", "FailedIndexes", complete), (0, true));
    assert_eq!(runs(complete, "", "Failed"), (1, true));
    assert_eq!(runs("FailureTarget Failed", "PodFailurePolicy", complete), (2, false));
}

/// Writes a program for `sh` into a folder.
fn program(folder: &TempDir, name: &str, text: &str) {
    let path = folder.path().join(name);
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// The path of programs, this folder first.
fn path_with(folder: &Path) -> String {
    format!("{}:{}", folder.display(), std::env::var("PATH").unwrap())
}

/// Runs a program; says so if it is not installed.
fn if_there(command: Command, name: &str) -> Option<support::Run> {
    match Command::new(name).arg("--version").output() {
        Ok(_) => Some(run(command)),
        Err(_) => support::server::skipped(name),
    }
}
