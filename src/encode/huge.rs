//! PURE: columns with values of many mebibytes. What an encoder keeps of other values to save space or to help
//! readers (a dictionary, the smallest and the largest value of each page) are whole copies of these.

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::{DataType, Field};
use parquet::file::properties::{EnabledStatistics, WriterPropertiesBuilder};
use parquet::schema::types::ColumnPath;

use crate::source::channel::size_bytes;

/// The size in bytes of a column of a batch from which on its values are huge. Batches are smaller, unless one value is
/// as large.
const HUGE_BYTES: usize = 16 << 20;

/// The columns of a batch that have values so large.
pub(super) fn of(batch: &RecordBatch) -> impl Iterator<Item = usize> {
    let is_huge = |at: &usize| {
        let column = batch.column(*at);
        leaf(column.data_type()).is_some() && size_bytes(column) >= HUGE_BYTES
    };
    (0..batch.num_columns()).filter(is_huge)
}

/// What Parquet calls the parts of a column between its name and its values, if these have no fixed length.
fn leaf(data_type: &DataType) -> Option<Vec<String>> {
    match data_type {
        DataType::Utf8 | DataType::Binary | DataType::LargeUtf8 | DataType::LargeBinary => {
            Some(Vec::new())
        }
        DataType::List(element) => {
            let rest = leaf(element.data_type())?;
            Some([vec!["list".to_owned(), element.name().clone()], rest].concat())
        }
        _ => None,
    }
}

/// A page of such a column is made only when its row group ends and its batch is gone, because making one takes two
/// copies.
const PAGE_BYTES: usize = 1 << 30;

/// Tells the writer to keep no copy of the values of such a column.
pub(super) fn lean(properties: WriterPropertiesBuilder, field: &Field) -> WriterPropertiesBuilder {
    let Some(rest) = leaf(field.data_type()) else { return properties };
    let path = ColumnPath::new([vec![field.name().clone()], rest].concat());
    properties
        .set_column_dictionary_enabled(path.clone(), false)
        .set_column_data_page_size_limit(path.clone(), PAGE_BYTES)
        .set_column_statistics_enabled(path, EnabledStatistics::None)
}
