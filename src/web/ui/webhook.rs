//! An agent's webhook: where to send, what proves the sender, what came last.
//!
//! The same panel is a dialog over the list and a page of its own. Invariant: a token is shown once, to
//! whoever had it made, and never again.

use askama::Template;
use axum::{
    extract::{Path, State},
    http::HeaderMap,
    response::Response,
};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use super::{
    super::{App, input::At, managed},
    deliveries::Last,
    fault::Fault,
    form::{self, OVERLAPS, Wrong, refused},
    guard::{Fields, Posted, Visitor, is_fragment},
    page as rendered,
    shown::{self, Shown},
    source_acts::{secret_order, told},
    view::{Markup, Moment, Shell},
};
use crate::{
    domain::{agent::Agent, text::printable},
    id::{AgentId, Id},
    ingest::{Snapshot, secret_key},
};

/// Longest pasted token. It travels in a header.
const TOKEN_BYTES_MAX: usize = 4 * 1024;

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
    overlaps: &'static [(&'static str, &'static str)],
    last: Markup,
    /// A token that was made just now.
    made: Option<String>,
    /// What was done, or what was wrong.
    done: Option<String>,
    problem: Option<String>,
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
    let mut panel = panel(&app, &visitor, &agent).await?;
    panel.tell(shown::take(&app, &visitor, &query));
    answer(&app, visitor, panel, &headers)
}

/// Stores the sender's token, or has one made.
pub(super) async fn store_token(
    State(app): State<App>,
    Path(id): Path<String>,
    posted: Posted,
) -> Result<Response, Fault> {
    let Posted { visitor, form } = posted;
    let agent = find(&app, &id)?;
    if agent.archived_at.is_some() {
        return Err(Fault::invalid("An archived agent lets nobody in, so it needs no token."));
    }
    let key = key_of(&app, &agent)?;
    let stored = match order(&key, &form.fields) {
        Ok(order) => {
            let order = form::body(order)?;
            let state = State(app.clone());
            form::answer(managed::secrets::put(state, form::actor(&visitor), order).await)?
        }
        Err(wrong) => Err(wrong),
    };
    let shown = match stored {
        Ok(stored) => match stored["value"].as_str() {
            Some(made) => Shown::made(key, made),
            None => Shown::notice("The token is stored."),
        },
        Err(wrong) => {
            let mut panel = panel(&app, &visitor, &agent).await?;
            panel.problem = Some(wrong.to_string());
            let shell = Shell::new(visitor, "agents", app.store.clock().now());
            return match is_fragment(&form.headers) {
                true => refused(&PanelFragment { shell, panel }, &wrong),
                false => refused(&Page { shell, panel }, &wrong),
            };
        }
    };
    tell(&app, visitor, &agent, &form.headers, shown).await
}

/// Sends a delivery as whoever has the token would.
pub(super) async fn test(
    State(app): State<App>,
    Path(id): Path<String>,
    posted: Posted,
) -> Result<Response, Fault> {
    let Posted { visitor, form } = posted;
    let agent = find(&app, &id)?;
    let at = At(agent.id.to_string());
    let sent = managed::trials::test(State(app.clone()), at, form::body(json!({}))?).await;
    let shown = match form::answer(sent)? {
        Ok(sent) => told(&sent),
        Err(wrong) => Shown::problem(wrong.to_string()),
    };
    tell(&app, visitor, &agent, &form.headers, shown).await
}

/// A script swaps in what came of it; without one the page that follows shows it.
async fn tell(
    app: &App,
    visitor: Visitor,
    agent: &Agent,
    headers: &HeaderMap,
    shown: Shown,
) -> Result<Response, Fault> {
    if !is_fragment(headers) {
        let place = format_args!("/agents/{}/webhook", agent.id);
        return Ok(shown::show(app, &visitor, place, shown));
    }
    let mut panel = panel(app, &visitor, agent).await?;
    panel.tell(shown);
    answer(app, visitor, panel, headers)
}

impl Panel {
    fn tell(&mut self, shown: Shown) {
        self.made = shown.made.map(|(_, value)| value);
        (self.done, self.problem) = (shown.notice, shown.problem);
    }
}

pub(super) async fn replay(
    State(app): State<App>,
    Path(id): Path<String>,
    posted: Posted,
) -> Result<Response, Fault> {
    let Posted { visitor, form } = posted;
    let agent = find(&app, &id)?;
    let snapshot = app.ingest.registry.snapshot();
    last(&snapshot, &agent).replay(&app, &visitor, &form).await
}

/// What the API is asked for: the token that was pasted, without what a pasted line brings along, or one
/// that the server makes.
fn order(key: &str, fields: &Fields) -> Result<Value, Wrong> {
    let mut order = secret_order(key, fields, "token")?;
    if order["generate"].is_null() {
        let token = pasted(fields).map_err(|why| Wrong::of("token", why))?;
        order["value"] = token.expose_secret().into();
    }
    Ok(order)
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
    Ok(Panel {
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
    })
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
