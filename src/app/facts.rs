//! What the settings page tells of this server: each setting with where it came from, and which
//! models can be asked. No secret is in it, because the configuration shows none.

use serde_json::Value;

use crate::{
    config::{HIDDEN, Setting},
    model::Options,
    web,
};

/// Facts of a server that starts.
pub(super) fn at_start(settings: &[Setting], models: &Options) -> web::Facts {
    web::Facts { settings: settings.iter().map(said).collect(), providers: providers(models) }
}

/// Facts after the configuration was read again: what waits for the next start stays as it is. `waiting`
/// are the keys and sections that have something of the kind.
pub(super) fn read_again(
    before: &web::Facts,
    settings: &[Setting],
    models: &Options,
    waiting: &[&str],
) -> web::Facts {
    let settings = settings.iter().map(|setting| {
        let fresh = said(setting);
        let old = before.settings.iter().find(|it| it.key == fresh.key);
        let is_below = |section: &&str| {
            let rest = fresh.key.strip_prefix(section);
            rest.is_some_and(|rest| rest.starts_with('.'))
        };
        match old {
            // The values of secrets look alike; their keys stand for themselves.
            Some(old) if waiting.contains(&fresh.key.as_str()) => {
                web::Setting { waits: true, ..old.clone() }
            }
            Some(old) if waiting.iter().any(is_below) => {
                web::Setting { waits: old.value != fresh.value, ..old.clone() }
            }
            _ => fresh,
        }
    });
    web::Facts { settings: settings.collect(), providers: providers(models) }
}

fn said(setting: &Setting) -> web::Setting {
    let value = match &setting.value {
        Value::Null => None,
        Value::String(text) if text == HIDDEN => Some("set".to_owned()),
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    };
    web::Setting {
        key: setting.key.clone(),
        variable: setting.environment.clone(),
        value,
        origin: setting.origin.as_str(),
        needs_restart: setting.needs_restart,
        waits: false,
    }
}

/// Who can be asked for answers, and what is missing for it.
fn providers(models: &Options) -> Vec<(&'static str, bool, String)> {
    let one = |name, key: bool, url: Option<&String>| {
        let can = key || url.is_some();
        let text = match (key, url) {
            (true, None) => "has a key".to_owned(),
            (true, Some(url)) => format!("has a key, at {url}"),
            (false, Some(url)) => format!("without a key, at {url}"),
            (false, None) => format!("has no key: set `models.{name}_api_key`"),
        };
        (name, can, text)
    };
    vec![
        one("anthropic", models.anthropic_api_key.is_some(), models.anthropic_base_url.as_ref()),
        one("openai", models.openai_api_key.is_some(), models.openai_base_url.as_ref()),
        ("rehearsal", true, "a model without AI, always there".to_owned()),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::Origin;

    fn setting(key: &str, value: Value, needs_restart: bool) -> Setting {
        let origin = Origin::File;
        Setting { key: key.to_owned(), environment: None, value, origin, needs_restart }
    }

    #[test]
    fn what_waits_for_a_restart_stays_and_says_so() {
        let read = |turns: i64, lease: i64, days: i64| {
            [
                setting("database_url", json!(HIDDEN), true),
                setting("worker.turns_max", json!(turns), true),
                setting("worker.lease_seconds", json!(lease), true),
                setting("retention.days", json!(days), false),
            ]
        };
        let models = Options::default();
        let start = at_start(&read(1, 30, 7), &models);
        let waiting = ["database_url", "worker"];
        let mut facts = read_again(&start, &read(2, 30, 8), &models, &waiting);
        // Another reload in between changes nothing of it.
        for _ in 0..2 {
            let told: Vec<_> =
                facts.settings.iter().map(|it| (it.value.as_deref(), it.waits)).collect();
            let wanted =
                [(Some("set"), true), (Some("1"), true), (Some("30"), false), (Some("8"), false)];
            assert_eq!(told, wanted);
            facts = read_again(&facts, &read(2, 30, 8), &models, &waiting);
        }
        let back = read_again(&facts, &read(1, 30, 8), &models, &[]);
        assert!(back.settings.iter().all(|it| !it.waits));
    }
}
