//! Reads `environments`: where the tools of agents run, by the same rules as the API.
//!
//! Whether a project is there, and under one of the roots, is looked at where it is needed.

use serde_json::{Map, Value};

use super::{
    problem::{Wrong, join},
    reader::{Entry, Reader},
    value,
};
use crate::{
    domain::{
        Metadata, check_metadata,
        environment::{DESCRIPTION_CHARS_MAX, EnvironmentConfig, NAME_CHARS_MAX},
    },
    id::EnvironmentId,
};

/// An environment as the file declares it.
#[derive(Clone, Debug)]
pub struct DeclaredEnvironment {
    pub name: String,
    pub description: Option<String>,
    pub config: EnvironmentConfig,
    pub metadata: Metadata,
}

pub(super) const KEYS: [&str; 9] = [
    "description",
    "metadata",
    "networking",
    "packages",
    "project",
    "setup",
    "type",
    "variables",
    "workspace",
];

/// What goes into the API's `config`.
const PARTS: [&str; 6] = ["networking", "packages", "project", "setup", "variables", "workspace"];

pub(super) fn read(reader: &mut Reader<'_>) -> Vec<DeclaredEnvironment> {
    reader.know("environments.<name>", &KEYS);
    let mut environments = Vec::new();
    for (name, values) in reader.entries("environments") {
        let at = join("environments", name);
        if name.parse::<EnvironmentId>().is_ok() {
            let wrong = Wrong::from("the name reads like the id of an environment");
            reader.problem(&at, wrong.hint("names do not begin with `env_`"));
        } else if !(1..=NAME_CHARS_MAX).contains(&name.chars().count()) {
            reader.problem(&at, format!("the name has 1 to {NAME_CHARS_MAX} characters"));
        }
        let mut entry = Entry { reader, at, values };
        environments.extend(read_one(&mut entry, name));
    }
    environments
}

fn read_one(entry: &mut Entry<'_, '_>, name: &str) -> Option<DeclaredEnvironment> {
    let n_before = entry.reader.problems.len();
    let description = entry.get("description", value::text(DESCRIPTION_CHARS_MAX));
    let metadata = metadata(entry);
    let kind = match entry.raw("type").map(Value::as_str) {
        None => {
            let wrong = Wrong::from("is required");
            entry.problem(
                "type",
                wrong.hint("`local` for a project, `cloud` for a fresh workspace"),
            );
            return None;
        }
        Some(Some(kind @ ("local" | "cloud" | "self_hosted"))) => kind,
        Some(_) => {
            entry.problem("type", "must be `local`, `cloud` or `self_hosted`");
            return None;
        }
    };
    let given: Map<String, Value> =
        PARTS.iter().filter_map(|key| Some(((*key).to_owned(), entry.raw(key)?.clone()))).collect();
    if kind == "self_hosted" {
        for key in given.keys() {
            entry.problem(
                key,
                "is nothing that a `self_hosted` environment has: it is the client's",
            );
        }
    }
    let mut config = Value::Object(given);
    config["type"] = kind.into();
    let mut problems = Vec::new();
    let config = EnvironmentConfig::read(&config, &mut problems);
    for problem in problems {
        let key = problem.field.strip_prefix("config.").unwrap_or(&problem.field);
        let at = format!("{}.{key}", entry.at);
        entry.reader.problem(&at, problem.message);
    }
    (entry.reader.problems.len() == n_before).then(|| {
        let name = name.to_owned();
        DeclaredEnvironment { name, description, config, metadata }
    })
}

fn metadata(entry: &mut Entry<'_, '_>) -> Metadata {
    let mut metadata = Metadata::default();
    match entry.raw("metadata") {
        None => {}
        Some(Value::Object(table)) => {
            for (key, value) in table {
                match value {
                    Value::String(text) => {
                        let text = crate::domain::text::clean(text).into_owned();
                        metadata.insert(key.clone(), text);
                    }
                    _ => entry.reader.problem(&join(&entry.at("metadata"), key), "must be a text"),
                }
            }
        }
        Some(_) => entry.problem("metadata", "must be a table"),
    }
    if let Err(problem) = check_metadata(&metadata) {
        entry.problem("metadata", problem.message);
    }
    metadata
}
