//! Vaults and their credentials. This module never sees a value in the clear.
//!
//! Invariants: what is archived has no value any more, in the transaction that archives it; a value is
//! replaced only by whoever has seen the version before it, so that of two who renew a token one wins.

use std::time::Duration;

use bytes::Bytes;

use super::{
    Change, Error, Page, Result, Store, audit,
    driver::{Lane, Row, Tx, Value, params},
};
use crate::{
    domain::{
        Metadata,
        credential::{Auth, CREDENTIALS_MAX, Credential, Vault},
    },
    id::{CredentialId, VaultId},
};

/// A credential with its values, sealed.
#[derive(Clone, Debug)]
pub struct SealedCredential {
    pub credential: Credential,
    pub sealed: Bytes,
}

const VAULT: &str = "id, display_name, metadata, created_at, updated_at, archived_at from vaults";

const CREDENTIAL: &str = "c.id, c.vault_id, c.display_name, c.metadata, c.auth, c.version, \
    c.created_at, c.updated_at, c.archived_at, c.sealed from credentials c";

impl Store {
    pub async fn create_vault(&self, vault: Vault, change: Change) -> Result<Vault> {
        self.configure(move |tx| {
            tx.execute(
                "insert into vaults (id, display_name, metadata, created_at, updated_at) \
                 values ($1, $2, $3, $4, $4)",
                &params![
                    &vault.id,
                    &vault.display_name,
                    super::to_json(&vault.metadata),
                    vault.created_at,
                ],
            )?;
            audit::note_only(tx, &change, vault.created_at)?;
            Ok(vault)
        })
        .await
    }

    /// Applies a change to a vault that is not archived, else [`Error::Conflict`].
    pub async fn update_vault(
        &self,
        id: &VaultId,
        apply: impl FnOnce(&mut Vault) -> Result<()> + Send + 'static,
        change: Change,
    ) -> Result<Vault> {
        let (id, at) = (id.clone(), self.clock.now());
        self.configure(move |tx| {
            let mut vault = living(tx, &id)?;
            let before = vault.clone();
            apply(&mut vault)?;
            if vault != before {
                vault.updated_at = at;
                tx.execute(
                    "update vaults set display_name = $2, metadata = $3, updated_at = $4 \
                     where id = $1",
                    &params![&id, &vault.display_name, super::to_json(&vault.metadata), at],
                )?;
                audit::note_only(tx, &change, at)?;
            }
            Ok(vault)
        })
        .await
    }

    pub async fn vault(&self, id: &VaultId) -> Result<Vault> {
        let id = id.clone();
        self.driver.read(move |tx| read_vault(tx, &id)).await
    }

    /// Newest first.
    pub async fn vaults(
        &self,
        include_archived: bool,
        cursor: Option<VaultId>,
        limit: usize,
    ) -> Result<Page<Vault>> {
        self.driver
            .read(move |tx| {
                let archived = if include_archived { "" } else { "and archived_at is null" };
                let before = if cursor.is_some() { "and id < $2" } else { "" };
                let sql = format!(
                    "select {VAULT} where 1 = 1 {archived} {before} order by id desc limit $1"
                );
                let mut values = vec![Value::from(limit as i64 + 1)];
                values.extend(cursor.as_ref().map(Value::from));
                let rows = tx.query(&sql, &values)?;
                let data = rows.into_iter().map(vault_row).collect::<Result<Vec<_>>>()?;
                Ok(Page::from_rows(data, limit, |vault| vault.id.to_string()))
            })
            .await
    }

    /// Puts a vault away together with its credentials, whose values are gone with that.
    pub async fn archive_vault(&self, id: &VaultId, change: Change) -> Result<Vault> {
        let (id, at) = (id.clone(), self.clock.now());
        self.configure(move |tx| {
            if read_vault(tx, &id)?.archived_at.is_none() {
                let sql = "update vaults set archived_at = $2, updated_at = $2 where id = $1";
                tx.execute(sql, &params![&id, at])?;
                tx.execute(
                    "update credentials set archived_at = $2, updated_at = $2, sealed = null, \
                     renewing_until = null where vault_id = $1 and archived_at is null",
                    &params![&id, at],
                )?;
                audit::note_only(tx, &change, at)?;
            }
            read_vault(tx, &id)
        })
        .await
    }

    /// Deletes a vault with everything in it.
    pub async fn delete_vault(&self, id: &VaultId, change: Change) -> Result<()> {
        let (id, at) = (id.clone(), self.clock.now());
        self.configure(move |tx| {
            read_vault(tx, &id)?;
            tx.execute("delete from credentials where vault_id = $1", &params![&id])?;
            tx.execute("delete from vaults where id = $1", &params![&id])?;
            audit::note_only(tx, &change, at)
        })
        .await
    }

    /// [`Error::Conflict`] when the vault is archived or has one for the same thing,
    /// [`Error::Invalid`] when it is full.
    pub async fn create_credential(
        &self,
        credential: Credential,
        sealed: Bytes,
        change: Change,
    ) -> Result<Credential> {
        self.configure(move |tx| {
            living(tx, &credential.vault_id)?;
            let sql = "select id from credentials where vault_id = $1 and archived_at is null";
            let n = tx.query(sql, &params![&credential.vault_id])?.len();
            let key = credential.auth.key();
            let sql = "select id from credentials where vault_id = $1 and key = $2 \
                       and archived_at is null";
            if let Some(mut row) = tx.first(sql, &params![&credential.vault_id, &key])? {
                return Err(Error::Conflict(format!(
                    "the vault has a credential for this already: `{}`",
                    row.text(0)?
                )));
            }
            if n >= CREDENTIALS_MAX {
                let message =
                    format!("the vault has {CREDENTIALS_MAX} credentials, and may not have more");
                return Err(Error::Invalid(crate::domain::Problem::new("vault_id", message)));
            }
            tx.execute(
                "insert into credentials (id, vault_id, display_name, metadata, key, auth, sealed, \
                 version, created_at, updated_at) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9)",
                &params![
                    &credential.id,
                    &credential.vault_id,
                    credential.display_name.as_ref(),
                    super::to_json(&credential.metadata),
                    key,
                    super::to_json(&credential.auth),
                    sealed,
                    credential.version,
                    credential.created_at,
                ],
            )?;
            audit::note_only(tx, &change, credential.created_at)?;
            Ok(credential)
        })
        .await
    }

    /// Applies a change to a credential that is not archived, else [`Error::Conflict`]. `apply` gets
    /// the values as they are sealed, and answers new ones, sealed for the version after this one.
    pub async fn update_credential(
        &self,
        vault: &VaultId,
        id: &CredentialId,
        apply: impl FnOnce(&mut Credential, &[u8]) -> Result<Option<Bytes>> + Send + 'static,
        change: Change,
    ) -> Result<Credential> {
        let (vault, id, at) = (vault.clone(), id.clone(), self.clock.now());
        self.configure(move |tx| {
            let SealedCredential { credential: before, sealed } = locked(tx, &vault, &id)?;
            if before.archived_at.is_some() {
                return Err(Error::Conflict(format!("{id} is archived: it cannot be changed")));
            }
            let mut credential = before.clone();
            let fresh = apply(&mut credential, &sealed)?;
            if fresh.is_none() && credential == before {
                return Ok(credential);
            }
            credential.version += i64::from(fresh.is_some());
            credential.updated_at = at;
            tx.execute(
                "update credentials set display_name = $2, metadata = $3, auth = $4, sealed = $5, \
                 version = $6, updated_at = $7 where id = $1",
                &params![
                    &id,
                    credential.display_name.as_ref(),
                    super::to_json(&credential.metadata),
                    super::to_json(&credential.auth),
                    fresh.unwrap_or(sealed),
                    credential.version,
                    at,
                ],
            )?;
            audit::note_only(tx, &change, at)?;
            Ok(credential)
        })
        .await
    }

    /// A credential of this vault, with its values unless it is archived.
    pub async fn credential(
        &self,
        vault: &VaultId,
        id: &CredentialId,
    ) -> Result<(Credential, Option<Bytes>)> {
        let (vault, id) = (vault.clone(), id.clone());
        self.driver
            .read(move |tx| {
                let sql = format!("select {CREDENTIAL} where c.vault_id = $1 and c.id = $2");
                let row = tx.first(&sql, &params![&vault, &id])?.ok_or(Error::NotFound)?;
                credential_row(row)
            })
            .await
    }

    /// Newest first.
    pub async fn credentials(
        &self,
        vault: &VaultId,
        include_archived: bool,
        cursor: Option<CredentialId>,
        limit: usize,
    ) -> Result<Page<Credential>> {
        let vault = vault.clone();
        self.driver
            .read(move |tx| {
                read_vault(tx, &vault)?;
                let archived = if include_archived { "" } else { "and c.archived_at is null" };
                let before = if cursor.is_some() { "and c.id < $3" } else { "" };
                let sql = format!(
                    "select {CREDENTIAL} where c.vault_id = $2 {archived} {before} \
                     order by c.id desc limit $1"
                );
                let mut values = vec![Value::from(limit as i64 + 1), Value::from(&vault)];
                values.extend(cursor.as_ref().map(Value::from));
                let rows = tx.query(&sql, &values)?.into_iter();
                let data =
                    rows.map(|row| Ok(credential_row(row)?.0)).collect::<Result<Vec<_>>>()?;
                Ok(Page::from_rows(data, limit, |credential| credential.id.to_string()))
            })
            .await
    }

    /// Puts a credential away; its values are gone with that.
    pub async fn archive_credential(
        &self,
        vault: &VaultId,
        id: &CredentialId,
        change: Change,
    ) -> Result<Credential> {
        let (vault, id, at) = (vault.clone(), id.clone(), self.clock.now());
        self.configure(move |tx| {
            let n = tx.execute(
                "update credentials set archived_at = $3, updated_at = $3, sealed = null, \
                 renewing_until = null where vault_id = $1 and id = $2 and archived_at is null",
                &params![&vault, &id, at],
            )?;
            if n > 0 {
                audit::note_only(tx, &change, at)?;
            }
            Ok(locked(tx, &vault, &id)?.credential)
        })
        .await
    }

    pub async fn delete_credential(
        &self,
        vault: &VaultId,
        id: &CredentialId,
        change: Change,
    ) -> Result<()> {
        let (vault, id, at) = (vault.clone(), id.clone(), self.clock.now());
        self.configure(move |tx| {
            let sql = "delete from credentials where vault_id = $1 and id = $2";
            if tx.execute(sql, &params![&vault, &id])? == 0 {
                return Err(Error::NotFound);
            }
            audit::note_only(tx, &change, at)
        })
        .await
    }

    /// What a session with these vaults may use now: of the vaults in their order, and of each the
    /// newest first. Vaults that are gone or archived have nothing.
    pub async fn usable_credentials(&self, vaults: &[String]) -> Result<Vec<SealedCredential>> {
        let vaults = vaults.to_vec();
        self.driver
            .read(move |tx| {
                let mut found = Vec::new();
                let sql = format!(
                    "select {CREDENTIAL} join vaults v on v.id = c.vault_id where c.vault_id = $1 \
                     and c.archived_at is null and v.archived_at is null order by c.id desc"
                );
                for vault in &vaults {
                    for row in tx.query(&sql, &params![vault])? {
                        if let (credential, Some(sealed)) = credential_row(row)? {
                            found.push(SealedCredential { credential, sealed });
                        }
                    }
                }
                Ok(found)
            })
            .await
    }

    /// Lets one renew a credential's token, who has seen this version of it; everybody else waits.
    /// Whoever does not come back within `patience` has failed.
    pub async fn begin_renewal(
        &self,
        id: &CredentialId,
        version: i64,
        patience: Duration,
    ) -> Result<bool> {
        let id = id.clone();
        self.driver
            .transaction(Lane::Work, move |tx| {
                let now = tx.now()?;
                let n = tx.execute(
                    "update credentials set renewing_until = $4 where id = $1 and version = $2 \
                     and archived_at is null and (renewing_until is null or renewing_until < $3)",
                    &params![&id, version, now, now.plus(patience)],
                )?;
                Ok(n > 0)
            })
            .await
    }

    /// What came of a renewal: new values, sealed for the next version, or nothing. Answers whether it
    /// counts: a credential that was changed or put away meanwhile stays as it is.
    pub async fn end_renewal(
        &self,
        id: &CredentialId,
        version: i64,
        renewed: Option<(Auth, Bytes)>,
    ) -> Result<bool> {
        let (id, at) = (id.clone(), self.clock.now());
        self.driver
            .transaction(Lane::Work, move |tx| {
                let n = match renewed {
                    Some((auth, sealed)) => tx.execute(
                        "update credentials set auth = $3, sealed = $4, version = version + 1, \
                         renewing_until = null, updated_at = $5 \
                         where id = $1 and version = $2 and archived_at is null",
                        &params![&id, version, super::to_json(&auth), sealed, at],
                    )?,
                    None => tx.execute(
                        "update credentials set renewing_until = null \
                         where id = $1 and version = $2",
                        &params![&id, version],
                    )?,
                };
                Ok(n > 0)
            })
            .await
    }
}

/// Rewraps the values of all credentials; answers how many.
pub(super) fn rewrap(
    tx: &mut Tx<'_>,
    rewrap: impl Fn(&str, i64, &[u8]) -> Result<Option<Bytes>>,
) -> Result<u64> {
    let mut n = 0;
    let sql = "select id, version, sealed from credentials where sealed is not null {wait}";
    for mut row in tx.query(sql, &[])? {
        let (id, version) = (row.text(0)?, row.int(1)?);
        let sealed = row.bytes_or_null(2)?.unwrap_or_default();
        if let Some(sealed) = rewrap(&id, version, &sealed)? {
            let sql = "update credentials set sealed = $3 where id = $1 and version = $2";
            n += tx.execute(sql, &params![id, version, sealed])?;
        }
    }
    Ok(n)
}

fn read_vault(tx: &mut Tx<'_>, id: &VaultId) -> Result<Vault> {
    let row = tx.first(&format!("select {VAULT} where id = $1"), &params![id])?;
    row.ok_or(Error::NotFound).and_then(vault_row)
}

fn living(tx: &mut Tx<'_>, id: &VaultId) -> Result<Vault> {
    let vault = read_vault(tx, id)?;
    match vault.archived_at {
        None => Ok(vault),
        Some(_) => Err(Error::Conflict(format!("{id} is archived: it cannot be changed"))),
    }
}

fn locked(tx: &mut Tx<'_>, vault: &VaultId, id: &CredentialId) -> Result<SealedCredential> {
    let sql = format!("select {CREDENTIAL} where c.vault_id = $1 and c.id = $2 {{wait}}");
    let row = tx.first(&sql, &params![vault, id])?.ok_or(Error::NotFound)?;
    let (credential, sealed) = credential_row(row)?;
    Ok(SealedCredential { credential, sealed: sealed.unwrap_or_default() })
}

fn vault_row(mut row: Row) -> Result<Vault> {
    Ok(Vault {
        id: row.id(0)?,
        display_name: row.text(1)?,
        metadata: row.json::<Metadata>(2)?,
        created_at: row.time(3)?,
        updated_at: row.time(4)?,
        archived_at: row.time_or_null(5)?,
    })
}

fn credential_row(mut row: Row) -> Result<(Credential, Option<Bytes>)> {
    let credential = Credential {
        id: row.id(0)?,
        vault_id: row.id(1)?,
        display_name: row.text_or_null(2)?,
        metadata: row.json::<Metadata>(3)?,
        auth: row.json::<Auth>(4)?,
        version: row.int(5)?,
        created_at: row.time(6)?,
        updated_at: row.time(7)?,
        archived_at: row.time_or_null(8)?,
    };
    Ok((credential, row.bytes_or_null(9)?))
}
