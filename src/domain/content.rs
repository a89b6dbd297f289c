//! The content of a message as requests give it.
//!
//! Invariant: what leaves here can be shown to a model: every block is of a known type, has all of
//! its fields and no others. Left out: whether a model can see it.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Value};

use super::{Problem, event::Block, text::clean};

/// Blocks of one message.
const BLOCKS_MAX: usize = 100;

/// Reads the `content` of a `user.message`; `at` is where it stands.
pub fn parse(value: &Value, at: &str) -> Result<Vec<Block>, Problem> {
    blocks(value, at, &["text", "image", "document"])
}

/// Reads the `content` of a tool's result, which may be left out.
pub fn parse_result(value: &Value, at: &str) -> Result<Vec<Block>, Problem> {
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Array(list) if list.is_empty() => Ok(Vec::new()),
        _ => blocks(value, at, &["text", "image", "document", "search_result"]),
    }
}

/// Reads the `content` of a `system.message`.
pub fn parse_system(value: &Value, at: &str) -> Result<Vec<Block>, Problem> {
    blocks(value, at, &["text"])
}

fn blocks(value: &Value, at: &str, kinds: &[&str]) -> Result<Vec<Block>, Problem> {
    // A plain text is not in the API, and there is no doubt what it means.
    if let Value::String(text) = value {
        return Ok(vec![Block::text(clean(text))]);
    }
    let list = value.as_array().filter(|list| (1..=BLOCKS_MAX).contains(&list.len()));
    let list = list.ok_or_else(|| {
        Problem::new(at, format!("must be a list of 1 to {BLOCKS_MAX} content blocks"))
    })?;
    let block = |(n, block)| parse_block(block, &format!("{at}[{n}]"), kinds);
    list.iter().enumerate().map(block).collect()
}

fn parse_block(value: &Value, at: &str, kinds: &[&str]) -> Result<Block, Problem> {
    let map = value.as_object().ok_or_else(|| Problem::new(at, "must be an object"))?;
    match map.get("type").and_then(Value::as_str).filter(|kind| kinds.contains(kind)) {
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
        Some("search_result") => search_result(map, at),
        _ => {
            let message = format!("must be one of {}", kinds.join(", "));
            Err(Problem::new(format!("{at}.type"), message))
        }
    }
}

fn search_result(map: &Map<String, Value>, at: &str) -> Result<Block, Problem> {
    only(map, at, &["type", "source", "title", "content", "citations"])?;
    for field in ["source", "title"] {
        text(map, field, at)?;
    }
    let content = map.get("content").unwrap_or(&Value::Null);
    blocks(content, &format!("{at}.content"), &["text"])?;
    let citations = format!("{at}.citations");
    match map.get("citations") {
        None => {}
        Some(Value::Object(given)) if given.get("enabled").is_some_and(Value::is_boolean) => {
            only(given, &citations, &["enabled"])?;
        }
        Some(_) => return Err(Problem::new(citations, "must be {\"enabled\": true | false}")),
    }
    let mut fields = cleaned(map);
    fields.shift_remove("type");
    fields.entry("citations").or_insert_with(|| serde_json::json!({"enabled": false}));
    Ok(Block::SearchResult { fields })
}

/// With the texts as they are kept.
fn cleaned(map: &Map<String, Value>) -> Map<String, Value> {
    let each = |value: &Value| match value {
        Value::String(text) => Value::String(clean(text).into_owned()),
        Value::Object(map) => Value::Object(cleaned(map)),
        Value::Array(list) => list
            .iter()
            .map(|it| match it {
                Value::Object(map) => Value::Object(cleaned(map)),
                other => other.clone(),
            })
            .collect(),
        other => other.clone(),
    };
    map.iter().map(|(key, value)| (key.clone(), each(value))).collect()
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
    let of = |key: &str| source.get(key).and_then(Value::as_str).unwrap_or_default();
    match kind {
        "url" if !of("url").starts_with("https://") => {
            return Err(Problem::new(
                format!("{at}.url"),
                "must be a URL that begins with `https://`",
            ));
        }
        "text" if of("media_type") != "text/plain" => {
            return Err(Problem::new(format!("{at}.media_type"), "must be `text/plain`"));
        }
        "base64" => media(of("media_type"), of("data"), map, &at)?,
        _ => {}
    }
    Ok(value.clone())
}

/// Types of media that every provider takes, and what their bytes begin with.
const MEDIA: [(&str, &str, &[u8]); 5] = [
    ("image", "image/jpeg", b"\xFF\xD8\xFF"),
    ("image", "image/png", b"\x89PNG\r\n\x1A\n"),
    ("image", "image/gif", b"GIF8"),
    ("image", "image/webp", b"RIFF"),
    ("document", "application/pdf", b"%PDF-"),
];

/// Whether a provider would take it: one that refused it would refuse every request of the session.
fn media(given: &str, data: &str, block: &Map<String, Value>, at: &str) -> Result<(), Problem> {
    let kind = block.get("type").and_then(Value::as_str).unwrap_or_default();
    let of_kind = || MEDIA.iter().filter(|(of, ..)| *of == kind);
    let Some((.., beginning)) = of_kind().find(|(_, media, _)| *media == given) else {
        let known: Vec<&str> = of_kind().map(|(_, media, _)| *media).collect();
        let message = format!("must be one of {}", known.join(", "));
        return Err(Problem::new(format!("{at}.media_type"), message));
    };
    let wrong = |message: String| Err(Problem::new(format!("{at}.data"), message));
    match STANDARD.decode(data) {
        Err(_) => wrong("must be base64 of the standard alphabet, with its padding".to_owned()),
        Ok(bytes) if !bytes.starts_with(beginning) => wrong(format!("is no {given}")),
        Ok(_) => Ok(()),
    }
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

    fn image(media_type: &str, data: &str) -> Value {
        let source = json!({"type": "base64", "media_type": media_type, "data": data});
        json!([{"type": "image", "source": source}])
    }

    #[test]
    fn media_is_what_it_says() {
        assert!(parse(&image("image/gif", "R0lGODlh"), "c").is_ok());
        let source = json!({"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="});
        assert!(parse(&json!([{"type": "document", "source": source}]), "c").is_ok());
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        for (content, field) in [
            (json!([]), "c"),
            (json!(1), "c"),
            (json!([1]), "c[0]"),
            (json!([{"type": "redacted"}]), "c[0].type"),
            (json!([{"type": "search_result"}]), "c[0].type"),
            (json!([{"type": "text"}]), "c[0].text"),
            (json!([{"type": "text", "text": 1}]), "c[0].text"),
            (json!([{"type": "text", "text": "", "x": 1}]), "c[0].x"),
            (json!([{"type": "image"}]), "c[0].source"),
            (json!([{"type": "image", "source": {"type": "file"}}]), "c[0].source.type"),
            (json!([{"type": "image", "source": {"type": "base64"}}]), "c[0].source.data"),
            (image("image/png", "no base64"), "c[0].source.data"),
            (image("image/png", ""), "c[0].source.data"),
            // Base64 of a GIF.
            (image("image/png", "R0lGODlh"), "c[0].source.data"),
            (image("image/tiff", "R0lGODlh"), "c[0].source.media_type"),
            (image("application/pdf", "JVBERi0="), "c[0].source.media_type"),
            (
                json!([{"type": "image", "source": {"type": "url", "url": "http://a.example/b"}}]),
                "c[0].source.url",
            ),
            (
                json!([{"type": "document",
                    "source": {"type": "text", "media_type": "text/html", "data": "d"}}]),
                "c[0].source.media_type",
            ),
        ] {
            assert_eq!(parse(&content, "c").unwrap_err().field, field);
        }
    }

    #[test]
    fn a_result_may_be_empty_and_hold_what_was_found() {
        assert_eq!(parse_result(&Value::Null, "c").unwrap(), []);
        let found = json!([{"type": "search_result", "source": "https://example.com", "title": "t",
            "content": [{"type": "text", "text": "a\u{0}b"}], "citations": {"enabled": true}}]);
        let blocks = serde_json::to_value(parse_result(&found, "c").unwrap()).unwrap();
        let mut wanted = found.clone();
        wanted[0]["content"][0]["text"] = json!("ab");
        assert_eq!(blocks, wanted);
        for (field, value, place) in [
            ("title", Value::Null, "c[0].title"),
            ("content", json!([{"type": "image"}]), "c[0].content[0].type"),
            ("citations", json!({"enabled": 1}), "c[0].citations"),
            ("more", json!(1), "c[0].more"),
        ] {
            let mut found = found.clone();
            found[0][field] = value;
            assert_eq!(parse_result(&found, "c").unwrap_err().field, place);
        }
        let image = json!([{"type": "image", "source": {"type": "url", "url": "u"}}]);
        assert_eq!(parse_system(&image, "c").unwrap_err().field, "c[0].type");
    }
}
