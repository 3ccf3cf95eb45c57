//! PURE: what somebody has to export by hand, with the command to do it.

use crate::error::Error;
use crate::source::aptible::account::{Engine, Listed};

/// Why a database cannot be exported by this version, with what to do instead; `None` where it can.
pub(super) fn by_hand(listed: &Listed) -> Option<Error> {
    let (handle, environment) = (&listed.handle, &listed.environment.handle);
    let tunnel = format!("aptible db:tunnel {handle} --environment {environment}");
    let (what, how) = match listed.engine() {
        Engine::Elasticsearch => (
            "an Elasticsearch",
            format!(
                "`{tunnel} --port 9200`, then for each index `elasticdump --input=https://USER:PASSWORD@HOST:9200/INDEX \
                 --output=INDEX.json --type=data` (and --type=mapping), or a snapshot into a bucket of your own: the \
                 plugin for that is installed"
            ),
        ),
        Engine::RabbitMq => (
            "a RabbitMQ",
            format!(
                "`{tunnel} --type management --port 15671`, then `curl -fsSu USER https://HOST:15671/api/definitions -o \
                 definitions.json`, which holds hashes of passwords. Messages are not in it: let your consumers empty \
                 the queues first"
            ),
        ),
        Engine::CouchDb => (
            "a CouchDB",
            format!(
                "`{tunnel} --port 6984`, then for each database `couchbackup --url https://USER:PASSWORD@HOST:6984 --db \
                 DATABASE > DATABASE.txt`, which leaves out attachments: fetch these by themselves"
            ),
        ),
        Engine::Sftp => (
            "an SFTP server",
            format!(
                "its files leave by SFTP: `sftp -r USER@HOST:/ .` with the address of `aptible db:url {handle} \
                 --environment {environment}`"
            ),
        ),
        Engine::Rds => (
            "a database of your own AWS account (RDS), which Aptible does not delete",
            format!(
                "where it is to be exported all the same: `{tunnel} --port 5433`, and the printed address as a source \
                 of its own"
            ),
        ),
        Engine::Unknown => {
            ("of a kind that this version does not know", format!("`{tunnel}`, and its own tools"))
        }
        Engine::Postgres
        | Engine::MySql { .. }
        | Engine::InfluxDb1
        | Engine::InfluxDb2
        | Engine::Redis
        | Engine::MongoDb => return None,
    };
    let product = listed.product();
    Some(
        Error::fail(format!("it is {what} ({product}), which is to be exported by hand")).hint(
            format!("{how}. When that is done, leave it out: exclude = [\"{}\"]", listed.name()),
        ),
    )
}

/// Why a database has no server to ask; `None` where it has.
pub(super) fn not_there(listed: &Listed) -> Option<Error> {
    let status = listed.status.as_deref()?;
    (status != "provisioned").then(|| {
        Error::fail(format!("it is not provisioned: its status is `{}`", status.escape_debug()))
            .hint(
                "wait until Aptible has started it, restore it from a backup, or leave it out by `exclude`",
            )
    })
}
