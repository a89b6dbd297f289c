//! The first request of a turn, journaled with the turn's beginning.
//!
//! Most turns begin with a request to the model, and what a message waits for until it goes out is mostly
//! the way to the database and back. Where the beginning alone tells that there will be a request, both
//! are one transaction. Invariant: it is the request that the turn would make by itself, since
//! [`agent::step`] is asked about the same log. Left out: sessions of which somebody has to be asked first
//! (MCP servers, vaults), and budgets that leave no room, which are the turn's to tell of.

use std::{
    ops::ControlFlow,
    panic::{AssertUnwindSafe, catch_unwind},
};

use tokio_util::sync::CancellationToken;

use super::{Stopped, Turn, asking::Purpose, calls::tool_kind};
use crate::{
    agent::{self, Command},
    domain::{
        conversation::Request,
        environment::EnvironmentConfig,
        event::{EventBody, NewEvent},
        session::Session,
    },
    runtime::Runtime,
    signal::Changes,
    store::{FirstWork, Lease, Reserve, TurnStart, Urgency},
};

/// A request that has to go out.
#[derive(Debug)]
pub struct FirstRequest {
    /// What is journaled of it.
    pub(super) start: NewEvent,
    request: Request,
    /// Registered before the commit, so that nothing happens unseen after it.
    changes: Changes,
}

impl Runtime {
    /// Says whether a turn that begins asks its model first, and what. For
    /// [`Store::claim_and_begin`](crate::store::Store::claim_and_begin).
    pub fn first_request(
        &self,
    ) -> impl FnOnce(&Lease, &TurnStart) -> Option<FirstWork<FirstRequest>> + Send + 'static {
        let runtime = self.clone();
        move |lease, start| {
            // A bug in it meets the turn too, which tells of it.
            catch_unwind(AssertUnwindSafe(|| runtime.decide(lease, start))).ok().flatten()
        }
    }

    fn decide(&self, lease: &Lease, start: &TurnStart) -> Option<FirstWork<FirstRequest>> {
        let TurnStart { taken, standing } = start;
        let standing = standing.as_ref().filter(|it| !it.has_more)?;
        let place = &standing.environment.as_ref()?.config;
        if taken.urgency != Urgency::None || taken.resumes > i64::from(self.options.resumes_max) {
            return None;
        }
        let (cancel, now) = (CancellationToken::new(), self.clock.monotonic());
        let turn = Turn::new(self, lease, &cancel, taken, standing, now);
        let next = agent::step(&turn.transcript, tool_kind, &self.options.limits);
        if next != Command::CallModel || !turn.remote.is_known() {
            return None;
        }
        let setting = turn.setting(&standing.session, place);
        let request = turn.request(&standing.session, &setting);
        let wish = turn.wish(&standing.session, &request);
        let start = self.event(EventBody::ModelRequestStart);
        let mut changes = self.signals.watch(&lease.session_id);
        // That the turn begins.
        changes.made_one();
        Some(FirstWork {
            events: vec![start.clone()],
            reserve: Reserve { common: self.options.budgets, wish, active_ms: 0 },
            work: FirstRequest { start, request, changes },
        })
    }
}

impl Turn<'_> {
    /// Makes the request. Breaks when the turn waits for another try.
    pub(super) async fn ask_first(
        &mut self,
        session: &Session,
        place: &EnvironmentConfig,
        first: FirstRequest,
    ) -> Result<ControlFlow<()>, Stopped> {
        if self.cancel.is_cancelled() {
            return Err(Stopped::Cancelled);
        }
        let FirstRequest { start, request, changes } = first;
        let (ids, purpose) = (self.answer_ids(), Purpose::Answer);
        let asking = self.ask_begun(session, &request, start.id, changes, &ids, purpose);
        let asked = asking.await?;
        let setting = self.setting(session, place);
        self.take_answer(asked, session, &setting, ids, purpose).await
    }
}
