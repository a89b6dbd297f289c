//! Reading a session: pages of its log and of what still waits, in both directions.

use std::collections::BTreeSet;

use bellpull::{
    domain::{
        event::{Event, Usage},
        turn::TurnEnd,
    },
    id::{EventId, SessionId},
    store::{Error, EventFilter, Page},
};

use super::{
    Bench,
    bench::{HOUR, make_source},
    messages,
};

on_both!(
    pages_forward_and_backward_show_every_event_once,
    pages_are_filtered_by_type,
    pages_are_filtered_by_time,
    a_cursor_of_something_else_is_refused,
    no_session_no_events,
    large_events_come_in_small_pages,
    the_log_is_read_on_after_a_number,
    what_waits_is_read_on_after_a_position,
    a_message_that_is_taken_between_two_pages_is_not_lost,
    a_message_that_is_taken_while_a_page_is_read_is_not_lost,
);

fn ids(events: &[Event]) -> Vec<EventId> {
    events.iter().map(|event| event.id.clone()).collect()
}

/// Three turns in the log, and then four messages that wait.
async fn busy_session(bench: &Bench) -> (SessionId, Vec<Event>) {
    let session = bench.session().await;
    for n in 0..3 {
        bench.send(&session, &format!("{n}")).await;
        let lease = bench.claim_one().await;
        bench.begin(&lease).await;
        bench.clock.advance(HOUR);
        bench.append(&lease, &format!("answer {n}")).await;
        bench.finish(&lease, TurnEnd::EndTurn).await;
    }
    for n in 0..4 {
        bench.send(&session, &format!("waiting {n}")).await;
    }
    let mut events = bench.log(&session).await;
    assert_eq!(events.len(), 12);
    events.extend(bench.waiting(&session).await);
    assert_eq!(events.len(), 16);
    (session, events)
}

async fn page(bench: &Bench, session: &SessionId, filter: &EventFilter) -> Page<Event> {
    let page = bench.store.events(session, filter.clone()).await.unwrap();
    assert!(page.data.len() <= filter.limit);
    page
}

/// All pages, one after the other.
async fn pages(bench: &Bench, session: &SessionId, mut filter: EventFilter) -> Vec<Event> {
    let mut found = Vec::new();
    loop {
        let page = page(bench, session, &filter).await;
        found.extend(page.data);
        filter.cursor = page.next;
        if filter.cursor.is_none() {
            return found;
        }
    }
}

async fn pages_forward_and_backward_show_every_event_once(bench: Bench) {
    let (session, mut wanted) = busy_session(&bench).await;
    for newest_first in [false, true] {
        for limit in [1, 2, 3, 11, 12, 13, 15, 16, 100] {
            let filter = EventFilter { newest_first, limit, ..EventFilter::default() };
            let found = pages(&bench, &session, filter).await;
            assert_eq!(found, wanted, "pages of {limit}, newest first: {newest_first}");
        }
        wanted.reverse();
    }
}

async fn pages_are_filtered_by_type(bench: Bench) {
    let (session, all) = busy_session(&bench).await;
    for types in [
        &["user.message"][..],
        &["agent.message"],
        &["user.message", "session.status_idle"],
        &["agent.thinking"],
        &["no.such.type", "'; --"],
    ] {
        let mut wanted: Vec<_> =
            all.iter().filter(|it| types.contains(&it.body.kind())).cloned().collect();
        for newest_first in [false, true] {
            for limit in [1, 3, 100] {
                let types = types.iter().map(ToString::to_string).collect();
                let filter = EventFilter { types, newest_first, limit, ..EventFilter::default() };
                assert_eq!(pages(&bench, &session, filter).await, wanted, "pages of {limit}");
            }
            wanted.reverse();
        }
    }
}

async fn pages_are_filtered_by_time(bench: Bench) {
    let (session, all) = busy_session(&bench).await;
    let time = |at: usize| all[at].processed_at;
    for (after, before) in [
        (time(2), None),
        (None, time(6)),
        (time(3), time(9)),
        (time(0), time(0)),
        (time(9), time(3)),
        (time(0), time(11)),
    ] {
        // What waits has no time of processing, so it matches no time.
        let wanted = all.iter().filter(|it| {
            it.processed_at.is_some_and(|at| {
                after.is_none_or(|after| at >= after) && before.is_none_or(|before| at <= before)
            })
        });
        let mut wanted: Vec<_> = wanted.cloned().collect();
        for newest_first in [false, true] {
            for limit in [2, 100] {
                let filter =
                    EventFilter { after, before, newest_first, limit, ..EventFilter::default() };
                assert_eq!(pages(&bench, &session, filter).await, wanted, "{after:?} {before:?}");
            }
            wanted.reverse();
        }
    }
}

async fn a_cursor_of_something_else_is_refused(bench: Bench) {
    let (session, _) = busy_session(&bench).await;
    for cursor in
        ["", "x", "w", "1w", "w1x", "sevt_01", "1; drop table events", "99999999999999999999"]
    {
        let filter =
            EventFilter { cursor: Some(cursor.to_owned()), limit: 2, ..EventFilter::default() };
        let refused = bench.store.events(&session, filter).await;
        assert_fails!(refused, Error::Invalid(_));
    }
}

async fn no_session_no_events(bench: Bench) {
    let missing: SessionId = bench.id();
    let filter = EventFilter { limit: 10, ..EventFilter::default() };
    assert_fails!(bench.store.events(&missing, filter.clone()).await, Error::NotFound);
    assert_fails!(bench.store.session(&missing).await, Error::NotFound);
    let empty = bench.session().await;
    let page = page(&bench, &empty, &filter).await;
    assert_eq!(page, Page { data: Vec::new(), next: None });
}

async fn large_events_come_in_small_pages(bench: Bench) {
    let session = bench.session().await;
    let text = "x".repeat(12 << 20);
    for _ in 0..3 {
        bench.send(&session, &text).await;
    }
    bench.work_off(TurnEnd::EndTurn).await;
    // 36 MiB are not read at once, however many events are wanted.
    let numbers = |events: &[Event]| events.iter().map(|it| it.seq.unwrap()).collect::<Vec<_>>();
    let first = bench.store.events_after(&session, 0, 100).await.unwrap();
    assert_eq!(numbers(&first), [1, 2, 3]);
    let second = bench.store.events_after(&session, 3, 100).await.unwrap();
    assert_eq!(numbers(&second), [4, 5]);
    if crate::support::full() {
        let filter = EventFilter { newest_first: true, limit: 100, ..EventFilter::default() };
        assert_eq!(numbers(&pages(&bench, &session, filter).await), [5, 4, 3, 2, 1]);
    }
}

async fn the_log_is_read_on_after_a_number(bench: Bench) {
    let (session, all) = busy_session(&bench).await;
    for seq in [0, 1, 7, 11, 12, 99] {
        for limit in [1, 5, 100] {
            let found = bench.store.events_after(&session, seq, limit).await.unwrap();
            let wanted: Vec<_> =
                all[..12].iter().skip(seq.try_into().unwrap()).take(limit).cloned().collect();
            assert_eq!(found, wanted, "after {seq}");
        }
    }
    let missing: SessionId = bench.id();
    assert_eq!(bench.store.events_after(&missing, 0, 10).await.unwrap(), []);
}

async fn what_waits_is_read_on_after_a_position(bench: Bench) {
    let (session, all) = busy_session(&bench).await;
    let positions: Vec<_> =
        bench.store.waiting_after(&session, 0).await.unwrap().iter().map(|it| it.0).collect();
    assert_eq!(positions, [4, 5, 6, 7], "positions are not given twice");
    let found = bench.store.waiting_after(&session, 5).await.unwrap();
    assert_eq!(found, [(6, all[14].clone()), (7, all[15].clone())]);
    assert_eq!(bench.store.waiting_after(&session, 7).await.unwrap(), []);
}

/// A reader pages through the log and what waits while a worker takes what waits. Each message is
/// shown: as waiting, as taken, or as both.
async fn a_message_that_is_taken_between_two_pages_is_not_lost(bench: Bench) {
    let step = if crate::support::full() { 1 } else { 3 };
    for newest_first in [false, true] {
        for limit in 1..16 {
            for n_before in (1..=16 / limit).step_by(step) {
                let (session, wanted) = busy_session(&bench).await;
                let mut filter = EventFilter { newest_first, limit, ..EventFilter::default() };
                let mut found = Vec::new();
                for _ in 0..n_before {
                    let page = page(&bench, &session, &filter).await;
                    found.extend(page.data);
                    filter.cursor = page.next;
                }
                bench.work_off(TurnEnd::EndTurn).await;
                if filter.cursor.is_some() {
                    found.extend(pages(&bench, &session, filter).await);
                }
                let found: BTreeSet<_> = ids(&found).into_iter().collect();
                let wanted: BTreeSet<_> = ids(&wanted).into_iter().collect();
                let lost: Vec<_> = wanted.difference(&found).collect();
                assert!(lost.is_empty(), "{lost:?} in pages of {limit}, after {n_before}");
            }
            if !crate::support::full() && limit > 4 {
                break;
            }
        }
    }
}

async fn a_message_that_is_taken_while_a_page_is_read_is_not_lost(bench: Bench) {
    make_source(&bench.store, "github").await;
    let n_rounds = if crate::support::full() { 500 } else { 60 };
    let session = bench.session().await;
    let mut wanted = Vec::new();
    for round in 0..n_rounds {
        wanted.push(format!("{round}"));
        bench.send(&session, &format!("{round}")).await;
        let lease = bench.claim_one().await;
        let newest_first = round % 2 == 0;
        let filter = EventFilter { newest_first, limit: 10_000, ..EventFilter::default() };
        let reads = async { bench.store.events(&session, filter).await.unwrap() };
        let (page, _) = tokio::join!(reads, bench.begin(&lease));
        let mut found = messages(&page.data);
        if newest_first {
            found.reverse();
        }
        assert_eq!(found, wanted, "round {round}");
        bench.store.append(&lease, Vec::new(), Usage::default()).await.unwrap();
        bench.finish(&lease, TurnEnd::EndTurn).await;
    }
}
