//! What goes in the end, and what is kept apart: pruning, backups, and secrets wrapped anew.

use std::time::Duration;

use bellpull::{
    domain::{delivery::Outcome, turn::TurnEnd},
    id::DeliveryId,
    store::{Body, Error, LogEnd, Pruned, Retention, Route, Verdict, backup, rehearse},
};
use bytes::Bytes;

use super::{
    Bench,
    bench::{HOUR, Place, change},
    messages,
};

on_both!(
    bodies_go_before_identities,
    what_is_open_is_kept_and_goes_later,
    pruning_goes_on_slice_by_slice,
    what_was_remembered_is_recalled,
    secrets_are_wrapped_anew_all_or_none,
    the_end_of_a_log_moves_with_it,
);

const DAY: Duration = Duration::from_secs(24 * 3600);

const RETENTION: Retention = Retention { bodies_days: 7, identities_days: 30, outbox_days: 30 };

async fn prune(bench: &Bench) -> Pruned {
    bench.store.prune(&RETENTION).await.unwrap()
}

async fn has_body(bench: &Bench, id: &DeliveryId) -> bool {
    match bench.store.delivery_body(id).await {
        Ok(_) => true,
        Err(Error::NotFound) => false,
        Err(error) => panic!("{}", error.detail()),
    }
}

async fn bodies_go_before_identities(bench: Bench) {
    let mut draft = bench.draft("one");
    let n = bench.store.put_chunks(&draft.0.id.to_string(), Bytes::from(vec![b'x'; 600_000])).await;
    (draft.0.body, draft.0.body_bytes) = (Body::Chunks(n.unwrap()), 600_000);
    let first = bench.accept(draft).await;
    bench.accept(bench.draft("one")).await;
    let session = bench.work_off(TurnEnd::EndTurn).await;
    let log = bench.log(&session).await;

    bench.clock.advance(7 * DAY - HOUR);
    let young = bench.accept(bench.draft("two")).await;
    bench.work_off(TurnEnd::EndTurn).await;
    assert_eq!(prune(&bench).await, Pruned::default(), "not a minute early");
    bench.clock.advance(HOUR + Duration::from_secs(1));
    assert_eq!(
        prune(&bench).await,
        Pruned { bodies: 1, deliveries: 0, seen: 0, outgoing: 0, gone: 0, said: 0 }
    );
    assert_eq!(prune(&bench).await, Pruned::default());
    assert!(!has_body(&bench, &first.delivery_id).await);
    assert!(has_body(&bench, &young.delivery_id).await);
    assert_eq!(bench.place.number("select count(*) from chunks").await, 0);
    let delivery = bench.store.delivery(&first.delivery_id).await.unwrap();
    assert_eq!((delivery.outcome, delivery.n_attempts), (Some(Outcome::Succeeded), 2));
    assert_eq!(bench.accept(bench.draft("one")).await.verdict, Verdict::Duplicate);

    bench.clock.advance(23 * DAY);
    assert_eq!(
        prune(&bench).await,
        Pruned { bodies: 1, deliveries: 1, seen: 0, outgoing: 0, gone: 0, said: 0 }
    );
    assert_fails!(bench.store.delivery(&first.delivery_id).await, Error::NotFound);
    assert_fails!(bench.store.attempts(&first.delivery_id).await, Error::NotFound);
    assert_eq!(bench.place.number("select count(*) from attempts").await, 0);
    assert_eq!(bench.log(&session).await, log, "sessions stay");
    let again = bench.accept(bench.draft("one")).await;
    assert_eq!(
        (again.verdict, again.attempt),
        (Verdict::Accepted, 1),
        "the identity was forgotten"
    );
}

async fn what_is_open_is_kept_and_goes_later(bench: Bench) {
    let mut held = bench.draft("held");
    held.0.route = Route::Held { agent_id: None, reason: "paused".to_owned() };
    let held = bench.accept(held).await;
    let failed = bench.accept(bench.draft("failed")).await;
    bench.work_off(TurnEnd::Failed).await;
    let running = bench.accept(bench.draft("running")).await;
    let lease = bench.claim_one().await;
    bench.begin(&lease).await;
    let pending = bench.accept(bench.draft("pending")).await;
    let mut filtered = bench.draft("filtered");
    filtered.0.route = Route::Filtered { agent_id: None, reason: "not urgent".to_owned() };
    let filtered = bench.accept(filtered).await;

    bench.clock.advance(100 * DAY);
    let n = prune(&bench).await;
    assert_eq!(n, Pruned { bodies: 2, deliveries: 2, seen: 0, outgoing: 0, gone: 0, said: 0 });
    for kept in [&held, &running, &pending] {
        assert!(has_body(&bench, &kept.delivery_id).await, "{kept:?}");
    }
    for gone in [&failed, &filtered] {
        assert_fails!(bench.store.delivery(&gone.delivery_id).await, Error::NotFound);
    }
    // What was passed over is found when it has come to its end, the oldest and the newest of it.
    bench.finish(&lease, TurnEnd::EndTurn).await;
    assert_eq!(
        prune(&bench).await,
        Pruned { bodies: 1, deliveries: 1, seen: 0, outgoing: 0, gone: 0, said: 0 }
    );
    bench.work_off(TurnEnd::EndTurn).await;
    assert_eq!(
        prune(&bench).await,
        Pruned { bodies: 1, deliveries: 1, seen: 0, outgoing: 0, gone: 0, said: 0 }
    );
    assert_eq!(prune(&bench).await, Pruned::default());
    assert!(has_body(&bench, &held.delivery_id).await);

    // A held one is decided by a person.
    bench.store.erase_delivery(&held.delivery_id, change("delivery.erase")).await.unwrap();
    prune(&bench).await;
    assert_eq!(bench.accept(bench.draft("held")).await.verdict, Verdict::Duplicate);
}

async fn pruning_goes_on_slice_by_slice(bench: Bench) {
    let drafts = (0..1_100).map(|n| {
        let mut draft = bench.draft(&format!("{n}"));
        draft.0.route = Route::Filtered { agent_id: None, reason: "not urgent".to_owned() };
        draft
    });
    futures_util::future::join_all(drafts.map(|draft| bench.accept(draft))).await;
    bench.clock.advance(100 * DAY);
    let mut looks = Vec::new();
    loop {
        let pruned = prune(&bench).await;
        looks.push((pruned.bodies, pruned.deliveries));
        if !pruned.is_full() {
            break;
        }
    }
    assert_eq!(looks, [(500, 500), (500, 500), (100, 100)]);
    assert_eq!(bench.place.number("select count(*) from deliveries").await, 0);
    assert_eq!(prune(&bench).await, Pruned::default());
    if let Place::Directory(_) = &*bench.place {
        // Freed pages go back to the file system, some with each look.
        while bench.place.number("pragma freelist_count").await > 200 {
            let before = bench.place.number("pragma freelist_count").await;
            bench.accept(bench.draft(&format!("more {before}"))).await;
            bench.work_off(TurnEnd::EndTurn).await;
            bench.clock.advance(100 * DAY);
            assert!(prune(&bench).await.bodies > 0);
            assert!(bench.place.number("pragma freelist_count").await < before);
        }
    }
}

async fn what_was_remembered_is_recalled(bench: Bench) {
    assert_eq!(bench.store.recall("canary").await.unwrap(), None);
    bench.store.remember("canary", "bird ✓".to_owned()).await.unwrap();
    assert_eq!(bench.store.recall("canary").await.unwrap().as_deref(), Some("bird ✓"));
}

async fn secrets_are_wrapped_anew_all_or_none(bench: Bench) {
    for (name, value) in [("A", "one"), ("A", "two"), ("B", "three")] {
        let seal = move |_: &str, _: i64| Bytes::from(format!("old:{value}"));
        let put = bench.store.put_secret(name.to_owned(), HOUR, seal, change("secret.set"));
        put.await.unwrap();
    }
    bench.store.remember("vault_canary", "old:bird".to_owned()).await.unwrap();
    let state = async || {
        let secrets = bench.store.secrets().await.unwrap();
        let sealed = secrets.iter().map(|it| String::from_utf8(it.sealed.to_vec()).unwrap());
        (sealed.collect::<Vec<_>>(), bench.store.recall("vault_canary").await.unwrap().unwrap())
    };
    let before = state().await;
    let fails = bench.store.rewrap_secrets(
        |_, name, version, sealed| match (name, version) {
            ("B", _) => Err(Error::Conflict("not this one".to_owned())),
            _ => Ok(Some(Bytes::copy_from_slice(sealed))),
        },
        |_| Ok(Some("new:bird".to_owned())),
        change("vault.rotate"),
    );
    assert_fails!(fails.await, Error::Conflict(_));
    assert_eq!(state().await, before);

    let rewrap = |_, name: &str, version: i64, sealed: &[u8]| {
        let value = std::str::from_utf8(sealed).unwrap().strip_prefix("old:").unwrap();
        // One that has the new key already stays as it is.
        Ok((version != 1 || name != "B").then(|| Bytes::from(format!("new:{value}"))))
    };
    let canary = |text: &str| Ok(Some(text.replace("old", "new")));
    let n = bench.store.rewrap_secrets(rewrap, canary, change("vault.rotate")).await.unwrap();
    assert_eq!(n, 2);
    let sealed = ["new:two", "new:one", "old:three"].map(str::to_owned).to_vec();
    assert_eq!(state().await, (sealed, "new:bird".to_owned()));
}

async fn the_end_of_a_log_moves_with_it(bench: Bench) {
    let end = async |session| {
        let LogEnd { last_seq, last_position, .. } = bench.store.end_of_log(session).await.unwrap();
        (last_seq, last_position)
    };
    assert_fails!(bench.store.end_of_log(&bench.id()).await, Error::NotFound);
    let session = bench.session().await;
    assert_eq!(end(&session).await, (0, 0));
    bench.send(&session, "one").await;
    bench.accept(bench.draft("two").for_session(&session)).await;
    assert_eq!(end(&session).await, (0, 2));
    assert_eq!(bench.store.waiting_after(&session, 2).await.unwrap(), []);
    bench.work_off(TurnEnd::EndTurn).await;
    assert_eq!(end(&session).await, (4, 2));
    assert_eq!(bench.store.events_after(&session, 4, 10).await.unwrap(), []);
    bench.send(&session, "three").await;
    assert_eq!(end(&session).await, (4, 3));
    assert_eq!(bench.store.waiting_after(&session, 2).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_of_sqlite_is_made_while_it_is_used_and_opens_again() {
    let bench = Bench::sqlite().await;
    let directory = tempfile::tempdir().unwrap();
    let database = match &*bench.place {
        Place::Directory(directory) => directory.path().join("bellpull.db"),
        Place::Database(_) => unreachable!("this is SQLite"),
    };
    bench.store.remember("vault_canary", "sealed".to_owned()).await.unwrap();
    let before = bench.accept(bench.draft("before").for_key("k")).await;
    let session = bench.work_off(TurnEnd::EndTurn).await;
    let copy = directory.path().join("bellpull.db");
    let task = {
        let (database, copy) = (database.clone(), copy.clone());
        tokio::task::spawn_blocking(move || backup(&database, &copy))
    };
    // Deliveries are accepted all the while.
    let mut n = 0;
    while !task.is_finished() || n < 20 {
        bench.accept(bench.draft(&format!("during {n}"))).await;
        n += 1;
    }
    let report = task.await.unwrap().unwrap();
    assert!((1..=n + 1).contains(&report.deliveries), "{report:?} of {n}");
    assert_eq!((report.sessions, report.events), (report.deliveries, 3));
    assert_eq!(report.canary.as_deref(), Some("sealed"));
    assert_eq!(report.bytes, std::fs::metadata(&copy).unwrap().len());
    assert_fails!(backup(&database, &copy), Error::Conflict(_));

    // The restored server knows what the old one had promised before.
    let restored =
        Bench { place: Place::Directory(directory).into(), ..bench.another_node().await };
    let restored = restored.another_node().await;
    assert_eq!(messages(&restored.log(&session).await), ["message before"]);
    let again = restored.accept(restored.draft("before").for_key("k")).await;
    assert_eq!((again.verdict, again.delivery_id), (Verdict::Duplicate, before.delivery_id));

    // A damaged copy and one of another version are found out.
    restored.store.close().await;
    restored.place.sql("update meta set value = '99' where name = 'schema'").await;
    assert_fails!(rehearse(&copy), Error::Conflict(_));
    std::fs::write(&copy, vec![7; 40_000]).unwrap();
    assert_fails!(rehearse(&copy), Error::Corrupt(_));
}
