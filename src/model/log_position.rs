//! Where the log of a server stands, in which every change has its place: a log that has not moved shows that nobody has
//! written.

use serde::{Deserialize, Serialize};

/// Where the log of a source stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogPosition {
    /// What the log is, as in `write-ahead log`.
    pub log: String,
    /// The position in the words of the server.
    pub position: String,
}

/// Where the log of a source stood during a run, in `catalog/run.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    /// Name of the source.
    pub source: String,
    /// What the log is.
    pub log: String,
    /// Where it stood before the source was listed.
    pub start: String,
    /// Where it stood when everything was read, if the source still told it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<String>,
}

impl Marker {
    /// What the log says about the time since the run; `is_equal` says whether all rows that were compared are equal. A
    /// log that has moved is no difference: others may have written elsewhere, or nothing that stays.
    pub fn note(&self, now: Option<&LogPosition>, is_equal: bool) -> String {
        let Self { source, log, start, end } = self;
        let last = end.as_ref().unwrap_or(start);
        let shown = |position: &str| position.escape_debug().to_string();
        let (first, until) = (shown(start), shown(last));
        match now.filter(|now| now.log == *log) {
            None => format!(
                "where the {log} of {source} stands cannot be told now; at the end of the export it stood at {until}"
            ),
            Some(now) if now.position == *start => format!(
                "the {log} of {source} has not moved since the export began: it stands at {first}"
            ),
            Some(now) if now.position == *last => format!(
                "the {log} of {source} moved from {first} to {until} during the export, and has not moved since"
            ),
            Some(now) => {
                let equal = if is_equal { "; all rows that were compared are equal" } else { "" };
                let now = shown(&now.position);
                format!(
                    "the {log} of {source} has moved from {until} to {now} since the export{equal}"
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_says_what_moved_and_when() {
        let marker = |end: Option<&str>| Marker {
            source: "shop".into(),
            log: "binary log".into(),
            start: "1".into(),
            end: end.map(Into::into),
        };
        let at =
            |position: &str| LogPosition { log: "binary log".into(), position: position.into() };
        let note = |end, now: &str, is_equal| marker(end).note(Some(&at(now)), is_equal);
        assert!(note(Some("1"), "1", true).contains("has not moved since the export began"));
        assert!(note(Some("2"), "2", true).contains("from 1 to 2 during the export"));
        let moved = note(Some("2"), "3", true);
        assert!(
            moved.ends_with("from 2 to 3 since the export; all rows that were compared are equal")
        );
        assert!(note(None, "3", false).ends_with("from 1 to 3 since the export"));
        assert!(marker(Some("2")).note(None, true).contains("cannot be told now"));
        let other = LogPosition { log: "write-ahead log".into(), position: "1".into() };
        assert!(marker(None).note(Some(&other), true).contains("cannot be told now"));
    }
}
