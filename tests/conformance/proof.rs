//! Whether the source has what the archive holds: nothing that is the same is called different, and nothing that is
//! different is called the same.

use serde_json::Value;

use crate::place::{Attempt, Place};
use crate::rows::{HOUR, difficult, every};
use crate::subject::{Change, Subject};

const LEVELS: [&[&str]; 3] = [&[], &["--sample", "50%"], &["--deep"]];

#[track_caller]
fn verdict(archive: &Attempt<'_>, args: &[&str], status: i32) -> Value {
    let args: Vec<&str> = ["--against-source", "--json"].iter().chain(args).copied().collect();
    let run = archive.verify(&args);
    assert_eq!(run.status, status, "{args:?}: {}{}", run.stdout, run.stderr);
    let report = run.json();
    let is_safe = report["verdict"] == "safe";
    assert_eq!(is_safe, status == 0, "{report}");
    assert_eq!(is_safe, report["open"].as_array().unwrap().is_empty(), "{report}");
    report
}

pub(crate) fn same(subject: &dyn Subject) {
    let place = Place::new(subject, "proof_same");
    place.load("all", &difficult(subject));
    place.load("plain", &every(HOUR, 50, 1));
    let archive = place.archive();
    archive.export(&["--window", "6h"]).expect(0);
    for level in LEVELS {
        let report = verdict(&archive, level, 0);
        let compared: u64 =
            report["compared"].as_object().unwrap().values().filter_map(Value::as_u64).sum();
        assert_eq!(Some(compared), report["chunks"].as_u64(), "each chunk is compared: {report}");
        if level == ["--deep"] {
            assert_eq!(report["compared"].as_object().unwrap().len(), 1, "{report}");
        }
    }
}

pub(crate) fn grown(subject: &dyn Subject) {
    let place = Place::new(subject, "proof_grown");
    place.load("old", &every(HOUR, 50, 1));
    let archive = place.archive();
    archive.export(&["--window", "6h"]).expect(0);
    verdict(&archive, &[], 0);
    place.load("new table", &every(HOUR, 3, 1000));
    for level in LEVELS {
        let report = verdict(&archive, level, 4);
        assert!(report["open"].to_string().contains("new table"), "{report}");
    }
    archive.export(&[]).expect(0);
    verdict(&archive, &[], 0);
}

pub(crate) fn changed(subject: &dyn Subject) {
    for change in Change::ALL {
        let name = format!("proof_{change:?}").to_lowercase();
        let place = Place::new(subject, &name);
        place.load("t", &every(HOUR, 50, 1));
        place.load("t_shadow", &every(HOUR, 50, 1_000));
        place.load("untouched", &every(HOUR, 5, 1));
        let archive = place.archive();
        archive.export(&["--window", "6h"]).expect(0);
        subject.change(&place.database, "t", change);
        // The texts of two columns that change their names have equal counts, and nothing else is computed of texts.
        let levels = if change == Change::SwapColumns { &LEVELS[2..] } else { &LEVELS };
        for level in levels {
            let report = verdict(&archive, level, 4);
            let open = report["open"].as_array().unwrap();
            assert!(open.iter().all(|open| open["todo"].as_str().unwrap().len() > 10), "{report}");
            let untouched =
                open.iter().filter(|open| open["what"].as_str().unwrap().contains("untouched"));
            assert_eq!(untouched.count(), 0, "{change:?}: {report}");
        }
    }
}
