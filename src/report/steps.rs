//! PURE: what is left to do until a source is cancelled, in the words of its provider's own pages: what is done, what is
//! open, and what only a person can do.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::model::{ArtifactOutcome, Verdict};
use crate::report::answer::Answer;
use crate::report::sources::SourceReport;
use crate::report::words::short;
use crate::text::escaped;

/// How far a step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    Done,
    Open,
    /// Only a person can do it.
    Yours,
    /// Only a person can do it, in the provider's console.
    Console,
}

/// One step.
#[derive(Debug, Serialize)]
pub(super) struct Step {
    title: &'static str,
    detail: &'static str,
    state: State,
}

/// The steps of one provider.
#[derive(Debug, Serialize)]
pub(super) struct Checklist {
    provider: &'static str,
    /// The sources that it is about.
    sources: Vec<String>,
    steps: Vec<Step>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Provider {
    InfluxCloud,
    Aptible,
    Alibaba,
    SelfHosted,
    Files,
}

impl Provider {
    fn of(source: &SourceReport) -> Self {
        let address = source.info.address.as_str();
        let host = host(address);
        match () {
            () if address.starts_with("aptible:") => Self::Aptible,
            () if address.starts_with("lp:") => Self::Files,
            () if is_below(host, "cloud2.influxdata.com") => Self::InfluxCloud,
            () if source.info.version.contains("Cloud Serverless") => Self::InfluxCloud,
            () if is_below(host, "aliyuncs.com") => Self::Alibaba,
            () => Self::SelfHosted,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::InfluxCloud => "InfluxDB Cloud",
            Self::Aptible => "Aptible",
            Self::Alibaba => "Alibaba Cloud",
            Self::SelfHosted => "Your own server",
            Self::Files => "Files",
        }
    }
}

/// The host in an address such as `https://HOST:PORT/…` or `USER@HOST:PORT`.
fn host(address: &str) -> &str {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    let place = rest.split(['/', '?']).next().unwrap_or_default();
    let place = place.rsplit('@').next().unwrap_or_default();
    place.split(':').next().unwrap_or_default().trim_end_matches('.')
}

fn is_below(host: &str, domain: &str) -> bool {
    let host = host.to_ascii_lowercase();
    host.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// The checklist of each provider that a source is at.
pub(super) fn checklists(
    answer: &Answer,
    sources: &[SourceReport],
    is_exported: impl Fn(&SourceReport) -> bool,
) -> Vec<Checklist> {
    let mut by_provider = BTreeMap::<Provider, Vec<&SourceReport>>::new();
    for source in sources {
        by_provider.entry(Provider::of(source)).or_default().push(source);
    }
    let lists = by_provider.into_iter().map(|(provider, sources)| Checklist {
        provider: provider.name(),
        steps: steps(provider, &sources, answer, &is_exported),
        sources: sources.iter().map(|source| short(&source.info.name)).collect(),
    });
    lists.collect()
}

fn steps(
    provider: Provider,
    sources: &[&SourceReport],
    answer: &Answer,
    is_exported: impl Fn(&SourceReport) -> bool,
) -> Vec<Step> {
    let done = |is_done: bool| if is_done { State::Done } else { State::Open };
    let yours = |title, detail| Step { title, detail, state: State::Yours };
    let is_open = |source: &&SourceReport| {
        let name = escaped(&source.info.name).to_string();
        answer.open.iter().any(|open| open.source.is_empty() || open.source == name)
    };
    let is_proved =
        answer.verdict == Verdict::Safe || answer.proved.is_some() && !sources.iter().any(is_open);
    let console = |title, detail| Step { title, detail, state: State::Console };
    let is_exported = sources.iter().all(|source| is_exported(source));
    let exported = Step {
        title: "Export everything",
        detail: if is_exported {
            "All that was requested is in this archive, in time-based batches, and the archive is sealed."
        } else {
            "The archive is not sealed, or lacks some or all of what was requested. Run the same `moveout export` again."
        },
        state: done(is_exported),
    };
    let proved = Step {
        title: "Compare the archive with the source",
        detail: if is_proved {
            "The source was asked again, and has what this archive has."
        } else {
            "`moveout verify ARCHIVE --against-source` asks the source again. Do this after the writers have stopped."
        },
        state: done(is_proved),
    };
    let copy = yours(
        "Keep a second copy of the archive elsewhere",
        "Check the copy with `sha256sum`, and read some rows of it. After the last step there is no other copy.",
    );
    match provider {
        Provider::InfluxCloud => vec![
            yours(
                "Stop everything that writes or queries",
                "Pause Telegraf, clients and tasks. Rows that arrive after the comparison are in no archive.",
            ),
            Step {
                title: "Save the Telegraf configurations",
                detail: "The archive has them below `_artifacts`, one file each, or records that there are none.",
                state: done(sources.iter().all(|source| has_telegrafs(source))),
            },
            exported,
            proved,
            yours(
                "Write down the values of secrets",
                "No interface gives them, nor the text of a token. The archive has their names alone.",
            ),
            copy,
            console(
                "Cancel the service",
                "In the console: Billing, then Cancel Service. A subscription by AWS or Google Cloud ends at their marketplace. The final balance is charged at once, writes, queries and tasks stop at once, and it cannot be undone: no page promises a period of grace.",
            ),
        ],
        Provider::Aptible => vec![
            yours(
                "Stop the apps",
                "Scale all services that write to the databases to 0 containers.",
            ),
            exported,
            proved,
            yours(
                "Look for backups of databases that are gone",
                "`aptible backup:orphaned` lists them. A backup cannot be downloaded: restore it to a new database, which is billed, and export that.",
            ),
            copy,
            console(
                "Deprovision the databases",
                "Daily and monthly backups of a database go with it.",
            ),
            console(
                "Delete the final backups",
                "They are billed until then. Afterwards nobody has a copy but you.",
            ),
            console("Cancel the account", "Last, when nothing in it is needed any more."),
        ],
        Provider::Alibaba => vec![
            yours(
                "Stop everything that writes",
                "Rows that arrive after the comparison are in no archive.",
            ),
            exported,
            proved,
            console(
                "Download what has no export",
                "Backups of Tair and of Lindorm cannot be restored after the release. Databases that moveout cannot read have only those.",
            ),
            copy,
            console(
                "Release or unsubscribe the instance",
                "A subscription is unsubscribed in the console: tick that the amount of the refund is right, and that you have backed up or migrated your data. A pay-as-you-go instance is released instead. All data is deleted for good.",
            ),
            console(
                "Look at what is left",
                "Backups that are kept beyond an instance (level-2 backups of PolarDB) stay until they are deleted, and are billed.",
            ),
        ],
        Provider::SelfHosted => vec![
            yours(
                "Stop everything that writes",
                "Rows that arrive after the comparison are in no archive.",
            ),
            exported,
            proved,
            copy,
            yours(
                "Switch the server off",
                "Whatever its provider calls it: cancel, release, delete. Where you can, stop it some days before its data is deleted.",
            ),
        ],
        Provider::Files => vec![
            exported,
            proved,
            copy,
            yours(
                "Delete the files, or keep them",
                "They are the source, and there is nothing to cancel.",
            ),
        ],
    }
}

fn has_telegrafs(source: &SourceReport) -> bool {
    let mut telegrafs = source.artifacts.iter().filter(|artifact| artifact.kind == "telegrafs");
    telegrafs.any(|telegrafs| {
        matches!(telegrafs.status, ArtifactOutcome::Saved(_) | ArtifactOutcome::None)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_provider_is_known_by_its_hosts_alone() {
        let of = |address: &str| {
            let mut source = SourceReport::new("s");
            source.info.address = address.to_owned();
            Provider::of(&source)
        };
        assert_eq!(of("https://eu-central-1-1.aws.cloud2.influxdata.com"), Provider::InfluxCloud);
        assert_eq!(of("aptible:production/db"), Provider::Aptible);
        assert_eq!(of("me@rm-1.mysql.rds.aliyuncs.com:3306"), Provider::Alibaba);
        assert_eq!(of("https://ts-1.influxdata.rds.aliyuncs.com:3242"), Provider::Alibaba);
        assert_eq!(of("https://cloud2.influxdata.com.example.com"), Provider::SelfHosted);
        assert_eq!(of("https://notaliyuncs.com"), Provider::SelfHosted);
        assert_eq!(of("lp:weather.lp"), Provider::Files);
    }
}
