//! PURE: divides the tables of an export among the shards of several machines. The division is a function of the tables,
//! of where their rows lie and of how large they are; never of what another shard is doing. A large table is cut into
//! pieces of time that go to the shards in turn, a small one belongs to one shard. The first and the last piece are open,
//! so that each instant and each table, also one that nobody has seen yet, belongs to exactly one shard.
//!
//! A division only saves work. Two shards that divide differently export something twice or leave something out, which
//! the run that seals finds.

use std::cmp::Reverse;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::coverage::Coverage;
use crate::error::{Error, Result};
use crate::model::TableId;
use crate::window::{DAY, MIN_WIDTH, SECOND, Slice, Window};

/// The most shards of an export; an array job of an engine has no more tasks than that.
const MOST: u32 = 10_000;
/// Into how many pieces for each shard all tables together are cut. More would be fairer, fewer would be quicker.
const PIECES_OF_SHARD: u64 = 32;
/// The least size of a piece in the source, in bytes.
const LEAST_PIECE: u64 = 64 << 10;
/// The most pieces of all tables whose size is unknown, unless each shard has its pieces with more.
const GUESSED_PIECES: u64 = 8192;
/// A table that is smaller than this part of what a shard has on average goes where the hash of its name says.
const TAIL: u64 = 256;

/// One of the shards of an export, `I/N` on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    /// Its number, from 0 on.
    pub index: u32,
    /// How many there are.
    pub of: u32,
}

impl FromStr for Shard {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = |why: String| {
            Err(Error::usage(format!(
                "{why}; write which shard this is, from 0 on, and how many there are, such as 0/4"
            )))
        };
        let number = |digits: &str| {
            let only_digits = digits.bytes().all(|byte| byte.is_ascii_digit());
            digits.parse::<u32>().ok().filter(|_| only_digits)
        };
        match text.split_once('/').map(|(index, of)| (index, number(index), number(of))) {
            // An engine that does not set its variable leaves the number empty.
            Some(("", ..)) => {
                wrong("its number is empty: is the variable of the engine set?".to_owned())
            }
            Some((_, Some(_), Some(of))) if !(1..=MOST).contains(&of) => {
                wrong(format!("there can be from 1 to {MOST} shards"))
            }
            Some((_, Some(index), Some(of))) if index >= of => {
                wrong(format!("the last one of {of} is {}", of - 1))
            }
            Some((_, Some(index), Some(of))) => Ok(Self { index, of }),
            _ => wrong("this is not a shard".to_owned()),
        }
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.of)
    }
}

/// What is known of a table when the work is divided.
#[derive(Debug, Clone)]
pub struct Divisible<'a> {
    /// Its name.
    pub id: &'a TableId,
    /// Its estimated size in the source, in bytes.
    pub size_bytes: Option<u64>,
    /// Where its rows lie; `None` if it is read in one piece.
    pub times: Option<Coverage>,
}

/// How the tables of an export are divided among its shards. It is recorded in the archive by the first shard, so that the
/// others divide alike although bounds and estimates move.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Division {
    shards: u32,
    /// Sorted by name. The others are small and belong to one shard each.
    tables: Vec<Pieces>,
}

/// A table in pieces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pieces {
    id: TableId,
    /// The shard of its first piece. The next piece belongs to the next shard.
    first: u32,
    /// Where the second and each later piece begins, in nanoseconds since 1970.
    cuts: Vec<i64>,
}

impl Division {
    /// Divides tables among so many shards.
    pub fn new(tables: &[Divisible<'_>], shards: u32) -> Self {
        let shards = shards.clamp(1, MOST);
        let known: Vec<u64> = tables.iter().filter_map(|table| table.size_bytes).collect();
        let sum: u64 = known.iter().fold(0, |sum, bytes| sum.saturating_add(*bytes));
        let average = (sum / (known.len() as u64).max(1)).max(1);
        let unknown = (tables.len() - known.len()) as u64;
        let all = sum.saturating_add(average.saturating_mul(unknown)).max(1);
        let pieces = PIECES_OF_SHARD * u64::from(shards);
        let guess = (pieces / unknown.max(1))
            .max((2 * u64::from(shards)).min(GUESSED_PIECES / unknown.max(1)));

        let mut loads = vec![0.0; shards as usize];
        let mut sorted: Vec<(u64, &Divisible<'_>)> =
            tables.iter().map(|table| (table.size_bytes.unwrap_or(average), table)).collect();
        sorted.sort_by_key(|(bytes, table)| (Reverse(*bytes), table.id));
        let mut divided = Vec::new();
        for (bytes, table) in sorted {
            let wanted = match table.size_bytes {
                None => guess,
                Some(_) => {
                    let fair = u128::from(bytes) * u128::from(pieces) / u128::from(all);
                    (fair as u64).min(bytes / LEAST_PIECE)
                }
            };
            let cuts = table.times.as_ref().map(|times| cuts(times, wanted)).unwrap_or_default();
            let is_small = bytes.saturating_mul(TAIL * u64::from(shards)) < all;
            let first = if cuts.is_empty() && is_small {
                by_name(table.id, shards)
            } else {
                least(&loads, (cuts.len() + 1) % shards as usize)
            };
            let of_piece = bytes as f64 / (cuts.len() + 1) as f64;
            for piece in 0..=cuts.len() {
                loads[(first as usize + piece) % shards as usize] += of_piece;
            }
            if !(cuts.is_empty() && is_small) {
                divided.push(Pieces { id: table.id.clone(), first, cuts });
            }
        }
        divided.sort_by(|one, other| one.id.cmp(&other.id));
        Self { shards, tables: divided }
    }

    /// For how many shards it is.
    pub fn shards(&self) -> u32 {
        self.shards
    }

    /// The part of a table that belongs to a shard.
    pub fn part(&self, table: &TableId, shard: u32) -> Coverage {
        let found = self.tables.binary_search_by(|pieces| pieces.id.cmp(table));
        let (first, cuts) = match found {
            Ok(at) => (self.tables[at].first, self.tables[at].cuts.as_slice()),
            Err(_) => (by_name(table, self.shards), [].as_slice()),
        };
        // The first piece that belongs to it.
        let mine = (shard + self.shards - first % self.shards) % self.shards;
        let begin = |piece: usize| match piece {
            0 => Some(Window::ALL.from),
            piece => cuts.get(piece - 1).copied(),
        };
        let mut part: Coverage = (mine as usize..=cuts.len())
            .step_by(self.shards as usize)
            .filter_map(|piece| {
                Window::new(begin(piece)?, begin(piece + 1).unwrap_or(Window::ALL.to))
            })
            .collect();
        if mine == 0 {
            part.insert_slice(Slice::NullTime);
        }
        part
    }
}

/// The shard of a small table.
fn by_name(id: &TableId, shards: u32) -> u32 {
    let name = [&*id.source, &*id.database, &*id.schema, &*id.table].join("\0");
    (xxh3_64(name.as_bytes()) % u64::from(shards)) as u32
}

/// The first of so many shards in a row that have the least to do, where the first one follows the last one.
fn least(loads: &[f64], many: usize) -> u32 {
    let all = loads.len();
    let many = many.clamp(1, all);
    let mut sum: f64 = loads[..many].iter().sum();
    let (mut best, mut least) = (0, sum);
    for first in 1..all {
        sum += loads[(first + many - 1) % all] - loads[first - 1];
        if sum < least {
            (best, least) = (first, sum);
        }
    }
    best as u32
}

/// Where a table is cut so that it has about so many pieces: at multiples of a round width, in time that has rows.
fn cuts(times: &Coverage, wanted: u64) -> Vec<i64> {
    let spans =
        times.windows().iter().map(|window| i128::from(window.to) - i128::from(window.from));
    let fair = spans.sum::<i128>() / i128::from(wanted.max(1));
    if wanted < 2 {
        return Vec::new();
    }
    let width = i128::from(round_width(i64::try_from(fair).unwrap_or(i64::MAX)));
    let mut cuts = Vec::new();
    for window in times.windows() {
        let (from, to) = (i128::from(window.from), i128::from(window.to));
        let mut cut = from - from.rem_euclid(width) + width;
        while cut < to {
            cuts.extend(i64::try_from(cut).ok());
            cut += width;
        }
    }
    cuts
}

/// The greatest round width that is at most this wide: a part of a day that divides it, or days by powers of two.
fn round_width(width: i64) -> i64 {
    const OF_DAY: [i64; 14] =
        [43_200, 21_600, 7_200, 3_600, 1_800, 600, 300, 120, 60, 30, 10, 5, 2, 1];
    if width >= DAY {
        return DAY << (width / DAY).ilog2();
    }
    let found = OF_DAY.into_iter().map(|seconds| seconds * SECOND).find(|round| *round <= width);
    found.unwrap_or(MIN_WIDTH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(table: &str) -> TableId {
        TableId {
            source: "s".into(),
            database: "d".into(),
            schema: "r".into(),
            table: table.into(),
        }
    }

    #[test]
    fn a_shard_is_a_number_of_a_number() {
        let shard: Shard = "3/8".parse().unwrap();
        assert_eq!((shard.index, shard.of, shard.to_string().as_str()), (3, 8, "3/8"));
        for (text, why) in [
            ("8/8", "the last one of 8 is 7"),
            ("/8", "its number is empty"),
            ("0/0", "from 1 to 10000 shards"),
            ("0/10001", "from 1 to 10000 shards"),
            ("3", "this is not a shard"),
            ("+1/2", "this is not a shard"),
            ("-1/2", "this is not a shard"),
            ("1/2/3", "this is not a shard"),
            ("a/b", "this is not a shard"),
        ] {
            let error = text.parse::<Shard>().unwrap_err();
            assert!(error.to_string().contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn widths_are_round() {
        for (width, round) in [
            (1, MIN_WIDTH),
            (59 * SECOND, 30 * SECOND),
            (DAY - 1, DAY / 2),
            (DAY, DAY),
            (3 * DAY, 2 * DAY),
            (i64::MAX, 65_536 * DAY),
        ] {
            assert_eq!(round_width(width), round);
        }
    }

    /// The sizes of tables, of which few are large, and where their rows lie, in seconds. One in five is read whole, if it
    /// is not among the largest.
    fn catalogs() -> impl Strategy<Value = Vec<(String, Option<u64>, Option<Coverage>)>> {
        let table = (0.0f64..1.0, 0i64..1_000_000, 100_000i64..10_000_000, 0u8..5);
        prop::collection::vec(table, 1..60).prop_map(|tables| {
            let with_number = tables.into_iter().enumerate();
            let catalog = with_number.map(|(at, (chance, from, width, kind))| {
                let bytes = (1e8 / (0.001 + chance)) as u64;
                let window = Window { from: from * SECOND, to: (from + width) * SECOND };
                let whole = kind == 0 && bytes < 200_000_000;
                let times = (!whole).then(|| [window].into_iter().collect());
                (format!("table {at}"), Some(bytes), times)
            });
            catalog.collect()
        })
    }

    fn divide(catalog: &[(String, Option<u64>, Option<Coverage>)], shards: u32) -> Division {
        let ids: Vec<TableId> = catalog.iter().map(|(name, ..)| id(name)).collect();
        let tables: Vec<Divisible<'_>> = ids
            .iter()
            .zip(catalog)
            .map(|(id, (_, size_bytes, times))| Divisible {
                id,
                size_bytes: *size_bytes,
                times: times.clone(),
            })
            .collect();
        Division::new(&tables, shards)
    }

    fn width(part: &Coverage, of: &Coverage) -> f64 {
        let pairs = of.windows().iter().flat_map(|window| part.within(*window));
        pairs.map(|window| window.width() as f64).sum()
    }

    proptest! {
        #[test]
        fn each_instant_belongs_to_exactly_one_shard(
            catalog in catalogs(), shards in 1u32..20,
            instants in prop::collection::vec(any::<i64>(), 20), inside in prop::collection::vec(0i64..11_000_000, 20),
        ) {
            let division = divide(&catalog, shards);
            let unseen = "never listed".to_owned();
            for name in catalog.iter().map(|(name, ..)| name).chain([&unseen]) {
                let parts: Vec<Coverage> = (0..shards).map(|shard| division.part(&id(name), shard)).collect();
                prop_assert_eq!(parts.iter().filter(|part| part.has_null_time()).count(), 1);
                for at in inside.iter().map(|second| second * SECOND).chain(instants.iter().copied()) {
                    let at = at.min(i64::MAX - 1);
                    let owners = parts.iter().filter(|part| part.overlaps(&Window { from: at, to: at + 1 }));
                    prop_assert_eq!(owners.count(), 1);
                }
            }
        }

        #[test]
        fn a_skewed_catalog_is_balanced_within_a_fifth(catalog in catalogs(), shards in 2u32..17) {
            let division = divide(&catalog, shards);
            let mut loads = vec![0.0; shards as usize];
            let mut largest_whole = 0.0f64;
            for (name, bytes, times) in &catalog {
                let bytes = bytes.unwrap() as f64;
                for (shard, load) in loads.iter_mut().enumerate() {
                    let part = division.part(&id(name), shard as u32);
                    *load += match times {
                        Some(times) => bytes * width(&part, times) / width(times, times),
                        None if part.has_null_time() => bytes,
                        None => 0.0,
                    };
                }
                if times.is_none() {
                    largest_whole = largest_whole.max(bytes);
                }
            }
            let mean = loads.iter().sum::<f64>() / f64::from(shards);
            let most = loads.iter().copied().fold(0.0, f64::max);
            // A table that is read whole cannot be shared.
            prop_assert!(most <= 1.2 * mean + largest_whole, "{most} of {mean}: {loads:?}");
        }

        #[test]
        fn an_end_that_moves_changes_no_owner_of_what_was_there(
            catalog in catalogs(), shards in 1u32..20, grown in 0i64..50, probes in prop::collection::vec(0.0f64..1.0, 20),
        ) {
            let moved: Vec<_> = catalog
                .iter()
                .map(|(name, bytes, times)| {
                    let mut times = times.clone();
                    if let Some(times) = &mut times {
                        let last = times.windows()[0];
                        times.insert(Window { to: last.to + grown * SECOND, ..last });
                    }
                    (name.clone(), *bytes, times)
                })
                .collect();
            let (before, after) = (divide(&catalog, shards), divide(&moved, shards));
            let same_width = before.tables.iter().zip(&after.tables).all(|(one, other)| {
                other.cuts.starts_with(&one.cuts) && other.cuts.len() == one.cuts.len()
            });
            // An end that passes a cut, or makes another width the fair one, divides otherwise: this is why the division is
            // recorded. Without that, each shard has what it had.
            if same_width {
                for (name, _, times) in &catalog {
                    let Some(times) = times else { continue };
                    let window = times.windows()[0];
                    for probe in &probes {
                        let at = window.from + (window.width() as f64 * probe) as i64;
                        let instant = Window { from: at, to: at + 1 };
                        for shard in 0..shards {
                            let owns = |division: &Division| division.part(&id(name), shard).overlaps(&instant);
                            prop_assert_eq!(owns(&before), owns(&after));
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_recorded_division_stays_when_the_end_moves_far() {
        let times: Coverage = [Window { from: 0, to: 100 * DAY }].into_iter().collect();
        let division = divide(&[("t".to_owned(), Some(1 << 30), Some(times))], 4);
        let recorded: Division =
            serde_json::from_str(&serde_json::to_string(&division).unwrap()).unwrap();
        assert_eq!(recorded, division);
        let late = Window { from: 5000 * DAY, to: 5001 * DAY };
        let owners = (0..4).filter(|shard| recorded.part(&id("t"), *shard).overlaps(&late));
        assert_eq!(owners.count(), 1);
    }

    #[test]
    fn many_small_tables_are_not_cut_and_few_of_unknown_size_are() {
        let times: Coverage = [Window { from: 0, to: 1000 * DAY }].into_iter().collect();
        let many = |tables: usize| -> Vec<_> {
            (0..tables).map(|at| (format!("t{at}"), None, Some(times.clone()))).collect()
        };
        let pieces = |division: &Division| {
            division.tables.iter().map(|table| table.cuts.len() + 1).max().unwrap_or(1)
        };
        assert!(pieces(&divide(&many(1), 8)) >= 8 * 32);
        assert!(pieces(&divide(&many(100), 8)) >= 16);
        assert_eq!(pieces(&divide(&many(10_000), 8)), 1);
        // Sizes of which nothing is worth a piece.
        let small = [("t".to_owned(), Some(LEAST_PIECE), Some(times.clone()))];
        assert_eq!(pieces(&divide(&small, 8)), 1);
    }

    #[test]
    fn gaps_of_centuries_get_no_pieces() {
        let times: Coverage = [
            Window { from: -100_000 * DAY, to: -99_999 * DAY },
            Window { from: 20_000 * DAY, to: 20_001 * DAY },
        ]
        .into_iter()
        .collect();
        let division = divide(&[("t".to_owned(), Some(1 << 30), Some(times))], 4);
        assert!((100..500).contains(&division.tables[0].cuts.len()), "{division:?}");
    }
}
