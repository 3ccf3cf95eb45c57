//! PURE: columns with values of many mebibytes. What an encoder keeps to save space or to help readers (a dictionary, the
//! smallest and the largest value of each page) would be complete copies of such values.

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::{DataType, Field};
use parquet::file::properties::{EnabledStatistics, WriterPropertiesBuilder};
use parquet::schema::types::ColumnPath;

use crate::source::channel::size_bytes;

/// A column of a batch has huge values if it has at least this many bytes. Batches are smaller unless a single value is
/// this large.
const HUGE_BYTES: usize = 16 << 20;

/// The columns of a batch with huge values.
pub(super) fn of(batch: &RecordBatch) -> impl Iterator<Item = usize> {
    let is_huge = |at: &usize| {
        let column = batch.column(*at);
        leaf(column.data_type()).is_some() && size_bytes(column) >= HUGE_BYTES
    };
    (0..batch.num_columns()).filter(is_huge)
}

/// The path in Parquet from a column to its values; `None` if these have a fixed length.
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

/// The page size of such a column. It is never reached, so that a page is made only when the row group ends and the batch
/// is gone, because making one takes two copies of the values.
const PAGE_BYTES: usize = 1 << 30;

/// Makes the writer keep no copies of the values of such a column.
pub(super) fn lean(properties: WriterPropertiesBuilder, field: &Field) -> WriterPropertiesBuilder {
    let Some(rest) = leaf(field.data_type()) else { return properties };
    let path = ColumnPath::new([vec![field.name().clone()], rest].concat());
    properties
        .set_column_dictionary_enabled(path.clone(), false)
        .set_column_data_page_size_limit(path.clone(), PAGE_BYTES)
        .set_column_statistics_enabled(path, EnabledStatistics::None)
}
