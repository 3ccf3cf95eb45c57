//! Reads an archive for assertions, sharing no code with the program: every Parquet file below
//! `data/`, found by its own metadata, and the catalog as plain JSON.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Float64Type, Int64Type, SchemaRef, TimeUnit, TimestampNanosecondType, UInt64Type,
};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;

use super::python;
use super::row::{self, Column, Row};

/// A folder that the program wrote.
#[derive(Debug, Clone)]
pub(crate) struct Archive {
    pub(crate) root: PathBuf,
}

/// A Parquet file of it.
#[derive(Debug, Clone)]
pub(crate) struct DataFile {
    /// Path below the root.
    pub(crate) path: String,
    /// Key-value metadata.
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) schema: SchemaRef,
    /// In the order of the file.
    pub(crate) rows: Vec<Row>,
}

impl Archive {
    pub(crate) fn open(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// All paths below the root, sorted.
    pub(crate) fn files(&self) -> Vec<String> {
        files(&self.root)
    }

    /// Whether it has its tag manifest, which is written last.
    pub(crate) fn is_sealed(&self) -> bool {
        self.root.join("tagmanifest-sha256.txt").exists()
    }

    /// The text of a file.
    #[track_caller]
    pub(crate) fn text(&self, path: &str) -> String {
        fs::read_to_string(self.root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// The tables of the catalog.
    #[track_caller]
    pub(crate) fn catalog(&self) -> Vec<Value> {
        let catalog: Value = serde_json::from_str(&self.text("catalog/tables.json")).unwrap();
        catalog.as_array().expect("catalog/tables.json is a list").clone()
    }

    /// Every Parquet file below `data/`, also of an archive that is not finished.
    pub(crate) fn data_files(&self) -> Vec<DataFile> {
        let parquet = |path: &String| path.starts_with("data/") && path.ends_with(".parquet");
        self.files().into_iter().filter(parquet).map(|path| read(&self.root, path)).collect()
    }

    /// The files of a table; `table` is `TABLE`, `DATABASE.TABLE` or `DATABASE.SCHEMA.TABLE`.
    pub(crate) fn files_of(&self, table: &str) -> Vec<DataFile> {
        let files = self.data_files().into_iter();
        let files: Vec<_> = files.filter(|file| file.is_of(table)).collect();
        let full_names = files.iter().map(DataFile::full_name);
        let names: std::collections::BTreeSet<_> = full_names.collect();
        assert!(names.len() <= 1, "{table} may be any of {names:?}");
        files
    }

    /// The paths of the files of a table, in order.
    pub(crate) fn data_files_of(&self, database: &str, table: &str) -> Vec<String> {
        let is_of = |path: &String| {
            let file = File::open(self.root.join(path)).unwrap();
            let builder = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
            let pairs = builder.metadata().file_metadata().key_value_metadata();
            let has = |key: &str, value: &str| {
                let mut pairs = pairs.into_iter().flatten();
                pairs.any(|pair| pair.key == key && pair.value.as_deref() == Some(value))
            };
            has("moveout.database", database) && has("moveout.table", table)
        };
        let parquet = |path: &String| path.starts_with("data/") && path.ends_with(".parquet");
        self.files().into_iter().filter(parquet).filter(is_of).collect()
    }

    /// All rows of a table, sorted; empty where it has no files. Checks on the way that time is
    /// never null, and that the files lie where the catalog says (if there is one).
    #[track_caller]
    pub(crate) fn rows(&self, table: &str) -> Vec<Row> {
        let files = self.files_of(table);
        if let Some(first) = files.first()
            && self.root.join("catalog/tables.json").exists()
        {
            let catalog = self.catalog();
            let name = first.full_name();
            let entry = catalog.iter().find(|entry| full_name(|key| entry[key].as_str()) == name);
            let path = entry.and_then(|entry| entry["path"].as_str());
            let path =
                path.unwrap_or_else(|| panic!("{name:?} is not in the catalog: {catalog:?}"));
            for file in &files {
                let below = file.path.strip_prefix("data/").unwrap_or_default();
                let inside = [&file.path, below].iter().any(|file| file.starts_with(path));
                assert!(inside, "{} is not in the folder {path} of its table", file.path);
            }
        }
        let mut rows: Vec<Row> = files.into_iter().flat_map(|file| file.rows).collect();
        rows.sort();
        rows
    }

    /// The columns of a table, which all of its files must agree on.
    #[track_caller]
    pub(crate) fn columns(&self, table: &str) -> Vec<Column> {
        let files = self.files_of(table);
        let columns = files.first().map(DataFile::columns).unwrap_or_default();
        for file in &files {
            assert_eq!(file.columns(), columns, "{} differs from {}", file.path, files[0].path);
        }
        columns
    }

    /// Lets the reference implementation of BagIt validate it.
    pub(crate) fn validate_as_bag(&self) {
        let code = "import bagit, sys; bagit.Bag(sys.argv[1]).validate()";
        python(code, &[self.root.to_str().unwrap()]);
    }
}

impl DataFile {
    fn get(&self, key: &str) -> Option<&str> {
        self.metadata.get(&format!("moveout.{key}")).map(String::as_str)
    }

    /// Database, schema and table.
    fn full_name(&self) -> [String; 3] {
        full_name(|key| self.get(key))
    }

    fn is_of(&self, table: &str) -> bool {
        let [database, schema, name] = self.full_name();
        [name.clone(), format!("{database}.{name}"), format!("{database}.{schema}.{name}")]
            .iter()
            .any(|name| name == table)
    }

    pub(crate) fn columns(&self) -> Vec<Column> {
        let columns = self.schema.fields().iter().map(|field| {
            let metadata = |key| field.metadata().get(key).cloned().unwrap_or_default();
            let data_type = match field.data_type() {
                DataType::Dictionary(_, values) if **values == DataType::Utf8 => {
                    "dictionary".into()
                }
                other => other.to_string(),
            };
            let (key, role) = (metadata("moveout.key"), metadata("moveout.role"));
            Column { name: field.name().clone(), key, role, data_type }
        });
        columns.collect()
    }
}

fn full_name<'a>(part: impl Fn(&'static str) -> Option<&'a str>) -> [String; 3] {
    ["database", "schema", "table"].map(|key| part(key).unwrap_or_default().to_owned())
}

/// All files below a folder, relative to it, with `/`, sorted.
pub(crate) fn files(root: &Path) -> Vec<String> {
    fn walk(folder: &Path, root: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => walk(&path, root, found),
                false => found.push(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned()),
            }
        }
    }
    let mut found = Vec::new();
    if root.exists() {
        walk(root, root, &mut found);
    }
    found.sort();
    found
}

#[track_caller]
fn read(root: &Path, path: String) -> DataFile {
    let file = File::open(root.join(&path)).unwrap();
    let builder = ParquetRecordBatchReaderBuilder::try_new(file)
        .unwrap_or_else(|error| panic!("{path}: {error}"));
    let pairs =
        builder.metadata().file_metadata().key_value_metadata().cloned().unwrap_or_default();
    let metadata = pairs.into_iter().map(|pair| (pair.key, pair.value.unwrap_or_default()));
    let metadata = metadata.collect();
    let schema = builder.schema().clone();
    let reader = builder.build().unwrap();
    let rows = reader.flat_map(|batch| render(&batch.unwrap())).collect();
    DataFile { path, metadata, schema, rows }
}

/// The rows of a batch in the form of [`row`].
pub(crate) fn render(batch: &RecordBatch) -> Vec<Row> {
    let mut rows = vec![Row::new(); batch.num_rows()];
    for (field, array) in batch.schema().fields().iter().zip(batch.columns()) {
        let is_time = field.metadata().get("moveout.role").is_some_and(|role| role == "time");
        assert!(!is_time || array.null_count() == 0, "null in {}", field.name());
        let array = match array.data_type() {
            DataType::Dictionary(_, values) => cast(array, values).unwrap(),
            _ => array.clone(),
        };
        let value = renderer(&array);
        for (index, row) in rows.iter_mut().enumerate() {
            if array.is_valid(index) {
                row.insert(field.name().clone(), value(index));
            }
        }
    }
    rows
}

fn renderer(array: &ArrayRef) -> Box<dyn Fn(usize) -> String + '_> {
    match array.data_type() {
        DataType::Timestamp(TimeUnit::Nanosecond, Some(zone)) if &**zone == "UTC" => {
            Box::new(|i| array.as_primitive::<TimestampNanosecondType>().value(i).to_string())
        }
        DataType::Float64 => Box::new(|i| row::float(array.as_primitive::<Float64Type>().value(i))),
        DataType::Int64 => Box::new(|i| format!("{}i", array.as_primitive::<Int64Type>().value(i))),
        DataType::UInt64 => {
            Box::new(|i| format!("{}u", array.as_primitive::<UInt64Type>().value(i)))
        }
        DataType::Boolean => Box::new(|i| array.as_boolean().value(i).to_string()),
        DataType::Utf8 => Box::new(|i| row::text(array.as_string::<i32>().value(i))),
        other => {
            let options = FormatOptions::new().with_display_error(true);
            let formatter = ArrayFormatter::try_new(array, &options).unwrap();
            let texts: Vec<_> = (0..array.len()).map(|i| formatter.value(i).to_string()).collect();
            let kind = other.to_string();
            Box::new(move |i| format!("{kind} {}", texts[i]))
        }
    }
}
