//! Environments.

use super::{
    Change, Error, Page, Result, Store, audit,
    driver::{Row, Tx, params},
};
use crate::{
    domain::{ManagedBy, environment::Environment},
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
            let taken = by_name(tx, &environment.name)?;
            if taken.is_some() {
                let name = &environment.name;
                return Err(Error::Conflict(format!("an environment named `{name}` exists")));
            }
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
            audit::note(tx, &change, environment.created_at)?;
            Ok(environment)
        })
        .await
    }

    pub async fn environment(&self, id: &EnvironmentId) -> Result<Environment> {
        let id = id.clone();
        self.driver
            .read(move |tx| {
                let row = tx.first(&format!("select {COLUMNS} where id = $1"), &params![&id])?;
                row.ok_or(Error::NotFound).and_then(from_row)
            })
            .await
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

fn by_name(tx: &mut Tx<'_>, name: &str) -> Result<Option<Environment>> {
    let sql = format!("select {COLUMNS} where name = $1 and archived_at is null");
    tx.first(&sql, &params![name])?.map(from_row).transpose()
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
