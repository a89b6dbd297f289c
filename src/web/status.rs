//! `/v1/status`: how the parts of this server stand, in short, and what to do where one does not work.
//!
//! It is for whoever may read; `/readyz` says only whether deliveries can be taken. Every part is told
//! whatever became of the others. Left out: history, which is `/metrics`'s.

use axum::{Json, extract::State};
use serde_json::{Value, json};

use super::{
    App, health,
    routes::{Routes, answers},
};
use crate::clock::Timestamp;

pub(super) fn routes() -> Routes {
    let says =
        "Tells how store, sandbox, models and outbox stand, and what to do where one does not.";
    Routes::of("server").get("/v1/status", status, answers("Status", says))
}

/// Where the programs of agents run, as this server found out when it started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    pub standing: SandboxStanding,
    /// For people.
    pub message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SandboxStanding {
    Works,
    /// Switched off by the operator.
    Off,
    /// This machine does not let it.
    Refused,
}

impl Sandbox {
    fn word(&self) -> &'static str {
        match self.standing {
            SandboxStanding::Works => "works",
            SandboxStanding::Off => "off",
            SandboxStanding::Refused => "refused",
        }
    }

    /// What to do, where there is something.
    fn hint(&self) -> Option<&'static str> {
        match self.standing {
            SandboxStanding::Works => None,
            SandboxStanding::Off => Some(
                "What agents run may read the server's keys and reach any network. Take \
                 `sandbox.mode` out of the configuration to have the sandbox back.",
            ),
            SandboxStanding::Refused => Some(
                "`bash` is refused to agents until it works. `bellpull check` tries it anew, and \
                 docs/sandbox.md has what each system needs; then start the server again.",
            ),
        }
    }

    /// What everybody who is signed in should see.
    pub(super) fn trouble(&self) -> Option<Trouble> {
        let what = match self.standing {
            SandboxStanding::Works => return None,
            SandboxStanding::Off => "The sandbox is switched off.".to_owned(),
            SandboxStanding::Refused => format!("The sandbox does not work: {}.", self.message),
        };
        Some(Trouble { what, hint: self.hint().unwrap_or_default() })
    }
}

/// Something that is wrong with the whole server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    pub(super) what: String,
    pub(super) hint: &'static str,
}

/// How the parts that can fail stand, as they were found just now.
#[derive(Clone, Debug)]
pub(super) struct Look {
    pub(super) store_works: bool,
    /// Nothing where the store did not say it.
    pub(super) outbox: Option<OutboxLook>,
}

#[derive(Clone, Debug)]
pub(super) struct OutboxLook {
    pub(super) n_waiting: u64,
    pub(super) oldest: Option<Timestamp>,
    /// Messages that were given up, up to what is counted.
    pub(super) n_dead: u64,
}

/// Looks at all of them, whatever became of the others.
pub(super) async fn look(app: &App) -> Look {
    let store = health::ready(app).await;
    if let Err(detail) = &store {
        // It may hold what is nobody's business.
        tracing::warn!(detail, "the store was asked for its status");
    }
    let found = async {
        let (n_waiting, oldest) = app.store.outgoing_backlog().await?;
        let n_dead = app.store.n_given_up().await?;
        crate::store::Result::Ok(OutboxLook { n_waiting, oldest, n_dead })
    };
    let outbox = found.await;
    if let Err(error) = &outbox {
        tracing::warn!(detail = error.detail(), "the outbox was asked for its status");
    }
    Look { store_works: store.is_ok(), outbox: outbox.ok() }
}

async fn status(State(app): State<App>) -> Json<Value> {
    let Look { store_works, outbox: found } = look(&app).await;
    let store = match store_works {
        true => json!({"status": "works"}),
        false => json!({"status": "failed", "hint": "the server's log says why"}),
    };
    let sandbox = app.sandbox.as_ref().map(|sandbox| {
        json!({"status": sandbox.word(), "message": sandbox.message, "hint": sandbox.hint()})
    });
    Json(json!({
        "type": "status",
        "version": env!("CARGO_PKG_VERSION"),
        "store": store,
        "sandbox": sandbox,
        "models": models(&app),
        "outbox": outbox(found),
    }))
}

/// Agents whose model cannot be asked, by the key that is missing for it.
fn models(app: &App) -> Value {
    let snapshot = app.ingest.registry.snapshot();
    let living = snapshot.agents.values().filter(|agent| agent.archived_at.is_none());
    let mut missing: Vec<Value> = living
        .filter_map(|agent| {
            let model = &agent.spec.model.id;
            let key = app.probe.as_ref()?.missing_key(model)?;
            Some(json!({"agent_id": agent.id, "model": model, "key": key}))
        })
        .collect();
    missing.sort_by_key(|it| it["agent_id"].to_string());
    let status = if missing.is_empty() { "works" } else { "incomplete" };
    json!({"status": status, "missing_keys": missing})
}

/// What waits to be sent, and whether anything was given up.
fn outbox(found: Option<OutboxLook>) -> Value {
    let Some(OutboxLook { n_waiting, oldest, n_dead }) = found else {
        return json!({"status": "unknown", "hint": "the server's log says why"});
    };
    json!({
        "status": if n_dead > 0 { "given_up" } else { "works" },
        "waiting": n_waiting,
        "oldest_at": oldest,
        "hint": (n_dead > 0).then_some("`bellpull outbox --status dead` lists what was given up"),
    })
}
