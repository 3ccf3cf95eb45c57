//! What a source must be able to do so that the suite can hold it to the behaviours. A new source joins by
//! one line in `main.rs`.

/// When a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Time {
    /// In nanoseconds, a multiple of [`Subject::precision`].
    At(i64),
    Null,
    /// One of the [`Subject::extremes`], by number.
    Extreme(usize),
}

/// A row of a table of the suite: its time, its `id`, and two texts that follow from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) id: i64,
    pub(crate) time: Time,
}

/// The text of a row's first column of text.
pub(crate) fn text(id: i64) -> String {
    format!("row {id}")
}

/// The text of its second one, `other`.
pub(crate) fn other(id: i64) -> String {
    format!("other {id}")
}

/// A table to be made, with an index by which its windows can be read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NewTable<'a> {
    pub(crate) name: &'a str,
    /// Name of the first column of text.
    pub(crate) text: &'a str,
    pub(crate) records: &'a [Record],
}

/// What a behaviour may need, and not every source has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ability {
    /// It is reached over a network, through a tunnel that breaks.
    Network,
    /// Rows may have no time.
    NullTime,
    /// Data may be added after the first run.
    Grows,
    /// Tables can be altered, renamed, replaced, emptied.
    Ddl,
    /// Rights can be kept from a user.
    Rights,
    /// [`Subject::bulk`].
    Bulk,
}

/// What happens to a table while a run is at work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// A column `extra`, which is 7 in all rows.
    AddColumn,
    /// Of `other`.
    DropColumn,
    /// `text` becomes `old`.
    RenameColumn,
    /// `text` becomes `old`, and a new column `text` is `fresh` in all rows.
    GiveNameToAnother,
    /// `text` and `other` change their names.
    SwapColumns,
    /// The table of this name with `_shadow` behind it takes its place.
    SwapTable,
    Truncate,
    Drop,
}

impl Change {
    pub(crate) const ALL: [Self; 8] = [
        Self::AddColumn,
        Self::DropColumn,
        Self::RenameColumn,
        Self::GiveNameToAnother,
        Self::SwapColumns,
        Self::SwapTable,
        Self::Truncate,
        Self::Drop,
    ];
}

/// How a source is written into a configuration.
#[derive(Debug, Clone)]
pub(crate) struct Address {
    pub(crate) url: String,
    /// More lines of its table.
    pub(crate) more: String,
    /// Variables with the credentials.
    pub(crate) variables: Vec<(&'static str, String)>,
}

/// Somebody who may not read everything of a database.
#[derive(Debug, Clone)]
pub(crate) struct Login {
    /// What is kept from them.
    pub(crate) what: &'static str,
    pub(crate) address: Address,
    /// What a run must name that ends well without all rows: the source cannot see what it does not see.
    pub(crate) warning: Option<&'static str>,
}

pub(crate) trait Subject: Send + Sync {
    fn name(&self) -> String;

    fn abilities(&self) -> &'static [Ability];

    /// The smallest step of its times, in nanoseconds.
    fn precision(&self) -> i64 {
        1
    }

    /// How many times it has that are beyond all windows, or at the ends of them.
    fn extremes(&self) -> usize {
        0
    }

    /// Where it listens.
    fn port(&self) -> Option<u16> {
        None
    }

    /// Makes an empty database.
    fn create(&self, database: &str);

    fn load(&self, database: &str, table: NewTable<'_>);

    /// The number of rows that it says a table has, where it can be asked.
    fn count(&self, database: &str, table: &str) -> Option<u64>;

    /// A database as a source, at another port than its own if so wanted.
    fn address(&self, database: &str, port: Option<u16>) -> Address;

    /// Whether a table can have this name.
    fn takes_name(&self, _name: &str) -> bool {
        true
    }

    fn change(&self, _database: &str, _table: &str, change: Change) {
        unreachable!("{change:?}");
    }

    /// Of a database with the tables `open` and `closed`, each way to keep `closed`, or a part of it, from a
    /// user.
    fn logins(&self, _database: &str) -> Vec<Login> {
        Vec::new()
    }

    /// Makes a table of so many rows of some 200 bytes, quickly.
    fn bulk(&self, _database: &str, _table: &str, _rows: u32) {
        unreachable!();
    }
}
