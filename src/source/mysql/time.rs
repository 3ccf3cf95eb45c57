//! PURE: MySQL's dates and times, which may be zero in whole or in part: in binary rows, as its own text, and as
//! instants.

use std::fmt::Write;

use crate::source::mysql::packet::Parts;
use crate::window::SECOND;

const MICROS_A_DAY: i64 = 86_400 * 1_000_000;

/// A date and a time of day, valid or not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct DateTime {
    pub(super) year: u16,
    pub(super) month: u8,
    pub(super) day: u8,
    hour: u8,
    minute: u8,
    second: u8,
    micros: u32,
}

/// Remembers the days since 1970 of the last date, since the next row often has the same date.
#[derive(Debug, Default)]
pub(super) struct Calendar {
    last: (u32, i32),
}

impl Calendar {
    /// `None` for an invalid date: one with a zero in it, or the 31st of February.
    #[inline]
    pub(super) fn days(&mut self, date: DateTime) -> Option<i32> {
        let key = u32::from(date.year) << 16 | u32::from(date.month) << 8 | u32::from(date.day);
        if key != self.last.0 || key == 0 {
            self.last = (key, days(date)?);
        }
        Some(self.last.1)
    }

    #[inline]
    pub(super) fn micros(&mut self, time: DateTime) -> Option<i64> {
        Some(i64::from(self.days(time)?) * MICROS_A_DAY + time.micros_of_day())
    }
}

/// Days since 1970; `None` for an invalid date or the year 0, which readers of Parquet do not have.
fn days(date: DateTime) -> Option<i32> {
    let leap = date.year.is_multiple_of(4)
        && (!date.year.is_multiple_of(100) || date.year.is_multiple_of(400));
    let last = match date.month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 => 28 + u8::from(leap),
        _ => return None,
    };
    let is_date = date.year > 0 && (1..=last).contains(&date.day);
    is_date.then(|| days_of(i32::from(date.year), i32::from(date.month), i32::from(date.day)))
}

/// Days since 1970. Years are counted from March, so that a leap day is the last of its year.
fn days_of(year: i32, month: i32, day: i32) -> i32 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * month + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

impl DateTime {
    /// Reads a binary row, which leaves out trailing zeros.
    #[inline]
    pub(super) fn read(parts: &mut Parts<'_>) -> Option<Self> {
        let mut time = Self::default();
        let length = parts.byte()?;
        if !matches!(length, 0 | 4 | 7 | 11) {
            return None;
        }
        if length >= 4 {
            let [low, high, month, day] = parts.array()?;
            time = Self { year: u16::from_le_bytes([low, high]), month, day, ..time };
        }
        if length >= 7 {
            let [hour, minute, second] = parts.array()?;
            time = Self { hour, minute, second, ..time };
        }
        if length == 11 {
            time.micros = parts.u32()?;
        }
        let is_time = time.hour < 24 && is_below_an_hour([time.minute, time.second], time.micros);
        is_time.then_some(time)
    }

    /// From the server's text.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (date, time) = text.split_once(' ').unwrap_or((text, "00:00:00"));
        let mut date = date.splitn(3, '-');
        let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
        let mut time = time.splitn(3, ':');
        let micros: u32 = format!("{fraction:0<6}").parse().ok()?;
        Some(Self {
            year: date.next()?.parse().ok()?,
            month: date.next()?.parse().ok()?,
            day: date.next()?.parse().ok()?,
            hour: time.next()?.parse().ok()?,
            minute: time.next()?.parse().ok()?,
            second: time.next()?.parse().ok()?,
            micros,
        })
    }

    #[inline]
    fn micros_of_day(self) -> i64 {
        let seconds =
            i64::from(self.hour) * 3600 + i64::from(self.minute) * 60 + i64::from(self.second);
        seconds * 1_000_000 + i64::from(self.micros)
    }

    /// Nanoseconds since 1970, which may need more than 64 bits; `None` for an invalid date.
    pub(super) fn nanos(self) -> Option<i128> {
        let micros = i64::from(days(self)?) * MICROS_A_DAY + self.micros_of_day();
        Some(i128::from(micros) * 1000)
    }

    /// Appends the text that the server writes for a DATE.
    pub(super) fn push_date(self, to: &mut Vec<u8>) {
        let Self { year, month, day, .. } = self;
        push(to, format_args!("{year:04}-{month:02}-{day:02}"));
    }

    /// Appends the text that the server writes for a DATETIME or TIMESTAMP.
    pub(super) fn push(self, decimals: u8, to: &mut Vec<u8>) {
        let Self { hour, minute, second, micros, .. } = self;
        self.push_date(to);
        push(to, format_args!(" {hour:02}:{minute:02}:{second:02}"));
        push_fraction(micros, decimals, to);
    }
}

/// Reads a TIME from a binary row and appends the text that the server writes for it: `-838:59:59.000`.
pub(super) fn push_time(parts: &mut Parts<'_>, decimals: u8, to: &mut Vec<u8>) -> Option<()> {
    let length = parts.byte()?;
    let (mut negative, mut days, mut time, mut micros) = (0, 0, [0; 3], 0);
    match length {
        0 => {}
        8 | 12 => {
            negative = parts.byte()?;
            days = parts.u32()?;
            time = parts.array::<3>()?;
            if length == 12 {
                micros = parts.u32()?;
            }
        }
        _ => return None,
    }
    if !is_below_an_hour([time[1], time[2]], micros) {
        return None;
    }
    let hours = u64::from(days) * 24 + u64::from(time[0]);
    let sign = if negative == 1 { "-" } else { "" };
    push(to, format_args!("{sign}{hours:02}:{:02}:{:02}", time[1], time[2]));
    push_fraction(micros, decimals, to);
    Some(())
}

fn is_below_an_hour([minute, second]: [u8; 2], micros: u32) -> bool {
    minute < 60 && second < 60 && micros < 1_000_000
}

fn push_fraction(micros: u32, decimals: u8, to: &mut Vec<u8>) {
    if decimals > 0 {
        let digits = format!("{micros:06}");
        let shown = usize::from(decimals).min(digits.len());
        push(to, format_args!(".{}", &digits[..shown]));
    }
}

fn push(to: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    let _ = std::io::Write::write_fmt(to, text); // writing to memory cannot fail
}

/// The precision of a column of dates or times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Precision {
    /// The smallest distance between two values, in nanoseconds.
    unit: i64,
    /// A TIMESTAMP, which holds no more than 32 bits of seconds.
    is_timestamp: bool,
}

impl Precision {
    /// By the column's type: `date`, `datetime(3)`, `timestamp`.
    pub(super) fn of(column_type: &str) -> Option<Self> {
        let (name, rest) = column_type.split_once('(').unwrap_or((column_type, ""));
        let digits: u32 =
            rest.split(')').next().and_then(|digits| digits.parse().ok()).unwrap_or(0);
        let unit = match name {
            "date" => 86_400 * SECOND,
            "datetime" | "timestamp" => 10i64.checked_pow(9 - digits.min(6))?,
            _ => return None,
        };
        Some(Self { unit, is_timestamp: name == "timestamp" })
    }

    /// The first instant at or after another that the column can hold, as a literal: a value of the column is before
    /// this instant exactly if it is before the given one.
    pub(super) fn literal(self, instant: impl Into<i128>) -> String {
        /// The first second of a TIMESTAMP.
        const FIRST: i128 = 1_000_000_000;
        /// The end of a TIMESTAMP's range since MariaDB 11.5; it was in 2038 before.
        const END: i128 = (1 << 32) * 1_000_000_000;
        let unit = i128::from(self.unit);
        let mut nanos = (instant.into() + unit - 1).div_euclid(unit) * unit;
        if self.is_timestamp {
            nanos = nanos.clamp(FIRST, END);
        }
        let micros = nanos.div_euclid(1000);
        let time = chrono::DateTime::from_timestamp_micros(micros as i64).unwrap_or_default();
        let mut text = String::from("TIMESTAMP'");
        let _ = write!(text, "{}'", time.format("%Y-%m-%d %H:%M:%S%.6f"));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn date(year: u16, month: u8, day: u8) -> DateTime {
        DateTime { year, month, day, ..DateTime::default() }
    }

    #[test]
    fn days_are_those_of_the_calendar() {
        let mut calendar = Calendar::default();
        let first = chrono::NaiveDate::from_ymd_opt(1, 1, 1).unwrap();
        let epoch = chrono::NaiveDate::from_ymd_opt(1970, 1, 1).unwrap();
        for day in first.iter_days().step_by(13).take_while(|day| *day < chrono::NaiveDate::MAX) {
            use chrono::Datelike;
            if day.year() > 9999 {
                break;
            }
            let found = calendar.days(date(day.year() as u16, day.month() as u8, day.day() as u8));
            assert_eq!(i64::from(found.unwrap()), (day - epoch).num_days());
        }
        for odd in [(0, 0, 0), (2021, 0, 15), (2021, 1, 0), (2021, 2, 29), (0, 1, 1), (2021, 13, 1)]
        {
            assert_eq!(calendar.days(date(odd.0, odd.1, odd.2)), None, "{odd:?}");
        }
    }

    #[test]
    fn texts_are_those_that_the_server_writes() {
        for text in ["0000-00-00 00:00:00", "2021-00-15 01:02:03", "9999-12-31 23:59:59"] {
            let mut found = Vec::new();
            DateTime::parse(text).unwrap().push(0, &mut found);
            assert_eq!(found, text.as_bytes());
        }
        let mut found = Vec::new();
        DateTime::parse("2021-01-02 03:04:05.6").unwrap().push(3, &mut found);
        assert_eq!(found, b"2021-01-02 03:04:05.600");
        let mut found = Vec::new();
        let wire = [12, 1, 34, 0, 0, 0, 22, 59, 59, 1, 0, 0, 0];
        push_time(&mut Parts(&wire), 6, &mut found).unwrap();
        assert_eq!(found, b"-838:59:59.000001");
    }

    #[test]
    fn bounds_are_rounded_up_to_the_precision_of_the_column() {
        let literal = |kind, instant| Precision::of(kind).unwrap().literal(instant);
        assert_eq!(literal("datetime(6)", 1), "TIMESTAMP'1970-01-01 00:00:00.000001'");
        assert_eq!(literal("datetime", 1_000_000_000), "TIMESTAMP'1970-01-01 00:00:01.000000'");
        assert_eq!(literal("datetime", 1_000_000_001), "TIMESTAMP'1970-01-01 00:00:02.000000'");
        assert_eq!(literal("date", 1), "TIMESTAMP'1970-01-02 00:00:00.000000'");
        assert_eq!(literal("timestamp(3)", -5), "TIMESTAMP'1970-01-01 00:00:01.000000'");
        assert_eq!(literal("datetime(6)", i64::MIN), "TIMESTAMP'1677-09-21 00:12:43.145225'");
        assert_eq!(Precision::of("int(11)"), None);
    }
}
