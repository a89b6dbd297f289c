//! Secrets: named values that the server uses, such as webhook tokens. A value goes in and never
//! comes out again, but once, when the server made it up.

use std::time::Duration;

use axum::{Json, extract::State};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use crate::{
    clock::Timestamp,
    domain::{
        Problem,
        secret::{VALUE_BYTES_MAX, check_name},
    },
    store::SecretInfo,
    vault,
    web::{
        App,
        auth::Actor,
        error::{Error, Result},
        input::{At, Fields},
        query::whole,
        routes::{Routes, answers, lists},
    },
};

pub(super) fn routes() -> Routes {
    Routes::of("secrets")
        .get("/v1/secrets", list, lists("Secret", &[], "Lists secrets, without values."))
        .post(
            "/v1/secrets",
            put,
            answers("Secret", "Sets a secret; one that was generated is shown once.")
                .takes("SecretPut")
                .or(&[409]),
        )
        .delete(
            "/v1/secrets/{id}",
            remove,
            answers("DeletedSecret", "Deletes a secret by its name."),
        )
}

/// Longest time that an old value is good beside the new one: 30 days.
pub(super) const OVERLAP_SECONDS_MAX: u64 = 30 * 24 * 3600;

pub(in crate::web) async fn put(
    State(app): State<App>,
    actor: Actor,
    mut fields: Fields,
) -> Result<Json<Value>> {
    let name = fields.required("name", 128)?;
    check_name(&name)?;
    let overlap = fields.number("overlap_seconds", 0..=OVERLAP_SECONDS_MAX)?.unwrap_or(0);
    let (given, generate) = (value(&mut fields, "value")?, fields.flag("generate")?);
    fields.finish()?;
    let value = match (given, generate) {
        (Some(value), false) => value,
        (None, true) => vault::generate_token("bps_"),
        (Some(_), true) => {
            return Err(Problem::new("generate", "is given beside `value`: keep one").into());
        }
        (None, false) => {
            return Err(Problem::new("value", "is required, or `generate`: true").into());
        }
    };
    let change = actor.change("secret.set", &name, json!({"overlap_seconds": overlap}));
    let shown = generate.then(|| value.clone());
    let overlap = Duration::from_secs(overlap);
    let info = app.ingest.registry.put_secret(name, value, overlap, change).await?;
    app.signals.configured();
    let mut body = show(&info, app.store.clock().now());
    if let Some(value) = shown {
        body["value"] = value.expose_secret().into();
    }
    Ok(Json(body))
}

/// A secret's value as it was given: nothing is trimmed or cleaned.
pub(super) fn value(fields: &mut Fields, key: &str) -> Result<Option<SecretString>, Problem> {
    match fields.value(key) {
        None => Ok(None),
        Some(Value::String(value)) if (1..=VALUE_BYTES_MAX).contains(&value.len()) => {
            Ok(Some(value.into()))
        }
        Some(_) => {
            Err(Problem::new(key, format!("must be a text of 1 to {VALUE_BYTES_MAX} bytes")))
        }
    }
}

async fn list(State(app): State<App>) -> Json<Value> {
    let now = app.store.clock().now();
    let snapshot = app.ingest.registry.snapshot();
    whole(snapshot.secrets.iter().map(|info| show(info, now)).collect())
}

pub(in crate::web) async fn remove(
    State(app): State<App>,
    actor: Actor,
    At(name): At<String>,
) -> Result<Json<Value>> {
    let change = actor.change("secret.delete", &name, json!({}));
    if !app.store.delete_secret(name.clone(), change).await? {
        return Err(Error::not_found("there is no secret of this name"));
    }
    app.configured().await;
    Ok(Json(json!({"name": name, "type": "secret_deleted"})))
}

fn show(info: &SecretInfo, now: Timestamp) -> Value {
    json!({
        "name": info.name,
        "type": "secret",
        "version": info.version,
        "created_at": info.created_at,
        "previous_until": info.previous_until.filter(|until| *until > now),
    })
}
