//! Bodies and messages of any size and any text, and their erasure.

use std::time::Duration;

use bellpull::{
    domain::{
        event::{EventBody, plain_text},
        session::Session,
        turn::TurnEnd,
    },
    id::{DeliveryId, EventId, Id, SessionId},
    store::{Body, Error, MessageBody, Refused, ReplayOf, Store, Verdict},
};
use serde_json::{Value, json};

use super::{
    Bench, Draft,
    bench::{HOUR, change, make_agent},
    messages, origin_of,
};

on_both!(
    bodies_and_messages_of_any_size_come_back,
    a_duplicate_leaves_no_pieces_behind,
    a_rerun_of_any_size_names_the_delivery_that_is_stored,
    orphaned_pieces_are_swept_when_they_are_old,
    any_text_comes_back_as_it_was,
    long_texts_are_kept_whole,
    erasure_takes_the_body_and_keeps_the_identity,
    what_failed_and_was_erased_does_not_run_again,
    erasure_reaches_a_message_that_waits_and_no_other,
    erasure_and_a_beginning_turn_do_not_tear_a_message_apart,
    no_replay_outlives_the_erasure_of_its_bytes,
);

const PIECE: usize = 256 * 1024;

/// Text of so many bytes that shows when two of its parts are swapped.
fn text_of(n_bytes: usize) -> String {
    let mut text = String::with_capacity(n_bytes + 8);
    let mut n = 0_usize;
    while text.len() < n_bytes {
        text.push_str(&format!("{n:x} "));
        n += 1;
    }
    text.truncate(n_bytes);
    text
}

/// Does what the receive path does with what is too large for one row.
async fn in_pieces(store: &Store, mut draft: Draft) -> Draft {
    if let Body::Inline(bytes) = draft.0.body.clone()
        && Store::is_large(bytes.len())
    {
        let n = store.put_chunks(draft.0.id.as_str(), bytes).await.unwrap();
        draft.0.body = Body::Chunks(n);
    }
    let dispatch = draft.dispatch();
    if let MessageBody::Inline(text) = dispatch.message.clone()
        && Store::is_large(text.len())
    {
        let owner = dispatch.event_id.to_string();
        dispatch.message =
            MessageBody::Chunks(store.put_chunks(&owner, text.into()).await.unwrap());
    }
    draft
}

async fn large(bench: &Bench, key: &str, n_bytes: usize) -> Draft {
    let text = text_of(n_bytes);
    let mut draft = bench.draft(key).text(&text);
    (draft.0.body, draft.0.body_bytes) = (Body::Inline(text.into()), n_bytes);
    in_pieces(&bench.store, draft).await
}

async fn n_pieces(bench: &Bench, owner: &str) -> i64 {
    bench.place.number(&format!("select count(*) from chunks where owner = '{owner}'")).await
}

async fn bodies_and_messages_of_any_size_come_back(bench: Bench) {
    for (n_bytes, n_wanted) in [(1, 0), (PIECE, 0), (PIECE + 1, 2), (3 << 20, 12)] {
        let draft = large(&bench, &n_bytes.to_string(), n_bytes).await;
        let id = bench.accept(draft).await.delivery_id;
        assert_eq!(n_pieces(&bench, id.as_str()).await, n_wanted, "{n_bytes}");
        let body = bench.store.delivery_body(&id).await.unwrap();
        assert!(body.bytes == text_of(n_bytes).as_bytes(), "{n_bytes} bytes differ");
        assert_eq!(bench.store.delivery(&id).await.unwrap().body_bytes, n_bytes as i64);

        let lease = bench.claim_one().await;
        let waiting = messages(&bench.waiting(&lease.session_id).await);
        assert!(waiting == [text_of(n_bytes)], "{n_bytes} bytes differ in the inbox");
        bench.begin(&lease).await;
        let log = messages(&bench.log(&lease.session_id).await);
        assert!(log == [text_of(n_bytes)], "{n_bytes} bytes differ in the log");
        bench.finish(&lease, TurnEnd::EndTurn).await;
    }
    // Whoever stores in pieces what would have fit is right too.
    for n_bytes in [1, PIECE, 2 * PIECE] {
        let mut draft = bench.draft(&format!("pieces {n_bytes}"));
        let owner = draft.0.id.to_string();
        let n = bench.store.put_chunks(&owner, text_of(n_bytes).into()).await.unwrap();
        assert_eq!(n, n_bytes.div_ceil(PIECE) as i64);
        draft.0.body = Body::Chunks(n);
        let id = bench.accept(draft).await.delivery_id;
        let body = bench.store.delivery_body(&id).await.unwrap();
        assert!(body.bytes == text_of(n_bytes).as_bytes());
    }
}

async fn a_duplicate_leaves_no_pieces_behind(bench: Bench) {
    let first = bench.accept(large(&bench, "one", 3 * PIECE).await).await;
    let again = large(&bench, "one", 3 * PIECE).await;
    let other = again.0.id.to_string();
    assert_eq!(n_pieces(&bench, &other).await, 3);
    assert_eq!(bench.accept(again).await.verdict, Verdict::Duplicate);
    assert_eq!(n_pieces(&bench, &other).await, 0);
    assert!(bench.store.delivery_body(&first.delivery_id).await.is_ok());
}

async fn a_rerun_of_any_size_names_the_delivery_that_is_stored(bench: Bench) {
    for n_bytes in [10, 3 * PIECE] {
        let key = n_bytes.to_string();
        let first = bench.accept(large(&bench, &key, n_bytes).await).await;
        let session = bench.work_off(TurnEnd::Failed).await;
        let again = large(&bench, &key, n_bytes).await.rerun_failed();
        assert_eq!(bench.accept(again).await.verdict, Verdict::Accepted);
        let waiting = bench.waiting(&session).await;
        assert!(messages(&waiting) == [text_of(n_bytes)]);
        assert_eq!(origin_of(&waiting[0]), (first.delivery_id, Some(2)));
        bench.work_off(TurnEnd::EndTurn).await;
    }
}

async fn orphaned_pieces_are_swept_when_they_are_old(bench: Bench) {
    // One delivery whose message waits, one whose message is in the log.
    let worked = bench.accept(large(&bench, "worked", PIECE + 1).await).await;
    bench.work_off(TurnEnd::EndTurn).await;
    let waits = bench.accept(large(&bench, "waits", PIECE + 1).await).await;
    let (old, young) = (bench.id::<DeliveryId>(), bench.id::<EventId>());
    bench.store.put_chunks(old.as_str(), text_of(2 * PIECE).into()).await.unwrap();
    bench.clock.advance(HOUR + Duration::from_secs(1));
    bench.store.put_chunks(young.as_str(), text_of(2 * PIECE).into()).await.unwrap();

    assert_eq!(bench.store.sweep_orphans().await.unwrap(), 1);
    assert_eq!(bench.store.sweep_orphans().await.unwrap(), 0);
    assert_eq!(n_pieces(&bench, old.as_str()).await, 0);
    assert_eq!(n_pieces(&bench, young.as_str()).await, 2);
    for delivery in [&worked, &waits] {
        assert!(bench.store.delivery_body(&delivery.delivery_id).await.is_ok());
    }
    assert_eq!(messages(&bench.log(&worked.session_id.unwrap()).await).len(), 1);
    assert_eq!(messages(&bench.waiting(&waits.session_id.unwrap()).await).len(), 1);
}

/// Texts that one of many layers might not take.
const TEXTS: [&str; 10] = [
    "",
    " ",
    "'; drop table deliveries; --",
    "$1 ?1 {lock} {rows:ti} %s \\ \\u0000",
    "\"quoted\" {\"a\": [1, null]}",
    "line\nline\r\n\ttab\u{1}\u{7f}",
    "grüße 漢字 \u{1F514}\u{200D}\u{1F525} e\u{301}",
    "\u{202E}reversed\u{FEFF}\u{FFFD}\u{10FFFF}",
    "null",
    "\u{2028}\u{85}\u{A0}",
];

async fn any_text_comes_back_as_it_was(bench: Bench) {
    for text in TEXTS {
        let mut draft = bench.draft(text).text(text);
        let new = &mut draft.0;
        new.identity.field = text.to_owned();
        new.event_type = Some(text.to_owned());
        new.content_type = Some(text.to_owned());
        new.headers = json!({ text: text }).to_string();
        new.body = Body::Inline(text.to_owned().into());
        draft.dispatch().title = text.to_owned();
        draft.dispatch().private = json!({ "nonce": text }).to_string();
        let accepted = bench.accept(draft.for_key(text)).await;
        let delivery = bench.store.delivery(&accepted.delivery_id).await.unwrap();
        assert_eq!(
            (delivery.identity.key.as_str(), delivery.identity.field.as_str()),
            (text, text)
        );
        assert_eq!(delivery.event_type.as_deref(), Some(text));
        assert_eq!(delivery.content_type.as_deref(), Some(text));
        assert_eq!(delivery.headers, json!({ text: text }));
        let body = bench.store.delivery_body(&accepted.delivery_id).await.unwrap();
        assert_eq!(body.bytes, text.as_bytes());
        assert_eq!(body.content_type.as_deref(), Some(text));
        let session = bench.store.session(&accepted.session_id.unwrap()).await.unwrap();
        assert_eq!(session.title.as_deref(), Some(text));

        let lease = bench.claim_one().await;
        bench.begin(&lease).await;
        bench.append(&lease, text).await;
        bench.finish(&lease, TurnEnd::EndTurn).await;
        let log = bench.log(&lease.session_id).await;
        assert_eq!(messages(&log), [text]);
        assert_eq!(log[1].private, Some(json!({ "nonce": text })));
        let EventBody::AgentMessage { content } = &log[2].body else { panic!("{:?}", log[2]) };
        assert_eq!(plain_text(content), text);
    }
    // The same texts as identities again: each is known, and none is another one's.
    for text in TEXTS {
        assert_eq!(bench.accept(bench.draft(text)).await.verdict, Verdict::Duplicate, "{text:?}");
    }
    // Bytes that are no text at all.
    let bytes: Vec<u8> = (0..=255).collect();
    let mut draft = bench.draft("bytes");
    draft.0.body = Body::Inline(bytes.clone().into());
    let id = bench.accept(draft).await.delivery_id;
    assert_eq!(bench.store.delivery_body(&id).await.unwrap().bytes, bytes);
}

/// Characters that no database can shorten much, so that index limits show.
fn noise(n_chars: usize) -> String {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let char = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from_u32(0x4E00 + u32::try_from(state % 20_000).unwrap()).unwrap()
    };
    (0..n_chars).map(char).collect()
}

async fn long_texts_are_kept_whole(bench: Bench) {
    let long = noise(10_000);
    // As long as the domain allows them: 256 characters of a name, 512 bytes of a key.
    let agent = make_agent(&bench.store, &noise(256)).await;
    assert_eq!(bench.store.agent(&agent.id, None).await.unwrap().spec.name, noise(256));
    let key = noise(170);
    let mut draft = bench.draft(&key).of_agent(&agent).for_key(&key);
    draft.dispatch().title.clone_from(&long);
    draft.0.event_type = Some(long.clone());
    draft.0.content_type = Some(long.clone());
    draft.0.headers = json!({ "long": long }).to_string();
    let accepted = bench.accept(draft).await;
    let delivery = bench.store.delivery(&accepted.delivery_id).await.unwrap();
    assert_eq!(delivery.event_type.as_ref(), Some(&long));
    assert_eq!(delivery.headers["long"], long);
    assert_eq!(delivery.identity.key, key);
    let session: SessionId = accepted.session_id.unwrap();
    let found: Session = bench.store.session(&session).await.unwrap();
    assert_eq!(found.title, Some(long.clone()));
    let second = bench.accept(bench.draft("second").of_agent(&agent).for_key(&key)).await;
    assert_eq!(second.session_id, Some(session));

    let mut new = bench.new_session(&agent);
    new.title = Some(long.clone());
    new.metadata = [("k".to_owned(), long.clone())].into();
    let made = bench.store.create_session(new).await.unwrap();
    assert_eq!((made.title, &made.metadata["k"]), (Some(long.clone()), &long));
}

async fn erasure_takes_the_body_and_keeps_the_identity(bench: Bench) {
    let missing: DeliveryId = bench.id();
    assert_fails!(
        bench.store.erase_delivery(&missing, change("delivery.erase")).await,
        Error::NotFound
    );
    for n_bytes in [10, 3 * PIECE] {
        let key = n_bytes.to_string();
        let first = bench.accept(large(&bench, &key, n_bytes).await).await;
        let session = bench.work_off(TurnEnd::EndTurn).await;
        let before = bench.store.delivery(&first.delivery_id).await.unwrap();
        let erased =
            bench.store.erase_delivery(&first.delivery_id, change("delivery.erase")).await.unwrap();
        assert_eq!(erased.erased_at, Some(bench.clock.now()));
        let noted = bench.store.audit(None, 1).await.unwrap().data.remove(0);
        assert_eq!((noted.action.as_str(), noted.at), ("delivery.erase", bench.clock.now()));
        assert_eq!(erased.headers, Value::Object(serde_json::Map::new()));
        let kept = bellpull::domain::delivery::Delivery {
            erased_at: None,
            headers: before.headers.clone(),
            ..erased.clone()
        };
        assert_eq!(kept, before, "nothing else changed");
        assert_fails!(bench.store.delivery_body(&first.delivery_id).await, Error::NotFound);
        assert_eq!(n_pieces(&bench, first.delivery_id.as_str()).await, 0);
        assert_eq!(messages(&bench.log(&session).await).len(), 1, "the log stays");

        bench.clock.advance(HOUR);
        let twice =
            bench.store.erase_delivery(&first.delivery_id, change("delivery.erase")).await.unwrap();
        assert_eq!(twice, erased, "erased once");
        let again = bench.accept(bench.draft(&key).rerun_failed()).await;
        assert_eq!(again.verdict, Verdict::Duplicate);
        assert_eq!(again.delivery_id, first.delivery_id);
        assert_eq!(bench.claim().await, []);
    }
}

async fn what_failed_and_was_erased_does_not_run_again(bench: Bench) {
    for is_erased in [false, true] {
        let draft = || bench.draft(&format!("erased: {is_erased}"));
        let first = bench.accept(draft()).await;
        let claimed = bench.claim().await.pop().expect("a session that is due");
        bench.begin(&claimed.lease).await;
        bench.finish(&claimed.lease, TurnEnd::Failed).await;
        if is_erased {
            let change = change("delivery.erase");
            bench.store.erase_delivery(&first.delivery_id, change).await.unwrap();
        }
        let again = bench.accept(draft().rerun_failed()).await;
        let wanted = if is_erased { Verdict::Duplicate } else { Verdict::Accepted };
        assert_eq!((again.verdict, again.delivery_id), (wanted, first.delivery_id));
        let n_due = bench.claim().await.len();
        assert_eq!(n_due, usize::from(!is_erased), "its payload is not read again");
    }
}

async fn erasure_reaches_a_message_that_waits_and_no_other(bench: Bench) {
    let session = bench.session().await;
    let mut ids = Vec::new();
    for n in 0..3 {
        let draft = large(&bench, &format!("{n}"), 2 * PIECE).await;
        ids.push(bench.accept(draft.for_session(&session)).await.delivery_id);
    }
    let events = bench.waiting(&session).await;
    bench.store.erase_delivery(&ids[1], change("delivery.erase")).await.unwrap();
    let erased = "[This delivery was erased.]".to_owned();
    let wanted = [text_of(2 * PIECE), erased, text_of(2 * PIECE)];
    assert!(messages(&bench.waiting(&session).await) == wanted);
    assert_eq!(n_pieces(&bench, events[1].id.as_str()).await, 0);

    // It keeps its place, and its delivery comes to an outcome like the others.
    bench.work_off(TurnEnd::EndTurn).await;
    assert!(messages(&bench.log(&session).await) == wanted);
    for id in ids {
        let outcome = bench.store.delivery(&id).await.unwrap().outcome.unwrap();
        assert_eq!(outcome.as_str(), "succeeded");
    }
}

/// A replay that read the bytes before they were erased.
fn replay(bench: &Bench, key: String, of: &DeliveryId) -> Draft {
    let mut draft = bench.draft(&key);
    let (first, change) = (of.clone(), change("delivery.replay"));
    draft.0.replay_of = Some(Box::new(ReplayOf { of: first.clone(), first, change }));
    draft
}

async fn no_replay_outlives_the_erasure_of_its_bytes(bench: Bench) {
    let first = bench.accept(bench.draft("first")).await.delivery_id;
    let before = bench.accept(replay(&bench, "before".to_owned(), &first)).await.delivery_id;
    bench.store.erase_delivery(&first, change("delivery.erase")).await.unwrap();
    assert!(bench.store.delivery(&before).await.unwrap().erased_at.is_some());
    let late = replay(&bench, "late".to_owned(), &first);
    let id = late.0.id.clone();
    assert_eq!(bench.store.accept(late.0).await.unwrap(), Err(Refused::Erased));
    assert!(matches!(bench.store.delivery(&id).await, Err(Error::NotFound)));

    // At once, either of them may be first.
    let n_rounds = if crate::support::full() { 200 } else { 25 };
    for round in 0..n_rounds {
        let first = bench.accept(bench.draft(&format!("{round}"))).await.delivery_id;
        let draft = replay(&bench, format!("replay {round}"), &first);
        let id = draft.0.id.clone();
        let erase = bench.store.erase_delivery(&first, change("delivery.erase"));
        let (stored, erased) = tokio::join!(bench.store.accept(draft.0), erase);
        erased.unwrap();
        match stored.unwrap() {
            Ok(_) => {
                let delivery = bench.store.delivery(&id).await.unwrap();
                assert!(delivery.erased_at.is_some(), "round {round}");
            }
            Err(refused) => assert_eq!(refused, Refused::Erased),
        }
    }
}

async fn erasure_and_a_beginning_turn_do_not_tear_a_message_apart(bench: Bench) {
    let n_rounds = if crate::support::full() { 200 } else { 25 };
    for round in 0..n_rounds {
        let accepted = bench.accept(large(&bench, &format!("{round}"), PIECE + 1).await).await;
        let lease = bench.claim_one().await;
        let (erased, _) = tokio::join!(
            bench.store.erase_delivery(&accepted.delivery_id, change("delivery.erase")),
            bench.begin(&lease)
        );
        erased.unwrap();
        // Erased or not, the message can be read.
        let log = messages(&bench.log(&lease.session_id).await);
        assert_eq!(log.len(), 1, "round {round}");
        bench.finish(&lease, TurnEnd::EndTurn).await;
    }
}
