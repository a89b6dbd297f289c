//! The same body under another id: marked or held by the transaction that stores it.

use std::{sync::Arc, time::Duration};

use bellpull::{
    domain::{
        delivery::{Outcome, Status},
        secret::SecretName,
    },
    store::{Accepted, Refused, ReplayCheck, Retention, Route, Verdict},
};

use super::{Bench, Draft, accept::accept_at_once, bench::make_source};

on_both!(
    the_same_body_under_another_id_is_marked,
    a_held_one_has_no_session,
    a_body_is_forgotten_after_a_day,
    of_equal_bodies_at_once_one_is_first,
    a_delivery_without_room_is_no_suspicion,
);

const HOUR: Duration = Duration::from_secs(3600);

/// A request with this id and this body.
fn draft(bench: &Bench, key: &str, body: u8, hold: bool) -> Draft {
    let mut draft = bench.draft(key);
    draft.0.replay = Some(ReplayCheck { body_hash: [body; 32], hold });
    draft
}

async fn earlier(bench: &Bench, accepted: &Accepted) -> Option<String> {
    let delivery = bench.store.delivery(&accepted.delivery_id).await.unwrap();
    delivery.possible_replay_of.map(|id| id.to_string())
}

async fn remembered(bench: &Bench) -> i64 {
    bench.place.number("select count(*) from bodies_seen").await
}

async fn the_same_body_under_another_id_is_marked(bench: Bench) {
    let secret = SecretName { name: "SOURCE_a.b_SECRET".to_owned(), version: 7 };
    let mut one = draft(&bench, "one", 1, false);
    one.0.secret = Some(secret.clone());
    let first = bench.accept(one).await;
    assert_eq!(earlier(&bench, &first).await, None);
    let delivery = bench.store.delivery(&first.delivery_id).await.unwrap();
    assert_eq!(delivery.secret, Some(secret));
    // Its retry is no replay, and another body is none.
    assert_eq!(bench.accept(draft(&bench, "one", 1, false)).await.verdict, Verdict::Duplicate);
    let other = bench.accept(draft(&bench, "two", 2, false)).await;
    assert_eq!(earlier(&bench, &other).await, None);
    let again = bench.accept(draft(&bench, "three", 1, false)).await;
    assert_eq!(again.verdict, Verdict::Accepted);
    let expected = Some(first.delivery_id.to_string());
    assert_eq!(earlier(&bench, &again).await, expected);
    // The first one stays the one that is named.
    let again = bench.accept(draft(&bench, "four", 1, false)).await;
    assert_eq!(earlier(&bench, &again).await, expected);
    // Another source's bodies are its own, and who needs no check is not remembered.
    let mut foreign = draft(&bench, "one", 1, false);
    foreign.0.source_id = make_source(&bench.store, "another").await.id;
    let foreign = bench.accept(foreign).await;
    assert_eq!(earlier(&bench, &foreign).await, None);
    bench.accept(bench.draft("five")).await;
    assert_eq!(remembered(&bench).await, 3);
}

async fn a_held_one_has_no_session(bench: Bench) {
    let first = bench.accept(draft(&bench, "one", 1, true)).await;
    assert_eq!(first.verdict, Verdict::Accepted);
    let sessions = "select count(*) from sessions";
    let before = bench.place.number(sessions).await;
    let again = bench.accept(draft(&bench, "two", 1, true)).await;
    assert_eq!((again.verdict, &again.session_id), (Verdict::Held, &None));
    assert_eq!(again.agent_id, Some(bench.agent.id.clone()));
    let delivery = bench.store.delivery(&again.delivery_id).await.unwrap();
    assert_eq!((delivery.status, delivery.outcome), (Status::Held, None::<Outcome>));
    let id = &first.delivery_id;
    let reason = format!("it may be a replay: {id} had the same body under another id");
    assert_eq!(delivery.reason, Some(reason));
    assert_eq!(delivery.possible_replay_of.as_ref(), Some(id));
    assert_eq!(bench.place.number(sessions).await, before);
    // Sent again it is the same held one.
    let repeated = bench.accept(draft(&bench, "two", 1, true)).await;
    assert_eq!((repeated.verdict, repeated.delivery_id), (Verdict::Duplicate, again.delivery_id));
    // One that goes nowhere anyway keeps its own reason.
    let mut filtered = draft(&bench, "three", 1, true);
    let reason = "nobody wants it".to_owned();
    filtered.0.route = Route::Filtered { agent_id: None, reason: reason.clone() };
    let filtered = bench.accept(filtered).await;
    assert_eq!(filtered.verdict, Verdict::Filtered);
    let delivery = bench.store.delivery(&filtered.delivery_id).await.unwrap();
    assert_eq!((delivery.reason, delivery.possible_replay_of), (Some(reason), Some(id.clone())));
}

async fn a_body_is_forgotten_after_a_day(bench: Bench) {
    let first = bench.accept(draft(&bench, "one", 1, false)).await;
    bench.clock.advance(24 * HOUR - Duration::from_secs(1));
    let again = bench.accept(draft(&bench, "two", 1, false)).await;
    assert_eq!(earlier(&bench, &again).await, Some(first.delivery_id.to_string()));
    bench.clock.advance(Duration::from_secs(1));
    let next_day = bench.accept(draft(&bench, "three", 1, false)).await;
    assert_eq!(earlier(&bench, &next_day).await, None);
    let again = bench.accept(draft(&bench, "four", 1, false)).await;
    assert_eq!(earlier(&bench, &again).await, Some(next_day.delivery_id.to_string()));
    bench.clock.advance(23 * HOUR);
    bench.accept(draft(&bench, "five", 2, false)).await;
    let retention = Retention::default();
    assert_eq!(bench.store.prune(&retention).await.unwrap().seen, 0);
    bench.clock.advance(HOUR);
    assert_eq!(bench.store.prune(&retention).await.unwrap().seen, 1);
    assert_eq!(remembered(&bench).await, 1);
}

async fn of_equal_bodies_at_once_one_is_first(bench: Bench) {
    let nodes = [Arc::new(bench.another_node().await), Arc::new(bench)];
    for round in 0..4_u8 {
        let drafts = (0..24).map(|n| draft(&nodes[1], &format!("{round} {n}"), round, false));
        let drafts = drafts.collect();
        let accepted = accept_at_once(&[&nodes[0], &nodes[1]], drafts).await;
        let mut firsts = Vec::new();
        let mut named = Vec::new();
        for one in &accepted {
            match earlier(&nodes[1], one).await {
                None => firsts.push(one.delivery_id.to_string()),
                Some(earlier) => named.push(earlier),
            }
        }
        assert_eq!((firsts.len(), named.len()), (1, 23));
        assert!(named.iter().all(|earlier| *earlier == firsts[0]));
    }
}

async fn a_delivery_without_room_is_no_suspicion(bench: Bench) {
    let session = bench.session().await;
    let make = |key: &str| {
        let mut draft = draft(&bench, key, 1, false).for_session(&session);
        draft.0.waiting_max = 1;
        draft
    };
    bench.send(&session, "first").await;
    let refused = bench.store.accept(make("one").0).await.unwrap();
    assert_eq!(refused, Err(Refused::SessionFull));
    assert_eq!(remembered(&bench).await, 0);
    let mut retry = make("one");
    retry.0.waiting_max = 2;
    let accepted = bench.accept(retry).await;
    assert_eq!(earlier(&bench, &accepted).await, None);
}
