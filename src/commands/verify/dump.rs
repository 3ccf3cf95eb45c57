//! Checks a native dump: its bytes, its decompressed content, and whether that is complete by the signs of its format.

use crate::archive::commit::FileRecord;
use crate::commands::verify::file::{Checked, size_fault};
use crate::error::Result;
use crate::export::dump_reader::read_stored;
use crate::model::DumpRecord;
use crate::store::Store;

/// Reads a dump to its end, or only compares its size. `Err` means that the store cannot be read.
pub(super) async fn check_dump(
    store: &Store,
    file: &FileRecord,
    dump: &DumpRecord,
    size: Option<u64>,
    quick: bool,
    checked: &mut Checked,
) -> Result<()> {
    // The hash is compared while the content is read.
    let mut fault = size_fault(file, size);
    if fault.is_none() && !quick {
        fault = match read_stored(store, &file.key, &dump.format, true).await? {
            None => Some("it is missing".to_owned()),
            Some(stored) if stored.sha256 != file.sha256 => {
                Some("its bytes are not those that the catalog records".to_owned())
            }
            Some(stored) => match stored.raw.whole {
                Err(fault) => Some(format!("the dump {fault}")),
                Ok(_)
                    if (stored.raw.bytes, &stored.raw.sha256)
                        != (dump.raw_bytes, &dump.raw_sha256) =>
                {
                    Some("it is decompressed to other bytes than the catalog records".to_owned())
                }
                Ok(whole) if whole.contents != dump.contents => {
                    Some("it holds other tables than the catalog records".to_owned())
                }
                Ok(_) => None,
            },
        };
    }
    match fault {
        Some(fault) => checked.faults.push((file.key.clone(), fault)),
        None => {
            checked.files += 1;
            checked.bytes += file.bytes;
        }
    }
    Ok(())
}
