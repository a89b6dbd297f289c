//! The content of a message as requests give it.
//!
//! Invariant: what leaves here can be shown to a model: every block is of a known type, has all of
//! its fields and no others. Left out: whether a model can see it.

use serde_json::{Map, Value};

use super::{Problem, event::Block, text::clean};

/// Blocks of one message.
const BLOCKS_MAX: usize = 100;

/// Reads the `content` of a `user.message`; `at` is where it stands.
pub fn parse(value: &Value, at: &str) -> Result<Vec<Block>, Problem> {
    // A plain text is not in the API, and there is no doubt what it means.
    if let Value::String(text) = value {
        return Ok(vec![Block::text(clean(text))]);
    }
    let list = value.as_array().filter(|list| (1..=BLOCKS_MAX).contains(&list.len()));
    let list = list.ok_or_else(|| {
        Problem::new(at, format!("must be a list of 1 to {BLOCKS_MAX} content blocks"))
    })?;
    list.iter().enumerate().map(|(n, block)| parse_block(block, &format!("{at}[{n}]"))).collect()
}

fn parse_block(value: &Value, at: &str) -> Result<Block, Problem> {
    let map = value.as_object().ok_or_else(|| Problem::new(at, "must be an object"))?;
    match map.get("type").and_then(Value::as_str) {
        Some("text") => {
            only(map, at, &["type", "text"])?;
            Ok(Block::text(text(map, "text", at)?))
        }
        Some("image") => {
            only(map, at, &["type", "source"])?;
            Ok(Block::Image { source: source(map, at, &["base64", "url"])? })
        }
        Some("document") => {
            only(map, at, &["type", "source", "context", "title"])?;
            Ok(Block::Document {
                source: source(map, at, &["base64", "text", "url"])?,
                context: text_or_null(map, "context", at)?,
                title: text_or_null(map, "title", at)?,
            })
        }
        _ => Err(Problem::new(format!("{at}.type"), "must be `text`, `image` or `document`")),
    }
}

fn source(map: &Map<String, Value>, at: &str, kinds: &[&str]) -> Result<Value, Problem> {
    let at = format!("{at}.source");
    let value = map.get("source").unwrap_or(&Value::Null);
    let source = value.as_object().ok_or_else(|| Problem::new(&at, "is required"))?;
    let kind = source.get("type").and_then(Value::as_str).unwrap_or_default();
    let fields: &[&str] = match kind {
        _ if !kinds.contains(&kind) => {
            let message = format!("must be one of {}", kinds.join(", "));
            return Err(Problem::new(format!("{at}.type"), message));
        }
        "url" => &["url"],
        _ => &["data", "media_type"],
    };
    for field in fields {
        text(source, field, &at)?;
    }
    only(source, &at, &[&["type"], fields].concat())?;
    Ok(value.clone())
}

fn text(map: &Map<String, Value>, key: &str, at: &str) -> Result<String, Problem> {
    let text = text_or_null(map, key, at)?;
    text.ok_or_else(|| Problem::new(format!("{at}.{key}"), "is required"))
}

fn text_or_null(map: &Map<String, Value>, key: &str, at: &str) -> Result<Option<String>, Problem> {
    match map.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(clean(text).into_owned())),
        Some(_) => Err(Problem::new(format!("{at}.{key}"), "must be a text")),
    }
}

fn only(map: &Map<String, Value>, at: &str, known: &[&str]) -> Result<(), Problem> {
    match map.keys().find(|key| !known.contains(&key.as_str())) {
        None => Ok(()),
        Some(key) => Err(Problem::new(format!("{at}.{key}"), "is not a field of this block")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn blocks_are_taken_as_they_are() {
        let given = json!([
            {"type": "text", "text": "a\u{0}b"},
            {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}},
            {"type": "document", "title": "t",
                "source": {"type": "text", "media_type": "text/plain", "data": "d"}},
        ]);
        let blocks = serde_json::to_value(parse(&given, "content").unwrap()).unwrap();
        let mut wanted = given;
        wanted[0]["text"] = json!("ab");
        assert_eq!(blocks, wanted);
        assert_eq!(parse(&json!("a"), "content").unwrap(), [Block::text("a")]);
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        for (content, field) in [
            (json!([]), "c"),
            (json!(1), "c"),
            (json!([1]), "c[0]"),
            (json!([{"type": "redacted"}]), "c[0].type"),
            (json!([{"type": "text"}]), "c[0].text"),
            (json!([{"type": "text", "text": 1}]), "c[0].text"),
            (json!([{"type": "text", "text": "", "x": 1}]), "c[0].x"),
            (json!([{"type": "image"}]), "c[0].source"),
            (json!([{"type": "image", "source": {"type": "file"}}]), "c[0].source.type"),
            (json!([{"type": "image", "source": {"type": "base64"}}]), "c[0].source.data"),
        ] {
            assert_eq!(parse(&content, "c").unwrap_err().field, field);
        }
    }
}
