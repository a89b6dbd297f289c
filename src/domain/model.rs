//! Which model an agent talks to: the text in its configuration and what it means.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Problem;

/// The built-in model that needs no key and is no AI: it reads the message and answers with a
/// structured digest, through the same runtime code as any model.
pub const REHEARSAL: &str = "rehearsal";

/// `Agent.model` of the Managed Agents API, always answered as an object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelConfig {
    pub id: String,
    pub speed: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effort: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inference_geo: Option<String>,
}

const EFFORTS: [&str; 5] = ["low", "medium", "high", "xhigh", "max"];

/// What is shown where nobody chose: the provider is asked for nothing, and this is what it does then.
const EFFORT_DEFAULT: &str = "high";

const FIELDS: [&str; 4] = ["id", "speed", "effort", "inference_geo"];

impl ModelConfig {
    pub fn named(id: &str) -> ModelConfig {
        ModelConfig {
            id: id.to_owned(),
            speed: "standard".to_owned(),
            effort: None,
            inference_geo: None,
        }
    }

    /// Reads a model as requests give it: a text, or `{id, speed?, effort?, inference_geo?}` where
    /// effort is a word or `{"type": word}`.
    pub fn parse(value: &Value) -> Result<ModelConfig, Problem> {
        let (id, object) = match value {
            Value::String(id) => (id.as_str(), None),
            Value::Object(object) => match object.get("id") {
                Some(Value::String(id)) => (id.as_str(), Some(object)),
                _ => return Err(Problem::new("model.id", "must be a text")),
            },
            _ => {
                return Err(Problem::new("model", "must be a model id, or an object with an `id`"));
            }
        };
        if id.is_empty() || id.len() > 256 || id.chars().any(char::is_control) {
            return Err(Problem::new("model", "must be a model id of 1 to 256 characters"));
        }
        let mut model = ModelConfig::named(id);
        let Some(object) = object else {
            return Ok(model);
        };
        if let Some(key) = object.keys().find(|key| !FIELDS.contains(&key.as_str())) {
            let field = format!("model.{}", super::text::one_line(key));
            return Err(Problem::new(field, "is not a field of a model"));
        }
        match object.get("speed") {
            None | Some(Value::Null) => {}
            Some(Value::String(speed)) if speed == "standard" || speed == "fast" => {
                model.speed.clone_from(speed);
            }
            Some(_) => return Err(Problem::new("model.speed", "must be `standard` or `fast`")),
        }
        model.effort = match object.get("effort") {
            None | Some(Value::Null) => None,
            Some(value) => {
                let word = value.as_str().or_else(|| value.get("type").and_then(Value::as_str));
                let word = word.filter(|word| EFFORTS.contains(word)).ok_or_else(|| {
                    Problem::new("model.effort", "must be one of low, medium, high, xhigh, max")
                })?;
                Some(serde_json::json!({ "type": word }))
            }
        };
        model.inference_geo = match object.get("inference_geo") {
            None | Some(Value::Null) => None,
            Some(Value::String(geo)) if (1..=64).contains(&geo.len()) => {
                Some(super::text::clean(geo).into_owned())
            }
            Some(_) => {
                let message = "must be a text of 1 to 64 characters, or null";
                return Err(Problem::new("model.inference_geo", message));
            }
        };
        Ok(model)
    }

    /// Whether a request leaves it to the model how hard it works, or to what was chosen before: it
    /// says nothing about it, where null asks for the default.
    pub fn leaves_effort(value: &Value) -> bool {
        value.get("effort").is_none()
    }

    /// The model as the API shows it, with every default filled in.
    pub fn to_json(&self) -> Value {
        let effort = || serde_json::json!({ "type": EFFORT_DEFAULT });
        let mut shown = serde_json::json!({
            "id": self.id,
            "speed": self.speed,
            "effort": self.effort.clone().unwrap_or_else(effort),
        });
        if let Some(geo) = &self.inference_geo {
            shown["inference_geo"] = geo.as_str().into();
        }
        shown
    }
}

/// Models of Anthropic's that refuse a word of the operator's in the middle of a conversation: all before
/// Claude Opus 4.8. Other providers have always taken it.
const WITHOUT_SYSTEM_MESSAGES: [&str; 8] = [
    "claude-1",
    "claude-2",
    "claude-3",
    "claude-instant",
    "claude-haiku-4",
    "claude-sonnet-4",
    "claude-opus-4",
    "claude-mythos-preview",
];

impl ModelConfig {
    /// Whether an operator may speak in the middle of a conversation.
    pub fn takes_system_messages(&self) -> bool {
        let id = self.id.strip_prefix("anthropic/").unwrap_or(&self.id);
        let is_old = WITHOUT_SYSTEM_MESSAGES.iter().any(|old| id.starts_with(old));
        !is_old || id.starts_with("claude-opus-4-8")
    }
}

/// Who serves a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provider {
    Anthropic,
    OpenAi,
    Rehearsal,
}

/// A provider and the id that it knows the model by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelRef {
    pub provider: Provider,
    pub id: String,
}

impl ModelRef {
    /// `anthropic/<id>`, `openai/<id>`, `rehearsal`; `claude*` means anthropic; any other id goes to
    /// openai when that provider is set up here, else to anthropic.
    pub fn parse(text: &str, openai_is_set_up: bool) -> ModelRef {
        let (provider, id) = if text == REHEARSAL {
            (Provider::Rehearsal, text)
        } else if let Some(id) = text.strip_prefix("anthropic/") {
            (Provider::Anthropic, id)
        } else if let Some(id) = text.strip_prefix("openai/") {
            (Provider::OpenAi, id)
        } else if text.starts_with("claude") || !openai_is_set_up {
            (Provider::Anthropic, text)
        } else {
            (Provider::OpenAi, text)
        };
        ModelRef { provider, id: id.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn operators_may_interrupt_the_models_of_today() {
        let takes = |id: &str| ModelConfig::named(id).takes_system_messages();
        for id in
            ["claude-opus-4-8", "claude-sonnet-5-5", "anthropic/claude-opus-5", "gpt-6", REHEARSAL]
        {
            assert!(takes(id), "{id}");
        }
        for id in ["claude-opus-4-7", "claude-sonnet-4-5", "anthropic/claude-3-opus"] {
            assert!(!takes(id), "{id}");
        }
    }

    #[test]
    fn names_say_who_serves_them() {
        let provider = |text, openai| ModelRef::parse(text, openai).provider;
        assert_eq!(provider("rehearsal", true), Provider::Rehearsal);
        assert_eq!(provider("claude-opus-5", true), Provider::Anthropic);
        assert_eq!(provider("openai/gpt-6", false), Provider::OpenAi);
        assert_eq!(provider("qwen3", true), Provider::OpenAi);
        assert_eq!(provider("qwen3", false), Provider::Anthropic);
        assert_eq!(ModelRef::parse("anthropic/x", true).id, "x");
    }

    #[test]
    fn a_model_is_a_text_or_an_object() {
        let model = ModelConfig::parse(&json!({"id": "claude-x", "effort": "low"})).unwrap();
        assert_eq!(
            serde_json::to_value(model).unwrap(),
            json!({"id": "claude-x", "speed": "standard", "effort": {"type": "low"}})
        );
        for wrong in [
            json!({"id": "x", "effort": "huge"}),
            json!({"id": "x", "speed": 1}),
            json!({"id": "x", "inference_geo": 1}),
            json!({"id": "x", "temperature": 1}),
        ] {
            assert!(ModelConfig::parse(&wrong).is_err(), "{wrong}");
        }
        let shown = ModelConfig::named("x").to_json();
        assert_eq!(shown, json!({"id": "x", "speed": "standard", "effort": {"type": "high"}}));
        assert!(ModelConfig::parse(&json!(null)).is_err());
        assert!(ModelConfig::parse(&json!("")).is_err());
    }
}
