//! The form of what a source decides, and what its fields say in the words of the API.
//!
//! Nothing is judged here but what is no JSON or no number: the API's own checks come after.

use serde_json::{Map, Value, json};

use super::{
    delivery_list::Choice,
    form::{Wrong, json_of, lines},
    guard::Fields,
};
use crate::{
    domain::{
        agent,
        source::{SourceDefinition, Target, WhenBusy},
        text::printable,
    },
    id::Id,
    ingest::Snapshot,
};

/// The fields as a page shows them.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) agents: Vec<Choice>,
    /// Environments; an empty value is the default one.
    pub(super) places: Vec<Choice>,
    pub(super) project: String,
    pub(super) targets: Vec<Choice>,
    /// A template, or the id of a session.
    pub(super) target_text: String,
    pub(super) filter: String,
    pub(super) message: String,
    pub(super) rules: String,
    pub(super) ignore_actors: String,
    pub(super) busy: Vec<Choice>,
    pub(super) redelivery: Vec<Choice>,
    pub(super) numbers: Vec<Number>,
}

/// A field with a whole number.
#[derive(Debug)]
pub(super) struct Number {
    pub(super) name: &'static str,
    pub(super) word: &'static str,
    pub(super) value: String,
    /// What stands there while it is empty.
    pub(super) empty: &'static str,
}

const NUMBERS: [(&str, &str, &str); 6] = [
    ("turns_at_once_max", "Turns at once", "any number"),
    ("turns_per_minute_max", "Turns in a minute", "any number"),
    ("turns_per_key_per_hour_max", "Turns of one session in an hour", "any number"),
    ("debounce_seconds", "Seconds of quiet before a turn", "0"),
    ("debounce_seconds_max", "Seconds that a message waits at most", "ten times the quiet"),
    ("message_chars_max", "Characters of the payload in a message", "2000"),
];

const TARGETS: [(&str, &str); 4] = [
    ("new_session", "a new session each time"),
    ("key", "one session for each thing, as the sender's preset says"),
    ("template", "one session for each value of a template"),
    ("session", "always the same session"),
];

impl Settings {
    pub(super) fn of(definition: &SourceDefinition, snapshot: &Snapshot) -> Settings {
        let shown = json!(definition);
        let wanted = definition.agent.as_deref().unwrap_or(agent::DEFAULT_NAME);
        let wanted = snapshot.agent(wanted).map(|it| it.id.to_string()).unwrap_or_default();
        let place = definition.environment_id.as_ref().map(ToString::to_string);
        let place = place.unwrap_or_default();
        let mut environments: Vec<_> =
            snapshot.environments.values().filter(|it| it.archived_at.is_none()).collect();
        environments.sort_by_key(|it| it.name.to_lowercase());
        let places = environments
            .iter()
            .map(|it| Choice::new(it.id.as_str(), printable(&it.name), &place))
            .collect();
        let (target, target_text) = match &definition.target {
            Target::NewSession => ("new_session", String::new()),
            Target::PresetKey => ("key", String::new()),
            Target::Key(template) => ("template", template.clone()),
            Target::Session(id) => ("session", id.to_string()),
        };
        let rules = match definition.rules.is_empty() {
            true => String::new(),
            false => serde_json::to_string_pretty(&definition.rules).unwrap_or_default(),
        };
        let number = |(name, word, empty): (&'static str, &'static str, &'static str)| Number {
            value: shown[name].as_u64().map(|n| n.to_string()).unwrap_or_default(),
            name,
            word,
            empty,
        };
        let busy = shown["when_busy"].as_str().unwrap_or("queue");
        let redelivery = shown["on_redelivery"].as_str().unwrap_or("duplicate");
        Settings {
            agents: Choice::of_agents(snapshot, &wanted),
            places,
            project: definition.project.clone().unwrap_or_default(),
            targets: TARGETS.iter().map(|(it, word)| Choice::new(*it, *word, target)).collect(),
            target_text,
            filter: definition.filter.clone().unwrap_or_default(),
            message: definition.message.clone().unwrap_or_default(),
            rules,
            ignore_actors: definition.ignore_actors.join("\n"),
            busy: WhenBusy::NAMES.iter().map(|(it, _)| Choice::new(*it, *it, busy)).collect(),
            redelivery: [("duplicate", "a duplicate"), ("rerun_failed", "run again if it failed")]
                .iter()
                .map(|(it, word)| Choice::new(*it, *word, redelivery))
                .collect(),
            numbers: NUMBERS.map(number).into(),
        }
    }

    /// What somebody has written, in the place of what is.
    pub(super) fn overlay(&mut self, fields: &Fields) {
        let text = |name: &str| fields.text(name).unwrap_or_default();
        let choose = |choices: &mut Vec<Choice>, name: &str| {
            let wanted = text(name).to_owned();
            choices.iter_mut().for_each(|it| it.is_chosen = it.value == wanted);
        };
        choose(&mut self.agents, "agent");
        choose(&mut self.places, "place");
        choose(&mut self.targets, "target");
        choose(&mut self.busy, "when_busy");
        choose(&mut self.redelivery, "on_redelivery");
        for (place, name) in [
            (&mut self.project, "project"),
            (&mut self.target_text, "target_text"),
            (&mut self.filter, "filter"),
            (&mut self.message, "message"),
            (&mut self.rules, "rules"),
            (&mut self.ignore_actors, "ignore_actors"),
        ] {
            *place = text(name).to_owned();
        }
        for number in &mut self.numbers {
            number.value = text(number.name).to_owned();
        }
    }
}

/// All fields of the settings.
pub(super) const ALL: [&str; 8] =
    ["agent", "place", "target", "filter", "message", "rules", "ignore_actors", "limits"];

/// What the form says about these, as the API has it; or what has to be changed.
pub(super) fn fields_of(fields: &Fields, these: &[&str]) -> Result<Map<String, Value>, Wrong> {
    let mut out = Map::new();
    let text = |name: &str| fields.text(name).map_or(Value::Null, |it| json!(it));
    let mut put = |name: &str, value: Value| out.insert(name.to_owned(), value);
    for it in these {
        match *it {
            "place" => {
                let (project, place) = (text("project"), text("place"));
                if !project.is_null() && !place.is_null() {
                    let why = "Choose an environment or name a project's directory, not both.";
                    return Err(Wrong::of("project", why));
                }
                put("project", project);
                put("environment_id", place);
            }
            "target" => {
                put("target", target(fields)?);
            }
            "rules" => {
                let rules = json_of(fields, "rules", "rules")?;
                put("rules", rules.unwrap_or_else(|| json!([])));
            }
            "ignore_actors" => {
                let all = lines(fields.text("ignore_actors").unwrap_or_default());
                put("ignore_actors", json!(all));
            }
            "limits" => {
                for (name, word, _) in NUMBERS {
                    let value = match fields.text(name).map(str::trim) {
                        None | Some("") => Value::Null,
                        Some(text) => json!(text.parse::<u64>().map_err(|_| {
                            let why = format!("\"{word}\" must be a whole number, or empty.");
                            Wrong::of(name, why)
                        })?),
                    };
                    put(name, value);
                }
                put("when_busy", text("when_busy"));
                put("on_redelivery", text("on_redelivery"));
            }
            name => {
                put(name, text(name));
            }
        }
    }
    Ok(out)
}

fn target(fields: &Fields) -> Result<Value, Wrong> {
    let text = fields.text("target_text").map(str::trim).filter(|it| !it.is_empty());
    match (fields.text("target"), text) {
        (Some("template"), Some(template)) => Ok(json!({"key": template})),
        (Some("template"), None) => Err(Wrong::of("target_text", "Write the template of the key.")),
        (Some("session"), Some(id)) => Ok(json!(id)),
        (Some("session"), None) => Err(Wrong::of("target_text", "Write the id of the session.")),
        (Some("key"), _) => Ok(json!("key")),
        _ => Ok(json!("new_session")),
    }
}
