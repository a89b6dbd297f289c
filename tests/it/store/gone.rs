//! Sessions that are changed, put away and deleted, and environments that go.

use bellpull::{
    domain::{
        budget::Budget,
        cost::MicroUsd,
        delivery::Outcome,
        environment::EnvironmentPatch,
        event::{EventBody, NewEvent},
        session::{SessionPatch, Status},
        turn::TurnEnd,
    },
    id::{EventId, SessionId},
    store::{
        Beside, Error, NewAsk, NewEffect, Retention, Said, SessionFilter, Store, Verdict, Wanted,
    },
};
use serde_json::{Value, json};

use super::{
    Bench,
    bench::{HOUR, change, make_environment},
};

on_both!(
    a_deleted_session_leaves_nothing_but_its_deliveries,
    a_deleted_log_goes_later_too,
    a_session_at_work_is_not_deleted,
    a_key_of_a_deleted_session_makes_another,
    a_change_of_a_session_is_told_in_its_log,
    a_turn_that_waits_ends_with_its_session,
    pages_lead_both_ways,
    an_environment_changes_and_goes,
);

/// Journals a call that somebody is asked about, and one that is carried out; then waits.
async fn wait_for_answers(bench: &Bench, lease: &bellpull::store::Lease) {
    let [call, effect]: [EventId; 2] = [bench.id(), bench.id()];
    let tool_use = |id: &EventId| {
        let body = EventBody::AgentToolUse {
            name: "bash".to_owned(),
            input: json!({}),
            evaluated_permission: "ask".to_owned(),
            evaluation: Some(json!({"type": "always_ask"})),
        };
        NewEvent::new(id.clone(), body)
    };
    let (tool, fingerprint) = ("bash".to_owned(), "f".to_owned());
    let ask = NewAsk {
        call: call.clone(),
        wanted: Wanted::Confirmation,
        by_client: false,
        tool: tool.clone(),
        fingerprint,
        patience: HOUR,
    };
    let intends = NewEffect {
        call: effect.clone(),
        agent_id: bench.agent.id.clone(),
        tool,
        input: "{}".to_owned(),
    };
    let beside = Beside { asks: vec![ask], intends: Some(intends), ..Beside::default() };
    let events = vec![tool_use(&call), tool_use(&effect)];
    bench.store.append_with(lease, events, Default::default(), beside).await.unwrap();
    bench.store.park(lease, vec![bench.idle(TurnEnd::EndTurn)], HOUR).await.unwrap();
}

/// A session in which everything that there can be is: a delivery that was answered, one whose turn
/// waits for somebody, a call with an effect, limits.
async fn full(bench: &Bench) -> SessionId {
    let mut session = bench.new_session(&bench.agent);
    session.budget = Budget { cost_usd: Some(MicroUsd(10_000)), ..Budget::default() };
    let id = bench.store.create_session(session).await.unwrap().id;
    for key in ["one", "two"] {
        bench.accept(bench.draft(key).for_session(&id)).await;
        let lease = bench.claim_one().await;
        bench.begin(&lease).await;
        bench.append(&lease, &"long".repeat(100)).await;
        match key {
            "one" => bench.finish(&lease, TurnEnd::EndTurn).await,
            _ => wait_for_answers(bench, &lease).await,
        }
    }
    id
}

/// Rows of every table that name the session, or what was in it.
async fn rows(bench: &Bench, id: &SessionId) -> Vec<(String, i64)> {
    let mut found = Vec::new();
    for (table, column) in [
        ("sessions", "id"),
        ("sessions_gone", "session_id"),
        ("events", "session_id"),
        ("turns", "session_id"),
        ("inbox", "session_id"),
        ("session_keys", "session_id"),
        ("approvals", "session_id"),
        ("effects", "session_id"),
        ("outbox", "session_id"),
        ("reservations", "session_id"),
        ("budgets", "owner"),
        ("spending", "scope"),
        ("environments", "session_id"),
    ] {
        let sql = format!("select count(*) from {table} where {column} = '{id}'");
        let n = bench.place.number(&sql).await;
        if n > 0 {
            found.push((table.to_owned(), n));
        }
    }
    found
}

async fn a_deleted_session_leaves_nothing_but_its_deliveries(bench: Bench) {
    let other = bench.accept(bench.draft("of another one")).await.session_id.unwrap();
    bench.work_off(TurnEnd::EndTurn).await;
    let log = bench.log(&other).await;
    let id = full(&bench).await;
    assert!(rows(&bench, &id).await.len() >= 6, "{:?}", rows(&bench, &id).await);
    bench.store.delete_session(&id, change("session.delete")).await.unwrap();
    assert_eq!(rows(&bench, &id).await, []);
    assert_fails!(bench.store.session(&id).await, Error::NotFound);
    let again = bench.store.delete_session(&id, change("session.delete")).await;
    assert_fails!(again, Error::NotFound);

    let filter = bellpull::store::DeliveryFilter {
        session_id: Some(id.clone()),
        limit: 10,
        ..Default::default()
    };
    let kept = bench.store.deliveries(filter).await.unwrap().data;
    let outcomes: Vec<_> = kept.iter().map(|it| (it.session_deleted, it.outcome)).collect();
    let wanted = [(true, Some(Outcome::Failed)), (true, Some(Outcome::Succeeded))];
    assert_eq!(outcomes, wanted, "what was in doubt can be found out no more");
    let held = bench.accept(bench.draft("late").for_session(&id)).await;
    assert_eq!(held.verdict, Verdict::Held);
    assert_eq!(bench.log(&other).await, log, "others stay as they are");
    assert_eq!(bench.claim().await, []);
    let actions: Vec<_> =
        bench.store.audit(None, 1).await.unwrap().data.into_iter().map(|it| it.action).collect();
    assert_eq!(actions, ["session.delete"]);
}

async fn a_deleted_log_goes_later_too(bench: Bench) {
    let id = full(&bench).await;
    // As a crash right after the first commit leaves it.
    for sql in [
        format!("update sessions set turn_id = null, next_at = null where id = '{id}'"),
        format!("delete from sessions where id = '{id}'"),
        format!("insert into sessions_gone (session_id, at) values ('{id}', 1)"),
    ] {
        bench.place.sql(&sql).await;
    }
    let left = async || bench.place.number("select count(*) from events").await;
    assert!(left().await > 0);
    while bench.store.prune(&Retention::default()).await.unwrap().is_full() {}
    assert_eq!(left().await, 0);
    assert_eq!(bench.place.number("select count(*) from turns").await, 0);
    assert_eq!(bench.place.number("select count(*) from sessions_gone").await, 0);
}

async fn a_session_at_work_is_not_deleted(bench: Bench) {
    let id = bench.session().await;
    let refused = async || match bench.store.delete_session(&id, change("session.delete")).await {
        Err(Error::Conflict(text)) => assert_eq!(text, "cannot delete while running"),
        other => panic!("{other:?}"),
    };
    bench.send(&id, "one").await;
    refused().await;
    let lease = bench.claim_one().await;
    refused().await;
    bench.begin(&lease).await;
    refused().await;
    let off = bench.store.reschedule(&lease, Vec::new(), Default::default(), HOUR, HOUR);
    off.await.unwrap();
    refused().await;
    bench.clock.advance(HOUR * 2);
    assert_eq!(bench.log(&id).await.len(), 2, "nothing was touched");
}

async fn a_key_of_a_deleted_session_makes_another(bench: Bench) {
    let first = bench.accept(bench.draft("1").for_key("ticket")).await.session_id.unwrap();
    bench.work_off(TurnEnd::EndTurn).await;
    bench.store.delete_session(&first, change("session.delete")).await.unwrap();
    let second = bench.accept(bench.draft("2").for_key("ticket")).await;
    assert_eq!(second.verdict, Verdict::Accepted);
    assert_ne!(second.session_id, Some(first));
    assert_eq!(bench.work_off(TurnEnd::EndTurn).await, second.session_id.unwrap());
}

fn titled(title: &str) -> SessionPatch {
    SessionPatch { title: Some(Some(title.to_owned())), ..SessionPatch::default() }
}

fn with_tools() -> SessionPatch {
    let tools = Some(json!([{"type": "agent_toolset_20260401"}]));
    SessionPatch { tools, ..SessionPatch::default() }
}

async fn a_change_of_a_session_is_told_in_its_log(bench: Bench) {
    let mut session = bench.new_session(&bench.agent);
    session.budget = Budget { cost_usd: Some(MicroUsd(10_000)), ..Budget::default() };
    let id = bench.store.create_session(session).await.unwrap().id;
    let update = async |patch: SessionPatch| bench.store.update_session(&id, patch).await;
    bench.clock.advance(HOUR);
    assert_eq!(update(SessionPatch::default()).await.unwrap().next_seq, 1, "nothing is new");
    let changed = update(titled("new")).await.unwrap();
    assert_eq!((changed.title.as_deref(), changed.updated_at), (Some("new"), bench.clock.now()));
    assert_eq!(update(titled("new")).await.unwrap().next_seq, 2);
    assert_eq!(update(with_tools()).await.unwrap().agent.tools.len(), 1);

    // While a worker has it: between two entries of the worker's own.
    bench.send(&id, "go").await;
    let lease = bench.claim_one().await;
    bench.begin(&lease).await;
    assert_eq!(update(titled("meanwhile")).await.unwrap().status, Status::Running);
    match update(SessionPatch { tools: Some(json!([])), ..SessionPatch::default() }).await {
        Err(Error::Invalid(problem)) => assert_eq!(problem.field, "agent"),
        other => panic!("{other:?}"),
    }
    bench.append(&lease, "said").await;
    bench.finish(&lease, TurnEnd::EndTurn).await;
    let most = |cents| SessionPatch { budget: Some(cents), ..SessionPatch::default() };
    assert_eq!(update(most(Some(MicroUsd(20_000)))).await.unwrap().status, Status::Idle);
    assert_eq!(update(most(None)).await.unwrap().budget, Budget::default());
    match update(most(Some(MicroUsd(20_000)))).await {
        Err(Error::Invalid(problem)) => assert_eq!(problem.code, Some("budget_create_only")),
        other => panic!("{other:?}"),
    }
    let log = bench.log(&id).await;
    let kinds: Vec<_> = log.iter().map(|event| event.body.kind()).collect();
    let own = "session.updated";
    assert_eq!(
        kinds,
        [
            own,
            own,
            "session.status_running",
            "user.message",
            own,
            "agent.message",
            "session.status_idle",
            own,
            own
        ]
    );
    let told = |n: usize| log[n].to_json();
    assert_eq!((&told(0)["title"], &told(0)["metadata"]), (&json!("new"), &Value::Null));
    assert_eq!(told(1)["agent"]["tools"][0]["type"], "agent_toolset_20260401");
    assert_eq!(told(7)["budget"]["max_list_cost"]["amount"], "2");

    bench.store.archive_session(&id, change("session.archive")).await.unwrap();
    assert_fails!(update(titled("late")).await, Error::Conflict(_));
    let missing: SessionId = bench.id();
    assert_fails!(bench.store.update_session(&missing, titled("x")).await, Error::NotFound);
}

async fn a_turn_that_waits_ends_with_its_session(bench: Bench) {
    let id = full(&bench).await;
    assert_eq!(bench.store.update_session(&id, with_tools()).await.unwrap().agent.tools.len(), 1);
    let stop = Said::Interrupt { event_id: bench.id() };
    let stop = bench.store.say(&id, vec![stop], 10, String::new()).await.unwrap().remove(0);
    let archived = bench.store.archive_session(&id, change("session.archive")).await.unwrap();
    assert_eq!((archived.status, archived.turn_id), (Status::Terminated, None));
    let log = bench.log(&id).await;
    assert_eq!(log[log.len() - 2].id, stop.id, "what was taken is told, whoever ends the turn");
    assert_eq!(log[log.len() - 1].body.kind(), "session.status_terminated");
    let open = "select count(*) from turns where status <> 'done'";
    assert_eq!(bench.place.number(open).await, 0);
    bench.clock.advance(HOUR * 2);
    assert_eq!(bench.claim().await, [], "nobody comes back to it");
    let call = bench.log(&id).await.into_iter().find(|it| it.body.kind() == "agent.tool_use");
    let answer = Said::Answer {
        event_id: bench.id(),
        call: call.expect("a call").id,
        result: bellpull::domain::event::Confirmed::Allow,
        deny_message: None,
    };
    let said = bench.store.say(&id, vec![answer], 10, String::new()).await;
    assert_fails!(said, Error::Conflict(_));
}

async fn pages_lead_both_ways(bench: Bench) {
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(bench.session().await);
    }
    let page = async |cursor: Option<&String>, oldest_first: bool| {
        let cursor = cursor.map(|text| text.parse().unwrap());
        let filter = SessionFilter { oldest_first, cursor, limit: 2, ..Default::default() };
        let page = bench.store.sessions(filter).await.unwrap();
        let found: Vec<SessionId> = page.data.into_iter().map(|it| it.id).collect();
        (found, page.prev, page.next)
    };
    for oldest_first in [true, false] {
        let (first, prev, next) = page(None, oldest_first).await;
        assert_eq!((&first[..], prev), (&ids[..2], None));
        let (second, to_first, next) = page(next.as_ref(), oldest_first).await;
        assert_eq!(second, ids[2..4]);
        let (third, to_second, end) = page(next.as_ref(), oldest_first).await;
        assert_eq!((&third[..], end), (&ids[4..], None));
        let (back, _, to_third) = page(to_second.as_ref(), oldest_first).await;
        assert_eq!(back, second);
        assert_eq!(page(to_third.as_ref(), oldest_first).await.0, third);
        assert_eq!(page(to_first.as_ref(), oldest_first).await, (first, None, next_of(&ids[1])));
        ids.reverse();
    }
    // What lay on a page has gone meanwhile, and nothing is passed over on the way back.
    let (_, _, next) = page(None, true).await;
    let (_, _, last) = page(next.as_ref(), true).await;
    ids.sort();
    bench.store.archive_session(&ids[4], change("session.archive")).await.unwrap();
    let (nothing, prev, end) = page(last.as_ref(), true).await;
    assert_eq!((nothing, end), (vec![], None));
    assert_eq!(page(prev.as_ref(), true).await.0, ids[2..4]);
}

fn next_of(id: &SessionId) -> Option<String> {
    Some(id.to_string())
}

async fn an_environment_changes_and_goes(bench: Bench) {
    let environment = make_environment(&bench.store, "one").await;
    let other = make_environment(&bench.store, "two").await;
    let store: &Store = &bench.store;
    let update = async |patch: EnvironmentPatch| {
        store.update_environment(&environment.id, patch, change("environment.update")).await
    };
    let renamed = |name: &str| EnvironmentPatch {
        name: Some(name.to_owned()),
        ..EnvironmentPatch::default()
    };
    bench.clock.advance(HOUR);
    assert_eq!(update(EnvironmentPatch::default()).await.unwrap(), environment);
    assert_fails!(update(renamed("two")).await, Error::Conflict(_));
    let changed = update(renamed("three")).await.unwrap();
    assert_eq!((changed.name.as_str(), changed.updated_at), ("three", bench.clock.now()));
    assert_eq!(store.environment(&environment.id).await.unwrap(), changed);

    let mut session = bench.new_session(&bench.agent);
    session.environment_id = environment.id.clone();
    let session = store.create_session(session.clone()).await.unwrap();
    let gone = async || store.delete_environment(&environment.id, change("x")).await;
    assert_fails!(gone().await, Error::Conflict(_));
    let archived = store.archive_environment(&environment.id, change("x")).await.unwrap();
    assert_eq!(archived.archived_at, Some(bench.clock.now()));
    match update(renamed("four")).await {
        Err(Error::Invalid(problem)) => assert_eq!(problem.code, Some("environment_archived")),
        other => panic!("{other:?}"),
    }
    let mut late = bench.new_session(&bench.agent);
    late.environment_id = environment.id.clone();
    assert_fails!(store.create_session(late.clone()).await, Error::Invalid(_));
    bench.send(&session.id, "its sessions go on").await;
    bench.work_off(TurnEnd::EndTurn).await;
    store.delete_session(&session.id, change("session.delete")).await.unwrap();
    gone().await.unwrap();
    assert_fails!(store.environment(&environment.id).await, Error::NotFound);
    assert_fails!(gone().await, Error::NotFound);
    late.id = bench.id();
    assert_fails!(store.create_session(late).await, Error::NotFound);
    assert_eq!(store.environment(&other.id).await.unwrap(), other);
}
