//! What an agent says about its own effects that are in doubt.
//!
//! Invariant: what it says stands in the ledger if and only if the log has the result of the call that
//! said it. Left out: whether it is true, which a person can correct.

use super::{Stopped, Turn};
use crate::{
    agent,
    domain::{conversation::ToolUse, event::Block, session::Session},
    id::EventId,
    store::{self, Beside, Found, Settlement},
    tool::settle_effect,
};

/// Effects that the model is told of by name.
const NAMED_MAX: usize = 20;

impl Turn<'_> {
    /// Carries out a call of `settle_effect`.
    pub(super) async fn settle(
        &mut self,
        session: &Session,
        call: ToolUse,
        warn: bool,
    ) -> Result<(), Stopped> {
        let warning = warn.then(|| Block::text(agent::REPEATED));
        let finding = match settle_effect::read(&call.input) {
            Ok(finding) => finding,
            Err(error) => {
                let content = [Block::text(error.to_string())].into_iter().chain(warning);
                return self.end_with(call, content.collect(), true, Beside::default()).await;
            }
        };
        let (effect, status) = (finding.effect, finding.status);
        let settlement = Settlement { status, note: Some(finding.note) };
        let (agent_id, id) = (session.agent_id.clone(), effect.clone());
        let settles = Some(Found { effect: id, agent_id, settlement });
        let text =
            format!("`{effect}` is settled: {}. People see that you said so.", status.as_str());
        let content = vec![Block::text(text)];
        let beside = Beside { settles, ..Beside::default() };
        match self.end_with(call.clone(), content, false, beside).await {
            Ok(()) => {
                self.doubts.remove(&effect);
                tracing::info!(%effect, status = status.as_str(), "the agent settled an effect");
                Ok(())
            }
            // Somebody was faster, or it is another session's: nothing was written.
            Err(Stopped::Store(store::Error::Conflict(_))) => {
                self.doubts.remove(&effect);
                let text =
                    format!("`{effect}` is not in doubt in this session. {}", self.in_doubt());
                let content = [Block::text(text)].into_iter().chain(warning);
                self.end_with(call, content.collect(), true, Beside::default()).await
            }
            Err(stopped) => Err(stopped),
        }
    }

    /// What a conversation that was summed up still has to name, if anything is in doubt.
    pub(super) fn doubts_to_keep(&self) -> Option<String> {
        (!self.doubts.is_empty()).then(|| self.in_doubt())
    }

    fn in_doubt(&self) -> String {
        let named: Vec<_> = self.doubts.iter().rev().take(NAMED_MAX).map(quoted).collect();
        match named.is_empty() {
            true => "Nothing is in doubt.".to_owned(),
            false => format!("In doubt: {}.", named.join(", ")),
        }
    }
}

fn quoted(id: &EventId) -> String {
    format!("`{id}`")
}
