//! Sessions made and used through the API.

use std::time::Duration;

use bellpull::{
    clock::Timestamp,
    domain::{
        agent::AgentSpec,
        cost::Cost,
        event::Usage,
        session::{Session, Status},
        turn::TurnEnd,
    },
    id::{AgentId, DeploymentId, SessionId},
    store::{Error, NewSession, SessionFilter},
};

use super::{
    Bench,
    bench::{change, make_agent, make_source},
    messages,
};

on_both!(
    a_new_session_rests_or_runs_from_the_start,
    a_session_needs_its_agents_version,
    messages_are_sent_all_or_none,
    an_archived_session_takes_nothing,
    a_session_at_work_is_not_archived,
    sessions_are_listed_in_both_directions,
    an_agents_sessions_are_one_list,
    sessions_are_filtered,
    sessions_are_found_by_their_titles,
);

async fn a_new_session_rests_or_runs_from_the_start(bench: Bench) {
    let mut overridden = AgentSpec::new("alice for once", "openai/gpt-x");
    overridden.system = Some("Be brief.".to_owned());
    let deployment: DeploymentId = bench.id();
    let resting = NewSession {
        overrides: Some(serde_json::to_string(&overridden).unwrap()),
        title: Some("a title".to_owned()),
        metadata: [("k".to_owned(), "v".to_owned())].into(),
        vault_ids: vec!["vlt_1".to_owned()],
        deployment_id: Some(deployment.clone()),
        ..bench.new_session(&bench.agent)
    };
    let made = bench.store.create_session(resting.clone()).await.unwrap();
    let wanted = Session {
        outcomes: Vec::new(),
        resources: Vec::new(),
        budget: Default::default(),
        id: resting.id.clone(),
        agent_id: bench.agent.id.clone(),
        agent_version: 1,
        agent: overridden,
        environment_id: bench.environment.id.clone(),
        source_id: None,
        source_name: None,
        title: resting.title,
        metadata: resting.metadata,
        status: Status::Idle,
        created_at: bench.clock.now(),
        updated_at: bench.clock.now(),
        archived_at: None,
        n_waiting: 0,
        next_seq: 1,
        turn_id: None,
        has_begun: false,
        vault_ids: vec!["vlt_1".to_owned()],
        deployment_id: Some(deployment),
        usage: Usage::default(),
        cost: Cost::default(),
        active_ms: 0,
    };
    assert_eq!(made, wanted);
    assert_eq!(bench.store.session(&resting.id).await.unwrap(), wanted);
    assert_eq!(bench.claim().await, []);

    let mut running = bench.new_session(&bench.agent);
    running.messages = vec![bench.message("one"), bench.message("two")];
    let made = bench.store.create_session(running).await.unwrap();
    assert_eq!((made.status, made.n_waiting), (Status::Running, 2));
    assert_eq!(bench.work_off(TurnEnd::EndTurn).await, made.id);
    assert_eq!(messages(&bench.log(&made.id).await), ["one", "two"]);
}

async fn a_session_needs_its_agents_version(bench: Bench) {
    let missing: AgentId = bench.id();
    let no_agent = NewSession { agent_id: missing, ..bench.new_session(&bench.agent) };
    let no_version = NewSession { agent_version: 7, ..bench.new_session(&bench.agent) };
    for session in [no_agent, no_version] {
        let id = session.id.clone();
        assert_fails!(bench.store.create_session(session).await, Error::NotFound);
        assert_fails!(bench.store.session(&id).await, Error::NotFound);
        assert_eq!(
            bench.place.number(&format!("select count(*) from sessions where id = '{id}'")).await,
            0
        );
    }
}

async fn messages_are_sent_all_or_none(bench: Bench) {
    let session = bench.session().await;
    let message = |text: &str| bench.message(text);
    let sent = vec![message("one"), message("two")];
    let answer = bench.store.send(&session, sent.clone(), 3).await.unwrap();
    for (event, message) in answer.iter().zip(&sent) {
        assert_eq!((&event.id, &event.body), (&message.event_id, &message.body));
        assert_eq!((event.seq, event.processed_at), (None, None));
    }
    assert_eq!(answer.len(), 2);
    let too_many = vec![message("three"), message("four")];
    assert_fails!(bench.store.send(&session, too_many, 3).await, Error::Full(_));
    bench.store.send(&session, vec![message("three")], 3).await.unwrap();
    assert_eq!(messages(&bench.waiting(&session).await), ["one", "two", "three"]);

    let missing: SessionId = bench.id();
    assert_fails!(bench.store.send(&missing, vec![message("x")], 3).await, Error::NotFound);
    assert_eq!(bench.claim().await.len(), 1);
}

async fn an_archived_session_takes_nothing(bench: Bench) {
    let session = bench.accept(bench.draft("one")).await.session_id.unwrap();
    bench.work_off(TurnEnd::EndTurn).await;
    let archived = bench.store.archive_session(&session, change("session.archive")).await.unwrap();
    let log = bench.log(&session).await;
    assert_eq!(log.last().unwrap().body.kind(), "session.status_terminated");
    assert_eq!(archived.archived_at, Some(bench.clock.now()));
    assert_eq!(archived.to_json(bench.clock.now())["status"], "terminated");

    bench.clock.advance(Duration::from_secs(1));
    let again = bench.store.archive_session(&session, change("session.archive")).await.unwrap();
    assert_eq!(again, archived, "archived once");
    let send = bench.store.send(&session, vec![bench.message("late")], 10).await;
    assert_fails!(send, Error::Conflict(_));
    assert_eq!(bench.claim().await, []);
    assert_eq!(bench.log(&session).await, log, "the log stays");
    let missing: SessionId = bench.id();
    assert_fails!(
        bench.store.archive_session(&missing, change("session.archive")).await,
        Error::NotFound
    );
}

async fn a_session_at_work_is_not_archived(bench: Bench) {
    let session = bench.session().await;
    let refused = async || {
        let answer = bench.store.archive_session(&session, change("session.archive")).await;
        match answer {
            Err(Error::Conflict(text)) => assert_eq!(text, "cannot archive while running"),
            other => panic!("{other:?}"),
        }
    };
    // A message that was promised is worked on first.
    bench.send(&session, "one").await;
    refused().await;
    let lease = bench.claim_one().await;
    refused().await;
    bench.begin(&lease).await;
    refused().await;
    bench.send(&session, "two").await;
    bench.finish(&lease, TurnEnd::EndTurn).await;
    refused().await;
    bench.work_off(TurnEnd::EndTurn).await;
    bench.store.archive_session(&session, change("session.archive")).await.unwrap();
}

async fn list(bench: &Bench, filter: &SessionFilter) -> Vec<SessionId> {
    let (mut found, mut filter) = (Vec::new(), filter.clone());
    loop {
        let page = bench.store.sessions(filter.clone()).await.unwrap();
        assert!(page.data.len() <= filter.limit);
        found.extend(page.data.into_iter().map(|session| session.id));
        let Some(next) = page.next else { return found };
        filter.cursor = Some(next.parse().unwrap());
    }
}

async fn sessions_are_listed_in_both_directions(bench: Bench) {
    let mut ids = Vec::new();
    for _ in 0..7 {
        ids.push(bench.session().await);
    }
    for oldest_first in [true, false] {
        for limit in [1, 3, 7, 100] {
            let filter = SessionFilter { oldest_first, limit, ..SessionFilter::default() };
            assert_eq!(list(&bench, &filter).await, ids, "pages of {limit}");
        }
        ids.reverse();
    }
}

/// Whatever they wait for, and whoever made them: they are found by several indexes.
async fn an_agents_sessions_are_one_list(bench: Bench) {
    let bob = make_agent(&bench.store, "bob").await;
    let github = make_source(&bench.store, "github").await;
    let mut own = Vec::new();
    for n in 0..4 {
        let draft = |what: &str| bench.draft(&format!("{what} {n}"));
        own.push(bench.accept(draft("used")).await.session_id.unwrap());
        assert_eq!(bench.work_off(TurnEnd::EndTurn).await, own[own.len() - 1]);
        bench.clock.advance(Duration::from_millis(1));
        let api = bench.new_session(&bench.agent);
        own.push(bench.store.create_session(api).await.unwrap().id);
        bench.clock.advance(Duration::from_millis(1));
        let more: [&dyn Fn() -> _; 3] =
            [&|| draft("one"), &|| draft("other").of_source(&github), &|| {
                draft("big").text(&"x".repeat(5000))
            }];
        for draft in more {
            own.push(bench.accept(draft()).await.session_id.unwrap());
            bench.clock.advance(Duration::from_millis(1));
        }
        bench.accept(draft("bob's").of_agent(&bob)).await;
        bench.clock.advance(Duration::from_millis(1));
        // All that wait are taken up but for those of the last round.
        if n < 3 {
            while !bench.claim().await.is_empty() {}
        }
    }
    let all = |sessions: &[Session]| sessions.iter().map(|it| it.id.clone()).collect::<Vec<_>>();
    for oldest_first in [true, false] {
        let mut filter = SessionFilter {
            agent_id: Some(bench.agent.id.clone()),
            oldest_first,
            limit: 3,
            ..SessionFilter::default()
        };
        let mut found = Vec::new();
        loop {
            let page = bench.store.sessions(filter.clone()).await.unwrap();
            found.extend(all(&page.data));
            let Some(next) = page.next else { break };
            filter.cursor = Some(next.parse().unwrap());
        }
        if !oldest_first {
            found.reverse();
        }
        assert_eq!(found, own);
    }
    let of_source = SessionFilter {
        agent_id: Some(bench.agent.id.clone()),
        source_id: Some(github.id.clone()),
        limit: 9,
        ..SessionFilter::default()
    };
    let of_source = bench.store.sessions(of_source).await.unwrap();
    assert_eq!(all(&of_source.data), [18, 13, 8, 3].map(|at: usize| own[at].clone()));
    let newest = bench.store.last_sessions(vec![bench.agent.id.clone(), bob.id.clone()]);
    let newest = newest.await.unwrap();
    assert_eq!(newest.len(), 2);
    for last in newest {
        assert_eq!(last.agent_id == bench.agent.id, last.id == own[own.len() - 1]);
    }
}

/// `SQLite` puts no more than 500 selections together.
#[tokio::test]
async fn an_agents_list_is_of_as_many_sources_as_there_are() {
    let bench = Bench::sqlite().await;
    for n in 0..510 {
        let source = make_source(&bench.store, &format!("source-{n}")).await;
        bench.accept(bench.draft(&format!("{n}")).of_source(&source)).await;
    }
    let agent_id = Some(bench.agent.id.clone());
    let filter = SessionFilter { agent_id, limit: 1000, ..SessionFilter::default() };
    assert_eq!(bench.store.sessions(filter).await.unwrap().data.len(), 510);
}

async fn sessions_are_filtered(bench: Bench) {
    let bob = make_agent(&bench.store, "bob").await;
    let idle = bench.session().await;
    let of_bob = bench.store.create_session(bench.new_session(&bob)).await.unwrap();
    let running = bench.session().await;
    bench.send(&running, "go").await;
    bench.begin(&bench.claim_one().await).await;
    let archived = bench.session().await;
    bench.store.archive_session(&archived, change("session.archive")).await.unwrap();

    let check = async |filter: SessionFilter, wanted: &[&SessionId]| {
        let filter = SessionFilter { limit: 2, ..filter };
        let found = list(&bench, &filter).await;
        assert_eq!(found.iter().collect::<Vec<_>>(), wanted, "{filter:?}");
    };
    let all = SessionFilter::default;
    check(all(), &[&running, &of_bob.id, &idle]).await;
    let everything = [&archived, &running, &of_bob.id, &idle];
    check(SessionFilter { include_archived: true, ..all() }, &everything).await;
    check(SessionFilter { agent_id: Some(bob.id.clone()), ..all() }, &[&of_bob.id]).await;
    check(SessionFilter { agent_version: Some(2), ..all() }, &[]).await;
    check(SessionFilter { statuses: vec![Status::Running], ..all() }, &[&running]).await;
    let statuses = vec![Status::Idle, Status::Terminated];
    check(SessionFilter { statuses, ..all() }, &[&of_bob.id, &idle]).await;
    let at = of_bob.created_at;
    check(SessionFilter { created_after: Some(at), ..all() }, &[&running, &of_bob.id]).await;
    check(SessionFilter { created_before: Some(at), ..all() }, &[&of_bob.id, &idle]).await;
    let (created_after, created_before) = (Some(at), Some(at));
    check(SessionFilter { created_after, created_before, ..all() }, &[&of_bob.id]).await;
    check(SessionFilter { created_before: Some(Timestamp(0)), ..all() }, &[]).await;
}

async fn sessions_are_found_by_their_titles(bench: Bench) {
    for title in ["Über 100 % of_it", "uber-all", "a\\b"] {
        let title = Some(title.to_owned());
        let session = NewSession { title, ..bench.new_session(&bench.agent) };
        bench.store.create_session(session).await.unwrap();
    }
    bench.session().await;
    for (text, n) in [
        ("Über", 1),
        ("UBER", 1),
        ("of_it", 1),
        ("OF_", 1),
        ("%", 1),
        ("100_%", 0),
        ("\\", 1),
        ("b", 3),
        ("", 3),
        ("nothing", 0),
    ] {
        let title_has = Some(text.to_owned());
        let filter = SessionFilter { title_has, limit: 10, ..SessionFilter::default() };
        let found = bench.store.sessions(filter).await.unwrap().data;
        let titles: Vec<_> = found.into_iter().map(|it| it.title).collect();
        assert_eq!(titles.len(), n, "{text}: {titles:?}");
    }
}
