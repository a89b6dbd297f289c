//! Further API keys: hashed, named, revocable.

use super::{
    Change, Error, Result, Store, audit,
    driver::{Row, params},
};
use crate::{clock::Timestamp, domain::key::Scopes, id::ApiKeyId};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    pub id: ApiKeyId,
    pub name: String,
    /// SHA-256 of the key, in hex.
    pub hash: String,
    pub scopes: Scopes,
    pub created_at: Timestamp,
    pub revoked_at: Option<Timestamp>,
}

const COLUMNS: &str = "id, name, hash, scopes, created_at, revoked_at from api_keys";

impl Store {
    pub async fn create_api_key(&self, key: ApiKey, change: Change) -> Result<ApiKey> {
        self.configure(move |tx| {
            tx.execute(
                "insert into api_keys (id, name, hash, scopes, created_at) \
                     values ($1, $2, $3, $4, $5)",
                &params![&key.id, &key.name, &key.hash, key.scopes.to_text(), key.created_at],
            )?;
            audit::note(tx, &change, key.created_at)?;
            Ok(key)
        })
        .await
    }

    pub async fn revoke_api_key(&self, id: &ApiKeyId, change: Change) -> Result<ApiKey> {
        let (id, at) = (id.clone(), self.clock.now());
        self.configure(move |tx| {
            let sql = "update api_keys set revoked_at = coalesce(revoked_at, $2) where id = $1";
            if tx.execute(sql, &params![&id, at])? == 0 {
                return Err(Error::NotFound);
            }
            audit::note(tx, &change, at)?;
            let row = tx.first(&format!("select {COLUMNS} where id = $1"), &params![&id])?;
            row.ok_or(Error::NotFound).and_then(from_row)
        })
        .await
    }

    /// Every key, revoked ones too, newest first.
    pub async fn api_keys(&self) -> Result<Vec<ApiKey>> {
        self.driver
            .read(|tx| {
                let rows = tx.query(&format!("select {COLUMNS} order by id desc"), &[])?;
                rows.into_iter().map(from_row).collect()
            })
            .await
    }
}

fn from_row(mut row: Row) -> Result<ApiKey> {
    let scopes = row.text(3)?;
    Ok(ApiKey {
        id: row.id(0)?,
        name: row.text(1)?,
        hash: row.text(2)?,
        scopes: Scopes::parse(&scopes).map_err(Error::corrupt)?,
        created_at: row.time(4)?,
        revoked_at: row.time_or_null(5)?,
    })
}
