//! The audit log: who changed what, newest first.

use axum::{Json, Router, extract::State, routing::get};
use serde_json::{Value, json};

use super::LIMIT;
use crate::{
    store::AuditEntry,
    web::{
        App,
        error::Result,
        query::{Query, page},
    },
};

pub(super) fn routes() -> Router<App> {
    Router::new().route("/v1/audit", get(list))
}

async fn list(State(app): State<App>, query: Query) -> Result<Json<Value>> {
    let limit = query.limit(LIMIT.0, LIMIT.1)?;
    Ok(page("audit", app.store.audit(query.page("audit")?, limit).await?, show))
}

fn show(entry: &AuditEntry) -> Value {
    json!({
        "id": entry.id,
        "type": "audit_entry",
        "at": entry.at,
        "actor": entry.actor,
        "action": entry.action,
        "target": entry.target,
        "details": entry.details,
    })
}
