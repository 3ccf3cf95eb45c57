//! The terminal that the bar is drawn on, and how a line is fitted to its width.

use std::io;

use console::Term;
use indicatif::TermLike;

/// Columns that stay free for the `^C` that a terminal shows. If it wrapped to another line, this one would not be cleared.
pub(super) const MARGIN: u16 = 4;

/// A table's name is not cut to fewer columns than this, since it could not be told from others.
const NAME: usize = 12;

/// A terminal whose last columns are not used.
#[derive(Debug)]
pub(super) struct Narrower(pub(super) Term);

impl TermLike for Narrower {
    fn width(&self) -> u16 {
        self.0.size().1.saturating_sub(MARGIN)
    }

    fn move_cursor_up(&self, lines: usize) -> io::Result<()> {
        self.0.move_cursor_up(lines)
    }

    fn move_cursor_down(&self, lines: usize) -> io::Result<()> {
        self.0.move_cursor_down(lines)
    }

    fn move_cursor_right(&self, columns: usize) -> io::Result<()> {
        self.0.move_cursor_right(columns)
    }

    fn move_cursor_left(&self, columns: usize) -> io::Result<()> {
        self.0.move_cursor_left(columns)
    }

    fn write_line(&self, line: &str) -> io::Result<()> {
        self.0.write_line(line)
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.0.write_str(text)
    }

    fn clear_line(&self) -> io::Result<()> {
        self.0.clear_line()
    }

    fn flush(&self) -> io::Result<()> {
        self.0.flush()
    }
}

/// A part of the line.
pub(super) enum Part {
    /// It may be cut at its end.
    Text(String),
    /// It must not be cut, because it would say something else without its end.
    Whole(String),
}

/// A line of at most so many columns. Parts that do not fit are cut or left out, so that the line never ends in the
/// middle of a number.
pub(super) fn fitting(parts: &[Part], columns: usize) -> String {
    let mut line = String::new();
    for part in parts {
        let (Part::Text(text) | Part::Whole(text)) = part;
        let separator = if line.is_empty() { "" } else { ", " };
        let room = columns.saturating_sub(console::measure_text_width(&line) + separator.len());
        let may_be_cut = matches!(part, Part::Text(_)) && (line.is_empty() || room >= NAME);
        if console::measure_text_width(text) <= room {
            line.extend([separator, text]);
        } else if may_be_cut {
            line.extend([separator, &console::truncate_str(text, room, "…")]);
        }
    }
    line
}
