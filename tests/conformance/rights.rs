//! What a user may not read is named, never left out in silence.

use crate::place::Place;
use crate::rows::{HOUR, every};
use crate::subject::Subject;

pub(crate) fn missing(subject: &dyn Subject) {
    let place = Place::new(subject, "rights");
    let records = every(HOUR, 20, 1);
    place.load("open", &records);
    place.load("closed", &records);
    let mut silent = Vec::new();
    for login in subject.logins(&place.database) {
        let archive = place.archive_of(login.address);
        let run = archive.export(&[]);
        let said = format!("{}{}", run.stdout, run.stderr);
        match run.status {
            0 => {
                let whole =
                    archive.rows("closed").iter().filter(|row| row.values.len() == 3).count();
                let warned = login.warning.is_some_and(|warning| said.contains(warning));
                let columns = archive.rows("closed").iter().any(|row| row.values.len() < 3);
                if whole < records.len() && (columns || !warned) {
                    silent.push(format!("{}: complete, and {whole} rows: {said}", login.what));
                }
            }
            1 => {
                let named = said.contains("closed") || said.contains(&place.database);
                if !named {
                    silent.push(format!("{}: not named: {said}", login.what));
                }
            }
            _ => silent.push(format!("{}: {run:?}", login.what)),
        }
    }
    assert!(silent.is_empty(), "{}", silent.join("\n"));
}
