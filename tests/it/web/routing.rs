//! What a source decides about its deliveries: filters.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    client::Call,
    server::{BOX, Server},
};

/// A delivery to a source of the box key, with an event type of its own.
fn ring(server: &Server, source: &str, kind: &str, body: &Value) -> Call {
    // Ids are in the order of time.
    server.clock.advance(Duration::from_millis(5));
    let call = server.bare("POST", &format!("/api/webhook/{source}")).bearer(BOX);
    call.header("x-event-type", kind).body(body.to_string())
}

/// What was decided, with the reason.
async fn decided(server: &Server, answer: &Value) -> (String, Value) {
    let id = answer["delivery_id"].as_str().expect("an id");
    let delivery = server.get(&format!("/v1/deliveries/{id}")).ok().await;
    assert_eq!(delivery["status"], answer["status"]);
    (delivery["status"].as_str().expect("a text").to_owned(), delivery["reason"].clone())
}

#[tokio::test]
async fn a_filter_lets_through_what_it_wants() {
    filter(Server::new().await).await;
}

#[tokio::test]
async fn a_filter_lets_through_what_it_wants_on_postgres() {
    filter(Server::postgres().await).await;
}

async fn filter(server: Server) {
    let filter = r#"event_type == "pull_request" && body.action in ["opened", "synchronize"]"#;
    let source = json!({"name": "code", "filter": filter});
    let made = server.post("/v1/sources").json(source).ok().await;
    assert_eq!(made["filter"], filter);

    let wanted = ring(&server, "code", "pull_request", &json!({"action": "opened"}));
    let wanted = wanted.status(202).await;
    assert_eq!(wanted["status"], "accepted");
    let other = ring(&server, "code", "pull_request", &json!({"action": "closed"}));
    let other = other.header("webhook-id", "7").status(202).await;
    assert_eq!((&other["status"], &other["session_id"]), (&json!("filtered"), &Value::Null));
    assert_eq!(other["agent_id"], json!(server.agent));
    let reason = "the source's filter does not want it";
    assert_eq!(decided(&server, &other).await, ("filtered".to_owned(), json!(reason)));
    let again = ring(&server, "code", "pull_request", &json!({"action": "closed"}));
    let again = again.header("webhook-id", "7").status(202).await;
    assert_eq!(again["status"], "duplicate");

    // What cannot be asked is held, and runs nothing.
    let strange = ring(&server, "code", "pull_request", &json!({"kind": "x"})).status(202).await;
    let reason = "the filter failed: there is no field `action`; ask whether it is there with \
                  has(…) first";
    assert_eq!(decided(&server, &strange).await, ("held".to_owned(), json!(reason)));
    // The other side of the `&&` decides alone.
    let push = ring(&server, "code", "push", &json!({"kind": "x"})).status(202).await;
    assert_eq!(push["status"], "filtered");
    let sessions = server.get("/v1/sessions").ok().await;
    assert_eq!(sessions["data"].as_array().expect("a list").len(), 1);

    // A change takes effect with its answer; null takes the filter away.
    server.post("/v1/sources/code").json(json!({"filter": null})).ok().await;
    let any = ring(&server, "code", "push", &json!({})).status(202).await;
    assert_eq!(any["status"], "accepted");
}

#[tokio::test]
async fn a_filter_that_cannot_be_read_is_told_of_where_it_is_made() {
    let server = Server::new().await;
    let make =
        |filter: Value| server.post("/v1/sources").json(json!({"name": "code", "filter": filter}));
    let wrong = make(json!("boddy.x == 1")).error(400, "invalid_request_error").await;
    let expected = "filter: line 1, column 1: `boddy` is not known: did you mean `body`?";
    assert_eq!(wrong, expected);
    let wrong = make(json!("body.x ==")).error(400, "invalid_request_error").await;
    assert!(wrong.starts_with("filter: line 1, column "), "{wrong}");
    make(json!(7)).error(400, "invalid_request_error").await;
    server.get("/v1/sources/code").error(404, "not_found_error").await;
}

#[tokio::test]
async fn filters_and_keys_do_not_see_secrets() {
    let server = Server::new().await;
    let filter = "!('authorization' in headers) && headers['x-shown'] == 'yes'";
    let source = json!({"name": "s", "filter": filter,
        "target": {"key": "{{ headers['x-shown'] }} {{ headers.authorization is defined }}"}});
    server.post("/v1/sources").json(source).ok().await;
    let hook = ring(&server, "s", "x", &json!({})).header("x-shown", "yes").status(202).await;
    assert_eq!(hook["status"], "accepted");
    let source = json!({"name": "s", "filter": null,
        "target": {"key": "{{ headers.authorization }}"}});
    server.post("/v1/sources").json(source).ok().await;
    let hook = ring(&server, "s", "x", &json!({})).status(202).await;
    let (status, reason) = decided(&server, &hook).await;
    assert_eq!(status, "held");
    assert!(!reason.to_string().contains(BOX), "{reason}");
}
