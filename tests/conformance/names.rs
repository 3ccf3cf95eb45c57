//! Names that were made to break something: files, statements, terminals.

use crate::place::Place;
use crate::rows::{HOUR, every};
use crate::subject::{NewTable, Subject};

const NAMES: [&str; 26] = [
    "plain",
    "PLAIN",
    "Plain",
    "a\"b",
    "a'b",
    "a`b",
    "a\\b",
    "a\\",
    "\\'; SELECT 1; --",
    "'); DROP TABLE plain; --",
    "$$a$$",
    "%s {} {0}",
    "..",
    "...",
    "../../up",
    "/absolute",
    "a/b",
    "_hidden",
    "a_x2Fb",
    " leading, and = trailing.",
    "line\nfeed\r",
    "\u{1b}[31mred\u{1b}]0;title\u{7}\u{8}",
    "gr\u{fc}n \u{4e2d}\u{6587} \u{202e}abc",
    "\u{1f980}",
    "select",
    "a-name-of-sixty-three-bytes-which-is-the-most-that-some-take-xy",
];

pub(crate) fn hostile(subject: &dyn Subject) {
    let place = Place::new(subject, "names");
    let names: Vec<&str> = NAMES.into_iter().filter(|name| subject.takes_name(name)).collect();
    let tables: Vec<_> =
        (0..).zip(&names).map(|(number, name)| (*name, every(HOUR, 3, number * 10))).collect();
    for (name, records) in &tables {
        // The column of text is called as the table is.
        subject.load(&place.database, NewTable { name, text: name, records });
    }
    let archive = place.archive();
    archive.export(&["--window", "1000d"]).expect(0);
    for (name, records) in &tables {
        archive.assert_holds_named(name, name, records);
    }
}
