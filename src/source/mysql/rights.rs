//! What the user may see. The catalog hides everything else, even its existence: of a table in which the user may read
//! only some columns, it shows these as if there were no others.

use crate::model::TableId;
use crate::source::mysql::catalog::{Catalog, Entry};
use crate::source::mysql::client::Client;
use crate::source::mysql::errors::CommandError;
use crate::source::mysql::select::{quoted, table_name};

/// What `SHOW GRANTS` says about the user's sight.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Sight {
    /// Whether the user has SELECT on everything, with no right revoked from that.
    pub(super) everything: bool,
    /// What was revoked from wider rights (`partial_revokes`).
    pub(super) revoked: Vec<String>,
}

pub(super) fn sight(client: &mut Client) -> Result<Sight, CommandError> {
    let role = if client.is_mariadb { client.value("SELECT CURRENT_ROLE()")? } else { None };
    let grants = client.query("SHOW GRANTS")?;
    let lines = grants.iter().flatten().flatten().map(String::as_str);
    Ok(read(lines, role.as_deref()))
}

/// MariaDB also shows the rights of inactive roles, which do not count. It names a role without a host.
fn read<'a>(lines: impl Iterator<Item = &'a str>, role: Option<&str>) -> Sight {
    let role = role.map(quoted);
    let mut sight = Sight::default();
    for line in lines {
        if let Some(revoke) = line.strip_prefix("REVOKE ") {
            sight
                .revoked
                .push(revoke.rsplit_once(" FROM ").map_or(revoke, |(what, _)| what).to_owned());
        } else if let Some((rights, to)) = line.split_once(" ON *.* TO ") {
            let to = to.split(" WITH ").next().unwrap_or_default();
            let holds = to.contains('@') || role.as_deref().is_some_and(|role| role == to.trim());
            let mut rights = rights.trim_start_matches("GRANT ").split(',').map(str::trim);
            let all = |right: &str| right == "SELECT" || right.starts_with("ALL PRIVILEGES");
            sight.everything |= holds && rights.any(all);
        }
    }
    sight.everything &= sight.revoked.is_empty();
    sight
}

/// Tries to read each table, and notes those that cannot be read completely.
pub(super) fn probe(client: &mut Client, catalog: &mut Catalog) -> Result<(), CommandError> {
    const AT_ONCE: usize = 100;
    let mut left: Vec<(TableId, &mut Entry)> = Vec::new();
    for ((database, table), entry) in &mut catalog.tables {
        let (source, schema) = (String::new(), String::new());
        let id = TableId { source, database: database.clone(), schema, table: table.clone() };
        // Tables that cannot be opened are reported elsewhere.
        if entry.engine.is_some() && entry.forbidden.is_empty() {
            left.push((id, entry));
        }
    }
    for tables in left.chunks_mut(AT_ONCE) {
        let mut from = 0;
        while from < tables.len() {
            // `*` leaves out invisible columns, so the definition is asked for, too: it shows all columns or nothing.
            let asked = tables[from..].iter().map(|(id, _)| {
                let name = table_name(id);
                format!("SELECT * FROM {name} LIMIT 0; SHOW CREATE TABLE {name}")
            });
            let asked = asked.collect::<Vec<_>>().join(";");
            let mut shown = 0;
            match client.query_each(&asked, |_| shown += 1) {
                Ok(()) => from = tables.len(),
                // The statements before the refused one have been answered; those after it have not been run.
                Err(CommandError::Server(error)) => {
                    let Some((_, entry)) = tables.get_mut(from + shown) else { break };
                    entry.refused =
                        Some(format!("the user may read only some of its columns: {error}"));
                    from += shown + 1;
                }
                Err(broken) => return Err(broken),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_rights_that_the_user_has_count() {
        let everything = |lines: &[&str], role| read(lines.iter().copied(), role).everything;
        assert!(everything(&["GRANT ALL PRIVILEGES ON *.* TO 'a'@'%' WITH GRANT OPTION"], None));
        assert!(everything(&["GRANT PROCESS, SELECT ON *.* TO `a`@`%`"], None));
        assert!(!everything(
            &["GRANT USAGE ON *.* TO `a`@`%`", "GRANT SELECT ON `d`.* TO `a`@`%`"],
            None
        ));
        let of_role = ["GRANT `r` TO `a`@`%`", "GRANT SELECT ON *.* TO `r`"];
        assert!(!everything(&of_role, None) && !everything(&of_role, Some("s")));
        assert!(everything(&of_role, Some("r")));
        let revoked = ["GRANT SELECT ON *.* TO `a`@`%`", "REVOKE SELECT ON `d2`.* FROM `a`@`%`"];
        let sight = read(revoked.into_iter(), None);
        assert_eq!(
            sight,
            Sight { everything: false, revoked: vec!["SELECT ON `d2`.*".to_owned()] }
        );
    }
}
