//! Our own resources: secrets, sources, deliveries.

use std::time::Duration;

use bellpull::{
    domain::{
        ManagedBy,
        agent::AgentSpec,
        source::{Source, SourceDefinition, SourceKind},
        verifier::Verifier,
    },
    id::{AgentId, Id, SourceId},
    store::Change,
};
use serde_json::{Value, json};

use super::{
    server::{BOX, MASTER, Server},
    ui::browser::Browser,
};
use crate::support::raw;

#[tokio::test]
async fn what_could_be_read_as_something_else_is_refused() {
    let server = Server::new().await;
    let budget = json!({"day": {"tokens": 5}});
    server.post("/v1/budgets/all").json(budget).ok().await;
    for wrong in [json!({"day": []}), json!({"day": [null, 7]}), json!({"turn": ["1.0"]})] {
        let refused = server.post("/v1/budgets/all").json(wrong.clone()).status(400).await;
        let message = refused["error"]["message"].as_str().unwrap();
        assert!(message.contains("must be an object"), "{wrong}: {message}");
    }
    let kept = server.get("/v1/budgets/all").ok().await;
    assert_eq!(kept["day"], json!({"tokens": 5}));
    for name in [".", "..", "..."] {
        server.post("/v1/secrets").json(json!({"name": name, "value": "x"})).status(400).await;
    }
}

#[tokio::test]
async fn whoever_archives_a_session_is_in_the_audit_log() {
    let server = Server::new().await;
    let body = json!({"agent": server.agent, "environment_id": server.environment});
    let session = server.id(server.post("/v1/sessions").json(body)).await;
    for _ in 0..2 {
        server.post(&format!("/v1/sessions/{session}/archive")).ok().await;
    }
    let audit = server.get("/v1/audit").ok().await;
    let said = audit["data"].as_array().unwrap().iter();
    let said: Vec<_> = said.filter(|it| it["action"] == "session.archive").collect();
    assert_eq!(said.len(), 1, "archived once");
    assert_eq!((&said[0]["target"], &said[0]["actor"]), (&json!(session), &json!("master key")));
}

#[tokio::test]
async fn a_secret_is_rotated_with_an_overlap() {
    let server = Server::new().await;
    let source = json!({"name": "s", "preset": "bearer", "secret_key": "KEY"});
    let source = server.post("/v1/sources").json(source).ok().await;
    assert_eq!((&source["secret_key"], &source["secret_set"]), (&json!("KEY"), &json!(false)));
    let hook = async |token: &str| {
        let call = server.bare("POST", "/api/webhook/s").bearer(token).body("{}");
        call.send().await.status.as_u16()
    };
    assert_eq!(hook("old").await, 401, "no value, no way in");
    let put = async |value: &str, overlap: u64| {
        let body = json!({"name": "KEY", "value": value, "overlap_seconds": overlap});
        server.post("/v1/secrets").json(body).ok().await
    };
    let info = put("old", 60).await;
    assert_eq!((&info["version"], &info["previous_until"]), (&json!(1), &Value::Null));
    assert_eq!(hook("old").await, 202);
    let info = put("new", 60).await;
    assert_eq!(info["version"], 2);
    assert!(info["previous_until"].is_string() && info.get("value").is_none());
    assert_eq!((hook("old").await, hook("new").await), (202, 202));
    server.clock.advance(Duration::from_secs(61));
    assert_eq!((hook("old").await, hook("new").await), (401, 202));
    let list = server.get("/v1/secrets").ok().await;
    assert_eq!(list["data"][0]["previous_until"], Value::Null, "the time is over");
    put("newer", 0).await;
    assert_eq!((hook("new").await, hook("newer").await), (401, 202));

    server.call("DELETE", "/v1/secrets/%00KEY").error(404, "not_found_error").await;
    assert_eq!(hook("newer").await, 202);
    server.call("DELETE", "/v1/secrets/KEY").ok().await;
    assert_eq!(hook("newer").await, 401);
    server.call("DELETE", "/v1/secrets/KEY").error(404, "not_found_error").await;
    let made = server.post("/v1/secrets").json(json!({"name": "KEY", "generate": true})).ok().await;
    assert_eq!(hook(made["value"].as_str().expect("shown once")).await, 202);
}

#[tokio::test]
async fn a_source_is_made_changed_and_found() {
    let server = Server::new().await;
    let body = json!({"name": "github", "preset": "header", "header": "X-Token", "secret": "s",
        "target": {"key": "{{ body.number }}"}, "identity": ["X-GitHub-Delivery", "/id"],
        "body_hash_window_seconds": 60, "event_type": ["/action"], "message_chars_max": 5000,
        "on_redelivery": "rerun_failed", "turns_at_once_max": 4, "turns_per_minute_max": 30});
    let made = server.post("/v1/sources").json(body).ok().await;
    let expected = json!({
        "type": "source", "name": "github", "kind": "named",
        "url": "https://bell.example/api/webhook/github",
        "verifier": {"type": "header", "header": "X-Token"},
        "secret_key": "SOURCE_github_SECRET", "secret_set": true,
        "agent": "default", "agent_id": server.agent, "environment_id": server.environment,
        "project": null, "target": {"key": "{{ body.number }}"},
        "identity": ["x-github-delivery", "/id"], "body_hash_window_seconds": 60,
        "event_type": ["/action"], "on_redelivery": "rerun_failed", "message_chars_max": 5000,
        "turns_at_once_max": 4, "turns_per_minute_max": 30,
        "paused": false, "broken": null, "managed_by": "api", "waiting": 0,
    });
    for (key, value) in expected.as_object().expect("an object") {
        assert_eq!(&made[key], value, "{key}");
    }
    let id = made["id"].as_str().expect("an id");
    assert_eq!(server.get("/v1/sources/github").ok().await, made);
    assert_eq!(server.get(&format!("/v1/sources/{id}")).ok().await, made);

    // What is left out stays, null is the default.
    let path = format!("/v1/sources/{id}");
    let changed = json!({"target": "new_session", "identity": null, "message_chars_max": null,
        "turns_per_minute_max": null});
    let changed = server.post(&path).json(changed).ok().await;
    assert_eq!((&changed["target"], &changed["identity"]), (&json!("new_session"), &json!([])));
    assert_eq!(changed["message_chars_max"], 2000);
    assert_eq!(changed["turns_per_minute_max"], Value::Null);
    assert_eq!(changed["turns_at_once_max"], 4, "left out, it stays");
    assert_eq!(changed["verifier"], made["verifier"], "the gate stays");
    let by_name = json!({"name": "github", "on_redelivery": "duplicate"});
    let by_name = server.post("/v1/sources").json(by_name).ok().await;
    assert_eq!((&by_name["id"], &by_name["verifier"]), (&made["id"], &made["verifier"]));
    let renamed = server.post(&path).json(json!({"name": "gitlab"}));
    renamed.error(400, "invalid_request_error").await;

    // The agents' own are there, and keep their gate.
    let list = async |query: &str| {
        let list = server.get(&format!("/v1/sources{query}")).ok().await;
        list["data"].as_array().expect("a list").len()
    };
    assert_eq!((list("").await, list("?kind=agent").await, list("?kind=all").await), (1, 1, 2));
    let own = format!("/v1/sources/{}", server.agent);
    let shown = server.post(&own).json(json!({"target": {"key": "{{ body.id }}"}})).ok().await;
    assert_eq!(
        (&shown["kind"], &shown["target"]["key"]),
        (&json!("agent"), &json!("{{ body.id }}"))
    );
    server.post(&own).json(json!({"preset": "bearer"})).error(400, "invalid_request_error").await;
    server.post(&own).json(json!({"agent": "x"})).error(400, "invalid_request_error").await;
    server.call("DELETE", &own).error(409, "invalid_request_error").await;
    server.post(&own).json(json!({"secret": "t"})).ok().await;
    server.hook().bearer("t").body("{\"id\":1}").status(202).await;

    // An agent that goes away shows at the source.
    let lucy = json!({"name": "lucy", "model": "rehearsal"});
    let lucy = server.id(server.post("/v1/agents").json(lucy)).await;
    server.post(&path).json(json!({"agent": "lucy"})).ok().await;
    server.post(&format!("/v1/agents/{lucy}/archive")).ok().await;
    let shown = server.get(&path).ok().await;
    assert_eq!(shown["broken"], "there is no agent `lucy`");
    assert_eq!((&shown["agent"], &shown["agent_id"]), (&json!("lucy"), &Value::Null));
}

#[tokio::test]
async fn a_retired_source_comes_back_as_itself() {
    let server = Server::new().await;
    let body = json!({"name": "s", "identity": ["x-id"]});
    let made = server.post("/v1/sources").json(body.clone()).ok().await;
    let hook = || server.bare("POST", "/api/webhook/s").bearer(BOX).header("x-id", "1").body("{}");
    let first = hook().status(202).await;
    assert_eq!(server.call("DELETE", "/v1/sources/s").ok().await["id"], made["id"]);
    hook().error(404, "not_found_error").await;
    server.get("/v1/sources/s").error(404, "not_found_error").await;
    server.post("/v1/sources/s/pause").error(404, "not_found_error").await;
    let kept = server.get("/v1/deliveries?source=s").ok().await;
    assert_eq!(kept["data"][0]["id"], first["delivery_id"]);

    let back = server.post("/v1/sources").json(body).ok().await;
    assert_eq!(back["id"], made["id"]);
    let again = hook().status(202).await;
    assert_eq!(again["status"], "duplicate", "its identities are known");
    assert_eq!(again["delivery_id"], first["delivery_id"]);
}

#[tokio::test]
async fn what_the_file_declares_is_changed_there() {
    let server = Server::new().await;
    let at = server.clock.now();
    let mut definition = SourceDefinition::new(&Verifier::Bearer {});
    definition.secret_key = Some("SOURCE_s_SECRET".to_owned());
    let source = Source {
        id: SourceId::new(at),
        kind: SourceKind::Named,
        name: "s".to_owned(),
        definition,
        paused: false,
        managed_by: ManagedBy::File,
        created_at: at,
        updated_at: at,
        retired_at: None,
    };
    let change = Change {
        actor: "config file".to_owned(),
        action: "source.put",
        target: "s".to_owned(),
        details: json!({}),
    };
    server.app.store.put_source(source, change).await.expect("it is made");
    server.secret("SOURCE_s_SECRET", "declared").await;
    let body = json!({"name": "s", "preset": "bearer", "secret": "mine"});
    server.post("/v1/sources").json(body).error(409, "invalid_request_error").await;
    server
        .post("/v1/sources/s")
        .json(json!({"secret": "mine"}))
        .error(409, "invalid_request_error")
        .await;
    server.call("DELETE", "/v1/sources/s").error(409, "invalid_request_error").await;
    let hook = |token: &str| server.bare("POST", "/api/webhook/s").bearer(token).body("{}");
    hook("mine").error(401, "authentication_error").await;
    hook("declared").status(202).await;
    // An agent is no different.
    let (id, at) = (AgentId::new(at), at);
    let own = Source::of_agent(&id, ManagedBy::Api, None, at);
    let spec = AgentSpec::new("declared", "rehearsal");
    let change = Change {
        actor: "config file".to_owned(),
        action: "agent.create",
        target: id.to_string(),
        details: json!({}),
    };
    let made = server.app.store.create_agent(id.clone(), spec, ManagedBy::File, own, change).await;
    made.expect("it is made");
    let paths = [format!("/v1/agents/{id}"), format!("/v1/agents/{id}/archive")];
    for path in paths {
        server.post(&path).error(409, "invalid_request_error").await;
    }
    let path = format!("/api/agents/{id}");
    server.call("PATCH", &path).json(json!({})).error(409, "invalid_request_error").await;
    server.call("DELETE", &path).error(409, "invalid_request_error").await;
    // It can be stopped all the same.
    assert_eq!(server.post(&format!("{path}/pause")).ok().await["paused"], true);
    assert_eq!(server.post("/v1/sources/s/pause").ok().await["paused"], true);
}

#[tokio::test]
async fn refused_requests_are_kept_for_the_operator() {
    let mut server = Server::new().await;
    server.post("/v1/sources").json(json!({"name": "s"})).ok().await;
    server.bare("POST", "/api/webhook/s").bearer("wrong").error(401, "authentication_error").await;
    server.note_refusals().await;
    let list = server.get("/v1/sources/s/refusals").ok().await;
    let reason = "the bearer token is neither the box key nor a key for this source";
    assert_eq!(
        (&list["data"][0]["reason"], &list["data"][0]["type"]),
        (&json!(reason), &json!("refusal"))
    );
}

#[tokio::test]
async fn deliveries_are_listed_looked_at_and_erased() {
    deliveries(Server::new().await).await;
}

#[tokio::test]
async fn deliveries_are_listed_looked_at_and_erased_on_postgres() {
    deliveries(Server::postgres().await).await;
}

async fn deliveries(server: Server) {
    server.post("/v1/sources").json(json!({"name": "s"})).ok().await;
    let hook = async |id: &str, kind: &str| {
        server.clock.advance(Duration::from_millis(5));
        let call = server.bare("POST", "/api/webhook/s").bearer(BOX).header("webhook-id", id);
        call.header("x-event-type", kind).body(format!("{{\"id\":\"{id}\"}}")).status(202).await
    };
    let first = hook("1", "opened").await;
    hook("2", "closed").await;
    hook("1", "opened").await;
    let find = async |query: &str| {
        let list = server.get(&format!("/v1/deliveries{query}")).ok().await;
        let data = list["data"].as_array().expect("a list").clone();
        data.iter().map(|it| it["event_type"].as_str().unwrap_or("").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(find("").await, ["closed", "opened"], "newest first");
    assert_eq!(
        find("?source=s&event_type=opened&status=accepted&outcome=pending").await,
        ["opened"]
    );
    let session = first["session_id"].as_str().expect("a session");
    assert_eq!(find(&format!("?session_id={session}")).await, ["opened"]);
    let page = server.get("/v1/deliveries?limit=1").ok().await;
    let next = page["next_page"].as_str().expect("there is more");
    assert_eq!(find(&format!("?limit=1&page={next}")).await, ["opened"]);

    let path = format!("/v1/deliveries/{}", first["delivery_id"].as_str().expect("an id"));
    let delivery = server.get(&path).ok().await;
    assert_eq!(delivery["headers"]["authorization"], json!(["[redacted]"]));
    assert_eq!(
        delivery["identity"],
        json!({"field": "webhook-id", "key": "webhook-id:1", "weak": false})
    );
    let attempts = server.get(&format!("{path}/attempts")).ok().await;
    assert_eq!(attempts["data"].as_array().expect("a list").len(), 2);
    assert_eq!(attempts["data"][0]["request_id"], first["request_id"]);

    let erased = server.call("DELETE", &path).ok().await;
    assert!(erased["erased_at"].is_string());
    server.get(&format!("{path}/body")).error(404, "not_found_error").await;
    assert_eq!(server.get(&path).ok().await["headers"], json!({}));
    let events = server.events(session).await;
    assert_eq!(events[0]["content"][0]["text"], "[This delivery was erased.]");
    assert_eq!(hook("1", "opened").await["status"], "duplicate", "its identity stays");
    let audit = server.get("/v1/audit?limit=1").ok().await;
    assert_eq!(audit["data"][0]["action"], "delivery.erase");
}

#[tokio::test]
async fn what_hardly_ever_came_is_looked_for_page_by_page() {
    hardly_ever(Server::new().await).await;
}

#[tokio::test]
async fn what_hardly_ever_came_is_looked_for_page_by_page_on_postgres() {
    hardly_ever(Server::postgres().await).await;
}

async fn hardly_ever(server: Server) {
    server
        .post("/v1/sources")
        .json(json!({"name": "s", "filter": "event_type != 'dull'"}))
        .ok()
        .await;
    for kind in ["rare", "dull"] {
        server.clock.advance(Duration::from_millis(5));
        let call = server.bare("POST", "/api/webhook/s").bearer(BOX).header("webhook-id", kind);
        call.header("x-event-type", kind).body("{}").status(202).await;
    }
    let copies = "insert into deliveries (id, source_id, dedupe_key, identity_field, identity_weak, \
         status, reason, event_type, request_id, traceparent, received_at, body_bytes, headers) \
         with recursive numbers(n) as (select 1 union all select n + 1 from numbers where n < 25000) \
         select substr(d.id, 1, length(d.id) - 10) || substr(cast(10000000000 + n as text), 2), \
         d.source_id, d.dedupe_key || cast(n as text), d.identity_field, d.identity_weak, d.status, \
         d.reason, d.event_type, d.request_id, d.traceparent, d.received_at, d.body_bytes, d.headers \
         from numbers cross join (select * from deliveries where event_type = 'dull') d";
    raw::script(&server.location(), copies).await;
    for filter in
        ["event_type=rare", "event_type=rare&source=s", "status=accepted", "outcome=pending"]
    {
        let (mut found, mut page, mut n_pages) = (Vec::new(), String::new(), 0);
        loop {
            let list = server.get(&format!("/v1/deliveries?{filter}&limit=20{page}")).ok().await;
            found.extend(list["data"].as_array().expect("a list").clone());
            n_pages += 1;
            let Some(next) = list["next_page"].as_str() else { break };
            page = format!("&page={next}");
        }
        assert_eq!(found.len(), 1, "{filter}");
        assert_eq!(found[0]["event_type"], "rare");
        assert_eq!(n_pages, 6, "{filter}: each of them looks at five thousand");
    }
    let page = server.get("/v1/deliveries?limit=20").ok().await;
    assert_eq!(
        page["data"].as_array().expect("a list").len(),
        20,
        "all of them need no looking for"
    );
    // A replay of many goes on where a page had none of what is wanted.
    let wanted = json!({"event_type": "rare", "dry_run": true});
    let mut many = server.post("/v1/sources/s/replay").json(wanted.clone()).ok().await;
    while many["data"] == json!([]) {
        let mut on = wanted.clone();
        on["page"] = many["next_page"].clone();
        assert!(on["page"].is_string(), "{many}");
        many = server.post("/v1/sources/s/replay").json(on).ok().await;
    }
    assert_eq!(many["data"][0]["event_type"], "rare");
    searched_on_its_page(&server).await;
}

/// The same by the pages, where a text is looked for in a thousand at a time.
async fn searched_on_its_page(server: &Server) {
    let browser = Browser::signed_in(server, MASTER).await;
    // The sender's id leads there at once.
    let page = browser.get("/deliveries?q=rare").await;
    assert!(page.text.contains("<strong>rare</strong>"), "{}", page.text);
    let (mut place, mut n_pages) = ("/deliveries?q=RARE".to_owned(), 1);
    let found = loop {
        let page = browser.get(&place).await;
        assert_eq!(page.status, 200);
        if !page.text.contains("Nothing yet") {
            break page;
        }
        n_pages += 1;
        place = page.between("<a href=\"", "\">Look further back").replace("&#38;", "&");
        place = place.rsplit("<a href=\"").next().expect("a place").to_owned();
        // What is looked up again by itself does not go on, or it would do so without an end.
        let again = browser.get("/deliveries?part=live&q=RARE").await;
        assert!(again.text.contains("Nothing yet") && !again.text.contains("hx-trigger"));
    };
    assert!(found.text.contains("<strong>rare</strong>"), "{}", found.text);
    assert_eq!(n_pages, 26, "each of them looks at a thousand");
    // A replay of many looks on as well, behind thousands of which none is wanted.
    let fields = [("source", "s"), ("event_type", "rare"), ("dry_run", "1")];
    let page = browser.carry_out("/deliveries/replay", &fields).await;
    assert!(page.text.contains("1 delivery would be replayed"), "{}", page.text);
    // And no sign of a text is one that a database cannot take.
    let long = format!("/deliveries?q={}", "%C3%BC".repeat(9_000));
    for place in [
        "/deliveries?event_type=%00",
        "/deliveries?q=a%00b",
        "/sessions?title=%00+%01",
        "/audit?actor=%00&action=%00",
        "/find?q=%00",
        &long,
    ] {
        assert_eq!(browser.get(place).await.status, 200, "{place}");
    }
}
