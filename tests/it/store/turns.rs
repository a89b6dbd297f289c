//! Turns: messages move from the inbox into the log, once, in order, and none is left behind.

use std::{sync::Arc, time::Duration};

use bellpull::{
    clock::Timestamp,
    domain::{
        budget::{Budget, CommonBudgets, Wish},
        cost::{Cost, MicroUsd, Spent},
        delivery::Outcome,
        event::{EventBody, NewEvent, Usage},
        session::Status,
        turn::TurnEnd,
    },
    store::{Error, FirstWork, Lease, Left, Reserve, Taken, TurnStart},
};

use super::{
    Bench,
    bench::{HOUR, change},
    messages,
};

on_both!(
    a_turn_takes_what_waits_and_numbers_it,
    every_end_of_a_turn_settles_its_deliveries,
    a_message_that_comes_during_a_turn_is_for_the_next_one,
    a_turn_takes_five_hundred_messages_at_most,
    a_long_log_is_not_told_with_the_beginning,
    a_turn_begins_with_the_claim_of_its_session_alone,
    what_a_turn_does_first_is_journaled_with_its_claim,
    a_turn_that_cannot_begin_keeps_nobody_from_being_claimed,
    an_unfinished_turn_goes_on,
    resumptions_are_counted_until_the_turn_gets_further,
    tokens_cost_and_working_time_add_up,
    a_turn_that_is_put_off_goes_on_after_its_pause,
    messages_do_not_cut_a_pause_short,
    writing_needs_a_claim_and_finishing_a_turn,
    messages_that_meet_a_finish_are_never_stranded,
);

async fn a_turn_takes_what_waits_and_numbers_it(bench: Bench) {
    let first = bench.accept(bench.draft("one").for_key("k")).await;
    let session = first.session_id.clone().unwrap();
    bench.send(&session, "typed").await;
    let second = bench.accept(bench.draft("two").for_key("k")).await;
    let waiting = bench.waiting(&session).await;
    bench.clock.advance(HOUR / 2);

    let lease = bench.claim_one().await;
    let beginning = bench.beginning();
    let (turn_id, opening) = (beginning.turn_id.clone(), beginning.opening.clone());
    let TurnStart { taken, standing } = bench.store.begin_turn(&lease, beginning).await.unwrap();
    let begun = bench.clock.now();
    let waited: Vec<Timestamp> = taken.messages.iter().map(|it| it.received_at).collect();
    assert!(waited.is_sorted() && begun.since(waited[0]) >= HOUR / 2, "{waited:?} {begun}");
    let sent: Vec<bool> = taken.messages.iter().map(|it| it.delivery.is_some()).collect();
    assert_eq!(sent, [true, false, true]);
    for (taken, accepted) in taken.deliveries.iter().zip([&first, &second]) {
        let delivery = bench.store.delivery(&accepted.delivery_id).await.unwrap();
        let named = (&taken.delivery_id, &taken.request_id, taken.trace);
        assert_eq!(named, (&delivery.id, &delivery.request_id, delivery.trace));
    }
    assert_eq!(taken.deliveries.len(), 2);
    assert_eq!(taken.trace, taken.deliveries[0].trace, "the first one's trace goes on");
    assert_eq!((&taken.turn_id, taken.resumes, taken.started_at), (&turn_id, 0, begun));
    let log = bench.log(&session).await;
    assert_eq!(log[0].id, opening.id);
    let asked = bench.store.standing(&session, 500).await.unwrap();
    assert_eq!(asked.log, log);
    assert_eq!(format!("{standing:?}"), format!("{:?}", Some(asked)), "told with the beginning");
    assert_eq!(messages(&log), ["message one", "typed", "message two"]);
    for (taken, waiting) in log[1..].iter().zip(&waiting) {
        let mut wanted = waiting.clone();
        (wanted.seq, wanted.processed_at) = (taken.seq, Some(begun));
        assert_eq!(*taken, wanted, "only number and time are new");
    }
    let found = bench.store.session(&session).await.unwrap();
    assert_eq!((found.status, found.n_waiting, found.next_seq), (Status::Running, 0, 5));
    assert_eq!((found.turn_id.as_ref(), found.updated_at), (Some(&turn_id), begun));
    for accepted in [&first, &second] {
        let delivery = bench.store.delivery(&accepted.delivery_id).await.unwrap();
        assert_eq!(delivery.outcome, Some(Outcome::Running));
        assert_eq!(delivery.turn_id.as_ref(), Some(&turn_id));
    }
    assert_eq!(bench.waiting(&session).await, []);

    bench.append(&lease, "hello").await;
    bench.finish(&lease, TurnEnd::EndTurn).await;
    let log = bench.log(&session).await;
    assert_eq!(log.len(), 6);
    assert_eq!(log[4].body.kind(), "agent.message");
    let found = bench.store.session(&session).await.unwrap();
    assert_eq!((found.status, found.turn_id, found.next_seq), (Status::Idle, None, 7));
    assert_eq!(bench.claim().await, []);
}

async fn every_end_of_a_turn_settles_its_deliveries(bench: Bench) {
    for end in TurnEnd::ALL {
        let accepted = bench.accept(bench.draft(end.as_str()).for_key("k")).await;
        let lease = bench.claim_one().await;
        let turn_id = bench.begin(&lease).await.turn_id;
        // One that comes meanwhile is not settled by this turn.
        let next = bench.accept(bench.draft(&format!("{} 2", end.as_str())).for_key("k")).await;
        bench.finish(&lease, end).await;
        let delivery = bench.store.delivery(&accepted.delivery_id).await.unwrap();
        assert_eq!(delivery.outcome, Some(end.outcome()), "{end:?}");
        assert_eq!(delivery.turn_id, Some(turn_id));
        let delivery = bench.store.delivery(&next.delivery_id).await.unwrap();
        assert_eq!((delivery.outcome, delivery.turn_id), (Some(Outcome::Pending), None));
        bench.work_off(TurnEnd::EndTurn).await;
    }
}

async fn a_message_that_comes_during_a_turn_is_for_the_next_one(bench: Bench) {
    let first = bench.accept(bench.draft("one").for_key("k")).await;
    let session = first.session_id.unwrap();
    let lease = bench.claim_one().await;
    bench.accept(bench.draft("before the turn").for_key("k")).await;
    assert_eq!(bench.begin(&lease).await.messages.len(), 2);
    bench.accept(bench.draft("during").for_key("k")).await;
    bench.send(&session, "typed").await;
    bench.append(&lease, "working").await;
    assert_eq!(bench.store.session(&session).await.unwrap().n_waiting, 2);
    assert_eq!(bench.claim().await, [], "the session is leased");
    bench.finish(&lease, TurnEnd::EndTurn).await;

    let lease = bench.claim_one().await;
    assert_eq!(bench.begin(&lease).await.messages.len(), 2);
    bench.finish(&lease, TurnEnd::EndTurn).await;
    let wanted = ["message one", "message before the turn", "message during", "typed"];
    assert_eq!(messages(&bench.log(&session).await), wanted);
    assert_eq!(bench.claim().await, []);
}

async fn a_turn_takes_five_hundred_messages_at_most(bench: Bench) {
    let session = bench.session().await;
    let texts: Vec<_> = (0..1003).map(|n| format!("{n}")).collect();
    let many = texts.iter().map(|text| bench.message(text)).collect();
    bench.store.send(&session, many, 2000).await.unwrap();
    for n_messages in [500, 500, 3] {
        let lease = bench.claim_one().await;
        assert_eq!(bench.begin(&lease).await.messages.len(), n_messages);
        bench.finish(&lease, TurnEnd::EndTurn).await;
    }
    assert_eq!(bench.claim().await, []);
    assert_eq!(messages(&bench.log(&session).await), texts);
}

async fn a_long_log_is_not_told_with_the_beginning(bench: Bench) {
    for (n_messages, is_told) in [(31, true), (32, false)] {
        let key = format!("{n_messages} messages");
        let accepted = bench.accept(bench.draft(&key).for_key(&key)).await;
        let session = accepted.session_id.unwrap();
        for n in 1..n_messages {
            bench.send(&session, &n.to_string()).await;
        }
        let lease = bench.claim_one().await;
        let begun = bench.store.begin_turn(&lease, bench.beginning()).await;
        let TurnStart { taken, standing } = begun.unwrap();
        assert_eq!(taken.messages.len(), n_messages);
        assert_eq!(standing.is_some(), is_told, "{n_messages} messages and the turn's beginning");
    }
}

/// What a worker gets that has room for so many, and whose turn begins with nothing that costs.
async fn claimed_and_begun(bench: &Bench, limit: usize) -> (usize, Left, Option<TurnStart>) {
    let (owner, beginning) = ("node:1".to_owned(), bench.beginning());
    let nothing = |_: &Lease, _: &TurnStart| None::<FirstWork<()>>;
    let claiming =
        bench.store.claim_and_begin(owner, Duration::ZERO, limit, None, beginning, nothing);
    let (claimed, left, start) = claiming.await.unwrap();
    (claimed.len(), left, start.map(|start| start.turn))
}

async fn a_turn_begins_with_the_claim_of_its_session_alone(bench: Bench) {
    assert!(matches!(claimed_and_begun(&bench, 9).await, (0, Left::Nothing, None)));

    let first = bench.accept(bench.draft("one").for_key("k")).await;
    let session = first.session_id.unwrap();
    let (n, left, start) = claimed_and_begun(&bench, 9).await;
    assert_eq!((n, left), (1, Left::Nothing));
    let TurnStart { taken, standing } = start.expect("its turn");
    let found = bench.store.session(&session).await.unwrap();
    assert_eq!((found.status, found.turn_id), (Status::Running, Some(taken.turn_id.clone())));
    assert_eq!(messages(&bench.log(&session).await), ["message one"]);
    let asked = bench.store.standing(&session, 500).await.unwrap();
    assert_eq!(format!("{standing:?}"), format!("{:?}", Some(asked)));

    // Whoever takes it up next resumes it the same way: its lease was over at once.
    let (n, _, start) = claimed_and_begun(&bench, 9).await;
    let resumed = start.expect("the same turn").taken;
    assert_eq!((n, resumed.turn_id, resumed.resumes), (1, taken.turn_id, 1));
    assert_eq!(resumed.deliveries, taken.deliveries);

    // Two at once have their turns to begin, and one of two has not, if there is room for one.
    bench.accept(bench.draft("other").for_key("other")).await;
    assert!(matches!(claimed_and_begun(&bench, 9).await, (2, Left::Nothing, None)));
    let (n, left, start) = claimed_and_begun(&bench, 1).await;
    assert_eq!((n, left, start.is_some()), (1, Left::Perhaps, true));
}

async fn what_a_turn_does_first_is_journaled_with_its_claim(bench: Bench) {
    let calls = |n| Budget { model_calls: Some(n), ..Budget::default() };
    let common = CommonBudgets { day: calls(1), ..CommonBudgets::default() };
    // The first one may ask, the second has to wait for what it reserved, and the third may ask nobody.
    let cases = [
        ("one", common, true),
        ("two", common, false),
        ("three", CommonBudgets { turn: calls(0), ..CommonBudgets::default() }, false),
    ];
    for (key, common, is_begun) in cases {
        let session = bench.accept(bench.draft(key).for_key(key)).await.session_id.unwrap();
        let (asked, of) = (bench.running(), session.clone());
        let (owner, beginning, event) = ("node:1".to_owned(), bench.beginning(), asked.clone());
        let decide = move |lease: &Lease, start: &TurnStart| {
            assert_eq!((&lease.session_id, start.taken.messages.len()), (&of, 1));
            assert_eq!(start.standing.as_ref().map(|it| it.log.len()), Some(2), "it sees the log");
            let wish = Wish::Model { cost: None, tokens: 5, model: "m".to_owned() };
            let reserve = Reserve { common, wish, active_ms: 0 };
            Some(FirstWork { events: vec![event], reserve, work: "asking" })
        };
        let claiming = bench.store.claim_and_begin(owner, HOUR, 9, None, beginning, decide);
        let (claimed, _, start) = claiming.await.unwrap();
        let start = start.expect("its turn");
        assert_eq!((claimed.len(), start.turn.taken.messages.len()), (1, 1), "{key}");
        assert_eq!(start.first, is_begun.then_some(("asking", None)), "{key}");
        let log = bench.log(&session).await;
        let last = log.last().map(|event| &event.id);
        assert_eq!((log.len(), last == Some(&asked.id)), (2 + usize::from(is_begun), is_begun));
        let n_reserved = bench.place.number("select count(*) from reservations").await;
        assert_eq!(n_reserved, 1, "{key}");
    }
}

async fn a_turn_that_cannot_begin_keeps_nobody_from_being_claimed(bench: Bench) {
    let accepted = bench.accept(bench.draft("one").for_key("k")).await;
    bench.place.script("update deliveries set traceparent = 'no trace'").await;
    for _ in 0..2 {
        let (n, left, start) = claimed_and_begun(&bench, 1).await;
        assert_eq!((n, left, start.is_some()), (1, Left::Perhaps, false));
    }
    let session = bench.store.session(&accepted.session_id.unwrap()).await.unwrap();
    assert_eq!((session.turn_id, session.n_waiting), (None, 1), "nothing of it has happened");
    let lease = bench.claim_one().await;
    assert_fails!(bench.store.begin_turn(&lease, bench.beginning()).await, Error::Corrupt(_));
}

async fn an_unfinished_turn_goes_on(bench: Bench) {
    let accepted = bench.accept(bench.draft("one").for_key("k")).await;
    let session = accepted.session_id.unwrap();
    let lease = bench.claim_as("node:1", Duration::ZERO).await.remove(0).lease;
    let begun = bench.begin(&lease).await;
    let turn_id = begun.turn_id.clone();
    bench.append(&lease, "half").await;
    let before = bench.log(&session).await;
    bench.accept(bench.draft("late").for_key("k")).await;

    let claimed = bench.claim_as("node:2", HOUR).await.remove(0);
    assert_eq!(claimed.unfinished.as_ref(), Some(&turn_id));
    // The same turn, nothing new in the log, and what came meanwhile waits for the next one.
    let taken = bench.begin(&claimed.lease).await;
    assert_eq!(taken, Taken { resumes: 1, messages: Vec::new(), ..begun });
    assert_eq!(bench.log(&session).await, before);
    bench.append(&claimed.lease, "whole").await;
    bench.finish(&claimed.lease, TurnEnd::EndTurn).await;
    let delivery = bench.store.delivery(&accepted.delivery_id).await.unwrap();
    assert_eq!(delivery.outcome, Some(Outcome::Succeeded));
    assert_eq!(delivery.turn_id, Some(turn_id));
    assert_eq!(bench.work_off(TurnEnd::EndTurn).await, session);
    assert_eq!(messages(&bench.log(&session).await), ["message one", "message late"]);
}

async fn resumptions_are_counted_until_the_turn_gets_further(bench: Bench) {
    bench.accept(bench.draft("one")).await;
    let resume = async |wanted: i64| {
        let lease = bench.claim_as("node:1", Duration::ZERO).await.remove(0).lease;
        assert_eq!(bench.begin(&lease).await.resumes, wanted);
        lease
    };
    resume(0).await;
    for n in 1..=3 {
        resume(n).await;
    }
    let lease = resume(4).await;
    bench.append(&lease, "further").await;
    resume(1).await;
    let lease = resume(2).await;
    // Counting tokens alone is not getting further.
    bench.store.append(&lease, Vec::new(), Usage::default()).await.unwrap();
    let lease = resume(3).await;
    bench.finish(&lease, TurnEnd::EndTurn).await;
}

async fn tokens_cost_and_working_time_add_up(bench: Bench) {
    bench.accept(bench.draft("one")).await;
    let lease = bench.claim_one().await;
    bench.begin(&lease).await;
    let usage = Usage {
        input_tokens: 1_000,
        output_tokens: 20,
        cache_creation_input_tokens: 300,
        cache_read_input_tokens: 4,
    };
    let cost = Some(MicroUsd(1_500_000));
    for _ in 0..2 {
        bench.store.append(&lease, Vec::new(), Spent { usage, cost }).await.unwrap();
    }
    let ms = Duration::from_millis(1_234);
    bench.store.finish(&lease, TurnEnd::EndTurn, Vec::new(), ms).await.unwrap();
    bench.send(&lease.session_id, "more").await;
    let lease = bench.claim_one().await;
    bench.begin(&lease).await;
    bench.store.finish(&lease, TurnEnd::EndTurn, Vec::new(), ms).await.unwrap();
    let session = bench.store.session(&lease.session_id).await.unwrap();
    assert_eq!(session.active_ms, 2_468);
    assert_eq!(session.cost, Cost { known: MicroUsd(3_000_000), n_unpriced: 0 });
    let shown = session.to_json(bench.clock.now());
    assert_eq!(shown["usage"]["list_cost"]["amount"], "300");
    let wanted = Usage {
        input_tokens: 2_000,
        output_tokens: 40,
        cache_creation_input_tokens: 600,
        cache_read_input_tokens: 8,
    };
    assert_eq!(session.usage, wanted);

    // One request without a price, and the whole is not known any more.
    bench.send(&lease.session_id, "with another model").await;
    let lease = bench.claim_one().await;
    bench.begin(&lease).await;
    bench.store.append(&lease, Vec::new(), usage).await.unwrap();
    bench.store.append(&lease, Vec::new(), Usage::default()).await.unwrap();
    let session = bench.store.session(&lease.session_id).await.unwrap();
    assert_eq!(session.cost, Cost { known: MicroUsd(3_000_000), n_unpriced: 1 });
    let usage = &session.to_json(bench.clock.now())["usage"];
    assert!(usage["list_cost"].is_null() && usage["unpriced_requests"] == 1, "{usage}");
}

/// The last events of a try that failed.
fn put_off(bench: &Bench) -> Vec<NewEvent> {
    vec![NewEvent::new(bench.id(), EventBody::StatusRescheduled)]
}

async fn a_turn_that_is_put_off_goes_on_after_its_pause(bench: Bench) {
    let accepted = bench.accept(bench.draft("one")).await;
    let old = bench.claim_one().await;
    let turn = bench.begin(&old).await.turn_id;
    let usage = Usage { input_tokens: 7, ..Usage::default() };
    let spent = Spent { usage, cost: Some(MicroUsd(3)) };
    let (none, ms) = (Duration::ZERO, Duration::from_millis(5));
    bench.store.reschedule(&old, put_off(&bench), spent, none, ms).await.unwrap();
    let found = bench.store.session(&old.session_id).await.unwrap();
    assert_eq!((found.status, found.turn_id.as_ref()), (Status::Rescheduling, Some(&turn)));
    assert_eq!((found.usage, found.cost.known, found.active_ms), (usage, MicroUsd(3), 5));
    let delivery = bench.store.delivery(&accepted.delivery_id).await.unwrap();
    assert_eq!(delivery.outcome, Some(Outcome::Running));
    let late = bench.store.append(&old, Vec::new(), Usage::default()).await;
    assert_fails!(late, Error::Fenced);

    let again = bench.claim().await.remove(0);
    assert_eq!(again.unfinished, Some(turn));
    assert_eq!(bench.begin(&again.lease).await.resumes, 0, "coming back was agreed on");
    assert_eq!(bench.begin(&again.lease).await.resumes, 1);
    bench.store.append(&again.lease, vec![bench.running()], Usage::default()).await.unwrap();
    let found = bench.store.session(&old.session_id).await.unwrap();
    assert_eq!(found.status, Status::Running);
    bench.finish(&again.lease, TurnEnd::EndTurn).await;
}

async fn messages_do_not_cut_a_pause_short(bench: Bench) {
    let session = bench.accept(bench.draft("one").for_key("k")).await.session_id.unwrap();
    let lease = bench.claim_one().await;
    bench.begin(&lease).await;
    let (spent, none) = (Spent::default(), Duration::ZERO);
    bench.store.reschedule(&lease, put_off(&bench), spent, HOUR, none).await.unwrap();
    bench.send(&session, "typed").await;
    bench.accept(bench.draft("two").for_key("k")).await;
    assert_eq!(bench.claim().await, []);
    let found = bench.store.session(&session).await.unwrap();
    assert_eq!((found.status, found.n_waiting), (Status::Rescheduling, 2));
    let archived = bench.store.archive_session(&session, change("session.archive")).await;
    assert_fails!(archived, Error::Conflict(_));
}

async fn writing_needs_a_claim_and_finishing_a_turn(bench: Bench) {
    let session = bench.accept(bench.draft("one")).await.session_id.unwrap();
    let lease = bench.claim_one().await;
    let finish = bench.store.finish(&lease, TurnEnd::EndTurn, Vec::new(), HOUR).await;
    assert_fails!(finish, Error::Bug("a finish without a turn"));
    assert_eq!(bench.store.session(&session).await.unwrap().active_ms, 0, "all or nothing");

    // An event that cannot be stored takes its whole append with it.
    bench.begin(&lease).await;
    let (good, mut bad) = (bench.says("good"), bench.says("bad"));
    bad.private = Some(serde_json::json!({"n": 1}));
    let sql = format!(
        "insert into events (session_id, seq, id, type, body, processed_at) \
         values ('{session}', 4, '{}', 'agent.thinking', '{{\"type\":\"agent.thinking\"}}', 1)",
        bad.id
    );
    bench.place.sql(&sql).await;
    let usage = Usage { input_tokens: 7, ..Usage::default() };
    let append = bench.store.append(&lease, vec![good.clone(), bad], usage).await;
    assert_fails!(append, Error::Constraint(_));
    let found = bench.store.session(&session).await.unwrap();
    assert_eq!((found.next_seq, found.usage), (3, Usage::default()));
    bench
        .place
        .sql(&format!("delete from events where session_id = '{session}' and seq = 4"))
        .await;
    bench.store.append(&lease, vec![good], usage).await.unwrap();
    assert_eq!(bench.log(&session).await.len(), 3);
}

/// The race that strands messages when a finish looks at the inbox instead of its own locked row: a
/// message commits while the turn ends. Whoever is first, the session is due afterwards.
async fn messages_that_meet_a_finish_are_never_stranded(bench: Bench) {
    let n_rounds = if crate::support::full() { 2_000 } else { 300 };
    let session = bench.accept(bench.draft("0").for_key("k")).await.session_id.unwrap();
    race_finish(Arc::new(bench), &session, n_rounds, &mut |bench| bench).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_meet_a_finish_on_another_node_are_never_stranded_on_postgres() {
    let n_rounds = if crate::support::full() { 2_000 } else { 300 };
    let bench = Arc::new(Bench::postgres().await);
    let other = Arc::new(bench.another_node().await);
    let session = bench.accept(bench.draft("0").for_key("k")).await.session_id.unwrap();
    race_finish(bench, &session, n_rounds, &mut |_| other.clone()).await;
}

async fn race_finish(
    bench: Arc<Bench>,
    session: &bellpull::id::SessionId,
    n_rounds: usize,
    node: &mut dyn FnMut(Arc<Bench>) -> Arc<Bench>,
) {
    let mut wanted = vec!["message 0".to_owned()];
    let mut lease = bench.claim_one().await;
    bench.begin(&lease).await;
    for round in 1..=n_rounds {
        let accepting = node(bench.clone());
        let draft = bench.draft(&format!("{round}")).for_key("k");
        wanted.push(format!("message {round}"));
        // Each in a task of its own, so that they really run at once; now one is first, now the
        // other.
        let accept =
            tokio::task::JoinSet::from_iter([async move { accepting.accept(draft).await }]);
        for _ in 0..round % 7 {
            tokio::task::yield_now().await;
        }
        bench.finish(&lease, TurnEnd::EndTurn).await;
        let answers = accept.join_all().await;
        assert_eq!(answers[0].session_id.as_ref(), Some(session));

        let found = bench.store.session(session).await.unwrap();
        let claimed = bench.claim().await;
        assert_eq!(claimed.len(), 1, "round {round}: {} wait and nobody looks", found.n_waiting);
        lease = claimed.into_iter().next().unwrap().lease;
        assert_eq!(bench.begin(&lease).await.messages.len(), 1);
    }
    bench.finish(&lease, TurnEnd::EndTurn).await;
    assert_eq!(messages(&bench.log(session).await), wanted);
    let log = bench.log(session).await;
    let n_idle = log.iter().filter(|it| matches!(it.body, EventBody::StatusIdle { .. })).count();
    assert_eq!(n_idle, n_rounds + 1);
}
