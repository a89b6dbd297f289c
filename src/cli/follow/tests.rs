use std::sync::atomic::{AtomicUsize, Ordering};

use expect_test::{Expect, expect};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::cli::{
    connection::{Connection, KeyFrom},
    tests::server::{Answer, Request, Server},
};

/// No wait in a test is longer.
const BOUND: Duration = Duration::from_secs(20);

fn client(server: &Server) -> Client {
    let base = server.url().parse().unwrap();
    Client::new(Connection { base, key: None, key_from: KeyFrom::Flag }).unwrap()
}

fn options() -> Options {
    let backoff = Backoff {
        first: Duration::from_millis(1),
        max: Duration::from_millis(4),
        ..Backoff::new(None)
    };
    Options {
        backoff,
        tick: Duration::from_millis(20),
        silence_max: Duration::from_secs(60),
        deltas: false,
    }
}

async fn next(follow: &mut Follow<'_>) -> Result<Update> {
    tokio::time::timeout(BOUND, follow.next()).await.expect("there is an update in time")
}

fn event(n: usize) -> Value {
    json!({"id": format!("sevt_{n}"), "type": "agent.thinking", "processed_at": "2026-11-21T00:00:00Z"})
}

fn frame(n: usize) -> String {
    format!("event: agent.thinking\nid: {n}\ndata: {}\n\n", event(n))
}

fn page(events: &[usize], next: Option<&str>) -> Answer {
    let data: Vec<Value> = events.iter().map(|n| event(*n)).collect();
    Answer::json(&json!({"data": data, "next_page": next}))
}

fn is_stream(request: &Request) -> bool {
    request.path() == "/v1/sessions/sesn_1/events/stream"
}

/// Updates up to the event `last`, the end or a failure, one per line.
async fn story(follow: &mut Follow<'_>, last: usize) -> String {
    let mut story = String::new();
    loop {
        let (line, is_last) = match next(follow).await {
            Ok(Update::Quiet) => continue,
            Ok(Update::Event(event)) => {
                (str(&event["id"]).to_owned(), event["id"] == format!("sevt_{last}"))
            }
            Ok(Update::Ended) => ("ended".to_owned(), true),
            Ok(update) => (format!("{update:?}"), false),
            Err(failure) => (format!("failed: {failure}"), true),
        };
        story.push_str(&line);
        story.push('\n');
        if is_last {
            return story;
        }
    }
}

async fn check(
    answer: impl Fn(&Request, usize) -> Answer + Send + Sync + 'static,
    last: usize,
    expected: &Expect,
) -> Vec<Request> {
    let n_streams = AtomicUsize::new(0);
    let server = Server::start(move |request| {
        let n = if is_stream(request) { n_streams.fetch_add(1, Ordering::SeqCst) } else { 0 };
        answer(request, n)
    });
    let client = client(&server);
    let mut follow = Follow::new(&client, "sesn_1", options());
    expected.assert_eq(&story(&mut follow, last).await);
    server.requests()
}

#[tokio::test]
async fn the_history_comes_first_and_nothing_twice() {
    let answer = |request: &Request, _| match request.query("page") {
        _ if is_stream(request) => Answer::open_stream(&[frame(2), frame(3), frame(4)].concat()),
        None => page(&[1, 2], Some("p2")),
        Some(_) => page(&[3], None),
    };
    check(
        answer,
        4,
        &expect![[r#"
        sevt_1
        sevt_2
        sevt_3
        CaughtUp
        sevt_4
    "#]],
    )
    .await;
}

#[tokio::test]
async fn a_lost_stream_goes_on_behind_the_last_id() {
    let answer = |request: &Request, n| match n {
        _ if !is_stream(request) => page(&[1], None),
        0 => Answer::stream(&format!("{}event: x\nid: 3\ndata: {{\"half", frame(2))),
        1 => Answer::error(503, "overloaded_error", "not now"),
        2 => Answer::Close,
        _ => Answer::open_stream(&[frame(2), frame(3)].concat()),
    };
    let requests = check(
        answer,
        3,
        &expect![[r#"
        sevt_1
        CaughtUp
        sevt_2
        Lost("the stream ended")
        sevt_3
    "#]],
    )
    .await;
    let streams: Vec<_> = requests.iter().filter(|request| is_stream(request)).collect();
    assert_eq!(streams[0].header("last-event-id"), None);
    for again in &streams[1..] {
        assert_eq!(again.header("last-event-id"), Some("2"));
    }
    assert_eq!(requests.len() - streams.len(), 1, "the history was read once");
}

#[tokio::test]
async fn without_an_id_the_end_of_the_history_is_read_again() {
    let answer = |request: &Request, n| match (request.query("page"), n) {
        (_, 0) if is_stream(request) => Answer::stream(": hello\n\n"),
        _ if is_stream(request) => Answer::open_stream(""),
        (None, _) => page(&[1, 2], Some("p2")),
        (Some(_), _) => page(&[3, 4], None),
    };
    // The second reading begins at the second page.
    let server = {
        let n_streams = AtomicUsize::new(0);
        Server::start(move |request| {
            let n = if is_stream(request) { n_streams.fetch_add(1, Ordering::SeqCst) } else { 0 };
            answer(request, n)
        })
    };
    let client = client(&server);
    let mut follow = Follow::new(&client, "sesn_1", options());
    let mut n_caught_up = 0;
    let mut told = Vec::new();
    while n_caught_up < 2 {
        match next(&mut follow).await.unwrap() {
            Update::CaughtUp => n_caught_up += 1,
            Update::Event(event) => told.push(str(&event["id"]).to_owned()),
            _ => {}
        }
    }
    assert_eq!(told, ["sevt_1", "sevt_2", "sevt_3", "sevt_4"]);
    let pages: Vec<_> = server
        .requests()
        .iter()
        .filter(|request| !is_stream(request))
        .map(|request| request.query("page").map(str::to_owned))
        .collect();
    assert_eq!(pages, [None, Some("p2".to_owned()), Some("p2".to_owned())]);
}

#[tokio::test]
async fn what_will_not_pass_ends_it() {
    let refuse = |_: &Request, _| Answer::error(401, "authentication_error", "who are you?");
    check(
        refuse,
        1,
        &expect![[r#"
        failed: who are you?
    "#]],
    )
    .await;
    let close = |_: &Request, _| Answer::error(503, "overloaded_error", "not now");
    check(
        close,
        1,
        &expect![[r#"
        failed: not now
    "#]],
    )
    .await;
    let later = |request: &Request, n| match n {
        _ if !is_stream(request) => page(&[1], None),
        0 => Answer::stream(&frame(2)),
        _ => Answer::error(404, "not_found_error", "deleted meanwhile"),
    };
    check(
        later,
        9,
        &expect![[r#"
        sevt_1
        CaughtUp
        sevt_2
        Lost("the stream ended")
        failed: deleted meanwhile
    "#]],
    )
    .await;
    let told = |request: &Request, _| match () {
        () if !is_stream(request) => page(&[], None),
        () => Answer::open_stream(
            "event: error\ndata: {\"error\":{\"type\":\"not_found_error\",\"message\":\"gone\"}}\n\n",
        ),
    };
    check(
        told,
        9,
        &expect![[r#"
        CaughtUp
        failed: gone
    "#]],
    )
    .await;
    let page_of_something = |_: &Request, _| Answer::new(200, "text/html", "<html>");
    check(
        page_of_something,
        9,
        &expect![[r#"
        failed: the server answered with something else
    "#]],
    )
    .await;
}

#[tokio::test]
async fn a_deleted_session_ends_it() {
    let answer = |request: &Request, _| match () {
        () if !is_stream(request) => page(&[1], None),
        () => Answer::stream(
            "event: session.deleted\ndata: {\"type\":\"session.deleted\",\"id\":\"sevt_9\"}\n\n",
        ),
    };
    check(
        answer,
        99,
        &expect![[r#"
        sevt_1
        CaughtUp
        sevt_9
        ended
    "#]],
    )
    .await;
}

#[tokio::test]
async fn silence_counts_as_loss_and_loss_has_an_end() {
    let server = Server::start(|request| match () {
        () if !is_stream(request) => page(&[], None),
        () => Answer::open_stream(": hello\n\n"),
    });
    let client = client(&server);
    let mut options = options();
    options.silence_max = Duration::from_millis(40);
    let mut follow = Follow::new(&client, "sesn_1", options);
    assert_eq!(next(&mut follow).await.unwrap(), Update::CaughtUp);
    loop {
        match next(&mut follow).await.unwrap() {
            Update::Quiet => {}
            Update::Lost(why) => break assert_eq!(why, "nothing was heard for 0 s"),
            other => panic!("{other:?}"),
        }
    }

    let n_streams = AtomicUsize::new(0);
    let server = Server::start(move |request| match () {
        () if !is_stream(request) => page(&[], None),
        () if n_streams.fetch_add(1, Ordering::SeqCst) == 0 => Answer::stream(&frame(1)),
        () => Answer::Close,
    });
    let client = self::client(&server);
    let mut options = self::options();
    options.backoff.give_up = Some(Duration::from_millis(10));
    let mut follow = Follow::new(&client, "sesn_1", options);
    let story = story(&mut follow, 9).await;
    assert!(story.contains("failed: ") && story.contains("broke off"), "{story}");
}

#[tokio::test]
async fn a_message_that_waits_is_told_again_when_it_is_taken() {
    let waiting = json!({"id": "sevt_5", "type": "user.message", "processed_at": null});
    let taken =
        json!({"id": "sevt_5", "type": "user.message", "processed_at": "2026-11-21T00:00:00Z"});
    let text = format!(
        "event: user.message\ndata: {waiting}\n\nevent: user.message\ndata: {waiting}\n\n\
         event: user.message\nid: 1\ndata: {taken}\n\nevent: user.message\nid: 1\ndata: {taken}\n\n{}",
        frame(6)
    );
    let answer = move |request: &Request, _| match () {
        () if !is_stream(request) => page(&[], None),
        () => Answer::open_stream(&text),
    };
    check(
        answer,
        6,
        &expect![[r#"
        CaughtUp
        sevt_5
        sevt_5
        sevt_6
    "#]],
    )
    .await;
}

#[tokio::test]
async fn looking_again_tells_what_was_there_at_that_time() {
    let n_pages = AtomicUsize::new(0);
    let server = Server::start(move |request| match () {
        () if is_stream(request) => Answer::open_stream(""),
        () if n_pages.fetch_add(1, Ordering::SeqCst) == 0 => page(&[1], None),
        () => page(&[1, 2], None),
    });
    let client = client(&server);
    let mut follow = Follow::new(&client, "sesn_1", options());
    assert_eq!(next(&mut follow).await.unwrap(), Update::Event(event(1)));
    assert_eq!(next(&mut follow).await.unwrap(), Update::CaughtUp);
    assert!(follow.is_live());
    follow.look_again();
    assert_eq!(next(&mut follow).await.unwrap(), Update::Event(event(2)));
    assert_eq!(next(&mut follow).await.unwrap(), Update::CaughtUp);
}

#[test]
fn waits_grow_and_end() {
    let mut backoff = Backoff {
        first: Duration::from_secs(1),
        max: Duration::from_secs(3),
        ..Backoff::new(Some(Duration::from_secs(8)))
    };
    let waits = |backoff: &mut Backoff| -> Vec<u64> {
        std::iter::from_fn(|| backoff.wait()).map(|wait| wait.as_secs()).collect()
    };
    assert_eq!(waits(&mut backoff), [1, 2, 3, 3]);
    backoff.reset();
    assert!(backoff.is_first());
    assert_eq!(waits(&mut backoff), [1, 2, 3, 3]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// A server that cuts every connection somewhere, also inside a character of an event.
    #[test]
    fn whatever_breaks_each_event_is_told_once_and_in_order(
        n_events in 1_usize..12,
        n_in_history in 0_usize..12,
        cuts in prop::collection::vec(0_usize..400, 0..8),
    ) {
        let n_in_history = n_in_history.min(n_events);
        let event = |n: usize| json!({"id": format!("sevt_{n}"), "type": "agent.message",
            "content": [{"type": "text", "text": "🔔é".repeat(n % 3)}],
            "processed_at": "2026-11-21T00:00:00Z"});
        let n_streams = AtomicUsize::new(0);
        let server = Server::start(move |request| {
            if !is_stream(request) {
                let data: Vec<Value> = (1..=n_in_history).map(event).collect();
                return Answer::json(&json!({"data": data, "next_page": null}));
            }
            // Live from the start of the session where no id is given: more than a server owes.
            let last = request.header("last-event-id").map_or(0, |id| id.parse().unwrap());
            let frames = (last + 1..=n_events)
                .map(|n| format!("event: agent.message\nid: {n}\ndata: {}\n\n", event(n)));
            let bytes = frames.collect::<String>().into_bytes();
            match cuts.get(n_streams.fetch_add(1, Ordering::SeqCst)) {
                Some(cut) => {
                    let bytes = bytes[..*cut.min(&bytes.len())].to_vec();
                    Answer::Stream { pieces: bytes.chunks(7).map(<[u8]>::to_vec).collect(), ends: true }
                }
                None => Answer::Stream { pieces: vec![bytes], ends: false },
            }
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let told = runtime.block_on(async {
            let client = client(&server);
            let mut follow = Follow::new(&client, "sesn_1", options());
            let mut told = Vec::new();
            while told.len() < n_events {
                if let Update::Event(event) = next(&mut follow).await.unwrap() {
                    told.push(event);
                }
            }
            told
        });
        prop_assert_eq!(told, (1..=n_events).map(event).collect::<Vec<_>>());
    }
}
