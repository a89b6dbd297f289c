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
        model.inference_geo =
            object.get("inference_geo").and_then(Value::as_str).map(str::to_owned);
        Ok(model)
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
        assert!(ModelConfig::parse(&json!({"id": "x", "effort": "huge"})).is_err());
        assert!(ModelConfig::parse(&json!(null)).is_err());
        assert!(ModelConfig::parse(&json!("")).is_err());
    }
}
