//! PURE: the values of a point as bytes, and how several lines of one point become one: the last value of a field wins,
//! and the fact that an earlier one was different is kept.

use crate::error::{Error, Result};
use crate::source::influxdb::points::{FieldType, FieldValue};

/// A value of a point. The values lie one after the other, each with a head (a varint of slot, conflict and type). A slot
/// stands for a field of one type in its table.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Cell<'a> {
    pub(super) slot: usize,
    pub(super) kind: FieldType,
    /// Whether this value has overwritten a different one.
    pub(super) conflict: bool,
    bytes: &'a [u8],
}

impl<'a> Cell<'a> {
    /// The value itself.
    pub(super) fn value(&self) -> Result<FieldValue<'a>> {
        let eight = || <[u8; 8]>::try_from(self.bytes).map_err(|_| damaged());
        Ok(match self.kind {
            FieldType::Float => FieldValue::Float(f64::from_le_bytes(eight()?)),
            FieldType::Integer => FieldValue::Integer(i64::from_le_bytes(eight()?)),
            FieldType::Unsigned => FieldValue::Unsigned(u64::from_le_bytes(eight()?)),
            FieldType::Boolean => FieldValue::Boolean(self.bytes == [1]),
            FieldType::String => {
                FieldValue::String(std::str::from_utf8(self.bytes).map_err(|_| damaged())?)
            }
        })
    }
}

/// The error for bytes that are read back from the spool and differ from those that were written.
pub(super) fn damaged() -> Error {
    Error::stop("the temporary copy of a line-protocol file is damaged")
        .hint("check the disk that TMPDIR is on, then run again")
}

/// Appends a number, seven bits in each byte, the lowest ones first.
pub(super) fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Takes such a number off the front; `None` if it is truncated.
pub(super) fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for (at, byte) in bytes.iter().enumerate().take(10) {
        number |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            *bytes = &bytes[at + 1..];
            return Some(number);
        }
    }
    None
}

/// Appends a value, whose `bytes` are little-endian, 0 or 1, or UTF-8.
pub(super) fn put(out: &mut Vec<u8>, slot: usize, kind: FieldType, conflict: bool, bytes: &[u8]) {
    let head = (slot as u64) << 4 | u64::from(conflict) << 3 | code(kind);
    put_varint(out, head);
    if kind == FieldType::String {
        put_varint(out, bytes.len() as u64);
    }
    out.extend_from_slice(bytes);
}

fn code(kind: FieldType) -> u64 {
    match kind {
        FieldType::Float => 0,
        FieldType::Integer => 1,
        FieldType::Unsigned => 2,
        FieldType::String => 3,
        FieldType::Boolean => 4,
    }
}

fn kind_of(code: u64) -> Option<FieldType> {
    Some(match code {
        0 => FieldType::Float,
        1 => FieldType::Integer,
        2 => FieldType::Unsigned,
        3 => FieldType::String,
        4 => FieldType::Boolean,
        _ => return None,
    })
}

/// Iterates over the values in the bytes of a point.
pub(super) struct Cells<'a>(pub(super) &'a [u8]);

impl<'a> Cells<'a> {
    fn take(&mut self) -> Option<Cell<'a>> {
        let head = take_varint(&mut self.0)?;
        let kind = kind_of(head & 7)?;
        let length = match kind {
            FieldType::String => usize::try_from(take_varint(&mut self.0)?).ok()?,
            FieldType::Boolean => 1,
            _ => 8,
        };
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(Cell { slot: (head >> 4) as usize, kind, conflict: head & 8 != 0, bytes })
    }
}

impl<'a> Iterator for Cells<'a> {
    type Item = Result<Cell<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let cell = self.take();
        if cell.is_none() {
            self.0 = &[];
        }
        Some(cell.ok_or_else(damaged))
    }
}

// More fields than any table has. The bound keeps damaged bytes from causing a huge allocation.
const MOST_SLOTS: usize = 1 << 24;

/// Unites the lines of one point, which are added in their order in the file.
#[derive(Default)]
pub(super) struct Union {
    bytes: Vec<u8>,
    /// By slot. A place belongs to the current point only if it has the current stamp.
    places: Vec<Place>,
    touched: Vec<usize>,
    stamp: u64,
}

#[derive(Clone)]
struct Place {
    stamp: u64,
    kind: FieldType,
    conflict: bool,
    from: usize,
    to: usize,
}

impl Union {
    /// Begins another point.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.touched.clear();
        self.stamp += 1;
    }

    /// Adds the values of a line, which replace earlier ones.
    pub(super) fn add(&mut self, line: &[u8]) -> Result<()> {
        for cell in Cells(line) {
            let cell = cell?;
            if cell.slot >= MOST_SLOTS {
                return Err(damaged());
            }
            let from = self.bytes.len();
            self.bytes.extend_from_slice(cell.bytes);
            self.set(cell, from);
        }
        Ok(())
    }

    fn set(&mut self, cell: Cell<'_>, from: usize) {
        let Cell { slot, kind, mut conflict, bytes } = cell;
        if slot >= self.places.len() {
            let none = Place { stamp: 0, kind, conflict: false, from: 0, to: 0 };
            self.places.resize(slot + 1, none);
        }
        let place = &mut self.places[slot];
        if place.stamp == self.stamp {
            conflict |= place.conflict || self.bytes[place.from..place.to] != *bytes;
        } else {
            self.touched.push(slot);
        }
        *place = Place { stamp: self.stamp, kind, conflict, from, to: from + bytes.len() };
    }

    /// Appends the values of the point, each field once.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        for &slot in &self.touched {
            let place = &self.places[slot];
            put(out, slot, place.kind, place.conflict, &self.bytes[place.from..place.to]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn float(out: &mut Vec<u8>, slot: usize, value: f64) {
        put(out, slot, FieldType::Float, false, &value.to_le_bytes());
    }

    fn united(lines: &[&[(usize, f64)]]) -> Vec<(usize, f64, bool)> {
        let mut union = Union::default();
        union.clear();
        for line in lines {
            let mut bytes = Vec::new();
            line.iter().for_each(|&(slot, value)| float(&mut bytes, slot, value));
            union.add(&bytes).unwrap();
        }
        let mut out = Vec::new();
        union.write(&mut out);
        let mut cells: Vec<_> = Cells(&out)
            .map(|cell| {
                let cell = cell.unwrap();
                match cell.value().unwrap() {
                    FieldValue::Float(value) => (cell.slot, value, cell.conflict),
                    other => panic!("{other:?}"),
                }
            })
            .collect();
        cells.sort_by_key(|cell| cell.0);
        cells
    }

    #[test]
    fn the_last_value_wins_and_knows_that_it_replaced_a_different_one() {
        assert_eq!(united(&[&[(0, 1.0)], &[(1, 2.0)]]), [(0, 1.0, false), (1, 2.0, false)]);
        assert_eq!(united(&[&[(0, 1.0)], &[(0, 1.0)]]), [(0, 1.0, false)]);
        assert_eq!(united(&[&[(0, 1.0)], &[(0, 2.0)], &[(0, 1.0)]]), [(0, 1.0, true)]);
        assert_eq!(united(&[&[(300, 1.0), (300, 2.0)]]), [(300, 2.0, true)]);
        assert_eq!(united(&[&[(0, 0.0)], &[(0, -0.0)]]), [(0, -0.0, true)]);
    }

    proptest! {
        #[test]
        fn varints_come_back(number in any::<u64>(), shift in 0..64) {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, number >> shift);
            prop_assert_eq!(take_varint(&mut bytes.as_slice()), Some(number >> shift));
            prop_assert_eq!(take_varint(&mut &bytes[..bytes.len() - 1]), None);
        }

        #[test]
        fn damaged_bytes_are_an_error_and_not_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..30)) {
            for cell in Cells(&bytes).flatten() {
                let _ = cell.value();
            }
        }
    }
}
