//! Connections that break, and Ctrl-C, at every place of a run.

use crate::place::{Attempt, Place};
use crate::rows::{HOUR, every};
use crate::subject::Subject;
use crate::support::tunnel::Stop;

/// Two tables in several windows, one connection at a time, so that the answers come in one order.
const ARGS: [&str; 4] = ["--window", "6h", "--concurrency", "1"];
/// Places at which a run is disturbed.
const PLACES: usize = 8;

/// Loads the tables, and returns how many answers an export takes.
fn prepare(place: &Place<'_>) -> usize {
    place.load("one", &every(HOUR, 60, 1));
    place.load("two", &every(HOUR, 30, 1000));
    place.tunnel().count_answers();
    complete(&place.archive());
    place.tunnel().answers()
}

#[track_caller]
fn complete(archive: &Attempt<'_>) {
    archive.complete(&ARGS);
    archive.assert_holds("one", &every(HOUR, 60, 1));
    archive.assert_holds("two", &every(HOUR, 30, 1000));
}

/// Some of the answers, others for each source, so that together they are nearly all.
fn some(answers: usize, subject: &dyn Subject) -> impl Iterator<Item = usize> + use<> {
    let places = PLACES.min(answers);
    let offset: usize = subject.name().bytes().map(usize::from).sum();
    let step = answers / places;
    (0..places).map(move |place| 1 + place * step + (offset + place) % step.max(1))
}

pub(crate) fn cut(subject: &dyn Subject) {
    let place = Place::new(subject, "cut");
    let answers = prepare(&place);
    for answer in some(answers, subject) {
        let archive = place.archive();
        place.tunnel().stop_at(answer, Stop::Cut);
        let run = archive.export(&ARGS);
        // The first connection may fail for good; whatever was lost later is got again.
        assert!([0, 1, 3].contains(&run.status), "answer {answer}: {run:?}");
        complete(&archive);
    }
}

pub(crate) fn interrupted(subject: &dyn Subject) {
    let place = Place::new(subject, "interrupted");
    let answers = prepare(&place);
    for answer in some(answers, subject) {
        let archive = place.archive();
        place.tunnel().stop_at(answer, Stop::Hold);
        let run = archive.export_and_interrupt(&ARGS);
        // Another order of answers may have ended it before.
        let over = run.status == 0 && !place.tunnel().has_stopped();
        assert!(run.status == 130 || over, "answer {answer} of {answers}: {run:?}");
        place.tunnel().count_answers();
        complete(&archive);
    }
}
