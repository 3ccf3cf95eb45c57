//! PURE: a tag set as bytes that sort like its keys and values. A tag is its key, a zero byte, its value, a zero byte. A
//! zero byte within a text is followed by 0xff, which never occurs in UTF-8.

use crate::source::line_protocol::parse;
use crate::source::line_protocol::parse::{Parsed, Series, TAG, bad};
use crate::source::line_protocol::schema::utf8;

/// The key and the value of a tag.
pub(super) type Tag = (String, String);

/// The tags of a line, unescaped and sorted by key, without those whose value is empty.
pub(super) fn of(series: &Series<'_>) -> Parsed<Vec<Tag>> {
    let text = |raw: &[u8]| {
        let mut out = Vec::with_capacity(raw.len());
        parse::unescape(raw, TAG, &mut out);
        utf8(out, "tag")
    };
    let mut tags = Vec::with_capacity(series.tags.len());
    for (key, value) in &series.tags {
        tags.push((text(key)?, text(value)?));
    }
    tags.sort_unstable();
    if let Some(pair) = tags.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return bad(format!(
            "the tag `{}` occurs twice in the line",
            parse::show(pair[0].0.as_bytes())
        ));
    }
    tags.retain(|(_, value)| !value.is_empty());
    Ok(tags)
}

/// Appends tags.
pub(super) fn encode(tags: &[Tag], out: &mut Vec<u8>) {
    for text in tags.iter().flat_map(|(key, value)| [key, value]) {
        for byte in text.bytes() {
            out.push(byte);
            if byte == 0 {
                out.push(0xff);
            }
        }
        out.push(0);
    }
}

/// Reads tags; `None` if the bytes are malformed.
pub(super) fn decode(bytes: &[u8]) -> Option<Vec<Tag>> {
    let mut texts = Vec::new();
    let mut text = Vec::new();
    let mut bytes = bytes.iter().peekable();
    while let Some(byte) = bytes.next() {
        if *byte != 0 || bytes.next_if_eq(&&0xff).is_some() {
            text.push(*byte);
        } else {
            texts.push(String::from_utf8(std::mem::take(&mut text)).ok()?);
        }
    }
    let mut tags = Vec::with_capacity(texts.len() / 2);
    let mut texts = texts.into_iter();
    while let Some(key) = texts.next() {
        tags.push((key, texts.next()?));
    }
    text.is_empty().then_some(tags)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tags(line: &str) -> Parsed<Vec<Tag>> {
        of(&parse::series(line.as_bytes()).unwrap())
    }

    fn tag(key: &str, value: &str) -> Tag {
        (key.to_owned(), value.to_owned())
    }

    #[test]
    fn tags_are_sorted_and_empty_ones_are_left_out() {
        assert_eq!(tags("m,b=2,a=1"), Ok(vec![tag("a", "1"), tag("b", "2")]));
        assert_eq!(tags("m,b=2,a=,c=3"), Ok(vec![tag("b", "2"), tag("c", "3")]));
        assert_eq!(tags(r"m,a\ b=C:\dir\,x"), Ok(vec![tag("a b", r"C:\dir,x")]));
        assert_eq!(tags("m"), Ok(vec![]));
    }

    #[test]
    fn a_tag_that_occurs_twice_is_refused_even_if_it_is_empty() {
        for line in ["m,a=1,a=2", "m,a=1,b=1,a=1", "m,a=,a=2", r"m,a\ =1,b=1,a\ =1"] {
            assert!(tags(line).is_err(), "{line}");
        }
    }

    proptest! {
        #[test]
        fn tags_come_back_and_differ_where_they_differ(
            a in prop::collection::vec(("[ab\0é]{1,3}", "[ab\0é]{1,3}"), 0..4),
            b in prop::collection::vec(("[ab\0é]{1,3}", "[ab\0é]{1,3}"), 0..4),
        ) {
            let encoded = |tags: &[Tag]| {
                let mut out = Vec::new();
                encode(tags, &mut out);
                out
            };
            prop_assert_eq!(decode(&encoded(&a)), Some(a.clone()));
            prop_assert_eq!(encoded(&a) == encoded(&b), a == b);
        }

        #[test]
        fn damaged_tags_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..20)) {
            let _ = decode(&bytes);
        }
    }
}
