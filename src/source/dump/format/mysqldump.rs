//! PURE: the SQL of mysqldump and mariadb-dump. If the connection is lost, the text may end with a complete INSERT, so the
//! closing comment is required. `--force` writes that in spite of failures, so the tables are collected, too.

use crate::source::dump::format::lines::{Lines, backquoted};
use crate::source::dump::format::whole::{Defect, Whole};

const BEGINS: [&[u8]; 2] = [b"-- MySQL dump ", b"-- MariaDB dump "];
const END: &[u8] = b"-- Dump completed";

/// The parser of dumps by mysqldump or mariadb-dump.
#[derive(Debug, Default)]
pub struct MysqlDump {
    lines: Lines,
    script: Script,
}

#[derive(Debug, Default)]
struct Script {
    begun: bool,
    ended: bool,
    database: String,
    contents: Vec<String>,
}

impl MysqlDump {
    pub(super) fn take(&mut self, bytes: &[u8]) {
        self.lines.take(bytes, |line| self.script.line(line));
    }

    pub(super) fn end(mut self) -> Result<Whole, Defect> {
        self.lines.end(|line| self.script.line(line));
        match self.script {
            Script { begun: false, .. } => {
                Err("does not begin like a dump by mysqldump".to_owned())
            }
            Script { ended: false, .. } => Err("does not end with `-- Dump completed`".to_owned()),
            Script { contents, .. } => {
                Ok(Whole { contents, checked: "its tables, and the end of the dump" })
            }
        }
    }
}

impl Script {
    fn line(&mut self, line: &[u8]) {
        if line.is_empty() {
            return;
        }
        // Rows contain no line breaks: they are written as `\n`.
        self.ended = line.starts_with(END);
        self.begun |= BEGINS.iter().any(|begin| line.starts_with(begin));
        if let Some((name, _)) = line.strip_prefix(b"USE ").and_then(backquoted) {
            self.database = name;
        } else if let Some((name, _)) = line.strip_prefix(b"CREATE TABLE ").and_then(backquoted) {
            self.contents.push(format!("{}.{name}", self.database));
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::model::DumpFormat;
    use crate::source::dump::format::tests::read;

    const DUMP: &str = "/*M!999999\\- enable the sandbox mode */ 
-- MariaDB dump 10.19  Distrib 10.11.19-MariaDB, for debian-linux-gnu (x86_64)
--
-- Current Database: `shop`
--

USE `shop`;
DROP TABLE IF EXISTS `a``b`;
CREATE TABLE `a``b` (
  `id` int(11) NOT NULL
);
LOCK TABLES `a``b` WRITE;
INSERT INTO `a``b` VALUES (1,'-- Dump completed');
UNLOCK TABLES;
USE `other`;
CREATE TABLE `t` (
  `id` int(11)
);

-- Dump completed
";

    #[test]
    fn a_complete_dump_names_its_tables() {
        let date = DUMP.replace("completed\n", "completed on 2026-01-01  1:02:03\n");
        for text in [DUMP, &date] {
            for piece in [1, 7, 10_000] {
                let whole = read(&DumpFormat::MysqlDump, text.as_bytes(), piece).unwrap();
                assert_eq!(whole.contents, ["other.t", "shop.a`b"]);
            }
        }
    }

    #[test]
    fn a_dump_that_is_cut_anywhere_is_refused() {
        for at in 0..DUMP.trim_end().len() {
            assert!(
                read(&DumpFormat::MysqlDump, &DUMP.as_bytes()[..at], 64).is_err(),
                "cut at {at}"
            );
        }
        let more = format!("{DUMP}mysqldump: Couldn't execute\n");
        assert!(read(&DumpFormat::MysqlDump, more.as_bytes(), 64).is_err());
    }
}
