//! Remembers the columns of which a value did not fit the type that was listed. The table is then listed again with a
//! type that can hold every value.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use arrow::datatypes::DataType;

use crate::column_stats::{ColumnInfo, ParquetType};
use crate::error::{Class, Error};
use crate::model::{Column, Table, TableId};

/// The type that a column gets instead of the listed one, with a description of the value that did not fit that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TypeOverride {
    /// Text, as the server writes the values.
    Text(&'static str),
    /// Bytes, as the server stores them.
    Bytes(&'static str),
}

impl TypeOverride {
    /// The override by which a column gets this type; `None` if there is none.
    pub(in crate::source) fn of(data_type: &DataType) -> Option<Self> {
        match data_type {
            DataType::Utf8 => Some(Self::Text("")),
            DataType::Binary => Some(Self::Bytes("")),
            _ => None,
        }
    }

    /// The type that the column gets.
    pub(in crate::source) fn data_type(self) -> DataType {
        match self {
            Self::Text(_) => DataType::Utf8,
            Self::Bytes(_) => DataType::Binary,
        }
    }

    /// A listed column with that type.
    pub(in crate::source) fn column(self, listed: &Column) -> Column {
        Column { data_type: self.data_type(), logical: None, ..listed.clone() }
    }
}

/// The overrides that were learned so far, for all tables of a source.
#[derive(Debug, Default)]
pub(in crate::source) struct TypeOverrides(Mutex<HashMap<(TableId, String), TypeOverride>>);

impl TypeOverrides {
    fn lock(&self) -> MutexGuard<'_, HashMap<(TableId, String), TypeOverride>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The override for a column, if there is one.
    pub(in crate::source) fn of(&self, table: &TableId, column: &str) -> Option<TypeOverride> {
        self.lock().get(&(table.clone(), column.to_owned())).copied()
    }

    /// The table with those columns as text or bytes that an archive holds as such but that are listed with another type;
    /// `None` if there are none. The next listing has them so, too.
    pub(in crate::source) fn take(
        &self,
        table: &Table,
        archived: &mut dyn Iterator<Item = &ColumnInfo>,
    ) -> Option<Table> {
        const EARLIER: &str = "a value that an earlier run read";
        let mut others = BTreeMap::new();
        for known in archived {
            let other = match known.parquet_type.as_ref().map(ParquetType::as_str) {
                Some("BYTE_ARRAY") => TypeOverride::Bytes(EARLIER),
                Some("BYTE_ARRAY STRING") => TypeOverride::Text(EARLIER),
                _ => continue,
            };
            let place = table.columns.iter().position(|column| column.key == known.key);
            let Some(at) = place.filter(|at| table.columns[*at].data_type != other.data_type())
            else {
                continue;
            };
            // Bytes can hold whatever text can.
            if matches!(other, TypeOverride::Bytes(_)) || !others.contains_key(&at) {
                others.insert(at, other);
            }
        }
        if others.is_empty() {
            return None;
        }
        let mut typed = table.clone();
        for (at, other) in &others {
            typed.columns[*at] = other.column(&table.columns[*at]);
        }
        let _ = self.learn(table, others); // nothing must be listed again: the caller gets the table
        Some(typed)
    }

    /// Remembers the types of columns, which are given by their positions in the table. The returned error makes the
    /// caller list the tables again.
    pub(in crate::source) fn learn(
        &self,
        table: &Table,
        learned: impl IntoIterator<Item = (usize, TypeOverride)>,
    ) -> Error {
        let mut changes = Vec::new();
        for (at, type_override) in learned {
            let column = &table.columns[at];
            self.lock().insert((table.id.clone(), column.key.clone()), type_override);
            let (becomes, value) = match type_override {
                TypeOverride::Text(value) => ("text", value),
                TypeOverride::Bytes(value) => ("bytes", value),
            };
            let (name, kind) = (column.key.escape_debug(), column.source_type.escape_debug());
            changes
                .push(format!("the column `{name}` ({kind}) holds {value}: it becomes {becomes}"));
        }
        Error::of(Class::SchemaChanged, changes.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Logical, Role};

    fn table() -> Table {
        let id = TableId {
            source: "s".into(),
            database: "d".into(),
            schema: String::new(),
            table: "t".into(),
        };
        let column = |name: &str, kind| Column::new(name, name, Role::Column, "own", kind);
        let logical = Some(Logical::Json);
        let json = Column { logical, ..column("json", DataType::Utf8) };
        Table::new(id, vec![column("day", DataType::Date32), column("s", DataType::Utf8), json])
    }

    fn known(name: &str, kind: &str) -> ColumnInfo {
        ColumnInfo {
            name: name.into(),
            key: name.into(),
            role: Role::Column,
            source_type: "own".into(),
            parquet_type: Some(kind.to_owned().into()),
            nullable: None,
            key_part: None,
        }
    }

    #[test]
    fn what_an_archive_holds_otherwise_is_taken_over() {
        let taken = |known: &[ColumnInfo]| {
            let overrides = TypeOverrides::default();
            let typed = overrides.take(&table(), &mut known.iter());
            let later = ["day", "s", "json"]
                .map(|name| overrides.of(&table().id, name).map(TypeOverride::data_type));
            (
                typed.map(|typed| {
                    typed
                        .columns
                        .into_iter()
                        .map(|column| (column.data_type, column.logical))
                        .collect::<Vec<_>>()
                }),
                later,
            )
        };
        let (text, bytes) = (DataType::Utf8, DataType::Binary);
        let own = [
            known("day", "INT32 DATE"),
            known("s", "BYTE_ARRAY STRING"),
            known("json", "BYTE_ARRAY JSON"),
        ];
        assert_eq!(taken(&own), (None, [None, None, None]));
        let gone = [known("gone", "BYTE_ARRAY STRING")];
        assert_eq!(taken(&gone), (None, [None, None, None]));
        let all =
            [own.as_slice(), &[known("day", "BYTE_ARRAY STRING"), known("json", "BYTE_ARRAY")]]
                .concat();
        let columns = vec![(text.clone(), None), (text.clone(), None), (bytes.clone(), None)];
        assert_eq!(taken(&all), (Some(columns), [Some(text), None, Some(bytes.clone())]));
        // One run had it as text, and another one met text that is none.
        let both = [known("day", "BYTE_ARRAY"), known("day", "BYTE_ARRAY STRING")];
        for both in [both.clone(), both.into_iter().rev().collect::<Vec<_>>().try_into().unwrap()] {
            assert_eq!(taken(&both).1[0], Some(bytes.clone()));
        }
    }
}
