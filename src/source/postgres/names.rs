//! PURE: represents texts of a database in Unicode whose encoding is `SQL_ASCII`, where a name may consist of any bytes.
//! A byte that is not part of valid UTF-8 becomes a private-use character, U+F780 to U+F7FF by its value. So does each
//! byte of such a character itself, so that different names stay different.

use std::str;

const BASE: u32 = 0xf700;

fn is_taken(character: char) -> bool {
    (BASE + 0x80..=BASE + 0xff).contains(&u32::from(character))
}

fn private(byte: u8) -> char {
    char::from_u32(BASE + u32::from(byte)).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// The text that represents these bytes.
pub(crate) fn text_of(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            if is_taken(character) {
                text.extend(character.encode_utf8(&mut [0; 4]).bytes().map(private));
            } else {
                text.push(character);
            }
        }
        text.extend(chunk.invalid().iter().copied().map(private));
    }
    text
}

/// The bytes that a text represents.
pub(crate) fn bytes_of(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    for character in text.chars() {
        if is_taken(character) {
            bytes.push((u32::from(character) - BASE) as u8);
        } else {
            bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn utf8_stays_as_it_is() {
        assert_eq!(text_of("tschüß".as_bytes()), "tschüß");
        assert_eq!(text_of(b"caf\xe9"), "caf\u{f7e9}");
        assert_eq!(bytes_of("caf\u{f7e9}"), b"caf\xe9");
    }

    proptest! {
        #[test]
        fn bytes_come_back(bytes in prop::collection::vec(any::<u8>(), 0..20), text in "[\u{f770}-\u{f810}]{0,4}") {
            let all = [&bytes[..], text.as_bytes()].concat();
            prop_assert_eq!(bytes_of(&text_of(&all)), all);
        }
    }
}
