//! PURE: turns the batches of an answer into batches of the table: with the table's order of columns and times in UTC.
//! Nothing is done row by row.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch, TimestampNanosecondArray};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit, TimestampNanosecondType};

use crate::error::{Class, Error, Result};
use crate::model::{Column, Role, Table};
use crate::window::Window;

/// How the columns of an answer map to those of the table.
pub(crate) struct Shape {
    schema: SchemaRef,
    /// For each column of the table, its position in the answer.
    places: Vec<usize>,
}

impl Shape {
    /// Compares an answer with the table as it was listed. A column that is new is an error, after which the table is
    /// listed again.
    pub(crate) fn new(table: &Table, answer: &Schema) -> Result<Self> {
        let changed = |what: String| Error::of(Class::SchemaChanged, what);
        if let Some(new) = answer.fields().iter().find(|field| place(table, field.name()).is_none())
        {
            return Err(changed(format!("the column `{}` is new", new.name())));
        }
        let mut places = Vec::new();
        let mut fields = Vec::new();
        for column in &table.columns {
            let Some((at, field)) = answer.fields().find(&column.key) else {
                return Err(changed(format!("the column `{}` is gone", column.key)));
            };
            let data_type = arriving(column, field)?;
            fields.push(Field::new(&column.name, data_type, column.role != Role::Time));
            places.push(at);
        }
        Ok(Self { schema: Arc::new(Schema::new(fields)), places })
    }

    /// The columns of a batch in the order of the table.
    pub(crate) fn arrange(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let broken = |error: &dyn std::fmt::Display| {
            Error::of(Class::RetryThenSplit, format!("a batch does not fit its schema: {error}"))
        };
        let columns = self.places.iter().map(|place| {
            let array =
                batch.columns().get(*place).ok_or_else(|| broken(&"a column is missing"))?;
            Ok(match array.data_type() {
                // The server sends times without a zone, which are in UTC.
                DataType::Timestamp(TimeUnit::Nanosecond, None) => {
                    let time = array.as_primitive::<TimestampNanosecondType>().clone();
                    Arc::new(time.with_timezone("UTC")) as ArrayRef
                }
                // No known version sends text in such a type, but a future one may.
                other if is_text(other) && *other != DataType::Utf8 => {
                    cast(array, &DataType::Utf8).map_err(|error| broken(&error))?
                }
                _ => Arc::clone(array),
            })
        });
        let columns = columns.collect::<Result<Vec<_>>>()?;
        RecordBatch::try_new(self.schema.clone(), columns).map_err(|error| broken(&error))
    }
}

/// The rows of a batch whose time lies in a window.
pub(crate) fn within(batch: &RecordBatch, window: Window) -> Result<RecordBatch> {
    let broken = |what: String| Error::of(Class::RetryThenSplit, what);
    let times = batch.columns().first().and_then(|time| time.as_primitive_opt());
    let times: &TimestampNanosecondArray =
        times.ok_or_else(|| broken("a batch has no time".to_owned()))?;
    let inside: BooleanArray =
        times.iter().map(|time| Some(time.is_some_and(|time| window.contains(time)))).collect();
    filter_record_batch(batch, &inside).map_err(|error| broken(error.to_string()))
}

fn place(table: &Table, key: &str) -> Option<usize> {
    table.columns.iter().position(|column| column.key == key)
}

/// The type in which a column's values are passed on: that of the archive, except for tags, whose dictionary is made when
/// they are encoded.
fn arriving(column: &Column, field: &Field) -> Result<DataType> {
    let here = field.data_type();
    let fits = match &column.data_type {
        DataType::Timestamp(TimeUnit::Nanosecond, Some(_)) => {
            matches!(here, DataType::Timestamp(TimeUnit::Nanosecond, None))
                || *here == column.data_type
        }
        DataType::Dictionary(..) | DataType::Utf8 => is_text(here),
        other => here == other,
    };
    match (fits, &column.data_type) {
        (true, DataType::Dictionary(..)) => Ok(DataType::Utf8),
        (true, listed) => Ok(listed.clone()),
        (false, listed) => Err(Error::of(
            Class::SchemaChanged,
            format!("the column `{}` arrives as {here} instead of {listed}", column.key),
        )),
    }
}

fn is_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, values) => is_text(values),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use arrow::array::{Float64Array, StringArray, TimestampNanosecondArray};

    use super::*;
    use crate::model::TableId;
    use crate::source::influxdb::points::{FieldType, columns};

    fn table() -> Table {
        let fields = BTreeMap::from([("Load".to_owned(), BTreeSet::from([FieldType::Float]))]);
        let [source, database, schema, table] = ["s", "d", "", "t"].map(str::to_owned);
        let columns = columns(&BTreeSet::from(["host".to_owned()]), &fields);
        Table::new(TableId { source, database, schema, table }, columns)
    }

    fn answer(more: bool) -> RecordBatch {
        let mut columns: Vec<(&str, ArrayRef)> = vec![
            ("Load", Arc::new(Float64Array::from(vec![1.5]))),
            ("host", Arc::new(StringArray::from(vec!["a"]))),
            ("time", Arc::new(TimestampNanosecondArray::from(vec![7]))),
        ];
        if more {
            columns.push(("zone", Arc::new(StringArray::from(vec!["b"]))));
        }
        RecordBatch::try_from_iter(columns).unwrap()
    }

    #[test]
    fn columns_are_put_into_the_order_of_the_table() {
        let batch = answer(false);
        let arranged = Shape::new(&table(), &batch.schema()).unwrap().arrange(&batch).unwrap();
        let schema = arranged.schema();
        let names: Vec<_> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        assert_eq!(names, ["time", "host", "Load"]);
        assert_eq!(schema.field(0).data_type(), &table().columns[0].data_type);
    }

    #[test]
    fn text_is_accepted_in_every_type() {
        let batch = answer(false);
        let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
        for form in [dictionary, DataType::Utf8View, DataType::LargeUtf8] {
            let host = cast(batch.column(1), &form).unwrap();
            let columns = [batch.column(0).clone(), host, batch.column(2).clone()];
            let batch =
                RecordBatch::try_from_iter(["Load", "host", "time"].into_iter().zip(columns));
            let batch = batch.unwrap();
            let arranged = Shape::new(&table(), &batch.schema()).unwrap().arrange(&batch).unwrap();
            assert_eq!(arranged.column(1).as_string::<i32>().value(0), "a");
        }
    }

    #[test]
    fn a_column_that_was_not_listed_is_an_error() {
        let error = Shape::new(&table(), &answer(true).schema()).err().unwrap();
        assert_eq!(
            (error.class(), error.to_string().as_str()),
            (Class::SchemaChanged, "the column `zone` is new")
        );
    }
}
