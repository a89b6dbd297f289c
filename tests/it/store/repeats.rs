//! Requests that say something and come again, because the client heard no answer.

use std::time::Duration;

use bellpull::{
    domain::turn::TurnEnd,
    id::SessionId,
    store::{Error, Said, Tried},
};

use super::{Bench, bench::change, messages};

on_both!(
    another_try_changes_nothing_and_is_answered_alike,
    two_first_tries_are_two_messages,
    a_first_try_that_was_overtaken_is_the_same,
    tries_at_once_on_two_nodes_count_once,
    what_is_long_past_is_forgotten,
);

impl Bench {
    fn try_of(&self, n: i64, hash: &str) -> Tried {
        Tried { n, came_at: self.clock.now(), hash: hash.to_owned() }
    }

    /// Says a text, and answers the id that its event was given.
    async fn tries(&self, session: &SessionId, text: &str, tried: Tried) -> String {
        let said = vec![Said::Message(self.message(text))];
        let sent = self.store.say_once(session, said, 10, "somebody".to_owned(), Some(tried)).await;
        sent.unwrap()[0].id.to_string()
    }
}

async fn a_session(bench: &Bench) -> SessionId {
    let session = bench.new_session(&bench.agent);
    bench.store.create_session(session).await.unwrap().id
}

async fn another_try_changes_nothing_and_is_answered_alike(bench: Bench) {
    let session = a_session(&bench).await;
    let first = bench.tries(&session, "one", bench.try_of(0, "a")).await;
    assert_eq!(bench.tries(&session, "one", bench.try_of(1, "a")).await, first);
    assert_eq!(bench.tries(&session, "one", bench.try_of(2, "a")).await, first);
    // Of another body, or of a session where nothing was said before, it is new.
    assert_ne!(bench.tries(&session, "two", bench.try_of(1, "b")).await, first);
    bench.work_off(TurnEnd::EndTurn).await;
    let other = a_session(&bench).await;
    assert_ne!(bench.tries(&other, "one", bench.try_of(1, "a")).await, first);
    assert_eq!(bench.work_off(TurnEnd::EndTurn).await, other);
    assert_eq!(messages(&bench.log(&session).await), ["one", "two"]);
    // Also when the session has gone on meanwhile, and takes nothing any more.
    bench.store.archive_session(&session, change("session.archive")).await.unwrap();
    assert_eq!(bench.tries(&session, "one", bench.try_of(1, "a")).await, first);
}

async fn two_first_tries_are_two_messages(bench: Bench) {
    let session = a_session(&bench).await;
    let first = bench.tries(&session, "yes", bench.try_of(0, "a")).await;
    let second = bench.tries(&session, "yes", bench.try_of(0, "a")).await;
    assert_ne!(first, second);
    assert_eq!(bench.tries(&session, "yes", bench.try_of(1, "a")).await, second);
    // Nor is the next one a repetition of a try that did count.
    let third = bench.tries(&session, "no", bench.try_of(1, "b")).await;
    bench.clock.advance(Duration::from_millis(1));
    assert_ne!(bench.tries(&session, "no", bench.try_of(0, "b")).await, third);
}

async fn a_first_try_that_was_overtaken_is_the_same(bench: Bench) {
    let session = a_session(&bench).await;
    let slow = bench.try_of(0, "a");
    bench.clock.advance(Duration::from_secs(2));
    let fast = bench.tries(&session, "one", bench.try_of(1, "a")).await;
    assert_eq!(bench.tries(&session, "one", slow).await, fast);
    bench.work_off(TurnEnd::EndTurn).await;
    assert_eq!(messages(&bench.log(&session).await), ["one"]);
}

async fn tries_at_once_on_two_nodes_count_once(bench: Bench) {
    let session = a_session(&bench).await;
    let other = bench.another_node().await;
    for round in 0..20 {
        let hash = round.to_string();
        let (first, second) = (bench.try_of(0, &hash), bench.try_of(1, &hash));
        let (one, two) =
            tokio::join!(bench.tries(&session, "one", first), other.tries(&session, "one", second));
        assert_eq!(one, two, "{round}");
        bench.work_off(TurnEnd::EndTurn).await;
    }
    assert_eq!(messages(&bench.log(&session).await).len(), 20);
}

async fn what_is_long_past_is_forgotten(bench: Bench) {
    let session = a_session(&bench).await;
    let first = bench.tries(&session, "one", bench.try_of(0, "a")).await;
    let wrong = vec![Said::Message(bench.message("two")), Said::Message(bench.message("three"))];
    let refused =
        bench.store.say_once(&session, wrong, 1, "x".to_owned(), Some(bench.try_of(0, "b"))).await;
    assert_fails!(refused, Error::Full(_));
    let sql = "select count(*) from said";
    assert_eq!(bench.place.number(sql).await, 1, "what was refused is not remembered");
    bench.clock.advance(Duration::from_secs(61));
    assert_ne!(bench.tries(&session, "one", bench.try_of(1, "a")).await, first);
    assert_eq!(bench.place.number(sql).await, 1);
    bench.clock.advance(Duration::from_secs(61));
    bench.store.prune(&Default::default()).await.unwrap();
    assert_eq!(bench.place.number(sql).await, 0);
}
