//! The audit log: who changed what, newest first.

use axum::{Json, extract::State};
use serde_json::{Value, json};

use super::LIMIT;
use crate::{
    store::AuditEntry,
    web::{
        App,
        error::Result,
        query::{Query, page},
        routes::{Routes, lists},
    },
};

pub(super) fn routes() -> Routes {
    const LIST: &[&str] = &["limit", "page"];
    Routes::of("audit").get(
        "/v1/audit",
        list,
        lists("AuditEntry", LIST, "Lists who changed what, newest first."),
    )
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
