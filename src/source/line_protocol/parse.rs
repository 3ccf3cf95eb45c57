//! PURE: the grammar of line protocol as InfluxDB 1.x and 2.x read it (Go, models/points.go): where a
//! part of a line ends, what it means and how it is unescaped. Looks at bytes and keeps nothing.

use std::borrow::Cow;

use memchr::{memchr, memchr_iter, memchr2};

/// Why a line could not be read.
#[derive(Debug, PartialEq)]
pub(super) enum Fault {
    /// The bytes end before the line does: try again with more of them.
    More,
    /// The line is wrong, whatever follows.
    Bad(Cow<'static, str>),
}

/// The result of reading a part of a line.
pub(super) type Parsed<T> = std::result::Result<T, Fault>;

/// A line that is wrong, with the reason.
pub(super) fn bad<T>(reason: impl Into<Cow<'static, str>>) -> Parsed<T> {
    Err(Fault::Bad(reason.into()))
}

/// The value of a field.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value<'a> {
    Float(f64),
    Integer(i64),
    Unsigned(u64),
    Boolean(bool),
    /// Still escaped if there is a backslash in it.
    String(&'a [u8]),
}

/// What a backslash takes the meaning of in a measurement or in the key of a field. A measurement
/// needs it only before commas and spaces, but InfluxDB takes it away before all of these.
pub(super) const NAME: &[u8] = b",= \"";
/// The same in the key or the value of a tag.
pub(super) const TAG: &[u8] = b",= ";
/// The same in a string value.
pub(super) const STRING: &[u8] = b"\"\\";

/// Appends `raw` without the backslashes that stand directly before a byte of `special`. All other
/// backslashes are themselves.
pub(super) fn unescape(raw: &[u8], special: &[u8], out: &mut Vec<u8>) {
    let mut rest = raw;
    while let Some(at) = memchr(b'\\', rest) {
        out.extend_from_slice(&rest[..at]);
        match rest.get(at + 1) {
            Some(next) if special.contains(next) => {
                out.push(*next);
                rest = &rest[at + 2..];
            }
            _ => {
                out.push(b'\\');
                rest = &rest[at + 1..];
            }
        }
    }
    out.extend_from_slice(rest);
}

/// How many bytes at the start InfluxDB skips as blank.
pub(super) fn blank(line: &[u8]) -> usize {
    line.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | 0)).count()
}

/// The length of measurement and tags: up to the first space that is not escaped.
pub(super) fn series_end(line: &[u8]) -> Parsed<usize> {
    match memchr_iter(b' ', line).find(|&at| at > 0 && line[at - 1] != b'\\') {
        Some(at) => Ok(at),
        None if line_end(line).is_some() => bad(NO_FIELDS),
        None => Err(Fault::More),
    }
}

const NO_FIELDS: &str = "a measurement and tags, but no fields";

/// The first newline that is not escaped. InfluxDB pairs backslashes from the left to find the ends
/// of lines, while elsewhere only the byte before a delimiter counts.
fn line_end(bytes: &[u8]) -> Option<usize> {
    memchr_iter(b'\n', bytes).find(|&at| !is_escaped_newline(bytes, at))
}

fn is_escaped_newline(bytes: &[u8], at: usize) -> bool {
    bytes[..at].iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1
}

/// The next byte of `stops` without a backslash before it; `from` is at least 1.
fn next_of(raw: &[u8], from: usize, stops: &[u8]) -> Option<usize> {
    (from..raw.len()).find(|&at| stops.contains(&raw[at]) && raw[at - 1] != b'\\')
}

/// Measurement and tags as they stand in a line: still escaped, in any order.
#[derive(Debug, PartialEq)]
pub(super) struct Series<'a> {
    pub(super) measurement: &'a [u8],
    pub(super) tags: Vec<(&'a [u8], &'a [u8])>,
}

/// Takes measurement and tags apart. An empty value is given as such.
pub(super) fn series(raw: &[u8]) -> Parsed<Series<'_>> {
    if line_end(raw).is_some() {
        return bad(NO_FIELDS);
    }
    if matches!(raw.first(), None | Some(b',')) {
        return bad("no measurement before the first comma");
    }
    let mut at = next_of(raw, 1, b",").unwrap_or(raw.len());
    let mut series = Series { measurement: &raw[..at], tags: Vec::new() };
    while at < raw.len() {
        let key = at + 1;
        let equals = tag_key_end(raw, key)?;
        at = tag_value_end(raw, equals + 1)?;
        series.tags.push((&raw[key..equals], &raw[equals + 1..at]));
    }
    Ok(series)
}

fn tag_key_end(raw: &[u8], from: usize) -> Parsed<usize> {
    if matches!(raw.get(from), None | Some(b',' | b'=' | b' ')) {
        return bad("a tag without a name");
    }
    match next_of(raw, from + 1, b",=") {
        Some(at) if raw[at] == b'=' => Ok(at),
        _ => bad(format!("tag `{}` without `=`", show(&raw[from..]))),
    }
}

// InfluxDB does not look at the first byte of a value, so that `k==v` is stored and exported.
fn tag_value_end(raw: &[u8], from: usize) -> Parsed<usize> {
    if raw.get(from) == Some(&b',') {
        return Ok(from);
    }
    match next_of(raw, from + 1, b",=") {
        Some(at) if raw[at] == b'=' => {
            bad(format!("an unescaped `=` in the tag value `{}`", show(&raw[from..])))
        }
        Some(at) => Ok(at),
        None => Ok(raw.len()),
    }
}

/// The length of the key of a field, up to its `=`.
pub(super) fn field_key_end(rest: &[u8]) -> Parsed<usize> {
    for (at, byte) in rest.iter().enumerate() {
        let escaped = at > 0 && rest[at - 1] == b'\\';
        match byte {
            b'=' if at == 0 => return bad("a field without a name"),
            b'=' if !escaped => return Ok(at),
            b' ' | b',' if !escaped => {
                return bad(format!("field `{}` without `=` and a value", show(&rest[..at])));
            }
            b'\n' if !is_escaped_newline(rest, at) => {
                return match at {
                    0 => bad(NO_FIELDS),
                    _ => bad(format!("field `{}` without `=` and a value", show(&rest[..at]))),
                };
            }
            _ => {}
        }
    }
    Err(Fault::More)
}

/// The value of a field and its length. What follows must be a comma or a space.
pub(super) fn value(rest: &[u8]) -> Parsed<(Value<'_>, usize)> {
    if rest.first() == Some(&b'"') {
        return string(rest);
    }
    let end =
        rest.iter().position(|byte| matches!(byte, b',' | b' ' | b'\n')).ok_or(Fault::More)?;
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
    Err(Fault::More)
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
    match !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) {
        true => Ok(()),
        false => bad(format!("`{}` is not a value", show(token))),
    }
}

fn out_of_range(token: &[u8]) -> Fault {
    Fault::Bad(format!("`{}` does not fit 64 bits", show(token)).into())
}

// Rust reads more than InfluxDB does (`inf`, `+1`), so that the bytes are checked before.
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
        None => return Err(Fault::More),
        Some(b'\n') if digits > 0 => {}
        Some(b'\n') if sign == 0 => return bad("no timestamp"),
        Some(_) => return bad("something else than a timestamp after the fields"),
    }
    let ticks = parse_text(&rest[from..end]).ok_or_else(|| out_of_range(&rest[from..end]))?;
    Ok(Timestamp { ticks, digits, length: newline + 1 })
}

/// Whether a whole line would be a point, for lines that are comments all the same.
pub(super) fn is_point(line: &[u8]) -> bool {
    fn walk(line: &[u8]) -> Parsed<()> {
        let mut at = series_end(line)?;
        series(&line[..at])?;
        at += blank(&line[at..]);
        loop {
            at += field_key_end(&line[at..])? + 1;
            at += value(&line[at..])?.1;
            match line.get(at) {
                Some(b',') => at += 1,
                _ => return timestamp(&line[at..]).map(drop),
            }
        }
    }
    walk(line).is_ok()
}

/// A piece of a line for an error: short, and without control characters.
pub(super) fn show(bytes: &[u8]) -> String {
    const LONGEST: usize = 60;
    let cut = &bytes[..bytes.len().min(LONGEST)];
    let text = String::from_utf8_lossy(cut);
    let mut shown: String = text.chars().flat_map(readable).collect();
    if bytes.len() > LONGEST {
        shown.push('…');
    }
    shown
}

fn readable(c: char) -> Box<dyn Iterator<Item = char>> {
    if c.is_control() { Box::new(c.escape_default()) } else { Box::new(std::iter::once(c)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn unescaped(raw: &str, special: &[u8]) -> String {
        let mut out = Vec::new();
        unescape(raw.as_bytes(), special, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn only_a_backslash_directly_before_a_delimiter_is_an_escape() {
        assert_eq!(unescaped(r"a\,b\ c\=d", TAG), "a,b c=d");
        assert_eq!(unescaped(r"C:\dir\new", TAG), r"C:\dir\new");
        assert_eq!(unescaped(r"C:\\dir", TAG), r"C:\\dir");
        assert_eq!(unescaped(r"a\\,b", TAG), r"a\,b");
        assert_eq!(unescaped(r"a\=b\,c\\=d", NAME), r"a=b,c\=d");
        assert_eq!(unescaped(r#"a\"b"#, TAG), r#"a\"b"#);
        assert_eq!(unescaped(r#"a\"b"#, NAME), r#"a"b"#);
        assert_eq!(unescaped(r#"a\"b\\c\n"#, STRING), r#"a"b\c\n"#);
        assert_eq!(unescaped("end\\", TAG), "end\\");
    }

    fn parts(raw: &str) -> Option<(&str, Vec<(&str, &str)>)> {
        fn text(bytes: &[u8]) -> &str {
            std::str::from_utf8(bytes).unwrap()
        }
        let series = series(raw.as_bytes()).ok()?;
        let tags = series.tags.iter().map(|(key, value)| (text(key), text(value))).collect();
        Some((text(series.measurement), tags))
    }

    #[test]
    fn a_series_is_taken_apart_as_influxdb_does() {
        assert_eq!(parts("cpu"), Some(("cpu", vec![])));
        assert_eq!(parts("cpu,b=1,a=2"), Some(("cpu", vec![("b", "1"), ("a", "2")])));
        assert_eq!(parts(r"c\,u,a\=b=c\,d"), Some((r"c\,u", vec![(r"a\=b", r"c\,d")])));
        assert_eq!(parts("c=u,a=b"), Some(("c=u", vec![("a", "b")])));
        assert_eq!(parts("cpu,a=,b=1"), Some(("cpu", vec![("a", ""), ("b", "1")])));
        assert_eq!(parts("cpu,a="), Some(("cpu", vec![("a", "")])));
        assert_eq!(parts("cpu,a==b"), Some(("cpu", vec![("a", "=b")])));
        assert_eq!(parts(r#"cpu,a="b""#), Some(("cpu", vec![("a", r#""b""#)])));
        assert_eq!(parts("cpu,a=b\\\nc"), Some(("cpu", vec![("a", "b\\\nc")])));
        for wrong in ["", ",a=b", "cpu,", "cpu,a", "cpu,a=b,", "cpu,=b", "cpu,a,b=c", "cpu,a=b=c"] {
            assert_eq!(parts(wrong), None, "{wrong}");
        }
        for wrong in ["cpu\n", "cpu\nmem", "cpu,a=b\\\\\nmem"] {
            assert_eq!(parts(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_series_ends_at_the_first_space_that_is_not_escaped() {
        assert_eq!(series_end(b"cpu,a=b f=1"), Ok(7));
        assert_eq!(series_end(br"c\ u,a=\ b f=1"), Ok(10));
        assert_eq!(series_end(br"cpu,a=b\\ f=1 1"), Ok(13), "only the byte before counts");
        assert_eq!(series_end(b"cpu,a=b"), Err(Fault::More));
        assert!(matches!(series_end(b"cpu,a=b\n"), Err(Fault::Bad(_))));
    }

    #[test]
    fn field_keys_end_at_their_equals_sign() {
        assert_eq!(field_key_end(b"f=1"), Ok(1));
        assert_eq!(field_key_end(br"a\=b\,c\ d=1"), Ok(10));
        assert_eq!(field_key_end(br#"a"b=1"#), Ok(3));
        assert_eq!(field_key_end(br"a\\,b=1"), Ok(5));
        assert_eq!(field_key_end(b"f"), Err(Fault::More));
        for wrong in ["=1", "f 1", "f,g=1", ",f=1", " f=1", "f\n", "\n", "a\\\\\n=1"] {
            assert!(matches!(field_key_end(wrong.as_bytes()), Err(Fault::Bad(_))), "{wrong:?}");
        }
    }

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
            assert!(matches!(value(whole.as_bytes()), Err(Fault::Bad(_))), "{text}");
        }
        assert_eq!(value(b"1"), Err(Fault::More));
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
            assert_eq!(value(open.as_bytes()), Err(Fault::More), "{open}");
        }
    }

    #[test]
    fn timestamps_end_the_line() {
        let ticks = |text: &str| timestamp(text.as_bytes()).ok().map(|t| (t.ticks, t.length));
        assert_eq!(ticks(" 1\n"), Some((1, 3)));
        assert_eq!(ticks(" -9223372036854775808\nx"), Some((i64::MIN, 22)));
        assert_eq!(ticks("  \t5  \r\n"), Some((5, 8)));
        assert_eq!(timestamp(b" 1"), Err(Fault::More));
        assert_eq!(timestamp(b" "), Err(Fault::More));
        assert_eq!(timestamp(b" 1\r"), Err(Fault::More));
        for wrong in ["\n", " \n", "\r\n", " -\n", " 1.5\n", " 1i\n", " x\n", " 1 2\n", " 1\t\n"] {
            assert!(matches!(timestamp(wrong.as_bytes()), Err(Fault::Bad(_))), "{wrong:?}");
        }
        assert!(matches!(timestamp(b" 9223372036854775808\n"), Err(Fault::Bad(_))));
    }

    #[test]
    fn a_comment_that_is_a_point_is_told_from_one_that_is_not() {
        assert!(is_point(b"#cpu,a=b f=1,g=\"x\" 5\n"));
        for comment in ["# DML\n", "# f = 1\n", "#\n", "# CONTEXT-DATABASE:a=b 5\n", "#a f=1\n"] {
            assert!(!is_point(comment.as_bytes()), "{comment}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(bytes in prop::collection::vec(
            prop::sample::select(b"ab\\,= \"\n\r\t1i.-#\0\xff".to_vec()), 0..40
        )) {
            let _ = series_end(&bytes);
            let _ = series(&bytes);
            let _ = field_key_end(&bytes);
            let _ = value(&bytes);
            let _ = timestamp(&bytes);
            let _ = is_point(&bytes);
            let _ = show(&bytes);
        }

        #[test]
        fn a_float_comes_back_bit_for_bit(bits in any::<u64>()) {
            let float = f64::from_bits(bits);
            prop_assume!(float.is_finite());
            for text in [format!("{float} "), format!("{float:e} ")] {
                match value(text.as_bytes()) {
                    Ok((Value::Float(read), _)) => prop_assert_eq!(read.to_bits(), bits),
                    other => prop_assert!(false, "{:?}", other),
                }
            }
        }
    }
}
