//! The audit log: who changed what, written in the transaction of the change.

use super::{
    Page, Result, Store,
    driver::{Tx, params},
    select::Select,
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
        self.audit_of(AuditFilter { cursor, limit, ..AuditFilter::default() }).await
    }

    /// As [`Store::audit`], of one actor or one kind of change.
    pub async fn audit_of(&self, filter: AuditFilter) -> Result<Page<AuditEntry>> {
        self.driver
            .read(move |tx| {
                let columns = "select id, at, actor, action, target, details from audit";
                let mut select = Select::new(format!("{columns} where 1 = 1"), []);
                select.and_some("actor =", filter.actor.as_ref());
                select.and_some("action =", filter.action.as_ref());
                select.and_some("id <", filter.cursor.as_ref());
                let (sql, values) = select.page("id desc", filter.limit);
                let entries = tx.query(&sql, &values)?.into_iter().map(|mut row| {
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
                Ok(Page::from_rows(entries, filter.limit, |entry| entry.id.to_string()))
            })
            .await
    }

    /// Everybody who changed something, and every kind of change, for choosing one of them. The first
    /// [`WORDS_MAX`] of each.
    pub async fn audit_words(&self) -> Result<(Vec<String>, Vec<String>)> {
        self.driver.read(|tx| Ok((words(tx, "actor")?, words(tx, "action")?))).await
    }
}

/// Which entries of the audit log a list shows.
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    pub actor: Option<String>,
    pub action: Option<String>,
    pub cursor: Option<AuditId>,
    pub limit: usize,
}

const WORDS_MAX: i64 = 100;

/// The values of a column, each found by one look at its index, however many rows have it. The column
/// is no word from outside.
fn words(tx: &mut Tx<'_>, column: &'static str) -> Result<Vec<String>> {
    let sql = format!(
        "with recursive found (word) as (select min({column}) from audit union all \
         select (select min({column}) from audit where {column} > found.word) from found \
         where found.word is not null) \
         select word from found where word is not null limit $1"
    );
    tx.query(&sql, &params![WORDS_MAX])?.into_iter().map(|mut row| row.text(0)).collect()
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
