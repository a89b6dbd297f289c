//! What the three wire formats have in common: how an answer is folded out of events, and words for
//! content that a format has no place for.

use serde_json::{Map, Value, json};

use super::{Error, OnText, surrogate};
use crate::domain::{
    conversation::Completion,
    event::{Block, Usage},
    text::clean,
};

/// An answer while it comes in. It does no IO: bytes, time and connections are the caller's.
pub(super) trait Fold: Send {
    /// Takes in the data of one event.
    fn take(&mut self, data: &str, on_text: &mut dyn OnText) -> Result<(), Error>;

    /// Whether any of the answer itself has come.
    fn has_begun(&self) -> bool;

    /// Whether it is complete, so that nothing more needs to be read.
    fn is_done(&self) -> bool;

    /// What the provider has counted so far.
    fn usage(&self) -> Usage;

    /// The answer, if what came is a whole one.
    fn finish(&mut self) -> Result<Completion, Error>;
}

/// The JSON object that an event holds.
pub(super) fn parse(data: &str) -> Result<Value, Error> {
    let read = serde_json::from_str(data);
    let read = read.or_else(|error| match surrogate::mark(data) {
        Some(marked) => serde_json::from_str(&marked),
        None => Err(error),
    });
    match read {
        Ok(Value::Object(event)) => Ok(Value::Object(event)),
        Ok(_) => Err(Error::passing("the model server sent an event that is no object")),
        Err(_) => Err(Error::passing("the model server sent an event that is no JSON")),
    }
}

/// Takes out what is at a key; null when there is none, also in what is no object.
pub(super) fn take(value: &mut Value, key: &str) -> Value {
    value.get_mut(key).map(Value::take).unwrap_or_default()
}

pub(super) fn cut() -> Error {
    Error::passing("the model server ended its answer in the middle")
}

/// The input of a call out of the text that the model wrote. What a model got wrong here cannot be
/// told to it: a call with other arguments than it meant might do something else.
pub(super) fn call_input(name: &str, text: &str) -> Result<Value, Error> {
    if text.trim().is_empty() {
        return Ok(json!({}));
    }
    match serde_json::from_str(text) {
        Ok(Value::Object(input)) => Ok(Value::Object(input)),
        _ => Err(Error::passing(format!(
            "the model called `{name}` with arguments that are no JSON object"
        ))),
    }
}

/// Sends a piece of text on. Pieces are cleaned as the whole is, so that together they are its
/// beginning.
pub(super) fn tell(on_text: &mut dyn OnText, index: usize, piece: &str) {
    let piece = clean(piece);
    if !piece.is_empty() {
        on_text.text(index, &piece);
    }
}

/// The text of an answer as a block, if there is any.
pub(super) fn text_block(text: &str) -> Option<Block> {
    let text = clean(text);
    (!text.is_empty()).then(|| Block::text(text))
}

/// Adds a piece of what the model thought; that it is there says that it did.
pub(super) fn think(thought: &mut Option<String>, piece: &str) {
    let thought = thought.get_or_insert_default();
    if !thought.is_empty() && !piece.is_empty() {
        thought.push_str("\n\n");
    }
    thought.push_str(&clean(piece));
}

/// Appends to a text of an object.
pub(super) fn append(object: &mut Map<String, Value>, key: &str, piece: &str) {
    match object.get_mut(key) {
        Some(Value::String(text)) => text.push_str(piece),
        _ => {
            object.insert(key.to_owned(), piece.into());
        }
    }
}

/// Counted tokens: absent and nonsense are none.
pub(super) fn count(usage: &Value, path: &str) -> Option<i64> {
    usage.pointer(path).and_then(Value::as_i64).filter(|n| *n >= 0)
}

/// A block as text, for formats without a place for its kind.
pub(super) fn as_text(block: &Block) -> String {
    match block {
        Block::Text { text } => text.clone(),
        Block::Image { .. } => "[An image that this model cannot be shown.]".to_owned(),
        Block::Document { source, title, context } => document_text(source, title, context),
        Block::SearchResult { fields } => {
            let field = |key: &str| fields.get(key).and_then(Value::as_str).unwrap_or_default();
            let mut text = format!("Search result: {} ({})", field("title"), field("source"));
            let content = fields.get("content").and_then(Value::as_array);
            for part in content.into_iter().flatten().filter_map(|part| part["text"].as_str()) {
                text.push('\n');
                text.push_str(part);
            }
            text
        }
    }
}

fn document_text(source: &Value, title: &Option<String>, context: &Option<String>) -> String {
    let mut text = String::from("Document");
    if let Some(title) = title {
        text.push_str(&format!(" \"{title}\""));
    }
    if let Some(context) = context {
        text.push_str(&format!(" ({context})"));
    }
    match (source["type"].as_str(), source["data"].as_str(), source["url"].as_str()) {
        (Some("text"), Some(data), _) => text.push_str(&format!(":\n{data}")),
        (Some("url"), _, Some(url)) => text.push_str(&format!(": {url}")),
        _ => text.push_str(" that this model cannot be shown."),
    }
    text
}

/// `data:` URL of a source with its bytes in it, or the URL that it names.
pub(super) fn url_of(source: &Value) -> Option<String> {
    match source["type"].as_str()? {
        "url" => source["url"].as_str().map(str::to_owned),
        "base64" => {
            let (media, data) = (source["media_type"].as_str()?, source["data"].as_str()?);
            Some(format!("data:{media};base64,{data}"))
        }
        _ => None,
    }
}
