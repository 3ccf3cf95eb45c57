//! PURE: PostgreSQL's types: which of them the archive holds as such, and which as the server's own text, so that no value
//! is ever changed.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, TimeUnit};

use crate::model::Logical;
use crate::source::relational::type_overrides::TypeOverride;

/// How the server sends a value, and what it becomes in the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    Bool,
    Int16,
    Int32,
    Int64,
    Oid,
    Float32,
    Float64,
    /// The digits, at most 38, and how many of them are after the point. Readers turn a wider decimal into a double.
    Decimal(u8, i8),
    /// Days.
    Date,
    /// Microseconds of a day.
    Time,
    /// Microseconds, in UTC or without a time zone.
    Timestamp {
        utc: bool,
    },
    Interval,
    Uuid,
    Bytes,
    Text,
    /// `character(n)`, whose padding is not part of its value.
    Padded,
    /// Text that is JSON, as it was written.
    Json,
    /// The same after one byte that states the version of the format.
    Jsonb,
    /// An array of one dimension that is counted from 1.
    List(Box<Kind>),
}

/// The fields of an interval.
const INTERVAL: [(&str, DataType); 3] =
    [("months", DataType::Int32), ("days", DataType::Int32), ("microseconds", DataType::Int64)];

impl Kind {
    /// Its type in the archive.
    pub(crate) fn data_type(&self) -> DataType {
        match self {
            Self::Bool => DataType::Boolean,
            Self::Int16 => DataType::Int16,
            Self::Int32 => DataType::Int32,
            Self::Int64 => DataType::Int64,
            Self::Oid => DataType::UInt32,
            Self::Float32 => DataType::Float32,
            Self::Float64 => DataType::Float64,
            Self::Decimal(precision, scale) => DataType::Decimal128(*precision, *scale),
            Self::Date => DataType::Date32,
            Self::Time => DataType::Time64(TimeUnit::Microsecond),
            Self::Timestamp { utc } => {
                DataType::Timestamp(TimeUnit::Microsecond, utc.then(|| "UTC".into()))
            }
            Self::Interval => DataType::Struct(interval_fields()),
            Self::Uuid => DataType::FixedSizeBinary(16),
            Self::Bytes => DataType::Binary,
            Self::Text | Self::Padded | Self::Json | Self::Jsonb => DataType::Utf8,
            Self::List(element) => DataType::List(element_field(element)),
        }
    }

    /// The logical type of its values, or of its elements.
    pub(super) fn logical(&self) -> Option<Logical> {
        match self {
            Self::Uuid => Some(Logical::Uuid),
            Self::Json | Self::Jsonb => Some(Logical::Json),
            // Lists of JSON stay lists of text, since pyarrow can convert only those for pandas.
            Self::List(element) if **element == Self::Uuid => Some(Logical::Uuid),
            _ => None,
        }
    }

    /// Whether it is a time that windows can be made of.
    pub(super) fn is_time(&self) -> bool {
        matches!(self, Self::Date | Self::Timestamp { .. })
    }
}

pub(super) fn interval_fields() -> Fields {
    INTERVAL.iter().map(|(name, kind)| Field::new(*name, kind.clone(), false)).collect()
}

pub(crate) fn element_field(element: &Kind) -> Arc<Field> {
    // Parquet calls the child of a list "element", while Arrow's default is "item".
    Arc::new(Field::new("element", element.data_type(), true))
}

/// How a column is written in the statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cast {
    /// The value itself.
    None,
    /// The server's own text of it.
    Text,
    /// A list of the server's own texts.
    Texts,
    /// The text that the type's output function writes, since somebody has created another cast to text.
    Output,
    /// The bytes of the text in the database's encoding.
    TextBytes,
    /// Likewise, of the text that the output function writes.
    OutputBytes,
}

/// A row of `pg_type`.
#[derive(Debug, Clone)]
pub(crate) struct Type {
    pub(super) name: String,
    /// Whether it is a type of `pg_catalog`, and not another one of the same name.
    pub(super) built_in: bool,
    /// The type that a domain is based on, or 0.
    pub(crate) base: u32,
    pub(super) base_modifier: i32,
    /// The type of the elements of an array.
    pub(crate) element: u32,
    pub(super) is_array: bool,
    /// Whether a user has created a cast to text, which may write anything.
    pub(super) has_cast: bool,
    /// Likewise for a cast to an array of texts.
    pub(super) has_list_cast: bool,
}

/// How deep domains of domains and arrays of arrays are followed, so that a cycle ends.
const DEPTH: u32 = 32;

/// All types of a database.
#[derive(Debug, Default)]
pub(crate) struct Types(pub(crate) HashMap<u32, Type>);

impl Types {
    /// The type of the elements of an array, also of a domain over one.
    pub(crate) fn element(&self, oid: u32) -> Option<u32> {
        let mut found = self.0.get(&oid)?;
        for _ in 0..DEPTH {
            match self.0.get(&found.base).filter(|_| found.base != 0) {
                Some(base) => found = base,
                None => break,
            }
        }
        found.is_array.then_some(found.element)
    }

    /// What a column of a type becomes in the archive where all of its values fit, and how it is written in a statement.
    pub(crate) fn usual(&self, oid: u32, modifier: i32) -> (Kind, Cast) {
        self.kind(oid, modifier, 0)
    }

    /// What a column of a type becomes in the archive, and how it is written in the statement.
    pub(super) fn resolve(
        &self,
        oid: u32,
        modifier: i32,
        type_override: Option<TypeOverride>,
    ) -> (Kind, Cast) {
        match type_override {
            None => self.kind(oid, modifier, 0),
            Some(type_override) => overridden(self.text(oid), type_override),
        }
    }

    /// How the server's own text of a type is asked for. A domain has the casts of the type that it is based on.
    pub(super) fn text(&self, oid: u32) -> Cast {
        let mut found = self.0.get(&oid);
        for _ in 0..DEPTH {
            match found {
                Some(domain) if domain.base != 0 => found = self.0.get(&domain.base),
                Some(own) if own.has_cast => return Cast::Output,
                _ => return Cast::Text,
            }
        }
        Cast::Output
    }

    fn kind(&self, oid: u32, modifier: i32, depth: u32) -> (Kind, Cast) {
        let text = (Kind::Text, self.text(oid));
        let Some(found) = self.0.get(&oid).filter(|_| depth < DEPTH) else { return text };
        if found.base != 0 {
            let modifier = if modifier >= 0 { modifier } else { found.base_modifier };
            return self.kind(found.base, modifier, depth + 1);
        }
        if found.is_array {
            return match self.kind(found.element, modifier, depth + 1) {
                // The elements are a domain over an array.
                (Kind::List(_), _) => text,
                // The elements cannot be cast to the server's own texts.
                (_, Cast::Output) => text,
                (element, Cast::None) => (Kind::List(Box::new(element)), Cast::None),
                (_, _) if found.has_list_cast => text,
                (element, _) => (Kind::List(Box::new(element)), Cast::Texts),
            };
        }
        if !found.built_in {
            return text;
        }
        let kind = match found.name.as_str() {
            "bool" => Kind::Bool,
            "int2" => Kind::Int16,
            "int4" => Kind::Int32,
            "int8" => Kind::Int64,
            "oid" => Kind::Oid,
            "float4" => Kind::Float32,
            "float8" => Kind::Float64,
            "numeric" => match decimal(modifier) {
                Some(kind) => kind,
                None => return text,
            },
            "date" => Kind::Date,
            "time" => Kind::Time,
            "timestamp" => Kind::Timestamp { utc: false },
            "timestamptz" => Kind::Timestamp { utc: true },
            "interval" => Kind::Interval,
            "uuid" => Kind::Uuid,
            "bytea" => Kind::Bytes,
            "text" | "varchar" | "name" => Kind::Text,
            "json" => Kind::Json,
            // Without a length, trailing blanks are part of the value, but its text lacks them.
            "bpchar" if modifier >= 0 => Kind::Padded,
            "bpchar" => Kind::Text,
            "jsonb" => Kind::Jsonb,
            _ => return text,
        };
        (kind, Cast::None)
    }
}

/// What a column becomes whose values do not all fit its own type, if this is how its text is asked for.
pub(super) fn overridden(text: Cast, type_override: TypeOverride) -> (Kind, Cast) {
    match (type_override, text) {
        (TypeOverride::Text(_), text) => (Kind::Text, text),
        (TypeOverride::Bytes(_), Cast::Output) => (Kind::Bytes, Cast::OutputBytes),
        (TypeOverride::Bytes(_), _) => (Kind::Bytes, Cast::TextBytes),
    }
}

/// The decimal for a numeric that was declared with a precision, if it fits.
fn decimal(modifier: i32) -> Option<Kind> {
    let packed = modifier.checked_sub(4).filter(|packed| *packed >= 0)?;
    let precision = (packed >> 16) & 0xffff;
    // The scale has eleven bits with a sign since version 15.
    let scale = ((packed & 0x7ff) ^ 1024) - 1024;
    // The scale can exceed the precision: 0.00012 is a numeric(2, 5).
    let precision = u8::try_from(precision.max(scale)).ok()?;
    let scale = i8::try_from(scale).ok()?;
    ((1..=38).contains(&precision) && scale >= 0).then_some(Kind::Decimal(precision, scale))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn types() -> Types {
        let plain = |name: &str| Type {
            name: name.to_owned(),
            built_in: true,
            base: 0,
            base_modifier: -1,
            element: 0,
            is_array: false,
            has_cast: false,
            has_list_cast: false,
        };
        Types(HashMap::from([
            (1700, plain("numeric")),
            (23, plain("int4")),
            (869, plain("inet")),
            (1231, Type { element: 1700, is_array: true, ..plain("_numeric") }),
            (1041, Type { element: 869, is_array: true, ..plain("_inet") }),
            (9000, Type { base: 1700, base_modifier: ((10 << 16) | 2) + 4, ..plain("price") }),
            (9001, Type { built_in: false, ..plain("int4") }),
        ]))
    }

    #[test]
    fn numerics_are_decimals_only_where_no_digit_is_lost() {
        let of = |precision: i32, scale: i32| {
            types().resolve(1700, ((precision << 16) | (scale & 0x7ff)) + 4, None)
        };
        assert_eq!(of(10, 2), (Kind::Decimal(10, 2), Cast::None));
        assert_eq!(of(38, 38), (Kind::Decimal(38, 38), Cast::None));
        assert_eq!(of(2, 5), (Kind::Decimal(5, 5), Cast::None));
        for (precision, scale) in [(39, 0), (50, 10), (3, -2), (1000, 1000)] {
            assert_eq!(of(precision, scale), (Kind::Text, Cast::Text), "({precision},{scale})");
        }
        assert_eq!(types().resolve(1700, -1, None), (Kind::Text, Cast::Text));
    }

    #[test]
    fn a_cast_that_a_user_created_is_never_used() {
        let mut types = types();
        let list = Type { element: 23, is_array: true, has_cast: true, ..types.0[&1041].clone() };
        types.0.insert(1007, list);
        types.0.insert(9002, Type { base: 1007, ..types.0[&9000].clone() });
        types.0.insert(1041, Type { has_list_cast: true, ..types.0[&1041].clone() });
        types.0.insert(23, Type { has_cast: true, ..types.0[&23].clone() });
        let list = (Kind::List(Box::new(Kind::Int32)), Cast::None);
        for oid in [1007, 9002] {
            assert_eq!(types.resolve(oid, -1, None), list, "nothing is cast");
            assert_eq!(
                types.resolve(oid, -1, Some(TypeOverride::Text(""))),
                (Kind::Text, Cast::Output)
            );
            let bytes = types.resolve(oid, -1, Some(TypeOverride::Bytes("")));
            assert_eq!(bytes, (Kind::Bytes, Cast::OutputBytes));
        }
        assert_eq!(types.resolve(1041, -1, None), (Kind::Text, Cast::Text));
        assert_eq!(types.resolve(23, -1, None), (Kind::Int32, Cast::None));
        assert_eq!(types.resolve(23, -1, Some(TypeOverride::Text(""))), (Kind::Text, Cast::Output));
    }

    #[test]
    fn domains_and_arrays_are_resolved() {
        assert_eq!(types().resolve(9000, -1, None), (Kind::Decimal(10, 2), Cast::None));
        assert_eq!(
            types().resolve(1041, -1, None),
            (Kind::List(Box::new(Kind::Text)), Cast::Texts)
        );
        assert_eq!(types().resolve(9001, -1, None), (Kind::Text, Cast::Text), "another's int4");
        assert_eq!(types().resolve(23, -1, Some(TypeOverride::Text(""))), (Kind::Text, Cast::Text));
        assert_eq!(types().resolve(4711, -1, None), (Kind::Text, Cast::Text), "unknown");
    }
}
