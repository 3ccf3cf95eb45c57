//! The table of all benches: a time, 3 tags and 8 floats.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use moveout::source::points::{FieldType, columns};
use moveout::source::{Cuts, Table, TableId};

pub(crate) const FIELDS: [&str; 8] =
    ["guest", "idle", "iowait", "irq", "nice", "softirq", "system", "user"];

pub(crate) fn table() -> Arc<Table> {
    let tags: BTreeSet<String> = ["host", "region", "rack"].map(str::to_owned).into();
    let fields: BTreeMap<_, _> =
        FIELDS.iter().map(|f| ((*f).to_owned(), BTreeSet::from([FieldType::Float]))).collect();
    let [source, database, schema, table] = ["s", "db", "autogen", "cpu"].map(str::to_owned);
    Arc::new(Table {
        id: TableId { source, database, schema, table },
        columns: columns(&tags, &fields),
        occupied: vec![],
        cuts: Cuts::None,
        time_column: None,
        reading: Default::default(),
        identity: moveout::source::Identity::default(),
    })
}
