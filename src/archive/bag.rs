//! PURE: the texts that make an archive a BagIt bag (RFC 8493): declaration, bag info, manifests.
//! Keys need no escaping (`archive::name`), so one manifest satisfies BagIt and `sha256sum` alike.

use std::collections::BTreeMap;

use crate::error::Error;

/// Content of `bagit.txt`.
pub const BAGIT_TXT: &str = "BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n";

/// Hashes (lower-case hex SHA-256) by key.
pub type Hashes = BTreeMap<String, String>;

/// Content of a manifest: lines of the form `HASH  KEY`, sorted by key.
pub fn manifest(hashes: &Hashes) -> String {
    hashes.iter().map(|(key, hash)| format!("{hash}  {key}\n")).collect()
}

/// Reads a manifest. A line that `manifest` would not have written is an error here, though it is only a warning for
/// `sha256sum`.
pub fn parse_manifest(text: &str) -> Result<Hashes, String> {
    let mut hashes = Hashes::new();
    for (number, line) in text.lines().enumerate() {
        let parsed = line.split_once("  ").filter(|(hash, key)| {
            hash.len() == 64
                && hash.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
                && !key.is_empty()
        });
        let Some((hash, key)) = parsed else {
            return Err(format!("line {} is malformed", number + 1));
        };
        hashes.insert(key.to_owned(), hash.to_owned());
    }
    if manifest(&hashes) == text {
        Ok(hashes)
    } else {
        Err("it is not as moveout wrote it (order, repeats or line ends)".to_owned())
    }
}

/// The same, for a manifest that must be intact before anything is done with the archive.
pub fn read_manifest(key: &str, bytes: &[u8]) -> crate::error::Result<Hashes> {
    let text = std::str::from_utf8(bytes).map_err(|error| error.to_string());
    text.and_then(parse_manifest).map_err(|error| {
        Error::different(format!("{key}: {error}"))
            .hint("the archive is damaged; `moveout verify` lists all damage")
    })
}

/// Content of `bag-info.txt`. `date` is `YYYY-MM-DD`.
pub fn bag_info(date: &str, payload_bytes: u64, payload_files: usize) -> String {
    format!(
        "Bag-Software-Agent: moveout {}\nBagging-Date: {date}\nPayload-Oxum: {payload_bytes}.{payload_files}\n",
        env!("CARGO_PKG_VERSION")
    )
}

/// Content of `README.txt`.
pub const README_TXT: &str = "\
This is an archive of databases, made by moveout. It is a BagIt bag (RFC 8493) of plain Parquet
files; nothing but common tools is needed to check and to read it.

Is it complete and undamaged? In this folder, any of:

    sha256sum -c --strict --quiet manifest-sha256.txt tagmanifest-sha256.txt
    bagit.py --validate .            (Python package `bagit`; also finds files that do not belong)
    moveout verify .                 (also decodes each file and compares it with the catalog)

These prove that the archive is as it was sealed, not that the source had nothing else: for that,
the source has to be asked. If that was done, report.html says what came of it.

Who has made it? If there is a file tagmanifest-sha256.txt.minisig, with the public key of its maker:

    minisign -V -p KEY.pub -m tagmanifest-sha256.txt

What is in it?

    catalog/tables.json       every table: its path here, its rows, files and columns
    catalog/chunks.parquet    every chunk: a range of time [from, to) of a table, what it holds, and
                              when it was read and checked; a range without rows has no file
    catalog/dumps.json        (if there are any) the output of native dump programs, such as pg_dump
    catalog/run.json          what was requested, of which sources, and what was left out and why
    catalog/verdict.json      (if the sources were asked again) whether they had the same, and how
                              that was compared; report.html shows it to people
    data/SOURCE/DATABASE/[SCHEMA or RETENTION POLICY/]TABLE/FROM_TO.RUN.parquet
    data/SOURCE/_artifacts/   what is not rows: retention policies, continuous queries, users, ...

    data/SOURCE/_dumps/       native dumps, compressed: zstd -d FILE gives what the program wrote

How to read a table, for instance in DuckDB:

    SELECT * FROM read_parquet('data/SOURCE/DATABASE/POLICY/TABLE/*.parquet', union_by_name = true);

The unit and the time zone of a time are in its column's type: nanoseconds in UTC in data from
InfluxDB, what the source has in tables of relations. In data from InfluxDB a null means \"not written\", which is not the
empty string. Names are written with `_xHH` for bytes that are not letters, digits, `.`, `-` or `_`;
the real names are in the catalog and in each file's own metadata (`moveout.*`), where each column
says what it was in the source (`moveout.role`, `moveout.key`, `moveout.type`).
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_is_read_only_as_it_was_written() {
        let hashes = Hashes::from([
            ("data/a".to_owned(), "0".repeat(64)),
            ("data/b".to_owned(), "f".repeat(64)),
        ]);
        let text = manifest(&hashes);
        assert_eq!(parse_manifest(&text), Ok(hashes));
        for at in 0..text.len() {
            for bit in 0..8 {
                let mut bytes = text.clone().into_bytes();
                bytes[at] ^= 1 << bit;
                let Ok(flipped) = String::from_utf8(bytes) else { continue };
                assert_ne!(parse_manifest(&flipped), parse_manifest(&text), "bit {bit} of {at}");
            }
        }
        for cut in 1..text.len() {
            assert_ne!(parse_manifest(&text[..cut]), parse_manifest(&text), "cut at {cut}");
        }
    }
}
