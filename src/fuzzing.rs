//! What is fuzzed: a function for each parser of bytes that moveout did not write itself, or that somebody may have
//! changed. Each calls the parser and asserts what must hold for all bytes. The crate in `fuzz/` runs them under libFuzzer,
//! and the tests here run each of them for a moment, on the seeds in `fuzz/seeds` and on what a few changes make of these.

mod archive;
mod influxdb;
mod input;
mod others;
mod relational;

/// The name of a target, and what it does with bytes.
pub type Target = (&'static str, fn(&[u8]));

/// The targets by their names.
pub const TARGETS: [Target; 22] = [
    ("aptible", others::aptible),
    ("catalog", archive::catalog),
    ("certificate", relational::certificate),
    ("chunks", archive::chunks),
    ("commit", archive::commit),
    ("configuration", others::configuration),
    ("dump", others::dump),
    ("flight", influxdb::flight),
    ("influxdb_metadata", influxdb::influxdb_metadata),
    ("influxql_json", influxdb::influxql_json),
    ("influxql_msgpack", influxdb::influxql_msgpack),
    ("line_protocol", others::line_protocol),
    ("manifest", archive::manifest),
    ("mysql_rows", relational::mysql_rows),
    ("mysql_server", relational::mysql_server),
    ("names", archive::names),
    ("parquet_file", archive::parquet_file),
    ("postgres_copy", relational::postgres_copy),
    ("postgres_server", relational::postgres_server),
    ("s3", others::s3),
    ("script", others::script),
    ("tunnel", others::tunnel),
];

/// Runs the target of this name.
pub fn run(name: &str, bytes: &[u8]) {
    let target = TARGETS.iter().find(|(known, _)| *known == name);
    target.expect("a name of the table").1(bytes);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::path::Path;
    use std::time::{Duration, Instant};

    use fastrand::Rng;

    use super::*;

    /// How many inputs each target is given besides its seeds.
    const ROUNDS: usize = 400;
    /// A slow machine gives fewer.
    const MOST_TIME: Duration = Duration::from_millis(600);

    fn fuzz() -> &'static Path {
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz"))
    }

    fn seeds(name: &str) -> Vec<Vec<u8>> {
        let folder = fs::read_dir(fuzz().join("seeds").join(name)).unwrap();
        let files: BTreeSet<_> = folder.map(|entry| entry.unwrap().path()).collect();
        files.into_iter().map(|file| fs::read(file).unwrap()).collect()
    }

    #[test]
    fn every_target_holds_for_its_seeds_and_for_what_changes_make_of_them() {
        for (name, target) in TARGETS {
            let (seeds, mut rng) = (seeds(name), Rng::with_seed(7));
            let hold = |bytes: &[u8]| {
                let held = catch_unwind(AssertUnwindSafe(|| target(bytes)));
                assert!(held.is_ok(), "{name} does not hold for b\"{}\"", bytes.escape_ascii());
            };
            seeds.iter().for_each(|seed| hold(seed));
            let began = Instant::now();
            for _ in 0..ROUNDS {
                let mut bytes = seeds[rng.usize(..seeds.len())].clone();
                for _ in 0..rng.usize(1..6) {
                    change(&mut bytes, &seeds, &mut rng);
                }
                hold(&bytes);
                if began.elapsed() > MOST_TIME {
                    break;
                }
            }
        }
    }

    /// Makes one change of the kinds that parsers are sensitive to.
    fn change(bytes: &mut Vec<u8>, seeds: &[Vec<u8>], rng: &mut Rng) {
        let at = rng.usize(..=bytes.len());
        let end = (at + rng.usize(..16)).min(bytes.len());
        match rng.u8(..6) {
            0 if at < end => bytes[at] ^= 1 << rng.u8(..8),
            1 => drop(bytes.drain(at..end)),
            2 => bytes.truncate(at),
            3 => {
                let other = &seeds[rng.usize(..seeds.len())];
                bytes.splice(at..end, other[rng.usize(..=other.len())..].iter().copied());
            }
            4 => {
                let again = bytes[at..end].to_vec();
                bytes.splice(at..at, again);
            }
            _ => {
                let numbers = [0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0xffff, i32::MAX as u64, u64::MAX];
                let number = numbers[rng.usize(..numbers.len())].to_be_bytes();
                bytes.splice(at..end, number[8 - (1 << rng.usize(..4))..].iter().copied());
            }
        }
    }

    #[test]
    fn the_crate_of_the_fuzzer_has_each_target() {
        let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).unwrap();
        let named = manifest.split("[[bin]]\nname = \"").skip(1);
        let named: Vec<_> = named.filter_map(|rest| rest.split('"').next()).collect();
        assert_eq!(named, TARGETS.map(|(name, _)| name));
    }
}
