//! Environments.
//!
//! One that sessions still work in is not deleted: whoever makes a session looks for its environment
//! in the same transaction.

use super::{
    Change, Error, Page, Result, Store, audit,
    driver::{Row, Tx, params},
};
use crate::{
    clock::Timestamp,
    domain::{
        ManagedBy, Problem,
        environment::{Environment, EnvironmentPatch},
    },
    id::EnvironmentId,
};

const COLUMNS: &str = "id, name, description, config, metadata, managed_by, created_at, \
    updated_at, archived_at from environments";

impl Store {
    /// [`Error::Conflict`] when a living environment has the name.
    pub async fn create_environment(
        &self,
        environment: Environment,
        change: Change,
    ) -> Result<Environment> {
        self.configure(move |tx| {
            if by_name(tx, &environment.name)?.is_some() {
                return Err(taken(&environment.name));
            }
            insert(tx, &environment)?;
            audit::note(tx, &change, environment.created_at)?;
            Ok(environment)
        })
        .await
    }

    /// Applies a patch; a change of nothing changes nothing. [`Error::Conflict`] when another living
    /// environment has the name or the config file declares it; [`Error::Invalid`] when it is archived,
    /// or would not be valid.
    pub async fn update_environment(
        &self,
        id: &EnvironmentId,
        patch: EnvironmentPatch,
        change: Change,
    ) -> Result<Environment> {
        let (id, at) = (id.clone(), self.clock.now());
        self.configure(move |tx| {
            let before = ours(tx, &id)?;
            if before.archived_at.is_some() {
                let problem = Problem::new("environment", "is archived and cannot be changed");
                return Err(Error::Invalid(problem.with_code("environment_archived")));
            }
            let mut after = patch.apply(before.clone()).map_err(Error::Invalid)?;
            if after == before {
                return Ok(before);
            }
            if after.name != before.name && by_name(tx, &after.name)?.is_some() {
                return Err(taken(&after.name));
            }
            after.updated_at = at;
            write(tx, &after)?;
            audit::note(tx, &change, at)?;
            Ok(after)
        })
        .await
    }

    /// Makes the living environment of this name what the config file says, or makes one. One of
    /// another kind is archived, as its sessions go on in it, and a new one takes the name.
    pub async fn declare_environment(
        &self,
        declared: Environment,
        change: Change,
    ) -> Result<Environment> {
        self.configure(move |tx| {
            let at = declared.created_at;
            let after = match by_name(tx, &declared.name)? {
                Some(before) if before.config.is_like(&declared.config) => {
                    let (id, created_at) = (before.id, before.created_at);
                    let after = Environment { id, created_at, updated_at: at, ..declared };
                    write(tx, &after)?;
                    after
                }
                before => {
                    if let Some(before) = before {
                        retire(tx, &before.id, at)?;
                    }
                    insert(tx, &declared)?;
                    declared
                }
            };
            audit::note(tx, &change, at)?;
            Ok(after)
        })
        .await
    }

    /// Says who manages it from now on. [`Error::NotFound`] without it.
    pub async fn hand_over_environment(
        &self,
        id: &EnvironmentId,
        managed_by: ManagedBy,
        change: Change,
    ) -> Result<()> {
        let (id, at) = (id.clone(), self.clock.now());
        self.configure(move |tx| {
            let sql = "update environments set managed_by = $2 where id = $1";
            if tx.execute(sql, &params![&id, managed_by.as_str()])? == 0 {
                return Err(Error::NotFound);
            }
            audit::note(tx, &change, at)
        })
        .await
    }

    /// Permanent: read-only from now on, and no new sessions. Its sessions go on.
    pub async fn archive_environment(
        &self,
        id: &EnvironmentId,
        change: Change,
    ) -> Result<Environment> {
        let (id, at) = (id.clone(), self.clock.now());
        self.configure(move |tx| {
            ours(tx, &id)?;
            if retire(tx, &id, at)? {
                audit::note(tx, &change, at)?;
            }
            read(tx, &id)
        })
        .await
    }

    /// Removes it. [`Error::Conflict`] while a session that is not archived belongs to it.
    pub async fn delete_environment(&self, id: &EnvironmentId, change: Change) -> Result<()> {
        let (id, at) = (id.clone(), self.clock.now());
        self.configure(move |tx| {
            ours(tx, &id)?;
            // No index serves this: it would cost every accept, for the sake of a rare look.
            let sql = "select id from sessions where environment_id = $1 and archived_at is null \
                       limit 1";
            if let Some(mut row) = tx.first(sql, &params![&id])? {
                let session = row.text(0)?;
                return Err(Error::Conflict(format!(
                    "the session {session} works in this environment; archive or delete its \
                     sessions first"
                )));
            }
            tx.execute("delete from environments where id = $1", &params![&id])?;
            audit::note(tx, &change, at)
        })
        .await
    }

    pub async fn environment(&self, id: &EnvironmentId) -> Result<Environment> {
        let id = id.clone();
        self.driver.read(move |tx| read(tx, &id)).await
    }

    pub async fn environments(
        &self,
        include_archived: bool,
        cursor: Option<EnvironmentId>,
        limit: usize,
    ) -> Result<Page<Environment>> {
        self.driver
            .read(move |tx| {
                let archived = if include_archived { "" } else { "and archived_at is null" };
                let before = if cursor.is_some() { "and id < $2" } else { "" };
                let sql = format!(
                    "select {COLUMNS} where 1 = 1 {archived} {before} order by id desc limit $1"
                );
                let n = limit as i64 + 1;
                let rows = match &cursor {
                    Some(cursor) => tx.query(&sql, &params![n, cursor])?,
                    None => tx.query(&sql, &params![n])?,
                };
                let data = rows.into_iter().map(from_row).collect::<Result<Vec<_>>>()?;
                Ok(Page::from_rows(data, limit, |environment| environment.id.to_string()))
            })
            .await
    }
}

/// Whether sessions may be made in it, which it stays for as long as this transaction lasts.
pub(super) fn hold(tx: &mut Tx<'_>, id: &EnvironmentId) -> Result<()> {
    let sql = "select archived_at from environments where id = $1 {wait}";
    let mut row = tx.first(sql, &params![id])?.ok_or(Error::NotFound)?;
    match row.time_or_null(0)? {
        None => Ok(()),
        Some(_) => {
            let problem = Problem::new("environment_id", "names an archived environment");
            Err(Error::Invalid(problem.with_code("environment_archived")))
        }
    }
}

fn insert(tx: &mut Tx<'_>, environment: &Environment) -> Result<()> {
    tx.execute(
        "insert into environments (id, name, description, config, metadata, managed_by, \
         created_at, updated_at, exclusive) values ($1, $2, $3, $4, $5, $6, $7, $7, $8)",
        &params![
            &environment.id,
            &environment.name,
            environment.description.as_ref(),
            super::to_json(&environment.config),
            super::to_json(&environment.metadata),
            environment.managed_by.as_str(),
            environment.created_at,
            i64::from(environment.config.is_exclusive()),
        ],
    )?;
    Ok(())
}

/// What one that is there has become. Where sessions need not take turns any more, nobody has the
/// place.
fn write(tx: &mut Tx<'_>, environment: &Environment) -> Result<()> {
    tx.execute(
        "update environments set name = $2, description = $3, config = $4, metadata = $5, \
         updated_at = $6, exclusive = $7, managed_by = $8, \
         session_id = case when cast($7 as bigint) = 1 then session_id end where id = $1",
        &params![
            &environment.id,
            &environment.name,
            environment.description.as_ref(),
            super::to_json(&environment.config),
            super::to_json(&environment.metadata),
            environment.updated_at,
            i64::from(environment.config.is_exclusive()),
            environment.managed_by.as_str(),
        ],
    )?;
    Ok(())
}

/// Whether it was not archived before.
fn retire(tx: &mut Tx<'_>, id: &EnvironmentId, at: Timestamp) -> Result<bool> {
    let sql = "update environments set archived_at = $2, updated_at = $2 \
               where id = $1 and archived_at is null";
    Ok(tx.execute(sql, &params![id, at])? > 0)
}

fn taken(name: &str) -> Error {
    Error::Conflict(format!("an environment named `{name}` exists"))
}

fn by_name(tx: &mut Tx<'_>, name: &str) -> Result<Option<Environment>> {
    let sql = format!("select {COLUMNS} where name = $1 and archived_at is null");
    tx.first(&sql, &params![name])?.map(from_row).transpose()
}

pub(super) fn read(tx: &mut Tx<'_>, id: &EnvironmentId) -> Result<Environment> {
    let row = tx.first(&format!("select {COLUMNS} where id = $1"), &params![id])?;
    row.ok_or(Error::NotFound).and_then(from_row)
}

/// One that the API may change.
fn ours(tx: &mut Tx<'_>, id: &EnvironmentId) -> Result<Environment> {
    let environment = read(tx, id)?;
    let (is, name) = (environment.managed_by, &environment.name);
    super::refuse_declared(is, ManagedBy::Api, name, "change it")?;
    Ok(environment)
}

fn from_row(mut row: Row) -> Result<Environment> {
    let managed_by = row.text(5)?;
    Ok(Environment {
        id: row.id(0)?,
        name: row.text(1)?,
        description: row.text_or_null(2)?,
        config: row.json(3)?,
        metadata: row.json(4)?,
        managed_by: ManagedBy::parse(&managed_by),
        created_at: row.time(6)?,
        updated_at: row.time(7)?,
        archived_at: row.time_or_null(8)?,
    })
}
