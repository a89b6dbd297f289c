//! The built-in loop.

mod asking;
mod calls;
mod compact;
mod failing;
mod first;
mod grade;
mod limits;
mod previewer;
mod remote;
mod settling;

use std::{collections::BTreeSet, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::FutureExt;
use tokio::{sync::OnceCell, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, field::display};

pub use self::first::FirstRequest;
use self::{asking::Purpose, calls::tool_kind};
use super::{Runtime, Stopped, host, workspaces};
use crate::{
    agent::{self, Command, Transcript},
    clock::Timestamp,
    domain::{
        cost::Spent,
        environment::EnvironmentConfig,
        event::{Block, Event, EventBody, NewEvent, SessionError, StopReason},
        session::Session,
        source::WebhookTools,
        trace::TraceContext,
        turn::TurnEnd,
    },
    id::{EventId, Id, SourceId, TurnId},
    signal::Changes,
    store::{
        Beginning, Beside, Lease, Standing, Start, Taken, TakenDelivery, TakenMessage, TurnStart,
        Urgency,
    },
    tool::{self, Host},
};

/// Events read at once when a log is folded.
const READ_EVENTS: usize = 500;

impl Runtime {
    /// What the next turn begins with.
    pub fn beginning(&self) -> Beginning {
        let (now, opening) = (self.clock.now(), self.event(EventBody::StatusRunning));
        Beginning { turn_id: TurnId::new(now), trace: TraceContext::new(now), opening }
    }

    /// Works on a session until its turn ends, from its start if that has been made. `cancel` is told
    /// when the lease is lost or the process is stopping: nothing is written after that.
    pub async fn drive(
        &self,
        lease: &Lease,
        start: Option<Box<Start<FirstRequest>>>,
        cancel: &CancellationToken,
    ) -> Result<(), Stopped> {
        let started = self.clock.monotonic();
        let Start { turn: TurnStart { taken, standing }, first } = match start {
            Some(start) => *start,
            None => {
                let turn = self.store.begin_turn(lease, self.beginning()).await?;
                Start { turn, first: None }
            }
        };
        let named =
            |id: fn(&TakenDelivery) -> &str| listed(taken.deliveries.iter().map(id)).map(display);
        let span = tracing::error_span!(
            "turn",
            turn_id = %taken.turn_id,
            trace_id = %taken.trace.trace_id(),
            delivery_id = named(|it| it.delivery_id.as_str()),
            request_id = named(|it| it.request_id.as_str()),
        );
        // Boxed, as all of a turn is in it.
        Box::pin(self.work(lease, cancel, (taken, standing), first, started)).instrument(span).await
    }

    async fn work(
        &self,
        lease: &Lease,
        cancel: &CancellationToken,
        (taken, standing): (Taken, Option<Standing>),
        first: Option<(FirstRequest, Option<i64>)>,
        started: Instant,
    ) -> Result<(), Stopped> {
        let _running = self.store.metrics().turn_runs();
        let resumes = taken.resumes;
        self.count_taken(&taken.messages);
        tracing::debug!(messages = taken.messages.len(), resumes, "a turn begins");
        self.signals.changed(&lease.session_id);
        let standing = match standing {
            Some(standing) => standing,
            None => self.store.standing(&lease.session_id, READ_EVENTS).await?,
        };
        let picking_up = self.pick_up(lease, cancel, taken, standing, started);
        let (mut turn, session, place) = picking_up.await?;
        if let Some((first, ms_left)) = &first {
            turn.admitted(std::slice::from_ref(&first.start), *ms_left, started);
        }
        let Some(place) = place else {
            return turn.fail("unknown_error", "its environment was deleted".to_owned()).await;
        };
        if resumes > i64::from(self.options.resumes_max) {
            let message = format!("the turn was resumed {} times and got no further", resumes - 1);
            return turn.fail("unknown_error", message).await;
        }
        self.place_payloads(&turn.transcript, &session).await;
        if let Some((first, _)) = first
            && turn.ask_first(&session, &place, first).await?.is_break()
        {
            return Ok(());
        }
        loop {
            let kind = |name: &str| tool_kind(name);
            match agent::step(&turn.transcript, kind, &self.options.limits) {
                // What is over is over, well or badly; whatever came meanwhile is the next turn's.
                Command::Finish(end) => {
                    let events = turn.end_what_is_open(end);
                    return turn.finish(end, events).await;
                }
                Command::GoOn => turn.go_on().await?,
                _ if turn.urgency >= Urgency::Supersede => return turn.make_way().await,
                Command::CallModel | Command::Compact | Command::Grade
                    if turn.urgency == Urgency::Steer =>
                {
                    turn.take_up().await?;
                    self.place_payloads(&turn.transcript, &session).await;
                }
                Command::AbandonRequest(start) => turn.abandon_request(start).await?,
                Command::CallModel | Command::Compact if !turn.remote.is_known() => {
                    turn.learn(&session, &place).await?;
                }
                command @ (Command::CallModel | Command::Compact) => {
                    let is_summary = command == Command::Compact;
                    let purpose = if is_summary { Purpose::Summary } else { Purpose::Answer };
                    let setting = turn.setting(&session, &place);
                    if turn.call_model(&session, &setting, purpose).await?.is_break() {
                        return Ok(());
                    }
                }
                Command::Grade => {
                    if turn.grade(&session).await?.is_break() {
                        return Ok(());
                    }
                }
                Command::RunTool { call, warn } => {
                    if turn.run_tool(&session, &place, call, warn).await?.is_break() {
                        return Ok(());
                    }
                }
                Command::Doubt(call) => turn.doubt(call).await?,
                Command::Await(calls) => {
                    if turn.await_answers(calls).await?.is_break() {
                        return Ok(());
                    }
                }
                Command::AnswerTool { call, error } => turn.answer_error(call, error).await?,
                Command::StopRepeating(call) => return turn.stop_repeating(&call).await,
                Command::StopAtLimit => return turn.stop_at_limit().await,
            }
        }
    }

    /// Everything that a turn has to know before it goes on, and where it works.
    async fn pick_up<'a>(
        &'a self,
        lease: &'a Lease,
        cancel: &'a CancellationToken,
        taken: Taken,
        mut standing: Standing,
        started: Instant,
    ) -> Result<(Turn<'a>, Session, Option<EnvironmentConfig>), Stopped> {
        let log = std::mem::take(&mut standing.log);
        standing.log = self.rest_of(log, standing.has_more, lease).await?;
        let mut turn = Turn::new(self, lease, cancel, &taken, &standing, started);
        // What this much of the log does not name.
        turn.ask_sources().await?;
        Ok((turn, standing.session, standing.environment.map(|it| it.config)))
    }

    /// Ends the turn of a worker that panicked: the bug is said, and the session is idle again.
    pub async fn give_up(&self, lease: &Lease) -> Result<(), Stopped> {
        // The bug may be in here too.
        let folding = AssertUnwindSafe(self.fold(lease)).catch_unwind().await;
        let transcript = folding.unwrap_or_else(|_| Ok(Transcript::default()))?;
        let mut turn = Turn {
            runtime: self,
            lease,
            cancel: &CancellationToken::new(),
            begun_at: self.clock.now(),
            trace: TraceContext::new(self.clock.now()),
            started: self.clock.monotonic(),
            transcript,
            urgency: Urgency::None,
            workspace: OnceCell::new(),
            deadline: None,
            remote: remote::Tools::default(),
            doubts: BTreeSet::new(),
            has_doubted: false,
            asked: BTreeSet::new(),
            webhook_tools: WebhookTools::default(),
            has_budget: false,
        };
        turn.fail("unknown_error", "a bug in this server ended the turn".to_owned()).await
    }

    async fn fold(&self, lease: &Lease) -> Result<Transcript, Stopped> {
        let log = self.rest_of(Vec::new(), true, lease).await?;
        let begun = self.store.begun(&lease.session_id).await?;
        Ok(Transcript::of(&log, &begun))
    }

    /// All of a log of which the beginning has been read.
    async fn rest_of(
        &self,
        mut log: Vec<Event>,
        mut has_more: bool,
        lease: &Lease,
    ) -> Result<Vec<Event>, Stopped> {
        while has_more {
            let after = log.last().map_or(0, |event| event.seq.unwrap_or(0));
            let more = self.store.events_after(&lease.session_id, after, READ_EVENTS).await?;
            has_more = !more.is_empty();
            log.extend(more);
        }
        Ok(log)
    }

    /// The whole payload as a file, where the message shows only a part. A file that cannot be
    /// written does not stop the turn: the `delivery` tool reads the same bytes.
    async fn place_payloads(&self, transcript: &Transcript, session: &Session) {
        let workspace = OnceCell::new();
        let (session_id, workspace) = (&session.id, &workspace);
        let host = host::SessionHost { runtime: self, session_id, workspace };
        let workspace = workspaces::own_directory(&self.options.workspaces, session_id);
        for delivery in &transcript.cut_deliveries {
            // A long session has many, and their bodies are read for one file each.
            if host::is_placed(&workspace, delivery).await {
                continue;
            }
            let Ok(payload) = host.delivery(Some(delivery.clone())).await else { continue };
            if let Err(error) = host::place_payload(&workspace, &payload).await {
                tracing::warn!(%error, "a payload's file was not written");
            }
        }
    }

    /// How long messages waited for a turn.
    fn count_taken(&self, messages: &[TakenMessage]) {
        let now = self.clock.now();
        for message in messages {
            self.store.metrics().taken(now.since(message.received_at));
        }
    }

    fn event(&self, body: EventBody) -> NewEvent {
        NewEvent::new(EventId::new(self.clock.now()), body)
    }
}

/// Ids of one kind that a line of the log names; of the others it tells the number.
const LISTED: usize = 5;

/// The ids of what a turn answers: one, most of the time. `None` when somebody typed.
fn listed<'a>(ids: impl ExactSizeIterator<Item = &'a str>) -> Option<String> {
    let n_others = ids.len().saturating_sub(LISTED);
    let named: Vec<&str> = ids.take(LISTED).collect();
    match (named.is_empty(), n_others) {
        (true, _) => None,
        (false, 0) => Some(named.join(" ")),
        (false, n_others) => Some(format!("{} and {n_others} more", named.join(" "))),
    }
}

/// One turn being worked on.
struct Turn<'a> {
    runtime: &'a Runtime,
    lease: &'a Lease,
    cancel: &'a CancellationToken,
    /// When the turn began, perhaps in an earlier life.
    begun_at: Timestamp,
    trace: TraceContext,
    /// When the work on it began here.
    started: Instant,
    transcript: Transcript,
    /// What messages that came meanwhile ask of it, as of the last look at the session.
    urgency: Urgency,
    /// Prepared when a tool first asks for it.
    workspace: OnceCell<Arc<tool::Workspace>>,
    /// When what is under way has to end for the sake of a budget.
    deadline: Option<Instant>,
    /// What its MCP servers offer, once they were asked.
    remote: remote::Tools,
    /// Effects of the session of which nobody knows what became of them, as of the turn's begin and by
    /// what it did since.
    doubts: BTreeSet<EventId>,
    /// Whether the session ever had one.
    has_doubted: bool,
    /// The sources that were asked what they leave to tools that do more than read, and what they say.
    asked: BTreeSet<SourceId>,
    webhook_tools: WebhookTools,
    /// Whether the session has a budget in dollars: then each turn ends with what was used.
    has_budget: bool,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if let Some(mcp) = &self.runtime.mcp {
            mcp.close(&self.lease.session_id);
        }
    }
}

impl<'a> Turn<'a> {
    /// With all of its session's log.
    fn new(
        runtime: &'a Runtime,
        lease: &'a Lease,
        cancel: &'a CancellationToken,
        taken: &Taken,
        standing: &Standing,
        started: Instant,
    ) -> Turn<'a> {
        Turn {
            runtime,
            lease,
            cancel,
            begun_at: taken.started_at,
            trace: taken.trace,
            started,
            transcript: Transcript::of(&standing.log, &standing.begun),
            urgency: taken.urgency,
            workspace: OnceCell::new(),
            deadline: None,
            remote: remote::Tools::of(&standing.session),
            doubts: standing.doubts.clone(),
            has_doubted: standing.has_doubted,
            asked: standing.sources.clone(),
            webhook_tools: standing.webhook_tools,
            has_budget: standing.session.budget.cost_usd.is_some(),
        }
    }
}

impl Turn<'_> {
    /// Journals, then takes it into the transcript. The order is the invariant.
    async fn append(&mut self, events: Vec<NewEvent>, spent: Spent) -> Result<(), Stopped> {
        self.append_with(events, spent, Beside::default()).await
    }

    /// As [`Turn::append`], together with what changes beside the log.
    async fn append_with(
        &mut self,
        events: Vec<NewEvent>,
        spent: Spent,
        beside: Beside,
    ) -> Result<(), Stopped> {
        if self.cancel.is_cancelled() {
            return Err(Stopped::Cancelled);
        }
        let store = &self.runtime.store;
        self.urgency = store.append_with(self.lease, events.clone(), spent, beside).await?;
        self.told(&events);
        for event in events {
            self.transcript.apply(&event.id, &event.body, event.private.as_ref());
        }
        self.runtime.signals.changed(&self.lease.session_id);
        Ok(())
    }

    /// Acts, unless told to stop before it is done.
    async fn act<T>(&self, work: impl Future<Output = T>) -> Result<T, Stopped> {
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(Stopped::Cancelled),
            result = work => Ok(result),
        }
    }

    /// Messages that shall be taken up join the turn.
    async fn take_up(&mut self) -> Result<(), Stopped> {
        if self.cancel.is_cancelled() {
            return Err(Stopped::Cancelled);
        }
        let messages = self.runtime.store.take_up(self.lease).await?;
        self.runtime.count_taken(&messages);
        tracing::debug!(messages = messages.len(), "messages were taken up by the turn");
        self.runtime.signals.changed(&self.lease.session_id);
        self.urgency = Urgency::None;
        self.transcript = self.runtime.fold(self.lease).await?;
        self.ask_sources().await
    }

    /// The turn ends for the sake of a message that came meanwhile, which is the next one's.
    async fn make_way(&mut self) -> Result<(), Stopped> {
        let events = self.end_what_is_open(TurnEnd::Interrupted);
        self.finish(TurnEnd::Interrupted, events).await
    }

    /// Until a message asks the turn to make way, or somebody stops it. It hears of that by a signal:
    /// from whoever says so, or from its worker, which looks every now and then.
    async fn superseded(&self, mut changes: Changes) -> Urgency {
        loop {
            changes.wait().await;
            match self.runtime.store.urgency(&self.lease.session_id).await {
                Ok(urgency) if urgency >= Urgency::Supersede => return urgency,
                _ => {}
            }
        }
    }

    /// Acts, unless told to stop, or to make way, before it is done: then it is dropped.
    async fn act_until_urgent<T>(
        &self,
        changes: Changes,
        work: impl Future<Output = T>,
    ) -> Result<Result<T, Urgency>, Stopped> {
        let acting = async {
            tokio::select! {
                biased;
                urgency = self.superseded(changes) => Err(urgency),
                // Whoever looks at the budget next sees that it is used up.
                () = self.time_is_up() => Err(Urgency::None),
                result = work => Ok(result),
            }
        };
        self.act(acting).await
    }

    async fn go_on(&mut self) -> Result<(), Stopped> {
        let running = self.runtime.event(EventBody::StatusRunning);
        self.append(vec![running], Spent::default()).await
    }

    fn active(&self) -> Duration {
        self.runtime.clock.monotonic() - self.started
    }

    async fn fail(&mut self, kind: &str, message: String) -> Result<(), Stopped> {
        let mut events = self.end_what_is_open(TurnEnd::Failed);
        let error = SessionError::exhausted(kind, message);
        events.push(self.runtime.event(EventBody::SessionError { error }));
        self.finish(TurnEnd::Failed, events).await
    }

    /// A turn that ends leaves no request without an end and no call without a result: the next
    /// turn's conversation could not be told to a model. Nor does it leave an outcome that nobody works
    /// on any more.
    fn end_what_is_open(&self, end: TurnEnd) -> Vec<NewEvent> {
        let start = self.transcript.open_request.clone();
        let request = start.map(|start| self.request_end(start, Some(true), Spent::default()));
        let mut decided = self.decided();
        let results = self.transcript.open_tools.iter().map(|open| {
            let text = match open.begun {
                true => agent::interrupted(&open.call.id),
                false => agent::NOT_RUN.to_owned(),
            };
            let content = vec![Block::text(text)];
            // The first that was begun tells all of it.
            let egress = if open.begun { std::mem::take(&mut decided) } else { Vec::new() };
            let result = self.transcript.result(open.call.id.clone(), content, true);
            self.runtime.event(result.with_egress(egress))
        });
        request.into_iter().chain(results).chain(self.end_goal(end)).collect()
    }

    /// Before anybody hears that the session rests.
    async fn take_outputs(&self) {
        let (runtime, session_id) = (self.runtime, &self.lease.session_id);
        let own = workspaces::own_directory(&runtime.options.workspaces, session_id);
        // Written by this turn, or before a server died.
        if self.workspace.get().is_none() && !workspaces::outputs::any(&own) {
            return;
        }
        let host = host::SessionHost { runtime, session_id, workspace: &self.workspace };
        match host.workspace().await {
            Ok(workspace) => {
                let outputs = runtime.options.outputs;
                workspaces::outputs::take(&runtime.store, session_id, &workspace, outputs).await;
            }
            Err(error) => tracing::warn!(%error, "the outputs of a session cannot be looked at"),
        }
    }

    async fn finish(&mut self, end: TurnEnd, mut events: Vec<NewEvent>) -> Result<(), Stopped> {
        if self.cancel.is_cancelled() {
            return Err(Stopped::Cancelled);
        }
        if self.has_budget && end != TurnEnd::BudgetReached {
            let session = self.runtime.store.session(&self.lease.session_id).await?;
            events.push(self.usage(session));
        }
        events.push(self.runtime.event(EventBody::StatusIdle {
            stop_reason: StopReason::from(end),
            stop_details: self.transcript.refusal.clone().filter(|_| end == TurnEnd::Refusal),
        }));
        self.take_outputs().await;
        let active = self.active();
        self.runtime.store.finish(self.lease, end, events.clone(), active).await?;
        self.told(&events);
        let duration = self.runtime.clock.now().since(self.begun_at);
        self.runtime.store.metrics().turn_ended(end, duration);
        let (result, took_ms) = (end.as_str(), duration.as_millis());
        match end {
            TurnEnd::EndTurn | TurnEnd::Refusal | TurnEnd::Interrupted => {
                tracing::info!(result, took_ms, "the turn ended");
            }
            TurnEnd::RetriesExhausted | TurnEnd::BudgetReached | TurnEnd::Failed => {
                tracing::warn!(result, took_ms, "the turn ended without success");
            }
        }
        self.runtime.signals.changed(&self.lease.session_id);
        // Messages may have come meanwhile.
        self.runtime.signals.due();
        // And somebody may want to hear of it.
        self.runtime.signals.outgoing();
        Ok(())
    }
}
