//! Who is let in to MySQL and MariaDB, what a user may see, and what servers say: through the real program
//! and real servers.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

mod support;

use support::mariadb::{Flavour, MariaDb, Options};
use support::{Archive, MySql, Run, command, run};
use tempfile::TempDir;

/// An export of all databases as some user, and its archive.
struct Attempt {
    run: Run,
    folder: TempDir,
}

impl Attempt {
    /// `end` is what follows the address.
    fn new(server: &MariaDb, user: &str, password: &str, end: &str, more: &[&str]) -> Self {
        let folder = TempDir::new().unwrap();
        let url = format!("mysql://{user}@127.0.0.1:{}/{end}", server.port());
        let archive = folder.path().join("archive");
        let mut command = command(["export", "--json", "--source", &url, "--archive"]);
        command.arg(archive).args(more).env("MYSQL_PWD", password);
        Self { run: run(command), folder }
    }

    /// How it ended, the tables that it failed for, and its warnings.
    #[track_caller]
    fn said(&self, status: i32) -> (String, String) {
        assert_eq!(self.run.status, status, "{}{}", self.run.stdout, self.run.stderr);
        let summary = self.run.json();
        (summary["failed"].to_string(), summary["warnings"].to_string())
    }

    /// The error that it ended with, and its hint.
    #[track_caller]
    fn error(&self, status: i32) -> String {
        assert_eq!(self.run.status, status, "{}{}", self.run.stdout, self.run.stderr);
        let summary = self.run.json();
        format!("{} ({})", summary["error"].as_str().unwrap(), summary["hint"])
    }

    fn columns(&self, table: &str) -> Vec<String> {
        let archive = Archive::open(self.folder.path().join("archive"));
        let files = archive.files_of(table);
        files[0].columns().into_iter().map(|column| column.name).collect()
    }
}

const TABLES: &str = "CREATE DATABASE d; CREATE DATABASE hidden; USE d;
    CREATE TABLE whole (a INT); INSERT INTO whole VALUES (1);
    CREATE TABLE part (a INT, b INT); INSERT INTO part VALUES (1, 2);
    CREATE TABLE invisible (a INT, b INT INVISIBLE); INSERT INTO invisible (a, b) VALUES (1, 2);
    CREATE TABLE hidden.t (a INT); INSERT INTO hidden.t VALUES (1);
    CREATE ROLE part; GRANT SELECT ON d.whole TO part;
    GRANT SELECT (a) ON d.part TO part; GRANT SELECT (a) ON d.invisible TO part;
    CREATE USER partly IDENTIFIED BY 'pw'; GRANT part TO partly;";

#[test]
fn no_column_is_lost_for_want_of_a_right() {
    for flavour in Flavour::ALL {
        let Some(server) = MariaDb::start_flavour(flavour, Options::default()) else { continue };
        let to = if flavour == Flavour::MySql { "TO" } else { "FOR" };
        server.sql("", &format!("{TABLES} SET DEFAULT ROLE part {to} partly"));
        let attempt = Attempt::new(&server, "partly", "pw", "", &[]);
        let (failed, warnings) = attempt.said(1);
        assert!(failed.contains("part") && failed.contains("invisible"), "{failed}");
        assert!(
            !failed.contains("whole") && failed.contains("only some of its columns"),
            "{failed}"
        );
        assert!(warnings.contains("no SELECT on *.*"), "{warnings}");
        assert_eq!(attempt.columns("whole"), ["a"]);
    }
}

#[test]
fn nothing_that_mysql_hides_is_lost_silently() {
    let settings = vec![
        ("partial-revokes", "ON"),
        ("show-gipk-in-create-table-and-information-schema", "OFF"),
    ];
    let Some(server) = MySql::start_with(Options { settings, ..Options::default() }) else {
        return;
    };
    server.sql("", TABLES);
    server.sql(
        "d",
        "SET sql_generate_invisible_primary_key = ON; CREATE TABLE keyless (a INT); INSERT INTO keyless VALUES (7);
         CREATE USER revoked IDENTIFIED BY 'pw'; GRANT SELECT ON *.* TO revoked;
         REVOKE SELECT ON hidden.* FROM revoked",
    );
    let attempt = Attempt::new(&server, "revoked", "pw", "", &[]);
    let (_, warnings) = attempt.said(0);
    assert!(warnings.contains("SELECT ON `hidden`.*"), "{warnings}");
    assert_eq!(attempt.columns("keyless"), ["my_row_id", "a"]);
    let all = Attempt::new(&server, "admin", server.password(), "", &[]);
    assert!(!all.said(0).1.contains("may not see"));
    assert_eq!(all.columns("hidden.t"), ["a"]);
}

/// Users of each way to prove a password, over a connection that is not encrypted.
#[test]
fn mysql_lets_in_who_proves_a_password_by_rsa() {
    let Some(server) = MySql::start() else { return };
    server.sql(
        "",
        "CREATE DATABASE d; CREATE TABLE d.t (a INT); INSERT INTO d.t VALUES (1);
         CREATE USER caching IDENTIFIED WITH caching_sha2_password BY 'pä55';
         CREATE USER sha256 IDENTIFIED WITH sha256_password BY 'a long one, longer than the nonce';
         GRANT SELECT ON *.* TO caching, sha256;",
    );
    let key = server.sql("", "SHOW STATUS LIKE 'Caching_sha2_password_rsa_public_key'");
    let key = key.split('\t').nth(1).unwrap().replace("\\n", "\n");
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("key.pem");
    std::fs::write(&file, key).unwrap();
    let by_file = format!("d?sslmode=disable&server-public-key-path={}", file.display());
    for (user, password) in [("caching", "pä55"), ("sha256", "a long one, longer than the nonce")]
    {
        let attempt = |end: &str| Attempt::new(&server, user, password, end, &[]);
        let refused = attempt("d?sslmode=disable").error(1);
        assert!(refused.contains("get-server-public-key=true"), "{refused}");
        assert!(refused.contains("sslmode=require"), "{refused}");
        // Twice, since the server remembers who was let in.
        for end in ["d?sslmode=disable&get-server-public-key=true", &by_file, "d?sslmode=require"] {
            attempt(end).said(0);
            server.sql("", "FLUSH PRIVILEGES");
        }
        let wrong = Attempt::new(&server, user, "geheim", &by_file, &[]).error(1);
        assert!(wrong.contains("1045"), "{wrong}");
    }
}

#[test]
fn mariadb_lets_in_who_proves_a_password_by_a_signature() {
    for (flavour, plugin) in
        [(Flavour::System, "ed25519"), (Flavour::Newer, "ed25519"), (Flavour::Newer, "parsec")]
    {
        let settings = vec![(
            "plugin-load-add",
            if plugin == "parsec" { "auth_parsec" } else { "auth_ed25519" },
        )];
        let options = Options { settings, ..Options::default() };
        let Some(server) = MariaDb::start_flavour(flavour, options) else { continue };
        server.sql(
            "",
            &format!(
                "CREATE DATABASE d; CREATE TABLE d.t (a INT); INSERT INTO d.t VALUES (1);
                 CREATE USER signs IDENTIFIED VIA {plugin} USING PASSWORD('pä55');
                 GRANT SELECT ON *.* TO signs;"
            ),
        );
        Attempt::new(&server, "signs", "pä55", "d?sslmode=disable", &[]).said(0);
        let wrong = Attempt::new(&server, "signs", "geheim", "d?sslmode=disable", &[]).error(1);
        assert!(wrong.contains("1045"), "{wrong}");
    }
}

#[test]
fn who_cannot_come_in_is_told_at_once_why() {
    for flavour in [Flavour::System, Flavour::MySql] {
        let Some(server) = MariaDb::start_flavour(flavour, Options::default()) else { continue };
        server.sql(
            "",
            "CREATE DATABASE d; CREATE TABLE d.t (a INT); INSERT INTO d.t VALUES (1);
             CREATE USER locked IDENTIFIED BY 'pw' ACCOUNT LOCK; CREATE USER plain IDENTIFIED BY 'pw';
             GRANT SELECT ON *.* TO locked, plain; SET GLOBAL init_connect = 'no\x1b[2J statement'",
        );
        let locked = Attempt::new(&server, "locked", "pw", "d", &[]).error(1);
        assert!(locked.contains("ACCOUNT UNLOCK"), "{locked}");
        let broken = Attempt::new(&server, "plain", "pw", "d", &[]).error(1);
        assert!(broken.contains("init_connect"), "{broken}");
        server.sql("", "SET GLOBAL init_connect = ''");
        if flavour == Flavour::MySql {
            server.sql("", "SET GLOBAL offline_mode = ON");
            let offline = Attempt::new(&server, "plain", "pw", "d", &[]).error(1);
            assert!(offline.contains("offline_mode"), "{offline}");
        }
    }
}

#[test]
fn a_user_of_few_connections_gets_everything() {
    let server = MariaDb::start();
    let mut sql = "CREATE DATABASE d; USE d; CREATE USER few IDENTIFIED BY 'pw'
        WITH MAX_USER_CONNECTIONS 3; GRANT SELECT, PROCESS ON *.* TO few;"
        .to_owned();
    for table in 0..40 {
        sql += &format!("CREATE TABLE t{table} (a INT); INSERT INTO t{table} VALUES ({table});");
    }
    server.sql("", &sql);
    let attempt = Attempt::new(&server, "few", "pw", "d", &["--concurrency", "3"]);
    let (failed, _) = attempt.said(0);
    assert_eq!(failed, "[]");
    assert_eq!(attempt.run.json()["rows"], 40);
}

#[test]
fn what_a_server_says_does_not_reach_the_terminal_raw() {
    let server = MariaDb::start();
    server.sql(
        "",
        "CREATE DATABASE d; USE d; CREATE USER part IDENTIFIED BY 'pw';
         CREATE TABLE `a\x1b[2Jb` (`c\x1b[2Jd` INT, e INT) ENGINE = MyISAM; INSERT INTO `a\x1b[2Jb` VALUES (1, 2);
         GRANT SELECT (e), INSERT (`c\x1b[2Jd`) ON d.`a\x1b[2Jb` TO part;",
    );
    for (user, password, status) in [("part", "pw", 1), ("admin", server.password(), 0)] {
        let folder = TempDir::new().unwrap();
        let url = format!("mysql://{user}@127.0.0.1:{}/d", server.port());
        let mut command = command(["export", "--source", &url, "--archive"]);
        command.arg(folder.path().join("archive")).env("MYSQL_PWD", password);
        let run = run(command).expect(status);
        let said = run.stdout + &run.stderr;
        assert!(!said.contains('\x1b') && said.contains("u{1b}[2J"), "{said:?}");
    }
}

#[test]
fn a_server_that_folds_names_is_asked_in_any_case() {
    let settings = vec![("lower-case-table-names", "1")];
    let server = MariaDb::start_with(Options { settings, ..Options::default() });
    server.sql("", "CREATE DATABASE Shop; CREATE TABLE Shop.Orders (Id INT); INSERT INTO Shop.Orders VALUES (7)");
    let attempt = Attempt::new(&server, "admin", server.password(), "Shop", &[]);
    attempt.said(0);
    assert_eq!(attempt.columns("shop.orders"), ["Id"]);
}
