//! The API as a page: what `/openapi.json` says, for people, without anything from elsewhere.
//!
//! Endpoints come by what they are about, then the shapes that they take and answer. Left out: a way
//! to call them from the page; the command line is for that.

use askama::Template;
use axum::{extract::State, response::Response};
use serde_json::{Map, Value};

use super::{
    super::{
        App,
        openapi::{DOCUMENT, GROUPS, error_says, error_statuses, parameters},
        routes::{Access, Operation, Success, Takes},
    },
    fault::Fault,
    guard::Visitor,
    page as rendered,
    view::Shell,
};

#[derive(Template)]
#[template(path = "reference.html")]
struct Page {
    shell: Shell,
    groups: Vec<Group>,
    schemas: Vec<Schema>,
    n_endpoints: usize,
    url: String,
}

#[derive(Debug)]
struct Group {
    name: &'static str,
    anchor: String,
    says: &'static str,
    endpoints: Vec<Endpoint>,
}

#[derive(Debug)]
struct Endpoint {
    method: String,
    path: &'static str,
    says: &'static str,
    access: &'static str,
    query: Vec<Field>,
    takes: Option<(Vec<Piece>, &'static str)>,
    success: (&'static str, Vec<Piece>),
    errors: Vec<(u16, &'static str)>,
}

/// A named shape.
#[derive(Debug)]
struct Schema {
    name: String,
    says: String,
    shapes: Vec<Shape>,
}

/// One of the forms that it may have.
#[derive(Debug)]
struct Shape {
    fields: Vec<Field>,
    /// What it is, where it has no fields.
    kind: Vec<Piece>,
}

#[derive(Debug)]
struct Field {
    name: String,
    is_required: bool,
    kind: Vec<Piece>,
    says: String,
}

/// Text, or the name of a shape, which leads to it.
#[derive(Debug, PartialEq, Eq)]
struct Piece {
    text: String,
    is_schema: bool,
}

pub(super) async fn page(State(app): State<App>, visitor: Visitor) -> Result<Response, Fault> {
    let document = &*DOCUMENT;
    let group = |(name, says): (&'static str, &'static str)| Group {
        name,
        anchor: name.replace(' ', "-"),
        says,
        endpoints: document.operations.iter().filter(|it| it.group == name).map(endpoint).collect(),
    };
    rendered(&Page {
        groups: GROUPS.into_iter().map(group).collect(),
        schemas: document.schemas.iter().map(schema).collect(),
        n_endpoints: document.operations.len(),
        url: app.url("/openapi.json"),
        shell: Shell::new(visitor, "reference", app.store.clock().now()),
    })
}

fn endpoint(operation: &Operation) -> Endpoint {
    let doc = &operation.doc;
    let named = |name: &str| vec![Piece { text: name.to_owned(), is_schema: true }];
    let query = doc.query.iter().flat_map(|name| parameters(&DOCUMENT.parameters, name));
    let is_get = operation.method == http::Method::GET;
    Endpoint {
        method: operation.method.to_string(),
        path: operation.path,
        says: doc.says,
        access: match operation.access {
            Access::Open => "for everybody",
            Access::Key if is_get => "with a key that may read",
            Access::Key => "with a key of scope admin",
            Access::Sender => "by what the source asks for",
        },
        query: query.map(|it| parameter(&it)).collect(),
        takes: match doc.takes {
            Takes::None => None,
            Takes::Any if is_get => None,
            Takes::Json(schema) => Some((named(schema), "as JSON")),
            Takes::Optional(schema) => Some((named(schema), "as JSON, or nothing")),
            Takes::Form(schema) => Some((named(schema), "as multipart/form-data")),
            Takes::Any => Some((Vec::new(), "whatever the sender sends")),
        },
        success: match doc.success {
            Success::Json(schema) => ("", named(schema)),
            Success::Page(schema) => ("a page of", named(schema)),
            Success::Events => ("server-sent events", Vec::new()),
            Success::JsonOrEvents(schema) => ("server-sent events, or", named(schema)),
            Success::Bytes => ("bytes", Vec::new()),
            Success::Text => ("a text", Vec::new()),
            Success::Receipt => ("202 with", named("Receipt")),
        },
        errors: error_statuses(operation).into_iter().map(|it| (it, error_says(it))).collect(),
    }
}

fn parameter(given: &Value) -> Field {
    Field {
        name: text_of(&given["name"]),
        is_required: given["required"] == true,
        kind: kind(&given["schema"]),
        says: text_of(&given["description"]),
    }
}

fn schema((name, given): (&String, &Value)) -> Schema {
    let several = ["oneOf", "anyOf"].iter().find_map(|key| given[key].as_array());
    // Shapes that are all named elsewhere are one line.
    let several = several.filter(|all| all.iter().any(|it| it["properties"].is_object()));
    Schema {
        name: name.clone(),
        says: text_of(&given["description"]),
        shapes: match several {
            Some(all) => all.iter().map(shape).collect(),
            None => vec![shape(given)],
        },
    }
}

fn shape(given: &Value) -> Shape {
    let Some(properties) = given["properties"].as_object() else {
        return Shape { fields: Vec::new(), kind: kind(given) };
    };
    Shape { fields: fields(given, properties), kind: Vec::new() }
}

fn fields(given: &Value, properties: &Map<String, Value>) -> Vec<Field> {
    let required = given["required"].as_array();
    let is_required = |name: &str| required.is_some_and(|all| all.iter().any(|it| it == name));
    let field = |(name, given): (&String, &Value)| Field {
        name: name.clone(),
        is_required: is_required(name),
        kind: kind(given),
        says: text_of(&given["description"]),
    };
    properties.iter().map(field).collect()
}

fn text_of(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// What a value is, in words.
fn kind(given: &Value) -> Vec<Piece> {
    let mut pieces = Vec::new();
    write(given, &mut pieces);
    pieces
}

fn say(pieces: &mut Vec<Piece>, text: &str) {
    match pieces.last_mut() {
        Some(last) if !last.is_schema => last.text.push_str(text),
        _ => pieces.push(Piece { text: text.to_owned(), is_schema: false }),
    }
}

fn write(given: &Value, pieces: &mut Vec<Piece>) {
    if let Some(name) = given["$ref"].as_str() {
        let text = name.rsplit('/').next().unwrap_or_default().to_owned();
        return pieces.push(Piece { text, is_schema: true });
    }
    if let Some(all) = ["oneOf", "anyOf"].iter().find_map(|key| given[key].as_array()) {
        for (n, one) in all.iter().enumerate() {
            if n > 0 {
                say(pieces, " or ");
            }
            write(one, pieces);
        }
        return;
    }
    if given["const"].is_string() {
        return say(pieces, &given["const"].to_string());
    }
    if let Some(words) = given["enum"].as_array() {
        let words: Vec<String> = words.iter().map(Value::to_string).collect();
        return say(pieces, &words.join(" or "));
    }
    let (word, is_nullable) = match &given["type"] {
        Value::Array(two) => (two[0].as_str().unwrap_or_default(), true),
        one => (one.as_str().unwrap_or_default(), false),
    };
    match word {
        "array" => {
            say(pieces, "list of ");
            write(&given["items"], pieces);
        }
        "object" => object(given, pieces),
        "string" if given["format"] == "date-time" => say(pieces, "time"),
        "string" => say(pieces, "text"),
        "integer" => say(pieces, "whole number"),
        "number" => say(pieces, "number"),
        "boolean" => say(pieces, "true or false"),
        "null" => say(pieces, "null"),
        _ => say(pieces, "anything"),
    }
    bounds(given, pieces);
    if is_nullable {
        say(pieces, " or null");
    }
}

fn object(given: &Value, pieces: &mut Vec<Piece>) {
    if let Some(properties) = given["properties"].as_object() {
        say(pieces, "{");
        for (n, field) in fields(given, properties).into_iter().enumerate() {
            let optional = if field.is_required { "" } else { "?" };
            let comma = if n > 0 { ", " } else { "" };
            say(pieces, &format!("{comma}{}{optional}: ", field.name));
            write(&properties[&field.name], pieces);
        }
        return say(pieces, "}");
    }
    match given["additionalProperties"].is_object() {
        true => {
            say(pieces, "object of ");
            write(&given["additionalProperties"], pieces);
        }
        false => say(pieces, "object"),
    }
}

fn bounds(given: &Value, pieces: &mut Vec<Piece>) {
    let of = |key: &str| given[key].as_u64();
    let (first, last, unit) = match (of("minimum"), of("maximum")) {
        (None, None) => match (of("minLength"), of("maxLength")) {
            (None, None) => (of("minItems"), of("maxItems"), " entries"),
            (first, last) => (first, last, " characters"),
        },
        (first, last) => (first, last, ""),
    };
    match (first, last) {
        (Some(first), Some(last)) => say(pieces, &format!(" ({first} to {last}{unit})")),
        (Some(first), None) => say(pieces, &format!(" ({first}{unit} or more)")),
        (None, Some(last)) => say(pieces, &format!(" (up to {last}{unit})")),
        (None, None) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn kinds_are_said_in_words() {
        let check = |given: Value, expected: &str| {
            let text: String = kind(&given).into_iter().map(|piece| piece.text).collect();
            assert_eq!(text, expected);
        };
        check(
            json!({"type": ["string", "null"], "maxLength": 9}),
            "text (up to 9 characters) or null",
        );
        check(json!({"type": "array", "items": {"$ref": "#/components/schemas/A"}}), "list of A");
        check(json!({"anyOf": [{"type": "null"}, {"enum": ["a", "b"]}]}), "null or \"a\" or \"b\"");
        check(
            json!({"type": "object", "required": ["a"],
                "properties": {"a": {"type": "integer", "minimum": 1}, "b": {}}}),
            "{a: whole number (1 or more), b?: anything}",
        );
        check(
            json!({"type": "object", "additionalProperties": {"type": "string"}}),
            "object of text",
        );
        check(json!({"type": "string", "format": "date-time"}), "time");
    }
}
