//! PURE: the values of fields and the timestamp of a point, which are accepted and refused as by InfluxDB's own parser.

use memchr::memchr2;

use crate::source::line_protocol::line_error::{LineError, Parsed, bad, show};

/// The value of a field.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value<'a> {
    Float(f64),
    Integer(i64),
    Unsigned(u64),
    Boolean(bool),
    /// The text between the quotes, still escaped.
    String(&'a [u8]),
}

/// The value of a field and its length. What follows must be a comma or a space.
pub(super) fn value(rest: &[u8]) -> Parsed<(Value<'_>, usize)> {
    if rest.first() == Some(&b'"') {
        return string(rest);
    }
    let end =
        rest.iter().position(|byte| matches!(byte, b',' | b' ' | b'\n')).ok_or(LineError::More)?;
    let token = &rest[..end];
    let value = match (token.first(), token.last()) {
        (None, _) => return bad("a field without a value"),
        (_, Some(b'i')) => Value::Integer(integer(token)?),
        (_, Some(b'u')) => Value::Unsigned(unsigned(token)?),
        (Some(b't' | b'T' | b'f' | b'F'), _) => Value::Boolean(boolean(token)?),
        _ => Value::Float(float(token)?),
    };
    Ok((value, end))
}

fn string(rest: &[u8]) -> Parsed<(Value<'_>, usize)> {
    let mut at = 1;
    while let Some(found) = rest.get(at..).and_then(|rest| memchr2(b'"', b'\\', rest)) {
        at += found;
        if rest[at] == b'"' {
            return Ok((Value::String(&rest[1..at]), at + 1));
        }
        at += 2;
    }
    Err(LineError::More)
}

fn boolean(token: &[u8]) -> Parsed<bool> {
    match token {
        b"t" | b"T" | b"true" | b"True" | b"TRUE" => Ok(true),
        b"f" | b"F" | b"false" | b"False" | b"FALSE" => Ok(false),
        _ => bad(format!("`{}` is not a value", show(token))),
    }
}

fn integer(token: &[u8]) -> Parsed<i64> {
    let digits = &token[..token.len() - 1];
    check_digits(digits.strip_prefix(b"-").unwrap_or(digits), token)?;
    parse_text(digits).ok_or_else(|| out_of_range(token))
}

fn unsigned(token: &[u8]) -> Parsed<u64> {
    let digits = &token[..token.len() - 1];
    check_digits(digits, token)?;
    parse_text(digits).ok_or_else(|| out_of_range(token))
}

fn check_digits(digits: &[u8], token: &[u8]) -> Parsed<()> {
    if !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) {
        Ok(())
    } else {
        bad(format!("`{}` is not a value", show(token)))
    }
}

fn out_of_range(token: &[u8]) -> LineError {
    LineError::Bad(format!("`{}` does not fit 64 bits", show(token)).into())
}

// Rust's parser accepts more than InfluxDB's (`inf`, `+1`), so the bytes are checked first.
fn float(token: &[u8]) -> Parsed<f64> {
    let allowed = |byte: &u8| matches!(byte, b'0'..=b'9' | b'.' | b'-' | b'+' | b'e' | b'E');
    if token.starts_with(b"+") || !token.iter().all(allowed) {
        return bad(match token.to_ascii_lowercase().as_slice() {
            b"nan" | b"-nan" | b"inf" | b"+inf" | b"-inf" => {
                "NaN and infinity, which InfluxDB does not read".to_owned()
            }
            _ => format!("`{}` is not a value", show(token)),
        });
    }
    match parse_text::<f64>(token) {
        Some(value) if value.is_finite() => Ok(value),
        Some(_) => Err(out_of_range(token)),
        None => bad(format!("`{}` is not a value", show(token))),
    }
}

fn parse_text<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// The number of bytes at the start that InfluxDB skips as blank.
pub(super) fn blank(line: &[u8]) -> usize {
    line.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | 0)).count()
}

/// The end of a line: its timestamp, how many digits that has, and the length with the newline.
#[derive(Debug, PartialEq)]
pub(super) struct Timestamp {
    pub(super) ticks: i64,
    pub(super) digits: usize,
    pub(super) length: usize,
}

/// Reads the timestamp and the end of the line; `rest` begins after the fields.
pub(super) fn timestamp(rest: &[u8]) -> Parsed<Timestamp> {
    let from = blank(rest);
    let sign = usize::from(rest.get(from) == Some(&b'-'));
    let digits = rest[from + sign..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let end = from + sign + digits;
    let spaces = rest[end..].iter().take_while(|byte| **byte == b' ').count();
    let carriage_return = usize::from(rest.get(end + spaces) == Some(&b'\r'));
    let newline = end + spaces + carriage_return;
    match rest.get(newline) {
        None => return Err(LineError::More),
        Some(b'\n') if digits > 0 => {}
        Some(b'\n') if sign == 0 => return bad("no timestamp"),
        Some(_) => return bad("no valid timestamp after the fields"),
    }
    let ticks = parse_text(&rest[from..end]).ok_or_else(|| out_of_range(&rest[from..end]))?;
    Ok(Timestamp { ticks, digits, length: newline + 1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Option<Value<'_>> {
        match value(text.as_bytes()) {
            Ok((value, length)) if matches!(text.as_bytes()[length], b',' | b' ') => Some(value),
            _ => None,
        }
    }

    #[test]
    fn values_of_every_type() {
        use Value::{Boolean, Float, Integer, Unsigned};
        let cases = [
            ("1 ", Float(1.0)),
            ("-0 ", Float(-0.0)),
            ("1e-3,", Float(0.001)),
            ("1E+3 ", Float(1000.0)),
            (".5 ", Float(0.5)),
            ("-.5 ", Float(-0.5)),
            ("5. ", Float(5.0)),
            ("5e-324 ", Float(5e-324)),
            ("2.2250738585072011e-308 ", Float(2.225_073_858_507_201e-308)),
            ("1.7976931348623157e+308 ", Float(f64::MAX)),
            ("18446744073709551616 ", Float(18_446_744_073_709_551_616.0)),
            ("1i ", Integer(1)),
            ("007i ", Integer(7)),
            ("-9223372036854775808i ", Integer(i64::MIN)),
            ("9223372036854775807i,", Integer(i64::MAX)),
            ("0u ", Unsigned(0)),
            ("18446744073709551615u ", Unsigned(u64::MAX)),
        ];
        for (text, expected) in cases {
            assert_eq!(one(text), Some(expected), "{text}");
        }
        assert!(matches!(one("-0 "), Some(Float(zero)) if zero.is_sign_negative()));
        for text in ["t", "T", "true", "True", "TRUE"] {
            assert_eq!(one(&format!("{text} ")), Some(Boolean(true)), "{text}");
        }
        for text in ["f", "F", "false", "False", "FALSE"] {
            assert_eq!(one(&format!("{text},")), Some(Boolean(false)), "{text}");
        }
    }

    #[test]
    fn values_that_influxdb_would_not_read_are_refused() {
        let wrong = [
            "",
            "-",
            ".",
            "-.",
            "+1",
            "1.1.1",
            "1e",
            "e1",
            "1-1",
            "--1",
            "0x10",
            "1_0",
            "nan",
            "NaN",
            "inf",
            "+Inf",
            "-Inf",
            "1e400",
            "-1e999",
            "i",
            "-i",
            "+1i",
            "1.0i",
            "1ei",
            "1i1",
            "1ii",
            "9223372036854775808i",
            "-9223372036854775809i",
            "u",
            "-1u",
            "+1u",
            "1.0u",
            "18446744073709551616u",
            "tr",
            "tRUE",
            "yes",
            "truefalse",
            "ff",
            "'a'",
            "1\t",
            "1\r",
        ];
        for text in wrong {
            let whole = format!("{text} ");
            assert!(matches!(value(whole.as_bytes()), Err(LineError::Bad(_))), "{text}");
        }
        assert_eq!(value(b"1"), Err(LineError::More));
    }

    #[test]
    fn strings_end_at_a_quote_that_is_not_escaped() {
        let string = |text: &'static str| match value(text.as_bytes()) {
            Ok((Value::String(raw), length)) => Some((std::str::from_utf8(raw).unwrap(), length)),
            _ => None,
        };
        assert_eq!(string(r#""" "#), Some(("", 2)));
        assert_eq!(string(r#""a, b=c" "#), Some(("a, b=c", 8)));
        assert_eq!(string("\"a\nb\" "), Some(("a\nb", 5)));
        assert_eq!(string(r#""a\"b" "#), Some((r#"a\"b"#, 6)));
        assert_eq!(string(r#""a\\" "#), Some((r"a\\", 5)));
        for open in [r#"""#, r#""a"#, r#""a\"#, r#""a\""#, r#""a\\\""#] {
            assert_eq!(value(open.as_bytes()), Err(LineError::More), "{open}");
        }
    }

    #[test]
    fn timestamps_end_the_line() {
        let ticks = |text: &str| timestamp(text.as_bytes()).ok().map(|t| (t.ticks, t.length));
        assert_eq!(ticks(" 1\n"), Some((1, 3)));
        assert_eq!(ticks(" -9223372036854775808\nx"), Some((i64::MIN, 22)));
        assert_eq!(ticks("  \t5  \r\n"), Some((5, 8)));
        assert_eq!(timestamp(b" 1"), Err(LineError::More));
        assert_eq!(timestamp(b" "), Err(LineError::More));
        assert_eq!(timestamp(b" 1\r"), Err(LineError::More));
        for wrong in ["\n", " \n", "\r\n", " -\n", " 1.5\n", " 1i\n", " x\n", " 1 2\n", " 1\t\n"] {
            assert!(matches!(timestamp(wrong.as_bytes()), Err(LineError::Bad(_))), "{wrong:?}");
        }
        assert!(matches!(timestamp(b" 9223372036854775808\n"), Err(LineError::Bad(_))));
    }
}
