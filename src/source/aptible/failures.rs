//! PURE: the failures of Aptible's CLI, with what to do about each. All of them have the same exit status, so only their
//! words distinguish them.

use crate::error::Error;
use crate::source::child::Line;

/// The words of a failure, whether it is permanent, and what to do about it.
const KNOWN: &[(&str, bool, &str)] = &[
    (
        "Could not read token",
        true,
        "run `aptible login`, or set APTIBLE_ACCESS_TOKEN; then run the same command again",
    ),
    (
        "API authentication error",
        true,
        "the session has expired: a login lasts a week, or 12 hours with a second factor. Run `aptible login`, then the \
         same command again; what was committed stays",
    ),
    (
        "is not provisioned",
        true,
        "it has no server now. Wait until Aptible has started it, restore it from a backup, or leave it out by \
         `exclude`",
    ),
    (
        "Could not find database",
        true,
        "it was deprovisioned or renamed, or the name is wrong; `aptible db:list` shows what there is",
    ),
    (
        "Could not find environment",
        true,
        "the name is wrong, or this login may not see it; `aptible environment:list` shows what there is",
    ),
    (
        "Specified account does not exist",
        true,
        "there is no such environment, or this login may not see it; `aptible environment:list` shows what there is",
    ),
    ("Multiple databases exist", true, "name the environment: aptible:ENVIRONMENT/HANDLE"),
    (
        "No default credential for database",
        true,
        "this version needs the default credential: ask Aptible's support for it, or export the database by hand \
         through `aptible db:tunnel --type TYPE`",
    ),
    (
        "No credential with type",
        true,
        "Aptible has taken this way in from the database: ask its support for it, or export the database by hand",
    ),
    (
        "Tunnel timed out",
        false,
        "Aptible ends each tunnel after 24 hours; it is opened again, and the same command continues",
    ),
    (
        "Tunnel crashed",
        false,
        "its ssh ended, most often because the network was down; run the same command again to continue",
    ),
    (
        "Tunnel did not come up",
        false,
        "its ssh could not connect: check the network of this machine, and that ssh and ssh-keygen are installed; then \
         run the same command again",
    ),
];

/// A line of the CLI's standard error as it may be shown; `None` if it may contain a password.
pub(super) fn shown(line: &Line) -> Option<String> {
    let is_secret = ["://", "Password", "password"].iter().any(|sign| line.text.contains(sign));
    (!is_secret).then(|| line.to_string())
}

/// An error that quotes the CLI, with what to do about it.
pub(super) fn explained(error: Error) -> Error {
    let text = error.to_string();
    let known = KNOWN.iter().find(|(words, ..)| text.contains(words));
    match known {
        Some((_, true, hint)) => error.for_good().hint(hint),
        Some((_, false, hint)) => error.hint(hint),
        None => error.hint("run this command of Aptible's CLI by hand to see more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Class, Exit};

    #[test]
    fn each_failure_says_what_to_do() {
        for (said, exit, todo) in [
            ("Could not read token: please run aptible login or set …", Exit::Failed, "APTIBLE_"),
            ("API authentication error: please run aptible login", Exit::Failed, "12 hours"),
            ("Database main is not provisioned", Exit::Failed, "exclude"),
            ("Tunnel timed out", Exit::Incomplete, "24 hours"),
            ("Tunnel did not come up: ssh: connect to host …", Exit::Incomplete, "network"),
            ("something new", Exit::Incomplete, "by hand"),
        ] {
            let error = explained(Error::of(Class::Retry, said));
            assert_eq!(error.exit(), exit, "{said}");
            assert!(error.hint_text().unwrap().contains(todo), "{said}");
        }
    }
}
