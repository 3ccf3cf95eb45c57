//! PURE: values that are in memory very often, in little space: one of each description, and short texts in place.

use std::collections::HashSet;
use std::fmt;
use std::hash::Hash;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The bytes of a text that need no memory of their own. Most numbers are shorter.
const SHORT: usize = 22;
/// So many values are kept without a look whether somebody has them.
const LEAST_KEPT: usize = 1024;

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

/// Keeps one of each value, for as long as somebody else has it.
#[derive(Debug)]
pub struct OneOfEach<T>(Mutex<Option<Kept<T>>>);

#[derive(Debug)]
struct Kept<T> {
    values: HashSet<Arc<T>>,
    /// With so many of them it is time to let those go that nobody has any more.
    most: usize,
}

impl<T: Eq + Hash> OneOfEach<T> {
    /// An empty one.
    pub const fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// The one that is equal to this value.
    pub fn one(&self, value: T) -> Arc<T> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Kept { values, most } =
            kept.get_or_insert_with(|| Kept { values: HashSet::new(), most: LEAST_KEPT });
        if let Some(known) = values.get(&value) {
            return Arc::clone(known);
        }
        if values.len() >= *most {
            values.retain(|value| Arc::strong_count(value) > 1);
            *most = LEAST_KEPT.max(2 * values.len());
        }
        let new = Arc::new(value);
        values.insert(Arc::clone(&new));
        new
    }
}

/// Whether a value from [`OneOfEach`] has no other user, as far as that can be told.
pub fn is_sole<T>(value: &Arc<T>) -> bool {
    Arc::strong_count(value) <= 2
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
        assert!(is_sole(&other) && !is_sole(&one));
        for n in 0..3 * LEAST_KEPT {
            TEXTS.one(n.to_string()); // of which nobody keeps one
        }
        assert!(TEXTS.0.lock().unwrap().as_ref().unwrap().values.len() <= LEAST_KEPT);
        assert!(Arc::ptr_eq(&one, &TEXTS.one("a".to_owned())));
    }
}
