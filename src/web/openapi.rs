//! `/openapi.json`: the document of the API, made of the table of routes.
//!
//! Paths, methods, statuses and who may call come from [`Routes`], so they are what the router has.
//! Shapes of bodies and answers are written by hand, in `openapi/*.json`, because requests are read by
//! hand, field by field, and answers are put together so: tests hold both against the server. The
//! document is the same for everybody and names nothing that this server has.

use std::{collections::BTreeSet, sync::LazyLock};

use axum::{http::header, response::IntoResponse};
use serde_json::{Map, Value, json};

use super::routes::{Access, Operation, Routes, Success, Takes, succeeds};

pub(super) fn routes() -> Routes {
    const SAYS: &str = "This document.";
    Routes::with("server", Access::Open).get(
        "/openapi.json",
        document,
        succeeds(Success::Json("Document"), SAYS),
    )
}

async fn document() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT.text.as_str())
}

/// The document, made when it is first asked for.
pub(super) static DOCUMENT: LazyLock<Document> = LazyLock::new(|| {
    let mut operations = super::keyed_routes().into_operations();
    operations.extend(super::open_routes().into_operations());
    Document::of(operations)
});

/// What everybody may know of the API.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) operations: Vec<Operation>,
    pub(super) schemas: Map<String, Value>,
    /// By their names in `openapi/parameters.json`; one name may stand for several.
    pub(super) parameters: Map<String, Value>,
    text: String,
}

/// Files of schemas, by what they are about.
const SCHEMAS: [&str; 8] = [
    include_str!("openapi/common.json"),
    include_str!("openapi/agents.json"),
    include_str!("openapi/environments.json"),
    include_str!("openapi/sessions.json"),
    include_str!("openapi/events.json"),
    include_str!("openapi/vaults.json"),
    include_str!("openapi/deployments.json"),
    include_str!("openapi/webhooks.json"),
];

const PARAMETERS: &str = include_str!("openapi/parameters.json");

/// What a group is, in the order of the document.
pub(super) const GROUPS: [(&str, &str); 17] = [
    ("agents", "Versioned personas: model, system prompt, tools, servers."),
    ("environments", "Where tools run."),
    ("sessions", "Conversations: their events, files and threads."),
    ("vaults", "Credentials that sessions use; values go in and never come out."),
    ("deployments", "What starts sessions by a schedule or by hand."),
    ("files", "What is uploaded, and what agents hand in."),
    ("webhooks", "Where senders ring: an agent's own endpoint, and named sources."),
    ("sources", "Systems that may call in: how each is verified, and where it leads."),
    ("deliveries", "What came, what was decided, what became of it; replays."),
    ("agents and webhooks", "Agents together with their webhooks, in the style of /api."),
    ("callbacks", "Results that are sent out, and the messages that carry them."),
    ("effects", "The ledger of calls that changed something outside."),
    ("budgets", "What the work of agents and sources may use."),
    ("secrets", "Named values that the server uses, such as webhook tokens."),
    ("keys", "Further API keys."),
    ("audit", "Who changed what."),
    ("server", "The server itself."),
];

/// A file that is compiled in, and that a test has read.
fn object(text: &str) -> Map<String, Value> {
    serde_json::from_str(text).unwrap_or_default()
}

pub(super) fn reference(schema: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{schema}")})
}

impl Document {
    fn of(operations: Vec<Operation>) -> Document {
        let schemas: Map<String, Value> = SCHEMAS.iter().flat_map(|text| object(text)).collect();
        let parameters = object(PARAMETERS);
        let mut paths = Map::new();
        for operation in &operations {
            let path = paths.entry(operation.path).or_insert_with(|| path_item(operation.path));
            let method = operation.method.as_str().to_ascii_lowercase();
            path[method] = shown(operation, &parameters);
        }
        let tags: Vec<Value> =
            GROUPS.iter().map(|(name, says)| json!({"name": name, "description": says})).collect();
        let document = json!({
            "openapi": "3.1.0",
            "info": {
                "title": "Bellpull",
                "version": env!("CARGO_PKG_VERSION"),
                "summary": "Webhooks in, agent sessions out.",
                "description": "The Managed Agents API under /v1, resources of our own in its style, \
                                and the two webhook contracts under /api.",
                "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            },
            "servers": [{"url": "/"}],
            "tags": tags,
            "paths": paths,
            "components": {
                "schemas": schemas,
                "securitySchemes": {
                    "bearer": {"type": "http", "scheme": "bearer"},
                    "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
                },
            },
        });
        Document { operations, schemas, parameters, text: document.to_string() }
    }
}

/// What all methods of a path have.
fn path_item(path: &str) -> Value {
    let names = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let parameters: Vec<Value> = names
        .map(|name| {
            json!({
                "name": name,
                "in": "path",
                "required": true,
                "schema": {"type": "string", "minLength": 1},
            })
        })
        .collect();
    match parameters.is_empty() {
        true => json!({}),
        false => json!({"parameters": parameters}),
    }
}

fn shown(operation: &Operation, known: &Map<String, Value>) -> Value {
    let doc = &operation.doc;
    let mut shown = json!({
        "operationId": operation_id(operation),
        "tags": [operation.group],
        "summary": doc.says,
        "security": match operation.access {
            Access::Key => json!([{"bearer": []}, {"key": []}]),
            Access::Open | Access::Sender => json!([]),
        },
        "responses": responses(operation),
    });
    let parameters: Vec<Value> =
        doc.query.iter().flat_map(|name| parameters(known, name)).collect();
    if !parameters.is_empty() {
        shown["parameters"] = parameters.into();
    }
    let (content, required) = match doc.takes {
        Takes::None => return shown,
        Takes::Json(schema) => ("application/json", Some((schema, true))),
        Takes::Optional(schema) => ("application/json", Some((schema, false))),
        Takes::Form(schema) => ("multipart/form-data", Some((schema, true))),
        Takes::Any if operation.method == http::Method::GET => return shown,
        Takes::Any => ("*/*", None),
    };
    let schema = required.map_or_else(|| json!({}), |(schema, _)| reference(schema));
    shown["requestBody"] = json!({
        "required": required.is_some_and(|(_, required)| required),
        "content": {content: {"schema": schema}},
    });
    shown
}

/// The parameters of a name, as the document has them.
pub(super) fn parameters(known: &Map<String, Value>, name: &str) -> Vec<Value> {
    match known.get(name) {
        Some(Value::Array(several)) => several.clone(),
        Some(one) => vec![one.clone()],
        None => Vec::new(),
    }
}

/// Of method and path: nothing else is unique, and stays when code is moved.
fn operation_id(operation: &Operation) -> String {
    let parts = operation.path.split('/').filter(|part| !part.is_empty());
    let plain = |part: &str| part.trim_matches(|c| c == '{' || c == '}').replace('.', "_");
    let path: Vec<String> = parts.map(plain).collect();
    format!("{}_{}", operation.method.as_str().to_ascii_lowercase(), path.join("_"))
}

/// Statuses of errors: what follows from how the request is read, and what the route says itself.
pub(super) fn error_statuses(operation: &Operation) -> BTreeSet<u16> {
    let doc = &operation.doc;
    let mut statuses: BTreeSet<u16> = doc.statuses.iter().copied().collect();
    // Whatever it is: the store may be away, and there may be a bug.
    statuses.extend([500, 503]);
    if operation.access == Access::Key {
        statuses.extend([401, 403]);
    }
    if operation.path.contains('{') {
        statuses.insert(404);
    }
    if !doc.query.is_empty() {
        statuses.insert(400);
    }
    match doc.takes {
        Takes::None => {}
        Takes::Json(_) | Takes::Optional(_) | Takes::Form(_) => statuses.extend([400, 408, 413]),
        Takes::Any => statuses.extend([401, 408, 413]),
    }
    statuses
}

fn responses(operation: &Operation) -> Value {
    let json_of = |schema: Value| json!({"application/json": {"schema": schema}});
    let events = || json!({"schema": {}});
    let page = |schema: &str| {
        json_of(json!({
            "type": "object",
            "required": ["data", "next_page"],
            "properties": {
                "data": {"type": "array", "items": reference(schema)},
                "next_page": {"type": ["string", "null"]},
            },
        }))
    };
    let mut responses = Map::new();
    let mut add = |status: &str, says: &str, content: Value| {
        responses.insert(status.to_owned(), json!({"description": says, "content": content}));
    };
    match operation.doc.success {
        Success::Json(schema) => add("200", "Done.", json_of(reference(schema))),
        Success::Page(schema) => add("200", "A page of the list.", page(schema)),
        Success::Events => add("200", "The stream.", json!({"text/event-stream": events()})),
        Success::JsonOrEvents(schema) => {
            let mut content = json_of(reference(schema));
            content["text/event-stream"] = events();
            add("200", "Done, or how far it is and then that.", content);
        }
        Success::Bytes => add("200", "The bytes.", json!({"*/*": {"schema": {}}})),
        Success::Text => add(
            "200",
            "A text.",
            json!({"text/plain": {"schema": {"type": "string"}},
            "application/openmetrics-text": {"schema": {"type": "string"}}}),
        ),
        Success::Receipt => {
            add("202", "It is stored, and what was decided.", json_of(reference("Receipt")));
            add("2XX", "What the sender wants to hear.", json!({"*/*": {"schema": {}}}));
        }
    }
    let schema = match operation.path.starts_with("/v1") {
        true => "Error",
        false => "PlainError",
    };
    for status in error_statuses(operation) {
        let mut content = json_of(reference(schema));
        if operation.doc.success == Success::Receipt && status == 503 {
            let either = json!({"anyOf": [reference(schema), reference("Receipt")]});
            content = json_of(either);
        }
        add(&status.to_string(), error_says(status), content);
    }
    Value::Object(responses)
}

pub(super) fn error_says(status: u16) -> &'static str {
    match status {
        400 => "The request is wrong; the message says what to change.",
        401 => "No key, or one that is not known.",
        403 => "The key may not do this.",
        404 => "There is no such thing.",
        405 => "The method is good for nothing here.",
        408 => "The body did not arrive in time.",
        409 => "The state of the thing forbids it.",
        413 => "The body is too large.",
        429 => "A bound of the thing was reached; it may work later.",
        503 => "The server cannot do this now; it may work later.",
        _ => "Something went wrong on the server.",
    }
}
