//! Deployments from the command line.

use bellpull::cli::Exit;
use serde_json::{Value, json};

use super::bell::Bell;

async fn make(bell: &Bell) -> String {
    let (url, place) = bell.place();
    let key = std::fs::read_to_string(place.join("admin.key")).unwrap();
    // A second installation of the same provider is refused, and that is fine.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let http = reqwest::Client::new();
    let list = async |what: &str| -> Value {
        let request = http.get(format!("{url}/v1/{what}")).bearer_auth(key.trim());
        request.send().await.unwrap().json().await.unwrap()
    };
    let (agents, environments) = (list("agents").await, list("environments").await);
    let body = json!({"name": "morning report", "agent": agents["data"][0]["id"],
        "environment_id": environments["data"][0]["id"],
        "initial_events": [{"type": "user.message",
            "content": [{"type": "text", "text": "Report."}]}],
        "schedule": {"type": "cron", "expression": "0 9 * * 1-5", "timezone": "Europe/Berlin"}});
    let request = http.post(format!("{url}/v1/deployments")).bearer_auth(key.trim()).json(&body);
    let made: Value = request.send().await.unwrap().json().await.unwrap();
    made["id"].as_str().unwrap_or_else(|| panic!("{made}")).to_owned()
}

#[tokio::test]
async fn deployments_are_listed_shown_run_and_paused() {
    let bell = Bell::hang().await;
    let id = make(&bell).await;
    let list = bell.run(&["deployments"]).await.fine();
    let row = list.lines().nth(1).unwrap();
    assert!(row.starts_with(&id) && row.contains("0 9 * * 1-5 Europe/Berlin"), "{list}");
    let shown = bell.run(&["deployments", "show", &id]).await.fine();
    assert_eq!(shown.matches("\nnext ").count(), 5, "{shown}");
    assert!(shown.contains("user.message  Report."), "{shown}");
    let paused = bell.run(&["deployments", "pause", &id]).await.fine();
    assert_eq!(paused, format!("paused  {id}\n"));
    assert!(bell.run(&["deployments", "--status", "active"]).await.fine().lines().count() < 2);
    let session = bell.run(&["deployments", "run", &id]).await.fine();
    assert!(session.starts_with("sesn_"), "{session}");
    let active = bell.run(&["deployments", "unpause", &id]).await.fine();
    assert_eq!(active, format!("active  {id}\n"));
    let runs = bell.run(&["deployments", "runs", &id, "--trigger", "manual"]).await.fine();
    assert!(runs.contains(session.trim()), "{runs}");
    assert!(!bell.run(&["deployments", "runs", "--failed"]).await.fine().contains("drun_"));
    let missing = bell.run(&["deployments", "show", "depl_0"]).await;
    assert_eq!(missing.exit, Exit::Failed);
}
