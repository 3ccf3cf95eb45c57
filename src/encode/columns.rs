//! SYNC: encodes a row group column by column, on several threads if cores are idle.

use std::io::Write;

use arrow::array::{RecordBatch, new_empty_array};
use arrow::datatypes::{FieldRef, SchemaRef};
use parquet::arrow::arrow_writer::{
    ArrowColumnChunk, ArrowColumnWriter, ArrowRowGroupWriterFactory, compute_leaves,
};
use parquet::errors::{ParquetError, Result};
use parquet::file::writer::SerializedFileWriter;

use crate::column_stats::Stats;
use crate::encode::cores::Cores;

/// The open row group of a file.
pub(super) struct RowGroup {
    columns: Vec<Column>,
    /// The number of rows so far.
    pub(super) rows: usize,
}

/// A column of the schema. One of a nested type has several leaves in Parquet.
struct Column {
    field: FieldRef,
    leaves: Vec<ArrowColumnWriter>,
}

impl RowGroup {
    pub(super) fn new(
        factory: &ArrowRowGroupWriterFactory,
        index: usize,
        schema: &SchemaRef,
    ) -> Result<Self> {
        let mut writers = factory.create_column_writers(index)?.into_iter();
        let columns = schema.fields().iter().map(|field| {
            let count = compute_leaves(field, &new_empty_array(field.data_type()))?.len();
            Ok(Column { field: field.clone(), leaves: writers.by_ref().take(count).collect() })
        });
        Ok(Self { columns: columns.collect::<Result<_>>()?, rows: 0 })
    }

    /// Encodes batches and adds them to the statistics.
    pub(super) fn write(
        &mut self,
        batches: Vec<RecordBatch>,
        stats: &mut Stats,
        cores: &Cores,
    ) -> Result<()> {
        self.rows += batches.iter().map(RecordBatch::num_rows).sum::<usize>();
        let columns = self.columns.iter_mut().zip(stats.columns()).enumerate();
        cores.work(0, columns, panicked, |(at, (column, gathered))| {
            for batch in &batches {
                let array = batch.column(at);
                gathered.add(array);
                for (writer, leaf) in
                    column.leaves.iter_mut().zip(compute_leaves(&column.field, array)?)
                {
                    writer.write(&leaf)?;
                }
            }
            Ok(())
        })
    }

    /// Its approximate size if it ended here.
    pub(super) fn encoded_bytes(&self) -> usize {
        let leaves = self.columns.iter().flat_map(|column| &column.leaves);
        leaves.map(ArrowColumnWriter::get_estimated_total_bytes).sum()
    }

    /// Ends the row group and writes it into its file.
    pub(super) fn finish<W: Write + Send>(
        self,
        file: &mut SerializedFileWriter<W>,
        cores: &Cores,
    ) -> Result<()> {
        let writers: Vec<_> = self.columns.into_iter().flat_map(|column| column.leaves).collect();
        let mut chunks: Vec<Option<ArrowColumnChunk>> = writers.iter().map(|_| None).collect();
        let jobs = writers.into_iter().zip(&mut chunks);
        cores.work(0, jobs, panicked, |(writer, chunk)| {
            *chunk = Some(writer.close()?);
            Ok(())
        })?;
        let mut group = file.next_row_group()?;
        for chunk in chunks.into_iter().flatten() {
            chunk.append_to_row_group(&mut group)?;
        }
        group.close().map(drop)
    }
}

fn panicked() -> ParquetError {
    ParquetError::General("an encoding thread panicked".to_owned())
}
