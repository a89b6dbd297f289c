//! Sessions and their events, as the Managed Agents API has them.

use std::time::Duration;

use bellpull::{
    domain::turn::TurnEnd,
    id::{EventId, Id},
    ingest,
};
use serde_json::{Value, json};

use super::server::Server;

#[tokio::test]
async fn a_session_has_its_agent_in_three_forms() {
    let server = Server::new().await;
    let path = format!("/v1/agents/{}", server.agent);
    server.post(&path).json(json!({"system": "second"})).ok().await;
    let make = |agent: Value| {
        let body = json!({"agent": agent, "environment_id": server.environment, "title": "t",
            "metadata": {"k": "v"}, "vault_ids": [], "resources": [], "budget": null});
        server.post("/v1/sessions").json(body)
    };
    let session = make(json!(server.agent)).ok().await;
    assert_eq!(
        (&session["agent"]["version"], &session["agent"]["system"]),
        (&json!(2), &json!("second"))
    );
    assert_eq!((&session["status"], &session["type"]), (&json!("idle"), &json!("session")));
    assert_eq!((&session["title"], &session["metadata"]["k"]), (&json!("t"), &json!("v")));
    for field in ["usage", "stats", "resources", "vault_ids", "outcome_evaluations"] {
        assert!(!session[field].is_null(), "{field}");
    }
    let id = session["id"].as_str().expect("an id");
    assert_eq!(server.get(&format!("/v1/sessions/{id}")).ok().await, session);

    let old = make(json!({"type": "agent", "id": server.agent, "version": 1})).ok().await;
    assert_eq!((&old["agent"]["version"], &old["agent"]["system"]), (&json!(1), &Value::Null));
    let overrides = json!({"type": "agent_with_overrides", "id": server.agent, "system": null,
        "model": {"id": "other", "effort": "low"},
        "tools": [{"type": "agent_toolset_20260401"}]});
    let own = make(overrides).ok().await;
    assert_eq!((&own["agent"]["id"], &own["agent"]["version"]), (&json!(server.agent), &json!(2)));
    assert_eq!(own["agent"]["system"], Value::Null);
    let model = json!({"id": "other", "speed": "standard", "effort": {"type": "high"}});
    assert_eq!(own["agent"]["model"], model);
    assert_eq!(own["agent"]["tools"][0]["type"], "agent_toolset_20260401");

    let no_model = json!({"type": "agent_with_overrides", "id": server.agent, "model": null});
    let error = make(no_model).status(400).await;
    assert_eq!(error["error"]["details"]["error_code"], "agent_model_required");
    let unknown = json!({"type": "agent_with_overrides", "id": server.agent, "name": "x"});
    make(unknown).error(400, "invalid_request_error").await;
    make(json!("agent_nobody")).error(404, "not_found_error").await;
    make(json!({"type": "agent", "id": server.agent, "version": 7}))
        .error(404, "not_found_error")
        .await;
}

#[tokio::test]
async fn a_session_can_begin_with_events() {
    let server = Server::new().await;
    let make = |events: Value| {
        let body = json!({"agent": server.agent, "environment_id": server.environment,
            "initial_events": events});
        server.post("/v1/sessions").json(body)
    };
    let text =
        |text: &str| json!({"type": "user.message", "content": [{"type": "text", "text": text}]});
    let session = make(json!([text("one"), text("two")])).ok().await;
    assert_eq!(session["status"], "running", "never idle first");
    let events = server.events(session["id"].as_str().expect("an id")).await;
    assert_eq!(events.len(), 2);
    assert_eq!(
        (&events[0]["content"][0]["text"], &events[1]["processed_at"]),
        (&json!("one"), &Value::Null)
    );
    assert_eq!(make(json!([])).ok().await["status"], "idle");
    make(json!([text("one"), {"type": "user.define_outcome"}]))
        .error(400, "invalid_request_error")
        .await;
    make(Value::Array(vec![text("x"); 51])).error(400, "invalid_request_error").await;
    let list = server.get("/v1/sessions").ok().await;
    assert_eq!(list["data"].as_array().expect("a list").len(), 2, "all or nothing");
}

#[tokio::test]
async fn sessions_are_listed_by_what_they_are() {
    let server = Server::new().await;
    let mut ids = Vec::new();
    for n in 0..3 {
        server.clock.advance(Duration::from_secs(1));
        let session = server.session().await;
        if n == 1 {
            server.say(&session, "hello").await;
        }
        ids.push(session.to_string());
    }
    let find = async |query: &str| {
        let list = server.get(&format!("/v1/sessions{query}")).ok().await;
        let data = list["data"].as_array().expect("a list").clone();
        let ids: Vec<String> =
            data.iter().map(|it| it["id"].as_str().expect("an id").to_owned()).collect();
        (ids, list["next_page"].as_str().map(str::to_owned))
    };
    let newest: Vec<String> = ids.iter().rev().cloned().collect();
    assert_eq!(find("").await, (newest.clone(), None));
    assert_eq!(find("?order=asc").await, (ids.clone(), None));
    assert_eq!(find("?statuses[]=running&statuses%5B%5D=terminated").await.0.len(), 0);
    assert_eq!(find(&format!("?agent_id={}&agent_version=1", server.agent)).await.0.len(), 3);
    let of = |version: u8| format!("?agent_id={}&agent_version={version}", server.agent);
    assert_eq!(find(&of(2)).await.0.len(), 0);
    assert_eq!(find("?agent_version=2").await.0.len(), 3, "of whichever agent it says nothing");
    assert_eq!(find("?deployment_id=depl_1").await.0.len(), 0);
    let (first, next) = find("?limit=2").await;
    let next = next.expect("there is more");
    assert_eq!(first, newest[..2]);
    assert_eq!(find(&format!("?limit=2&page={next}")).await, (newest[2..].to_vec(), None));
    let other_order = server.get(&format!("/v1/sessions?order=asc&page={next}"));
    other_order.error(400, "invalid_request_error").await;
    server.get("/v1/sessions/sesn_nobody").error(404, "not_found_error").await;
}

#[tokio::test]
async fn events_are_sent_and_listed() {
    events(Server::new().await).await;
}

#[tokio::test]
async fn events_are_sent_and_listed_on_postgres() {
    events(Server::postgres().await).await;
}

async fn events(server: Server) {
    let session = server.session().await;
    let sent = server.say(&session, "one").await;
    assert_eq!(sent["data"][0]["processed_at"], Value::Null);
    assert_eq!(sent["data"][0]["content"], json!([{"type": "text", "text": "one"}]));
    let lease = server.work().await;
    server.answer(&lease, EventId::new(server.clock.now()), "first answer").await;
    server.finish(&lease, TurnEnd::EndTurn).await;
    server.say(&session, "two").await;

    let path = format!("/v1/sessions/{session}/events");
    let find = async |query: &str| {
        let list = server.get(&format!("{path}{query}")).ok().await;
        let data = list["data"].as_array().expect("a list").clone();
        let types: Vec<String> =
            data.iter().map(|it| it["type"].as_str().expect("a type").to_owned()).collect();
        (types, list["next_page"].as_str().map(str::to_owned))
    };
    let all = [
        "session.status_running",
        "user.message",
        "agent.message",
        "session.status_idle",
        "user.message",
    ];
    assert_eq!(find("").await, (all.map(str::to_owned).to_vec(), None));
    let types = "?types%5B%5D=agent.message&types%5B%5D=session.status_idle";
    assert_eq!(find(types).await.0, ["agent.message", "session.status_idle"]);
    let at = server.clock.now();
    assert_eq!(find(&format!("?created_at[gte]={at}")).await.0.len(), 4, "what waits has no time");
    assert_eq!(find(&format!("?created_at[gt]={at}")).await.0.len(), 0);
    for order in ["asc", "desc"] {
        let mut found = Vec::new();
        let mut query = format!("?limit=2&order={order}");
        loop {
            let (types, next) = find(&query).await;
            found.extend(types);
            let Some(next) = next else { break };
            query = format!("?limit=2&order={order}&page={next}");
            let other = if order == "asc" { "desc" } else { "asc" };
            let misuse = server.get(&format!("{path}?order={other}&page={next}"));
            misuse.error(400, "invalid_request_error").await;
        }
        if order == "desc" {
            found.reverse();
        }
        assert_eq!(found, all, "{order}");
    }
    server.get("/v1/sessions/sesn_nobody/events").error(404, "not_found_error").await;
    let nobody = server.post("/v1/sessions/sesn_nobody/events");
    let event = json!({"type": "user.message", "content": "text"});
    nobody.json(json!({"events": [event]})).error(404, "not_found_error").await;
}

#[tokio::test]
async fn a_full_inbox_asks_to_come_again() {
    let bounds = ingest::Options { waiting_messages_max: 2, ..ingest::Options::default() };
    let server = Server::with(bounds).await;
    let session = server.session().await;
    server.say(&session, "one").await;
    let path = format!("/v1/sessions/{session}/events");
    let event = json!({"type": "user.message", "content": "more"});
    let send = server.post(&path).json(json!({"events": [event, event]})).send().await;
    assert_eq!((send.status.as_u16(), send.header("retry-after")), (429, Some("10")));
    let error = &send.json()["error"];
    assert_eq!(error["type"], "rate_limit_error");
    assert!(error["message"].as_str().expect("text").contains("limits.waiting_messages_max"));
    server.say(&session, "one fits").await;
}

#[tokio::test]
async fn an_archived_session_is_read_only() {
    let server = Server::new().await;
    let session = server.session().await;
    let path = format!("/v1/sessions/{session}");
    server.say(&session, "hello").await;
    let message = server.post(&format!("{path}/archive")).error(400, "invalid_request_error").await;
    assert_eq!(message, "cannot archive while running");
    let lease = server.work().await;
    server.finish(&lease, TurnEnd::EndTurn).await;
    let archived = server.post(&format!("{path}/archive")).ok().await;
    assert_eq!(archived["status"], "terminated");
    assert!(archived["archived_at"].is_string());
    let event = json!({"events": [{"type": "user.message", "content": "more"}]});
    let send = server.post(&format!("{path}/events")).json(event).send().await;
    assert_eq!((send.status.as_u16(), send.header("x-should-retry")), (409, Some("false")));
    let events = server.events(session.to_string().as_str()).await;
    assert_eq!(events.len(), 4, "history stays");
    assert_eq!(events[3]["type"], "session.status_terminated");
    let list = async |query: &str| {
        let list = server.get(&format!("/v1/sessions{query}")).ok().await;
        list["data"].as_array().expect("a list").len()
    };
    assert_eq!((list("").await, list("?include_archived=true").await), (0, 1));
    server.post("/v1/sessions/sesn_nobody/archive").error(404, "not_found_error").await;
}

#[tokio::test]
async fn a_deleted_session_is_gone() {
    deleted(Server::new().await).await;
}

#[tokio::test]
async fn a_deleted_session_is_gone_on_postgres() {
    deleted(Server::postgres().await).await;
}

async fn deleted(server: Server) {
    let token = server.token().await;
    let accepted = server.hook().bearer(token).body("{}").status(202).await;
    let path = format!("/v1/sessions/{}", accepted["session_id"].as_str().expect("an id"));
    let refused = server.call("DELETE", &path).error(400, "invalid_request_error").await;
    assert_eq!(refused, "cannot delete while running");
    let lease = server.work().await;
    server.finish(&lease, TurnEnd::EndTurn).await;
    let answer = server.call("DELETE", &path).ok().await;
    assert_eq!(answer, json!({"id": accepted["session_id"], "type": "session_deleted"}));
    for call in [server.get(&path), server.call("DELETE", &path), server.post(&path)] {
        call.error(404, "not_found_error").await;
    }
    let delivery = accepted["delivery_id"].as_str().expect("an id");
    let delivery = server.get(&format!("/v1/deliveries/{delivery}")).ok().await;
    assert_eq!(delivery["session_deleted"], true);
    assert_eq!(
        (&delivery["outcome"], &delivery["status"]),
        (&json!("succeeded"), &json!("accepted"))
    );
    let audit = server.get("/v1/audit").ok().await;
    let entries = audit["data"].as_array().expect("a list");
    let noted = entries.iter().filter(|it| it["action"] == "session.delete");
    assert_eq!(noted.map(|it| &it["target"]).collect::<Vec<_>>(), [&accepted["session_id"]]);
}

#[tokio::test]
async fn a_page_of_large_events_is_shorter() {
    let bounds = ingest::Options { body_bytes_max: 10_000, ..ingest::Options::default() };
    let server = Server::with(bounds).await;
    let session = server.session().await;
    for n in 0..40 {
        server.say(&session, &format!("{n}{}", "x".repeat(if n < 8 { 8_000 } else { 10 }))).await;
    }
    for (order, wanted) in [("asc", [16, 24]), ("desc", [40, 0])] {
        let (mut sizes, mut query) = (Vec::new(), format!("?order={order}"));
        loop {
            let list = server.get(&format!("/v1/sessions/{session}/events{query}")).ok().await;
            sizes.push(list["data"].as_array().expect("a list").len());
            let Some(next) = list["next_page"].as_str() else { break };
            query = format!("?order={order}&page={next}");
        }
        sizes.resize(2, 0);
        assert_eq!(sizes, wanted, "{order}: all of them, in pages with an end");
    }
}
