//! The command line client against a whole server: its API, its worker, its built-in model.

mod bell;
mod deployments;
mod environments;
mod replays;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use bell::{Bell, TOKEN, Written, run_at};
use bellpull::cli::Exit;
use serde_json::Value;

use crate::support::process::until;

/// The text without its ids and times, in the order of their appearance.
fn plain(text: &str) -> String {
    let mut known: Vec<String> = Vec::new();
    let mut out = String::new();
    let mut rest = text;
    let is_word = |char: char| char.is_ascii_alphanumeric() || char == '_';
    while let Some(first) = rest.chars().next() {
        let end = rest.find(|char| !is_word(char)).unwrap_or(rest.len());
        let word = &rest[..end.max(first.len_utf8())];
        let (prefix, tail) = word.rsplit_once('_').unwrap_or(("", ""));
        if tail.len() == 26 && !prefix.is_empty() {
            let at = known.iter().position(|it| it == word).unwrap_or_else(|| {
                known.push(word.to_owned());
                known.len() - 1
            });
            out.push_str(&format!("{prefix}_{at}"));
        } else {
            out.push_str(word);
        }
        rest = &rest[word.len()..];
    }
    out
}

/// Every line that begins with a time of day begins with another word instead.
fn timeless(text: &str) -> String {
    let lines = text.lines().map(|line| match line.as_bytes() {
        [_, _, b':', _, _, b':', ..] if line.as_bytes()[0].is_ascii_digit() => {
            format!("TIME{}\n", &line[8..])
        }
        [b'2', b'0', _, _, b'-', ..] => "DAY\n".to_owned(),
        _ => format!("{line}\n"),
    });
    lines.collect()
}

#[tokio::test]
async fn from_an_empty_server_to_an_answer() {
    let bell = Bell::hang().await;
    let webhook_before = bell.run(&["agents", "create", "--name", "lucy", "--model", "rehearsal"]);
    assert!(webhook_before.await.fine().contains("lucy"));
    let webhook = bell.run(&["agents", "webhook", "lucy"]).await;
    assert!(webhook.err.contains("make a token first: bellpull secrets generate WEBHOOK_agent_"));
    let key = webhook.err.trim_end().rsplit(' ').next().unwrap().to_owned();
    let made = bell.run(&["secrets", "generate", &key]).await;
    assert!(!made.err.contains(made.out.trim()), "the value is on the output and nowhere else");
    let token = made.fine().trim().to_owned();

    let line = ["send", "--agent", "lucy", "--token", &token, "--id", "evt_7", "--follow"];
    let sent = bell.run_with(&line, "{\"type\": \"order.paid\", \"total\": 7}").await;
    let shown = timeless(&plain(&sent.fine()));
    // What is there when the following begins depends on who is faster.
    let shown: Vec<&str> = shown.lines().filter(|line| !line.contains(" waiting ")).collect();
    assert!(shown[0].starts_with("accepted  dlv_0  sesn_1"), "{shown:#?}");
    assert!(shown[1].contains("agent lucy v1, from its webhook"), "{shown:#?}");
    expect_test::expect![[r#"
        DAY
        TIME running
        TIME user     from lucy, order.paid, dlv_0
          {
            "type": "order.paid",
            "total": 7
          }
        TIME agent
          Rehearsal: no AI was involved. One event was read:

          **lucy · order.paid** (34 bytes of JSON)
          - type: order.paid
          - total: 7

          Give this agent a real model and it acts on this.
        TIME idle     end of turn"#]]
    .assert_eq(&shown[2..].join("\n"));

    // The sender repeats itself: the same delivery, nothing new.
    let again = bell.run_with(&line[..7], "{}").await.fine();
    assert!(again.starts_with("duplicate  dlv_"), "{again}");
    let list = bell.run(&["deliveries"]).await.fine();
    let row: Vec<&str> = list.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(list.lines().count(), 2, "{list}");
    assert!(list.contains("agent lucy") && list.contains("order.paid"), "{list}");
    assert!(list.contains("accepted  succeeded"), "two badges: {list}");

    let id = row[0];
    let body = bell.run(&["deliveries", "show", id, "--body"]).await.fine();
    assert_eq!(body, "{\"type\": \"order.paid\", \"total\": 7}", "byte for byte");
    let shown = bell.run(&["deliveries", "show", id]).await.fine();
    assert!(shown.contains("identity  evt_7") || shown.contains("evt_7"), "{shown}");
    assert!(shown.contains("authorization: [redacted]") && !shown.contains(&token), "{shown}");
    assert_eq!(bell.run(&["deliveries", "attempts", id]).await.fine().lines().count(), 3);
    let erased = bell.run(&["deliveries", "erase", id]).await;
    assert!(erased.fine().ends_with("  erased\n"));
    let gone = bell.run(&["deliveries", "show", id, "--body"]).await.failed();
    assert!(gone.contains("error: could not read the body"), "{gone}");
}

#[tokio::test]
async fn a_sender_hands_over_its_secret_while_the_source_is_open() {
    let bell = Bell::hang().await;
    bell.run(&["sources", "create", "notes", "--preset", "notion"]).await.fine();
    let nothing = bell.run(&["sources", "received", "notes"]).await.failed();
    assert!(nothing.contains("no secret came"), "{nothing}");
    let opened = bell.run(&["sources", "open", "notes", "--minutes", "5"]).await.fine();
    assert!(opened.contains("open until"), "{opened}");
    // An empty answer is Notion's; `send` is made for deliveries and has nothing to show of it.
    let token = r#"{"verification_token":"secret_abc"}"#;
    bell.run(&["send", "--source", "notes", "--data", token]).await;
    assert_eq!(bell.run(&["sources", "received", "notes"]).await.fine(), "secret_abc\n");
    bell.run(&["sources", "received", "notes"]).await.failed();
    let shown = bell.run(&["sources", "show", "notes"]).await.fine();
    assert!(shown.contains("last handshake") && !shown.contains("secret_abc"), "{shown}");
    assert!(!shown.contains("open until"), "{shown}");
    let not = bell.run(&["sources", "create", "code", "--preset", "github"]).await;
    not.fine();
    let not = bell.run(&["sources", "open", "code"]).await.failed();
    assert!(not.contains("hands over no secret"), "{not}");
}

#[tokio::test]
async fn a_source_from_creation_to_retirement() {
    let bell = Bell::hang().await;
    bell.agent("lucy").await;
    let line = [
        "sources",
        "create",
        "deploys",
        "--preset",
        "header",
        "--header",
        "X-Token",
        "--secret-stdin",
        "--agent",
        "lucy",
        "--session-key",
        "{{ body.id }}",
        "--identity",
        "X-Delivery",
    ];
    let made = bell.run_with(&line, "a-token-that-nobody-guesses\n").await.fine();
    let url = format!("{}/api/webhook/deploys", bell.url());
    assert!(made.contains(&format!("curl {url} -H \"X-Token: $SECRET\"")), "{made}");
    assert!(!made.contains(TOKEN));

    let line = ["sources", "create", "code", "--preset", "github", "--secret", TOKEN];
    let github = bell.run(&line).await.fine();
    assert!(github.contains("/api/webhook/code") && github.contains("Add webhook"), "{github}");
    assert!(!github.contains(TOKEN) && !github.contains("curl"), "{github}");
    assert!(bell.run(&["sources", "presets"]).await.fine().contains("github"));
    let list = bell.run(&["deliveries"]).await.fine();
    assert!(!list.contains("REPLAY"), "{list}");
    for _ in 0..2 {
        bell.run(&["sources", "test", "code", "--data", "{\"n\": 1}"]).await.fine();
    }
    let list = bell.run(&["deliveries", "--source", "code"]).await.fine();
    assert_eq!(
        (list.matches("REPLAY").count(), list.matches("possible").count()),
        (1, 1),
        "{list}"
    );
    bell.run(&["sources", "delete", "code"]).await.fine();

    let wrong = bell.run(&["send", "--source", "deploys", "--token", "x", "--data", "{}"]).await;
    let wrong = wrong.failed();
    assert!(wrong.contains("hint: `bellpull sources refusals deploys` says why"), "{wrong}");
    until("the refusal is written", async || {
        let refusals = bell.run(&["sources", "refusals", "deploys"]).await.fine();
        refusals.contains("no `X-Token` header").then_some(())
    })
    .await;

    let token = format!("X-Token: {TOKEN}");
    let send = async |data: &str| {
        let line = ["send", "--source", "deploys", "-H", &token, "-H", "X-Delivery: 1", "--data"];
        bell.run(&[&line[..], &[data]].concat()).await
    };
    assert!(send("{\"id\": 1}").await.fine().starts_with("accepted"));
    assert!(send("{\"id\": 1}").await.fine().starts_with("duplicate"));

    let paused = bell.run(&["sources", "pause", "deploys", "--json"]).await.json();
    assert_eq!(paused["paused"], true);
    let held =
        bell.run(&["send", "--source", "deploys", "-H", &token, "--data", "{\"id\": 2}"]).await;
    assert!(held.err.contains("says why"), "{held:?}");
    assert!(held.fine().starts_with("held"));
    let list = bell.run(&["deliveries", "--source", "deploys", "--status", "held"]).await.fine();
    assert_eq!(list.lines().count(), 2, "{list}");
    bell.run(&["sources", "resume", "deploys"]).await.fine();

    let typo = bell.run(&["deliveries", "--source", "deplyos"]).await.failed();
    assert!(typo.contains("hint: did you mean `deploys`?"), "{typo}");
    let typo = bell.run(&["sources", "show", "deplyos"]).await.failed();
    assert!(typo.contains("hint: did you mean `deploys`?"), "{typo}");

    assert!(bell.run(&["sources", "delete", "deploys"]).await.fine().ends_with("  retired\n"));
    assert!(send("{\"id\": 3}").await.failed().contains("these credentials do not pass"));
    assert_eq!(bell.run(&["sources", "--json"]).await.json()["data"], serde_json::json!([]));
}

#[tokio::test]
async fn a_conversation_that_a_person_has() {
    let bell = Bell::hang().await;
    bell.agent("lucy").await;
    let line = ["sessions", "create", "--agent", "lucy", "--title", "a talk", "--json"];
    let session = bell.run(&line).await.json();
    let id = session["id"].as_str().unwrap();
    assert_eq!((&session["title"], &session["status"]), (&"a talk".into(), &"idle".into()));

    // Nothing has happened and nothing waits: that is idle.
    let nothing = bell.run(&["tail", id, "--until-idle"]).await.fine();
    assert_eq!(nothing.lines().count(), 1, "{nothing}");

    let told = bell.run(&["send", "--session", id, "first", "--follow"]).await.fine();
    assert!(told.contains("  > first") && told.contains("end of turn"), "{told}");
    let told = bell.run_with(&["send", "--session", id, "--follow"], "second\n").await.fine();
    assert!(told.contains("  > first") && told.contains("  > second"), "{told}");

    // As JSON it is the log of the API, each event once.
    let events = Written::default();
    let line = ["tail", id, "--once", "--json"];
    let exit = bell.write(&line, "", &events, &Written::default(), |_| {}).await;
    assert_eq!(exit, Exit::Fine);
    let ids = |events: &[Value]| events.iter().map(|it| it["id"].clone()).collect::<Vec<_>>();
    let log = history(&bell, id).await;
    assert_eq!(ids(&events.lines()), ids(&log));
    assert!(log.len() >= 6);

    let list = bell.run(&["sessions", "--agent", "lucy", "--status", "idle"]).await.fine();
    assert!(list.contains(id) && list.contains("a talk"), "{list}");
    assert_eq!(bell.run(&["sessions", "--status", "terminated"]).await.fine(), "");
    let shown = bell.run(&["sessions", "show", id]).await.fine();
    assert!(shown.contains("lucy v1") && shown.contains("rehearsal"), "{shown}");
    let typo = bell.run(&["tail", &id[..12]]).await.failed();
    assert!(typo.contains(&format!("did you mean `{id}`?")), "{typo}");
}

/// The log as the API has it.
async fn history(bell: &Bell, session: &str) -> Vec<Value> {
    let (_, data_dir) = bell.place();
    let key = std::fs::read_to_string(data_dir.join("admin.key")).unwrap();
    let url = format!("{}/v1/sessions/{session}/events", bell.url());
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = http.get(url).bearer_auth(key.trim()).send().await.unwrap();
    let list: Value = answer.json().await.unwrap();
    list["data"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn following_survives_a_restart_of_the_server() {
    let bell = Bell::hang().await;
    bell.agent("lucy").await;
    let line = ["sessions", "create", "--agent", "lucy", "--message", "one", "--json"];
    let session = bell.run(&line).await.json();
    let id = session["id"].as_str().unwrap().to_owned();

    let (url, data_dir) = bell.place();
    let (out, err) = (Written::default(), Written::default());
    let is_done = Arc::new(AtomicBool::new(false));
    let follow = {
        let (id, out, err) = (id.clone(), out.clone(), err.clone());
        async move {
            let line = ["tail", &id, "--json"];
            run_at(&url, &data_dir, &line, "", &out, &err, |_| {}).await
        }
    };
    let story = {
        let is_done = is_done.clone();
        async move {
            let n_idle = |out: &Written| {
                let lines = out.lines();
                lines.iter().filter(|it| it["type"] == "session.status_idle").count()
            };
            until("the first turn is told", async || (n_idle(&out) == 1).then_some(())).await;
            let bell = bell.hang_again().await;
            bell.run(&["send", "--session", &id, "two"]).await.fine();
            until("the second turn is told", async || (n_idle(&out) == 2).then_some(())).await;
            assert!(err.text().contains("the connection is lost"), "{}", err.text());
            is_done.store(true, Ordering::SeqCst);
            let log = history(&bell, &id).await;
            // A message that waits is told once more, before it is taken.
            let told = out.lines().into_iter().filter(|it| it["processed_at"].is_string());
            let ids = |events: Vec<Value>| events.into_iter().map(|it| it["id"].clone());
            assert_eq!(ids(told.collect()).collect::<Vec<_>>(), ids(log).collect::<Vec<_>>());
        }
    };
    tokio::select! {
        exit = follow => assert!(is_done.load(Ordering::SeqCst), "it ended with {exit:?}"),
        () = story => {}
    }
}

#[tokio::test]
async fn what_is_new_is_shown_as_it_comes() {
    let bell = Bell::hang().await;
    let agent = bell.agent("lucy").await;
    let (out, err) = (Written::default(), Written::default());
    let watching = bell.write(&["tail"], "", &out, &err, |_| {});
    let story = async {
        // What was there before is not news, so it has to look once before anything comes.
        let first = ["send", "--agent", &agent, "--token", TOKEN, "--data", "{\"type\":\"a\"}"];
        bell.run(&first).await.fine();
        until("the first delivery is shown", async || out.text().contains(" a ").then_some(()))
            .await;
        let second = ["send", "--agent", &agent, "--token", TOKEN, "--data", "{\"type\":\"b\"}"];
        bell.run(&second).await.fine();
        bell.run(&["sessions", "create", "--agent", "lucy", "--title", "by hand"]).await.fine();
        until("everything is shown", async || {
            let text = out.text();
            let done = |line: &str, what: &str| {
                line.contains("succeeded") && line.contains(what) && line.contains("agent lucy")
            };
            (text.lines().any(|line| done(line, " b "))
                && text.lines().any(|line| line.contains("by hand")))
            .then_some(())
        })
        .await;
    };
    tokio::select! {
        exit = watching => panic!("it ended with {exit:?}: {}", err.text()),
        () = story => {}
    }
}

#[tokio::test]
async fn keys_open_what_they_are_for() {
    let bell = Bell::hang().await;
    bell.agent("lucy").await;
    bell.run(&["sources", "create", "deploys", "--agent", "lucy"]).await.fine();
    let make = async |name: &str, scope: &str| {
        let made = bell.run(&["keys", "create", name, "--scope", scope]).await;
        made.fine().trim().to_owned()
    };
    let (read, ingest) = (make("eyes", "read").await, make("ci", "ingest:deploys").await);

    bell.run(&["agents", "--key", &read]).await.fine();
    let refused = bell.run(&["agents", "pause", "lucy", "--key", &read]).await.failed();
    assert!(
        refused.contains("may only read") && refused.contains("came from `--key`"),
        "{refused}"
    );

    let sent = bell.run(&["send", "--source", "deploys", "--key", &ingest, "--data", "{}"]).await;
    assert!(sent.fine().starts_with("accepted"));
    // The key in the data directory is the master key, which passes no webhook: it is not sent.
    let sent = bell.run(&["send", "--source", "deploys", "--data", "{}"]).await;
    assert!(sent.failed().contains("these credentials do not pass"));

    let list = bell.run(&["keys"]).await.fine();
    assert!(list.contains("ingest:deploys") && !list.contains(&ingest), "{list}");
    bell.run(&["keys", "revoke", "eyes"]).await.fine();
    let refused = bell.run(&["agents", "--key", &read]).await.failed();
    assert!(refused.contains("hint: the key came from `--key`"), "{refused}");
    let nobody = bell.run(&["agents", "--data-dir", "nowhere"]).await.failed();
    assert!(nobody.contains("hint: no key was sent: there is no `--key`"), "{nobody}");
    assert!(nobody.contains("`nowhere/admin.key` does not exist"), "{nobody}");
}

#[tokio::test]
async fn an_agent_is_changed_paused_and_archived() {
    let bell = Bell::hang().await;
    let id = bell.agent("lucy").await;
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let prompt = file("lucy.md", "Be\nbrief.");
    bell.run(&["agents", "update", "lucy", "--system-file", &prompt]).await.fine();
    let more = file("lucy.json", r#"{"description": "from the file", "name": "not this"}"#);
    let line = ["agents", "update", "lucy", "--from", &more, "--name", "lucy", "--json"];
    let changed = bell.run(&line).await.json();
    assert_eq!(changed["version"], 3);
    assert_eq!(
        (&changed["system"], &changed["description"]),
        (&"Be\nbrief.".into(), &"from the file".into())
    );
    let versions = bell.run(&["agents", "versions", "lucy"]).await.fine();
    assert_eq!(versions.lines().count(), 4, "{versions}");
    let old = bell.run(&["agents", "show", "lucy", "--version", "1", "--json"]).await.json();
    assert_eq!(old["system"], Value::Null);
    let late = bell.run(&["agents", "update", "lucy", "--model", "rehearsal", "--version", "1"]);
    assert!(late.await.failed().contains("error: could not change the agent `lucy`"));
    let nothing = bell.run(&["agents", "update", "lucy"]).await;
    assert_eq!(
        (nothing.exit, nothing.err.as_str()),
        (Exit::WrongUse, "error: there is nothing to change\n")
    );

    let line = ["agents", "limit", "lucy", "--turns-at-once", "2", "--turns-per-minute", "30"];
    assert!(bell.run(&line).await.fine().contains("2 at once, 30 per minute"));
    let line = ["agents", "limit", "lucy", "--turns-at-once", "0"];
    assert!(!bell.run(&line).await.fine().contains("at once"));
    assert_eq!(bell.run(&["agents", "limit", "lucy"]).await.exit, Exit::WrongUse);

    bell.run(&["agents", "pause", "lucy"]).await.fine();
    let line = ["send", "--agent", &id, "--token", TOKEN, "--data", "{}", "--json"];
    let sent = bell.run(&line).await.json();
    let session = sent["session_id"].as_str().unwrap();
    let waiting = bell.run(&["sessions", "show", session, "--json"]).await.json();
    assert_eq!(waiting["messages_waiting"], 1, "taken, and waiting");
    bell.run(&["agents", "resume", "lucy"]).await.fine();
    bell.run(&["tail", session, "--until-idle"]).await.fine();

    let other = ["agents", "update", "lucy", "--webhook-secret", "OTHER", "--json"];
    assert_eq!(bell.run(&other).await.json()["webhook"]["secret_key"], "OTHER");
    let back = ["agents", "update", "lucy", "--webhook-secret", "default", "--json"];
    let key = format!("WEBHOOK_{id}_SECRET");
    assert_eq!(bell.run(&back).await.json()["webhook"]["secret_key"], key.as_str());

    assert!(bell.run(&["agents", "archive", "lucy"]).await.fine().contains("archived"));
    assert!(!bell.run(&["agents"]).await.fine().contains("lucy"));
    assert!(bell.run(&["agents", "--archived"]).await.fine().contains("lucy"));
}

#[tokio::test]
async fn a_payload_cannot_write_on_the_terminal() {
    let bell = Bell::hang().await;
    let id = bell.agent("lucy").await;
    let evil = "{\"type\": \"\\u001b]0;owned\\u0007\", \"b\": \"\u{9b}2J\u{202e}\u{7f}\"}";
    let line = ["send", "--agent", &id, "--token", TOKEN, "--data", evil, "--follow"];
    let followed = bell.run(&line).await;
    let list = bell.run(&["deliveries"]).await;
    let json = bell.run(&["deliveries", "--json"]).await;
    for text in [followed.fine(), list.fine(), json.fine()] {
        let bad = text.chars().find(|char| {
            (char.is_control() && *char != '\n') || bellpull::domain::text::is_deceptive(*char)
        });
        assert_eq!(bad, None, "{text:?}");
    }
}

#[tokio::test]
async fn a_source_is_tried_out_and_a_kept_request_is_explained() {
    let bell = Bell::hang().await;
    let make = ["sources", "create", "code", "--preset", "github", "--secret", TOKEN];
    bell.run(&make).await.fine();
    let tested = bell.run(&["sources", "test", "code"]).await;
    assert!(tested.err.contains("> x-hub-signature-256: sha256=[signature]"), "{}", tested.err);
    assert!(!tested.err.contains(TOKEN));
    assert!(tested.fine().starts_with("accepted  dlv_"));
    let line =
        ["send", "--source", "code", "--sign", "--data", "{\"action\":\"closed\"}", "--json"];
    let sent = bell.run(&line).await.json();
    assert_eq!(
        (&sent["status"], &sent["sent"]["body"]),
        (&202.into(), &"{\"action\":\"closed\"}".into())
    );

    let directory = tempfile::tempdir().unwrap();
    let (head, body) = (directory.path().join("head"), directory.path().join("body"));
    // A signature for this body without the line break, made with openssl.
    let signature = "2922b83aaa0b861d8f9cf6ccc51b570f1b7c9d31fa5d46ae6e1eea64e520384e";
    std::fs::write(
        &head,
        format!("> POST /api/webhook/code HTTP/1.1\n> X-Hub-Signature-256: sha256={signature}\n"),
    )
    .unwrap();
    std::fs::write(&body, "{\"action\":\"closed\"}\n").unwrap();
    let (head, body) = (head.display().to_string(), body.display().to_string());
    let line = ["sources", "verify", "code", "--headers", &head, "--body", &body];
    let explained = bell.run(&line).await;
    assert_eq!(explained.exit, Exit::Failed);
    assert!(explained.out.contains("It would be refused: signature mismatch"), "{}", explained.out);
    let hint = "hint: the body has a line break at its end that was not signed";
    assert!(explained.out.contains(hint), "{}", explained.out);
    std::fs::write(&body, "{\"action\":\"closed\"}").unwrap();
    let explained = bell.run(&line).await.fine();
    assert!(
        explained.contains("yes  secret     SOURCE_code_SECRET version 1 matches"),
        "{explained}"
    );
    assert!(explained.contains("It would be let in.") && !explained.contains(TOKEN), "{explained}");
}
