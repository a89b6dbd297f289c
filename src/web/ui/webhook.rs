//! An agent's webhook: where to send, what proves the sender, what came last.
//!
//! The same panel is a dialog over the list and a page of its own. Invariant: a token is shown in
//! the answer to the request that made it, and never again.

use std::time::Duration;

use askama::Template;
use axum::{
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;

use super::{
    super::App,
    answered,
    deliveries::Last,
    fault::Fault,
    guard::{Fields, Posted, Visitor, is_fragment},
    page as rendered,
    view::{Markup, Moment, Shell},
};
use crate::{
    domain::{agent::Agent, text::printable},
    id::{AgentId, Id},
    ingest::{Snapshot, secret_key},
    vault,
};

/// Longest pasted token. It travels in a header.
const TOKEN_BYTES_MAX: usize = 4 * 1024;

/// How long an old token may be good beside the new one: seconds and words.
const OVERLAPS: [(u64, &str); 4] =
    [(0, "at once"), (3_600, "in an hour"), (86_400, "in a day"), (604_800, "in a week")];

#[derive(Template)]
#[template(path = "webhook.html")]
struct Page {
    shell: Shell,
    panel: Panel,
}

#[derive(Template)]
#[template(path = "webhook_panel.html")]
struct PanelFragment {
    shell: Shell,
    panel: Panel,
}

#[derive(Debug)]
struct Panel {
    agent_id: String,
    name: String,
    archived: bool,
    paused: bool,
    url: String,
    key: String,
    token: Option<TokenInfo>,
    may_change: bool,
    overlaps: &'static [(u64, &'static str)],
    last: Markup,
    /// A token that was made just now.
    made: Option<String>,
    /// What was done, or what was wrong.
    done: Option<&'static str>,
    problem: Option<&'static str>,
}

#[derive(Debug)]
struct TokenInfo {
    version: i64,
    since: Moment,
    previous_until: Option<Moment>,
}

pub(super) async fn page(
    State(app): State<App>,
    visitor: Visitor,
    Path(id): Path<String>,
    headers: HeaderMap,
    query: Fields,
) -> Result<Response, Fault> {
    let agent = find(&app, &id)?;
    if query.text("part") == Some("deliveries") {
        let snapshot = app.ingest.registry.snapshot();
        return last(&snapshot, &agent).fragment(&app, &visitor).await;
    }
    let panel = panel(&app, &visitor, &agent).await?;
    answer(&app, visitor, panel, &headers)
}

pub(super) async fn store_token(
    State(app): State<App>,
    Path(id): Path<String>,
    posted: Posted,
) -> Result<Response, Fault> {
    let Posted { visitor, form } = posted;
    visitor.must_be_able_to_change()?;
    let agent = find(&app, &id)?;
    if agent.archived_at.is_some() {
        return Err(Fault::invalid("An archived agent lets nobody in, so it needs no token."));
    }
    let generate = form.fields.text("action") == Some("generate");
    let value = if generate { Ok(vault::generate_token("bps_")) } else { pasted(&form.fields) };
    let value = match value {
        Ok(value) => value,
        Err(problem) => {
            let mut panel = panel(&app, &visitor, &agent).await?;
            panel.problem = Some(problem);
            let response = answer(&app, visitor, panel, &form.headers)?;
            return Ok((StatusCode::UNPROCESSABLE_ENTITY, response).into_response());
        }
    };
    let wanted = form.fields.text("overlap").and_then(|it| it.parse().ok()).unwrap_or(0);
    let seconds = OVERLAPS.iter().map(|(seconds, _)| *seconds).find(|it| *it == wanted);
    let seconds = seconds.ok_or_else(|| Fault::invalid("That is none of the overlaps offered."))?;
    let key = key_of(&app, &agent)?;
    let change = visitor.change("secret.set", &key, json!({"overlap_seconds": seconds}));
    let overlap = Duration::from_secs(seconds);
    let stored = app.ingest.registry.put_secret(key, value.clone(), overlap, change).await;
    stored.map_err(|error| Fault::internal(format!("{error:#}")))?;
    app.signals.configured();
    let mut panel = panel(&app, &visitor, &agent).await?;
    if generate {
        panel.made = Some(value.expose_secret().to_owned());
    } else {
        panel.done = Some("The token is stored.");
    }
    answer(&app, visitor, panel, &form.headers)
}

pub(super) async fn replay(
    State(app): State<App>,
    Path(id): Path<String>,
    posted: Posted,
) -> Result<Response, Fault> {
    let Posted { visitor, form } = posted;
    let agent = find(&app, &id)?;
    let snapshot = app.ingest.registry.snapshot();
    let (status, last) = last(&snapshot, &agent).replay(&app, &visitor, &form.fields).await?;
    if is_fragment(&form.headers) {
        return Ok((status, answered(last)).into_response());
    }
    let panel = panel_with(&app, &visitor, &agent, last);
    let shell = Shell::new(visitor, "agents", app.store.clock().now());
    Ok((status, rendered(&Page { shell, panel })?).into_response())
}

fn last<'a>(snapshot: &'a Snapshot, agent: &Agent) -> Last<'a> {
    let at = format!("/agents/{}/webhook", agent.id);
    let source = snapshot.agent_source(agent.id.as_str()).map(|entry| &entry.source.id);
    Last { at, source, hint: "Ring it with the command above: it" }
}

/// The token that somebody pasted.
fn pasted(fields: &Fields) -> Result<SecretString, &'static str> {
    let token = fields.text("token").map(str::trim).unwrap_or_default();
    if token.is_empty() {
        Err("Paste a token, or let one be generated.")
    } else if token.len() > TOKEN_BYTES_MAX {
        Err("The token is longer than 4,096 characters, too long for a header.")
    } else if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        Err("A token is sent in a header: letters, digits and signs of ASCII, and no spaces.")
    } else {
        Ok(token.into())
    }
}

fn answer(
    app: &App,
    visitor: Visitor,
    panel: Panel,
    headers: &HeaderMap,
) -> Result<Response, Fault> {
    let shell = Shell::new(visitor, "agents", app.store.clock().now());
    if is_fragment(headers) {
        rendered(&PanelFragment { shell, panel })
    } else {
        rendered(&Page { shell, panel })
    }
}

fn find(app: &App, id: &str) -> Result<Agent, Fault> {
    let id: Option<AgentId> = id.parse().ok();
    let snapshot = app.ingest.registry.snapshot();
    let agent = id.and_then(|id| snapshot.agents.get(&id).cloned());
    agent.ok_or_else(|| Fault::not_found("There is no such agent."))
}

/// The name in the vault. An archived agent's source is gone, and with it a name of its own.
fn key_of(app: &App, agent: &Agent) -> Result<String, Fault> {
    let snapshot = app.ingest.registry.snapshot();
    let entry = snapshot.agent_source(agent.id.as_str());
    entry
        .map(|entry| secret_key(&entry.source))
        .ok_or_else(|| Fault::not_found("This agent has no endpoint any more."))
}

async fn panel(app: &App, visitor: &Visitor, agent: &Agent) -> Result<Panel, Fault> {
    let snapshot = app.ingest.registry.snapshot();
    let last = last(&snapshot, agent).section(app, visitor).await?;
    Ok(panel_with(app, visitor, agent, last))
}

fn panel_with(app: &App, visitor: &Visitor, agent: &Agent, last: Markup) -> Panel {
    let snapshot = app.ingest.registry.snapshot();
    let entry = snapshot.agent_source(agent.id.as_str());
    let key = entry.map_or_else(
        || crate::domain::secret::webhook_key(&agent.id),
        |entry| secret_key(&entry.source),
    );
    let now = app.store.clock().now();
    let token = snapshot.secret(&key).map(|info| TokenInfo {
        version: info.version,
        since: Moment::new(info.created_at, now),
        previous_until: info
            .previous_until
            .filter(|until| *until > now)
            .map(|until| Moment::new(until, now)),
    });
    let archived = agent.archived_at.is_some();
    Panel {
        agent_id: agent.id.to_string(),
        name: printable(&agent.spec.name),
        archived,
        paused: agent.paused,
        url: app.url(&format!("/api/agents/{}/webhook", agent.id)),
        key,
        token,
        may_change: visitor.may_change && !archived,
        overlaps: &OVERLAPS,
        last,
        made: None,
        done: None,
        problem: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pasted_token_can_travel_in_a_header() {
        let check = |body: &str, expected: Option<&str>| {
            let token = pasted(&Fields::parse(body.as_bytes())).ok();
            assert_eq!(token.as_ref().map(ExposeSecret::expose_secret), expected, "{body}");
        };
        check("token=+abc%2Bdef%0A", Some("abc+def"));
        for body in ["", "token=", "token=a+b", "token=%C3%A4", "token=a%00b"] {
            check(body, None);
        }
        check(&format!("token={}", "a".repeat(TOKEN_BYTES_MAX + 1)), None);
    }
}
