//! A source in words: what it is, what it lets in, and what it does with it.

use serde_json::Value;

use super::turn_limits;
use crate::{
    cli::{
        context::{str, time},
        table::{Cell, Fields, fitted, one_line},
    },
    clock::Timestamp,
};

/// The sender by its preset, else the kind of its gate.
pub(super) fn gate(source: &Value) -> &str {
    source["preset"].as_str().unwrap_or_else(|| str(&source["verifier"]["type"]))
}

pub(super) fn state(source: &Value) -> &'static str {
    if source["paused"] == true {
        "paused"
    } else if source["broken"].is_string() {
        "broken"
    } else {
        "active"
    }
}

pub(super) fn target(target: &Value) -> String {
    match target["key"].as_str() {
        Some(template) => format!("key {template}"),
        None => str(target).to_owned(),
    }
}

pub(super) fn fields(source: &Value, url: &str, now: Timestamp) -> Fields {
    let text = |name: &str| Cell::new(str(&source[name]));
    let all = |name: &str| source[name].as_array().map(Vec::as_slice).unwrap_or_default();
    let joined = |name: &str| all(name).iter().map(str).collect::<Vec<_>>().join(", ");
    let list = |name: &str| Cell::new(joined(name));
    let message = fitted(&one_line(str(&source["message"])), MESSAGE_CHARS_MAX);
    let turns = source["turns_per_key_per_hour_max"].as_u64();
    let turns = turns.map_or_else(String::new, |n| format!("{n} of a session"));
    let no_secret = if source["secret_set"] == true { "" } else { "has no value yet" };
    let mut fields = Fields::default();
    fields
        .with("name", Cell::strong(str(&source["name"])), str(&source["id"]))
        .add("url", Cell::new(url))
        .with("state", Cell::badge(state(source)), str(&source["broken"]))
        .add("gate", Cell::new(gate(source)))
        .with("secret", text("secret_key"), no_secret);
    let secrets = all("secrets");
    // One that is valid without an end needs no line of its own.
    for secret in secrets.iter().filter(|_| secrets.len() > 1) {
        let version = format!("version {}", secret["version"]);
        match secret["until"].as_str() {
            Some(until) => fields.with("", Cell::new(version), &format!("until {until}")),
            None => fields.with("", Cell::new(version), "the current one"),
        };
    }
    fields
        .with("agent", text("agent"), str(&source["agent_id"]))
        .add("environment", text("environment_id"))
        .add("project", text("project"))
        .add("target", Cell::new(target(&source["target"])))
        .add("filter", text("filter"));
    for (n, rule) in all("rules").iter().enumerate() {
        let (name, when) = (if n == 0 { "rules" } else { "" }, Cell::new(str(&rule["when"])));
        fields.with(name, when, &format!("→ {}", consequence(rule)));
    }
    let (quiet, longest) = debounce(source);
    fields
        .with("ignored actors", list("ignore_actors"), &format!("at {}", joined("actor")))
        .add("message", Cell::new(message))
        .with("debounce", quiet, &longest)
        .add("when busy", text("when_busy"))
        .add("turns per hour", Cell::new(turns))
        .add("turns", Cell::new(turn_limits(source)))
        .add("identity", list("identity"))
        .add("event type", list("event_type"))
        .add("verify token", text("verify_token"))
        .add("managed by", text("managed_by"));
    time(&mut fields, "open until", now, &source["open_until"]);
    time(&mut fields, "last handshake", now, &source["last_handshake_at"]);
    time(&mut fields, "created", now, &source["created_at"]);
    time(&mut fields, "updated", now, &source["updated_at"]);
    fields
}

/// Characters of the template of a message; `--json` has all of it.
const MESSAGE_CHARS_MAX: usize = 100;

/// What a rule does with what fulfils its condition.
fn consequence(rule: &Value) -> String {
    if let Some(verdict) = rule["verdict"].as_str() {
        return match rule["reason"].as_str() {
            Some(reason) => format!("{verdict}: {reason}"),
            None => verdict.to_owned(),
        };
    }
    let mut parts = Vec::new();
    for (key, name) in
        [("agent", "agent"), ("environment_id", "environment"), ("project", "project")]
    {
        parts.extend(rule[key].as_str().map(|text| format!("{name} {text}")));
    }
    if !rule["target"].is_null() {
        parts.push(format!("target {}", target(&rule["target"])));
    }
    if rule["message"].is_string() {
        parts.push("a message of its own".to_owned());
    }
    match parts.is_empty() {
        true => "as the source says".to_owned(),
        false => parts.join(", "),
    }
}

/// How long a turn waits for quiet, and the first message at most. Nothing where none waits.
fn debounce(source: &Value) -> (Cell, String) {
    let seconds = |name: &str| source[name].as_u64().filter(|seconds| *seconds > 0);
    let quiet = seconds("debounce_seconds").map(|n| format!("{n} s of quiet"));
    let longest = seconds("debounce_seconds_max").map(|n| format!("{n} s at most"));
    (Cell::new(quiet.unwrap_or_default()), longest.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use serde_json::json;

    use super::*;
    use crate::cli::style::Style;

    #[test]
    fn what_a_source_decides_is_in_its_words() {
        let source = json!({
            "id": "src_1", "name": "code", "preset": "github", "agent": "lucy",
            "target": {"key": "{{ body.number }}"}, "filter": "event_type != \"ping\"",
            "rules": [
                {"when": "body.draft", "verdict": "filtered", "reason": "a draft"},
                {"when": "body.old", "verdict": "held"},
                {"when": "event_type == \"push\"", "agent": "bob", "target": "new_session",
                    "message": "Look at {{ body.ref }}"},
                {"when": "has(body.x)"},
            ],
            "ignore_actors": ["bell[bot]", "ci"], "actor": ["/sender/login"],
            "message": format!("Hello\n{}", "x".repeat(200)),
            "debounce_seconds": 10, "debounce_seconds_max": 60, "when_busy": "steer",
            "turns_per_key_per_hour_max": 20, "turns_at_once_max": 2, "turns_per_minute_max": 30,
        });
        let check = |source: &Value, expected: Expect| {
            let mut out = Vec::new();
            let fields = fields(source, "http://box/api/webhook/code", Timestamp(0));
            fields.write(&mut out, Style { color: false }).unwrap();
            expected.assert_eq(&String::from_utf8(out).unwrap());
        };
        check(
            &source,
            expect![[r#"
            name            code  src_1
            url             http://box/api/webhook/code
            state           active
            gate            github
            agent           lucy
            target          key {{ body.number }}
            filter          event_type != "ping"
            rules           body.draft  → filtered: a draft
                            body.old  → held
                            event_type == "push"  → agent bob, target new_session, a message of its own
                            has(body.x)  → as the source says
            ignored actors  bell[bot], ci  at /sender/login
            message         Hello xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…
            debounce        10 s of quiet  60 s at most
            when busy       steer
            turns per hour  20 of a session
            turns           2 at once, 30 per minute
        "#]],
        );
        check(
            &json!({"name": "a", "debounce_seconds": 0}),
            expect![[r#"
            name   a
            url    http://box/api/webhook/code
            state  active
        "#]],
        );
    }
}
