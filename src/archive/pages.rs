//! PURE: computes how much memory the decoding of a Parquet file takes, before the memory is taken. A page is decoded as
//! a whole, and a few kilobytes of compressed data may claim to be a gigabyte.

use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};

/// The most bytes that the rows of a batch should take.
const BATCH_BYTES: u64 = 8 << 20;
/// The most rows of a batch.
const BATCH_ROWS: u64 = 8192;

/// The last bytes of a file: the length of its footer, and a mark.
const TAIL: u64 = 8;

/// Where the footer of a file of this size ends.
pub(crate) fn footer_end(file_bytes: u64) -> u64 {
    file_bytes.saturating_sub(TAIL)
}

/// The footer of a file in memory, as far as it is there.
pub(crate) fn footer(file: &[u8]) -> Option<&[u8]> {
    let (rest, tail) = file.split_last_chunk::<{ TAIL as usize }>()?;
    let length = u32::from_le_bytes(*tail.first_chunk()?) as usize;
    rest.get(rest.len().checked_sub(length)?..)
}

/// Checks that what a footer claims to hold is there. The parquet crate would walk a list of booleans that no footer has
/// for as long as it claims, and a few kilobytes may claim to have a trillion.
pub(crate) fn footer_is_sound(footer: &[u8]) -> Result<(), String> {
    let sound = Thrift { bytes: footer, at: 0 }.skip(STRUCT, 0);
    sound.ok_or_else(|| "its footer is broken: it claims more than it holds".to_owned())
}

/// Whether the compressed bytes of each row group, which are read together, fit into a share of the memory.
pub(crate) fn fits(metadata: &ParquetMetaData, share: usize) -> Result<(), String> {
    let largest = metadata.row_groups().iter().map(RowGroupMetaData::compressed_size).max();
    spans(largest.unwrap_or(0).unsigned_abs(), share)
}

/// The number of rows with which a batch stays small, even if single values are large.
pub(crate) fn batch_rows(metadata: &ParquetMetaData) -> usize {
    let of_group = |group: &RowGroupMetaData| {
        let rows = group.num_rows().unsigned_abs().max(1);
        let columns = group.columns().iter().map(|column| {
            // A dictionary holds a value once, but a batch holds it as often as it occurs.
            let values = column.unencoded_byte_array_data_bytes().unwrap_or(0);
            values.max(column.uncompressed_size()).unsigned_abs()
        });
        let row_bytes = (columns.sum::<u64>() / rows).max(1);
        (BATCH_BYTES / row_bytes).clamp(1, BATCH_ROWS)
    };
    metadata.row_groups().iter().map(of_group).min().unwrap_or(BATCH_ROWS) as usize
}

/// Checks that the columns of a row group, which take so many bytes, fit into a share of the memory.
pub(crate) fn spans(bytes: u64, share: usize) -> Result<(), String> {
    if bytes > share as u64 { Err(too_large("a row group", bytes)) } else { Ok(()) }
}

/// Why the pages of a row group are not decoded.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// A header cannot be read.
    Broken(String),
    /// One takes more memory than is allowed.
    TooLarge(String),
}

/// Checks that each page of a row group fits into a share of the memory twice, as a page and as values. `bytes` returns
/// the bytes of the file at a position, if they were read. Returns the size of the largest page.
pub(crate) fn fit<'a>(
    group: &RowGroupMetaData,
    bytes: impl Fn(u64, u64) -> Option<&'a [u8]>,
    share: usize,
) -> Result<u64, Unfit> {
    let mut most = 0;
    for column in group.columns() {
        let (start, length) = column.byte_range();
        let Some(chunk) = bytes(start, length) else { continue };
        let largest = largest_page(chunk).ok_or_else(|| {
            let column = column.column_path().string();
            Unfit::Broken(format!("a page of the column {column} has a header that cannot be read"))
        })?;
        if largest.saturating_mul(2) > share as u64 {
            let what = format!("a page of the column {}", column.column_path().string());
            return Err(Unfit::TooLarge(too_large(&what, largest)));
        }
        most = most.max(largest);
    }
    Ok(most)
}

fn too_large(what: &str, bytes: u64) -> String {
    let mebibytes = bytes.div_ceil(1 << 20);
    format!("{what} takes {mebibytes} MiB to be decoded, which is more than --memory allows here")
}

/// The largest size that a page of a column chunk claims to have when it is decompressed; `None` if a header is broken.
fn largest_page(mut chunk: &[u8]) -> Option<u64> {
    let mut largest = 0;
    while !chunk.is_empty() {
        let (header, sizes) = page_header(chunk)?;
        largest = largest.max(sizes.uncompressed);
        let next = usize::try_from(sizes.compressed).ok().and_then(|size| size.checked_add(header));
        match next.and_then(|next| chunk.get(next..)) {
            Some(rest) => chunk = rest,
            None => break, // the chunk is cut, which the decoder reports
        }
    }
    Some(largest)
}

struct Sizes {
    uncompressed: u64,
    compressed: u64,
}

/// Reads the header of a page, a struct in Thrift's compact protocol of which field 2 is the size of the page
/// when it is decompressed, and field 3 the size as it is stored. Returns the length of the header, too.
///
/// The parquet crate reads it as well, but hands over a page only after it has been decompressed.
fn page_header(bytes: &[u8]) -> Option<(usize, Sizes)> {
    let mut thrift = Thrift { bytes, at: 0 };
    let mut sizes = Sizes { uncompressed: 0, compressed: 0 };
    let mut id = 0;
    while let Some(kind) = thrift.field(&mut id)? {
        match (id, kind) {
            (2, 5) => sizes.uncompressed = thrift.size()?,
            (3, 5) => sizes.compressed = thrift.size()?,
            _ => thrift.skip(kind, 0)?,
        }
    }
    Some((thrift.at, sizes))
}

/// The type of a struct.
const STRUCT: u8 = 12;

struct Thrift<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Thrift<'_> {
    fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    /// Steps over bytes, all of which must exist: otherwise a list that claims to have billions of numbers would be walked
    /// beyond the end of the page.
    fn step(&mut self, bytes: u64) -> Option<()> {
        let end = self.at.checked_add(usize::try_from(bytes).ok()?)?;
        self.at = Some(end).filter(|end| *end <= self.bytes.len())?;
        Some(())
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    /// A non-negative integer in zigzag encoding.
    fn size(&mut self) -> Option<u64> {
        self.varint().map(|value| value >> 1)
    }

    /// The type of the next field, whose number is added to `id`. The inner `None` is the end of the struct.
    fn field(&mut self, id: &mut u64) -> Option<Option<u8>> {
        let head = self.byte()?;
        if head == 0 {
            return Some(None);
        }
        match u64::from(head >> 4) {
            0 => *id = self.size()?,
            step => *id += step,
        }
        Some(Some(head & 0x0f))
    }

    fn skip(&mut self, kind: u8, depth: u32) -> Option<()> {
        if depth > 16 {
            return None;
        }
        match kind {
            1 | 2 => {} // the type is the value of a boolean
            3 => drop(self.byte()?),
            4..=6 => drop(self.varint()?),
            7 => self.step(8)?,
            8 => {
                let length = self.varint()?;
                self.step(length)?;
            }
            9 | 10 => {
                let head = self.byte()?;
                let count = match head >> 4 {
                    15 => self.varint()?,
                    count => u64::from(count),
                };
                for _ in 0..count {
                    match head & 0x0f {
                        1 | 2 => return None, // no footer and no header of a page has booleans in a list
                        kind => self.skip(kind, depth + 1)?,
                    }
                }
            }
            STRUCT => {
                let mut id = 0;
                while let Some(kind) = self.field(&mut id)? {
                    self.skip(kind, depth + 1)?;
                }
            }
            _ => return None,
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, RecordBatch, StringArray};
    use bytes::Bytes;
    use parquet::arrow::ArrowWriter;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    use parquet::basic::{Compression, ZstdLevel};
    use parquet::file::properties::WriterProperties;
    use proptest::prelude::*;

    use super::*;

    fn file(values: &[String], dictionary: bool) -> Bytes {
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_dictionary_enabled(dictionary)
            .build();
        let column: ArrayRef = Arc::new(StringArray::from_iter_values(values));
        let batch = RecordBatch::try_from_iter([("text", column)]).unwrap();
        let mut writer =
            ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties)).unwrap();
        writer.write(&batch).unwrap();
        writer.into_inner().unwrap().into()
    }

    fn metadata(file: &Bytes) -> Arc<ParquetMetaData> {
        ParquetRecordBatchReaderBuilder::try_new(file.clone()).unwrap().metadata().clone()
    }

    fn check(file: &Bytes, share: usize) -> Result<(), String> {
        let bytes = |start: u64, length: u64| file.get(start as usize..(start + length) as usize);
        fit(metadata(file).row_group(0), bytes, share).map(drop).map_err(|unfit| match unfit {
            Unfit::Broken(why) | Unfit::TooLarge(why) => why,
        })
    }

    #[test]
    fn a_page_that_claims_more_than_the_memory_is_refused_before_it_is_decoded() {
        let one = vec!["a".repeat(40 << 20)];
        for dictionary in [true, false] {
            let file = file(&one, dictionary);
            assert!(file.len() < 100 << 10, "{}", file.len());
            assert!(check(&file, 64 << 20).unwrap_err().contains("text takes 41 MiB"));
            assert_eq!(check(&file, 128 << 20), Ok(()));
        }
        // Many pages, each of which is small.
        let many: Vec<String> = (0..400).map(|n| format!("{n}{}", "a".repeat(100 << 10))).collect();
        assert_eq!(check(&file(&many, false), 16 << 20), Ok(()));
    }

    #[test]
    fn a_batch_is_as_large_as_its_rows_allow() {
        let of = |values: &[String]| batch_rows(&metadata(&file(values, true)));
        assert_eq!(of(&vec!["a".to_owned(); 10_000]), 8192);
        // The dictionary holds this value only once.
        let large = of(&vec!["a".repeat(1 << 20); 50]);
        assert!((1..=8).contains(&large), "{large}");
    }

    #[test]
    fn a_footer_whose_lists_claim_more_than_it_holds_is_refused() {
        let file = file(&["a".to_owned()], true);
        assert_eq!(footer_is_sound(footer(&file).unwrap()), Ok(()));
        assert_eq!(footer_end(file.len() as u64), file.len() as u64 - 8);
        // An unknown field with a list of 2^31 - 1 booleans, which have no bytes in the eyes of the parquet crate.
        let endless = [0xf9, 0xf1, 0xff, 0xff, 0xff, 0xff, 0x07, 0];
        assert!(footer_is_sound(&endless).is_err());
        let metadata = metadata(&file);
        let broken = fit(metadata.row_group(0), |_, _| Some(&endless), 1 << 20).unwrap_err();
        assert!(matches!(broken, Unfit::Broken(_)), "{broken:?}");
        for cut in 0..footer(&file).unwrap().len() {
            assert!(footer_is_sound(&footer(&file).unwrap()[..cut]).is_err(), "{cut}");
        }
        assert_eq!((footer(b"PAR1"), footer(b"\xff\0\0\0PAR1")), (None, None));
    }

    #[test]
    fn a_list_that_claims_more_numbers_than_there_are_bytes_is_not_walked() {
        // The first field is a list of 2^63 - 1 doubles, of which none is there.
        let endless = [&[0x19, 0xf7][..], &[0xff; 8], &[0x7f]].concat();
        assert!(page_header(&endless).is_none());
    }

    proptest! {
        #[test]
        fn any_bytes_have_some_size(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            largest_page(&bytes);
        }
    }
}
