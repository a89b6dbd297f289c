//! The evaluation of an outcome: whether the work is what was asked for.
//!
//! The agent's model is asked as a grader, in a context of its own, by the same way as for an answer: the
//! intent is journaled with what it may cost, and the end of the request and the verdict are one append,
//! so that a crash repeats the asking and no verdict. Left out: what a grader is told, and what its
//! answer means, which `agent` knows.

use std::{ops::ControlFlow, pin::Pin, time::Duration};

use serde_json::json;

use super::{
    Stopped, Turn,
    asking::{Asked, Purpose},
    previewer::AnswerIds,
};
use crate::{
    agent,
    domain::{
        conversation::Completion,
        cost::Spent,
        event::{EventBody, NewEvent, Usage, plain_text},
        outcome::Verdict,
        session::Session,
        turn::TurnEnd,
    },
    id::{EventId, Id},
    signal::Changes,
    store::{Beside, Urgency},
};

/// Between two words that a grader is still at work.
const ONGOING_EVERY: Duration = Duration::from_secs(10);

/// Bytes of the record of the work for each token that a conversation may have: dense text has about
/// three, and the grader needs room for the rubric.
const BYTES_PER_TOKEN: usize = 2;

impl Turn<'_> {
    /// Breaks when the turn waits for another try, or is over.
    pub(super) async fn grade(&mut self, session: &Session) -> Result<ControlFlow<()>, Stopped> {
        let Some(goal) = self.transcript.goal.clone() else {
            return Ok(ControlFlow::Continue(()));
        };
        // One that an earlier life began goes on.
        let mut events = Vec::new();
        let begun = goal.evaluation.clone().unwrap_or_else(|| {
            let (outcome_id, iteration) = (goal.outcome_id.clone(), goal.iteration);
            let start = EventBody::OutcomeEvaluationStart { outcome_id, iteration };
            let start = self.runtime.event(start);
            let id = start.id.clone();
            events.push(start);
            id
        });
        let tokens = usize::try_from(self.runtime.options.limits.context_tokens_max);
        let bytes_max = tokens.unwrap_or(usize::MAX).saturating_mul(BYTES_PER_TOKEN);
        let request = agent::grading(&self.transcript, &goal, begun.as_str(), bytes_max);
        let now = self.runtime.clock.now();
        let ids = AnswerIds { thinking: EventId::new(now), message: EventId::new(now) };
        match self.ask_model(session, &request, events, &ids, Purpose::Verdict).await? {
            Asked::Answered(start_id, completion) => {
                self.journal_verdict(start_id, &begun, *completion).await?;
                Ok(ControlFlow::Continue(()))
            }
            Asked::Otherwise(flow) => Ok(flow),
        }
    }

    /// The end of the request and the verdict, in one append.
    async fn journal_verdict(
        &mut self,
        start_id: EventId,
        evaluation: &EventId,
        completion: Completion,
    ) -> Result<(), Stopped> {
        let Some(goal) = &self.transcript.goal else { return Ok(()) };
        let (result, explanation) = agent::verdict(&plain_text(&completion.content), goal);
        let mut end = self.request_end(start_id, Some(false), completion.spent);
        end.private = Some(json!({"grader": true}));
        let evaluated = EventBody::OutcomeEvaluationEnd {
            outcome_evaluation_start_id: evaluation.to_string(),
            outcome_id: goal.outcome_id.clone(),
            iteration: goal.iteration,
            result,
            explanation,
            usage: completion.spent.usage,
        };
        tracing::info!(
            outcome_id = %goal.outcome_id,
            iteration = goal.iteration,
            result = result.as_str(),
            "an outcome was evaluated"
        );
        let events = vec![end, self.runtime.event(evaluated)];
        let beside = Beside { asked: true, ..Beside::default() };
        self.append_with(events, completion.spent, beside).await
    }

    /// As [`Turn::act_until_urgent`], with a word in the log every now and then that it still goes on.
    pub(super) async fn act_with_word<T>(
        &mut self,
        mut changes: Changes,
        mut work: Pin<Box<impl Future<Output = T>>>,
    ) -> Result<Result<T, Urgency>, Stopped> {
        loop {
            let pause = self.runtime.clock.sleep(ONGOING_EVERY);
            let some_of_it = async {
                tokio::select! {
                    biased;
                    result = &mut work => Some(result),
                    () = pause => None,
                }
            };
            match self.act_until_urgent(changes, some_of_it).await? {
                Ok(Some(result)) => return Ok(Ok(result)),
                Ok(None) => {}
                Err(urgency) => return Ok(Err(urgency)),
            }
            let Some(goal) = &self.transcript.goal else { return Ok(Err(Urgency::None)) };
            let (outcome_id, iteration) = (goal.outcome_id.clone(), goal.iteration);
            let ongoing = EventBody::OutcomeEvaluationOngoing { outcome_id, iteration };
            // The append is a look at what is asked of the turn, so it comes after the registration.
            changes = self.runtime.signals.watch(&self.lease.session_id);
            let events = vec![self.runtime.event(ongoing)];
            self.append(events, Spent::default()).await?;
            changes.made_one();
            if self.urgency >= Urgency::Supersede {
                return Ok(Err(self.urgency));
            }
        }
    }

    /// That nobody works towards the outcome any more, when a turn ends like this. One that makes way
    /// for a message leaves it to the next turn, which the message begins.
    pub(super) fn end_goal(&self, end: TurnEnd) -> Option<NewEvent> {
        let goal = self.transcript.goal.as_ref()?;
        let (result, explanation) = match end {
            TurnEnd::EndTurn => return None,
            TurnEnd::Interrupted if self.urgency < Urgency::Interrupt => return None,
            TurnEnd::Interrupted => (Verdict::Interrupted, "somebody stopped the work on it"),
            TurnEnd::BudgetReached => {
                (Verdict::Failed, "a budget was used up before the rubric was met")
            }
            TurnEnd::Refusal => (Verdict::Failed, "the model refused to go on with it"),
            TurnEnd::RetriesExhausted | TurnEnd::Failed => {
                (Verdict::Failed, "an error ended the turn before the rubric was met")
            }
        };
        let start = goal.evaluation.as_ref().map(ToString::to_string);
        Some(self.runtime.event(EventBody::OutcomeEvaluationEnd {
            outcome_evaluation_start_id: start.unwrap_or_default(),
            outcome_id: goal.outcome_id.clone(),
            iteration: goal.iteration,
            result,
            explanation: explanation.to_owned(),
            usage: Usage::default(),
        }))
    }
}
