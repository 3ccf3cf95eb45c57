//! Flags and their help; touches nothing else.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

const EXIT: &str = "\
Exit status:
    0  done
    1  failed for good
    2  wrong usage or configuration
    3  incomplete, run again to go on (`verify`: the archive is not sealed)
    4  verification found a difference
  130  interrupted; what was committed stays";

const SOURCES: &str = "\
Sources:
  influxdb+https://HOST[:PORT][/DATABASE]   InfluxDB 1.x or 2.x (influxdb+http:// without TLS)
  lp:FILE                                   line protocol, plain, gzip or zstd
  NAME                                      a source of the configuration

Credentials come from INFLUX_TOKEN, or INFLUX_USERNAME and INFLUX_PASSWORD, or the configuration.";

/// Take everything out of a hosted database before you cancel it
///
/// Exports in time-based batches, as Parquet; can be stopped at any moment and goes on when it is
/// run again; the archive can be checked without moveout.
#[derive(Debug, Parser)]
#[command(version, after_help = EXIT, max_term_width = 100, arg_required_else_help = true)]
pub struct Cli {
    /// What to do
    #[command(subcommand)]
    pub verb: Verb,
    /// Say more on standard error (twice: all that is known)
    #[arg(short, long, global = true, action = clap::ArgAction::Count, display_order = 101)]
    pub verbose: u8,
    /// No progress on standard error, warnings alone
    #[arg(short, long, global = true, display_order = 102)]
    pub quiet: bool,
    /// The summary as one JSON object
    #[arg(long, global = true, display_order = 100)]
    pub json: bool,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Export, or go on where it stopped
    #[command(after_help = SOURCES, after_long_help = format!("{SOURCES}\n\n{EXIT}"))]
    Export(JobArgs),
    /// Say what an export with the same options would do
    #[command(after_help = SOURCES)]
    Plan(JobArgs),
    /// Try every source and the destination, and say what would fail
    #[command(after_help = SOURCES)]
    Doctor(JobArgs),
    /// Say what an archive covers and what is still missing
    Status {
        /// Path of the archive, or s3://BUCKET/PREFIX
        archive: String,
        /// Configuration file (TOML), whose `s3` table says how a bucket is reached
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Check an archive: every byte, every row, every window
    #[command(after_help = EXIT)]
    Verify {
        /// Path of the archive, or s3://BUCKET/PREFIX
        archive: String,
        /// Compare sizes and manifests only; read no data file
        #[arg(long)]
        quick: bool,
        /// Memory for decoding, such as 512MiB [default: 1GiB]
        #[arg(long, value_name = "SIZE")]
        memory: Option<String>,
        /// Configuration file (TOML), whose `s3` table says how a bucket is reached
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
}

/// What to export, from where, to where.
#[derive(Debug, Args)]
pub struct JobArgs {
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What to export: a URL, or the name of a source in the configuration; may be given again
    #[arg(long = "source", value_name = "SOURCE")]
    pub sources: Vec<String>,
    /// Name of the source in the archive, where one `--source` is a URL [default: its address]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Path of the archive, or s3://BUCKET/PREFIX; made where there is none
    #[arg(long, value_name = "PLACE")]
    pub archive: Option<String>,
    /// Begin of the range: RFC 3339, a date, `now-30d`, or `min` (each table's first row) [default: min]
    #[arg(long, value_name = "TIME")]
    pub from: Option<String>,
    /// End of the range, exclusive: the same, `now`, or `max` (after each table's last row) [default: max]
    #[arg(long, value_name = "TIME")]
    pub to: Option<String>,
    /// Leave as it is what an earlier run read whole, instead of reading it again
    #[arg(long)]
    pub keep: bool,
    /// Width of the first window of a table; it adapts from there [default: 1d]
    #[arg(long, value_name = "WIDTH")]
    pub window: Option<String>,
    /// Chunks in flight [default: 4]
    #[arg(long, value_name = "N")]
    pub concurrency: Option<usize>,
    /// Memory for all buffers together [default: 256MiB]
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<String>,
}
