//! Columns of which a value has shown that the type they were listed with is too narrow. The table is then
//! listed again, with a type that can hold every value.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::{Class, Error};
use crate::model::{Table, TableId};

/// The type that a column gets instead of the one that it was listed with, and the value that this one cannot hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::source) enum TypeOverride {
    /// Text, as the server writes its values.
    Text(&'static str),
    /// Bytes, as they are stored.
    Bytes(&'static str),
}

/// What was learned so far, over all tables of a source.
#[derive(Debug, Default)]
pub(in crate::source) struct TypeOverrides(Mutex<HashMap<(TableId, String), TypeOverride>>);

impl TypeOverrides {
    fn lock(&self) -> MutexGuard<'_, HashMap<(TableId, String), TypeOverride>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The type of a column where the one that it would have is too narrow.
    pub(in crate::source) fn of(&self, table: &TableId, column: &str) -> Option<TypeOverride> {
        self.lock().get(&(table.clone(), column.to_owned())).copied()
    }

    /// Remembers the types of columns, which are named by their places in the table. The error has the tables listed
    /// again.
    pub(in crate::source) fn learn(
        &self,
        table: &Table,
        learned: impl IntoIterator<Item = (usize, TypeOverride)>,
    ) -> Error {
        let mut said = Vec::new();
        for (at, type_override) in learned {
            let column = &table.columns[at];
            self.lock().insert((table.id.clone(), column.key.clone()), type_override);
            let (becomes, value) = match type_override {
                TypeOverride::Text(value) => ("text", value),
                TypeOverride::Bytes(value) => ("bytes", value),
            };
            let (name, kind) = (column.key.escape_debug(), column.source_type.escape_debug());
            said.push(format!("the column `{name}` ({kind}) holds {value}: it becomes {becomes}"));
        }
        Error::of(Class::SchemaChanged, said.join("; "))
    }
}
