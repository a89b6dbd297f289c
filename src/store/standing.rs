//! What a worker has to know of a session before it goes on with its turn, in one read.

use std::collections::BTreeSet;

use super::{
    Error, Result, Store, driver::Tx, effects, environments, events, queue, sessions, sources,
};
use crate::{
    domain::{
        environment::Environment,
        event::{Event, EventBody},
        session::Session,
        source::WebhookTools,
    },
    id::{EventId, SessionId, SourceId},
};

/// How things stand with a session.
#[derive(Clone, Debug)]
pub struct Standing {
    /// Without its resources and outcomes, which are for those who look at it.
    pub session: Session,
    /// `None` when it was deleted.
    pub environment: Option<Environment>,
    /// From the beginning, as much of it as one read may hold.
    pub log: Vec<Event>,
    /// Whether there may be more of it: [`Store::events_after`].
    pub has_more: bool,
    /// Effects that were begun, and of which nobody knows how they ended.
    pub begun: BTreeSet<EventId>,
    /// Effects in doubt, of this turn and of earlier ones; the newest, where there are many.
    pub doubts: BTreeSet<EventId>,
    /// Whether there ever was one.
    pub has_doubted: bool,
    /// Who began the session, and the sources that this much of the log came from.
    pub sources: BTreeSet<SourceId>,
    /// What they leave to tools that do more than read: the strictest of them.
    pub webhook_tools: WebhookTools,
}

impl Store {
    /// [`Error::NotFound`](super::Error::NotFound) without the session.
    pub async fn standing(&self, session: &SessionId, limit: usize) -> Result<Standing> {
        let id = session.clone();
        self.driver.read(move |tx| read(tx, &id, limit)).await
    }
}

pub(super) fn read(tx: &mut Tx<'_>, id: &SessionId, limit: usize) -> Result<Standing> {
    let session = sessions::row(tx, id)?;
    let environment = match environments::read(tx, &session.environment_id) {
        Ok(environment) => Some(environment),
        Err(Error::NotFound) => None,
        Err(error) => return Err(error),
    };
    let (log, has_more) = events::after(tx, id, 0, limit)?;
    let begun = queue::begun(tx, id)?;
    let doubts = effects::in_doubt(tx, id)?;
    let has_doubted = !doubts.is_empty() || effects::were_settled(tx, id)?;
    let sources = log.iter().filter_map(source).chain(session.source_id.as_ref());
    let sources: BTreeSet<_> = sources.cloned().collect();
    let webhook_tools = sources::strictest(tx, &sources)?;
    Ok(Standing {
        session,
        environment,
        log,
        has_more,
        begun,
        doubts,
        has_doubted,
        sources,
        webhook_tools,
    })
}

/// Where a message came from, if a sender sent it.
fn source(event: &Event) -> Option<&SourceId> {
    match &event.body {
        EventBody::UserMessage { origin: Some(origin), .. } => Some(&origin.source_id),
        _ => None,
    }
}
