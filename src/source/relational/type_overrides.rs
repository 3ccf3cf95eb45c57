//! Remembers the columns of which a value did not fit the type that was listed. The table is then listed again with a
//! type that can hold every value.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use arrow::datatypes::DataType;

use crate::column_stats::ColumnStats;
use crate::error::{Class, Error};
use crate::model::{Table, TableId};

/// The type that a column gets instead of the listed one, with a description of the value that did not fit that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TypeOverride {
    /// Text, as the server writes the values.
    Text(&'static str),
    /// Bytes, as the server stores them.
    Bytes(&'static str),
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

    /// Remembers the columns that an archive holds as text or bytes but that are listed with another type. Returns
    /// whether there are any.
    pub(in crate::source) fn take(&self, table: &Table, archived: &[ColumnStats]) -> bool {
        const EARLIER: &str = "a value that an earlier run read";
        let columns = table.columns.iter().enumerate();
        let other = columns.filter_map(|(at, column)| {
            let known = archived.iter().find(|known| known.key == column.key)?;
            match (known.parquet_type.as_ref()?.to_string().as_str(), &column.data_type) {
                ("BYTE_ARRAY", DataType::Binary) | ("BYTE_ARRAY STRING", DataType::Utf8) => None,
                ("BYTE_ARRAY", _) => Some((at, TypeOverride::Bytes(EARLIER))),
                ("BYTE_ARRAY STRING", _) => Some((at, TypeOverride::Text(EARLIER))),
                _ => None,
            }
        });
        let other: Vec<_> = other.collect();
        let is_new = !other.is_empty();
        let _ = self.learn(table, other); // the return value makes the caller list the tables again
        is_new
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
