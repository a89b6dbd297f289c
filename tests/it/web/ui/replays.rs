//! The button that replays a delivery, or releases one that was kept back.

use serde_json::{Value, json};

use super::browser::Browser;
use crate::web::server::{BOX, MASTER, Server};

#[tokio::test]
async fn many_are_not_replayed_by_a_time_that_nobody_can_read() {
    let server = Server::new().await;
    server.post("/v1/sources").json(json!({"name": "code"})).ok().await;
    server.bare("POST", "/api/webhook/code").bearer(BOX).body("{}").status(202).await;
    let browser = Browser::signed_in(&server, MASTER).await;
    for (since, told) in [
        ("yesterday", "Since: must be a time of RFC 3339"),
        ("2020-13-01T00:00", "Since: must be a time of RFC 3339"),
        ("2099-01-01T00:00", "would be replayed"),
    ] {
        let fields = [("source", "code"), ("since", since), ("dry_run", "1")];
        let page = browser.carry_out("/deliveries/replay", &fields).await;
        assert!(page.text.contains(told), "{since}: {}", page.text);
        assert!(told == "would be replayed" || !page.text.contains("would be replayed"));
    }
}

#[tokio::test]
async fn a_delivery_is_released_and_replayed_on_its_page() {
    let server = Server::new().await;
    server.post("/v1/sources").json(json!({"name": "code", "filter": "body.n > 1"})).ok().await;
    let ring = async |n: u32| {
        server.clock.advance(std::time::Duration::from_millis(5));
        let call = server.bare("POST", "/api/webhook/code").bearer(BOX);
        call.body(json!({ "n": n }).to_string()).status(202).await
    };
    let filtered = ring(1).await;
    let id = filtered["delivery_id"].as_str().expect("an id");
    server.clock.advance(std::time::Duration::from_millis(5));
    let browser = Browser::signed_in(&server, MASTER).await;
    let page = browser.get("/sources/code").await;
    assert!(page.text.contains(&format!("name=\"delivery\" value=\"{id}\"")), "{}", page.text);
    assert!(page.text.contains(">Release</button>") && !page.text.contains(">Replay</button>"));

    let path = "/sources/code/replay";
    assert_eq!(browser.post(path, &[("delivery", id)]).await.status, 403, "without the token");
    let page = browser.carry_out(path, &[("delivery", id)]).await;
    assert_eq!(page.status, 200);
    for part in ["It was replayed", "Replay of <a href=\"#dlv_", ">replayed<", ">Replay</button>"] {
        assert!(page.text.contains(part), "{part}: {}", page.text);
    }
    assert!(!page.text.contains(">Release</button>"), "{}", page.text);
    let list = server.get(&format!("/v1/deliveries?replay_of={id}")).ok().await;
    let replay = &list["data"][0];
    let audit = server.get("/v1/audit").ok().await["data"][0].clone();
    assert_eq!(
        (&audit["action"], &audit["actor"]),
        (&json!("delivery.replay"), &json!("master key"))
    );
    assert_eq!(audit["details"]["delivery_id"], replay["id"]);

    // The replay of one that had a session leads there, in the transcript it is marked.
    let first = ring(2).await;
    let session = first["session_id"].as_str().expect("a session");
    server.clock.advance(std::time::Duration::from_millis(5));
    let page =
        browser.carry_out(path, &[("delivery", first["delivery_id"].as_str().unwrap())]).await;
    assert!(page.text.contains(&format!("Replay of <a href=\"/sessions/{session}\">")));
    let list = server.get("/v1/deliveries?limit=1").ok().await;
    let session = list["data"][0]["session_id"].as_str().expect("a session").to_owned();
    let page = browser.get(&format!("/sessions/{session}")).await;
    let marked = format!("title=\"Replay of {}\"", first["delivery_id"].as_str().unwrap());
    assert!(page.text.contains(&marked), "{}", page.text);

    // What is gone cannot be replayed, and what is another source's is not here.
    server.call("DELETE", &format!("/v1/deliveries/{id}")).ok().await;
    let page = browser.carry_out(path, &[("delivery", id)]).await;
    assert!(page.text.contains("It was not replayed: the payload of this delivery was erased."));
    assert!(!page.text.contains(&format!("value=\"{id}\"")), "{}", page.text);
    let elsewhere = format!("{}/replay", browser.webhook());
    assert_eq!(browser.submit(&elsewhere, &[("delivery", id)]).await.status, 404);
    for nonsense in ["", "dlv_1", "x"] {
        assert_eq!(browser.submit(path, &[("delivery", nonsense)]).await.status, 404, "{nonsense}");
    }

    let reader = json!({"name": "reader", "scopes": ["read"]});
    let reader = server.post("/v1/api_keys").json(reader).ok().await;
    let reader = Browser::signed_in(&server, reader["key"].as_str().expect("shown once")).await;
    assert!(!reader.get("/sources/code").await.text.contains(">Replay</button>"));
    let id = first["delivery_id"].as_str().unwrap();
    assert_eq!(reader.submit(path, &[("delivery", id)]).await.status, 403);
}

#[tokio::test]
async fn an_agents_own_deliveries_are_replayed_in_its_panel() {
    let server = Server::new().await;
    let token = server.token().await;
    let path = format!("/v1/sources/{}", server.agent);
    server.post(&format!("{path}/pause")).json(json!({})).ok().await;
    let held = server.hook().bearer(token).body("{}").status(202).await;
    assert_eq!(held["status"], "held");
    let id = held["delivery_id"].as_str().expect("an id");
    let browser = Browser::signed_in(&server, MASTER).await;
    let page = browser.get(&browser.webhook()).await;
    assert!(page.text.contains(">Release</button>"), "{}", page.text);
    let csrf = browser.csrf().await;
    let fields = [("delivery", id), ("csrf", csrf.as_str())];
    let call = browser.form("POST", &format!("{}/replay", browser.webhook()), &fields);
    let part = call.header("hx-request", "true").open().await;
    assert_eq!(part.status(), 200);
    let list = server.get(&format!("/v1/deliveries?replay_of={id}")).ok().await;
    assert_eq!(
        (&list["data"][0]["status"], &list["data"][0]["reason"]),
        (&json!("accepted"), &Value::Null)
    );
}
