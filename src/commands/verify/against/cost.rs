//! PURE: what a comparison takes of sources whose reading is limited or billed, told before it begins.

use std::collections::BTreeMap;

use crate::commands::plan::{QuotaPreview, wire_bytes_per_row};
use crate::commands::verify::against::group::Group;
use crate::source::Source;
use crate::text::several;

/// Bytes of an answer besides its cells, and of a cell with its name, about.
const ANSWER_BYTES: u64 = 1_000;
const CELL_BYTES: u64 = 60;

/// What the comparison of these chunks takes of each source that has a quota or prices.
pub(super) fn costs(groups: &[Group<'_>]) -> Vec<QuotaPreview> {
    let mut sources = BTreeMap::<&str, (&dyn Source, u64, u64)>::new();
    for group in groups {
        let Some(source) = group.source().filter(|source| source.metering().is_some()) else {
            continue;
        };
        let (_, queries, bytes) = sources.entry(source.name()).or_insert((source, 0, 0));
        *queries += 1;
        *bytes = bytes.saturating_add(ANSWER_BYTES);
        for asked in group.chunks() {
            let one = &asked.one;
            *bytes = bytes.saturating_add(if asked.reads {
                (one.commit.rows as f64 * wire_bytes_per_row(&one.table)) as u64
            } else {
                one.table.columns.len() as u64 * CELL_BYTES
            });
        }
    }
    let costs = sources.into_values();
    costs
        .filter_map(|(source, queries, bytes)| QuotaPreview::of(source, Some(bytes), queries))
        .collect()
}

/// The same in words.
pub(super) fn in_words(cost: &QuotaPreview) -> String {
    let megabytes = cost.read_bytes_estimate.unwrap_or_default().div_ceil(1_000_000);
    let queries = several(cost.queries_estimate, "query execution");
    let mut words = format!(
        "{}: the comparison takes {queries} and about {megabytes} MB of answers",
        cost.source
    );
    if let Some(quota) = &cost.quota {
        words += &format!(" under the quota of {quota}");
    }
    if let Some(seconds @ 1..) = cost.seconds_at_least {
        words += &format!(", so {} at least", several(seconds.div_ceil(60), "minute"));
    }
    if let Some(cost) = cost.cost_estimate {
        words += &format!("; about {cost:.2} in the currency of the bill");
    }
    words
}
