//! The artifacts of a source, which are everything that it has besides rows: files, and the outcome for each kind.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Something other than rows to keep: a file under `data/SOURCE/_artifacts/`.
#[derive(Debug, Clone)]
pub struct Artifact {
    /// Folder below `_artifacts/`; empty for none.
    pub folder: &'static str,
    /// Name in the source, which the archive makes safe.
    pub name: String,
    /// The extension of the file name.
    pub extension: &'static str,
    /// Content, which never contains a secret.
    pub content: Bytes,
}

/// How the attempt to save a kind of artifact ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactStatus {
    /// Which source.
    pub source: String,
    /// Which kind: `users`, `retention-policies`, …
    pub kind: String,
    /// How it ended.
    pub status: ArtifactOutcome,
}

/// The outcome of that attempt. In the archive and in JSON it is a text: `saved`, `none`, `not available` or `failed`,
/// followed by a colon and the details.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", from = "String")]
pub enum ArtifactOutcome {
    /// It is in the archive. The text says how it was made, or what was left out of it.
    Saved(String),
    /// The source has none of it.
    None,
    /// The source does not have the kind, or does not show it to this user, for this reason.
    NotAvailable(String),
    /// It should be in the archive but is missing or incomplete, for this reason.
    Failed(String),
}

impl fmt::Display for ArtifactOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, detail) = match self {
            Self::Saved(detail) => ("saved", detail.as_str()),
            Self::None => ("none", ""),
            Self::NotAvailable(why) => ("not available", why.as_str()),
            Self::Failed(why) => ("failed", why.as_str()),
        };
        match detail {
            "" => f.write_str(word),
            detail => write!(f, "{word}: {detail}"),
        }
    }
}

impl From<ArtifactOutcome> for String {
    fn from(outcome: ArtifactOutcome) -> Self {
        outcome.to_string()
    }
}

impl From<String> for ArtifactOutcome {
    fn from(text: String) -> Self {
        let detail = |word: &str| {
            let rest = text.strip_prefix(word)?;
            Some(rest.trim_start_matches([':', ',']).trim_start().to_owned())
        };
        if let Some(detail) = detail("saved") {
            return Self::Saved(detail);
        }
        if let Some(why) = detail("not available") {
            return Self::NotAvailable(why);
        }
        match text.as_str() {
            "none" => Self::None,
            // The words of another version do not prove that it was saved.
            _ => Self::Failed(detail("failed").unwrap_or(text)),
        }
    }
}

/// All artifacts of a source.
#[derive(Debug, Clone)]
pub struct Artifacts {
    source: String,
    /// The files.
    pub files: Vec<Artifact>,
    /// How each kind ended.
    pub statuses: Vec<ArtifactStatus>,
}

impl Artifacts {
    /// No artifacts of a source yet.
    pub fn of(source: &str) -> Self {
        Self { source: source.to_owned(), files: Vec::new(), statuses: Vec::new() }
    }

    /// Adds a file.
    pub fn file(
        &mut self,
        folder: &'static str,
        name: &str,
        extension: &'static str,
        content: impl Into<Bytes>,
    ) {
        let (name, content) = (name.to_owned(), content.into());
        self.files.push(Artifact { folder, name, extension, content });
    }

    /// Records the outcome for a kind.
    pub fn ended(&mut self, kind: &str, status: ArtifactOutcome) {
        let (source, kind) = (self.source.clone(), kind.to_owned());
        self.statuses.push(ArtifactStatus { source, kind, status });
    }

    /// Adds a kind that is a list of JSON values, if there are any.
    pub fn list(
        &mut self,
        kind: &str,
        rows: Result<Vec<serde_json::Value>, ArtifactOutcome>,
        saved: String,
    ) {
        let outcome = match rows {
            Ok(rows) if rows.is_empty() => ArtifactOutcome::None,
            Ok(rows) => match serde_json::to_vec_pretty(&rows) {
                Ok(content) => {
                    self.file("", kind, "json", content);
                    ArtifactOutcome::Saved(saved)
                }
                Err(error) => ArtifactOutcome::Failed(error.to_string()),
            },
            Err(outcome) => outcome,
        };
        self.ended(kind, outcome);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_survives_the_archive() {
        for outcome in [
            ArtifactOutcome::Saved(String::new()),
            ArtifactOutcome::Saved("by pg_dump 17.2".to_owned()),
            ArtifactOutcome::None,
            ArtifactOutcome::NotAvailable("the user may not".to_owned()),
            ArtifactOutcome::Failed("a view: no such column".to_owned()),
        ] {
            assert_eq!(ArtifactOutcome::from(outcome.to_string()), outcome);
        }
        let unknown = ArtifactOutcome::from("postponed".to_owned());
        assert_eq!(unknown, ArtifactOutcome::Failed("postponed".to_owned()));
    }
}
