//! The audit log: who changed what, written in the transaction of the change.

use super::{
    Page, Result, Store,
    driver::{Tx, params},
};
use crate::{
    clock::Timestamp,
    id::{AuditId, Id},
};

/// A change that is about to be made. Never holds a secret's value.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The API key's name, `master key`, `config file` or `bellpull`.
    pub actor: String,
    /// A verb with its noun, such as `secret.set`.
    pub action: &'static str,
    pub target: String,
    pub details: serde_json::Value,
}

#[derive(Clone, Debug, PartialEq)]
pub struct AuditEntry {
    pub id: AuditId,
    pub at: Timestamp,
    pub actor: String,
    pub action: String,
    pub target: String,
    pub details: serde_json::Value,
}

impl Store {
    /// What was changed, newest first.
    pub async fn audit(&self, cursor: Option<AuditId>, limit: usize) -> Result<Page<AuditEntry>> {
        self.driver
            .read(move |tx| {
                let columns = "select id, at, actor, action, target, details from audit";
                let (order, n) = ("order by id desc limit $1", limit as i64 + 1);
                let rows = match &cursor {
                    Some(cursor) => {
                        tx.query(&format!("{columns} where id < $2 {order}"), &params![n, cursor])?
                    }
                    None => tx.query(&format!("{columns} {order}"), &params![n])?,
                };
                let entries = rows.into_iter().map(|mut row| {
                    Ok(AuditEntry {
                        id: row.id(0)?,
                        at: row.time(1)?,
                        actor: row.text(2)?,
                        action: row.text(3)?,
                        target: row.text(4)?,
                        details: row.json(5)?,
                    })
                });
                let entries = entries.collect::<Result<Vec<_>>>()?;
                Ok(Page::from_rows(entries, limit, |entry| entry.id.to_string()))
            })
            .await
    }
}

/// Notes a change of the configuration, and lets every node read it again.
pub(super) fn note(tx: &mut Tx<'_>, change: &Change, at: Timestamp) -> Result<()> {
    note_only(tx, change, at)?;
    super::bump_revision(tx)
}

/// Notes a change of something that is no configuration.
pub(super) fn note_only(tx: &mut Tx<'_>, change: &Change, at: Timestamp) -> Result<()> {
    tx.execute(
        "insert into audit (id, at, actor, action, target, details) \
         values ($1, $2, $3, $4, $5, $6)",
        &params![
            &AuditId::new(at),
            at,
            &change.actor,
            change.action,
            &change.target,
            change.details.to_string(),
        ],
    )?;
    Ok(())
}
