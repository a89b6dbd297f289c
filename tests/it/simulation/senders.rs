//! Senders and people: what they ask a node to take, and what they were told.

use std::{collections::BTreeMap, time::Duration};

use bellpull::{
    domain::{
        delivery::Identity,
        event::{Block, Event as Message, EventBody, Origin},
        source::{Debounce, Pace, WhenBusy},
        trace::TraceContext,
    },
    id::{AgentId, DeliveryId, EnvironmentId, EventId, SessionId, SourceId, WebhookRequestId},
    store::{
        self, Accepted, Body, Dispatch, MessageBody, NewDelivery, NewMessage, Refused, Route,
        RouteTarget,
    },
};

use super::plan::{Event, Shop, Target};

/// An agent and what belongs to it.
#[derive(Clone, Debug)]
pub struct Agent {
    pub id: AgentId,
    pub environment: EnvironmentId,
}

/// The names of what is in a world. New ids are counted, so that they are the same each time.
#[derive(Debug, Default)]
pub struct Names {
    pub agents: Vec<Agent>,
    pub sources: Vec<SourceId>,
    /// Sessions that exist from the start.
    pub fixed: Vec<SessionId>,
    /// The environment in which one session works at a time.
    pub project: String,
    n_ids: u64,
}

impl Names {
    pub fn id<T: bellpull::id::Id>(&mut self) -> T {
        self.n_ids += 1;
        format!("{}{:026}", T::PREFIX, self.n_ids).parse().expect("an id")
    }

    fn trace(&mut self) -> TraceContext {
        self.n_ids += 1;
        format!("00-{0:032x}-{0:016x}-01", self.n_ids).parse().expect("a trace")
    }

    /// A request for an event: the same identity and the same words each time, and new ids.
    pub fn request(
        &mut self,
        number: usize,
        event: &Event,
        shop: Shop,
        waiting_max: i64,
        at: bellpull::clock::Timestamp,
    ) -> NewDelivery {
        let (id, request_id) = (self.id::<DeliveryId>(), self.id::<WebhookRequestId>());
        let payload = format!("{{\"number\":{number}}}").into_bytes();
        let message = EventBody::UserMessage {
            content: vec![Block::text(format!("#d{number}#"))],
            origin: Some(Origin {
                source: "shop".to_owned(),
                source_id: self.sources[event.shop].clone(),
                delivery_id: id.clone(),
                event_type: None,
                content_type: None,
                bytes: payload.len() as i64,
                cut: event.cut,
                rerun: None,
                replay_of: None,
            }),
        };
        NewDelivery {
            source_id: self.sources[event.shop].clone(),
            identity: Identity {
                key: format!("event {number}"),
                field: "x-event".to_owned(),
                weak: false,
            },
            identity_before: None,
            id,
            route: self.route(event, shop, &message),
            event_type: None,
            request_id,
            trace: self.trace(),
            received_at: at,
            content_type: Some("application/json".to_owned()),
            headers: "{}".to_owned(),
            body_bytes: payload.len(),
            body: Body::Inline(payload.into()),
            secret: None,
            replay: None,
            replay_of: None,
            rerun_failed: shop.rerun_failed,
            waiting_max,
        }
    }

    fn route(&mut self, event: &Event, shop: Shop, message: &EventBody) -> Route {
        let agent = self.agents[shop.agent].clone();
        let target = match &event.target {
            Target::NewSession => RouteTarget::New(self.id()),
            Target::Key(key) => RouteTarget::Key { key: format!("key {key}"), fresh: self.id() },
            Target::Fixed(at) => RouteTarget::Session(self.fixed[*at].clone()),
            Target::Missing => RouteTarget::Session(self.id()),
            Target::Held => {
                return Route::Held { agent_id: Some(agent.id), reason: "paused".to_owned() };
            }
            Target::Filtered => {
                return Route::Filtered { agent_id: Some(agent.id), reason: "noise".to_owned() };
            }
        };
        Route::To(Box::new(Dispatch {
            agent_id: agent.id,
            agent_version: 1,
            environment_id: agent.environment,
            target,
            title: "shop".to_owned(),
            event_id: self.id::<EventId>(),
            message: MessageBody::Inline(message.to_text()),
            private: "{\"nonce\":\"0123456789abcdef\"}".to_owned(),
            pace: pace(self.n_ids),
        }))
    }

    /// Something that a person says.
    pub fn message(&mut self, number: usize) -> NewMessage {
        NewMessage {
            event_id: self.id(),
            body: EventBody::UserMessage {
                content: vec![Block::text(format!("#p{number}#"))],
                origin: None,
            },
            private: "{}".to_owned(),
        }
    }
}

/// Some wait for quiet, some want to be heard during the turn, some want it to end.
fn pace(n: u64) -> Pace {
    let (quiet, longest) = (Duration::from_secs(2), Duration::from_secs(9));
    let when_busy = match n % 7 {
        0 | 1 => WhenBusy::Steer,
        2 => WhenBusy::Supersede,
        _ => WhenBusy::Queue,
    };
    let debounce = n.is_multiple_of(3).then_some(Debounce { quiet, longest });
    Pace { debounce, when_busy, turns_per_hour_max: None }
}

/// What somebody who asked was told.
#[derive(Debug)]
pub struct Heard {
    pub question: u64,
    pub answer: Answer,
}

#[derive(Debug)]
pub enum Answer {
    Delivery(store::Result<Result<Accepted, Refused>>),
    /// To a person, or to whoever changed the configuration.
    Done(store::Result<()>),
    /// To whoever stops a turn.
    Stop(store::Result<Vec<Message>>),
}

impl Answer {
    /// In words that are the same each time: ids of events, which errors name, are drawn anew.
    pub fn told(&self) -> String {
        match self {
            Answer::Delivery(answer) => format!("{answer:?}"),
            Answer::Done(Ok(())) | Answer::Stop(Ok(_)) => "done".to_owned(),
            Answer::Done(Err(error)) | Answer::Stop(Err(error)) => {
                let text = error.to_string();
                let words = text.split(' ').filter(|word| !word.contains('_'));
                words.collect::<Vec<_>>().join(" ")
            }
        }
    }
}

/// What nobody has answered yet: at which node, and what it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    Event(usize),
    Speech(usize),
    /// For a call that waited.
    Answer(usize),
    Stop,
    Change,
}

/// What a person knows about what he said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// Nobody answered, or nobody yet.
    Perhaps,
    Yes,
    No,
}

/// What somebody answered for a call.
#[derive(Debug)]
pub struct Given {
    pub call: String,
    pub event: String,
    pub said: Said,
}

/// What was promised to whom.
#[derive(Debug, Default)]
pub struct Ledger {
    /// By event, all that its sender was told.
    pub deliveries: BTreeMap<usize, Vec<Accepted>>,
    /// By message, in the order in which they were said.
    pub speeches: Vec<(Vec<String>, Said)>,
    pub answers: Vec<Given>,
    /// Events of those who stopped a turn.
    pub stops: Vec<String>,
}
