//! Graders that take long, by a clock that the test sets.

use std::time::Duration;

use bellpull::{
    clock::{Clock, Timestamp},
    domain::{
        event::EventBody,
        outcome::{Rubric, outcome_of},
    },
    id::{EventId, Id, SessionId},
    model,
    store::{NewMessage, NewSession},
};
use tokio_util::sync::CancellationToken;

use super::{LEASE, World};
use crate::support::{
    model_server::{ModelServer, Reply},
    process::until,
};

async fn aimed(world: &World) -> SessionId {
    let at = world.store.clock().now();
    let event_id = EventId::new(at);
    let body = EventBody::UserDefineOutcome {
        outcome_id: outcome_of(&event_id),
        description: "Write a poem.".to_owned(),
        rubric: Rubric::Text { content: "it rhymes".to_owned() },
        max_iterations: None,
    };
    let session = NewSession {
        id: SessionId::new(at),
        agent_id: world.agent.clone(),
        agent_version: 1,
        overrides: None,
        environment_id: world.environment.clone(),
        deployment_id: None,
        title: None,
        metadata: Default::default(),
        messages: vec![NewMessage { event_id, body, private: "{}".to_owned() }],
        resources: Vec::new(),
        budget: Default::default(),
        vault_ids: Vec::new(),
    };
    world.store.create_session(session).await.unwrap().id
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grader_that_takes_long_gives_signs_of_life() {
    let satisfied = r#"{"verdict": "satisfied", "explanation": "it rhymes"}"#;
    let (gate, held) = Reply::text(&[satisfied]).held();
    let models = ModelServer::start([Reply::text(&["roses"]), held]).await;
    let options = model::Options {
        anthropic_api_key: Some("sk-scripted".into()),
        anthropic_base_url: Some(models.url.clone()),
        ..model::Options::default()
    };
    let clock = Clock::manual(Timestamp(1_800_000_000_000));
    let world = World::with(clock, "claude-scripted", options).await;
    let session = aimed(&world).await;
    let claimed = world.claim(LEASE).await;
    let (runtime, cancel) = (world.runtime.clone(), CancellationToken::new());
    let turn = tokio::spawn(async move { runtime.drive(&claimed.lease, None, &cancel).await });
    until("a grader is asked", async || (models.requests().len() == 2).then_some(())).await;
    let ongoing = "span.outcome_evaluation_ongoing";
    let n_signs = async || world.types(&session).await.iter().filter(|it| **it == ongoing).count();
    assert_eq!(n_signs().await, 0);
    for n in 1..=2 {
        until("there is a sign", async || {
            // It may not wait yet.
            world.store.clock().advance(Duration::from_secs(10));
            (n_signs().await >= n).then_some(())
        })
        .await;
    }
    gate.open();
    turn.await.unwrap().unwrap();
    let types = world.types(&session).await;
    let spans = types.iter().filter(|it| it.contains("outcome_evaluation") && **it != ongoing);
    let spans: Vec<_> = spans.copied().collect();
    assert_eq!(spans, ["span.outcome_evaluation_start", "span.outcome_evaluation_end"]);
    assert_eq!(types.last(), Some(&"session.status_idle"));
}
