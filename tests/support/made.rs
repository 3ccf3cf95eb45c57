//! An archive made by hand: its catalog and a verdict, as facts of a report or as files, without a row.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use moveout::archive::bag;
use moveout::archive::catalog::{to_json, write_tables};
use moveout::archive::chunks::write_chunks;
use moveout::archive::commit::{Commit, FileRecord};
use moveout::archive::run_json::{Requested, RunEntry};
use moveout::archive::verdict::{Compared, VerdictRecord, archive_hash};
use moveout::hash::sha256;
use moveout::model::{Level, SourceInfo, TableId, Verdict};
use moveout::range::RangeText;
use moveout::report::{Facts, Report};
use moveout::window::{Slice, Window};

pub(crate) const DAY: i64 = 86_400_000_000_000;
/// 2024-01-01.
const NEW_YEAR: i64 = 1_704_067_200_000_000_000;

/// An archive by hand.
#[derive(Clone)]
pub(crate) struct Made {
    pub(crate) run: RunEntry,
    pub(crate) commits: Vec<Arc<Commit>>,
    pub(crate) record: Option<VerdictRecord>,
    pub(crate) invalid: Option<&'static str>,
    pub(crate) sealed: bool,
}

pub(crate) fn id(source: &str, database: &str, table: &str) -> TableId {
    TableId {
        source: source.to_owned(),
        database: database.to_owned(),
        schema: "autogen".to_owned(),
        table: table.to_owned(),
    }
}

pub(crate) fn days(from: i64, to: i64) -> Window {
    Window { from: NEW_YEAR + from * DAY, to: NEW_YEAR + to * DAY }
}

pub(crate) fn commit(id: &TableId, slice: Slice, rows: u64) -> Arc<Commit> {
    let file =
        FileRecord { key: "data/f".to_owned(), bytes: rows * 11, sha256: String::new(), rows };
    Arc::new(Commit {
        common: moveout::archive::commit::Common {
            source: id.source.clone(),
            database: id.database.clone(),
            schema: id.schema.clone(),
            table: id.table.clone(),
            path: "data/t".to_owned(),
            run: "run1".to_owned(),
            verified: String::new(),
            state: None,
        }
        .shared(),
        slice,
        rows,
        files: if rows > 0 { vec![file] } else { Vec::new() },
        columns: Vec::new(),
        started: "2024-06-01T00:00:00Z".to_owned(),
        elapsed_ms: 1,
        committed: "2024-06-01T00:00:01Z".to_owned(),
        snapshot: None,
        replaces: Vec::new(),
        dump: None,
    })
}

pub(crate) fn source(name: &str, address: &str, version: &str) -> SourceInfo {
    let (name, address, version) = (name.to_owned(), address.to_owned(), version.to_owned());
    SourceInfo { name, address, version, identity: None }
}

impl Made {
    pub(crate) fn of(sources: Vec<SourceInfo>, tables: &[TableId], chunks: i64) -> Self {
        let windows = || (0..chunks).map(|at| days(at * 7, (at + 1) * 7));
        let commits = tables.iter().enumerate().flat_map(|(number, id)| {
            windows().enumerate().map(move |(at, window)| {
                let rows = if (at + number) % 9 == 4 { 0 } else { (number + 1) as u64 * 700 };
                commit(id, Slice::Window(window), rows + at as u64 * u64::from(rows > 0))
            })
        });
        let requested = tables
            .iter()
            .map(|id| Requested { table: id.clone(), windows: vec![days(0, chunks * 7)] });
        Self {
            run: RunEntry {
                format: 2,
                moveout: "0.1.0".to_owned(),
                run: "run1".to_owned(),
                range: RangeText { from: "min".to_owned(), to: "max".to_owned() },
                sources,
                started: "2024-06-01T00:00:00Z".to_owned(),
                ended: "2024-06-01T01:00:00.5Z".to_owned(),
                excluded: Vec::new(),
                outside: Vec::new(),
                artifacts: Vec::new(),
                artifact_files: None,
                kept: Vec::new(),
                selected: Vec::new(),
                gone: Vec::new(),
                warnings: Vec::new(),
                markers: Vec::new(),
                requested: requested.collect(),
                earlier: Vec::new(),
            },
            commits: commits.collect(),
            record: None,
            invalid: None,
            sealed: true,
        }
    }

    /// With a comparison of all chunks in which nothing is different.
    pub(crate) fn proved(mut self, level: Level) -> Self {
        let mut chunks = BTreeMap::<TableId, u64>::new();
        for commit in &self.commits {
            *chunks.entry(commit.id()).or_default() += 1;
        }
        let tables = self.run.requested.iter();
        let compared = tables.map(|requested| Compared {
            chunks: chunks[&requested.table],
            table: requested.table.clone(),
            level,
            different: 0,
            equal: requested.windows.clone(),
        });
        self.record = Some(VerdictRecord {
            format: 2,
            moveout: "0.1.0".to_owned(),
            archive: "ab".repeat(32),
            verdict: Verdict::Safe,
            started: "2024-06-02T09:00:00Z".to_owned(),
            ended: "2024-06-02T09:41:07Z".to_owned(),
            depth: "statistics".to_owned(),
            sources: self.run.sources.clone(),
            open: Vec::new(),
            compared: compared.collect(),
            stale: Vec::new(),
            excluded: Vec::new(),
            notes: Vec::new(),
        });
        self
    }

    pub(crate) fn page(&self) -> String {
        let facts = Facts {
            sealed: self.sealed,
            record: self.record.as_ref(),
            invalid: self.invalid,
            run: Some(&self.run),
            plans: &[],
            commits: &self.commits,
        };
        Report::of(facts).page().unwrap()
    }

    /// Writes it as a sealed archive that lacks its data files; with the record, if there is one.
    pub(crate) fn write(&self, folder: &Path) {
        fs::create_dir_all(folder.join("catalog")).unwrap();
        fs::create_dir_all(folder.join("data")).unwrap();
        let mut tags = BTreeMap::new();
        let mut put = |key: &str, bytes: Vec<u8>| {
            fs::write(folder.join(key), &bytes).unwrap();
            tags.insert(key.to_owned(), sha256(&bytes));
        };
        put("catalog/tables.json", write_tables(&self.commits).unwrap());
        put("catalog/chunks.parquet", write_chunks(&self.commits).unwrap());
        put("catalog/run.json", to_json(&self.run).unwrap());
        put("README.txt", bag::README_TXT.into());
        put("bagit.txt", bag::BAGIT_TXT.into());
        put("bag-info.txt", bag::bag_info("2024-06-01", 0, 0).into());
        put("manifest-sha256.txt", Vec::new());
        if let Some(record) = &self.record {
            let record = VerdictRecord { archive: archive_hash(&tags), ..record.clone() };
            let bytes = to_json(&record).unwrap();
            fs::write(folder.join("catalog/verdict.json"), &bytes).unwrap();
            tags.insert("catalog/verdict.json".to_owned(), sha256(&bytes));
        }
        fs::write(folder.join("tagmanifest-sha256.txt"), bag::manifest(&tags)).unwrap();
    }
}
