//! What happens when something goes wrong: to the database, to a connection, or in one operation of
//! many that share a commit.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bellpull::{
    domain::{ManagedBy, agent::AgentSpec, turn::TurnEnd},
    id::{AgentId, DeliveryId, SessionId},
    store::{Error, Hint, Location, Options, RouteTarget, Store, Verdict},
};
use futures_util::future::join_all;
use tokio::{sync::mpsc, task::JoinSet};

use super::{
    Bench,
    bench::{HOUR, Place, change, make_source, open},
    hammer::{Ledger, a_request, drain},
    messages,
};

on_both!(
    what_was_committed_survives_reopening,
    a_database_of_another_version_is_refused,
    a_closed_store_says_so,
    a_request_that_cannot_be_stored_fails_alone,
    failed_operations_undo_only_themselves,
    a_commit_that_fails_is_no_promise,
);

/// Longest wait for a state that is sure to come.
const PATIENCE: Duration = Duration::from_secs(20);

/// Looks again and again until there is something.
async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, looking).await.unwrap_or_else(|_| panic!("never: {what}"))
}

async fn what_was_committed_survives_reopening(bench: Bench) {
    let accepted = bench.accept(bench.draft("one").for_key("k")).await;
    let lease = bench.claim_one().await;
    bench.begin(&lease).await;
    bench.append(&lease, "half").await;
    bench.accept(bench.draft("two").for_key("k")).await;
    let session = lease.session_id.clone();
    let before = (
        bench.store.session(&session).await.unwrap(),
        bench.log(&session).await,
        bench.waiting(&session).await,
        bench.store.delivery(&accepted.delivery_id).await.unwrap(),
        bench.store.revision().await.unwrap(),
    );
    bench.store.close().await;
    let again = bench.another_node().await;
    let after = (
        again.store.session(&session).await.unwrap(),
        again.log(&session).await,
        again.waiting(&session).await,
        again.store.delivery(&accepted.delivery_id).await.unwrap(),
        again.store.revision().await.unwrap(),
    );
    assert_eq!(before, after);
    assert_eq!(again.accept(again.draft("one")).await.verdict, Verdict::Duplicate);
    // The lease is as good as before, and this life of the node does not want it.
    again.append(&lease, "whole").await;
    again.store.void_leases("node".to_owned(), "node:2".to_owned()).await.unwrap();
    let claimed = again.claim_as("node:2", HOUR).await.remove(0);
    assert_eq!(claimed.unfinished, before.0.turn_id);
    again.begin(&claimed.lease).await;
    again.finish(&claimed.lease, TurnEnd::EndTurn).await;
    again.work_off(TurnEnd::EndTurn).await;
    assert_eq!(messages(&again.log(&session).await), ["message one", "message two"]);
}

async fn a_database_of_another_version_is_refused(bench: Bench) {
    bench.store.close().await;
    for (version, says) in [("99", "start a newer bellpull"), ("0", "an empty data directory")] {
        let sql = format!("update meta set value = '{version}' where name = 'schema'");
        bench.place.sql(&sql).await;
        let opened =
            Store::open(&bench.place.location(), &Options::default(), bench.clock.clone()).await;
        let Err(Error::Conflict(text)) = opened else { panic!("{opened:?}") };
        assert!(text.contains(&format!("schema {version}")) && text.contains(says), "{text}");
    }
    // Looking at it has changed nothing.
    let version = bench.place.number("select value from meta where name = 'schema'").await;
    assert_eq!(version, 0);
}

async fn a_closed_store_says_so(bench: Bench) {
    let draft = bench.draft("late");
    bench.store.close().await;
    bench.store.close().await;
    assert_fails!(bench.store.accept(draft.0).await, Error::Unavailable(_));
    assert_fails!(bench.store.probe().await, Error::Unavailable(_));
    assert_fails!(bench.store.revision().await, Error::Unavailable(_));
    assert_fails!(bench.store.claim("n:1".to_owned(), HOUR, 1, None).await, Error::Unavailable(_));
}

/// Another process that keeps the file locked, such as a badly made backup.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_stays_locked_is_unavailable_on_sqlite() {
    let bench = Bench::sqlite().await;
    let first = bench.accept(bench.draft("first")).await;
    let barrier = barrier(&bench);
    let drafts: Vec<_> = (0..5).map(|n| bench.draft(&format!("{n}"))).collect();
    let answers = join_all(drafts.iter().map(|draft| bench.store.accept(draft.0.clone()))).await;
    for answer in answers {
        assert_fails!(answer, Error::Unavailable(_));
    }
    // Reading goes on meanwhile, and nothing of what failed is there later.
    bench.store.delivery(&first.delivery_id).await.unwrap();
    release(barrier.as_ref());
    for draft in drafts {
        assert_fails!(bench.store.delivery(&draft.0.id).await, Error::NotFound);
        assert_eq!(bench.accept(draft).await.verdict, Verdict::Accepted);
    }
}

#[tokio::test]
async fn a_place_that_holds_no_database_is_refused_by_sqlite() {
    let directory = tempfile::tempdir().unwrap();
    let clock = bellpull::clock::Clock::system();
    let open = async |path: &std::path::Path| {
        Store::open(&Location::Sqlite(path.to_owned()), &Options::default(), clock.clone()).await
    };
    let missing = directory.path().join("missing").join("bellpull.db");
    assert_fails!(open(&missing).await, Error::Unavailable(_));
    let text = directory.path().join("text.db");
    std::fs::write(&text, "no database, but long enough to be one. ".repeat(300)).unwrap();
    assert_fails!(open(&text).await, Error::Corrupt(_));
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unavailable_postgres() {
    // A port that nobody listens on: it was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let location = Location::Postgres(format!("postgres://nobody@127.0.0.1:{port}/none"));
    let clock = bellpull::clock::Clock::system();
    let opened = Store::open(&location, &Options::default(), clock).await;
    assert_fails!(opened, Error::Unavailable(_));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_start_at_once_share_one_schema_on_postgres() {
    let place = Arc::new(Place::database());
    let mut nodes = JoinSet::new();
    for _ in 0..6 {
        let place = place.clone();
        nodes.spawn(async move { open(&place, bellpull::clock::Clock::system()).await });
    }
    for store in nodes.join_all().await {
        assert_eq!(store.revision().await.unwrap(), 1);
    }
}

/// A session that exists cannot be made again, so this request cannot be stored.
async fn a_request_that_cannot_be_stored_fails_alone(bench: Bench) {
    let taken = bench.session().await;
    let bench = Arc::new(bench);
    let mut tasks = JoinSet::new();
    for n in 0..60 {
        let draft = bench.draft(&format!("{n}"));
        let draft = if n % 20 == 7 { draft.to(RouteTarget::New(taken.clone())) } else { draft };
        let bench = bench.clone();
        tasks.spawn(async move { (n % 20 == 7, bench.store.accept(draft.0).await) });
    }
    for (bad, answer) in tasks.join_all().await {
        match (bad, answer) {
            (true, Err(Error::Constraint(_))) => {}
            (false, Ok(Ok(accepted))) => assert_eq!(accepted.verdict, Verdict::Accepted),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(bench.place.number("select count(*) from deliveries").await, 57);
    // The sender's retry is a first request as before.
    assert_eq!(bench.accept(bench.draft("7")).await.verdict, Verdict::Accepted);
    assert_eq!(bench.claim().await.len(), 58);
}

/// Nobody can write until this is released: on SQLite everybody who waits then shares a commit.
fn barrier(bench: &Bench) -> Option<rusqlite::Connection> {
    let Location::Sqlite(path) = bench.place.location() else { return None };
    let connection = rusqlite::Connection::open(path).unwrap();
    connection.execute_batch("begin immediate").unwrap();
    Some(connection)
}

fn release(barrier: Option<&rusqlite::Connection>) {
    if let Some(connection) = barrier {
        connection.execute_batch("commit").unwrap();
    }
}

/// Everything goes well until the commit, which finds a constraint broken.
async fn a_commit_that_fails_is_no_promise(bench: Bench) {
    let broken = match &*bench.place {
        Place::Directory(_) => {
            "create table parent (id integer primary key);
             create table child (id references parent (id) deferrable initially deferred);
             create trigger broken after insert on deliveries when new.event_type = 'broken'
             begin insert into child values (1); end;"
        }
        Place::Database(_) => {
            "create function broken() returns trigger language plpgsql as
             $$ begin raise exception 'broken' using errcode = '23514'; end $$;
             create constraint trigger broken after insert on deliveries
             deferrable initially deferred for each row
             when (new.event_type = 'broken') execute function broken();"
        }
    };
    bench.place.script(broken).await;
    let mut drafts: Vec<_> = (0..20).map(|n| bench.draft(&format!("{n}"))).collect();
    drafts[7].0.event_type = Some("broken".to_owned());
    let barrier = barrier(&bench);
    let accepts = join_all(drafts.iter().map(|draft| bench.store.accept(draft.0.clone())));
    let (answers, ()) = tokio::join!(accepts, async { release(barrier.as_ref()) });
    assert_fails!(&answers[7], Error::Constraint(_));
    for (draft, answer) in drafts.iter().zip(answers) {
        let found = bench.store.delivery(&draft.0.id).await;
        match answer {
            Ok(accepted) => assert_eq!(accepted.unwrap().delivery_id, found.unwrap().id),
            Err(error) => {
                assert!(matches!(error, Error::Constraint(_)), "{}", error.detail());
                assert_fails!(found, Error::NotFound);
            }
        }
        // Whoever was not promised anything tries again.
        if draft.0.event_type.as_deref() != Some("broken") {
            bench.accept(draft.clone()).await;
        }
    }
    assert_eq!(bench.claim().await.len(), 19);
}

async fn failed_operations_undo_only_themselves(bench: Bench) {
    let barrier = barrier(&bench);
    let accepts = join_all((0..50).map(|n| bench.accept(bench.draft(&format!("{n}")))));
    // Each has written an agent and its version before it turns out that the source is taken.
    let failures = join_all((0..50).map(|_| async {
        let mut source = make_agents_source(&bench);
        source.name = bench.agent.id.to_string();
        let spec = AgentSpec::new("bob", "rehearsal");
        bench.store.create_agent(bench.id(), spec, ManagedBy::Api, source, change("x")).await
    }));
    let sends = async {
        let session = bench.session().await;
        bench.send(&session, "hello").await;
        session
    };
    let release = async { release(barrier.as_ref()) };
    let (accepted, failed, session, ()) = tokio::join!(accepts, failures, sends, release);
    for failure in failed {
        assert_fails!(failure, Error::Constraint(_));
    }
    assert_eq!(bench.place.number("select count(*) from agents").await, 1);
    assert_eq!(bench.place.number("select count(*) from agent_versions").await, 1);
    for accepted in accepted {
        assert_eq!(accepted.verdict, Verdict::Accepted);
        bench.store.delivery(&accepted.delivery_id).await.unwrap();
    }
    assert_eq!(messages(&bench.waiting(&session).await), ["hello"]);
    assert_eq!(bench.claim().await.len(), 51);
}

fn make_agents_source(bench: &Bench) -> bellpull::domain::source::Source {
    let agent: AgentId = bench.agent.id.clone();
    bellpull::domain::source::Source {
        kind: bellpull::domain::source::SourceKind::Agent(agent),
        id: bench.id(),
        ..bench.source.clone()
    }
}

/// Ends the connections of all stores of this database, as a server does that stops. Tells how many.
async fn terminate(place: &Place) -> i64 {
    count_connections(place, "pg_terminate_backend(pid)").await
}

async fn n_connections(place: &Place) -> i64 {
    count_connections(place, "*").await
}

async fn count_connections(place: &Place, what: &str) -> i64 {
    let sql = format!(
        "select count({what}) from pg_stat_activity \
         where datname = current_database() and application_name = 'bellpull'"
    );
    place.number(&sql).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_promise_is_kept_when_connections_end_on_postgres() {
    const ROUNDS: usize = 12;
    let n_requests = if crate::support::full() { 1_000 } else { 150 };
    let bench = Arc::new(Bench::postgres().await);
    let target: SessionId = bench.session().await;
    let ledger = Arc::new(Ledger::default());
    let n_answers = Arc::new(AtomicUsize::new(0));
    let mut senders = JoinSet::new();
    for sender in 0..8 {
        let (bench, ledger, target) = (bench.clone(), ledger.clone(), target.clone());
        let n_answers = n_answers.clone();
        senders.spawn(async move {
            let mut n_unknown = 0;
            for n in 0..n_requests {
                let number = sender * n_requests + n;
                let draft = a_request(&bench, &target, number);
                let id = draft.0.id.clone();
                match ledger.try_accept(&bench, draft).await {
                    Ok(()) => {}
                    Err(Error::Unavailable(_)) => nothing_of(&bench, &id).await,
                    Err(Error::CommitUnknown(_)) => n_unknown += 1,
                    Err(error) => panic!("{}", error.detail()),
                }
                n_answers.fetch_add(1, Ordering::SeqCst);
            }
            n_unknown
        });
    }
    let worker = {
        let bench = bench.clone();
        JoinSet::from_iter([async move { work_through_failures(&bench).await }])
    };
    let mut n_ended = 0;
    for round in 1..=ROUNDS {
        let wanted = round * 8 * n_requests / (ROUNDS + 1);
        let reached = async || (n_answers.load(Ordering::SeqCst) >= wanted).then_some(());
        eventually("requests are answered", reached).await;
        n_ended += terminate(&bench.place).await;
    }
    assert!(n_ended > ROUNDS as i64, "only {n_ended} connections were ended");
    let n_unknown: usize = senders.join_all().await.into_iter().sum();
    drop(worker);

    // Senders try again what they were not promised, and everything comes to its end.
    eventually("the database works again", async || bench.store.probe().await.ok()).await;
    let again = (0..8 * n_requests).map(|number| a_request(&bench, &target, number));
    let again = join_all(again.map(|draft| ledger.try_accept(&bench, draft))).await;
    assert!(again.iter().all(Result::is_ok), "{again:?}");
    bench.store.void_leases("node".to_owned(), "node:end".to_owned()).await.unwrap();
    drain(&bench).await;
    ledger.balance(&bench).await;
    println!("{n_ended} connections ended, {n_unknown} commits of unknown result");
}

/// What was not available has not been written either.
async fn nothing_of(bench: &Bench, id: &DeliveryId) {
    let looking = async {
        loop {
            match bench.store.delivery(id).await {
                Err(Error::NotFound) => return,
                Ok(_) => panic!("{id} was written after all"),
                Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, looking).await.expect("the database comes back");
}

/// A worker that gives up a turn whenever it fails. Works until it is dropped.
async fn work_through_failures(bench: &Bench) {
    let store = &bench.store;
    loop {
        let Ok((claimed, _)) = store.claim("node:1".to_owned(), HOUR, 3, None).await else {
            continue;
        };
        for claimed in claimed {
            let turn = async {
                store.begin_turn(&claimed.lease, bench.beginning()).await?;
                let idle = vec![bench.idle(TurnEnd::EndTurn)];
                store.finish(&claimed.lease, TurnEnd::EndTurn, idle, Duration::ZERO).await
            };
            match turn.await {
                Ok(()) | Err(Error::Unavailable(_) | Error::CommitUnknown(_)) => {}
                Err(error) => panic!("{}", error.detail()),
            }
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_end_while_nobody_uses_them_fail_nobody_on_postgres() {
    let bench = Bench::postgres().await;
    let session = bench.session().await;
    let rounds = if crate::support::full() { 20 } else { 5 };
    for round in 0..rounds {
        let at_once = |n: usize| {
            let text = format!("{round} {n}");
            let (bench, session) = (&bench, &session);
            async move { bench.store.send(session, vec![bench.message(&text)], 1_000).await }
        };
        let sent = join_all((0..8).map(at_once)).await;
        sent.into_iter().for_each(|it| drop(it.unwrap()));
        bench.accept(bench.draft(&format!("rung {round}")).for_session(&session)).await;
        // All of them have ended, and nobody has used one since.
        assert!(terminate(&bench.place).await > 1);
        eventually("no connection", async || {
            (n_connections(&bench.place).await == 0).then_some(())
        })
        .await;
    }
    let waiting = format!("select inbox_given from sessions where id = '{session}'");
    assert_eq!(bench.place.number(&waiting).await, 9 * rounds);
}

/// Somebody else's open transaction that has the session's row.
async fn hold(bench: &Bench, session: &SessionId) -> tokio_postgres::Client {
    let Location::Postgres(url) = bench.place.location() else {
        unreachable!("this is PostgreSQL")
    };
    let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let lock = format!("begin; select 1 from sessions where id = '{session}' for update");
    client.batch_execute(&lock).await.unwrap();
    client
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waited_too_long_for_a_connection_is_never_done_on_postgres() {
    let bench = Bench::postgres().await;
    let session = bench.session().await;
    let options =
        Options { statement_seconds_max: 1, postgres_connections_max: 1, ..Options::default() };
    let store = Store::open(&bench.place.location(), &options, bench.clock.clone()).await.unwrap();
    let rival = hold(&bench, &session).await;
    let wait = |n: usize| store.send(&session, vec![bench.message(&n.to_string())], 10);
    for waited in join_all((0..4).map(wait)).await {
        assert_fails!(waited, Error::Unavailable(_));
    }
    rival.batch_execute("rollback").await.unwrap();
    // On the one connection that there is, and so after whatever still waited for it.
    store.send(&session, vec![bench.message("sent")], 10).await.unwrap();
    assert_eq!(messages(&bench.waiting(&session).await), ["sent"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_that_takes_too_long_is_given_up_on_postgres() {
    let bench = Bench::postgres().await;
    let session = bench.session().await;
    let options = Options { statement_seconds_max: 1, ..Options::default() };
    let store = Store::open(&bench.place.location(), &options, bench.clock.clone()).await.unwrap();
    let rival = hold(&bench, &session).await;
    let waits = vec![bench.message("waits")];
    assert_fails!(store.send(&session, waits, 10).await, Error::Unavailable(_));
    // Others are not held up, and when the lock is gone, nothing of the given up is there.
    store.probe().await.unwrap();
    rival.batch_execute("rollback").await.unwrap();
    let sent = vec![bench.message("sent")];
    store.send(&session, sent, 10).await.unwrap();
    assert_eq!(messages(&bench.waiting(&session).await), ["sent"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hints_reach_the_other_node_and_survive_its_connection_on_postgres() {
    let bench = Arc::new(Bench::postgres().await);
    let other = bench.another_node().await;
    let session: SessionId = bench.id();
    let wanted = [Hint::Due, Hint::Changed(session)];
    let (heard, mut hints) = mpsc::unbounded_channel();
    let listening = async {
        let (_keep, mut nothing) = mpsc::channel(1);
        loop {
            // Ends when the connection does; its caller calls again.
            let heard = |hint| heard.send(hint).expect("somebody listens");
            let ended = other.store.exchange_hints(&mut nothing, heard).await;
            assert_fails!(ended, Error::Unavailable(_));
        }
    };
    let (sender, mut outgoing) = mpsc::channel(8);
    let sending = async {
        loop {
            let _ = bench.store.exchange_hints(&mut outgoing, |_| {}).await;
        }
    };
    let story = async {
        for round in 0..3 {
            // A hint may be lost, so it is given until it has come.
            for hint in &wanted {
                eventually("a hint comes", async || {
                    let _ = sender.try_send(hint.clone());
                    hints.try_recv().ok().filter(|heard| heard == hint)
                })
                .await;
            }
            if round < 2 {
                let n_ended = eventually("there is a connection", async || {
                    Some(terminate(&bench.place).await).filter(|n| *n > 0)
                });
                n_ended.await;
            }
        }
    };
    tokio::select! {
        () = story => {}
        () = async { tokio::join!(listening, sending); } => unreachable!("they never end"),
    }
    make_source(&other.store, "still works").await;
}

#[tokio::test]
async fn hints_go_nowhere_on_sqlite() {
    let bench = Bench::sqlite().await;
    let (sender, mut outgoing) = mpsc::channel(1);
    let exchange = bench.store.exchange_hints(&mut outgoing, |hint| panic!("{hint:?} came"));
    let story = async {
        // They are taken, so that nobody waits to give them.
        for _ in 0..100 {
            sender.send(Hint::Due).await.unwrap();
        }
    };
    tokio::select! {
        result = exchange => panic!("{result:?}"),
        () = story => {}
    }
}
