//! The accept: one delivery and one message for one identity, whatever comes how often.

use std::{sync::Arc, time::Duration};

use bellpull::{
    domain::{
        delivery::{Delivery, Outcome, Status},
        session,
    },
    id::{DeliveryId, Id, SourceId},
    store::{
        Accepted, Attempt, Body, Change, DeliveryFilter, Error, Refusal, ReplayOf, Route, Verdict,
    },
};
use serde_json::json;
use tokio::task::JoinSet;

use super::{Bench, Draft, bench::make_source, messages};

on_both!(
    a_first_request_is_delivery_session_and_message_at_once,
    a_repeated_request_gets_the_first_answer,
    an_identity_belongs_to_its_source,
    an_event_is_known_by_its_earlier_key_too,
    held_and_filtered_deliveries_have_a_reason_and_start_nothing,
    concurrent_first_requests_become_one_delivery,
    many_identities_at_once_stay_apart,
    deliveries_are_listed_newest_first,
    deliveries_are_filtered_by_what_people_ask_for,
    deliveries_are_found_by_ids_and_by_what_is_in_them,
    refusals_count_until_somebody_is_let_in,
    waiting_sessions_are_counted_by_source,
    refusals_are_kept_up_to_a_bound,
);

/// All requests at once, one task each.
pub async fn accept_at_once(stores: &[&Arc<Bench>], drafts: Vec<Draft>) -> Vec<Accepted> {
    let mut tasks = JoinSet::new();
    for (at, draft) in drafts.into_iter().enumerate() {
        let bench = stores[at % stores.len()].clone();
        tasks.spawn(async move { bench.accept(draft).await });
    }
    tasks.join_all().await
}

async fn a_first_request_is_delivery_session_and_message_at_once(bench: Bench) {
    let mut draft = bench.draft("one");
    let (wanted, dispatch) = (draft.0.clone(), draft.dispatch().clone());
    let accepted = bench.accept(draft).await;
    let session_id = accepted.session_id.clone().unwrap();
    assert_eq!(
        accepted,
        Accepted {
            verdict: Verdict::Accepted,
            delivery_id: wanted.id.clone(),
            agent_id: Some(bench.agent.id.clone()),
            session_id: Some(session_id.clone()),
            attempt: 1,
        }
    );
    assert_eq!(
        bench.store.delivery(&wanted.id).await.unwrap(),
        Delivery {
            id: wanted.id.clone(),
            source_id: bench.source.id.clone(),
            source_name: "zendesk".to_owned(),
            status: Status::Accepted,
            outcome: Some(Outcome::Pending),
            reason: None,
            agent_id: Some(bench.agent.id.clone()),
            session_id: Some(session_id.clone()),
            turn_id: None,
            event_type: Some("ticket.created".to_owned()),
            identity: wanted.identity,
            request_id: wanted.request_id.clone(),
            trace: wanted.trace,
            n_attempts: 1,
            received_at: wanted.received_at,
            content_type: Some("application/json".to_owned()),
            body_bytes: 11,
            headers: json!({"x-delivery": "one"}),
            erased_at: None,
            secret: None,
            possible_replay_of: None,
            replay_of: None,
            n_replays: 0,
            session_deleted: false,
        }
    );
    let session = bench.store.session(&session_id).await.unwrap();
    assert_eq!((session.n_waiting, session.next_seq), (1, 1));
    assert_eq!(session.status, session::Status::Idle);
    assert_eq!(session.agent, bench.agent.spec);
    assert_eq!(session.environment_id, bench.environment.id);
    assert_eq!(session.source_name.as_deref(), Some("zendesk"));
    assert_eq!(session.title.as_deref(), Some("title one"));
    assert_eq!((session.created_at, session.updated_at), (wanted.received_at, wanted.received_at));

    let waiting = bench.waiting(&session_id).await;
    assert_eq!(messages(&waiting), ["message one"]);
    assert_eq!(waiting[0].id, dispatch.event_id);
    assert_eq!((waiting[0].seq, waiting[0].processed_at), (None, None));
    assert_eq!(waiting[0].private, Some(json!({"nonce": "one"})));
    assert_eq!(&bench.store.delivery_body(&wanted.id).await.unwrap().bytes[..], b"message one");
    let first = Attempt { n: 1, request_id: wanted.request_id, received_at: wanted.received_at };
    assert_eq!(bench.store.attempts(&wanted.id).await.unwrap(), [first]);
    assert_eq!(bench.claim_one().await.session_id, session_id, "the session is due");
}

async fn a_repeated_request_gets_the_first_answer(bench: Bench) {
    let first = bench.accept(bench.draft("one")).await;
    let again = bench.draft("one").text("something else");
    let (other, request_id) = (again.0.id.clone(), again.0.request_id.clone());
    let received_at = again.0.received_at;
    let accepted = bench.accept(again).await;
    assert_eq!(accepted, Accepted { verdict: Verdict::Duplicate, attempt: 2, ..first.clone() });
    assert_eq!(bench.accept(bench.draft("one")).await.attempt, 3);

    assert_fails!(bench.store.delivery(&other).await, Error::NotFound);
    assert_fails!(bench.store.attempts(&other).await, Error::NotFound);
    assert_eq!(bench.store.delivery(&first.delivery_id).await.unwrap().n_attempts, 3);
    let attempts = bench.store.attempts(&first.delivery_id).await.unwrap();
    assert_eq!(attempts[1], Attempt { n: 2, request_id, received_at });
    assert_eq!(attempts.iter().map(|attempt| attempt.n).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(bench.claim().await.len(), 1, "one session");
    assert_eq!(messages(&bench.waiting(&first.session_id.unwrap()).await), ["message one"]);
}

async fn an_identity_belongs_to_its_source(bench: Bench) {
    let other = make_source(&bench.store, "github").await;
    let here = bench.accept(bench.draft("one")).await;
    let there = bench.accept(bench.draft("one").of_source(&other)).await;
    assert_eq!((here.verdict, there.verdict), (Verdict::Accepted, Verdict::Accepted));
    assert_ne!(here.session_id, there.session_id);
    let again = bench.accept(bench.draft("one").of_source(&other)).await;
    assert_eq!(again, Accepted { verdict: Verdict::Duplicate, attempt: 2, ..there });
}

async fn an_event_is_known_by_its_earlier_key_too(bench: Bench) {
    let draft = |key: &str, before: &str| {
        let mut draft = bench.draft(key);
        draft.0.identity_before = Some(before.to_owned());
        draft
    };
    // A body's hash in one window of time, and in the next.
    let first = bench.accept(draft("body:2", "body:1")).await;
    let again = bench.accept(draft("body:3", "body:2")).await;
    assert_eq!(again, Accepted { verdict: Verdict::Duplicate, attempt: 2, ..first.clone() });
    let same_window = bench.accept(draft("body:2", "body:1")).await;
    assert_eq!(same_window.attempt, 3);
    // Two windows later it is another event, and the one between was never stored.
    let later = bench.accept(draft("body:4", "body:3")).await;
    assert_eq!((later.verdict, later.attempt), (Verdict::Accepted, 1));
    assert_ne!(later.delivery_id, first.delivery_id);
}

async fn held_and_filtered_deliveries_have_a_reason_and_start_nothing(bench: Bench) {
    let agent_id = Some(bench.agent.id.clone());
    let mut held = bench.draft("held");
    held.0.route = Route::Held { agent_id: None, reason: "no such agent: bob".to_owned() };
    let mut filtered = bench.draft("filtered");
    filtered.0.route =
        Route::Filtered { agent_id: agent_id.clone(), reason: "not urgent".to_owned() };
    for (draft, verdict, status, agent_id, reason) in [
        (held, Verdict::Held, Status::Held, None, "no such agent: bob"),
        (filtered, Verdict::Filtered, Status::Filtered, agent_id, "not urgent"),
    ] {
        let accepted = bench.accept(draft.clone()).await;
        assert_eq!((accepted.verdict, &accepted.agent_id), (verdict, &agent_id));
        assert_eq!((&accepted.session_id, accepted.attempt), (&None, 1));
        let delivery = bench.store.delivery(&accepted.delivery_id).await.unwrap();
        assert_eq!((delivery.status, delivery.outcome), (status, None));
        assert_eq!((delivery.reason.as_deref(), delivery.agent_id), (Some(reason), agent_id));
        // Held or not, the body is there for a replay.
        assert!(bench.store.delivery_body(&delivery.id).await.is_ok());

        // A retry changes nothing, even if it would be routed by now.
        let key = delivery.identity.key;
        let again = bench.accept(bench.draft(&key)).await;
        assert_eq!(again, Accepted { verdict: Verdict::Duplicate, attempt: 2, ..accepted });
    }
    assert_eq!(bench.claim().await, []);
}

async fn concurrent_first_requests_become_one_delivery(bench: Bench) {
    const N: i64 = 48;
    let drafts = (0..N).map(|_| bench.draft("one")).collect();
    let bench = Arc::new(bench);
    one_delivery_of(&bench, accept_at_once(&[&bench], drafts).await, N).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_first_requests_to_two_nodes_become_one_delivery_on_postgres() {
    const N: i64 = 48;
    let bench = Arc::new(Bench::postgres().await);
    let other = Arc::new(bench.another_node().await);
    for key in ["one", "two", "three"] {
        let drafts = (0..N).map(|_| bench.draft(key)).collect();
        let answers = accept_at_once(&[&bench, &other], drafts).await;
        one_delivery_of(&bench, answers, N).await;
    }
}

/// Asserts that these are the answers to one identity, and works its message off.
async fn one_delivery_of(bench: &Bench, answers: Vec<Accepted>, n: i64) {
    let first: Vec<_> = answers.iter().filter(|it| it.verdict == Verdict::Accepted).collect();
    let [first] = first[..] else { panic!("not one was first: {answers:?}") };
    for answer in &answers {
        assert_eq!(answer.delivery_id, first.delivery_id);
        assert_eq!(answer.session_id, first.session_id);
        assert!(matches!(answer.verdict, Verdict::Accepted | Verdict::Duplicate));
    }
    let mut attempts: Vec<_> = answers.iter().map(|answer| answer.attempt).collect();
    attempts.sort_unstable();
    assert_eq!(attempts, (1..=n).collect::<Vec<_>>());
    assert_eq!(first.attempt, 1);
    assert_eq!(bench.store.attempts(&first.delivery_id).await.unwrap().len() as i64, n);

    let lease = bench.claim_one().await;
    assert_eq!(Some(&lease.session_id), first.session_id.as_ref());
    assert_eq!(bench.begin(&lease).await.messages.len(), 1);
    assert_eq!(messages(&bench.log(&lease.session_id).await).len(), 1);
}

async fn many_identities_at_once_stay_apart(bench: Bench) {
    let drafts = (0..200).map(|n| bench.draft(&format!("{}", n % 50))).collect();
    let bench = Arc::new(bench);
    let answers = accept_at_once(&[&bench], drafts).await;
    let n_accepted = answers.iter().filter(|it| it.verdict == Verdict::Accepted).count();
    assert_eq!(n_accepted, 50);
    assert_eq!(bench.claim().await.len(), 50);
    let filter = DeliveryFilter { limit: 100, ..DeliveryFilter::default() };
    let deliveries = bench.store.deliveries(filter).await.unwrap().data;
    assert_eq!(deliveries.len(), 50);
    for delivery in deliveries {
        assert_eq!(delivery.n_attempts, 4);
        let waiting = bench.waiting(&delivery.session_id.unwrap()).await;
        assert_eq!(messages(&waiting), [format!("message {}", delivery.identity.key)]);
    }
}

async fn deliveries_are_listed_newest_first(bench: Bench) {
    let mut ids = Vec::new();
    for n in 0..7 {
        ids.push(bench.accept(bench.draft(&format!("{n}"))).await.delivery_id);
    }
    ids.reverse();
    for limit in [1, 3, 7, 100] {
        let (mut found, mut cursor) = (Vec::new(), None);
        loop {
            let filter = DeliveryFilter { cursor, limit, ..DeliveryFilter::default() };
            let page = bench.store.deliveries(filter).await.unwrap();
            assert!(page.data.len() <= limit);
            found.extend(page.data.into_iter().map(|delivery| delivery.id));
            let Some(next) = page.next else { break };
            cursor = Some(next.parse().unwrap());
        }
        assert_eq!(found, ids, "pages of {limit}");
    }
}

async fn deliveries_are_filtered_by_what_people_ask_for(bench: Bench) {
    let other = make_source(&bench.store, "github").await;
    let a = bench.accept(bench.draft("a")).await;
    let mut draft = bench.draft("b").of_source(&other);
    draft.0.event_type = Some("push".to_owned());
    let b = bench.accept(draft).await;
    let mut draft = bench.draft("c");
    draft.0.route = Route::Held { agent_id: None, reason: "paused".to_owned() };
    let c = bench.accept(draft).await;
    bench.claim().await;

    let check = async |filter: DeliveryFilter, wanted: &[&Accepted]| {
        let filter = DeliveryFilter { limit: 10, ..filter };
        let page = bench.store.deliveries(filter.clone()).await.unwrap();
        let found: Vec<_> = page.data.iter().map(|it| &it.id).collect();
        let wanted: Vec<_> = wanted.iter().map(|it| &it.delivery_id).collect();
        assert_eq!(found, wanted, "{filter:?}");
    };
    let all = DeliveryFilter::default;
    check(all(), &[&c, &b, &a]).await;
    check(DeliveryFilter { source_id: Some(other.id.clone()), ..all() }, &[&b]).await;
    check(DeliveryFilter { status: Some(Status::Held), ..all() }, &[&c]).await;
    check(DeliveryFilter { outcome: Some(Outcome::Pending), ..all() }, &[&b, &a]).await;
    check(DeliveryFilter { session_id: a.session_id.clone(), ..all() }, &[&a]).await;
    check(DeliveryFilter { event_type: Some("push".to_owned()), ..all() }, &[&b]).await;
    check(DeliveryFilter { cursor: Some(b.delivery_id.clone()), ..all() }, &[&a]).await;
    let two = DeliveryFilter { source_id: Some(other.id), status: Some(Status::Held), ..all() };
    check(two, &[]).await;

    // What a session may read of its deliveries.
    let session = a.session_id.clone().unwrap();
    let found = bench.store.session_delivery(&session, None).await.unwrap();
    assert_eq!(found, a.delivery_id);
    let foreign = bench.store.session_delivery(&session, Some(b.delivery_id)).await;
    assert_fails!(foreign, Error::NotFound);
    let late = bench.accept(bench.draft("late").for_session(&session)).await;
    let found = bench.store.session_delivery(&session, None).await.unwrap();
    assert_eq!(found, late.delivery_id, "the newest one");
    let first = bench.store.session_delivery(&session, Some(a.delivery_id.clone())).await.unwrap();
    assert_eq!(first, a.delivery_id);
}

async fn deliveries_are_found_by_ids_and_by_what_is_in_them(bench: Bench) {
    let mut draft = bench.draft("evt_Order-42%_a");
    draft.0.event_type = Some("order.Paid".to_owned());
    draft.0.body = Body::Inline("{\"buyer\": \"Grüße\", \"n\": \"5%_\"}".into());
    let paid = bench.accept(draft).await;
    let mut draft = bench.draft("other");
    draft.0.body = Body::Inline(vec![0xff, 0, b'x'].into());
    draft.0.route = Route::Held { agent_id: None, reason: "nobody is Home".to_owned() };
    let held = bench.accept(draft).await;

    let check = async |filter: DeliveryFilter, wanted: &[&Accepted]| {
        let filter = DeliveryFilter { limit: 10, ..filter };
        let page = bench.store.deliveries(filter.clone()).await.unwrap();
        let found: Vec<_> = page.data.iter().map(|it| &it.id).collect();
        let wanted: Vec<_> = wanted.iter().map(|it| &it.delivery_id).collect();
        assert_eq!((found, page.next), (wanted, None), "{filter:?}");
    };
    let has = |text: &str| DeliveryFilter { has: Some(text.to_owned()), ..Default::default() };
    let called =
        |text: &str| DeliveryFilter { called: vec![text.to_owned()], ..Default::default() };
    let end = |id: &DeliveryId| id.as_str()[20..].to_owned();
    check(has(&end(&paid.delivery_id)), &[&paid]).await;
    check(has(paid.session_id.as_ref().unwrap().as_str()), &[&paid]).await;
    for text in ["EVT_order", "42%_a", "paid", "Grüße", "5%_"] {
        check(has(text), &[&paid]).await;
    }
    check(has("home"), &[&held]).await;
    // Of signs that mean something elsewhere, and of bytes that are no text.
    for text in ["4%a", "5__", "\\", "grüße", "' or 1 = 1"] {
        check(has(text), &[]).await;
    }
    let of_held = DeliveryFilter { status: Some(Status::Held), ..has("e") };
    check(of_held, &[&held]).await;
    for text in ["evt_Order-42%_a", paid.delivery_id.as_str()] {
        check(called(text), &[&paid]).await;
    }
    check(called("evt_order-42%_a"), &[]).await;
    check(DeliveryFilter { status: Some(Status::Held), ..called("evt_Order-42%_a") }, &[]).await;
}

async fn refusals_count_until_somebody_is_let_in(bench: Bench) {
    let refuse = async |reason: &str, source: Option<&SourceId>| {
        bench.clock.advance(Duration::from_millis(5));
        let refusal = Refusal {
            id: bench.id(),
            source: "zendesk".to_owned(),
            source_id: source.cloned(),
            reason: reason.to_owned(),
            at: bench.clock.now(),
        };
        bench.store.note_refusals(vec![refusal], 100).await.unwrap();
    };
    let id = &bench.source.id;
    let counted = async |since, n_min| {
        let found = bench.store.refused_since(since, n_min, 100).await.unwrap();
        found.into_iter().map(|it| (it.source_id, it.n, it.reason)).collect::<Vec<_>>()
    };
    let begin = bench.clock.now();
    refuse("first", Some(id)).await;
    refuse("nobody's", None).await;
    refuse("last", Some(id)).await;
    assert_eq!(counted(begin, 1).await, [(id.clone(), 2, "last".to_owned())]);
    assert_eq!(counted(begin, 3).await, []);
    assert_eq!(counted(bench.clock.now(), 1).await, [(id.clone(), 1, "last".to_owned())]);
    bench.clock.advance(Duration::from_millis(5));
    let first = bench.accept(bench.draft("one")).await.delivery_id;
    assert_eq!(counted(begin, 1).await, []);
    refuse("after it", Some(id)).await;
    // Nobody let a replay in.
    bench.clock.advance(Duration::from_millis(5));
    let change = Change {
        actor: "somebody".to_owned(),
        action: "delivery.replay",
        target: first.to_string(),
        details: json!({}),
    };
    let mut replay = bench.draft("again");
    replay.0.replay_of = Some(Box::new(ReplayOf { first: first.clone(), of: first, change }));
    bench.accept(replay).await;
    assert_eq!(counted(begin, 1).await, [(id.clone(), 1, "after it".to_owned())]);
}

async fn waiting_sessions_are_counted_by_source(bench: Bench) {
    let other = make_source(&bench.store, "github").await;
    for n in 0..3 {
        bench.accept(bench.draft(&format!("{n}"))).await;
    }
    let counted = bench.store.waiting_sessions().await.unwrap();
    assert_eq!(counted.get(&bench.source.id), Some(&3));
    assert_eq!(counted.get(&other.id), None);
    for claimed in bench.claim().await {
        bench.begin(&claimed.lease).await;
        bench.finish(&claimed.lease, bellpull::domain::turn::TurnEnd::EndTurn).await;
    }
    assert!(bench.store.waiting_sessions().await.unwrap().is_empty());
}

async fn refusals_are_kept_up_to_a_bound(bench: Bench) {
    let mut noted = Vec::new();
    for n in 0..12 {
        noted.push(Refusal {
            id: bench.id(),
            source: if n % 2 == 0 { "zendesk" } else { "unknown" }.to_owned(),
            source_id: (n % 2 == 0).then(|| bench.source.id.clone()),
            reason: "wrong signature".to_owned(),
            at: bench.clock.now(),
        });
    }
    for some in noted.chunks(5) {
        bench.store.note_refusals(some.to_vec(), 8).await.unwrap();
    }
    bench.store.note_refusals(Vec::new(), 8).await.unwrap();
    noted.reverse();
    assert_eq!(bench.store.refusals(None, 100).await.unwrap(), noted[..8]);
    assert_eq!(bench.store.refusals(None, 3).await.unwrap(), noted[..3]);
    let named: Vec<_> = noted[..8].iter().filter(|it| it.source == "zendesk").cloned().collect();
    assert_eq!(bench.store.refusals(Some("zendesk".to_owned()), 100).await.unwrap(), named);
}
