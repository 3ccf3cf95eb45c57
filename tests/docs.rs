//! The README and the pages: every command in them runs or says what it needs, every link leads somewhere, and
//! every flag, verb and key that they name exists.
//!
//! A `console` block is run, with the output that it shows (`…` is any text), unless a comment such as
//! `<!-- needs an account -->` stands before it. The hosts in it become those of test servers. A block after
//! `<!-- file: NAME -->` is a file for the commands below it; a `python` block is run like a command.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

#[path = "support/influxdb3.rs"]
mod influxdb3;
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::thread;

use influxdb3::{InfluxDb3, Product, TOKEN};
use support::{Influxd, MariaDb, Postgres, Run, S3, moveout, repository, run, weather};
use tempfile::TempDir;

/// Between the outputs of commands.
const MARK: char = '\u{1e}';
/// Flags of other programs in text. Those in commands are told apart by the program.
const FLAGS_OF_OTHERS: [&str; 5] = ["--interactive", "--network", "--port", "--strict", "--time"];
/// Keys that a configuration of other programs has.
const KEYS_OF_OTHERS: [&str; 2] = ["sql_log_bin", "sql_mode"];

/// A file in Markdown.
struct Page {
    name: String,
    text: String,
}

/// A fenced block.
struct Block {
    /// Of its first line.
    line: usize,
    language: String,
    /// The comment on the line before.
    marker: Option<String>,
    text: String,
}

impl Page {
    fn read(name: &str) -> Self {
        Self { name: name.to_owned(), text: fs::read_to_string(repository(name)).unwrap() }
    }

    fn blocks(&self) -> Vec<Block> {
        let mut blocks = Vec::new();
        let (mut open, mut before) = (None::<Block>, "");
        for (number, line) in self.text.lines().enumerate() {
            match (&mut open, line.strip_prefix("```")) {
                (None, Some(language)) => {
                    let marker = before.strip_prefix("<!-- ").and_then(|m| m.strip_suffix(" -->"));
                    open = Some(Block {
                        line: number + 1,
                        language: language.to_owned(),
                        marker: marker.map(str::to_owned),
                        text: String::new(),
                    });
                }
                (Some(_), Some(_)) => blocks.extend(open.take()),
                (Some(block), None) => block.text += &format!("{line}\n"),
                (None, None) => {}
            }
            before = line;
        }
        assert!(open.is_none(), "{}: a block is not closed", self.name);
        blocks
    }

    /// The text without its blocks.
    fn prose(&self) -> String {
        let mut inside = false;
        let lines = self.text.lines().filter(|line| {
            inside ^= line.starts_with("```");
            !inside && !line.starts_with("```")
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    /// What stands between back quotes.
    fn code(&self) -> Vec<String> {
        self.prose().split('`').skip(1).step_by(2).map(str::to_owned).collect()
    }

    /// What links to its headings, as GitHub makes them.
    fn anchors(&self) -> BTreeSet<String> {
        let prose = self.prose();
        let headings = prose.lines().filter(|line| line.starts_with('#'));
        let anchor = |heading: &str| {
            let text = heading.trim_start_matches('#').trim().to_lowercase();
            let kept = text.chars().filter(|c| c.is_alphanumeric() || "-_ ".contains(*c));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        };
        headings.map(anchor).collect()
    }
}

/// Those for users first; the changes have no commands.
fn pages() -> Vec<Page> {
    let mut names: Vec<String> = fs::read_dir(repository("docs"))
        .unwrap()
        .map(|entry| format!("docs/{}", entry.unwrap().file_name().to_string_lossy()))
        .filter(|name| name.ends_with(".md"))
        .collect();
    names.sort();
    let others = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"];
    let others = others.iter().filter(|name| repository(name).exists());
    others.map(|name| Page::read(name)).chain(names.iter().map(|name| Page::read(name))).collect()
}

#[test]
fn every_link_leads_somewhere() {
    let mut lost = Vec::new();
    for page in pages() {
        let prose = page.prose().replace('\n', " ");
        let targets = prose.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for target in targets.filter(|target| !target.contains("://")) {
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let folder = repository(&page.name).parent().unwrap().to_owned();
            let path = if file.is_empty() { repository(&page.name) } else { folder.join(file) };
            let has_anchor = || {
                let text = fs::read_to_string(&path).unwrap_or_default();
                Page { name: target.to_owned(), text }.anchors().contains(anchor)
            };
            // A book has its own folder alone, and shows the summary beside each page.
            let outside = file.starts_with("..") || file == "SUMMARY.md";
            let leaves = page.name.starts_with("docs/") && outside;
            if leaves || !path.exists() || !(anchor.is_empty() || has_anchor()) {
                lost.push(format!("{}: {target}", page.name));
            }
        }
    }
    assert!(lost.is_empty(), "links that lead nowhere, or out of the book: {lost:#?}");
}

#[test]
fn every_page_stands_once_in_the_summary() {
    let summary = Page::read("docs/SUMMARY.md").prose();
    let links = summary.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let mut listed: Vec<String> = links.map(|link| format!("docs/{link}")).collect();
    listed.sort();
    let pages = pages().into_iter().map(|page| page.name);
    let pages: Vec<String> =
        pages.filter(|name| name.starts_with("docs/") && name != "docs/SUMMARY.md").collect();
    assert_eq!(listed, pages);
}

/// Everything that a text says from `start` on, up to what is no part of a name.
fn names<'a>(text: &'a str, start: &str, more: &str) -> Vec<&'a str> {
    let of_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || more.contains(c);
    let found = text.match_indices(start).filter(|(at, _)| {
        *at == 0 || text[..*at].ends_with(|c: char| c.is_whitespace() || "`[(|".contains(c))
    });
    let ends = found.map(|(at, _)| {
        let rest = &text[at + start.len()..];
        let end = rest.find(|c| !of_name(c)).unwrap_or(rest.len());
        &text[at..at + start.len() + end]
    });
    ends.filter(|name| name.len() > start.len()).collect()
}

#[test]
fn every_flag_verb_and_key_exists() {
    let mut help = moveout(["--help"]).expect(0).stdout;
    let commands = help.split("Commands:").nth(1).unwrap().split("Options:").next().unwrap();
    let verbs = commands.lines().filter_map(|line| line.split_whitespace().next());
    let verbs: BTreeSet<String> = verbs.map(str::to_owned).collect();
    for verb in verbs.iter().filter(|verb| *verb != "help") {
        help += &moveout([verb, "--help"]).expect(0).stdout;
    }
    let flags: BTreeSet<&str> = names(&help, "--", "-").into_iter().collect();
    let example = fs::read_to_string(repository("config.example.toml")).unwrap();
    let keys: BTreeSet<&str> = example.lines().filter_map(key).collect();

    let mut unknown = Vec::new();
    for page in pages().iter().filter(|page| page.name != "CHANGELOG.md") {
        let mut check = |what: &str, name: &str, known: bool| {
            if !known {
                unknown.push(format!("{}: {what} {name}", page.name));
            }
        };
        let blocks = page.blocks();
        let in_commands = blocks.iter().flat_map(|block| block.text.lines()).filter_map(arguments);
        let in_text = page.code();
        let in_text = in_text.iter().map(String::as_str);
        let is_moveout = |text: &&str| text.starts_with("moveout ");
        for text in in_commands.chain(in_text.clone().filter(is_moveout).filter_map(arguments)) {
            let verb = text.split_whitespace().next().unwrap_or_default();
            check("the verb", verb, verbs.contains(verb) || verb.starts_with("--"));
            names(text, "--", "-").iter().for_each(|f| check("the flag", f, flags.contains(f)));
        }
        for flag in in_text.clone().filter(|text| text.starts_with("--")) {
            let flag = flag.split([' ', '=']).next().unwrap_or_default();
            check("the flag", flag, flags.contains(flag) || FLAGS_OF_OTHERS.contains(&flag));
        }
        let toml = blocks.iter().filter(|block| block.language == "toml");
        let assigned = toml.flat_map(|block| block.text.lines()).chain(in_text).filter_map(key);
        let said = page.prose().replace('\n', " ").replace("[configuration", "configuration");
        let said: Vec<&str> = said
            .split("` in the configuration")
            .filter_map(|before| before.rsplit('`').next())
            .filter(|name| !name.is_empty() && name.chars().all(|c| c.is_lowercase() || c == '_'))
            .collect();
        for key in assigned.chain(said) {
            check("the key", key, keys.contains(key) || KEYS_OF_OTHERS.contains(&key));
        }
    }
    let page = Page::read("docs/automation.md");
    let source = source();
    let rows = page.text.lines().filter(|line| line.starts_with("| `") && line.contains("`,"));
    for key in rows.flat_map(|row| row.split('`').skip(3).step_by(2)) {
        if !source.contains(&format!("pub {key}:")) && !source.contains(&format!("\"{key}\"")) {
            unknown.push(format!("{}: the JSON's {key}", page.name));
        }
    }
    assert!(unknown.is_empty(), "named in the pages, and not there: {unknown:#?}");
}

/// What a command gives to moveout.
fn arguments(command: &str) -> Option<&str> {
    let rest = ["moveout ", "cargo run --release -- "].iter().find_map(|program| {
        let at = command.find(program)?;
        let alone = at == 0 || command[..at].ends_with([' ', '/']);
        alone.then(|| command[at + program.len()..].trim_start())
    })?;
    let rest = rest.split(['#', '|', '>', '&']).next().unwrap_or_default();
    let is_command = rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '-');
    is_command.then_some(rest)
}

/// The key of a line `KEY = VALUE`, also in a comment.
fn key(line: &str) -> Option<&str> {
    let (key, _) = line.trim_start_matches(['#', ' ']).split_once(" = ")?;
    let is_key = !key.is_empty() && key.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    is_key.then_some(key)
}

#[test]
fn every_error_that_is_explained_is_one_of_the_program() {
    // Long texts go on after a backslash; what is escaped in Rust is not in a page.
    let words = source().replace("\\\n", "\n").replace("\\\"", "\"").replace('`', "");
    let words = words.replace("{{", "{").replace("}}", "}");
    let source = words.split_whitespace().collect::<Vec<_>>().join(" ");
    let page = Page::read("docs/troubleshooting.md");
    let prose = page.prose().replace('\n', " ");
    let bold = prose.split("**").skip(1).step_by(2).filter(|text| text.starts_with('`'));
    let mut unknown = Vec::new();
    for text in bold {
        let text = text.replace('`', "");
        let parts = text.split('…').map(|part| part.trim().trim_matches([':', ';', ',']).trim());
        let lost = parts.filter(|part| !source.contains(part));
        unknown.extend(lost.map(str::to_owned));
    }
    assert!(unknown.is_empty(), "explained, and nowhere in src: {unknown:#?}");
}

/// The whole program.
fn source() -> String {
    let mut source = String::new();
    let mut folders = vec![repository("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => source += &fs::read_to_string(path).unwrap(),
            }
        }
    }
    source
}

/// What stands in for the servers of the pages.
struct Servers {
    influxd: Influxd,
    serverless: InfluxDb3,
    postgres: Postgres,
    mariadb: MariaDb,
    s3: S3,
    /// Programs under the names that the pages use.
    programs: TempDir,
    has_polars: bool,
}

impl Servers {
    fn start() -> Self {
        const TLS: Option<&str> = Some("IP:127.0.0.1,DNS:localhost");
        let influxd = Influxd::start();
        influxd.query("CREATE DATABASE weather WITH SHARD DURATION 520w");
        influxd.write("weather", "", &weather());
        influxd.query("CREATE DATABASE telegraf");
        influxd.write("telegraf", "", "cpu,host=a load=1 1");
        influxd.query("CREATE DATABASE again WITH DURATION INF SHARD DURATION 52w NAME forever");
        let serverless = InfluxDb3::start(Product::Serverless);
        serverless.write("metrics", "cpu,host=a load=1,busy=true 1767225600000000000\n");
        let postgres = support::postgres::Options { tls: TLS, ..Default::default() };
        let postgres = Postgres::start_with(postgres);
        postgres.sql("postgres", "CREATE DATABASE shop");
        postgres.sql("shop", ORDERS_POSTGRES);
        let mariadb = support::mariadb::Options { tls: TLS, ..Default::default() };
        let mariadb = MariaDb::start_with(mariadb);
        mariadb.sql("", "CREATE DATABASE shop");
        mariadb.sql("shop", ORDERS_MARIADB);

        let programs = TempDir::with_prefix("programs-").unwrap();
        let program = |name: &str, text: &str| {
            let path = programs.path().join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        };
        let binary = env!("CARGO_BIN_EXE_moveout");
        program("moveout", &format!("#!/bin/sh\nexec '{binary}' \"$@\"\n"));
        let cargo = format!(
            "#!/bin/sh\n[ \"$1 $2 $3\" = 'run --release --' ] && shift 3 && exec '{binary}' \"$@\"\n"
        );
        program("cargo", &cargo);
        // The program of its name is not among Python's packages.
        program(
            "duckdb",
            "#!/bin/sh\nexec python -c 'import duckdb, sys; duckdb.sql(sys.argv[2]).show()' \"$@\"\n",
        );
        let python = repository("target/venv/bin/python");
        let polars = Command::new(python).args(["-c", "import polars"]).output();
        let has_polars = polars.unwrap().status.success();
        let s3 = S3::start();
        Self { influxd, serverless, postgres, mariadb, s3, programs, has_polars }
    }

    /// A text of a page with the addresses and secrets of the test servers.
    fn fill_in(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (name, value) in [
            ("INFLUX_TOKEN", TOKEN),
            ("INFLUX_PASSWORD", "secret"),
            ("METRICS_PASSWORD", "secret"),
            ("PGPASSWORD", "$SECRET"),
            ("MYSQL_PWD", "$SECRET"),
        ] {
            text = text.replace(&format!("{name}=…"), &format!("{name}={value}"));
        }
        for (name, value) in self.s3.env() {
            text = text.replace(&format!("{name}=…"), &format!("{name}={value}"));
            text = text.replace(&format!("{name}=https://…"), &format!("{name}={value}"));
        }
        text = text.replace("s3://backup/", &format!("s3://{}/", support::s3::BUCKET));
        text = text.replace("db.example.com -U me", "127.0.0.1 -U admin");
        text = text.replace("db.example.com -u me", "127.0.0.1 -u admin");
        text = with_authority(&text, "http://influx", |_| self.influxd.http());
        text = with_authority(&text, "postgres://", |_| self.postgres.url(""));
        text = with_authority(&text, "mysql://", |_| self.mariadb.url(""));
        with_authority(&text, "influxdb+https://", |host| match host {
            host if host.contains(".cloud2.influxdata.com") => {
                format!("influxdb+{}", self.serverless.url())
            }
            _ => self.influxd.url(),
        })
    }

    /// Runs what a page says in a folder of its own; an error says what went wrong.
    fn follow(&self, page: &Page) -> Result<(), String> {
        let folder = TempDir::with_prefix("page-").unwrap();
        let file = |name: &str| folder.path().join(name);
        fs::create_dir_all(file("tests/data")).unwrap();
        for (from, to) in [
            ("config.example.toml", "config.example.toml"),
            ("tests/data/weather.lp", "tests/data/weather.lp"),
            ("tests/data/weather.lp", "weather.lp"),
        ] {
            fs::copy(repository(from), file(to)).unwrap();
        }
        let authorities = [self.postgres.authority(), self.mariadb.authority()];
        let authorities = authorities.map(|path| fs::read_to_string(path.unwrap()).unwrap());
        fs::write(file("ca.pem"), authorities.concat()).unwrap();
        fs::write(file(".my.cnf"), "[client]\nssl\n").unwrap();

        let mut steps = Vec::new();
        for block in page.blocks() {
            let name = block.marker.as_deref().and_then(|marker| marker.strip_prefix("file: "));
            let needs = block.marker.as_deref().is_some_and(|marker| marker.starts_with("needs "));
            match (block.language.as_str(), name) {
                (_, Some(name)) => fs::write(file(name), self.fill_in(&block.text)).unwrap(),
                _ if needs => {}
                ("python", None) if block.text.contains("polars") && !self.has_polars => {
                    let _ = writeln!(std::io::stderr(), "{} skipped: no polars here", page.name);
                }
                ("python", None) => {
                    let name = format!("line-{}.py", block.line);
                    fs::write(file(&name), &block.text).unwrap();
                    let command = format!("python {name}");
                    steps.push(Step { line: block.line, command, shown: Vec::new() });
                }
                ("console", None) => {
                    steps.extend(commands(&block));
                }
                _ => {}
            }
        }
        let commands = steps.iter().map(|step| self.fill_in(&step.command));
        let script: String =
            commands.map(|command| format!("printf '{MARK}'\n{command}\n")).collect();
        let outcome = self.bash(&folder, &script);
        let mut outputs = outcome.stdout.split(MARK).skip(1);
        for step in &steps {
            let place = format!("{}, line {}: {}", page.name, step.line, step.command);
            let Some(output) = outputs.next() else {
                return Err(format!("{place}\nwas not reached"));
            };
            // The last one that was begun is the one that failed.
            if outcome.status != 0 && outputs.clone().next().is_none() {
                let (status, stderr) = (outcome.status, &outcome.stderr);
                return Err(format!("{place}\nends with {status}:\n{output}\n{stderr}"));
            }
            let lost =
                step.shown.iter().find(|shown| !output.lines().any(|line| fits(shown, line)));
            if let Some(lost) = lost {
                return Err(format!("{place}\nprints no line like\n{lost}\nbut\n{output}"));
            }
        }
        Ok(())
    }

    fn bash(&self, folder: &TempDir, script: &str) -> Run {
        let mut bash = support::server::clean("bash", folder);
        let venv = repository("target/venv/bin");
        let path = std::env::var("PATH").unwrap();
        let programs = self.programs.path().display();
        bash.args(["-eu", "-o", "pipefail", "-c", script]).current_dir(folder.path());
        bash.env("PATH", format!("{programs}:{}:{path}", venv.display()));
        bash.env("SECRET", self.postgres.password()).stdin(Stdio::null());
        bash.env("PGPORT", self.postgres.port().to_string());
        bash.env("MYSQL_TCP_PORT", self.mariadb.port().to_string());
        run(bash)
    }
}

/// Puts another server's address after each scheme.
fn with_authority(text: &str, start: &str, address: impl Fn(&str) -> String) -> String {
    let mut filled = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(start) {
        filled += &rest[..at];
        let url = &rest[at..];
        let authority = url.find("://").unwrap() + 3;
        let end = url[authority..].find(['/', '?', '"', '\'', ' ', '\n', '`']);
        let end = end.map_or(url.len(), |end| authority + end);
        filled += address(&url[authority..end]).trim_end_matches('/');
        rest = &url[end..];
    }
    filled + rest
}

/// A command of a page.
#[derive(Debug, PartialEq, Eq)]
struct Step {
    line: usize,
    command: String,
    /// The lines below it.
    shown: Vec<String>,
}

/// The commands of a block.
fn commands(block: &Block) -> Vec<Step> {
    let mut commands: Vec<Step> = Vec::new();
    for (number, line) in block.text.lines().enumerate() {
        let open = commands.last_mut();
        match (line.strip_prefix("$ "), open) {
            (Some(command), _) => {
                let line = block.line + number + 1;
                commands.push(Step { line, command: command.to_owned(), shown: Vec::new() });
            }
            (None, Some(step)) if step.command.ends_with('\\') => {
                step.command += &format!("\n{line}");
            }
            (None, Some(step)) => step.shown.push(line.to_owned()),
            (None, None) => panic!("line {}: output without a command", block.line),
        }
    }
    commands
}

/// Whether an output has the parts of a shown line, in order.
fn fits(shown: &str, output: &str) -> bool {
    let mut rest = output;
    shown.trim().split('…').all(|part| match rest.split_once(part) {
        Some((_, after)) => {
            rest = after;
            true
        }
        None => false,
    })
}

#[test]
fn every_command_runs_or_says_what_it_needs() {
    let servers = Servers::start();
    // What one page writes into a server must not appear while another one exports it.
    let (last, first): (Vec<Page>, Vec<Page>) =
        pages().into_iter().partition(|page| page.name == "docs/loading-back.md");
    let mut failed = Vec::new();
    for some in first.chunks(4).chain([last.as_slice()]) {
        thread::scope(|scope| {
            let runs = some.iter().map(|page| scope.spawn(|| servers.follow(page)));
            let runs: Vec<_> = runs.collect();
            failed.extend(runs.into_iter().filter_map(|run| run.join().unwrap().err()));
        });
    }
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
    // What was loaded back is what was there.
    let postgres = |name| servers.postgres.sql(name, "SELECT * FROM orders ORDER BY id");
    assert_eq!(postgres("shop_again"), postgres("shop"));
    let orders = "SELECT id, placed, born, note, HEX(photo), price, ratio FROM orders ORDER BY id";
    let mariadb = |name| servers.mariadb.sql(name, orders);
    assert_eq!(mariadb("shop_again"), mariadb("shop"));
    let weather = |from| servers.influxd.query(&format!("SELECT * FROM {from}.daily_weather"));
    assert_eq!(weather("again.forever"), weather("weather.autogen"));
}

#[test]
fn a_block_that_cannot_be_run_says_so() {
    let page = Page {
        name: "a page".to_owned(),
        text: "# One\n\n<!-- needs an account -->\n```console\n$ rm -rf /\n```\n\n```console\n$ a \\\n  b\nshown…\n```\n"
            .to_owned(),
    };
    let blocks = page.blocks();
    assert_eq!(blocks[0].marker.as_deref(), Some("needs an account"));
    assert_eq!(blocks[1].marker, None);
    let (command, shown) = ("a \\\n  b".to_owned(), vec!["shown…".to_owned()]);
    assert_eq!(commands(&blocks[1]), [Step { line: 9, command, shown }]);
    assert!(fits("a…c", "xabcx") && !fits("a…c", "cab"));
}

const ORDERS_POSTGRES: &str = "
CREATE TABLE orders (
    id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, customer uuid, placed timestamptz, note text,
    photo bytea, sizes int[], tags text[], price numeric(10, 2), takes interval, about jsonb, paid boolean,
    total bigint GENERATED ALWAYS AS (id * 2) STORED
);
INSERT INTO orders (customer, placed, note, photo, sizes, tags, price, takes, about, paid) VALUES
    ('6f1e4a8e-0b0d-4c5e-9f3a-2f7d5f6b8a10', '2024-05-06 07:08:09.123456+02', E'a\\tb\\nc\\\\d', '\\x00ff5c',
     '{1,NULL,3}', '{\"a,b\",\"c\\\"d\",\"e\\\\f\",\"\"}', 12.50, '1 year 2 days 03:04:05.000006', '{\"a\": [1, null]}', true),
    (NULL, NULL, '', '', '{}', NULL, NULL, NULL, 'null', NULL);
";

const ORDERS_MARIADB: &str = "
CREATE TABLE orders (id bigint AUTO_INCREMENT PRIMARY KEY, placed timestamp(6) NULL, born year, note text, photo blob,
    price decimal(10, 2), ratio double);
INSERT INTO orders (placed, born, note, photo, price, ratio) VALUES
    ('2024-05-06 07:08:09.123456', 0, 'a\\tb\\nc\\\\d', x'00ff5c', 12.50, 0.1), (NULL, NULL, '', '', NULL, NULL);
";
