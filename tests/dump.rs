//! Native dumps through the program: of real servers, loaded again and compared; and every way in which a program, its
//! output, the archive or the run itself fails, after which no dump may be seen that is not whole.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

mod support;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::mariadb::Flavour;
use support::{
    Archive, MariaDb, Postgres, Redis, Run, S3, files, mariadb, postgres, program, repository, run,
};
use tempfile::TempDir;

/// A folder with a configuration, an archive and programs of its own.
struct Bench {
    folder: TempDir,
    config: String,
    env: Vec<(String, String)>,
}

impl Bench {
    /// A configuration with these sources.
    fn new(sources: &str) -> Self {
        let folder = TempDir::with_prefix("dump-").unwrap();
        fs::create_dir(folder.path().join("bin")).unwrap();
        Self { folder, config: format!("attempts = 1\n{sources}"), env: Vec::new() }
    }

    /// A source that is the output of a shell script.
    fn script(script: &str, ends_with: &str) -> Self {
        let bench = Self::new(&format!(
            "[[source]]\nname = \"made\"\ndump = {{ command = [\"maker\", \"--all\"], ends_with = {ends_with:?} }}\n"
        ));
        bench.program("maker", &format!("#!/bin/sh\n{script}\n"));
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn archive(&self) -> PathBuf {
        self.path("archive")
    }

    fn env(&mut self, name: &str, value: impl Into<String>) {
        self.env.retain(|(known, _)| known != name);
        self.env.push((name.to_owned(), value.into()));
    }

    /// A program that comes before all others of its name.
    fn program(&self, name: &str, text: &str) {
        let path = self.path("bin").join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Has a program of the system write its arguments into `seen`, and each start into `starts`.
    fn watch(&self, name: &str) {
        let real = program_of(name);
        let text = format!(
            "#!/bin/sh\nprintf '%s\\n' \"$*\" >>{0}/seen\ncase \"$*\" in *--version*) ;; *) echo {name} >>{0}/starts;; esac\n\
             exec {1} \"$@\"\n",
            self.folder.path().display(),
            real.display()
        );
        self.program(name, &text);
    }

    fn starts(&self) -> usize {
        fs::read_to_string(self.path("starts")).unwrap_or_default().lines().count()
    }

    fn command(&self, args: &[&str]) -> Command {
        fs::write(self.path("moveout.toml"), &self.config).unwrap();
        let mut command = program::command(args);
        if args[0] != "verify" && args[0] != "status" {
            command.arg("--config").arg(self.path("moveout.toml"));
            command.arg("--archive").arg(self.archive());
        } else {
            command.arg(self.archive());
        }
        let path = std::env::var("PATH").unwrap();
        command.env("PATH", format!("{}:{path}", self.path("bin").display()));
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.current_dir(self.folder.path());
        command
    }

    fn moveout(&self, args: &[&str]) -> Run {
        run(self.command(args))
    }

    fn json(&self, args: &[&str]) -> (i32, Value) {
        let mut args = args.to_vec();
        args.push("--json");
        let run = self.moveout(&args);
        (run.status, run.json())
    }

    /// Files of dumps, also those that are half written.
    fn dumps(&self) -> Vec<String> {
        let root = self.archive();
        if !root.exists() {
            return Vec::new();
        }
        let all = files(&root).into_iter();
        all.filter(|file| file.starts_with("data/") && file.contains("/_dumps/")).collect()
    }

    fn catalog(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.archive().join("catalog/dumps.json")).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    /// What the program had printed.
    fn raw(&self, dump: &Value) -> Vec<u8> {
        let file = fs::read(self.archive().join(dump["path"].as_str().unwrap())).unwrap();
        zstd::decode_all(file.as_slice()).unwrap()
    }

    /// Everything is as a sealed archive has it, and others find so, too.
    #[track_caller]
    fn is_whole(&self) {
        for args in [&["verify"][..], &["verify", "--quick"]] {
            self.moveout(args).expect(0);
        }
        Archive::open(self.archive()).validate_as_bag();
    }

    /// Nothing of a dump is there, and the reason was told.
    #[track_caller]
    fn has_failed(&self, status: &[i32], reason: &str) {
        let run = self.moveout(&["export"]);
        assert!(status.contains(&run.status), "{}\n{}{}", run.status, run.stdout, run.stderr);
        assert!(run.stdout.contains(reason), "no `{reason}` in\n{}{}", run.stdout, run.stderr);
        assert_eq!(self.dumps(), [""; 0], "{reason}");
        assert!(!self.archive().join("tagmanifest-sha256.txt").exists());
    }
}

fn program_of(name: &str) -> PathBuf {
    let path = std::env::var("PATH").unwrap();
    let found = path.split(':').map(|folder| Path::new(folder).join(name)).find(|p| p.exists());
    found.unwrap_or_else(|| panic!("{name} is not installed: run .ci/setup"))
}

fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// A run in the background, which a test that fails does not leave behind.
struct Background(Child);

impl Background {
    fn start(mut command: Command) -> Self {
        Self(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.0.kill(); // it may have ended
        let _ = self.0.wait();
    }
}

fn kill(Background(child): &mut Background) {
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Whether any process has this among its arguments.
fn runs(argument: &str) -> bool {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    lines.into_iter().any(|line| String::from_utf8_lossy(&line).contains(argument))
}

fn secret_is_nowhere(bench: &Bench, password: &str, outputs: &[&str]) {
    let seen = fs::read_to_string(bench.path("seen")).unwrap_or_default();
    let encoded: String = url::form_urlencoded::byte_serialize(password.as_bytes()).collect();
    for secret in [password, &encoded, &password.replace('%', "%25")] {
        assert!(!seen.contains(secret), "{seen}");
        outputs.iter().for_each(|output| assert!(!output.contains(secret), "{output}"));
        for file in files(&bench.archive()) {
            let bytes = fs::read(bench.archive().join(&file)).unwrap();
            let bytes =
                if file.ends_with(".zst") { zstd::decode_all(&*bytes).unwrap() } else { bytes };
            let found = memchr::memmem::find(&bytes, secret.as_bytes());
            assert_eq!(found, None, "{file}");
        }
    }
}

const SHOP: &str = "CREATE TABLE orders (id int PRIMARY KEY, what text);
    INSERT INTO orders VALUES (1, 'pen'), (2, '-- PostgreSQL database dump complete');
    CREATE TABLE empty (id int);
    CREATE VIEW seen AS SELECT * FROM orders;";

fn shop() -> (Postgres, Bench) {
    let server = Postgres::start();
    server.sql("postgres", "CREATE DATABASE shop");
    server.sql("shop", SHOP);
    let bench = of_postgres(&server);
    (server, bench)
}

fn of_postgres(server: &Postgres) -> Bench {
    let mut bench = Bench::new(&format!(
        "[[source]]\nname = \"pg\"\nurl = {:?}\ndump = true\npassword = {{ env = \"SECRET_OF_PG\" }}\n",
        server.url("shop")
    ));
    bench.env("SECRET_OF_PG", server.password());
    bench.watch("pg_dump");
    bench
}

#[test]
fn a_postgresql_is_dumped_beside_its_rows_and_can_be_loaded_again() {
    let (server, bench) = shop();
    let plan = bench.moveout(&["plan"]).expect(0);
    assert!(plan.stdout.contains("dump shop of pg by pg_dump"), "{}", plan.stdout);
    let doctor = bench.moveout(&["doctor"]).expect(0);
    assert!(
        doctor.stdout.contains("1 dump") && doctor.stdout.contains("by pg_dump"),
        "{}",
        doctor.stdout
    );
    let export = bench.moveout(&["export"]).expect(0);
    assert!(export.stdout.contains("dump       shop of pg"), "{}", export.stdout);
    assert!(export.stdout.contains("2 rows in 1 of 2 tables"), "{}", export.stdout);
    bench.is_whole();
    let catalog = bench.catalog();
    let [dump] = catalog.as_slice() else { panic!("{catalog:?}") };
    assert_eq!((&dump["source"], &dump["complete"]), (&"pg".into(), &true.into()));
    assert!(dump["program"].as_str().unwrap().starts_with("pg_dump"), "{dump}");
    assert!(dump["path"].as_str().unwrap().starts_with("data/pg/_dumps/shop."), "{dump}");
    assert_eq!(dump["contents"], serde_json::json!(["public.empty", "public.orders"]));
    let raw = bench.raw(dump);
    assert_eq!(dump["raw_bytes"], raw.len());
    server.sql("postgres", "CREATE DATABASE again");
    server.sql("again", &String::from_utf8(raw).unwrap());
    let all = "SELECT * FROM seen ORDER BY id; SELECT count(*) FROM empty";
    assert_eq!(server.sql("again", all), server.sql("shop", all));
    let status = bench.moveout(&["status"]).expect(0);
    assert!(status.stdout.contains("dump       shop of pg"), "{}", status.stdout);
    secret_is_nowhere(&bench, server.password(), &[&export.stdout, &export.stderr, &plan.stdout]);
}

#[test]
fn a_sealed_dump_is_taken_again_unless_it_is_kept() {
    let (server, bench) = shop();
    bench.moveout(&["export"]).expect(0);
    let before = bench.catalog();
    let starts = bench.starts();
    let kept = bench.moveout(&["export", "--keep"]).expect(0);
    assert!(kept.stdout.contains("kept       dump shop of pg"), "{}", kept.stdout);
    assert_eq!((bench.catalog(), bench.starts()), (before.clone(), starts));
    server.sql("shop", "INSERT INTO orders VALUES (3, 'ink')");
    bench.moveout(&["export"]).expect(0);
    bench.is_whole();
    let after = bench.catalog();
    assert_eq!(after.len(), 1);
    assert_ne!(after[0]["path"], before[0]["path"]);
    assert!(String::from_utf8(bench.raw(&after[0])).unwrap().contains("ink"));
    assert_eq!(bench.dumps(), [after[0]["path"].as_str().unwrap()]);
    // Where it cannot be taken again, what was sealed stays.
    bench.program("pg_dump", "#!/bin/sh\ncase \"$*\" in *--version*) echo 'pg_dump (PostgreSQL) 99.1';; *) exit 1;; esac\n");
    assert_ne!(bench.moveout(&["export"]).status, 0);
    assert_eq!(bench.dumps(), [after[0]["path"].as_str().unwrap()]);
    bench.watch("pg_dump");
    bench.moveout(&["export"]).expect(0);
    bench.is_whole();
}

#[test]
fn a_server_that_is_newer_than_pg_dump_is_told_of_before_anything_is_dumped() {
    let (_server, bench) = shop();
    bench.program(
        "pg_dump",
        "#!/bin/sh\necho 'pg_dump (PostgreSQL) 12.22'\necho started >>starts\n",
    );
    let run = bench.moveout(&["export"]).expect(1);
    assert!(
        run.stdout.contains("pg_dump (PostgreSQL) 12.22 is older than the server"),
        "{}",
        run.stdout
    );
    assert!(run.stdout.contains("install the client programs of PostgreSQL"), "{}", run.stdout);
    assert_eq!(bench.dumps(), [""; 0]);
    let doctor = bench.moveout(&["doctor"]).expect(1);
    assert!(doctor.stdout.contains("is older than the server"), "{}", doctor.stdout);
    // The rows were committed all the same, and the next run needs the dump alone.
    bench.watch("pg_dump");
    bench.moveout(&["export"]).expect(0);
    bench.is_whole();
}

#[test]
fn a_text_of_pg_dump_that_is_cut_anywhere_is_no_dump() {
    let (server, bench) = shop();
    let real = program_of("pg_dump");
    let mut whole = Command::new(&real);
    whole.args(["-h", "127.0.0.1", "-p", &server.port().to_string(), "-U", "admin", "-d", "shop"]);
    whole.args(["--no-subscriptions", "--no-tablespaces", "--encoding=UTF8"]);
    let whole = whole.env("PGPASSWORD", server.password()).output().unwrap().stdout;
    // After the end there is the token, in versions that have one, and a line end.
    let end = String::from_utf8(whole.clone()).unwrap().trim_end().len();
    let mut cuts = vec![0, 1, end / 3, end / 2, end - 30, end - 1];
    cuts.extend((0..4).map(|_| fastrand::usize(..end)));
    for cut in cuts {
        bench.program(
            "pg_dump",
            &format!(
                "#!/bin/sh\ncase \"$*\" in *--version*|*schema-only*) exec {0} \"$@\";; esac\n{0} \"$@\" | head -c {cut}\n",
                real.display()
            ),
        );
        let run = bench.moveout(&["export"]);
        assert_eq!(run.status, 3, "cut at {cut}: {}{}", run.stdout, run.stderr);
        assert!(run.stdout.contains("dump shop of pg: the dump "), "cut at {cut}: {}", run.stdout);
        assert_eq!(bench.dumps(), [""; 0], "cut at {cut}");
    }
}

#[test]
fn a_backend_or_a_pg_dump_that_is_killed_leaves_no_dump() {
    let (server, bench) = shop();
    server.sql(
        "shop",
        "CREATE TABLE large AS SELECT n, repeat(md5(n::text), 20) AS text FROM generate_series(1, 200000) n",
    );
    for signal in ["backend", "TERM", "KILL"] {
        // It is stopped where its output is read slowly, so that it certainly has not ended.
        let real = program_of("pg_dump");
        bench.program(
            "pg_dump",
            &format!(
                "#!/bin/sh\ncase \"$*\" in *--version*|*schema-only*) exec {0} \"$@\";; esac\n\
                 echo $$ >{1}/pid\nexec {0} \"$@\"\n",
                real.display(),
                bench.folder.path().display()
            ),
        );
        let _ = fs::remove_file(bench.path("pid"));
        let mut command = bench.command(&["export"]);
        let child =
            thread::spawn(move || run(std::mem::replace(&mut command, Command::new("true"))));
        wait_for("pg_dump begins", || {
            fs::read_to_string(bench.path("pid")).is_ok_and(|pid| pid.ends_with('\n'))
        });
        if signal == "backend" {
            let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                        WHERE application_name = 'moveout' AND query LIKE 'COPY public.large%'";
            wait_for("the backend is at work", || server.sql("postgres", kill) == "t");
        } else {
            let pid = fs::read_to_string(bench.path("pid")).unwrap();
            let kill = Command::new("kill").args(["-s", signal, pid.trim()]).status().unwrap();
            assert!(kill.success());
        }
        let run = child.join().unwrap();
        // It may have been done already: then the dump is whole.
        if run.status == 0 {
            bench.is_whole();
            continue;
        }
        assert!(matches!(run.status, 1 | 3), "{}", run.stdout);
        assert!(run.stdout.contains("dump shop"), "{}", run.stdout);
        if signal == "backend" {
            assert_eq!(bench.dumps(), [""; 0], "{signal}");
        }
    }
    bench.watch("pg_dump");
    bench.moveout(&["export"]).expect(0);
    bench.is_whole();
}

#[test]
fn a_mariadb_is_dumped_with_all_of_its_databases_and_can_be_loaded_again() {
    let server = MariaDb::start();
    server.sql(
        "",
        "CREATE DATABASE shop; CREATE DATABASE `odd ``name`;
         CREATE TABLE shop.orders (id int PRIMARY KEY, what text, raw blob);
         INSERT INTO shop.orders VALUES (1, 'a\\nb', x'00ff'), (2, '-- Dump completed', NULL);
         CREATE TABLE `odd ``name`.`t``able` (id int);
         CREATE PROCEDURE shop.p() SELECT 1;
         CREATE EVENT shop.e ON SCHEDULE EVERY 1 YEAR DISABLE DO SELECT 1;
         CREATE VIEW shop.seen AS SELECT id FROM shop.orders",
    );
    let mut bench = Bench::new(&format!(
        "[[source]]\nname = \"my\"\nurl = {:?}\ndump = true\npassword = {{ env = \"SECRET_OF_MY\" }}\n",
        server.url("")
    ));
    bench.env("SECRET_OF_MY", server.password());
    bench.watch("mariadb-dump");
    let export = bench.moveout(&["export"]).expect(0);
    bench.is_whole();
    let catalog = bench.catalog();
    assert_eq!(catalog[0]["contents"], serde_json::json!(["odd `name.t`able", "shop.orders"]));
    let text = String::from_utf8(bench.raw(&catalog[0])).unwrap();
    for part in ["PROCEDURE `p`", "EVENT `e`", "0x00FF", "VIEW `seen`"] {
        assert!(text.contains(part), "{part}");
    }
    secret_is_nowhere(&bench, server.password(), &[&export.stdout, &export.stderr]);
    let other = MariaDb::start();
    other.sql("", &text);
    let all =
        "SELECT id, what, HEX(raw) FROM shop.orders ORDER BY id; SHOW CREATE PROCEDURE shop.p;
               SHOW TABLES IN `odd ``name`; SELECT COUNT(*) FROM information_schema.EVENTS";
    assert_eq!(other.sql("", all), server.sql("", all));
    // Nothing has changed, so the next dump is the same.
    bench.moveout(&["export"]).expect(0);
    assert_eq!(bench.catalog()[0]["raw_sha256"], catalog[0]["raw_sha256"]);
}

#[test]
fn a_mysql_and_a_newer_mariadb_are_dumped_too() {
    for flavour in [Flavour::Newer, Flavour::MySql] {
        let Some(server) = MariaDb::start_flavour(flavour, mariadb::Options::default()) else {
            continue;
        };
        server.sql(
            "",
            "CREATE DATABASE shop; CREATE TABLE shop.a (id int); INSERT INTO shop.a VALUES (7)",
        );
        let bench = of_mariadb(&server, &server.url("shop"));
        bench.moveout(&["export"]).expect(0);
        bench.is_whole();
        assert_eq!(bench.catalog()[0]["contents"], serde_json::json!(["shop.a"]));
        let text = String::from_utf8(bench.raw(&bench.catalog()[0])).unwrap();
        assert!(text.contains("INSERT INTO `a` VALUES\n(7);") || text.contains("(7)"), "{text}");
    }
}

#[test]
fn the_tls_of_a_source_is_that_of_its_dump() {
    let names = "IP:127.0.0.1,DNS:localhost";
    let server = Postgres::start_with(postgres::Options {
        tls: Some(names),
        ..postgres::Options::default()
    });
    server.sql("postgres", "CREATE DATABASE shop");
    server.sql("shop", SHOP);
    let authority = server.authority().unwrap().display();
    for (mode, good) in [("verify-full", true), ("require", true), ("disable", false)] {
        let authority =
            if mode == "verify-full" { format!("&sslrootcert={authority}") } else { String::new() };
        let mut bench = of_postgres(&server);
        bench.config =
            bench.config.replace("/shop\"", &format!("/shop?sslmode={mode}{authority}\""));
        let run = bench.moveout(&["export"]);
        assert_eq!(run.status == 0, good, "{mode}: {}{}", run.stdout, run.stderr);
        if good {
            bench.is_whole();
        }
    }
    let server =
        MariaDb::start_with(mariadb::Options { tls: Some(names), ..mariadb::Options::default() });
    server.sql("", "CREATE DATABASE shop; CREATE TABLE shop.a (id int)");
    let authority = server.authority().unwrap().display();
    for mode in ["require".to_owned(), format!("verify-full&sslrootcert={authority}")] {
        let bench = of_mariadb(&server, &format!("{}?sslmode={mode}", server.url("shop")));
        bench.moveout(&["export"]).expect(0);
        bench.is_whole();
    }
}

#[test]
fn a_postgresql_of_now_is_too_new_for_the_pg_dump_of_before() {
    let own = program_of("pg_dump");
    let version = Command::new(own).arg("--version").output().unwrap();
    let version = String::from_utf8(version.stdout).unwrap();
    let major: u32 =
        version.split_whitespace().nth(2).unwrap().split('.').next().unwrap().parse().unwrap();
    let Some(newer) = support::postgres::versions().into_keys().find(|there| *there > major) else {
        return;
    };
    let Some(server) = Postgres::start_version(newer) else { return };
    server.sql("postgres", "CREATE DATABASE shop");
    server.sql("shop", SHOP);
    let bench = of_postgres(&server);
    let run = bench.moveout(&["export"]).expect(1);
    assert!(run.stdout.contains("is older than the server"), "{}", run.stdout);
    assert_eq!((bench.dumps(), bench.starts()), (Vec::new(), 0));
}

fn of_mariadb(server: &MariaDb, url: &str) -> Bench {
    let mut bench = Bench::new(&format!(
        "[[source]]\nname = \"my\"\nurl = {url:?}\ndump = true\npassword = {{ env = \"SECRET_OF_MY\" }}\n"
    ));
    bench.env("SECRET_OF_MY", server.password());
    bench
}

#[test]
fn mariadb_dump_may_say_that_all_is_well_and_lack_a_table() {
    let server = MariaDb::start();
    server.sql(
        "",
        "CREATE DATABASE shop; CREATE TABLE shop.a (id int); CREATE TABLE shop.b (id int)",
    );
    let mut bench = Bench::new(&format!(
        "[[source]]\nname = \"my\"\nurl = {:?}\ndump = true\npassword = {{ env = \"SECRET_OF_MY\" }}\n",
        server.url("shop")
    ));
    bench.env("SECRET_OF_MY", server.password());
    let real = program_of("mariadb-dump");
    let lacks = |what: &str| {
        format!(
            "#!/bin/sh\ncase \"$*\" in *--version*) exec {0} \"$@\";; esac\n{what}\n",
            real.display()
        )
    };
    let with = |more: &str| {
        let args = "first=$1; shift; ";
        lacks(&format!("{args}exec {} \"$first\" {more} \"$@\"", real.display()))
    };
    for (fault, reason) in [
        (with("--ignore-table=shop.b"), "lacks shop.b"),
        (
            lacks(&format!("{} \"$@\" | grep -v '^--'", real.display())),
            "does not begin like a dump by mysqldump",
        ),
        (lacks(&format!("{} \"$@\"; exit 2", real.display())), "failed (exit status 2)"),
        (
            lacks(&format!("{} \"$@\" | head -c 700", real.display())),
            "does not end with `-- Dump completed`",
        ),
        (lacks("exit 0"), "does not begin like a dump by mysqldump"),
    ] {
        bench.program("mariadb-dump", &fault);
        bench.has_failed(&[1, 3], reason);
    }
}

#[test]
fn a_redis_is_dumped_and_loads_again_with_equal_keys() {
    for settings in
        ["repl-diskless-sync yes", "repl-diskless-sync no", "rdbchecksum no", "rdbcompression no"]
    {
        let server = Redis::start(&format!("{settings}\nrepl-diskless-sync-delay 0"));
        let mut commands =
            String::from("SET k v\nSET expires 1 EX 100000\nRPUSH list a b c\nXADD s 1-1 f v\n");
        (0..500).for_each(|n| commands.push_str(&format!("HSET h{n} f {}\n", "x".repeat(n))));
        commands.push_str("SELECT 3\nZADD z 1 a 2 b\n");
        server.ask(&commands);
        let mut bench = Bench::new(&format!(
            "[[source]]\nname = \"cache\"\nurl = {:?}\npassword = {{ env = \"SECRET_OF_REDIS\" }}\n",
            server.url()
        ));
        bench.env("SECRET_OF_REDIS", server.password());
        bench.watch("redis-cli");
        let plan = bench.moveout(&["plan"]).expect(0);
        assert!(plan.stdout.contains("dump all of cache by redis-cli"), "{}", plan.stdout);
        let export = bench.moveout(&["export"]).expect(0);
        bench.is_whole();
        let catalog = bench.catalog();
        assert_eq!(catalog[0]["format"], "rdb");
        let loaded = Redis::load(&bench.raw(&catalog[0]));
        assert_eq!(loaded.digest(), server.digest(), "{settings}");
        secret_is_nowhere(
            &bench,
            server.password(),
            &[&export.stdout, &export.stderr, &plan.stdout],
        );
        // What is no whole server is said.
        if settings.starts_with("rdbcompression") {
            server.ask("REPLICAOF 127.0.0.1 1");
            let plan = bench.moveout(&["plan"]).expect(0);
            assert!(plan.stdout.contains("a replica that has lost its master"), "{}", plan.stdout);
        }
        // A wrong password is told at once.
        bench.env("SECRET_OF_REDIS", "wrong");
        let run = bench.moveout(&["export"]).expect(1);
        assert!(run.stderr.contains("the server refuses"), "{}{}", run.stdout, run.stderr);
    }
}

#[test]
fn what_redis_cli_prints_is_believed_only_as_far_as_the_checksum_of_the_server_goes() {
    let server = Redis::start("repl-diskless-sync-delay 0");
    server.ask("SET k v\nSET l w");
    let mut bench = Bench::new(&format!(
        "[[source]]\nname = \"cache\"\nurl = {:?}\npassword = {{ env = \"SECRET_OF_REDIS\" }}\n",
        server.url()
    ));
    bench.env("SECRET_OF_REDIS", server.password());
    let real = program_of("redis-cli");
    let rdb = |filter: &str| {
        format!(
            "#!/bin/sh\ncase \"$*\" in *--rdb*) {0} \"$@\" {filter};; *) exec {0} \"$@\";; esac\n",
            real.display()
        )
    };
    for (filter, reason) in [
        ("| head -c 60", "does not end like a Redis file"),
        ("| head -c 0", "does not begin like a Redis file"),
        ("| LC_ALL=C tr v w", "Redis file"),
        ("; exit 1", "redis-cli failed (exit status 1)"),
        ("; kill -KILL $$", "redis-cli failed (signal 9)"),
        ("; printf junk", "Redis file"),
    ] {
        bench.program("redis-cli", &rdb(filter));
        bench.has_failed(&[1, 3], reason);
    }
}

/// The stand-in for mongodump, of an address where somebody listens.
fn mongodb() -> (TcpListener, Bench) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut bench = Bench::new(&format!(
        "[[source]]\nname = \"docs\"\nurl = \"mongodb://me@127.0.0.1:{port}/shop?authSource=admin\"\n\
         password = {{ env = \"SECRET_OF_MONGODB\" }}\n"
    ));
    bench.env("SECRET_OF_MONGODB", "geheim/nis@mongo");
    bench.env("MONGODUMP_SEEN", bench.path("address").display().to_string());
    let stand_in = fs::read_to_string(repository("tests/support/mongodump.py")).unwrap();
    bench.program("mongodump", &stand_in);
    (listener, bench)
}

#[test]
fn a_mongodb_is_dumped_by_an_address_that_no_argument_shows() {
    let (_listener, bench) = mongodb();
    let export = bench.moveout(&["export"]).expect(0);
    bench.is_whole();
    let catalog = bench.catalog();
    assert_eq!(catalog[0]["program"], "mongodump 100.9.4");
    assert_eq!(catalog[0]["name"], "shop");
    let contents = serde_json::json!(["shop.empty", "shop.orders", "shop.people", "shop.seen"]);
    assert_eq!(catalog[0]["contents"], contents);
    let address = fs::read_to_string(bench.path("address")).unwrap();
    assert!(address.contains("authSource=admin&directConnection=true"), "{address}");
    assert!(address.contains("geheim%2Fnis%40mongo"), "{address}");
    secret_is_nowhere(&bench, "geheim/nis@mongo", &[&export.stdout, &export.stderr]);
}

#[test]
fn an_archive_of_mongodump_that_lacks_anything_is_no_dump() {
    let (_listener, mut bench) = mongodb();
    for (fault, reason) in [
        ("cut:1", "ends within a block"),
        ("cut:4", "ends within a block"),
        ("cut:60", "ends within a block"),
        ("cut:3000", "the dump"),
        ("no-end:orders", "does not have the end of shop.orders"),
        ("no-end:empty", "does not have the end of shop.empty"),
        ("crc:people", "has a checksum for shop.people that does not match its documents"),
        ("exit", "mongodump failed (exit status 1)"),
        ("auth", "AuthenticationFailed"),
    ] {
        bench.env("MONGODUMP_FAULT", fault);
        let run = bench.moveout(&["export"]);
        assert!(matches!(run.status, 1 | 3), "{fault}: {}{}", run.stdout, run.stderr);
        assert!(run.stdout.contains(reason), "{fault}: {}{}", run.stdout, run.stderr);
        assert!(!run.stdout.contains("geheim") && !run.stderr.contains("geheim"), "{}", run.stdout);
        assert_eq!(bench.dumps(), [""; 0], "{fault}");
    }
    bench.env("MONGODUMP_FAULT", "");
    bench.moveout(&["export"]).expect(0);
    bench.is_whole();
}

#[test]
fn the_output_of_any_program_is_a_dump_if_it_ends_as_it_should() {
    let bench = Bench::script("echo '{ \"all\": [] }'; echo '-- done'; echo", "-- done");
    bench.moveout(&["export"]).expect(0);
    bench.is_whole();
    let catalog = bench.catalog();
    assert_eq!(bench.raw(&catalog[0]), b"{ \"all\": [] }\n-- done\n\n");
    assert_eq!(catalog[0]["format"], serde_json::json!({ "ends_with": "-- done" }));
    assert_eq!(catalog[0]["program"], "maker");
    let tables = fs::read_to_string(bench.archive().join("catalog/tables.json")).unwrap();
    assert_eq!(tables.trim(), "[]");
}

#[test]
fn no_sign_alone_makes_a_dump() {
    for (script, reason, status) in [
        ("echo text", "does not end with `-- done`", 3),
        ("echo text; echo '-- done'; exit 3", "maker failed (exit status 3): it gave no reason", 3),
        ("echo '-- done'; echo broken >&2; kill -TERM $$", "maker failed (signal 15): broken", 3),
        ("echo '-- done'; echo more", "does not end with `-- done`", 3),
        ("printf '%s' '-- don'", "does not end with `-- done`", 3),
        ("true", "does not end with `-- done`", 3),
        ("exec 1>&-; exit 0", "does not end with `-- done`", 3),
    ] {
        Bench::script(script, "-- done").has_failed(&[status], reason);
    }
    let bench = Bench::script("true", "x");
    fs::remove_file(bench.path("bin/maker")).unwrap();
    bench.has_failed(&[1], "there is no maker on PATH");
}

#[test]
fn a_dump_that_fails_does_not_stop_the_others_and_what_is_whole_is_not_taken_again() {
    let mut bench = Bench::new("");
    for name in ["one", "two", "three"] {
        bench.config.push_str(&format!(
            "[[source]]\nname = \"{name}\"\ndump = {{ command = [\"{name}\"], ends_with = \"end\" }}\n"
        ));
        let text = format!(
            "#!/bin/sh\necho {name} >>{}/starts\necho end\n",
            bench.folder.path().display()
        );
        bench.program(name, &text);
    }
    let good = fs::read_to_string(bench.path("bin/two")).unwrap();
    bench.program("two", "#!/bin/sh\necho en\n");
    let (status, summary) = bench.json(&["export"]);
    assert_eq!(status, 3, "{summary}");
    assert_eq!(summary["failed"].as_array().unwrap().len(), 1, "{summary}");
    assert_eq!(summary["dumps"].as_array().unwrap().len(), 2, "{summary}");
    assert_eq!((bench.dumps().len(), bench.starts()), (2, 2));
    let (_, status) = bench.json(&["status"]);
    assert_eq!(status["missing_dumps"][0]["source"], "two", "{status}");
    let verify = bench.moveout(&["verify"]);
    assert_eq!(verify.status, 3, "{}", verify.stdout);
    bench.program("two", &good);
    bench.moveout(&["export"]).expect(0);
    assert_eq!((bench.dumps().len(), bench.starts()), (3, 3), "the two were not taken again");
    bench.is_whole();
}

#[test]
fn verify_finds_a_dump_that_is_changed_or_missing() {
    let bench = Bench::script("seq 1 200000; echo '-- done'", "-- done");
    bench.moveout(&["export"]).expect(0);
    let path = bench.archive().join(&bench.dumps()[0]);
    let good = fs::read(&path).unwrap();
    for at in [0, 5, good.len() / 2, good.len() - 1] {
        let mut bad = good.clone();
        bad[at] ^= 1;
        fs::write(&path, &bad).unwrap();
        let run = bench.moveout(&["verify"]).expect(4);
        assert!(run.stdout.contains("_dumps/output."), "{}", run.stdout);
        bench.moveout(&["verify", "--quick"]).expect(0);
    }
    fs::write(&path, &good[..good.len() - 1]).unwrap();
    bench.moveout(&["verify", "--quick"]).expect(4);
    fs::remove_file(&path).unwrap();
    for args in [&["verify"][..], &["verify", "--quick"]] {
        let run = bench.moveout(args).expect(4);
        assert!(run.stdout.contains("it is missing"), "{}", run.stdout);
    }
    // The source is still there, so it is taken again.
    let run = bench.moveout(&["export"]).expect(0);
    assert!(run.stdout.contains("was made again because its file was missing"), "{}", run.stdout);
    bench.is_whole();
    // A catalog that does not know of it.
    fs::write(bench.archive().join("catalog/dumps.json"), "[]\n").unwrap();
    let run = bench.moveout(&["verify"]).expect(4);
    assert!(run.stdout.contains("catalog/dumps.json"), "{}", run.stdout);
    fs::remove_file(bench.archive().join("catalog/dumps.json")).unwrap();
    let run = bench.moveout(&["verify"]).expect(4);
    assert!(run.stdout.contains("catalog/dumps.json"), "{}", run.stdout);
    assert_eq!(bench.moveout(&["export"]).status, 4);
}

#[test]
fn ctrl_c_ends_the_program_and_leaves_nothing_of_it() {
    let time = format!("611.{}", std::process::id());
    let bench = Bench::script(&format!("seq 1 300000; touch begun; exec sleep {time}"), "-- done");
    let mut child = Background::start(bench.command(&["export"]));
    wait_for("it begins", || bench.path("begun").exists());
    support::interrupt(&child.0);
    assert_eq!(child.0.wait().unwrap().code(), Some(130));
    wait_for("the program is gone", || !runs(&time));
    assert_eq!(bench.dumps(), [""; 0]);
    assert!(!bench.archive().exists(), "nothing had been there before");
}

#[test]
fn after_sigkill_nothing_runs_on_nothing_is_seen_and_the_next_run_completes() {
    let noise = "head -c 8000000 /dev/urandom | od -v -An -tx8";
    let time = format!("622.{}", std::process::id());
    let bench = Bench::script(&format!("{noise}; touch begun; exec sleep {time}"), "-- done");
    let mut child = Background::start(bench.command(&["export"]));
    wait_for("it begins", || bench.path("begun").exists());
    wait_for("a part is written", || bench.dumps().iter().any(|file| file.contains('#')));
    kill(&mut child);
    wait_for("the program is gone", || !runs(&time));
    assert!(bench.dumps().iter().all(|file| file.contains('#')), "{:?}", bench.dumps());
    let status = bench.moveout(&["status"]).expect(0);
    assert!(status.stdout.contains("missing    dump output of made"), "{}", status.stdout);
    bench.program("maker", "#!/bin/sh\nseq 1 3000000; echo '-- done'\n");
    bench.moveout(&["export"]).expect(0);
    bench.is_whole();
    assert_eq!(bench.dumps().len(), 1);
}

#[test]
fn a_kill_at_any_moment_leaves_no_half_dump_and_takes_no_whole_one() {
    let bench = Bench::script("seq 1 400000; echo '-- done'", "-- done");
    for wait in [5, 20, 40, 60, 80, 100, 130, 160, 200, 300] {
        let mut child = Background::start(bench.command(&["export"]));
        thread::sleep(Duration::from_millis(wait));
        kill(&mut child);
        for file in bench.dumps().iter().filter(|file| !file.contains('#')) {
            let bytes = fs::read(bench.archive().join(file)).unwrap();
            assert!(zstd::decode_all(&*bytes).unwrap().ends_with(b"-- done\n"), "{file}");
        }
    }
    bench.moveout(&["export"]).expect(0);
    bench.is_whole();
    assert_eq!(bench.dumps().len(), 1);
}

#[test]
fn a_bucket_that_fails_keeps_no_dump() {
    let s3 = S3::start();
    let bench =
        Bench::script("seq 1 9000000 | sha256sum; seq 1 9000000; echo '-- done'", "-- done");
    let export = |bench: &Bench| {
        fs::write(bench.path("moveout.toml"), &bench.config).unwrap();
        let mut command =
            program::command(["export", "--archive", "s3://bucket/place", "--config"]);
        command.arg(bench.path("moveout.toml")).envs(s3.env()).current_dir(bench.folder.path());
        let path = std::env::var("PATH").unwrap();
        command.env("PATH", format!("{}:{path}", bench.path("bin").display()));
        run(command)
    };
    let dumps = || {
        let objects = s3.objects("");
        objects.into_keys().filter(|key| key.contains("/_dumps/")).collect::<Vec<_>>()
    };
    let failing = Bench::script("seq 1 9000000; exit 3", "-- done");
    let run = export(&failing);
    assert_eq!(run.status, 3, "{}{}", run.stdout, run.stderr);
    assert_eq!(dumps(), [""; 0]);
    assert!(s3.uploads().iter().all(|(key, _)| !key.contains("_dumps")), "{:?}", s3.uploads());
    let run = export(&bench);
    assert_eq!(run.status, 0, "{}{}", run.stdout, run.stderr);
    assert_eq!(dumps().len(), 1);
}

#[test]
fn a_disk_that_takes_no_more_keeps_no_dump() {
    let noise = "head -c 8000000 /dev/urandom | od -v -An -tx8; echo '-- done'";
    let bench = Bench::script(noise, "-- done");
    let inner = bench.command(&["export"]);
    let mut limited = Command::new("sh");
    // A file may have a MiB; what is more is an error, as on a full disk.
    limited.args(["-c", "trap '' XFSZ; ulimit -f 2048; exec \"$@\"", "sh"]);
    limited.arg(inner.get_program()).args(inner.get_args()).current_dir(bench.folder.path());
    for (name, value) in inner.get_envs() {
        match value {
            Some(value) => limited.env(name, value),
            None => limited.env_remove(name),
        };
    }
    let run = run(limited);
    assert!(matches!(run.status, 1 | 3), "{}: {}{}", run.status, run.stdout, run.stderr);
    assert!(run.stdout.contains("File too large"), "{}{}", run.stdout, run.stderr);
    assert_eq!(bench.dumps(), [""; 0]);
    bench.moveout(&["export"]).expect(0);
    bench.is_whole();
}

#[test]
fn memory_does_not_grow_with_the_dump() {
    let peak = |megabytes: u32| {
        let script =
            format!("head -c {megabytes}000000 /dev/urandom | od -v -An -tx8; echo '-- done'");
        let bench = Bench::script(&script, "-- done");
        support::peak_memory(bench.command(&["export"]))
    };
    let (small, large) = (peak(2), peak(60));
    assert!(large < small + 40.0, "{small} MiB, {large} MiB");
}

#[test]
fn what_is_no_dump_is_refused_in_the_configuration() {
    for (source, reason) in [
        ("name = \"a\"", "needs the key `url`"),
        ("name = \"a\"\ndump = true", "needs the key `url`"),
        ("name = \"a\"\ndump = { command = [], ends_with = \"x\" }", "`command` needs a program"),
        ("name = \"a\"\ndump = { command = [\"x\"], ends_with = \" \" }", "`ends_with` is empty"),
        ("name = \"a\"\ndump = { command = [\"x\"] }", "`dump` needs the key `ends_with`"),
        (
            "name = \"a\"\ndump = { command = [\"x\"], ends_with = \"x\" }\ntables = [\"t\"]",
            "`tables` does not apply to",
        ),
        ("name = \"a\"\nurl = \"influxdb+http://h\"\ndump = true", "is for PostgreSQL and MySQL"),
        ("name = \"a\"\nurl = \"redis://h\"\nexclude = [\"t\"]", "`exclude` does not apply to"),
        ("name = \"a\"\nurl = \"redis://h?x=y\"", "unknown parameter `x`"),
        ("name = \"a\"\nurl = \"mongodb://a,b/c\"", "one host"),
        (
            "name = \"a\"\nurl = \"postgres://h\"\ndump = { command = [\"x\"], ends_with = \"x\" }",
            "without `url`",
        ),
    ] {
        let bench = Bench::new(&format!("[[source]]\n{source}\n"));
        let run = bench.moveout(&["plan"]).expect(2);
        assert!(run.stderr.contains(reason), "{source}: {}", run.stderr);
    }
}
