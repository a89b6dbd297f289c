//! The binary as its operator meets it: start, stop, reload, refuse.

use std::{path::Path, time::Duration};

use serde_json::{Value, json};

use crate::support::process::{Process, command, run, until};

const KEY: &str = "box-key-0123456789abcdef";

/// A config file in the form of another product, as its documentation shows it.
fn lowkey(directory: &Path) -> String {
    let project = directory.join("billing");
    std::fs::create_dir_all(&project).unwrap();
    let config = json!({
        "apiKey": KEY,
        "theme": "dark",
        "webhooks": {
            "stripe": {"project": project, "target": "new_session"},
            "tickets": {"project": project, "agent": "lucy"},
            "locked": {"project": project, "secret": "and-a-second-secret"},
        },
    });
    let path = directory.join("config.json");
    std::fs::write(&path, config.to_string()).unwrap();
    path.to_str().unwrap().to_owned()
}

async fn ring(
    server: &Process,
    source: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> (u16, Value) {
    let mut request = server.http.post(format!("{}/api/webhook/{source}", server.url));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = request.body(body.to_owned()).send().await.unwrap();
    let status = response.status().as_u16();
    (status, serde_json::from_str(&response.text().await.unwrap()).unwrap())
}

#[tokio::test]
async fn a_lowkey_file_works_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let config = lowkey(directory.path());
    let server = Process::serve(&directory.path().join("data"), &["--config", &config]).await;
    let bearer = format!("Bearer {KEY}");
    let bearer = ("authorization", bearer.as_str());

    let (status, answer) = ring(&server, "stripe", &[bearer], r#"{"type":"payout.paid"}"#).await;
    assert_eq!((status, answer["status"].as_str()), (202, Some("accepted")));
    let session = answer["session_id"].as_str().unwrap().to_owned();
    until("the session is idle again", async || {
        let delivery =
            server.get(&format!("/v1/deliveries/{}", answer["delivery_id"].as_str()?)).await;
        (delivery["outcome"] == "succeeded").then_some(())
    })
    .await;
    let events = server.get(&format!("/v1/sessions/{session}/events")).await;
    let message = &events["data"][1];
    assert_eq!(message["content"][0]["text"], "Webhook from stripe:\n{\"type\":\"payout.paid\"}");
    assert_eq!(message["origin"]["event_type"], "payout.paid");

    // An agent that does not exist holds what comes in, and says why.
    let (status, answer) = ring(&server, "tickets", &[bearer], "{}").await;
    assert_eq!((status, answer["status"].as_str()), (202, Some("held")));
    let held =
        server.get(&format!("/v1/deliveries/{}", answer["delivery_id"].as_str().unwrap())).await;
    assert_eq!(held["reason"], "there is no agent `lucy`");

    // The second secret is enforced.
    assert_eq!(ring(&server, "locked", &[bearer], "{}").await.0, 401);
    let second = ("x-webhook-secret", "and-a-second-secret");
    assert_eq!(ring(&server, "locked", &[bearer, second], "{}").await.0, 202);
    assert_eq!(ring(&server, "stripe", &[("authorization", "Bearer wrong")], "{}").await.0, 401);
    assert_eq!(ring(&server, "unknown", &[bearer], "{}").await.0, 404);
    assert!(server.log().contains("theme"), "an ignored key is said once");
}

#[tokio::test]
async fn a_changed_file_is_taken_over_and_a_bad_one_refused_as_a_whole() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bellpull.toml");
    let source = |name: &str| {
        format!("[webhooks.{name}]\npreset = \"bearer\"\nsecret = \"0123456789abcdef\"\n")
    };
    let token = ("authorization", "Bearer 0123456789abcdef");
    std::fs::write(&path, source("first")).unwrap();
    let config = path.to_str().unwrap();
    let server = Process::serve(&directory.path().join("data"), &["--config", config]).await;
    assert_eq!(ring(&server, "first", &[token], "{}").await.0, 202);
    assert_eq!(ring(&server, "second", &[token], "{}").await.0, 401);

    // As an editor does it: a new file under the old name.
    let swap = |text: String| {
        let fresh = directory.path().join("fresh");
        std::fs::write(&fresh, text).unwrap();
        std::fs::rename(&fresh, &path).unwrap();
    };
    swap(source("first") + &source("second"));
    until("the second source is there", async || {
        (ring(&server, "second", &[token], "{}").await.0 == 202).then_some(())
    })
    .await;

    swap(source("third") + "[limits]\nbody_bytes_maxx = 1\n");
    until("the bad file is refused", async || {
        server.log().contains("body_bytes_maxx").then_some(())
    })
    .await;
    assert_eq!(ring(&server, "second", &[token], "{}").await.0, 202, "the old one stays");
    assert_eq!(ring(&server, "third", &[token], "{}").await.0, 401, "not even a part of it");

    // A source that left the file lets nobody in, keeps its deliveries, and comes back as itself.
    let before = server.get("/v1/sources/first").await["id"].clone();
    swap(source("second"));
    until("the first source is retired", async || {
        (ring(&server, "first", &[token], "{}").await.0 == 401).then_some(())
    })
    .await;
    swap(source("first") + &source("second"));
    server.signal("HUP");
    until("the first source is back", async || {
        (ring(&server, "first", &[token], "{}").await.0 == 202).then_some(())
    })
    .await;
    assert_eq!(server.get("/v1/sources/first").await["id"], before);
    let deliveries = server.get("/v1/deliveries?source=first").await;
    let deliveries = deliveries["data"].as_array().unwrap();
    assert!(deliveries.len() > 1 && deliveries.iter().all(|it| it["source_id"] == before));
}

#[tokio::test]
async fn a_data_directory_belongs_to_one_process() {
    let directory = tempfile::tempdir().unwrap();
    let server = Process::serve(directory.path(), &[]).await;
    let data = directory.path().to_str().unwrap();
    let (code, _, error) = run(&["serve", "--listen", "127.0.0.1:0", "--data-dir", data]);
    assert_eq!(code, 1);
    assert!(error.contains("another bellpull") && error.contains("hint:"), "{error}");
    assert!(server.terminate().await.success());
}

#[tokio::test]
async fn a_wrong_vault_key_is_refused_before_anything_is_sealed_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let server = Process::serve(directory.path(), &[]).await;
    server.post("/v1/secrets", json!({"name": "A", "value": "b"})).await;
    assert!(server.terminate().await.success());
    let other = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n";
    std::fs::write(directory.path().join("vault.key"), other).unwrap();
    let data = directory.path().to_str().unwrap();
    let (code, _, error) = run(&["serve", "--listen", "127.0.0.1:0", "--data-dir", data]);
    assert_eq!(code, 1);
    assert!(error.contains("vault key is not the one"), "{error}");
}

#[tokio::test]
async fn keys_are_for_their_owner_only_and_survive_a_restart() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let server = Process::serve(&data, &[]).await;
    for file in ["admin.key", "vault.key", "node.id"] {
        let mode = std::fs::metadata(data.join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    assert_eq!(std::fs::metadata(&data).unwrap().permissions().mode() & 0o777, 0o700);
    let made = server.post("/v1/api_keys", json!({"name": "ci", "scopes": ["read"]})).await;
    let key = made["key"].as_str().unwrap().to_owned();
    assert!(server.terminate().await.success());

    let server = Process::serve(&data, &[]).await;
    let request = server.http.get(format!("{}/v1/agents", server.url)).bearer_auth(&key);
    assert_eq!(request.send().await.unwrap().status(), 200, "API keys outlive a restart");
    let everything = std::fs::read(data.join("bellpull.db")).unwrap();
    let holds = |text: &str| everything.windows(text.len()).any(|it| it == text.as_bytes());
    assert!(!holds(&key) && !holds(&server.admin_key()), "keys are kept as hashes only");
}

#[tokio::test]
async fn healthz_answers_and_check_agrees() {
    let directory = tempfile::tempdir().unwrap();
    let server = Process::serve(directory.path(), &[]).await;
    let health = server.http.get(format!("{}/healthz", server.url)).send().await.unwrap();
    assert_eq!(health.status(), 200);
    assert!(server.terminate().await.success());
    let data = directory.path().to_str().unwrap();
    let (code, out, _) = run(&["check", "--listen", "127.0.0.1:0", "--data-dir", data]);
    assert_eq!(code, 0, "{out}");
    let (code, out, _) = run(&["check", "--json", "--listen", "nonsense", "--data-dir", data]);
    assert_eq!(code, 1);
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(report["ok"], false);
}

#[tokio::test]
async fn the_charts_of_the_last_day_go_on_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let (config, data) = (lowkey(directory.path()), directory.path().join("data"));
    let bearer = format!("Bearer {KEY}");
    for life in 1..=2 {
        let server = Process::serve(&data, &["--config", &config]).await;
        let (status, answer) = ring(&server, "stripe", &[("authorization", &bearer)], "{}").await;
        assert_eq!(status, 202);
        assert_eq!(
            ring(&server, "stripe", &[("authorization", "Bearer wrong")], "{}").await.0,
            401
        );
        let id = answer["delivery_id"].as_str().unwrap();
        until("the turn has ended", async || {
            let delivery = server.get(&format!("/v1/deliveries/{id}")).await;
            (delivery["outcome"] == "succeeded").then_some(())
        })
        .await;
        let wanted = [
            format!("Deliveries in the last 24 hours: {life} accepted, {life} refused;"),
            format!("Turns in the last 24 hours: {life} done;"),
        ];
        until("both are counted", async || {
            let page = server.page("/").await;
            wanted.iter().all(|it| page.contains(it)).then_some(())
        })
        .await;
        assert!(server.terminate().await.success());
    }
}

#[tokio::test]
async fn sigterm_hands_back_what_is_running_and_the_next_life_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bellpull.toml");
    let text = "[webhooks.s]\npreset = \"bearer\"\nsecret = \"0123456789abcdef\"\n[worker]\ndrain_seconds = 0\n";
    std::fs::write(&path, text).unwrap();
    let arguments = ["--config", path.to_str().unwrap()];
    let data = directory.path().join("data");
    let server = Process::serve(&data, &arguments).await;
    let token = ("authorization", "Bearer 0123456789abcdef");
    let mut accepted = 0;
    for _ in 0..40 {
        accepted += usize::from(ring(&server, "s", &[token], r#"{"type":"t"}"#).await.0 == 202);
    }
    assert!(server.terminate().await.success());
    let server = Process::serve(&data, &arguments).await;
    until("everything came to its end", async || {
        let done = server.get("/v1/deliveries?outcome=succeeded&limit=100").await;
        (done["data"].as_array()?.len() == accepted).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_ends_with_every_transcript_complete() {
    let demo = tokio::task::spawn_blocking(|| run(&["demo", "--once", "--listen", "127.0.0.1:0"]));
    let (code, out, error) =
        tokio::time::timeout(Duration::from_secs(60), demo).await.unwrap().unwrap();
    assert_eq!(code, 0, "{out}\n{error}");
    assert!(out.contains("duplicate") && out.matches("Rehearsal: no AI").count() == 3, "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn in_the_demo_of_work_a_failing_test_is_mended() {
    let words = ["demo", "--agent-work", "--once", "--listen", "127.0.0.1:0"];
    let demo = tokio::task::spawn_blocking(move || run(&words));
    let (code, out, error) =
        tokio::time::timeout(Duration::from_secs(60), demo).await.unwrap().unwrap();
    assert_eq!(code, 0, "{out}\n{error}");
    let at = |text: &str| out.find(text).unwrap_or_else(|| panic!("no `{text}` in {out}"));
    // The transcript tells the bytes of what a command said.
    let failed = "total.sh 2 3 5: expected 10, got -10\n[exit status 1]".len();
    let passed = "all tests passed".len();
    let said = |n_bytes: usize| format!("bash sh test.sh → {n_bytes} B");
    assert!(at(&said(failed)) < at(&said(passed)), "{out}");
    assert!(
        at("- for line in \"$@\"; do sum=$((sum - line))") < at("sum=$((sum + line))"),
        "{out}"
    );
}

#[tokio::test]
async fn only_the_newest_refusals_are_kept() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("bellpull.toml");
    let text = "[limits]\nrefusals_max = 2\n\
                [webhooks.shop]\npreset = \"bearer\"\nsecret = \"s3cret-of-the-shop\"\n";
    std::fs::write(&config, text).unwrap();
    let arguments = ["--config", config.to_str().unwrap()];
    let server = Process::serve(&directory.path().join("data"), &arguments).await;
    let kept_with = async |reason: &str| {
        until("the last one is written down", async || {
            let list = server.get("/v1/sources/shop/refusals").await["data"].as_array()?.clone();
            let has_last = list.iter().any(|it| it["reason"].to_string().contains(reason));
            has_last.then_some(list)
        })
        .await
    };
    for _ in 0..4 {
        let wrong = [("authorization", "Bearer wrong")];
        assert_eq!(ring(&server, "shop", &wrong, "{}").await.0, 401);
    }
    // Those of one millisecond have no order, so the newest one comes when they are written down.
    kept_with("differs").await;
    assert_eq!(ring(&server, "shop", &[], "{}").await.0, 401);
    assert_eq!(kept_with("no single").await.len(), 2);
}

#[tokio::test]
async fn an_erased_payload_leaves_no_file_behind() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("bellpull.toml");
    let token = "token-of-the-shop-0123456789";
    let text = format!("[webhooks.shop]\npreset = \"bearer\"\nsecret = \"{token}\"\n");
    std::fs::write(&config, text).unwrap();
    let (data, arguments) = (directory.path().join("data"), ["--config", config.to_str().unwrap()]);
    let server = Process::serve(&data, &arguments).await;
    let bearer = format!("Bearer {token}");
    let bearer = ("authorization", bearer.as_str());
    let mut files = Vec::new();
    for _ in 0..2 {
        let body = json!({"long": "x".repeat(5000)}).to_string();
        let (_, answer) = ring(&server, "shop", &[bearer], &body).await;
        let (session, delivery) = (&answer["session_id"], &answer["delivery_id"]);
        let (session, delivery) = (session.as_str().unwrap(), delivery.as_str().unwrap());
        let file = data.join(format!("workspaces/{session}/deliveries/{delivery}.json"));
        until("the payload lies in the workspace", async || file.exists().then_some(())).await;
        until("its turn has ended", async || {
            let delivery = server.get(&format!("/v1/deliveries/{delivery}")).await;
            (delivery["outcome"] == "succeeded").then_some(())
        })
        .await;
        files.push((file, delivery.to_owned()));
    }
    let path = format!("{}/v1/deliveries/{}", server.url, files[0].1);
    let erased = server.http.delete(path).bearer_auth(server.admin_key()).send().await.unwrap();
    assert_eq!(erased.status(), 200);
    // Once a minute, and at each start.
    assert!(server.terminate().await.success());
    let _server = Process::serve(&data, &arguments).await;
    until("the file is gone", async || (!files[0].0.exists()).then_some(())).await;
    assert!(files[1].0.exists(), "the other one is kept");
}

#[tokio::test]
async fn a_storm_of_alerts_is_a_handful_of_turns_whatever_happens_to_the_server() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("bellpull.toml");
    let text = r#"
        [webhooks.alerts]
        preset = "alertmanager"
        secret = "from-the-monitor"
        target = { key = "{{ body.groupKey }}" }
        debounce_seconds = 1
        debounce_seconds_max = 4
    "#;
    std::fs::write(&config, text).unwrap();
    let (data, config) = (directory.path().join("data"), config.to_str().unwrap().to_owned());
    let bearer = [("authorization", "Bearer from-the-monitor")];
    let mut deliveries = Vec::new();
    let mut server = Process::serve(&data, &["--config", &config]).await;
    for n in 0..500 {
        if n == 250 {
            server.kill();
            server = Process::serve(&data, &["--config", &config]).await;
        }
        let body = json!({"version": "4", "groupKey": "{}:{alertname=\"Disk\"}",
            "status": "firing", "alerts": [{"fingerprint": format!("f{n}"), "status": "firing",
            "startsAt": "2026-11-21T20:12:00Z"}]});
        let (status, answer) = ring(&server, "alerts", &bearer, &body.to_string()).await;
        assert_eq!((status, answer["status"].as_str()), (202, Some("accepted")));
        deliveries.push(answer);
    }
    let session = deliveries[0]["session_id"].as_str().unwrap();
    assert!(deliveries.iter().all(|answer| answer["session_id"] == session));
    until("the last alert is answered", async || {
        let path = format!("/v1/deliveries/{}", deliveries[499]["delivery_id"].as_str()?);
        (server.get(&path).await["outcome"] == "succeeded").then_some(())
    })
    .await;
    let events = server.get(&format!("/v1/sessions/{session}/events?limit=1000")).await;
    let events = events["data"].as_array().unwrap();
    let n = |kind: &str| events.iter().filter(|event| event["type"] == kind).count();
    assert_eq!(n("user.message"), 500);
    let turns = n("session.status_idle");
    assert!((1..=6).contains(&turns), "{turns} turns");
}

/// A child that is killed with the test.
struct Child(std::process::Child);

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn it_has_all_the_open_files_that_it_may_have() {
    let directory = tempfile::tempdir().unwrap();
    let script = "ulimit -Sn 256; exec \"$0\" serve --listen 127.0.0.1:0 --data-dir \"$1\"";
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", script]).arg(command().get_program()).arg(directory.path().join("data"));
    let log = directory.path().join("log");
    let server = Child(shell.stderr(std::fs::File::create(&log).unwrap()).spawn().unwrap());
    let said = until("it is there", async || {
        let said = std::fs::read_to_string(&log).unwrap();
        said.contains("bellpull is listening").then_some(said)
    })
    .await;
    assert!(said.contains("the limit of open files was raised"), "{said}");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", server.0.id())).unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let columns: Vec<&str> = files.split_whitespace().collect();
    assert_eq!(columns[3], columns[4], "{files}");
    assert_ne!(columns[3], "256", "{files}");
}
