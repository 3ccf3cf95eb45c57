//! PURE: cuts a script for psql into statements, and decides for each statement whether the rows need it or it can wait
//! for them. The names in a statement are never changed.

/// When a statement runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// It is a setting of the session, which the following statements need.
    Setting,
    /// It runs before the rows.
    Before,
    /// It runs after the rows.
    After,
    /// It runs when everything else is done, because it acts on every later definition.
    Last,
}

/// A statement of a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Statement {
    /// The text in the script, without the semicolon.
    pub(crate) sql: String,
    tokens: Vec<Token>,
}

/// A word, a name or a sign of a statement, outside of parentheses and strings.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Token {
    /// Its text, in lower case unless it was quoted.
    text: String,
    is_quoted: bool,
}

impl Token {
    fn is(&self, word: &str) -> bool {
        !self.is_quoted && self.text == word
    }
}

impl Statement {
    fn begins_with(&self, words: &[&str]) -> bool {
        self.tokens.len() >= words.len()
            && self.tokens.iter().zip(words).all(|(token, word)| token.is(word))
    }

    fn has(&self, words: &[&str]) -> bool {
        let fits = |tokens: &[Token]| tokens.iter().zip(words).all(|(token, word)| token.is(word));
        self.tokens.windows(words.len()).any(fits)
    }

    /// When it runs.
    pub(crate) fn when(&self) -> When {
        let begins = |words: &[&str]| self.begins_with(words);
        if begins(&["set"]) || self.sql.starts_with("SELECT pg_catalog.set_config(") {
            return When::Setting;
        }
        let is_last = ["create", "alter", "comment"].iter().any(|verb| {
            begins(&[verb, "event", "trigger"]) || begins(&[verb, "on", "event", "trigger"])
        });
        if is_last {
            return When::Last;
        }
        const AFTER: [&[&str]; 20] = [
            &["create", "index"],
            &["create", "unique", "index"],
            &["alter", "index"],
            &["create", "trigger"],
            &["create", "constraint", "trigger"],
            &["create", "rule"],
            &["create", "or", "replace", "rule"],
            &["create", "policy"],
            &["alter", "policy"],
            &["create", "publication"],
            &["alter", "publication"],
            &["create", "statistics"],
            &["alter", "statistics"],
            &["grant"],
            &["revoke"],
            &["alter", "default", "privileges"],
            &["comment", "on", "index"],
            &["comment", "on", "constraint"],
            &["comment", "on", "trigger"],
            &["comment", "on", "policy"],
        ];
        let alters = begins(&["alter", "table"]) || begins(&["alter", "foreign", "table"]);
        let waits = AFTER.iter().any(|words| begins(words))
            // A constraint that was checked cannot be added once a table uses an array of the domain.
            || begins(&["alter", "domain"]) && self.has(&["not", "valid"])
            || alters
                && [
                    &["add", "constraint"][..],
                    &["add", "primary", "key"],
                    &["cluster", "on"],
                    &["replica", "identity"],
                    &["row", "level", "security"],
                    &["enable", "trigger"],
                    &["disable", "trigger"],
                    &["always", "trigger"],
                    &["replica", "trigger"],
                    &["enable", "rule"],
                    &["disable", "rule"],
                    &["always", "rule"],
                    &["replica", "rule"],
                ]
                .iter()
                .any(|words| self.has(words));
        if waits { When::After } else { When::Before }
    }

    /// The extension that it creates.
    pub(crate) fn extension(&self) -> Option<&str> {
        if !self.begins_with(&["create", "extension"]) {
            return None;
        }
        let skipped = ["create", "extension", "if", "not", "exists"];
        let name = self.tokens.iter().find(|token| !skipped.iter().any(|word| token.is(word)))?;
        Some(&name.text)
    }

    /// Whether it is a comment on an extension, which often belongs to the provider.
    pub(crate) fn is_comment_on_extension(&self) -> bool {
        self.begins_with(&["comment", "on", "extension"])
    }

    /// Whether it adds a foreign key.
    pub(crate) fn is_foreign_key(&self) -> bool {
        self.has(&["foreign", "key"]) && !self.has(&["not", "valid"])
    }

    /// Whether it sets a time-out of the session. A server of another version may not know it.
    pub(crate) fn is_time_out(&self) -> bool {
        self.begins_with(&["set"])
            && self.tokens.get(1).is_some_and(|token| token.text.ends_with("_timeout"))
    }

    /// The roles that it names as owners, or that it grants rights to or revokes rights from.
    pub(crate) fn roles(&self) -> Vec<&str> {
        let is_about_roles = ["grant", "revoke"].iter().any(|word| self.begins_with(&[word]))
            || self.begins_with(&["alter", "default", "privileges"])
            || self.begins_with(&["create", "policy"]);
        let behind: &[&[&str]] = match is_about_roles {
            true => &[&["to"], &["from"], &["for", "role"]],
            false => &[&["owner", "to"], &["authorization"]],
        };
        let mut roles = Vec::new();
        for words in behind {
            let fits =
                |tokens: &[Token]| tokens.iter().zip(*words).all(|(token, word)| token.is(word));
            let Some(at) = self.tokens.windows(words.len()).rposition(fits) else { continue };
            let names = self.tokens[at + words.len()..].iter();
            let names = names.take_while(|token| !ENDS.iter().any(|word| token.is(word)));
            let names = names.filter(|token| !NOBODY.iter().any(|word| token.is(word)));
            roles.extend(names.map(|token| token.text.as_str()));
        }
        roles
    }
}

/// The words that end a list of roles.
const ENDS: [&str; 11] = [
    "using", "with", "granted", "cascade", "restrict", "grant", "revoke", "in", "to", "from", "on",
];
/// The words in a list of roles that are not roles.
const NOBODY: [&str; 6] = ["public", "group", "current_user", "session_user", "current_role", ","];

/// The number of tokens of a statement that are kept. The kind of a statement is known from its first tokens.
const TOKENS: usize = 200;

/// Cuts a script into statements. A statement ends at a semicolon outside of any string, name, comment, parenthesis and
/// body of a function. Commands of psql, which begin with a backslash, are left out.
pub(crate) fn statements(script: &str) -> Vec<Statement> {
    let bytes = script.as_bytes();
    let (mut found, mut tokens) = (Vec::new(), Vec::<Token>::new());
    let (mut at, mut start, mut depth, mut bodies) = (0, 0, 0usize, 0usize);
    let mut end = |start: usize, end: usize, tokens: &mut Vec<Token>| {
        let sql = script[start..end].trim().to_owned();
        let tokens = std::mem::take(tokens);
        if !tokens.is_empty() {
            found.push(Statement { sql, tokens });
        }
    };
    while let Some(&byte) = bytes.get(at) {
        let rest = &script[at..];
        match byte {
            b'-' if rest.starts_with("--") => at += rest.find('\n').unwrap_or(rest.len()),
            b'/' if rest.starts_with("/*") => at += comment(rest.as_bytes()),
            // This is a command of psql, on a line of its own.
            b'\\' if tokens.is_empty() => {
                at += rest.find('\n').unwrap_or(rest.len());
                start = at;
            }
            b';' if depth == 0 && bodies == 0 => {
                end(start, at, &mut tokens);
                at += 1;
                start = at;
            }
            b'\'' => {
                let escapes = at > 0
                    && matches!(bytes[at - 1], b'e' | b'E')
                    && !at.checked_sub(2).is_some_and(|before| is_word(bytes[before]));
                at += string(rest.as_bytes(), escapes);
            }
            b'"' => {
                let length = string(rest.as_bytes(), false);
                let name = rest[..length].trim_matches('"').replace("\"\"", "\"");
                if depth == 0 {
                    tokens.push(Token { text: name, is_quoted: true });
                }
                at += length;
            }
            b'$' => at += dollars(rest),
            b'(' => {
                depth += 1;
                at += 1;
            }
            b')' => {
                depth = depth.saturating_sub(1);
                at += 1;
            }
            _ if is_word(byte) => {
                let length =
                    rest.bytes().take_while(|byte| is_word(*byte) || *byte == b'$').count();
                let word = rest[..length].to_lowercase();
                let is_routine = tokens.first().is_some_and(|first| first.is("create"))
                    && tokens
                        .iter()
                        .take(4)
                        .any(|token| token.is("function") || token.is("procedure"));
                match word.as_str() {
                    "begin" if is_routine && depth == 0 => bodies += 1,
                    "case" if bodies > 0 => bodies += 1,
                    "end" => bodies = bodies.saturating_sub(1),
                    _ => {}
                }
                if depth == 0 && tokens.len() < TOKENS {
                    if tokens.is_empty() {
                        start = at; // comments before it are not its own
                    }
                    tokens.push(Token { text: word, is_quoted: false });
                }
                at += length;
            }
            _ => {
                if byte == b',' && depth == 0 && tokens.len() < TOKENS {
                    tokens.push(Token { text: ",".to_owned(), is_quoted: false });
                }
                at += rest.chars().next().map_or(1, char::len_utf8);
            }
        }
    }
    end(start, script.len(), &mut tokens);
    found
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

/// The length of a comment in `/*` and `*/`, which may contain other comments.
fn comment(text: &[u8]) -> usize {
    let (mut at, mut depth) = (0, 0);
    while at < text.len() {
        match &text[at..] {
            [b'/', b'*', ..] => (at, depth) = (at + 2, depth + 1),
            [b'*', b'/', ..] => (at, depth) = (at + 2, depth - 1),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at.min(text.len())
}

/// The length of a quoted text, which begins with its quotation mark. Two marks in it stand for one.
fn string(text: &[u8], escapes: bool) -> usize {
    let quote = text[0];
    let mut at = 1;
    while at < text.len() {
        match text[at] {
            b'\\' if escapes => at += 2,
            byte if byte == quote && text.get(at + 1) == Some(&quote) => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    text.len()
}

/// The length of `$TAG$ … $TAG$`, or of a single `$`.
fn dollars(text: &str) -> usize {
    let Some(length) = text[1..].find('$') else { return 1 };
    let tag = &text[..length + 2];
    let name = &tag[1..tag.len() - 1];
    if !name.bytes().all(is_word) || name.bytes().next().is_some_and(|byte| byte.is_ascii_digit()) {
        return 1;
    }
    text[tag.len()..].find(tag).map_or(text.len(), |end| end + 2 * tag.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SCRIPT: &str = r#"-- a comment; with a semicolon
\restrict abc
SET statement_timeout = 0;
SELECT pg_catalog.set_config('search_path', '', false);
/* another; /* within; */ */ CREATE TABLE public."we;ird" (
    a text DEFAULT 'x;''y', b text DEFAULT E'\';', CHECK ((a <> ';'))
);
ALTER TABLE public."we;ird" OWNER TO "The Owner";
CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $body$
BEGIN RETURN 1; -- $$ ;
END; $body$;
CREATE FUNCTION public.g(a integer) RETURNS integer LANGUAGE sql
    BEGIN ATOMIC
 SELECT CASE WHEN a > 1 THEN 2 ELSE 3 END;
 SELECT 4;
END;
CREATE RULE r AS ON INSERT TO t DO ALSO (DELETE FROM a; DELETE FROM b);
GRANT SELECT ON TABLE public.t TO reader,PUBLIC WITH GRANT OPTION;
CREATE UNIQUE INDEX i ON t USING btree (a);
ALTER TABLE ONLY public.t
    ADD CONSTRAINT t_fk FOREIGN KEY (a) REFERENCES public.u(a);
COMMENT ON EVENT TRIGGER e IS 'x';
CREATE EXTENSION IF NOT EXISTS "uuid-ossp" WITH SCHEMA public;
ALTER DOMAIN public.positive ADD CONSTRAINT c CHECK ((VALUE > 0));
ALTER DOMAIN public.positive ADD CONSTRAINT d CHECK ((VALUE > 1)) NOT VALID;
\unrestrict abc
"#;

    #[test]
    fn a_script_is_cut_where_its_statements_end() {
        let found = statements(SCRIPT);
        let whens: Vec<When> = found.iter().map(Statement::when).collect();
        use When::{After, Before, Last, Setting};
        assert_eq!(
            whens,
            [
                Setting, Setting, Before, Before, Before, Before, After, After, After, After, Last,
                Before, Before, After
            ],
            "{found:#?}"
        );
        assert!(found[2].sql.starts_with("CREATE TABLE public.\"we;ird\" ("), "{}", found[2].sql);
        assert!(found[2].sql.ends_with(')'));
        assert_eq!(found[3].roles(), ["The Owner"]);
        assert!(found[5].sql.ends_with("END"), "{}", found[5].sql);
        assert_eq!(found[7].roles(), ["reader"]);
        assert!(found[9].is_foreign_key() && !found[8].is_foreign_key());
        assert_eq!(found[11].extension(), Some("uuid-ossp"));
    }

    proptest! {
        #[test]
        fn any_text_is_cut_without_a_panic(text in "[-/*'\"$a;(\\\\\nEé]{0,40}") {
            let _ = statements(&text);
        }
    }
}
