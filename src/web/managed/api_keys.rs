//! Further API keys. A key is shown when it is made and never again; what is kept is its hash.

use axum::{Json, extract::State};
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use crate::{
    domain::{
        Problem,
        key::{Scope, Scopes},
    },
    id::{ApiKeyId, Id},
    store::ApiKey,
    vault::{generate_token, hash, hex},
    web::{
        App,
        auth::{Actor, MASTER},
        error::{Error, Result},
        input::{At, Fields},
        query::whole,
        routes::{Routes, answers, lists},
    },
};

pub(super) fn routes() -> Routes {
    Routes::of("keys")
        .get("/v1/api_keys", list, lists("ApiKey", &[], "Lists further API keys."))
        .post(
            "/v1/api_keys",
            create,
            answers("ApiKey", "Makes a key, and shows it once.").takes("ApiKeyCreate").or(&[409]),
        )
        .delete("/v1/api_keys/{id}", revoke, answers("ApiKey", "Revokes a key."))
        .post("/v1/api_keys/{id}/revoke", revoke, answers("ApiKey", "Revokes a key."))
}

/// Names of actors in the audit log that are not keys.
const RESERVED: [&str; 5] = [MASTER, "box key", "config file", "first start", "bellpull"];

const SCOPES_MAX: usize = 100;

pub(in crate::web) async fn create(
    State(app): State<App>,
    actor: Actor,
    mut fields: Fields,
) -> Result<Json<Value>> {
    let name = fields.required("name", 100)?;
    let scopes = fields.list("scopes")?;
    fields.finish()?;
    let is_reserved = RESERVED.iter().any(|it| it.eq_ignore_ascii_case(name.trim()));
    if is_reserved || name.trim() != name || name.chars().any(char::is_control) {
        let message = "must be a name of its own, without spaces around it";
        return Err(Problem::new("name", message).into());
    }
    let scopes = read_scopes(&scopes)?;
    if app.store.api_keys().await?.iter().any(|key| key.name == name && key.revoked_at.is_none()) {
        return Err(Error::conflict(format!("a key named `{name}` exists")));
    }
    let token = generate_token("bpk_");
    let at = app.store.clock().now();
    let key = ApiKey {
        id: ApiKeyId::new(at),
        name,
        hash: hex(&hash(token.expose_secret().as_bytes())),
        scopes,
        created_at: at,
        revoked_at: None,
    };
    let details = json!({"name": key.name, "scopes": key.scopes.to_text()});
    let change = actor.change("api_key.create", &key.id, details);
    let key = app.store.create_api_key(key, change).await?;
    app.configured().await;
    let mut body = show(&key);
    body["key"] = token.expose_secret().into();
    Ok(Json(body))
}

fn read_scopes(given: &[Value]) -> Result<Scopes, Problem> {
    if !(1..=SCOPES_MAX).contains(&given.len()) {
        let message = format!("must be a list of 1 to {SCOPES_MAX} scopes");
        return Err(Problem::new("scopes", message));
    }
    let read = |(n, scope): (usize, &Value)| -> Result<Scope, Problem> {
        let parsed = scope.as_str().unwrap_or_default().parse();
        parsed.map_err(|problem: Problem| Problem::new(format!("scopes[{n}]"), problem.message))
    };
    given.iter().enumerate().map(read).collect::<Result<_, _>>().map(Scopes)
}

async fn list(State(app): State<App>) -> Result<Json<Value>> {
    Ok(whole(app.store.api_keys().await?.iter().map(show).collect()))
}

pub(in crate::web) async fn revoke(
    State(app): State<App>,
    actor: Actor,
    At(id): At<ApiKeyId>,
) -> Result<Json<Value>> {
    let change = actor.change("api_key.revoke", &id, json!({}));
    let key = app.store.revoke_api_key(&id, change).await.map_err(Error::missing("API key"))?;
    app.configured().await;
    Ok(Json(show(&key)))
}

fn show(key: &ApiKey) -> Value {
    let scopes: Vec<String> = key.scopes.0.iter().map(ToString::to_string).collect();
    json!({
        "id": key.id,
        "type": "api_key",
        "name": key.name,
        "scopes": scopes,
        "created_at": key.created_at,
        "revoked_at": key.revoked_at,
    })
}
