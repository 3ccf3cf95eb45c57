//! PURE: cuts the script that an export has written for the `mysql` client into statements, and tells what each of them
//! makes and when. Only two parts of a statement are ever changed: the account in `DEFINER=`, and the name of the
//! database in `CREATE DATABASE`.

use crate::source::mysql::select::quoted;

/// What a statement makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The database itself.
    Database,
    /// A sequence or a table.
    Table,
    /// A routine, a view or a trigger, or the position of a sequence.
    Program,
    /// An event, which may run as soon as it exists.
    Event,
}

/// An account in a statement.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Account {
    pub(crate) user: String,
    /// The host, which is empty for a role.
    pub(crate) host: String,
}

/// A statement of the script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Statement {
    pub(crate) kind: Kind,
    /// The text in the script.
    pub(crate) sql: String,
    /// What it makes, in words for people.
    pub(crate) what: String,
    /// The name of the table that it makes, with its engine.
    pub(crate) table: Option<(String, String)>,
    /// The account in `DEFINER=`, and its place in the text.
    definer: Option<(Account, std::ops::Range<usize>)>,
    /// The SQL mode and the time zone that it needs, as literals.
    pub(crate) mode: String,
    pub(crate) zone: String,
}

impl Statement {
    pub(crate) fn definer(&self) -> Option<&Account> {
        self.definer.as_ref().map(|(account, _)| account)
    }

    /// The statement without its `DEFINER=`, so that the object belongs to the user who runs it.
    pub(crate) fn without_definer(&self) -> String {
        match &self.definer {
            Some((_, place)) => format!("{}{}", &self.sql[..place.start], &self.sql[place.end..]),
            None => self.sql.clone(),
        }
    }

    /// The statement that makes the database under another name.
    pub(crate) fn database_as(&self, name: &str) -> String {
        let rest = Tokens(&self.sql).find_map(|token| match token.kind {
            Word::Name(_) => Some(&self.sql[token.end..]),
            _ => None,
        });
        format!("CREATE DATABASE {} {}", quoted(name), rest.unwrap_or_default().trim())
    }

    /// Whether it names something of a database, as in `DATABASE.TABLE`.
    pub(crate) fn names(&self, database: &str) -> bool {
        let tokens: Vec<_> = Tokens(&self.sql).collect();
        tokens.windows(2).any(|pair| {
            let is_it = match &pair[0].kind {
                Word::Name(name) => name == database,
                Word::Plain(word) => *word == database,
                Word::Other => false,
            };
            // A name behind another dot is a table or a column.
            is_it
                && self.sql[pair[0].end..].trim_start().starts_with('.')
                && !self.sql[..pair[0].start].trim_end().ends_with('.')
        })
    }
}

/// A word of a statement, with the positions of its first byte and of the byte behind it.
struct Token<'a> {
    start: usize,
    end: usize,
    kind: Word<'a>,
}

enum Word<'a> {
    Plain(&'a str),
    /// In backticks.
    Name(String),
    /// A text or a sign.
    Other,
}

/// The words of a text from a position on. Comments are left out, except those that newer servers read as SQL.
struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

#[allow(non_snake_case, reason = "it reads as the constructor of an iterator")]
fn Tokens(text: &str) -> Lexer<'_> {
    Lexer { text, at: 0 }
}

fn is_word(char: char) -> bool {
    char.is_alphanumeric() || char == '_' || char == '$'
}

impl<'a> Iterator for Lexer<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        loop {
            let rest = &self.text[self.at..];
            let first = rest.chars().next()?;
            let start = self.at;
            let mut token = |length: usize, kind| {
                self.at = start + length;
                Some(Token { start, end: self.at, kind })
            };
            if first.is_whitespace() {
                self.at += first.len_utf8();
            } else if rest.starts_with("-- ") || rest.starts_with("--\n") || first == '#' {
                self.at += rest.find('\n').unwrap_or(rest.len());
            } else if rest.starts_with("/*!") || rest.starts_with("/*M!") {
                let head = if rest.starts_with("/*M!") { 4 } else { 3 };
                let digits = rest[head..].bytes().take_while(u8::is_ascii_digit).count();
                self.at += head + digits;
            } else if rest.starts_with("*/") {
                self.at += 2;
            } else if let Some(comment) = rest.strip_prefix("/*") {
                self.at += comment.find("*/").map_or(rest.len(), |end| end + 4);
            } else if matches!(first, '`' | '\'' | '"') {
                let length = enclosed(rest.as_bytes());
                let inner =
                    rest[..length].strip_prefix('`').and_then(|name| name.strip_suffix('`'));
                return match inner {
                    Some(name) => token(length, Word::Name(name.replace("``", "`"))),
                    None => token(length, Word::Other),
                };
            } else if is_word(first) {
                let length = rest.find(|char| !is_word(char)).unwrap_or(rest.len());
                return token(length, Word::Plain(&rest[..length]));
            } else {
                return token(first.len_utf8(), Word::Other);
            }
        }
    }
}

/// The length of a quoted text, which begins with its quotation mark.
fn enclosed(text: &[u8]) -> usize {
    let quote = text[0];
    let mut at = 1;
    while let Some(&byte) = text.get(at) {
        match byte {
            b'\\' if quote != b'`' => at += 2,
            _ if byte == quote && text.get(at + 1) == Some(&quote) => at += 2,
            _ if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    text.len()
}

/// The lines before and after a program in the script.
const BEGIN: &str = "DELIMITER ;;\n";
const END: &str = ";;\nDELIMITER ;\n";

/// Cuts the script. Settings of the session and `USE` are left out, because the caller sets them.
pub(crate) fn statements(script: &str) -> Vec<Statement> {
    let (mut found, mut rest) = (Vec::new(), script);
    let (mut mode, mut zone) = ("''", "'+00:00'");
    loop {
        rest = rest.trim_start();
        if rest.is_empty() {
            return found;
        }
        if rest.starts_with("--") {
            rest = &rest[rest.find('\n').unwrap_or(rest.len())..];
            continue;
        }
        let sql = match rest.strip_prefix(BEGIN) {
            Some(program) => {
                let end = program.find(END).unwrap_or(program.len());
                rest = program.get(end + END.len()..).unwrap_or_default();
                &program[..end]
            }
            None => {
                let is_end = |token: &Token<'_>| {
                    matches!(token.kind, Word::Other) && &rest[token.start..token.end] == ";"
                };
                let end = Tokens(rest).find(is_end).map_or(rest.len(), |token| token.start);
                let sql = &rest[..end];
                rest = rest.get(end + 1..).unwrap_or_default();
                sql
            }
        };
        let sql = sql.trim();
        if let Some(set) = sql.strip_prefix("SET sql_mode = ") {
            mode = set;
        }
        if let Some(set) = sql.strip_prefix("SET time_zone = ") {
            zone = set;
        }
        found.extend(statement(sql, mode, zone));
    }
}

fn statement(sql: &str, mode: &str, zone: &str) -> Option<Statement> {
    let mut words = Tokens(sql);
    let first = words.next()?;
    let made = |kind, what: String, table, definer| {
        let (sql, mode, zone) = (sql.to_owned(), mode.to_owned(), zone.to_owned());
        Some(Statement { kind, sql, what, table, definer, mode, zone })
    };
    match first.kind {
        Word::Plain("SET" | "USE") => return None,
        Word::Plain("CREATE") => {}
        _ => {
            let what = sql.lines().next().unwrap_or_default().to_owned();
            return made(Kind::Program, what, None, None);
        }
    }
    let (mut definer, mut kind) = (None, None);
    while let Some(word) = words.next() {
        match word.kind {
            Word::Plain("DEFINER") if definer.is_none() => {
                if let Some((account, end)) = account(sql, word.end) {
                    definer = Some((account, word.start..end));
                    words.at = end;
                }
            }
            Word::Plain(
                word @ ("DATABASE" | "SEQUENCE" | "TABLE" | "FUNCTION" | "PROCEDURE" | "PACKAGE"
                | "VIEW" | "TRIGGER" | "EVENT"),
            ) => {
                kind = Some(word);
                break;
            }
            _ => {}
        }
    }
    let word = kind.unwrap_or("statement");
    let kind = match word {
        "DATABASE" => Kind::Database,
        "SEQUENCE" | "TABLE" => Kind::Table,
        "EVENT" => Kind::Event,
        _ => Kind::Program,
    };
    // Only `IF NOT EXISTS`, or the BODY of a package, stands before the name.
    let name = words.take(4).find_map(|token| match token.kind {
        Word::Name(name) => Some(name),
        Word::Plain("IF" | "NOT" | "EXISTS" | "BODY") => None,
        Word::Plain(name) => Some(name.to_owned()),
        Word::Other => None,
    });
    let name = name.unwrap_or_default();
    let what = format!("the {} {}", word.to_lowercase(), quoted(&name));
    made(kind, what, (word == "TABLE").then(|| (name, engine(sql))), definer)
}

/// The engine that `ENGINE=` names.
fn engine(sql: &str) -> String {
    let is = |token: &Token<'_>, word: &str| &sql[token.start..token.end] == word;
    let mut tokens = Tokens(sql).skip_while(|token| !is(token, "ENGINE")).skip(1);
    let is_named = tokens.next().is_some_and(|token| is(&token, "="));
    let name = tokens.next().filter(|_| is_named);
    name.map(|token| sql[token.start..token.end].to_owned()).unwrap_or_default()
}

/// Reads `=USER@HOST` and the space behind it from a position on. Returns where it ends.
fn account(sql: &str, from: usize) -> Option<(Account, usize)> {
    let rest = sql[from..].trim_start().strip_prefix('=')?;
    let (user, mut end) = part(sql, sql.len() - rest.len())?;
    let mut host = String::new();
    if sql[end..].starts_with('@') {
        (host, end) = part(sql, end + 1)?;
    }
    let spaces = sql[end..].len() - sql[end..].trim_start().len();
    Some((Account { user, host }, end + spaces))
}

/// A name of an account, quoted or not, and where it ends.
fn part(sql: &str, at: usize) -> Option<(String, usize)> {
    let rest = &sql[at..];
    let first = rest.chars().next()?;
    let start = at + (rest.len() - rest.trim_start().len());
    if first.is_whitespace() {
        return part(sql, start);
    }
    if !matches!(first, '`' | '\'' | '"') {
        let length = rest.find(char::is_whitespace).unwrap_or(rest.len());
        let length = rest[..length].find('@').unwrap_or(length);
        return Some((rest[..length].to_owned(), at + length));
    }
    let length = enclosed(rest.as_bytes());
    let twice: String = [first, first].iter().collect();
    let inner = rest.get(1..length.checked_sub(1)?)?;
    Some((inner.replace(&twice, &first.to_string()), at + length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SCRIPT: &str = r"-- Written by moveout for the `mysql` client.
SET NAMES utf8mb4;
SET foreign_key_checks = 0;

CREATE DATABASE /*!32312 IF NOT EXISTS*/ `sh``op` /*!40100 DEFAULT CHARACTER SET latin1 */;
USE `sh``op`;

SET sql_mode = '';
CREATE SEQUENCE `counter` start with 41;

DO SETVAL(`counter`, 43, 0);

SET sql_mode = '';
CREATE TABLE `we;ird``name` (
  `a` int COMMENT 'x;''y\'; -- `',
  /* a; comment */ `b` int, `ENGINE` int
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;

CREATE VIEW `v` AS SELECT 1 AS `a`;
SET sql_mode = 'ANSI_QUOTES,NO_BACKSLASH_ESCAPES';
DELIMITER ;;
CREATE DEFINER=`o``wner`@`%` FUNCTION `f`(a INT) RETURNS int
BEGIN RETURN '\'; -- ; and more
END;;
DELIMITER ;

SET sql_mode = '';
CREATE OR REPLACE ALGORITHM=UNDEFINED DEFINER=`root`@`localhost` SQL SECURITY DEFINER VIEW `v` AS select `sh``op`.`t`.`a` from `t`;

-- What this view reads does not exist:
-- CREATE VIEW `broken` AS SELECT 1;

DELIMITER ;;
CREATE DEFINER=`a role` TRIGGER touch BEFORE INSERT ON t FOR EACH ROW BEGIN END;;
DELIMITER ;

SET time_zone = 'SYSTEM';
DELIMITER ;;
CREATE DEFINER=`root`@`localhost` EVENT `nightly` ON SCHEDULE EVERY 1 DAY DO SELECT 1;;
DELIMITER ;
";

    #[test]
    fn a_script_is_cut_where_its_statements_end() {
        use Kind::{Database, Event, Program, Table};
        let found = statements(SCRIPT);
        let kinds: Vec<_> = found.iter().map(|statement| statement.kind).collect();
        assert_eq!(
            kinds,
            [Database, Table, Program, Table, Program, Program, Program, Program, Event],
            "{found:#?}"
        );
        assert_eq!(found[3].table, Some(("we;ird`name".to_owned(), "InnoDB".to_owned())));
        assert!(found[3].sql.ends_with("utf8mb4"), "{}", found[3].sql);
        assert!(found[5].sql.ends_with("END"), "{}", found[5].sql);
        assert_eq!(found[5].mode, "'ANSI_QUOTES,NO_BACKSLASH_ESCAPES'");
        assert_eq!((found[7].zone.as_str(), found[8].zone.as_str()), ("'+00:00'", "'SYSTEM'"));
        assert_eq!(found[6].what, "the view `v`");
        assert_eq!(found[7].what, "the trigger `touch`");
        assert_eq!(
            found[0].database_as("other"),
            "CREATE DATABASE `other` /*!40100 DEFAULT CHARACTER SET latin1 */"
        );
    }

    #[test]
    fn a_definer_is_taken_from_its_place_alone() {
        let found = statements(SCRIPT);
        let account = |user: &str, host: &str| Account { user: user.into(), host: host.into() };
        assert_eq!(found[5].definer(), Some(&account("o`wner", "%")));
        assert!(found[5].without_definer().starts_with("CREATE FUNCTION `f`"));
        assert_eq!(found[6].definer(), Some(&account("root", "localhost")));
        let view = found[6].without_definer();
        assert!(
            view.starts_with("CREATE OR REPLACE ALGORITHM=UNDEFINED SQL SECURITY DEFINER VIEW"),
            "{view}"
        );
        assert_eq!(found[7].definer(), Some(&account("a role", "")));
        assert!(found[7].without_definer().starts_with("CREATE TRIGGER touch"));
        assert_eq!(found[3].definer(), None);
    }

    #[test]
    fn what_names_a_database_is_known() {
        let found = statements(SCRIPT);
        assert!(found[6].names("sh`op") && !found[6].names("t"), "a table is none");
        let of = |sql: &str| statement(sql, "''", "''").unwrap();
        assert!(of("CREATE VIEW v AS SELECT * FROM shop.t").names("shop"));
        assert!(!of("CREATE VIEW v AS SELECT 'shop.t', \"`shop`.x\"").names("shop"));
        assert!(!of("CREATE TABLE `shop` (`shop` int) -- shop.t").names("shop"));
    }

    proptest! {
        #[test]
        fn any_text_is_cut_without_a_panic(text in "[-/*!'\"`#;(=@ A-D\\\\\nEé]{0,40}") {
            let _ = statements(&text);
            let _ = statements(&format!("CREATE DEFINER={text}"));
            let _ = statements(&format!("DELIMITER ;;\n{text}"));
        }
    }
}
