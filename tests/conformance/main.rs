//! One set of behaviours against every source. What is true of one must be true of all: each row once,
//! whatever breaks, changes or is forbidden meanwhile, or a run that says what it lacks.
//!
//! `cargo test --test conformance -- "PostgreSQL 18"` runs those of one source. The last line names what was
//! skipped.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]
#![allow(clippy::print_stderr, reason = "the last line says what was skipped")]

mod changes;
mod faults;
mod influxdb;
#[path = "../support/influxdb3.rs"]
mod influxdb3;
mod lines;
mod memory;
mod names;
mod place;
mod proof;
mod relational;
mod rights;
mod rows;
mod subject;
#[path = "../support/mod.rs"]
mod support;

use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Trial};
use subject::{Ability, Subject};
use support::Kind;

/// Every source; a new one joins here.
fn subjects() -> Vec<Arc<dyn Subject>> {
    let mut subjects: Vec<Arc<dyn Subject>> = vec![
        Arc::new(lines::LineProtocol::new()),
        Arc::new(influxdb::InfluxDb1::default()),
        Arc::new(influxdb::InfluxDb3Subject::new(true)),
        Arc::new(influxdb::InfluxDb3Subject::new(false)),
    ];
    for kind in Kind::all() {
        subjects.push(Arc::new(relational::Server::new(kind)));
    }
    subjects
}

/// What is held against a source that is able to do what it needs.
struct Behaviour {
    name: &'static str,
    needs: &'static [Ability],
    test: fn(&dyn Subject),
}

const BEHAVIOURS: &[Behaviour] = &[
    Behaviour { name: "each_row_once_with_any_width", needs: &[], test: rows::each_row_once },
    Behaviour { name: "ranges_narrow_and_wide", needs: &[], test: rows::ranges },
    Behaviour { name: "listed_again", needs: &[Ability::Grows], test: rows::listed_again },
    Behaviour { name: "cut_at_many_answers", needs: &[Ability::Network], test: faults::cut },
    Behaviour {
        name: "interrupted_at_many_answers",
        needs: &[Ability::Network],
        test: faults::interrupted,
    },
    Behaviour { name: "changed_meanwhile", needs: &[Ability::Ddl], test: changes::changed },
    Behaviour { name: "grown_meanwhile", needs: &[Ability::Grows], test: changes::grown },
    Behaviour { name: "rights_missing", needs: &[Ability::Rights], test: rights::missing },
    Behaviour { name: "hostile_names", needs: &[], test: names::hostile },
    Behaviour { name: "proof_of_the_same", needs: &[], test: proof::same },
    Behaviour { name: "proof_of_more", needs: &[Ability::Grows], test: proof::grown },
    Behaviour { name: "proof_of_another", needs: &[Ability::Ddl], test: proof::changed },
    Behaviour { name: "memory_bounded", needs: &[Ability::Bulk], test: memory::bounded },
];

/// What is known not to hold yet, by source: these are not run, and named at the end.
const NOT_YET: &[(&str, &[&str])] = &[];

/// Most of the time a run waits for a server.
const THREADS: usize = 4;

fn main() -> ExitCode {
    let subjects = subjects();
    let (mut trials, mut skipped) = (Vec::new(), Vec::new());
    for (subject, behaviour) in subjects.iter().flat_map(|subject| {
        let able = |behaviour: &&Behaviour| {
            behaviour.needs.iter().all(|need| subject.abilities().contains(need))
        };
        BEHAVIOURS.iter().filter(able).map(move |behaviour| (subject, behaviour))
    }) {
        let name = format!("{}::{}", subject.name(), behaviour.name);
        let not_yet = |(which, sources): &(&str, &[&str])| {
            *which == behaviour.name && sources.contains(&subject.name().as_str())
        };
        if NOT_YET.iter().any(not_yet) {
            skipped.push(name);
            continue;
        }
        let (subject, test) = (Arc::clone(subject), behaviour.test);
        trials.push(Trial::test(name, move || {
            test(&*subject);
            Ok(())
        }));
    }
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(THREADS);
    let conclusion = libtest_mimic::run(&arguments, trials);
    // Ends the servers.
    drop(subjects);
    let here = Kind::all();
    let lacking = Kind::wanted().into_iter().filter(|kind| !here.contains(kind));
    skipped.extend(lacking.map(|kind| format!("{} (not installed here)", kind.name())));
    match skipped.is_empty() {
        true => eprintln!("skipped: nothing"),
        false => eprintln!("skipped: {}", skipped.join(", ")),
    }
    conclusion.exit_code()
}
