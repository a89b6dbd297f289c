//! The form of a deployment: to make one, and to change one. It tells the next runs of a schedule before
//! it is saved.
//!
//! What no form has, such as files and first events of other kinds, stays as it is stored. Left out:
//! what a deployment may be, which the API says.

use axum::{
    extract::{Path, State},
    response::Response,
};
use serde_json::{Value, json};

use super::{
    super::{
        super::{App, input::At, managed},
        delivery_list::{Choice, living_agents},
        guard::Changer,
        shown::Shown,
        view::Moment,
    },
    Fault, Fields, Given, Shell, Wrong, actor, answer, body,
    deployments::{UPCOMING, parse},
    done, shell, shown,
};
use crate::{
    clock::Timestamp,
    domain::{
        deployment::{Deployment, Schedule},
        text::printable,
    },
    id::Id,
    ingest::Snapshot,
    schedule::{
        cron::Cron,
        words::{local, words},
    },
    web::ui::guard::Posted,
};

/// Agents, environments and vaults that the form offers.
const CHOICES_MAX: usize = 200;

#[derive(askama::Template)]
#[template(path = "manage/deployment_edit.html")]
struct Page {
    shell: Shell,
    id: String,
    name: String,
    form: Form,
    given: Given,
}

/// The form as it is shown.
pub(super) struct Form {
    pub(super) name: String,
    pub(super) description: String,
    pub(super) agents: Vec<Choice>,
    pub(super) environments: Vec<Choice>,
    pub(super) vaults: Vec<Choice>,
    /// Nothing where the first events are more than one text.
    pub(super) message: Option<String>,
    pub(super) expression: String,
    pub(super) timezone: String,
    /// What the schedule comes to, if it was asked for.
    pub(super) times: Option<Times>,
}

/// A schedule in words, and when it comes next: how far away, and as the clock of its zone shows it.
pub(super) struct Times {
    pub(super) words: String,
    pub(super) upcoming: Vec<(Moment, String)>,
}

/// What a form begins with: what was typed, what is stored, or nothing.
pub(super) enum From<'a> {
    Typed(&'a Fields, Option<&'a Deployment>),
    Stored(&'a Deployment),
    Nothing,
}

impl Form {
    pub(super) async fn new(app: &App, from: From<'_>) -> Result<Form, Fault> {
        let now = app.store.clock().now();
        let snapshot = app.ingest.registry.snapshot();
        let (typed, stored) = match from {
            From::Typed(fields, stored) => (Some(fields), stored),
            From::Stored(deployment) => (None, Some(deployment)),
            From::Nothing => (None, None),
        };
        let text = |name: &str, stored: Option<&str>| match typed {
            Some(fields) => fields.text(name).unwrap_or_default().to_owned(),
            None => stored.unwrap_or_default().to_owned(),
        };
        let schedule = stored.and_then(|it| it.schedule.as_ref());
        let message = match stored {
            Some(stored) => plain_message(&stored.initial_events),
            None => Some(String::new()),
        };
        let (expression, timezone) = (
            text("expression", schedule.map(|it| &*it.expression)),
            text("timezone", schedule.map(|it| &*it.timezone)),
        );
        let environment = text("environment_id", stored.map(|it| it.environment_id.as_str()));
        let chosen: Vec<String> = match typed {
            Some(fields) => fields.all("vault").map(str::to_owned).collect(),
            None => stored.map(|it| it.vault_ids.clone()).unwrap_or_default(),
        };
        Ok(Form {
            name: text("name", stored.map(|it| &*it.name)),
            description: text("description", stored.and_then(|it| it.description.as_deref())),
            agents: agents(&snapshot, stored, &text("agent", None)),
            environments: environments(app, &environment).await?,
            vaults: vaults(app, &chosen).await?,
            message: message.map(|message| text("message", Some(&message))),
            times: times(&expression, &timezone, now).ok().flatten(),
            expression,
            timezone,
        })
    }
}

/// Those that a new session can have; of one that is there, its version first.
fn agents(snapshot: &Snapshot, stored: Option<&Deployment>, chosen: &str) -> Vec<Choice> {
    let kept = stored.map(|it| {
        let agent = snapshot.agents.get(&it.agent_id);
        let name =
            agent.map_or_else(|| it.agent_id.to_string(), |agent| printable(&agent.spec.name));
        Choice::new("", format!("{name}, version {}, as it is", it.agent_version), chosen)
    });
    let others = living_agents(snapshot).into_iter().take(CHOICES_MAX).map(|agent| {
        let name = format!("{}, version {}", printable(&agent.spec.name), agent.version);
        Choice::new(agent.id.as_str(), name, chosen)
    });
    kept.into_iter().chain(others).collect()
}

async fn environments(app: &App, chosen: &str) -> Result<Vec<Choice>, Fault> {
    let found = app.store.environments(false, None, CHOICES_MAX).await?.data;
    let choice = |it: &crate::domain::environment::Environment| {
        Choice::new(it.id.as_str(), printable(&it.name), chosen)
    };
    let mut choices: Vec<Choice> = found.iter().map(choice).collect();
    // One that is archived by now is still what is stored.
    if !chosen.is_empty() && choices.iter().all(|it| !it.is_chosen) {
        choices.push(Choice::new(chosen, printable(chosen), chosen));
    }
    Ok(choices)
}

async fn vaults(app: &App, chosen: &[String]) -> Result<Vec<Choice>, Fault> {
    let found = app.store.vaults(false, None, CHOICES_MAX).await?.data;
    let mut choices: Vec<Choice> = found
        .iter()
        .map(|it| Choice::new(it.id.as_str(), printable(&it.display_name), ""))
        .collect();
    for id in chosen {
        match choices.iter_mut().find(|it| it.value == *id) {
            Some(choice) => choice.is_chosen = true,
            None => choices.push(Choice::new(&**id, printable(id), id)),
        }
    }
    Ok(choices)
}

/// What the schedule of a form comes to; nothing where it has none.
fn times(expression: &str, timezone: &str, now: Timestamp) -> Result<Option<Times>, Wrong> {
    let expression = expression.trim();
    if expression.is_empty() {
        return Ok(None);
    }
    let timezone = Some(timezone.trim()).filter(|it| !it.is_empty()).unwrap_or("UTC");
    let schedule = Schedule { expression: expression.to_owned(), timezone: timezone.to_owned() };
    let cron = Cron::parse(&schedule);
    let cron =
        cron.map_err(|problem| Wrong::said(&format!("{}: {}", problem.field, problem.message)))?;
    let upcoming = cron.upcoming(now, UPCOMING).into_iter();
    let upcoming = upcoming.map(|at| (Moment::new(at, now), local(&schedule, at))).collect();
    Ok(Some(Times { words: words(&schedule), upcoming }))
}

/// The text of the one message that sessions start with, if that is all there is.
fn plain_message(events: &[Value]) -> Option<String> {
    let [event] = events else { return None };
    let blocks = event["content"].as_array().filter(|_| event["type"] == "user.message")?;
    let [block] = blocks.as_slice() else { return None };
    block["text"].as_str().map(str::to_owned)
}

/// What the form says, as the API takes it.
pub(super) fn wanted(fields: &Fields, before: Option<&Deployment>) -> Value {
    let text = |name: &str| fields.text(name);
    let vaults: Vec<&str> = fields.all("vault").filter(|it| !it.is_empty()).collect();
    let mut wanted = json!({
        "name": text("name").unwrap_or_default(),
        "description": text("description"),
        "environment_id": text("environment_id").unwrap_or_default(),
        "vault_ids": vaults,
        "schedule": text("expression").map(str::trim).filter(|it| !it.is_empty()).map(|expression| {
            let timezone = text("timezone").map(str::trim).filter(|it| !it.is_empty());
            let timezone = timezone.unwrap_or("UTC");
            json!({"type": "cron", "expression": expression, "timezone": timezone})
        }),
    });
    if before.is_none() || text("agent").is_some() {
        wanted["agent"] = text("agent").into();
    }
    if before.is_none_or(|it| plain_message(&it.initial_events).is_some()) {
        let message = text("message").unwrap_or_default().replace("\r\n", "\n");
        let content = json!([{"type": "text", "text": message}]);
        wanted["initial_events"] = json!([{"type": "user.message", "content": content}]);
    }
    wanted
}

/// Whether only the times of the schedule were asked for; then the page with them.
pub(super) fn preview(app: &App, posted: &Posted, place: &str) -> Result<Option<Response>, Wrong> {
    let fields = &posted.form.fields;
    if fields.text("preview").is_none() {
        return Ok(None);
    }
    let text = |name: &str| fields.text(name).unwrap_or_default();
    let now = app.store.clock().now();
    if times(text("expression"), text("timezone"), now)?.is_none() {
        return Err(Wrong::of("expression", "Without a schedule it runs by hand only."));
    }
    let typed = Some(fields.encoded());
    let shown = Shown { typed, ..Shown::default() };
    Ok(Some(shown::show(app, &posted.visitor, place, shown)))
}

pub(in crate::web::ui) async fn page(
    State(app): State<App>,
    Changer(visitor): Changer,
    Path(id): Path<String>,
    query: Fields,
) -> Result<Response, Fault> {
    let deployment = find(&app, &id).await?;
    let typed = shown::take(&app, &visitor, &query).typed;
    let typed = typed.map(|typed| Fields::parse(typed.as_bytes()));
    let from = match &typed {
        Some(fields) => From::Typed(fields, Some(&deployment)),
        None => From::Stored(&deployment),
    };
    let form = Form::new(&app, from).await?;
    let shell = shell(&app, visitor, "deployments").0;
    let name = printable(&deployment.name);
    Given::default().answer(&Page { shell, id, name, form, given: Given::default() })
}

pub(in crate::web::ui) async fn save(
    State(app): State<App>,
    Path(id): Path<String>,
    posted: Posted,
) -> Result<Response, Fault> {
    let deployment = find(&app, &id).await?;
    let wrong = match preview(&app, &posted, &format!("/deployments/{id}/edit#times")) {
        Ok(Some(response)) => return Ok(response),
        Ok(None) => {
            let wanted = body(wanted(&posted.form.fields, Some(&deployment)))?;
            let (state, at) = (State(app.clone()), At(deployment.id.clone()));
            let saved = managed::deployments::update(state, actor(&posted.visitor), at, wanted);
            match answer(saved.await)? {
                Ok(_) => return Ok(done(format_args!("/deployments/{id}"), "saved")),
                Err(wrong) => wrong,
            }
        }
        Err(wrong) => wrong,
    };
    let fields = posted.form.fields;
    let form = Form::new(&app, From::Typed(&fields, Some(&deployment))).await?;
    let shell = shell(&app, posted.visitor, "deployments").0;
    let name = printable(&deployment.name);
    let page = Page { shell, id, name, form, given: Given::only(wrong) };
    page.given.answer(&page)
}

/// One that can still be changed.
async fn find(app: &App, id: &str) -> Result<Deployment, Fault> {
    let deployment = app.store.deployment(&parse(id)?).await?;
    match deployment.archived_at {
        None => Ok(deployment),
        Some(_) => Err(Fault::invalid("It is archived, and cannot be changed any more.")),
    }
}
