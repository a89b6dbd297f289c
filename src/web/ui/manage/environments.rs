//! Environments: where tools run, what they may reach, and what they start with.

use askama::Template;
use axum::{
    extract::{Path, State},
    response::Response,
};
use serde_json::{Map, Value, json};

use super::{
    super::{
        super::{App, input::At, managed::environments},
        fault::Fault,
        guard::{Changer, Fields, Posted, Visitor},
        view::{Moment, Shell},
    },
    Confirm, Given, LIST_MAX, Wrong, actor, answer, body, done, is_archived_shown, lines, listed,
    next_place, no_such, notice, shell,
};
use crate::{
    domain::{
        ManagedBy,
        access::Network,
        environment::{DEFAULT_NAME, Environment, EnvironmentConfig, Variable, Workspace},
        text::printable,
    },
    id::EnvironmentId,
};

#[derive(Template)]
#[template(path = "manage/environments.html")]
struct List {
    shell: Shell,
    rows: Vec<Row>,
    next: Option<String>,
    with_archived: bool,
    given: Given,
    notice: Option<&'static str>,
    form: Settings,
    roots: Vec<String>,
    url: String,
}

#[derive(Template)]
#[template(path = "manage/environment.html")]
struct Page {
    shell: Shell,
    row: Row,
    config: String,
    given: Given,
    notice: Option<&'static str>,
    form: Settings,
    roots: Vec<String>,
    may_archive: bool,
}

struct Row {
    id: String,
    name: String,
    description: Option<String>,
    kind: &'static str,
    place: String,
    network: String,
    n_setup: usize,
    n_variables: usize,
    created: Moment,
    changed: Moment,
    archived: Option<Moment>,
    from_file: bool,
}

/// What the form of an environment holds.
#[derive(Default)]
struct Settings {
    kind: String,
    name: String,
    description: String,
    project: String,
    workspace: String,
    network: String,
    hosts: String,
    setup: String,
    variables: String,
    /// Of one that is there the kind stays.
    is_new: bool,
}

pub(in crate::web::ui) async fn list(
    State(app): State<App>,
    visitor: Visitor,
    query: Fields,
) -> Result<Response, Fault> {
    show_list(&app, visitor, &query, Given::default()).await
}

pub(in crate::web::ui) async fn create(
    State(app): State<App>,
    posted: Posted,
) -> Result<Response, Fault> {
    let Posted { visitor, form } = posted;
    let fields = form.fields;
    let kind = fields.text("kind").unwrap_or("cloud");
    let config = config(&fields, kind, &Value::Null);
    let made = match config {
        Err(problem) => Err(problem),
        Ok(config) => {
            let wanted = json!({
                "name": fields.text("name"),
                "description": fields.text("description"),
                "config": config,
            });
            let made = environments::create(State(app.clone()), actor(&visitor), body(wanted)?);
            answer(made.await)?
        }
    };
    match made {
        Ok(made) => {
            let id = made["id"].as_str().unwrap_or_default();
            Ok(done(format_args!("/environments/{id}"), "made"))
        }
        Err(problem) => {
            let given = Given::wrong(fields, problem);
            show_list(&app, visitor, &Fields::parse(b""), given).await
        }
    }
}

pub(in crate::web::ui) async fn page(
    State(app): State<App>,
    visitor: Visitor,
    Path(id): Path<String>,
    query: Fields,
) -> Result<Response, Fault> {
    let environment = find(&app, &id).await?;
    show_page(&app, visitor, &environment, &query, Given::default())
}

pub(in crate::web::ui) async fn update(
    State(app): State<App>,
    Path(id): Path<String>,
    posted: Posted,
) -> Result<Response, Fault> {
    let Posted { visitor, form } = posted;
    let before = find(&app, &id).await?;
    let fields = form.fields;
    let stored = serde_json::to_value(&before.config).unwrap_or_default();
    let kind = stored["type"].as_str().unwrap_or_default();
    let saved = match config(&fields, kind, &stored) {
        Err(problem) => Err(problem),
        Ok(config) => {
            let wanted = json!({
                "name": fields.text("name"),
                "description": fields.text("description"),
                "config": config,
            });
            let at = At(before.id.clone());
            let saved =
                environments::update(State(app.clone()), actor(&visitor), at, body(wanted)?);
            answer(saved.await)?
        }
    };
    match saved {
        Ok(_) => Ok(done(format_args!("/environments/{id}"), "saved")),
        Err(problem) => {
            let given = Given::wrong(fields, problem);
            show_page(&app, visitor, &before, &Fields::parse(b""), given)
        }
    }
}

pub(in crate::web::ui) async fn ask_archive(
    State(app): State<App>,
    Changer(visitor): Changer,
    Path(id): Path<String>,
) -> Result<Response, Fault> {
    let environment = find(&app, &id).await?;
    Confirm {
        shell: shell(&app, visitor, "environments").0,
        title: format!("Archive the environment {}?", printable(&environment.name)),
        text: "No new session can work in it, and it cannot be changed or brought back. Sessions \
               that work in it go on.",
        action: format!("/environments/{id}/archive"),
        button: "Archive the environment",
        back: format!("/environments/{id}"),
    }
    .page()
}

pub(in crate::web::ui) async fn archive(
    State(app): State<App>,
    Path(id): Path<String>,
    posted: Posted,
) -> Result<Response, Fault> {
    let id: EnvironmentId = id.parse().map_err(|_| no_such("environment"))?;
    environments::archive(State(app), actor(&posted.visitor), At(id)).await.map(drop)?;
    Ok(done("/environments", "archived"))
}

/// The configuration that a form means, beside what was stored and no form has.
fn config(fields: &Fields, kind: &str, stored: &Value) -> Result<Value, Wrong> {
    let text = |name: &str| fields.text(name).unwrap_or_default();
    if kind == "self_hosted" {
        return Ok(json!({"type": kind}));
    }
    let mut config = json!({"type": kind, "setup": lines(text("setup"))});
    let hosts = listed(text("hosts"));
    config["networking"] = match text("network") {
        "limited" => json!({"type": "limited", "allowed_hosts": hosts}),
        other if hosts.is_empty() => json!({"type": other}),
        _ => {
            let why = "Hosts are for a network that is limited to them: choose it.";
            return Err(Wrong::of("network", why));
        }
    };
    if kind == "local" {
        config["project"] = text("project").into();
        config["workspace"] = text("workspace").into();
    }
    let mut variables = Map::new();
    for line in lines(text("variables")) {
        let (name, value) = line.split_once('=').ok_or_else(|| {
            let why = "Write each variable as NAME=value, or NAME=secret:NAME_OF_A_SECRET";
            Wrong::of("variables", format!("{why}: `{}` has no =.", printable(line)))
        })?;
        let value = match value.strip_prefix("secret:") {
            Some(secret) => json!({"secret": secret.trim()}),
            None => json!(value),
        };
        variables.insert(name.trim().to_owned(), value);
    }
    config["variables"] = Value::Object(variables);
    // An update goes on from what is stored where it is given an object.
    if !stored.is_null() && config["networking"]["type"] == stored["networking"]["type"] {
        for key in ["allow_package_managers", "allow_mcp_servers"] {
            if let Some(value) = stored["networking"].get(key) {
                config["networking"][key] = value.clone();
            }
        }
    }
    Ok(config)
}

async fn find(app: &App, id: &str) -> Result<Environment, Fault> {
    let id: EnvironmentId = id.parse().map_err(|_| no_such("environment"))?;
    Ok(app.store.environment(&id).await?)
}

async fn show_list(
    app: &App,
    visitor: Visitor,
    query: &Fields,
    given: Given,
) -> Result<Response, Fault> {
    let with_archived = is_archived_shown(query);
    let cursor = query.text("page").and_then(|it| it.parse().ok());
    let found = app.store.environments(with_archived, cursor, LIST_MAX).await?;
    let (shell, now) = shell(app, visitor, "environments");
    let blank = Settings {
        kind: "cloud".to_owned(),
        workspace: "worktree".to_owned(),
        network: "none".to_owned(),
        is_new: true,
        ..Settings::default()
    };
    let page = List {
        shell,
        rows: found.data.iter().map(|it| row(it, now)).collect(),
        next: next_place(found.next),
        with_archived,
        form: filled(&given, blank),
        given,
        notice: notice(query),
        roots: roots(app),
        url: app.url("/v1/environments"),
    };
    page.given.answer(&page)
}

fn show_page(
    app: &App,
    visitor: Visitor,
    environment: &Environment,
    query: &Fields,
    given: Given,
) -> Result<Response, Fault> {
    let (shell, now) = shell(app, visitor, "environments");
    let config = serde_json::to_string_pretty(&environment.config).unwrap_or_default();
    let is_ours = environment.managed_by == ManagedBy::Api && environment.archived_at.is_none();
    let page = Page {
        may_archive: is_ours && environment.name != DEFAULT_NAME && shell.visitor.may_change,
        shell,
        row: row(environment, now),
        config: printable(&config),
        form: filled(&given, stored(environment)),
        given,
        notice: notice(query),
        roots: roots(app),
    };
    page.given.answer(&page)
}

fn roots(app: &App) -> Vec<String> {
    app.options().project_roots.iter().map(|it| printable(&it.display().to_string())).collect()
}

/// What was filled in, or what is there.
fn filled(given: &Given, before: Settings) -> Settings {
    let kept = |name: &str, before: String| given.or(name, &before).to_owned();
    Settings {
        kind: if before.is_new { kept("kind", before.kind) } else { before.kind },
        name: kept("name", before.name),
        description: kept("description", before.description),
        project: kept("project", before.project),
        workspace: kept("workspace", before.workspace),
        network: kept("network", before.network),
        hosts: kept("hosts", before.hosts),
        setup: kept("setup", before.setup),
        variables: kept("variables", before.variables),
        is_new: before.is_new,
    }
}

fn stored(environment: &Environment) -> Settings {
    let config = &environment.config;
    let (network, hosts) = match config.network() {
        Network::Unrestricted => ("unrestricted", String::new()),
        Network::Limited(hosts) => ("limited", hosts.join(", ")),
        Network::None => ("none", String::new()),
    };
    let (mut setup, mut variables) = (String::new(), String::new());
    if let Some(programs) = config.programs() {
        setup = programs.setup.join("\n");
        let line = |(name, value): (&String, &Variable)| match value {
            Variable::Plain(value) => format!("{name}={value}"),
            Variable::Secret { secret } => format!("{name}=secret:{secret}"),
        };
        variables = programs.variables.iter().map(line).collect::<Vec<_>>().join("\n");
    }
    let (project, workspace) = match config {
        EnvironmentConfig::Local { project, workspace, .. } => {
            let workspace = match workspace {
                Workspace::Shared => "shared",
                Workspace::Worktree => "worktree",
                Workspace::Copy => "copy",
            };
            (project.clone(), workspace)
        }
        EnvironmentConfig::Cloud { .. } | EnvironmentConfig::SelfHosted => (String::new(), ""),
    };
    Settings {
        kind: kind(config).to_owned(),
        name: environment.name.clone(),
        description: environment.description.clone().unwrap_or_default(),
        project,
        workspace: workspace.to_owned(),
        network: network.to_owned(),
        hosts,
        setup,
        variables,
        is_new: false,
    }
}

fn kind(config: &EnvironmentConfig) -> &'static str {
    match config {
        EnvironmentConfig::Cloud { .. } => "cloud",
        EnvironmentConfig::Local { .. } => "local",
        EnvironmentConfig::SelfHosted => "self_hosted",
    }
}

fn row(environment: &Environment, now: crate::clock::Timestamp) -> Row {
    let config = &environment.config;
    let network = match config {
        EnvironmentConfig::SelfHosted => "the client’s own".to_owned(),
        _ => match config.network() {
            Network::Unrestricted => "any public host".to_owned(),
            Network::Limited(hosts) if hosts.is_empty() => "no listed host".to_owned(),
            Network::Limited(hosts) => printable(&hosts.join(", ")),
            Network::None => "none".to_owned(),
        },
    };
    let place = match config {
        EnvironmentConfig::Cloud { .. } => "a fresh directory for each session".to_owned(),
        EnvironmentConfig::SelfHosted => "at the client".to_owned(),
        EnvironmentConfig::Local { project, workspace, .. } => {
            let how = match workspace {
                Workspace::Shared => "in place, one session at a time",
                Workspace::Worktree => "a worktree for each session",
                Workspace::Copy => "a copy for each session",
            };
            format!("{}: {how}", printable(project))
        }
    };
    let programs = config.programs();
    Row {
        id: environment.id.to_string(),
        name: printable(&environment.name),
        description: environment.description.as_deref().map(printable).filter(|it| !it.is_empty()),
        kind: kind(config),
        place,
        network,
        n_setup: programs.map_or(0, |it| it.setup.len()),
        n_variables: programs.map_or(0, |it| it.variables.len()),
        created: Moment::new(environment.created_at, now),
        changed: Moment::new(environment.updated_at, now),
        archived: environment.archived_at.map(|at| Moment::new(at, now)),
        from_file: environment.managed_by == ManagedBy::File,
    }
}
