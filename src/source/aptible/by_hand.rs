//! PURE: the databases that somebody has to export by hand, with the commands to do so.

use crate::error::Error;
use crate::source::aptible::account::{Engine, Listed};

/// Why this version cannot export a database, with what to do instead; `None` if it can.
pub(crate) fn by_hand(listed: &Listed) -> Option<Error> {
    let (handle, environment) = (&listed.handle, &listed.environment.handle);
    let tunnel = format!("aptible db:tunnel {handle} --environment {environment}");
    let (what, how) = match listed.engine() {
        Engine::Elasticsearch => (
            "an Elasticsearch",
            format!(
                "`{tunnel} --port 9200`, then for each index `elasticdump --input=https://USER:PASSWORD@HOST:9200/INDEX \
                 --output=INDEX.json --type=data` (and --type=mapping); or make a snapshot in your own bucket, for which \
                 the plugin is installed"
            ),
        ),
        Engine::RabbitMq => (
            "a RabbitMQ",
            format!(
                "`{tunnel} --type management --port 15671`, then `curl -fsSu USER https://HOST:15671/api/definitions -o \
                 definitions.json`, which contains hashes of passwords. It has no messages: let your consumers empty \
                 the queues first"
            ),
        ),
        Engine::CouchDb => (
            "a CouchDB",
            format!(
                "`{tunnel} --port 6984`, then for each database `couchbackup --url https://USER:PASSWORD@HOST:6984 --db \
                 DATABASE > DATABASE.txt`, which leaves out attachments: fetch these separately"
            ),
        ),
        Engine::Sftp => (
            "an SFTP server",
            format!(
                "fetch its files by `sftp -r USER@HOST:/ .`, with the address that `aptible db:url {handle} \
                 --environment {environment}` prints"
            ),
        ),
        Engine::Rds => (
            "a database of your own AWS account (RDS), which Aptible does not delete",
            format!(
                "to export it all the same, run `{tunnel} --port 5433`, and name the printed address as another source"
            ),
        ),
        Engine::Unknown => (
            "a database of a kind that this version does not know",
            format!("run `{tunnel}`, and use its own tools"),
        ),
        Engine::Postgres
        | Engine::MySql { .. }
        | Engine::InfluxDb1
        | Engine::InfluxDb2
        | Engine::Redis
        | Engine::MongoDb => return None,
    };
    let product = listed.product();
    Some(
        Error::fail(format!("it is {what} ({product}), which must be exported by hand")).hint(
            format!("{how}. When that is done, leave it out: exclude = [\"{}\"]", listed.name()),
        ),
    )
}

/// Why a database has no running server; `None` if it has one.
pub(crate) fn not_there(listed: &Listed) -> Option<Error> {
    let status = listed.status.as_deref()?;
    (status != "provisioned").then(|| {
        Error::fail(format!("it is not provisioned: its status is `{}`", status.escape_debug()))
            .hint(
                "wait until Aptible has started it, restore it from a backup, or leave it out by `exclude`",
            )
    })
}
