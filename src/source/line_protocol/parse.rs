//! PURE: the grammar of line protocol as InfluxDB 1.x and 2.x read it (Go, models/points.go): where each part of a line
//! ends, what it means and how it is unescaped.

use memchr::{memchr, memchr_iter};

pub(super) use crate::source::line_protocol::line_error::{LineError, Parsed, bad, show};
pub(super) use crate::source::line_protocol::values::{Value, blank, timestamp, value};

/// The bytes that a backslash escapes in a measurement or in the key of a field. In a measurement it is necessary only
/// before commas and spaces, but InfluxDB removes it before all of these.
pub(super) const NAME: &[u8] = b",= \"";
/// The bytes that a backslash escapes in the key or the value of a tag.
pub(super) const TAG: &[u8] = b",= ";
/// The bytes that a backslash escapes in a string value.
pub(super) const STRING: &[u8] = b"\"\\";

/// Appends `raw` without the backslashes that directly precede a byte of `special`. All other backslashes stay.
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

/// The length of the measurement and the tags, which end at the first unescaped space.
pub(super) fn series_end(line: &[u8]) -> Parsed<usize> {
    match memchr_iter(b' ', line).find(|&at| at > 0 && line[at - 1] != b'\\') {
        Some(at) => Ok(at),
        None if line_end(line).is_some() => bad(NO_FIELDS),
        None => Err(LineError::More),
    }
}

const NO_FIELDS: &str = "a measurement and tags, but no fields";

/// The first unescaped newline. InfluxDB pairs backslashes from the left to find the ends of lines, while elsewhere only
/// the byte before a delimiter counts.
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

/// The measurement and the tags as they are in a line: still escaped, in any order.
#[derive(Debug, PartialEq)]
pub(super) struct Series<'a> {
    pub(super) measurement: &'a [u8],
    pub(super) tags: Vec<(&'a [u8], &'a [u8])>,
}

/// Separates the measurement and the tags. A tag with an empty value is included.
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

// InfluxDB does not check the first byte of a value, so it stores and exports `k==v`.
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
    Err(LineError::More)
}

/// Whether the text of a comment would be a point.
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
    fn a_series_is_separated_as_influxdb_does_it() {
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
        assert_eq!(series_end(b"cpu,a=b"), Err(LineError::More));
        assert!(matches!(series_end(b"cpu,a=b\n"), Err(LineError::Bad(_))));
    }

    #[test]
    fn field_keys_end_at_their_equals_sign() {
        assert_eq!(field_key_end(b"f=1"), Ok(1));
        assert_eq!(field_key_end(br"a\=b\,c\ d=1"), Ok(10));
        assert_eq!(field_key_end(br#"a"b=1"#), Ok(3));
        assert_eq!(field_key_end(br"a\\,b=1"), Ok(5));
        assert_eq!(field_key_end(b"f"), Err(LineError::More));
        for wrong in ["=1", "f 1", "f,g=1", ",f=1", " f=1", "f\n", "\n", "a\\\\\n=1"] {
            assert!(matches!(field_key_end(wrong.as_bytes()), Err(LineError::Bad(_))), "{wrong:?}");
        }
    }

    #[test]
    fn comments_that_would_be_points_are_recognized() {
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
