//! A file of line protocol: it has no server, and must not change.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::sync::Mutex;

use tempfile::TempDir;

use crate::influxdb::lines;
use crate::subject::{Ability, Address, NewTable, Subject};

pub(crate) struct LineProtocol {
    folder: TempDir,
    counts: Mutex<HashMap<(String, String), u64>>,
}

impl LineProtocol {
    pub(crate) fn new() -> Self {
        Self { folder: TempDir::with_prefix("lines-").unwrap(), counts: Mutex::default() }
    }
}

impl Subject for LineProtocol {
    fn name(&self) -> String {
        "line protocol".to_owned()
    }

    fn abilities(&self) -> &'static [Ability] {
        &[]
    }

    fn extremes(&self) -> usize {
        2
    }

    fn create(&self, database: &str) {
        fs::write(self.folder.path().join(database), "").unwrap();
    }

    fn load(&self, database: &str, table: NewTable<'_>) {
        let path = self.folder.path().join(database);
        let mut file = File::options().append(true).open(path).unwrap();
        file.write_all(lines(&table, str::to_owned).as_bytes()).unwrap();
        let key = (database.to_owned(), table.name.to_owned());
        *self.counts.lock().unwrap().entry(key).or_default() += table.records.len() as u64;
    }

    fn count(&self, database: &str, table: &str) -> Option<u64> {
        self.counts.lock().unwrap().get(&(database.to_owned(), table.to_owned())).copied()
    }

    fn address(&self, database: &str, _port: Option<u16>) -> Address {
        let path = self.folder.path().join(database);
        let url = format!("lp:{}", path.display());
        Address { url, more: String::new(), variables: Vec::new() }
    }

    fn takes_name(&self, name: &str) -> bool {
        !name.contains(['\n', '\r']) && !name.ends_with('\\') && !name.starts_with('#')
    }
}
