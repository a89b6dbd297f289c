//! Deliveries replayed: one by one and many, as recorded, to whomever the operator names.

use std::time::Duration;

use bellpull::store::Retention;
use serde_json::{Value, json};

use super::server::{BOX, Server};

/// A story on both databases.
macro_rules! stories {
    ($($story:ident, $on_postgres:ident;)*) => {$(
        #[tokio::test]
        async fn $story() {
            tell::$story(Server::new().await).await;
        }

        #[tokio::test]
        async fn $on_postgres() {
            tell::$story(Server::postgres().await).await;
        }
    )*};
}

stories! {
    a_replay_is_a_delivery_of_its_own, a_replay_is_a_delivery_of_its_own_on_postgres;
    what_was_kept_back_is_released, what_was_kept_back_is_released_on_postgres;
    a_replay_goes_to_whom_it_is_ordered, a_replay_goes_to_whom_it_is_ordered_on_postgres;
    large_ones_and_those_that_are_gone, large_ones_and_those_that_are_gone_on_postgres;
    many_are_replayed_in_their_order, many_are_replayed_in_their_order_on_postgres;
}

struct Ringer<'a>(&'a Server);

impl Ringer<'_> {
    async fn source(&self, fields: Value) -> Value {
        let mut source = json!({"name": "code"});
        source.as_object_mut().expect("an object").extend(fields.as_object().unwrap().clone());
        self.0.post("/v1/sources").json(source).ok().await
    }

    /// A delivery with an id of the sender's.
    async fn ring(&self, id: &str, body: impl ToString) -> Value {
        self.0.clock.advance(Duration::from_millis(5));
        let call = self.0.bare("POST", "/api/webhook/code").bearer(BOX);
        let call = call.header("webhook-id", id).header("x-event-type", "opened");
        call.body(body.to_string()).status(202).await
    }

    async fn replay(&self, answer: &Value, order: Value) -> Value {
        self.0.clock.advance(Duration::from_millis(5));
        self.0.post(&at(answer, "/replay")).json(order).ok().await
    }

    /// The error of a replay.
    async fn refused(&self, answer: &Value, order: Value, status: u16) -> String {
        let call = self.0.post(&at(answer, "/replay")).json(order);
        call.error(status, "invalid_request_error").await
    }

    async fn delivery(&self, answer: &Value) -> Value {
        self.0.get(&at(answer, "")).ok().await
    }

    /// The message that a delivery became.
    async fn message(&self, delivery: &Value) -> Value {
        let session = delivery["session_id"].as_str().expect("a session");
        let events = self.0.events(session).await;
        let of = |event: &&Value| event["origin"]["delivery_id"] == delivery["id"];
        events.iter().find(of).expect("its message").clone()
    }

    async fn audit(&self) -> Vec<Value> {
        let list = self.0.get("/v1/audit?limit=100").ok().await["data"].clone();
        let entries = list.as_array().expect("a list").clone();
        entries.into_iter().filter(|it| it["action"] == "delivery.replay").collect()
    }

    async fn agent(&self, name: &str) -> String {
        let body = json!({"name": name, "model": "rehearsal"});
        self.0.id(self.0.post("/v1/agents").json(body)).await
    }

    /// An agent that was there when the source was made.
    async fn archived(&self, name: &str) -> String {
        let id = self.agent(name).await;
        self.archive(&id).await;
        id
    }

    async fn archive(&self, id: &str) {
        self.0.post(&format!("/v1/agents/{id}/archive")).json(json!({})).ok().await;
    }
}

/// A path of a delivery, from its own object or from the answer of a webhook.
fn at(answer: &Value, below: &str) -> String {
    let id = answer["delivery_id"].as_str().or(answer["id"].as_str()).expect("an id");
    format!("/v1/deliveries/{id}{below}")
}

#[tokio::test]
async fn what_makes_no_sense_is_said() {
    let server = Server::new().await;
    Ringer(&server).source(json!({})).await;
    for (wrong, field) in [
        (json!({"status": "lost"}), "status"),
        (json!({"outcome": "lost"}), "outcome"),
        (json!({"limit": 1001}), "limit"),
        (json!({"page": "x"}), "page"),
        (json!({"since": "7d"}), "since"),
        (json!({"agent": "who"}), "agent"),
    ] {
        let call = server.post("/v1/sources/code/replay").json(wrong);
        let message = call.error(400, "invalid_request_error").await;
        assert!(message.starts_with(&format!("{field}: ")), "{message}");
    }
}

mod tell {
    use super::*;

    pub async fn a_replay_is_a_delivery_of_its_own(server: Server) {
        let it = Ringer(&server);
        it.source(json!({"target": {"key": "{{ body.n }}"}})).await;
        let first = it.ring("1", json!({"n": 7})).await;
        let one = it.replay(&first, json!({})).await;
        let two = it.replay(&first, json!({})).await;
        let of_replay = it.replay(&one, json!({})).await;
        for replay in [&one, &two, &of_replay] {
            assert_eq!(replay["replay_of"], first["delivery_id"], "the sender's own is named");
            assert_eq!(
                (&replay["status"], &replay["outcome"]),
                (&json!("accepted"), &json!("pending"))
            );
            assert_eq!(replay["session_id"], first["session_id"], "the key is the same");
            assert_eq!(replay["event_type"], "opened");
            assert_eq!(replay["identity"]["field"], "replay");
            assert_eq!(replay["secret"], Value::Null);
            let said = it.message(replay).await;
            assert_eq!(said["content"][0]["text"], "Webhook from code:\n{\"n\":7}");
            assert_eq!(said["origin"]["replay_of"], first["delivery_id"]);
            let (as_it_came, again) = (it.delivery(&first).await, it.delivery(replay).await);
            assert_eq!(as_it_came["headers"], again["headers"]);
            assert_ne!(as_it_came["trace_id"], again["trace_id"]);
            assert_eq!(as_it_came["replays"], 3);
            let body = server.get(&at(replay, "/body")).send().await.body;
            assert_eq!(body, r#"{"n":7}"#);
        }
        assert_ne!(one["id"], two["id"]);
        assert_ne!(one["identity"]["key"], two["identity"]["key"]);
        assert_eq!(it.message(&it.delivery(&first).await).await["origin"].get("replay_of"), None);

        // The sender knows nothing of it: its retry is a duplicate of the first one.
        let again = it.ring("1", json!({"n": 7})).await;
        assert_eq!(
            (&again["status"], &again["delivery_id"]),
            (&json!("duplicate"), &first["delivery_id"])
        );
        // And no id of the sender's is a replay's.
        let key = one["identity"]["key"].as_str().expect("a key");
        let meant = it.ring(key, json!({"n": 7})).await;
        assert_eq!(meant["status"], "accepted");

        let list = format!("/v1/deliveries?replay_of={}", first["delivery_id"].as_str().unwrap());
        let list = server.get(&list).ok().await;
        let ids: Vec<&Value> =
            list["data"].as_array().unwrap().iter().map(|it| &it["id"]).collect();
        assert_eq!(ids, [&of_replay["id"], &two["id"], &one["id"]]);

        // A changed source is tried on what senders sent.
        server.clock.advance(Duration::from_millis(5));
        let tried = server.post("/v1/sources/code/backtest").json(json!({})).ok().await;
        assert_eq!((&tried["deliveries"], &tried["duplicates"]), (&json!(2), &json!(0)));

        let audit = it.audit().await;
        assert_eq!(audit.len(), 3);
        assert_eq!(
            (&audit[2]["actor"], &audit[2]["target"]),
            (&json!("master key"), &first["delivery_id"])
        );
        assert_eq!(audit[0]["target"], one["id"]);
        assert_eq!(
            audit[2]["details"],
            json!({"delivery_id": one["id"], "source": "code", "agent_id": server.agent,
                "agent_version": 1})
        );
        let reader = json!({"name": "reader", "scopes": ["read"]});
        let reader = server.post("/v1/api_keys").json(reader).ok().await;
        let key = reader["key"].as_str().expect("shown once");
        for path in [at(&first, "/replay"), "/v1/sources/code/replay".to_owned()] {
            let call = server.bare("POST", &path).bearer(key).json(json!({}));
            call.error(403, "permission_error").await;
        }
        let nobody = "/v1/deliveries/dlv_00000000000000000000000000/replay";
        server.post(nobody).json(json!({})).error(404, "not_found_error").await;
    }

    pub async fn what_was_kept_back_is_released(server: Server) {
        let it = Ringer(&server);
        let reviewer = it.agent("reviewer").await;
        it.source(json!({"agent": "reviewer", "filter": "body.n > 10",
            "rules": [{"when": "body.n == 1", "verdict": "held", "reason": "one"},
                {"when": "body.n < 3", "message": "small: {{ body.n }}"}]}))
            .await;
        it.archive(&reviewer).await;
        let filtered = it.ring("1", json!({"n": 1})).await;
        let held = it.ring("2", json!({"n": 20})).await;
        let unclear = it.ring("3", json!({})).await;
        assert_eq!(
            [&filtered["status"], &held["status"], &unclear["status"]],
            ["filtered", "held", "held"]
        );
        // What cannot be routed is held again, with the reason of now.
        let still = it.replay(&held, json!({})).await;
        assert_eq!((&still["status"], &still["replay_of"]), (&json!("held"), &held["delivery_id"]));
        assert_eq!(still["reason"], "there is no agent `reviewer`");
        assert_eq!(it.delivery(&held).await["replays"], 0);

        let reviewer = it.agent("reviewer").await;
        server.post("/v1/sources/code/pause").json(json!({})).ok().await;
        assert_eq!(it.ring("4", json!({"n": 30})).await["status"], "held", "it is paused");
        let released = it.replay(&held, json!({})).await;
        assert_eq!(
            (&released["status"], &released["agent_id"]),
            (&json!("accepted"), &json!(reviewer))
        );
        assert_eq!(it.delivery(&held).await["replays"], 1);
        // Neither the filter nor a rule with a verdict keeps it back; rules that route count.
        let small = it.replay(&filtered, json!({})).await;
        assert_eq!(it.message(&small).await["content"][0]["text"], "small: 1");
        let reason = it.replay(&unclear, json!({})).await;
        assert!(reason["reason"].as_str().unwrap().starts_with("rules[1].when failed"), "{reason}");

        // A session at work does not keep a replay back either.
        it.source(json!({"when_busy": "skip", "target": released["session_id"], "rules": [],
            "filter": null}))
            .await;
        server.post("/v1/sources/code/resume").json(json!({})).ok().await;
        while server.work().await.session_id.to_string() != released["session_id"] {}
        let skipped = it.ring("5", json!({"n": 11})).await;
        assert_eq!(skipped["status"], "filtered", "the session is at work");
        assert_eq!(it.replay(&skipped, json!({})).await["status"], "accepted");
        // Nor does one that begins too many turns.
        it.source(json!({"when_busy": "queue", "turns_per_key_per_hour_max": 1})).await;
        let fast = it.ring("6", json!({"n": 12})).await;
        assert_eq!(fast["status"], "held");
        assert_eq!(it.replay(&fast, json!({})).await["status"], "accepted");
    }

    pub async fn a_replay_goes_to_whom_it_is_ordered(server: Server) {
        let it = Ringer(&server);
        it.source(json!({"target": {"key": "{{ body.n }}"}})).await;
        let first = it.ring("1", json!({"n": 7})).await;
        let other = it.agent("other").await;
        for name in [other.as_str(), "other"] {
            let replay = it.replay(&first, json!({"agent": name})).await;
            assert_eq!(
                (&replay["status"], &replay["agent_id"]),
                (&json!("accepted"), &json!(other))
            );
            assert_ne!(replay["session_id"], first["session_id"], "a session of its own");
        }
        let path = format!("/v1/agents/{}", server.agent);
        server.post(&path).json(json!({"version": 1, "system": "new"})).ok().await;
        let session = async |replay: &Value| {
            let id = replay["session_id"].as_str().expect("a session");
            server.get(&format!("/v1/sessions/{id}")).ok().await
        };
        for (version, system) in [(1, Value::Null), (2, json!("new"))] {
            let replay = it.replay(&first, json!({"version": version})).await;
            let session = session(&replay).await;
            assert_eq!(
                (&session["agent"]["version"], &session["agent"]["system"]),
                (&json!(version), &system)
            );
            assert_ne!(session["id"], first["session_id"]);
        }
        let audit = it.audit().await;
        let versions: Vec<&Value> =
            audit.iter().map(|it| &it["details"]["agent_version"]).collect();
        assert_eq!(versions, [2, 1, 1, 1]);
        assert_eq!(audit[2]["details"]["agent_id"], json!(other));

        let gone = it.archived("gone").await;
        for (order, expected) in [
            (json!({"agent": "nobody"}), "agent: there is no agent `nobody`".to_owned()),
            (json!({"agent": gone}), format!("agent: the agent `{gone}` is archived")),
            (
                json!({"agent": "other", "version": 2}),
                format!("version: there is no version 2 of {other}, which has version 1 only"),
            ),
            (
                json!({"version": 3}),
                format!(
                    "version: there is no version 3 of {}, which has versions 1 to 2",
                    server.agent
                ),
            ),
            (
                json!({"version": 0}),
                "version: must be a whole number from 1 to 4294967295".to_owned(),
            ),
            (json!({"to": "x"}), "to: is not a field of this request".to_owned()),
        ] {
            assert_eq!(it.refused(&first, order, 400).await, expected);
        }
        assert_eq!(it.audit().await.len(), 4, "what was refused was not done");
        // A source that has lost its agent is no hindrance when another one is named.
        let nobody = it.agent("nobody").await;
        it.source(json!({"agent": "nobody"})).await;
        it.archive(&nobody).await;
        let held = it.ring("2", json!({"n": 8})).await;
        assert_eq!(held["status"], "held");
        assert_eq!(it.replay(&held, json!({"agent": "other"})).await["agent_id"], json!(other));
        assert_eq!(it.replay(&held, json!({"version": 1})).await["status"], "held");
    }

    pub async fn large_ones_and_those_that_are_gone(server: Server) {
        let it = Ringer(&server);
        it.source(json!({"message_chars_max": 400_000})).await;
        let large = json!({"text": "x".repeat(300_000)}).to_string();
        let first = it.ring("1", &large).await;
        let replay = it.replay(&first, json!({})).await;
        let body = server.get(&at(&replay, "/body")).send().await.body;
        assert_eq!(body, large);
        let said = it.message(&replay).await;
        assert!(said["content"][0]["text"].as_str().unwrap().len() > 300_000);
        assert_eq!(said["origin"]["replay_of"], first["delivery_id"]);

        // The replays have the same bytes, and go with them.
        let kept = it.ring("2", json!({})).await;
        server.call("DELETE", &at(&first, "")).ok().await;
        let erased = it.delivery(&replay).await;
        assert!(erased["erased_at"].is_string(), "{erased}");
        server.get(&at(&replay, "/body")).error(404, "not_found_error").await;
        for gone in [&first, &replay] {
            let message = it.refused(gone, json!({}), 409).await;
            assert_eq!(message, "the payload of this delivery was erased");
        }
        // A replay that is erased leaves the first one as it is.
        let replay = it.replay(&kept, json!({})).await;
        server.call("DELETE", &at(&replay, "")).ok().await;
        assert_eq!(it.delivery(&kept).await["erased_at"], Value::Null);
        let done = it.replay(&kept, json!({})).await;

        // Past its days.
        it.source(json!({"filter": "false"})).await;
        let old = it.ring("3", json!({})).await;
        server.clock.advance(Duration::from_secs(8 * 24 * 3600));
        server.app.store.prune(&Retention::default()).await.expect("it prunes");
        let message = it.refused(&old, json!({}), 409).await;
        assert_eq!(message, "the payload of this delivery is past its days, and no longer kept");
        assert_eq!(it.delivery(&done).await["replay_of"], kept["delivery_id"]);

        server.call("DELETE", "/v1/sources/code").ok().await;
        let message = it.refused(&kept, json!({}), 409).await;
        assert_eq!(message, "the source of this delivery was removed");
    }

    pub async fn many_are_replayed_in_their_order(server: Server) {
        let it = Ringer(&server);
        let nobody = it.agent("nobody").await;
        let one_session = json!({"key": "all"});
        it.source(json!({"agent": "nobody", "filter": "body.n != 3", "target": one_session})).await;
        it.archive(&nobody).await;
        let mut sent = Vec::new();
        for n in 0..8 {
            sent.push(it.ring(&n.to_string(), json!({ "n": n })).await["delivery_id"].clone());
        }
        server.clock.advance(Duration::from_millis(5));
        let since = server.clock.now();
        let last = it.ring("8", json!({"n": 8})).await["delivery_id"].clone();
        server.clock.advance(Duration::from_millis(5));
        let gone = sent[5].as_str().unwrap();
        server.call("DELETE", &format!("/v1/deliveries/{gone}")).ok().await;
        let held: Vec<Value> = sent.iter().filter(|id| **id != sent[3]).cloned().collect();
        let replay = async |wanted: Value| {
            server.clock.advance(Duration::from_millis(5));
            server.post("/v1/sources/code/replay").json(wanted).ok().await
        };
        let column = |answer: &Value, name: &str| -> Vec<Value> {
            let data = answer["data"].as_array().expect("a list");
            data.iter().map(|it| it[name].clone()).collect()
        };

        let would = replay(json!({"status": "held", "dry_run": true})).await;
        assert_eq!(column(&would, "replay_of"), [&held[..], std::slice::from_ref(&last)].concat());
        assert!(column(&would, "delivery_id").iter().all(Value::is_null));
        assert_eq!(would["data"][0]["status"], "held");
        assert_eq!(would["data"][0]["reason"], "there is no agent `nobody`");
        let nobody = it.agent("nobody").await;
        let would = replay(json!({"status": "held", "dry_run": true})).await;
        assert_eq!(
            (&would["data"][0]["status"], &would["data"][0]["agent_id"]),
            (&json!("accepted"), &json!(nobody))
        );
        assert_eq!(server.get("/v1/sessions").ok().await["data"], json!([]), "nothing was done");
        assert_eq!(it.audit().await, Vec::<Value>::new());

        // In pieces, and never what it made itself.
        let first = replay(json!({"status": "held", "limit": 5, "until": since})).await;
        assert_eq!((&first["is_cut"], &first["stopped"]), (&json!(true), &Value::Null));
        assert_eq!(column(&first, "replay_of"), held[..5]);
        let errors = column(&first, "error");
        assert_eq!(errors.iter().filter(|it| it.is_null()).count(), 4);
        assert_eq!(errors[4], "the payload of this delivery was erased");
        let made = column(&first, "delivery_id");
        let page = &first["next_page"];
        let rest = replay(json!({"status": "held", "limit": 5, "page": page})).await;
        assert_eq!(column(&rest, "replay_of"), held[5..]);
        assert_eq!((&rest["is_cut"], &rest["next_page"]), (&json!(false), &Value::Null));
        let as_made = [made[..4].to_vec(), column(&rest, "delivery_id")].concat();
        let session = first["data"][0]["session_id"].as_str().expect("a session");
        let said = server.events(session).await;
        let said: Vec<_> = said.iter().map(|it| it["origin"]["delivery_id"].clone()).collect();
        assert_eq!(said, as_made, "in the order in which they came");
        assert_eq!(it.audit().await.len(), 6);

        // Made again, it does what is left; `again` does all, but for replays.
        let left = replay(json!({"status": "held"})).await;
        assert_eq!(column(&left, "replay_of"), [json!(gone), last.clone()]);
        assert_eq!(column(&replay(json!({"status": "held"})).await, "replay_of"), [json!(gone)]);
        let all = json!({"again": true, "dry_run": true});
        assert_eq!(column(&replay(all).await, "replay_of").len(), 9);
        let late = json!({"again": true, "dry_run": true, "since": since, "event_type": "opened"});
        assert_eq!(column(&replay(late).await, "replay_of"), [last]);
        let none = json!({"again": true, "event_type": "closed"});
        assert_eq!(replay(none).await["data"], json!([]));
        let none = json!({"again": true, "outcome": "failed"});
        assert_eq!(replay(none).await["data"], json!([]));

        let order =
            replay(json!({"status": "filtered", "agent": server.agent, "version": 1})).await;
        assert_eq!(
            (&order["data"][0]["status"], &order["data"][0]["agent_id"]),
            (&json!("accepted"), &json!(server.agent))
        );
        server.post("/v1/sources/none/replay").json(json!({})).error(404, "not_found_error").await;
    }
}
