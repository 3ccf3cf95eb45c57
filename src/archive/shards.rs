//! The record of how an export is divided among its shards. It is the only thing that shards share besides their commits.

use crate::archive::catalog::to_json;
use crate::archive::keys::DIVISIONS;
use crate::archive::open::Archive;
use crate::error::Result;
use crate::hash::sha256;
use crate::shards::Division;

impl Archive {
    /// The division that the shards of this job have recorded, if one has. `job` says what is exported: shards of different
    /// jobs do not share a division.
    pub async fn division(&self, job: &str, shards: u32) -> Result<Option<Division>> {
        let found = self.store().get(&key(job, shards)).await?;
        let found = found.and_then(|bytes| serde_json::from_slice::<Division>(&bytes).ok());
        Ok(found.filter(|division| division.shards() == shards))
    }

    /// Records how the work is divided, unless another shard was first. Returns the division that is recorded.
    pub async fn agree_on(&self, job: &str, division: Division) -> Result<Division> {
        let shards = division.shards();
        self.store().put_if_absent(&key(job, shards), to_json(&division)?.into()).await?;
        Ok(self.division(job, shards).await?.unwrap_or(division))
    }
}

/// Whether a file is such a record.
pub fn is_division(key: &str, bytes: &[u8]) -> bool {
    let shards = key.strip_prefix(DIVISIONS).and_then(|name| name.split_once('-'));
    let shards = shards.and_then(|(shards, _)| shards.parse::<u32>().ok());
    serde_json::from_slice::<Division>(bytes).is_ok_and(|found| Some(found.shards()) == shards)
}

fn key(job: &str, shards: u32) -> String {
    format!("{DIVISIONS}{shards}-{}.json", &sha256(job.as_bytes())[..16])
}
