//! PURE: the SQL of pg_dump. If the server dies meanwhile, the text may end with the well-formed end of a COPY, so the
//! closing comment is required. It is not the last line, since newer versions write `\unrestrict TOKEN` after it.

use crate::source::dump::format::lines::Lines;
use crate::source::dump::format::whole::{Defect, Whole};

const BEGIN: &[u8] = b"-- PostgreSQL database dump";
const END: &[u8] = b"-- PostgreSQL database dump complete";

/// The parser of dumps by pg_dump.
#[derive(Debug, Default)]
pub struct PgDump {
    lines: Lines,
    script: Script,
}

#[derive(Debug, Default)]
struct Script {
    begun: bool,
    ended: bool,
    /// The table whose rows the comment just above announces.
    announced: Option<String>,
    /// The table whose rows are being read.
    rows_of: Option<String>,
    /// The token of `\restrict`, until `\unrestrict` repeats it.
    token: Option<Vec<u8>>,
    contents: Vec<String>,
}

impl PgDump {
    pub(super) fn take(&mut self, bytes: &[u8]) {
        self.lines.take(bytes, |line| self.script.line(line));
    }

    pub(super) fn end(mut self) -> Result<Whole, Defect> {
        self.lines.end(|line| self.script.line(line));
        let Script { begun, ended, rows_of, token, contents, .. } = self.script;
        match rows_of {
            _ if !begun => Err("does not begin like a dump by pg_dump".to_owned()),
            Some(table) => Err(format!("ends among the rows of {}", table.escape_debug())),
            None if !ended => {
                Err("does not end with `-- PostgreSQL database dump complete`".to_owned())
            }
            None if token.is_some() => {
                Err("does not end with the `\\unrestrict` that belongs to its `\\restrict`"
                    .to_owned())
            }
            None => {
                Ok(Whole { contents, checked: "the end of every COPY, and the end of the dump" })
            }
        }
    }
}

impl Script {
    fn line(&mut self, line: &[u8]) {
        if self.rows_of.is_some() {
            if line == b"\\." {
                self.contents.extend(self.rows_of.take());
            }
            return;
        }
        match line {
            b"" | b"--" => return,
            BEGIN => self.begun = true,
            END => {
                (self.ended, self.announced) = (true, None);
                return;
            }
            _ => {}
        }
        if let Some(token) = line.strip_prefix(b"\\restrict ") {
            self.token = Some(token.to_vec());
        } else if let Some(token) = line.strip_prefix(b"\\unrestrict ")
            && self.token.as_deref() == Some(token)
        {
            self.token = None;
            return; // this line follows the end
        }
        self.ended = false;
        let announced = self.announced.take();
        if line.starts_with(b"COPY ") && line.ends_with(b" FROM stdin;") {
            self.rows_of = announced;
        } else {
            self.announced = announcement(line);
        }
    }
}

/// Reads `-- Data for Name: NAME; Type: TABLE DATA; Schema: SCHEMA; Owner: OWNER`. It precedes every COPY, unlike a line
/// in the body of a function that merely looks like one.
fn announcement(line: &[u8]) -> Option<String> {
    let rest = line.strip_prefix(b"-- Data for Name: ")?;
    let rest = String::from_utf8_lossy(rest);
    let (name, rest) = rest.split_once("; Type: TABLE DATA; Schema: ")?;
    let schema = rest.split("; Owner: ").next().unwrap_or_default();
    Some(format!("{schema}.{name}"))
}

#[cfg(test)]
mod tests {
    use crate::model::DumpFormat;
    use crate::source::dump::format::tests::read;

    const DUMP: &str = "--
-- PostgreSQL database dump
--

\\restrict abc

CREATE FUNCTION public.f() RETURNS text AS $$
COPY t FROM stdin;
$$;

--
-- Data for Name: t; Type: TABLE DATA; Schema: public; Owner: me
--

COPY public.t (id, text) FROM stdin;
1\t-- PostgreSQL database dump complete
2\t\\\\.
\\.


--
-- Name: t_pkey; Type: CONSTRAINT; Schema: public; Owner: me
--

ALTER TABLE ONLY public.t ADD PRIMARY KEY (id);

--
-- PostgreSQL database dump complete
--

\\unrestrict abc

";

    #[test]
    fn a_complete_dump_names_its_tables() {
        for text in [
            DUMP.to_owned(),
            DUMP.replace("\\restrict abc\n", "").replace("\\unrestrict abc\n", ""),
        ] {
            for piece in [1, 10, 10_000] {
                let whole = read(&DumpFormat::PgDump, text.as_bytes(), piece).unwrap();
                assert_eq!(whole.contents, ["public.t"]);
            }
        }
    }

    #[test]
    fn a_dump_that_is_cut_anywhere_is_refused() {
        for at in 0..DUMP.trim_end().len() {
            let cut = read(&DumpFormat::PgDump, &DUMP.as_bytes()[..at], 64);
            assert!(cut.is_err(), "cut at {at}");
        }
    }

    #[test]
    fn only_the_token_may_follow_the_end() {
        for more in ["ERROR", "\\unrestrict xyz", "COPY public.t FROM stdin;"] {
            let text = format!("{DUMP}{more}\n");
            assert!(read(&DumpFormat::PgDump, text.as_bytes(), 64).is_err(), "{more}");
        }
        let other = DUMP.replace("\\unrestrict abc", "\\unrestrict abd");
        assert!(read(&DumpFormat::PgDump, other.as_bytes(), 64).is_err());
    }
}
