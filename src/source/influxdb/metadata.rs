//! PURE: decodes the answers to statements about metadata, which are small.

use serde::Deserialize;
use serde_json::Value;

use crate::error::{Class, Error, Result};
use crate::source::influxdb::errors::server_error;

/// The part of an answer that belongs to one statement.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Statement {
    #[serde(default)]
    pub(crate) series: Vec<Series>,
}

/// One series of such an answer.
#[derive(Debug, Deserialize)]
pub(crate) struct Series {
    #[serde(default)]
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) columns: Vec<String>,
    #[serde(default)]
    pub(crate) values: Vec<Vec<Value>>,
}

impl Series {
    /// The values of a column, or none if there is no such column.
    pub(crate) fn column(&self, name: &str) -> impl Iterator<Item = &Value> {
        let at = self.columns.iter().position(|column| column == name);
        self.values.iter().filter_map(move |row| row.get(at?))
    }
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    results: Vec<StatementPart>,
    error: Option<String>,
}

#[derive(Deserialize)]
struct StatementPart {
    #[serde(default)]
    statement_id: usize,
    #[serde(default)]
    series: Vec<Series>,
    error: Option<String>,
    #[serde(default)]
    partial: bool,
}

/// Decodes the answer of the server at this address to `count` statements. The error of any statement is an error, and so
/// is an answer without the end of each statement.
pub(crate) fn statements(address: &str, body: &[u8], count: usize) -> Result<Vec<Statement>> {
    let retry = |what: String| Error::of(Class::Retry, format!("{address}: {what}"));
    let mut statements = Vec::<Statement>::new();
    statements.resize_with(count, Statement::default);
    let mut ended = vec![false; count];
    for answer in serde_json::Deserializer::from_slice(body).into_iter::<Answer>() {
        let answer = answer.map_err(|error| retry(format!("the answer is not JSON: {error}")))?;
        if let Some(error) = answer.error {
            return Err(server_error(address, &error));
        }
        for part in answer.results {
            if let Some(error) = part.error {
                return Err(server_error(address, &error));
            }
            let (Some(statement), Some(ended)) =
                (statements.get_mut(part.statement_id), ended.get_mut(part.statement_id))
            else {
                return Err(retry("the answer belongs to another request".to_owned()));
            };
            statement.series.extend(part.series);
            *ended = !part.partial;
        }
    }
    if ended.iter().all(|ended| *ended) {
        Ok(statements)
    } else {
        Err(retry("the answer is truncated".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_without_the_end_of_each_statement_is_an_error() {
        let part = |id: usize, more: &str| {
            let series = r#"[{"name":"m","columns":["a"],"values":[[1]]}]"#;
            format!(r#"{{"results":[{{"statement_id":{id},"series":{series}{more}}}]}}"#)
        };
        let whole = part(0, r#","partial":true"#) + &part(0, "") + &part(1, "");
        let found = statements("h", whole.as_bytes(), 2).unwrap();
        assert_eq!(found.iter().map(|s| s.series.len()).collect::<Vec<_>>(), [2, 1]);
        for (body, class) in [
            (part(0, ""), Class::Retry),
            (part(0, "") + &part(1, r#","partial":true"#), Class::Retry),
            (part(0, "") + &part(7, ""), Class::Retry),
            (part(0, "") + "<html>", Class::Retry),
            (r#"{"error":"database not found: d"}"#.to_owned(), Class::Stop),
            (part(0, r#","error":"query timeout reached""#), Class::Split),
        ] {
            assert_eq!(statements("h", body.as_bytes(), 2).unwrap_err().class(), class, "{body}");
        }
    }
}
