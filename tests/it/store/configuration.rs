//! What the operator decides: agents, sources, secrets, keys, environments, and the audit log of it.

use std::{sync::Arc, time::Duration};

use bellpull::{
    domain::{
        ManagedBy,
        agent::{AgentPatch, AgentSpec},
        key::{Scope, Scopes},
        source::{OnRedelivery, Source, SourceKind},
        verifier::Verifier,
    },
    id::{AgentId, ApiKeyId, EnvironmentId, SourceId},
    store::{ApiKey, Error, Verdict},
};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{
    Bench,
    bench::{HOUR, change, environment, make_agent, make_environment, make_source, source},
};

on_both!(
    a_change_of_an_agent_makes_a_version,
    a_patch_that_cannot_be_applied_changes_nothing,
    concurrent_patches_lose_nothing,
    an_archived_agent_is_read_only,
    agents_are_listed_newest_first,
    a_failed_change_leaves_nothing_behind,
    a_source_keeps_its_identity_through_retirement,
    what_the_file_declares_is_changed_there,
    a_secret_overlaps_with_the_one_before,
    a_deleted_secret_is_gone,
    api_keys_are_listed_and_revoked,
    environments_have_one_name_each,
    environments_are_listed_newest_first,
    changes_are_audited_newest_first,
    every_change_grows_the_revision,
    the_first_to_remember_decides,
    concurrent_changes_of_one_name_are_one_after_the_other,
    a_write_can_be_committed,
);

fn patch(value: Value) -> AgentPatch {
    serde_json::from_value(value).unwrap()
}

async fn a_change_of_an_agent_makes_a_version(bench: Bench) {
    let alice = &bench.agent;
    assert_eq!((alice.version, alice.created_at), (1, alice.updated_at));
    bench.clock.advance(HOUR);
    let update = async |value: Value| {
        bench
            .store
            .update_agent(&alice.id, ManagedBy::Api, patch(value), change("agent.update"))
            .await
            .unwrap()
    };
    let second = update(json!({"system": "Be kind.", "name": "Alice ✓"})).await;
    assert_eq!((second.version, second.created_at), (2, alice.created_at));
    assert_eq!(second.updated_at, bench.clock.now());
    let wanted = AgentSpec {
        name: "Alice ✓".to_owned(),
        system: Some("Be kind.".to_owned()),
        ..alice.spec.clone()
    };
    assert_eq!(second.spec, wanted);
    let revision = bench.store.revision().await.unwrap();
    let same = update(json!({"system": "Be kind.", "version": 2})).await;
    assert_eq!(same, second, "a change of nothing makes no version");
    assert_eq!(bench.store.revision().await.unwrap(), revision);
    let third = update(json!({"system": null})).await;
    assert_eq!((third.version, third.spec.system.as_ref()), (3, None));

    // A version stays what it was; what all share is as it is now.
    let paused = bench.store.pause_agent(&alice.id, true, change("agent.pause")).await.unwrap();
    assert_eq!((paused.version, paused.paused), (3, true));
    let first = bench.store.agent(&alice.id, Some(1)).await.unwrap();
    assert_eq!((&first.spec, first.paused), (&alice.spec, true));
    assert_eq!(bench.store.agent(&alice.id, None).await.unwrap(), paused);
    assert_fails!(bench.store.agent(&alice.id, Some(4)).await, Error::NotFound);

    for limit in [1, 2, 3, 10] {
        let (mut found, mut cursor) = (Vec::new(), None);
        loop {
            let page = bench.store.agent_versions(&alice.id, cursor, limit).await.unwrap();
            found.extend(page.data.into_iter().map(|agent| agent.version));
            let Some(next) = page.next else { break };
            cursor = Some(next.parse().unwrap());
        }
        assert_eq!(found, [3, 2, 1], "pages of {limit}");
    }
    let missing: AgentId = bench.id();
    assert_fails!(bench.store.agent_versions(&missing, None, 10).await, Error::NotFound);

    // A session stays with the version that it was made with.
    let session = bench.session().await;
    assert_eq!(bench.store.session(&session).await.unwrap().agent, alice.spec);
}

async fn a_patch_that_cannot_be_applied_changes_nothing(bench: Bench) {
    let alice = &bench.agent;
    let update = async |id: &AgentId, value: Value| {
        bench.store.update_agent(id, ManagedBy::Api, patch(value), change("agent.update")).await
    };
    let stale = update(&alice.id, json!({"name": "x", "version": 2})).await;
    assert_fails!(stale, Error::Conflict(_));
    assert_fails!(update(&alice.id, json!({"name": null})).await, Error::Invalid(_));
    assert_fails!(update(&alice.id, json!({"model": 7})).await, Error::Invalid(_));
    let missing: AgentId = bench.id();
    assert_fails!(update(&missing, json!({"name": "x"})).await, Error::NotFound);
    assert_fails!(bench.store.pause_agent(&missing, true, change("x")).await, Error::NotFound);
    assert_fails!(bench.store.archive_agent(&missing, change("x")).await, Error::NotFound);
    assert_eq!(bench.store.agent(&alice.id, None).await.unwrap(), *alice);
}

async fn concurrent_patches_lose_nothing(bench: Bench) {
    let bench = Arc::new(bench);
    let mut tasks = JoinSet::new();
    for n in 0..10 {
        let bench = bench.clone();
        tasks.spawn(async move {
            let patch = patch(json!({"metadata": {format!("k{n}"): "v"}}));
            let change = change("agent.update");
            bench
                .store
                .update_agent(&bench.agent.id, ManagedBy::Api, patch, change)
                .await
                .unwrap()
                .version
        });
    }
    let mut versions = tasks.join_all().await;
    versions.sort_unstable();
    assert_eq!(versions, (2..=11).collect::<Vec<_>>());
    let agent = bench.store.agent(&bench.agent.id, None).await.unwrap();
    assert_eq!(agent.spec.metadata.len(), 10);

    // With the version that they have seen, one of them wins.
    let mut tasks = JoinSet::new();
    for n in 0..6 {
        let bench = bench.clone();
        tasks.spawn(async move {
            let patch = patch(json!({"version": 11, "system": format!("{n}")}));
            bench
                .store
                .update_agent(&bench.agent.id, ManagedBy::Api, patch, change("agent.update"))
                .await
        });
    }
    let answers = tasks.join_all().await;
    assert_eq!(answers.iter().filter(|it| it.is_ok()).count(), 1);
    assert_eq!(answers.iter().filter(|it| matches!(it, Err(Error::Conflict(_)))).count(), 5);
}

async fn an_archived_agent_is_read_only(bench: Bench) {
    let id = &bench.agent.id;
    let own = async || {
        let sources = bench.store.sources().await.unwrap();
        sources.into_iter().find(|it| it.kind == SourceKind::Agent(id.clone())).unwrap()
    };
    assert_eq!(own().await.retired_at, None);
    let archived = bench.store.archive_agent(id, change("agent.archive")).await.unwrap();
    assert_eq!(archived.archived_at, Some(bench.clock.now()));
    assert_eq!(own().await.retired_at, archived.archived_at);
    let revision = bench.store.revision().await.unwrap();
    bench.clock.advance(HOUR);
    let again = bench.store.archive_agent(id, change("agent.archive")).await.unwrap();
    assert_eq!(again, archived, "archived once");
    assert_eq!(bench.store.revision().await.unwrap(), revision);
    let update = bench
        .store
        .update_agent(id, ManagedBy::Api, patch(json!({"name": "x"})), change("x"))
        .await;
    assert_fails!(update, Error::Conflict(_));

    let bob = make_agent(&bench.store, "bob").await;
    let list =
        async |archived| bench.store.agents(archived, (None, None), None, 10).await.unwrap().data;
    assert_eq!(list(false).await, std::slice::from_ref(&bob));
    assert_eq!(list(true).await, [bob, archived]);

    // Its sessions go on.
    let session = bench.session().await;
    bench.send(&session, "go on").await;
    assert_eq!(bench.claim_one().await.session_id, session);
}

async fn agents_are_listed_newest_first(bench: Bench) {
    let mut wanted = vec![bench.agent.clone()];
    for name in ["b", "a", "a"] {
        wanted.push(make_agent(&bench.store, name).await);
    }
    wanted.reverse();
    for limit in [1, 2, 4, 100] {
        let (mut found, mut cursor) = (Vec::new(), None);
        loop {
            let page = bench.store.agents(false, (None, None), cursor, limit).await.unwrap();
            found.extend(page.data);
            let Some(next) = page.next else { break };
            cursor = Some(next.parse().unwrap());
        }
        assert_eq!(found, wanted, "pages of {limit}");
    }
}

async fn a_failed_change_leaves_nothing_behind(bench: Bench) {
    // The agent's row and version are written before its source turns out to be taken.
    let id: AgentId = bench.id();
    let taken = Source {
        kind: SourceKind::Agent(bench.agent.id.clone()),
        name: bench.agent.id.to_string(),
        ..source(&bench.clock, "", Verifier::Bearer {})
    };
    let before = bench.store.revision().await.unwrap();
    let spec = AgentSpec::new("bob", "rehearsal");
    let change = change("agent.create");
    let made = bench.store.create_agent(id.clone(), spec, ManagedBy::Api, taken, change).await;
    assert_fails!(made, Error::Constraint(_));
    assert_fails!(bench.store.agent(&id, None).await, Error::NotFound);
    for table in ["agents", "agent_versions"] {
        assert_eq!(bench.place.number(&format!("select count(*) from {table}")).await, 1);
    }
    assert_eq!(bench.store.revision().await.unwrap(), before);
}

async fn a_source_keeps_its_identity_through_retirement(bench: Bench) {
    let accepted = bench.accept(bench.draft("one")).await;
    let id = &bench.source.id;
    let missing: SourceId = bench.id();
    for result in [
        bench.store.pause_source(&missing, true, change("x")).await,
        bench.store.retire_source(&missing, ManagedBy::Api, change("x")).await,
    ] {
        assert_fails!(result, Error::NotFound);
    }
    let paused = bench.store.pause_source(id, true, change("source.pause")).await.unwrap();
    assert!(paused.paused);
    bench.clock.advance(HOUR);
    let retire = || bench.store.retire_source(id, ManagedBy::Api, change("source.retire"));
    let retired = retire().await.unwrap();
    let at = Some(bench.clock.now());
    assert_eq!((retired.retired_at, &retired.id), (at, id));
    bench.clock.advance(HOUR);
    assert_eq!(retire().await.unwrap().retired_at, at, "retired once");
    assert_eq!(bench.accept(bench.draft("one")).await.verdict, Verdict::Duplicate);
    assert_eq!(bench.store.delivery(&accepted.delivery_id).await.unwrap().source_name, "zendesk");

    // The same name back is the same source, with what it knows.
    let mut back = source(&bench.clock, "zendesk", Verifier::Basic { username: "u".to_owned() });
    back.definition.on_redelivery = OnRedelivery::RerunFailed;
    let returned = bench.store.put_source(back.clone(), change("source.put")).await.unwrap();
    let wanted = Source {
        definition: back.definition,
        paused: true,
        retired_at: None,
        updated_at: bench.clock.now(),
        ..bench.source.clone()
    };
    assert_eq!(returned, wanted);
    let again = bench.accept(bench.draft("one")).await;
    assert_eq!((again.verdict, again.delivery_id), (Verdict::Duplicate, accepted.delivery_id));
    let running = bench.store.pause_source(id, false, change("source.resume")).await.unwrap();
    assert_eq!(bench.store.sources().await.unwrap()[1], running);
}

async fn what_the_file_declares_is_changed_there(bench: Bench) {
    let named = |managed_by| {
        let source = source(&bench.clock, "github", Verifier::Bearer {});
        Source { managed_by, ..source }
    };
    let put =
        async |managed_by| bench.store.put_source(named(managed_by), change("source.put")).await;
    let retire = async |id: &SourceId, managed_by| {
        bench.store.retire_source(id, managed_by, change("source.retire")).await
    };
    let made = put(ManagedBy::Api).await.unwrap();
    // The file may take over what the API made, and then it is the file's.
    let taken = put(ManagedBy::File).await.unwrap();
    assert_eq!((&taken.id, taken.managed_by), (&made.id, ManagedBy::File));
    assert_fails!(put(ManagedBy::Api).await, Error::Conflict(_));
    assert_fails!(retire(&made.id, ManagedBy::Api).await, Error::Conflict(_));
    put(ManagedBy::File).await.unwrap();
    retire(&made.id, ManagedBy::File).await.unwrap();
    // Removed from the file, it is anybody's.
    let back = put(ManagedBy::Api).await.unwrap();
    assert_eq!((&back.id, back.managed_by, back.retired_at), (&made.id, ManagedBy::Api, None));
    retire(&made.id, ManagedBy::Api).await.unwrap();
}

async fn a_secret_overlaps_with_the_one_before(bench: Bench) {
    let put = async |name: &str, overlap_seconds: u64, value: &'static str| {
        let overlap = Duration::from_secs(overlap_seconds);
        let seal = move |name: &str, version: i64| format!("{name}/{version}/{value}").into();
        bench.store.put_secret(name.to_owned(), overlap, seal, change("secret.set")).await.unwrap()
    };
    let live = async || {
        let secrets = bench.store.secrets().await.unwrap();
        let sealed = secrets.iter().map(|it| String::from_utf8(it.sealed.to_vec()).unwrap());
        sealed.collect::<Vec<_>>()
    };
    let first = put("B", 60, "one").await;
    assert_eq!((first.version, first.previous_until), (1, None));
    put("A_secret", 0, "other").await;
    let started = bench.clock.now();
    let second = put("B", 60, "two").await;
    assert_eq!((second.version, second.created_at), (2, started));
    assert_eq!(second.previous_until, Some(started.plus(Duration::from_secs(60))));
    assert_eq!(live().await, ["A_secret/1/other", "B/2/two", "B/1/one"], "newest first of a name");
    let stored = bench.store.secrets().await.unwrap();
    assert_eq!((stored[1].expires_at, stored[2].expires_at), (None, second.previous_until));

    // Each keeps its own end.
    bench.clock.advance(Duration::from_secs(30));
    put("B", 60, "three").await;
    assert_eq!(live().await, ["A_secret/1/other", "B/3/three", "B/2/two", "B/1/one"]);
    bench.clock.advance(Duration::from_secs(30));
    assert_eq!(live().await, ["A_secret/1/other", "B/3/three", "B/2/two"]);
    bench.clock.advance(Duration::from_secs(29));
    assert_eq!(live().await.len(), 3);
    bench.clock.advance(Duration::from_secs(1));
    assert_eq!(live().await, ["A_secret/1/other", "B/3/three"]);
    // Without an overlap the old value is void at once. The version grows all the same.
    let fourth = put("B", 0, "four").await;
    assert_eq!((fourth.version, fourth.previous_until), (4, None));
    assert_eq!(live().await, ["A_secret/1/other", "B/4/four"]);
    assert_eq!(bench.place.number("select count(*) from secrets").await, 2);
}

async fn a_deleted_secret_is_gone(bench: Bench) {
    let seal = |_: &str, _: i64| "sealed".into();
    let name = || "S".to_owned();
    let delete = || bench.store.delete_secret(name(), change("secret.delete"));
    assert!(!delete().await.unwrap());
    for _ in 0..2 {
        bench.store.put_secret(name(), HOUR, seal, change("secret.set")).await.unwrap();
    }
    let revision = bench.store.revision().await.unwrap();
    assert!(delete().await.unwrap());
    assert!(bench.store.secrets().await.unwrap().is_empty());
    assert_eq!(bench.place.number("select count(*) from secrets").await, 0);
    assert!(!delete().await.unwrap());
    assert_eq!(bench.store.revision().await.unwrap(), revision + 1, "nothing to delete, no change");
}

async fn api_keys_are_listed_and_revoked(bench: Bench) {
    let mut keys = Vec::new();
    let scopes = [
        vec![Scope::Admin],
        vec![Scope::Read, Scope::Ingest("zendesk".to_owned()), Scope::Ingest("a-b_c".to_owned())],
        vec![],
    ];
    for (n, scopes) in scopes.into_iter().enumerate() {
        let key = ApiKey {
            id: bench.id(),
            name: format!("key {n} 漢字"),
            hash: format!("hash {n}"),
            scopes: Scopes(scopes),
            created_at: bench.clock.now(),
            revoked_at: None,
        };
        let made = bench.store.create_api_key(key.clone(), change("api_key.create")).await;
        assert_eq!(made.unwrap(), key);
        keys.insert(0, key);
    }
    assert_eq!(bench.store.api_keys().await.unwrap(), keys);

    let revoke = || bench.store.revoke_api_key(&keys[1].id, change("api_key.revoke"));
    let revoked = revoke().await.unwrap();
    assert_eq!(revoked, ApiKey { revoked_at: Some(bench.clock.now()), ..keys[1].clone() });
    bench.clock.advance(HOUR);
    assert_eq!(revoke().await.unwrap(), revoked, "revoked once");
    assert_eq!(bench.store.api_keys().await.unwrap()[1], revoked);
    let missing: ApiKeyId = bench.id();
    let revoke = bench.store.revoke_api_key(&missing, change("x")).await;
    assert_fails!(revoke, Error::NotFound);
    let twin = ApiKey { id: bench.id(), ..keys[0].clone() };
    let made = bench.store.create_api_key(twin, change("api_key.create")).await;
    assert_fails!(made, Error::Constraint(_));
}

async fn environments_have_one_name_each(bench: Bench) {
    let mut unusual = environment(&bench.clock, "unusual ✓");
    unusual.description = Some("a \"description\"".to_owned());
    unusual.metadata = [("k".to_owned(), "v".to_owned())].into();
    unusual.config = serde_json::from_value(json!({
        "type": "local", "project": "billing", "workspace": "worktree",
    }))
    .unwrap();
    let made = bench.store.create_environment(unusual.clone(), change("environment.create")).await;
    assert_eq!(made.unwrap(), unusual);
    assert_eq!(bench.store.environment(&unusual.id).await.unwrap(), unusual);
    let taken = environment(&bench.clock, "unusual ✓");
    let made = bench.store.create_environment(taken.clone(), change("environment.create")).await;
    assert_fails!(made, Error::Conflict(_));
    assert_fails!(bench.store.environment(&taken.id).await, Error::NotFound);

    // The name is free again once its environment is archived.
    let sql = format!("update environments set archived_at = 1 where id = '{}'", unusual.id);
    bench.place.sql(&sql).await;
    bench.store.create_environment(taken.clone(), change("environment.create")).await.unwrap();
    let ids = async |archived| {
        let page = bench.store.environments(archived, None, 10).await.unwrap();
        page.data.into_iter().map(|it| it.id).collect::<Vec<_>>()
    };
    let default = bench.environment.id.clone();
    assert_eq!(ids(false).await, [taken.id.clone(), default.clone()]);
    assert_eq!(ids(true).await, [taken.id, unusual.id, default]);
    let missing: EnvironmentId = bench.id();
    assert_fails!(bench.store.environment(&missing).await, Error::NotFound);
}

async fn environments_are_listed_newest_first(bench: Bench) {
    let mut wanted = vec![bench.environment.clone()];
    for name in ["b", "a", "c"] {
        wanted.push(make_environment(&bench.store, name).await);
    }
    wanted.reverse();
    for limit in [1, 3, 4, 100] {
        let (mut found, mut cursor) = (Vec::new(), None);
        loop {
            let page = bench.store.environments(false, cursor, limit).await.unwrap();
            found.extend(page.data);
            let Some(next) = page.next else { break };
            cursor = Some(next.parse().unwrap());
        }
        assert_eq!(found, wanted, "pages of {limit}");
    }
}

async fn changes_are_audited_newest_first(bench: Bench) {
    let before = bench.store.audit(None, 100).await.unwrap().data;
    let actions: Vec<_> = before.iter().map(|entry| entry.action.as_str()).collect();
    assert_eq!(actions, ["source.put", "environment.create", "agent.create"]);
    bench.clock.advance(HOUR);
    for n in 0..5 {
        bench.clock.advance(Duration::from_millis(1));
        let change = bellpull::store::Change {
            actor: "master key".to_owned(),
            action: "agent.pause",
            target: format!("{n} ✓"),
            details: json!({"b": n, "a": [null, "x"]}),
        };
        bench.store.pause_agent(&bench.agent.id, n % 2 == 0, change).await.unwrap();
    }
    for limit in [1, 3, 8, 100] {
        let (mut found, mut cursor) = (Vec::new(), None);
        loop {
            let page = bench.store.audit(cursor, limit).await.unwrap();
            found.extend(page.data);
            let Some(next) = page.next else { break };
            cursor = Some(next.parse().unwrap());
        }
        let targets: Vec<_> = found[..5].iter().map(|entry| entry.target.as_str()).collect();
        assert_eq!(targets, ["4 ✓", "3 ✓", "2 ✓", "1 ✓", "0 ✓"]);
        assert_eq!(found[5..], before, "pages of {limit}");
        let newest = &found[0];
        assert_eq!((newest.actor.as_str(), newest.at), ("master key", bench.clock.now()));
        assert_eq!(newest.details.to_string(), r#"{"b":4,"a":[null,"x"]}"#);
    }
}

async fn every_change_grows_the_revision(bench: Bench) {
    let revision = async || bench.store.revision().await.unwrap();
    let (store, agent, source) = (&bench.store, &bench.agent.id, &bench.source.id);
    let mut last = revision().await;
    let mut grown = async |what: &str| {
        let now = revision().await;
        assert!(now > last, "{what}");
        last = now;
    };
    let bob = make_agent(store, "bob").await;
    grown("agent made").await;
    let spec = patch(json!({"system": "s"}));
    store.update_agent(agent, ManagedBy::Api, spec, change("x")).await.unwrap();
    grown("agent changed").await;
    store.pause_agent(agent, true, change("x")).await.unwrap();
    grown("agent paused").await;
    make_source(store, "github").await;
    grown("source made").await;
    make_source(store, "github").await;
    grown("source changed").await;
    store.pause_source(source, true, change("x")).await.unwrap();
    grown("source paused").await;
    store.retire_source(source, ManagedBy::Api, change("x")).await.unwrap();
    grown("source retired").await;
    let seal = |_: &str, _: i64| "sealed".into();
    store.put_secret("S".to_owned(), HOUR, seal, change("x")).await.unwrap();
    grown("secret set").await;
    make_environment(store, "staging").await;
    grown("environment made").await;
    store.archive_agent(agent, change("x")).await.unwrap();
    grown("agent archived").await;

    // Deliveries and turns are no configuration.
    bench.accept(bench.draft("one").of_agent(&bob)).await;
    bench.begin(&bench.claim_one().await).await;
    assert_eq!(revision().await, last);
}

async fn the_first_to_remember_decides(bench: Bench) {
    let remember = |value: &str| bench.store.remember("canary", value.to_owned());
    assert_eq!(remember("first").await.unwrap(), "first");
    assert_eq!(remember("second").await.unwrap(), "first");
    assert_eq!(bench.store.remember("other", String::new()).await.unwrap(), "");
    let bench = Arc::new(bench);
    let mut tasks = JoinSet::new();
    for n in 0..10 {
        let bench = bench.clone();
        tasks.spawn(async move { bench.store.remember("raced", format!("{n}")).await.unwrap() });
    }
    let answers = tasks.join_all().await;
    assert!(answers.iter().all(|it| *it == answers[0]), "{answers:?}");
}

/// Two people, or two nodes at their start, change the same thing at once.
async fn concurrent_changes_of_one_name_are_one_after_the_other(bench: Bench) {
    let bench = Arc::new(bench);
    let mut tasks = JoinSet::new();
    for n in 0..6 {
        let bench = bench.clone();
        tasks.spawn(async move {
            let (store, clock) = (&bench.store, &bench.clock);
            let seal = |_: &str, _: i64| "sealed".into();
            let secret = store.put_secret("S".to_owned(), HOUR, seal, change("x")).await;
            let named = source(clock, "github", Verifier::Bearer {});
            let source = store.put_source(named, change("x")).await;
            let staging = environment(clock, "staging");
            let environment = store.create_environment(staging, change("x")).await;
            let version = secret.unwrap_or_else(|error| panic!("{n}: {}", error.detail())).version;
            let source = source.unwrap_or_else(|error| panic!("{n}: {}", error.detail())).id;
            match environment {
                Ok(_) => (version, source, true),
                Err(Error::Conflict(_)) => (version, source, false),
                Err(error) => panic!("{n}: {}", error.detail()),
            }
        });
    }
    let answers = tasks.join_all().await;
    let mut versions: Vec<_> = answers.iter().map(|it| it.0).collect();
    versions.sort_unstable();
    assert_eq!(versions, [1, 2, 3, 4, 5, 6]);
    assert!(answers.iter().all(|it| it.1 == answers[0].1), "one source");
    assert_eq!(answers.iter().filter(|it| it.2).count(), 1, "one environment");
    assert_eq!(bench.store.secrets().await.unwrap().len(), 6);
}

async fn a_write_can_be_committed(bench: Bench) {
    for _ in 0..2 {
        bench.store.probe().await.unwrap();
    }
    assert_eq!(bench.store.is_sqlite(), matches!(*bench.place, super::bench::Place::Directory(_)));
}
