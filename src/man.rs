//! The manual pages: one of the program and one of each verb, made of what the flags say. Part of the binary.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};
use moveout::error::{Error, Result};
use serde::Serialize;

/// What was written.
#[derive(Debug, Serialize)]
pub(crate) struct Pages {
    folder: PathBuf,
    /// Names of files.
    pages: Vec<String>,
}

impl Pages {
    /// Writes the pages of a program into a folder, which is created if it does not exist.
    pub(crate) fn write(program: Command, folder: &Path) -> Result<Self> {
        let mut program = program.disable_help_subcommand(true);
        program.build();
        let mut written = Self { folder: folder.to_owned(), pages: Vec::new() };
        let failed = |error: io::Error| {
            Error::stop(format!("writing manual pages into {}: {error}", folder.display()))
        };
        fs::create_dir_all(folder).map_err(failed)?;
        for command in [&program].into_iter().chain(program.get_subcommands()) {
            let (name, page) = page(command).map_err(failed)?;
            fs::write(folder.join(&name), page).map_err(failed)?;
            written.pages.push(name);
        }
        Ok(written)
    }

    /// One line for each file.
    pub(crate) fn show(out: &mut dyn io::Write, written: &Self) -> io::Result<()> {
        written.pages.iter().try_for_each(|page| writeln!(out, "{page}"))
    }
}

/// The name of a file, and what is in it.
fn page(command: &Command) -> io::Result<(String, Vec<u8>)> {
    let man = Man::new(command.clone());
    let file = man.get_filename();
    let title = file.trim_end_matches(".1");
    // clap's own rendering leaves out a date that is not known, and the next word takes its place.
    let date = option_env!("MOVEOUT_DATE").unwrap_or_default();
    let version = env!("CARGO_PKG_VERSION");
    let mut page = format!(".TH {title} 1 \"{date}\" \"moveout {version}\" moveout\n").into_bytes();
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    after(command).to_writer(&mut page)?;
    Ok((file, page))
}

/// What stands below the options: a section of each paragraph, with lines that stay as they are. clap's own rendering
/// would fill them to one block of text.
fn after(command: &Command) -> Roff {
    let text = command.get_after_long_help().or_else(|| command.get_after_help());
    let text = text.map(ToString::to_string).unwrap_or_default();
    let mut roff = Roff::default();
    for paragraph in text.split("\n\n") {
        let Some((title, lines)) = paragraph.split_once('\n') else { continue };
        roff.control("SH", [title.trim_end_matches(':').to_uppercase().as_str()]);
        roff.control("nf", []);
        for line in lines.lines() {
            roff.text([roman(line.strip_prefix("  ").unwrap_or(line))]);
        }
        roff.control("fi", []);
    }
    if command.get_name() != "moveout" {
        roff.control("SH", ["SEE ALSO"]);
        roff.text([roman("moveout(1)")]);
    }
    roff
}
