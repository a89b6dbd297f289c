//! Vaults and their credentials: values go in and never come out.
//!
//! Invariant: an answer says of a credential what [`Auth`] says, and nothing that is sealed. Left out:
//! using them, which is the runtime's.

use std::collections::BTreeMap;

use axum::{Json, extract::State};
use serde_json::{Value, json};

use super::LIMIT;
use crate::{
    domain::{
        Metadata, Problem, check_metadata,
        credential::{Auth, Credential, Secrets, Vault},
        patch_metadata,
    },
    id::{CredentialId, Id, VaultId},
    store,
    vault::{self, Place},
    web::{
        App,
        auth::Actor,
        error::{Error, Result},
        input::{At, Fields, Within},
        query::{Query, page},
        routes::{Routes, answers, lists},
    },
};

pub(super) fn routes() -> Routes {
    const LIST: &[&str] = &["include_archived", "limit", "page"];
    const ONE: &str = "/v1/vaults/{id}/credentials/{credential}";
    Routes::of("vaults")
        .get("/v1/vaults", list, lists("Vault", LIST, "Lists vaults."))
        .post("/v1/vaults", create, answers("Vault", "Makes a vault.").takes("VaultCreate"))
        .get("/v1/vaults/{id}", retrieve, answers("Vault", "Shows a vault."))
        .post(
            "/v1/vaults/{id}",
            update,
            answers("Vault", "Changes a vault.").takes("VaultUpdate").or(&[409]),
        )
        .delete(
            "/v1/vaults/{id}",
            remove,
            answers("Deleted", "Deletes a vault with its credentials.").or(&[409]),
        )
        .post(
            "/v1/vaults/{id}/archive",
            archive,
            answers("Vault", "Archives a vault and erases its values.").or(&[409]),
        )
        .get(
            "/v1/vaults/{id}/credentials",
            credentials,
            lists("Credential", LIST, "Lists the credentials of a vault, without values."),
        )
        .post(
            "/v1/vaults/{id}/credentials",
            create_credential,
            answers("Credential", "Adds a credential.").takes("CredentialCreate").or(&[409]),
        )
        .get(ONE, retrieve_credential, answers("Credential", "Shows a credential, without values."))
        .post(
            ONE,
            update_credential,
            answers("Credential", "Changes a credential.").takes("CredentialUpdate").or(&[409]),
        )
        .delete(ONE, remove_credential, answers("Deleted", "Deletes a credential.").or(&[409]))
        .post(
            "/v1/vaults/{id}/credentials/{credential}/archive",
            archive_credential,
            answers("Credential", "Archives a credential and erases its values.").or(&[409]),
        )
        .post(
            "/v1/vaults/{id}/credentials/{credential}/mcp_oauth_validate",
            validate,
            answers("CredentialValidation", "Tries a credential of OAuth at its server.")
                .or(&[400, 409]),
        )
}

const NAME_CHARS_MAX: usize = 255;

pub(in crate::web) async fn create(
    State(app): State<App>,
    actor: Actor,
    mut fields: Fields,
) -> Result<Json<Value>> {
    let display_name = fields.required("display_name", NAME_CHARS_MAX)?;
    let metadata = fields.metadata()?;
    fields.finish()?;
    let at = app.store.clock().now();
    let vault = Vault {
        id: VaultId::new(at),
        display_name,
        metadata,
        created_at: at,
        updated_at: at,
        archived_at: None,
    };
    let details = json!({"display_name": vault.display_name});
    let change = actor.change("vault.create", &vault.id, details);
    Ok(Json(app.store.create_vault(vault, change).await?.to_json()))
}

async fn retrieve(State(app): State<App>, At(id): At<VaultId>) -> Result<Json<Value>> {
    let vault = app.store.vault(&id).await.map_err(Error::missing("vault"))?;
    Ok(Json(vault.to_json()))
}

async fn list(State(app): State<App>, query: Query) -> Result<Json<Value>> {
    let archived = query.flag("include_archived")?;
    let limit = query.limit(LIMIT.0, LIMIT.1)?;
    let found = app.store.vaults(archived, query.page("vaults")?, limit).await?;
    Ok(page("vaults", found, Vault::to_json))
}

pub(in crate::web) async fn update(
    State(app): State<App>,
    actor: Actor,
    At(id): At<VaultId>,
    mut fields: Fields,
) -> Result<Json<Value>> {
    let name = fields.text("display_name", NAME_CHARS_MAX)?;
    if name.as_ref().is_some_and(String::is_empty) {
        return Err(Problem::new("display_name", "cannot be cleared").into());
    }
    let patch = fields.metadata_patch()?;
    fields.finish()?;
    let change = actor.change("vault.update", &id, json!({}));
    let apply = move |vault: &mut Vault| {
        if let Some(name) = name {
            vault.display_name = name;
        }
        apply_patch(&mut vault.metadata, patch)
    };
    let vault = app.store.update_vault(&id, apply, change).await;
    Ok(Json(vault.map_err(Error::missing("vault"))?.to_json()))
}

pub(in crate::web) async fn archive(
    State(app): State<App>,
    actor: Actor,
    At(id): At<VaultId>,
) -> Result<Json<Value>> {
    let change = actor.change("vault.archive", &id, json!({}));
    let vault = app.store.archive_vault(&id, change).await;
    Ok(Json(vault.map_err(Error::missing("vault"))?.to_json()))
}

pub(in crate::web) async fn remove(
    State(app): State<App>,
    actor: Actor,
    At(id): At<VaultId>,
) -> Result<Json<Value>> {
    let change = actor.change("vault.delete", &id, json!({}));
    app.store.delete_vault(&id, change).await.map_err(Error::missing("vault"))?;
    Ok(Json(json!({"id": id, "type": "vault_deleted"})))
}

pub(in crate::web) async fn create_credential(
    State(app): State<App>,
    actor: Actor,
    At(vault_id): At<VaultId>,
    mut fields: Fields,
) -> Result<Json<Value>> {
    // Whether there is such a vault comes before what is wrong with the rest.
    app.store.vault(&vault_id).await.map_err(Error::missing("vault"))?;
    let display_name = fields.text("display_name", NAME_CHARS_MAX)?.filter(|it| !it.is_empty());
    let metadata = fields.metadata()?;
    let auth = fields.value("auth").ok_or_else(|| Problem::new("auth", "is required"))?;
    fields.finish()?;
    let at = app.store.clock().now();
    let (auth, secrets) = Auth::create(&auth, at)?;
    let credential = Credential {
        id: CredentialId::new(at),
        vault_id: vault_id.clone(),
        display_name,
        metadata,
        auth,
        version: 1,
        created_at: at,
        updated_at: at,
        archived_at: None,
    };
    let sealed = app.ingest.registry.vault().seal(place(&credential.id, 1), &secrets.to_text());
    let details = json!({"vault_id": vault_id, "type": credential.auth.kind()});
    let change = actor.change("credential.create", &credential.id, details);
    let credential = app.store.create_credential(credential, sealed, change).await;
    Ok(Json(credential.map_err(Error::missing("vault"))?.to_json()))
}

async fn retrieve_credential(
    State(app): State<App>,
    Within(vault, id): Within<VaultId, CredentialId>,
) -> Result<Json<Value>> {
    let found = app.store.credential(&vault, &id).await;
    Ok(Json(found.map_err(Error::missing("credential"))?.0.to_json()))
}

async fn credentials(
    State(app): State<App>,
    At(vault): At<VaultId>,
    query: Query,
) -> Result<Json<Value>> {
    let archived = query.flag("include_archived")?;
    let limit = query.limit(LIMIT.0, LIMIT.1)?;
    let found = app.store.credentials(&vault, archived, query.page("credentials")?, limit).await;
    Ok(page("credentials", found.map_err(Error::missing("vault"))?, Credential::to_json))
}

pub(in crate::web) async fn update_credential(
    State(app): State<App>,
    actor: Actor,
    Within(vault_id, id): Within<VaultId, CredentialId>,
    mut fields: Fields,
) -> Result<Json<Value>> {
    let name = fields.clearable("display_name", NAME_CHARS_MAX)?;
    let name = name.map(|name| name.filter(|it| !it.is_empty()));
    let patch = fields.metadata_patch()?;
    let auth = fields.value("auth");
    fields.finish()?;
    let details = json!({"vault_id": vault_id, "auth": auth.is_some()});
    let change = actor.change("credential.update", &id, details);
    let (ring, now) = (app.ingest.registry.vault().clone(), app.store.clock().now());
    let apply = move |credential: &mut Credential, sealed: &[u8]| {
        if let Some(name) = name {
            credential.display_name = name;
        }
        apply_patch(&mut credential.metadata, patch)?;
        let Some(given) = auth else { return Ok(None) };
        let mut secrets = open(&ring, credential, sealed)?;
        let changed = credential.auth.update(&mut secrets, &given, now);
        let changed = changed.map_err(store::Error::Invalid)?;
        let fresh = place(&credential.id, credential.version + 1);
        Ok(changed.then(|| ring.seal(fresh, &secrets.to_text())))
    };
    let credential = app.store.update_credential(&vault_id, &id, apply, change).await;
    Ok(Json(credential.map_err(Error::missing("credential"))?.to_json()))
}

pub(in crate::web) async fn archive_credential(
    State(app): State<App>,
    actor: Actor,
    Within(vault, id): Within<VaultId, CredentialId>,
) -> Result<Json<Value>> {
    let change = actor.change("credential.archive", &id, json!({"vault_id": vault}));
    let credential = app.store.archive_credential(&vault, &id, change).await;
    Ok(Json(credential.map_err(Error::missing("credential"))?.to_json()))
}

pub(in crate::web) async fn remove_credential(
    State(app): State<App>,
    actor: Actor,
    Within(vault, id): Within<VaultId, CredentialId>,
) -> Result<Json<Value>> {
    let change = actor.change("credential.delete", &id, json!({"vault_id": vault}));
    app.store.delete_credential(&vault, &id, change).await.map_err(Error::missing("credential"))?;
    Ok(Json(json!({"id": id, "type": "vault_credential_deleted"})))
}

/// Tries a credential of OAuth at its server.
pub(in crate::web) async fn validate(
    State(app): State<App>,
    Within(vault, id): Within<VaultId, CredentialId>,
) -> Result<Json<Value>> {
    let (credential, sealed) =
        app.store.credential(&vault, &id).await.map_err(Error::missing("credential"))?;
    if !matches!(credential.auth, Auth::McpOauth { .. }) {
        return Err(Problem::new("auth.type", "is not `mcp_oauth`").into());
    }
    if sealed.is_none() {
        return Err(Error::conflict(format!("{id} is archived: it has no token any more")));
    }
    let Some(probe) = &app.probe else {
        return Err(Error::invalid("this server reaches no MCP servers"));
    };
    let validation = probe.validate(vault, id).await.map_err(Error::missing("credential"))?;
    Ok(Json(validation.to_json(&credential, app.store.clock().now())))
}

fn place(id: &CredentialId, version: i64) -> Place<'_> {
    Place { kind: store::Sealed::Credential.kind(), id: id.as_str(), version }
}

fn open(ring: &vault::Vault, credential: &Credential, sealed: &[u8]) -> store::Result<Secrets> {
    let opened = ring.open(place(&credential.id, credential.version), sealed);
    let secrets = opened.ok().and_then(|text| Secrets::parse(&text));
    secrets.ok_or(store::Error::Bug("a sealed credential does not open"))
}

fn apply_patch(
    metadata: &mut Metadata,
    patch: BTreeMap<String, Option<String>>,
) -> store::Result<()> {
    patch_metadata(metadata, patch);
    check_metadata(metadata).map_err(store::Error::Invalid)
}
