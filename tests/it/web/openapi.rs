//! The document of the API: that it says what the router has, and is whole in itself. Whether answers
//! are as it says is looked at with every request of these tests (`Contract`), and with those of the
//! official SDKs.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use serde_json::Value;

use super::{
    client::Answer,
    server::{MASTER, Server},
    ui::browser::Browser,
};

/// What the document allows of answers, by path and method.
#[derive(Debug)]
pub struct Contract(Vec<(Vec<String>, BTreeMap<String, Value>)>);

impl Contract {
    pub fn of(document: &Value) -> Contract {
        let paths = document["paths"].as_object().expect("paths");
        let parts = |path: &str| path.split('/').map(str::to_owned).collect();
        let methods = |item: &Value| -> BTreeMap<String, Value> {
            let all = item.as_object().expect("an object").iter();
            all.filter(|(key, _)| *key != "parameters")
                .map(|(key, it)| (key.to_uppercase(), it["responses"].clone()))
                .collect()
        };
        Contract(paths.iter().map(|(path, item)| (parts(path), methods(item))).collect())
    }

    /// Status and type of an answer must be declared, where the path is one of the document.
    pub fn check(&self, method: &str, path: &str, answer: &Answer) {
        let path = path.split('?').next().unwrap_or_default();
        let parts: Vec<&str> = path.split('/').collect();
        let fits = |known: &[String]| {
            let mut both = known.iter().zip(&parts);
            known.len() == parts.len() && both.all(|(a, b)| a == b || a.starts_with('{'))
        };
        let Some((_, methods)) = self.0.iter().find(|(known, _)| fits(known)) else { return };
        let Some(responses) = methods.get(method) else { return };
        let status = answer.status.as_u16();
        let declared = &responses[status.to_string()];
        let declared = match declared {
            Value::Null if status < 300 => &responses["2XX"],
            other => other,
        };
        assert!(!declared.is_null(), "{method} {path} answers {status}, which is not declared");
        let content = declared["content"].as_object().expect("contents");
        let kind = answer.header("content-type").unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default();
        let known = content.contains_key("*/*") || content.contains_key(kind);
        assert!(known, "{method} {path} answers {status} as `{kind}`, which is not declared");
    }
}

async fn document(server: &Server) -> Value {
    server.bare("GET", "/openapi.json").ok().await
}

fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            if let Some(name) = map.get("$ref").and_then(Value::as_str) {
                found.insert(name.replace("#/components/schemas/", ""));
            }
            map.values().for_each(|it| references(it, found));
        }
        Value::Array(list) => list.iter().for_each(|it| references(it, found)),
        _ => {}
    }
}

#[tokio::test]
async fn the_document_is_whole() {
    let server = Server::new().await;
    let document = document(&server).await;
    let schemas = document["components"]["schemas"].as_object().expect("schemas");
    let mut named = BTreeSet::new();
    references(&document, &mut named);
    let known: BTreeSet<String> = schemas.keys().cloned().collect();
    assert_eq!(named, known, "what is referred to, and what is there");
    for (name, schema) in schemas {
        let required = schema["required"].as_array().into_iter().flatten();
        for field in required {
            let field = field.as_str().expect("a name");
            assert!(schema["properties"][field].is_object(), "{name}.{field} is no property");
        }
    }
    let tags = document["tags"].as_array().expect("tags").iter();
    let tags: BTreeSet<&str> = tags.filter_map(|tag| tag["name"].as_str()).collect();
    let mut ids = BTreeSet::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("an object") {
            if method == "parameters" {
                continue;
            }
            let at = format!("{method} {path}");
            assert!(ids.insert(operation["operationId"].to_string()), "{at}: an id is there twice");
            let tag = operation["tags"][0].as_str().expect("a group");
            assert!(tags.contains(tag), "{at}: its group is not described");
            let parameters = operation["parameters"].as_array().into_iter().flatten();
            let names: Vec<&str> = parameters.filter_map(|it| it["name"].as_str()).collect();
            let unique: BTreeSet<_> = names.iter().collect();
            assert_eq!(names.len(), unique.len(), "{at}: a parameter is there twice");
        }
    }
    assert!(ids.len() > 100, "{}", ids.len());
}

/// A name in a table that no file has would silently be no parameter.
#[test]
fn every_parameter_is_described_and_used() {
    let text = std::fs::read_to_string("src/web/openapi/parameters.json").expect("a file");
    let known: Value = serde_json::from_str(&text).expect("JSON");
    let known: BTreeSet<&str> =
        known.as_object().expect("an object").keys().map(String::as_str).collect();
    let mut used = BTreeSet::new();
    let sources = sources();
    for (path, text) in &sources {
        let tables = text.split("&[").skip(1).filter_map(|it| it.split(']').next());
        let in_routes = text.contains("Routes::of") || text.contains("routes::");
        for word in tables.flat_map(|table| table.split('"').skip(1).step_by(2)) {
            if in_routes && known.contains(word) {
                used.insert(word);
            }
        }
        for table in text.split("const LIST: &[&str]").skip(1) {
            let table = table.split(';').next().expect("an end");
            for word in table.split('"').skip(1).step_by(2) {
                assert!(known.contains(word), "{path}: `{word}` is in no file");
            }
        }
    }
    assert_eq!(known, used);
}

fn sources() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new("src/web").to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            match path.extension().and_then(|it| it.to_str()) {
                Some("rs") => {
                    let text = std::fs::read_to_string(&path).expect("a file");
                    found.push((path.display().to_string(), text));
                }
                None if path.is_dir() => folders.push(path),
                _ => {}
            }
        }
    }
    found
}

/// Routes are added to the table, from which the document is made, and nowhere else but for pages.
#[test]
fn nothing_is_routed_beside_the_table() {
    let beside: Vec<String> = sources()
        .into_iter()
        .filter(|(path, text)| !path.contains("/ui/") && text.contains(".route("))
        .map(|(path, _)| path)
        .collect();
    assert_eq!(beside, ["src/web/routes.rs"], "use Routes::get and its like");
}

#[tokio::test]
async fn what_the_document_says_is_served() {
    let server = Server::new().await;
    let document = document(&server).await;
    for (path, item) in document["paths"].as_object().expect("paths") {
        let at: String = path
            .split('/')
            .map(|part| if part.starts_with('{') { "none" } else { part })
            .collect::<Vec<_>>()
            .join("/");
        let declared: Vec<String> = item.as_object().expect("an object").keys().cloned().collect();
        for method in ["GET", "POST", "PATCH", "DELETE"] {
            let answer = server.call(method, &at).send().await;
            let text = String::from_utf8_lossy(&answer.body);
            let is_there = answer.status != 405 && !text.contains("there is nothing at");
            let is_declared = declared.contains(&method.to_lowercase());
            // Only a sender that greets so is answered.
            if path == "/api/webhook/{source}" && method == "GET" {
                continue;
            }
            assert_eq!(is_there, is_declared, "{method} {path}: {} {text}", answer.status);
        }
    }
}

/// The document is for everybody, so it must not tell what this server has.
#[tokio::test]
async fn the_document_names_nothing_of_this_server() {
    let server = Server::new().await;
    let before = server.bare("GET", "/openapi.json").send().await.body;
    server.secret("A_NAME", "a-value-of-its-own").await;
    let name = "a-source-of-its-own";
    let body =
        serde_json::json!({"name": name, "preset": "github", "secret": "a-value-of-its-own"});
    server.post("/v1/sources").json(body).ok().await;
    let after = server.bare("GET", "/openapi.json").send().await.body;
    assert_eq!(before, after);
    assert!(!String::from_utf8_lossy(&after).contains(&server.agent));
}

#[tokio::test]
async fn the_page_shows_every_endpoint_and_shape() {
    let server = Server::new().await;
    let document = document(&server).await;
    let mut browser = Browser::new(&server);
    browser.sign_in(MASTER).await;
    let page = browser.get("/reference").await;
    assert_eq!(page.status, 200);
    for path in document["paths"].as_object().expect("paths").keys() {
        assert!(page.text.contains(&format!("<code class=\"path\">{path}</code>")), "{path}");
    }
    for name in document["components"]["schemas"].as_object().expect("schemas").keys() {
        assert!(page.text.contains(&format!("id=\"schema-{name}\"")), "{name}");
    }
}
