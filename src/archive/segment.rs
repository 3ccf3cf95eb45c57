//! PURE: the content of a segment, in which the commits of many chunks lie in one file. `fold` says when it is written.

use std::io::{BufRead, BufReader, Read};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::archive::commit::{Commit, retracted_key};
use crate::archive::keys::{RETRACTED, parts_of_segment};
use crate::error::{Error, Result};
use crate::hash::{hex, sha256};

/// The most bytes that a segment is decompressed to: far more than one is written with.
const MOST_BYTES: u64 = 1 << 30;

/// The last line of a segment.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct End {
    commits: usize,
    sha256: String,
}

/// The content of a segment, from the stored forms of its commits.
pub fn pack(lines: &[Vec<u8>]) -> Result<Vec<u8>> {
    let failed = |error: &dyn std::fmt::Display| Error::stop(format!("writing a segment: {error}"));
    let mut text = lines.join(&b'\n');
    text.push(b'\n');
    let end = End { commits: lines.len(), sha256: sha256(&text) };
    serde_json::to_writer(&mut text, &end).map_err(|error| failed(&error))?;
    text.push(b'\n');
    zstd::stream::encode_all(text.as_slice(), 3).map_err(|error| failed(&error))
}

/// Reads a segment. An error names it and says what can be done.
pub fn read_segment(key: &str, bytes: &[u8]) -> Result<Vec<Commit>> {
    let wrong = |why: &dyn std::fmt::Display| {
        Error::different(format!("the segment {key}, which holds commits, cannot be read: {why}"))
            .hint("restore it from a copy, or remove it: its chunks are then exported again")
    };
    let decoder = zstd::stream::read::Decoder::new(bytes).map_err(|error| wrong(&error))?;
    let mut lines = BufReader::new(decoder.take(MOST_BYTES));
    let (mut commits, mut hash) = (Vec::new(), Sha256::new());
    let mut line = Vec::new();
    loop {
        line.clear();
        lines.read_until(b'\n', &mut line).map_err(|error| wrong(&error))?;
        let Some(json) = line.strip_suffix(b"\n") else {
            return Err(wrong(&"it has no end"));
        };
        if let Ok(end) = serde_json::from_slice::<End>(json) {
            let is_last = lines.fill_buf().map_err(|error| wrong(&error))?.is_empty();
            let is_whole =
                end.commits == commits.len() && end.sha256 == hex(&hash.clone().finalize());
            return if is_last && is_whole {
                Ok(commits)
            } else {
                Err(wrong(&"its bytes are not those that were written"))
            };
        }
        hash.update(&line);
        commits.push(Commit::from_json(key, json).map_err(|error| wrong(&error))?);
    }
}

/// Whether a file is a segment, or the record of a commit that was retracted: what runs write that do not end.
pub fn is_folded(key: &str, bytes: &[u8]) -> bool {
    match parts_of_segment(key) {
        Some(_) => read_segment(key, bytes).is_ok(),
        None => {
            let is_retracted = |commit: Commit| retracted_key(&commit) == key;
            key.starts_with(RETRACTED) && Commit::from_json(key, bytes).is_ok_and(is_retracted)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::keys::segment_key;

    fn commit(run: &str, from: i64) -> Commit {
        let json = format!(
            r#"{{"source":"s","database":"d","schema":"","table":"t","path":"data/s/d/t",
            "slice":"19700101T00000{from}Z_19700101T00000{}Z","rows":0,"files":[],"columns":[],"run":"{run}",
            "started":"2024-01-01T00:00:00Z","elapsed_ms":5,"committed":"2024-01-01T00:00:00Z","verified":"x"}}"#,
            from + 1
        );
        Commit::from_json("k", json.as_bytes()).unwrap()
    }

    #[test]
    fn a_segment_is_read_only_as_it_was_written() {
        let commits = vec![commit("r", 1), commit("r", 2)];
        let lines: Vec<_> = commits.iter().map(|commit| commit.to_json().unwrap()).collect();
        let bytes = pack(&lines).unwrap();
        let key = segment_key("r", 7);
        assert_eq!(read_segment(&key, &bytes).unwrap(), commits);
        assert!(is_folded(&key, &bytes) && !is_folded(&key, b"x"));
        for cut in 0..bytes.len() {
            let error = read_segment(&key, &bytes[..cut]).unwrap_err().to_string();
            assert!(error.contains(&key), "{error}");
        }
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            // A bit of the frame's header may say nothing of the content.
            assert!(
                read_segment(&key, &flipped).is_ok_and(|read| read == commits)
                    || read_segment(&key, &flipped).is_err()
            );
        }
        // One line less, and lines in another order.
        for lines in [&lines[..1], &[lines[1].clone(), lines[0].clone()]] {
            let mut text = zstd::stream::decode_all(&*pack(lines).unwrap()).unwrap();
            let whole = zstd::stream::decode_all(&*bytes).unwrap();
            let last =
                |text: &[u8]| text[..text.len() - 1].iter().rposition(|b| *b == b'\n').unwrap() + 1;
            let at = last(&text);
            text.truncate(at);
            text.extend_from_slice(&whole[last(&whole)..]);
            let other = zstd::stream::encode_all(&*text, 3).unwrap();
            assert!(read_segment(&key, &other).is_err());
        }
    }

    #[test]
    fn a_record_of_what_was_retracted_names_one_commit() {
        let one = commit("r", 1);
        let key = retracted_key(&one);
        assert!(is_folded(&key, &one.to_json().unwrap()));
        let later = Commit { committed: "2024-01-01T00:00:00.1Z".into(), ..one.clone() };
        for other in [later, commit("q", 1), commit("r", 2)] {
            assert_ne!(retracted_key(&other), key);
            assert!(!is_folded(&key, &other.to_json().unwrap()));
        }
    }
}
