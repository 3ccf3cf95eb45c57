//! PURE: parses durations and sizes.

use crate::error::{Error, Result};
use crate::window::parse_duration;

pub(super) fn duration(key: &str, text: Option<String>, default: i64) -> Result<i64> {
    let Some(text) = text else { return Ok(default) };
    parse_duration(&text).ok_or_else(|| {
        Error::usage(format!("`{key}`: `{text}` is not a duration"))
            .hint("write 1d, 12h, 30m, 10s or 500ms")
    })
}

/// Parses the value of `--memory`, in bytes.
pub fn memory(text: &str) -> Result<usize> {
    size("memory", Some(text.to_owned()), 0).map(|bytes| bytes as usize)
}

pub(super) fn size(key: &str, text: Option<String>, default: u64) -> Result<u64> {
    let Some(text) = text else { return Ok(default) };
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let unit: Option<u64> = match text[digits..].trim() {
        "" | "B" => Some(1),
        "KiB" => Some(1 << 10),
        "MiB" => Some(1 << 20),
        "GiB" => Some(1 << 30),
        "kB" | "KB" => Some(1_000),
        "MB" => Some(1_000_000),
        "GB" => Some(1_000_000_000),
        _ => None,
    };
    let bytes = unit.and_then(|unit| text[..digits].parse::<u64>().ok()?.checked_mul(unit));
    bytes.filter(|bytes| *bytes > 0).ok_or_else(|| {
        Error::usage(format!("`{key}`: `{text}` is not a size")).hint("write 256MiB or 1GiB")
    })
}
