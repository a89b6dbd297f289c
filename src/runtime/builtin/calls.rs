//! The calls that a model wants made: which it may make, who is asked, and carrying them out.
//!
//! Invariant: a call that changes the outside stands in the ledger of effects before it is begun, and
//! its outcome joins the ledger with its result.

use std::{borrow::Cow, collections::BTreeSet, ops::ControlFlow, time::Duration};

use serde_json::{Value, json};

use super::{Stopped, Turn, host};
use crate::{
    agent::{self, Permission, Setting, ToolKind},
    domain::{
        budget::Wish,
        conversation::{Executor, ToolSpec, ToolUse},
        cost::Spent,
        effect::EffectStatus,
        environment::EnvironmentConfig,
        event::{Block, Egress, EventBody, NewEvent, StopReason},
        session::Session,
        text::first_chars,
        toolset::is_offered,
    },
    id::EventId,
    store::{Beside, EffectEnd, NewAsk, NewEffect, Urgency, Wanted},
    tool,
};

/// Of a tool's name, as far as providers know it.
const NAME_CHARS_MAX: usize = 128;

/// Of an input, in the ledger of effects.
const INPUT_CHARS_MAX: usize = 500;

pub(super) fn tool_kind(name: &str) -> ToolKind {
    // Whatever its server says about it.
    if is_offered(name) {
        return ToolKind::Effect;
    }
    match tool::kind(name) {
        None => ToolKind::Unknown,
        Some(tool::Kind::ReadOnly) => ToolKind::ReadOnly,
        Some(tool::Kind::Idempotent) => ToolKind::Idempotent,
        Some(tool::Kind::Effect) => ToolKind::Effect,
    }
}

impl Turn<'_> {
    /// The tools that a model is told about: those that the session has, those of its client, and those
    /// of its MCP servers.
    pub(super) fn offered(&self, setting: &Setting) -> Vec<ToolSpec> {
        let given = [tool::delivery::NAME, tool::settle_effect::NAME];
        let all = given.into_iter().chain(tool::toolset());
        // What is denied anyway only tempts.
        let may =
            |name: &str| setting.evaluate(name, tool_kind(name)).permission != Permission::Deny;
        let own = all.filter(|name| setting.has(name) && may(name));
        let own = own.filter_map(tool::spec);
        let custom = setting.custom().map(|(name, description, input_schema)| ToolSpec {
            name: name.to_owned(),
            description: description.to_owned(),
            input_schema: input_schema.clone(),
        });
        own.chain(custom).chain(self.remote.specs().filter(|spec| may(&spec.name))).collect()
    }

    /// What decides about the calls of this session, as of now.
    pub(super) fn setting(&self, session: &Session, place: &EnvironmentConfig) -> Setting {
        let has_deliveries = self.transcript.has_deliveries;
        // Where anything came from a source, its payload can be read.
        let delivery = has_deliveries.then_some(tool::delivery::NAME);
        // From the first doubt on, also once it is settled: what a model is told of changes as rarely
        // as can be, since a provider's cache holds for equal tools only.
        let settle = self.has_doubted.then_some(tool::settle_effect::NAME);
        let given = delivery.into_iter().chain(settle).map(str::to_owned).collect();
        let untrusted = has_deliveries || session.source_id.is_some();
        let tools = session.agent.tools.clone();
        let setting = Setting::new(tools, place.clone(), untrusted, given);
        setting
            .with_servers(self.remote.tools(), self.remote.has_variables())
            .with_webhook_tools(self.webhook_tools)
    }

    /// Asks the sources that something more came from what they leave to tools: the strictest counts.
    pub(super) async fn ask_sources(&mut self) -> Result<(), Stopped> {
        let fresh: BTreeSet<_> = self.transcript.sources.difference(&self.asked).cloned().collect();
        if !fresh.is_empty() {
            self.asked.extend(fresh.iter().cloned());
            let more = self.runtime.store.webhook_tools(fresh).await?;
            self.webhook_tools = self.webhook_tools.max(more);
        }
        Ok(())
    }

    /// A call as it is journaled, and whom it waits for.
    pub(super) fn new_call(
        &self,
        setting: &Setting,
        name: String,
        input: Value,
    ) -> (NewEvent, Option<NewAsk>) {
        let input = if input.is_object() { input } else { json!({}) };
        let executor = setting.executor(&name);
        if executor == Executor::Custom {
            let body = EventBody::AgentCustomToolUse { name: name.clone(), input: input.clone() };
            let event = self.runtime.event(body);
            let ask = self.ask(event.id.clone(), name, input, Wanted::CustomResult, false);
            return (event, Some(ask));
        }
        let evaluation = setting.evaluate(&name, tool_kind(&name));
        let evaluated_permission = evaluation.permission.as_str().to_owned();
        let (shown, evaluation_json) = (input.clone(), evaluation.to_json());
        let is_clients = executor == Executor::SelfHosted;
        let event = match self.remote.find(&name) {
            Some(offer) => {
                let mut event = self.runtime.event(EventBody::AgentMcpToolUse {
                    mcp_server_name: offer.server.clone(),
                    name: offer.tool.name.clone(),
                    input: shown,
                    evaluated_permission,
                    evaluation: evaluation_json,
                });
                event.private = Some(json!({"hash": offer.tool.hash}));
                event
            }
            None => {
                let mut event = self.runtime.event(EventBody::AgentToolUse {
                    name: plain_name(&name),
                    input: shown,
                    evaluated_permission,
                    evaluation: evaluation_json,
                });
                event.private = is_clients.then(|| json!({"self_hosted": true}));
                event
            }
        };
        let wanted = match evaluation.permission {
            Permission::Ask => Some(Wanted::Confirmation),
            Permission::Allow if is_clients => Some(Wanted::ToolResult),
            Permission::Allow | Permission::Deny => None,
        };
        let id = event.id.clone();
        (event, wanted.map(|wanted| self.ask(id, name, input, wanted, is_clients)))
    }

    fn ask(
        &self,
        id: EventId,
        tool: String,
        input: Value,
        wanted: Wanted,
        by_client: bool,
    ) -> NewAsk {
        let call = ToolUse { id, name: tool, input };
        let patience = Duration::from_secs(self.runtime.options.approval_seconds_max);
        let fingerprint = call.fingerprint();
        NewAsk { call: call.id, wanted, by_client, tool: call.name, fingerprint, patience }
    }

    /// Goes on with the answers that came, or lets the turn wait for them.
    pub(super) async fn await_answers(
        &mut self,
        calls: Vec<EventId>,
    ) -> Result<ControlFlow<()>, Stopped> {
        if self.cancel.is_cancelled() {
            return Err(Stopped::Cancelled);
        }
        let is_told = self.transcript.waiting.is_some();
        let answers = self.runtime.store.take_answers(self.lease, is_told).await?;
        if !answers.is_empty() {
            for event in answers {
                self.transcript.apply(&event.id, &event.body, event.private.as_ref());
            }
            self.runtime.signals.changed(&self.lease.session_id);
            return Ok(ControlFlow::Continue(()));
        }
        let is_told = self.transcript.waiting.as_ref() == Some(&calls);
        let idle = (!is_told).then(|| {
            let stop_reason = StopReason::RequiresAction { event_ids: calls.clone() };
            self.runtime.event(EventBody::StatusIdle { stop_reason, stop_details: None })
        });
        let (idle, active) = (idle.into_iter().collect(), self.active());
        self.take_outputs().await;
        self.runtime.store.park(self.lease, idle, active).await?;
        tracing::info!(calls = calls.len(), "the turn waits for somebody to answer for its calls");
        self.runtime.signals.changed(&self.lease.session_id);
        self.runtime.signals.outgoing();
        // An answer may have come meanwhile.
        self.runtime.signals.due();
        Ok(ControlFlow::Break(()))
    }

    pub(super) async fn run_tool(
        &mut self,
        session: &Session,
        place: &EnvironmentConfig,
        call: ToolUse,
        warn: bool,
    ) -> Result<ControlFlow<()>, Stopped> {
        let remote = self.transcript.remote(&call.id).cloned();
        if let Some(remote) = &remote
            && let Some(why) = self.check_remote(session, place, &call, remote).await?
        {
            self.answer_error(call, why).await?;
            return Ok(ControlFlow::Continue(()));
        }
        let is_effect = tool_kind(&call.name) == ToolKind::Effect;
        let changes = self.runtime.signals.watch(&self.lease.session_id);
        let intends = is_effect.then(|| intent(session, &call));
        let beside = Beside { intends, ..Beside::default() };
        if self.begin(Vec::new(), beside, Wish::Tool).await?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
        if self.urgency >= Urgency::Supersede {
            let content = vec![Block::text(agent::NOT_RUN)];
            let status = is_effect.then_some(EffectStatus::Failed);
            self.end_call(call, content, true, status).await?;
            return Ok(ControlFlow::Continue(()));
        }
        if is_effect {
            let open = self.transcript.open_tools.iter_mut().find(|open| open.call.id == call.id);
            open.into_iter().for_each(|open| open.begun = true);
        }
        if remote.is_none() && call.name == tool::settle_effect::NAME {
            self.settle(session, call, warn).await?;
            return Ok(ControlFlow::Continue(()));
        }
        let (runtime, session_id) = (self.runtime, &self.lease.session_id);
        let host = host::SessionHost { runtime, session_id, workspace: &self.workspace };
        let running = Box::pin(async {
            match &remote {
                Some(remote) => self.run_remote(&host, session, place, (remote, &call)).await,
                None => {
                    let content = tool::run(&host, &call.name, &call.input).await?;
                    Ok((content, false, EffectStatus::Done))
                }
            }
        });
        // Dropping it kills what it runs.
        let result = match self.act_until_urgent(changes, running).await? {
            Ok(result) => result,
            Err(urgency) => {
                self.urgency = urgency;
                if urgency >= Urgency::Supersede {
                    return Ok(ControlFlow::Continue(()));
                }
                // What it began is in doubt, and the turn at its end.
                return self.out_of_time().await;
            }
        };
        let (mut content, is_error, status) = match result {
            Ok(ran) => ran,
            Err(tool::Error::Model(message)) => {
                (vec![Block::text(message)], true, EffectStatus::Failed)
            }
            Err(tool::Error::Fatal(error)) => {
                tracing::error!(tool = call.name, error = format!("{error:#}"), "a tool broke");
                let mut text = "the tool is broken on this server".to_owned();
                if is_effect {
                    text = format!("{text}\n{}", agent::interrupted(&call.id));
                }
                (vec![Block::text(text)], true, EffectStatus::InDoubt)
            }
        };
        if warn {
            content.push(Block::text(agent::REPEATED));
        }
        self.end_call(call, content, is_error, is_effect.then_some(status)).await?;
        Ok(ControlFlow::Continue(()))
    }

    /// An earlier life began to carry it out and told no outcome.
    pub(super) async fn doubt(&mut self, call: ToolUse) -> Result<(), Stopped> {
        let content = vec![Block::text(agent::interrupted(&call.id))];
        self.end_call(call, content, true, Some(EffectStatus::InDoubt)).await
    }

    /// The call is not carried out; the model hears why.
    pub(super) async fn answer_error(
        &mut self,
        call: ToolUse,
        error: String,
    ) -> Result<(), Stopped> {
        self.end_call(call, vec![Block::text(error)], true, None).await
    }

    /// Where the session's programs wanted to go and no result has told yet.
    pub(super) fn decided(&self) -> Vec<Egress> {
        let shells = self.runtime.shells.as_ref();
        shells.map(|shells| shells.decided(&self.lease.session_id)).unwrap_or_default()
    }

    /// What these results told of that is in the log now.
    pub(super) fn told(&self, events: &[NewEvent]) {
        let Some(shells) = &self.runtime.shells else { return };
        for egress in events.iter().map(|event| event.body.egress()) {
            if !egress.is_empty() {
                shells.told(&self.lease.session_id, egress);
            }
        }
    }

    async fn end_call(
        &mut self,
        call: ToolUse,
        content: Vec<Block>,
        is_error: bool,
        effect: Option<EffectStatus>,
    ) -> Result<(), Stopped> {
        let ended = effect.map(|status| EffectEnd { call: call.id.clone(), status });
        let in_doubt = effect == Some(EffectStatus::InDoubt);
        let id = call.id.clone();
        self.end_with(call, content, is_error, Beside { ended, ..Beside::default() }).await?;
        self.has_doubted |= in_doubt;
        self.doubts.extend(in_doubt.then_some(id));
        Ok(())
    }

    /// As [`Turn::end_call`], with what else changes together with the result.
    pub(super) async fn end_with(
        &mut self,
        call: ToolUse,
        mut content: Vec<Block>,
        is_error: bool,
        beside: Beside,
    ) -> Result<(), Stopped> {
        // Told once they are in the log, which may refuse this result for what comes with it.
        let workspace = self.workspace.get().cloned();
        let remarks = workspace.as_ref().map(|it| it.remarks()).unwrap_or_default();
        let n_remarks = remarks.len();
        content.extend(remarks.into_iter().map(Block::text));
        for block in &mut content {
            if let Block::Text { text } = block
                && let Cow::Owned(clean) = crate::domain::text::clean(text)
            {
                *text = clean;
            }
        }
        let result = self.transcript.result(call.id, content, is_error);
        let event = self.runtime.event(result.with_egress(self.decided()));
        // Also one that was refused: a model that goes on trying is stopped by its budget.
        let beside = Beside { tool_calls: 1, ..beside };
        self.append_with(vec![event], Spent::default(), beside).await?;
        if let Some(workspace) = workspace {
            workspace.told(n_remarks);
        }
        Ok(())
    }
}

/// A name under which every provider takes a call back. One that is no such name is no tool's, and the
/// call is denied; but in the conversation it stays, and would have each later request refused.
fn plain_name(name: &str) -> String {
    let is_plain = |char: &char| char.is_ascii_alphanumeric() || "_-".contains(*char);
    let plain = name.chars().map(|char| if is_plain(&char) { char } else { '_' });
    let plain: String = plain.take(NAME_CHARS_MAX).collect();
    if plain.is_empty() { "unnamed".to_owned() } else { plain }
}

/// What the ledger knows of a call before it is carried out.
fn intent(session: &Session, call: &ToolUse) -> NewEffect {
    let input = call.input.to_string();
    let (input, _) = first_chars(&input, INPUT_CHARS_MAX);
    NewEffect {
        call: call.id.clone(),
        agent_id: session.agent_id.clone(),
        tool: call.name.clone(),
        input: input.to_owned(),
    }
}
