//! Columns of which a value has shown that the type they were listed with is too narrow. The table is then
//! listed again, with the type that can hold every value.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::{Class, Error};
use crate::model::{Column, TableId};

/// What such a column becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::source) enum TypeOverride {
    /// Text, as the server writes its values.
    Text,
    /// Bytes as they are stored.
    Bytes,
}

/// What was learned so far, over all tables of a source.
#[derive(Debug, Default)]
pub(in crate::source) struct TypeOverrides(Mutex<HashMap<(TableId, String), TypeOverride>>);

impl TypeOverrides {
    fn lock(&self) -> MutexGuard<'_, HashMap<(TableId, String), TypeOverride>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a column has to become, where its type was too narrow.
    pub(in crate::source) fn of(&self, table: &TableId, column: &str) -> Option<TypeOverride> {
        self.lock().get(&(table.clone(), column.to_owned())).copied()
    }

    /// Remembers what columns have to become, and says why: `what` is the value that did not fit. The error has
    /// the tables listed again.
    pub(in crate::source) fn learn<'a>(
        &self,
        table: &TableId,
        learned: impl IntoIterator<Item = (&'a Column, TypeOverride, &'a str)>,
    ) -> Error {
        let mut said = Vec::new();
        for (column, type_override, what) in learned {
            self.lock().insert((table.clone(), column.key.clone()), type_override);
            let becomes = match type_override {
                TypeOverride::Text => "text",
                TypeOverride::Bytes => "bytes",
            };
            let (name, kind) = (column.key.escape_debug(), column.source_type.escape_debug());
            said.push(format!("the column `{name}` ({kind}) holds {what}: it becomes {becomes}"));
        }
        Error::of(Class::SchemaChanged, said.join("; "))
    }
}
