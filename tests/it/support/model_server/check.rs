//! What every request must keep to, as the providers say it.

use serde_json::Value;

use super::{Captured, Format};

/// What one side said or did, in the order of the request.
#[derive(Debug, PartialEq)]
enum Item {
    User(String),
    Assistant(String),
    Call(String),
    Result(String, String),
}

/// Everything that is wrong with a request.
pub fn problems(request: &Captured, secrets: &[String]) -> Vec<String> {
    let mut problems = Vec::new();
    let body = request.body.to_string();
    for secret in secrets {
        if body.contains(secret) {
            problems.push("a secret is in the body".to_owned());
        }
    }
    if request.body["stream"] != true {
        problems.push("no stream is asked for".to_owned());
    }
    if request.format == Format::Anthropic {
        roles_alternate(&request.body, &mut problems);
        if request.body["max_tokens"].as_u64().is_none() {
            problems.push("`max_tokens` is missing".to_owned());
        }
    }
    match items(request.format, &request.body) {
        Ok(items) => pairs(&items, &mut problems),
        Err(problem) => problems.push(problem),
    }
    problems
}

pub fn said(format: Format, body: &Value) -> String {
    let items = items(format, body).expect("a request that can be read");
    let texts = items.into_iter().filter_map(|item| match item {
        Item::User(text) | Item::Result(_, text) => Some(text),
        Item::Assistant(_) | Item::Call(_) => None,
    });
    texts.collect::<Vec<_>>().join("\n")
}

fn roles_alternate(body: &Value, problems: &mut Vec<String>) {
    let messages = body["messages"].as_array().map_or(&[][..], Vec::as_slice);
    // A word of the operator's follows what the user's side says, and the answer follows that.
    for (n, message) in messages.iter().enumerate().filter(|(_, it)| it["role"] == "system") {
        let role = |n: usize| messages.get(n).map(|it| it["role"].as_str().unwrap_or_default());
        let is_last = matches!(role(n + 1), None | Some("assistant"));
        if n == 0 || role(n - 1) != Some("user") || !is_last {
            problems.push(format!("message {n} is the operator's, in the wrong place: {message}"));
        }
    }
    for (n, message) in messages.iter().filter(|it| it["role"] != "system").enumerate() {
        let wanted = if n % 2 == 0 { "user" } else { "assistant" };
        if message["role"] != wanted {
            problems.push(format!("message {n} is not the {wanted}'s"));
        }
        let content = message["content"].as_array().map_or(&[][..], Vec::as_slice);
        if content.is_empty() {
            problems.push(format!("message {n} is empty"));
        }
        let is_result = |block: &Value| block["type"] == "tool_result";
        if content.iter().rposition(is_result) > content.iter().position(|it| !is_result(it)) {
            let both = content.iter().any(is_result) && content.iter().any(|it| !is_result(it));
            if both {
                problems.push(format!("in message {n} a result comes after something else"));
            }
        }
    }
}

/// Each call has exactly one result before anybody speaks again, and each result a call; the user
/// begins and ends; nobody speaks twice in a row.
fn pairs(items: &[Item], problems: &mut Vec<String>) {
    let mut open: Vec<&str> = Vec::new();
    let mut answered: Vec<&str> = Vec::new();
    let mut last = None;
    for item in items {
        match item {
            Item::Call(id) => {
                if open.contains(&id.as_str()) || answered.contains(&id.as_str()) {
                    problems.push(format!("the id {id} is there twice"));
                }
                if !id.starts_with("sevt_") || id.len() > 40 {
                    problems.push(format!("{id} is not the id of an event"));
                }
                open.push(id);
                last = Some("assistant");
            }
            Item::Result(id, _) => {
                match open.iter().position(|it| it == id) {
                    Some(at) => answered.push(open.remove(at)),
                    None => {
                        problems.push(format!("the result {id} has no call, or is not its first"));
                    }
                }
                last = Some("result");
            }
            Item::User(text) | Item::Assistant(text) => {
                let speaker = if matches!(item, Item::User(_)) { "user" } else { "assistant" };
                if text.trim().is_empty() {
                    problems.push(format!("the {speaker} says nothing"));
                }
                if !open.is_empty() {
                    problems.push(format!("the calls {open:?} have no result"));
                }
                if last == Some("assistant") && speaker == "assistant" {
                    problems.push("the assistant speaks twice".to_owned());
                }
                if last.is_none() && speaker == "assistant" {
                    problems.push("the assistant begins".to_owned());
                }
                last = Some(speaker);
            }
        }
    }
    if !open.is_empty() || last == Some("assistant") {
        problems.push(format!("nothing is to be answered: {last:?}, open calls {open:?}"));
    }
}

fn items(format: Format, body: &Value) -> Result<Vec<Item>, String> {
    let key = if format == Format::Responses { "input" } else { "messages" };
    let messages = body[key].as_array().ok_or("there are no messages")?;
    let mut items = Vec::new();
    for (n, message) in messages.iter().enumerate() {
        if n > 0 && message["role"] == "system" {
            continue;
        }
        match format {
            Format::Anthropic => anthropic(message, &mut items)?,
            Format::Chat => chat(n, message, &mut items)?,
            Format::Responses => responses(message, &mut items)?,
        }
    }
    Ok(items)
}

fn text_of(value: &Value) -> Result<String, String> {
    let texts = match value {
        Value::String(text) => return Ok(text.clone()),
        Value::Array(parts) => parts,
        _ => return Err(format!("{value} is no content")),
    };
    let part = |part: &Value| part["text"].as_str().unwrap_or("(something else)").to_owned();
    Ok(texts.iter().map(part).collect::<Vec<_>>().join("\n"))
}

fn id_of(value: &Value) -> Result<String, String> {
    value.as_str().map(str::to_owned).ok_or_else(|| "an id is missing".to_owned())
}

fn anthropic(message: &Value, items: &mut Vec<Item>) -> Result<(), String> {
    let is_user = message["role"] == "user";
    let content = message["content"].as_array().ok_or("a message without content")?;
    let mut texts = Vec::new();
    for block in content {
        match block["type"].as_str() {
            Some("text") => texts.push(block["text"].as_str().unwrap_or_default().to_owned()),
            Some("tool_use") if !is_user => {
                if !block["input"].is_object() {
                    return Err("the input of a call is no object".to_owned());
                }
            }
            Some("tool_result") if is_user => {
                let (id, text) = (id_of(&block["tool_use_id"])?, text_of(&block["content"])?);
                items.push(Item::Result(id, text));
            }
            Some("thinking") if !is_user => {
                if block["signature"] != "c2lnbmVk" || block["thinking"] != "Let me see. " {
                    return Err("what was thought came back otherwise".to_owned());
                }
            }
            Some("image" | "document") => texts.push("(something to see)".to_owned()),
            other => return Err(format!("a block of type {other:?}")),
        }
    }
    if !texts.is_empty() {
        let text = texts.join("\n");
        items.push(if is_user { Item::User(text) } else { Item::Assistant(text) });
    }
    let calls = content.iter().filter(|block| block["type"] == "tool_use");
    for call in calls {
        items.push(Item::Call(id_of(&call["id"])?));
    }
    Ok(())
}

fn chat(n: usize, message: &Value, items: &mut Vec<Item>) -> Result<(), String> {
    match message["role"].as_str() {
        Some("system") if n == 0 => {}
        Some("user") => items.push(Item::User(text_of(&message["content"])?)),
        Some("tool") => {
            let (id, text) = (id_of(&message["tool_call_id"])?, text_of(&message["content"])?);
            items.push(Item::Result(id, text));
        }
        Some("assistant") => {
            if !message["content"].is_null() {
                items.push(Item::Assistant(text_of(&message["content"])?));
            }
            for call in message["tool_calls"].as_array().into_iter().flatten() {
                let arguments = call["function"]["arguments"].as_str().unwrap_or_default();
                let arguments: Value = serde_json::from_str(arguments).unwrap_or_default();
                if call["type"] != "function" || !arguments.is_object() {
                    return Err("a call is no function with an object".to_owned());
                }
                items.push(Item::Call(id_of(&call["id"])?));
            }
        }
        other => return Err(format!("message {n} has the role {other:?}")),
    }
    Ok(())
}

fn responses(item: &Value, items: &mut Vec<Item>) -> Result<(), String> {
    match item["type"].as_str() {
        Some("message") if item["role"] == "user" => {
            items.push(Item::User(text_of(&item["content"])?));
        }
        Some("message") if item["role"] == "assistant" => {
            items.push(Item::Assistant(text_of(&item["content"])?));
        }
        Some("function_call") => items.push(Item::Call(id_of(&item["call_id"])?)),
        Some("function_call_output") => {
            let (id, text) = (id_of(&item["call_id"])?, text_of(&item["output"])?);
            items.push(Item::Result(id, text));
        }
        Some("reasoning") if item["encrypted_content"] == "c2VhbGVk" => {}
        other => return Err(format!("an item of type {other:?}")),
    }
    Ok(())
}

/// Each rule finds what it is for and nothing beside it.
#[test]
fn the_checks_bite() {
    use serde_json::json;

    let check = |format: Format, messages: Value, expected: &str| {
        let key = if format == Format::Responses { "input" } else { "messages" };
        let body = json!({key: messages, "stream": true, "max_tokens": 1});
        let request = Captured { format, headers: Vec::new(), body, at: super::now() };
        let found = problems(&request, &["s3cret".to_owned()]).join("; ");
        assert!(found.contains(expected) && expected.is_empty() == found.is_empty(), "{found}");
    };
    let says =
        |role: &str, text: &str| json!({"role": role, "content": [{"type": "text", "text": text}]});
    let user = |text: &str| says("user", text);
    let call = |id: &str| json!({"type": "tool_use", "id": id, "name": "t", "input": {}});
    let calls = |ids: &[&str]| json!({"role": "assistant", "content": ids.iter().map(|id| call(id)).collect::<Vec<_>>()});
    let result = |id: &str| json!({"type": "tool_result", "tool_use_id": id, "content": []});
    let results = |ids: &[&str]| json!({"role": "user", "content": ids.iter().map(|id| result(id)).collect::<Vec<_>>()});
    let one = Format::Anthropic;
    check(one, json!([user("a"), calls(&["sevt_1"]), results(&["sevt_1"])]), "");
    check(
        one,
        json!([user("a"), calls(&["sevt_1", "sevt_2"]), results(&["sevt_2"])]),
        "open calls [\"sevt_1\"]",
    );
    check(
        one,
        json!([user("a"), calls(&["sevt_1"]), results(&["sevt_1", "sevt_1"])]),
        "has no call",
    );
    check(
        one,
        json!([user("a"), calls(&["toolu_1"]), results(&["toolu_1"])]),
        "not the id of an event",
    );
    check(one, json!([user("a"), user("b")]), "message 1 is not the assistant's");
    check(one, json!([says("assistant", "a"), user("b")]), "message 0 is not the user's");
    check(one, json!([user("the s3cret")]), "a secret is in the body");
    check(one, json!([user(" ")]), "says nothing");
    check(one, json!([user("a"), says("assistant", "b")]), "nothing is to be answered");

    let chat_call = |id: &str| {
        json!({"role": "assistant", "content": null, "tool_calls": [{"type": "function",
        "id": id, "function": {"name": "t", "arguments": "{}"}}]})
    };
    let chat_result = |id: &str| json!({"role": "tool", "tool_call_id": id, "content": "r"});
    let plain = |role: &str| json!({"role": role, "content": "x"});
    let two = Format::Chat;
    check(
        two,
        json!([plain("system"), plain("user"), chat_call("sevt_1"), chat_result("sevt_1")]),
        "",
    );
    check(two, json!([plain("user"), chat_call("sevt_1"), plain("user")]), "have no result");
    check(
        two,
        json!([plain("user"), plain("assistant"), plain("assistant"), plain("user")]),
        "speaks twice",
    );
    check(two, json!([plain("user"), plain("narrator")]), "the role Some(\"narrator\")");
    check(one, json!([user("a"), plain("system")]), "");
    check(one, json!([user("a"), plain("system"), user("b")]), "in the wrong place");

    let three = Format::Responses;
    let item = |kind: &str, id: &str| json!({"type": kind, "call_id": id, "name": "t", "arguments": "{}", "output": "r"});
    let said = json!({"type": "message", "role": "user", "content": "x"});
    check(
        three,
        json!([said, item("function_call", "sevt_1"), item("function_call_output", "sevt_1")]),
        "",
    );
    check(three, json!([said, item("function_call", "sevt_1")]), "open calls");
    check(three, json!([said, item("function_call_output", "sevt_1")]), "has no call");
}
