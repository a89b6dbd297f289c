//! Deliveries replayed from the command line, and sent on to a server of the developer's.

use std::sync::{Arc, Mutex};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use bellpull::cli::Exit;

use super::bell::{Bell, TOKEN, Written, run_at};
use crate::support::process::until;

/// A source of its own, with the default agent.
async fn source(bell: &Bell) {
    let line = ["sources", "create", "code", "--preset", "bearer", "--secret", TOKEN];
    bell.run(&line).await.fine();
}

async fn send(bell: &Bell, data: &str) -> String {
    let line = ["send", "--source", "code", "--token", TOKEN, "--data", data, "--json"];
    bell.run(&line).await.json()["delivery_id"].as_str().expect("an id").to_owned()
}

#[tokio::test]
async fn what_was_held_is_released() {
    let bell = Bell::hang().await;
    source(&bell).await;
    bell.run(&["sources", "pause", "code"]).await.fine();
    let mut ids = Vec::new();
    for data in ["{\"type\":\"a\"}", "{\"type\":\"b\"}", "{\"type\":\"c\"}"] {
        ids.push(send(&bell, data).await);
    }
    let line = ["replay", "--source", "code", "--status", "held", "--since", "1h", "--dry-run"];
    let would = bell.run(&line).await;
    assert!(would.err.contains("3 would be replayed: 3 accepted"), "{}", would.err);
    let would = would.fine();
    let lines: Vec<&str> = would.lines().skip(1).collect();
    for (line, id) in lines.iter().zip(&ids) {
        assert!(line.starts_with(id) && line.contains("new_session"), "{would}");
    }
    let done = bell.run(&line[..line.len() - 1]).await;
    assert!(done.err.contains("3 replayed: 3 accepted"), "{}", done.err);
    assert_eq!(done.fine().matches("sesn_").count(), 3);
    let again = bell.run(&line[..line.len() - 1]).await;
    assert!(again.err.contains("all of them were replayed before"), "{}", again.err);

    let one = bell.run(&["replay", &ids[0], "--agent", "default", "--version", "1"]).await.fine();
    assert!(one.contains(&ids[0]) && one.contains("accepted"), "{one}");
    let shown = bell.run(&["deliveries", "show", &ids[0]]).await.fine();
    assert_eq!(shown.matches("replayed as").count(), 2, "{shown}");
    let replay = bell.run(&["replay", &ids[0], "--json"]).await.json();
    let replay = replay["data"][0]["delivery_id"].as_str().expect("an id").to_owned();
    let shown = bell.run(&["deliveries", "show", &replay]).await.fine();
    assert!(shown.contains("replay of") && shown.contains("made up for a replay"), "{shown}");
    let list = bell.run(&["deliveries", "--source", "code"]).await.fine();
    assert_eq!(list.matches("replayed").count(), 3, "{list}");

    bell.run(&["deliveries", "erase", &ids[1], "--yes"]).await.fine();
    let both = bell.run(&["replay", &ids[1], &ids[2]]).await;
    assert!(both.err.contains("1 replayed: 1 accepted, 1 failed"), "{}", both.err);
    assert!(both.out.contains("the payload of this delivery was erased"), "{}", both.out);
    assert_eq!(both.exit, Exit::Failed);
    let typo = bell.run(&["replay", &ids[2][..20]]).await.failed();
    assert!(typo.contains("could not replay the delivery"), "{typo}");
    let agent = bell.run(&["replay", &ids[2], "--agent", "nobody"]).await.failed();
    assert!(agent.contains("there is no agent `nobody`"), "{agent}");
    let source = bell.run(&["replay", "--source", "cod"]).await.failed();
    assert!(source.contains("did you mean `code`?"), "{source}");
}

/// What a developer's server was sent: headers and body of each request.
type Got = Arc<Mutex<Vec<(HeaderMap, Bytes)>>>;

/// One that fails at whatever says so.
async fn developer() -> (String, Got) {
    let got = Got::default();
    let hook = async |State(got): State<Got>, headers: HeaderMap, body: Bytes| {
        let fails = body.windows(4).any(|it| it == b"fail");
        got.lock().unwrap().push((headers, body));
        if fails { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::NO_CONTENT }
    };
    let router = Router::new().route("/hook", post(hook)).with_state(got.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (url, got)
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_are_sent_on_once_although_the_server_goes_away() {
    let bell = Bell::hang().await;
    source(&bell).await;
    let before = send(&bell, "{\"n\":0}").await;
    let key = bell.run(&["keys", "create", "reader", "--scope", "read", "--json"]).await.json();
    let key = key["key"].as_str().expect("shown once").to_owned();
    let (local, got) = developer().await;
    let (url, data_dir) = bell.place();
    let (out, err) = (Written::default(), Written::default());
    let listen = {
        let (out, err) = (out.clone(), err.clone());
        async move {
            let line = ["listen", "code", "--forward", &local, "--key", &key];
            run_at(&url, &data_dir, &line, "", &out, &err, |_| {}).await
        }
    };
    let n = async |wanted: usize| {
        let is_there = async || (got.lock().unwrap().len() == wanted).then_some(());
        until("it was sent on", is_there).await;
    };
    let story = async {
        until("it listens", async || err.text().contains("listening to").then_some(())).await;
        let first = send(&bell, "{\"n\": 1}").await;
        n(1).await;
        let lost = async || err.text().contains("the connection is lost").then_some(());
        let bell = Box::pin(bell.hang_again_after(until("it is noticed", lost))).await;
        send(&bell, "{\"n\":\"fail\"}").await;
        n(2).await;
        // A replay is a delivery too. Nothing was sent on a second time until it came.
        bell.run(&["replay", &before]).await.fine();
        n(3).await;
        until("all is told", async || (out.text().lines().count() == 3).then_some(())).await;
        first
    };
    let first = tokio::select! {
        exit = listen => panic!("it ended with {exit:?}"),
        first = story => first,
    };
    let got = got.lock().unwrap();
    let bodies: Vec<&[u8]> = got.iter().map(|(_, body)| &body[..]).collect();
    assert_eq!(bodies, [&b"{\"n\": 1}"[..], b"{\"n\":\"fail\"}", b"{\"n\":0}"]);
    let headers = &got[0].0;
    assert_eq!(headers["bellpull-delivery"], first.as_str());
    assert_eq!(headers["content-type"], "application/json");
    assert!(!headers.contains_key("authorization"), "{headers:?}");
    assert_eq!(err.text().matches("the header `authorization` carries a secret").count(), 1);
    let told = out.text();
    let lines: Vec<&str> = told.lines().collect();
    assert!(lines[0].contains("  204  ") && lines[0].contains(&first), "{told}");
    assert!(lines[1].contains("  500  ") && lines[2].contains("  204  "), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_before_is_sent_on_where_that_is_wanted() {
    let bell = Bell::hang().await;
    source(&bell).await;
    let (first, gone) = (send(&bell, "{\"n\":1}").await, send(&bell, "{\"n\":2}").await);
    bell.run(&["deliveries", "erase", &gone, "--yes"]).await.fine();
    // Nobody answers there: it is told, and the next one is sent.
    let port = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let local = format!("http://{}/", port.local_addr().unwrap());
    drop(port);
    let (out, err) = (Written::default(), Written::default());
    let line = ["listen", "code", "--forward", &local, "--print", "--since", "1h", "--json"];
    let listening = bell.write(&line, "", &out, &err, |_| {});
    let told = until("both are told", async || Some(out.lines()).filter(|it| it.len() == 2));
    let told = tokio::select! {
        exit = listening => panic!("it ended with {exit:?}: {}", err.text()),
        told = told => told,
    };
    assert_eq!(
        (&told[0]["delivery"]["id"], &told[0]["body"]),
        (&first.into(), &"{\"n\":1}".into())
    );
    assert!(told[0]["forwarded"]["error"].as_str().unwrap().contains("refused"), "{}", told[0]);
    assert_eq!(told[1]["forwarded"]["error"], "its payload is gone");
    let typo = bell.run(&["listen", "cod", "--print"]).await.failed();
    assert!(typo.contains("did you mean `code`?"), "{typo}");
}
