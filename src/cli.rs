//! The flags and their help. This module does nothing else.

use std::path::PathBuf;
use std::sync::LazyLock;

use clap::{Args, ColorChoice, Parser, Subcommand};
use clap_complete::Shell;

use crate::progress::Show;
use crate::shards::Shard;

const EXIT: &str = "\
Exit status:
    0  done
    1  failed for good
    2  wrong usage or configuration
    3  incomplete, run again to continue (`verify`: the archive is not sealed)
    4  a difference was found
  130  interrupted; what was committed stays";

const SOURCES: &str = "\
Sources:
  influxdb+https://HOST[:PORT][/DATABASE]   InfluxDB 1, 2 or 3; moveout detects which
                                            (influxdb+http:// without TLS)
  postgres://USER@HOST[:PORT][/DATABASE]    PostgreSQL
  mysql://USER@HOST[:PORT][/DATABASE]       MySQL or MariaDB
  lp:FILE                                   line protocol, plain, gzip or zstd
  NAME                                      a source of the configuration
  Without a database, all databases are exported.";

const ENVIRONMENT: &str = "\
Environment:
  moveout      MOVEOUT_CONFIG and MOVEOUT_ARCHIVE, where --config and --archive are not given;
               without a configuration, moveout.toml in the working directory is one, if it is there
  InfluxDB     INFLUX_TOKEN, or INFLUX_USERNAME and INFLUX_PASSWORD
  PostgreSQL   PGHOST, PGPORT, PGUSER, PGPASSWORD, PGDATABASE, PGSSLMODE, PGSSLROOTCERT,
               PGSSLCERT, PGSSLKEY, PGCHANNELBINDING
  MySQL        MYSQL_HOST, MYSQL_TCP_PORT, MYSQL_USER, MYSQL_PWD
  buckets      AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION,
               AWS_ENDPOINT_URL
  output       NO_COLOR, RUST_LOG";

const ENVIRONMENT_OF_ARCHIVE: &str = "\
Environment:
  moveout      MOVEOUT_CONFIG and MOVEOUT_ARCHIVE, where --config and ARCHIVE are not given;
               without a configuration, moveout.toml in the working directory is one, if it is there
  buckets      AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION,
               AWS_ENDPOINT_URL
  output       NO_COLOR, RUST_LOG";

/// After the environment of an archive.
const ENVIRONMENT_OF_SIGNATURE: &str =
    "  signature    MOVEOUT_MINISIGN_KEY (a secret key of minisign), MOVEOUT_MINISIGN_PASSWORD";

const EXAMPLES: &str = "\
Examples:
  moveout doctor --source influxdb+https://influx.example.com:8086 --archive ./archive
  moveout export --source influxdb+https://influx.example.com:8086 --archive ./archive
  moveout verify ./archive";

const EXAMPLES_OF_EXPORT: &str = "\
Examples:
  moveout export --source postgres://me@db.example.com/shop --archive ./archive
  moveout export --source lp:weather.lp --archive ./archive --from 2012-01-01 --to 2013-01-01
  moveout export --config moveout.toml --dry-run";

const EXAMPLES_OF_PLAN: &str = "\
Examples:
  moveout plan --source mysql://me@db.example.com/shop
  moveout plan --source lp:weather.lp --archive ./archive --from \"2012-01-01 12:00\"";

const EXAMPLES_OF_DOCTOR: &str = "\
Examples:
  moveout doctor --source postgres://me@db.example.com/shop --archive s3://backup/shop
  moveout doctor --config moveout.toml";

const EXAMPLES_OF_STATUS: &str = "\
Examples:
  moveout status ./archive
  moveout status s3://backup/shop --json";

const EXAMPLES_OF_VERIFY: &str = "\
Examples:
  moveout verify ./archive
  moveout verify s3://backup/shop --quick";

const EXAMPLES_OF_REPORT: &str = "\
Examples:
  moveout report ./archive
  moveout report s3://backup/shop --output report.html";

const EXIT_OF_REPORT: &str = "\
Exit status:
    0  SAFE TO CANCEL
    1  failed for good
    2  wrong usage or configuration
    3  NOT YET: there is no valid proof, or it has open points
    4  NOT YET: the archive and a source differ
  130  interrupted";

const EXAMPLES_OF_RESTORE: &str = "\
Examples:
  moveout restore ./archive --target influxdb+http://localhost:8086 --dry-run
  moveout restore s3://backup/plant --target influxdb+http://localhost:8086 --map plant=plant_2024
  moveout restore ./archive --target postgres://me@localhost --table 'shop.public.*' --verify";

/// What is built in.
const FEATURES: &str = "features: influxdb postgres mysql redis mongodb aptible lp s3";

/// The version, with the commit and the date where `build.rs` or who packages moveout knows them.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    let version = env!("CARGO_PKG_VERSION");
    let given = [option_env!("MOVEOUT_COMMIT"), option_env!("MOVEOUT_DATE")];
    let given: Vec<&str> = given.into_iter().flatten().filter(|part| !part.is_empty()).collect();
    if given.is_empty() {
        format!("{version} ({FEATURES})")
    } else {
        format!("{version} ({}, {FEATURES})", given.join(" "))
    }
});

/// Take everything out of a hosted database before you cancel it
///
/// Exports in time-based batches, as Parquet; can be stopped at any moment and continues when it is
/// run again; the archive can be checked without moveout.
#[derive(Debug, Parser)]
#[command(version, long_version = VERSION.as_str(), max_term_width = 100, arg_required_else_help = true)]
#[command(after_help = format!("{EXAMPLES}\n\n{EXIT}"))]
pub struct Cli {
    /// What to do
    #[command(subcommand)]
    pub verb: Verb,
    /// Log more on standard error (-vv: everything)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    #[arg(help_heading = "Output", display_order = 101)]
    pub verbose: u8,
    /// Show only warnings on standard error, and no progress
    #[arg(short, long, global = true, help_heading = "Output", display_order = 102)]
    pub quiet: bool,
    /// Print the summary as one JSON object
    #[arg(long, global = true, help_heading = "Output", display_order = 100)]
    pub json: bool,
    /// Progress on standard error: auto (a bar on a terminal, else lines), bar, plain (a line every
    /// ten seconds), json (an object per line) or none
    #[arg(long, global = true, value_name = "HOW", default_value = "auto")]
    #[arg(hide_possible_values = true, hide_default_value = true)]
    #[arg(help_heading = "Output", display_order = 103)]
    pub progress: Show,
    /// Append the log to this file, in full detail unless -v is given
    #[arg(long, global = true, value_name = "FILE", help_heading = "Output", display_order = 104)]
    pub log_file: Option<PathBuf>,
    /// Colours: auto (where there is a terminal), always or never
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    #[arg(hide_possible_values = true, hide_default_value = true)]
    #[arg(help_heading = "Output", display_order = 105)]
    pub color: ColorChoice,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Export, or continue where an earlier run stopped
    #[command(after_help = format!("{SOURCES}\n\n{EXIT}"))]
    #[command(after_long_help = format!("{EXAMPLES_OF_EXPORT}\n\n{SOURCES}\n\n{ENVIRONMENT}\n\n{EXIT}"))]
    Export {
        /// What to export.
        #[command(flatten)]
        job: JobArgs,
        /// Say what would be done, as `plan` does, and do nothing
        #[arg(long, help_heading = "How")]
        dry_run: bool,
    },
    /// Say what an export with the same options would do
    #[command(after_help = format!("{SOURCES}\n\n{EXIT}"))]
    #[command(after_long_help = format!("{EXAMPLES_OF_PLAN}\n\n{SOURCES}\n\n{ENVIRONMENT}\n\n{EXIT}"))]
    Plan(JobArgs),
    /// Try every source and the destination, and say what would fail
    #[command(after_help = format!("{SOURCES}\n\n{EXIT}"))]
    #[command(after_long_help = format!("{EXAMPLES_OF_DOCTOR}\n\n{SOURCES}\n\n{ENVIRONMENT}\n\n{EXIT}"))]
    Doctor(JobArgs),
    /// Say what an archive covers and what is still missing
    #[command(after_help = EXIT)]
    #[command(after_long_help = format!("{EXAMPLES_OF_STATUS}\n\n{ENVIRONMENT_OF_ARCHIVE}\n\n{EXIT}"))]
    Status(ArchiveArgs),
    /// Check an archive: every byte, every row, every window
    #[command(after_help = EXIT)]
    #[command(after_long_help = format!("{EXAMPLES_OF_VERIFY}\n\n{ENVIRONMENT_OF_ARCHIVE}\n{ENVIRONMENT_OF_SIGNATURE}\n\n{EXIT}"))]
    Verify {
        /// Which archive.
        #[command(flatten)]
        archive: ArchiveArgs,
        /// Compare sizes and manifests only; read no data file
        #[arg(long)]
        quick: bool,
        /// Hash every byte, but decode no row
        #[arg(long, conflicts_with = "quick")]
        hash_only: bool,
        /// Ask the sources, too, whether they have what the archive holds, and nothing else: is it safe to cancel?
        #[arg(long, help_heading = "Against the source")]
        against_source: bool,
        /// Read all rows again and compare their fingerprints; without it, each source computes statistics
        #[arg(long, requires = "against_source", help_heading = "Against the source")]
        deep: bool,
        /// Read only this part of the chunks again, such as 10%
        #[arg(long, value_name = "PART", requires = "against_source", conflicts_with = "deep")]
        #[arg(value_parser = part, help_heading = "Against the source")]
        sample: Option<f64>,
        /// A source by another URL, or a name from the configuration [default: those that the archive records]
        #[arg(long = "source", value_name = "SOURCE", requires = "against_source")]
        #[arg(help_heading = "Against the source")]
        sources: Vec<String>,
        /// Memory for decoding, such as 512MiB [default: 1GiB]
        #[arg(long, value_name = "SIZE")]
        memory: Option<String>,
    },
    /// Say whether it is safe to cancel, and make the page that shows why
    ///
    /// Reads the archive and the last verdict of `verify --against-source`, and asks no source. The page,
    /// report.html, is put into the archive and listed in its tag manifest.
    #[command(after_help = EXIT_OF_REPORT)]
    #[command(after_long_help = format!("{EXAMPLES_OF_REPORT}\n\n{ENVIRONMENT_OF_ARCHIVE}\n{ENVIRONMENT_OF_SIGNATURE}\n\n{EXIT_OF_REPORT}"))]
    Report {
        /// Which archive.
        #[command(flatten)]
        archive: ArchiveArgs,
        /// Write the page to this file, and leave the archive untouched
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Write an archive back into a server, exactly, and count what is there
    #[command(after_help = EXIT)]
    #[command(after_long_help = format!("{EXAMPLES_OF_RESTORE}\n\n{ENVIRONMENT}\n\n{EXIT}"))]
    Restore {
        /// Which archive.
        #[command(flatten)]
        archive: ArchiveArgs,
        /// Where to, as a --source is named: influxdb+https://…, postgres://…, mysql://…, or a name from the configuration
        #[arg(long, value_name = "URL")]
        target: String,
        /// Rows from this time on: RFC 3339, a date, now, now-30d
        #[arg(long, value_name = "TIME", help_heading = "What and where to")]
        from: Option<String>,
        /// Rows before this time
        #[arg(long, value_name = "TIME", help_heading = "What and where to")]
        to: Option<String>,
        /// A table, or a pattern with `*`: TABLE, SCHEMA.TABLE or DATABASE.SCHEMA.TABLE [default: all]
        #[arg(long = "table", value_name = "PATTERN", help_heading = "What and where to")]
        tables: Vec<String>,
        /// Another name for a DATABASE, a DATABASE/POLICY or a DATABASE.SCHEMA
        #[arg(long = "map", value_name = "OLD=NEW", help_heading = "What and where to")]
        maps: Vec<String>,
        /// Say what would be made and written, and do nothing
        #[arg(long, help_heading = "How")]
        dry_run: bool,
        /// Compare the statistics of each chunk at the end; otherwise the rows of each table are counted
        #[arg(long, help_heading = "How")]
        verify: bool,
        /// A file for the rows that the target cannot hold [default: a new one in this folder]
        #[arg(long, value_name = "FILE", help_heading = "How")]
        rejects: Option<PathBuf>,
        /// Chunks in flight [default: 2]
        #[arg(long, value_name = "N", help_heading = "How")]
        concurrency: Option<usize>,
        /// All buffers together, such as 512MiB [default: 256MiB]
        #[arg(long, value_name = "SIZE", help_heading = "How")]
        memory: Option<String>,
    },
    /// Print what a shell needs to complete commands and flags
    #[command(after_help = EXIT)]
    Completions {
        /// Which shell
        shell: Shell,
    },
    /// Write the manual pages into a folder, for packages
    #[command(after_help = EXIT)]
    Man {
        /// Where to; created if it does not exist
        folder: PathBuf,
    },
}

/// `10%`, as a part of one.
fn part(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).trim().parse::<f64>();
    match number {
        Ok(percent) if percent > 0.0 && percent <= 100.0 => Ok(percent / 100.0),
        _ => Err("write a part of the chunks as 10%, from 0% to 100%".to_owned()),
    }
}

/// Which archive.
#[derive(Debug, Args)]
pub struct ArchiveArgs {
    /// Path of the archive, or s3://BUCKET/PREFIX [default: that of the configuration]
    pub archive: Option<String>,
    /// Configuration file (TOML), whose `s3` table says how a bucket is reached
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// What to export, from where, to where.
#[derive(Debug, Args)]
pub struct JobArgs {
    /// Configuration file (TOML) [default: moveout.toml, if it is there]
    #[arg(long, value_name = "FILE", help_heading = "What and where to")]
    pub config: Option<PathBuf>,
    /// What to export: a URL, or the name of a source in the configuration; may be given again
    #[arg(long = "source", value_name = "SOURCE", help_heading = "What and where to")]
    pub sources: Vec<String>,
    /// Name of the source in the archive, where one `--source` is a URL [default: its address]
    #[arg(long, value_name = "NAME", help_heading = "What and where to")]
    pub name: Option<String>,
    /// Path of the archive, or s3://BUCKET/PREFIX; created if it does not exist
    #[arg(long, value_name = "ARCHIVE", help_heading = "What and where to")]
    pub archive: Option<String>,
    /// Start of the range: RFC 3339, a date, "2024-01-31 12:00" (UTC), `now-30d`, or `min` (each
    /// table's first row) [default: min]
    #[arg(long, value_name = "TIME", help_heading = "What and where to")]
    pub from: Option<String>,
    /// End of the range, exclusive: the same, `now`, or `max` (after each table's last row) [default: max]
    #[arg(long, value_name = "TIME", help_heading = "What and where to")]
    pub to: Option<String>,
    /// Keep tables that an earlier run read whole as they are, instead of reading them again
    #[arg(long, help_heading = "What and where to")]
    pub keep: bool,
    /// Export one part of the work on this machine, I from 0 to N-1, and do not seal; the same command
    /// without it does what is left, and seals
    #[arg(long, value_name = "I/N", help_heading = "What and where to")]
    pub shard: Option<Shard>,
    /// Width of a table's first window, which adapts [default: by its size]
    #[arg(long, value_name = "WIDTH", help_heading = "How")]
    pub window: Option<String>,
    /// The most chunks to read at the same time; the best number is found [default: 4]
    #[arg(long, value_name = "N", help_heading = "How")]
    pub concurrency: Option<usize>,
    /// Memory for all buffers together [default: 256MiB]
    #[arg(long, value_name = "SIZE", help_heading = "How")]
    pub memory: Option<String>,
    /// Bytes of rows to read per second, all chunks together, such as 20MB [default: no limit]
    #[arg(long, value_name = "SIZE", help_heading = "How")]
    pub bandwidth: Option<String>,
}
