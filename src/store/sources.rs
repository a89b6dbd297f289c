//! Sources. A row is never removed: it is retired, and the same name back is the same source.

use std::collections::BTreeSet;

use super::{
    Change, Error, Result, Store, audit, callbacks,
    driver::{Row, Tx, params},
    limits,
    select::Select,
};
use crate::{
    clock::Timestamp,
    domain::{
        ManagedBy,
        source::{Source, SourceDefinition, SourceKind, WebhookTools},
        turn::TurnLimits,
    },
    id::{AgentId, Id, SourceId},
};

const COLUMNS: &str = "id, kind, name, definition, paused, managed_by, created_at, updated_at, \
    retired_at from sources";

impl Store {
    /// Every source, retired ones too. What a node's snapshot is made of.
    pub async fn sources(&self) -> Result<Vec<Source>> {
        self.driver
            .read(|tx| {
                let rows = tx.query(&format!("select {COLUMNS} order by kind, name"), &[])?;
                rows.into_iter().map(from_row).collect()
            })
            .await
    }

    /// One of them, by its id.
    pub async fn source(&self, id: &SourceId) -> Result<Source> {
        let id = id.clone();
        self.driver.read(move |tx| read(tx, &id)).await
    }

    /// What these sources leave to tools that do more than read: the strictest of them.
    pub async fn webhook_tools(&self, sources: BTreeSet<SourceId>) -> Result<WebhookTools> {
        self.driver.read(move |tx| strictest(tx, &sources)).await
    }

    /// Makes a named source or changes the one that has the name (a retired one comes back).
    /// [`Error::Conflict`] when the config file manages it and the change does not come from there.
    pub async fn put_source(&self, source: Source, change: Change) -> Result<Source> {
        let at = self.clock.now();
        self.configure(move |tx| {
            let (kind, name) = (kind_text(&source.kind), &source.name);
            let sql = format!("select {COLUMNS} where kind = $1 and name = $2 {{wait}}");
            let existing = tx.first(&sql, &params![kind, name])?.map(from_row).transpose()?;
            let Some(existing) = existing else {
                insert(tx, &source)?;
                audit::note(tx, &change, at)?;
                return Ok(source);
            };
            refuse_foreign(&existing, source.managed_by)?;
            tx.execute(
                "update sources set definition = $2, managed_by = $3, updated_at = $4, \
                     retired_at = null where id = $1",
                &params![
                    &existing.id,
                    super::to_json(&source.definition),
                    source.managed_by.as_str(),
                    at,
                ],
            )?;
            limits::put(tx, existing.id.as_str(), source.definition.turn_limits())?;
            let callback = source.definition.callback.as_ref();
            callbacks::put(tx, existing.id.as_str(), callback, at)?;
            audit::note(tx, &change, at)?;
            read(tx, &existing.id)
        })
        .await
    }

    pub async fn pause_source(
        &self,
        id: &SourceId,
        paused: bool,
        change: Change,
    ) -> Result<Source> {
        let (id, at) = (id.clone(), self.clock.now());
        self.configure(move |tx| {
            let sql = "update sources set paused = $2, updated_at = $3 where id = $1";
            if tx.execute(sql, &params![&id, paused, at])? == 0 {
                return Err(Error::NotFound);
            }
            audit::note(tx, &change, at)?;
            read(tx, &id)
        })
        .await
    }

    /// Lets nobody in any more; deliveries and identities stay.
    pub async fn retire_source(
        &self,
        id: &SourceId,
        by: ManagedBy,
        change: Change,
    ) -> Result<Source> {
        let (id, at) = (id.clone(), self.clock.now());
        self.configure(move |tx| {
            let source = read(tx, &id)?;
            refuse_foreign(&source, by)?;
            let sql = "update sources set retired_at = coalesce(retired_at, $2), \
                           updated_at = $2 where id = $1";
            tx.execute(sql, &params![&id, at])?;
            limits::put(tx, id.as_str(), TurnLimits::default())?;
            audit::note(tx, &change, at)?;
            read(tx, &id)
        })
        .await
    }
}

fn refuse_foreign(existing: &Source, by: ManagedBy) -> Result<()> {
    match existing.retired_at {
        None => super::refuse_declared(existing.managed_by, by, &existing.name, "change it"),
        Some(_) => Ok(()),
    }
}

/// As [`Store::webhook_tools`]. Those that are not there say nothing.
pub(super) fn strictest(tx: &mut Tx<'_>, sources: &BTreeSet<SourceId>) -> Result<WebhookTools> {
    if sources.is_empty() {
        return Ok(WebhookTools::default());
    }
    let mut select = Select::new("select definition from sources where 1 = 1", []);
    select.and_among("id", sources);
    let (sql, values) = select.into_parts();
    let rows = tx.query(&sql, &values)?.into_iter();
    rows.map(|mut row| Ok(row.json::<SourceDefinition>(0)?.webhook_tools))
        .try_fold(WebhookTools::default(), |all, one: Result<_>| Ok(all.max(one?)))
}

fn kind_text(kind: &SourceKind) -> &'static str {
    match kind {
        SourceKind::Agent(_) => "agent",
        SourceKind::Named => "named",
    }
}

pub(super) fn insert(tx: &mut Tx<'_>, source: &Source) -> Result<()> {
    tx.execute(
        "insert into sources (id, kind, name, definition, managed_by, created_at, updated_at) \
         values ($1, $2, $3, $4, $5, $6, $6)",
        &params![
            &source.id,
            kind_text(&source.kind),
            &source.name,
            super::to_json(&source.definition),
            source.managed_by.as_str(),
            source.created_at,
        ],
    )?;
    limits::put(tx, source.id.as_str(), source.definition.turn_limits())?;
    callbacks::put(tx, source.id.as_str(), source.definition.callback.as_ref(), source.created_at)
}

/// An archived agent's own source lets nobody in.
pub(super) fn retire_of_agent(tx: &mut Tx<'_>, agent: &AgentId, at: Timestamp) -> Result<()> {
    let sql = "update sources set retired_at = $2 where kind = 'agent' and name = $1 returning id";
    let row = tx.first(sql, &params![agent, at])?;
    let mut row = row.ok_or(Error::Bug("an agent without a source"))?;
    limits::put(tx, &row.text(0)?, TurnLimits::default())
}

/// Names the secret of an agent's own source. Tells whether that is a change.
pub(super) fn keep_secret_at(
    tx: &mut Tx<'_>,
    agent: &AgentId,
    secret_key: Option<String>,
    at: Timestamp,
) -> Result<bool> {
    let sql = format!("select {COLUMNS} where kind = 'agent' and name = $1 {{wait}}");
    let row = tx.first(&sql, &params![agent])?.ok_or(Error::Bug("an agent without a source"))?;
    let mut source = from_row(row)?;
    if source.definition.secret_key == secret_key {
        return Ok(false);
    }
    source.definition.secret_key = secret_key;
    tx.execute(
        "update sources set definition = $2, updated_at = $3 where id = $1",
        &params![&source.id, super::to_json(&source.definition), at],
    )?;
    Ok(true)
}

fn read(tx: &mut Tx<'_>, id: &SourceId) -> Result<Source> {
    let row = tx.first(&format!("select {COLUMNS} where id = $1"), &params![id])?;
    row.ok_or(Error::NotFound).and_then(from_row)
}

fn from_row(mut row: Row) -> Result<Source> {
    let (kind, name, managed_by) = (row.text(1)?, row.text(2)?, row.text(5)?);
    let kind = if kind == "agent" {
        let id: AgentId = name.parse().map_err(|_| Error::Bug("an agent source without agent"))?;
        SourceKind::Agent(id)
    } else {
        SourceKind::Named
    };
    Ok(Source {
        id: row.id(0)?,
        kind,
        name,
        definition: row.json(3)?,
        paused: row.flag(4)?,
        managed_by: ManagedBy::parse(&managed_by),
        created_at: row.time(6)?,
        updated_at: row.time(7)?,
        retired_at: row.time_or_null(8)?,
    })
}
