//! The ledger of effects: listed, looked at, and settled where nobody knows what became of one.

use axum::{Json, extract::State};
use serde_json::{Value, json};

use super::LIMIT;
use crate::{
    domain::{
        Problem,
        effect::{Effect, EffectStatus, NOTE_CHARS_MAX},
    },
    id::EventId,
    store::{EffectFilter, Settlement},
    web::{
        App,
        auth::Actor,
        error::{Error, Result},
        input::{At, Fields},
        query::{Query, page},
        routes::{Routes, answers, lists},
    },
};

pub(super) fn routes() -> Routes {
    const LIST: &[&str] = &["effect_status", "session_id", "limit", "page"];
    Routes::of("effects")
        .get("/v1/effects", list, lists("Effect", LIST, "Lists the ledger of effects."))
        .get("/v1/effects/{id}", retrieve, answers("Effect", "Shows an effect."))
        .post(
            "/v1/effects/{id}/settle",
            settle,
            answers("Effect", "Says what became of an effect that is in doubt.")
                .takes("EffectSettle")
                .or(&[409]),
        )
}

async fn list(State(app): State<App>, query: Query) -> Result<Json<Value>> {
    let wanted = "intended, done, failed or in_doubt";
    let filter = EffectFilter {
        status: query.word("status", EffectStatus::parse, wanted)?,
        session_id: query.get("session_id")?,
        cursor: query.page("effects")?,
        limit: query.limit(LIMIT.0, LIMIT.1)?,
    };
    Ok(page("effects", app.store.effects(filter).await?, Effect::to_json))
}

async fn retrieve(State(app): State<App>, At(id): At<EventId>) -> Result<Json<Value>> {
    let effect = app.store.effect(&id).await.map_err(Error::missing("effect"))?;
    Ok(Json(effect.to_json()))
}

async fn settle(
    State(app): State<App>,
    actor: Actor,
    At(id): At<EventId>,
    mut fields: Fields,
) -> Result<Json<Value>> {
    let status = match fields.required("status", 16)?.as_str() {
        "done" => EffectStatus::Done,
        "failed" => EffectStatus::Failed,
        _ => return Err(Problem::new("status", "must be `done` or `failed`").into()),
    };
    let note = fields.text("note", NOTE_CHARS_MAX)?.filter(|note| !note.is_empty());
    fields.finish()?;
    let details = json!({"status": status.as_str(), "note": note});
    let change = actor.change("effect.settle", &id, details);
    let effect = app.store.settle_effect(&id, Settlement { status, note }, change).await;
    let effect = effect.map_err(Error::missing("effect"))?;
    app.signals.changed(&effect.session_id);
    Ok(Json(effect.to_json()))
}
