//! PURE: values that are in memory very often, in little space: one of each description, and short texts in place.

use std::collections::HashSet;
use std::fmt;
use std::hash::Hash;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The bytes of a text that need no memory of their own. Most numbers are shorter.
const SHORT: usize = 22;

/// A text that is short as a rule. It takes 24 bytes, and more only where it is longer than 22.
#[derive(Clone)]
pub struct Text(Held);

#[derive(Clone)]
enum Held {
    Short(u8, [u8; SHORT]),
    Long(Box<str>),
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        let mut bytes = [0; SHORT];
        match bytes.get_mut(..text.len()) {
            Some(place) => {
                place.copy_from_slice(text.as_bytes());
                Self(Held::Short(text.len() as u8, bytes))
            }
            None => Self(Held::Long(text.into())),
        }
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        text.as_str().into()
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        match &self.0 {
            // It is the text from which it was made.
            Held::Short(length, bytes) => {
                bytes.get(..usize::from(*length)).and_then(|b| std::str::from_utf8(b).ok())
            }
            Held::Long(text) => Some(&**text),
        }
        .unwrap_or_default()
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Text {}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self)
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self)
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Text;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Text, E> {
                Ok(text.into())
            }
        }
        from.deserialize_str(Visitor)
    }
}

/// Keeps one of each value. What is in it stays for as long as the process runs.
#[derive(Debug)]
pub struct OneOfEach<T>(Mutex<Option<HashSet<Arc<T>>>>);

impl<T: Eq + Hash> OneOfEach<T> {
    /// An empty one.
    pub const fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// The one that is equal to this value.
    pub fn one(&self, value: T) -> Arc<T> {
        let mut values = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let values = values.get_or_insert_default();
        if let Some(known) = values.get(&value) {
            return Arc::clone(known);
        }
        let new = Arc::new(value);
        values.insert(Arc::clone(&new));
        new
    }
}

impl<T: Eq + Hash> Default for OneOfEach<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_what_it_was_made_of() {
        assert_eq!(size_of::<Option<Text>>(), 24);
        for length in 0..40 {
            let text = "aé0".chars().cycle().take(length).collect::<String>();
            let compact = Text::from(text.as_str());
            assert_eq!(*compact, *text);
            let json = serde_json::to_string(&compact).unwrap();
            assert_eq!(json, serde_json::to_string(&text).unwrap());
            assert_eq!(serde_json::from_str::<Text>(&json).unwrap(), compact);
            assert_eq!(format!("{compact:?} {compact}"), format!("{text:?} {text}"));
        }
        assert!(serde_json::from_str::<Text>("1").is_err());
    }

    #[test]
    fn there_is_one_of_each() {
        static TEXTS: OneOfEach<String> = OneOfEach::new();
        let [one, same, other] = ["a", "a", "b"].map(|text| TEXTS.one(text.to_owned()));
        assert!(Arc::ptr_eq(&one, &same) && !Arc::ptr_eq(&one, &other));
    }
}
