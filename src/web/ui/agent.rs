//! An agent: what it is, its earlier versions and what changed, and the form that makes the next one.
//!
//! Saving makes a version; sessions that run keep theirs. It is paused here, and archived. Who changed the agent in the meantime is not
//! overwritten: the form names the version that it was made of.

use askama::Template;
use axum::{
    extract::{Path, State},
    response::{IntoResponse, Redirect, Response},
};
use serde_json::{Map, Value, json};

use super::{
    super::{App, managed},
    agent_tools::{STATES, STATES_OF_ONE, Table},
    confirm::Confirm,
    diff::{self, Line},
    fault::Fault,
    form::{Wrong, actor, body, outcome, refused},
    guard::{Changer, Fields, Posted, Visitor},
    page as rendered, place,
    session::Badge,
    view::{Moment, Shell, dollars},
};
use crate::{
    domain::{
        ManagedBy,
        agent::{Agent, AgentSpec},
        text::printable,
    },
    id::AgentId,
    store,
};

/// Versions that the page compares; the API has all.
const VERSIONS_MAX: usize = 10;

#[derive(Template)]
#[template(path = "agent.html")]
struct Page {
    shell: Shell,
    /// None for one that is about to be made.
    it: Option<Shown>,
    form: Form,
    states: &'static [(&'static str, &'static str)],
    states_of_one: &'static [(&'static str, &'static str)],
    may_edit: bool,
    notice: Option<String>,
    problem: Option<Wrong>,
}

impl Page {
    /// Of an agent that is about to be made.
    fn of_new(app: &App, visitor: Visitor, form: Form, problem: Option<Wrong>) -> Page {
        Page {
            shell: Shell::new(visitor, "agents", app.store.clock().now()),
            it: None,
            form,
            states: STATES,
            states_of_one: STATES_OF_ONE,
            may_edit: true,
            notice: None,
            problem,
        }
    }
}

struct Shown {
    id: String,
    name: String,
    state: Badge,
    version: i64,
    paused: bool,
    is_archived: bool,
    from_file: bool,
    cost: String,
    changed: Moment,
    versions: Vec<Version>,
}

/// A version, and what it changed of the one before.
struct Version {
    n: i64,
    at: Moment,
    lines: Vec<Line>,
}

/// The fields as they are written.
#[derive(Default)]
struct Form {
    name: String,
    description: String,
    model: String,
    system: String,
    tools: String,
    mcp_servers: String,
    table: Table,
    /// Whether the JSON is what is wrong.
    shows_json: bool,
}

impl Form {
    fn of(spec: &AgentSpec) -> Form {
        let list = |value: Value| match value.as_array().is_none_or(Vec::is_empty) {
            true => String::new(),
            false => serde_json::to_string_pretty(&value).unwrap_or_default(),
        };
        Form {
            name: spec.name.clone(),
            description: spec.description.clone().unwrap_or_default(),
            model: spec.model.id.clone(),
            system: spec.system.clone().unwrap_or_default(),
            tools: list(json!(spec.tools)),
            mcp_servers: list(json!(spec.mcp_servers)),
            table: Table::of(&spec.tools, &json!(spec.mcp_servers)),
            shows_json: false,
        }
    }

    fn typed(fields: &Fields) -> Form {
        let text = |name: &str| fields.text(name).unwrap_or_default().to_owned();
        Form {
            name: text("name"),
            description: text("description"),
            model: text("model"),
            system: text("system"),
            tools: text("tools"),
            mcp_servers: text("mcp_servers"),
            table: Table::typed(fields),
            shows_json: true,
        }
    }

    /// In the words of the API. A model that stays the same keeps what else is known of it.
    fn to_fields(
        &self,
        typed: &Fields,
        before: Option<&AgentSpec>,
    ) -> Result<Map<String, Value>, Wrong> {
        let mut out = Map::new();
        for (name, text) in
            [("name", &self.name), ("description", &self.description), ("system", &self.system)]
        {
            // A form sends its lines with carriage returns.
            out.insert(name.to_owned(), json!(text.replace("\r\n", "\n")));
        }
        if before.is_none_or(|spec| spec.model.id != self.model.trim()) {
            out.insert("model".to_owned(), json!(self.model.trim()));
        }
        for (name, word, text) in
            [("tools", "tools", &self.tools), ("mcp_servers", "MCP servers", &self.mcp_servers)]
        {
            let value = match text.trim() {
                "" => json!([]),
                text => serde_json::from_str(text).map_err(|error| {
                    Wrong::of(name, format!("The {word} are no JSON: {error}."))
                })?,
            };
            out.insert(name.to_owned(), value);
        }
        if let Some(tools) = out.get_mut("tools") {
            Table::apply(typed, tools);
        }
        Ok(out)
    }
}

async fn find(app: &App, id: &str) -> Result<Agent, Fault> {
    let unknown = || Fault::not_found("There is no such agent.");
    let id: AgentId = id.parse().map_err(|_| unknown())?;
    app.store.agent(&id, None).await.map_err(|error| match error {
        store::Error::NotFound => unknown(),
        error => error.into(),
    })
}

pub(super) async fn page(
    State(app): State<App>,
    visitor: Visitor,
    Path(id): Path<String>,
    query: Fields,
) -> Result<Response, Fault> {
    let agent = find(&app, &id).await?;
    let notice = (query.text("done") == Some("saved"))
        .then(|| format!("Saved: version {} is what new sessions get.", agent.version));
    show(&app, visitor, &agent, Form::of(&agent.spec), (notice, None)).await
}

async fn show(
    app: &App,
    visitor: Visitor,
    agent: &Agent,
    form: Form,
    (notice, problem): (Option<String>, Option<Wrong>),
) -> Result<Response, Fault> {
    let now = app.store.clock().now();
    let id = agent.id.to_string();
    let cost = app.store.cost_today(vec![id.clone()]).await?;
    let found = app.store.agent_versions(&agent.id, None, VERSIONS_MAX + 1).await?.data;
    let text = |agent: &Agent| serde_json::to_string_pretty(&readable(&agent.spec));
    let versions = found.iter().enumerate().take(VERSIONS_MAX).map(|(n, version)| {
        let before = found.get(n + 1).map(&text).and_then(Result::ok).unwrap_or_default();
        let lines = diff::lines(&before, &text(version).unwrap_or_default());
        Version { n: version.version, at: Moment::new(version.updated_at, now), lines }
    });
    let it = Shown {
        name: printable(&agent.spec.name),
        state: super::agents::state(agent),
        version: agent.version,
        paused: agent.paused,
        is_archived: agent.archived_at.is_some(),
        from_file: agent.managed_by == ManagedBy::File,
        cost: dollars(cost.get(&id).copied().unwrap_or_default()),
        changed: Moment::new(agent.updated_at, now),
        versions: versions.collect(),
        id,
    };
    let may_edit = visitor.may_change && !it.from_file && !it.is_archived;
    let shell = Shell::new(visitor, "agents", now);
    let page = Page {
        shell,
        it: Some(it),
        form,
        states: STATES,
        states_of_one: STATES_OF_ONE,
        may_edit,
        notice,
        problem,
    };
    match &page.problem {
        Some(wrong) => refused(&page, wrong),
        None => rendered(&page),
    }
}

/// A spec of which a person sees what changed: the lines of a prompt are lines.
fn readable(spec: &AgentSpec) -> Value {
    let mut shown = json!({
        "name": spec.name,
        "description": spec.description,
        "model": spec.model.to_json(),
        "tools": spec.tools,
        "mcp_servers": spec.mcp_servers,
        "skills": spec.skills,
        "metadata": spec.metadata,
    });
    let system = spec.system.as_deref().unwrap_or_default().lines();
    shown["system"] = json!(system.collect::<Vec<_>>());
    shown
}

pub(super) async fn new(
    State(app): State<App>,
    Changer(visitor): Changer,
) -> Result<Response, Fault> {
    let table = Table::of(&[], &Value::Null);
    let form = Form { model: "rehearsal".to_owned(), table, ..Form::default() };
    rendered(&Page::of_new(&app, visitor, form, None))
}

pub(super) async fn create(State(app): State<App>, posted: Posted) -> Result<Response, Fault> {
    let Posted { visitor, form } = posted;
    let typed = form.fields;
    let form = Form::typed(&typed);
    let made = match form.to_fields(&typed, None) {
        Ok(fields) => {
            let fields = body(fields.into())?;
            outcome(managed::agents::make(&app, &actor(&visitor), fields, None).await)?
        }
        Err(wrong) => Err(wrong),
    };
    match made {
        Ok((agent, _)) => Ok(Redirect::to(&format!("/agents/{}", agent.id)).into_response()),
        Err(wrong) => refused(&Page::of_new(&app, visitor, form, Some(wrong.clone())), &wrong),
    }
}

/// Makes the next version.
pub(super) async fn save(
    State(app): State<App>,
    Path(id): Path<String>,
    posted: Posted,
) -> Result<Response, Fault> {
    let Posted { visitor, form } = posted;
    let agent = find(&app, &id).await?;
    let seen = form.fields.text("version").and_then(|it| it.parse::<i64>().ok());
    let typed = form.fields;
    let form = Form::typed(&typed);
    let saved = match form.to_fields(&typed, Some(&agent.spec)) {
        Ok(mut fields) => {
            fields.insert("version".to_owned(), json!(seen.unwrap_or(agent.version)));
            let fields = body(fields.into())?;
            let actor = actor(&visitor);
            outcome(managed::agents::change(&app, &actor, &agent.id, fields, None).await)?
        }
        Err(wrong) => Err(wrong),
    };
    match saved {
        Ok(_) => Ok(Redirect::to(&format!("/agents/{}?done=saved", agent.id)).into_response()),
        Err(wrong) => show(&app, visitor, &agent, form, (None, Some(wrong))).await,
    }
}

/// Pauses or resumes it: what comes meanwhile is taken, and waits.
pub(super) async fn pause(
    State(app): State<App>,
    Path(id): Path<String>,
    posted: Posted,
) -> Result<Response, Fault> {
    let Posted { visitor, form } = posted;
    let agent = find(&app, &id).await?;
    let paused = form.fields.text("paused") == Some("yes");
    let action = if paused { "agent.pause" } else { "agent.resume" };
    let change = visitor.change(action, &agent.id, json!({}));
    app.store.pause_agent(&agent.id, paused, change).await?;
    app.configured().await;
    app.signals.due();
    let its_page = format!("/agents/{}", agent.id);
    Ok(Redirect::to(place::back(&form.fields, &its_page)).into_response())
}

pub(super) async fn ask_archive(
    State(app): State<App>,
    Changer(visitor): Changer,
    Path(id): Path<String>,
) -> Result<Response, Fault> {
    let agent = find(&app, &id).await?;
    Confirm {
        shell: Shell::new(visitor, "agents", app.store.clock().now()),
        title: format!("Archive the agent {}?", printable(&agent.spec.name)),
        text: "From then on nobody can change it or ring its bell, its deployments are archived too, \
            and what sources send to it is held. Sessions that it has go on. There is no way back.",
        action: format!("/agents/{}/archive", agent.id),
        button: "Archive the agent",
        back: format!("/agents/{}", agent.id),
    }
    .page()
}

pub(super) async fn archive(
    State(app): State<App>,
    Path(id): Path<String>,
    posted: Posted,
) -> Result<Response, Fault> {
    let agent = find(&app, &id).await?;
    managed::agents::put_away(&app, &actor(&posted.visitor), &agent.id).await?;
    Ok(Redirect::to(&format!("/agents/{}", agent.id)).into_response())
}
