//! Parses the command line, runs the command, prints the result and exits. No other module prints results or exits.

mod man;
mod output;

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Duration;

use clap::{ColorChoice, CommandFactory, FromArgMatches, ValueEnum};
use moveout::cli::{Cli, JobArgs, Verb};
use moveout::commands::{doctor, export, plan, report, restore, status, verify};
use moveout::config::{self, Flags, Job};
use moveout::error::{Error, Exit, Result};
use moveout::progress::{Progress, Show};
use moveout::retry::Interrupt;
use moveout::source::child;
use moveout::window::{Bound, Window};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// How long a thread that may block waits for other work. Each living thread has memory of its own in the allocator, which
/// others do not use: with 20,000 tables that was a fifth of all memory.
const KEEP_THREADS: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    if let Some(exit) = child::supervise() {
        return exit;
    }
    let cli = parse();
    output::colours(cli.color);
    let progress = Progress::new(if cli.quiet { Show::None } else { cli.progress });
    if let Err(error) = log(&cli, &progress) {
        return fail(&cli, &progress, &error);
    }
    // All clients in the process share one TLS stack with one provider.
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        tracing::debug!("a TLS provider was installed already");
    }
    // Each chunk in flight takes two threads that may block. The store needs some more.
    let threads = 4 * config::MAX_CONCURRENCY + 64;
    // The work is done on those threads, and these only move bytes. The fewer there are, the less often they wake each
    // other, which saves a fifth of the CPU time on two cores.
    let movers = std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .worker_threads(movers)
        .max_blocking_threads(threads)
        .thread_keep_alive(KEEP_THREADS)
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            return fail(&cli, &progress, &Error::stop(format!("starting threads: {error}")));
        }
    };
    let outcome = runtime.block_on(run(&cli, &progress));
    // However the run has ended, no bar may stay behind.
    progress.end();
    let exit = match outcome {
        Ok(exit) => ExitCode::from(exit as u8),
        Err(error) => fail(&cli, &progress, &error),
    };
    // A thread may still wait for a server that does not answer, but nothing needs its result.
    runtime.shutdown_background();
    exit
}

/// Parses the flags. An error in them is already shown in the colours that they ask for.
fn parse() -> Cli {
    let args: Vec<String> = std::env::args_os().map(|a| a.to_string_lossy().into_owned()).collect();
    let pairs = args.iter().zip(args.iter().skip(1));
    let apart = pairs.filter(|(flag, _)| *flag == "--color").map(|(_, when)| when.as_str());
    let joined = args.iter().filter_map(|arg| arg.strip_prefix("--color="));
    let color = apart.chain(joined).find_map(|when| ColorChoice::from_str(when, false).ok());
    let command = Cli::command().color(color.unwrap_or_default());
    Cli::from_arg_matches(&command.get_matches()).unwrap_or_else(|error| error.exit())
}

async fn run(cli: &Cli, progress: &Progress) -> Result<Exit> {
    let interrupted = interrupts(progress);
    match &cli.verb {
        Verb::Export { job, dry_run: false } => {
            let job = load(job, progress)?;
            let summary = export::export(&job, progress, interrupted).await?;
            output::show(cli.json, &summary, output::export)?;
            Ok(summary.exit)
        }
        Verb::Plan(job) | Verb::Export { job, dry_run: true } => {
            let job = load(job, progress)?;
            let preview = plan::preview(&job, progress, interrupted).await?;
            output::show(cli.json, &preview, output::plan)?;
            Ok(preview.exit)
        }
        Verb::Doctor(job) => {
            let job = load(job, progress)?;
            let diagnosis = doctor::doctor(&job, progress, interrupted).await?;
            output::show(cli.json, &diagnosis, output::doctor)?;
            Ok(diagnosis.exit)
        }
        Verb::Status(of) => {
            let place = config::place(of.archive.as_deref(), of.config.as_deref())?;
            let status = Interrupt::new(interrupted).or(status::status(&place)).await?;
            output::show(cli.json, &status, output::status)?;
            Ok(Exit::Done)
        }
        Verb::Verify {
            archive: of,
            quick,
            hash_only,
            memory,
            against_source,
            deep,
            sample,
            sources,
        } => {
            let place = config::place(of.archive.as_deref(), of.config.as_deref())?;
            let usual = verify::Options::default();
            let mut options = verify::Options { quick: *quick, hash_only: *hash_only, ..usual };
            if let Some(memory) = memory {
                options.memory_bytes = config::memory(memory)?;
            }
            let interrupt = Interrupt::new(interrupted);
            let report = if *against_source {
                let read_again = if *deep { 1.0 } else { sample.unwrap_or(0.0) };
                let depth = verify::Depth { read_again };
                let (config, sources) = (of.config.clone(), sources.clone());
                let flags = Flags { config, sources, ..Flags::default() };
                // Before the sources are asked for hours.
                let key = config::signing_key()?;
                let key = key.as_ref();
                verify::verify_against_source(
                    &place, options, depth, flags, key, progress, interrupt,
                )
                .await?
            } else {
                interrupt.or(verify::verify(&place, options, progress)).await?
            };
            output::show(cli.json, &report, output::verify)?;
            Ok(report.exit)
        }
        Verb::Report { archive: of, output } => {
            let place = config::place(of.archive.as_deref(), of.config.as_deref())?;
            // An archive that stays untouched is not signed.
            let key = if output.is_some() { None } else { config::signing_key()? };
            let made = report::report(&place, output.as_deref(), key.as_ref());
            let summary = Interrupt::new(interrupted).or(made).await?;
            output::show(cli.json, &summary, output::report)?;
            Ok(summary.exit())
        }
        Verb::Restore {
            archive: of,
            target,
            from,
            to,
            tables,
            maps,
            dry_run,
            verify,
            rejects,
            concurrency,
            memory,
        } => {
            let place = config::place(of.archive.as_deref(), of.config.as_deref())?;
            let flags = Flags {
                config: of.config.clone(),
                sources: vec![target.clone()],
                from: from.clone(),
                to: to.clone(),
                concurrency: concurrency.or(Some(RESTORE_AT_ONCE)),
                memory: memory.clone(),
                ..Flags::default()
            };
            let job = config::load(flags)?;
            job.warnings.iter().for_each(|warning| progress.note(&format!("warning: {warning}")));
            let [target] = job.sources.as_slice() else {
                return Err(Error::usage("`--target` is one server"));
            };
            let options = restore::Options {
                within: window_of(job.from, job.to),
                tables: tables.clone(),
                maps: maps.clone(),
                dry_run: *dry_run,
                verify: *verify,
                rejects: rejects.clone(),
                limits: job.limits.clone(),
            };
            let interrupt = Interrupt::new(interrupted);
            let restored = restore::restore(&place, target, options, progress, interrupt).await?;
            output::show(cli.json, &restored, output::restore)?;
            Ok(restored.exit)
        }
        Verb::Completions { shell } => {
            // The script is made in memory first, because clap panics if the reader goes away.
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "moveout", &mut script);
            output::print(&script)?;
            Ok(Exit::Done)
        }
        Verb::Man { folder } => {
            let written = man::Pages::write(Cli::command(), folder)?;
            output::show(cli.json, &written, man::Pages::show)?;
            Ok(Exit::Done)
        }
    }
}

/// More requests at once did not make a server take rows faster, measured with one core and with two.
const RESTORE_AT_ONCE: usize = 2;

/// The window between two bounds; `None` for all of time.
fn window_of(from: Bound, to: Bound) -> Option<Window> {
    let at = |bound: Bound, usual: i64| match bound {
        Bound::At(time) => time,
        Bound::Min | Bound::Max => usual,
    };
    let window = Window::new(at(from, Window::ALL.from), at(to, Window::ALL.to))?;
    (window != Window::ALL).then_some(window)
}

fn load(args: &JobArgs, progress: &Progress) -> Result<Job> {
    let flags = Flags {
        config: args.config.clone(),
        sources: args.sources.clone(),
        name: args.name.clone(),
        archive: args.archive.clone(),
        from: args.from.clone(),
        to: args.to.clone(),
        keep: args.keep,
        shard: args.shard,
        window: args.window.clone(),
        concurrency: args.concurrency,
        memory: args.memory.clone(),
        bandwidth: args.bandwidth.clone(),
        ..Flags::default()
    };
    let job = config::load(flags)?;
    // The warnings are shown at once, because the run may not reach its summary.
    job.warnings.iter().for_each(|warning| progress.note(&format!("warning: {warning}")));
    Ok(job)
}

/// A channel that turns true at the first Ctrl-C (or SIGTERM). The second ends the process at once.
fn interrupts(progress: &Progress) -> watch::Receiver<bool> {
    let (sender, receiver) = watch::channel(false);
    let progress = progress.clone();
    tokio::spawn(async move {
        // One listener receives both signals, so that a second one that follows at once is not lost.
        let mut signals = Signals::new();
        signals.next().await;
        progress.stopping();
        let _ = sender.send(true);
        signals.next().await;
        progress.end();
        end_now()
    });
    receiver
}

#[expect(clippy::exit, reason = "the user asked twice, and everything that was committed stays")]
fn end_now() {
    std::process::exit(Exit::Interrupted as i32)
}

struct Signals(Vec<Signal>);

impl Signals {
    fn new() -> Self {
        let kinds = [SignalKind::interrupt(), SignalKind::terminate()];
        Self(kinds.into_iter().filter_map(|kind| signal(kind).ok()).collect())
    }

    async fn next(&mut self) {
        let signals = self.0.iter_mut().map(|signal| Box::pin(signal.recv()));
        match signals.len() {
            0 => std::future::pending().await,
            _ => _ = futures::future::select_all(signals).await,
        }
    }
}

fn fail(cli: &Cli, progress: &Progress, error: &Error) -> ExitCode {
    let hint = error.hint_text().map(|hint| format!("\n\nhint: {hint}")).unwrap_or_default();
    progress.line_of("error", &format!("error: {error}{hint}"));
    if cli.json {
        let _ = output::error(error); // there is nowhere left to report a failure
    }
    ExitCode::from(error.exit() as u8)
}

/// The log goes to standard error beside the progress, or to a file.
fn log(cli: &Cli, progress: &Progress) -> Result<()> {
    let level = match (cli.verbose, &cli.log_file) {
        (0, None) => "warn",
        (1, _) => "moveout=info,warn",
        _ => "moveout=debug,warn",
    };
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(level));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false);
    match &cli.log_file {
        Some(path) => {
            let file =
                OpenOptions::new().append(true).create(true).open(path).map_err(|error| {
                    Error::usage(format!("opening the log {}: {error}", path.display()))
                })?;
            log.with_writer(Mutex::new(file)).init();
        }
        None => {
            let progress = progress.clone();
            log.without_time().with_writer(move || LogLines(progress.clone())).init();
        }
    }
    Ok(())
}

/// A writer that prints each event of the log as a line.
struct LogLines(Progress);

impl Write for LogLines {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        self.0.line_of("log", String::from_utf8_lossy(event).trim_end());
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
