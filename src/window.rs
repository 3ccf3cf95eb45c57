//! PURE: windows of time and slices of tables: parsing, printing, aligning, halving.
//! All times are nanoseconds since 1970 UTC in an `i64`, and all windows are half-open.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, NaiveDate, NaiveDateTime, SecondsFormat, Utc};

use crate::error::{Error, Result};

/// Nanoseconds in a microsecond.
pub const MICROSECOND: i64 = 1_000;
/// Nanoseconds in a second.
pub const SECOND: i64 = 1_000_000_000;
/// Nanoseconds in a UTC day.
pub const DAY: i64 = 86_400 * SECOND;
/// No window is halved below twice this width.
pub const MIN_WIDTH: i64 = SECOND;

/// A half-open range of time `[from, to)` in nanoseconds UTC; never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Window {
    /// The first nanosecond inside.
    pub from: i64,
    /// The first nanosecond after.
    pub to: i64,
}

impl Window {
    /// All of time.
    pub const ALL: Self = Self { from: i64::MIN, to: i64::MAX };

    /// A window; `None` if it would be empty.
    pub fn new(from: i64, to: i64) -> Option<Self> {
        (from < to).then_some(Self { from, to })
    }

    /// Whether the instant lies inside.
    pub fn contains(&self, time: i64) -> bool {
        self.from <= time && time < self.to
    }

    /// Whether the two share an instant.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.from < other.to && other.from < self.to
    }

    /// The part that both share.
    pub fn intersect(&self, other: &Self) -> Option<Self> {
        Self::new(self.from.max(other.from), self.to.min(other.to))
    }

    /// Length in nanoseconds, at most `i64::MAX`.
    pub fn width(&self) -> i64 {
        self.to.saturating_sub(self.from)
    }

    /// The two halves, cut at the roundest instant near the middle; `None` if the window is narrower than twice `min_width`.
    pub fn halves(&self, min_width: i64) -> Option<(Self, Self)> {
        if self.width() / 2 < min_width.max(1) {
            return None;
        }
        let middle = ((i128::from(self.from) + i128::from(self.to)) / 2) as i64;
        let cut = [DAY, 3600 * SECOND, 60 * SECOND, SECOND, MICROSECOND]
            .into_iter()
            .map(|unit| align_down(middle, unit))
            .find(|cut| cut.saturating_sub(self.from) >= self.width() / 4)
            .unwrap_or(middle);
        Some((Self { from: self.from, to: cut }, Self { from: cut, to: self.to }))
    }
}

/// The last multiple of `unit` at or before `time`. Multiples count from 1970-01-01, so a unit that
/// divides a day, or that a day divides, is aligned to UTC midnight.
pub fn align_down(time: i64, unit: i64) -> i64 {
    time.checked_sub(time.rem_euclid(unit)).unwrap_or(i64::MIN)
}

/// The part of a table that one query reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Slice {
    /// The rows of a window.
    Window(Window),
    /// The rows whose time is null.
    NullTime,
    /// The whole table, if the source cannot serve a window cheaply.
    All,
}

impl Slice {
    /// The time that this slice covers; `None` for the rows without a time.
    pub fn window(&self) -> Option<Window> {
        match self {
            Self::Window(window) => Some(*window),
            Self::NullTime => None,
            Self::All => Some(Window::ALL),
        }
    }

    /// Its name with nine digits in each fraction, which is the form in the keys of commits.
    pub fn long_name(&self) -> String {
        match self {
            Self::Window(window) => {
                format!("{}_{}", with_nine_digits(window.from), with_nine_digits(window.to))
            }
            slice => slice.to_string(),
        }
    }

    /// Whether the two share an instant, or both are the rows without a time.
    pub fn overlaps(self, other: Self) -> bool {
        match (self.window(), other.window()) {
            (Some(one), Some(other)) => one.overlaps(&other),
            (one, other) => one == other,
        }
    }
}

impl From<Window> for Slice {
    fn from(window: Window) -> Self {
        if window == Window::ALL { Self::All } else { Self::Window(window) }
    }
}

/// The form in file names: `20240101T000000Z_20240102T000000Z`, `all`, `null-time`.
impl fmt::Display for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Window(window) => write!(f, "{}_{}", compact(window.from), compact(window.to)),
            Self::NullTime => f.write_str("null-time"),
            Self::All => f.write_str("all"),
        }
    }
}

impl FromStr for Slice {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = || Error::stop(format!("`{text}` is not the name of a slice"));
        match text {
            "all" => Ok(Self::All),
            "null-time" => Ok(Self::NullTime),
            _ => {
                let (from, to) = text.split_once('_').ok_or_else(bad)?;
                let window = Window::new(
                    parse_compact(from).ok_or_else(bad)?,
                    parse_compact(to).ok_or_else(bad)?,
                );
                window.map(Self::Window).ok_or_else(bad)
            }
        }
    }
}

impl serde::Serialize for Slice {
    fn serialize<S: serde::Serializer>(&self, s: S) -> std::result::Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Slice {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The form for people: `2024-01-01T00:00:00Z..2024-01-02T00:00:00Z`.
impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::ALL {
            f.write_str("all of time")
        } else {
            write!(f, "{}..{}", rfc3339(self.from), rfc3339(self.to))
        }
    }
}

impl Window {
    /// For people, in UTC and to the second, from its first to its last instant rather than to its end:
    /// `2023-11-14 22:13:20 to 2023-11-15 00:43:19`.
    pub fn for_people(&self) -> String {
        if *self == Self::ALL {
            return self.to_string();
        }
        let second = |time| DateTime::from_timestamp_nanos(time).format("%Y-%m-%d %H:%M:%S");
        format!("{} to {}", second(self.from), second(self.to.saturating_sub(1).max(self.from)))
    }
}

/// In JSON a window is `{"from": RFC 3339, "to": RFC 3339}` with all nine digits where needed.
impl serde::Serialize for Window {
    fn serialize<S: serde::Serializer>(&self, s: S) -> std::result::Result<S::Ok, S::Error> {
        WindowText { from: rfc3339(self.from), to: rfc3339(self.to) }.serialize(s)
    }
}

impl<'de> serde::Deserialize<'de> for Window {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        let text = WindowText::deserialize(d)?;
        let bound = |text: &str| {
            parse_time(text).ok_or_else(|| serde::de::Error::custom(format!("`{text}` is no time")))
        };
        Self::new(bound(&text.from)?, bound(&text.to)?)
            .ok_or_else(|| serde::de::Error::custom("a window that ends before it begins"))
    }
}

#[derive(serde::Serialize, serde::Deserialize)]
struct WindowText {
    from: String,
    to: String,
}

/// `20240101T000000Z`, with a fraction only if there is one, in microseconds if these suffice.
fn compact(time: i64) -> String {
    if time % SECOND == 0 || time % MICROSECOND != 0 {
        return with_nine_digits(time);
    }
    DateTime::from_timestamp_nanos(time).format("%Y%m%dT%H%M%S%.6fZ").to_string()
}

/// The same, but a fraction always has nine digits.
fn with_nine_digits(time: i64) -> String {
    let format = if time % SECOND == 0 { "%Y%m%dT%H%M%SZ" } else { "%Y%m%dT%H%M%S%.9fZ" };
    DateTime::from_timestamp_nanos(time).format(format).to_string()
}

fn parse_compact(text: &str) -> Option<i64> {
    let time = NaiveDateTime::parse_from_str(text, "%Y%m%dT%H%M%S%.fZ").ok()?;
    nanos(time.and_utc())
}

// `timestamp_nanos_opt` multiplies before it adds and gives up on the lowest representable second,
// which InfluxDB's smallest time (1677-09-21T00:12:43.145224194Z) lies in.
fn nanos(time: DateTime<Utc>) -> Option<i64> {
    let nanos = i128::from(time.timestamp()) * i128::from(SECOND)
        + i128::from(time.timestamp_subsec_nanos());
    i64::try_from(nanos).ok()
}

/// RFC 3339 in UTC with as many digits as the time needs.
pub fn rfc3339(time: i64) -> String {
    DateTime::from_timestamp_nanos(time).to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

/// Reads RFC 3339 or a date; `None` when it is neither or does not fit 64 bits of nanoseconds.
pub fn parse_time(text: &str) -> Option<i64> {
    if let Ok(date) = NaiveDate::parse_from_str(text, "%Y-%m-%d") {
        return nanos(date.and_hms_opt(0, 0, 0)?.and_utc());
    }
    nanos(DateTime::parse_from_rfc3339(text).ok()?.with_timezone(&Utc))
}

/// Reads a date and a time as people write them: `2024-01-31 12:00`, also with seconds, a zone or a `T`. Without a
/// zone it is UTC.
fn parse_plain(text: &str) -> Option<i64> {
    let text = text.replacen('T', " ", 1);
    let formats = ["%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S%.f"];
    let utc = text.trim_end_matches('Z').trim_end();
    let utc = formats.iter().find_map(|format| NaiveDateTime::parse_from_str(utc, format).ok());
    let zoned = || {
        let formats = formats.map(|format| format!("{format}%#z"));
        formats.iter().find_map(|format| DateTime::parse_from_str(&text, format).ok())
    };
    nanos(utc.map(|time| time.and_utc()).or_else(|| Some(zoned()?.with_timezone(&Utc)))?)
}

/// The present, in nanoseconds.
pub fn now() -> i64 {
    nanos(Utc::now()).unwrap_or(i64::MAX)
}

/// The present in whole microseconds, for the end of a range, because every source can represent such an instant.
pub fn now_micros() -> i64 {
    align_down(now(), MICROSECOND)
}

/// Reads a duration: `1d`, `12h`, `30m`, `10s`, `500ms`, `2w`.
pub fn parse_duration(text: &str) -> Option<i64> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let count: i64 = text[..digits].parse().ok()?;
    let unit = match &text[digits..] {
        "w" => 7 * DAY,
        "d" => DAY,
        "h" => 3600 * SECOND,
        "m" => 60 * SECOND,
        "s" => SECOND,
        "ms" => SECOND / 1000,
        _ => return None,
    };
    count.checked_mul(unit).filter(|nanos| *nanos > 0)
}

/// Prints a duration in the largest unit in which it is a whole number.
pub fn duration_text(nanos: i64) -> String {
    let units =
        [(DAY, "d"), (3600 * SECOND, "h"), (60 * SECOND, "m"), (SECOND, "s"), (1_000_000, "ms")];
    match units.into_iter().find(|(unit, _)| nanos % unit == 0) {
        Some((unit, name)) => format!("{}{name}", nanos / unit),
        None => format!("{nanos}ns"),
    }
}

/// One end of the requested range, before it is known what `now`, `min` and `max` are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// A fixed instant.
    At(i64),
    /// The first row of each table.
    Min,
    /// Just after the last row of each table.
    Max,
}

impl Bound {
    /// Reads RFC 3339, a date, `now`, `now-30d`, `min` or `max`.
    pub fn parse(text: &str, now: i64) -> Result<Self> {
        let time = match text {
            "min" => return Ok(Self::Min),
            "max" => return Ok(Self::Max),
            "now" => Some(now),
            _ => match text.strip_prefix("now-") {
                Some(ago) => parse_duration(ago).and_then(|ago| now.checked_sub(ago)),
                None => parse_time(text).or_else(|| parse_plain(text)),
            },
        };
        time.map(Self::At).ok_or_else(|| {
            Error::usage(format!("`{text}` is not a time that moveout knows")).hint(
                "use RFC 3339 (2024-01-31T12:00:00Z, years 1678 to 2261), a date with or without a time (2024-01-31 12:00, \
                 in UTC), `now`, `now-30d`, `min` or `max`",
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn slices_are_named_as_the_archive_format_says() {
        let day = Window::new(1_704_067_200 * SECOND, 1_704_153_600 * SECOND).unwrap();
        assert_eq!(Slice::from(day).to_string(), "20240101T000000Z_20240102T000000Z");
        let odd = Window::new(-1, 1).unwrap();
        assert_eq!(
            Slice::from(odd).to_string(),
            "19691231T235959.999999999Z_19700101T000000.000000001Z"
        );
        let micros = Slice::from(Window::new(-1_000, 1_000).unwrap());
        assert_eq!(micros.to_string(), "19691231T235959.999999Z_19700101T000000.000001Z");
        let long = "19691231T235959.999999000Z_19700101T000000.000001000Z";
        assert_eq!((micros.long_name().as_str(), long.parse().unwrap()), (long, micros));
    }

    #[test]
    fn bounds_are_read_as_the_command_line_says() {
        let bound = |text| Bound::parse(text, 10 * DAY).unwrap();
        assert_eq!(bound("now"), Bound::At(10 * DAY));
        assert_eq!(bound("now-3d"), Bound::At(7 * DAY));
        assert_eq!(bound("1970-01-02"), Bound::At(DAY));
        assert_eq!(bound("1970-01-02T01:00:00+01:00"), Bound::At(DAY));
        for plain in
            ["1970-01-02 01:00", "1970-01-02T01:00", "1970-01-02 01:00:00", "1970-01-02 01:00Z"]
        {
            assert_eq!(bound(plain), Bound::At(DAY + 3600 * SECOND), "{plain}");
        }
        for zoned in
            ["1970-01-02 01:00+01:00", "1970-01-02 01:00:00.0+0100", "1970-01-02T01:00 +01"]
        {
            assert_eq!(bound(zoned), Bound::At(DAY), "{zoned}");
        }
        assert_eq!(bound("min"), Bound::Min);
        for nonsense in [
            "",
            "yesterday",
            "now-",
            "now-3",
            "2024-13-01",
            "9999-01-01",
            "now-9y",
            "2024-01-01 25:00",
            "2024-01-01 ",
        ] {
            assert!(Bound::parse(nonsense, 0).is_err(), "{nonsense}");
        }
    }

    proptest! {
        #[test]
        fn a_slice_survives_its_name(from in any::<i64>(), to in any::<i64>()) {
            if let Some(window) = Window::new(from, to) {
                let slice = Slice::from(window);
                prop_assert_eq!(slice.to_string().parse::<Slice>().unwrap(), slice);
                prop_assert_eq!(slice.long_name().parse::<Slice>().unwrap(), slice);
                let json = serde_json::to_string(&window).unwrap();
                prop_assert_eq!(serde_json::from_str::<Window>(&json).unwrap(), window);
            }
        }

        #[test]
        fn halves_cover_the_whole_exactly_once(from in any::<i64>(), to in any::<i64>()) {
            if let Some(window) = Window::new(from, to)
                && let Some((left, right)) = window.halves(1)
            {
                prop_assert_eq!((left.from, left.to, right.to), (window.from, right.from, window.to));
                prop_assert!(left.from < left.to && right.from < right.to);
            }
        }

        #[test]
        fn alignment_never_passes_the_instant(time in any::<i64>(), unit in 1..i64::MAX / 4) {
            let aligned = align_down(time, unit);
            prop_assert!(aligned <= time);
            prop_assert!(i128::from(time) - i128::from(aligned) < i128::from(unit));
        }
    }
}
