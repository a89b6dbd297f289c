//! Tools: what an agent can do, one file per tool.
//!
//! A tool sees the outside only through [`Host`]. Its failures are of two kinds: what the model did
//! wrong is an answer to the model ([`Error::Model`]); only broken machinery ends the turn
//! ([`Error::Fatal`]). What a tool does to the world is declared here, defensively true in doubt.

pub mod delivery;

use std::future::Future;

use bytes::Bytes;
use serde_json::Value;

use crate::{
    domain::conversation::ToolSpec,
    id::{DeliveryId, SessionId},
};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Told to the model, which can do something about it.
    #[error("{0}")]
    Model(String),
    /// The turn cannot go on.
    #[error("{0:#}")]
    Fatal(anyhow::Error),
}

/// A raw payload and what is known about it.
#[derive(Clone, Debug)]
pub struct DeliveredPayload {
    pub delivery_id: DeliveryId,
    pub content_type: Option<String>,
    pub bytes: Bytes,
}

/// The outside, as far as a tool may see it: of one session.
pub trait Host: Send + Sync {
    fn session_id(&self) -> &SessionId;

    /// The payload of a delivery of this session, the newest one unless named.
    fn delivery(
        &self,
        delivery: Option<DeliveryId>,
    ) -> impl Future<Output = Result<DeliveredPayload, Error>> + Send;
}

/// What a tool does to the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    ReadOnly,
    Idempotent,
    Effect,
}

/// The tools that every agent of a session with deliveries has.
pub fn specs() -> Vec<ToolSpec> {
    vec![delivery::spec()]
}

/// `None` when there is no such tool.
pub fn kind(name: &str) -> Option<Kind> {
    match name {
        delivery::NAME => Some(Kind::ReadOnly),
        _ => None,
    }
}

/// Runs a tool and answers the text for the model. Dropping the future cancels it.
pub async fn run(host: &impl Host, name: &str, input: &Value) -> Result<String, Error> {
    match name {
        delivery::NAME => delivery::run(host, input).await,
        _ => Err(Error::Model(format!("there is no tool `{name}`"))),
    }
}
