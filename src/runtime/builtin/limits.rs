//! Budgets, as a turn meets them: looked at before each model request and each call, and while they
//! last.

use std::{ops::ControlFlow, time::Duration};

use tokio::time::Instant;

use super::{Stopped, Turn};
use crate::{
    domain::{
        budget::{Admission, Wish},
        conversation::ToolUse,
        event::{EventBody, NewEvent, SessionError, StopReason},
        session::{Session, primary_thread},
        turn::TurnEnd,
    },
    store::{Beside, Reserve, Urgency},
};

/// Between two looks at a budget of which others hold what is left.
const BUSY_PAUSE: Duration = Duration::from_millis(100);

impl Turn<'_> {
    /// The model goes round in circles.
    pub(super) async fn stop_repeating(&mut self, call: &ToolUse) -> Result<(), Stopped> {
        let n = self.runtime.options.limits.repeats_max;
        let message = format!(
            "the model wanted to call `{}` with the same input again, after {n} times in a row",
            call.name
        );
        self.fail("tool_use_limit_reached_error", message).await
    }

    pub(super) async fn stop_at_limit(&mut self) -> Result<(), Stopped> {
        let n = self.runtime.options.limits.requests_max;
        let message = format!("the turn reached its limit of {n} model requests");
        self.fail("tool_use_limit_reached_error", message).await
    }

    /// Journals the intent of something that costs, if the budgets allow it. Breaks when one of them
    /// is used up, and with it the turn.
    pub(super) async fn begin(
        &mut self,
        events: Vec<NewEvent>,
        beside: Beside,
        wish: Wish,
    ) -> Result<ControlFlow<()>, Stopped> {
        self.deadline = None;
        loop {
            if self.cancel.is_cancelled() {
                return Err(Stopped::Cancelled);
            }
            let active_ms = i64::try_from(self.active().as_millis()).unwrap_or(i64::MAX);
            let common = self.runtime.options.budgets;
            let reserve = Reserve { common, wish: wish.clone(), active_ms };
            let store = &self.runtime.store;
            let begun =
                store.begin_work(self.lease, events.clone(), beside.clone(), reserve).await?;
            self.urgency = begun.urgency;
            match begun.admission {
                Admission::Fine => {
                    self.admitted(&events, begun.ms_left, self.runtime.clock.monotonic());
                    if !events.is_empty() {
                        self.runtime.signals.changed(&self.lease.session_id);
                    }
                    return Ok(ControlFlow::Continue(()));
                }
                Admission::Reached(why) => return self.stop_at_budget(why).await,
                Admission::Unpriced(why) => {
                    self.fail("billing_error", why).await?;
                    return Ok(ControlFlow::Break(()));
                }
                Admission::Busy if self.urgency >= Urgency::Supersede => {
                    self.make_way().await?;
                    return Ok(ControlFlow::Break(()));
                }
                Admission::Busy => {
                    let changes = self.runtime.signals.watch(&self.lease.session_id);
                    let pause = self.runtime.clock.sleep(BUSY_PAUSE);
                    let _ = self.act_until_urgent(changes, pause).await?;
                }
            }
        }
    }

    /// Something that costs is under way: its intent is journaled, and these milliseconds are left for it.
    pub(super) fn admitted(&mut self, events: &[NewEvent], ms_left: Option<i64>, from: Instant) {
        let left = ms_left.and_then(|ms| u64::try_from(ms).ok());
        self.deadline = left.map(|ms| from + Duration::from_millis(ms));
        for event in events {
            self.transcript.apply(&event.id, &event.body, event.private.as_ref());
        }
    }

    /// Until the budgets leave no more time for what is under way.
    pub(super) async fn time_is_up(&self) {
        match self.deadline {
            Some(end) => self.runtime.clock.sleep_until(end).await,
            None => std::future::pending().await,
        }
    }

    /// What was under way was given up because there is no time left for it.
    pub(super) async fn out_of_time(&mut self) -> Result<ControlFlow<()>, Stopped> {
        self.stop_at_budget("the seconds of work that a budget leaves are used up".to_owned()).await
    }

    /// The thread rests, what was used, and (from [`Turn::finish`]) the session rests: the order of the
    /// API. Of a session's own budget that says everything; any other limit is named by an error.
    async fn stop_at_budget(&mut self, why: String) -> Result<ControlFlow<()>, Stopped> {
        tracing::info!(why, "a budget is used up");
        let mut events = self.end_what_is_open(TurnEnd::BudgetReached);
        let session = self.runtime.store.session(&self.lease.session_id).await?;
        let is_own = session.budget.cost_usd.is_some_and(|limit| session.cost.known >= limit);
        if !is_own {
            let error = SessionError::exhausted("billing_error", why);
            events.push(self.runtime.event(EventBody::SessionError { error }));
        }
        events.push(self.runtime.event(EventBody::ThreadStatusIdle {
            agent_name: session.agent.name.clone(),
            session_thread_id: primary_thread(&session.id).to_string(),
            stop_reason: StopReason::BudgetReached,
            stop_details: None,
        }));
        events.push(self.usage(session));
        self.finish(TurnEnd::BudgetReached, events).await?;
        Ok(ControlFlow::Break(()))
    }

    /// What the session has used, with the work on this turn that is in no row yet.
    pub(super) fn usage(&self, mut session: Session) -> NewEvent {
        let active = i64::try_from(self.active().as_millis()).unwrap_or(0);
        session.active_ms = session.active_ms.saturating_add(active);
        let (usage, budget) = (session.usage_json(), session.budget.to_json());
        self.runtime.event(EventBody::SessionUsage { usage, budget })
    }
}
