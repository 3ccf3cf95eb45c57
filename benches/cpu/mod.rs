//! The table of all benches: a time, 3 tags and 8 floats.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use moveout::model::{SplitPoints, Table, TableId};
use moveout::source::influxdb::points::{FieldType, columns};

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
        data_ranges: vec![],
        split_points: SplitPoints::None,
        time_column: None,
        resolution_nanos: 1,
        read_mode: Default::default(),
        identity: moveout::model::Identity::default(),
    })
}
