//! Agents and environments, as the Managed Agents API and as /api have them.

use std::time::Duration;

use serde_json::{Value, json};

use super::server::Server;

#[tokio::test]
async fn an_agent_is_versioned() {
    let server = Server::new().await;
    let body = json!({"name": "lucy", "model": "rehearsal", "system": "be kind",
        "tools": [{"type": "agent_toolset_20260401"}], "metadata": {"a": "1"}});
    let agent = server.post("/v1/agents").json(body).ok().await;
    let model = json!({"id": "rehearsal", "speed": "standard", "effort": {"type": "high"}});
    assert_eq!(agent["model"], model);
    assert_eq!((&agent["version"], &agent["type"]), (&json!(1), &json!("agent")));
    let path = format!("/v1/agents/{}", agent["id"].as_str().expect("an id"));
    let tools = agent["tools"].clone();
    assert_eq!(tools[0]["default_config"]["permission_policy"], json!({"type": "always_allow"}));

    // Nothing changes, so nothing is new.
    assert_eq!(server.post(&path).json(json!({"name": "lucy"})).ok().await["version"], 1);
    assert_eq!(server.post(&path).ok().await["version"], 1, "an empty body is no change");
    let changed = server.post(&path).json(json!({"system": null, "version": 1})).ok().await;
    assert_eq!((&changed["version"], &changed["system"]), (&json!(2), &Value::Null));
    assert_eq!(changed["tools"], tools, "what is left out stays");
    let stale = server.post(&path).json(json!({"system": "x", "version": 1})).send().await;
    assert_eq!((stale.status.as_u16(), stale.header("x-should-retry")), (409, Some("false")));

    assert_eq!(server.get(&format!("{path}?version=1")).ok().await["system"], "be kind");
    server.get(&format!("{path}?version=9")).error(404, "not_found_error").await;
    let versions = server.get(&format!("{path}/versions?limit=1")).ok().await;
    assert_eq!(versions["data"][0]["version"], 2);
    let next = versions["next_page"].as_str().expect("there is more");
    let versions = server.get(&format!("{path}/versions?limit=1&page={next}")).ok().await;
    assert_eq!(
        (&versions["data"][0]["version"], &versions["next_page"]),
        (&json!(1), &Value::Null)
    );
    server.get(&format!("/v1/agents?page={next}")).error(400, "invalid_request_error").await;

    let archived = server.post(&format!("{path}/archive")).ok().await;
    assert!(archived["archived_at"].is_string());
    server.post(&path).json(json!({"system": "x"})).error(409, "invalid_request_error").await;
    let session = json!({"agent": archived["id"], "environment_id": server.environment});
    server.post("/v1/sessions").json(session).error(400, "invalid_request_error").await;
    let names = async |query: &str| {
        let list = server.get(&format!("/v1/agents{query}")).ok().await;
        list["data"].as_array().expect("a list").len()
    };
    assert_eq!((names("").await, names("?include_archived=true").await), (1, 2));
}

#[tokio::test]
async fn lists_are_paged_newest_first() {
    let server = Server::new().await;
    for n in 0..5 {
        server.clock.advance(Duration::from_secs(60));
        let body = json!({"name": format!("agent {n}"), "model": "rehearsal"});
        server.post("/v1/agents").json(body).ok().await;
    }
    let mut names = Vec::new();
    let mut query = "?limit=2".to_owned();
    loop {
        let page = server.get(&format!("/v1/agents{query}")).ok().await;
        let data = page["data"].as_array().expect("a list");
        assert!(data.len() <= 2);
        names.extend(data.iter().map(|it| it["name"].as_str().expect("a name").to_owned()));
        let Some(next) = page["next_page"].as_str() else { break };
        query = format!("?limit=2&page={next}");
    }
    assert_eq!(names, ["agent 4", "agent 3", "agent 2", "agent 1", "agent 0", "default"]);

    let list = server.get("/v1/agents?limit=3").ok().await;
    let middle = list["data"][1]["created_at"].as_str().expect("a time");
    for (range, wanted) in [("gte", 2), ("gt", 1), ("lte", 5), ("lt", 4)] {
        let list = server.get(&format!("/v1/agents?created_at%5B{range}%5D={middle}")).ok().await;
        assert_eq!(list["data"].as_array().expect("a list").len(), wanted, "{range}");
    }
}

#[tokio::test]
async fn patch_merges() {
    let server = Server::new().await;
    let body = json!({"name": "lucy", "model": "rehearsal", "description": "d",
        "tools": [{"type": "agent_toolset_20260401"}], "webhook": {"secret_key": "LUCY"}});
    let agent = server.post("/api/agents").json(body).ok().await;
    assert_eq!(agent["webhook"]["secret_key"], "LUCY");
    let path = format!("/api/agents/{}", agent["id"].as_str().expect("an id"));
    let patch = async |body: Value| server.call("PATCH", &path).json(body).ok().await;

    let patched = patch(json!({"config": {"webhook": {"secret_key": "OTHER"}}})).await;
    assert_eq!((&patched["version"], &patched["tools"]), (&json!(1), &agent["tools"]));
    assert_eq!(patched["config"]["webhook"]["secret_key"], "OTHER");
    let patched = patch(json!({"description": "e", "webhook": {}})).await;
    assert_eq!((&patched["version"], &patched["tools"]), (&json!(2), &agent["tools"]));
    assert_eq!(patched["webhook"]["secret_key"], "OTHER", "left out, it stays");
    let patched = patch(json!({"webhook": {"secret_key": null}})).await;
    let default = format!("WEBHOOK_{}_SECRET", agent["id"].as_str().expect("an id"));
    assert_eq!(patched["webhook"]["secret_key"], default);
    let both = json!({"webhook": {"secret_key": "A"}, "config": {"webhook": {"secret_key": "B"}}});
    server.call("PATCH", &path).json(both).error(400, "invalid_request_error").await;

    let limits = async |body: Value| server.post(&format!("{path}/limits")).json(body).ok().await;
    let limited = limits(json!({"turns_at_once_max": 2, "turns_per_minute_max": 30})).await;
    assert_eq!((&limited["version"], &limited["turns_at_once_max"]), (&json!(2), &json!(2)));
    let limited = limits(json!({"turns_at_once_max": null})).await;
    assert_eq!(limited["turns_at_once_max"], Value::Null);
    assert_eq!(limited["turns_per_minute_max"], 30, "left out, it stays");
    for bad in [json!({"turns_at_once_max": 0}), json!({"turns_at_once": 1})] {
        let refused = server.post(&format!("{path}/limits")).json(bad);
        refused.error(400, "invalid_request_error").await;
    }

    assert_eq!(server.post(&format!("{path}/pause")).ok().await["paused"], true);
    assert_eq!(server.post(&format!("{path}/resume")).ok().await["paused"], false);
    let list = server.get("/api/agents").ok().await;
    assert!(
        list["data"].as_array().expect("a list").iter().all(|it| it["webhook"]["url"].is_string())
    );
    assert!(server.call("DELETE", &path).ok().await["archived_at"].is_string());
    server
        .call("PATCH", &path)
        .json(json!({"name": "x"}))
        .error(409, "invalid_request_error")
        .await;
    let body = json!({"webhook": {"secret_key": "A"}});
    server.call("PATCH", &path).json(body).error(409, "invalid_request_error").await;
}

#[tokio::test]
async fn an_agent_and_its_secret_s_name_change_together_or_not_at_all() {
    let server = Server::new().await;
    let made = server.post("/api/agents").json(json!({"name": "a", "model": "rehearsal"}));
    let made = made.ok().await;
    let path = format!("/api/agents/{}", made["id"].as_str().expect("an id"));
    let body = json!({"name": "b", "version": 7, "webhook": {"secret_key": "OTHER"}});
    server.call("PATCH", &path).json(body).error(409, "invalid_request_error").await;
    assert_eq!(server.get(&path).ok().await, made, "neither of the two");

    let body = json!({"name": "b", "version": 1, "webhook": {"secret_key": "OTHER"}});
    let patched = server.call("PATCH", &path).json(body.clone()).ok().await;
    let seen = (&patched["name"], &patched["version"], &patched["webhook"]["secret_key"]);
    assert_eq!(seen, (&json!("b"), &json!(2), &json!("OTHER")));
    let audit = server.get("/v1/audit").ok().await;
    let noted = |action: &str| {
        let entries = audit["data"].as_array().expect("a list").iter();
        entries.filter(|it| it["action"] == action).map(|it| &it["details"]).collect::<Vec<_>>()
    };
    assert_eq!(noted("agent.update").len(), 1);
    assert_eq!(noted("agent.webhook"), [&json!({"secret_key": "OTHER"})]);
    // Without a change there is nothing to note.
    server.call("PATCH", &path).json(json!({"webhook": {"secret_key": "OTHER"}})).ok().await;
    assert_eq!(server.get("/v1/audit").ok().await, audit);
}

#[tokio::test]
async fn a_directory_stays_one_that_the_operator_allows() {
    let server = Server::new().await;
    let project = server.projects.join("billing");
    std::fs::create_dir(&project).expect("a new directory");
    let config = json!({"type": "local", "project": project.to_str()});
    let body = json!({"name": "here", "config": config});
    let made = server.post("/v1/environments").json(body).ok().await;
    let path = format!("/v1/environments/{}", made["id"].as_str().expect("an id"));
    let update = |config: Value| server.post(&path).json(json!({ "config": config }));
    let copied =
        update(json!({"type": "local", "workspace": "copy", "setup": ["make"]})).ok().await;
    let shown = &copied["config"];
    assert_eq!((&shown["workspace"], &shown["setup"]), (&json!("copy"), &json!(["make"])));
    assert_eq!(shown["project"], made["config"]["project"], "left out, it stays");
    for wrong in [
        json!({"type": "local", "project": "/"}),
        json!({"type": "local", "workspace": "worktree"}),
        json!({"type": "local", "colour": 1}),
        json!({"type": "cloud"}),
        json!({"type": 1}),
        json!({"type": null, "project": "/"}),
        json!([]),
    ] {
        update(wrong).error(400, "invalid_request_error").await;
    }
    assert_eq!(server.get(&path).ok().await, copied);
    assert_eq!(update(json!({"workspace": "copy"})).ok().await["config"], copied["config"]);

    let default = format!("/v1/environments/{}", server.environment);
    server.call("DELETE", &default).error(409, "invalid_request_error").await;
    server.post(&format!("{default}/archive")).error(409, "invalid_request_error").await;
    let renamed = server.post(&default).json(json!({"name": "other"}));
    renamed.error(409, "invalid_request_error").await;
    server.post(&default).json(json!({"description": "changed"})).ok().await;
    let deleted = server.call("DELETE", &path).ok().await;
    assert_eq!(deleted, json!({"id": made["id"], "type": "environment_deleted"}));
    server.get(&path).error(404, "not_found_error").await;
}

#[tokio::test]
async fn an_environment_is_a_sandbox_or_a_directory() {
    let server = Server::new().await;
    let made = server.post("/v1/environments").json(json!({"name": "cloudy"})).ok().await;
    assert_eq!(made["config"]["networking"], json!({"type": "unrestricted"}));
    let path = format!("/v1/environments/{}", made["id"].as_str().expect("an id"));
    assert_eq!(server.get(&path).ok().await, made);
    let again = server.post("/v1/environments").json(json!({"name": "cloudy"}));
    again.error(409, "invalid_request_error").await;

    let project = server.projects.join("billing");
    std::fs::create_dir(&project).expect("a new directory");
    let spelt = format!("{}/./", project.display());
    let config = json!({"type": "local", "project": spelt, "workspace": "copy"});
    let local = json!({"name": "here", "config": config});
    let local = server.post("/v1/environments").json(local).ok().await;
    let real = project.canonicalize().expect("it is there");
    assert_eq!(local["config"]["project"], json!(real.to_str()), "one spelling of a directory");
    let outside = format!("{}/../../", project.display());
    let config = json!({"type": "local", "project": outside});
    let outside = json!({"name": "there", "config": config});
    server.post("/v1/environments").json(outside).error(400, "invalid_request_error").await;
}
