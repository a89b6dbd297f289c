//! What was used, by whom and when, and the words of the audit log.

use std::time::Duration;

use bellpull::{
    domain::{
        ManagedBy,
        budget::{Budget, Budgets, CommonBudgets, Used, Wish},
        cost::{MicroUsd, Spent},
        event::{EventBody, NewEvent, Usage},
        turn::TurnEnd,
    },
    id::Id,
    store::{AuditFilter, BUDGETS_OF_ALL, Beside, Lease, Location, Reserve, Retention, Spender},
};
use futures_util::future::{join_all, select_all};

use super::{Bench, bench::change};

on_both!(
    what_was_used_is_counted_by_agent_source_model_and_day,
    a_request_that_was_stopped_counts,
    a_budget_shows_what_is_used_and_reserved,
    the_audit_log_is_filtered,
    a_day_of_counting_outlives_its_process_and_shows_all_nodes,
);

async fn ask(bench: &Bench, lease: &Lease, model: &str) {
    let reserve = Reserve {
        common: CommonBudgets::default(),
        wish: Wish::Model { cost: Some(MicroUsd(50)), tokens: 500, model: model.to_owned() },
        active_ms: 0,
    };
    let begun = bench.store.begin_work(lease, vec![bench.running()], Beside::default(), reserve);
    begun.await.unwrap();
}

async fn a_request_that_was_stopped_counts(bench: Bench) {
    bench.accept(bench.draft("one")).await;
    let lease = bench.claim_one().await;
    bench.begin(&lease).await;
    ask(&bench, &lease, "large").await;
    let model_request_start_id = bench.id();
    let end = EventBody::ModelRequestEnd {
        model_request_start_id,
        is_error: Some(true),
        model_usage: Usage::default(),
        cost_usd: None,
    };
    let events = vec![NewEvent::new(bench.id(), end), bench.idle(TurnEnd::Interrupted)];
    bench.store.finish(&lease, TurnEnd::Interrupted, events, Duration::ZERO).await.unwrap();
    for scope in ["model:large", "all", lease.session_id.as_str(), bench.agent.id.as_str()] {
        let sql = format!("select model_calls from spending where scope = '{scope}'");
        assert_eq!(bench.place.number(&sql).await, 1, "{scope}");
    }
    assert_eq!(bench.place.number("select count(*) from reservations").await, 0);
}

/// What all count in are not rows in which each waits for the commits of the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn turns_of_other_sessions_end_while_one_holds_what_it_counted_on_postgres() {
    let bench = Bench::postgres().await;
    bench.accept(bench.draft("first")).await;
    bench.work_off(TurnEnd::EndTurn).await;
    let Location::Postgres(url) = bench.place.location() else {
        unreachable!("this is PostgreSQL")
    };
    let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    let lock = "begin; select scope from spending where day > 0 for update";
    client.batch_execute(lock).await.unwrap();
    let mut ends = Vec::new();
    for n in 0..8 {
        bench.accept(bench.draft(&n.to_string())).await;
        let lease = bench.claim_one().await;
        bench.begin(&lease).await;
        ends.push(lease);
    }
    let bench = &bench;
    let ends = ends.iter().map(|lease| Box::pin(bench.finish(lease, TurnEnd::EndTurn)));
    // Those that count where the first one did wait for it; that all of them do never happens.
    let first = tokio::time::timeout(Duration::from_secs(10), select_all(ends)).await;
    let (.., others) = first.expect("somebody is done");
    client.batch_execute("rollback").await.unwrap();
    join_all(others).await;
    drop(client);
    connection.await.unwrap().unwrap();
    assert_eq!(turns_of_all(bench).await, (Some(9), vec![9]));

    // Days that are long over are read in one piece, and say the same.
    bench.place.script("update spending set day = day - 3 where day > 0").await;
    let n_parts = bench.place.number("select count(*) from spending where part > 0").await;
    let n_scopes = bench.place.number("select count(distinct scope) from spending where part > 0");
    let n_scopes = n_scopes.await;
    assert!(n_parts > n_scopes, "{n_parts} parts of {n_scopes}");
    bench.store.prune(&Retention::default()).await.unwrap();
    let of =
        |which: &str| format!("select count(*) from spending where day > 0 and part {which} 0");
    assert_eq!(bench.place.number(&of("=")).await, n_scopes);
    assert_eq!(bench.place.number(&of(">")).await, 0);
    assert_eq!(turns_of_all(bench).await, (Some(9), vec![9]));
}

/// In sum, and by day.
async fn turns_of_all(bench: &Bench) -> (Option<i64>, Vec<i64>) {
    let used = bench.store.usage(0).await.unwrap();
    let all = used.iter().find(|(spender, _)| *spender == Spender::All).map(|(_, used)| used.turns);
    let days = bench.store.usage_by_day(&Spender::All, 0).await.unwrap();
    (all, days.iter().map(|(_, used)| used.turns).collect())
}

async fn answer(bench: &Bench, lease: &Lease, cost: Option<MicroUsd>) {
    let usage = Usage { input_tokens: 10, output_tokens: 5, ..Usage::default() };
    let beside = Beside { asked: true, ..Beside::default() };
    let spent = Spent { usage, cost };
    bench.store.append_with(lease, vec![bench.says("done")], spent, beside).await.unwrap();
}

async fn what_was_used_is_counted_by_agent_source_model_and_day(bench: Bench) {
    bench.accept(bench.draft("one")).await;
    let lease = bench.claim_one().await;
    bench.begin(&lease).await;
    ask(&bench, &lease, "large").await;
    answer(&bench, &lease, Some(MicroUsd(40))).await;
    ask(&bench, &lease, "small").await;
    answer(&bench, &lease, None).await;
    bench.finish(&lease, TurnEnd::EndTurn).await;

    let found = bench.store.usage(1).await.unwrap();
    let of = |spender: Spender| {
        let found = found.iter().find(|(it, _)| *it == spender);
        let used = found.map(|(_, used)| *used).unwrap_or_default();
        (used.cost.0, used.tokens, used.model_calls, used.turns, used.unpriced_calls)
    };
    let whole = (40, 30, 2, 1, 1);
    assert_eq!(of(Spender::All), whole);
    assert_eq!(of(Spender::Agent(bench.agent.id.to_string())), whole);
    assert_eq!(of(Spender::Source(bench.source.id.to_string())), whole);
    assert_eq!(of(Spender::Model("large".to_owned())), (40, 15, 1, 0, 0));
    assert_eq!(of(Spender::Model("small".to_owned())), (0, 15, 1, 0, 1));
    assert_eq!(found.len(), 5, "sessions and turns are nobody of these: {found:?}");

    let days = bench.store.usage_by_day(&Spender::All, 1).await.unwrap();
    assert_eq!(days.iter().map(|(_, used)| used.tokens).collect::<Vec<_>>(), [30]);
    let (today, _) = days[0];
    assert!(bench.store.usage(today).await.unwrap().len() == 5, "its first day counts");
    assert!(bench.store.usage(today + 1).await.unwrap().is_empty());
}

async fn a_budget_shows_what_is_used_and_reserved(bench: Bench) {
    let day = Budget { model_calls: Some(1), ..Budget::default() };
    let budgets = Budgets { day, ..Budgets::default() };
    for owner in [BUDGETS_OF_ALL, bench.agent.id.as_str()] {
        bench
            .store
            .set_budgets(owner.to_owned(), ManagedBy::Api, budgets, change("budgets.set"))
            .await
            .unwrap();
    }
    bench.accept(bench.draft("one")).await;
    let lease = bench.claim_one().await;
    bench.begin(&lease).await;
    ask(&bench, &lease, "large").await;
    let states = bench.store.budget_states().await.unwrap();
    assert_eq!(states.len(), 2);
    for state in &states {
        assert_eq!(state.budgets, budgets);
        assert_eq!((state.reserved.cost.0, state.reserved.tokens), (50, 500), "{}", state.owner);
        assert_eq!(state.today.model_calls, 0);
    }
    answer(&bench, &lease, Some(MicroUsd(40))).await;
    let states = bench.store.budget_states().await.unwrap();
    for state in &states {
        assert_eq!(state.reserved, Used::default());
        assert_eq!((state.today.cost.0, state.today.model_calls), (40, 1));
    }
    assert!(states.iter().any(|state| state.owner == BUDGETS_OF_ALL));
}

async fn the_audit_log_is_filtered(bench: Bench) {
    let before = bench.store.audit_words().await.unwrap();
    for (actor, action) in [("ann", "thing.make"), ("ben", "thing.make"), ("ann", "thing.break")] {
        let mut change = change(action);
        change.actor = actor.to_owned();
        let owner = bench.agent.id.to_string();
        bench.store.set_budgets(owner, ManagedBy::Api, Budgets::default(), change).await.unwrap();
    }
    let (actors, actions) = bench.store.audit_words().await.unwrap();
    assert_eq!(actors.len(), before.0.len() + 2);
    assert_eq!(actions.len(), before.1.len() + 2);
    assert!(actors.is_sorted() && actions.is_sorted());
    let of = async |actor: Option<&str>, action: Option<&str>| {
        let filter = AuditFilter {
            actor: actor.map(str::to_owned),
            action: action.map(str::to_owned),
            cursor: None,
            limit: 10,
        };
        let found = bench.store.audit_of(filter).await.unwrap().data;
        let said = found.into_iter().map(|it| format!("{} {}", it.actor, it.action));
        let mut said = said.collect::<Vec<_>>();
        // They have one time, so their order is nobody's.
        said.sort();
        said
    };
    assert_eq!(of(Some("ann"), None).await, ["ann thing.break", "ann thing.make"]);
    assert_eq!(of(None, Some("thing.make")).await, ["ann thing.make", "ben thing.make"]);
    assert_eq!(of(Some("ben"), Some("thing.break")).await, Vec::<String>::new());
}

async fn a_day_of_counting_outlives_its_process_and_shows_all_nodes(bench: Bench) {
    let fail = |bench: &Bench| {
        bench.store.metrics().turn_ended(TurnEnd::Failed, Duration::from_secs(1));
    };
    let failed = |bench: &Bench| -> u64 {
        let day = bench.store.metrics().day(bench.clock.now());
        day.iter().map(|it| it.turns(&[TurnEnd::Failed])).sum()
    };
    let keep = async |bench: &Bench, node: &str| {
        bench.store.keep_day(node.to_owned()).await.unwrap();
        bench.store.look_at_day_of_others(node.to_owned()).await.unwrap();
    };
    keep(&bench, "one").await;
    assert_eq!(bench.place.number("select count(*) from days").await, 0, "nothing was counted");
    for _ in 0..2 {
        fail(&bench);
        keep(&bench, "one").await;
        keep(&bench, "one").await;
        bench.clock.advance(Duration::from_secs(3600));
    }

    let next_life = bench.another_node().await;
    next_life.store.take_up_day("one".to_owned()).await.unwrap();
    assert_eq!(failed(&next_life), 2);
    fail(&next_life);
    keep(&next_life, "one").await;
    assert_eq!(failed(&next_life), 3, "its own are not another node's");

    let other = bench.another_node().await;
    other.store.take_up_day("two".to_owned()).await.unwrap();
    fail(&other);
    assert_eq!(failed(&other), 1);
    keep(&other, "two").await;
    keep(&next_life, "one").await;
    assert_eq!((failed(&other), failed(&next_life)), (4, 4));

    // Written by whatever version of whomever.
    bench.place.script("update days set counts = '{}' where node = 'one'").await;
    keep(&other, "two").await;
    assert_eq!(failed(&other), 1);
    bench.clock.advance(Duration::from_secs(25 * 3600));
    fail(&other);
    keep(&other, "two").await;
    assert_eq!(bench.place.number("select count(*) from days").await, 1, "the rest is gone");
    assert_eq!(failed(&other), 1);

    // A clock that was ahead: the next life counts where it is now.
    bench.place.script("update days set began = began + 864000000").await;
    let later = bench.another_node().await;
    later.store.take_up_day("two".to_owned()).await.unwrap();
    fail(&later);
    assert_eq!(failed(&later), 1);
}
