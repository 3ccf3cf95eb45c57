//! Collects the tags, the fields and their types of each table while a file is read. Fields and their types get small
//! numbers, which are found fast where lines resemble each other.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::model::{Column, TableId};
use crate::source::influxdb::points;
use crate::source::influxdb::points::FieldType;
use crate::source::line_protocol::parse;
use crate::source::line_protocol::parse::{NAME, Parsed, bad};
use crate::source::line_protocol::spool::Segment;

/// A table while the file is read.
pub(super) struct Draft {
    pub(super) id: TableId,
    /// Whether it is exported; if not, its lines are only counted.
    pub(super) selected: bool,
    pub(super) lines: u64,
    pub(super) first: i64,
    pub(super) last: i64,
    pub(super) tags: BTreeSet<String>,
    pub(super) fields: Fields,
    /// Where its points are, in the order of the file.
    pub(super) segments: Vec<Segment>,
}

impl Draft {
    pub(super) fn new(id: TableId, selected: bool) -> Self {
        Self {
            id,
            selected,
            lines: 0,
            first: i64::MAX,
            last: i64::MIN,
            tags: BTreeSet::new(),
            fields: Fields::default(),
            segments: Vec::new(),
        }
    }

    /// Notes that the table has a line at this time.
    pub(super) fn saw(&mut self, time: i64) {
        self.lines += 1;
        self.first = self.first.min(time);
        self.last = self.last.max(time);
    }

    /// The columns for all tags and fields that were seen.
    pub(super) fn columns(&self) -> Vec<Column> {
        let mut fields = BTreeMap::<String, BTreeSet<FieldType>>::new();
        for slot in &self.fields.slots {
            fields.entry(slot.name.clone()).or_default().insert(slot.kind);
        }
        points::columns(&self.tags, &fields)
    }
}

/// A field of one type.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Slot {
    pub(super) name: String,
    pub(super) kind: FieldType,
}

const NONE: u32 = u32::MAX;

/// The fields of a table, by the bytes of their keys in the file. After a field, the one that followed it last time is
/// tried first.
pub(super) struct Fields {
    written: Vec<Written>,
    by_key: HashMap<Box<[u8]>, u32>,
    names: Vec<Name>,
    by_name: HashMap<String, u32>,
    /// All fields with their types, in the order in which they first came.
    pub(super) slots: Vec<Slot>,
    first: u32,
}

struct Written {
    key: Box<[u8]>,
    name: u32,
    next: u32,
}

struct Name {
    name: String,
    slots: [u32; 5],
}

impl Default for Fields {
    fn default() -> Self {
        Self {
            written: Vec::new(),
            by_key: HashMap::new(),
            names: Vec::new(),
            by_name: HashMap::new(),
            slots: Vec::new(),
            first: NONE,
        }
    }
}

/// A field that was found in a line. The next one is searched from it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct FieldRef(u32);

impl FieldRef {
    /// Before the first field of a line.
    pub(super) const START: Self = Self(NONE);
}

impl Fields {
    /// The field at the front of `rest`, and the length of its key.
    pub(super) fn find(&mut self, before: FieldRef, rest: &[u8]) -> Parsed<(FieldRef, usize)> {
        let guess = match self.written.get(before.0 as usize) {
            Some(before) => before.next,
            None => self.first,
        };
        if let Some(written) = self.written.get(guess as usize)
            && rest.starts_with(&written.key)
            && rest.get(written.key.len()) == Some(&b'=')
        {
            return Ok((FieldRef(guess), written.key.len()));
        }
        let end = parse::field_key_end(rest)?;
        let found = match self.by_key.get(&rest[..end]) {
            Some(found) => *found,
            None => self.add(&rest[..end])?,
        };
        match self.written.get_mut(before.0 as usize) {
            Some(before) => before.next = found,
            None => self.first = found,
        }
        Ok((FieldRef(found), end))
    }

    fn add(&mut self, key: &[u8]) -> Parsed<u32> {
        let mut name = Vec::with_capacity(key.len());
        parse::unescape(key, NAME, &mut name);
        let name = utf8(name, "field")?;
        let name = match self.by_name.get(&name) {
            Some(known) => *known,
            None => {
                let number = self.names.len() as u32;
                self.by_name.insert(name.clone(), number);
                self.names.push(Name { name, slots: [NONE; 5] });
                number
            }
        };
        let number = self.written.len() as u32;
        self.by_key.insert(key.into(), number);
        self.written.push(Written { key: key.into(), name, next: NONE });
        Ok(number)
    }

    /// The number of a field with a value of this type.
    pub(super) fn slot(&mut self, field: FieldRef, kind: FieldType) -> usize {
        let name = &mut self.names[self.written[field.0 as usize].name as usize];
        let slot = &mut name.slots[kind as usize];
        if *slot == NONE {
            *slot = self.slots.len() as u32;
            self.slots.push(Slot { name: name.name.clone(), kind });
        }
        *slot as usize
    }
}

/// The text of a name; an error if it is not UTF-8.
pub(super) fn utf8(bytes: Vec<u8>, what: &str) -> Parsed<String> {
    String::from_utf8(bytes).or_else(|error| {
        bad(format!("{what} `{}` is not valid UTF-8", parse::show(error.as_bytes())))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_guess_and_by_key() {
        let mut fields = Fields::default();
        let (a, length) = fields.find(FieldRef::START, b"a=1").unwrap();
        assert_eq!(length, 1);
        let (ab, length) = fields.find(a, b"a\\ b=1").unwrap();
        assert_eq!(length, 4);
        assert_ne!(a, ab);
        assert_eq!(fields.find(FieldRef::START, b"a=2"), Ok((a, 1)));
        assert_eq!(fields.find(a, b"a\\ b=2"), Ok((ab, 4)));
        assert_eq!(fields.find(a, b"a\\ bc=2").unwrap().1, 5, "the guess is only a prefix");
        assert_eq!(fields.find(FieldRef::START, b"a\\==2").unwrap().1, 3);
        let (quoted, _) = fields.find(FieldRef::START, b"q\\\"=1").unwrap();
        let (plain, _) = fields.find(FieldRef::START, b"q\"=1").unwrap();
        assert_ne!(quoted, plain);
        let slot = fields.slot(quoted, FieldType::Float);
        assert_eq!(fields.slot(plain, FieldType::Float), slot, "two spellings of one name");
        assert_ne!(fields.slot(plain, FieldType::Integer), slot);
        assert_eq!(fields.slots[slot], Slot { name: "q\"".into(), kind: FieldType::Float });
        assert!(fields.find(FieldRef::START, b"\xff=1").is_err());
    }
}
